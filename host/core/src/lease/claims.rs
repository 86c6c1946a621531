//! Who works on what is due. One ticker; it is woken without arguments and reads the store, so that timers, requests and
//! restarts take the same way. There is no recovery besides. Jobs are claimed here as well, and worked on in [`crate::jobs`].

use std::sync::Arc;
use std::time::Duration;

use leasehold_model::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::revoke::Trigger;
use super::{CLAIM_TTL, EFFECT_TIME, EndCause, LeaseError, LeaseKind, LeaseRow, LeaseState, Leases, TARGET_SLOTS};
use crate::jobs::Jobs;
use crate::rows::job;
use crate::seams::engine::EngineError;
use crate::seams::storage::{Batch, StorageError};

/// Rows worked on at once, at all.
pub const SLOTS: usize = 64;
/// How many of these may be revocations that have failed before: what cannot be cleaned up must not keep fresh ones waiting,
/// whose logins are still open.
const RETRY_SLOTS: usize = 2;
/// When one that found no such slot looks again.
const RETRY_LATER: Duration = Duration::from_secs(1);
/// A target that did not answer is left alone for so long.
pub(super) const DOWN_FOR: Duration = Duration::from_secs(5);
/// The ticker looks at least this often: clocks jump.
pub(super) const POLL_MAX: Duration = Duration::from_secs(1);
/// The shortest wait.
const POLL_MIN: Duration = Duration::from_millis(20);
/// Work that is due and cannot be claimed is looked at again after this.
const POLL_BLOCKED: Duration = Duration::from_millis(250);

/// What is known of one target.
#[derive(Debug)]
pub struct ConnectionHealth {
    slots: Arc<Semaphore>,
    retries: Arc<Semaphore>,
    /// Also when it is over, until the target answers again.
    down: Option<Down>,
    /// How often it was opened anew: what work met that began before says nothing of how it is reached now.
    generation: u64,
}

/// Enough others that have failed before are at it.
struct NoRetrySlot;

/// A target that did not answer.
#[derive(Debug)]
struct Down {
    until: Timestamp,
    /// The engine's words, which name no mount: whoever asks meanwhile hears the same, and how long that lasts.
    why: String,
}

impl ConnectionHealth {
    fn fresh() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(TARGET_SLOTS)),
            retries: Arc::new(Semaphore::new(RETRY_SLOTS)),
            down: None,
            generation: 0,
        }
    }

    fn is_left_alone(&self, now: Timestamp) -> bool {
        self.down.as_ref().is_some_and(|down| down.until > now)
    }

    /// One row at a time tries whether a target that was down is back: many dead targets must not hold all slots.
    fn free(&self) -> usize {
        match self.slots.available_permits() {
            TARGET_SLOTS if self.down.is_some() => 1,
            _ if self.down.is_some() => 0,
            free => free,
        }
    }
}

impl Leases {
    /// Works until `stop` says so, then lets what it began finish.
    pub async fn run(self: Arc<Self>, jobs: Arc<Jobs>, stop: CancellationToken) {
        let mut work = tokio::task::JoinSet::new();
        while !stop.is_cancelled() {
            while work.try_join_next().is_some() {}
            let wait = match self.claim_and_spawn(&mut work, &jobs, &stop).await {
                Ok(wait) => wait,
                Err(StorageError::Sealed) => break,
                Err(error) => {
                    tracing::error!(%error, "could not look for due leases");
                    POLL_MAX
                }
            };
            tokio::select! {
                // As in every `select!` of this crate: a history that is simulated from a seed must come out the same again. That is also
                // why no `watch` says stop: it wakes those who wait in an order that nobody can tell.
                biased;
                () = stop.cancelled() => {}
                Some(_) = work.join_next() => {}
                () = self.wake.notified() => {}
                () = jobs.woken() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        while work.join_next().await.is_some() {}
    }

    /// Claims what is due and can be worked on; says how long to sleep.
    async fn claim_and_spawn(
        self: &Arc<Self>,
        work: &mut tokio::task::JoinSet<()>,
        jobs: &Arc<Jobs>,
        stop: &CancellationToken,
    ) -> Result<Duration, StorageError> {
        let (mut skip, places) = self.places();
        if !jobs.has_place() {
            skip.push(job::CONNECTION.to_owned());
        }
        let places = places.min(self.slots.available_permits());
        if places == 0 {
            return Ok(POLL_MIN);
        }
        let rows = self.storage.claim_due(&self.holder, u32::try_from(places).unwrap_or(1), CLAIM_TTL, &skip).await?;
        let claimed = !rows.is_empty();
        // The store's clock is ahead of what this server knows of it: what is given back is due there again at once.
        let early = rows.iter().map(|row| row.next_at.since(self.now())).min().filter(|early| !early.is_zero());
        if let Some(early) = early {
            for row in rows {
                self.release(row).await;
            }
            return Ok(early.clamp(POLL_MIN, POLL_BLOCKED));
        }
        for row in rows {
            if row.kind == LeaseKind::Job {
                let Some(place) = jobs.place() else {
                    self.release(row).await;
                    continue;
                };
                let (jobs, stop) = (jobs.clone(), stop.clone());
                work.spawn(async move {
                    jobs.work_on(row, stop).await;
                    drop(place);
                });
                continue;
            }
            let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                self.release(row).await;
                continue;
            };
            let target = match row.connection.as_str() {
                "" => None,
                connection => match self.target_slot(connection) {
                    Some(slot) => Some(slot),
                    None => {
                        self.release(row).await;
                        continue;
                    }
                },
            };
            let retry = match self.retry_slot(&row) {
                Ok(retry) => retry,
                Err(NoRetrySlot) => {
                    let next_at = self.now() + RETRY_LATER;
                    self.release(LeaseRow { next_at, ..row }).await;
                    continue;
                }
            };
            let (leases, stop) = (self.clone(), stop.clone());
            work.spawn(async move {
                let id = row.id.clone();
                // A revocation that may take longer is given up: its claim ends, and then anybody goes on with it.
                let late = async {
                    stop.cancelled().await;
                    tokio::time::sleep(std::time::Duration::from_secs(EFFECT_TIME.as_secs())).await;
                };
                let done = tokio::select! {
                    biased;
                    done = leases.work_on(row) => done,
                    () = late => Ok(()),
                };
                if let Err(error) = done
                    && !matches!(error, LeaseError::Engine(_) | LeaseError::Damaged(_))
                {
                    tracing::warn!(lease.id = %id, %error, "left lease {id} for later");
                }
                drop((slot, target, retry));
            });
        }
        if claimed {
            return Ok(Duration::ZERO);
        }
        Ok(match self.storage.next_due().await? {
            None => POLL_MAX,
            // Due, but held by somebody or behind a target that is busy or down. A slot that comes free wakes the loop by itself.
            Some(next) if next <= self.now() => POLL_BLOCKED,
            Some(next) => next.since(self.now()).clamp(POLL_MIN, POLL_MAX),
        })
    }

    /// One claimed row.
    async fn work_on(&self, row: LeaseRow) -> Result<(), LeaseError> {
        match (row.kind, row.state) {
            // Worked on in places of its own.
            (LeaseKind::Job, _) => {
                self.release(row).await;
                Ok(())
            }
            (LeaseKind::Token, _) => self.end_due_token(row).await,
            (LeaseKind::Secret, LeaseState::Revoking) => self.undo(row, Trigger::Due).await.map(drop),
            // Its clock was ahead when this was claimed, or it was renewed in between.
            (LeaseKind::Secret, LeaseState::Active) if row.expires_at > self.now() => {
                let due = row.expires_at;
                let fence = row.fence;
                Ok(self.storage.commit(Batch::new().shift(row.released(due), LeaseState::Active, fence)).await?)
            }
            (LeaseKind::Secret, from @ (LeaseState::Active | LeaseState::Issuing)) => {
                let fence = row.fence;
                let (cause, since) = match from {
                    LeaseState::Issuing => (EndCause::NotIssued, self.now()),
                    _ => (EndCause::Expired, row.expires_at),
                };
                let revoking = LeaseRow { state: LeaseState::Revoking, ..row }.ending(&cause, since);
                self.storage.commit(Batch::new().shift(revoking.clone(), from, fence)).await?;
                self.undo(revoking, Trigger::Due).await.map(drop)
            }
        }
    }

    fn with_health<T>(&self, connection: &str, act: impl FnOnce(&mut ConnectionHealth) -> T) -> T {
        let mut targets = self.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !targets.contains_key(connection) {
            targets.insert(connection.to_owned(), ConnectionHealth::fresh());
        }
        match targets.get_mut(connection) {
            Some(health) => act(health),
            None => act(&mut ConnectionHealth::fresh()),
        }
    }

    fn target_slot(&self, connection: &str) -> Option<OwnedSemaphorePermit> {
        self.with_health(connection, |health| {
            if health.free() == 0 { None } else { health.slots.clone().try_acquire_owned().ok() }
        })
    }

    /// What one more try of a revocation that has failed before needs; others need none.
    fn retry_slot(&self, row: &LeaseRow) -> Result<Option<OwnedSemaphorePermit>, NoRetrySlot> {
        let has_failed = row.kind == LeaseKind::Secret
            && row.state == LeaseState::Revoking
            && row.read_body().is_ok_and(|body| body.attempts > 0);
        if !has_failed {
            return Ok(None);
        }
        let slot = self.with_health(&row.connection, |health| health.retries.clone().try_acquire_owned());
        slot.map(Some).map_err(|_| NoRetrySlot)
    }

    /// Targets that are down or have no slot left, and how many rows may be claimed so that hardly one must be given back:
    /// the least number of free places at any of the other targets.
    fn places(&self) -> (Vec<String>, usize) {
        let now = self.now();
        let targets = self.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut skip = Vec::new();
        let mut places = TARGET_SLOTS;
        for (name, health) in targets.iter() {
            let free = health.free();
            if free == 0 || health.is_left_alone(now) {
                skip.push(name.clone());
            } else {
                places = places.min(free);
            }
        }
        (skip, places)
    }

    /// Which opening of a target work begins on: goes with its outcome to [`Leases::note_target`].
    pub(super) fn opening(&self, connection: &str) -> u64 {
        self.with_health(connection, |health| health.generation)
    }

    /// Remembers whether a target answers, so that nothing queues up behind one that does not.
    pub(super) fn note_target(&self, connection: &str, opening: u64, error: &EngineError) {
        match error {
            EngineError::Failed(_) => self.target_is_up(connection),
            EngineError::Busy(_) => {}
            EngineError::Unreached(why) | EngineError::Down(why) => {
                let down = Down { until: self.now() + DOWN_FOR, why: why.clone() };
                let news = self.with_health(connection, |health| {
                    health.generation == opening && health.down.replace(down).is_none()
                });
                if news {
                    tracing::warn!(connection, why, "connection `{connection}` does not answer");
                }
            }
        }
    }

    pub(super) fn target_is_up(&self, connection: &str) {
        self.with_health(connection, |health| health.down = None);
    }

    /// The target was configured or opened anew: nobody waits because of what it did before.
    pub(crate) fn reopened(&self, connection: &str) {
        self.with_health(connection, |health| {
            health.down = None;
            health.generation += 1;
        });
        self.wake.notify_one();
    }

    pub(super) fn is_left_alone(&self, connection: &str) -> bool {
        let now = self.now();
        self.with_health(connection, |health| health.is_left_alone(now))
    }

    /// Requests for a target that is known to be down fail at once instead of queueing.
    pub(super) fn refuse_if_down(&self, connection: &str) -> Result<(), LeaseError> {
        let now = self.now();
        let down = self.with_health(connection, |health| {
            let down = health.down.as_ref().filter(|down| down.until > now)?;
            Some((down.why.clone(), down.until.since(now)))
        });
        let Some((why, left)) = down else { return Ok(()) };
        // Rounded up: whoever waits for so long finds that it is tried.
        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Err(LeaseError::Engine(format!("{why}; it is not tried again for {secs} s")))
    }

    /// Compares the counts that the store keeps with its rows, and corrects them. What goes wrong is no reason to do less of anything
    /// else: only a gauge depends on it.
    pub(super) async fn recount(&self) {
        match self.storage.recount_leases().await {
            Ok(0) | Err(StorageError::Sealed) => {}
            Ok(wrong) => {
                tracing::warn!(wrong, "the counts of leases that the store keeps were wrong and have been corrected")
            }
            Err(error) => tracing::warn!(%error, "the leases could not be counted again"),
        }
    }

    /// Numbers for operators; returned without the states.
    ///
    /// # Errors
    /// As storage.
    pub async fn measure(&self) -> Result<Vec<(LeaseKind, u64)>, StorageError> {
        let mut counts = self.storage.count_leases().await?;
        counts.retain(|(kind, _, _)| *kind != LeaseKind::Job);
        for (kind, state, count) in &counts {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            let count = *count as f64;
            metrics::gauge!("leasehold_leases", "kind" => kind.as_str(), "state" => state.as_str()).set(count);
        }
        Ok(counts.into_iter().map(|(kind, _, count)| (kind, count)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_down_is_tried_by_one_row_at_a_time() {
        let mut health = ConnectionHealth::fresh();
        assert_eq!(health.free(), TARGET_SLOTS);
        let taken = health.slots.clone().try_acquire_owned().unwrap();
        assert_eq!(health.free(), TARGET_SLOTS - 1);
        let now = Timestamp::from_secs(1_000);
        health.down = Some(Down { until: now, why: String::new() });
        assert_eq!(health.free(), 0, "somebody is trying it");
        drop(taken);
        assert_eq!(health.free(), 1);
        assert!(health.is_left_alone(Timestamp::from_secs(999)) && !health.is_left_alone(now));
    }
}
