//! Failed logins that have locked nobody yet, in the memory of this server.
//!
//! Invariant: the memory that failures take is bounded, for each mount by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use leasehold_model::{MountAccessor, Timestamp};

use super::{Failures, LockoutRules, NAME_LEN_MAX};

/// The most names that are counted at one mount. Beyond that, the names that are not locked are forgotten first.
const NAMES_MAX: usize = 10_000;

/// Failed logins of all mounts.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashMap<MountAccessor, HashMap<String, Failures>>>);

impl Counts {
    fn with<T>(&self, mount: &MountAccessor, act: impl FnOnce(&mut HashMap<String, Failures>) -> T) -> T {
        let mut mounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(mounts.entry(mount.clone()).or_default())
    }

    /// Whether so many have failed that the name is locked.
    pub fn is_locked(&self, mount: &MountAccessor, name: &str, rules: &LockoutRules, now: Timestamp) -> bool {
        self.with(mount, |names| names.get(name).is_some_and(|failures| rules.locks(*failures, now)))
    }

    /// Counts a failed login; whether the name is locked now.
    pub fn failed(&self, mount: &MountAccessor, name: &str, rules: &LockoutRules, now: Timestamp) -> bool {
        if rules.is_disabled || name.len() > NAME_LEN_MAX {
            return false;
        }
        self.with(mount, |names| {
            if names.len() >= NAMES_MAX && !names.contains_key(name) {
                free_places(names, rules, now);
            }
            let failures = names.entry(name.to_owned()).or_insert(Failures { count: 0, last_at: now });
            if now >= failures.last_at + rules.counter_reset {
                failures.count = 0;
            }
            *failures = Failures { count: failures.count.saturating_add(1), last_at: now };
            rules.locks(*failures, now)
        })
    }

    /// A login under this name succeeded, its lock is stored, or an operator unlocked it.
    pub fn forget(&self, mount: &MountAccessor, name: &str) {
        self.with(mount, |names| {
            names.remove(name);
        });
    }

    /// The mount is gone.
    pub fn forget_mount(&self, mount: &MountAccessor) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(mount);
    }
}

/// Each call frees many places at once, so that a flood of new names costs little for each of them.
fn free_places(names: &mut HashMap<String, Failures>, rules: &LockoutRules, now: Timestamp) {
    names.retain(|_, failures| rules.remembers(*failures, now));
    if names.len() < NAMES_MAX / 2 {
        return;
    }
    names.retain(|_, failures| rules.locks(*failures, now));
    if names.len() < NAMES_MAX / 2 {
        return;
    }
    // Only locked names are left: the later half stays.
    let mut ends: Vec<Timestamp> = names.values().map(|failures| failures.last_at).collect();
    ends.sort_unstable();
    let Some(middle) = ends.get(ends.len() / 2).copied() else { return };
    let mut places = NAMES_MAX / 2;
    names.retain(|_, failures| {
        let stays = failures.last_at >= middle && places > 0;
        places -= usize::from(stays);
        stays
    });
}

#[cfg(test)]
mod tests {
    use leasehold_model::Ttl;

    use super::*;

    const RULES: LockoutRules = LockoutRules {
        threshold: 5,
        duration: Ttl::from_secs(900),
        counter_reset: Ttl::from_secs(900),
        is_disabled: false,
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn mount(name: &str) -> MountAccessor {
        MountAccessor::new(name)
    }

    #[test]
    fn the_fifth_failure_locks_a_name_for_a_quarter_of_an_hour() {
        let (counts, mount) = (Counts::default(), mount("a"));
        for count in 1..=5 {
            assert!(!counts.is_locked(&mount, "bob", &RULES, at(1_000)), "before failure {count}");
            assert_eq!(counts.failed(&mount, "bob", &RULES, at(1_000)), count == 5);
        }
        assert!(counts.is_locked(&mount, "bob", &RULES, at(1_899)));
        assert!(!counts.is_locked(&mount, "bob", &RULES, at(1_900)));
        assert!(!counts.is_locked(&mount, "alice", &RULES, at(1_000)));
        assert!(!counts.is_locked(&self::mount("b"), "bob", &RULES, at(1_000)));
    }

    #[test]
    fn a_success_and_the_reset_time_begin_the_count_anew() {
        let (counts, mount) = (Counts::default(), mount("a"));
        let fail = |times: u32, now: i64| {
            for _ in 0..times {
                counts.failed(&mount, "bob", &RULES, at(now));
            }
        };
        fail(4, 1_000);
        counts.forget(&mount, "bob");
        fail(4, 1_000);
        assert!(!counts.is_locked(&mount, "bob", &RULES, at(1_000)));
        fail(4, 1_900);
        assert!(!counts.is_locked(&mount, "bob", &RULES, at(1_900)), "the reset time had passed");
        fail(1, 2_799);
        assert!(counts.is_locked(&mount, "bob", &RULES, at(2_799)), "it had not");
    }

    #[test]
    fn the_longest_name_is_counted_and_a_longer_one_is_not() {
        let (counts, mount) = (Counts::default(), mount("a"));
        let one = LockoutRules { threshold: 1, ..RULES };
        for (len, is_counted) in [(NAME_LEN_MAX, true), (NAME_LEN_MAX + 1, false)] {
            let name = "x".repeat(len);
            counts.failed(&mount, &name, &one, at(1_000));
            assert_eq!(counts.is_locked(&mount, &name, &one, at(1_000)), is_counted, "{len} bytes");
        }
    }

    #[test]
    fn what_is_forgotten_first_counts_no_more_and_the_rest_is_kept_while_it_fits() {
        let failed = |count, at_secs| Failures { count, last_at: at(at_secs) };
        let all = |failures: Failures, names: usize| {
            (0..names).map(|n| (format!("n{n}"), failures)).collect::<HashMap<_, _>>()
        };
        // What is too old goes, and then there is place enough for those who have failed once.
        let mut names = all(failed(1, 0), NAMES_MAX);
        names.extend([("young".to_owned(), failed(1, 100)), ("locked".to_owned(), failed(5, 100))]);
        free_places(&mut names, &RULES, at(900));
        assert_eq!(names.len(), 2, "at 900 s a failure at 0 s lies as far back as is remembered");
        // As long as the longer of the two durations is not over, it is remembered.
        let longer = LockoutRules { counter_reset: Ttl::from_secs(60), ..RULES };
        let mut names = all(failed(1, 0), 10);
        free_places(&mut names, &longer, at(899));
        assert_eq!(names.len(), 10);
        // Half of all places must become free, not one less: whoever is not locked goes.
        let mut names = all(failed(4, 800), NAMES_MAX / 2 - 1);
        names.insert("locked".to_owned(), failed(5, 100));
        free_places(&mut names, &RULES, at(900));
        assert_eq!(names.into_keys().collect::<Vec<_>>(), ["locked"]);
        let mut names = all(failed(4, 800), NAMES_MAX / 2 - 1);
        free_places(&mut names, &RULES, at(900));
        assert_eq!(names.len(), NAMES_MAX / 2 - 1, "these fit");
    }

    #[test]
    fn a_disabled_lockout_locks_nobody() {
        let (counts, mount) = (Counts::default(), mount("a"));
        let off = LockoutRules { is_disabled: true, ..RULES };
        (0..9).for_each(|_| assert!(!counts.failed(&mount, "bob", &off, at(1_000))));
        assert!(!counts.is_locked(&mount, "bob", &RULES, at(1_000)));
    }

    #[test]
    fn a_flood_of_names_is_bounded_and_unlocks_nobody() {
        let (counts, mount) = (Counts::default(), mount("a"));
        for _ in 0..5 {
            counts.failed(&mount, "bob", &RULES, at(1_000));
        }
        for name in 0..3 * NAMES_MAX {
            counts.failed(&mount, &format!("n{name}"), &RULES, at(1_001));
        }
        assert!(counts.with(&mount, |names| names.len()) <= NAMES_MAX);
        assert!(counts.is_locked(&mount, "bob", &RULES, at(1_002)));
        counts.failed(&mount, &"x".repeat(NAME_LEN_MAX + 1), &RULES, at(1_001));
        assert!(counts.with(&mount, |names| names.keys().all(|name| name.len() <= NAME_LEN_MAX)));
    }

    #[test]
    fn locked_names_are_bounded_too() {
        let (counts, mount) = (Counts::default(), mount("a"));
        let one = LockoutRules { threshold: 1, ..RULES };
        for name in 0..2 * NAMES_MAX {
            counts.failed(&mount, &format!("n{name}"), &one, at(1_000));
        }
        assert!(counts.with(&mount, |names| names.len()) <= NAMES_MAX);
    }

    #[test]
    fn of_locked_names_the_later_half_stays() {
        let one = LockoutRules { threshold: 1, ..RULES };
        let failed = |at_secs: i64| Failures { count: 1, last_at: at(at_secs) };
        let mut names: HashMap<String, Failures> =
            (0..NAMES_MAX).map(|n| (format!("n{n}"), failed(1_000 + i64::try_from(n).unwrap() / 100))).collect();
        free_places(&mut names, &one, at(1_000));
        assert_eq!(names.len(), NAMES_MAX / 2);
        let middle = 1_000 + i64::try_from(NAMES_MAX / 2).unwrap() / 100;
        assert!(names.values().all(|failures| failures.last_at >= at(middle)));
    }
}
