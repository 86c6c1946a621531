//! Passwords that are changed in PostgreSQL and kept here: of the connections' own users, and of static roles.
//!
//! Must not know: SQL (see `postgresql/set_password.rs`), or how a job is claimed.
//!
//! Start with [`Rotation`] (what is stored of it), then [`root`] and [`static_roles`] (one change from beginning to end) and [`queue`] (what is
//! due).
//!
//! Invariants: a new password is stored before PostgreSQL hears of it, and the old one is forgotten only when PostgreSQL has said that
//! it took the new one. So whenever a server dies, every password that may be the one that works is in the store. A change that another
//! server has begun is left alone until it can no longer happen; then it is settled, by whoever comes first.

pub(super) mod queue;
pub(super) mod root;
pub(super) mod schedule;
pub(super) mod static_roles;

use std::time::Duration;

use leasehold_core::backoff::backoff;
use leasehold_core::random;
use leasehold_core::seams::engine::{EngineContext, EngineError};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::storage::StorageError;
use leasehold_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use schedule::Schedule;

use super::open::Unusable;

/// How long a change may take in the target from the moment when its password was stored.
const EFFECT_MAX: Duration = Duration::from_secs(25);
/// How long after that a change of another server is still left alone: clocks differ.
const SETTLE_AFTER: Duration = Duration::from_secs(5);
/// How long a request waits for a change that another one has begun.
const WAIT_MAX: Duration = Duration::from_secs(40);
/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of passwords that the target may have taken, so many are kept.
const DOUBTFUL_MAX: usize = 3;
/// How much of a failure's words is stored.
const WHY_MAX: usize = 500;

/// A password as it is sealed into storage: the only form in which it is written.
#[derive(Clone, Debug)]
pub(super) struct StoredPassword(pub(super) SecretString);

impl Serialize for StoredPassword {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for StoredPassword {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(SecretString::from(text)))
    }
}

/// A change that was begun: the target may or may not have taken the password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Tells this change from every other.
    id: String,
    password: StoredPassword,
    begun_at: Timestamp,
    /// It has happened by then, or never does.
    deadline: Timestamp,
}

impl Pending {
    /// Whether the change is as far as it will ever come.
    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.deadline + SETTLE_AFTER
    }
}

/// What is stored of the changes of one user's password, beside the password itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Rotation {
    #[serde(default)]
    pub(super) schedule: Schedule,
    /// The schedule stays, and nothing is changed by it.
    #[serde(default)]
    pub(super) is_paused: bool,
    #[serde(default)]
    pending: Option<Pending>,
    /// Passwords of changes whose end nobody saw: the last one first.
    #[serde(default)]
    doubtful: Vec<StoredPassword>,
    #[serde(default)]
    pub(super) last_rotated_at: Option<Timestamp>,
    /// When the next change is due, or a pending one is to be settled. The key in the queue says the same.
    #[serde(default)]
    pub(super) due_at: Option<Timestamp>,
    /// Changes in a row that have failed.
    #[serde(default)]
    attempts: u32,
    /// Why the last one failed. Holds no secret.
    #[serde(default)]
    failure: Option<String>,
}

impl Rotation {
    /// Passwords besides the current one that the target may have: the newest first.
    pub(super) fn other_passwords(&self) -> Vec<SecretString> {
        let pending = self.pending.iter().map(|pending| &pending.password);
        pending.chain(&self.doubtful).map(|password| password.0.clone()).collect()
    }

    /// Whether it is certain that the current password is the one that the target has.
    pub(super) fn is_certain(&self) -> bool {
        self.pending.is_none() && self.doubtful.is_empty()
    }

    /// A change that began a moment ago is not looked into: it is over before a login would be.
    pub(super) fn is_in_flight(&self, now: Timestamp) -> bool {
        self.pending.as_ref().is_some_and(|pending| now < pending.begun_at + Duration::from_secs(2))
    }

    pub(super) fn was_rotated(&self) -> bool {
        self.last_rotated_at.is_some()
    }

    /// What was learnt about the password of one place and user is of no use elsewhere, and must not be sent there.
    pub(super) fn forget_passwords(&mut self) {
        self.pending = None;
        self.doubtful.clear();
        self.last_rotated_at = None;
        self.attempts = 0;
        self.failure = None;
    }

    /// The target took the current password just now, where nothing else was tried.
    pub(super) fn current_was_proved(&mut self, now: Timestamp) {
        if self.pending.as_ref().is_none_or(|pending| pending.is_over(now)) {
            self.pending = None;
            self.doubtful.clear();
        }
    }

    /// A password that nobody but this server knew is replaced by somebody's word.
    pub(super) fn doubt(&mut self, password: SecretString) {
        if password.expose_secret().is_empty() {
            return;
        }
        self.doubtful.retain(|known| known.0.expose_secret() != password.expose_secret());
        self.doubtful.insert(0, StoredPassword(password));
        self.doubtful.truncate(DOUBTFUL_MAX);
    }

    /// Reckons anew when the next change is due, after `from`. While one is pending, that stays as it is.
    pub(super) fn plan(&mut self, from: Timestamp, name: &str) {
        if self.pending.is_none() {
            self.due_at = if self.is_paused { None } else { self.schedule.next(from, name) };
        }
    }

    /// To be stored before the target hears of the password.
    fn begin(&mut self, password: SecretString, now: Timestamp, entropy: &dyn Entropy) -> Pending {
        if let Some(unsettled) = self.pending.take() {
            self.doubt(unsettled.password.0);
        }
        let pending = Pending {
            id: random::base62(entropy, 16),
            password: StoredPassword(password),
            begun_at: now,
            deadline: now + EFFECT_MAX,
        };
        self.due_at = Some(pending.deadline + SETTLE_AFTER);
        self.pending = Some(pending.clone());
        pending
    }

    /// Puts off what is due and could not be looked at. Returns whether it was due.
    fn postpone(&mut self, now: Timestamp, entropy: &dyn Entropy) -> bool {
        let is_due = self.due_at.is_some_and(|due| due <= now);
        if is_due {
            self.attempts = self.attempts.saturating_add(1);
            self.due_at = Some(now + backoff(self.attempts, entropy));
        }
        is_due
    }

    fn is_pending(&self, id: &str) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.id == id)
    }

    /// The target has the new password. Returns it: it is the current one now.
    fn succeed(&mut self, at: Timestamp, name: &str) -> Option<SecretString> {
        let pending = self.pending.take()?;
        self.doubtful.clear();
        self.last_rotated_at = Some(at);
        self.attempts = 0;
        self.failure = None;
        self.plan(at, name);
        Some(pending.password.0)
    }

    /// A change failed. `taken` says whether the target may have taken the pending password for all that.
    fn fail(&mut self, why: &str, taken: Taken, now: Timestamp, entropy: &dyn Entropy) {
        self.attempts = self.attempts.saturating_add(1);
        self.failure = Some(why.chars().take(WHY_MAX).collect());
        let mut again_at = now + backoff(self.attempts, entropy);
        match (taken, self.pending.take()) {
            (Taken::No, _) | (_, None) => {}
            (Taken::Hardly, Some(pending)) => self.doubt(pending.password.0),
            (Taken::Perhaps, Some(pending)) => {
                again_at = again_at.max(pending.deadline + SETTLE_AFTER);
                self.pending = Some(pending);
            }
        }
        // Who asked for a change hears of the failure; what is not scheduled is tried again only to settle it.
        let is_due = self.pending.is_some() || !self.is_paused && self.schedule != Schedule::Never;
        self.due_at = is_due.then_some(again_at);
    }
}

/// Whether a target may have taken a password, after a change that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    No,
    /// It was rolled back. But the operator's statements may have done something that no transaction undoes.
    Hardly,
    /// Nobody heard how it ended.
    Perhaps,
}

/// Who wants a password changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody asks for it now.
    Asked,
    /// It is due; whoever was faster has done it.
    Due,
}

/// Why a password was not changed.
#[derive(Debug)]
pub(super) struct RotationFailed {
    pub(super) error: RequestError,
    /// The target cannot be reached: others of it need not be tried in this moment.
    pub(super) is_down: bool,
    /// Nobody knows whether the target took the new password.
    pub(super) is_open: bool,
}

impl From<RequestError> for RotationFailed {
    fn from(error: RequestError) -> Self {
        Self { error, is_down: false, is_open: false }
    }
}

impl From<StorageError> for RotationFailed {
    fn from(error: StorageError) -> Self {
        RequestError::from(error).into()
    }
}

impl From<Unusable> for RotationFailed {
    fn from(why: Unusable) -> Self {
        RequestError::from(why).into()
    }
}

impl RotationFailed {
    /// `what` was not done, as a target or its pool says.
    fn of(what: &str, error: &EngineError) -> Self {
        let is_down = matches!(error, EngineError::Down(_) | EngineError::Unreached(_));
        let is_open = matches!(error, EngineError::Down(_));
        let note = if is_open {
            "; whether the new password was set is not known: both are kept, and this is settled when the database answers again"
        } else {
            ""
        };
        Self { error: RequestError::Engine(format!("{what}: {error}{note}")), is_down, is_open }
    }

    fn is_conflict(&self) -> bool {
        matches!(self.error, RequestError::Storage(StorageError::Conflict(_)))
    }
}

/// Waits a little for a change that somebody else has begun; the patience of a request has an end.
async fn wait_for_other(at: &EngineContext, began: Duration) -> Result<(), RequestError> {
    if at.clock.steady().saturating_sub(began) > WAIT_MAX {
        return Err(RequestError::Unavailable(
            "this password is being changed by another request: try again in a moment".to_owned(),
        ));
    }
    tokio::time::sleep(LOOK_EVERY).await;
    Ok(())
}

#[cfg(test)]
mod tests {
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
        rotation.begin(password("two"), now, &entropy);
        assert_eq!(texts(&rotation), ["two", "one"]);
        rotation.fail("no such role", Taken::No, now, &entropy);
        assert_eq!(texts(&rotation), ["one"], "what was refused was not taken");
        rotation.begin(password("three"), now, &entropy);
        rotation.fail("a function said no", Taken::Hardly, now, &entropy);
        assert_eq!(texts(&rotation), ["three", "one"]);
        let pending = rotation.begin(password("four"), now, &entropy);
        assert!(rotation.is_pending(&pending.id) && !rotation.is_pending("x"));
        assert_eq!(rotation.succeed(now, "x").unwrap().expose_secret(), "four");
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

    #[test]
    fn what_is_kept_in_doubt_is_bounded() {
        let mut rotation = Rotation::default();
        for text in ["a", "b", "", "c", "d", "b"] {
            rotation.doubt(password(text));
        }
        assert_eq!(texts(&rotation), ["b", "d", "c"]);
    }
}
