//! Requests that wait for somebody's approval, under a wrapping token that stands for them.
//!
//! Must not know: HTTP, what a control group asks for (the ACL component does), how a request is judged or carried out.
//!
//! Start with [`Tokens::defer`].
//!
//! Invariants: nothing of the request has been carried out. Only the wrapping token opens whose token asked, so that neither the store
//! nor an approver can have the request carried out. What an approver is shown lies under the barrier, and is gone with the token.

use leasehold_model::{MountAccessor, Operation, Timestamp, TokenHash, TokenId, Ttl};
use serde::{Deserialize, Serialize};

use crate::codec::{decode, encode};
use crate::keys;
use crate::request::Object;
use crate::rows::lease::Wrapped;
use crate::seams::storage::{Batch, Expect, StorageError};
use crate::token::{MintError, Tokens};
use crate::wrapping::{WrapInfo, Wraps, sealed};

/// Beyond that, approvals which count no more are dropped when another one is given.
const APPROVALS_KEPT: usize = 200;

/// A request that waits. `Debug` shows no data: it may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Deferred {
    /// The request's id; it keeps it when it is carried out.
    pub id: String,
    /// As it came: whether a write creates or updates is asked again.
    pub operation: Operation,
    /// The canonical path, with the slash at its end that it came with.
    pub path: String,
    pub data: Object,
    /// Whose path it was: another mount may be there by now.
    pub mount: MountAccessor,
    pub wrap_ttl: Option<Ttl>,
    /// Whose token asked.
    pub requester: TokenHash,
    /// The entity that it stood for.
    pub entity: String,
    pub approvals: Vec<Approved>,
}

/// Somebody's approval, and what the right to it rests on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Approved {
    pub entity: String,
    /// Of the token that approved.
    pub display_name: String,
    /// The token's own; those of the entity are looked up when it counts.
    pub policies: Vec<String>,
    pub at: Timestamp,
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, operation, path, .. } = self;
        f.debug_struct("Deferred")
            .field("id", id)
            .field("operation", operation)
            .field("path", path)
            .finish_non_exhaustive()
    }
}

/// A request that waits, as it is stored now.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The wrapping token that stands for it.
    pub hash: TokenHash,
    pub deferred: Deferred,
    version: u64,
}

impl Tokens {
    /// Stores a request under a new wrapping token, which lives as long as it may wait.
    ///
    /// # Errors
    /// As [`Tokens::mint`]; then nothing is stored.
    pub(crate) async fn defer(
        &self,
        deferred: &Deferred,
        requester: &TokenId,
        ttl: Ttl,
    ) -> Result<WrapInfo, MintError> {
        let id = self.new_id();
        let cannot = || StorageError::Corrupt("a token that cannot be sealed".to_owned());
        let sealed = sealed::seal(&id, &self.hash(&id), requester.expose().as_bytes()).ok_or_else(cannot)?;
        let wraps = Wraps {
            wrapped: Wrapped { deferred: true, asker: Some(deferred.entity.clone()), ..Wrapped::default() },
            sealed,
            deferred: Some(encode(deferred)?),
        };
        let path = deferred.path.trim_end_matches('/');
        let (token, record) = self.mint(self.wrapping_token(id, path, ttl, wraps)).await?;
        Ok(WrapInfo::new(token, record, None))
    }

    /// The request that a wrapping token stands for. `None`: it stands for an answer, or is gone.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn waiting(&self, hash: &TokenHash) -> Result<Option<Waiting>, StorageError> {
        let key = keys::deferred(hash);
        let Some(stored) = self.storage().get(&key).await? else { return Ok(None) };
        let deferred = decode(key.as_str(), &stored.value)?;
        Ok(Some(Waiting { hash: hash.clone(), deferred, version: stored.version }))
    }

    /// The token that asked, which the wrapping token alone opens.
    ///
    /// # Errors
    /// As storage; `Corrupt` for what does not open.
    pub(crate) async fn requester(&self, token: &TokenId) -> Result<Option<TokenId>, StorageError> {
        let hash = self.hash(token);
        let key = keys::wrapped(&hash);
        let Some(found) = self.storage().get(&key).await? else { return Ok(None) };
        let damaged = || StorageError::Corrupt(key.as_str().to_owned());
        let plain = sealed::open(token, &hash, found.value).ok_or_else(damaged)?;
        let text = std::str::from_utf8(&plain).map_err(|_| damaged())?;
        Ok(Some(TokenId::new(text.to_owned())))
    }

    /// Stores an approval besides those of `standing` entities. False: somebody else's came first, or the request is gone; look again.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn approve(
        &self,
        waiting: &Waiting,
        standing: &[String],
        approved: Approved,
    ) -> Result<bool, StorageError> {
        let mut deferred = waiting.deferred.clone();
        let is_long = deferred.approvals.len() >= APPROVALS_KEPT;
        let is_kept = |one: &Approved| !is_long || standing.contains(&one.entity);
        deferred.approvals.retain(|one| one.entity != approved.entity && is_kept(one));
        deferred.approvals.push(approved);
        let key = keys::deferred(&waiting.hash);
        let batch = Batch::new().check(keys::token(&waiting.hash), Expect::Present).put(
            key,
            encode(&deferred)?,
            Expect::Version(waiting.version),
        );
        match self.storage().commit(batch).await {
            Ok(()) => Ok(true),
            Err(StorageError::Conflict(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }
}
