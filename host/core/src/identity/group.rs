//! What is kept of a group.

use std::collections::BTreeSet;

use leasehold_model::{MountAccessor, Timestamp};
use serde::{Deserialize, Serialize};

use super::Metadata;

/// Groups inside one group.
pub const SUBGROUPS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupKind {
    /// Its members are written.
    #[default]
    Internal,
    /// Its members are those of whom an auth method says so when they log in.
    External,
}

impl GroupKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
        }
    }

    /// An empty text is the default, as in Vault.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "internal" => Some(Self::Internal),
            "external" => Some(Self::External),
            _ => None,
        }
    }
}

/// A group without its entities: each of those knows its groups, and a key for each pair stands beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    /// As it was written; compared without its case.
    pub name: String,
    pub kind: GroupKind,
    /// None: never given.
    pub metadata: Option<Metadata>,
    /// Sorted, without doubles.
    pub policies: Vec<String>,
    /// Ids of the groups whose members are members of this one.
    pub subgroups: BTreeSet<String>,
    /// Of an external group.
    pub alias: Option<GroupAlias>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Counts its changes, from 1.
    pub modify_index: u64,
}

/// By what name an auth mount knows a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAlias {
    pub id: String,
    pub name: String,
    /// By what it is found: see [`AliasName`](super::entity::AliasName).
    pub key: String,
    pub mount: MountAccessor,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Group {
    #[must_use]
    pub fn new(id: String, name: String, kind: GroupKind, now: Timestamp) -> Self {
        Self {
            id,
            name,
            kind,
            metadata: None,
            policies: Vec::new(),
            subgroups: BTreeSet::new(),
            alias: None,
            created_at: now,
            updated_at: now,
            modify_index: 0,
        }
    }
}
