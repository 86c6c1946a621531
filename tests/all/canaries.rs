//! A secret that is sent to any route, in any field that may hold one, is nowhere afterwards where none may be.

use std::fs;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::auth::enable;
use crate::support::{Answer, Client, Durable, Server};

/// What ends the server, or takes its time on purpose.
const LEFT_OUT: [&str; 7] = [
    "/sys/seal",
    "/sys/step-down",
    "/sys/storage/raft/snapshot",
    "/sys/storage/raft/snapshot-force",
    "/sys/init",
    "/auth/token/revoke-self",
    "/sys/audit/{path}",
];
/// Every canary holds this, however it is written: no base64 of it begins anywhere else.
const CANARY: &str = "canary7Qx9vTz3KpLm";

/// A value for a field that holds a secret, by its schema.
fn secret(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => json!({ "k": CANARY, "nested": CANARY }),
        Some("array") => json!([CANARY]),
        _ => CANARY.into(),
    }
}

fn plain(name: &str, schema: &Value) -> Value {
    if let Some(one) = schema["enum"].as_array().and_then(|all| all.first()) {
        return one.clone();
    }
    match (schema["type"].as_str(), name) {
        (Some("integer" | "number"), _) => 3.into(),
        (Some("boolean"), _) => false.into(),
        (Some("array"), _) => json!(["x"]),
        (Some("object"), _) => json!({}),
        (None, _) => 60.into(),
        (_, "db_name") => "pg".into(),
        (_, "plugin_name") => "postgresql-database-plugin".into(),
        _ => "x".into(),
    }
}

/// The bodies that a route is tried with: all its fields, and those alone that may hold secrets.
fn bodies(schema: &Value) -> [Value; 2] {
    let Some(fields) = schema["properties"].as_object() else {
        let document = json!({ "k": CANARY, "nested": { "l": [CANARY] } });
        return [document, json!({ "data": { "k": CANARY } })];
    };
    let is_secret = |field: &Value| field["x-vault-displayAttrs"]["sensitive"] == true;
    let secrets: Map<String, Value> = fields
        .iter()
        .filter(|(_, field)| is_secret(field))
        .map(|(name, field)| (name.clone(), secret(field)))
        .collect();
    let mut all: Map<String, Value> = fields.iter().map(|(name, field)| (name.clone(), plain(name, field))).collect();
    all.extend(secrets.clone());
    [all.into(), secrets.into()]
}

/// Sends canaries to every route that takes anything: how many there were.
fn walk(client: &Client, document: &Value, said: &impl Fn(&str, &Answer)) -> usize {
    let mut sent = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if LEFT_OUT.contains(&path.as_str()) {
            continue;
        }
        let filled: Vec<&str> = path
            .trim_start_matches('/')
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect();
        for method in ["post", "patch"] {
            let schema = &item[method]["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            for body in bodies(schema) {
                let kind = if method == "patch" { "application/merge-patch+json" } else { "application/json" };
                let headers = [("Content-Type", kind)];
                let answer =
                    client.bytes(&method.to_uppercase(), &filled.join("/"), body.to_string().as_bytes(), &headers);
                said(path, &answer);
                sent += 1;
            }
        }
    }
    sent
}

#[test]
fn a_canary_sent_to_every_route_is_in_no_log_error_record_metric_file_or_snapshot() {
    let server = Server::durable(&Durable { settings: "log_level = \"trace\"\n".to_owned(), ..Durable::default() });
    let root = server.root();
    let file = server.home().join("audit/main.log");
    root.put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } })).assert_status(204);
    for (path, kind) in [("database", "database"), ("one", "kv"), ("cubby", "kv")] {
        root.post(&format!("sys/mounts/{path}"), json!({ "type": kind })).assert_status(204);
    }
    root.post("sys/mounts/two", json!({ "type": "kv", "options": { "version": "2" } })).assert_status(204);
    for method in ["userpass", "approle", "jwt", "kubernetes", "cert"] {
        enable(&server, method, method);
    }
    let document = root.get("sys/internal/specs/openapi").assert_status(200).json();
    let is_there = |text: &str| {
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(CANARY);
        text.contains(CANARY) || text.contains(&encoded[..encoded.len() - 2])
    };
    let said = |path: &str, answer: &Answer| {
        assert!(answer.status < 400 || !is_there(&answer.body), "{path} says it again: {answer}");
    };
    let sent = walk(&root, &document, &said);
    assert!(sent > 150, "{sent}");
    // Whoever may do nothing sends the same, and a token that is one.
    let nobody = server.with_policy("nobody", "path \"x\" { capabilities = [\"read\"] }");
    walk(&nobody, &document, &said);
    walk(&server.nobody().with_token(CANARY), &document, &said);

    let metrics = root.get("sys/metrics?format=prometheus").assert_status(200).body;
    let snapshot = root.get("sys/storage/raft/snapshot").assert_status(200).body;
    let mut kept: Vec<(String, String)> = vec![("metrics".to_owned(), metrics), ("snapshot".to_owned(), snapshot)];
    server.terminate();
    for folder in [server.home().to_owned(), server.home().join("audit")] {
        for entry in fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let bytes = fs::read(entry.path()).unwrap();
            kept.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    kept.push(("log".to_owned(), server.log()));
    assert!(kept.iter().any(|(place, text)| place.ends_with("main.log") && text.contains("database/config/x")));
    for (place, text) in &kept {
        if let Some(at) = text.find(CANARY) {
            let around: String = text[..at].chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            panic!("{place}: …{around}");
        }
        assert!(!is_there(text), "{place}, in base64");
    }
}
