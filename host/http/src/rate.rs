//! How often one client address may show a proof in a body: a password, a key share, a wrapping token.
//!
//! Must not know: which requests those are.
//!
//! The table has a fixed size, so that no number of addresses makes it grow or pushes a known one out: an address has the
//! place that a keyed hash gives it, and shares it with the few others that fall there.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::listener::holder;

/// 32 KiB of memory.
const PLACES: usize = 4_096;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// A token bucket for each address: full at first, emptied by requests, filled again with time.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// For each place, in microseconds after `began`: when its bucket will be full again.
    full_at: Box<[AtomicU64]>,
    hasher: RandomState,
    began: Instant,
    /// Microseconds that fill in one request.
    interval: u64,
    /// Microseconds that fill the whole bucket.
    capacity: u64,
}

impl RateLimit {
    /// `burst` requests at once, and `per_second` more in every second.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let interval = MICROS_PER_SECOND.checked_div(u64::from(per_second)).unwrap_or(u64::MAX / 2);
        Self {
            full_at: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            began: Instant::now(),
            interval,
            capacity: interval.saturating_mul(u64::from(burst)),
        }
    }

    /// Takes one request out of the bucket of `address`, if there is one in it.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.allows_at(address, self.began.elapsed())
    }

    /// `now` is counted from the beginning.
    fn allows_at(&self, address: IpAddr, now: Duration) -> bool {
        let hash = self.hasher.hash_one(holder(address));
        let at = usize::try_from(hash % PLACES as u64).unwrap_or_default();
        let Some(place) = self.full_at.get(at) else { return false };
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let taken = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(self.interval);
            (full_at - now <= self.capacity).then_some(full_at)
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limit: &RateLimit, address: &str, now_ms: u64, tries: usize) -> usize {
        let now = Duration::from_millis(now_ms);
        (0..tries).filter(|_| limit.allows_at(address.parse().unwrap(), now)).count()
    }

    #[test]
    fn a_client_may_burst_and_then_has_its_rate() {
        let limit = RateLimit::new(10, 5);
        assert_eq!(allowed(&limit, "10.0.0.1", 0, 100), 5);
        assert_eq!(allowed(&limit, "::ffff:10.0.0.1", 300, 100), 3, "the other spelling is the same client");
        assert_eq!(allowed(&limit, "10.0.0.1", 3_600_000, 100), 5, "a bucket holds no more than its burst");
    }

    #[test]
    fn one_client_does_not_use_up_what_belongs_to_others() {
        let limit = RateLimit::new(1, 1);
        assert_eq!(allowed(&limit, "10.0.0.1", 0, 1_000), 1);
        // Few of them share the place of another.
        let others = (0..200).filter(|last| allowed(&limit, &format!("10.0.1.{last}"), 0, 1) == 1).count();
        assert!(others > 150, "{others}");
    }

    #[test]
    fn no_burst_is_none_and_no_rate_fills_nothing_again() {
        assert_eq!(allowed(&RateLimit::new(10, 0), "10.0.0.1", 0, 3), 0);
        let limit = RateLimit::new(0, 1);
        assert_eq!(allowed(&limit, "10.0.0.1", 0, 3), 1);
        assert_eq!(allowed(&limit, "10.0.0.1", 3_600_000, 3), 0);
    }
}
