//! What is kept of an entity: one person, service or machine, however it logs in.

use std::collections::BTreeSet;

use leasehold_model::{MountAccessor, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Metadata, folded};

/// Aliases of one entity: each costs a few bytes of every request that it makes.
pub const ALIASES_MAX: usize = 1_000;
/// Groups that one entity was written in, or that one mount says it is in.
pub const GROUPS_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    pub id: String,
    /// As it was written; compared without its case.
    pub name: String,
    /// None: never given.
    pub metadata: Option<Metadata>,
    /// Sorted, without doubles.
    pub policies: Vec<String>,
    /// No token of it counts, and nobody logs in as it.
    pub disabled: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub aliases: Vec<Alias>,
    /// Ids of the internal groups in which it was written. Some of them may be gone.
    pub groups: BTreeSet<String>,
    /// Ids of the entities that have become this one.
    pub merged: Vec<String>,
}

/// By what name an auth mount knows an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    pub id: String,
    /// As the method gave it, or who made it.
    pub name: String,
    /// By what it is found: see [`AliasName`].
    pub key: String,
    pub mount: MountAccessor,
    /// What the method said at the last login; none where it says nothing.
    pub metadata: Option<Metadata>,
    pub custom_metadata: Option<Metadata>,
    /// Keys of the names of groups that the mount gave at the last login, of those that it had a group for. A group counts as long as one
    /// has such a name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Of the entities that had it before they were merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<String>,
}

impl Entity {
    #[must_use]
    pub fn new(id: String, name: String, now: Timestamp) -> Self {
        Self {
            id,
            name,
            metadata: None,
            policies: Vec::new(),
            disabled: false,
            created_at: now,
            updated_at: now,
            aliases: Vec::new(),
            groups: BTreeSet::new(),
            merged: Vec::new(),
        }
    }

    #[must_use]
    pub fn alias_at(&self, mount: &MountAccessor) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.mount == *mount)
    }

    #[must_use]
    pub fn alias(&self, id: &str) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.id == id)
    }
}

impl Alias {
    #[must_use]
    pub fn new(id: String, name: AliasName, mount: MountAccessor, now: Timestamp) -> Self {
        Self {
            id,
            name: name.shown,
            key: name.key,
            mount,
            metadata: None,
            custom_metadata: None,
            groups: BTreeSet::new(),
            created_at: now,
            updated_at: now,
            merged_from: Vec::new(),
        }
    }
}

/// A name that an auth mount has for somebody, and how it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasName {
    pub shown: String,
    pub key: String,
}

impl AliasName {
    /// As in Vault, the case of a name says nothing. Where a method has told two names apart that differ in nothing else, they are two.
    #[must_use]
    pub fn new(name: &str, is_exact: bool) -> Self {
        Self { shown: name.to_owned(), key: if is_exact { name.to_owned() } else { folded(name) } }
    }
}
