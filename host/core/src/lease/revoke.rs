//! Revocation: from any state to `Revoking`, then undone for as many tries as it takes. "Revoked" means gone.

use std::sync::Arc;
use std::time::Duration;

use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash};
use tokio::time::Instant;

use super::claims::DOWN_FOR;
use super::{
    CLAIM_TTL, EFFECT_GRACE, EFFECT_TIME, EndCause, IRREVOCABLE_AFTER, LeaseError, LeaseKind, LeaseRow, LeaseState,
    Leases, PAGE,
};
use crate::backoff::{self, BACKOFF_MAX, backoff};
use crate::codec::encode;
use crate::commit::names_below;
use crate::seams::engine::EngineError;
use crate::seams::storage::{Batch, LeaseFilter, Listed, Page, StorageError};

/// Whether a revocation answers when the credential is gone or when the duty to remove it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    UntilGone,
    UntilStored,
}

/// What makes a revocation be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Its turn has come.
    Due,
    /// Somebody asked for it, and waits.
    Asked,
}

/// How an undoing that met no error ended.
#[derive(Debug)]
pub(crate) enum Undone {
    Gone,
    /// Others were at work on the target, in these words; it is due again in a moment.
    Later(String),
}

/// When the target was busy with other work.
const BUSY_FOR: Duration = Duration::from_millis(500);
/// Rows moved in one commit when many leases end together.
const MARK_BATCH: u32 = 200;
const PAGE_LEN: usize = PAGE as usize;
/// How long a revocation waits for whoever works on the row: an effect has ended by then. Real time, not the clock's.
const PATIENCE: Duration = Duration::from_secs(EFFECT_TIME.as_secs() + 2 * EFFECT_GRACE.as_secs());
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One lease out of many that could not be revoked.
#[derive(Debug)]
pub struct PrefixFailure {
    pub id: LeaseId,
    pub position: usize,
    pub total: usize,
    pub error: LeaseError,
}

impl Leases {
    /// Ends one lease. An unknown one counts as ended.
    ///
    /// # Errors
    /// With [`Wait::UntilGone`]: the engine's words; the lease stays in `Revoking` and is tried again by itself.
    pub async fn revoke(&self, id: &LeaseId, wait: Wait, cause: &EndCause) -> Result<(), LeaseError> {
        let Some(row) = self.row(id).await? else { return Ok(()) };
        if row.kind == LeaseKind::Token {
            return self.end_token(&row.token, crate::token::end::Children::AreRevoked, cause).await;
        }
        match wait {
            Wait::UntilStored => self.queue_revocation(id, cause).await,
            Wait::UntilGone => self.revoke_now(id, cause).await,
        }
    }

    async fn revoke_now(&self, id: &LeaseId, cause: &EndCause) -> Result<(), LeaseError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.storage.claim(&self.claimant(), id, CLAIM_TTL).await {
                Ok(None) => return Ok(()),
                Ok(Some(row)) => {
                    // Due as soon as our hold ends: a crash must not leave it to its old expiry.
                    let next_at = self.now();
                    let revoking =
                        LeaseRow { state: LeaseState::Revoking, next_at, ..row.clone() }.ending(cause, next_at);
                    match self.storage.commit(Batch::new().shift(revoking.clone(), row.state, row.fence)).await {
                        Ok(()) => {}
                        // Somebody stored the same duty: look again.
                        Err(StorageError::Fenced(_)) => continue,
                        Err(other) => return Err(other.into()),
                    }
                    crate::fail::point("revoke-marked");
                    match self.undo(revoking, Trigger::Asked).await {
                        Err(LeaseError::Store(StorageError::Fenced(_))) if Instant::now() < end => {}
                        Ok(Undone::Later(_)) if Instant::now() < end => tokio::time::sleep(LOOK_AGAIN).await,
                        Ok(Undone::Later(why)) => return Err(LeaseError::Engine(why)),
                        done => return done.map(drop),
                    }
                }
                // An issue, a renewal or another revocation is at it. It may hang: the duty must not wait for it.
                Err(StorageError::Fenced(_)) if Instant::now() < end => {
                    self.queue_revocation(id, cause).await?;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(StorageError::Fenced(_)) => return Err(LeaseError::Busy(id.clone())),
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// Moves one secret to `Revoking`, whoever holds it.
    pub(super) async fn queue_revocation(&self, id: &LeaseId, cause: &EndCause) -> Result<(), LeaseError> {
        loop {
            let Some(row) = self.row(id).await?.filter(|row| row.state != LeaseState::Revoking) else {
                return Ok(());
            };
            let (from, fence) = (row.state, row.fence);
            match self.storage.commit(Batch::new().shift(self.as_revoking(row, cause), from, fence)).await {
                Ok(()) => {
                    crate::fail::point("revoke-stored");
                    self.wake.notify_one();
                    return Ok(());
                }
                // It moved by itself: look again.
                Err(StorageError::Fenced(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// A row as it goes to `Revoking` without a claim. It is due now; but an effect on its way must have happened before it can be
    /// undone, so a row that is being issued stays held until its issuer is through or its deadline is over.
    fn as_revoking(&self, row: LeaseRow, cause: &EndCause) -> LeaseRow {
        let fence = row.fence + 1;
        let row = row.ending(cause, self.now());
        match (row.state, row.held_until) {
            (LeaseState::Issuing, Some(until)) => {
                LeaseRow { state: LeaseState::Revoking, fence, next_at: until, ..row }
            }
            _ => LeaseRow { state: LeaseState::Revoking, fence, ..row }.released(self.now()),
        }
    }

    /// Undoes the effect of a claimed row in `Revoking`; deletes the row, or stores when to try again.
    ///
    /// # Errors
    /// The engine's words; [`LeaseError::Damaged`].
    pub(crate) async fn undo(&self, row: LeaseRow, trigger: Trigger) -> Result<Undone, LeaseError> {
        let mut body = match row.read_body() {
            Ok(body) => body,
            Err(error) => return Err(self.park_damaged(row, error).await?),
        };
        let opening = self.opening(&row.connection);
        let tried = match self.engines.at(&row.mount) {
            Some((engine, context)) => self.revoke_in_time(&*engine, &context, &row, &body).await?,
            None => Err(EngineError::Failed(LeaseError::NoEngine(row.id.clone()).to_string())),
        };
        crate::fail::point("revoke-after-effect");
        let error = match tried {
            Ok(()) => {
                self.target_is_up(&row.connection);
                self.storage.commit(Batch::new().remove(row.id.clone(), row.fence)).await?;
                crate::fail::point("revoke-removed");
                self.note_irrevocable(&row.id, false);
                let ending = body.ending.as_ref();
                let cause = ending.map_or(EndCause::Unknown, |ending| ending.cause.clone());
                // Since it should have been gone: its expiry, or the moment at which somebody asked for its end.
                let due = ending.map_or(row.expires_at, |ending| ending.since).min(self.now());
                let lag = self.now().since(due);
                metrics::histogram!("leasehold_revocation_lag_seconds").record(lag.as_secs_f64());
                metrics::counter!("leasehold_leases_revoked_total").increment(1);
                tracing::info!(lease.id = %row.id, cause = cause.as_str(), "revoked lease {}: {cause}", row.id);
                return Ok(Undone::Gone);
            }
            Err(EngineError::Busy(why)) => {
                let (fence, next_at) = (row.fence, self.now() + BUSY_FOR);
                self.storage.commit(Batch::new().shift(row.released(next_at), LeaseState::Revoking, fence)).await?;
                return Ok(Undone::Later(why));
            }
            Err(error) => error,
        };
        self.note_target(&row.connection, opening, &error);
        crate::fail::point("revoke-failed");
        metrics::counter!("leasehold_revocation_failures_total").increment(1);
        // Perhaps another server reaches the target, or it is back in a moment. So it is tried again as soon as this server does not leave
        // it alone any more, and that counts only as often as it would have been tried otherwise.
        let is_away = matches!(error, EngineError::Unreached(_));
        let since = body.ending.as_ref().map_or(row.expires_at, |ending| ending.since);
        let is_extra = is_away && self.now().since(since) < backoff::elapsed(body.attempts);
        // However often somebody asks: it gets no later, and no sooner irrevocable, than by itself.
        if body.attempts == 0 || (trigger == Trigger::Due && !is_extra) {
            body.attempts = body.attempts.saturating_add(1);
        }
        if body.attempts >= IRREVOCABLE_AFTER {
            self.note_irrevocable(&row.id, true);
        }
        let wait = if is_away { DOWN_FOR } else { backoff(body.attempts, &*self.entropy) };
        body.last_error = Some(error.to_string());
        tracing::warn!(lease.id = %row.id, attempts = body.attempts, %error, "could not revoke lease {}, next try in {:.1} s", row.id, wait.as_secs_f64());
        let fence = row.fence;
        let next_at = self.now() + wait;
        let later = LeaseRow { body: encode(&body)?, ..row }.released(next_at);
        self.storage.commit(Batch::new().shift(later, LeaseState::Revoking, fence)).await?;
        Err(LeaseError::Engine(error.to_string()))
    }

    /// Nobody can undo a row that cannot be read. It stays, for an operator to deal with, and is in nobody's way.
    async fn park_damaged(&self, row: LeaseRow, error: LeaseError) -> Result<LeaseError, StorageError> {
        tracing::error!(lease.id = %row.id, "{error}");
        self.note_irrevocable(&row.id, true);
        let fence = row.fence;
        let later = row.released(self.now() + BACKOFF_MAX);
        self.storage.commit(Batch::new().shift(later, LeaseState::Revoking, fence)).await?;
        Ok(error)
    }

    /// Ends every lease below a prefix: the id itself, or all ids that start with the prefix and a slash.
    ///
    /// # Errors
    /// The first that could not be revoked; the others were tried all the same.
    pub async fn revoke_prefix(
        self: &Arc<Self>,
        prefix: &str,
        wait: Wait,
        cause: &EndCause,
    ) -> Result<(), PrefixOrStore> {
        if let Some(id) = self.exactly(prefix).await? {
            let revoked = self.revoke(&id, wait, cause).await;
            return revoked
                .map_err(|error| PrefixOrStore::Lease(Box::new(PrefixFailure { id, position: 1, total: 1, error })));
        }
        let filter = LeaseFilter { id_prefix: Some(slashed(prefix)), ..LeaseFilter::default() };
        // All at once: what waits for its turn must not live on because the request ends before.
        self.mark(&filter, cause).await?;
        self.revoke_all(&filter, wait, cause).await
    }

    /// Page by page, however many there are.
    async fn revoke_all(
        self: &Arc<Self>,
        filter: &LeaseFilter,
        wait: Wait,
        cause: &EndCause,
    ) -> Result<(), PrefixOrStore> {
        let total = self.count(filter).await?;
        let mut first: Option<PrefixFailure> = None;
        let mut before = 0;
        let mut after = None;
        loop {
            let page = self.page_of_ids(filter, after.as_ref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let mut work = tokio::task::JoinSet::new();
            let mut queue = page.into_iter().enumerate();
            loop {
                while work.len() < super::TARGET_SLOTS {
                    let Some((position, id)) = queue.next() else { break };
                    let (leases, cause) = (self.clone(), cause.clone());
                    let position = before + position + 1;
                    work.spawn(async move { (position, leases.revoke(&id, wait, &cause).await, id) });
                }
                let Some(done) = work.join_next().await else { break };
                if let Ok((position, Err(error), id)) = done
                    && first.as_ref().is_none_or(|first| position < first.position)
                {
                    first = Some(PrefixFailure { id, position, total, error });
                }
            }
            before += PAGE_LEN;
        }
        first.map_or(Ok(()), |mut failure| {
            // Some may have come meanwhile.
            failure.total = failure.total.max(failure.position);
            Err(PrefixOrStore::Lease(Box::new(failure)))
        })
    }

    /// Forgets every lease below a prefix; what the engine cannot undo stays behind in the target.
    ///
    /// # Errors
    /// As storage.
    pub async fn revoke_force(self: &Arc<Self>, prefix: &str, cause: &EndCause) -> Result<(), StorageError> {
        if let Some(id) = self.exactly(prefix).await? {
            return self.revoke_or_forget(&id, cause).await;
        }
        let filter = LeaseFilter { id_prefix: Some(slashed(prefix)), ..LeaseFilter::default() };
        let mut first = Ok(());
        let mut after = None;
        loop {
            let page = self.page_of_ids(&filter, after.as_ref()).await?;
            let Some(last) = page.last() else { return first };
            after = Some(last.clone());
            let mut work = tokio::task::JoinSet::new();
            let mut queue = page.into_iter();
            loop {
                while work.len() < super::TARGET_SLOTS {
                    let Some(id) = queue.next() else { break };
                    let (leases, cause) = (self.clone(), cause.clone());
                    work.spawn(async move { leases.revoke_or_forget(&id, &cause).await });
                }
                let Some(done) = work.join_next().await else { break };
                if let (Ok(()), Ok(Err(error))) = (&first, done) {
                    first = Err(error);
                }
            }
        }
    }

    async fn revoke_or_forget(&self, id: &LeaseId, cause: &EndCause) -> Result<(), StorageError> {
        let Some(row) = self.row(id).await? else { return Ok(()) };
        let tried = match self.refuse_if_down(&row.connection) {
            Ok(()) => self.revoke(id, Wait::UntilGone, cause).await,
            // It did not answer a moment ago: that is what force is for.
            down => down,
        };
        let error = match tried {
            Ok(()) => return Ok(()),
            // Not the engine's refusal: nothing is forgotten because the store stumbled.
            Err(LeaseError::Store(error)) => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(lease.id = %id, cause = cause.as_str(), %error, "forgetting lease {id}: {cause}; its role may remain");
        self.forget(id).await
    }

    /// Removes a row, whoever holds it.
    ///
    /// # Errors
    /// As storage.
    pub(super) async fn forget(&self, id: &LeaseId) -> Result<(), StorageError> {
        while let Some(row) = self.row(id).await? {
            match self.storage.commit(Batch::new().remove(id.clone(), row.fence)).await {
                Ok(()) => break,
                // It moved in this moment: look again.
                Err(StorageError::Fenced(_)) => {}
                Err(other) => return Err(other),
            }
        }
        self.note_irrevocable(id, false);
        Ok(())
    }

    /// The lease that a prefix names, where it names one.
    async fn exactly(&self, prefix: &str) -> Result<Option<LeaseId>, StorageError> {
        let id = prefix.parse::<LeaseId>().ok().filter(|_| !prefix.ends_with('/'));
        let Some(id) = id else { return Ok(None) };
        Ok(self.row(&id).await?.map(|row| row.id))
    }

    /// All leases of one mount, ended before it goes.
    ///
    /// # Errors
    /// As [`Leases::revoke_prefix`].
    pub async fn revoke_mount(self: &Arc<Self>, mount: &MountAccessor, cause: &EndCause) -> Result<(), PrefixOrStore> {
        let filter =
            LeaseFilter { mount: Some(mount.clone()), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() };
        self.mark(&filter, cause).await?;
        self.revoke_all(&filter, Wait::UntilGone, cause).await
    }

    async fn page_of_ids(&self, filter: &LeaseFilter, after: Option<&LeaseId>) -> Result<Vec<LeaseId>, StorageError> {
        let page = self.storage.leases(filter, &Page { after: after.cloned(), limit: PAGE }).await?;
        Ok(page.into_iter().map(|row| row.id).collect())
    }

    async fn count(&self, filter: &LeaseFilter) -> Result<usize, StorageError> {
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.page_of_ids(filter, after.as_ref()).await?;
            count += page.len();
            match page.last() {
                Some(last) => after = Some(last.clone()),
                None => return Ok(count),
            }
        }
    }

    /// Names directly below a prefix that is empty or ends in a slash, those after `after`; a folder counts once, with its slash,
    /// however much is in it, and no row of it is read but the first.
    ///
    /// # Errors
    /// As storage.
    pub async fn names_below(&self, prefix: &str, after: &str, most: usize) -> Result<Vec<String>, StorageError> {
        names_below(&*self.storage, Listed::Leases, prefix, after, most).await
    }

    /// Every row of a filter, page by page.
    ///
    /// # Errors
    /// As storage.
    pub async fn rows(&self, filter: &LeaseFilter) -> Result<Vec<LeaseRow>, StorageError> {
        let mut found: Vec<LeaseRow> = Vec::new();
        loop {
            let after = found.last().map(|row| row.id.clone());
            let page = self.storage.leases(filter, &Page { after, limit: PAGE }).await?;
            if page.is_empty() {
                return Ok(found);
            }
            found.extend(page);
        }
    }

    /// Stores the duty to undo every secret of a token.
    ///
    /// # Errors
    /// As storage.
    pub(super) async fn mark_secrets_of(&self, token: &TokenHash, cause: &EndCause) -> Result<(), StorageError> {
        self.mark(&LeaseFilter { token: Some(token.clone()), ..LeaseFilter::default() }, cause).await
    }

    /// Moves all secrets of a filter to `Revoking`: see [`Leases::as_revoking`].
    async fn mark(&self, filter: &LeaseFilter, cause: &EndCause) -> Result<(), StorageError> {
        // In this order: one that becomes active in between is found after that. None begins any more.
        for state in [LeaseState::Issuing, LeaseState::Active] {
            let filter = LeaseFilter { state: Some(state), kind: Some(LeaseKind::Secret), ..filter.clone() };
            // From the last row on, or each page would look through all that was marked before it. What came in behind the last row
            // meanwhile is found by one more look from the beginning.
            let (mut after, mut has_marked) = (None, false);
            loop {
                let page = self.storage.leases(&filter, &Page { after: after.take(), limit: MARK_BATCH }).await?;
                let Some(last) = page.last().map(|row| row.id.clone()) else {
                    if std::mem::take(&mut has_marked) {
                        continue;
                    }
                    break;
                };
                has_marked = true;
                let mut batch = Batch::new();
                for row in page {
                    let fence = row.fence;
                    batch = batch.shift(self.as_revoking(row, cause), state, fence);
                }
                match self.storage.commit(batch).await {
                    Ok(()) => {
                        after = Some(last);
                        self.wake.notify_one();
                    }
                    // One of them moved by itself: read again, from the beginning.
                    Err(StorageError::Fenced(_)) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(())
    }
}

/// Why a prefix could not be revoked.
#[derive(Debug, thiserror::Error)]
pub enum PrefixOrStore {
    #[error("failed to revoke \"{}\" ({} / {}): {}", .0.id, .0.position, .0.total, .0.error)]
    Lease(Box<PrefixFailure>),
    #[error(transparent)]
    Store(#[from] StorageError),
}

fn slashed(prefix: &str) -> String {
    if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") }
}

/// `ttl` as look-ups show it: negative once past.
#[must_use]
pub fn shown_ttl(row: &LeaseRow, now: Timestamp) -> i64 {
    if row.expires_at == Timestamp::NEVER { 0 } else { row.expires_at.seconds_from(now) }
}
