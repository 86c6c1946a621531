//! Durations as clients write them: seconds, Go durations, whole days.

use std::fmt;

use crate::Ttl;

/// Why a duration was refused; the texts are Go's, as Vault sends them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {0}")]
    Invalid(Quoted),
    #[error("time: missing unit in duration {0}")]
    NoUnit(Quoted),
    #[error("time: unknown unit {unit} in duration {text}")]
    UnknownUnit { unit: Quoted, text: Quoted },
    #[error("strconv.ParseInt: parsing {0}: invalid syntax")]
    NoDays(Quoted),
    #[error("multiplication of durations resulted in overflow, one operand may be too large")]
    TooLong,
    /// In seconds.
    #[error("cannot provide negative value '-{0}'")]
    Negative(u64),
}

/// A client's text as Go quotes it: what is not plain ASCII as `\\xe9`. Cut off where it gets long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    fn of(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Reads `3600`, `1h30m`, `1.5h`, `10ms` (zero seconds), `+5m`, `30d` (alone). Empty is zero.
///
/// # Errors
/// Fractions of bare seconds, other units, blanks, negatives and what does not fit are refused.
pub fn parse(text: &str) -> Result<Ttl, DurationError> {
    let (is_negative, nanos) = read(text)?;
    match (is_negative, nanos / NANOS_PER_SEC) {
        (true, secs @ 1..) => Err(DurationError::Negative(secs)),
        (_, secs) => Ok(Ttl::from_secs(secs)),
    }
}

/// As [`parse`], where zero means unset: what is given is at least a second, or `500ms` would be the longest of all.
///
/// # Errors
/// As [`parse`].
pub fn parse_set(text: &str) -> Result<Ttl, DurationError> {
    match read(text)? {
        (_, 0) => Ok(Ttl::ZERO),
        (true, nanos) => Err(DurationError::Negative(nanos / NANOS_PER_SEC)),
        (false, nanos) => Ok(Ttl::from_secs((nanos / NANOS_PER_SEC).max(1))),
    }
}

/// Whether there is a minus, and nanoseconds.
fn read(text: &str) -> Result<(bool, u64), DurationError> {
    if text.is_empty() {
        return Ok((false, 0));
    }
    let (is_negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanos = if is_whole(body) {
        // What does not fit into 64 bits is read on as a Go duration, and is none.
        match body.parse::<i64>() {
            Ok(secs) => u64::try_from(secs).ok().and_then(whole_seconds).ok_or(DurationError::TooLong)?,
            Err(_) => return Err(DurationError::Invalid(Quoted::of(text))),
        }
    } else if let Some(days) = body.strip_suffix('d') {
        let number = days.parse::<u64>().ok().filter(|_| is_whole(days));
        let number = number.ok_or_else(|| DurationError::NoDays(Quoted::of(text.strip_suffix('d').unwrap_or(text))))?;
        number.checked_mul(86_400).and_then(whole_seconds).ok_or(DurationError::TooLong)?
    } else {
        go_duration(body, text)?
    };
    Ok((is_negative, nanos))
}

fn whole_seconds(secs: u64) -> Option<u64> {
    secs.checked_mul(NANOS_PER_SEC).filter(|nanos| *nanos <= MAX_NANOS)
}

fn is_whole(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Go's `time.Duration` ends after 292 years; nothing longer is a sensible TTL.
const MAX_NANOS: u64 = i64::MAX as u64;

/// In whole nanoseconds, as Go counts: what is less than one is cut off part by part. `text` is what the client wrote.
/// As Go prints a duration of whole seconds: `24h0m0s`, `1m30s`, `0s`.
#[must_use]
pub fn go_text(length: Ttl) -> String {
    let seconds = length.as_secs();
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn go_duration(mut rest: &str, text: &str) -> Result<u64, DurationError> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", NANOS_PER_SEC),
        ("m", 60 * NANOS_PER_SEC),
        ("h", 3_600 * NANOS_PER_SEC),
    ];
    let invalid = || DurationError::Invalid(Quoted::of(text));
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        // One point at most: a second one begins another number.
        let whole = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let fraction = rest.get(whole..).and_then(|tail| tail.strip_prefix('.'));
        let end =
            fraction.map_or(whole, |tail| whole + 1 + tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        let (number, tail) = rest.split_at(end);
        if !number.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let (unit, next) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        if unit.is_empty() {
            return Err(DurationError::NoUnit(Quoted::of(text)));
        }
        let unknown = || DurationError::UnknownUnit { unit: Quoted::of(unit), text: Quoted::of(text) };
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(unknown)?;
        let part = nanos(number, *size).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|nanos| *nanos <= MAX_NANOS).ok_or_else(invalid)?;
        rest = next;
    }
    Ok(total)
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
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_set_is_never_unset() {
        for (text, secs) in [
            ("", 0),
            ("0", 0),
            ("0.0s", 0),
            ("0ns", 0),
            ("1ns", 1),
            ("500ms", 1),
            ("0.5s", 1),
            ("1500ms", 1),
            ("2s", 2),
        ] {
            assert_eq!(parse_set(text), Ok(Ttl::from_secs(secs)), "{text}");
        }
    }

    #[test]
    fn refusals_read_as_the_fields() {
        for (text, said) in [
            ("abc", r#"time: invalid duration "abc""#),
            (" 5m", r#"time: invalid duration " 5m""#),
            ("+", r#"time: invalid duration "+""#),
            ("-", r#"time: invalid duration "-""#),
            (".", r#"time: invalid duration ".""#),
            ("h", r#"time: invalid duration "h""#),
            ("-+5", r#"time: invalid duration "-+5""#),
            ("a\"\\b\n", r#"time: invalid duration "a\"\\b\x0a""#),
            ("\u{e9}", r#"time: invalid duration "\xc3\xa9""#),
            ("99999999999999999999", r#"time: invalid duration "99999999999999999999""#),
            ("9999999999999h", r#"time: invalid duration "9999999999999h""#),
            ("90.5", r#"time: missing unit in duration "90.5""#),
            ("1h30", r#"time: missing unit in duration "1h30""#),
            ("1w", r#"time: unknown unit "w" in duration "1w""#),
            ("1D", r#"time: unknown unit "D" in duration "1D""#),
            ("1d12h", r#"time: unknown unit "d" in duration "1d12h""#),
            ("1h-5m", r#"time: unknown unit "h-" in duration "1h-5m""#),
            ("1e3s", r#"time: unknown unit "e" in duration "1e3s""#),
            ("d", r#"strconv.ParseInt: parsing "": invalid syntax"#),
            ("1.5d", r#"strconv.ParseInt: parsing "1.5": invalid syntax"#),
            ("-5", "cannot provide negative value '-5'"),
            ("-5m", "cannot provide negative value '-300'"),
            ("-1.5h", "cannot provide negative value '-5400'"),
            ("10000000000", "multiplication of durations resulted in overflow, one operand may be too large"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), said, "{text}");
        }
        assert_eq!(parse("-10ms"), Ok(Ttl::ZERO), "whole seconds count");
        assert_eq!(parse_set("-10ms"), Err(DurationError::Negative(0)), "and the least is too little");
        let long = parse(&"x".repeat(10_000)).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
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
                Ok(ttl) => {
                    proptest::prop_assert_eq!(parse(&ttl.as_secs().to_string()), Ok(ttl));
                    let set = parse_set(&text).unwrap_or(ttl);
                    proptest::prop_assert!(set == ttl || (ttl.is_zero() && set == Ttl::from_secs(1)), "{}", set);
                }
                Err(error) => proptest::prop_assert!(error.to_string().chars().count() < 700),
            }
        }
    }
}
