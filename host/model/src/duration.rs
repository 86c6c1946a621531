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
            Ok(_) if !rest.is_empty() && !rest.starts_with('+') => {
                Err(DurationError::Negative(text.chars().take(64).collect()))
            }
            _ => Err(invalid()),
        };
    }
    let body = text.strip_prefix('+').unwrap_or(text);
    if !body.is_empty() && body.bytes().all(|b| b.is_ascii_digit()) {
        return body.parse().ok().filter(|s| *s <= MAX_SECS).map(Ttl::from_secs).ok_or_else(invalid);
    }
    if let Some(days) = body.strip_suffix('d').filter(|days| days.bytes().all(|byte| byte.is_ascii_digit())) {
        let days: u64 = days.parse().map_err(|_| invalid())?;
        return days.checked_mul(86_400).filter(|s| *s <= MAX_SECS).map(Ttl::from_secs).ok_or_else(invalid);
    }
    go_duration(body).map(Ttl::from_secs).ok_or_else(invalid)
}

const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Go's `time.Duration` ends after 292 years; nothing longer is a sensible TTL.
const MAX_NANOS: u64 = i64::MAX as u64;
const MAX_SECS: u64 = MAX_NANOS / NANOS_PER_SEC;

/// In whole nanoseconds, as Go counts: what is less than one is cut off part by part.
fn go_duration(mut rest: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("h", 3_600 * NANOS_PER_SEC),
        ("m", 60 * NANOS_PER_SEC),
        ("s", NANOS_PER_SEC),
    ];
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let (unit, size) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        total = total.checked_add(nanos(number, *size)?).filter(|nanos| *nanos <= MAX_NANOS)?;
        rest = tail.get(unit.len()..)?;
    }
    Some(total / NANOS_PER_SEC)
}

fn nanos(number: &str, size: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = match (whole, fraction) {
        ("", "") => return None,
        ("", _) => 0,
        (whole, _) => whole.parse::<u64>().ok()?,
    };
    let mut total = whole.checked_mul(size)?;
    let mut place = size;
    for digit in fraction.chars() {
        place /= 10;
        total = total.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    Some(total)
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
            ("0.1s0.1s0.1s0.1s0.1s0.1s0.1s0.1s0.1s0.1s", 1),
            ("1.s", 1),
            (".5h", 1800),
            ("0.9999999999s", 0),
            ("2562047h47m16.854775807s", 9_223_372_036),
        ] {
            assert_eq!(parse(text), Ok(Ttl::from_secs(secs)), "{text}");
        }
        for text in [
            "90.5",
            "1w",
            "1D",
            " 5m",
            "1d12h",
            "true",
            "h",
            "1h30",
            ".s",
            "99999999999999999999",
            "1e3s",
            "+",
            "-",
            "++5m",
            "++30d",
            "+-30d",
            "d",
            "1..5h",
            "1.2.3s",
            "2562047h47m17s",
            "1h-5m",
            "-+5",
        ] {
            assert!(matches!(parse(text), Err(DurationError::Invalid(_))), "{text}");
        }
        assert_eq!(parse("-5"), Err(DurationError::Negative("-5".into())));
        assert_eq!(parse("abc").unwrap_err().to_string(), "time: invalid duration \"abc\"");
    }

    proptest::proptest! {
        /// However it is written, whole seconds mean what they say.
        #[test]
        fn parts_add_up(h in 0_u64..100_000, m in 0_u64..10_000, s in 0_u64..10_000, ms in 0_u64..10_000, plus in "[+]?") {
            let seconds = h * 3600 + m * 60 + s + ms / 1000;
            for text in [format!("{plus}{h}h{m}m{s}s{ms}ms"), format!("{plus}{ms}ms{s}s{m}m{h}h"), format!("{plus}{seconds}"), format!("{seconds}.999s")] {
                proptest::prop_assert_eq!(parse(&text), Ok(Ttl::from_secs(seconds)), "{}", text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[+-]{0,2}([0-9]{0,20}[.]?[0-9]{0,20}(ns|us|µs|ms|s|m|h|d|e)?){0,4}") {
            match parse(&text) {
                Ok(ttl) => proptest::prop_assert_eq!(parse(&ttl.as_secs().to_string()), Ok(ttl)),
                Err(error) => proptest::prop_assert!(error.to_string().chars().count() < 120),
            }
        }
    }
}
