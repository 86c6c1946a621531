//! What a request does, and what a policy may grant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a request asks for. `Create` and `Update` are one method on the wire; an existence check tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Create,
    Read,
    Update,
    Patch,
    Delete,
    List,
    Scan,
    /// `?help=1`: any valid token may ask.
    Help,
    /// A lease's renewal, judged by policy modules on the lease's own path.
    Renew,
    /// A lease's revocation.
    Revoke,
}

impl Operation {
    /// As audit lines and modules spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Help => "help",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u16);

impl Capabilities {
    pub const NONE: Self = Self(0);
    pub const CREATE: Self = Self(1);
    pub const READ: Self = Self(1 << 1);
    pub const UPDATE: Self = Self(1 << 2);
    pub const DELETE: Self = Self(1 << 3);
    pub const LIST: Self = Self(1 << 4);
    pub const SCAN: Self = Self(1 << 5);
    pub const PATCH: Self = Self(1 << 6);
    pub const SUDO: Self = Self(1 << 7);
    pub const DENY: Self = Self(1 << 8);

    const NAMES: [(Self, &'static str); 9] = [
        (Self::CREATE, "create"),
        (Self::DELETE, "delete"),
        (Self::DENY, "deny"),
        (Self::LIST, "list"),
        (Self::PATCH, "patch"),
        (Self::READ, "read"),
        (Self::SCAN, "scan"),
        (Self::SUDO, "sudo"),
        (Self::UPDATE, "update"),
    ];

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Sorted, as `sys/capabilities` answers: `deny` alone when nothing is granted.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        if self.is_empty() || self.contains(Self::DENY) {
            return vec!["deny"];
        }
        Self::NAMES.iter().filter(|(one, _)| self.contains(*one)).map(|(_, name)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_leaves_no_other_capability() {
        assert_eq!(Capabilities::READ.union(Capabilities::LIST).names(), ["list", "read"]);
        assert_eq!(Capabilities::READ.union(Capabilities::DENY).names(), ["deny"]);
        assert_eq!(Capabilities::NONE.names(), ["deny"]);
    }
}
