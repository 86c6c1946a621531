//! Leaks: canaries in requests, and a look at answers, logs and audit records.
//!
//! That our log and our audit files hold no secret is also looked at when each server goes.

use serde_json::{Value, json};

use super::{Fact, Same, enable_auth, here, holds, on_both, write};
use crate::support::{Answer, Client, Kind, Server};

const CANARY: &str = "canary-Lq83vTz7";

/// The server with a device that hashes; OpenBao takes its devices from its configuration alone.
fn audited(server: &Server) -> Fact {
    server.secrets().tell(CANARY);
    let file = server.home().join("audit/a.log");
    let made = server.root().put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } }));
    holds(made.status == 204, "the device is not made over the API")
}

fn unrecorded(server: &Server) -> Fact {
    let text = server.audit_text();
    holds(text.lines().count() > 1, "nothing is recorded")?;
    let line = text.lines().find(|line| line.contains(CANARY)).unwrap_or_default();
    holds(line.is_empty(), &format!("recorded: {line}"))
}

/// CVE-2025-62513, CVE-2025-62705: values of some kinds were recorded as they came.
#[test]
fn no_kind_of_value_is_recorded_in_clear() {
    here(|server| {
        audited(server)?;
        let root = server.root();
        for value in [
            json!(CANARY),
            json!([CANARY]),
            json!({ "deep": { "deeper": [[CANARY]] } }),
            json!([[[{ "x": CANARY }]]]),
            json!(format!("{CANARY}\n\u{7f}")),
        ] {
            root.post("secret/data/x", json!({ "data": { "a": value }, "options": {} }));
            root.post("cubbyhole/x", json!({ "a": value, "data": value }));
            root.post("sys/wrapping/wrap", json!({ "a": value }));
            root.post("nomount/x", json!({ "a": value }));
            root.post("sys/tools/hash", json!({ "input": value }));
        }
        root.get("secret/data/x");
        root.get("cubbyhole/x");
        unrecorded(server)
    });
}

#[test]
fn values_in_a_query_are_not_recorded_in_clear() {
    here(|server| {
        audited(server)?;
        let root = server.root();
        for path in ["secret/data/x", "sys/mounts", "auth/token/lookup-self", "sys/policies/acl/x"] {
            root.raw_path("GET", &format!("/v1/{path}?token={CANARY}&secret={CANARY}&version={CANARY}"));
            root.raw_path("DELETE", &format!("/v1/{path}x?value={CANARY}"));
        }
        unrecorded(server)
    });
}

#[test]
fn forms_are_recorded_like_json() {
    here(|server| {
        audited(server)?;
        let form = format!("input={CANARY}&a={CANARY}");
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        server.root().bytes("POST", "sys/wrapping/wrap", form.as_bytes(), &kind);
        server.root().bytes("POST", "cubbyhole/x", form.as_bytes(), &kind);
        unrecorded(server)
    });
}

/// A header that carries the token stays out, whatever is registered.
#[test]
fn the_headers_with_a_token_are_never_recorded_in_clear() {
    here(|server| {
        audited(server)?;
        let root = server.root();
        for header in ["X-Vault-Token", "Authorization", "x-vault-token"] {
            root.post(&format!("sys/config/auditing/request-headers/{header}"), json!({ "hmac": false }));
        }
        let bearer = format!("Bearer {CANARY}");
        server.nobody().bytes("GET", "sys/mounts", b"", &[("Authorization", &bearer)]);
        server.nobody().bytes("GET", "sys/mounts", b"", &[("X-Vault-Token", CANARY)]);
        root.get("sys/mounts").assert_status(200);
        unrecorded(server)
    });
}

/// An error stands in a record as the client reads it. It repeats what was given for a number or a time, as Vault's does, and never
/// what may be a secret.
#[test]
fn an_error_recorded_holds_no_secret() {
    here(|server| {
        audited(server)?;
        let root = server.root();
        enable_auth(server, "userpass", "userpass");
        for (path, body) in [
            ("auth/userpass/users/ada", json!({ "password": { "a": CANARY } })),
            ("auth/userpass/users/ada", json!({ "password_hash": CANARY })),
            ("auth/token/create", json!({ "id": { "a": CANARY } })),
            ("auth/token/lookup", json!({ "token": CANARY })),
            ("auth/token/lookup", json!({ "token": [CANARY] })),
            ("secret/data/x", json!({ "data": CANARY })),
            ("sys/wrapping/unwrap", json!({ "token": CANARY })),
            ("sys/leases/lookup", json!({ "lease_id": CANARY })),
        ] {
            holds(root.post(path, body).status >= 400, &format!("{path} is taken"))?;
        }
        unrecorded(server)
    });
}

fn quiet(answer: &Answer) -> Fact {
    holds(answer.status >= 400, &format!("{} is taken", answer.asked))?;
    holds(!answer.body.contains(CANARY), &format!("{} gives the canary back", answer.asked))
}

/// CVE-2025-4166: a malformed value came back in the error.
#[test]
fn malformed_bodies_do_not_come_back() {
    on_both(Same, |server| {
        let root = server.root();
        for path in ["secret/data/x", "cubbyhole/x", "auth/token/create", "sys/wrapping/wrap", "sys/policies/acl/x"] {
            for body in [
                format!("{{\"data\":{{\"password\":\"{CANARY}\""),
                format!("{{\"data\":\"{CANARY}\\x\"}}"),
                format!("{{\"data\":{{\"{CANARY}\":}}}}"),
                format!("[\"{CANARY}\"]"),
                format!("\"{CANARY}\""),
            ] {
                quiet(&root.bytes("POST", path, body.as_bytes(), &[]))?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_secret_of_the_wrong_type_does_not_come_back_from_kv() {
    on_both(Same, |server| {
        let root = server.root();
        for body in [
            json!({ "data": CANARY }),
            json!({ "data": [CANARY] }),
            json!({ "data": { "a": CANARY }, "options": CANARY }),
        ] {
            quiet(&root.post("secret/data/x", body))?;
        }
        Ok(())
    });
}

#[test]
fn a_password_of_the_wrong_type_does_not_come_back() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        let (root, nobody) = (server.root(), server.nobody());
        for value in [json!({ "a": CANARY }), json!([[CANARY]])] {
            quiet(&root.post("auth/userpass/users/ada", json!({ "password": value })))?;
            quiet(&nobody.post("auth/userpass/login/ada", json!({ "password": value })))?;
            quiet(&nobody.put("sys/unseal", json!({ "key": value })))?;
        }
        quiet(&nobody.post("auth/userpass/login/ada", json!({ "password": CANARY })))
    });
}

/// CVE-2025-52893.
#[test]
fn a_token_that_is_no_good_does_not_come_back() {
    on_both(Same, |server| {
        let root = server.root();
        let stranger: Client = root.with_token(CANARY);
        quiet(&stranger.get("sys/mounts"))?;
        for path in [
            "auth/token/lookup",
            "auth/token/renew",
            "sys/wrapping/lookup",
            "sys/wrapping/unwrap",
            "sys/wrapping/rewrap",
        ] {
            quiet(&root.put(path, json!({ "token": CANARY })))?;
        }
        quiet(&root.put("sys/capabilities", json!({ "token": CANARY, "paths": ["x"] })))
    });
}

/// CVE-2025-6000: a file of the operator's choice, executable, with a text of the operator's choice in front.
#[test]
fn an_audit_device_writes_no_executable_and_no_text_of_ones_own() {
    on_both(Same, |server| {
        let file = server.home().join("audit/run.sh");
        for options in [
            json!({ "file_path": file, "mode": "0755" }),
            json!({ "file_path": file, "mode": "0111" }),
            json!({ "file_path": file, "mode": "0777", "prefix": "#!/bin/sh\n" }),
            json!({ "file_path": file, "mode": "4700" }),
            json!({ "file_path": file, "prefix": "#!/bin/sh\necho x\n" }),
        ] {
            server.root().put("sys/audit/file", json!({ "type": "file", "options": options }));
            server.root().get("sys/mounts");
            server.root().delete("sys/audit/file");
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            holds(!text.contains("#!"), "a text of one's own stands in the file")?;
            let is_executable = std::fs::metadata(&file).is_ok_and(|file| mode(&file) & 0o6111 != 0);
            holds(!is_executable, "the file may be run")?;
            let _ = std::fs::remove_file(&file);
        }
        Ok(())
    });
}

fn mode(file: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&file.permissions())
}

#[test]
fn an_audit_device_writes_nowhere_else() {
    on_both(Same, |server| {
        let home = server.home().display().to_string();
        for path in [
            format!("{home}/elsewhere.log"),
            format!("{home}/audit/../elsewhere.log"),
            format!("{home}/audit/./../elsewhere.log"),
            "/etc/cron.d/leasehold".to_owned(),
            "../elsewhere.log".to_owned(),
            "/proc/self/mem".to_owned(),
        ] {
            let made = server.root().put("sys/audit/file", json!({ "type": "file", "options": { "file_path": path } }));
            holds(made.status >= 400, &format!("{path} is written"))?;
        }
        holds(!server.home().join("elsewhere.log").exists(), "the file is there")
    });
}

#[test]
fn an_audit_device_that_shows_values_is_not_made_over_the_api() {
    on_both(Same, |server| {
        let file = server.home().join("audit/raw.log");
        for name in ["log_raw", "LOG_RAW"] {
            let options = json!({ "file_path": file, name: "true" });
            server.root().put("sys/audit/raw", json!({ "type": "file", "options": options }));
            server.root().post("secret/data/x", json!({ "data": { "a": CANARY } }));
            server.root().delete("sys/audit/raw");
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            holds(!text.contains(CANARY), "the canary is recorded")?;
        }
        Ok(())
    });
}

/// Nothing is loaded from a directory because somebody says so over the API.
#[test]
fn no_program_becomes_a_plugin() {
    on_both(Same, |server| {
        for kind in ["secret", "auth", "database"] {
            let body = json!({ "sha256": "0".repeat(64), "command": "run.sh" });
            let answer = server.root().put(&format!("sys/plugins/catalog/{kind}/run"), body);
            holds(answer.status >= 400, "a plugin is registered")?;
        }
        let mounted = server.root().post("sys/mounts/x", json!({ "type": "plugin", "plugin_name": "run" }));
        holds(mounted.status >= 400, "a plugin is mounted")
    });
}

#[test]
fn a_password_that_was_stored_is_read_by_nobody() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        let root = server.root();
        write(&root, "auth/userpass/users/ada", json!({ "password": CANARY }));
        write(&root, "sys/mounts/database", json!({ "type": "database" }));
        let config = json!({
            "plugin_name": "postgresql-database-plugin", "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/x",
            "username": "u", "password": CANARY, "verify_connection": false,
        });
        root.post("database/config/pg", config);
        let answers =
            [root.get("auth/userpass/users/ada"), root.get("database/config/pg"), root.list("database/config")];
        let told = answers.iter().map(|answer| answer.json()).any(|answer: Value| answer.to_string().contains(CANARY));
        holds(!told, "the password comes back")?;
        holds(server.kind() == Kind::OpenBao || !server.log().contains(CANARY), "the password is in the log")
    });
}
