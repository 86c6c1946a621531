//! `identity/entity-alias`, and the names that it had in the first versions of Vault.

use serde_json::json;

use super::{DESCRIBED_MAX, ID, MOUNT_ACCESSOR, NAME, alias_name, given, listed, mount_of, mount_shown, or_null};
use crate::api::call::{Call, SystemHandler, handler};
use crate::api::pages::{NAMES_MAX, PAGE, Wanted};
use crate::commit::names_below;
use crate::fields::{Field, Kind};
use crate::identity::changes::{AliasChange, Written};
use crate::identity::{Alias, Entity};
use crate::keys;
use crate::request::{LogicalResponse, Object};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::Listed;

const CANONICAL_ID: Field = Field::visible("canonical_id", Kind::Text, "The entity that has the alias.");
const ENTITY_ID: Field = Field::visible("entity_id", Kind::Text, "Old name of canonical_id.");
const CUSTOM_METADATA: Field =
    Field::visible("custom_metadata", Kind::KvPairs, "Texts by name, which policies may be written about.");
const FIELDS: &[Field] = &[NAME, ID, MOUNT_ACCESSOR, CANONICAL_ID, ENTITY_ID, CUSTOM_METADATA];
const FIELDS_BY_ID: &[Field] = &[NAME, MOUNT_ACCESSOR, CANONICAL_ID, ENTITY_ID, CUSTOM_METADATA];

const MADE: Answer = Answer::Data(&[Field::visible("id", Kind::Text, "Of the alias."), CANONICAL_ID]);
const SHOWN: Answer = Answer::Data(&[
    Field::visible("id", Kind::Text, "Of the alias."),
    CANONICAL_ID,
    NAME,
    MOUNT_ACCESSOR,
    Field::visible("mount_path", Kind::Text, "Where that is mounted."),
    Field::visible("mount_type", Kind::Text, "The auth method."),
    Field::visible("metadata", Kind::KvPairs, "What the method said at the last login."),
    CUSTOM_METADATA,
    Field::visible("creation_time", Kind::Time, "When it was made."),
    Field::visible("last_update_time", Kind::Time, "When it was changed last."),
]);

const SUMMARY: &str = "By what name an auth mount knows an entity.";
const WRITE: &[Op<SystemHandler>] =
    &[Op::update("Makes or changes an alias.", handler!(write)).takes(FIELDS).answers(MADE)];
const LIST: &[Op<SystemHandler>] = &[Op::list("Lists the aliases by id.", handler!(list)).takes(PAGE)];
const BY_ID: &[Op<SystemHandler>] = &[
    Op::read("Shows an alias.", handler!(read)).answers(SHOWN),
    Op::update("Changes an alias, or gives it to another entity.", handler!(write_by_id))
        .takes(FIELDS_BY_ID)
        .answers(MADE),
    Op::delete("Deletes an alias; its entity stays.", handler!(delete)),
];

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new("entity-alias", Access::Token, SUMMARY, WRITE),
    Route::new("entity-alias/id/", Access::Token, "The ids of all aliases.", LIST),
    Route::new("entity-alias/id/:id", Access::Token, SUMMARY, BY_ID),
    Route::new("alias", Access::Token, SUMMARY, WRITE).unlisted(),
    Route::new("alias/id/", Access::Token, "The ids of all aliases.", LIST).unlisted(),
    Route::new("alias/id/:id", Access::Token, SUMMARY, BY_ID).unlisted(),
    Route::new("persona", Access::Token, SUMMARY, WRITE).unlisted(),
    Route::new("persona/id/", Access::Token, "The ids of all aliases.", LIST).unlisted(),
    Route::new("persona/id/:id", Access::Token, SUMMARY, BY_ID).unlisted(),
];

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    if let Some(id) = given(call, "id") {
        return changed(call, id).await;
    }
    let (Some(name), Some(accessor)) = (given(call, "name"), given(call, "mount_accessor")) else {
        return Err(RequestError::invalid("'id' or 'mount_accessor' and 'name' must be provided"));
    };
    let mount = mount_of(call, accessor)?;
    let name = alias_name(call, &mount, name);
    let written = call.unsealed.identities.write_alias(&mount.accessor, &name, &change(call)).await?;
    Ok(answer(written))
}

async fn write_by_id(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    changed(call, call.capture("id")).await
}

fn change(call: &Call<'_>) -> AliasChange {
    AliasChange {
        name: None,
        mount: None,
        entity: given(call, "canonical_id").or_else(|| given(call, "entity_id")).map(str::to_owned),
        custom_metadata: call.fields.pairs("custom_metadata").cloned(),
    }
}

async fn changed(call: &Call<'_>, id: &str) -> Result<LogicalResponse, RequestError> {
    let identities = &call.unsealed.identities;
    let unknown = || RequestError::invalid("invalid alias ID provided");
    let held = identities.find_by_alias_id(id).await?.ok_or_else(unknown)?.record;
    let before = held.alias(id).ok_or_else(unknown)?;
    let accessor = given(call, "mount_accessor").unwrap_or(before.mount.as_str());
    let mut change = change(call);
    if given(call, "mount_accessor").is_some() || given(call, "name").is_some() {
        let mount = mount_of(call, accessor)?;
        change.name = Some(alias_name(call, &mount, given(call, "name").unwrap_or(&before.name)));
        change.mount = Some(mount.accessor.clone());
    }
    Ok(answer(identities.change_alias(id, &change).await?))
}

/// Clients take the empty answer to mean that nothing was changed.
fn answer(written: Written<(Alias, Entity)>) -> LogicalResponse {
    match written {
        Written::Changed((alias, entity)) => {
            LogicalResponse::json(json!({ "id": alias.id, "canonical_id": entity.id }))
        }
        Written::AsBefore => LogicalResponse::empty(),
    }
}

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let id = call.capture("id");
    let found = call.unsealed.identities.find_by_alias_id(id).await?.ok_or(RequestError::NotFound)?;
    let alias = found.record.alias(id).ok_or(RequestError::NotFound)?;
    let mut data = alias_shown(call, &found.record, alias);
    data.insert("namespace_id".to_owned(), "root".into());
    Ok(LogicalResponse::data(data))
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.identities.delete_alias(call.capture("id")).await?;
    Ok(LogicalResponse::empty())
}

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let identities = &call.unsealed.identities;
    let wanted = Wanted::of(call, NAMES_MAX);
    let prefix = keys::entity_alias_id("");
    let ids = names_below(&*identities.storage, Listed::Values, prefix.as_str(), wanted.after, wanted.most).await?;
    let mut info = Object::new();
    for id in ids.iter().take(DESCRIBED_MAX) {
        let Some(found) = identities.find_by_alias_id(id).await? else { continue };
        let Some(alias) = found.record.alias(id) else { continue };
        info.insert(id.clone(), described(alias_shown(call, &found.record, alias)).into());
    }
    listed(&wanted, ids, Some(info))
}

/// What a list says of an alias.
pub(super) fn described(mut shown: Object) -> Object {
    const LEFT_OUT: [&str; 4] = ["id", "creation_time", "last_update_time", "merged_from_canonical_ids"];
    shown.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    shown
}

/// An alias as it stands in its entity.
pub(super) fn alias_shown(call: &Call<'_>, entity: &Entity, alias: &Alias) -> Object {
    shown(call, &entity.id, alias)
}

/// The same for whatever has it.
pub(super) fn shown(call: &Call<'_>, canonical_id: &str, alias: &Alias) -> Object {
    let (path, kind) = mount_shown(call, &alias.mount);
    Object::from_iter([
        ("canonical_id".to_owned(), canonical_id.into()),
        ("creation_time".to_owned(), alias.created_at.rfc3339().into()),
        ("custom_metadata".to_owned(), json!(alias.custom_metadata)),
        ("id".to_owned(), alias.id.clone().into()),
        ("last_update_time".to_owned(), alias.updated_at.rfc3339().into()),
        ("local".to_owned(), false.into()),
        ("merged_from_canonical_ids".to_owned(), or_null(alias.merged_from.clone())),
        ("metadata".to_owned(), json!(alias.metadata)),
        ("mount_accessor".to_owned(), alias.mount.as_str().into()),
        ("mount_path".to_owned(), path.into()),
        ("mount_type".to_owned(), kind.into()),
        ("name".to_owned(), alias.name.clone().into()),
    ])
}
