//! `identity/lookup`: one entity or group, by whatever is known of it.

use leasehold_model::MountAccessor;

use super::entity::entity_shown;
use super::group::group_shown;
use super::{alias_name, given};
use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::identity::entity::AliasName;
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const FIELDS: &[Field] = &[
    Field::visible("name", Kind::Text, "By its name."),
    Field::visible("id", Kind::Text, "By its id."),
    Field::visible("alias_id", Kind::Text, "By the id of an alias of it."),
    Field::visible("alias_name", Kind::Text, "By what an auth mount calls it; with alias_mount_accessor."),
    Field::visible("alias_mount_accessor", Kind::Text, "By what an auth mount calls it; with alias_name."),
];

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "lookup/entity",
        Access::Token,
        "Finds an entity.",
        &[Op::update("Finds an entity by one of these.", handler!(entity)).takes(FIELDS).answers(Answer::Data(&[]))],
    ),
    Route::new(
        "lookup/group",
        Access::Token,
        "Finds a group.",
        &[Op::update("Finds a group by one of these.", handler!(group)).takes(FIELDS).answers(Answer::Data(&[]))],
    ),
];

/// What is looked for.
enum By<'a> {
    Name(&'a str),
    Id(&'a str),
    AliasId(&'a str),
    Alias(MountAccessor, AliasName),
}

fn wanted<'a>(call: &'a Call<'_>) -> Result<By<'a>, RequestError> {
    let (name, id, alias_id) = (given(call, "name"), given(call, "id"), given(call, "alias_id"));
    let alias = (given(call, "alias_name"), given(call, "alias_mount_accessor"));
    let is_alias = alias.0.is_some() || alias.1.is_some();
    let count = [name, id, alias_id].iter().flatten().count() + usize::from(is_alias);
    match (count, name, id, alias_id, alias) {
        (0, ..) => Err(RequestError::invalid("query parameter not supplied")),
        (1, Some(name), ..) => Ok(By::Name(name)),
        (1, _, Some(id), ..) => Ok(By::Id(id)),
        (1, _, _, Some(id), _) => Ok(By::AliasId(id)),
        (1, _, _, _, (Some(name), Some(accessor))) => {
            let accessor = MountAccessor::new(accessor);
            // Of a mount that is gone, aliases may be left.
            let name = match call.unsealed.mounts.by_accessor(&accessor) {
                Some(mount) => alias_name(call, &mount, name),
                None => AliasName::new(name, true),
            };
            Ok(By::Alias(accessor, name))
        }
        (1, ..) => Err(RequestError::invalid("both 'alias_name' and 'alias_mount_accessor' needs to be set")),
        _ => Err(RequestError::invalid("query parameter conflict; please supply distinct set of query parameters")),
    }
}

async fn entity(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let identities = &call.unsealed.identities;
    let found = match wanted(call)? {
        By::Name(name) => identities.find_by_name(name).await?,
        By::Id(id) => identities.find(id).await?,
        By::AliasId(id) => identities.find_by_alias_id(id).await?,
        By::Alias(mount, name) => identities.find_by_alias(&mount, &name.key).await?,
    };
    // As in Vault: that there is none is no error.
    Ok(found.map_or_else(LogicalResponse::empty, |found| LogicalResponse::data(entity_shown(call, &found.record))))
}

async fn group(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let groups = &call.unsealed.identities.groups;
    let found = match wanted(call)? {
        By::Name(name) => groups.by_name(name),
        By::Id(id) => groups.find(id),
        By::AliasId(id) => groups.by_alias_id(id),
        By::Alias(mount, name) => groups.by_alias(&mount, &name.key),
    };
    match found {
        Some(group) => Ok(LogicalResponse::data(group_shown(call, &group).await?)),
        None => Ok(LogicalResponse::empty()),
    }
}
