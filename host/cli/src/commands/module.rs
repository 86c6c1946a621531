//! `module push|list|read|delete` on the server, `module inspect|check` without one.

use clap::Command;
use serde_json::{Value, json};

use super::data;
use super::run::Run;
use crate::client::ApiRequest;
use crate::data::{opening, read_bounded};
use crate::declare::{group, leaf, value};
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn tree() -> Command {
    group("module", "Policy modules: WebAssembly components that judge requests").after_help(BINDING).subcommands([
        leaf("push", "Upload a module", "NAME FILE", "  $ leasehold module push change-freeze change-freeze.wasm"),
        leaf("list", "List the modules", "", "  $ leasehold module list"),
        leaf("read", "Show a module's digest and facts", "NAME", "  $ leasehold module read change-freeze"),
        leaf("delete", "Delete a module", "NAME", "  $ leasehold module delete change-freeze"),
        leaf(
            "inspect",
            "Show what a module is and whether it would be let in, without a server",
            "FILE",
            "  $ leasehold module inspect change-freeze.wasm",
        ),
        leaf("check", "Ask a module for one verdict, without a server", "FILE", CHECK)
            .arg(value("config", "JSON|@FILE", "The module's configuration (default {})"))
            .arg(value("request", "JSON|@FILE", "The request to judge (default: a read of database/creds/readonly)")),
    ])
}

const BINDING: &str = "\
A module judges nothing until it is bound to paths:
  $ leasehold write sys/policies/egp/freeze module=change-freeze config=@freeze.json \\
      paths='database/creds/*' enforcement_level=hard-mandatory
  $ leasehold list sys/policies/egp
  $ leasehold delete sys/policies/egp/freeze";
const CHECK: &str = "  $ leasehold module check change-freeze.wasm -config=@freeze.json
  $ leasehold module check change-freeze.wasm \\
      -request='{\"path\":\"database/creds/readonly\",\"operation\":\"read\",\"now\":1795424868}'
Exit status: 0 the module allows or abstains, 2 it denies, 1 it is not let in or fails.";

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "push" => push(run),
        "list" => list(run),
        "read" => read(run),
        "delete" => delete(run),
        "inspect" => inspect(run),
        _ => check(run),
    }
}

fn push(run: &mut Run) -> Result<(), Failure> {
    let [name, file] = run.exactly()?;
    let bytes = bytes_of(run, &file)?;
    let client = run.client()?;
    let call = ApiRequest::put(at(&name)).module(bytes);
    let secret = client
        .send(&call)
        .and_then(|answer| answer.secret())
        .map_err(|error| Failure::while_doing(format!("Error uploading module {name}"), error))?;
    if run.format == Format::Table && run.text("field").is_none() {
        run.env.say(&format!("Success! Uploaded module: {name}\n"))?;
    }
    data::show(run, &secret.unwrap_or_default())
}

fn list(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    let secret = client
        .logical(&ApiRequest::get("sys/modules").query("list", "true"))
        .map_err(|error| Failure::while_doing("Error listing modules", error))?;
    let keys = secret.as_ref().and_then(|secret| secret.data.as_ref()?.get("keys")?.as_array().cloned());
    match (secret, keys) {
        (Some(secret), Some(keys)) => print::list(run.env, run.format, &keys, &secret),
        _ if run.format != Format::Table => print::document(run.env, run.format, &json!([])),
        _ => Ok(run.env.say("There are no modules yet.")?),
    }
}

fn read(run: &mut Run) -> Result<(), Failure> {
    let [name] = run.exactly()?;
    let client = run.client()?;
    match client
        .logical(&ApiRequest::get(at(&name)))
        .map_err(|error| Failure::while_doing(format!("Error reading module {name}"), error))?
    {
        Some(secret) => data::show(run, &secret),
        None => Err(Failure::Server(format!("No module named: {name}"))),
    }
}

fn delete(run: &mut Run) -> Result<(), Failure> {
    let [name] = run.exactly()?;
    let client = run.client()?;
    client
        .send(&ApiRequest::delete(at(&name)))
        .map_err(|error| Failure::while_doing(format!("Error deleting module {name}"), error))?;
    Ok(run.env.say(&format!("Success! Deleted module (if it existed): {name}"))?)
}

fn at(name: &str) -> String {
    format!("sys/modules/{}", name.trim().trim_matches('/'))
}

fn inspect(run: &mut Run) -> Result<(), Failure> {
    let [file] = run.exactly()?;
    let bytes = bytes_of(run, &file)?;
    let facts = run
        .tools
        .inspect(&bytes)
        .map_err(|refused| Failure::Local(format!("{file} would not be let in: {refused}")))?;
    show_facts(run, &facts)
}

fn check(run: &mut Run) -> Result<(), Failure> {
    let [file] = run.exactly()?;
    let bytes = bytes_of(run, &file)?;
    let config = json_flag(run, "config", json!({}))?;
    let request = json_flag(run, "request", json!({ "path": "database/creds/readonly", "operation": "read" }))?;
    let verdict = run
        .tools
        .check(&bytes, config.to_string().as_bytes(), &request)
        .map_err(|refused| Failure::Local(format!("{file}: {refused}")))?;
    show_facts(run, &verdict)?;
    // Only what is surely no refusal is a success.
    match verdict.get("decision").and_then(Value::as_str) {
        Some("allow" | "abstain") => Ok(()),
        _ => Err(Failure::Status(2)),
    }
}

fn show_facts(run: &mut Run, facts: &Value) -> Result<(), Failure> {
    match run.text("field").map(str::to_owned) {
        None => print::document(run.env, run.format, facts),
        Some(field) => match facts.get(&field) {
            Some(value) => print::raw_field(run.env, run.format, value),
            None => Err(Failure::Local(format!("Field \"{field}\" not present in module"))),
        },
    }
}

fn bytes_of(run: &mut Run, file: &str) -> Result<Vec<u8>, Failure> {
    let read = match file {
        "-" => read_bounded(&mut run.env.stdin),
        path => std::fs::File::open(run.env.expand_home(path)).and_then(|mut file| read_bounded(&mut file)),
    };
    read.map_err(|error| Failure::Local(format!("Error reading module: {}", opening(file, &error))))
}

fn json_flag(run: &mut Run, flag: &str, default: Value) -> Result<Value, Failure> {
    let Some(given) = run.text(flag).map(str::to_owned) else { return Ok(default) };
    let text = match given.strip_prefix('@') {
        Some(path) => bytes_of(run, path)?,
        None => given.into_bytes(),
    };
    serde_json::from_slice(&text).map_err(|error| Failure::Local(format!("-{flag} is not JSON: {error}")))
}
