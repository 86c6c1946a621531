//! Durations as clients write them: seconds, Go durations, whole days.

use crate::Ttl;

/// Why a duration was refused; the text is the field's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration \"{0}\"")]
    Invalid(String),
    #[error("cannot provide negative value '{0}'")]
    Negative(String),
}

/// Reads `3600`, `1h30m`, `1.5h`, `10ms` (zero seconds), `+5m`, `30d` (alone). Empty is zero.
///
/// # Errors
/// Fractions of bare seconds, other units, blanks, negatives and what does not fit are refused.
pub fn parse(text: &str) -> Result<Ttl, DurationError> {
    let invalid = || DurationError::Invalid(text.chars().take(64).collect());
    if text.is_empty() {
        return Ok(Ttl::ZERO);
    }
    if let Some(rest) = text.strip_prefix('-') {
        return match parse(rest) {
            Ok(_) if !rest.is_empty() => Err(DurationError::Negative(text.chars().take(64).collect())),
            _ => Err(invalid()),
        };
    }
    let body = text.strip_prefix('+').unwrap_or(text);
    if !body.is_empty() && body.bytes().all(|b| b.is_ascii_digit()) {
        return body.parse().ok().filter(|s| *s <= MAX_SECS).map(Ttl::from_secs).ok_or_else(invalid);
    }
    if let Some(days) = body.strip_suffix('d') {
        let days: u64 = days.parse().map_err(|_| invalid())?;
        return days.checked_mul(86_400).filter(|s| *s <= MAX_SECS).map(Ttl::from_secs).ok_or_else(invalid);
    }
    go_duration(body).map(Ttl::from_secs).ok_or_else(invalid)
}

/// Go's `time.Duration` ends after 292 years; nothing longer is a sensible TTL.
const MAX_SECS: u64 = i64::MAX as u64 / 1_000_000_000;

fn go_duration(mut rest: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 8] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(digits);
        if !number.bytes().any(|b| b.is_ascii_digit()) {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        total += number * factor;
        rest = tail.get(unit.len()..)?;
    }
    // A sum such as `0.1s` ten times must not lose its second to rounding.
    let seconds = (total + 1e-9).floor();
    (seconds <= MAX_SECS as f64).then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_field_reads_them() {
        for (text, secs) in [
            ("", 0),
            ("3600", 3600),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("10ms", 0),
            ("+5m", 300),
            ("30d", 2_592_000),
            ("0s", 0),
            ("1h0m0s", 3600),
        ] {
            assert_eq!(parse(text), Ok(Ttl::from_secs(secs)), "{text}");
        }
        for text in
            ["90.5", "1w", "1D", " 5m", "1d12h", "true", "h", "1h30", ".s", "99999999999999999999", "1e3s", "+", "-"]
        {
            assert!(matches!(parse(text), Err(DurationError::Invalid(_))), "{text}");
        }
        assert_eq!(parse("-5"), Err(DurationError::Negative("-5".into())));
        assert_eq!(parse("abc").unwrap_err().to_string(), "time: invalid duration \"abc\"");
    }
}
