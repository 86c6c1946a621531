//! `read`, `write`, `patch`, `list`, `scan`, `delete`, `unwrap`, `path-help`: any path, any data.

use clap::Command;
use serde_json::{Value, json};

use super::run::{Run, bare_path};
use crate::client::{ApiRequest, Client, ClientError, Reading, Secret};
use crate::data;
use crate::declare::{leaf, switch, value};
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn trees() -> Vec<Command> {
    let force = || switch("force", "Send the request without any data").alias("f");
    vec![
        leaf("read", "Read data and retrieve secrets", "PATH [KEY=VALUE...]", READ),
        leaf("write", "Write data, configuration, and secrets", "PATH [KEY=VALUE...]", WRITE).arg(force()).arg(switch(
            "verify",
            "Of a database role: run its statements on the database and roll them back before it is stored",
        )),
        leaf("patch", "Change a part of what is stored", "PATH [KEY=VALUE...]", PATCH).arg(force()),
        leaf("list", "List data or secrets", "PATH", LIST)
            .arg(value("after", "KEY", "Begin after this key"))
            .arg(value("limit", "NUMBER", "List no more than this many")),
        leaf("scan", "List data or secrets with everything beneath them", "PATH", SCAN),
        leaf("delete", "Delete secrets and configuration", "PATH [KEY=VALUE...]", DELETE).arg(switch(
            "force",
            "Of a database connection: delete it although leases stand on it, which then cannot end",
        )),
        leaf("unwrap", "Take a wrapped answer out of its wrapping token", "[TOKEN]", UNWRAP),
        leaf("path-help", "Show the server's help for a path", "PATH", PATH_HELP),
    ]
}

const READ: &str = "  $ leasehold read database/creds/readonly
  $ leasehold read -field=password database/creds/readonly
  $ leasehold read -format=json database/roles/readonly";
const WRITE: &str = "  $ leasehold write database/roles/readonly db_name=postgresql default_ttl=1h \\
      creation_statements=@readonly.sql
  $ leasehold write database/config/postgresql password=- < password.txt
  $ leasehold write database/roles/readonly @role.json
  $ leasehold write -verify database/roles/readonly @role.json
  $ leasehold write -force database/reset/postgresql";
const PATCH: &str = "  $ leasehold patch sys/policies/acl/apps policy=@apps-policy.hcl";
const LIST: &str = "  $ leasehold list database/roles";
const SCAN: &str = "  $ leasehold scan sys/leases/lookup  # refused by this server";
const DELETE: &str = "  $ leasehold delete database/roles/readonly
  $ leasehold delete -force database/config/replaced";
const UNWRAP: &str = "  $ leasehold read -wrap-ttl=60s -field=wrapping_token database/creds/readonly
  $ leasehold unwrap s.u3Mq9yTQkm0yTTVcGJsKxVnE

A wrapping token may also stand for a request that a control group holds back:
once it is approved, unwrapping carries it out and prints its answer.";
const PATH_HELP: &str = "  $ leasehold path-help database/roles/readonly";

/// The path in front of the words.
fn path_and_words(run: &Run, expected: &str) -> Result<(String, Vec<String>), Failure> {
    let mut words = run.words().into_iter();
    match words.next() {
        Some(path) => Ok((bare_path(&path).to_owned(), words.collect())),
        None => Err(Failure::Local(format!("Not enough arguments (expected {expected}, got 0)"))),
    }
}

/// Words that become the query string.
fn with_query(run: &mut Run, call: ApiRequest, words: &[String], what: &str) -> Result<ApiRequest, Failure> {
    let no_stdin = run.no_stdin();
    let gathered = data::gather(run.env, words, no_stdin).map_err(|problem| problem.local(what))?;
    let pairs = data::as_texts(gathered.unwrap_or_default());
    Ok(pairs.into_iter().fold(call, |call, (key, value)| call.query(key, value)))
}

pub(super) fn read(run: &mut Run) -> Result<(), Failure> {
    let (path, words) = path_and_words(run, "1")?;
    let client = run.client()?;
    let call = with_query(run, ApiRequest::get(&path), &words, "Failed to parse K=V data")?;
    if run.format == Format::Raw {
        let answer =
            client.send(&call).map_err(|error| Failure::while_doing(format!("Error reading: {path}"), error))?;
        run.env.stdout.write_all(&answer.body)?;
        return Ok(run.env.say("")?);
    }
    let failed = |error| Failure::while_doing(format!("Error reading {path}"), error);
    match client.logical_or_text(&call).map_err(failed)? {
        Reading::Secret(secret) => show(run, &secret),
        Reading::Text(text) => show_text(run, &path, &text),
        Reading::Nothing => Err(nothing_at(&path)),
    }
}

/// A text has no fields and is no document: it is printed as it is, or not at all.
fn show_text(run: &mut Run, path: &str, text: &str) -> Result<(), Failure> {
    if run.format != Format::Table || run.text("field").is_some() {
        return Err(Failure::Local(format!(
            "{path} answers plain text: leave out -format and -field, or say -format=raw"
        )));
    }
    write!(run.env.stdout, "{text}")?;
    Ok(())
}

pub(super) fn write(run: &mut Run) -> Result<(), Failure> {
    let (path, mut body) = path_and_body(run)?;
    if !run.switch("verify") {
        let client = run.client()?;
        return write_to(run, &client, &path, body);
    }
    // An engine that knows no such field might store it as data.
    if !matches!(*path.rsplit('/').collect::<Vec<_>>(), [_, "roles", _, ..]) {
        return Err(Failure::Local(format!(
            "-verify tries the statements of a database role, and {path} is none: write to MOUNT/roles/NAME, or leave -verify out"
        )));
    }
    match &mut body {
        Value::Object(fields) => drop(fields.insert("verify".to_owned(), Value::Bool(true))),
        nothing => *nothing = json!({ "verify": true }),
    }
    let client = run.client()?;
    let outcome = client.logical_or_not_found(&ApiRequest::put(&path).json(body));
    let written = outcome.map_err(|error| Failure::while_doing(format!("Error writing data to {path}"), error))?;
    let found = written.as_ref().and_then(|secret| Some((secret, secret.data.as_ref()?.get("verification")?)));
    let Some((secret, report)) = found else {
        return Err(Failure::Local(format!(
            "Data was written to {path}, but the server did not try the statements: it is no database role there, or not on Leasehold"
        )));
    };
    if run.format != Format::Table || run.text("field").is_some_and(|field| !field.is_empty()) {
        return show(run, secret);
    }
    print::verification(run.env, secret, report)?;
    Ok(run.env.say(&format!("Success! Data written to: {path}"))?)
}

pub(super) fn write_to(run: &mut Run, client: &Client, path: &str, body: Value) -> Result<(), Failure> {
    let outcome = client.logical_or_not_found(&ApiRequest::put(path).json(body));
    show_written(run, path, outcome)
}

pub(super) fn patch(run: &mut Run) -> Result<(), Failure> {
    let (path, body) = path_and_body(run)?;
    let client = run.client()?;
    let outcome = client.logical_or_not_found(&ApiRequest::patch(&path, body));
    show_written(run, &path, outcome)
}

fn path_and_body(run: &mut Run) -> Result<(String, Value), Failure> {
    let (path, words) = path_and_words(run, "1")?;
    Ok((path, gathered(run, &words)?))
}

/// The body that words make.
pub(super) fn gathered(run: &mut Run, words: &[String]) -> Result<Value, Failure> {
    if words.is_empty() && !run.switch("force") {
        return Err(Failure::Local("Must supply data or use -force".to_owned()));
    }
    let no_stdin = run.no_stdin();
    let gathered =
        data::gather(run.env, words, no_stdin).map_err(|problem| problem.local("Failed to parse K=V data"))?;
    // A forced write without data carries `null`, as Vault's does.
    Ok(gathered.map_or(Value::Null, Value::Object))
}

fn show_written(run: &mut Run, path: &str, outcome: Result<Option<Secret>, ClientError>) -> Result<(), Failure> {
    match outcome.map_err(|error| Failure::while_doing(format!("Error writing data to {path}"), error))? {
        Some(secret) => show(run, &secret),
        None if run.format == Format::Table => Ok(run.env.say(&format!("Success! Data written to: {path}"))?),
        None => Ok(()),
    }
}

pub(super) fn delete(run: &mut Run) -> Result<(), Failure> {
    let (path, words) = path_and_words(run, "at least 1")?;
    let client = run.client()?;
    let mut call = with_query(run, ApiRequest::delete(&path), &words, "Failed to parse string list data")?;
    if run.switch("force") {
        call = call.query("force", "true");
    }
    delete_at(run, &client, &path, call).map_err(|failure| match failure {
        Failure::Server(said) if said.contains("send force=true") => {
            Failure::Server(format!("{}\n\nOn the command line: leasehold delete -force {path}", said.trim_end()))
        }
        other => other,
    })
}

pub(super) fn delete_at(run: &mut Run, client: &Client, path: &str, call: ApiRequest) -> Result<(), Failure> {
    let secret = client
        .logical_or_not_found(&call)
        .map_err(|error| Failure::while_doing(format!("Error deleting {path}"), error))?;
    match secret {
        Some(secret) => show(run, &secret),
        None if run.format == Format::Table => {
            Ok(run.env.say(&format!("Success! Data deleted (if it existed) at: {path}"))?)
        }
        None => Ok(()),
    }
}

pub(super) fn list(run: &mut Run, how: &str) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let path = bare_path(&path).to_owned();
    let client = run.client()?;
    list_at(run, &client, &path, how)
}

pub(super) fn list_at(run: &mut Run, client: &Client, path: &str, how: &str) -> Result<(), Failure> {
    let mut call = ApiRequest::get(path).query(how, "true");
    if let Some(after) = run.text("after") {
        call = call.query("after", after);
    }
    if let Some(limit) = run.number("limit")?.filter(|&limit| limit > 0) {
        call = call.query("limit", limit.to_string());
    }
    let doing = if how == "list" { "listing" } else { "scanning" };
    let secret = client.logical(&call).map_err(|error| Failure::while_doing(format!("Error {doing} {path}"), error))?;
    if let Some(secret) = secret.as_ref().filter(|secret| secret.wrap_info.as_ref().is_some_and(|wrap| wrap.ttl != 0)) {
        return print::secret(run.env, run.format, secret);
    }
    let keys = secret.as_ref().and_then(keys_of);
    if run.format != Format::Table && keys.is_none() {
        print::document(run.env, run.format, &json!({}))?;
        return Err(Failure::Status(2));
    }
    match (secret, keys) {
        (None, _) => Err(nothing_at(path)),
        (Some(secret), _) if secret.data.is_none() => print::secret(run.env, run.format, &secret),
        (Some(secret), Some(keys)) => {
            if run.switch("detailed") && run.format != Format::Table {
                return print::document(run.env, run.format, &secret.to_json());
            }
            print::list(run.env, run.format, &keys, &secret)
        }
        (Some(_), None) => Err(Failure::Server(format!("No entries found at {path}"))),
    }
}

fn keys_of(secret: &Secret) -> Option<Vec<Value>> {
    secret.data.as_ref()?.get("keys")?.as_array().cloned()
}

pub(super) fn unwrap(run: &mut Run) -> Result<(), Failure> {
    let mut words = run.words();
    if words.len() > 1 {
        return Err(Failure::Local(format!("Too many arguments (expected 0-1, got {})", words.len())));
    }
    let wrapping = words.pop().map(|word| word.trim().to_owned());
    let mut client = run.client()?;
    let call = ApiRequest::put("sys/wrapping/unwrap");
    let call = match wrapping {
        Some(token) if client.token().is_some() => call.json(json!({ "token": token })),
        // Without a token of one's own, the wrapping token is the one that asks.
        Some(token) => {
            client.set_token(Some(token.into())).map_err(Failure::from_client)?;
            call
        }
        None => call,
    };
    let secret = client.logical_or_not_found(&call).map_err(|error| Failure::while_doing("Error unwrapping", error))?;
    match secret {
        None if run.format == Format::Table => {
            Ok(run.env.say("Successfully unwrapped. There was no data in the wrapped secret.")?)
        }
        None => Ok(()),
        Some(secret) => match (run.text("field"), keys_of(&secret)) {
            (None, Some(keys)) => print::list(run.env, run.format, &keys, &secret),
            _ => show(run, &secret),
        },
    }
}

pub(super) fn path_help(run: &mut Run) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let client = run.client()?;
    let answer = match client.send(&ApiRequest::get(bare_path(&path)).query("help", "1")) {
        Err(ClientError::Refused(refusal)) if refusal.says_sealed() => {
            return Err(Failure::Server("Error: Vault is sealed.\n\nThe \"path-help\" command requires the server to be unsealed so that the mount\npoints of the secrets engines are known.".to_owned()));
        }
        other => other
            .and_then(|answer| answer.json())
            .map_err(|error| Failure::while_doing("Error retrieving help", error))?,
    };
    if run.format == Format::Json {
        return Ok(run.env.say(&print::in_order(answer["openapi"].clone()).to_string())?);
    }
    Ok(run.env.say(answer["help"].as_str().unwrap_or_default())?)
}

/// The envelope, or one field of it.
pub(super) fn show(run: &mut Run, secret: &Secret) -> Result<(), Failure> {
    match run.text("field").map(str::to_owned) {
        Some(field) if !field.is_empty() => print::secret_field(run.env, run.format, secret, &field),
        _ => print::secret(run.env, run.format, secret),
    }
}

fn nothing_at(path: &str) -> Failure {
    Failure::Server(format!("No value found at {path}"))
}
