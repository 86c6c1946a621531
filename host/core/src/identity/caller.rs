//! What a request sees of whom its token stands for.
//!
//! Start with [`Identities::of`].
//!
//! Invariant: a value for a template comes from the caller's own entity, or from a group that it is in.

use std::collections::HashSet;
use std::sync::Arc;

use super::entity::Entity;
use super::groups::Memberships;
use super::{Group, Identities, Metadata};
use crate::seams::error::RequestError;

/// Whom a token stands for, at the moment of a request.
#[derive(Debug)]
pub struct CallerIdentity {
    pub entity: Entity,
    pub groups: Memberships,
    /// What entity and groups give; in their order, without doubles.
    pub identity_policies: Vec<String>,
    /// These and the token's own, sorted.
    pub policies: Vec<String>,
}

impl Identities {
    /// Whom a token with these policies stands for, by what it says of its entity; none: nobody.
    ///
    /// # Errors
    /// [`RequestError::BadToken`] when the entity is disabled or gone; as storage.
    pub async fn of(
        &self,
        entity: Option<&str>,
        token_policies: &[String],
    ) -> Result<Option<Arc<CallerIdentity>>, RequestError> {
        let Some(id) = entity else { return Ok(None) };
        let found = self.find_now(id).await?.filter(|found| !found.record.disabled);
        let entity = found.ok_or(RequestError::BadToken)?.record;
        Ok(Some(Arc::new(self.seen(entity, token_policies))))
    }

    /// The same for whoever looks at a token: it says what the token would be worth, and of one that is worth nothing less.
    ///
    /// # Errors
    /// As storage.
    pub async fn shown_of(
        &self,
        entity: Option<&str>,
        token_policies: &[String],
    ) -> Result<Option<CallerIdentity>, RequestError> {
        let Some(id) = entity else { return Ok(None) };
        let found = self.find_now(id).await?;
        Ok(found.map(|found| self.seen(found.record, token_policies)))
    }

    /// The groups that an entity is in now.
    #[must_use]
    pub fn memberships(&self, entity: &Entity) -> Memberships {
        self.groups.of(entity, |mount| self.mounts.by_accessor(mount).is_some())
    }

    /// What an entity is, to a token with these policies.
    #[must_use]
    pub fn seen(&self, entity: Entity, token_policies: &[String]) -> CallerIdentity {
        let groups = self.memberships(&entity);
        let mut known = HashSet::new();
        let given = entity.policies.iter().chain(groups.all().flat_map(|group| &group.policies));
        let identity_policies: Vec<String> = given.filter(|policy| known.insert(*policy)).cloned().collect();
        let mut policies = [token_policies, &identity_policies].concat();
        policies.sort();
        policies.dedup();
        CallerIdentity { entity, groups, identity_policies, policies }
    }
}

impl CallerIdentity {
    /// The value of a template's name, `identity.entity.id`; none: it has none here.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let name = name.strip_prefix("identity.")?;
        if let Some(rest) = name.strip_prefix("entity.aliases.") {
            let (accessor, field) = rest.split_once('.')?;
            let alias = self.entity.aliases.iter().find(|alias| alias.mount.as_str() == accessor)?;
            return match field {
                "id" => Some(&alias.id),
                "name" => Some(&alias.name),
                _ => pair(field, "metadata.", alias.metadata.as_ref())
                    .or_else(|| pair(field, "custom_metadata.", alias.custom_metadata.as_ref())),
            };
        }
        if let Some(field) = name.strip_prefix("entity.") {
            return match field {
                "id" => Some(&self.entity.id),
                "name" => Some(&self.entity.name),
                _ => pair(field, "metadata.", self.entity.metadata.as_ref()),
            };
        }
        if let Some(rest) = name.strip_prefix("groups.ids.") {
            let (id, field) = rest.split_once('.')?;
            let group = self.groups.all().find(|group| group.id == id)?;
            return of_group(group, field, "name", &group.name);
        }
        // A name may hold dots.
        let rest = name.strip_prefix("groups.names.")?;
        self.groups.all().find_map(|group| {
            let field = rest.strip_prefix(group.name.as_str())?.strip_prefix('.')?;
            of_group(group, field, "id", &group.id)
        })
    }
}

fn of_group<'a>(group: &'a Group, field: &str, plain: &str, value: &'a str) -> Option<&'a str> {
    if field == plain { Some(value) } else { pair(field, "metadata.", group.metadata.as_ref()) }
}

fn pair<'a>(field: &str, prefix: &str, metadata: Option<&'a Metadata>) -> Option<&'a str> {
    metadata?.get(field.strip_prefix(prefix)?).map(String::as_str)
}
