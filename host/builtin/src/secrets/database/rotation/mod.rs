//! Passwords that are changed in PostgreSQL and kept here: of the connections' own users, and of static roles.
//!
//! Must not know: SQL (see `postgresql/set_password.rs`), or how a job is claimed.
//!
//! Start with [`Rotation`] (what is stored of it), then [`change`] (one change from beginning to end), [`kept`] (where the password of a
//! connection's user or of a static role is stored) and [`queue`] (what is due).
//!
//! Invariants: a new password is stored before PostgreSQL hears of it, and the old one is forgotten only when PostgreSQL has said that
//! it took the new one. So whenever a server dies, every password that may be the one that works is in the store. A change that another
//! server has begun is left alone until it can no longer happen; then it is settled, by whoever comes first. By itself nothing is
//! changed but what has a schedule.

mod change;
pub(super) mod kept;
pub(super) mod queue;
pub(super) mod schedule;
pub(super) mod static_roles;
#[cfg(test)]
mod tests;

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
/// While so many passwords are kept that the target may have taken, no other one is made.
const DOUBTFUL_MAX: usize = 8;
/// Of passwords that the target most likely did not take, the last ones are kept.
const UNLIKELY_MAX: usize = 3;
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
    /// The same password was to be set before, and nobody knows how that ended.
    #[serde(default)]
    is_repeated: bool,
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
    /// Passwords that the target may have: of changes whose end nobody saw, or replaced by a write that nobody tried. The last one first.
    #[serde(default)]
    doubtful: Vec<StoredPassword>,
    /// Passwords that the target refused or rolled back. Only what no transaction undoes, or a `COMMIT` that ends later than any deadline,
    /// can have set one of them. The last one first.
    #[serde(default)]
    unlikely: Vec<StoredPassword>,
    /// The current password was written by somebody, and the target has not taken it yet.
    #[serde(default)]
    is_guess: bool,
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
    /// Passwords besides the current one that the target may have: the most likely one first.
    pub(super) fn other_passwords(&self) -> Vec<SecretString> {
        let pending = self.pending.iter().map(|pending| &pending.password);
        pending.chain(&self.doubtful).chain(&self.unlikely).map(|password| password.0.clone()).collect()
    }

    /// Whether the current password is the only one that the target can have.
    pub(super) fn is_certain(&self) -> bool {
        self.pending.is_none() && self.doubtful.is_empty() && self.unlikely.is_empty()
    }

    /// Whether it is to be found out which password the target has, before it is changed again.
    fn is_open(&self) -> bool {
        self.pending.is_some() || !self.doubtful.is_empty()
    }

    /// A change that may still happen: only its end tells which password counts.
    pub(super) fn is_under_way(&self, now: Timestamp) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.is_over(now))
    }

    /// A change that began a moment ago is not looked into: it is over before a login would be.
    pub(super) fn is_in_flight(&self, now: Timestamp) -> bool {
        self.pending.as_ref().is_some_and(|pending| now < pending.begun_at + Duration::from_secs(2))
    }

    pub(super) fn was_rotated(&self) -> bool {
        self.last_rotated_at.is_some()
    }

    /// What was learnt about the password of one place and user is of no use elsewhere, and must not be sent there. Its schedule is to be
    /// [planned](Self::plan) anew.
    pub(super) fn forget_passwords(&mut self) {
        let (schedule, is_paused) = (std::mem::take(&mut self.schedule), self.is_paused);
        *self = Self { schedule, is_paused, ..Self::default() };
    }

    /// The target took the current password just now, where nothing else was tried. What was due to settle a change is to be
    /// [planned](Self::plan) anew.
    pub(super) fn current_was_proved(&mut self, now: Timestamp) {
        self.is_guess = false;
        if self.is_under_way(now) {
            return;
        }
        if self.pending.take().is_some() {
            self.due_at = None;
        }
        self.doubtful.clear();
        self.unlikely.clear();
    }

    /// Somebody writes another password than `before`, and nobody has tried it.
    pub(super) fn replaced(&mut self, before: SecretString) {
        // Of many writes that nobody tried, the password before the first one is the one that the target is known to have had.
        if self.is_guess {
            self.hardly(before)
        } else {
            self.doubt(before)
        }
        self.is_guess = true;
    }

    fn doubt(&mut self, password: SecretString) {
        remember(&mut self.doubtful, password);
    }

    fn hardly(&mut self, password: SecretString) {
        remember(&mut self.unlikely, password);
        self.unlikely.truncate(UNLIKELY_MAX);
    }

    /// Whether something may be changed now because it is due: what has no schedule is changed by nobody but those who ask.
    fn may_happen(&self, now: Timestamp) -> bool {
        !self.is_paused && self.schedule != Schedule::Never && self.schedule.may_happen(now)
    }

    /// Reckons anew when the next change is due, after `from`. While one is pending, that stays as it is.
    pub(super) fn plan(&mut self, from: Timestamp, name: &str) {
        if self.pending.is_none() {
            self.due_at = if self.is_paused { None } else { self.schedule.next(from, name) };
        }
    }

    /// The same after a write of the schedule: a period counts from the last change, while moments of a calendar that are over before
    /// anybody wrote them are not made up for.
    pub(super) fn plan_written(&mut self, now: Timestamp, name: &str) {
        let last = self.last_rotated_at.filter(|_| matches!(self.schedule, Schedule::Every(_)));
        self.plan(last.unwrap_or(now), name);
    }

    /// The password that the next change sets, if not a new one: one whose change may have happened is set once more, so that there are
    /// not two of them.
    fn repeated_password(&self) -> Option<SecretString> {
        self.pending.as_ref().map(|pending| pending.password.0.clone())
    }

    /// To be stored before the target hears of the password. `None`: the target may have too many others already.
    fn begin(&mut self, password: SecretString, now: Timestamp, entropy: &dyn Entropy) -> Option<Pending> {
        if self.doubtful.len() >= DOUBTFUL_MAX {
            return None;
        }
        let unsettled = self.pending.take().map(|pending| pending.password.0);
        let is_repeated = unsettled.as_ref().is_some_and(|former| is_same(former, &password));
        if let Some(other) = unsettled.filter(|_| !is_repeated) {
            self.doubt(other);
        }
        let pending = Pending {
            id: random::base62(entropy, 16),
            password: StoredPassword(password),
            begun_at: now,
            deadline: now + EFFECT_MAX,
            is_repeated,
        };
        self.due_at = Some(pending.deadline + SETTLE_AFTER);
        self.pending = Some(pending.clone());
        Some(pending)
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

    /// The target has the new password, for certain or by its word alone. Returns it: it is the current one now.
    fn succeed(&mut self, certainty: Certainty, at: Timestamp, name: &str) -> Option<SecretString> {
        let pending = self.pending.take()?;
        if certainty == Certainty::Proved {
            self.doubtful.clear();
            self.unlikely.clear();
        }
        self.is_guess = false;
        self.last_rotated_at = Some(at);
        self.attempts = 0;
        self.failure = None;
        self.plan(at, name);
        Some(pending.password.0)
    }

    /// The target has the current password, or the one that is about to become it, for certain: what others wanted did not happen.
    fn settle_on_another(&mut self, now: Timestamp, entropy: &dyn Entropy) {
        self.doubtful.clear();
        self.is_guess = false;
        if let Some(pending) = self.pending.take() {
            self.hardly(pending.password.0);
            self.fail(
                "a server ended while it changed the password, before the database took the new one",
                Taken::No,
                now,
                entropy,
            );
        }
    }

    /// The target has none of these, so that a change begins as if nothing was known.
    fn doubt_all(&mut self) {
        let pending = self.pending.take().map(|pending| pending.password);
        for password in std::mem::take(&mut self.doubtful).into_iter().rev().chain(pending) {
            self.hardly(password.0);
        }
    }

    /// A change failed. `taken` says whether the target may have taken the pending password for all that.
    fn fail(&mut self, why: &str, taken: Taken, now: Timestamp, entropy: &dyn Entropy) {
        self.attempts = self.attempts.saturating_add(1);
        self.failure = Some(why.chars().take(WHY_MAX).collect());
        let mut again_at = now + backoff(self.attempts, entropy);
        match (taken, self.pending.take()) {
            (_, None) => {}
            (Taken::Perhaps, Some(pending)) => {
                again_at = again_at.max(pending.deadline + SETTLE_AFTER);
                self.pending = Some(pending);
            }
            // This try failed. One before it may not have.
            (_, Some(pending)) if pending.is_repeated => self.doubt(pending.password.0),
            (Taken::No, Some(_)) => {}
            (Taken::Hardly, Some(pending)) => self.hardly(pending.password.0),
        }
        // Who asked for a change hears of the failure; what is not scheduled is tried again only to settle it.
        let is_due = self.pending.is_some() || !self.is_paused && self.schedule != Schedule::Never;
        self.due_at = is_due.then_some(again_at);
    }
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Puts a password first among those of its list.
fn remember(list: &mut Vec<StoredPassword>, password: SecretString) {
    if password.expose_secret().is_empty() {
        return;
    }
    list.retain(|known| !is_same(&known.0, &password));
    list.insert(0, StoredPassword(password));
}

/// How it is known that a target has a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// It lets in with it, or has said that it did just this.
    Proved,
    /// Statements ran that were to set it.
    ByItsWord,
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
