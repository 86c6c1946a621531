//! `kv get|put|patch|delete|list|scan`.
//!
//! Must not know: how a mount is found; [`super::find`] does.

use serde_json::{Map, Value, json};

use super::{find, key_alone, key_and_words, show, versions_of};
use crate::client::{ApiRequest, Client, ClientError, Secret};
use crate::commands::data;
use crate::commands::run::Run;
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn get(run: &mut Run) -> Result<(), Failure> {
    let key = key_alone(run, false)?;
    let version = run.number("version")?.filter(|version| *version > 0);
    let (client, place) = find(run, &key)?;
    let path = place.value();
    let mut call = ApiRequest::get(&path);
    if let Some(version) = version.filter(|_| place.is_versioned) {
        call = call.query("version", version.to_string());
    }
    let read = client.logical(&call);
    let secret = read.map_err(|error| Failure::while_doing(format!("Error reading {path}"), error))?;
    let secret = secret.ok_or_else(|| nothing_at(&path))?;
    let field = run.text("field").filter(|field| !field.is_empty()).map(str::to_owned);
    let Some(shown) = secret.data.as_ref().filter(|_| run.format == Format::Table || field.is_some()) else {
        return print::secret(run.env, run.format, &secret);
    };
    if !place.is_versioned {
        return match field {
            Some(_) => data::show(run, &secret),
            None => {
                print::warnings(run.env, &secret);
                show::object(run.env, "Data", shown)
            }
        };
    }
    let (value, metadata) = (shown.get("data"), shown.get("metadata").and_then(Value::as_object));
    if let Some(field) = field {
        let value = value
            .and_then(Value::as_object)
            .ok_or_else(|| Failure::Server(format!("No data found at {path}: the version is deleted or destroyed")))?;
        let inner = Secret { data: Some(value.clone()), ..secret.clone() };
        return print::secret_field(run.env, run.format, &inner, &field);
    }
    print::warnings(run.env, &secret);
    show::path(run.env, "Secret Path", &path)?;
    if let Some(metadata) = metadata {
        show::object(run.env, "Metadata", metadata)?;
        run.env.say("")?;
    }
    match value.and_then(Value::as_object) {
        Some(value) => show::object(run.env, "Data", value),
        None => Ok(()),
    }
}

pub(super) fn put(run: &mut Run) -> Result<(), Failure> {
    let (key, words) = key_and_words(run, false)?;
    // Before the server is asked: what cannot be sent need not be.
    let value = gathered(run, &words)?;
    let options = cas_of(run)?;
    let (client, place) = find(run, &key)?;
    if !place.is_versioned {
        return data::write_to(run, &client, &place.plain(), value);
    }
    let path = place.value();
    let written =
        client.logical_or_not_found(&ApiRequest::put(&path).json(json!({ "data": value, "options": options })));
    let written = written.map_err(|error| writing(&path, error))?;
    show_version(run, &path, written)
}

/// The value that words make. These commands know no `-force`.
fn gathered(run: &mut Run, words: &[String]) -> Result<Value, Failure> {
    if words.is_empty() {
        return Err(Failure::Local("Must supply data".to_owned()));
    }
    data::gathered(run, words)
}

/// `options` of a write.
fn cas_of(run: &Run) -> Result<Map<String, Value>, Failure> {
    let cas = run.number("cas")?.filter(|cas| *cas >= 0);
    Ok(cas.map(|cas| ("cas".to_owned(), json!(cas))).into_iter().collect())
}

pub(super) fn patch(run: &mut Run) -> Result<(), Failure> {
    let (key, words) = key_and_words(run, false)?;
    let removed = run.texts("remove-data");
    let method = match run.text("method") {
        None | Some("") => None,
        Some(method @ ("patch" | "rw")) => Some(method.to_owned()),
        Some(other) => {
            return Err(Failure::Local(format!("Unsupported method provided to -method flag: {other}")));
        }
    };
    let mut changes = if words.is_empty() && !removed.is_empty() {
        Map::new()
    } else {
        match gathered(run, &words)? {
            Value::Object(changes) => changes,
            _ => Map::new(),
        }
    };
    changes.extend(removed.into_iter().map(|name| (name, Value::Null)));
    let options = cas_of(run)?;
    let (mut client, place) = find(run, &key)?;
    if !place.is_versioned {
        return Err(Failure::Server("K/V engine mount must be version 2 for patch support".to_owned()));
    }
    let path = place.value();
    if method.as_deref() == Some("rw") {
        return read_and_write(run, &mut client, &path, changes, options);
    }
    let body = json!({ "data": changes, "options": options });
    match client.logical_or_not_found(&ApiRequest::patch(&path, body)) {
        // A server without patches, or a token that may read and write and not patch.
        Err(ClientError::Refused(refusal)) if method.is_none() && matches!(refusal.status, 403 | 405) => {
            read_and_write(run, &mut client, &path, changes, options)
        }
        Err(error) => Err(writing(&path, error)),
        Ok(written) => show_version(run, &path, written),
    }
}

/// Reads the last version, changes it, and writes it on the condition that it is still the last one.
fn read_and_write(
    run: &mut Run,
    client: &mut Client,
    path: &str,
    changes: Map<String, Value>,
    mut options: Map<String, Value>,
) -> Result<(), Failure> {
    let read = client.preparing(|client| client.logical(&ApiRequest::get(path)));
    let read = read.map_err(|error| reading(path, error))?;
    let (mut value, version) = value_of(path, read)?;
    options.entry("cas").or_insert(version);
    for (name, change) in changes {
        if change.is_null() { drop(value.remove(&name)) } else { drop(value.insert(name, change)) }
    }
    let body = json!({ "data": value, "options": options });
    let written = client.logical_or_not_found(&ApiRequest::put(path).json(body));
    let written = written.map_err(|error| writing(path, error))?;
    show_version(run, path, written)
}

/// What a version that was read holds, and its number.
fn value_of(path: &str, read: Option<Secret>) -> Result<(Map<String, Value>, Value), Failure> {
    let mut shown = read.and_then(|secret| secret.data).ok_or_else(|| nothing_at(path))?;
    let version = shown.get("metadata").and_then(|metadata| metadata.get("version")).cloned().unwrap_or_default();
    match shown.remove("data") {
        Some(Value::Object(value)) => Ok((value, version)),
        _ => Err(Failure::Server(format!("No data found at {path}: the last version is deleted or destroyed"))),
    }
}

/// The version that a write made.
fn show_version(run: &mut Run, path: &str, written: Option<Secret>) -> Result<(), Failure> {
    let Some(secret) = written else { return Ok(run.env.say(&format!("Success! Data written to: {path}"))?) };
    let is_plain = run.format == Format::Table && run.text("field").is_none_or(str::is_empty);
    let Some(shown) = secret.data.as_ref().filter(|_| is_plain) else { return data::show(run, &secret) };
    print::warnings(run.env, &secret);
    show::path(run.env, "Secret Path", path)?;
    show::object(run.env, "Metadata", shown)
}

pub(super) fn delete(run: &mut Run) -> Result<(), Failure> {
    let key = key_alone(run, false)?;
    let versions = versions_of(run);
    let (client, place) = find(run, &key)?;
    let path = place.value();
    if versions.is_empty() || !place.is_versioned {
        return data::delete_at(run, &client, &path, ApiRequest::delete(&path));
    }
    let call = ApiRequest::put(place.at("delete")).json(json!({ "versions": versions }));
    data::delete_at(run, &client, &path, call)
}

pub(super) fn list(run: &mut Run, how: &str) -> Result<(), Failure> {
    let key = key_alone(run, true)?;
    let (client, place) = find(run, &key)?;
    let path = if place.is_versioned { place.at("metadata") } else { place.plain() };
    data::list_at(run, &client, &path, how)
}

pub(super) fn nothing_at(path: &str) -> Failure {
    Failure::Server(format!("No value found at {path}"))
}

pub(super) fn reading(path: &str, error: ClientError) -> Failure {
    Failure::while_doing(format!("Error reading {path}"), error)
}

pub(super) fn writing(path: &str, error: ClientError) -> Failure {
    Failure::while_doing(format!("Error writing data to {path}"), error)
}
