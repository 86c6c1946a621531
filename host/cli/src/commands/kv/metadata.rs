//! `kv metadata get|put|patch|delete`.
//!
//! Must not know: how a mount is found; [`super::find`] does.

use serde_json::{Map, Value, json};

use super::values::{nothing_at, reading, writing};
use super::{Place, find, key_alone, show};
use crate::client::{ApiRequest, Client};
use crate::commands::data;
use crate::commands::run::Run;
use crate::failure::Failure;
use crate::print::{self, Format};

/// The place of a key whose metadata there can be.
fn versioned(run: &Run) -> Result<(Client, Place, String), Failure> {
    let (client, place) = find(run, &key_alone(run, false)?)?;
    if !place.is_versioned {
        return Err(Failure::Local("Metadata not supported on KV Version 1".to_owned()));
    }
    let path = place.at("metadata");
    Ok((client, place, path))
}

pub(super) fn get(run: &mut Run) -> Result<(), Failure> {
    let (client, _, path) = versioned(run)?;
    let read = client.logical(&ApiRequest::get(&path)).map_err(|error| reading(&path, error))?;
    let secret = read.ok_or_else(|| nothing_at(&path))?;
    let is_plain = run.format == Format::Table && run.text("field").is_none_or(str::is_empty);
    let Some(mut shown) = secret.data.clone().filter(|_| is_plain) else { return data::show(run, &secret) };
    print::warnings(run.env, &secret);
    let versions = shown.remove("versions");
    show::path(run.env, "Metadata Path", &path)?;
    show::object(run.env, "Metadata", &shown)?;
    let mut versions: Vec<_> = versions
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(number, version)| Some((number.parse::<u64>().ok()?, version.as_object()?)))
        .collect();
    versions.sort_by_key(|(number, _)| *number);
    for (number, version) in versions {
        run.env.say("")?;
        show::object(run.env, &format!("Version {number}"), version)?;
    }
    Ok(())
}

/// What the flags change.
fn changes(run: &Run) -> Result<Map<String, Value>, Failure> {
    let mut changes = Map::new();
    if let Some(most) = run.number("max-versions")?.filter(|most| *most >= 0) {
        changes.insert("max_versions".to_owned(), most.into());
    }
    if let Some(required) = run.switch_if_given("cas-required") {
        changes.insert("cas_required".to_owned(), required.into());
    }
    if let Some(after) = run.text("delete-version-after") {
        changes.insert("delete_version_after".to_owned(), after.into());
    }
    if let Some(cas) = run.number("metadata-cas")?.filter(|cas| *cas >= 0) {
        changes.insert("metadata_cas".to_owned(), cas.into());
    }
    let custom: Map<String, Value> =
        run.pairs("custom-metadata")?.into_iter().map(|(name, text)| (name, text.into())).collect();
    if !custom.is_empty() {
        changes.insert("custom_metadata".to_owned(), custom.into());
    }
    Ok(changes)
}

pub(super) fn put(run: &mut Run) -> Result<(), Failure> {
    let changes = changes(run)?;
    let (client, _, path) = versioned(run)?;
    data::write_to(run, &client, &path, changes.into())
}

pub(super) fn patch(run: &mut Run) -> Result<(), Failure> {
    let mut changes = changes(run)?;
    let removed = run.texts("remove-custom-metadata");
    if !removed.is_empty() {
        let custom = changes.entry("custom_metadata").or_insert_with(|| json!({}));
        for name in removed {
            custom[name] = Value::Null;
        }
    }
    let (client, _, path) = versioned(run)?;
    let outcome = client.logical_or_not_found(&ApiRequest::patch(&path, changes.into()));
    match outcome.map_err(|error| writing(&path, error))? {
        Some(secret) => data::show(run, &secret),
        None if run.format == Format::Table => Ok(run.env.say(&format!("Success! Data written to: {path}"))?),
        None => Ok(()),
    }
}

pub(super) fn delete(run: &mut Run) -> Result<(), Failure> {
    let (client, _, path) = versioned(run)?;
    data::delete_at(run, &client, &path, ApiRequest::delete(&path))
}
