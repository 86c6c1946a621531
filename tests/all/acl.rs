//! Access control, through the whole server: contract.md §4.
//!
//! The recorded answers of a real OpenBao (`guests/acl/tests/acl-sample.jsonl`) are asked again here: what
//! `sys/capabilities` says, and which texts a write refuses. The sample's single requests need secrets engines that do
//! not exist here; the guest's own test `sample` decides them.

use serde_json::{Value, json};

use crate::support::{Bao, Client, Server};

const SAMPLE: &str = include_str!("../../guests/acl/tests/acl-sample.jsonl");

#[test]
fn recorded_answers_are_ours_too() {
    recorded_answers(&Server::dev());
}

#[test]
fn recorded_answers_are_still_those_of_a_real_openbao() {
    let Some(bao) = Bao::find("the recorded ACL answers against a real OpenBao") else { return };
    recorded_answers(&Server::openbao(&bao));
}

fn recorded_answers(server: &Server) {
    let (mut capabilities, mut texts, mut wrong) = (0, 0, Vec::new());
    for line in SAMPLE.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let seen = match row["kind"].as_str() {
            Some("caps") => {
                capabilities += 1;
                capabilities_of(server, &row)
            }
            Some("syntax") => {
                texts += 1;
                let body = json!({ "policy": row["policies"][0] });
                match server.root().put("sys/policies/acl/sample", body).status {
                    204 => json!("accept"),
                    400 => json!("refuse"),
                    other => json!(other),
                }
            }
            _ => continue,
        };
        if seen != row["expected"] {
            wrong.push(format!("{seen} for {line}"));
        }
    }
    assert_eq!((capabilities, texts), (79, 5));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn capabilities_of(server: &Server, row: &Value) -> Value {
    let root = server.root();
    let names: Vec<String> = row["policies"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, text)| match text.as_str().unwrap() {
            known @ ("@root" | "@default") => known.trim_start_matches('@').to_owned(),
            text => {
                let name = format!("row{}-{index}", row["n"]);
                let written = root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text }));
                // With a body where there is something to warn of.
                assert!(matches!(written.status, 200 | 204), "{written}");
                name
            }
        })
        .collect();
    let made = root.post("auth/token/create", json!({ "policies": names })).assert_status(200);
    let body = json!({ "token": made.text("/auth/client_token"), "paths": [row["path"]] });
    root.post("sys/capabilities", body).assert_status(200).at("/data/capabilities")
}

#[test]
fn what_no_rule_grants_is_denied() {
    let server = Server::dev();
    let none = server.with_policy("none", "# grants nothing");
    let one = server.with_policy("one", r#"path "sys/mounts" { capabilities = ["read"] }"#);
    one.get("sys/mounts").assert_status(200);
    for client in [&none, &one] {
        for (method, path) in [
            ("GET", "sys/policies/acl/one"),
            ("LIST", "sys/policies/acl"),
            ("POST", "sys/mounts/x"),
            ("DELETE", "sys/mounts/x"),
            ("GET", "sys/mounts/x"),
            ("POST", "auth/token/create"),
            ("GET", "nomount/x"),
        ] {
            let body = (method == "POST").then(|| json!({ "type": "database" }));
            client.request(method, path, body).assert_multi(403, "permission denied");
        }
    }
    server.root().get("sys/mounts/x").assert_status(400);
}

/// A path with a slash gets nothing that is denied for either spelling. A real OpenBao looks only at the one that is sent.
#[test]
fn a_deny_holds_with_and_without_a_slash_at_the_end() {
    let server = Server::dev();
    server.root().post("sys/mounts/prod", json!({ "type": "database" })).assert_status(204);
    let read = |path: &str| format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n");
    let deny = |path: &str| format!("path \"{path}\" {{ capabilities = [\"deny\"] }}\n");
    for (name, text, bare, slashed) in [
        ("a", read("sys/mounts/*"), 200, 200),
        ("b", read("sys/mounts/*") + &deny("sys/mounts/prod/"), 200, 403),
        ("c", read("sys/mounts/*") + &deny("sys/mounts/prod"), 403, 403),
        ("d", read("sys/mounts/+"), 200, 403),
        ("e", read("sys/mounts/prod/*"), 403, 403),
    ] {
        let client = server.with_policy(name, &text);
        assert_eq!(client.get("sys/mounts/prod").status, bare, "{text}");
        assert_eq!(client.get("sys/mounts/prod/").status, slashed, "{text}");
    }
}

/// What a rule may be for, seen from the path `x`.
fn patterns_around(path: &str) -> Vec<String> {
    let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
    let beside = if folder.is_empty() { "+".to_owned() } else { format!("{folder}/+") };
    let shapes = [path.to_owned(), format!("{path}/"), format!("{path}/*"), format!("{path}*"), format!("{path}/+")];
    shapes.into_iter().chain([beside.clone(), format!("{beside}/"), "*".to_owned()]).collect()
}

/// One path under one set of rules: whether capabilities and decisions allow reads, deletions and lists.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    row: String,
    capabilities: [bool; 3],
    decisions: [bool; 3],
}

/// Asks for each path, with a slash and without, under each pair of rules that is near it.
fn judged(server: &Server, paths: &[&str]) -> Vec<Judged> {
    let mut all = Vec::new();
    for path in paths {
        let patterns = patterns_around(path);
        let none = String::new();
        for granted in &patterns {
            for other in patterns.iter().chain([&none]) {
                let mut text = format!("path {granted:?} {{ capabilities = [\"read\", \"delete\", \"list\"] }}\n");
                match other {
                    none if none.is_empty() => {}
                    same if same == granted => continue,
                    // A rule that denies, and one that grants another thing.
                    other if other.len() % 2 == 0 => text += &format!("path {other:?} {{ capabilities = [\"deny\"] }}"),
                    other => text += &format!("path {other:?} {{ capabilities = [\"list\"] }}"),
                }
                let client = server.with_policy("pair", &text);
                for spelled in [(*path).to_owned(), format!("{path}/")] {
                    let asked = client.post("sys/capabilities-self", json!({ "paths": [spelled] }));
                    let found = asked.assert_status(200).at("/data/capabilities");
                    let has = |name: &str| found.as_array().unwrap().iter().any(|known| known == name);
                    let gets = |method: &str| client.request(method, &spelled, None).status != 403;
                    // A list is a request for the path with the slash, however it is sent.
                    let lists = spelled.ends_with('/');
                    all.push(Judged {
                        row: format!("{spelled} under {text}"),
                        capabilities: [has("read"), has("delete"), lists && has("list")],
                        decisions: [gets("GET"), gets("DELETE"), lists && gets("LIST")],
                    });
                }
            }
        }
    }
    all
}

/// S11: `sys/capabilities` said "read" of `database/x/`, and a GET of that path was denied.
#[test]
fn capabilities_say_what_a_request_on_the_same_path_gets() {
    let server = Server::dev();
    server.root().post("sys/mounts/kvs", json!({ "type": "kv" })).assert_status(204);
    server.root().post("sys/mounts/pgs", json!({ "type": "database" })).assert_status(204);
    // Served with a slash as without, served without only, lists, a mount, nothing at all.
    let paths =
        ["sys/mounts/p", "kvs/a", "kvs/a/b", "sys/policies/acl/p", "pgs/creds/x", "pgs/roles", "pgs", "nomount/x"];
    let rows = judged(&server, &paths);
    assert!(rows.len() > 500, "{}", rows.len());
    let wrong: Vec<&Judged> = rows.iter().filter(|row| row.capabilities != row.decisions).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), rows.len());
    assert!(rows.iter().any(|row| row.row.starts_with("sys/mounts/p/ ") && row.decisions[0]));
}

/// Where a slash is no second name of the same thing, a real OpenBao decides as we do.
#[test]
fn paths_with_a_slash_are_decided_as_by_a_real_openbao() {
    let Some(bao) = Bao::find("paths with a slash at the end beside a real OpenBao") else { return };
    let (our, their) = (Server::dev(), Server::openbao(&bao));
    for server in [&our, &their] {
        server.root().post("sys/mounts/pgs", json!({ "type": "database" })).assert_status(204);
    }
    let paths = ["pgs/creds/x", "nomount/x"];
    let (ours, theirs) = (judged(&our, &paths), judged(&their, &paths));
    let wrong: Vec<_> = ours.iter().zip(&theirs).filter(|(our, their)| our.decisions != their.decisions).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Its capabilities say of reads, too, what holds for lists only: those that a rule for the path without the slash grants.
    let less: Vec<_> = ours.iter().zip(&theirs).filter(|(our, their)| our.capabilities != their.capabilities).collect();
    for (our, their) in less {
        assert_eq!(our.capabilities[2], their.capabilities[2], "{our:#?}");
        assert_ne!(their.capabilities, their.decisions, "{our:#?}");
    }
}

#[test]
fn a_deny_beats_every_grant_of_the_same_path() {
    let server = Server::dev();
    let root = server.root();
    let put = |name: &str, text: &str| root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text }));
    put("a-grant", r#"path "sys/mounts" { capabilities = ["read", "sudo"] }"#).assert_status(204);
    put("b-deny", r#"path "sys/mounts" { capabilities = ["deny"] }"#).assert_status(204);
    put("c-both", r#"path "sys/mounts" { capabilities = ["read", "deny"] }"#)
        .assert_status(200)
        .assert_warning("beside \"deny\" no other capability counts");
    let with = |names: &[&str]| -> Client {
        let made = root.post("auth/token/create", json!({ "policies": names })).assert_status(200);
        root.with_token(&made.text("/auth/client_token"))
    };
    with(&["a-grant"]).get("sys/mounts").assert_status(200);
    with(&["a-grant", "b-deny"]).get("sys/mounts").assert_multi(403, "permission denied");
    with(&["c-both"]).get("sys/mounts").assert_multi(403, "permission denied");
    // The rule counts from the next request on, in both directions.
    let client = with(&["a-grant"]);
    put("a-grant", r#"path "sys/mounts" { capabilities = ["deny"] }"#).assert_status(204);
    client.get("sys/mounts").assert_multi(403, "permission denied");
    root.delete("sys/policies/acl/a-grant").assert_status(204);
    client.get("sys/mounts").assert_multi(403, "permission denied");
}

/// §4.4, in the order in which they are asked: the last one seals.
const PROTECTED: [(&str, &str); 34] = [
    ("GET", "sys/auth/token"),
    ("PUT", "sys/auth/nosuch"),
    ("DELETE", "sys/auth/nosuch"),
    ("GET", "sys/auth/token/tune"),
    ("PUT", "sys/auth/token/tune"),
    ("GET", "sys/audit"),
    ("PUT", "sys/audit/nosuch"),
    ("DELETE", "sys/audit/nosuch"),
    ("GET", "sys/config/auditing/request-headers"),
    ("PUT", "sys/config/auditing/request-headers/x"),
    ("GET", "sys/config/auditing/request-headers/x"),
    ("DELETE", "sys/config/auditing/request-headers/x"),
    ("GET", "sys/leases"),
    // Not `sys/leases/lookup` itself: the exact rule of `default` hides `*` there, as in Vault.
    ("LIST", "sys/leases/lookup/nosuch"),
    ("PUT", "sys/leases/revoke-prefix/nosuch"),
    ("PUT", "sys/leases/revoke-force/nosuch"),
    ("PUT", "sys/revoke-prefix/nosuch"),
    ("PUT", "sys/revoke-force/nosuch"),
    ("PUT", "sys/rotate"),
    ("PUT", "sys/rotate/keyring"),
    ("LIST", "auth/token/accessors"),
    // Nothing serves these here, and who has no sudo does not learn that.
    ("PUT", "sys/remount"),
    ("GET", "sys/raw/x"),
    ("LIST", "sys/raw/x"),
    ("PUT", "sys/rotate/root"),
    ("GET", "sys/config/cors"),
    ("PUT", "sys/config/cors"),
    ("GET", "sys/config/ui/headers/x"),
    ("LIST", "sys/config/ui/headers"),
    ("LIST", "sys/plugins/catalog/database"),
    ("PUT", "sys/plugins/catalog/database/x"),
    ("GET", "sys/internal/inspect/router/root"),
    ("PUT", "auth/token/revoke-orphan/x"),
    ("PUT", "sys/seal"),
];

/// What one might take for protected, and is not.
const UNPROTECTED: [(&str, &str); 13] = [
    ("GET", "sys/auth"),
    ("GET", "sys/mounts"),
    ("PUT", "sys/mounts/nosuch"),
    ("DELETE", "sys/mounts/nosuch"),
    ("GET", "sys/key-status"),
    ("LIST", "sys/policies/acl"),
    ("PUT", "sys/policies/acl/nosuch"),
    ("PUT", "sys/audit-hash/nosuch"),
    ("PUT", "sys/leases/tidy"),
    ("GET", "sys/internal/ui/mounts"),
    ("PUT", "sys/step-down"),
    ("PUT", "auth/token/create-orphan"),
    ("PUT", "auth/token/revoke-orphan"),
];

/// Paths that only we have: who writes a module runs something …
const OURS_PROTECTED: [(&str, &str); 4] = [
    ("PUT", "sys/modules/nosuch"),
    ("DELETE", "sys/modules/nosuch"),
    ("PUT", "sys/policies/egp/nosuch"),
    ("DELETE", "sys/policies/egp/nosuch"),
];

/// … and who reads one does not.
const OURS_UNPROTECTED: [(&str, &str); 4] = [
    ("GET", "sys/modules/nosuch"),
    ("LIST", "sys/modules"),
    ("GET", "sys/policies/egp/nosuch"),
    ("LIST", "sys/policies/egp"),
];

#[test]
fn protected_paths_need_sudo_and_the_capability() {
    let server = Server::dev();
    sudo_is_needed(&server, &OURS_PROTECTED, &OURS_UNPROTECTED);
    sudo_is_needed(&server, &PROTECTED, &UNPROTECTED);
    server.nobody().get("sys/seal-status").assert_at("/sealed", true);
}

#[test]
fn the_same_paths_are_protected_in_a_real_openbao() {
    let Some(bao) = Bao::find("which paths need sudo, against a real OpenBao") else { return };
    sudo_is_needed(&Server::openbao(&bao), &PROTECTED, &UNPROTECTED);
}

/// The ordinary capability alone does not open these, sudo alone neither.
fn sudo_is_needed(server: &Server, protected: &[(&str, &str)], unprotected: &[(&str, &str)]) {
    let all = r#""create", "read", "update", "delete", "list""#;
    let plain = server.with_policy("plain", &format!("path \"*\" {{ capabilities = [{all}] }}"));
    let sudo = server.with_policy("sudo", "path \"*\" { capabilities = [\"sudo\"] }");
    let both = server.with_policy("both", &format!("path \"*\" {{ capabilities = [{all}, \"sudo\"] }}"));
    let ask = |client: &Client, method, path| client.request(method, path, (method == "PUT").then(|| json!({})));
    for &(method, path) in unprotected {
        let allowed = ask(&plain, method, path);
        assert_ne!(allowed.status, 403, "{allowed}");
    }
    for &(method, path) in protected {
        ask(&plain, method, path).assert_multi(403, "permission denied");
        ask(&sudo, method, path).assert_multi(403, "permission denied");
        let allowed = ask(&both, method, path);
        assert_ne!(allowed.status, 403, "{allowed}");
    }
}
