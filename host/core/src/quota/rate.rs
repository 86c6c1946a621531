//! Requests, counted for each client and each rate limit in the memory of this server.
//!
//! A client's first request begins a window, in which it may send so many requests; the first one after its end begins the next. Where
//! there are several servers, this one lets its share of them in, and draws for more ([`super::pool`]).
//!
//! Invariant: the memory that windows take is bounded. Beyond that, those that end first are forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold_model::Ttl;
use serde::{Deserialize, Serialize};

use super::scope::Scope;

/// The most windows that are kept, of all rate limits together: some 20 MB.
const WINDOWS_MAX: usize = 100_000;

/// More in one window is as good as no limit, and a float still counts so far without gaps.
const REQUESTS_MAX: f64 = 1e15;

/// No window is longer: it is as good as for ever.
const WINDOW_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// How many requests each client may send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// New with each change, so that counting begins anew.
    pub id: String,
    pub name: String,
    pub scope: Scope,
    /// Greater than zero.
    pub rate: f64,
    /// Never zero.
    pub interval: Ttl,
    /// For how long a client is refused after it has reached the limit; zero: until its window ends.
    pub block_interval: Ttl,
    pub inheritable: bool,
}

impl RateLimit {
    /// How many requests a window has, and how long it is. Where the rate is no whole number, both are somewhat greater.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to what fits")]
    fn window(&self) -> (u64, Duration) {
        let rate = self.rate.clamp(f64::MIN_POSITIVE, REQUESTS_MAX);
        let requests = rate.ceil();
        let secs = Duration::from_secs(self.interval.as_secs()).as_secs_f64() * (requests / rate);
        let length = Duration::try_from_secs_f64(secs).unwrap_or(WINDOW_MAX).min(WINDOW_MAX);
        (requests as u64, length)
    }
}

/// What a client is told about its window, in `X-RateLimit-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateCounts {
    pub limit: u64,
    pub remaining: u64,
    /// Until the window ends, rounded up.
    pub reset_secs: u64,
}

/// What a rate limit says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Allowed(RateCounts),
    /// To be tried again after `retry_secs`, rounded up. A client that is blocked is told no counts, as in OpenBao.
    Refused {
        retry_secs: u64,
        counts: Option<RateCounts>,
    },
    /// The client has had this server's share. There may be more: see [`Windows::grant`].
    Draw(Draw),
}

/// What is to be drawn for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    /// As many as each server lets in without asking.
    pub batch: u64,
    /// Of the whole window.
    pub most: u64,
    /// Until the window ends.
    pub left: Duration,
}

/// One client's requests under one rate limit. All moments are those of the steady clock.
#[derive(Clone, Copy, Debug)]
struct Window {
    ends_at: Duration,
    taken: u64,
    /// How many this server may let in.
    granted: u64,
    /// No more can be drawn.
    is_drained: bool,
    blocked_until: Duration,
}

impl Window {
    fn is_over(&self, now: Duration) -> bool {
        now >= self.ends_at.max(self.blocked_until)
    }
}

/// The windows of all rate limits.
#[derive(Debug, Default)]
pub(crate) struct Windows(Mutex<HashMap<(String, Option<IpAddr>), Window>>);

impl Windows {
    /// Counts a request of `client`; those whose address is not known, as over a Unix socket, are one client. `servers`: that share them.
    pub(crate) fn take(&self, limit: &RateLimit, client: Option<IpAddr>, now: Duration, servers: usize) -> Taken {
        let (most, length) = limit.window();
        let batch = (most / (servers as u64).max(1)).max(1);
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (limit.id.clone(), client);
        if windows.len() >= WINDOWS_MAX && !windows.contains_key(&key) {
            free_places(&mut windows, now);
        }
        let fresh = Window {
            ends_at: now + length,
            taken: 0,
            granted: batch,
            is_drained: false,
            blocked_until: Duration::ZERO,
        };
        let window = windows.entry(key).or_insert(fresh);
        if now < window.blocked_until {
            return Taken::Refused { retry_secs: whole_secs(window.blocked_until - now), counts: None };
        }
        if now >= window.ends_at {
            *window = fresh;
        }
        let is_allowed = window.taken < window.granted.min(most);
        if !is_allowed && window.granted < most && !window.is_drained {
            return Taken::Draw(Draw { batch, most, left: window.ends_at - now });
        }
        window.taken += u64::from(is_allowed);
        let reset_secs = whole_secs(window.ends_at - now);
        let counts = RateCounts { limit: most, remaining: most - window.taken, reset_secs };
        if is_allowed {
            return Taken::Allowed(counts);
        }
        let block = Duration::from_secs(limit.block_interval.as_secs()).min(WINDOW_MAX);
        window.blocked_until = now + block;
        let retry_secs = if block.is_zero() { reset_secs } else { whole_secs(block) };
        Taken::Refused { retry_secs, counts: Some(counts) }
    }

    /// So many requests were drawn for a client; none: there are no more in this window.
    pub(crate) fn grant(&self, limit: &RateLimit, client: Option<IpAddr>, drawn: u64) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(&(limit.id.clone(), client)) {
            window.granted = window.granted.saturating_add(drawn);
            window.is_drained |= drawn == 0;
        }
    }

    /// Forgets the windows of limits that are there no more.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _), _| is_there(id));
    }
}

/// Rounded up: whoever waits for so long is let in.
fn whole_secs(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// Each call frees half of all places, so that a flood of new addresses costs little for each of them.
fn free_places(windows: &mut HashMap<(String, Option<IpAddr>), Window>, now: Duration) {
    windows.retain(|_, window| !window.is_over(now));
    if windows.len() <= WINDOWS_MAX / 2 {
        return;
    }
    let end = |window: &Window| window.ends_at.max(window.blocked_until);
    let mut ends: Vec<Duration> = windows.values().map(end).collect();
    let middle = ends.len() - WINDOWS_MAX / 2;
    let (_, first_kept, _) = ends.select_nth_unstable(middle);
    let first_kept = *first_kept;
    let mut places = WINDOWS_MAX / 2;
    windows.retain(|_, window| {
        let stays = end(window) >= first_kept && places > 0;
        places -= usize::from(stays);
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: f64, interval: u64, block_interval: u64) -> RateLimit {
        RateLimit {
            id: "id".to_owned(),
            name: "name".to_owned(),
            scope: Scope::default(),
            rate,
            interval: Ttl::from_secs(interval),
            block_interval: Ttl::from_secs(block_interval),
            inheritable: true,
        }
    }

    fn client(last: u32) -> Option<IpAddr> {
        Some(IpAddr::from(last.to_be_bytes()))
    }

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    fn is_allowed(taken: Taken) -> bool {
        matches!(taken, Taken::Allowed(_))
    }

    #[test]
    fn a_client_has_so_many_requests_in_a_window_and_is_told_when_the_next_begins() {
        let (windows, two) = (Windows::default(), limit(2.0, 10, 0));
        let counts = |remaining, reset_secs| RateCounts { limit: 2, remaining, reset_secs };
        assert_eq!(windows.take(&two, client(1), secs(100.0), 1), Taken::Allowed(counts(1, 10)));
        assert_eq!(windows.take(&two, client(1), secs(103.5), 1), Taken::Allowed(counts(0, 7)));
        let refused = Taken::Refused { retry_secs: 7, counts: Some(counts(0, 7)) };
        assert_eq!(windows.take(&two, client(1), secs(103.5), 1), refused);
        assert!(is_allowed(windows.take(&two, client(2), secs(103.5), 1)), "another client has a window of its own");
        let anew = RateLimit { id: "other".to_owned(), ..two.clone() };
        assert!(is_allowed(windows.take(&anew, client(1), secs(103.5), 1)), "another limit counts for itself");
        assert!(!is_allowed(windows.take(&two, client(1), secs(109.9), 1)));
        assert_eq!(windows.take(&two, client(1), secs(110.0), 1), Taken::Allowed(counts(1, 10)));
    }

    #[test]
    fn who_reaches_the_limit_is_blocked_for_as_long_as_the_limit_says() {
        let (windows, one) = (Windows::default(), limit(1.0, 1, 20));
        assert!(is_allowed(windows.take(&one, client(1), secs(0.0), 1)));
        let counts = Some(RateCounts { limit: 1, remaining: 0, reset_secs: 1 });
        assert_eq!(windows.take(&one, client(1), secs(0.5), 1), Taken::Refused { retry_secs: 20, counts });
        // Asking meanwhile makes it no longer.
        assert_eq!(windows.take(&one, client(1), secs(10.0), 1), Taken::Refused { retry_secs: 11, counts: None });
        assert_eq!(windows.take(&one, client(1), secs(20.4), 1), Taken::Refused { retry_secs: 1, counts: None });
        assert!(is_allowed(windows.take(&one, client(1), secs(20.5), 1)));
    }

    #[test]
    fn a_rate_that_is_no_whole_number_holds_over_time() {
        for (rate, interval, requests, length) in [
            (2.0, 1, 2, secs(1.0)),
            (2.5, 1, 3, secs(1.2)),
            // In OpenBao this lets one request in and none ever after.
            (0.25, 1, 1, secs(4.0)),
            (1e300, 1, 1_000_000_000_000_000, secs(1.0)),
            (1e-300, 1, 1, WINDOW_MAX),
            (1.0, u64::MAX, 1, WINDOW_MAX),
        ] {
            assert_eq!(limit(rate, interval, 0).window(), (requests, length), "{rate}");
        }
        let (windows, forever) = (Windows::default(), limit(1.0, 1, u64::MAX));
        for _ in 0..2 {
            windows.take(&forever, client(1), secs(0.0), 1);
        }
        assert!(!is_allowed(windows.take(&forever, client(1), secs(1e6), 1)));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_forgets_the_oldest_first() {
        let (windows, one) = (Windows::default(), limit(1.0, 1_000, 0));
        let most = u32::try_from(WINDOWS_MAX).unwrap();
        for n in 0..most {
            windows.take(&one, client(n), secs(f64::from(n) / 1_000.0), 1);
        }
        let now = secs(200.0);
        assert!(is_allowed(windows.take(&one, client(most), now, 1)), "one more than there is place for");
        let len = windows.0.lock().unwrap().len();
        assert_eq!(len, WINDOWS_MAX / 2 + 1);
        assert!(!is_allowed(windows.take(&one, client(most - 1), now, 1)), "the youngest are remembered");
        assert!(is_allowed(windows.take(&one, client(0), now, 1)), "the oldest are not");
        // Of windows that are over nothing is kept.
        for n in 0..most {
            windows.take(&one, client(most + n), secs(10_000.0), 1);
        }
        assert!(windows.0.lock().unwrap().len() <= WINDOWS_MAX);
    }

    #[test]
    fn a_server_of_several_lets_its_share_in_and_draws_for_more() {
        let (windows, ten) = (Windows::default(), limit(10.0, 10, 0));
        let take = || windows.take(&ten, client(1), secs(1.0), 3);
        (0..3).for_each(|_| assert!(is_allowed(take())));
        let draw = Taken::Draw(Draw { batch: 3, most: 10, left: secs(10.0) });
        assert_eq!((take(), take()), (draw, draw), "nothing is counted by asking");
        windows.grant(&ten, client(1), 2);
        (0..2).for_each(|_| assert!(is_allowed(take())));
        assert_eq!(take(), draw);
        windows.grant(&ten, client(1), 0);
        assert!(matches!(take(), Taken::Refused { retry_secs: 10, .. }));
        assert!(is_allowed(windows.take(&ten, client(1), secs(11.0), 3)), "in the next window it has a share again");
        // Whatever was granted, it is not more than the whole.
        windows.grant(&ten, client(1), u64::MAX);
        (0..9).for_each(|_| assert!(is_allowed(windows.take(&ten, client(1), secs(11.0), 3))));
        assert!(matches!(windows.take(&ten, client(1), secs(11.0), 3), Taken::Refused { .. }));
    }
}
