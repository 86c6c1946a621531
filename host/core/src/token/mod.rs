//! Tokens: made, looked up, renewed, revoked with everything below them.
//!
//! Must not know: HTTP, how a lease is undone. A token's end is a lease row of kind `token`, so one expiry serves both.
//!
//! Start with [`record`], then [`store`] (all that touches storage), then [`create`] (the rules of `auth/token/create`) and
//! [`routes`] (the API of `auth/token/`).
//!
//! Invariants: the plain token is never stored; an accessor can look up and revoke, never act; what descends from a revoked
//! token is revoked.

pub mod create;
pub mod record;
pub mod routes;
pub mod store;

pub use record::TokenRecord;
pub use store::Tokens;

use leasehold_model::TokenHash;

/// Who calls: a token that was valid a moment ago.
#[derive(Clone, Debug)]
pub struct Caller {
    pub hash: TokenHash,
    pub record: TokenRecord,
    /// This request took the token's last use.
    pub last_use: bool,
}

impl Caller {
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.record.is_root()
    }
}
