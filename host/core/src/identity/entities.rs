//! All that touches stored entities.
//!
//! An entity is one record, and a row for each way to find it: its name, its aliases, its groups, the ids that it had before.

use leasehold_model::MountAccessor;

use super::entity::Entity;
use super::rewrite::{AsStored, Indexed, as_stored};
use super::{Identities, NAME_LEN_MAX, folded};
use crate::keys;
use crate::seams::storage::{Key, StorageError};

/// An entity that was read.
pub type StoredEntity = AsStored<Entity>;

impl Identities {
    /// # Errors
    /// As storage.
    pub async fn find(&self, id: &str) -> Result<Option<StoredEntity>, StorageError> {
        // What is no id must not become a key.
        if !may_be_id(id) {
            return Ok(None);
        }
        as_stored(&*self.storage, &keys::entity(id)).await
    }

    /// The same, and of an entity that has become part of another one that other one.
    ///
    /// # Errors
    /// As storage.
    pub async fn find_now(&self, id: &str) -> Result<Option<StoredEntity>, StorageError> {
        if let Some(found) = self.find(id).await? {
            return Ok(Some(found));
        }
        self.pointed_to(&keys::entity_merged(id)).await
    }

    /// # Errors
    /// As storage.
    pub async fn find_by_name(&self, name: &str) -> Result<Option<StoredEntity>, StorageError> {
        if name.len() > NAME_LEN_MAX {
            return Ok(None);
        }
        let name = folded(name);
        let found = self.pointed_to(&keys::entity_name(&name)).await?;
        // It may have been renamed between the two reads.
        Ok(found.filter(|found| folded(&found.record.name) == name))
    }

    /// By the key of the name that a mount has for it.
    ///
    /// # Errors
    /// As storage.
    pub async fn find_by_alias(&self, mount: &MountAccessor, key: &str) -> Result<Option<StoredEntity>, StorageError> {
        // Folding may make a name longer.
        if key.len() > 2 * NAME_LEN_MAX {
            return Ok(None);
        }
        let found = self.pointed_to(&keys::entity_alias(mount, key)).await?;
        Ok(found.filter(|found| found.record.alias_at(mount).is_some_and(|alias| alias.key == key)))
    }

    /// # Errors
    /// As storage.
    pub async fn find_by_alias_id(&self, id: &str) -> Result<Option<StoredEntity>, StorageError> {
        if !may_be_id(id) {
            return Ok(None);
        }
        let found = self.pointed_to(&keys::entity_alias_id(id)).await?;
        Ok(found.filter(|found| found.record.alias(id).is_some()))
    }

    async fn pointed_to(&self, key: &Key) -> Result<Option<StoredEntity>, StorageError> {
        let Some(stored) = self.storage.get(key).await? else { return Ok(None) };
        self.find(&String::from_utf8_lossy(&stored.value)).await
    }
}

/// Ids are UUIDs, and nothing else is looked for.
pub(super) fn may_be_id(id: &str) -> bool {
    id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

impl Indexed for Entity {
    fn key(&self) -> Key {
        keys::entity(&self.id)
    }

    fn rows(&self) -> Vec<(Key, Vec<u8>)> {
        let id = || self.id.as_bytes().to_vec();
        let mut rows =
            vec![(keys::entity_name(&folded(&self.name)), id()), (keys::entity_listed(&self.name), Vec::new())];
        for alias in &self.aliases {
            rows.push((keys::entity_alias(&alias.mount, &alias.key), id()));
            rows.push((keys::entity_alias_id(&alias.id), id()));
            let vouched = alias.groups.iter().map(|key| keys::group_vouched(&alias.mount, key, &self.id));
            rows.extend(vouched.map(|key| (key, Vec::new())));
        }
        if self.disabled {
            rows.push((keys::entity_disabled(&self.id), Vec::new()));
        }
        rows.extend(self.groups.iter().map(|group| (keys::group_member(group, &self.id), Vec::new())));
        rows.extend(self.merged.iter().map(|merged| (keys::entity_merged(merged), id())));
        rows
    }

    fn relies_on(&self) -> Vec<Key> {
        self.groups.iter().map(|group| keys::group(group)).collect()
    }
}
