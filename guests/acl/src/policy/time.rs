//! Durations and points in time as policies write them.

use crate::syntax::Kind;
use crate::syntax::text::quoted;

const SECOND: f64 = 1e9;

/// An integer as Go reads it with base 0: decimal, `0x…`, or `0…` for octal.
///
/// # Errors
/// The end of Go's own message.
pub(super) fn integer(written: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match written.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, written.strip_prefix('+').unwrap_or(written)),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (hexadecimal, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits.get(1..).unwrap_or_default(), 8),
        None => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err("invalid syntax");
    }
    let value = i64::from_str_radix(digits, radix).map_err(|_| "value out of range")?;
    Ok(if negative { -value } else { value })
}

/// Nanoseconds. A bare number counts seconds; a text may have units, or end in `d` for days.
///
/// # Errors
/// Why it is no duration. A negative one is refused too: it would switch the bound off that it stands for.
pub(super) fn duration(kind: &Kind<'_>) -> Result<u64, String> {
    match kind {
        Kind::Integer(written) => match integer(written) {
            Ok(seconds) => seconds_to_nanoseconds(seconds),
            Err(why) => Err(format!("strconv.ParseInt: parsing {}: {why}", quoted(written))),
        },
        Kind::Float(written) => {
            // Vault cuts the fraction off.
            let seconds = written.parse::<f64>().map_err(|_| "could not parse duration from input".to_owned())?;
            seconds_to_nanoseconds(seconds as i64)
        }
        Kind::Text(text) => spelled(text),
        _ => Err("could not parse duration from input".to_owned()),
    }
}

fn spelled(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds_to_nanoseconds(seconds);
    }
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        return seconds_to_nanoseconds(days.saturating_mul(24 * 60 * 60));
    }
    let invalid = || format!("time: invalid duration {}", quoted(text));
    if text.starts_with('-') {
        return Err(NEGATIVE.to_owned());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum = 0.0_f64;
    while !rest.is_empty() {
        let length = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(length);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        let unit = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quoted(text))),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => SECOND,
            "m" => 60.0 * SECOND,
            "h" => 3600.0 * SECOND,
            other => return Err(format!("time: unknown unit {} in duration {}", quoted(other), quoted(text))),
        };
        sum += number * unit;
        rest = after;
    }
    // 2^63: beyond it Go has no duration.
    if sum >= 9.223_372_036_854_775e18 { Err(invalid()) } else { Ok(sum.round() as u64) }
}

const NEGATIVE: &str = "a negative duration bounds nothing";

fn seconds_to_nanoseconds(seconds: i64) -> Result<u64, String> {
    let seconds = u64::try_from(seconds).map_err(|_| NEGATIVE.to_owned())?;
    Ok(seconds.saturating_mul(1_000_000_000))
}

/// Unix seconds of an RFC 3339 time or of a bare count of seconds. What lies before 1970 counts as 0: passed.
pub(super) fn absolute(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(u64::try_from(seconds).unwrap_or(0));
    }
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let is = |at: usize, wanted: u8| bytes.get(at) == Some(&wanted);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if day < 1 || day > last || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix('.').or_else(|| zone.strip_prefix(',')) {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        zone = fraction.get(length..)?;
    }
    let offset = match zone.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let start = text.len() - zone.len();
            let (hours, minutes) = (digits(start + 1, start + 3)?, digits(start + 4, start + 6)?);
            if hours > 24 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -60 } else { 60 }
        }
        _ => return None,
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Howard Hinnant's `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_or_as_seconds() {
        for (written, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2030-01-01T00:00:00Z", Some(1_893_456_000)),
            ("2030-01-01T00:00:00.5+02:00", Some(1_893_448_800)),
            ("2024-02-29T23:59:59-01:30", Some(1_709_256_599)),
            ("2030-02-30T00:00:00Z", None),
            ("2030-01-01T24:00:00Z", None),
            ("2030-01-01 00:00:00Z", None),
            ("2030-01-01", None),
            ("5", Some(5)),
            ("1969-12-31T23:59:59Z", Some(0)),
            ("5m", None),
        ] {
            assert_eq!(absolute(written), expected, "{written}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (written, expected) in [
            ("1h30m", Ok(5400)),
            ("90", Ok(90)),
            ("1d", Ok(86_400)),
            (".5s", Ok(0)),
            ("", Ok(0)),
            ("x", Err("time: invalid duration \"x\"")),
            ("1.5", Err("time: missing unit in duration \"1.5\"")),
            ("1d12h", Err("time: unknown unit \"d\" in duration \"1d12h\"")),
            ("1m 5s", Err("time: unknown unit \"m \" in duration \"1m 5s\"")),
            (" 5s", Err("time: invalid duration \" 5s\"")),
            ("-1s", Err(NEGATIVE)),
        ] {
            let read = duration(&Kind::Text(written.into())).map(|nanoseconds| nanoseconds / 1_000_000_000);
            assert_eq!(read, expected.map_err(str::to_owned), "{written}");
        }
    }

    #[test]
    fn a_moment_is_one_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(0)),
            ("-5", Some(0)),
            ("1700000000", Some(1_700_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2023-02-29T00:00:00Z", None),
            ("1900-02-29T00:00:00Z", None),
            ("2100-02-29T00:00:00Z", None),
            ("2030-12-31T23:59:59Z", Some(1_924_991_999)),
            ("2030-12-32T00:00:00Z", None),
            ("2030-12-00T00:00:00Z", None),
            ("2030-00-01T00:00:00Z", None),
            ("2030-13-01T00:00:00Z", None),
            ("2030-01-01T24:00:00Z", None),
            ("2030-01-01T00:60:00Z", None),
            ("2030-01-01T00:00:60Z", None),
            ("2030-01-01T00:00:00", None),
            ("2030-01-01 00:00:00Z", None),
            ("2030-01-01T00:00:00.5Z", Some(1_893_456_000)),
            ("2030-01-01T00:00:00,123456789Z", Some(1_893_456_000)),
            ("2030-01-01T00:00:00.Z", None),
            ("2030-01-01T02:30:00+02:30", Some(1_893_456_000)),
            ("2029-12-31T21:30:00-02:30", Some(1_893_456_000)),
            ("2030-01-02T00:00:00+24:00", Some(1_893_456_000)),
            ("2030-01-02T00:00:00+25:00", None),
            ("2030-01-01T00:59:00+00:59", Some(1_893_456_000)),
            ("2030-01-01T00:00:00+00:60", None),
        ] {
            assert_eq!(absolute(text), seconds, "{text}");
        }
        for (month, days) in [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
            let at = |day: u32| absolute(&format!("2030-{:02}-{day:02}T00:00:00Z", month + 1));
            assert!(at(days).is_some() && at(days + 1).is_none(), "month {}", month + 1);
        }
    }
}
