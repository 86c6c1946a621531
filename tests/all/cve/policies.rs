//! Names of policies that turn into `root` or into another policy, and values that widen a templated one.

use serde_json::json;

use super::{Differs, Fact, Same, enable_auth, holds, is_root, log_in, on_both, policy, rule, user, write};
use crate::support::{Client, Server};

/// What looks like `root` and is not written so.
const NEARLY_ROOT: [&str; 8] = ["Root", "ROOT", " root", "root ", "\troot", "root\n", "ro\u{1d5}ot", "root\u{200b}"];

/// Whoever is given `name` is no root, if they are let in at all.
fn gets_no_root(server: &Server, name: &str) -> Fact {
    let login = log_in(server, "ada", "correct-horse");
    let is_refused = login.status != 200;
    holds(is_refused || !is_root(&server.as_token(&login.text("/auth/client_token"))), &format!("{name:?} is root"))
}

/// CVE-2025-5999, CVE-2025-64761.
#[test]
fn an_entity_gets_no_root_by_case_or_blanks() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        log_in(server, "ada", "correct-horse").assert_status(200);
        let id = server.root().list("identity/entity/id").at("/data/keys/0");
        let id = id.as_str().unwrap_or_default();
        for name in NEARLY_ROOT {
            server.root().post(&format!("identity/entity/id/{id}"), json!({ "policies": [name] }));
            gets_no_root(server, name)?;
        }
        Ok(())
    });
}

#[test]
fn a_group_gives_no_root_by_case_or_blanks() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        log_in(server, "ada", "correct-horse").assert_status(200);
        let id = server.root().list("identity/entity/id").at("/data/keys/0");
        for name in NEARLY_ROOT {
            server.root().post("identity/group", json!({ "name": "g", "member_entity_ids": [id], "policies": [name] }));
            gets_no_root(server, name)?;
        }
        Ok(())
    });
}

#[test]
fn a_login_gets_no_root_whatever_its_user_is_given() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        for name in NEARLY_ROOT.iter().chain(&["root", "root,default"]) {
            let body = json!({ "password": "correct-horse", "token_policies": [name] });
            server.root().post("auth/userpass/users/ada", body);
            gets_no_root(server, name)?;
        }
        Ok(())
    });
}

#[test]
fn nobody_makes_a_root_token_by_spelling_the_name_otherwise() {
    on_both(Same, |server| {
        let maker = server.with_policy("maker", &rule("auth/token/*", "\"create\", \"update\", \"sudo\""));
        write(&server.root(), "auth/token/roles/r", json!({ "allowed_policies_glob": ["*"] }));
        for name in NEARLY_ROOT.iter().chain(&["root"]) {
            for path in ["auth/token/create", "auth/token/create-orphan", "auth/token/create/r"] {
                let made = maker.post(path, json!({ "policies": [name] }));
                if made.status == 200 {
                    let client = server.as_token(&made.text("/auth/client_token"));
                    holds(!is_root(&client), &format!("{path} with {name:?} is root"))?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn no_policy_is_written_that_reads_as_root() {
    on_both(Same, |server| {
        let root = server.root();
        for name in ["root", "Root", "ROOT", "%72oot"] {
            let answer = root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": rule("x", "\"read\"") }));
            holds(answer.status == 400, &format!("{name} is written"))?;
            let answer = root.put(&format!("sys/policy/{name}"), json!({ "policy": rule("x", "\"read\"") }));
            holds(answer.status == 400, &format!("{name} is written by the old route"))?;
        }
        Ok(())
    });
}

/// CVE-2026-105820: a cache was asked by a name as it came, the store by a clean one.
#[test]
fn a_name_with_a_way_in_it_is_no_other_policy() {
    on_both(Same, |server| {
        let root = server.root();
        policy(server, "b", &rule("secret/data/b", "\"read\""));
        for name in ["a/../b", "./b", "a//../b", "/b", "b/", "a%2F..%2Fb", "a%2f..%2fb", "..%2Facl%2Fb", "%2e%2e/acl/b"]
        {
            root.raw_path("GET", &format!("/v1/sys/policies/acl/{name}"));
            root.raw_path("DELETE", &format!("/v1/sys/policies/acl/{name}"));
            let head = format!(
                "PUT /v1/sys/policies/acl/{name} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {}\r\n",
                server.root_token()
            );
            let body = json!({ "policy": rule("*", "\"read\"") }).to_string();
            root.raw(format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            // Where a slash at the end says nothing, this is the policy itself.
            if name == "b/" {
                policy(server, "b", &rule("secret/data/b", "\"read\""));
            }
            let kept = root.get("sys/policies/acl/b").at("/data/policy");
            holds(kept == rule("secret/data/b", "\"read\""), &format!("{name} is b: {kept}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_token_with_a_way_in_its_policys_name_has_no_other_policy() {
    on_both(Differs("a/../b is b"), |server| {
        policy(server, "b", &rule("secret/data/b", "\"read\""));
        write(&server.root(), "secret/data/b", json!({ "data": { "a": "b" } }));
        for name in ["a/../b", "./b", "/b", "b/", "../acl/b", "a/..%2Fb", "b\u{0}", "b/."] {
            let made =
                server.root().post("auth/token/create", json!({ "policies": [name], "no_default_policy": true }));
            if made.status == 200 {
                let client = server.as_token(&made.text("/auth/client_token"));
                holds(client.get("secret/data/b").status == 403, &format!("{name} is b"))?;
            }
        }
        Ok(())
    });
}

/// Bob, an entity with an alias; a policy about him reads below `secret/data/`.
fn bob(server: &Server, template: &str) -> (Client, String) {
    enable_auth(server, "userpass", "userpass");
    policy(
        server,
        "own",
        &(rule(&format!("secret/data/{template}/*"), "\"read\"") + &rule("auth/token/lookup-self", "\"read\"")),
    );
    user(server, "bob", "own");
    write(&server.root(), "secret/data/other/x", json!({ "data": { "a": "b" } }));
    let login = log_in(server, "bob", "correct-horse").assert_status(200);
    (server.as_token(&login.text("/auth/client_token")), login.text("/auth/entity_id"))
}

/// What means something in a path or in a pattern.
const SIGNS: [&str; 12] =
    ["*", "+", "/", "..", ".", "", "o*", "+/+", "other/", "other/*", "{{identity.entity.id}}", "a,other"];

fn reads_no_other(bob: &Client, value: &str) -> Fact {
    for path in ["secret/data/other/x", "secret/data/x", "secret/data//x", "secret/metadata/other/x"] {
        holds(bob.get(path).status != 200, &format!("{value:?} opens {path}"))?;
    }
    Ok(())
}

/// GHSA-59w7-v8rr-pr4p.
#[test]
fn metadata_of_an_entity_opens_nothing_by_signs() {
    on_both(Same, |server| {
        let (bob, id) = bob(server, "{{identity.entity.metadata.team}}");
        for sign in SIGNS {
            server.root().post(&format!("identity/entity/id/{id}"), json!({ "metadata": { "team": sign } }));
            reads_no_other(&bob, sign)?;
        }
        Ok(())
    });
}

#[test]
fn the_name_of_an_entity_opens_nothing_by_signs() {
    on_both(Same, |server| {
        let (bob, id) = bob(server, "{{identity.entity.name}}");
        for sign in SIGNS {
            server.root().post(&format!("identity/entity/id/{id}"), json!({ "name": sign }));
            reads_no_other(&bob, sign)?;
        }
        Ok(())
    });
}

fn accessor(server: &Server) -> String {
    server.root().get("sys/auth").text("/data/userpass~1/accessor")
}

#[test]
fn metadata_of_an_alias_opens_nothing_by_signs() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        let mount = accessor(server);
        policy(
            server,
            "own",
            &rule(&format!("secret/data/{{{{identity.entity.aliases.{mount}.custom_metadata.team}}}}/*"), "\"read\""),
        );
        user(server, "bob", "own");
        write(&server.root(), "secret/data/other/x", json!({ "data": { "a": "b" } }));
        let login = log_in(server, "bob", "correct-horse").assert_status(200);
        let bob = server.as_token(&login.text("/auth/client_token"));
        for sign in SIGNS {
            let body = json!({ "name": "bob", "mount_accessor": mount, "canonical_id": login.text("/auth/entity_id"),
                               "custom_metadata": { "team": sign } });
            server.root().post("identity/entity-alias", body);
            reads_no_other(&bob, sign)?;
        }
        Ok(())
    });
}

#[test]
fn the_name_of_a_group_opens_nothing_by_signs() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "bob", "own");
        write(&server.root(), "secret/data/other/x", json!({ "data": { "a": "b" } }));
        let login = log_in(server, "bob", "correct-horse").assert_status(200);
        let bob = server.as_token(&login.text("/auth/client_token"));
        let made = server
            .root()
            .post("identity/group", json!({ "name": "first", "member_entity_ids": [login.text("/auth/entity_id")] }));
        let id = made.text("/data/id");
        policy(server, "own", &rule(&format!("secret/data/{{{{identity.groups.ids.{id}.name}}}}/*"), "\"read\""));
        for sign in SIGNS {
            server.root().post(&format!("identity/group/id/{id}"), json!({ "name": sign }));
            reads_no_other(&bob, sign)?;
        }
        Ok(())
    });
}

/// A mount that comes again at the same path is another one: nobody's old alias speaks for it.
#[test]
fn a_template_of_a_mount_that_was_replaced_opens_nothing() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        let old = accessor(server);
        policy(server, "own", &rule(&format!("secret/data/{{{{identity.entity.aliases.{old}.name}}}}"), "\"read\""));
        server.root().delete("sys/auth/userpass").assert_status(204);
        enable_auth(server, "userpass", "userpass");
        user(server, "bob", "own");
        write(&server.root(), "secret/data/bob", json!({ "data": { "a": "b" } }));
        let login = log_in(server, "bob", "correct-horse").assert_status(200);
        let bob = server.as_token(&login.text("/auth/client_token"));
        holds(bob.get("secret/data/bob").status == 403, "the new user has the rights of the old one")
    });
}

/// GHSA-pfmw-vj74-ph8g: with two aliases, the wrong one filled the template.
#[test]
fn of_two_aliases_the_one_of_the_named_mount_counts() {
    on_both(Same, |server| {
        for path in ["userpass", "second"] {
            enable_auth(server, path, "userpass");
        }
        let methods = server.root().get("sys/auth");
        let second = methods.text("/data/second~1/accessor");
        policy(server, "own", &rule(&format!("secret/data/{{{{identity.entity.aliases.{second}.name}}}}"), "\"read\""));
        user(server, "bob", "own");
        for name in ["bob", "robert"] {
            write(&server.root(), &format!("secret/data/{name}"), json!({ "data": { "a": "b" } }));
        }
        let login = log_in(server, "bob", "correct-horse").assert_status(200);
        let bob = server.as_token(&login.text("/auth/client_token"));
        holds(bob.get("secret/data/bob").status == 403, "the alias of another mount counts")?;
        let alias =
            json!({ "name": "robert", "mount_accessor": second, "canonical_id": login.text("/auth/entity_id") });
        write(&server.root(), "identity/entity-alias", alias);
        holds(bob.get("secret/data/bob").status == 403, "the alias of another mount counts")?;
        holds(bob.get("secret/data/robert").status == 200, "the alias of the named mount does not count")
    });
}
