//! The operator's configuration: read once for every decision, so everything in it is bounded.

use jiff::Timestamp;
use serde::Deserialize;

use crate::window::{WEEK, Window};
use crate::{Operation, Request};

const MAX_WINDOWS: usize = 100;
const MAX_MESSAGE: usize = 500;
const MAX_EXEMPT: usize = 100;

/// A configuration that was understood.
#[derive(Clone, Debug)]
pub struct Freeze {
    windows: Vec<(Window, Option<String>)>,
    max_ttl: Option<u32>,
    end_before_freeze: bool,
    renewals: Renewals,
    display_names: Vec<String>,
    policies: Vec<String>,
}

/// A freeze that is on.
pub(crate) struct On<'a> {
    /// Unix seconds from which credentials are handed out again.
    pub(crate) ends: i64,
    pub(crate) message: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    windows: Vec<WrittenWindow>,
    #[serde(default)]
    weekly: Vec<WrittenWeek>,
    max_ttl: Option<Length>,
    #[serde(default = "yes")]
    end_before_freeze: bool,
    #[serde(default)]
    renewals: Renewals,
    #[serde(default)]
    exempt: Exempt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWindow {
    from: Moment,
    to: Moment,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWeek {
    from: String,
    to: String,
    utc_offset: Option<String>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exempt {
    #[serde(default)]
    display_names: Vec<String>,
    #[serde(default)]
    policies: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Renewals {
    #[default]
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Seconds(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Length {
    Seconds(u32),
    Text(String),
}

fn yes() -> bool {
    true
}

impl Freeze {
    /// Reads the configuration. Nothing is guessed: an unknown key, an empty window or a bad time refuses it.
    ///
    /// # Errors
    /// A text for the operator, which names the entry.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if written.windows.len() + written.weekly.len() > MAX_WINDOWS {
            return Err(format!("more than {MAX_WINDOWS} windows"));
        }
        let Exempt { display_names, policies } = written.exempt;
        if display_names.len() + policies.len() > MAX_EXEMPT {
            return Err(format!("more than {MAX_EXEMPT} exemptions"));
        }
        if display_names.iter().any(|name| name == "*") || policies.iter().any(|name| name == "*") {
            return Err("`*` would exempt everybody: remove the policy instead".to_owned());
        }
        let mut windows = Vec::new();
        for (number, window) in written.windows.into_iter().enumerate() {
            let read = || -> Result<_, String> {
                let (from, to) = (moment(&window.from)?, moment(&window.to)?);
                if to <= from {
                    return Err("it ends before it begins".to_owned());
                }
                Ok((Window::Once { from, to }, message(window.message)?))
            };
            windows.push(read().map_err(|why| format!("windows[{number}]: {why}"))?);
        }
        for (number, week) in written.weekly.into_iter().enumerate() {
            let read = || -> Result<_, String> {
                let offset = week.utc_offset.as_deref().map_or(Ok(0), utc_offset)?;
                let (from, to) = (week_time(&week.from)?, week_time(&week.to)?);
                let length = (to - from).rem_euclid(WEEK);
                if length == 0 {
                    return Err("it ends when it begins".to_owned());
                }
                Ok((Window::Weekly { from, length, offset }, message(week.message)?))
            };
            windows.push(read().map_err(|why| format!("weekly[{number}]: {why}"))?);
        }
        let max_ttl = written.max_ttl.as_ref().map(length).transpose().map_err(|why| format!("max_ttl: {why}"))?;
        Ok(Self {
            windows,
            max_ttl,
            end_before_freeze: written.end_before_freeze,
            renewals: written.renewals,
            display_names,
            policies,
        })
    }

    /// The freeze that is on, with the end of it and of those that follow without a gap.
    pub(crate) fn frozen_at(&self, now: i64) -> Option<On<'_>> {
        let last = |at: i64| {
            let on = self.windows.iter().filter_map(|(window, message)| Some((window.end_if_on(at)?, message)));
            on.max_by_key(|(end, _)| *end)
        };
        let (mut ends, message) = last(now)?;
        for _ in 0..MAX_WINDOWS {
            match last(ends) {
                Some((later, _)) => ends = later,
                None => break,
            }
        }
        Some(On { ends, message: message.as_deref() })
    }

    pub(crate) fn max_ttl(&self) -> Option<u32> {
        self.max_ttl
    }

    pub(crate) fn renewals_pass(&self) -> bool {
        self.renewals == Renewals::Allow
    }

    /// How long a lease that is made now may last: the ceiling, and no longer than to the next freeze.
    pub(crate) fn ceiling(&self, now: i64) -> Option<u32> {
        let starts = self.windows.iter().filter_map(|(window, _)| window.next_start(now));
        let next = starts.min().filter(|_| self.end_before_freeze);
        // At least one second is left: the next start lies after now.
        let left = next.map(|start| u32::try_from(start.saturating_sub(now)).unwrap_or(u32::MAX));
        match (self.max_ttl, left) {
            (Some(most), Some(left)) => Some(most.min(left)),
            (most, left) => most.or(left),
        }
    }

    /// Why the freeze does not hold for this caller, if it does not.
    pub(crate) fn exemption(&self, request: &Request<'_>) -> Option<String> {
        if request.operation == Operation::Harmless {
            return None;
        }
        let policy = self.policies.iter().find(|policy| request.policies.contains(policy));
        if let Some(policy) = policy {
            return Some(format!("the policy {policy}"));
        }
        let name = self.display_names.iter().find(|name| match name.strip_suffix('*') {
            Some(start) => request.display_name.starts_with(start),
            None => request.display_name == name.as_str(),
        });
        name.map(|name| format!("the display name {name}"))
    }
}

/// RFC 3339 in UTC.
pub(crate) fn written(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "further notice".to_owned(), |at| at.to_string())
}

fn message(text: Option<String>) -> Result<Option<String>, String> {
    match text {
        Some(text) if text.len() > MAX_MESSAGE => Err(format!("its message is longer than {MAX_MESSAGE} bytes")),
        other => Ok(other),
    }
}

fn moment(written: &Moment) -> Result<i64, String> {
    match written {
        Moment::Seconds(seconds) => Ok(*seconds),
        Moment::Text(text) => text.parse::<Timestamp>().map(Timestamp::as_second).map_err(|_| {
            format!("`{text}` is no time: write Unix seconds, or RFC 3339 such as `2026-12-20T00:00:00Z`")
        }),
    }
}

/// `Fri 16:00`, as seconds of the week.
fn week_time(text: &str) -> Result<i64, String> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let wrong = || format!("`{text}` is no time of the week: write it as `Fri 16:00`");
    let (day, time) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let day = day.to_lowercase();
    let day = DAYS.iter().zip(0..).find(|(name, _)| day == **name).map(|(_, number)| number).ok_or_else(wrong)?;
    Ok(day * 24 * 3600 + clock_time(time.trim()).filter(|seconds| *seconds <= 24 * 3600).ok_or_else(wrong)?)
}

/// `+01:00`, as seconds east of UTC.
fn utc_offset(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no offset from UTC: write it as `+01:00`");
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').ok_or_else(wrong)?),
    };
    let seconds = clock_time(rest).filter(|seconds| *seconds <= 14 * 3600).ok_or_else(wrong)?;
    Ok(sign * seconds)
}

/// `HH:MM`, in seconds.
fn clock_time(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|_| is_number)
    };
    let minutes = number(minutes).filter(|minutes| *minutes < 60)?;
    Some(number(hours)? * 3600 + minutes * 60)
}

/// Seconds, or `1h30m`.
fn length(written: &Length) -> Result<u32, String> {
    let seconds = match written {
        Length::Seconds(seconds) => Some(*seconds),
        Length::Text(text) => spelled_length(text),
    };
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "write seconds above zero, or a length such as `1h30m`".to_owned())
}

fn spelled_length(text: &str) -> Option<u32> {
    let (mut total, mut rest) = (0_u32, text);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.chars().next()? {
            'd' => 86_400,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = number.parse::<u32>().ok()?.checked_mul(unit)?.checked_add(total)?;
        rest = tail.get(1..)?;
    }
    Some(total)
}
