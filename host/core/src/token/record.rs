//! What is kept of a token. The token itself is not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use leasehold_model::{Accessor, Cidr, MountAccessor, Timestamp, TokenHash, Ttl};
use serde::{Deserialize, Serialize};

use crate::rows::lease::Wrapped;
use crate::ttl;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Stored; may be renewed and revoked.
    #[default]
    Service,
    /// Carries its own record and is stored nowhere.
    Batch,
}

impl TokenKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What is stored is of service tokens.
    #[serde(skip)]
    pub kind: TokenKind,
    /// Empty for batch tokens.
    pub accessor: Accessor,
    /// None: an orphan.
    pub parent: Option<TokenHash>,
    /// Sorted, without doubles.
    pub policies: Vec<String>,
    /// The request path that made it.
    pub path: String,
    pub display_name: String,
    pub meta: Option<BTreeMap<String, String>>,
    /// Uses left; zero: unlimited; -1: the last one is under way.
    pub num_uses: i32,
    /// Uses at creation.
    #[serde(default)]
    pub creation_uses: i32,
    pub created_at: Timestamp,
    /// TTL at creation; zero: does not expire.
    pub creation_ttl: Ttl,
    pub explicit_max_ttl: Ttl,
    pub period: Ttl,
    pub renewable: bool,
    /// None: does not expire. The lease row says the same; both move in one commit.
    pub expires_at: Option<Timestamp>,
    #[serde(default)]
    pub last_renewed_at: Option<Timestamp>,
    /// What the last renewal gave; without an increment the next one asks for as much. None: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_ttl: Option<Ttl>,
    /// No renewal passes this. A policy module's ceiling at creation sets it, and every token that this one makes inherits it,
    /// orphans included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed_end: Option<Timestamp>,
    /// The auth mount whose login made it, and with whose end it ends; none: `auth/token/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountAccessor>,
    /// Only these addresses may use it; none: every address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_cidrs: Vec<Cidr>,
    /// The token role that it was made with, which is asked again when it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Of a wrapping token: what its answer hands out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wraps: Option<Wrapped>,
    /// The id of the entity that it stands for; none: it stands for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// What the auth method that made it needs to renew it. Opaque to this module; no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<serde_json::Value>,
}

impl TokenRecord {
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.policies == ["root"]
    }

    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.kind == TokenKind::Batch
    }

    /// A wrapping token that stands for a request which waits for approval.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.num_uses > 0 && self.wraps.as_ref().is_some_and(|wraps| wraps.deferred)
    }

    /// A wrapping token with which a credential or a token ends.
    #[must_use]
    pub fn hands_out(&self) -> bool {
        self.wraps.as_ref().is_some_and(|wraps| wraps.lease.is_some() || wraps.token.is_some())
    }

    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The longest that renewals can make the token live, counted from its creation; zero: no bound of its own.
    #[must_use]
    pub fn longest(&self) -> Ttl {
        let agreed = self.agreed_end.and_then(|end| u64::try_from(end.seconds_from(self.created_at)).ok());
        ttl::least(&[self.explicit_max_ttl, agreed.map_or(Ttl::ZERO, Ttl::from_secs)]).unwrap_or(Ttl::ZERO)
    }

    /// Whether a request from `client` may use it. As in Vault, a root token that does not expire is bound to no address: it is
    /// the way back in. An address that is not known lies in no block.
    #[must_use]
    pub fn may_be_used_from(&self, client: Option<IpAddr>) -> bool {
        let is_unbound = self.bound_cidrs.is_empty() || self.is_root() && self.expires_at.is_none();
        is_unbound || client.is_some_and(|client| self.bound_cidrs.iter().any(|block| block.contains(client)))
    }

    /// Seconds left; zero when it does not expire.
    #[must_use]
    pub fn ttl(&self, now: Timestamp) -> Ttl {
        let left = self.expires_at.map_or(0, |end| end.seconds_from(now));
        Ttl::from_secs(u64::try_from(left).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_until_the_moment_at_which_it_expires() {
        let end = Timestamp::from_secs(1_060);
        let record = TokenRecord {
            kind: TokenKind::Service,
            accessor: Accessor::new("a"),
            parent: None,
            policies: Vec::new(),
            path: String::new(),
            display_name: String::new(),
            meta: None,
            num_uses: 0,
            creation_uses: 0,
            created_at: Timestamp::from_secs(1_000),
            creation_ttl: Ttl::from_secs(60),
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            renewable: false,
            expires_at: Some(end),
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: None,
            mount: None,
            bound_cidrs: Vec::new(),
            role: None,
            wraps: None,
            entity: None,
            login: None,
        };
        assert!(!record.is_expired(Timestamp::from_nanos(end.as_nanos() - 1)));
        assert!(record.is_expired(end), "at that moment it is over");
        assert!(!TokenRecord { expires_at: None, ..record }.is_expired(Timestamp::NEVER));
    }
}
