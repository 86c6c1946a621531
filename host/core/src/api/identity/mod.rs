//! `identity/`: entities, their aliases, and groups (contract.md §6).
//!
//! Must not know: how any of it is kept. [`crate::identity`] does.
//!
//! Start with the tables of [`entity`], [`alias`], [`group`] and [`lookup`].

mod alias;
mod entity;
mod group;
mod lookup;

use leasehold_model::MountAccessor;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler};
use crate::api::pages::{NAMES_MAX, Wanted};
use crate::fields::{Field, Kind};
use crate::identity::entity::AliasName;
use crate::mount::{MountEntry, Table};
use crate::request::{LogicalResponse, Object};
use crate::routes::{self, Route};
use crate::seams::error::RequestError;

const TABLES: &[&[Route<SystemHandler>]] = &[entity::ROUTES, alias::ROUTES, group::ROUTES, lookup::ROUTES];

/// All routes; literal ones before captures.
pub const ROUTES: &[Route<SystemHandler>] = &routes::joined::<_, { routes::count(TABLES) }>(TABLES);

const NAME: Field = Field::visible("name", Kind::Text, "The name; its case says nothing.");
const ID: Field = Field::visible("id", Kind::Text, "Changes the one with this id.");
const METADATA: Field =
    Field::visible("metadata", Kind::KvPairs, "Texts by name, which policies may be written about.");
const POLICIES: Field = Field::visible("policies", Kind::CommaList, "Policies that it gives besides those of a token.");
const MOUNT_ACCESSOR: Field = Field::visible("mount_accessor", Kind::Text, "The auth mount that has the name.");

/// So many of a list are described; the others are named.
const DESCRIBED_MAX: usize = 1_000;

/// A text that is given and says something.
fn given<'a>(call: &'a Call<'_>, name: &str) -> Option<&'a str> {
    call.fields.text(name).filter(|text| !text.is_empty())
}

/// Names may hold slashes; the last one belongs to the path.
fn named<'a>(call: &'a Call<'_>) -> &'a str {
    call.capture("name").trim_end_matches('/')
}

/// The auth mount that a request names.
fn mount_of(call: &Call<'_>, accessor: &str) -> Result<std::sync::Arc<MountEntry>, RequestError> {
    let found = call.unsealed.mounts.by_accessor(&MountAccessor::new(accessor));
    found
        .filter(|entry| entry.table == Table::Auth)
        .ok_or_else(|| RequestError::Invalid(format!("invalid mount accessor {:?}", shortened(accessor))))
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

/// How a mount compares the names that it has.
fn alias_name(call: &Call<'_>, mount: &MountEntry, name: &str) -> AliasName {
    let is_exact = call.unsealed.methods.of(mount).is_some_and(|method| method.has_exact_names());
    AliasName::new(name, is_exact)
}

/// Path and type of a mount; both empty when it is gone.
fn mount_shown(call: &Call<'_>, accessor: &MountAccessor) -> (String, String) {
    let entry = call.unsealed.mounts.by_accessor(accessor);
    entry.map(|entry| (entry.path.as_str().to_owned(), entry.kind.clone())).unwrap_or_default()
}

/// A list as Vault shows one that may be empty.
fn or_null(list: Vec<String>) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// An answer with keys, and what there is to say of the first of them.
fn listed(wanted: &Wanted<'_>, keys: Vec<String>, info: Option<Object>) -> Result<LogicalResponse, RequestError> {
    if keys.is_empty() {
        return Err(RequestError::NotFound);
    }
    let count = keys.len();
    let mut data = Object::from_iter([("keys".to_owned(), json!(keys))]);
    if let Some(info) = info {
        data.insert("key_info".to_owned(), info.into());
    }
    let mut answer = LogicalResponse::data(data);
    if count > DESCRIBED_MAX {
        answer = answer
            .warn(format!("`key_info` describes the first {DESCRIBED_MAX}: ask for pages with `after` and `limit`"));
    }
    Ok(wanted.told(count, answer, "names"))
}

/// The part of a list in memory that a request asks for.
fn page_of(call: &Call<'_>, mut keys: Vec<String>) -> Vec<String> {
    let wanted = Wanted::of(call, NAMES_MAX);
    keys.retain(|key| key.as_str() > wanted.after);
    keys.truncate(wanted.most);
    keys
}
