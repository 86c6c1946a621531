//! When a password is due to be changed: after a period, or by a cron schedule.
//!
//! Must not know: whose password it is.
//!
//! Start with [`Schedule::merge`] (what a write says) and [`Schedule::next`] (the moment that follows from it).
//!
//! Invariants: a password is never older than its period. Many schedules that say the same moment are spread after it, always in the same
//! way for the same name, so that a thousand roles do not change their passwords in one second.

use aws_lc_rs::digest;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;
use jiff::tz::TimeZone;
use leasehold_core::fields::Fields;
use leasehold_model::{Timestamp, Ttl, counted};
use serde::{Deserialize, Serialize};

/// A shorter period would do nothing but change passwords.
const PERIOD_MIN: Ttl = Ttl::from_secs(5);
/// As in Vault.
const WINDOW_MIN: Ttl = Ttl::from_secs(3_600);
/// Nobody writes a longer schedule.
const TEXT_MAX: usize = 256;
/// A periodic rotation comes earlier by at most this part of its period ...
const EARLY_PART: u64 = 10;
/// ... and by no more than this.
const EARLY_MAX: u64 = 600;
/// How long after its scheduled moment a rotation comes at most.
const LATE_MAX: u64 = 60;

/// When a password is changed by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Schedule {
    /// Only when somebody asks for it.
    #[default]
    Never,
    Every(Ttl),
    Cron {
        /// As it was written.
        text: String,
        /// How long after a scheduled moment the rotation may still happen; zero: until it has.
        window: Ttl,
    },
}

impl Schedule {
    /// Takes what a write says of the schedule. Returns whether it changed.
    ///
    /// # Errors
    /// In Vault's words.
    pub(in super::super) fn merge(&mut self, fields: &Fields) -> Result<bool, String> {
        let before = self.clone();
        let period = fields.ttl("rotation_period");
        let text = fields.text("rotation_schedule").map(str::trim);
        let window = fields.ttl("rotation_window");
        let is_given = |text: &&str| !text.is_empty();
        if period.is_some_and(|period| !period.is_zero()) && text.filter(is_given).is_some() {
            return Err("mutually exclusive fields rotation_period and rotation_schedule were both specified; only one of them can be provided"
                .to_owned());
        }
        match (period, text) {
            (_, Some(text)) if !text.is_empty() => {
                Cron::parse(text)?;
                let kept = match &before {
                    Self::Cron { window, .. } => *window,
                    _ => Ttl::ZERO,
                };
                *self = Self::Cron { text: text.to_owned(), window: kept };
            }
            (Some(period), _) if !period.is_zero() => {
                if period < PERIOD_MIN {
                    return Err(format!("rotation_period must be {} seconds or more", PERIOD_MIN.as_secs()));
                }
                *self = Self::Every(period);
            }
            // An empty one takes off what it names, and nothing else.
            (Some(_), _) if matches!(before, Self::Every(_)) => *self = Self::Never,
            (_, Some(_)) if matches!(before, Self::Cron { .. }) => *self = Self::Never,
            _ => {}
        }
        if let Some(wished) = window {
            match self {
                _ if wished.is_zero() && !matches!(self, Self::Cron { .. }) => {}
                Self::Cron { window, .. } => {
                    if !wished.is_zero() && wished < WINDOW_MIN {
                        return Err(format!("rotation_window must be {} seconds or more", WINDOW_MIN.as_secs()));
                    }
                    *window = wished;
                }
                Self::Every(_) => return Err("rotation_window is invalid with use of rotation_period".to_owned()),
                Self::Never => return Err("rotation_window needs a rotation_schedule".to_owned()),
            }
        }
        Ok(*self != before)
    }

    /// The moment after `from`, when the password was changed last or the schedule was written. `name` says where between others it
    /// stands.
    pub(in super::super) fn next(&self, from: Timestamp, name: &str) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::Every(period) => {
                let early = (period.as_secs() / EARLY_PART).min(EARLY_MAX).saturating_mul(1_000);
                Some(from + *period - std::time::Duration::from_millis(share(name, early)))
            }
            Self::Cron { text, .. } => {
                let cron = Cron::parse(text).ok()?;
                let at = cron.after(from)?;
                // Where moments follow each other quickly, a late one must not run into the next.
                let gap = cron.after(at).map_or(u64::MAX, |next| next.since(at).as_secs() / 2);
                let late = LATE_MAX.min(gap).saturating_mul(1_000);
                Some(at + std::time::Duration::from_millis(share(name, late)))
            }
        }
    }

    /// Whether a rotation may happen now that was due before: not when its window is over.
    pub(in super::super) fn may_happen(&self, now: Timestamp) -> bool {
        let Self::Cron { text, window } = self else { return true };
        let Some(window) = window.if_set() else { return true };
        let opened = Cron::parse(text).ok().and_then(|cron| cron.before(now));
        opened.is_some_and(|opened| opened + window >= now)
    }
}

/// A part of `whole` that follows from `name` alone.
fn share(name: &str, whole: u64) -> u64 {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let first = hash.as_ref().iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    first.checked_rem(whole).unwrap_or(0)
}

/// The fields of a schedule, in their order.
const FIELDS: [&str; 5] =
    ["minute (0-59)", "hour (0-23)", "day of month (1-31)", "month (1-12, JAN-DEC)", "day of week (0-7, SUN-SAT)"];

/// Says which field is wrong: each is parsed by itself, with `*` in all others.
fn check_fields(text: &str) -> Result<(), String> {
    let given: Vec<&str> = text.split_whitespace().collect();
    if given.len() == 1 && text.starts_with('@') {
        let is_known = CronParser::new().parse(text).is_ok();
        let names = "@hourly, @daily, @weekly, @monthly and @yearly";
        return is_known.then_some(()).ok_or_else(|| format!("the schedules with a name are {names}"));
    }
    if given.len() != FIELDS.len() {
        return Err(format!("it has {} and needs five: {}", counted(given.len(), "field"), FIELDS.join(", ")));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    for (at, (field, name)) in given.iter().zip(FIELDS).enumerate() {
        let mut alone = ["*"; 5];
        alone[at] = field;
        if parser.parse(&alone.join(" ")).is_err() {
            let shown: String = field.chars().take(32).collect();
            return Err(format!(
                "{shown:?} is no {name}: write a number, *, a range as 1-5, a list as 1,3 or a step as */2"
            ));
        }
    }
    Ok(())
}

/// A parsed schedule, with the time zone in which it is meant.
struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
}

impl Cron {
    /// Five fields, after an optional `CRON_TZ=<zone>` or `TZ=<zone>`; UTC without one.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| format!("could not parse rotation_schedule: {why}");
        if text.len() > TEXT_MAX {
            return Err(wrong(format!("it is longer than {TEXT_MAX} bytes")));
        }
        let text = text.trim();
        let prefixed = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
        let (zone, fields) = match prefixed.map(|rest| rest.split_once(char::is_whitespace).unwrap_or((rest, ""))) {
            None => (TimeZone::UTC, text),
            Some((name, fields)) => {
                let zone = TimeZone::get(name).map_err(|_| wrong(format!("there is no time zone {name:?}")))?;
                (zone, fields)
            }
        };
        check_fields(fields).map_err(wrong)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(fields).map_err(|error| wrong(error.to_string()))?;
        let cron = Self { pattern, zone };
        // The thirtieth of February: it would be due never.
        cron.after(Timestamp::from_secs(1_700_000_000))
            .ok_or_else(|| wrong("it names no moment that ever comes".to_owned()))?;
        Ok(cron)
    }

    fn zoned(&self, at: Timestamp) -> Option<Zoned> {
        Some(jiff::Timestamp::from_nanosecond(i128::from(at.as_nanos())).ok()?.to_zoned(self.zone.clone()))
    }

    fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let found = self.pattern.find_next_occurrence(&self.zoned(at)?, false).ok()?;
        i64::try_from(found.timestamp().as_nanosecond()).ok().map(Timestamp::from_nanos)
    }

    /// The last one that is not after `at`.
    fn before(&self, at: Timestamp) -> Option<Timestamp> {
        let found = self.pattern.find_previous_occurrence(&self.zoned(at)?, true).ok()?;
        i64::try_from(found.timestamp().as_nanosecond()).ok().map(Timestamp::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::fields::{Field, Kind};
    use serde_json::{Value, json};

    use super::*;

    const FIELDS: &[Field] = &[
        Field::visible("rotation_period", Kind::Duration, ""),
        Field::visible("rotation_schedule", Kind::Text, ""),
        Field::visible("rotation_window", Kind::Duration, ""),
    ];

    fn merged(schedule: &mut Schedule, body: &Value) -> Result<bool, String> {
        schedule.merge(&Fields::coerce(FIELDS, body.as_object().unwrap()).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn cron(text: &str, window: u64) -> Schedule {
        Schedule::Cron { text: text.to_owned(), window: Ttl::from_secs(window) }
    }

    #[test]
    fn a_schedule_takes_what_vault_takes_and_says_what_is_wrong() {
        for (body, wanted) in [
            (json!({"rotation_period": 5}), Ok(Schedule::Every(Ttl::from_secs(5)))),
            (json!({"rotation_period": "1h"}), Ok(Schedule::Every(Ttl::from_secs(3_600)))),
            (json!({"rotation_schedule": "0 0 * * SAT"}), Ok(cron("0 0 * * SAT", 0))),
            (json!({"rotation_schedule": "0 0 * * 6", "rotation_window": "2h"}), Ok(cron("0 0 * * 6", 7_200))),
            (
                json!({"rotation_schedule": "CRON_TZ=Europe/Berlin 0 2 * * *"}),
                Ok(cron("CRON_TZ=Europe/Berlin 0 2 * * *", 0)),
            ),
            (json!({}), Ok(Schedule::Never)),
            (json!({"rotation_period": 0, "rotation_schedule": "", "rotation_window": 0}), Ok(Schedule::Never)),
            (json!({"rotation_period": 4}), Err("rotation_period must be 5 seconds or more")),
            (
                json!({"rotation_schedule": "0 0 * * 6", "rotation_window": 60}),
                Err("rotation_window must be 3600 seconds or more"),
            ),
            (
                json!({"rotation_period": 60, "rotation_window": "1h"}),
                Err("rotation_window is invalid with use of rotation_period"),
            ),
            (json!({"rotation_window": "1h"}), Err("rotation_window needs a rotation_schedule")),
            (json!({"rotation_period": 60, "rotation_schedule": "0 0 * * 6"}), Err("mutually exclusive fields")),
            (
                json!({"rotation_schedule": "whenever"}),
                Err(
                    "could not parse rotation_schedule: it has 1 field and needs five: minute (0-59), hour (0-23), day of month",
                ),
            ),
            (
                json!({"rotation_schedule": "0 0 0 * * 6"}),
                Err("could not parse rotation_schedule: it has 6 fields and"),
            ),
            (
                json!({"rotation_schedule": "61 0 * * 6"}),
                Err("could not parse rotation_schedule: \"61\" is no minute (0-59): write a number"),
            ),
            (json!({"rotation_schedule": "0 */0 * * 6"}), Err("could not parse rotation_schedule: \"*/0\" is no hour")),
            (
                json!({"rotation_schedule": "0 0 5-1 * 6"}),
                Err("could not parse rotation_schedule: \"5-1\" is no day of m"),
            ),
            (
                json!({"rotation_schedule": "0 0 * Foo 6"}),
                Err("could not parse rotation_schedule: \"Foo\" is no month"),
            ),
            (
                json!({"rotation_schedule": "0 0 * * FOO"}),
                Err("could not parse rotation_schedule: \"FOO\" is no day of w"),
            ),
            (json!({"rotation_schedule": "@hourly"}), Ok(cron("@hourly", 0))),
            (
                json!({"rotation_schedule": "@often"}),
                Err("could not parse rotation_schedule: the schedules with a name are"),
            ),
            (json!({"rotation_schedule": "0 0 30 2 *"}), Err("could not parse rotation_schedule: it names no moment")),
            (
                json!({"rotation_schedule": "TZ=Nowhere/Atall 0 0 * * 6"}),
                Err("could not parse rotation_schedule: there is no time zone"),
            ),
            (json!({"rotation_schedule": "TZ="}), Err("could not parse rotation_schedule")),
            (json!({"rotation_schedule": "* ".repeat(300)}), Err("could not parse rotation_schedule")),
        ] {
            let mut schedule = Schedule::Never;
            match (merged(&mut schedule, &body), wanted) {
                (Ok(changed), Ok(wanted)) => {
                    assert_eq!(schedule, wanted, "{body}");
                    assert_eq!(changed, wanted != Schedule::Never, "{body}");
                }
                (Err(said), Err(wanted)) => assert!(said.starts_with(wanted), "{body}: {said}"),
                (said, _) => panic!("{body}: {said:?}"),
            }
        }
    }

    #[test]
    fn one_kind_of_schedule_takes_the_place_of_the_other() {
        let mut schedule = cron("0 0 * * 6", 7_200);
        assert!(!merged(&mut schedule, &json!({"rotation_period": 0})).unwrap(), "nothing was taken off");
        assert!(merged(&mut schedule, &json!({"rotation_schedule": "1 0 * * 6"})).unwrap());
        assert_eq!(schedule, cron("1 0 * * 6", 7_200), "the window stays");
        assert!(merged(&mut schedule, &json!({"rotation_period": 60})).unwrap());
        assert!(!merged(&mut schedule, &json!({"rotation_period": 60})).unwrap());
        assert!(merged(&mut schedule, &json!({"rotation_schedule": "0 0 * * 6"})).unwrap());
        assert!(merged(&mut schedule, &json!({"rotation_schedule": ""})).unwrap());
        assert_eq!(schedule, Schedule::Never);
    }

    #[test]
    fn no_password_gets_older_than_its_period_and_many_do_not_come_due_together() {
        let from = at("2026-11-29T00:00:00Z");
        let every = Schedule::Every(Ttl::from_secs(86_400));
        let mut seconds = std::collections::BTreeMap::new();
        for role in 0..1_000 {
            let next = every.next(from, &format!("role-{role}")).unwrap();
            assert!(next <= from + Ttl::from_secs(86_400) && next >= from + Ttl::from_secs(85_800), "{next:?}");
            *seconds.entry(next.as_secs()).or_insert(0) += 1;
        }
        assert!(seconds.values().all(|count| *count < 12), "{:?}", seconds.values().max());
        let nightly = cron("0 2 * * *", 0);
        let mut seconds = std::collections::BTreeMap::new();
        for role in 0..1_000 {
            let next = nightly.next(from, &format!("role-{role}")).unwrap();
            assert!(next >= at("2026-11-29T02:00:00Z") && next < at("2026-11-29T02:01:00Z"), "{next:?}");
            *seconds.entry(next.as_secs()).or_insert(0) += 1;
        }
        assert!(seconds.len() > 50 && seconds.values().all(|count| *count < 50));
        // A short period has nothing to give away.
        assert!(Schedule::Every(Ttl::from_secs(5)).next(from, "x").unwrap() > from + Ttl::from_secs(4));
    }

    #[test]
    fn a_schedule_goes_by_the_clock_of_its_zone_across_the_change_of_summer_time() {
        let berlin = cron("CRON_TZ=Europe/Berlin 0 4 * * *", 0);
        let on = |from: &str| {
            let next = berlin.next(at(from), "x").unwrap();
            next - std::time::Duration::from_nanos(u64::try_from(next.as_nanos() % 60_000_000_000).unwrap())
        };
        assert_eq!(on("2026-03-28T12:00:00Z"), at("2026-03-29T02:00:00Z"), "the clock went forward at 2");
        assert_eq!(on("2026-03-27T12:00:00Z"), at("2026-03-28T03:00:00Z"));
        assert_eq!(on("2026-10-24T12:00:00Z"), at("2026-10-25T03:00:00Z"), "the clock went back at 3");
    }

    #[test]
    fn a_rotation_that_missed_its_window_waits_for_the_next_one() {
        let saturday = cron("0 0 * * SAT", 7_200);
        // The 28th of November 2026 is a Saturday.
        for (now, may) in [
            ("2026-11-28T00:00:00Z", true),
            ("2026-11-28T01:59:59Z", true),
            ("2026-11-28T02:00:01Z", false),
            ("2026-11-30T00:00:00Z", false),
        ] {
            assert_eq!(saturday.may_happen(at(now)), may, "{now}");
        }
        for always in [cron("0 0 * * SAT", 0), Schedule::Every(Ttl::from_secs(60)), Schedule::Never] {
            assert!(always.may_happen(at("2026-11-30T00:00:00Z")));
        }
    }
}
