//! Revocation: from any state to `Revoking`, then undone for as many tries as it takes. "Revoked" means gone.

use std::sync::Arc;
use std::time::Duration;

use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash};

use super::{EFFECT_TIME, HOLD, LeaseError, LeaseKind, LeaseRow, LeaseState, Leases};
use crate::seams::{Batch, EngineError, LeaseFilter, Page, StorageError};
use crate::token::store::encode;

/// Whether a revocation answers when the credential is gone or when the duty to remove it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    UntilGone,
    UntilStored,
}

/// First wait after a failed try; doubles up to [`BACKOFF_MAX`].
const BACKOFF_BASE: Duration = Duration::from_secs(10);
/// A database restart with recovery fits in it.
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// After so many failures the API shows a lease as irrevocable; trying goes on.
pub const IRREVOCABLE_AFTER: u32 = 6;
/// Rows moved in one commit when many leases end together.
const MARK_BATCH: u32 = 200;

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
    pub async fn revoke(&self, id: &LeaseId, wait: Wait) -> Result<(), LeaseError> {
        let Some(row) = self.storage.lease(id).await? else { return Ok(()) };
        if row.kind == LeaseKind::Token {
            return self.end_token(&row.token, crate::token::store::Children::AreRevoked).await;
        }
        let Some(row) = self.claim_patiently(id).await? else { return Ok(()) };
        let revoking = LeaseRow { state: LeaseState::Revoking, ..row.clone() };
        match wait {
            Wait::UntilGone => {
                self.storage.commit(Batch::new().shift(revoking.clone(), row.state, row.fence)).await?;
                crate::fail::point("revoke-marked");
                self.undo(revoking).await
            }
            Wait::UntilStored => {
                let now = self.now();
                self.storage.commit(Batch::new().shift(revoking.released(now), row.state, row.fence)).await?;
                crate::fail::point("revoke-stored");
                self.wake.notify_one();
                Ok(())
            }
        }
    }

    /// Claims a row; waits for whoever has it (an issue, a renewal, another revocation), for as long as an effect may take.
    async fn claim_patiently(&self, id: &LeaseId) -> Result<Option<LeaseRow>, LeaseError> {
        let end = self.now() + EFFECT_TIME;
        loop {
            match self.storage.claim(&self.holder, id, HOLD).await {
                Err(StorageError::Fenced(_)) if self.now() < end => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(StorageError::Fenced(_)) => return Err(LeaseError::Busy(id.clone())),
                other => return Ok(other?),
            }
        }
    }

    /// Undoes the effect of a claimed row in `Revoking`; deletes the row, or stores when to try again.
    ///
    /// # Errors
    /// The engine's words.
    pub(crate) async fn undo(&self, row: LeaseRow) -> Result<(), LeaseError> {
        let mut body = row.read_body()?;
        let limit = Duration::from_secs(EFFECT_TIME.as_secs());
        let tried = match self.engines.at(&row.mount) {
            Some((engine, context)) => {
                let intent = row.intent(&body, self.now() + EFFECT_TIME);
                match tokio::time::timeout(limit, engine.revoke(&context, &intent)).await {
                    Ok(done) => done,
                    Err(_) => Err(EngineError::Down("the database did not answer in time".to_owned())),
                }
            }
            None => Err(EngineError::Failed(LeaseError::NoEngine(row.id.clone()).to_string())),
        };
        crate::fail::point("revoke-after-effect");
        let error = match tried {
            Ok(()) => {
                self.target_is_up(&row.connection);
                self.storage.commit(Batch::new().remove(row.id.clone(), row.fence)).await?;
                crate::fail::point("revoke-removed");
                let lag = self.now().until(row.expires_at.min(self.now()));
                metrics::histogram!("leasehold_revocation_lag_seconds").record(lag.as_secs_f64());
                metrics::counter!("leasehold_leases_revoked_total").increment(1);
                tracing::info!(lease.id = %row.id, "revoked lease {}", row.id);
                return Ok(());
            }
            Err(error) => error,
        };
        self.note_target(&row.connection, &error);
        metrics::counter!("leasehold_revocation_failures_total").increment(1);
        body.attempts = body.attempts.saturating_add(1);
        let wait = self.backoff(body.attempts);
        body.last_error = Some(error.to_string());
        tracing::warn!(lease.id = %row.id, attempts = body.attempts, %error, "could not revoke lease {}, next try in {wait:?}", row.id);
        let fence = row.fence;
        let next_at = self.now() + wait;
        let later = LeaseRow { body: encode(&body)?, ..row }.released(next_at);
        self.storage.commit(Batch::new().shift(later, LeaseState::Revoking, fence)).await?;
        Err(LeaseError::Engine(error.to_string()))
    }

    /// Doubling, with a quarter of jitter so that many leases of one dead target do not come back together.
    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = BACKOFF_BASE
            .saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(BACKOFF_MAX);
        let mut byte = [0_u8; 1];
        self.entropy.fill(&mut byte);
        doubled + doubled.mul_f64(f64::from(byte[0]) / 1_020.0)
    }

    /// Ends every lease below a prefix: the id itself, or all ids that start with the prefix and a slash.
    ///
    /// # Errors
    /// The first that could not be revoked; the others were tried all the same.
    pub async fn revoke_prefix(self: &Arc<Self>, prefix: &str, wait: Wait) -> Result<(), PrefixOrStore> {
        let ids = self.below(prefix).await?;
        let total = ids.len();
        if wait == Wait::UntilStored {
            self.mark(&LeaseFilter { id_prefix: Some(slashed(prefix)), ..LeaseFilter::default() }).await?;
        }
        let mut first = None;
        let mut work = tokio::task::JoinSet::new();
        let mut queue = ids.into_iter().enumerate();
        loop {
            while work.len() < super::claims::TARGET_SLOTS {
                let Some((position, id)) = queue.next() else { break };
                let leases = self.clone();
                work.spawn(async move { (position, leases.revoke(&id, wait).await, id) });
            }
            let Some(done) = work.join_next().await else { break };
            if let Ok((position, Err(error), id)) = done
                && first.as_ref().is_none_or(|f: &PrefixFailure| position + 1 < f.position)
            {
                first = Some(PrefixFailure { id, position: position + 1, total, error });
            }
        }
        first.map_or(Ok(()), |failure| Err(PrefixOrStore::Lease(Box::new(failure))))
    }

    /// Forgets every lease below a prefix; what the engine cannot undo stays behind in the target.
    ///
    /// # Errors
    /// As storage.
    pub async fn revoke_force(&self, prefix: &str) -> Result<(), StorageError> {
        for id in self.below(prefix).await? {
            match self.revoke(&id, Wait::UntilGone).await {
                Ok(()) => continue,
                Err(error) => {
                    tracing::warn!(lease.id = %id, %error, "forgetting lease {id} by force: its role may remain")
                }
            }
            if let Some(row) = self.storage.lease(&id).await? {
                self.storage.commit(Batch::new().remove(id, row.fence)).await?;
            }
        }
        Ok(())
    }

    /// Ids of a prefix, as `revoke-prefix` understands it.
    async fn below(&self, prefix: &str) -> Result<Vec<LeaseId>, StorageError> {
        if !prefix.ends_with('/')
            && let Ok(id) = prefix.parse::<LeaseId>()
            && self.storage.lease(&id).await?.is_some()
        {
            return Ok(vec![id]);
        }
        let filter = LeaseFilter { id_prefix: Some(slashed(prefix)), ..LeaseFilter::default() };
        Ok(self.rows(&filter).await?.into_iter().map(|row| row.id).collect())
    }

    /// All leases of one mount, ended before it goes.
    ///
    /// # Errors
    /// As [`Leases::revoke_prefix`].
    pub async fn revoke_mount(self: &Arc<Self>, mount: &MountAccessor, path: &str) -> Result<(), PrefixOrStore> {
        self.mark(&LeaseFilter { mount: Some(mount.clone()), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() })
            .await?;
        self.revoke_prefix(path, Wait::UntilGone).await
    }

    /// Every row of a filter, page by page.
    ///
    /// # Errors
    /// As storage.
    pub async fn rows(&self, filter: &LeaseFilter) -> Result<Vec<LeaseRow>, StorageError> {
        let mut found: Vec<LeaseRow> = Vec::new();
        loop {
            let after = found.last().map(|row| row.id.clone());
            let page = self.storage.leases(filter, &Page { after, limit: 1_000 }).await?;
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
    pub(super) async fn mark_secrets_of(&self, token: &TokenHash) -> Result<(), StorageError> {
        self.mark(&LeaseFilter { token: Some(token.clone()), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() })
            .await
    }

    /// Moves all secrets of a filter to `Revoking`, due now; those that are being issued, at their deadline: an effect on its way
    /// must have happened before it can be undone.
    async fn mark(&self, filter: &LeaseFilter) -> Result<(), StorageError> {
        for state in [LeaseState::Active, LeaseState::Issuing] {
            let filter = LeaseFilter { state: Some(state), kind: Some(LeaseKind::Secret), ..filter.clone() };
            loop {
                let page = self.storage.leases(&filter, &Page { after: None, limit: MARK_BATCH }).await?;
                if page.is_empty() {
                    break;
                }
                let now = self.now();
                let mut batch = Batch::new();
                for row in page {
                    let fence = row.fence;
                    let due = if state == LeaseState::Issuing { row.held_until.unwrap_or(now) } else { now };
                    let marked = LeaseRow { state: LeaseState::Revoking, fence: fence + 1, ..row }.released(due);
                    batch = batch.shift(marked, state, fence);
                }
                match self.storage.commit(batch).await {
                    // One of them moved by itself: read again.
                    Ok(()) | Err(StorageError::Fenced(_)) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    /// The client was gone before it had its credential.
    pub async fn undelivered(&self, id: &LeaseId) {
        tracing::info!(lease.id = %id, "the client of lease {id} hung up before its answer: revoking");
        if let Err(error) = self.revoke(id, Wait::UntilStored).await {
            tracing::warn!(lease.id = %id, %error, "could not revoke undelivered lease {id}: it ends at its expiry");
        }
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

/// Whether the API shows a row as irrevocable.
#[must_use]
pub fn is_irrevocable(state: LeaseState, attempts: u32) -> bool {
    state == LeaseState::Revoking && attempts >= IRREVOCABLE_AFTER
}

/// `ttl` as look-ups show it: negative once past.
#[must_use]
pub fn shown_ttl(row: &LeaseRow, now: Timestamp) -> i64 {
    if row.expires_at == Timestamp::NEVER { 0 } else { row.expires_at.seconds_from(now) }
}
