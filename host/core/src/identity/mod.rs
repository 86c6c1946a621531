//! Who stands behind a token: entities, the aliases by which auth methods know them, and groups.
//!
//! Must not know: HTTP, what a policy says, how a method checks a proof.
//!
//! Start with [`entity`] and [`group`] (what is kept), then [`entities`] (all that touches stored entities), [`groups`] (the table in
//! memory), [`login`], and [`caller`]: what a request sees of it.
//!
//! An entity is read from the store with each request of its tokens, as the token itself is; so nothing of it is ever old, and a
//! hundred thousand of them cost disk and no memory. Groups are few and change seldom: every server keeps them in memory and follows.
//!
//! Invariants: an alias belongs to one entity, and an entity has one alias at a mount. Who has lost their entity has lost what their
//! token was worth. No entity and no group gives `root`.

pub mod caller;
pub mod changes;
pub mod entities;
pub mod entity;
pub mod group;
pub mod groups;
pub mod login;
pub mod members;
pub mod merge;
mod rewrite;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use leasehold_model::Timestamp;

use crate::mount::MountTable;
use crate::random;
use crate::seams::error::RequestError;
use crate::seams::host::{Clock, Entropy};
use crate::seams::storage::{Storage, StorageError};

pub use caller::CallerIdentity;
pub use entity::{Alias, Entity};
pub use group::{Group, GroupAlias, GroupKind};
use groups::Groups;

/// Of names of entities, groups and aliases, in bytes: they become parts of keys.
pub const NAME_LEN_MAX: usize = 512;
/// Vault's bounds of metadata.
const PAIRS_MAX: usize = 64;
const KEY_LEN_MAX: usize = 128;
const VALUE_LEN_MAX: usize = 512;
/// Of policies that one entity or group gives.
const POLICIES_MAX: usize = 1_000;

/// Names, values and policies as Vault keeps them.
pub type Metadata = BTreeMap<String, String>;

/// All entities and groups of the installation.
pub struct Identities {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// An external group counts while the mount is there that says who is in it.
    mounts: Arc<MountTable>,
    pub groups: Groups,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities")
    }
}

impl Identities {
    /// Reads all groups.
    ///
    /// # Errors
    /// As storage.
    pub async fn load(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        mounts: Arc<MountTable>,
    ) -> Result<Self, StorageError> {
        let groups = Groups::load(storage.clone()).await?;
        Ok(Self { storage, clock, entropy, mounts, groups })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn new_id(&self) -> String {
        random::uuid(&*self.entropy)
    }

    /// As Vault names what nobody has named: `entity_57f76941`.
    pub(crate) fn new_name(&self, what: &str) -> String {
        format!("{what}_{}", random::hex_digits(&*self.entropy, 8))
    }
}

/// How a name is compared: as in Vault, not by its case.
#[must_use]
pub(crate) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// # Errors
/// A name that is too long, or that nobody could read in a log.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), RequestError> {
    if name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        return Err(RequestError::Invalid(format!(
            "{what} must be at most {NAME_LEN_MAX} bytes without control characters"
        )));
    }
    Ok(())
}

/// # Errors
/// Vault's texts for what is too much.
pub(crate) fn check_metadata(of: &str, metadata: &Metadata) -> Result<(), RequestError> {
    let refuse = |why: String| Err(RequestError::InvalidMulti(format!("invalid {of}: {why}")));
    if metadata.len() > PAIRS_MAX {
        return refuse(format!("metadata cannot contain more than {PAIRS_MAX} key/value pairs"));
    }
    for (key, value) in metadata {
        let why = match (key.len(), value.len()) {
            (0, _) => "key is empty".to_owned(),
            (length, _) if length > KEY_LEN_MAX => format!("key is too long (limit: {KEY_LEN_MAX} characters)"),
            (_, length) if length > VALUE_LEN_MAX => format!("value is too long (limit: {VALUE_LEN_MAX} characters)"),
            _ => continue,
        };
        let shown: String = key.chars().take(KEY_LEN_MAX).collect();
        return refuse(format!("failed to load metadata pair {shown:?}: {why}"));
    }
    Ok(())
}

/// Policies as they are kept: lower-cased, sorted, without doubles.
///
/// # Errors
/// `root` is no right that somebody has by who they are.
pub(crate) fn checked_policies(given: &[String]) -> Result<Vec<String>, RequestError> {
    let policies = crate::seams::token_params::sanitized(given);
    for name in &policies {
        if name == "root" {
            return Err(RequestError::invalid("policies cannot contain root"));
        }
        if name == "response-wrapping" {
            return Err(RequestError::Invalid(format!("cannot assign policy {name:?}")));
        }
    }
    if policies.len() > POLICIES_MAX {
        return Err(RequestError::Invalid(format!("at most {POLICIES_MAX} policies")));
    }
    Ok(policies)
}
