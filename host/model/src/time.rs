//! Moments and lengths. A moment plus a length is a moment; nothing else adds up.

use std::fmt;
use std::ops::{Add, Sub};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

const NANOS: i64 = 1_000_000_000;

/// A moment: nanoseconds since the Unix epoch, good from 1678 to 2262. Arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Later than every lease: the `next_at` of what never falls due.
    pub const NEVER: Self = Self(i64::MAX);

    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(NANOS))
    }

    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(NANOS)
    }

    /// What is left from `now`, to the nearest second: rounded down, what was given for a second would have none at once, and
    /// none is read as without an end. Negative when past.
    #[must_use]
    pub const fn seconds_from(self, now: Self) -> i64 {
        self.0.saturating_sub(now.0).saturating_add(NANOS / 2).div_euclid(NANOS)
    }

    /// What is left from `now`; zero when past.
    #[must_use]
    pub fn since(self, now: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0.saturating_sub(now.0)).unwrap_or(0))
    }

    /// RFC 3339 with nanoseconds and `Z`, as every time in the API.
    #[must_use]
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(at) => at.to_string(),
            Err(_) => "9999-12-31T23:59:59Z".to_owned(),
        }
    }

    /// `2026-11-23 01:35:37 +0000 UTC`: as Go prints a moment, in whole seconds.
    #[must_use]
    pub fn go(self) -> String {
        match jiff::Timestamp::from_second(self.as_secs()) {
            Ok(at) => at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
            Err(_) => String::new(),
        }
    }

    /// Reads RFC 3339, with any offset.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(at.as_nanosecond()).ok().map(Self)
    }

    /// `2026-11-23 01:35:37+0000`: what `VALID UNTIL` takes.
    #[must_use]
    pub fn postgres(self) -> String {
        match jiff::Timestamp::from_second(self.as_secs()) {
            Ok(at) => at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S+0000").to_string(),
            Err(_) => "infinity".to_owned(),
        }
    }
}

impl Add<Ttl> for Timestamp {
    type Output = Self;

    fn add(self, ttl: Ttl) -> Self {
        let secs = i64::try_from(ttl.0).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(secs.saturating_mul(NANOS)))
    }
}

impl Add<std::time::Duration> for Timestamp {
    type Output = Self;

    fn add(self, length: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<std::time::Duration> for Timestamp {
    type Output = Self;

    fn sub(self, length: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// A length in whole seconds, as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ttl(u64);

impl Ttl {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` when zero: in Vault zero means unset.
    #[must_use]
    pub const fn if_set(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(self) }
    }
}

/// Without zero parts, as warnings print it: `768h`, `1h30m`, `90s` as `1m30s`, `0s`.
impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        if self.0 == 0 {
            return f.write_str("0s");
        }
        for (count, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s")] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_the_field_prints_them() {
        let at = Timestamp::from_secs(1_795_394_942);
        assert_eq!(at.rfc3339(), "2026-11-23T00:49:02Z");
        assert_eq!(at.postgres(), "2026-11-23 00:49:02+0000");
        assert_eq!(at.go(), "2026-11-23 00:49:02 +0000 UTC");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-23T00:49:02Z"), Some(at));
        assert_eq!(Timestamp::NEVER.rfc3339().get(..4), Some("2262"));
    }

    #[test]
    fn what_is_left_is_told_to_the_nearest_second() {
        let now = Timestamp::from_nanos(1_700_000_000_200_000_000);
        for (nanos, told) in [(1_000_000_000, 1), (999_000_000, 1), (499_999_999, 0), (-700_000_000, -1)] {
            assert_eq!(Timestamp::from_nanos(now.as_nanos() + nanos).seconds_from(now), told, "{nanos}");
        }
    }

    #[test]
    fn lengths_print_without_zero_parts() {
        for (secs, text) in [(0, "0s"), (90, "1m30s"), (7200, "2h"), (2_764_800, "768h"), (3601, "1h1s")] {
            assert_eq!(Ttl::from_secs(secs).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::NEVER + Ttl::from_secs(u64::MAX), Timestamp::NEVER);
        assert!(Timestamp::from_secs(1) + Ttl::from_secs(u64::MAX) > Timestamp::from_secs(2));
    }
}
