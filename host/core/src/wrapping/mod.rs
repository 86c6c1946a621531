//! Response wrapping: an answer is kept for whoever shows a token that is good for one use.
//!
//! Must not know: HTTP, who may wrap and for how long (the ACL says so), how a lease is undone.
//!
//! Start with [`Tokens::wrap`]. [`sealed`] shuts an answer away under a key that the wrapping token alone gives; [`stored`] is what of
//! an answer is kept.
//!
//! Invariants: neither the store nor the barrier's key opens what is wrapped. What a wrapped answer hands out ends with its wrapping
//! token, unless that token was used to read it.

pub(crate) mod sealed;
mod stored;

use leasehold_model::{Accessor, Timestamp, TokenHash, TokenId, Ttl};
use zeroize::Zeroizing;

use crate::keys;
use crate::request::LogicalResponse;
use crate::rows::lease::Wrapped;
use crate::seams::storage::{Batch, StorageError};
use crate::token::{MintError, NewToken, TokenKind, TokenRecord, Tokens};

/// The policy of every wrapping token.
const POLICY: &str = "response-wrapping";

/// `wrap_info`: the token that stands for an answer. `Debug` shows no token.
#[derive(Clone)]
pub struct WrapInfo {
    pub token: TokenId,
    pub accessor: Accessor,
    pub ttl: Ttl,
    pub created_at: Timestamp,
    /// The path of the request whose answer it was.
    pub creation_path: String,
    /// Of a token in the answer.
    pub wrapped_accessor: Option<String>,
}

impl std::fmt::Debug for WrapInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrapInfo").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

impl WrapInfo {
    fn of(token: TokenId, record: TokenRecord, answer: &LogicalResponse) -> Self {
        // A batch token has none.
        let accessor = answer.auth.as_ref().map(|auth| auth.accessor.clone()).filter(|accessor| !accessor.is_empty());
        Self::new(token, record, accessor)
    }

    pub(crate) fn new(token: TokenId, record: TokenRecord, wrapped_accessor: Option<String>) -> Self {
        Self {
            token,
            accessor: record.accessor,
            ttl: record.creation_ttl,
            created_at: record.created_at,
            creation_path: record.path,
            wrapped_accessor,
        }
    }
}

/// A wrapping token whose use was taken, and its answer.
pub(crate) struct Opened {
    pub hash: TokenHash,
    pub answer: LogicalResponse,
}

/// Whether an answer can be wrapped. One that is no envelope leaves as it stands, as in Vault: texts for scrapers, and files.
pub(crate) fn can_be_wrapped(answer: &LogicalResponse) -> bool {
    answer.has_body() && answer.wrap_info.is_none() && answer.raw.is_none() && answer.attachment.is_none()
}

impl Tokens {
    /// Stores the answer under a new wrapping token.
    ///
    /// # Errors
    /// As [`Tokens::mint`]; then nothing is stored.
    pub(crate) async fn wrap(
        &self,
        answer: &LogicalResponse,
        creation_path: &str,
        ttl: Ttl,
    ) -> Result<WrapInfo, MintError> {
        let (token, record) = self.mint(self.wrapping_answer(answer, creation_path, ttl)?).await?;
        Ok(WrapInfo::of(token, record, answer))
    }

    /// Moves an answer to a new wrapping token, which lives as long as the old one did at first. The old one ends in the same commit.
    /// `None`: it is gone, or is being ended.
    ///
    /// # Errors
    /// As storage; then the answer is where it was.
    pub(crate) async fn rewrap(&self, opened: &Opened) -> Result<Option<WrapInfo>, StorageError> {
        let Some((old, _)) = self.find(&opened.hash).await? else { return Ok(None) };
        let new = self.wrapping_answer(&opened.answer, &old.path, old.creation_ttl)?;
        let (record, Some(token), wraps) = new.into_record(self) else { return Ok(None) };
        let (_, insertion) = self.insertion(&token, &record, wraps)?;
        let is_moved = self.replace_read(&opened.hash, insertion).await?;
        Ok(is_moved.then(|| WrapInfo::of(token, record, &opened.answer)))
    }

    /// The answer that a wrapping token stands for. `None`: there is none.
    ///
    /// # Errors
    /// As storage; `Corrupt` for what does not open.
    pub(crate) async fn open_wrapped(&self, token: &TokenId) -> Result<Option<Opened>, StorageError> {
        let hash = self.hash(token);
        let key = keys::wrapped(&hash);
        let Some(found) = self.storage().get(&key).await? else { return Ok(None) };
        let damaged = || StorageError::Corrupt(key.as_str().to_owned());
        let plain = sealed::open(token, &hash, found.value).ok_or_else(damaged)?;
        let answer = stored::read(&plain).ok_or_else(damaged)?;
        Ok(Some(Opened { hash, answer }))
    }

    fn wrapping_answer(&self, answer: &LogicalResponse, path: &str, ttl: Ttl) -> Result<NewToken, StorageError> {
        let id = self.new_id();
        let cannot = || StorageError::Corrupt("an answer that cannot be wrapped".to_owned());
        let plain = Zeroizing::new(stored::write(answer).ok_or_else(cannot)?);
        let sealed = sealed::seal(&id, &self.hash(&id), &plain).ok_or_else(cannot)?;
        let handed_out = answer.handed_out();
        let wrapped = Wrapped {
            lease: handed_out.as_ref().and_then(|handed_out| handed_out.lease.clone()),
            token: handed_out.and_then(|handed_out| handed_out.token).map(|token| self.hash(&token)),
            deferred: false,
            asker: None,
        };
        Ok(self.wrapping_token(id, path, ttl, Wraps { wrapped, sealed, deferred: None }))
    }

    /// A wrapping token that lives for `ttl` from now on.
    pub(crate) fn wrapping_token(&self, id: TokenId, path: &str, ttl: Ttl, wraps: Wraps) -> NewToken {
        NewToken {
            kind: TokenKind::Service,
            parent: None,
            mount: None,
            policies: vec![POLICY.to_owned()],
            path: path.to_owned(),
            display_name: "token".to_owned(),
            meta: None,
            role: None,
            num_uses: 1,
            created_at: self.now(),
            ttl,
            explicit_max_ttl: ttl,
            period: Ttl::ZERO,
            agreed_end: None,
            renewable: false,
            bound_cidrs: Vec::new(),
            entity: None,
            login: None,
            id: Some(id),
            wraps: Some(wraps),
        }
    }

    /// Ends a wrapping token whose answer was read: nothing ends with it. False: it is gone, or is being ended.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn end_read(&self, hash: &TokenHash) -> Result<bool, StorageError> {
        self.replace_read(hash, Batch::new()).await
    }

    /// As [`Tokens::end_read`], and writes `also` in the same commit.
    async fn replace_read(&self, hash: &TokenHash, also: Batch) -> Result<bool, StorageError> {
        let Some(Batch(mut changes)) = self.removal_of_read(hash).await? else { return Ok(false) };
        changes.extend(also.0);
        match self.storage().commit(Batch(changes)).await {
            Ok(()) => Ok(true),
            Err(StorageError::Conflict(_) | StorageError::Fenced(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

/// What a new wrapping token stands for.
pub struct Wraps {
    pub(crate) wrapped: Wrapped,
    pub(crate) sealed: Vec<u8>,
    /// A request that waits.
    pub(crate) deferred: Option<Vec<u8>>,
}

impl std::fmt::Debug for Wraps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wraps").field("wrapped", &self.wrapped).finish_non_exhaustive()
    }
}
