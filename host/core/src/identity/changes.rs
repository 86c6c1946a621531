//! What is written of entities and their aliases.
//!
//! Each change reads, decides and commits, and is done again when somebody else was faster.

use leasehold_model::MountAccessor;

use super::entities::StoredEntity;
use super::entity::{ALIASES_MAX, Alias, AliasName, Entity};
use super::rewrite::Rewrite;
use super::{Identities, Metadata, check_metadata, check_name, checked_policies, folded};
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, delete_surely, overtaken_too_often, was_overtaken};
use crate::keys;
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;

/// Which entity is written.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    Id(&'a str),
    /// One of this name is made where there is none.
    Name(&'a str),
    /// A new one, which gets a name.
    New,
}

/// What is written of an entity; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct EntityChange {
    pub name: Option<String>,
    pub metadata: Option<Metadata>,
    pub policies: Option<Vec<String>>,
    pub disabled: Option<bool>,
}

/// What is written of an alias; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct AliasChange {
    pub name: Option<AliasName>,
    pub mount: Option<MountAccessor>,
    /// The entity that is to have it.
    pub entity: Option<String>,
    pub custom_metadata: Option<Metadata>,
}

/// What came of a write.
#[derive(Clone, Debug)]
pub enum Written<T> {
    Changed(T),
    /// It was so before, and stays with its times.
    AsBefore,
}

impl Identities {
    /// The entity, and whether it is new.
    ///
    /// # Errors
    /// Vault's texts for what cannot be.
    pub async fn write_entity(&self, which: Which<'_>, change: &EntityChange) -> Result<(Entity, bool), RequestError> {
        let policies = change.policies.as_deref().map(checked_policies).transpose()?;
        if let Some(metadata) = &change.metadata {
            check_metadata("entity metadata", metadata)?;
        }
        for _ in 0..TRIES {
            let before = match which {
                Which::Id(id) => {
                    let found = self.find(id).await?;
                    Some(found.ok_or_else(|| RequestError::invalid("entity not found from id"))?)
                }
                Which::Name(name) => self.find_by_name(name).await?,
                Which::New => None,
            };
            let name = match (&change.name, which, &before) {
                (Some(name), ..) => name.clone(),
                (None, Which::Name(name), _) => name.to_owned(),
                (None, _, Some(before)) => before.record.name.clone(),
                (None, _, None) => self.new_name("entity"),
            };
            check_name("the name of an entity", &name)?;
            let mut after = match &before {
                Some(before) => before.record.clone(),
                None => Entity::new(self.new_id(), name.clone(), self.now()),
            };
            let is_new_name = before.as_ref().is_none_or(|before| folded(&before.record.name) != folded(&name));
            if is_new_name && self.find_by_name(&name).await?.is_some() {
                // Of two that make the same name at once, one finds what the other made.
                if matches!(which, Which::Name(_)) && change.name.is_none() {
                    continue;
                }
                return Err(RequestError::invalid("entity name is already in use"));
            }
            after.name = name;
            after.updated_at = self.now();
            after.disabled = change.disabled.unwrap_or(after.disabled);
            if let Some(policies) = &policies {
                after.policies.clone_from(policies);
            }
            if change.metadata.is_some() {
                after.metadata.clone_from(&change.metadata);
            }
            let is_new = before.is_none();
            let rewrite = match before {
                Some(before) => Rewrite::new().replace(before, after.clone()),
                None => Rewrite::new().create(after.clone()),
            };
            if self.store(rewrite, &after).await? {
                return Ok((after, is_new));
            }
        }
        Err(too_often())
    }

    /// # Errors
    /// As storage.
    pub async fn delete_entity(&self, id: &str) -> Result<(), RequestError> {
        for _ in 0..TRIES {
            let Some(found) = self.find(id).await? else { return Ok(()) };
            if self.remove(found).await? {
                return Ok(());
            }
        }
        Err(too_often())
    }

    /// # Errors
    /// As storage.
    pub async fn delete_entity_by_name(&self, name: &str) -> Result<(), RequestError> {
        for _ in 0..TRIES {
            let Some(found) = self.find_by_name(name).await? else { return Ok(()) };
            if self.remove(found).await? {
                return Ok(());
            }
        }
        Err(too_often())
    }

    async fn remove(&self, found: StoredEntity) -> Result<bool, RequestError> {
        let key = keys::entity(&found.record.id);
        let batch = Rewrite::new().delete(found).into_batch()?;
        Ok(!was_overtaken(delete_surely(&*self.storage, batch, &key).await)?)
    }

    /// Gives a mount's name to an entity: to the one that `change` names, to the one that has it, or to a new one. The alias and its
    /// entity.
    ///
    /// # Errors
    /// Vault's texts for what cannot be.
    pub async fn write_alias(
        &self,
        mount: &MountAccessor,
        name: &AliasName,
        change: &AliasChange,
    ) -> Result<Written<(Alias, Entity)>, RequestError> {
        check_alias(name, change)?;
        let change = AliasChange { name: Some(name.clone()), mount: Some(mount.clone()), ..change.clone() };
        for _ in 0..TRIES {
            let holder = self.find_by_alias(mount, &name.key).await?;
            let old = holder.as_ref().and_then(|holder| holder.record.alias_at(mount)).cloned();
            let alias = old.unwrap_or_else(|| Alias::new(self.new_id(), name.clone(), mount.clone(), self.now()));
            if let Some(done) = self.place_alias(holder, alias, &change).await? {
                return Ok(done);
            }
        }
        Err(too_often())
    }

    /// Changes the alias with an id.
    ///
    /// # Errors
    /// `invalid alias ID provided`; as [`Identities::write_alias`].
    pub async fn change_alias(&self, id: &str, change: &AliasChange) -> Result<Written<(Alias, Entity)>, RequestError> {
        if let Some(name) = &change.name {
            check_alias(name, change)?;
        }
        if let Some(metadata) = &change.custom_metadata {
            check_metadata("alias custom metadata", metadata)?;
        }
        for _ in 0..TRIES {
            let holder = self.find_by_alias_id(id).await?;
            let holder = holder.ok_or_else(|| RequestError::invalid("invalid alias ID provided"))?;
            let Some(alias) = holder.record.alias(id).cloned() else { continue };
            if let Some(done) = self.place_alias(Some(holder), alias, change).await? {
                return Ok(done);
            }
        }
        Err(too_often())
    }

    /// Puts an alias where it belongs after a change. `None`: somebody else was faster.
    async fn place_alias(
        &self,
        holder: Option<StoredEntity>,
        mut alias: Alias,
        change: &AliasChange,
    ) -> Result<Option<Written<(Alias, Entity)>>, RequestError> {
        if holder.as_ref().is_some_and(|holder| is_as_before(&holder.record, &alias, change)) {
            return Ok(Some(Written::AsBefore));
        }
        let taken = || RequestError::invalid("Alias already exists for requested entity and mount accessor");
        let before = (alias.mount.clone(), alias.key.clone());
        if let Some(name) = &change.name {
            (alias.name, alias.key) = (name.shown.clone(), name.key.clone());
        }
        if let Some(mount) = &change.mount {
            alias.mount = mount.clone();
        }
        if (&alias.mount, &alias.key) != (&before.0, &before.1) {
            // Of whoever has this name nobody has said anything yet.
            alias.groups.clear();
            alias.metadata = None;
        }
        if change.custom_metadata.is_some() {
            alias.custom_metadata.clone_from(&change.custom_metadata);
        }
        alias.updated_at = self.now();
        let other = self.find_by_alias(&alias.mount, &alias.key).await?;
        if other.is_some_and(|other| other.record.alias(&alias.id).is_none()) {
            return Err(RequestError::invalid("alias with combination of mount accessor and name already exists"));
        }
        let target = match (&change.entity, &holder) {
            (Some(id), Some(holder)) if holder.record.id == *id => None,
            (Some(id), _) => {
                let unknown = match &holder {
                    Some(_) => "given 'canonical_id' is not associated with an entity",
                    None => "invalid canonical ID",
                };
                Some(self.find(id).await?.ok_or_else(|| RequestError::invalid(unknown))?)
            }
            (None, _) => None,
        };
        let is_held = |entity: &Entity| entity.aliases.iter().any(|one| one.mount == alias.mount && one.id != alias.id);
        let with = |entity: &Entity| {
            let mut after = entity.clone();
            after.aliases.retain(|one| one.id != alias.id);
            after.aliases.push(alias.clone());
            after
        };
        let (rewrite, after) = match (target, holder) {
            // It moves, or is new at one that is there.
            (Some(target), holder) => {
                if is_held(&target.record) {
                    return Err(taken());
                }
                if target.record.aliases.len() >= ALIASES_MAX {
                    return Err(RequestError::Invalid(format!("an entity has at most {ALIASES_MAX} aliases")));
                }
                let after = with(&target.record);
                let mut rewrite = Rewrite::new().replace(target, after.clone());
                if let Some(holder) = holder {
                    let mut without = holder.record.clone();
                    without.aliases.retain(|one| one.id != alias.id);
                    rewrite = rewrite.replace(holder, without);
                }
                (rewrite, after)
            }
            (None, Some(holder)) => {
                if is_held(&holder.record) {
                    return Err(taken());
                }
                let after = with(&holder.record);
                (Rewrite::new().replace(holder, after.clone()), after)
            }
            (None, None) => {
                let after = with(&Entity::new(self.new_id(), self.new_name("entity"), self.now()));
                (Rewrite::new().create(after.clone()), after)
            }
        };
        Ok(self.store(rewrite, &after).await?.then_some(Written::Changed((alias, after))))
    }

    /// # Errors
    /// As storage.
    pub async fn delete_alias(&self, id: &str) -> Result<(), RequestError> {
        for _ in 0..TRIES {
            let Some(holder) = self.find_by_alias_id(id).await? else { return Ok(()) };
            let mut after = holder.record.clone();
            after.aliases.retain(|alias| alias.id != id);
            if self.store(Rewrite::new().replace(holder, after.clone()), &after).await? {
                return Ok(());
            }
        }
        Err(too_often())
    }

    /// Commits; `false`: somebody else was faster. `main` is what shows that it has happened.
    pub(super) async fn store(&self, rewrite: Rewrite<Entity>, main: &Entity) -> Result<bool, StorageError> {
        let batch = rewrite.into_batch()?;
        let (key, value) = (keys::entity(&main.id), encode(main)?);
        Ok(!was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)?)
    }
}

/// Whether this alias of `holder` says all that `change` does.
fn is_as_before(holder: &Entity, alias: &Alias, change: &AliasChange) -> bool {
    let is_held = holder.alias(&alias.id).is_some();
    let name = change.name.as_ref().is_none_or(|name| (&name.shown, &name.key) == (&alias.name, &alias.key));
    let mount = change.mount.as_ref().is_none_or(|mount| *mount == alias.mount);
    let entity = change.entity.as_ref().is_none_or(|entity| *entity == holder.id);
    // None are the same as an empty map.
    let of_before = alias.custom_metadata.clone().unwrap_or_default();
    let metadata = change.custom_metadata.as_ref().is_none_or(|metadata| *metadata == of_before);
    is_held && name && mount && entity && metadata
}

fn check_alias(name: &AliasName, change: &AliasChange) -> Result<(), RequestError> {
    check_name("the name of an alias", &name.shown)?;
    match &change.custom_metadata {
        Some(metadata) => check_metadata("alias custom metadata", metadata),
        None => Ok(()),
    }
}

pub(super) fn too_often() -> RequestError {
    overtaken_too_often(&keys::entity("")).into()
}
