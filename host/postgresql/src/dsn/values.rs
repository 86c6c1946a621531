//! Values of options.

use std::time::Duration;

use super::DsnError;

pub(super) fn wrong(name: &str, expected: &'static str) -> DsnError {
    DsnError::Value { name: name.to_owned(), expected }
}

pub(super) fn some(value: &str) -> Option<String> {
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

/// Zero stands for the system's default.
pub(super) fn set(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

pub(super) fn seconds(name: &str, value: &str) -> Result<Duration, DsnError> {
    value.parse().map(Duration::from_secs).map_err(|_| wrong(name, "a number of seconds"))
}

/// A time as PostgreSQL writes one: milliseconds, or a number with a unit. Zero is no limit of its own.
pub(super) fn time(name: &str, value: &str) -> Result<Option<Duration>, DsnError> {
    let value = value.trim();
    let (digits, unit) = value.split_at(value.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(value.len()));
    let each = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong(name, "milliseconds, or a number with ms, s, min, h or d")),
    };
    let count: u64 = digits.parse().map_err(|_| wrong(name, "milliseconds, or a number with ms, s, min, h or d"))?;
    Ok(set(Duration::from_millis(count.saturating_mul(each))))
}
