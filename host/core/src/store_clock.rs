//! Time by the store's clock, without a call to the store for each look.
//!
//! Servers that share a store must agree on when a lease ends, whatever their own clocks say. So everything that is stored, or
//! compared with what is stored, is reckoned by the store's clock: this server's own plus an offset that is measured again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use leasehold_model::Timestamp;
use tokio::sync::watch;

use crate::seams::host::Clock;
use crate::seams::storage::{Storage, StorageError};

/// How often the offset is measured.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// This server's clock, moved to where the store's stands.
pub(crate) struct StoreClock {
    node: Arc<dyn Clock>,
    offset_nanos: AtomicI64,
}

impl std::fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreClock").field("offset_nanos", &self.offset_nanos).finish_non_exhaustive()
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        let offset = self.offset_nanos.load(Ordering::Relaxed);
        Timestamp::from_nanos(self.node.now().as_nanos().saturating_add(offset))
    }

    fn steady(&self) -> Duration {
        self.node.steady()
    }
}

impl StoreClock {
    pub fn new(node: Arc<dyn Clock>) -> Self {
        Self { node, offset_nanos: AtomicI64::new(0) }
    }

    /// Measures the offset. The store is taken to have read its clock in the middle of the call.
    pub async fn refresh(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let asked = self.node.now().as_nanos();
        let said = storage.now().await?.as_nanos();
        let answered = self.node.now().as_nanos();
        let middle = asked.saturating_add(answered.saturating_sub(asked) / 2);
        self.offset_nanos.store(said.saturating_sub(middle), Ordering::Relaxed);
        Ok(())
    }

    /// Follows the store's clock until `stop` says so. While the store does not answer, the last offset holds.
    pub async fn follow(&self, storage: &dyn Storage, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                () = tokio::time::sleep(REFRESH_EVERY) => {
                    if let Err(error) = self.refresh(storage).await {
                        tracing::debug!(%error, "the store did not tell its time");
                    }
                }
                changed = stop.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
    }
}
