//! What is due: keys in the mount's storage that sort by time, and the job that works them off.
//!
//! Must not know: how a password is changed.
//!
//! Start with [`reschedule`] (the keys move in the commit that changes what they stand for) and
//! [`DatabaseEngine::rotate_due`](super::super::DatabaseEngine::rotate_due) (one run of the job).
//!
//! Invariants: whoever has a moment in its record has one key that says the same. A key whose record says otherwise does nothing and is
//! removed. A run looks at each key once, so that what cannot be stored does not keep it busy, and has an end, so that what is due again
//! already does not either. No connection takes all places: what is due on others does not wait for one that is slow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::{Timestamp, Ttl};

use super::super::DatabaseEngine;
use super::kept::Kept;
use super::{Cause, RotationFailed};

/// The job, with the longest time between two looks at the queue.
pub(in super::super) const JOB: MountJob = MountJob { name: "rotate-passwords", every: Ttl::from_secs(60) };

const FOLDER: &str = "due/";
/// Keys read at once ...
const PAGE: u32 = 1_024;
/// ... and in one look.
const LOOK_MAX: usize = 64 * 1_024;
/// Passwords that are changed at once for one mount ...
const AT_ONCE: usize = 12;
/// ... and on one connection.
const AT_ONCE_ON_ONE: usize = 4;
/// How long a run begins further changes. Then its job has shown that it lives, and goes on with another run.
const RUN_MAX: Duration = Duration::from_secs(60);
/// When a run that could not do everything looks again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Whose password is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Subject {
    /// The own user of the connection with this name.
    Root(String),
    /// The static role with this name.
    Static(String),
}

impl Subject {
    pub(in super::super) fn name(&self) -> &str {
        match self {
            Self::Root(name) | Self::Static(name) => name,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => write!(f, "root/{name}"),
            Self::Static(name) => write!(f, "static/{name}"),
        }
    }
}

fn key(at: Timestamp, subject: &Subject) -> String {
    format!("{FOLDER}{}", entry(at, subject))
}

/// Twenty digits hold every moment, so that text sorts as time does.
fn entry(at: Timestamp, subject: &Subject) -> String {
    format!("{:020}/{subject}", at.as_nanos().max(0))
}

fn parse(entry: &str) -> Option<(Timestamp, Subject)> {
    let (at, rest) = entry.split_once('/')?;
    let (kind, name) = rest.split_once('/')?;
    let subject = match kind {
        "root" => Subject::Root(name.to_owned()),
        "static" => Subject::Static(name.to_owned()),
        _ => return None,
    };
    Some((Timestamp::from_nanos(at.parse().ok()?), subject))
}

/// Moves the key of `subject`, in the commit that writes its record.
pub(in super::super) fn reschedule(
    batch: MountBatch,
    subject: &Subject,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> MountBatch {
    if from == to {
        return batch;
    }
    let batch = match from {
        Some(at) => batch.delete(key(at, subject), Expect::Anything),
        None => batch,
    };
    match to {
        Some(at) => batch.put(key(at, subject), Vec::new(), Expect::Anything),
        None => batch,
    }
}

/// One that is due.
struct Due {
    subject: Subject,
    connection: String,
}

/// What is left to do in one run.
#[derive(Default)]
struct Run {
    seen: BTreeSet<String>,
    entries: VecDeque<String>,
    /// By connection: all places of these were taken.
    waiting: BTreeMap<String, VecDeque<Due>>,
    /// How many are being changed, by connection.
    active: BTreeMap<String, usize>,
    /// Connections that could not be reached: others of them wait for another run.
    down: BTreeSet<String>,
}

impl Run {
    /// The next one whose connection has a place; takes the place.
    async fn next(&mut self, at: &EngineContext) -> Option<Due> {
        let is_free = |active: &BTreeMap<String, usize>, connection: &String| {
            active.get(connection).copied().unwrap_or(0) < AT_ONCE_ON_ONE
        };
        loop {
            let waits = self.waiting.iter().find(|(connection, _)| is_free(&self.active, connection));
            let waited = waits.map(|(connection, _)| connection.clone());
            let due = match waited {
                Some(connection) => {
                    let list = self.waiting.get_mut(&connection)?;
                    let due = list.pop_front();
                    if list.is_empty() {
                        self.waiting.remove(&connection);
                    }
                    due?
                }
                None => match look_up(at, self.entries.pop_front()?).await {
                    Some(due) => due,
                    None => continue,
                },
            };
            if self.down.contains(&due.connection) {
                put_off(at, &due.subject).await;
            } else if is_free(&self.active, &due.connection) {
                *self.active.entry(due.connection.clone()).or_default() += 1;
                return Some(due);
            } else {
                self.waiting.entry(due.connection.clone()).or_default().push_back(due);
            }
        }
    }

    fn ended(&mut self, connection: String, is_down: bool) {
        if let Some(count) = self.active.get_mut(&connection) {
            *count = count.saturating_sub(1);
        }
        if is_down {
            self.down.insert(connection);
        }
    }
}

impl DatabaseEngine {
    /// Changes what is due, and says when the next one is.
    pub(in super::super) async fn rotate_due(&self, at: &EngineContext) -> Result<Option<Timestamp>, RequestError> {
        let began = at.clock.steady();
        let is_over = || at.clock.steady().saturating_sub(began) > RUN_MAX;
        let mut run = Run::default();
        loop {
            let now = at.clock.now();
            let (due, next) = look(at, now).await?;
            let is_left = !due.is_empty();
            run.entries = due.into_iter().filter(|entry| !run.seen.contains(entry)).collect();
            if run.entries.is_empty() || is_over() {
                let again_at = match (is_left, is_over()) {
                    (false, _) => next.unwrap_or(Timestamp::NEVER),
                    (true, true) => now,
                    (true, false) => now + AGAIN_AFTER,
                };
                // What comes in while a run ends, or is left behind by a server that was killed, is seen by the next look.
                return Ok(Some(again_at.min(now + JOB.every)));
            }
            run.seen.extend(run.entries.iter().cloned());
            let mut changes = FuturesUnordered::new();
            loop {
                while changes.len() < AT_ONCE && !is_over() {
                    match run.next(at).await {
                        Some(due) => changes.push(self.rotate_entry(at, due)),
                        None => break,
                    }
                }
                match changes.next().await {
                    Some((connection, is_down)) => run.ended(connection, is_down),
                    None => break,
                }
            }
        }
    }

    /// Returns the connection, and whether it could not be reached.
    async fn rotate_entry(&self, at: &EngineContext, due: Due) -> (String, bool) {
        let Due { subject, connection } = due;
        let Err(RotationFailed { error, is_down, .. }) = self.rotate(at, &subject, Cause::Due).await else {
            return (connection, false);
        };
        if !matches!(error, RequestError::Sealed) {
            tracing::warn!(
                mount.path = %at.mount.path,
                connection,
                error = %error,
                "the password of {subject} was due to be changed and was not: it is tried again later"
            );
        }
        put_off(at, &subject).await;
        (connection, is_down)
    }
}

/// Unless the failure has done so already.
async fn put_off(at: &EngineContext, subject: &Subject) {
    let Ok(Some(mut kept)) = Kept::load(at, subject).await else { return };
    if !kept.rotation_mut().postpone(at.clock.now(), &*at.entropy) {
        return;
    }
    match kept.store(at).await {
        Ok(()) | Err(StorageError::Sealed | StorageError::Conflict(_)) => {}
        Err(error) => tracing::debug!(%error, "could not put off {subject}"),
    }
}

/// The keys that are due by `now`, and when the next one is.
async fn look(at: &EngineContext, now: Timestamp) -> Result<(Vec<String>, Option<Timestamp>), StorageError> {
    let mut due: Vec<String> = Vec::new();
    while due.len() < LOOK_MAX {
        let page = at.storage.list(FOLDER, due.last().map(String::as_str), PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        for entry in page {
            match parse(&entry) {
                Some((moment, _)) if moment > now => return Ok((due, Some(moment))),
                _ => due.push(entry),
            }
        }
        if is_last {
            break;
        }
    }
    Ok((due, None))
}

/// What a key stands for. `None` when the record says otherwise by now, or cannot be read: then the key is removed.
async fn look_up(at: &EngineContext, entry: String) -> Option<Due> {
    let Some((_, subject)) = parse(&entry) else {
        forget(at, MountBatch::new(), &entry).await;
        return None;
    };
    let stored = match at.storage.get(&subject.record_key()).await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(mount.path = %at.mount.path, %error, "could not look at what is due: {subject}");
            return None;
        }
    };
    let kept = stored.as_ref().map(|stored| Kept::read(&subject, stored)).transpose();
    if let Ok(Some(kept)) = &kept
        && stands_for(&entry, &subject, kept.rotation().due_at)
    {
        let connection = kept.connection().to_owned();
        return Some(Due { subject, connection });
    }
    if let Err(error) = kept {
        tracing::error!(
            mount.path = %at.mount.path,
            %error,
            "the password of {subject} was due to be changed: it is not changed by itself any more before somebody writes it anew"
        );
    }
    let version = stored.map_or(Expect::Absent, |stored| Expect::Version(stored.version));
    // Whoever writes the record meanwhile may write this key once more.
    forget(at, MountBatch::new().check(subject.record_key(), version), &entry).await;
    None
}

/// Nothing stands behind this key any more.
async fn forget(at: &EngineContext, batch: MountBatch, entry: &str) {
    match at.storage.commit(batch.delete(format!("{FOLDER}{entry}"), Expect::Anything)).await {
        Ok(()) | Err(StorageError::Sealed | StorageError::Conflict(_)) => {}
        Err(error) => tracing::debug!(%error, "could not remove what is no longer due: {entry}"),
    }
}

/// Whether this key says what the record says.
pub(super) fn stands_for(entry_or_key: &str, subject: &Subject, due_at: Option<Timestamp>) -> bool {
    due_at.is_some_and(|due| entry(due, subject) == entry_or_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_moments_do_and_say_what_they_stand_for() {
        let subjects = [Subject::Root("a/b".to_owned()), Subject::Static("z".to_owned())];
        let moments = [0, 1, 999_999_999, 1_000_000_000, 1_795_394_942_000_000_000, i64::MAX];
        let mut entries = Vec::new();
        for nanos in moments {
            for subject in &subjects {
                let at = Timestamp::from_nanos(nanos);
                assert_eq!(parse(&entry(at, subject)), Some((at, subject.clone())));
                assert!(stands_for(&entry(at, subject), subject, Some(at)));
                assert!(!stands_for(&entry(at, subject), subject, None));
                entries.push(entry(at, subject));
            }
        }
        assert!(entries.is_sorted());
        for nonsense in ["", "x", "1/root", "x/root/a", "1/other/a"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
