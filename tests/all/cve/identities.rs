//! Crossing by id: what belongs to somebody else answers as what does not exist, and nothing of it changes.

use serde_json::json;

use super::{Differs, Same, enable_auth, holds, on_both, rule, write};
use crate::support::{Client, Server};

/// The role id and a secret id of a new approle.
fn machine(server: &Server, name: &str) -> (String, String) {
    let root = server.root();
    write(&root, &format!("auth/approle/role/{name}"), json!({ "token_policies": "default" }));
    let role = root.get(&format!("auth/approle/role/{name}/role-id")).text("/data/role_id");
    let secret = root.post(&format!("auth/approle/role/{name}/secret-id"), json!({})).assert_status(200);
    (role, secret.text("/data/secret_id"))
}

#[test]
fn a_secret_id_of_another_role_logs_nobody_in() {
    on_both(Same, |server| {
        enable_auth(server, "approle", "approle");
        let ((one, of_one), (two, of_two)) = (machine(server, "one"), machine(server, "two"));
        for (role, secret, status) in
            [(&one, &of_two, 400), (&two, &of_one, 400), (&one, &of_one, 200), (&two, &of_two, 200)]
        {
            let login = server.nobody().post("auth/approle/login", json!({ "role_id": role, "secret_id": secret }));
            holds(login.status == status, &format!("a login is answered with {}", login.status))?;
        }
        Ok(())
    });
}

#[test]
fn a_secret_id_is_neither_seen_nor_destroyed_by_another_role() {
    on_both(Same, |server| {
        enable_auth(server, "approle", "approle");
        machine(server, "one");
        let root = server.root();
        write(&root, "auth/approle/role/two", json!({ "token_policies": "default" }));
        let made = root.post("auth/approle/role/two/secret-id", json!({})).assert_status(200);
        let (secret, accessor) = (made.text("/data/secret_id"), made.text("/data/secret_id_accessor"));
        for (path, body) in [
            ("secret-id/lookup", json!({ "secret_id": secret })),
            ("secret-id/destroy", json!({ "secret_id": secret })),
            ("secret-id-accessor/lookup", json!({ "secret_id_accessor": accessor })),
            ("secret-id-accessor/destroy", json!({ "secret_id_accessor": accessor })),
        ] {
            let answer = root.post(&format!("auth/approle/role/one/{path}"), body);
            holds(!answer.body.contains("secret_id_num_uses"), &format!("{path} shows it"))?;
        }
        let kept = root.post("auth/approle/role/two/secret-id/lookup", json!({ "secret_id": secret }));
        holds(kept.status == 200, "it is destroyed")
    });
}

#[test]
fn a_mount_does_not_know_the_users_of_another() {
    on_both(Same, |server| {
        for path in ["one", "two"] {
            enable_auth(server, path, "userpass");
        }
        write(&server.root(), "auth/one/users/ada", json!({ "password": "correct-horse" }));
        let login = server.nobody().post("auth/two/login/ada", json!({ "password": "correct-horse" }));
        holds(login.status == 400, "the other mount lets the user in")?;
        holds(server.root().get("auth/two/users/ada").status == 404, "the other mount shows the user")
    });
}

#[test]
fn an_accessor_is_no_token() {
    on_both(Same, |server| {
        let made = server.root().post("auth/token/create", json!({ "policies": ["default"] })).assert_status(200);
        let accessor = made.text("/auth/accessor");
        let client = server.nobody().with_token(&accessor);
        for path in ["auth/token/lookup-self", "cubbyhole/x", "sys/internal/ui/mounts"] {
            let answer = client.get(path);
            holds(
                answer.at("/data/policies").is_null() && answer.at("/data/id").is_null(),
                &format!("{path} is answered"),
            )?;
        }
        let looked = server.root().post("auth/token/lookup", json!({ "token": accessor }));
        holds(looked.status == 403, "an accessor is looked up as a token")
    });
}

/// What looks a token up by its accessor does not give the token.
#[test]
fn nobody_comes_from_an_accessor_to_its_token() {
    on_both(Same, |server| {
        let made = server.root().post("auth/token/create", json!({ "policies": ["default"] })).assert_status(200);
        let (token, accessor) = (made.text("/auth/client_token"), made.text("/auth/accessor"));
        for (path, body) in [
            ("auth/token/lookup-accessor", json!({ "accessor": accessor })),
            ("auth/token/renew-accessor", json!({ "accessor": accessor })),
            ("sys/capabilities-accessor", json!({ "accessor": accessor, "paths": ["x"] })),
        ] {
            let answer = server.root().post(path, body);
            holds(answer.status == 200 && !answer.body.contains(&token), &format!("{path} gives the token"))?;
        }
        Ok(())
    });
}

#[test]
fn a_cubbyhole_is_not_reached_by_the_parent_the_child_or_root() {
    on_both(Same, |server| {
        let parent = server.root().child(json!({ "policies": ["default"] }));
        let (parent, root) = (server.as_token(&parent), server.root());
        write(&parent, "cubbyhole/key", json!({ "a": "canary-9Tq1" }));
        let child = server.as_token(&root.child(json!({ "policies": ["default"] })));
        for other in [&root, &child] {
            holds(other.get("cubbyhole/key").status == 404, "somebody else reads it")?;
            other.delete("cubbyhole/key");
        }
        holds(parent.get("cubbyhole/key").text("/data/a") == "canary-9Tq1", "it is gone")
    });
}

#[test]
fn a_wrapping_token_does_nothing_but_unwrap() {
    on_both(Same, |server| {
        write(&server.root(), "secret/data/x", json!({ "data": { "a": "b" } }));
        // Each takes the only use of its token.
        let wrapping = || -> Result<Client, String> {
            let wrapped =
                server.root().try_wrapped("GET", "secret/data/x", "60s").map_err(|error| error.to_string())?;
            Ok(server.as_token(&wrapped.text("/wrap_info/token")))
        };
        for path in ["secret/data/x", "auth/token/lookup-self", "sys/mounts"] {
            holds(wrapping()?.get(path).status == 403, &format!("{path} is answered"))?;
        }
        holds(wrapping()?.put("auth/token/create", json!({})).status == 403, "it makes tokens")?;
        holds(wrapping()?.put("sys/wrapping/unwrap", json!({})).status == 200, "it does not unwrap")
    });
}

/// CVE-2026-45808: an id of somewhere else was taken for one's own.
#[test]
fn a_namespace_that_does_not_exist_is_not_the_root_one() {
    on_both(Differs("namespace ns1/../root is the root one"), |server| {
        let root = server.root();
        for namespace in ["other", "other/", "../", "root/other", "%2e%2e/", "ns1/../root"] {
            let answer = root.bytes("GET", "sys/mounts", b"", &[("X-Vault-Namespace", namespace)]);
            holds(answer.status != 200, &format!("namespace {namespace} is the root one"))?;
        }
        Ok(())
    });
}

#[test]
fn an_entity_is_not_changed_by_the_id_of_a_group_or_an_alias() {
    on_both(Same, |server| {
        let root = server.root();
        let entity = root.post("identity/entity", json!({ "name": "e" })).text("/data/id");
        let group = root.post("identity/group", json!({ "name": "g" })).text("/data/id");
        for (path, id) in [("entity", &group), ("group", &entity), ("entity-alias", &entity), ("group-alias", &group)] {
            let answer = root.get(&format!("identity/{path}/id/{id}"));
            holds(answer.status != 200, &format!("{path} answers by an id of something else"))?;
            root.delete(&format!("identity/{path}/id/{id}"));
        }
        holds(root.get(&format!("identity/entity/id/{entity}")).status == 200, "the entity is gone")?;
        holds(root.get(&format!("identity/group/id/{group}")).status == 200, "the group is gone")
    });
}

/// Nor by the old spellings of these routes.
#[test]
fn a_foreign_token_is_neither_seen_nor_revoked_by_who_may_not() {
    on_both(Same, |server| {
        let victim = server.root().child(json!({ "policies": ["default"] }));
        let client = server.with_policy("none", &rule("secret/data/x", "\"read\""));
        for (path, body) in [
            ("auth/token/revoke", json!({ "token": victim })),
            ("auth/token/revoke-orphan", json!({ "token": victim })),
            ("auth/token/lookup", json!({ "token": victim })),
            ("sys/leases/revoke-prefix/auth", json!({})),
            ("sys/leases/revoke-force/auth", json!({})),
            ("sys/revoke-prefix/auth", json!({})),
            ("sys/revoke-force/auth", json!({})),
        ] {
            holds(client.put(path, body).status == 403, &format!("{path} is answered"))?;
        }
        holds(server.as_token(&victim).get("auth/token/lookup-self").status == 200, "the token is gone")
    });
}

#[test]
fn a_name_of_many_spellings_is_one_user() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        let root = server.root();
        write(&root, "auth/userpass/users/ada", json!({ "password": "correct-horse" }));
        for name in ["ada%20", "%20ada", "ada%00", "a%CC%81da", "ad%D0%B0"] {
            let answer = root.post(&format!("auth/userpass/users/{name}"), json!({ "password": "other-one" }));
            holds(answer.status >= 400, "a name in another alphabet or with a blank is taken")?;
        }
        Ok(())
    });
}
