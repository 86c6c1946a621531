//! `kv get|put|list|delete`: values of the kv engine, version 1.
//!
//! Each asks the server first which mount a path lies on, as Vault's commands do: a mount that keeps versions has other routes.

use clap::Command;
use serde_json::Value;

use super::data;
use super::run::{Run, bare_path};
use crate::client::{ApiRequest, Client};
use crate::declare::{group, leaf, value};
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn tree() -> Command {
    let mount = || value("mount", "PATH", "The path of the mount, when KEY is one below it");
    group("kv", "Values of the kv engine").subcommands([
        leaf(
            "get",
            "Read a value",
            "KEY",
            "  $ leasehold kv get secret/app\n  $ leasehold kv get -mount=secret -field=color app",
        )
        .arg(mount()),
        leaf(
            "put",
            "Write a value; it replaces the one that is there",
            "KEY [KEY=VALUE...]",
            "  $ leasehold kv put secret/app color=green\n  $ leasehold kv put -mount=secret app @app.json",
        )
        .arg(mount()),
        leaf("list", "List the names in a folder", "KEY", "  $ leasehold kv list secret/").arg(mount()),
        leaf("delete", "Delete a value", "KEY", "  $ leasehold kv delete secret/app").arg(mount()),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    let mut words = run.words();
    if words.is_empty() && (command != "list" || run.text("mount").is_none()) {
        return Err(Failure::Local("Not enough arguments (expected 1, got 0)".to_owned()));
    }
    let key = if words.is_empty() { String::new() } else { words.remove(0) };
    if command != "put" && !words.is_empty() {
        return Err(Failure::Local(format!("Too many arguments (expected 1, got {})", words.len() + 1)));
    }
    let path = match run.text("mount").map(bare_path) {
        Some(mount) if bare_path(&key).is_empty() => mount.to_owned(),
        Some(mount) => format!("{mount}/{}", bare_path(&key)),
        None => bare_path(&key).to_owned(),
    };
    // Before the server is asked: what cannot be sent need not be.
    let body = if command == "put" { Some(data::gathered(run, &words)?) } else { None };
    let client = run.client()?;
    demand_version_1(&client, &path)?;
    match (command, body) {
        ("get", _) => get(run, &client, &path),
        ("put", Some(body)) => data::write_to(run, &client, &path, body),
        ("delete", _) => data::delete_at(run, &client, &path, ApiRequest::delete(&path)),
        _ => data::list_at(run, &client, &path, "list"),
    }
}

/// Which mount a path lies on, and that it keeps no versions.
fn demand_version_1(client: &Client, path: &str) -> Result<(), Failure> {
    let answer = client
        .send(&ApiRequest::get(format!("sys/internal/ui/mounts/{path}")))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing(format!("Error finding the mount of {path}"), error))?;
    match answer["options"]["version"].as_str() {
        Some("2") => Err(Failure::Local(format!(
            "{} keeps versions of its values (kv version 2): `leasehold kv` knows version 1 only, use `leasehold read {0}data/…`",
            answer["path"].as_str().unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

fn get(run: &mut Run, client: &Client, path: &str) -> Result<(), Failure> {
    let read = client.logical(&ApiRequest::get(path));
    let secret = read.map_err(|error| Failure::while_doing(format!("Error reading {path}"), error))?;
    let secret = secret.ok_or_else(|| Failure::Server(format!("No value found at {path}")))?;
    let is_plain = run.format == Format::Table && run.text("field").is_none_or(str::is_empty);
    let Some(data) = secret.data.clone().filter(|_| is_plain) else { return data::show(run, &secret) };
    print::warnings(run.env, &secret);
    let widest = data.keys().map(String::len).max().unwrap_or_default();
    run.env.say(&header("Data", widest + 4 + "value".len()))?;
    print::document(run.env, Format::Table, &Value::Object(data))
}

/// A headline as wide as what stands below it.
fn header(text: &str, width: usize) -> String {
    let signs = "=".repeat(width.saturating_sub(text.len() + 2).div_ceil(2));
    format!("{signs} {text} {signs}")
}
