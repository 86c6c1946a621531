//! Tokens: made, looked up, renewed, revoked with everything below them.
//!
//! Must not know: HTTP, how a lease is undone. A token's end is a lease row of kind `token`, so one expiry serves both.
//!
//! Start with [`record`], then [`store`] (what is stored), [`admit`] (who shows one) and [`end`], then [`create`] (the rules of
//! `auth/token/create`) and [`role`]; [`batch`] is the tokens that are not stored.
//!
//! Invariants: the plain token is never stored; an accessor can look up and revoke, never act; what descends from a revoked
//! token is revoked.

mod admit;
pub mod batch;
pub mod create;
pub mod end;
pub mod mint;
pub mod record;
pub mod role;
pub mod store;

pub use mint::{MintError, NewToken};
pub use record::{TokenKind, TokenRecord};
pub use store::Tokens;

use std::sync::Arc;

use leasehold_model::{MountAccessor, Timestamp, TokenHash};

use crate::identity::CallerIdentity;

/// What a lease ends with, besides its own time.
#[derive(Clone, Copy, Debug)]
pub enum Leaseholder<'a> {
    /// A stored token: the lease dies with it.
    Service(&'a TokenHash),
    /// Nobody notices the end of a batch token. So the lease dies with the token's parent, if it has one, and no renewal
    /// passes the token's own end. `login` is the auth mount that made it, with whose end its leases end too; they are kept
    /// under `token`, which then stands for all batch tokens of that mount.
    Batch { token: &'a TokenHash, parent: Option<&'a TokenHash>, login: Option<&'a MountAccessor>, until: Timestamp },
}

impl<'a> Leaseholder<'a> {
    /// The stored token that must be there, and with whose end the lease ends.
    #[must_use]
    pub fn stored(self) -> Option<&'a TokenHash> {
        match self {
            Self::Service(token) => Some(token),
            Self::Batch { parent, .. } => parent,
        }
    }

    /// Under which token the lease is kept.
    #[must_use]
    pub fn token(self) -> &'a TokenHash {
        match self {
            Self::Service(token) => token,
            Self::Batch { token, parent, .. } => parent.unwrap_or(token),
        }
    }

    /// The auth mount that must be there.
    #[must_use]
    pub fn login(self) -> Option<&'a MountAccessor> {
        match self {
            // Its token ends with the mount, and is checked itself.
            Self::Service(_) => None,
            Self::Batch { login, .. } => login,
        }
    }

    #[must_use]
    pub fn until(self) -> Timestamp {
        match self {
            Self::Service(_) => Timestamp::NEVER,
            Self::Batch { until, .. } => until,
        }
    }
}

/// Who calls: a token that was valid a moment ago.
#[derive(Clone, Debug)]
pub struct Caller {
    pub hash: TokenHash,
    pub record: TokenRecord,
    /// Uses that were left when this request came; zero: unlimited.
    pub uses_before: i32,
    /// This request took the token's last use.
    pub last_use: bool,
    /// Of a batch token that a login made: under what its leases are kept. See [`Tokens::batch_tokens_of`].
    pub group: Option<TokenHash>,
    /// Whom the token stands for, once that has been found out.
    pub identity: Option<Arc<CallerIdentity>>,
}

impl Caller {
    /// All policies that it is judged by.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        self.identity.as_ref().map_or(&self.record.policies, |identity| &identity.policies)
    }

    #[must_use]
    pub fn entity_id(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.entity.id.as_str())
    }

    #[must_use]
    pub fn is_root(&self) -> bool {
        self.record.is_root()
    }

    /// For whom a lease is that this caller asks for.
    #[must_use]
    pub fn leaseholder(&self) -> Leaseholder<'_> {
        match (self.record.kind, self.record.expires_at) {
            (TokenKind::Batch, Some(until)) => Leaseholder::Batch {
                token: self.group.as_ref().unwrap_or(&self.hash),
                parent: self.record.parent.as_ref(),
                login: self.record.mount.as_ref(),
                until,
            },
            _ => Leaseholder::Service(&self.hash),
        }
    }
}
