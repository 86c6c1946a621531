//! What is stored of a change, as it begins, fails, is settled and succeeds.

use leasehold_core::testing::CountingEntropy;
use leasehold_model::Ttl;

use super::*;

fn texts(rotation: &Rotation) -> Vec<String> {
    rotation.other_passwords().iter().map(|password| password.expose_secret().to_owned()).collect()
}

fn password(text: &str) -> SecretString {
    SecretString::from(text)
}

#[test]
fn no_password_is_forgotten_before_the_target_has_taken_another_one() {
    let entropy = CountingEntropy::default();
    let now = Timestamp::from_secs(1_000);
    let mut rotation = Rotation { schedule: Schedule::Every(Ttl::from_secs(100)), ..Rotation::default() };
    assert!(rotation.is_certain());
    rotation.begin(password("one"), now, &entropy);
    rotation.fail("the line broke", Taken::Perhaps, now, &entropy);
    assert_eq!(texts(&rotation), ["one"]);
    assert!(rotation.due_at > Some(now + EFFECT_MAX), "it is settled when it can no longer happen");
    rotation.begin(password("two"), now, &entropy).unwrap();
    assert_eq!(texts(&rotation), ["two", "one"]);
    rotation.fail("no such role", Taken::No, now, &entropy);
    assert_eq!(texts(&rotation), ["one"], "what was refused was not taken");
    rotation.begin(password("three"), now, &entropy);
    rotation.fail("a function said no", Taken::Hardly, now, &entropy);
    assert_eq!(texts(&rotation), ["one", "three"], "the likely ones are tried first");
    let pending = rotation.begin(password("four"), now, &entropy).unwrap();
    assert!(rotation.is_pending(&pending.id) && !rotation.is_pending("x"));
    assert_eq!(rotation.succeed(Certainty::Proved, now, "x").unwrap().expose_secret(), "four");
    assert!(rotation.is_certain() && rotation.attempts == 0 && rotation.failure.is_none());
    assert!(rotation.due_at.unwrap() <= now + Ttl::from_secs(100));
}

/// vault#21857: the same bad password was tried for ever, without a pause.
#[test]
fn a_change_that_fails_waits_longer_and_longer_and_for_ever() {
    let entropy = CountingEntropy::default();
    let now = Timestamp::from_secs(1_000);
    let mut rotation = Rotation { schedule: Schedule::Every(Ttl::from_secs(5)), ..Rotation::default() };
    let mut waits = Vec::new();
    for _ in 0..20 {
        rotation.begin(password("new"), now, &entropy);
        rotation.fail("no", Taken::No, now, &entropy);
        waits.push(rotation.due_at.unwrap().since(now).as_secs());
    }
    assert!((10..13).contains(&waits[0]) && waits[19] >= 600 && waits[19] < 800, "{waits:?}");
    // Nobody asks for these again.
    for (is_paused, schedule) in [(false, Schedule::Never), (true, Schedule::Every(Ttl::from_secs(5)))] {
        let mut rotation = Rotation { schedule, is_paused, ..Rotation::default() };
        rotation.begin(password("new"), now, &entropy);
        rotation.fail("no", Taken::No, now, &entropy);
        assert_eq!(rotation.due_at, None);
    }
}

#[test]
fn a_password_is_in_what_is_stored_and_nowhere_else() {
    let mut rotation = Rotation::default();
    rotation.begin(password("canary-1"), Timestamp::from_secs(1), &CountingEntropy::default());
    rotation.doubt(password("canary-2"));
    let shown = format!("{rotation:?}");
    assert!(!shown.contains("canary"), "{shown}");
    let stored = serde_json::to_string(&rotation).unwrap();
    let back: Rotation = serde_json::from_str(&stored).unwrap();
    assert_eq!(texts(&back), ["canary-1", "canary-2"]);
    let older: Rotation = serde_json::from_str("{}").unwrap();
    assert!(older.is_certain());
}

/// Three changes that were rolled back pushed out the password of a change whose end nobody saw: that one may work.
#[test]
fn what_was_rolled_back_pushes_out_nothing_that_may_have_happened() {
    let entropy = CountingEntropy::default();
    let now = Timestamp::from_secs(1_000);
    let mut rotation = Rotation::default();
    rotation.begin(password("may work"), now, &entropy).unwrap();
    rotation.fail("the line broke", Taken::Perhaps, now, &entropy);
    for text in ["a", "b", "c", "d"] {
        rotation.begin(password(text), now, &entropy).unwrap();
        rotation.fail("a statement failed", Taken::Hardly, now, &entropy);
    }
    assert_eq!(texts(&rotation), ["may work", "d", "c", "b"]);
}

#[test]
fn while_nobody_knows_how_many_changes_ended_no_other_one_begins() {
    let entropy = CountingEntropy::default();
    let now = Timestamp::from_secs(1_000);
    let mut rotation = Rotation::default();
    for change in 0..DOUBTFUL_MAX + 1 {
        rotation.begin(password(&format!("new {change}")), now, &entropy).unwrap();
        rotation.fail("the line broke", Taken::Perhaps, now, &entropy);
    }
    assert!(rotation.begin(password("one more"), now, &entropy).is_none());
    assert_eq!(rotation.other_passwords().len(), DOUBTFUL_MAX + 1);
}

/// A try that surely failed says nothing of the one before it, which was to set the same password.
#[test]
fn a_password_that_is_set_once_more_is_kept_when_that_fails() {
    let entropy = CountingEntropy::default();
    let now = Timestamp::from_secs(1_000);
    for taken in [Taken::No, Taken::Hardly] {
        let mut rotation = Rotation::default();
        rotation.begin(password("one"), now, &entropy).unwrap();
        rotation.fail("the line broke", Taken::Perhaps, now, &entropy);
        let again = rotation.repeated_password().unwrap();
        rotation.begin(again, now, &entropy).unwrap();
        rotation.fail("no such role", taken, now, &entropy);
        assert_eq!(texts(&rotation), ["one"]);
        assert!(rotation.is_open(), "{taken:?}");
    }
}

/// Writes that nobody tried pushed out the password that the target has.
#[test]
fn guesses_push_out_no_password_that_worked() {
    let mut rotation = Rotation { last_rotated_at: Some(Timestamp::from_secs(1)), ..Rotation::default() };
    for before in ["rotated", "guess 1", "guess 2", "guess 3", "guess 4"] {
        rotation.replaced(password(before));
    }
    assert_eq!(texts(&rotation), ["rotated", "guess 4", "guess 3", "guess 2"]);
    rotation.current_was_proved(Timestamp::from_secs(2));
    assert!(rotation.is_certain());
    rotation.replaced(password("proved"));
    assert_eq!(texts(&rotation), ["proved"]);
}

/// The moment for settling a change stayed when the change was forgotten, and the job took it for a change that was due.
#[test]
fn what_is_forgotten_leaves_nothing_due() {
    let entropy = CountingEntropy::default();
    let now = Timestamp::from_secs(1_000);
    let later = now + Duration::from_secs(100);
    for forget in [|rotation: &mut Rotation, _| rotation.forget_passwords(), Rotation::current_was_proved] {
        let mut rotation = Rotation::default();
        rotation.begin(password("one"), now, &entropy).unwrap();
        forget(&mut rotation, later);
        assert_eq!((rotation.due_at, rotation.is_open()), (None, false));
        assert!(!rotation.may_happen(later));
    }
}

/// Moments of a calendar that were over when it was written are not made up for; a period is a promise.
#[test]
fn a_schedule_that_is_written_now_counts_from_now() {
    let (long_ago, now) = (Timestamp::from_secs(1_000), Timestamp::from_secs(1_000_000));
    let plan = |schedule| {
        let mut rotation = Rotation { schedule, last_rotated_at: Some(long_ago), ..Rotation::default() };
        rotation.plan_written(now, "x");
        rotation.due_at.unwrap()
    };
    assert!(plan(Schedule::Cron { text: "0 3 * * *".to_owned(), window: Ttl::ZERO }) > now);
    assert!(plan(Schedule::Every(Ttl::from_secs(3_600))) < now);
}
