//! All groups, in memory: every request of a token that stands for somebody asks which of them they are in.
//!
//! Invariant: groups lie in each other without a circle. Whoever writes one writes the row of the table as well, so that of two writes
//! on two servers, each of which closes half a circle, one is done again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use leasehold_model::MountAccessor;
use leasehold_model::lock::RwLock;

use super::entity::Entity;
use super::folded;
use super::group::{Group, GroupKind};
use crate::commit::{read, read_all};
use crate::keys;
use crate::seams::storage::{Storage, StorageError};

/// The table of groups.
pub struct Groups {
    storage: Arc<dyn Storage>,
    table: RwLock<Table>,
    /// One decision at a time: writers of this server do not overtake each other.
    pub(super) deciding: tokio::sync::Mutex<()>,
    /// A commit and what it changes in memory, so that memory changes in the order of the commits. Never held for long: whoever follows
    /// the other servers waits for it.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Groups")
    }
}

#[derive(Default)]
struct Table {
    by_id: BTreeMap<String, Arc<Group>>,
    by_name: HashMap<String, String>,
    by_alias: HashMap<(MountAccessor, String), String>,
    by_alias_id: BTreeMap<String, String>,
    /// Of a group, those that it lies in.
    parents: HashMap<String, BTreeSet<String>>,
}

impl Table {
    fn remove(&mut self, id: &str) {
        let Some(old) = self.by_id.remove(id) else { return };
        // Another group may have taken what this one had, and been shown first.
        remove_if_of(&mut self.by_name, &folded(&old.name), id);
        if let Some(alias) = &old.alias {
            remove_if_of(&mut self.by_alias, &(alias.mount.clone(), alias.key.clone()), id);
            if self.by_alias_id.get(&alias.id).is_some_and(|holder| holder == id) {
                self.by_alias_id.remove(&alias.id);
            }
        }
        for subgroup in &old.subgroups {
            if let Some(parents) = self.parents.get_mut(subgroup) {
                parents.remove(id);
                if parents.is_empty() {
                    self.parents.remove(subgroup);
                }
            }
        }
    }

    fn insert(&mut self, group: Group) {
        self.remove(&group.id);
        let id = group.id.clone();
        self.by_name.insert(folded(&group.name), id.clone());
        if let Some(alias) = &group.alias {
            self.by_alias.insert((alias.mount.clone(), alias.key.clone()), id.clone());
            self.by_alias_id.insert(alias.id.clone(), id.clone());
        }
        for subgroup in &group.subgroups {
            self.parents.entry(subgroup.clone()).or_default().insert(id.clone());
        }
        self.by_id.insert(id, Arc::new(group));
    }
}

fn remove_if_of<K: Eq + Hash>(index: &mut HashMap<K, String>, key: &K, id: &str) {
    if index.get(key).is_some_and(|holder| holder == id) {
        index.remove(key);
    }
}

/// The groups of one entity.
#[derive(Clone, Debug, Default)]
pub struct Memberships {
    pub direct: Vec<Arc<Group>>,
    /// Those in which one of the direct ones lies.
    pub inherited: Vec<Arc<Group>>,
}

impl Memberships {
    /// Direct ones first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.direct.iter().chain(&self.inherited)
    }
}

impl Groups {
    pub(super) async fn load(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let table = RwLock::new(stored_table(&*storage).await?);
        Ok(Self { storage, table, deciding: tokio::sync::Mutex::new(()), writing: tokio::sync::Mutex::new(()) })
    }

    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Group>> {
        self.table.read().by_id.get(id).cloned()
    }

    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Group>> {
        let table = self.table.read();
        table.by_id.get(table.by_name.get(&folded(name))?).cloned()
    }

    /// By the key of the name that a mount has for it.
    #[must_use]
    pub fn by_alias(&self, mount: &MountAccessor, key: &str) -> Option<Arc<Group>> {
        let table = self.table.read();
        table.by_id.get(table.by_alias.get(&(mount.clone(), key.to_owned()))?).cloned()
    }

    #[must_use]
    pub fn by_alias_id(&self, id: &str) -> Option<Arc<Group>> {
        let table = self.table.read();
        table.by_id.get(table.by_alias_id.get(id)?).cloned()
    }

    /// Ids of the groups in which this one lies.
    #[must_use]
    pub fn parents(&self, id: &str) -> Vec<String> {
        self.table.read().parents.get(id).into_iter().flatten().cloned().collect()
    }

    /// In the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.table.read().by_id.values().cloned().collect()
    }

    /// In the order of the ids of their aliases.
    #[must_use]
    pub fn with_alias(&self) -> Vec<Arc<Group>> {
        let table = self.table.read();
        table.by_alias_id.values().filter_map(|id| table.by_id.get(id)).cloned().collect()
    }

    /// Those that an entity is in now: the internal ones in which it was written, and the external ones of which a mount that is there
    /// said so at its last login there.
    #[must_use]
    pub fn of(&self, entity: &Entity, is_mounted: impl Fn(&MountAccessor) -> bool) -> Memberships {
        let table = self.table.read();
        let written = entity.groups.iter().filter_map(|id| table.by_id.get(id));
        let mut direct: Vec<_> = written.filter(|group| group.kind == GroupKind::Internal).cloned().collect();
        for alias in entity.aliases.iter().filter(|alias| !alias.groups.is_empty() && is_mounted(&alias.mount)) {
            let named = alias.groups.iter().filter_map(|key| table.by_alias.get(&(alias.mount.clone(), key.clone())));
            direct.extend(named.filter_map(|id| table.by_id.get(id)).cloned());
        }
        let mut seen: BTreeSet<&str> = direct.iter().map(|group| group.id.as_str()).collect();
        let mut inherited = BTreeMap::new();
        let mut above: Vec<&str> = direct.iter().map(|group| group.id.as_str()).collect();
        while let Some(id) = above.pop() {
            for parent in table.parents.get(id).into_iter().flatten() {
                if seen.insert(parent)
                    && let Some(group) = table.by_id.get(parent)
                {
                    inherited.insert(group.id.clone(), group.clone());
                    above.push(parent);
                }
            }
        }
        Memberships { direct, inherited: inherited.into_values().collect() }
    }

    pub(super) fn show(&self, id: &str, group: Option<Group>) {
        let mut table = self.table.write();
        match group {
            Some(group) => table.insert(group),
            None => table.remove(id),
        }
    }

    /// Makes the copy in memory what is stored, by whichever server.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow(&self, id: &str) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        self.reload(id).await
    }

    /// The same, under the lock of writes.
    pub(super) async fn reload(&self, id: &str) -> Result<(), StorageError> {
        let stored = read::<Group>(&*self.storage, &keys::group(id)).await?;
        self.show(id, stored.record);
        Ok(())
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        *self.table.write() = stored_table(&*self.storage).await?;
        Ok(())
    }
}

async fn stored_table(storage: &dyn Storage) -> Result<Table, StorageError> {
    let mut table = Table::default();
    for (_, group) in read_all::<Group>(storage, &keys::group("")).await? {
        table.insert(group);
    }
    Ok(table)
}
