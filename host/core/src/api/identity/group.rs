//! `identity/group` and `identity/group-alias`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    ID, METADATA, MOUNT_ACCESSOR, NAME, POLICIES, alias_name, given, listed, mount_of, named, or_null, page_of,
    shortened,
};
use crate::api::call::{Call, SystemHandler, handler};
use crate::api::pages::{NAMES_MAX, PAGE, Wanted};
use crate::fields::{Field, Kind};
use crate::identity::changes::{Which, Written};
use crate::identity::entity::AliasName;
use crate::identity::members::{GroupAliasChange, GroupChange, MEMBERS_MAX};
use crate::identity::{Alias, Group, GroupAlias, GroupKind};
use crate::request::{LogicalResponse, Object};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const TYPE: Field = Field::visible("type", Kind::Text, "`internal`, or `external`: an auth method says who is in it.")
    .default("internal");
const MEMBER_ENTITY_IDS: Field =
    Field::visible("member_entity_ids", Kind::CommaList, "All entities that are in it themselves.");
const MEMBER_GROUP_IDS: Field =
    Field::visible("member_group_ids", Kind::CommaList, "All groups whose members are in it.");
const FIELDS: &[Field] = &[NAME, ID, TYPE, METADATA, POLICIES, MEMBER_ENTITY_IDS, MEMBER_GROUP_IDS];
const FIELDS_BY_ID: &[Field] = &[NAME, TYPE, METADATA, POLICIES, MEMBER_ENTITY_IDS, MEMBER_GROUP_IDS];
const FIELDS_BY_NAME: &[Field] = &[TYPE, METADATA, POLICIES, MEMBER_ENTITY_IDS, MEMBER_GROUP_IDS];
const GROUP_ID: Field = Field::visible("id", Kind::Text, "Names it for ever.");
const MADE: Answer = Answer::Data(&[GROUP_ID, NAME]);
const SHOWN: Answer = Answer::Data(&[
    GROUP_ID,
    NAME,
    TYPE,
    METADATA,
    POLICIES,
    MEMBER_ENTITY_IDS,
    MEMBER_GROUP_IDS,
    Field::visible("parent_group_ids", Kind::List, "The groups in which it lies."),
    Field::visible("alias", Kind::Any, "By what name an auth mount knows it."),
    Field::visible("modify_index", Kind::Int, "Counts its changes."),
    Field::visible("creation_time", Kind::Time, "When it was made."),
    Field::visible("last_update_time", Kind::Time, "When it was changed last."),
]);

const CANONICAL_ID: Field = Field::visible("canonical_id", Kind::Text, "The group that has the alias.");
const ALIAS_FIELDS: &[Field] = &[NAME, ID, MOUNT_ACCESSOR, CANONICAL_ID];
const ALIAS_FIELDS_BY_ID: &[Field] = &[NAME, MOUNT_ACCESSOR, CANONICAL_ID];
const ALIAS_MADE: Answer = Answer::Data(&[Field::visible("id", Kind::Text, "Of the alias."), CANONICAL_ID]);
const ALIAS_SHOWN: Answer = Answer::Data(&[
    Field::visible("id", Kind::Text, "Of the alias."),
    CANONICAL_ID,
    NAME,
    MOUNT_ACCESSOR,
    Field::visible("mount_path", Kind::Text, "Where that is mounted."),
    Field::visible("mount_type", Kind::Text, "The auth method."),
]);
const GROUP: &str = "A group of entities and of groups.";
const ALIAS: &str = "By what name an auth mount knows a group.";

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "group",
        Access::Token,
        GROUP,
        &[Op::update("Makes a group, or changes the one with the id or the name.", handler!(write))
            .takes(FIELDS)
            .answers(MADE)],
    ),
    Route::new(
        "group/id/",
        Access::Token,
        "The ids of all groups.",
        &[Op::list("Lists the groups by id.", handler!(list_ids)).takes(PAGE)],
    ),
    Route::new(
        "group/id/:id",
        Access::Token,
        GROUP,
        &[
            Op::read("Shows a group.", handler!(read)).answers(SHOWN),
            Op::update("Changes a group.", handler!(write_by_id)).takes(FIELDS_BY_ID),
            Op::delete("Deletes a group.", handler!(delete)),
        ],
    ),
    Route::new(
        "group/name/",
        Access::Token,
        "The names of all groups.",
        &[Op::list("Lists the groups by name.", handler!(list_names)).takes(PAGE)],
    ),
    Route::new(
        "group/name/*name",
        Access::Token,
        "A group, by its name.",
        &[
            Op::read("Shows a group.", handler!(read_by_name)).answers(SHOWN),
            Op::update("Makes or changes a group.", handler!(write_by_name)).takes(FIELDS_BY_NAME).answers(MADE),
            Op::delete("Deletes a group.", handler!(delete_by_name)),
        ],
    ),
    Route::new(
        "group-alias",
        Access::Token,
        ALIAS,
        &[Op::update("Makes or changes a group's alias.", handler!(write_alias))
            .takes(ALIAS_FIELDS)
            .answers(ALIAS_MADE)],
    ),
    Route::new(
        "group-alias/id/",
        Access::Token,
        "The ids of all aliases of groups.",
        &[Op::list("Lists the aliases of groups by id.", handler!(list_aliases)).takes(PAGE)],
    ),
    Route::new(
        "group-alias/id/:id",
        Access::Token,
        ALIAS,
        &[
            Op::read("Shows a group's alias.", handler!(read_alias)).answers(ALIAS_SHOWN),
            Op::update("Changes a group's alias, or gives it to another group.", handler!(write_alias_by_id))
                .takes(ALIAS_FIELDS_BY_ID)
                .answers(ALIAS_MADE),
            Op::delete("Deletes a group's alias: nobody says any more who is in the group.", handler!(delete_alias)),
        ],
    ),
];

fn change(call: &Call<'_>) -> Result<GroupChange, RequestError> {
    let list = |name: &str| call.fields.list(name).map(<[String]>::to_vec);
    let kind = call.fields.text("type").map(|kind| {
        let unknown = || RequestError::Invalid(format!("invalid group type {:?}", shortened(kind)));
        GroupKind::parse(kind).ok_or_else(unknown)
    });
    Ok(GroupChange {
        name: None,
        kind: kind.transpose()?,
        metadata: call.fields.pairs("metadata").cloned(),
        policies: list("policies"),
        subgroups: list("member_group_ids"),
        members: list("member_entity_ids"),
    })
}

async fn written(call: &Call<'_>, which: Which<'_>, change: &GroupChange) -> Result<LogicalResponse, RequestError> {
    let (group, is_new) = call.unsealed.identities.write_group(which, change).await?;
    Ok(match is_new {
        true => LogicalResponse::json(json!({ "id": group.id, "name": group.name })),
        false => LogicalResponse::empty(),
    })
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    match (given(call, "id"), given(call, "name")) {
        (Some(id), name) => {
            let change = GroupChange { name: name.map(str::to_owned), ..change(call)? };
            written(call, Which::Id(id), &change).await
        }
        (None, Some(name)) => written(call, Which::Name(name), &change(call)?).await,
        (None, None) => written(call, Which::New, &change(call)?).await,
    }
}

async fn write_by_id(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let change = GroupChange { name: given(call, "name").map(str::to_owned), ..change(call)? };
    written(call, Which::Id(call.capture("id")), &change).await
}

async fn write_by_name(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    written(call, Which::Name(named(call)), &change(call)?).await
}

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    shown(call, call.unsealed.identities.groups.find(call.capture("id"))).await
}

async fn read_by_name(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    shown(call, call.unsealed.identities.groups.by_name(named(call))).await
}

async fn shown(call: &Call<'_>, group: Option<Arc<Group>>) -> Result<LogicalResponse, RequestError> {
    let group = group.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::data(group_shown(call, &group).await?))
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.identities.delete_group(call.capture("id")).await?;
    Ok(LogicalResponse::empty())
}

async fn delete_by_name(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.identities.delete_group_by_name(named(call)).await?;
    Ok(LogicalResponse::empty())
}

async fn list_ids(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let identities = &call.unsealed.identities;
    let ids = page_of(call, identities.groups.all().iter().map(|group| group.id.clone()).collect());
    let mut info = Object::new();
    let mut left = MEMBERS_MAX;
    for id in ids.iter().take(super::DESCRIBED_MAX) {
        let Some(group) = identities.groups.find(id) else { continue };
        let mut about = json!({ "name": group.name, "num_parent_groups": identities.groups.parents(id).len() });
        // Groups are many, or large: what would have to be read to be counted is bounded.
        let members = identities.members(&group, left).await?.len();
        left -= members;
        if left > 0 {
            about["num_member_entities"] = members.into();
        }
        info.insert(id.clone(), about);
    }
    listed(&Wanted::of(call, NAMES_MAX), ids, Some(info))
}

async fn list_names(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let mut names: Vec<String> = call.unsealed.identities.groups.all().iter().map(|group| group.name.clone()).collect();
    names.sort();
    listed(&Wanted::of(call, NAMES_MAX), page_of(call, names), None)
}

/// A group as `identity/group` shows it.
pub(super) async fn group_shown(call: &Call<'_>, group: &Group) -> Result<Object, RequestError> {
    let identities = &call.unsealed.identities;
    let members = identities.members(group, MEMBERS_MAX).await?;
    // Those that are gone say nothing.
    let subgroups = group.subgroups.iter().filter(|id| identities.groups.find(id).is_some()).cloned().collect();
    let alias = match &group.alias {
        Some(alias) => {
            let mut shown = alias_shown(call, group, alias);
            shown.retain(|name, _| !matches!(name.as_str(), "local" | "custom_metadata"));
            shown
        }
        None => Object::new(),
    };
    Ok(Object::from_iter([
        ("alias".to_owned(), Value::Object(alias)),
        ("creation_time".to_owned(), group.created_at.rfc3339().into()),
        ("id".to_owned(), group.id.clone().into()),
        ("last_update_time".to_owned(), group.updated_at.rfc3339().into()),
        ("member_entity_ids".to_owned(), or_null(members)),
        ("member_group_ids".to_owned(), or_null(subgroups)),
        ("metadata".to_owned(), json!(group.metadata)),
        ("modify_index".to_owned(), group.modify_index.into()),
        ("name".to_owned(), group.name.clone().into()),
        ("namespace_id".to_owned(), "root".into()),
        ("parent_group_ids".to_owned(), or_null(identities.groups.parents(&group.id))),
        ("policies".to_owned(), or_null(group.policies.clone())),
        ("type".to_owned(), group.kind.as_str().into()),
    ]))
}

async fn write_alias(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    alias_written(call, given(call, "id")).await
}

async fn write_alias_by_id(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    alias_written(call, Some(call.capture("id"))).await
}

async fn alias_written(call: &Call<'_>, id: Option<&str>) -> Result<LogicalResponse, RequestError> {
    let identities = &call.unsealed.identities;
    let before = id.and_then(|id| identities.groups.by_alias_id(id));
    let before = before.as_ref().and_then(|group| group.alias.as_ref());
    let name = given(call, "name").or_else(|| before.map(|alias| alias.name.as_str()));
    let accessor = given(call, "mount_accessor").or_else(|| before.map(|alias| alias.mount.as_str()));
    let name = name.ok_or_else(|| RequestError::invalid("missing alias name"))?;
    let mount = mount_of(call, accessor.ok_or_else(|| RequestError::invalid("missing mount_accessor"))?)?;
    let change = GroupAliasChange {
        name: alias_name(call, &mount, name),
        mount: mount.accessor.clone(),
        group: given(call, "canonical_id").map(str::to_owned),
    };
    Ok(match identities.write_group_alias(id, &change).await? {
        Written::Changed((alias, group)) => LogicalResponse::json(json!({ "id": alias.id, "canonical_id": group.id })),
        Written::AsBefore => LogicalResponse::empty(),
    })
}

async fn read_alias(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let group = call.unsealed.identities.groups.by_alias_id(call.capture("id")).ok_or(RequestError::NotFound)?;
    let alias = group.alias.as_ref().ok_or(RequestError::NotFound)?;
    let mut data = alias_shown(call, &group, alias);
    data.insert("namespace_id".to_owned(), "root".into());
    Ok(LogicalResponse::data(data))
}

async fn delete_alias(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.identities.delete_group_alias(call.capture("id")).await?;
    Ok(LogicalResponse::empty())
}

async fn list_aliases(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let groups = &call.unsealed.identities.groups;
    let alias_id = |group: &Arc<Group>| Some(group.alias.as_ref()?.id.clone());
    let ids = page_of(call, groups.with_alias().iter().filter_map(alias_id).collect());
    let mut info = Object::new();
    for id in ids.iter().take(super::DESCRIBED_MAX) {
        let Some(group) = groups.by_alias_id(id) else { continue };
        let Some(alias) = &group.alias else { continue };
        info.insert(id.clone(), super::alias::described(alias_shown(call, &group, alias)).into());
    }
    listed(&Wanted::of(call, NAMES_MAX), ids, Some(info))
}

/// What only aliases of entities have is null.
fn alias_shown(call: &Call<'_>, group: &Group, alias: &GroupAlias) -> Object {
    let GroupAlias { id, name, key: _, mount, created_at, updated_at } = alias.clone();
    let mut shown = super::alias::shown(
        call,
        &group.id,
        &Alias { created_at, updated_at, ..Alias::new(id, AliasName::new(&name, true), mount, created_at) },
    );
    shown.insert("merged_from_canonical_ids".to_owned(), Value::Null);
    shown
}
