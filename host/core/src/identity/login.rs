//! Logins: by what name a mount knows somebody, and of which groups it says so.
//!
//! Start with [`Identities::log_in`].
//!
//! Invariant: who logs in is one entity, on whichever server and however often at once.

use std::collections::BTreeSet;

use leasehold_model::MountAccessor;

use super::changes::too_often;
use super::entity::{Alias, AliasName, Entity, GROUPS_MAX};
use super::group::GroupKind;
use super::rewrite::Rewrite;
use super::{Identities, Metadata, check_name};
use crate::commit::TRIES;
use crate::seams::error::RequestError;

/// What a login says of whom it is of.
#[derive(Clone, Debug)]
pub struct LoginIdentity {
    pub name: AliasName,
    /// None: the method says nothing of its aliases.
    pub metadata: Option<Metadata>,
    /// Names that the mount has for groups; none: the method knows no groups.
    pub groups: Option<Vec<AliasName>>,
}

impl Identities {
    /// The entity of whoever logs in; the first time it is made.
    ///
    /// # Errors
    /// [`RequestError::BadToken`] when it is disabled; as storage.
    pub async fn log_in(&self, mount: &MountAccessor, who: &LoginIdentity) -> Result<Entity, RequestError> {
        check_name("the name that the auth method gives", &who.name.shown)?;
        for _ in 0..TRIES {
            let Some(found) = self.find_by_alias(mount, &who.name.key).await? else {
                let alias = Alias::new(self.new_id(), who.name.clone(), mount.clone(), self.now());
                let mut entity = Entity::new(self.new_id(), self.new_name("entity"), self.now());
                entity.aliases.push(Alias { metadata: who.metadata.clone(), ..alias });
                entity.groups = self.vouched(mount, who, &entity);
                if self.store(Rewrite::new().create(entity.clone()), &entity).await? {
                    return Ok(entity);
                }
                continue;
            };
            if found.record.disabled {
                return Err(RequestError::BadToken);
            }
            let mut after = found.record.clone();
            after.groups = self.vouched(mount, who, &found.record);
            if let Some(alias) = after.aliases.iter_mut().find(|alias| alias.mount == *mount)
                && alias.metadata != who.metadata
            {
                alias.metadata.clone_from(&who.metadata);
                alias.updated_at = self.now();
            }
            if after == found.record {
                return Ok(after);
            }
            if self.store(Rewrite::new().replace(found, after.clone()), &after).await? {
                return Ok(after);
            }
        }
        Err(too_often())
    }

    /// The groups that an entity is a direct member of once this mount has said of which.
    fn vouched(&self, mount: &MountAccessor, who: &LoginIdentity, entity: &Entity) -> BTreeSet<String> {
        let Some(names) = &who.groups else { return entity.groups.clone() };
        let is_of_mount = |id: &String| {
            self.groups.find(id).is_some_and(|group| {
                group.kind == GroupKind::External && group.alias.as_ref().is_some_and(|alias| alias.mount == *mount)
            })
        };
        // Those that are gone go here as well: a commit that names them anew would find no group.
        let mut groups: BTreeSet<String> =
            entity.groups.iter().filter(|id| self.groups.find(id).is_some() && !is_of_mount(id)).cloned().collect();
        let named = names.iter().filter_map(|name| self.groups.by_alias(mount, &name.key));
        groups.extend(named.map(|group| group.id.clone()));
        while groups.len() > GROUPS_MAX {
            groups.pop_last();
        }
        groups
    }
}
