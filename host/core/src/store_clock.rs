//! Time by the store's clock, without a call to the store for each look.
//!
//! Servers that share a store must agree on when a lease ends, whatever their own clocks say. So everything that is stored, or
//! compared with what is stored, is reckoned by the store's clock. It is measured again and again; between two measurements time goes on
//! by this server's steady clock, so that nobody who sets the clock of this machine makes a lease longer or shorter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use leasehold_model::Timestamp;
use tokio::sync::watch;

use crate::seams::host::Clock;
use crate::seams::storage::{Storage, StorageError};

/// How often it is measured.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// The store's clock, as far as this server knows it.
pub(crate) struct StoreClock {
    node: Arc<dyn Clock>,
    /// What the store's clock says at the zero of this server's steady clock.
    origin_nanos: AtomicI64,
    /// Until then the wall clock of this server has to do.
    is_measured: AtomicBool,
}

impl std::fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreClock").field("origin_nanos", &self.origin_nanos).finish_non_exhaustive()
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        if !self.is_measured.load(Ordering::Acquire) {
            return self.node.now();
        }
        let origin = self.origin_nanos.load(Ordering::Relaxed);
        Timestamp::from_nanos(origin.saturating_add(nanos(self.node.steady())))
    }

    fn steady(&self) -> Duration {
        self.node.steady()
    }
}

impl StoreClock {
    pub fn new(node: Arc<dyn Clock>) -> Self {
        Self { node, origin_nanos: AtomicI64::new(0), is_measured: AtomicBool::new(false) }
    }

    /// Measures it. The store is taken to have read its clock in the middle of the call.
    pub async fn refresh(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let asked = self.node.steady();
        let said = storage.now().await?.as_nanos();
        let middle = asked + self.node.steady().saturating_sub(asked) / 2;
        self.origin_nanos.store(said.saturating_sub(nanos(middle)), Ordering::Relaxed);
        self.is_measured.store(true, Ordering::Release);
        Ok(())
    }

    /// Follows the store's clock until `stop` says so. While the store does not answer, the last measurement holds.
    pub async fn follow(&self, storage: &dyn Storage, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                () = tokio::time::sleep(REFRESH_EVERY) => {
                    if let Err(error) = self.refresh(storage).await {
                        tracing::debug!(%error, "the store did not tell its time");
                    }
                }
            }
        }
    }
}

fn nanos(length: Duration) -> i64 {
    i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)
}
