//! Several entities become one.

use super::changes::too_often;
use super::entities::StoredEntity;
use super::entity::{ALIASES_MAX, GROUPS_MAX};
use super::rewrite::Rewrite;
use super::{Entity, Identities};
use crate::commit::TRIES;
use crate::seams::error::RequestError;

/// Entities that become part of one in one commit.
pub const MERGED_AT_ONCE: usize = 100;

impl Identities {
    /// Makes `from` part of `into`: their aliases and groups are its own from then on, and their tokens stand for it. Policies and
    /// metadata of `from` end, as in Vault. Of two aliases at one mount the one in `kept` stays.
    ///
    /// # Errors
    /// Vault's texts for what cannot be.
    pub async fn merge(&self, from: &[String], into: &str, kept: &[String]) -> Result<(), RequestError> {
        if from.len() > MERGED_AT_ONCE {
            return Err(RequestError::Invalid(format!("at most {MERGED_AT_ONCE} entities in one merge")));
        }
        if from.iter().any(|id| id == into) {
            return Err(RequestError::invalid("to_entity_id should not be present in from_entity_ids"));
        }
        for _ in 0..TRIES {
            let target = self.find(into).await?;
            let target = target.ok_or_else(|| RequestError::invalid("entity id to merge to is invalid"))?;
            let mut after = target.record.clone();
            let mut rewrite = Rewrite::new();
            for (at, id) in from.iter().enumerate() {
                if from.iter().take(at).any(|before| before == id) {
                    continue;
                }
                let source = self.find(id).await?;
                let source = source.ok_or_else(|| RequestError::invalid("entity id to merge from is invalid"))?;
                absorb(&mut after, &source, kept)?;
                rewrite = rewrite.delete(source);
            }
            after.updated_at = self.now();
            if after.aliases.len() > ALIASES_MAX || after.groups.len() > GROUPS_MAX {
                return Err(RequestError::Invalid(format!(
                    "an entity has at most {ALIASES_MAX} aliases and is in at most {GROUPS_MAX} groups"
                )));
            }
            // Groups that are gone would refuse the commit.
            after.groups.retain(|id| self.groups.find(id).is_some());
            if self.store(rewrite.replace(target, after.clone()), &after).await? {
                return Ok(());
            }
        }
        Err(too_often())
    }
}

fn absorb(after: &mut Entity, source: &StoredEntity, kept: &[String]) -> Result<(), RequestError> {
    let source = &source.record;
    for alias in &source.aliases {
        let mut alias = alias.clone();
        alias.merged_from.push(source.id.clone());
        if let Some(clash) = after.alias_at(&alias.mount) {
            match (kept.contains(&clash.id), kept.contains(&alias.id)) {
                (true, false) => continue,
                (false, true) => {
                    let clash = clash.id.clone();
                    after.aliases.retain(|one| one.id != clash);
                }
                _ => {
                    let (mount, to, from, ours, theirs) = (&alias.mount, &after.id, &source.id, &clash.id, &alias.id);
                    return Err(RequestError::Invalid(format!(
                        "toEntity and at least one fromEntity have aliases with the same mount accessor, repeat the merge \
                         request with exactly one of the two in 'conflicting_alias_ids_to_keep', clash: mountAccessor: {mount}, \
                         toEntity ID: {to}, fromEntity ID: {from}, conflicting toEntity alias ID: {ours}, conflicting \
                         fromEntity alias ID: {theirs}"
                    )));
                }
            }
        }
        after.aliases.push(alias);
    }
    after.groups.extend(source.groups.iter().cloned());
    after.merged.push(source.id.clone());
    after.merged.extend(source.merged.iter().cloned());
    Ok(())
}
