//! The answer of `status` and `operator unseal`: seal status and leader in one table.

use serde_json::{Map, Value, json};

use super::{Format, document, table};
use crate::environment::Environment;
use crate::failure::Failure;

/// Prints the merged status: `seal` from `sys/seal-status`, `leader` from `sys/leader`.
pub(crate) fn seal_status(env: &mut Environment, format: Format, seal: &Value, leader: &Value) -> Result<(), Failure> {
    if format != Format::Table {
        return document(env, format, &merged(seal, leader));
    }
    Ok(env.say(&table(&["Key", "Value"], &rows(seal, leader)))?)
}

/// The components that ship with the server. Other formats show them with the rest.
pub(crate) fn builtin_modules(env: &mut Environment, format: Format, seal: &Value) -> Result<(), Failure> {
    let modules = seal.get("builtin_modules").and_then(Value::as_object).filter(|_| format == Format::Table);
    let rows: Vec<Vec<String>> = modules
        .into_iter()
        .flatten()
        .map(|(name, digest)| vec![name.clone(), digest.as_str().unwrap_or_default().to_owned()])
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    env.say("")?;
    Ok(env.say(&table(&["Component", "SHA-256"], &rows))?)
}

/// One field of the merged status.
pub(crate) fn seal_status_field(seal: &Value, leader: &Value, field: &str) -> Option<Value> {
    if field == "ha_mode" {
        return Some(Value::from(mode(leader)));
    }
    merged(seal, leader).get(field).filter(|value| !value.is_null()).cloned()
}

fn mode(leader: &Value) -> &'static str {
    if yes(leader, "is_self") { "active" } else { "standby" }
}

fn yes(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn number(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or(0)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn rows(seal: &Value, leader: &Value) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    let recovery = if yes(seal, "recovery_seal") { "Recovery " } else { "" };
    row("Seal Type", text(seal, "type").to_owned());
    if !recovery.is_empty() {
        row("Recovery Seal Type", text(seal, "recovery_seal_type").to_owned());
    }
    row("Initialized", yes(seal, "initialized").to_string());
    row("Sealed", yes(seal, "sealed").to_string());
    row(&format!("Total {recovery}Shares"), number(seal, "n").to_string());
    row("Threshold", number(seal, "t").to_string());
    if yes(seal, "sealed") {
        row("Unseal Progress", format!("{}/{}", number(seal, "progress"), number(seal, "t")));
        row("Unseal Nonce", text(seal, "nonce").to_owned());
    }
    if yes(seal, "migration") {
        row("Seal Migration in Progress", "true".to_owned());
    }
    // A server may carry its own version beside Vault's, and say when it was built rather than committed.
    for (name, key) in [
        ("Version", "version"),
        ("Commit Date", "commit_date"),
        ("Build Date", "build_date"),
        ("Storage Type", "storage_type"),
    ] {
        let value = text(seal, key);
        let said_already = key == "build_date" && !text(seal, "commit_date").is_empty();
        if !value.is_empty() && !said_already {
            row(name, value.to_owned());
        }
    }
    if !text(seal, "cluster_name").is_empty() && !text(seal, "cluster_id").is_empty() {
        row("Cluster Name", text(seal, "cluster_name").to_owned());
        row("Cluster ID", text(seal, "cluster_id").to_owned());
    }
    row("HA Enabled", yes(leader, "ha_enabled").to_string());
    if yes(leader, "ha_enabled") && !yes(seal, "sealed") {
        row("HA Cluster", text(leader, "leader_cluster_address").to_owned());
        row("HA Mode", mode(leader).to_owned());
        if yes(leader, "is_self") && !text(leader, "active_time").is_empty() {
            row("Active Since", text(leader, "active_time").to_owned());
        }
        if !yes(leader, "is_self") && !text(leader, "leader_address").is_empty() {
            row("Active Node Address", text(leader, "leader_address").to_owned());
        }
    }
    for (name, key) in [("Raft Committed Index", "raft_committed_index"), ("Raft Applied Index", "raft_applied_index")]
    {
        if number(leader, key) > 0 {
            row(name, number(leader, key).to_string());
        }
    }
    rows
}

fn merged(seal: &Value, leader: &Value) -> Value {
    let mut shown = Map::new();
    for (from, key, kind) in FIELDS {
        let from = if from == Source::Seal { seal } else { leader };
        let value = match kind {
            Kind::Text => json!(text(from, key)),
            Kind::Number => json!(number(from, key)),
            Kind::Switch => json!(yes(from, key)),
            Kind::IfAny => match from.get(key) {
                Some(value) if !is_nothing(value) => value.clone(),
                _ => continue,
            },
        };
        shown.insert(key.to_owned(), value);
    }
    Value::Object(shown)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Seal,
    Leader,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Switch,
    IfAny,
}

/// The fields in the order in which Vault's client prints them.
const FIELDS: [(Source, &str, Kind); 23] = [
    (Source::Seal, "type", Kind::Text),
    (Source::Seal, "initialized", Kind::Switch),
    (Source::Seal, "sealed", Kind::Switch),
    (Source::Seal, "t", Kind::Number),
    (Source::Seal, "n", Kind::Number),
    (Source::Seal, "progress", Kind::Number),
    (Source::Seal, "nonce", Kind::Text),
    (Source::Seal, "version", Kind::Text),
    (Source::Seal, "commit_date", Kind::Text),
    (Source::Seal, "migration", Kind::Switch),
    (Source::Seal, "cluster_name", Kind::IfAny),
    (Source::Seal, "cluster_id", Kind::IfAny),
    (Source::Seal, "recovery_seal", Kind::Switch),
    (Source::Seal, "recovery_seal_type", Kind::IfAny),
    (Source::Seal, "storage_type", Kind::IfAny),
    (Source::Seal, "build_date", Kind::Text),
    (Source::Leader, "ha_enabled", Kind::Switch),
    (Source::Leader, "is_self", Kind::IfAny),
    (Source::Leader, "active_time", Kind::IfAny),
    (Source::Leader, "leader_address", Kind::IfAny),
    (Source::Leader, "leader_cluster_address", Kind::IfAny),
    (Source::Leader, "raft_committed_index", Kind::IfAny),
    (Source::Leader, "raft_applied_index", Kind::IfAny),
];

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}
