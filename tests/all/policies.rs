//! Policies and capabilities: contract.md §2.3 and §2.4.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Bao, Client, Server, eventually};

const TEXT: &str = "path \"x/*\" { capabilities = [\"read\"] }";

#[test]
fn both_routes_serve_one_store() {
    let server = Server::dev();
    let root = server.root();
    root.put("sys/policy/One", json!({ "policy": TEXT })).assert_status(204);
    root.get("sys/policies/acl/one").assert_status(200).assert_at("/data/policy", TEXT).assert_at("/data/name", "one");
    root.get("sys/policy/one").assert_status(200).assert_at("/data/rules", TEXT).assert_at("/rules", TEXT);
    root.put("sys/policies/acl/a/b", json!({ "policy": TEXT })).assert_status(204);
    root.list("sys/policies/acl").assert_at("/data/keys", json!(["a/b", "default", "one", "root"]));
    for answer in [root.get("sys/policy"), root.list("sys/policy")] {
        let answer = answer.assert_status(200);
        assert_eq!(answer.at("/data/policies"), answer.at("/data/keys"));
        assert_eq!(answer.at("/policies"), answer.at("/data/keys"), "{answer}");
    }
    root.get("sys/policies/acl/root")
        .assert_status(200)
        .assert_at("/data/policy", "")
        .assert_at("/data/cas_required", false);
    root.delete("sys/policy/one").assert_status(204);
    root.delete("sys/policy/one").assert_status(204);
    root.get("sys/policies/acl/one").assert_errors(404, &[]);
}

#[test]
fn the_rule_that_a_command_prints_allows_that_command_and_no_less_would() {
    let server = Server::dev();
    let root = server.cli();
    root.line("secrets enable database").assert_status(0);
    for (at, command) in [
        "secrets enable -path=other database",
        "read sys/mounts/database",
        "list sys/policies/acl",
        "policy write mine -",
        "delete database/roles/x",
        "audit list",
        "lease revoke -prefix database/creds/x",
        "list auth/token/accessors",
        "list sys/leases/lookup/database/creds",
        "list sys/modules",
        "delete sys/modules/x",
    ]
    .into_iter()
    .enumerate()
    {
        let rule = root.line(&format!("{command} -output-policy")).assert_status(0).stdout;
        let allowed = |name: String, rule: &str| {
            server.root().put(&format!("sys/policies/acl/{name}"), json!({ "policy": rule })).assert_status(204);
            let made = server.root().post("auth/token/create", json!({ "policies": [name] })).assert_status(200);
            let ran = root.with_token(&made.text("/auth/client_token")).line(command);
            !ran.stderr.contains("permission denied")
        };
        assert!(allowed(format!("all{at}"), &rule), "{command}: {rule}");
        if rule.contains(", \"sudo\"") {
            assert!(!allowed(format!("less{at}"), &rule.replace(", \"sudo\"", "")), "{command}: sudo is not needed");
        }
    }
}

#[test]
fn a_policy_may_be_base64_json_or_under_its_old_name() {
    let server = Server::dev();
    let root = server.root();
    let encoded = base64::engine::general_purpose::STANDARD.encode(TEXT);
    root.put("sys/policies/acl/p", json!({ "policy": encoded })).assert_status(204);
    root.get("sys/policies/acl/p").assert_at("/data/policy", TEXT);
    let json_text = r#"{"path":{"x/*":{"capabilities":["read"]}}}"#;
    root.put("sys/policies/acl/p", json!({ "policy": json_text })).assert_status(204);
    root.put("sys/policy/p", json!({ "rules": TEXT }))
        .assert_status(200)
        .assert_warning("'rules' is deprecated, please use 'policy' instead");
}

#[test]
fn what_may_not_be_written_is_refused_in_the_fields_words() {
    let server = Server::dev();
    let root = server.root();
    root.put("sys/policies/acl/p", json!({})).assert_error(400, "'policy' parameter not supplied or empty");
    root.put("sys/policies/acl/p", json!({ "policy": "" }))
        .assert_error(400, "'policy' parameter not supplied or empty");
    root.put("sys/policies/acl/root", json!({ "policy": TEXT })).assert_error(400, "cannot update \"root\" policy");
    root.delete("sys/policies/acl/root").assert_error(400, "cannot delete \"root\" policy");
    root.delete("sys/policies/acl/default").assert_error(400, "cannot delete default policy");
    root.delete("sys/policies/acl/response-wrapping").assert_error(400, "cannot delete \"response-wrapping\" policy");
    for (text, why) in [
        ("path \"a\" {", "failed to parse policy: At 1:12: object expected closing RBRACE got: EOF"),
        (
            "path \"a\" { capabilities = [\"foo\"] }",
            "failed to parse policy: path \"a\": path \"a\": invalid capability \"foo\"",
        ),
        ("path \"a+*\" { capabilities = [\"read\"] }", "invalid use of wildcards ('+*' is forbidden)"),
        ("foo = 1", "invalid key \"foo\""),
        ("path \"a\" { bogus = 1 }", "invalid key \"bogus\""),
    ] {
        root.put("sys/policies/acl/p", json!({ "policy": text })).assert_error_has(400, why);
    }
    root.get("sys/policies/acl/p").assert_errors(404, &[]);
}

#[test]
fn check_and_set_keeps_two_writers_apart() {
    let server = Server::dev();
    let root = server.root();
    let write = |cas: i64| root.put("sys/policies/acl/p", json!({ "policy": TEXT, "cas": cas }));
    write(5).assert_error(400, "check-and-set parameter 5 did not match the current version 0");
    write(-1).assert_status(204);
    assert_eq!(write(-1).status, 400);
    write(1).assert_status(204);
    root.get("sys/policies/acl/p").assert_at("/data/version", 2);
    root.put("sys/policies/acl/p", json!({ "policy": TEXT, "cas": 2, "cas_required": true })).assert_status(204);
    root.put("sys/policies/acl/p", json!({ "policy": TEXT }))
        .assert_error(400, "check-and-set parameter required for this call");
}

#[test]
fn a_changed_policy_holds_for_tokens_that_are_out() {
    let server = Server::dev();
    let client = server.with_policy("p", "path \"sys/mounts\" { capabilities = [\"read\"] }");
    client.get("sys/mounts").assert_status(200);
    server
        .root()
        .put("sys/policies/acl/p", json!({ "policy": "path \"sys/mounts\" { capabilities = [\"deny\"] }" }))
        .assert_status(204);
    client.get("sys/mounts").assert_multi(403, "permission denied");
    server
        .root()
        .put("sys/policies/acl/p", json!({ "policy": "path \"sys/*\" { capabilities = [\"read\"] }" }))
        .assert_status(204);
    client.get("sys/mounts").assert_status(200);
    server.root().delete("sys/policies/acl/p").assert_status(204);
    client.get("sys/mounts").assert_multi(403, "permission denied");
}

#[test]
fn a_policy_or_a_rule_that_has_expired_grants_nothing() {
    let server = Server::dev();
    let read = "capabilities = [\"read\"]";
    let old = format!(
        "path \"sys/mounts\" {{ {read} expiration = \"2020-01-01T00:00:00Z\" }}\npath \"sys/auth\" {{ {read} }}"
    );
    let client = server.with_policy("old", &old);
    client.get("sys/mounts").assert_multi(403, "permission denied");
    client.get("sys/auth").assert_status(200);
    server.root().put("sys/policies/acl/old", json!({ "policy": old.replace("2020", "2099") })).assert_status(204);
    client.get("sys/mounts").assert_status(200);
    server.root().put("sys/policies/acl/old", json!({ "policy": old, "ttl": "2s" })).assert_status(204);
    client.get("sys/auth").assert_status(200);
    eventually("the policy ends while its set is known", || client.get("sys/auth").status == 403);
    server.root().get("sys/policies/acl/old").assert_errors(404, &[]);
    server.root().list("sys/policies/acl").assert_at("/data/keys", json!(["default", "root"]));
}

#[test]
fn ends_and_patches_are_as_in_the_field() {
    ends_and_patches(&Server::dev());
}

#[test]
fn ends_and_patches_are_as_in_a_real_openbao() {
    let Some(bao) = Bao::find("policies that end, and patches of policies, against a real OpenBao") else { return };
    ends_and_patches(&Server::openbao(&bao));
}

fn ends_and_patches(server: &Server) {
    let root = server.root();
    let patch = |client: &Client, path: &str, body: Value| {
        let kind = [("Content-Type", "application/merge-patch+json")];
        client.bytes("PATCH", path, body.to_string().as_bytes(), &kind)
    };
    let end = "2099-01-01T00:00:00Z";
    let body = json!({ "policy": TEXT, "expiration": end, "cas": -1, "cas_required": true });
    root.put("sys/policies/acl/p", body).assert_status(204);
    let answer = patch(&root, "sys/policies/acl/P", json!({ "allow_slashes_in_identity_templates": true }));
    answer.assert_status(200).assert_at("/data", Value::Null).assert_at("/warnings", Value::Null);
    let shown = root.get("sys/policies/acl/p").assert_at("/data/expiration", end).assert_at("/data/version", 2);
    let shown = shown.assert_at("/data/cas_required", true).assert_at("/data/policy", TEXT);
    shown.assert_at("/data/allow_slashes_in_identity_templates", true);
    for (path, body, why) in [
        ("p", json!({ "cas": 9 }), "check-and-set parameter 9 did not match the current version 2"),
        ("p", json!({ "cas": -1 }), "check-and-set parameter set to -1 on existing entry"),
        ("p", json!({ "policy": "" }), "'policy' parameter not supplied or empty"),
        ("p", json!({ "ttl": 0 }), "refusing to update policy as expiration time has already elapsed"),
        ("p", json!({ "ttl": 1, "expiration": end }), "cannot supply both 'expiration' and 'ttl' for policies"),
        ("nope", json!({ "policy": TEXT }), "policy not found"),
        ("root", json!({ "policy": TEXT }), "cannot update \"root\" policy"),
    ] {
        patch(&root, &format!("sys/policies/acl/{path}"), body).assert_error(400, why);
    }
    patch(&root, "sys/policy/p", json!({ "policy": TEXT })).assert_multi(405, "unsupported operation");
    root.put("sys/policies/acl/p", json!({ "policy": TEXT, "cas": 2 })).assert_status(204);
    let cleared = root.get("sys/policies/acl/p").assert_at("/data/cas_required", false);
    assert_eq!(cleared.json()["data"].get("expiration"), None, "{cleared}");
    root.put("sys/policy/p", json!({ "policy": TEXT, "expiration": 4_070_908_800_i64 })).assert_status(204);
    root.get("sys/policy/p").assert_at("/data/expiration", end).assert_at("/expiration", end);
    let only_update = server.with_policy("u", "path \"sys/policies/acl/p\" { capabilities = [\"update\"] }");
    patch(&only_update, "sys/policies/acl/p", json!({})).assert_multi(403, "permission denied");
}

#[test]
fn capabilities_are_told_to_whoever_may_know() {
    let server = Server::dev();
    let root = server.root();
    let text = "path \"a/*\" { capabilities = [\"update\", \"read\"] }\npath \"a/b\" { capabilities = [\"deny\"] }";
    let client = server.with_policy("p", text);
    let own = client.post("sys/capabilities-self", json!({ "paths": ["a/x", "a/b", "z"] })).assert_status(200);
    let own = own.assert_at("/data/a~1x", json!(["read", "update"])).assert_at("/data/a~1b", json!(["deny"]));
    let own = own.assert_at("/data/z", json!(["deny"]));
    assert_eq!(own.at("/a~1x"), own.at("/data/a~1x"), "beside the envelope too");
    assert_eq!(own.at("/data/capabilities"), Value::Null);
    client
        .post("sys/capabilities-self", json!({ "path": "a/x" }))
        .assert_at("/data/capabilities", json!(["read", "update"]));
    client
        .post("sys/capabilities", json!({ "token": server.root_token(), "paths": ["a"] }))
        .assert_multi(403, "permission denied");

    let token = root.post("auth/token/create", json!({ "policies": ["p"] }));
    let (id, accessor) = (token.text("/auth/client_token"), token.text("/auth/accessor"));
    root.post("sys/capabilities", json!({ "token": id, "paths": ["a/x"] }))
        .assert_at("/data/capabilities", json!(["read", "update"]));
    root.post("sys/capabilities-accessor", json!({ "accessor": accessor, "paths": ["a/x"] }))
        .assert_at("/data/capabilities", json!(["read", "update"]));
    root.post("sys/capabilities-self", json!({ "paths": ["a"] })).assert_at("/data/capabilities", json!(["root"]));

    root.post("sys/capabilities", json!({ "token": id })).assert_error(400, "paths must be supplied");
    root.post("sys/capabilities", json!({ "token": id, "paths": [""] })).assert_multi(400, "missing path");
    root.post("sys/capabilities", json!({ "token": "nope", "paths": ["a"] })).assert_multi(400, "invalid token");
    root.post("sys/capabilities-accessor", json!({ "accessor": "nope", "paths": ["a"] }))
        .assert_multi(400, "invalid accessor");
    root.post("sys/capabilities", json!({ "paths": ["a"] })).assert_multi(500, "no token found");
}

/// `Success!` was all that a person heard of a rule that does nothing.
#[test]
fn what_a_rule_does_not_do_is_said_where_it_is_written() {
    let server = Server::dev();
    let root = server.root();
    for (text, told) in [
        (
            "path \"a/*/x\" { capabilities = [\"read\"] }",
            "At 1:6: path \"a/*/x\": a `*` that is not the last character",
        ),
        ("path \"/v1/x\" { capabilities = [\"read\"] }", "At 1:6: path \"/v1/x\": matches nothing"),
        ("\npath \"a+b/x\" { capabilities = [\"read\"] }", "At 2:6: path \"a+b/x\": a `+` beside other characters"),
        ("path \"a/{{identity.nope}}\" { capabilities = [\"read\"] }", "nothing is ever known as `identity.nope`"),
        (
            "path \"a/*\" { capabilities = [\"read\"] }\npath \"a/+/b/*\" { capabilities = [\"deny\"] }",
            "At 2:6: path \"a/+/b/*\": never decides: \"a/*\" on line 1 always wins, so nothing is denied here",
        ),
        ("path \"sys/policies/+/Prod\" { capabilities = [\"deny\"] }", "matches no policy"),
    ] {
        for path in ["sys/policies/acl/odd", "sys/policy/odd"] {
            root.put(path, json!({ "policy": text })).assert_status(200).assert_warning(told);
        }
        let cli = server.cli();
        std::fs::write(cli.home().join("odd.hcl"), text).unwrap();
        let written = cli.line("policy write odd odd.hcl").assert_status(0);
        assert!(written.stderr.contains("WARNING!"), "{}", written.stderr);
        assert_eq!(cli.line("policy lint odd.hcl").status, 2, "{text}");
    }
    root.put("sys/policies/acl/odd", json!({ "policy": TEXT })).assert_status(204);
    let twice = "path \"a\" {\n  policy = \"read\"\n  policy = \"deny\"\n}";
    root.put("sys/policies/acl/odd", json!({ "policy": twice })).assert_error_has(
        400,
        "The argument \"policy\" at 3:3 was already set. Each argument can only be defined once",
    );
    root.get("sys/policies/acl/odd").assert_at("/data/policy", TEXT);
    for name in ["root%20", "%20root", "odd%20", "sys%09"] {
        assert_eq!(root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": TEXT })).status, 400, "{name}");
    }
}

/// Such a rule was inert: names are lower-cased before they are judged.
#[test]
fn a_rule_for_a_policy_counts_however_its_name_is_written() {
    let server = Server::dev();
    let client = server.with_policy(
        "guard",
        "path \"sys/policies/acl/*\" { capabilities = [\"read\", \"update\"] }\npath \"sys/policies/acl/Prod\" { capabilities = [\"deny\"] }",
    );
    server.root().put("sys/policies/acl/prod", json!({ "policy": TEXT })).assert_status(204);
    for name in ["prod", "Prod", "PROD"] {
        client.get(&format!("sys/policies/acl/{name}")).assert_multi(403, "permission denied");
        client
            .put(&format!("sys/policies/acl/{name}"), json!({ "policy": TEXT }))
            .assert_multi(403, "permission denied");
    }
}
