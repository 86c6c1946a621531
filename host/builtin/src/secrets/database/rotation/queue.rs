//! What is due: keys in the mount's storage that sort by time, and the job that works them off.
//!
//! Must not know: how a password is changed.
//!
//! Start with [`reschedule`] (the keys move in the commit that changes what they stand for) and
//! [`DatabaseEngine::rotate_due`](super::super::DatabaseEngine::rotate_due) (one run of the job).
//!
//! Invariants: whoever has a moment in its record has one key that says the same. A key whose record says otherwise does nothing and is
//! removed. A run looks at each key once, so that what cannot be stored does not keep it busy.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
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
/// Keys read at once.
const PAGE: u32 = 256;
/// Passwords that are changed at once for one mount.
const AT_ONCE: usize = 8;
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

impl DatabaseEngine {
    /// Changes what is due, and says when the next one is.
    pub(in super::super) async fn rotate_due(&self, at: &EngineContext) -> Result<Option<Timestamp>, RequestError> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        // Connections that could not be reached: others of them wait for another run.
        let mut down: BTreeSet<String> = BTreeSet::new();
        loop {
            let now = at.clock.now();
            let page = at.storage.list(FOLDER, None, PAGE).await?;
            let next = page.iter().find_map(|entry| parse(entry).map(|(due, _)| due).filter(|due| *due > now));
            let is_due = |entry: &&String| parse(entry).is_none_or(|(due, _)| due <= now);
            let fresh: Vec<String> =
                page.iter().filter(is_due).filter(|entry| !seen.contains(*entry)).take(AT_ONCE).cloned().collect();
            if fresh.is_empty() {
                let is_left = page.iter().any(|entry| is_due(&entry));
                let again_at = if is_left { now + AGAIN_AFTER } else { next.unwrap_or(Timestamp::NEVER) };
                // What comes in while a run ends, or is left behind by a server that was killed, is seen by the next look.
                return Ok(Some(again_at.min(now + JOB.every)));
            }
            for unreachable in join_all(fresh.iter().map(|entry| self.rotate_entry(at, entry, &down))).await {
                down.extend(unreachable);
            }
            seen.extend(fresh);
        }
    }

    /// The connection, when it could not be reached.
    async fn rotate_entry(&self, at: &EngineContext, entry: &str, down: &BTreeSet<String>) -> Option<String> {
        let Some((_, subject)) = parse(entry) else {
            forget(at, MountBatch::new(), entry).await;
            return None;
        };
        let connection = match due_connection(at, entry, &subject).await {
            Ok(Some(connection)) => connection,
            Ok(None) => return None,
            Err(error) => {
                tracing::warn!(mount.path = %at.mount.path, %error, "could not look at what is due: {subject}");
                return None;
            }
        };
        if down.contains(&connection) {
            put_off(at, &subject).await;
            return None;
        }
        let Err(RotationFailed { error, is_down, .. }) = self.rotate(at, &subject, Cause::Due).await else {
            return None;
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
        is_down.then_some(connection)
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

/// The connection on which something is due. `None` when the record says otherwise by now, or cannot be read: then the key is removed.
async fn due_connection(at: &EngineContext, entry: &str, subject: &Subject) -> Result<Option<String>, RequestError> {
    let stored = at.storage.get(&subject.record_key()).await?;
    let kept = stored.as_ref().map(|stored| Kept::read(subject, stored)).transpose();
    if let Ok(Some(kept)) = &kept
        && stands_for(entry, subject, kept.rotation().due_at)
    {
        return Ok(Some(kept.connection().to_owned()));
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
    forget(at, MountBatch::new().check(subject.record_key(), version), entry).await;
    Ok(None)
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
