//! Logins: by what name a mount knows somebody, and of which groups it says so.
//!
//! Start with [`Identities::log_in`].
//!
//! Invariant: who logs in is one entity, on whichever server and however often at once.

use std::collections::BTreeSet;

use leasehold_model::MountAccessor;

use super::changes::too_often;
use super::entity::{Alias, AliasName, Entity, GROUPS_MAX};
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
        for attempt in 0..TRIES {
            let Some(found) = self.find_by_alias(mount, &who.name.key).await? else {
                let mut alias = Alias::new(self.new_id(), who.name.clone(), mount.clone(), self.now());
                alias.metadata.clone_from(&who.metadata);
                alias.groups = self.named(mount, who).unwrap_or_default();
                let mut entity = Entity::new(self.new_id(), self.new_name("entity"), self.now());
                entity.aliases.push(alias);
                if self.store(Rewrite::new().create(entity.clone()), &entity).await? {
                    return Ok(entity);
                }
                continue;
            };
            if found.record.disabled {
                return Err(RequestError::BadToken);
            }
            let mut after = found.record.clone();
            let Some(alias) = after.aliases.iter_mut().find(|alias| alias.mount == *mount) else { continue };
            let groups = self.named(mount, who).unwrap_or_else(|| alias.groups.clone());
            let is_same = groups == alias.groups;
            // Many who log in at once, each with metadata of its own, need not all be the last.
            if is_same && (alias.metadata == who.metadata || attempt > 0) {
                return Ok(after);
            }
            alias.groups = groups;
            alias.metadata.clone_from(&who.metadata);
            alias.updated_at = self.now();
            if self.store(Rewrite::new().replace(found, after.clone()), &after).await? {
                return Ok(after);
            }
        }
        Err(too_often())
    }

    /// Keys of the names for which the mount has a group.
    fn named(&self, mount: &MountAccessor, who: &LoginIdentity) -> Option<BTreeSet<String>> {
        let known = who.groups.as_ref()?.iter().filter(|name| self.groups.by_alias(mount, &name.key).is_some());
        Some(known.map(|name| name.key.clone()).take(GROUPS_MAX).collect())
    }
}
