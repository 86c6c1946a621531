//! The legal moves of a lease: the one place.

use serde::{Deserialize, Serialize};

/// What a row is about. Expiring tokens are rows too: one expiry for everything. So is work that recurs: one way to claim it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseKind {
    Secret,
    Token,
    /// Not a lease: nothing of the API shows, counts, renews or ends it.
    Job,
}

impl LeaseKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Token => "token",
            Self::Job => "job",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Secret, Self::Token, Self::Job].into_iter().find(|kind| kind.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Intent is durable; the effect may or may not have happened.
    Issuing,
    Active,
    /// The effect is being undone, for as many tries as it takes.
    Revoking,
}

impl LeaseState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Active => "active",
            Self::Revoking => "revoking",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Issuing, Self::Active, Self::Revoking].into_iter().find(|state| state.as_str() == text)
    }

    /// Whether a row may move from `self` to `to`. Deletion is legal from `Revoking`, from `Issuing` when nothing was sent to the
    /// target, and by force from anywhere.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        matches!(
            (self, to),
            (Self::Issuing, Self::Active | Self::Revoking)
                | (Self::Active, Self::Active | Self::Revoking)
                | (Self::Revoking, Self::Revoking)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_never_returns_from_revoking() {
        for to in [LeaseState::Issuing, LeaseState::Active] {
            assert!(!LeaseState::Revoking.may_become(to));
        }
        assert!(!LeaseState::Active.may_become(LeaseState::Issuing));
    }
}
