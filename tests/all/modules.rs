//! Third parties' policy modules: stored by digest, bound to paths, and never an allow when they fail.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Database, Durable, Server, change_freeze, component_probe, eventually, policy_probe,
};

const READER: &str =
    "path \"database/creds/r\" { capabilities = [\"read\"] }\npath \"sys/leases/*\" { capabilities = [\"update\"] }";

fn ready() -> (Server, Database<'static>, Client) {
    let (server, database) = (Server::durable(&Durable::default()), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let client = server.with_policy("reader", READER);
    (server, database, client)
}

pub(super) fn push(server: &Server, name: &str, bytes: &[u8]) -> Answer {
    server.root().bytes("PUT", &format!("sys/modules/{name}"), bytes, &[("Content-Type", "application/wasm")])
}

pub(super) fn bind(server: &Server, name: &str, module: &str, level: &str, config: Value) -> Answer {
    server.root().put(
        &format!("sys/policies/egp/{name}"),
        json!({ "module": module, "paths": ["database/creds/*"], "enforcement_level": level, "config": config }),
    )
}

pub(super) fn window(from: i64, to: i64) -> Value {
    json!({ "windows": [{ "from": from, "to": to, "message": "release week" }], "max_ttl": "10m" })
}

const LONG_AGO: (i64, i64) = (1_000_000_000, 1_000_000_060);
pub(super) const ALWAYS: (i64, i64) = (1_000_000_000, 4_000_000_000);

#[test]
fn a_module_is_kept_by_its_digest() {
    let (server, ..) = ready();
    let root = server.root();
    root.list("sys/modules").assert_errors(404, &[]);
    let pushed = push(&server, "freeze", &change_freeze()).assert_status(200);
    let digest = pushed.text("/data/digest");
    let read = root.get("sys/modules/freeze").assert_status(200);
    let read = read.assert_at("/data/digest", digest.as_str()).assert_at("/data/module_name", "change-freeze");
    assert_eq!(read.at("/data/size"), json!(change_freeze().len()));
    root.list("sys/modules").assert_at("/data/keys", json!(["freeze"]));

    let encoded = base64::engine::general_purpose::STANDARD.encode(change_freeze());
    root.put("sys/modules/again", json!({ "module": encoded })).assert_status(200).assert_at("/data/digest", digest);
    bind(&server, "p", "freeze", "hard-mandatory", json!({})).assert_status(204);
    root.delete("sys/modules/freeze").assert_error_has(400, "is used by p");
    root.delete("sys/policies/egp/p").assert_status(204);
    root.delete("sys/modules/freeze").assert_status(204);
    root.get("sys/modules/freeze").assert_errors(404, &[]);
}

#[test]
fn a_change_freeze_refuses_with_its_message_and_caps_outside_it() {
    let (server, database, client) = ready();
    push(&server, "freeze", &change_freeze()).assert_status(200);
    bind(&server, "freeze", "freeze", "hard-mandatory", window(ALWAYS.0, ALWAYS.1)).assert_status(204);
    let refused = client.get("database/creds/r").assert_error_has(403, "release week");
    assert!(refused.body.contains("credentials are frozen until"), "{refused}");
    assert_eq!(database.sql("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-token-r-%'"), "0");
    server.root().list("sys/leases/lookup/database/creds/r").assert_errors(404, &[]);

    // After it: granted, and no longer than the module allows.
    bind(&server, "freeze", "freeze", "hard-mandatory", window(LONG_AGO.0, LONG_AGO.1)).assert_status(204);
    let credential = client.credential("r");
    assert_eq!(credential.ttl, 600, "the ceiling of the module");
    credential.login(&database);
    let left = database.seconds_left(&credential.user);
    assert!(left <= 605, "{left}");
    let renewed = client.put("sys/leases/renew", json!({ "lease_id": credential.lease, "increment": "10h" }));
    assert!(renewed.status == 400 || renewed.number("/lease_duration") <= 600, "{renewed}");

    // The policy is still there after a restart.
    bind(&server, "freeze", "freeze", "hard-mandatory", window(ALWAYS.0, ALWAYS.1)).assert_status(204);
    server.crash_and_restart();
    // Until its module is loaded, what it judges is refused in other words.
    let refused = (0..600).find_map(|_| {
        let answer = client.get("database/creds/r");
        if answer.status != 503 {
            return Some(answer);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        None
    });
    refused.expect("the module is loaded within a minute").assert_error_has(403, "release week");
    client.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user), "a freeze never keeps a credential alive");
}

#[test]
fn an_acl_denial_stays_one_whatever_a_module_says() {
    let (server, ..) = ready();
    push(&server, "allow", &policy_probe("allow")).assert_status(200);
    bind(&server, "allow", "allow", "hard-mandatory", json!({})).assert_status(204);
    let other = server.with_policy("other", "path \"database/roles/*\" { capabilities = [\"read\"] }");
    other.get("database/creds/r").assert_multi(403, "permission denied");
}

#[test]
fn a_module_that_fails_refuses_or_is_passed_over_as_the_operator_said() {
    let (server, database, client) = ready();
    let file = server.home().join("audit/a.log");
    server.root().put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } })).assert_status(204);
    for name in [
        "endless-loop",
        "memory-bomb",
        "table-bomb",
        "deep-recursion",
        "huge-answer",
        "invalid-utf8",
        "panics",
        "own-failure",
        "stray-pointer",
    ] {
        let pushed = push(&server, name, &policy_probe(name));
        assert_eq!(pushed.status, 200, "{name}: {pushed}");
        bind(&server, "p", name, "hard-mandatory", json!({})).assert_status(204);
        let before = database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-r-%'");
        let refused = client.get("database/creds/r");
        assert_eq!(refused.status, 500, "{name}: {refused}");
        assert_eq!(before, database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-r-%'"), "{name}");
        // Others are served all the same.
        server.root().get("database/roles/r").assert_status(200);

        bind(&server, "p", name, "advisory", json!({})).assert_status(204);
        let passed = client.credential("r");
        // Waited for: the next round counts roles.
        client.put("sys/leases/revoke", json!({ "lease_id": passed.lease, "sync": true })).assert_status(204);
        server.root().delete("sys/policies/egp/p").assert_status(204);
    }
    let audit = std::fs::read_to_string(file).unwrap();
    let records: Vec<Value> =
        audit.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    let failures = records.iter().filter(|record| record.to_string().contains("\"verdict\":\"failed\"")).count();
    assert!(failures >= 9 * 2, "every failure is in the audit record: {failures}");
    assert!(audit.contains("\"fuel\""), "with what it used");
}

#[test]
fn the_load_gate_refuses_what_is_no_policy_module() {
    let (server, ..) = ready();
    let good = policy_probe("allow");
    let mut hostile: Vec<(String, Vec<u8>)> =
        ["extra-import", "wasi-import", "wrong-world", "empty-policy", "resource-import", "threads", "later-version"]
            .map(|name| (name.to_owned(), component_probe(name)))
            .into();
    hostile.push(("empty".to_owned(), Vec::new()));
    hostile.push((
        "garbage".to_owned(),
        (0..10_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect(),
    ));
    hostile.push(("truncated".to_owned(), good[..good.len() / 2].to_vec()));
    hostile.push(("core module".to_owned(), b"\0asm\x01\0\0\0".to_vec()));
    for (name, bytes) in hostile {
        let answer = push(&server, "bad", &bytes);
        assert_eq!(answer.status, 400, "{name}: {answer}");
        server.root().get("sys/modules/bad").assert_errors(404, &[]);
    }
    server.root().put("sys/modules/bad", json!({ "module": "not base64!" })).assert_error_has(400, "base64");
    push(&server, "good", &good).assert_status(200);
}

#[test]
fn placing_code_needs_sudo() {
    let (server, ..) = ready();
    let weak = server.with_policy("weak", "path \"sys/modules/*\" { capabilities = [\"update\", \"delete\", \"read\"] }\npath \"sys/policies/egp/*\" { capabilities = [\"update\", \"delete\"] }");
    weak.bytes("PUT", "sys/modules/x", &policy_probe("allow"), &[("Content-Type", "application/wasm")])
        .assert_multi(403, "permission denied");
    weak.put("sys/policies/egp/x", json!({ "module": "x", "paths": ["*"], "enforcement_level": "advisory" }))
        .assert_multi(403, "permission denied");
    weak.delete("sys/policies/egp/x").assert_multi(403, "permission denied");
}

#[test]
fn a_policy_that_cannot_work_is_refused_when_it_is_written() {
    let (server, ..) = ready();
    push(&server, "freeze", &change_freeze()).assert_status(200);
    let root = server.root();
    bind(&server, "p", "nosuch", "advisory", json!({})).assert_status(400);
    bind(&server, "p", "freeze", "soft-mandatory", json!({})).assert_error_has(400, "not supported");
    bind(&server, "p", "freeze", "sometimes", json!({})).assert_status(400);
    bind(&server, "p", "freeze", "advisory", json!({ "windos": [] })).assert_status(400);
    bind(&server, "p", "freeze", "advisory", json!("text")).assert_status(400);
    root.put("sys/policies/egp/p", json!({ "module": "freeze", "enforcement_level": "advisory" })).assert_status(400);
    root.get("sys/policies/egp/p").assert_errors(404, &[]);
}

#[test]
fn the_command_line_pushes_binds_and_shows_modules() {
    let (server, _database, client) = ready();
    let cli = server.cli();
    let file = cli.home().join("freeze.wasm");
    std::fs::write(&file, change_freeze()).unwrap();
    cli.line("module check freeze.wasm").assert_status(0);
    cli.line("module inspect freeze.wasm").assert_status(0).assert_stdout("change-freeze");
    std::fs::write(cli.home().join("garbage.wasm"), b"garbage").unwrap();
    assert_ne!(cli.line("module check garbage.wasm").status, 0);
    cli.line("module push freeze freeze.wasm").assert_status(0);
    cli.line("module list").assert_status(0).assert_stdout("freeze");
    cli.line("module read freeze").assert_status(0).assert_stdout("change-freeze");
    let config = format!("config={}", window(ALWAYS.0, ALWAYS.1));
    cli.run(&[
        "write",
        "sys/policies/egp/freeze",
        "module=freeze",
        "paths=database/creds/*",
        "enforcement_level=hard-mandatory",
        &config,
    ])
    .assert_status(0);
    client.get("database/creds/r").assert_error_has(403, "release week");
    cli.line("delete sys/policies/egp/freeze").assert_status(0);
    cli.line("module delete freeze").assert_status(0);
    eventually("credentials are granted again", || client.get("database/creds/r").status == 200);
}
