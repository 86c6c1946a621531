//! Who may run when: places for each binding of a policy module, and a short queue for them.
//!
//! Must not know: what runs, or how strictly a binding counts.
//!
//! Start with [`BindingPlaces::take`].
//!
//! Invariants: a binding never holds more than its own places, so a module that burns time or memory keeps nobody from
//! another binding's paths while all bindings together have no more places than there are. All of them together never
//! hold more than `modules_at_once`, which bounds the memory of all modules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::seams::sandbox::SandboxError;
use leasehold_model::lock::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::GuestLimits;

/// Bindings whose places are remembered before those that nobody uses are forgotten.
const REMEMBERED: usize = 1_024;

pub(crate) struct BindingPlaces {
    bindings: Mutex<HashMap<String, Arc<Lane>>>,
    /// Over all bindings.
    all: Arc<Semaphore>,
    at_once: usize,
    queue: usize,
    patience: Duration,
}

/// The places of one binding.
struct Lane {
    running: Arc<Semaphore>,
    /// Those that run and those that wait.
    admitted: Arc<Semaphore>,
}

/// Given back when it is dropped.
pub(crate) struct Place {
    _running: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl BindingPlaces {
    pub(crate) fn new(limits: &GuestLimits) -> Self {
        let all = limits.modules_at_once.max(1) as usize;
        Self {
            bindings: Mutex::default(),
            all: Arc::new(Semaphore::new(all)),
            at_once: (limits.binding_at_once.max(1) as usize).min(all),
            queue: limits.binding_queue as usize,
            patience: limits.binding_patience,
        }
    }

    /// Waits for a place of this binding, but not long.
    ///
    /// # Errors
    /// [`SandboxError::Busy`] if the queue is full, or no place came free in time.
    pub(crate) async fn take(&self, binding: &str) -> Result<Place, SandboxError> {
        let lane = self.lane(binding);
        let _admitted = Arc::clone(&lane.admitted).try_acquire_owned().map_err(|_| SandboxError::Busy)?;
        let place = async {
            // First one's own, so that who waits here holds nothing that belongs to all.
            let running = Arc::clone(&lane.running).acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place { _running: running, _all: all })
        };
        match tokio::time::timeout(self.patience, place).await {
            Ok(Some(place)) => Ok(place),
            Ok(None) | Err(_) => Err(SandboxError::Busy),
        }
    }

    fn lane(&self, binding: &str) -> Arc<Lane> {
        let mut bindings = self.bindings.lock();
        if let Some(lane) = bindings.get(binding) {
            return Arc::clone(lane);
        }
        if bindings.len() >= REMEMBERED {
            // One in use is held by its permits, too.
            bindings.retain(|_, lane| Arc::strong_count(lane) > 1 || Arc::strong_count(&lane.running) > 1);
        }
        let lane = Arc::new(Lane {
            running: Arc::new(Semaphore::new(self.at_once)),
            admitted: Arc::new(Semaphore::new(self.queue.saturating_add(1))),
        });
        bindings.insert(binding.to_owned(), Arc::clone(&lane));
        lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: u32, own: u32, queue: u32) -> BindingPlaces {
        let limits = GuestLimits {
            modules_at_once: all,
            binding_at_once: own,
            binding_queue: queue,
            binding_patience: Duration::from_millis(500),
            ..GuestLimits::default()
        };
        BindingPlaces::new(&limits)
    }

    #[tokio::test(start_paused = true)]
    async fn a_binding_that_is_all_used_up_takes_nothing_from_another() {
        let places = places(4, 2, 8);
        let _held = [places.take("slow").await.unwrap(), places.take("slow").await.unwrap()];
        assert_eq!(places.take("slow").await.err(), Some(SandboxError::Busy));
        for _ in 0..10 {
            places.take("quick").await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_place_and_a_full_queue_turns_away_at_once() {
        let places = Arc::new(places(4, 1, 2));
        let held = places.take("one").await.unwrap();
        let wait = || {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.take("one").await.map(drop) })
        };
        let waiting: Vec<_> = (0..3).map(|_| wait()).collect();
        tokio::task::yield_now().await;
        let begun = tokio::time::Instant::now();
        assert_eq!(places.take("one").await.err(), Some(SandboxError::Busy));
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits behind a full queue");
        drop(held);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_bindings_together_hold_no_more_than_there_are() {
        let places = places(3, 1, 0);
        let held: Vec<_> = futures_of(&places, &["a", "b", "c"]).await;
        assert_eq!(places.take("d").await.err(), Some(SandboxError::Busy));
        drop(held);
        places.take("d").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn places_of_bindings_that_are_gone_are_forgotten() {
        let places = places(4, 1, 0);
        let held = places.take("kept").await.unwrap();
        for number in 0..3 * REMEMBERED {
            places.take(&number.to_string()).await.unwrap();
        }
        assert!(places.bindings.lock().len() <= REMEMBERED);
        assert_eq!(places.take("kept").await.err(), Some(SandboxError::Busy), "one in use is not");
        drop(held);
    }

    async fn futures_of(places: &BindingPlaces, names: &[&str]) -> Vec<Place> {
        let mut held = Vec::new();
        for name in names {
            held.push(places.take(name).await.unwrap());
        }
        held
    }
}
