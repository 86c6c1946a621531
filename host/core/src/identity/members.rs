//! What is written of groups, their aliases and who is in them.
//!
//! Invariant: that an entity is in a group stands in the entity's record, and who joins or leaves does so in the commit that says so.

use std::collections::BTreeSet;

use leasehold_model::MountAccessor;

use super::changes::{Which, Written};
use super::entities::may_be_id;
use super::entity::{AliasName, GROUPS_MAX};
use super::group::{Group, GroupAlias, GroupKind, SUBGROUPS_MAX};
use super::rewrite::{AsStored, Indexed, Rewrite, as_stored};
use super::{Entity, Identities, Metadata, check_metadata, check_name, checked_policies, folded};
use crate::codec::encode;
use crate::commit::{
    TRIES, commit_surely, delete_surely, names_below, overtaken_too_often, table_unchanged, was_overtaken,
};
use crate::keys;
use crate::seams::error::RequestError;
use crate::seams::storage::{Batch, Change, Key, Listed, StorageError};

/// Entities that join or leave a group in one commit.
pub const MOVED_AT_ONCE: usize = 2_000;
/// Entities of one group that are listed.
pub const MEMBERS_MAX: usize = 100_000;
/// Members that are taken out in one commit of a group that is gone.
const PAGE: usize = 200;

/// What is written of a group; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct GroupChange {
    pub name: Option<String>,
    pub kind: Option<GroupKind>,
    pub metadata: Option<Metadata>,
    pub policies: Option<Vec<String>>,
    /// Ids.
    pub subgroups: Option<Vec<String>>,
    /// Ids.
    pub members: Option<Vec<String>>,
}

/// What is written of a group's alias.
#[derive(Clone, Debug)]
pub struct GroupAliasChange {
    pub name: AliasName,
    pub mount: MountAccessor,
    /// The group that is to have it.
    pub group: Option<String>,
}

impl Indexed for Group {
    fn key(&self) -> Key {
        keys::group(&self.id)
    }

    fn rows(&self) -> Vec<(Key, Vec<u8>)> {
        let id = || self.id.as_bytes().to_vec();
        let mut rows = vec![(keys::group_name(&folded(&self.name)), id())];
        if let Some(alias) = &self.alias {
            rows.push((keys::group_alias(&alias.mount, &alias.key), id()));
            rows.push((keys::group_alias_id(&alias.id), id()));
        }
        rows
    }

    fn relies_on(&self) -> Vec<Key> {
        self.subgroups.iter().map(|group| keys::group(group)).collect()
    }
}

impl Identities {
    async fn stored_group(&self, id: &str) -> Result<Option<AsStored<Group>>, StorageError> {
        if !may_be_id(id) {
            return Ok(None);
        }
        as_stored(&*self.storage, &keys::group(id)).await
    }

    async fn stored_group_by_alias_id(&self, id: &str) -> Result<Option<AsStored<Group>>, StorageError> {
        if !may_be_id(id) {
            return Ok(None);
        }
        self.stored_group_at(&keys::group_alias_id(id)).await
    }

    async fn stored_group_at(&self, row: &Key) -> Result<Option<AsStored<Group>>, StorageError> {
        let Some(stored) = self.storage.get(row).await? else { return Ok(None) };
        self.stored_group(&String::from_utf8_lossy(&stored.value)).await
    }

    /// Ids of a group's direct members; so many at most.
    ///
    /// # Errors
    /// As storage.
    pub async fn members(&self, group: &Group, most: usize) -> Result<Vec<String>, StorageError> {
        let prefix = match (group.kind, &group.alias) {
            (GroupKind::Internal, _) => keys::group_member(&group.id, ""),
            (GroupKind::External, Some(alias)) => keys::group_vouched(&alias.mount, &alias.key, ""),
            // Nobody says who is in it.
            (GroupKind::External, None) => return Ok(Vec::new()),
        };
        names_below(&*self.storage, Listed::Values, prefix.as_str(), "", most).await
    }

    /// The same of those who were written in it.
    async fn written(&self, group: &str, most: usize) -> Result<Vec<String>, StorageError> {
        names_below(&*self.storage, Listed::Values, keys::group_member(group, "").as_str(), "", most).await
    }

    /// The group, and whether it is new.
    ///
    /// # Errors
    /// Vault's texts for what cannot be.
    pub async fn write_group(&self, which: Which<'_>, change: &GroupChange) -> Result<(Group, bool), RequestError> {
        let policies = change.policies.as_deref().map(checked_policies).transpose()?;
        if let Some(metadata) = &change.metadata {
            check_metadata("group metadata", metadata)?;
        }
        let _deciding = self.groups.deciding.lock().await;
        for _ in 0..TRIES {
            let table = table_unchanged(&*self.storage, &keys::group_table()).await?;
            let before = match which {
                Which::Id(id) => {
                    Some(self.stored_group(id).await?.ok_or_else(|| RequestError::invalid("invalid group ID"))?)
                }
                Which::Name(name) => self.stored_group_at(&keys::group_name(&folded(name))).await?,
                Which::New => None,
            };
            let name = match (&change.name, which, &before) {
                (Some(name), ..) => name.clone(),
                (None, Which::Name(name), _) => name.to_owned(),
                (None, _, Some(before)) => before.record.name.clone(),
                (None, _, None) => self.new_name("group"),
            };
            check_name("the name of a group", &name)?;
            let mut after = match &before {
                Some(before) => before.record.clone(),
                None => Group::new(self.new_id(), name.clone(), change.kind.unwrap_or_default(), self.now()),
            };
            if change.kind.is_some_and(|kind| kind != after.kind) {
                return Err(RequestError::invalid("group type cannot be changed"));
            }
            if change.members.is_some() && after.kind == GroupKind::External {
                return Err(RequestError::invalid("member entities can't be set manually for external groups"));
            }
            let holder = self.stored_group_at(&keys::group_name(&folded(&name))).await?;
            if holder.is_some_and(|holder| holder.record.id != after.id) {
                return Err(RequestError::invalid("group name is already in use"));
            }
            after.name = name;
            if let Some(policies) = &policies {
                after.policies.clone_from(policies);
            }
            if change.metadata.is_some() {
                after.metadata.clone_from(&change.metadata);
            }
            if let Some(subgroups) = &change.subgroups {
                after.subgroups = self.checked_subgroups(&after.id, subgroups).await?;
            }
            self.changed(&mut after);
            let is_new = before.is_none();
            let rewrite = match before {
                Some(before) => Rewrite::new().replace(before, after.clone()),
                None => Rewrite::new().create(after.clone()),
            };
            let mut batch = rewrite.into_batch()?.put(keys::group_table(), Vec::new(), table);
            if let Some(members) = &change.members {
                batch.0.extend(self.moved(&after.id, members).await?.0);
            }
            if self.store_groups(batch, &[&after]).await? {
                return Ok((after, is_new));
            }
        }
        Err(too_often())
    }

    fn changed(&self, group: &mut Group) {
        group.updated_at = self.now();
        group.modify_index = group.modify_index.saturating_add(1);
    }

    /// Groups that are there and close no circle. The store is asked, not memory: another server may have written a moment ago.
    async fn checked_subgroups(&self, id: &str, wanted: &[String]) -> Result<BTreeSet<String>, RequestError> {
        if wanted.len() > SUBGROUPS_MAX {
            return Err(RequestError::Invalid(format!("at most {SUBGROUPS_MAX} groups lie in one group")));
        }
        let mut seen = BTreeSet::new();
        for first in wanted {
            if first == id {
                let text = format!("member group ID {first:?} is same as the ID of the group");
                return Err(RequestError::InvalidMulti(text));
            }
            // What was looked through for another one of them leads nowhere.
            if !seen.insert(first.clone()) {
                continue;
            }
            let (mut below, mut is_first) = (vec![first.clone()], true);
            while let Some(next) = below.pop() {
                if next == id {
                    let text = format!("cyclic relationship detected for member group ID {first:?}");
                    return Err(RequestError::Invalid(text));
                }
                let found = self.stored_group(&next).await?;
                if is_first && found.is_none() {
                    return Err(RequestError::InvalidMulti(format!("invalid member group ID {first:?}")));
                }
                is_first = false;
                let subgroups = found.map(|found| found.record.subgroups).unwrap_or_default();
                below.extend(subgroups.into_iter().filter(|subgroup| seen.insert(subgroup.clone())));
            }
        }
        Ok(wanted.iter().cloned().collect())
    }

    /// What makes exactly these the direct members of a group that the same commit writes.
    async fn moved(&self, group: &str, wanted: &[String]) -> Result<Batch, RequestError> {
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        let present = self.written(group, MEMBERS_MAX).await?;
        let present: BTreeSet<&String> = present.iter().collect();
        let moving: Vec<&String> = wanted.symmetric_difference(&present).copied().collect();
        if moving.len() > MOVED_AT_ONCE {
            return Err(RequestError::Invalid(format!(
                "at most {MOVED_AT_ONCE} entities join or leave a group in one write"
            )));
        }
        let mut rewrite = Rewrite::<Entity>::new();
        let mut gone = Batch::new();
        for id in moving {
            let Some(found) = self.find(id).await? else {
                if wanted.contains(id) {
                    return Err(RequestError::InvalidMulti(format!("invalid entity ID {id:?}")));
                }
                gone = gone.delete(keys::group_member(group, id));
                continue;
            };
            let mut after = found.record.clone();
            if wanted.contains(id) {
                after.groups.insert(group.to_owned());
            } else {
                after.groups.remove(group);
            }
            if after.groups.len() > GROUPS_MAX {
                return Err(RequestError::Invalid(format!("entity {id:?} would be in more than {GROUPS_MAX} groups")));
            }
            rewrite = rewrite.replace(found, after);
        }
        let mut batch = rewrite.into_batch()?;
        // The commit that this is a part of says itself what it expects of the group.
        let own = keys::group(group);
        batch.0.retain(|change| !matches!(change, Change::Check { key, .. } if *key == own));
        batch.0.extend(gone.0);
        Ok(batch)
    }

    /// Commits what changes these groups; `false`: somebody else was faster. Under the lock of writes.
    async fn store_groups(&self, batch: Batch, after: &[&Group]) -> Result<bool, RequestError> {
        let Some(main) = after.first() else { return Ok(true) };
        let (key, value) = (keys::group(&main.id), encode(main)?);
        let _writing = self.groups.writing.lock().await;
        match was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await) {
            Ok(true) => Ok(false),
            Ok(false) => {
                for group in after {
                    self.groups.show(&group.id, Some((*group).clone()));
                }
                Ok(true)
            }
            Err(error) => {
                for group in after {
                    self.reload_group(&group.id).await;
                }
                Err(error.into())
            }
        }
    }

    /// Makes the copy in memory what is stored, as far as the store tells. Under the lock of writes.
    async fn reload_group(&self, id: &str) {
        if let Err(error) = self.groups.reload(id).await {
            tracing::warn!(%error, "group {id} could not be read again after a failed write");
        }
    }

    /// # Errors
    /// As storage.
    pub async fn delete_group(&self, id: &str) -> Result<(), RequestError> {
        self.remove_group(&keys::group(id), may_be_id(id).then_some(id)).await
    }

    /// # Errors
    /// As storage.
    pub async fn delete_group_by_name(&self, name: &str) -> Result<(), RequestError> {
        self.remove_group(&keys::group_name(&folded(name)), None).await
    }

    async fn remove_group(&self, row: &Key, id: Option<&str>) -> Result<(), RequestError> {
        let deciding = self.groups.deciding.lock().await;
        for _ in 0..TRIES {
            let table = table_unchanged(&*self.storage, &keys::group_table()).await?;
            let found = match id {
                Some(id) => self.stored_group(id).await?,
                None => self.stored_group_at(row).await?,
            };
            let Some(found) = found else { return Ok(()) };
            let id = found.record.id.clone();
            let batch = Rewrite::new().delete(found).into_batch()?.put(keys::group_table(), Vec::new(), table);
            let writing = self.groups.writing.lock().await;
            match was_overtaken(delete_surely(&*self.storage, batch, &keys::group(&id)).await) {
                Ok(true) => continue,
                Ok(false) => self.groups.show(&id, None),
                Err(error) => {
                    self.reload_group(&id).await;
                    return Err(error.into());
                }
            }
            // No id is used again: others may write meanwhile.
            drop((writing, deciding));
            if let Err(error) = self.forget_members(&id).await {
                // They name a group that is no more, which counts for nothing.
                tracing::warn!(%error, "members of the deleted group {id} still name it");
            }
            return Ok(());
        }
        Err(too_often())
    }

    async fn forget_members(&self, group: &str) -> Result<(), RequestError> {
        for _ in 0..(MEMBERS_MAX / PAGE) {
            let page = self.written(group, PAGE).await?;
            if page.is_empty() {
                break;
            }
            let (mut rewrite, mut gone) = (Rewrite::<Entity>::new(), Batch::new());
            for id in page {
                match self.find(&id).await? {
                    Some(found) if found.record.groups.contains(group) => {
                        let mut after = found.record.clone();
                        after.groups.remove(group);
                        rewrite = rewrite.replace(found, after);
                    }
                    _ => gone = gone.delete(keys::group_member(group, &id)),
                }
            }
            let mut batch = rewrite.into_batch()?;
            batch.0.extend(gone.0);
            was_overtaken(self.storage.commit(batch).await)?;
        }
        Ok(())
    }

    /// Gives a mount's name to an external group: to the one that `change` names, to the one that has it, or to a new one. Both.
    ///
    /// # Errors
    /// Vault's texts for what cannot be.
    pub async fn write_group_alias(
        &self,
        id: Option<&str>,
        change: &GroupAliasChange,
    ) -> Result<Written<(GroupAlias, Group)>, RequestError> {
        check_name("the name of an alias", &change.name.shown)?;
        let _deciding = self.groups.deciding.lock().await;
        for _ in 0..TRIES {
            let table = table_unchanged(&*self.storage, &keys::group_table()).await?;
            let by_id = match id {
                None => None,
                Some(id) => {
                    let found = self.stored_group_by_alias_id(id).await?;
                    Some(found.ok_or_else(|| RequestError::invalid("invalid group alias ID"))?)
                }
            };
            let (name, mount) = (change.name.clone(), change.mount.clone());
            let named = self.stored_group_at(&keys::group_alias(&mount, &name.key)).await?;
            if let (Some(by_id), Some(named)) = (&by_id, &named)
                && by_id.record.id != named.record.id
            {
                return Err(RequestError::invalid("alias with combination of mount accessor and name already exists"));
            }
            let holder = by_id.or(named);
            // It is committed all the same: other servers may not know yet what a request before this one has stored.
            let is_as_before = holder.as_ref().is_some_and(|holder| is_as_before(&holder.record, change));
            let now = self.now();
            let mut alias = match holder.as_ref().and_then(|holder| holder.record.alias.clone()) {
                Some(alias) => alias,
                None => GroupAlias {
                    id: self.new_id(),
                    name: String::new(),
                    key: String::new(),
                    mount: mount.clone(),
                    created_at: now,
                    updated_at: now,
                },
            };
            if !is_as_before {
                (alias.name, alias.key, alias.mount, alias.updated_at) = (name.shown, name.key, mount, now);
            }
            let target = match &change.group {
                Some(group) if holder.as_ref().is_some_and(|holder| holder.record.id == *group) => None,
                Some(group) => {
                    let unknown = || RequestError::invalid("invalid group ID given in 'canonical_id'");
                    Some(self.stored_group(group).await?.ok_or_else(unknown)?)
                }
                None => None,
            };
            let mut rewrite = Rewrite::new();
            let mut after = match target.as_ref().or(holder.as_ref()) {
                Some(group) => group.record.clone(),
                None => Group::new(self.new_id(), self.new_name("group"), GroupKind::External, now),
            };
            if after.kind == GroupKind::Internal {
                return Err(RequestError::invalid("alias can't be set on an internal group"));
            }
            after.alias = Some(alias.clone());
            if !is_as_before {
                self.changed(&mut after);
            }
            let mut changed = vec![after.clone()];
            match (target, holder) {
                (Some(target), holder) => {
                    rewrite = rewrite.replace(target, after.clone());
                    if let Some(holder) = holder {
                        let mut without = Group { alias: None, ..holder.record.clone() };
                        self.changed(&mut without);
                        changed.push(without.clone());
                        rewrite = rewrite.replace(holder, without);
                    }
                }
                (None, Some(holder)) => rewrite = rewrite.replace(holder, after.clone()),
                (None, None) => rewrite = rewrite.create(after.clone()),
            }
            let batch = rewrite.into_batch()?.put(keys::group_table(), Vec::new(), table);
            if self.store_groups(batch, &changed.iter().collect::<Vec<_>>()).await? {
                return Ok(if is_as_before { Written::AsBefore } else { Written::Changed((alias, after)) });
            }
        }
        Err(too_often())
    }

    /// # Errors
    /// As storage.
    pub async fn delete_group_alias(&self, id: &str) -> Result<(), RequestError> {
        let _deciding = self.groups.deciding.lock().await;
        for _ in 0..TRIES {
            let table = table_unchanged(&*self.storage, &keys::group_table()).await?;
            let Some(found) = self.stored_group_by_alias_id(id).await? else { return Ok(()) };
            let mut after = Group { alias: None, ..found.record.clone() };
            self.changed(&mut after);
            let batch = Rewrite::new().replace(found, after.clone()).into_batch()?;
            let batch = batch.put(keys::group_table(), Vec::new(), table);
            if self.store_groups(batch, &[&after]).await? {
                return Ok(());
            }
        }
        Err(too_often())
    }
}

/// Whether the alias of `group` says all that `change` does.
fn is_as_before(group: &Group, change: &GroupAliasChange) -> bool {
    let name = (&change.mount, &change.name.shown, &change.name.key);
    group.alias.as_ref().is_some_and(|alias| (&alias.mount, &alias.name, &alias.key) == name)
        && change.group.as_ref().is_none_or(|id| *id == group.id)
}

fn too_often() -> RequestError {
    overtaken_too_often(&keys::group("")).into()
}
