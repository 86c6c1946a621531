//! Control endpoints without authentication: strangers change nothing.

use serde_json::{Value, json};

use super::{Differs, Fact, Same, holds, on_both, write};
use crate::support::Server;

/// What strangers may ask, by contract.md §4.4 and §2.8: answered before anybody is asked who they are.
const OPEN: [&str; 16] = [
    "sys/init",
    "sys/seal-status",
    "sys/unseal",
    "sys/health",
    "sys/leader",
    "sys/wrapping/lookup",
    "sys/wrapping/pubkey",
    "sys/wrapping/unwrap",
    "sys/wrapping/rewrap",
    "sys/internal/specs/openapi",
    "sys/internal/ui/",
    "sys/decode-token",
    "sys/mfa/validate",
    "sys/replication/status",
    "sys/generate-root",
    "sys/rekey",
];

/// CVE-2026-5807: an attempt was cancelled by whoever asked.
#[test]
fn nobody_cancels_the_making_of_a_root_token_without_its_nonce() {
    on_both(Same, |server| {
        let root = server.root();
        let begun = root.put("sys/generate-root-token/attempt", json!({}));
        let begun = if begun.status == 200 { begun } else { root.put("sys/generate-root/attempt", json!({})) };
        for path in ["sys/generate-root/attempt", "sys/generate-root-token/attempt"] {
            server.nobody().delete(path);
            server.nobody().with_token("s.unknown").delete(path);
            server.nobody().put(path, json!({ "nonce": "x", "reset": true }));
        }
        if begun.status == 200 {
            let now = root.get("sys/generate-root-token/attempt");
            let now = if now.status == 200 { now } else { root.get("sys/generate-root/attempt") };
            holds(
                now.at("/nonce") == begun.at("/nonce") || now.at("/data/nonce") == begun.at("/data/nonce"),
                "the attempt is gone",
            )?;
        }
        Ok(())
    });
}

#[test]
fn nobody_begins_or_cancels_new_key_shares() {
    on_both(Same, |server| {
        for path in
            ["sys/rekey/init", "sys/rekey-recovery-key/init", "sys/rotate/root/init", "sys/rotate/recovery/init"]
        {
            for client in [server.nobody(), server.nobody().with_token("s.unknown")] {
                let begun = client.put(path, json!({ "secret_shares": 1, "secret_threshold": 1 }));
                holds(begun.status >= 400, &format!("{path} is begun"))?;
                let gone = client.delete(path);
                holds(gone.status >= 400, &format!("{path} is cancelled"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn nobody_seals_steps_down_or_rotates() {
    on_both(Differs("sys/step-down is answered"), |server| {
        for path in ["sys/seal", "sys/step-down", "sys/rotate", "sys/rotate/keyring", "sys/rotate/config"] {
            for client in
                [server.nobody(), server.nobody().with_token("s.unknown"), server.with_policy("none", "# nothing")]
            {
                holds(client.put(path, json!({})).status >= 400, &format!("{path} is answered"))?;
            }
        }
        holds(server.nobody().get("sys/seal-status").at("/sealed") == false, "the server is sealed")
    });
}

#[test]
fn nobody_initialises_a_server_again() {
    on_both(Same, |server| {
        let answer = server.nobody().put("sys/init", json!({ "secret_shares": 1, "secret_threshold": 1 }));
        holds(answer.status == 400 && answer.at("/root_token").is_null(), "it is initialised again")
    });
}

#[test]
fn an_unsealed_server_takes_no_share_and_forgets_none() {
    on_both(Same, |server| {
        server.nobody().put("sys/unseal", json!({ "reset": true }));
        server.nobody().put("sys/unseal", json!({ "key": "00".repeat(33) }));
        server.nobody().put("sys/unseal", json!({ "key": "00".repeat(33), "migrate": true }));
        holds(server.nobody().get("sys/seal-status").at("/sealed") == false, "the server is sealed")
    });
}

/// CVE-2024-8185: strangers joined, and every attempt cost memory.
#[test]
fn nobody_joins_or_restores() {
    on_both(Same, |server| {
        for (method, path) in [
            ("POST", "sys/storage/raft/join"),
            ("POST", "sys/storage/raft/bootstrap"),
            ("POST", "sys/storage/raft/bootstrap/challenge"),
            ("POST", "sys/storage/raft/bootstrap/answer"),
            ("POST", "sys/storage/raft/snapshot"),
            ("POST", "sys/storage/raft/snapshot-force"),
            ("GET", "sys/storage/raft/snapshot"),
            ("POST", "sys/storage/raft/remove-peer"),
        ] {
            let answer = server.nobody().request(method, path, (method == "POST").then(|| json!({ "server_id": "x" })));
            holds(answer.status >= 400, &format!("{method} {path} is answered"))?;
        }
        Ok(())
    });
}

/// Every path of the server's own description, with every verb.
#[test]
fn every_path_that_is_not_named_asks_who_somebody_is() {
    // Its development server shows metrics to strangers.
    on_both(Differs("GET sys/metrics is answered with 200"), |server| {
        write(&server.root(), "sys/mounts/database", json!({ "type": "database" }));
        let document = server.root().get("sys/internal/specs/openapi").json();
        let paths =
            document["paths"].as_object().map_or_else(Vec::new, |paths| paths.keys().cloned().collect::<Vec<_>>());
        holds(paths.len() > 100, "there is no description")?;
        for path in paths {
            let path = filled(&path);
            let is_open = OPEN.iter().any(|open| path.starts_with(open))
                || path.contains("/login")
                || path.starts_with("cubbyhole");
            if is_open || path.starts_with("identity/oidc") || path.starts_with("auth/token/login") {
                continue;
            }
            for method in ["GET", "LIST", "POST", "DELETE"] {
                asks(server, method, &path)?;
            }
        }
        Ok(())
    });
}

fn asks(server: &Server, method: &str, path: &str) -> Fact {
    let answer = server.nobody().request(method, path, (method == "POST").then(|| json!({ "a": "b" })));
    holds(answer.status >= 400, &format!("{method} {path} is answered with {}", answer.status))?;
    holds(answer.at("/data") == Value::Null, &format!("{method} {path} tells something"))
}

/// A path of the description, with something for each of its fields.
fn filled(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path.trim_start_matches('/');
    while let Some((before, behind)) = rest.split_once('{') {
        text.push_str(before);
        text.push('x');
        rest = behind.split_once('}').map_or("", |(_, rest)| rest);
    }
    text + rest
}
