//! `identity/entity`.

use serde_json::{Value, json};

use super::alias::alias_shown;
use super::{DESCRIBED_MAX, ID, METADATA, NAME, POLICIES, given, listed, named, or_null};
use crate::api::call::{Call, SystemHandler, handler};
use crate::api::pages::{NAMES_MAX, PAGE, Wanted};
use crate::commit::names_below;
use crate::fields::{Field, Kind};
use crate::identity::Entity;
use crate::identity::changes::{EntityChange, Which};
use crate::identity::entities::StoredEntity;
use crate::keys;
use crate::request::{LogicalResponse, Object};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::Listed;

const DISABLED: Field = Field::visible("disabled", Kind::Bool, "Whether none of its tokens counts.");
const FIELDS: &[Field] = &[NAME, ID, METADATA, POLICIES, DISABLED];
/// The path has the rest.
const FIELDS_BY_NAME: &[Field] = &[METADATA, POLICIES, DISABLED];
const FIELDS_BY_ID: &[Field] = &[NAME, METADATA, POLICIES, DISABLED];

const SHOWN: Answer = Answer::Data(&[
    Field::visible("id", Kind::Text, "Names it for ever."),
    NAME,
    METADATA,
    POLICIES,
    DISABLED,
    Field::visible("aliases", Kind::Any, "By what names auth mounts know it."),
    Field::visible("direct_group_ids", Kind::List, "Groups that it is in itself."),
    Field::visible("inherited_group_ids", Kind::List, "Groups in which one of those lies."),
    Field::visible("group_ids", Kind::List, "Both."),
    Field::visible("merged_entity_ids", Kind::List, "The entities that have become part of it."),
    Field::visible("creation_time", Kind::Time, "When it was made."),
    Field::visible("last_update_time", Kind::Time, "When it was changed last."),
]);
const MADE: Answer = Answer::Data(&[Field::visible("id", Kind::Text, "Names it for ever."), NAME]);

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "entity",
        Access::Token,
        "Makes or changes an entity: one person, service or machine.",
        &[Op::update("Makes an entity, or changes the one with the id or the name.", handler!(write))
            .takes(FIELDS)
            .answers(MADE)],
    ),
    Route::new(
        "entity/batch-delete",
        Access::Token,
        "Deletes entities.",
        &[Op::update("Deletes entities, one after the other.", handler!(delete_some)).takes(&[Field::visible(
            "entity_ids",
            Kind::CommaList,
            "Their ids.",
        )])],
    ),
    Route::new(
        "entity/merge",
        Access::Token,
        "Makes several entities one.",
        &[Op::update("Makes several entities one.", handler!(merge)).takes(&[
            Field::visible("from_entity_ids", Kind::CommaList, "Those that end."),
            Field::visible("to_entity_id", Kind::Text, "The one that stays."),
            Field::visible("force", Kind::Bool, "Accepted, and says nothing here."),
            Field::visible(
                "conflicting_alias_ids_to_keep",
                Kind::CommaList,
                "Of two aliases at one mount, the one that stays.",
            ),
        ])],
    ),
    Route::new(
        "entity/id/",
        Access::Token,
        "The ids of all entities.",
        &[Op::list("Lists the entities by id.", handler!(list_ids)).takes(PAGE)],
    ),
    Route::new(
        "entity/id/:id",
        Access::Token,
        "An entity.",
        &[
            Op::read("Shows an entity.", handler!(read)).answers(SHOWN),
            Op::update("Changes an entity.", handler!(write_by_id)).takes(FIELDS_BY_ID),
            Op::delete("Deletes an entity: none of its tokens counts any more.", handler!(delete)),
        ],
    ),
    Route::new(
        "entity/name/",
        Access::Token,
        "The names of all entities.",
        &[Op::list("Lists the entities by name.", handler!(list_names)).takes(PAGE)],
    ),
    Route::new(
        "entity/name/*name",
        Access::Token,
        "An entity, by its name.",
        &[
            Op::read("Shows an entity.", handler!(read_by_name)).answers(SHOWN),
            Op::update("Makes or changes an entity.", handler!(write_by_name)).takes(FIELDS_BY_NAME).answers(MADE),
            Op::delete("Deletes an entity: none of its tokens counts any more.", handler!(delete_by_name)),
        ],
    ),
];

/// Deleted in one request.
const DELETED_AT_ONCE: usize = 1_000;

fn change(call: &Call<'_>) -> EntityChange {
    EntityChange {
        name: None,
        metadata: call.fields.pairs("metadata").cloned(),
        policies: call.fields.list("policies").map(<[String]>::to_vec),
        disabled: call.fields.bool("disabled"),
    }
}

async fn written(call: &Call<'_>, which: Which<'_>, change: &EntityChange) -> Result<LogicalResponse, RequestError> {
    let (entity, is_new) = call.unsealed.identities.write_entity(which, change).await?;
    let answer = match is_new {
        true => LogicalResponse::json(json!({ "id": entity.id, "name": entity.name, "aliases": null })),
        false => LogicalResponse::empty(),
    };
    // The policy `default` has the name in a path.
    Ok(match entity.name.contains(['/', '*', '+']) {
        true => answer.warn(
            "a name with '/', '*' or '+' can stand in no policy: tokens of this entity are refused if one of their policies, such as \
             `default`, has {{identity.entity.name}}",
        ),
        false => answer,
    })
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    match (given(call, "id"), given(call, "name")) {
        (Some(id), name) => {
            let change = EntityChange { name: name.map(str::to_owned), ..change(call) };
            written(call, Which::Id(id), &change).await
        }
        (None, Some(name)) => written(call, Which::Name(name), &change(call)).await,
        (None, None) => written(call, Which::New, &change(call)).await,
    }
}

async fn write_by_id(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let change = EntityChange { name: given(call, "name").map(str::to_owned), ..change(call) };
    written(call, Which::Id(call.capture("id")), &change).await
}

async fn write_by_name(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    written(call, Which::Name(named(call)), &change(call)).await
}

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    shown(call, call.unsealed.identities.find(call.capture("id")).await?)
}

async fn read_by_name(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    shown(call, call.unsealed.identities.find_by_name(named(call)).await?)
}

fn shown(call: &Call<'_>, found: Option<StoredEntity>) -> Result<LogicalResponse, RequestError> {
    let found = found.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::data(entity_shown(call, &found.record)))
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.identities.delete_entity(call.capture("id")).await?;
    Ok(LogicalResponse::empty())
}

async fn delete_by_name(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.identities.delete_entity_by_name(named(call)).await?;
    Ok(LogicalResponse::empty())
}

async fn delete_some(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let ids = call.fields.list("entity_ids").unwrap_or_default();
    if ids.is_empty() {
        return Err(RequestError::invalid("missing entity ids to delete"));
    }
    if ids.len() > DELETED_AT_ONCE {
        return Err(RequestError::Invalid(format!("at most {DELETED_AT_ONCE} entities in one request")));
    }
    for id in ids {
        call.unsealed.identities.delete_entity(id).await?;
    }
    Ok(LogicalResponse::empty())
}

async fn merge(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let from = call.fields.list("from_entity_ids").unwrap_or_default();
    if from.is_empty() {
        return Err(RequestError::invalid("missing entity ids to merge from"));
    }
    let into = given(call, "to_entity_id").ok_or_else(|| RequestError::invalid("missing entity id to merge to"))?;
    let kept = call.fields.list("conflicting_alias_ids_to_keep").unwrap_or_default();
    call.unsealed.identities.merge(from, into, kept).await?;
    Ok(LogicalResponse::empty())
}

async fn list_ids(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let identities = &call.unsealed.identities;
    let wanted = Wanted::of(call, NAMES_MAX);
    let prefix = keys::entity("");
    let ids = names_below(&*identities.storage, Listed::Values, prefix.as_str(), wanted.after, wanted.most).await?;
    let mut info = Object::new();
    for id in ids.iter().take(DESCRIBED_MAX) {
        let Some(found) = identities.find(id).await? else { continue };
        let mut about = Object::from_iter([("name".to_owned(), found.record.name.clone().into())]);
        if !found.record.aliases.is_empty() {
            let aliases: Vec<Value> = found
                .record
                .aliases
                .iter()
                .map(|alias| {
                    let (path, kind) = super::mount_shown(call, &alias.mount);
                    json!({ "id": alias.id, "name": alias.name, "mount_accessor": alias.mount, "mount_path": path, "mount_type": kind })
                })
                .collect();
            about.insert("aliases".to_owned(), aliases.into());
        }
        info.insert(id.clone(), about.into());
    }
    listed(&wanted, ids, Some(info))
}

async fn list_names(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let storage = &*call.unsealed.identities.storage;
    let wanted = Wanted::of(call, NAMES_MAX);
    let after = hex::encode(wanted.after);
    let found = names_below(storage, Listed::Values, keys::ENTITIES_LISTED, &after, wanted.most).await?;
    let names = found.iter().filter_map(|name| String::from_utf8(hex::decode(name).ok()?).ok()).collect();
    listed(&wanted, names, None)
}

/// An entity as `identity/entity` shows it.
pub(super) fn entity_shown(call: &Call<'_>, entity: &Entity) -> Object {
    let groups = call.unsealed.identities.memberships(entity);
    let ids = |groups: &[std::sync::Arc<crate::identity::Group>]| -> Vec<String> {
        groups.iter().map(|group| group.id.clone()).collect()
    };
    let (direct, inherited) = (ids(&groups.direct), ids(&groups.inherited));
    let aliases: Vec<Value> = entity.aliases.iter().map(|alias| alias_shown(call, entity, alias).into()).collect();
    Object::from_iter([
        ("aliases".to_owned(), aliases.into()),
        ("creation_time".to_owned(), entity.created_at.rfc3339().into()),
        ("direct_group_ids".to_owned(), json!(direct)),
        ("disabled".to_owned(), entity.disabled.into()),
        ("group_ids".to_owned(), json!([direct.as_slice(), &inherited].concat())),
        ("id".to_owned(), entity.id.clone().into()),
        ("inherited_group_ids".to_owned(), json!(inherited)),
        ("last_update_time".to_owned(), entity.updated_at.rfc3339().into()),
        ("merged_entity_ids".to_owned(), or_null(entity.merged.clone())),
        ("metadata".to_owned(), json!(entity.metadata)),
        ("name".to_owned(), entity.name.clone().into()),
        ("namespace_id".to_owned(), "root".into()),
        ("policies".to_owned(), json!(entity.policies)),
    ])
}
