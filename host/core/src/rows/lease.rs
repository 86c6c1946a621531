//! The lease row as stores keep it: plain columns to search by, and a sealed body.

use std::fmt;

use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ending::{EndCause, Ending};
use super::state::{LeaseKind, LeaseState};

/// One row. All columns but `body` are readable by whoever holds the storage: nothing secret may stand in them.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseRow {
    pub id: LeaseId,
    pub kind: LeaseKind,
    pub state: LeaseState,
    /// When somebody must look at this row: expiry, the next try of a revocation, the deadline of an issue.
    pub next_at: Timestamp,
    pub expires_at: Timestamp,
    /// Raised by every claim; a write with an older number is refused.
    pub fence: u64,
    pub holder: Option<String>,
    pub held_until: Option<Timestamp>,
    /// The token that this lease dies with; of a token's own row, the token.
    pub token: TokenHash,
    /// Of a token's row: the mount that made the token.
    pub mount: MountAccessor,
    /// Names the target; empty for tokens.
    pub connection: String,
    /// JSON of a [`LeaseBody`]; sealed at rest, with the id as associated data. Empty: what is stored does not open. Writing
    /// such a row leaves that as it is.
    pub body: Vec<u8>,
}

impl fmt::Debug for LeaseRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseRow")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("state", &self.state)
            .field("next_at", &self.next_at)
            .field("expires_at", &self.expires_at)
            .field("fence", &self.fence)
            .field("holder", &self.holder)
            .field("held_until", &self.held_until)
            .finish_non_exhaustive()
    }
}

impl LeaseRow {
    /// None: it is damaged.
    pub(crate) fn opened_body(&self) -> Option<LeaseBody> {
        serde_json::from_slice(&self.body).ok()
    }

    /// With the cause of its end, in a row that goes to `Revoking`. The first cause stays. What cannot be read stays as it is.
    pub(crate) fn ending(self, cause: &EndCause, since: Timestamp) -> Self {
        let Some(body) = self.opened_body() else { return self };
        if body.ending.is_some() {
            return self;
        }
        let ending = Some(Ending { cause: cause.clone(), since });
        match serde_json::to_vec(&LeaseBody { ending, ..body }) {
            Ok(body) => Self { body, ..self },
            Err(_) => self,
        }
    }

    /// Nobody works on it; due at `next_at`.
    pub(crate) fn released(self, next_at: Timestamp) -> Self {
        Self { next_at, holder: None, held_until: None, ..self }
    }
}

/// What an answer hands out that is kept under a wrapping token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenHash>,
    /// It is no answer that is kept, but a request that waits for approval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// The entity that has asked for what waits: it may have so many requests waiting at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<String>,
}

/// What a lease's body holds. No credential: the password is never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseBody {
    pub issued_at: Timestamp,
    pub last_renewed_at: Option<Timestamp>,
    /// No renewal passes this, whatever role and mount allow by then.
    pub max_expires_at: Timestamp,
    /// As it was issued.
    pub ttl: Ttl,
    pub renewable: bool,
    /// The engine's own: user name, connection, revocation statements as they were at issue.
    pub effect: Value,
    /// What the effect gave back, stored in the commit that made the lease active.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub receipt: Value,
    /// Failed tries of the revocation under way.
    #[serde(default)]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Of a wrapping token: what ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<Wrapped>,
    /// Of a token's row: the role of the login that made it, by which quotas count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Of the same row: the path of that login below its mount. The mount may be elsewhere, or gone, when the row goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    /// Of a root token's row: no quota counts it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_root: bool,
    /// Of a row in `Revoking`: why it is there, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}
