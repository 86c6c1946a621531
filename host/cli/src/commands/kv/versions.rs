//! `kv undelete|destroy|rollback|enable-versioning`.
//!
//! Must not know: how a mount is found; [`super::find`] does.

use serde_json::{Value, json};

use super::values::{nothing_at, reading, writing};
use super::{find, key_alone, versions_of};
use crate::client::ApiRequest;
use crate::commands::data;
use crate::commands::run::{Run, mount_path};
use crate::failure::Failure;

pub(super) fn undelete(run: &mut Run) -> Result<(), Failure> {
    change(run, "undelete", "Undelete not supported on KV Version 1")
}

pub(super) fn destroy(run: &mut Run) -> Result<(), Failure> {
    change(run, "destroy", "Destroy not supported on KV Version 1")
}

fn change(run: &mut Run, how: &str, unsupported: &str) -> Result<(), Failure> {
    let key = key_alone(run, false)?;
    let versions = versions_of(run);
    if versions.is_empty() {
        return Err(Failure::Local(format!(
            "No versions provided, use the \"-versions\" flag to specify the version to {how}."
        )));
    }
    let (client, place) = find(run, &key)?;
    if !place.is_versioned {
        return Err(Failure::Local(unsupported.to_owned()));
    }
    data::write_to(run, &client, &place.at(how), json!({ "versions": versions }))
}

/// Reads the last version for its number and an old one for its value, and writes that on the condition that nobody was faster.
pub(super) fn rollback(run: &mut Run) -> Result<(), Failure> {
    let key = key_alone(run, false)?;
    let version = match run.number("version")? {
        None => return Err(Failure::Local("Version flag must be specified".to_owned())),
        Some(version) if version <= 0 => {
            return Err(Failure::Local(format!("Invalid value {version} for the version flag")));
        }
        Some(version) => version,
    };
    let (mut client, place) = find(run, &key)?;
    if !place.is_versioned {
        return Err(Failure::Server("K/V engine mount must be version 2 for rollback support".to_owned()));
    }
    let path = place.value();
    let mut read = |call: ApiRequest| {
        let read = client.preparing(|client| client.logical(&call)).map_err(|error| reading(&path, error))?;
        read.and_then(|secret| secret.data).ok_or_else(|| nothing_at(&path))
    };
    let last = read(ApiRequest::get(&path))?;
    let last = last.get("metadata").and_then(|metadata| metadata.get("version")).cloned().unwrap_or_default();
    let old = read(ApiRequest::get(&path).query("version", version.to_string()))?;
    let Some(value) = old.get("data").filter(|value| value.is_object()) else {
        return Err(Failure::Server("Cannot roll back to a version that has been deleted".to_owned()));
    };
    let body = json!({ "data": value, "options": { "cas": last } });
    let written = client.logical_or_not_found(&ApiRequest::put(&path).json(body));
    match written.map_err(|error| writing(&path, error))? {
        Some(secret) => data::show(run, &secret),
        None => Ok(()),
    }
}

pub(super) fn enable(run: &mut Run) -> Result<(), Failure> {
    let [mount] = run.exactly()?;
    let (client, mount) = (run.client()?, mount_path(&mount));
    let body: Value = json!({ "options": { "version": "2" } });
    client
        .send(&ApiRequest::post(format!("sys/mounts/{mount}tune")).json(body))
        .map_err(|error| Failure::while_doing(format!("Error tuning secrets engine {mount}"), error))?;
    Ok(run.env.say(&format!("Success! Tuned the secrets engine at: {mount}"))?)
}
