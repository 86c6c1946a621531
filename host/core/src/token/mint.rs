//! Making a token out of what is already decided: the one way in, for `auth/token/create` and for logins.

use std::collections::BTreeMap;

use leasehold_model::{Accessor, Cidr, MountAccessor, Timestamp, TokenHash, TokenId, Ttl};
use serde_json::Value;

use super::{TokenKind, TokenRecord, Tokens};
use crate::keys;
use crate::seams::storage::{Expect, StorageError};
use crate::wrapping::Wraps;

/// A token to be made. Whoever asks has checked every rule.
#[derive(Debug)]
pub struct NewToken {
    pub kind: TokenKind,
    /// None: an orphan.
    pub parent: Option<TokenHash>,
    /// The auth mount that makes it; none: `auth/token/`.
    pub mount: Option<MountAccessor>,
    /// Sorted, without doubles.
    pub policies: Vec<String>,
    /// The request path that makes it.
    pub path: String,
    pub display_name: String,
    pub meta: Option<BTreeMap<String, String>>,
    /// The token role that it is made with, and what must still be stored of it.
    pub role: Option<(String, Expect)>,
    /// Zero: unlimited.
    pub num_uses: i32,
    pub created_at: Timestamp,
    /// Zero: it does not expire.
    pub ttl: Ttl,
    pub explicit_max_ttl: Ttl,
    pub period: Ttl,
    /// No renewal passes this; none: nothing was agreed.
    pub agreed_end: Option<Timestamp>,
    /// Whether it may be renewed, if it is of a kind and a TTL that can.
    pub renewable: bool,
    pub bound_cidrs: Vec<Cidr>,
    /// The id of the entity that it is to stand for.
    pub entity: Option<String>,
    /// What the auth method will need to renew it.
    pub login: Option<Value>,
    /// The token's own text; none: a random one.
    pub id: Option<TokenId>,
    /// The answer that it is to stand for, sealed for `id`.
    pub wraps: Option<Wraps>,
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A batch token carries its own record, and this one does not fit into a request's head.
    #[error("batch token would be too long: give it fewer policies or less metadata")]
    TooLong,
    #[error("cannot create a token with a duplicate ID")]
    Duplicate,
    /// The parent, the mount or the entity went away while the request was under way.
    #[error("what the token would belong to is gone")]
    Orphaned,
    #[error("could not store the token")]
    Store(#[from] StorageError),
}

impl NewToken {
    /// The record of it, its text if that is given, and the answer that it stands for.
    pub(crate) fn into_record(self, tokens: &Tokens) -> (TokenRecord, Option<TokenId>, Option<Wraps>) {
        let is_batch = self.kind == TokenKind::Batch;
        let record = TokenRecord {
            kind: self.kind,
            accessor: if is_batch { Accessor::new("") } else { tokens.new_accessor() },
            parent: self.parent,
            policies: self.policies,
            path: self.path,
            display_name: self.display_name,
            meta: self.meta,
            num_uses: self.num_uses,
            creation_uses: self.num_uses,
            created_at: self.created_at,
            creation_ttl: self.ttl,
            explicit_max_ttl: self.explicit_max_ttl,
            period: self.period,
            renewable: self.renewable && !self.ttl.is_zero() && !is_batch,
            expires_at: self.ttl.if_set().map(|ttl| self.created_at + ttl),
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: self.agreed_end,
            mount: self.mount,
            bound_cidrs: self.bound_cidrs,
            role: self.role.map(|(name, _)| name).filter(|_| !is_batch),
            wraps: self.wraps.as_ref().map(|wraps| wraps.wrapped.clone()),
            entity: self.entity,
            login: self.login.filter(|_| !is_batch),
        };
        (record, self.id, self.wraps)
    }
}

impl Tokens {
    /// Stores a new token with its indexes and its lease row in one step, or seals it.
    ///
    /// # Errors
    /// See [`MintError`]; then there is no token.
    pub async fn mint(&self, new: NewToken) -> Result<(TokenId, TokenRecord), MintError> {
        let role = new.role.as_ref().map(|(name, unchanged)| (keys::token_role(name), *unchanged));
        let (record, id, wraps) = new.into_record(self);
        if record.is_batch() {
            return self.sealed(&record).map(|id| (id, record)).ok_or(MintError::TooLong);
        }
        let is_custom = id.is_some();
        let id = id.unwrap_or_else(|| self.new_id());
        let (_, mut batch) = self.insertion(&id, &record, wraps)?;
        if let Some((key, unchanged)) = &role {
            batch = batch.check(key.clone(), *unchanged);
        }
        match self.storage().commit(batch).await {
            Ok(()) => Ok((id, record)),
            // What was decided was decided by a role that is another one now.
            Err(StorageError::Conflict(key)) if role.is_some_and(|(role, _)| role.as_str() == key) => {
                Err(StorageError::Conflict(key).into())
            }
            Err(StorageError::Conflict(_)) if is_custom => Err(MintError::Duplicate),
            Err(StorageError::Conflict(_)) => Err(MintError::Orphaned),
            Err(other) => Err(other.into()),
        }
    }
}
