//! One claimed job from beginning to end: hold the row, work while the claim is kept, store what came of it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_model::{Timestamp, Ttl};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mounts::Owner;
use super::{Job, JobError, Jobs};
use crate::backoff::backoff;
use crate::codec::encode;
use crate::rows::job::{JobBody, JobFailure};
use crate::rows::lease::LeaseRow;
use crate::rows::state::LeaseState;
use crate::seams::storage::{Batch, StorageError};

/// A claim is kept for so long from its last extension: a server that is gone is replaced after that.
const HOLD_FOR: Ttl = Ttl::from_secs(60);
/// How often a claim is extended. Three may fail before it is lost.
const EXTEND_EVERY: Duration = Duration::from_secs(15);
/// A run that takes longer has failed.
const RUN_MAX: Duration = Duration::from_secs(3_600);
/// How long what a run gives back may be, as JSON.
pub const STATE_MAX: usize = 4 << 20;
/// For how long a server takes no job after it has met one that it does not know: others look at least once a second, and get it first.
pub(super) const HEAD_START: Duration = Duration::from_secs(3);
/// When a job that no server has taken is looked at again.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(60);
/// Longer words of a failure are cut.
const WHY_MAX: usize = 1_000;

/// How a run ended.
enum Ended {
    Done(Result<Value, JobError>),
    /// The server is sealed or stops.
    Stopped,
    /// Another server holds the row, or the store could not be reached for so long that one may.
    Lost,
}

/// A row that this run holds.
struct Held {
    row: LeaseRow,
    body: JobBody,
    /// From the end of the claim to the next try, should this server be gone by then.
    backoff: Duration,
}

impl Held {
    /// The row with its claim extended. Nobody need look at it before the claim ends.
    fn extended(&self, now: Timestamp) -> LeaseRow {
        let until = now + HOLD_FOR;
        LeaseRow { held_until: Some(until), next_at: until + self.backoff, ..self.row.clone() }
    }
}

impl Jobs {
    /// Works on a row that the ticker has claimed. Whatever fails is logged here and tried again when the row is due.
    pub(crate) async fn work_on(&self, row: LeaseRow, stop: CancellationToken) {
        let id = row.id.clone();
        let job = match self.owner(&row).await {
            Ok(Owner::Known(job)) => job,
            Ok(Owner::Elsewhere) => return self.leave_to_others(row).await,
            Ok(Owner::Gone) => {
                if let Err(error) = self.engines.storage.commit(Batch::new().remove(id.clone(), row.fence)).await {
                    tracing::debug!(%error, "could not remove job `{id}`, whose mount is gone");
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "could not look for the mount of job `{id}`");
                return;
            }
        };
        let held = match self.hold(row).await {
            Ok(held) => held,
            Err(StorageError::Fenced(_) | StorageError::Sealed) => return,
            Err(error) => {
                tracing::warn!(%error, "could not begin job `{id}`");
                return;
            }
        };
        let began = self.now();
        let ended = tokio::select! {
            biased;
            done = tokio::time::timeout(RUN_MAX, job.run(held.body.state.clone())) => {
                let late = || JobError::Failed(format!("it was not through after {} s", RUN_MAX.as_secs()));
                Ended::Done(done.unwrap_or_else(|_| Err(late())))
            }
            () = self.keep(&held) => Ended::Lost,
            () = stop.cancelled() => Ended::Stopped,
        };
        self.end(&*job, held, began, ended).await;
    }

    /// Takes the row under a name of its own, and counts the try: one that kills its server must come later and later.
    async fn hold(&self, row: LeaseRow) -> Result<Held, StorageError> {
        let mut body = JobBody::of(&row).unwrap_or_else(|| {
            tracing::error!("what is stored of job `{}` is damaged: it begins anew", row.id);
            JobBody::default()
        });
        body.attempts = body.attempts.saturating_add(1);
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let holder = Some(format!("{}-job-{run}", self.holder));
        let backoff = backoff(body.attempts, &*self.engines.entropy);
        let mut held = Held { row: LeaseRow { holder, body: encode(&body)?, ..row }, body, backoff };
        held.row = held.extended(self.now());
        let (row, fence) = (held.row.clone(), held.row.fence);
        self.engines.storage.commit(Batch::new().shift(row, LeaseState::Active, fence)).await?;
        Ok(held)
    }

    /// Extends the claim again and again; returns when it is lost.
    async fn keep(&self, held: &Held) {
        let mut until = held.row.held_until;
        loop {
            tokio::time::sleep(EXTEND_EVERY).await;
            let row = held.extended(self.now());
            let next = row.held_until;
            // The fence stays: whether or not an extension was stored whose answer is lost, the next one fits.
            let extension = self.engines.storage.commit(Batch::new().shift(row, LeaseState::Active, held.row.fence));
            match tokio::time::timeout(EXTEND_EVERY, extension).await {
                Ok(Ok(())) => until = next,
                Ok(Err(StorageError::Unavailable(_))) | Err(_) if until.is_some_and(|until| until > self.now()) => {}
                _ => return,
            }
        }
    }

    /// Stores what came of a run, and when the next one is due.
    async fn end(&self, job: &dyn Job, held: Held, began: Timestamp, ended: Ended) {
        let Held { row, mut body, .. } = held;
        let (name, now) = (job.name(), self.now());
        let mount = self.shown_owner(&row).unwrap_or_default();
        let done = match ended {
            Ended::Done(done) => done.and_then(bounded),
            Ended::Stopped => Err(JobError::Sealed),
            Ended::Lost => {
                tracing::warn!(
                    job = name,
                    mount.path = mount,
                    "job {name:?} of {mount} was given up: another server may have it"
                );
                return;
            }
        };
        let next_at = match done {
            Ok(state) => {
                if body.attempts > 1 {
                    tracing::info!(job = name, mount.path = mount, "job {name:?} of {mount} has succeeded again");
                }
                body.attempts = 0;
                body.succeeded_at = Some(now);
                body.took_millis = u64::try_from(now.since(began).as_millis()).unwrap_or(u64::MAX);
                body.state = state;
                job.next_at(now)
            }
            // Nobody failed. Whoever is there goes on.
            Err(JobError::Sealed) => {
                body.attempts = body.attempts.saturating_sub(1);
                now
            }
            Err(JobError::Failed(why)) => {
                let why: String = why.chars().take(WHY_MAX).collect();
                let wait =
                    backoff(body.attempts, &*self.engines.entropy).min(Duration::from_secs(job.every().as_secs()));
                let attempts = body.attempts;
                if attempts == 1 || body.failure.as_ref().is_none_or(|known| known.why != why) {
                    tracing::warn!(
                        job = name,
                        mount.path = mount,
                        attempts,
                        error = why,
                        "job {name:?} of {mount} failed, next try in {:.1} s; the same failure is not logged again",
                        wait.as_secs_f64()
                    );
                }
                body.failure = Some(JobFailure { at: now, why });
                now + wait
            }
        };
        let stored = async {
            let fence = row.fence;
            // The fence rises: an extension that is still on its way must not undo this.
            let row = LeaseRow { fence: fence + 1, body: encode(&body)?, ..row.clone() }.released(next_at);
            self.engines.storage.commit(Batch::new().shift(row, LeaseState::Active, fence)).await
        };
        match stored.await {
            Ok(()) | Err(StorageError::Sealed) => {}
            Err(error) => {
                tracing::warn!(job = name, mount.path = mount, %error, "could not store what came of job {name:?} of {mount}: it is done again");
            }
        }
    }

    /// Gives a job that this server does not know to whoever does, at once; when nobody has taken it, it is put off.
    async fn leave_to_others(&self, row: LeaseRow) {
        let before = {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.insert(row.id.clone(), Instant::now())
        };
        let nobody_took_it = before.is_some_and(|at| at.elapsed() < 2 * HEAD_START);
        let wait = if nobody_took_it { ELSEWHERE_AFTER } else { Duration::ZERO };
        self.put_off(row, self.now() + wait).await;
    }

    /// Gives a claimed row back; due again at `next_at`.
    pub(crate) async fn put_off(&self, row: LeaseRow, next_at: Timestamp) {
        let fence = row.fence;
        // Lost to another claimant: then it is not ours to give back.
        let _ = self.engines.storage.commit(Batch::new().shift(row.released(next_at), LeaseState::Active, fence)).await;
    }
}

fn bounded(state: Value) -> Result<Value, JobError> {
    let len = serde_json::to_vec(&state).map_or(usize::MAX, |text| text.len());
    if len <= STATE_MAX {
        return Ok(state);
    }
    Err(JobError::Failed(format!("it gave {len} bytes back to be kept; {STATE_MAX} are allowed")))
}
