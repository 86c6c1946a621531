//! `token create|lookup|renew|revoke|capabilities`.

use clap::Command;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::data::show;
use super::run::{Run, parse_span};
use crate::client::ApiRequest;
use crate::declare::{group, leaf, switch, value, values};
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn tree() -> Command {
    let accessor = || switch("accessor", "The argument is an accessor, not a token");
    group("token", "Tokens: what a client shows").subcommands([
        leaf("create", "Create a token", "", "  $ leasehold token create -policy=apps\n  $ leasehold token create -policy=apps -ttl=30m -use-limit=5 -field=token")
            .arg(values("policy", "NAME", "Policy of the token; may be repeated"))
            .arg(value("id", "TEXT", "The token itself; needs sudo"))
            .arg(value("display-name", "NAME", "Name to show; it becomes part of database user names"))
            .arg(value("ttl", "DURATION", "How long it lives"))
            .arg(value("explicit-max-ttl", "DURATION", "How long it lives at most, renewals included"))
            .arg(value("period", "DURATION", "Each renewal gives it this long, without an end; needs sudo"))
            .arg(switch("renewable", "Whether it can be renewed (default true)"))
            .arg(switch("orphan", "It does not die with its parent; needs sudo"))
            .arg(switch("no-default-policy", "Leave out the policy `default`"))
            .arg(value("use-limit", "NUMBER", "How often it can be used; 0 is without limit"))
            .arg(value("role", "NAME", "Token role to create it with"))
            .arg(value("type", "TYPE", "service (default) or batch"))
            .arg(values("metadata", "KEY=VALUE", "Metadata, shown in audit; may be repeated"))
            .arg(value("entity-alias", "NAME", "Entity alias, with -role")),
        leaf("lookup", "Show what a token is", "[TOKEN | ACCESSOR]", "  $ leasehold token lookup\n  $ leasehold token lookup -accessor 0Lb4CqOoZFs4bAy2weIKoxhV").arg(accessor()),
        leaf("renew", "Extend a token's life", "[TOKEN | ACCESSOR] [INCREMENT]", "  $ leasehold token renew\n  $ leasehold token renew -increment=1h s.24C1WPwTpPR0uUq6sfFYtu9o")
            .arg(accessor())
            .arg(value("increment", "DURATION", "How much longer; the server may give less").alias("i")),
        leaf("revoke", "Revoke a token, its children and all their leases", "[TOKEN | ACCESSOR]", "  $ leasehold token revoke s.24C1WPwTpPR0uUq6sfFYtu9o\n  $ leasehold token revoke -accessor 0Lb4CqOoZFs4bAy2weIKoxhV\n  $ leasehold token revoke -self")
            .arg(accessor())
            .arg(switch("self", "The token that is in use"))
            .arg(value("mode", "MODE", "orphan: leave the children alone; path: every token made at this path")),
        leaf("capabilities", "Show what a token may do at a path", "[TOKEN] PATH", "  $ leasehold token capabilities database/creds/readonly"),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "create" => create(run),
        "lookup" => lookup(run),
        "renew" => renew(run),
        "revoke" => revoke(run),
        _ => capabilities(run),
    }
}

fn create(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let kind = run.text("type").unwrap_or("service").to_owned();
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    if let Some(id) = run.text("id").filter(|id| !id.is_empty()) {
        put("id", json!(id));
    }
    let policies = run.texts("policy");
    if !policies.is_empty() {
        put("policies", json!(policies));
    }
    let metadata = run.pairs("metadata")?;
    if !metadata.is_empty() {
        put("meta", Value::Object(metadata.into_iter().map(|(key, value)| (key, value.into())).collect()));
    }
    put("ttl", json!(run.span("ttl")?.to_go()));
    put("explicit_max_ttl", json!(run.span("explicit-max-ttl")?.to_go()));
    put("period", json!(run.span("period")?.to_go()));
    for (flag, key) in [("orphan", "no_parent"), ("no-default-policy", "no_default_policy")] {
        if run.switch(flag) {
            put(key, json!(true));
        }
    }
    put("display_name", json!(run.text("display-name").unwrap_or_default()));
    put("num_uses", json!(run.number("use-limit")?.unwrap_or(0)));
    // A batch token cannot be renewed, so it is not asked for.
    put("renewable", json!(kind != "batch" && run.switch_if_given("renewable").unwrap_or(true)));
    put("type", json!(kind));
    put("entity_alias", json!(run.text("entity-alias").unwrap_or_default()));
    let path = match run.text("role").filter(|role| !role.is_empty()) {
        Some(role) => format!("auth/token/create/{role}"),
        None => "auth/token/create".to_owned(),
    };
    let client = run.client()?;
    let secret = client
        .logical_or_not_found(&ApiRequest::post(path).json(Value::Object(body)))
        .map_err(|error| Failure::while_doing("Error creating token", error))?;
    show_if_any(run, secret)
}

fn lookup(run: &mut Run) -> Result<(), Failure> {
    let by_accessor = run.switch("accessor");
    let words = run.words();
    let token = match (by_accessor, words.as_slice()) {
        (true, []) => return Err(Failure::Local("Not enough arguments with -accessor (expected 1, got 0)".to_owned())),
        (true, [_, _, ..]) => {
            return Err(Failure::Local(format!("Too many arguments with -accessor (expected 1, got {})", words.len())));
        }
        (_, []) => "",
        (_, [token]) => token.trim(),
        _ => return Err(Failure::Local(format!("Too many arguments (expected 0-1, got {})", words.len()))),
    };
    let call = match (token, by_accessor) {
        ("", _) => ApiRequest::get("auth/token/lookup-self"),
        (accessor, true) => ApiRequest::post("auth/token/lookup-accessor").json(json!({ "accessor": accessor })),
        (token, false) => ApiRequest::post("auth/token/lookup").json(json!({ "token": token })),
    };
    let client = run.client()?;
    let secret =
        client.logical_or_not_found(&call).map_err(|error| Failure::while_doing("Error looking up token", error))?;
    show_if_any(run, secret)
}

fn renew(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    let (token, increment) = match words.as_slice() {
        [] => ("", run.span("increment")?),
        [token] => (token.trim(), run.span("increment")?),
        // The spelling of old.
        [token, increment] => (token.trim(), parse_span("increment", increment)?),
        _ => return Err(Failure::Local(format!("Too many arguments (expected 1, got {})", words.len()))),
    };
    let increment = increment.whole_seconds();
    let call = match (token, run.switch("accessor")) {
        ("", _) => ApiRequest::put("auth/token/renew-self").json(json!({ "increment": increment })),
        (accessor, true) => {
            ApiRequest::post("auth/token/renew-accessor").json(json!({ "accessor": accessor, "increment": increment }))
        }
        (token, false) => ApiRequest::put("auth/token/renew").json(json!({ "increment": increment, "token": token })),
    };
    let client = run.client()?;
    let secret =
        client.logical_or_not_found(&call).map_err(|error| Failure::while_doing("Error renewing token", error))?;
    show_if_any(run, secret)
}

fn revoke(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    let (own, by_accessor) = (run.switch("self"), run.switch("accessor"));
    let mode = run.text("mode").unwrap_or_default().to_owned();
    let wrong = |why: String| Err(Failure::Local(why));
    let got = words.len();
    match (mode.as_str(), own, got) {
        (other, ..) if !matches!(other, "" | "orphan" | "path") => return wrong(format!("Invalid mode: {other}")),
        (_, true, 1..) => return wrong(format!("Too many arguments with -self (expected 0, got {got})")),
        (_, false, 2..) => return wrong(format!("Too many arguments (expected 1 or -self, got {got})")),
        (_, false, 0) => return wrong(format!("Not enough arguments (expected 1 or -self, got {got})")),
        (_, true, _) if by_accessor => return wrong("Cannot use -self with -accessor!".to_owned()),
        (mode, true, _) if !mode.is_empty() => return wrong("Cannot use -self with -mode!".to_owned()),
        (mode, ..) if by_accessor && !mode.is_empty() => {
            return wrong(format!("Cannot use -accessor with -mode={mode}!"));
        }
        _ => {}
    }
    let token = words.first().map(|word| word.trim()).unwrap_or_default();
    let call = match (own, by_accessor, mode.as_str()) {
        (true, ..) => ApiRequest::put("auth/token/revoke-self"),
        (_, true, _) => ApiRequest::post("auth/token/revoke-accessor").json(json!({ "accessor": token })),
        (_, _, "orphan") => ApiRequest::put("auth/token/revoke-orphan").json(json!({ "token": token })),
        (_, _, "path") => ApiRequest::put(format!("sys/leases/revoke-prefix/{token}")).json(json!({ "sync": false })),
        _ => ApiRequest::put("auth/token/revoke").json(json!({ "token": token })),
    };
    let client = run.client()?;
    client.send(&call).map_err(|error| Failure::while_doing("Error revoking token", error))?;
    Ok(run.env.say("Success! Revoked token (if it existed)")?)
}

fn capabilities(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    let (token, path) = match words.as_slice() {
        [path] => (None, path.as_str()),
        [token, path] => (Some(token.as_str()), path.as_str()),
        [] => return Err(Failure::Local("Not enough arguments (expected 1-2, got 0)".to_owned())),
        _ => return Err(Failure::Local(format!("Too many arguments (expected 1-2, got {})", words.len()))),
    };
    let client = run.client()?;
    let own = client.token().map(|token| token.expose_secret()).unwrap_or_default();
    let token = token.unwrap_or(own);
    let route = if token == own { "sys/capabilities-self" } else { "sys/capabilities" };
    let call = ApiRequest::post(route).json(json!({ "path": path, "token": token }));
    let data = client
        .send(&call)
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing("Error listing capabilities", error))?;
    let found = [data.get(path), data.get("capabilities")].into_iter().flatten().find_map(Value::as_array);
    let mut names: Vec<String> = found.into_iter().flatten().map(print::plain).collect();
    if names.is_empty() {
        return Err(Failure::Local("No capabilities found".to_owned()));
    }
    if run.format != Format::Table {
        return print::document(run.env, run.format, &json!(names));
    }
    names.sort();
    Ok(run.env.say(&names.join(", "))?)
}

fn show_if_any(run: &mut Run, secret: Option<crate::client::Secret>) -> Result<(), Failure> {
    match secret {
        Some(secret) => show(run, &secret),
        None => Ok(()),
    }
}
