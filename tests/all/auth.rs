//! Auth methods as such: enabling, tuning and disabling them, and what a login's token is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::kubernetes;
use crate::support::{Bao, Cli, Client, Credential, Database, Server, Signer, eventually, now};

/// Enables a method at a path.
pub(crate) fn enable(server: &Server, path: &str, kind: &str) {
    server.root().post(&format!("sys/auth/{path}"), json!({ "type": kind })).assert_status(204).assert_empty();
}

fn user(server: &Server, mount: &str, name: &str, body: Value) {
    server.root().post(&format!("auth/{mount}/users/{name}"), body).assert_status(204).assert_empty();
}

fn log_in(server: &Server, mount: &str, name: &str) -> Client {
    let answer = server.nobody().post(&format!("auth/{mount}/login/{name}"), json!({ "password": "a-long-password" }));
    server.as_token(&answer.assert_status(200).text("/auth/client_token"))
}

#[test]
fn a_null_empties_a_field_unless_it_is_a_length() {
    nulls(&Server::dev());
}

#[test]
fn a_null_empties_a_field_of_a_real_openbao_alike() {
    if let Some(bao) = Bao::find("null in fields, against a real OpenBao") {
        nulls(&Server::openbao(&bao));
    }
}

fn nulls(server: &Server) {
    let root = server.root();
    for method in ["approle", "userpass", "jwt"] {
        enable(server, method, method);
    }
    root.post("sys/mounts/db", json!({ "type": "database" })).assert_status(204);
    let token =
        json!({ "token_policies": ["p"], "token_ttl": 60, "token_bound_cidrs": ["10.0.0.0/8"], "token_num_uses": 5 });
    let merged = |a: &Value, b: Value| {
        let mut all = a.as_object().unwrap().clone();
        all.extend(b.as_object().unwrap().clone());
        Value::Object(all)
    };
    let with = |more: Value| merged(&token, more);
    let jwt = json!({ "role_type": "jwt", "user_claim": "sub" });
    for (path, whole, always, field, after) in [
        ("auth/approle/role/r", with(json!({})), json!({}), "token_policies", json!([])),
        ("auth/approle/role/r", with(json!({})), json!({}), "token_ttl", json!(60)),
        ("auth/approle/role/r", with(json!({})), json!({}), "token_num_uses", json!(0)),
        ("auth/approle/role/r", with(json!({ "secret_id_num_uses": 4 })), json!({}), "secret_id_num_uses", json!(0)),
        ("auth/approle/role/r", with(json!({ "secret_id_ttl": 70 })), json!({}), "secret_id_ttl", json!(70)),
        (
            "auth/userpass/users/u",
            with(json!({ "password": "a-long-password" })),
            json!({}),
            "token_bound_cidrs",
            json!([]),
        ),
        ("auth/userpass/users/u", with(json!({ "password": "a-long-password" })), json!({}), "token_ttl", json!(60)),
        (
            "auth/jwt/role/r",
            with(json!({ "bound_audiences": ["a"], "bound_subject": "x" })),
            jwt.clone(),
            "bound_audiences",
            json!([]),
        ),
        (
            "auth/jwt/role/r",
            with(json!({ "bound_audiences": ["a"], "bound_subject": "x" })),
            jwt.clone(),
            "bound_subject",
            json!(""),
        ),
        (
            "auth/jwt/role/r",
            with(json!({ "bound_audiences": ["a"], "bound_claims": { "a": "b" } })),
            jwt.clone(),
            "bound_claims",
            Value::Null,
        ),
        (
            "auth/jwt/role/r",
            with(json!({ "bound_audiences": ["a"], "clock_skew_leeway": 7 })),
            jwt.clone(),
            "clock_skew_leeway",
            json!(7),
        ),
        (
            "auth/token/roles/r",
            json!({ "allowed_policies": ["p"], "orphan": true }),
            json!({}),
            "allowed_policies",
            json!([]),
        ),
        ("auth/token/roles/r", json!({ "allowed_policies": ["p"], "orphan": true }), json!({}), "orphan", json!(false)),
        (
            "db/roles/r",
            json!({ "db_name": "x", "creation_statements": ["c"], "default_ttl": 60 }),
            json!({ "db_name": "x" }),
            "creation_statements",
            json!([]),
        ),
        (
            "db/roles/r",
            json!({ "db_name": "x", "creation_statements": ["c"], "default_ttl": 60 }),
            json!({ "db_name": "x" }),
            "default_ttl",
            json!(60),
        ),
        ("identity/entity/name/e", json!({ "policies": ["p"], "disabled": true }), json!({}), "policies", json!([])),
        ("identity/entity/name/e", json!({ "policies": ["p"], "disabled": true }), json!({}), "disabled", json!(false)),
        ("identity/entity/name/e", json!({ "metadata": { "a": "b" } }), json!({}), "metadata", Value::Null),
    ] {
        root.delete(path);
        let written = root.post(path, merged(&always, whole));
        assert!(matches!(written.status, 200 | 204), "{path}: {written}");
        let emptied = root.post(path, merged(&always, json!({ field: null })));
        assert!(matches!(emptied.status, 200 | 204), "{path} {field}: {emptied}");
        let read = root.get(path).assert_status(200).at(&format!("/data/{field}"));
        // An empty list may also read as null, and an empty map as a map.
        let is_empty = after == json!([]) && read.is_null() || after.is_null() && read == json!({});
        assert!(read == after || is_empty, "{path} {field}: {read}");
    }
}

/// A program that keeps the token, called by our command line and by `bao`'s alike.
#[test]
fn a_token_helper_keeps_the_token_of_a_login() {
    let server = Server::dev();
    let bao = Bao::find("a token helper, called by a real OpenBao's command line");
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let script = "#!/bin/sh\necho \"$1 $VAULT_ADDR\" >> \"$HOME/calls\"\ncase $1 in\n\
                  get) cat \"$HOME/kept\" 2>/dev/null || true;;\n\
                  store) cat > \"$HOME/kept\";;\n\
                  erase) rm -f \"$HOME/kept\";;\nesac\n";
    fs::write(at("helper"), script).unwrap();
    fs::set_permissions(at("helper"), fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("# ours\ntoken_helper = \"{}\"\n", at("helper").display());
    for name in [".vault", ".bao"] {
        fs::write(at(name), &config).unwrap();
    }
    let program = server.cli();
    let ours = Cli::new(program.program(), server.address(), home.path(), None);
    let theirs = bao.map(|bao| Cli::new(&bao.program, server.address(), home.path(), None));
    let token = server.root().child(json!({ "policies": ["default"], "ttl": "1h" }));
    for stores in [Some(&ours), theirs.as_ref()].into_iter().flatten() {
        stores.run(&["login", "-no-print", &token]).assert_status(0);
        assert_eq!(fs::read_to_string(at("kept")).unwrap().trim(), token);
        assert!(!at(".vault-token").exists());
        for reads in [Some(&ours), theirs.as_ref()].into_iter().flatten() {
            reads.line("token lookup").assert_status(0);
        }
        fs::remove_file(at("kept")).unwrap();
        ours.line("token lookup").assert_status(2);
    }
    let calls = fs::read_to_string(at("calls")).unwrap();
    assert!(calls.contains("store http") && calls.contains("get http"), "{calls}");
    assert!(!calls.contains(&token), "it comes on standard input");

    // What is wrong is said, and nothing else is asked instead.
    fs::write(at(".vault-token"), &token).unwrap();
    for (config, why) in [
        ("token_helper = \"helper\"", "must be an absolute path"),
        ("token_helpers = \"/x\"", "invalid key \"token_helpers\" at 1:1"),
        ("token_helper = ", "error parsing config: At 1:"),
        ("token_helper = \"/nowhere/helper\"", "/nowhere/helper"),
    ] {
        fs::write(at(".vault"), config).unwrap();
        ours.line("token lookup").assert_status(2).assert_stderr(why);
    }
    fs::write(at("fails"), "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(at("fails"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at(".vault"), format!("token_helper = \"{}\"", at("fails").display())).unwrap();
    ours.line("token lookup").assert_status(2).assert_stderr("failed to get token from token helper");
}

#[test]
fn auth_methods_come_and_go_at_any_path() {
    comes_and_goes(&Server::dev());
}

#[test]
fn auth_methods_of_a_real_openbao_come_and_go_alike() {
    let Some(bao) = Bao::find("auth methods that come and go, against a real OpenBao") else { return };
    comes_and_goes(&Server::openbao(&bao));
}

fn comes_and_goes(server: &Server) {
    let root = server.root();
    let body = json!({ "type": "userpass", "description": "people", "config": { "max_lease_ttl": "2h", "token_type": "default-batch" } });
    root.post("sys/auth/team/people", body).assert_status(204).assert_empty();
    enable(server, "approle", "approle");
    let all = root.get("sys/auth").assert_status(200);
    assert!(all.text("/data/team~1people~1/accessor").starts_with("auth_userpass_"), "{all}");
    assert_eq!(all.at("/data/team~1people~1/config/token_type"), json!("default-batch"), "{all}");
    assert_eq!(all.at("/team~1people~1/description"), json!("people"), "{all}");
    root.get("sys/auth/team/people").assert_status(200).assert_at("/data/config/max_lease_ttl", 7200);
    root.get("sys/auth/nope").assert_error(400, "No auth engine at nope/");
    for (path, body, why) in [
        ("x", json!({ "type": "nosuch" }), "plugin not found in the catalog: nosuch"),
        ("x", json!({ "type": "userpass", "config": { "token_type": "foo" } }), "invalid value for 'token_type'"),
        ("team/people/more", json!({ "type": "userpass" }), "path is already in use at team/people/"),
        ("token/x", json!({ "type": "userpass" }), "path is already in use at token/"),
    ] {
        root.post(&format!("sys/auth/{path}"), body).assert_error(400, why);
    }
    // The command line takes the second path.
    for tune in ["sys/auth/team/people/tune", "sys/mounts/auth/team/people/tune"] {
        root.post(tune, json!({ "token_type": "foo" })).assert_error(400, "invalid value for 'token_type'");
        root.post(tune, json!({ "token_type": "service", "listing_visibility": "unauth" })).assert_status(204);
        root.get(tune).assert_at("/data/token_type", "service").assert_at("/data/listing_visibility", "unauth");
    }
    let seen = server.nobody().get("sys/internal/ui/mounts").assert_status(200);
    assert_eq!(seen.at("/data/auth/team~1people~1/type"), json!("userpass"), "{seen}");
    assert!(seen.at("/data/auth/approle~1").is_null(), "{seen}");
    root.delete("sys/auth/team/people").assert_status(204);
    root.get("sys/auth/team/people").assert_error(400, "No auth engine at team/people/");
    server.nobody().post("auth/team/people/login/x", json!({ "password": "y" })).assert_error(403, "permission denied");
}

#[test]
fn only_sudo_enables_and_disables_auth_methods() {
    let server = Server::dev();
    let client = server.with_policy("p", "path \"sys/auth/*\" { capabilities = [\"create\", \"update\", \"delete\"] }");
    client.post("sys/auth/userpass", json!({ "type": "userpass" })).assert_multi(403, "permission denied");
    enable(&server, "userpass", "userpass");
    client.delete("sys/auth/userpass").assert_multi(403, "permission denied");
    let admin = server.with_policy("a", "path \"sys/auth/*\" { capabilities = [\"update\", \"delete\", \"sudo\"] }");
    admin.delete("sys/auth/userpass").assert_status(204);
    admin.post("sys/auth/userpass", json!({ "type": "userpass" })).assert_status(204);
}

#[test]
fn a_login_ignores_whatever_token_comes_with_it() {
    let server = Server::dev();
    enable(&server, "userpass", "userpass");
    user(&server, "userpass", "bob", json!({ "password": "a-long-password" }));
    let once = server.root().child(json!({ "policies": ["default"], "num_uses": 1 }));
    for token in ["s.AAAAAAAAAAAAAAAAAAAAAAAA", "x", "b.AAAA", once.as_str()] {
        let client = server.nobody().with_token(token);
        client.post("auth/userpass/login/bob", json!({ "password": "a-long-password" })).assert_status(200);
        client.post("auth/userpass/login/bob", json!({ "password": "wrong" })).assert_status(400);
    }
    server.as_token(&once).get("auth/token/lookup-self").assert_status(200).assert_at("/data/num_uses", -1);
}

#[test]
fn what_a_login_made_ends_with_its_mount() {
    let server = Server::dev();
    let database = Database::fresh();
    server.connect(&database);
    server.role("reader", json!({}));
    let reads = "path \"database/creds/reader\" { capabilities = [\"read\"] }\n\
                 path \"auth/token/create\" { capabilities = [\"update\"] }";
    server.root().put("sys/policies/acl/reads", json!({ "policy": reads })).assert_status(204);
    for mount in ["one", "two"] {
        enable(&server, mount, "userpass");
        user(&server, mount, "bob", json!({ "password": "a-long-password", "token_policies": "reads" }));
        let batch = json!({ "password": "a-long-password", "token_policies": "reads", "token_type": "batch" });
        user(&server, mount, "batch", batch);
    }
    let bob = log_in(&server, "one", "bob");
    let child = server.as_token(&bob.child(json!({})));
    let batch = log_in(&server, "one", "batch");
    let other = log_in(&server, "two", "bob");
    let other_batch = log_in(&server, "two", "batch");
    let credential = |client: &Client| Credential::of(&client.get("database/creds/reader").assert_status(200));
    let ended: Vec<Credential> = [&bob, &child, &batch].map(credential).into();
    let kept: Vec<Credential> = [&other, &other_batch].map(credential).into();

    server.root().delete("sys/auth/one").assert_status(204);
    for client in [&bob, &child, &batch] {
        client.get("auth/token/lookup-self").assert_error(403, "permission denied");
    }
    for client in [&other, &other_batch] {
        client.get("auth/token/lookup-self").assert_status(200);
    }
    eventually("the roles of the mount's tokens are gone", || {
        ended.iter().all(|credential| !database.has_role(&credential.user))
    });
    for credential in &kept {
        assert!(database.has_role(&credential.user), "{}", credential.user);
    }
    // Another mount at the same path is another mount.
    enable(&server, "one", "userpass");
    server
        .nobody()
        .post("auth/one/login/bob", json!({ "password": "a-long-password" }))
        .assert_error(400, "invalid username or password");
    for client in [&bob, &batch] {
        client.get("auth/token/lookup-self").assert_error(403, "permission denied");
    }
}

#[test]
fn a_token_is_used_from_its_addresses_only() {
    bound(&Server::dev());
}

#[test]
fn a_token_of_a_real_openbao_is_used_from_its_addresses_only() {
    let Some(bao) = Bao::find("bound addresses, against a real OpenBao") else { return };
    bound(&Server::openbao(&bao));
}

fn bound(server: &Server) {
    let root = server.root();
    enable(server, "approle", "approle");
    enable(server, "userpass", "userpass");
    // Only approle makes tokens that whoever logs in cannot use.
    let role = json!({ "bind_secret_id": false, "token_bound_cidrs": "10.0.0.0/8", "role_id": "the-role", "token_num_uses": 3 });
    root.post("auth/approle/role/r", role).assert_status(204);
    let made = server.nobody().post("auth/approle/login", json!({ "role_id": "the-role" })).assert_status(200);
    let client = server.as_token(&made.text("/auth/client_token"));
    for path in ["auth/token/lookup-self", "sys/mounts", "sys/internal/ui/mounts"] {
        client.get(path).assert_error(403, "permission denied");
    }
    root.post("auth/token/lookup-accessor", json!({ "accessor": made.text("/auth/accessor") }))
        .assert_status(200)
        .assert_at("/data/bound_cidrs", json!(["10.0.0.0/8"]));
    let batch = json!({ "bind_secret_id": false, "token_bound_cidrs": "10.0.0.0/8", "role_id": "batch", "token_type": "batch" });
    root.post("auth/approle/role/b", batch).assert_status(204);
    let made = server.nobody().post("auth/approle/login", json!({ "role_id": "batch" })).assert_status(200);
    let client = server.as_token(&made.text("/auth/client_token"));
    client.get("auth/token/lookup-self").assert_error(403, "permission denied");

    // Two blocks, one of which we are in.
    let near = json!({ "password": "a-long-password", "token_bound_cidrs": "10.0.0.0/8,127.0.0.1" });
    user(server, "userpass", "near", near);
    log_in(server, "userpass", "near").get("auth/token/lookup-self").assert_status(200);
    user(server, "userpass", "far", json!({ "password": "a-long-password", "token_bound_cidrs": "10.0.0.0/8" }));
    let far = server.nobody().post("auth/userpass/login/far", json!({ "password": "a-long-password" }));
    far.assert_error(403, "permission denied");
    user(server, "userpass", "strict", json!({ "password": "a-long-password", "token_strictly_bind_ip": true }));
    log_in(server, "userpass", "strict")
        .get("auth/token/lookup-self")
        .assert_status(200)
        .assert_at("/data/bound_cidrs", json!(["127.0.0.1"]));
}

#[test]
fn nobody_frees_a_token_from_its_addresses_by_making_another_one() {
    let server = Server::dev();
    enable(&server, "userpass", "userpass");
    let makes = "path \"auth/token/create\" { capabilities = [\"update\"] }";
    server.root().put("sys/policies/acl/makes", json!({ "policy": makes })).assert_status(204);
    let strict = json!({ "password": "a-long-password", "token_policies": "makes", "token_strictly_bind_ip": true });
    user(&server, "userpass", "bob", strict);
    let bob = log_in(&server, "userpass", "bob");
    for kind in ["service", "batch"] {
        let child = server.as_token(&bob.child(json!({ "type": kind })));
        child.get("auth/token/lookup-self").assert_status(200).assert_at("/data/bound_cidrs", json!(["127.0.0.1"]));
    }
}

#[test]
fn the_mount_says_how_long_tokens_live_and_of_what_kind_they_are() {
    kinds_and_lengths(&Server::dev());
}

#[test]
fn the_mount_of_a_real_openbao_says_the_same() {
    let Some(bao) = Bao::find("kinds and lengths of tokens, against a real OpenBao") else { return };
    kinds_and_lengths(&Server::openbao(&bao));
}

fn kinds_and_lengths(server: &Server) {
    let root = server.root();
    enable(server, "userpass", "userpass");
    root.post("sys/auth/userpass/tune", json!({ "default_lease_ttl": "1h", "max_lease_ttl": "2h" })).assert_status(204);
    for (name, body, wanted) in [
        (
            "plain",
            json!({}),
            json!({ "lease_duration": 3600, "token_type": "service", "renewable": true, "num_uses": 0 }),
        ),
        ("short", json!({ "token_ttl": "5m", "token_max_ttl": "10m" }), json!({ "lease_duration": 300 })),
        ("long", json!({ "token_ttl": "9h" }), json!({ "lease_duration": 7200 })),
        ("period", json!({ "token_period": "10m", "token_ttl": "1m" }), json!({ "lease_duration": 600 })),
        ("end", json!({ "token_explicit_max_ttl": "7m" }), json!({ "lease_duration": 420 })),
        ("uses", json!({ "token_num_uses": 4 }), json!({ "num_uses": 4 })),
        (
            "batch",
            json!({ "token_type": "batch" }),
            json!({ "token_type": "batch", "renewable": false, "accessor": "" }),
        ),
        ("bare", json!({ "token_no_default_policy": true }), json!({ "policies": [] })),
        ("upper", json!({ "token_policies": "B,a" }), json!({ "policies": ["a", "b", "default"] })),
    ] {
        let mut body = body;
        body["password"] = json!("a-long-password");
        user(server, "userpass", name, body);
        let answer =
            server.nobody().post(&format!("auth/userpass/login/{name}"), json!({ "password": "a-long-password" }));
        let answer = answer.assert_status(200);
        for (key, value) in wanted.as_object().unwrap() {
            let found = answer.at(&format!("/auth/{key}"));
            // A second may have passed.
            let is_near = found
                .as_i64()
                .zip(value.as_i64())
                .is_some_and(|(found, wanted)| wanted - found <= 2 && found <= wanted);
            assert!(found == *value || is_near, "{name}: {key} is not {value}\n{answer}");
        }
    }
    root.post("sys/auth/userpass/tune", json!({ "token_type": "batch" })).assert_status(204);
    let login = server.nobody().post("auth/userpass/login/plain", json!({ "password": "a-long-password" }));
    login.assert_status(200).assert_at("/auth/token_type", "batch");
}

#[test]
fn renewal_asks_the_method_how_the_user_is_now() {
    let server = Server::dev();
    enable(&server, "userpass", "userpass");
    user(
        &server,
        "userpass",
        "bob",
        json!({ "password": "a-long-password", "token_policies": "p", "token_ttl": "10m" }),
    );
    let bob = log_in(&server, "userpass", "bob");
    let renew = || bob.post("auth/token/renew-self", json!({}));
    renew().assert_status(200).assert_at("/auth/lease_duration", 600).assert_at("/auth/metadata/username", "bob");
    user(&server, "userpass", "bob", json!({ "token_ttl": "5m", "token_max_ttl": "8m" }));
    renew().assert_status(200).assert_at("/auth/lease_duration", 300);
    let more = bob.post("auth/token/renew-self", json!({ "increment": "1h" })).assert_status(200);
    assert!(more.number("/auth/lease_duration") <= 480, "{more}");
    user(&server, "userpass", "bob", json!({ "token_policies": "q" }));
    renew().assert_multi(500, "failed to renew entry: policies have changed, not renewing");
    server.root().delete("auth/userpass/users/bob").assert_status(204);
    let gone = "failed to renew entry: user \"bob\" does not exist any more, not renewing";
    renew().assert_multi(500, gone);
    // What could not be renewed lives until its end all the same.
    bob.get("auth/token/lookup-self").assert_status(200);
}

#[test]
fn the_command_line_manages_auth_methods_and_logs_in() {
    let server = Server::dev();
    let cli = server.cli();
    cli.line("auth enable -path=people -description=staff userpass")
        .assert_status(0)
        .assert_stdout("Success! Enabled userpass auth method at: people/");
    cli.line("auth list").assert_status(0).assert_stdout("people/");
    cli.line("write auth/people/users/bob password=a-long-password token_policies=default").assert_status(0);
    server.secrets().tell("a-long-password");
    let person = cli.without_token();
    person
        .line("login -method=userpass -path=people username=bob password=a-long-password")
        .assert_status(0)
        .assert_stdout("Success! You are now authenticated.");
    person.line("token lookup").assert_status(0).assert_stdout("auth/people/login/bob");
    person.line("login -method=userpass -path=people username=bob password=wrong-password").assert_status(2);
    cli.line("auth tune -user-lockout-threshold=2 -token-type=batch people/").assert_status(0);
    server
        .root()
        .get("sys/auth/people/tune")
        .assert_at("/data/user_lockout_threshold", 2)
        .assert_at("/data/token_type", "batch");
    cli.line("auth enable approle").assert_status(0);
    server.root().post("auth/approle/role/r", json!({ "role_id": "the-role" })).assert_status(204);
    let made = server.root().post("auth/approle/role/r/custom-secret-id", json!({ "secret_id": "the-secret-id" }));
    made.assert_status(200);
    let login = person.line("login -method=approle role_id=the-role secret_id=the-secret-id -token-only");
    assert!(login.assert_status(0).stdout.starts_with("s."));
    cli.line("auth help people").assert_status(0).assert_stdout("login -method=userpass");
    cli.line("auth help approle").assert_status(0).assert_stdout("login -method=approle");
    cli.line("auth help nope").assert_status(2).assert_stderr("unknown authentication method: nope");
    let moved = "Finished moving auth method auth/people/ to auth/staff/, with migration ID ";
    cli.line("auth move auth/people auth/staff/").assert_status(0).assert_stdout(moved);
    cli.line("auth move staff people").assert_status(0).assert_stdout("to auth/people/");
    cli.line("auth move nobody people2")
        .assert_status(2)
        .assert_stderr("Error moving auth method auth/nobody/ to auth/people2/");
    cli.line("auth disable people").assert_status(0);
    assert!(!cli.line("auth list").assert_status(0).stdout.contains("people/"));
}

/// How somebody logs in with one method: below the mount's path, and with what.
struct Login {
    mount: &'static str,
    path: &'static str,
    body: Value,
    /// What the token's user or role is, below the mount's path.
    role: &'static str,
}

impl Login {
    fn send(&self, server: &Server, mount: &str) -> crate::support::Answer {
        server.nobody().post(&format!("auth/{mount}/{}", self.path), self.body.clone())
    }
}

/// Every method that needs no TLS, with somebody who may log in. `cert` has the same in its own chapter.
fn every_method(server: &Server) -> Vec<Login> {
    let root = server.root();
    for kind in ["userpass", "approle", "jwt", "kubernetes"] {
        enable(server, kind, kind);
    }
    user(server, "userpass", "bob", json!({ "password": "a-long-password" }));
    let role = json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.0/8", "role_id": "the-role" });
    root.post("auth/approle/role/r", role).assert_status(204);
    let provider = Signer::new();
    root.post("auth/jwt/config", json!({ "jwt_validation_pubkeys": provider.public_pem() })).assert_status(204);
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_subject": "job" });
    root.post("auth/jwt/role/r", role).assert_status(204);
    let jwt = provider.token(None, &json!({ "sub": "job", "iat": now(), "exp": now() + 600 }));
    let cluster = kubernetes::Cluster::start();
    kubernetes::configure(server, &cluster, json!({}));
    kubernetes::role(server, "r", json!({}));
    let pod = cluster.token("shop", "app-1");
    [&jwt, &pod].into_iter().for_each(|token| server.secrets().tell(token));
    let one = |mount, path, body, role| Login { mount, path, body, role };
    vec![
        one("userpass", "login/bob", json!({ "password": "a-long-password" }), "users/bob"),
        one("approle", "login", json!({ "role_id": "the-role" }), "role/r"),
        one("jwt", "login", json!({ "role": "r", "jwt": jwt }), "role/r"),
        one("kubernetes", "login", json!({ "role": "r", "jwt": pod }), "role/r"),
    ]
}

#[test]
fn what_a_mount_is_tuned_to_holds_for_the_tokens_of_every_method() {
    let server = Server::dev();
    let root = server.root();
    for login in every_method(&server) {
        let mount = login.mount;
        for (kind, prefix) in [("batch", "b."), ("service", "s.")] {
            let tuned = json!({ "token_type": kind, "max_lease_ttl": "90s" });
            root.post(&format!("sys/auth/{mount}/tune"), tuned).assert_status(204);
            let made = login.send(&server, mount).assert_status(200).assert_at("/auth/lease_duration", 90);
            assert!(made.text("/auth/client_token").starts_with(prefix), "{mount} {kind}: {made}");
        }
    }
}

#[test]
fn every_method_can_be_moved_and_ends_what_it_made_when_it_is_disabled() {
    let server = Server::dev();
    let root = server.root();
    for login in every_method(&server) {
        let (mount, moved) = (login.mount, format!("team/{}", login.mount));
        let from_to = json!({ "from": format!("auth/{mount}"), "to": format!("auth/{moved}") });
        root.post("sys/remount", from_to).assert_status(200);
        eventually("the mount has moved", || login.send(&server, &moved).status == 200);
        login.send(&server, mount).assert_error(403, "permission denied");
        let token = server.as_token(&login.send(&server, &moved).assert_status(200).text("/auth/client_token"));
        token.post("auth/token/renew-self", json!({})).assert_status(200);
        root.delete(&format!("auth/{moved}/{}", login.role)).assert_status(204);
        assert_ne!(login.send(&server, &moved).status, 200, "{mount}: its role is gone");
        token.post("auth/token/renew-self", json!({})).assert_error_has(500, "failed to renew entry");
        token.get("auth/token/lookup-self").assert_status(200);
        root.delete(&format!("sys/auth/{moved}")).assert_status(204);
        token.get("auth/token/lookup-self").assert_error(403, "permission denied");
        login.send(&server, &moved).assert_error(403, "permission denied");
    }
}
