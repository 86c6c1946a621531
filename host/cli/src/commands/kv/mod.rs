//! `kv …`: values of the kv engine, of either version, and what belongs to the versions.
//!
//! Must not know: what a server answers to a mistake; that is printed as it comes.
//!
//! Each command asks the server first which mount a path lies on, as Vault's commands do: a mount that keeps versions has other routes.
//! Start with [`run`]; [`Place`] is what that question is answered with.

mod metadata;
mod show;
mod values;
mod versions;

use clap::Command;

use super::run::{Run, bare_path};
use crate::client::{ApiRequest, Client, ClientError};
use crate::declare::{group, leaf, switch, value, values};
use crate::failure::Failure;

pub(super) fn tree() -> Command {
    let mount = || value("mount", "PATH", "The path of the mount, when KEY is one below it");
    let cas =
        || value("cas", "NUMBER", "Write only if this is the last version; 0: only if there is none; -1: in any case");
    let versions = || values("versions", "NUMBERS", "The versions, separated by commas; may be repeated");
    let version = || value("version", "NUMBER", "The version");
    group("kv", "Values of the kv engine, and their versions").subcommands([
        leaf("get", "Read a value", "KEY", GET).arg(mount()).arg(version()),
        leaf("put", "Write a value; it replaces the one that is there, or is a new version", "KEY [KEY=VALUE...]", PUT)
            .arg(mount())
            .arg(cas()),
        leaf("patch", "Change a part of a value, as a new version", "KEY [KEY=VALUE...]", PATCH)
            .arg(mount())
            .arg(cas())
            .arg(value(
                "method",
                "METHOD",
                "patch: one request; rw: read, then write; without it, rw where patch is refused",
            ))
            .arg(values("remove-data", "NAME", "Take this name out of the value; may be repeated")),
        leaf("delete", "Delete a value, or versions of it", "KEY", DELETE).arg(mount()).arg(versions()),
        leaf("undelete", "Undelete versions", "KEY", UNDELETE).arg(mount()).arg(versions()),
        leaf("destroy", "Destroy versions for good", "KEY", DESTROY).arg(mount()).arg(versions()),
        leaf("rollback", "Write an old version anew, as the last one", "KEY", ROLLBACK).arg(mount()).arg(version()),
        leaf("list", "List the names in a folder", "KEY", LIST)
            .arg(mount())
            .arg(value("after", "KEY", "Begin after this key"))
            .arg(value("limit", "NUMBER", "List no more than this many")),
        leaf("scan", "List the names in a folder and in those below it", "KEY", SCAN)
            .arg(mount())
            .arg(value("after", "KEY", "Begin after this key"))
            .arg(value("limit", "NUMBER", "List no more than this many")),
        leaf("enable-versioning", "Make a mount of version 1 one that keeps versions", "MOUNT", ENABLE_VERSIONING),
        group("metadata", "What is known of a key").subcommands([
            leaf("get", "Show what is known of a key and its versions", "KEY", METADATA_GET).arg(mount()),
            changing(leaf("put", "Change what is known of a key", "KEY", METADATA_PUT).arg(mount())),
            changing(leaf("patch", "Change a part of what is known of a key", "KEY", METADATA_PATCH).arg(mount()))
                .arg(values("remove-custom-metadata", "NAME", "Take this name away; may be repeated")),
            leaf("delete", "Delete a key with all its versions, for good", "KEY", METADATA_DELETE).arg(mount()),
        ]),
    ])
}

fn changing(command: Command) -> Command {
    command
        .arg(value("max-versions", "NUMBER", "How many versions are kept"))
        .arg(switch("cas-required", "Demand -cas of every write"))
        .arg(value("delete-version-after", "DURATION", "When a version deletes itself"))
        .arg(values("custom-metadata", "NAME=TEXT", "A note on the key; may be repeated"))
        .arg(value("metadata-cas", "NUMBER", "Change only if this is the `current_metadata_version`"))
}

const GET: &str = "  $ leasehold kv get secret/app
  $ leasehold kv get -mount=secret -field=color app
  $ leasehold kv get -mount=secret -version=1 app";
const PUT: &str = "  $ leasehold kv put secret/app color=green
  $ leasehold kv put -mount=secret app @app.json
  $ leasehold kv put -mount=secret -cas=2 app color=red";
const PATCH: &str = "  $ leasehold kv patch -mount=secret app size=5
  $ leasehold kv patch -mount=secret -remove-data=size app";
const DELETE: &str = "  $ leasehold kv delete secret/app
  $ leasehold kv delete -mount=secret -versions=1,2 app";
const UNDELETE: &str = "  $ leasehold kv undelete -mount=secret -versions=1,2 app";
const DESTROY: &str = "  $ leasehold kv destroy -mount=secret -versions=2 app";
const ROLLBACK: &str = "  $ leasehold kv rollback -mount=secret -version=1 app";
const LIST: &str = "  $ leasehold kv list secret/";
const SCAN: &str = "  $ leasehold kv scan secret/";
const ENABLE_VERSIONING: &str = "  $ leasehold kv enable-versioning secret";
const METADATA_GET: &str = "  $ leasehold kv metadata get -mount=secret app";
const METADATA_PUT: &str = "  $ leasehold kv metadata put -mount=secret -max-versions=5 -custom-metadata=owner=web app";
const METADATA_PATCH: &str = "  $ leasehold kv metadata patch -mount=secret -remove-custom-metadata=owner app";
const METADATA_DELETE: &str = "  $ leasehold kv metadata delete -mount=secret app";

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "get" => values::get(run),
        "put" => values::put(run),
        "patch" => values::patch(run),
        "delete" => values::delete(run),
        "undelete" => versions::undelete(run),
        "destroy" => versions::destroy(run),
        "rollback" => versions::rollback(run),
        "enable-versioning" => versions::enable(run),
        "scan" => values::list(run, "scan"),
        _ => values::list(run, "list"),
    }
}

pub(super) fn run_metadata(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "put" => metadata::put(run),
        "patch" => metadata::patch(run),
        "delete" => metadata::delete(run),
        _ => metadata::get(run),
    }
}

/// Where a key lies.
struct Place {
    /// With the slash at its end.
    mount: String,
    /// Below the mount.
    key: String,
    is_versioned: bool,
}

impl Place {
    /// The path of a route of version 2.
    fn at(&self, route: &str) -> String {
        format!("{}{route}/{}", self.mount, self.key).trim_end_matches('/').to_owned()
    }

    /// The path of the value itself, by whichever version.
    fn value(&self) -> String {
        if self.is_versioned { self.at("data") } else { self.plain() }
    }

    fn plain(&self) -> String {
        format!("{}{}", self.mount, self.key).trim_end_matches('/').to_owned()
    }
}

/// The key in front of the words, and the others.
fn key_and_words(run: &Run, may_lack: bool) -> Result<(String, Vec<String>), Failure> {
    let mut words = run.words();
    if words.is_empty() {
        return match may_lack && run.text("mount").is_some() {
            true => Ok((String::new(), words)),
            false => Err(Failure::Local("Not enough arguments (expected 1, got 0)".to_owned())),
        };
    }
    let key = words.remove(0);
    Ok((key, words))
}

/// The one word of a command that takes no others.
fn key_alone(run: &Run, may_lack: bool) -> Result<String, Failure> {
    let (key, words) = key_and_words(run, may_lack)?;
    if words.is_empty() {
        return Ok(key);
    }
    Err(Failure::Local(format!("Too many arguments (expected 1, got {})", words.len() + 1)))
}

/// A connection, and where a key lies by what the server says.
fn find(run: &Run, key: &str) -> Result<(Client, Place), Failure> {
    let mut client = run.client()?;
    let path = match run.text("mount").map(bare_path) {
        Some(mount) if bare_path(key).is_empty() => mount.to_owned(),
        Some(mount) => format!("{mount}/{}", bare_path(key)),
        None => bare_path(key).to_owned(),
    };
    let place = locate(&mut client, path, run.text("mount").map(bare_path))?;
    Ok((client, place))
}

/// Asks which mount a path lies on.
fn locate(client: &mut Client, path: String, mount: Option<&str>) -> Result<Place, Failure> {
    let call = ApiRequest::get(format!("sys/internal/ui/mounts/{}", mount.unwrap_or(&path)));
    let asked = client.preparing(|client| client.send(&call));
    let answer = match asked.and_then(|answer| answer.data()) {
        Ok(answer) => answer,
        // Servers of old, which know only version 1.
        Err(ClientError::Refused(refusal)) if refusal.status == 404 => {
            let (mount, key) = path.split_once('/').unwrap_or((&path, ""));
            return Ok(Place { mount: format!("{mount}/"), key: key.to_owned(), is_versioned: false });
        }
        Err(error) => return Err(Failure::while_doing(format!("Error finding the mount of {path}"), error)),
    };
    let mount = answer["path"].as_str().unwrap_or_default().to_owned();
    let key = format!("{path}/").strip_prefix(&mount).unwrap_or(&path).trim_end_matches('/').to_owned();
    Ok(Place { mount, key, is_versioned: answer["options"]["version"].as_str() == Some("2") })
}

/// The numbers of `-versions`, as texts.
fn versions_of(run: &Run) -> Vec<String> {
    let given = run.texts("versions");
    given
        .iter()
        .flat_map(|text| text.split(','))
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}
