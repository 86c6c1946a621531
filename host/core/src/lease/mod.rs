//! Leases: the only place that decides when a credential begins and ends.
//!
//! Must not know: HTTP, wasmtime, SQL, or what a credential is. It moves effects that it cannot read.
//!
//! Start with [`rows`](crate::rows) (what is stored, and the legal moves), then [`issue`] (intent, effect, commit), [`renew`], [`revoke`],
//! and [`claims`] (who works on what is due). [`tokens`] says what happens to leases when a token ends, [`reconcile`] finds out
//! where leases and targets do not agree.
//!
//! Invariants: a PostgreSQL role exists only if a lease row names it. A lease never returns from `Revoking`. Every end has a cause.

mod attempt;
pub mod claims;
pub mod irrevocable;
pub mod issue;
pub mod reconcile;
pub mod renew;
pub mod revoke;
pub mod tokens;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use leasehold_model::{LeaseId, Timestamp, Ttl};
use tokio::sync::{Notify, Semaphore};

use crate::mount::Engines;
use crate::seams::engine::LeaseIntent;
use crate::seams::host::{Clock, Entropy};
use crate::seams::storage::{Storage, StorageError};
use crate::token::Tokens;

pub use crate::rows::ending::{EndCause, Ending};
pub use crate::rows::lease::{LeaseBody, LeaseRow};
pub use crate::rows::state::{LeaseKind, LeaseState};

/// How long one claim holds a row: longer than any single effect may take.
pub const CLAIM_TTL: Ttl = Ttl::from_secs(60);

/// Rows worked on at once for one target.
pub const TARGET_SLOTS: usize = 8;

/// After so many failures the API shows a lease as irrevocable; trying goes on.
pub const IRREVOCABLE_AFTER: u32 = 6;

/// Rows read at once.
const PAGE: u32 = 1_000;

/// How long the effect of an issue, a renewal or a revocation may take.
pub const EFFECT_TIME: Ttl = Ttl::from_secs(30);

/// An effect that must be over by its deadline gets so much longer before anybody undoes it: what a target was told at the
/// last moment must have happened, or be refused, by then.
pub const EFFECT_GRACE: Ttl = Ttl::from_secs(5);

/// What clients hear when an effect took longer than [`EFFECT_TIME`]: Vault's words for a target that cannot be used.
pub(crate) const NO_ANSWER: &str = "unable to start transaction: the database did not answer in time";

/// What went wrong with one lease, for its caller to act on.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("lease not found")]
    NotFound(LeaseId),
    #[error("lease is not renewable")]
    NotRenewable(LeaseId),
    #[error("lease expired")]
    Expired(LeaseId),
    #[error("past the max TTL, cannot renew")]
    PastMaximum(LeaseId),
    #[error("tokens cannot be renewed through this endpoint")]
    IsToken(LeaseId),
    /// Somebody else is working on it; try again.
    #[error("lease is being worked on, try again")]
    Busy(LeaseId),
    /// What it stands for cannot be undone, because nobody knows any more what that is.
    #[error(
        "stored lease `{0}` is damaged and cannot be read: revoke-force removes it, and its credential may remain in the target"
    )]
    Damaged(LeaseId),
    /// The mount that made it is gone or answers with another engine.
    #[error("no engine serves lease `{0}`")]
    NoEngine(LeaseId),
    /// It was revoked while the request that works on it was under way.
    #[error("lease was revoked in the meantime")]
    Overtaken(LeaseId),
    /// What its plan was made of has changed since: nothing has begun, and it is to be planned anew.
    #[error("what credentials are made by changes all the time")]
    PlanOutdated(LeaseId),
    /// The token died while the request was under way.
    #[error("token is no longer valid")]
    TokenGone,
    /// The engine's words.
    #[error("{0}")]
    Engine(String),
    #[error("could not store lease")]
    Store(#[from] StorageError),
}

/// What is kept of leases, and all that is done to them.
pub struct Leases {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) engines: Arc<Engines>,
    /// Names this process in claims; new at every start, so that a dead process's claims run out.
    pub(crate) holder: String,
    /// Counts the claims of single rows: see [`Leases::claimant`].
    claims: AtomicU64,
    /// Something became due earlier than the ticker thinks.
    pub(crate) wake: Notify,
    /// Work under way at all, and per target: a dead target cannot starve the others.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) health: Mutex<HashMap<String, claims::ConnectionHealth>>,
    /// Leases that the API shows as irrevocable: kept, so that a scrape need not open every row.
    pub(crate) irrevocable: Mutex<HashSet<LeaseId>>,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Leases {
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, tokens: Arc<Tokens>, engines: Arc<Engines>) -> Self {
        let (clock, entropy) = (engines.clock.clone(), engines.entropy.clone());
        let holder = crate::random::base62(&*entropy, 12);
        Self {
            storage,
            clock,
            entropy,
            tokens,
            engines,
            holder,
            claims: AtomicU64::new(0),
            wake: Notify::new(),
            slots: Arc::new(Semaphore::new(claims::SLOTS)),
            health: Mutex::new(HashMap::new()),
            irrevocable: Mutex::default(),
        }
    }

    /// One lease as it stands.
    ///
    /// # Errors
    /// [`LeaseError::Damaged`], or as storage.
    pub async fn find(&self, id: &LeaseId) -> Result<Option<(LeaseRow, LeaseBody)>, LeaseError> {
        let Some(row) = self.row(id).await? else { return Ok(None) };
        let body = row.read_body()?;
        Ok(Some((row, body)))
    }

    /// The row of a lease, by an id that anybody may have sent: a job is none.
    async fn row(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        Ok(self.storage.lease(id).await?.filter(|row| row.kind != LeaseKind::Job))
    }

    /// Something falls due at this moment. Whoever works on what is due looks again by itself after [`claims::POLL_MAX`], so it is told
    /// only of what comes sooner: each of its looks is a write.
    pub fn falls_due(&self, at: Timestamp) {
        if at.since(self.now()) <= claims::POLL_MAX {
            self.wake.notify_one();
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new name for every claim of a single row: stores let a holder claim its own row again, and two tasks of one process
    /// are two workers. Under one name a revocation could overtake an effect that is still on its way.
    pub(crate) fn claimant(&self) -> String {
        format!("{}-{}", self.holder, self.claims.fetch_add(1, Ordering::Relaxed))
    }
}

impl LeaseRow {
    /// # Errors
    /// [`LeaseError::Damaged`].
    pub(crate) fn read_body(&self) -> Result<LeaseBody, LeaseError> {
        self.opened_body().ok_or_else(|| LeaseError::Damaged(self.id.clone()))
    }

    /// What engines see of a row.
    pub(crate) fn intent(&self, body: &LeaseBody, deadline: Timestamp) -> LeaseIntent {
        LeaseIntent {
            id: self.id.clone(),
            issued_at: body.issued_at,
            expires_at: self.expires_at,
            deadline,
            effect: body.effect.clone(),
            receipt: body.receipt.clone(),
        }
    }
}
