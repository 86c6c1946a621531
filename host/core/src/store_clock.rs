//! Time by the store's clock, without a call to the store for each look.
//!
//! Servers that share a store must agree on when a lease ends, whatever their own clocks say. So everything that is stored, or
//! compared with what is stored, is reckoned by the store's clock. It is measured again and again; between two measurements time goes on
//! by this server's steady clock, so that nobody who sets the clock of this machine makes a lease longer or shorter.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_model::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::seams::host::Clock;
use crate::seams::storage::{Storage, StorageError};

/// How often it is measured.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// An old measurement is in doubt by one part in so many of its age, so that a store that is always slow is believed in the end.
const DOUBT_GROWS: u32 = 20;

/// The store's clock, as far as this server knows it.
pub(crate) struct StoreClock {
    node: Arc<dyn Clock>,
    /// What the store's clock says at the zero of this server's steady clock.
    origin_nanos: AtomicI64,
    last: Mutex<Option<Measured>>,
    /// Until then the wall clock of this server has to do.
    is_measured: AtomicBool,
}

/// A measurement that was believed.
#[derive(Clone, Copy)]
struct Measured {
    origin_nanos: i64,
    /// Half of how long the answer took: the store may have read its clock that much sooner or later.
    doubt: Duration,
    /// By this server's steady clock.
    at: Duration,
}

impl Measured {
    /// Whether `newer` says something that this does not: it is more exact, or both cannot be right.
    fn gives_way_to(&self, newer: &Self) -> bool {
        let doubt = self.doubt + newer.at.saturating_sub(self.at) / DOUBT_GROWS;
        let apart = self.origin_nanos.abs_diff(newer.origin_nanos);
        newer.doubt <= doubt || u128::from(apart) > (newer.doubt + doubt).as_nanos()
    }
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
        Self { node, origin_nanos: AtomicI64::new(0), last: Mutex::default(), is_measured: AtomicBool::new(false) }
    }

    /// Measures it. The store is taken to have read its clock in the middle of the call; what took long, because the store was slow or this
    /// process stood still, says little, and changes nothing that is known better.
    pub async fn refresh(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let asked = self.node.steady();
        let said = storage.now().await?.as_nanos();
        let at = self.node.steady();
        let doubt = at.saturating_sub(asked) / 2;
        let measured = Measured { origin_nanos: said.saturating_sub(nanos(asked + doubt)), doubt, at };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.gives_way_to(&measured)) {
            *last = Some(measured);
            self.origin_nanos.store(measured.origin_nanos, Ordering::Relaxed);
            self.is_measured.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Follows the store's clock until `stop` says so. While the store does not answer, the last measurement holds.
    pub async fn follow(&self, storage: &dyn Storage, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(origin_secs: i64, doubt_ms: u64, at_secs: u64) -> Measured {
        let (doubt, at) = (Duration::from_millis(doubt_ms), Duration::from_secs(at_secs));
        Measured { origin_nanos: origin_secs * 1_000_000_000, doubt, at }
    }

    #[test]
    fn an_answer_that_took_long_changes_nothing_that_is_known_better() {
        let known = measured(1_000, 1, 10);
        for (newer, is_believed, why) in [
            (measured(1_000, 1, 11), true, "as exact"),
            (measured(1_000, 51, 11), true, "as exact as one of a second ago"),
            (measured(1_000, 52, 11), false, "a little less exact"),
            (measured(1_002, 2_250, 15), false, "the process stood still for 4.5 s between question and answer"),
            (measured(1_000, 500, 20), true, "the store has been slow for ten seconds"),
            (measured(1_600, 2_250, 15), true, "the store's clock was set, or another machine is the store now"),
            (measured(400, 2_250, 15), true, "and back"),
        ] {
            assert_eq!(known.gives_way_to(&newer), is_believed, "{why}");
        }
    }
}
