//! Lengths of time as Vault writes them: `1h30m`, `30d`, bare seconds.
//!
//! Three notations meet here: what a person types ([`Span::parse`]), what Go prints and therefore the wire carries
//! ([`Span::to_go`], `1h0m0s`), and what the tables show ([`human_seconds`], `1h`).

/// A length of time in nanoseconds; negative ones exist (`-1s` on `secrets tune` means "the system's").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(i64);

const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Span {
    /// Reads a Go duration, days (`30d`), or bare seconds.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (sign, body) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        if body.is_empty() {
            return None;
        }
        if body.bytes().all(|byte| byte.is_ascii_digit()) {
            return body.parse::<i64>().ok()?.checked_mul(sign * NANOS_PER_SECOND).map(Self);
        }
        let mut total: i64 = 0;
        let mut rest = body;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            total = total.checked_add(nanos(number, unit)?)?;
            rest = after;
        }
        total.checked_mul(sign).map(Self)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whole seconds; anything under one second is none.
    pub(crate) fn whole_seconds(self) -> i64 {
        (self.0 / NANOS_PER_SECOND).max(0)
    }

    pub(crate) fn to_std(self) -> Option<std::time::Duration> {
        u64::try_from(self.0).ok().map(std::time::Duration::from_nanos)
    }

    /// As Go's `Duration.String` prints it: `1h30m0s`, `1.5s`, `0s`.
    pub(crate) fn to_go(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let second = NANOS_PER_SECOND.unsigned_abs();
        if nanos == 0 {
            return "0s".to_owned();
        }
        if nanos < second {
            let (unit, size) = match nanos {
                0..=999 => ("ns", 1),
                1_000..=999_999 => ("µs", 1_000),
                _ => ("ms", 1_000_000),
            };
            return format!("{sign}{}{unit}", decimal(nanos, size));
        }
        let seconds = nanos / second;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let rest = decimal(seconds % 60 * second + nanos % second, second);
        match (hours, minutes) {
            (0, 0) => format!("{sign}{rest}s"),
            (0, minutes) => format!("{sign}{minutes}m{rest}s"),
            (hours, minutes) => format!("{sign}{hours}h{minutes}m{rest}s"),
        }
    }

    /// For the fields that mean "unchanged" when empty and "the system's" when negative.
    pub(crate) fn to_tuning(self) -> String {
        match self.0 {
            0 => String::new(),
            ..0 => "system".to_owned(),
            _ => self.to_go(),
        }
    }
}

fn nanos(number: &str, unit: &str) -> Option<i64> {
    let size: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        "d" => 86_400 * NANOS_PER_SECOND,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    let mut total = whole.checked_mul(size)?;
    let mut place = size;
    for digit in fraction.chars() {
        place /= 10;
        total = total.checked_add(i64::from(digit.to_digit(10)?) * place)?;
    }
    Some(total)
}

/// `nanos / size` with as many decimals as it has.
fn decimal(nanos: u64, size: u64) -> String {
    let (whole, mut fraction) = (nanos / size, nanos % size);
    if fraction == 0 {
        return whole.to_string();
    }
    let mut text = format!("{whole}.");
    while fraction > 0 {
        fraction *= 10;
        text.push(char::from_digit(u32::try_from(fraction / size).unwrap_or(0), 10).unwrap_or('0'));
        fraction %= size;
    }
    text
}

/// Seconds as the tables show them, without parts that are zero at the end: `768h`, `1h30m`, `0s`.
pub(crate) fn human_seconds(seconds: i64) -> String {
    let mut text = Span(seconds.saturating_mul(NANOS_PER_SECOND)).to_go();
    if text.ends_with("m0s") {
        text.truncate(text.len() - 2);
    }
    match text.find("h0m") {
        Some(at) if at > 0 => format!("{}{}", &text[..=at], &text[at + 3..]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (typed, printed) in [
            ("60", "1m0s"),
            ("1h30m", "1h30m0s"),
            ("1.5h", "1h30m0s"),
            ("30d", "720h0m0s"),
            ("-1s", "-1s"),
            ("+5m", "5m0s"),
            ("10ms", "10ms"),
            ("1.5s", "1.5s"),
            ("1500us", "1.5ms"),
            ("0", "0s"),
            (".5s", "500ms"),
            ("61.25s", "1m1.25s"),
        ] {
            assert_eq!(Span::parse(typed).map(Span::to_go).as_deref(), Some(printed), "{typed}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_without_overflow() {
        for typed in ["", "-", "1w", "h", "1h 5m", ".s", "99999999999999999999", "9999999999h", "1..5h", "--5s", "5m-"]
        {
            assert_eq!(Span::parse(typed), None, "{typed}");
        }
    }

    #[test]
    fn tables_leave_out_the_zero_parts() {
        for (seconds, shown) in [
            (2_764_800, "768h"),
            (5400, "1h30m"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3605, "1h5s"),
            (-7, "-7s"),
            (86_397, "23h59m57s"),
        ] {
            assert_eq!(human_seconds(seconds), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_length_of_time_reads_back(text in "[+-]?([0-9]{0,12}(\\.[0-9]{0,12})?(ns|us|µs|ms|s|m|h|d)?){1,3}") {
            crate::properties::any_length_of_time_reads_back(&text);
        }
    }
}
