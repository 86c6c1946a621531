//! Response wrapping and cubbyholes, beside OpenBao's where that is given: contract.md §2.9.

use leasehold_devpg::{DevPg, Options};
use serde_json::{Value, json};

use super::auth::enable;
use super::postgresql_storage::{server_on, url};
use crate::support::{Answer, Bao, Client, Database, Durable, Server, eventually};

const NOT_VALID: &str = "wrapping token is not valid or does not exist";

/// Asks for the answer to be wrapped.
fn wrapped(client: &Client, method: &str, path: &str, body: &Value, ttl: &str) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.bytes(method, path, body.as_bytes(), &[("X-Vault-Wrap-TTL", ttl)])
}

fn token_of(answer: &Answer) -> String {
    answer.text("/wrap_info/token")
}

fn unwrap(client: &Client, token: &str) -> Answer {
    client.put("sys/wrapping/unwrap", json!({ "token": token }))
}

#[test]
fn an_answer_is_wrapped_looked_up_and_unwrapped_once() {
    walk(&Server::dev());
}

#[test]
fn a_real_openbao_wraps_alike() {
    let Some(bao) = Bao::find("response wrapping, against a real OpenBao") else { return };
    walk(&Server::openbao(&bao));
}

fn walk(server: &Server) {
    let (root, nobody) = (server.root(), server.nobody());
    let answer = wrapped(&root, "GET", "auth/token/lookup-self", &Value::Null, "5m")
        .assert_status(200)
        .assert_at("/request_id", "")
        .assert_at("/data", json!(null))
        .assert_at("/auth", json!(null))
        .assert_at("/wrap_info/ttl", 300)
        .assert_at("/wrap_info/creation_path", "auth/token/lookup-self")
        .assert_at("/wrap_info/wrapped_accessor", json!(null));
    let token = token_of(&answer);
    let at = answer.text("/wrap_info/creation_time");

    // Where it comes from, whoever asks, by body and by header; no use is taken.
    for found in [
        nobody.post("sys/wrapping/lookup", json!({ "token": token })),
        server.as_token(&token).post("sys/wrapping/lookup", json!({})),
        server.as_token(&token).get("sys/wrapping/lookup"),
    ] {
        found.assert_status(200).assert_at(
            "/data",
            json!({ "creation_path": "auth/token/lookup-self", "creation_time": at, "creation_ttl": 300 }),
        );
    }
    root.post("auth/token/lookup", json!({ "token": token }))
        .assert_status(200)
        .assert_at("/data/policies", json!(["response-wrapping"]))
        .assert_at("/data/num_uses", 1)
        .assert_at("/data/orphan", true)
        .assert_at("/data/renewable", false)
        .assert_at("/data/display_name", "token")
        .assert_at("/data/explicit_max_ttl", 300)
        .assert_at("/data/path", "auth/token/lookup-self");

    // Moved to a new token, unseen.
    let moved = root
        .put("sys/wrapping/rewrap", json!({ "token": token }))
        .assert_status(200)
        .assert_at("/wrap_info/ttl", 300)
        .assert_at("/wrap_info/creation_path", "auth/token/lookup-self");
    unwrap(&root, &token).assert_error(400, NOT_VALID);
    let token = token_of(&moved);
    let read = unwrap(&root, &token).assert_status(200).assert_at("/data/policies", json!(["root"]));
    assert_ne!(read.text("/request_id"), "");
    unwrap(&root, &token).assert_error(400, NOT_VALID);
    nobody.post("sys/wrapping/lookup", json!({ "token": token })).assert_error(400, NOT_VALID);

    // The wrapping token itself unwraps, without another one.
    let answer = wrapped(&root, "POST", "sys/wrapping/wrap", &json!({ "a": { "b": [1, null] } }), "60");
    let own = server.as_token(&token_of(&answer));
    own.request("PUT", "sys/wrapping/unwrap", None)
        .assert_status(200)
        .assert_at("/data", json!({ "a": { "b": [1, null] } }));
    own.request("PUT", "sys/wrapping/unwrap", None).assert_error(400, NOT_VALID);
    // And it is good for nothing else, which ends it.
    let answer = wrapped(&root, "POST", "sys/wrapping/wrap", &json!({ "a": 1 }), "60");
    let own = server.as_token(&token_of(&answer));
    own.get("auth/token/lookup-self").assert_multi(403, "permission denied");
    own.request("PUT", "sys/wrapping/unwrap", None).assert_error(400, NOT_VALID);

    // What is no wrapping token.
    let live = root.child(json!({ "policies": ["default"], "num_uses": 3 }));
    for bad in ["x", "s.nothing", &live] {
        for route in ["unwrap", "rewrap"] {
            root.put(&format!("sys/wrapping/{route}"), json!({ "token": bad })).assert_error(400, NOT_VALID);
        }
        nobody.put("sys/wrapping/lookup", json!({ "token": bad })).assert_error(400, NOT_VALID);
    }
    root.post("auth/token/lookup", json!({ "token": live })).assert_at("/data/num_uses", 3);
    root.put("sys/wrapping/unwrap", json!({})).assert_error(400, NOT_VALID);
    let invalid = "error validating wrapping token: ";
    for (client, body, why) in [
        (&nobody, json!({}), "token is empty"),
        (&root, json!({ "token": 5 }), "could not decode token in request body"),
        (&root, json!({ "token": "" }), "empty token in request body"),
    ] {
        client.put("sys/wrapping/unwrap", body).assert_error(403, &format!("{invalid}{why}"));
    }
    root.put("sys/wrapping/wrap", json!({ "a": 1 }))
        .assert_error(400, "endpoint requires response wrapping to be used");

    // What has no body, and what failed, is answered as it is.
    for (method, path, body, status) in [
        ("POST", "cubbyhole/a", json!({ "v": 1 }), 204),
        ("GET", "cubbyhole/none", Value::Null, 404),
        ("POST", "sys/mounts/x", json!({ "type": "nosuch" }), 400),
        ("GET", "sys/health", Value::Null, 200),
    ] {
        let answer = wrapped(&root, method, path, &body, "60").assert_status(status);
        assert!(!answer.body.contains("wrap_info\":{"), "{answer}");
    }
    // Zero is off, and what is no length is refused.
    wrapped(&root, "GET", "auth/token/lookup-self", &Value::Null, "0").assert_at("/data/display_name", "token");
    for (ttl, why) in [
        ("abc", "error parsing X-Vault-Wrap-TTL header: time: invalid duration \"abc\""),
        ("-5", "error parsing X-Vault-Wrap-TTL header: requested wrap ttl cannot be negative"),
    ] {
        wrapped(&root, "GET", "auth/token/lookup-self", &Value::Null, ttl).assert_error(400, why);
    }

    // A token in an answer is named by its accessor.
    let made = wrapped(&root, "POST", "auth/token/create", &json!({ "policies": ["nope"], "ttl": "1h" }), "60");
    let accessor = made.text("/wrap_info/wrapped_accessor");
    let read = unwrap(&root, &token_of(&made))
        .assert_status(200)
        .assert_at("/auth/accessor", accessor)
        .assert_at("/auth/lease_duration", 3600)
        .assert_warning("Policy \"nope\" does not exist");
    server.as_token(&read.text("/auth/client_token")).get("auth/token/lookup-self").assert_status(200);

    // Policies say for how long.
    let bounded = server.with_policy(
        "bounded",
        "path \"sys/wrapping/wrap\" { capabilities = [\"update\"] min_wrapping_ttl = \"1m\" max_wrapping_ttl = \"2m\" }",
    );
    for (ttl, status) in [("30", 403), ("60", 200), ("2m", 200), ("121", 403), ("0", 403)] {
        wrapped(&bounded, "POST", "sys/wrapping/wrap", &json!({ "a": 1 }), ttl).assert_status(status);
    }
}

/// What is handed out under a wrapping token is gone as soon as nobody can unwrap it any more.
#[test]
fn what_nobody_has_unwrapped_ends_with_its_wrapping_token() {
    let server = Server::dev();
    let database = Database::fresh();
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    enable(&server, "userpass", "userpass");
    root.post("auth/userpass/users/u", json!({ "password": "a-password-of-u" })).assert_status(204);
    let roles = || database.sql("select count(*) from pg_roles where rolname like 'v-%'");
    let none = roles();
    let creds = |ttl: &str| wrapped(&root, "GET", "database/creds/r", &Value::Null, ttl).assert_status(200);

    // Read in time, a credential lives.
    let read = unwrap(&root, &token_of(&creds("60"))).assert_status(200);
    let (user, password) = (read.text("/data/username"), read.text("/data/password"));
    assert!(database.lets_in(&user, &password));
    root.put("sys/leases/lookup", json!({ "lease_id": read.text("/lease_id") })).assert_status(200);
    root.put("sys/leases/revoke", json!({ "lease_id": read.text("/lease_id") })).assert_status(204);
    assert_eq!(roles(), none);

    // Also for a token that has one use left: what it gets was made before, and not for it.
    let once = server.as_token(&root.child(json!({ "policies": ["default"], "num_uses": 1 })));
    let read = unwrap(&once, &token_of(&creds("60"))).assert_status(200);
    assert!(database.lets_in(&read.text("/data/username"), &read.text("/data/password")));
    root.put("sys/leases/revoke", json!({ "lease_id": read.text("/lease_id") })).assert_status(204);

    // It expires, is revoked, or is used for something else.
    let expiring = creds("1");
    let revoked = creds("60");
    let misused = creds("60");
    root.post("auth/token/revoke", json!({ "token": token_of(&revoked) })).assert_status(204);
    server.as_token(&token_of(&misused)).get("sys/mounts").assert_status(403);
    eventually("no role is left", || roles() == none);
    unwrap(&root, &token_of(&expiring)).assert_error(400, NOT_VALID);
    let log = server.log();
    assert!(log.contains("it was not unwrapped before its wrapping token, accessor"), "{log}");

    // Moved to another token it ends with that one alone.
    let first = creds("60");
    let second = root.put("sys/wrapping/rewrap", json!({ "token": token_of(&first) })).assert_status(200);
    assert_ne!(roles(), none);
    root.post("auth/token/revoke", json!({ "token": token_of(&second) })).assert_status(204);
    eventually("no role is left", || roles() == none);

    // A login, too.
    let login = || {
        wrapped(&server.nobody(), "POST", "auth/userpass/login/u", &json!({ "password": "a-password-of-u" }), "60")
            .assert_status(200)
    };
    let read = unwrap(&root, &token_of(&login())).assert_status(200);
    server.as_token(&read.text("/auth/client_token")).get("auth/token/lookup-self").assert_status(200);
    let unread = login();
    let accessor = unread.text("/wrap_info/wrapped_accessor");
    root.post("auth/token/lookup-accessor", json!({ "accessor": accessor })).assert_status(200);
    root.post("auth/token/revoke-accessor", json!({ "accessor": unread.text("/wrap_info/accessor") }))
        .assert_status(204);
    root.post("auth/token/lookup-accessor", json!({ "accessor": accessor })).assert_multi(400, "invalid accessor");
}

/// One reader gets it, however many ask at once.
#[test]
fn an_answer_is_unwrapped_by_one_of_many() {
    let server = Server::dev();
    let root = server.root();
    for _ in 0..5 {
        let token = token_of(&wrapped(&root, "POST", "sys/wrapping/wrap", &json!({ "a": 1 }), "60"));
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| unwrap(&root, &token).status)).collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 400)), "{statuses:?}");
    }
}

/// Wrapped secrets and wrapping tokens are in no log, no audit record and not readable in the store.
#[test]
fn what_is_wrapped_is_nowhere() {
    let server = Server::durable(&Durable::default());
    let file = server.home().join("audit/main.log");
    server.root().put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } })).assert_status(204);
    let canary = "canary-of-a-wrapped-answer";
    server.secrets().tell(canary);
    let token = token_of(&wrapped(&server.root(), "POST", "sys/wrapping/wrap", &json!({ "secret": canary }), "60"));
    server.secrets().tell(&token);
    let audit = server.audit_text();
    assert!(audit.contains("\"wrap_info\":{\"ttl\":60,\"token\":\"hmac-sha256:"), "{audit}");
    assert!(audit.contains("\"wrap_ttl\":60"), "{audit}");
    server.crash_and_restart();
    unwrap(&server.root(), &token).assert_status(200).assert_at("/data/secret", canary);
    let audit = server.audit_text();
    assert!(!audit.contains(canary) && !audit.contains(&token), "{audit}");
}

#[test]
fn a_cubbyhole_is_one_tokens_own() {
    cubbyholes(&Server::dev());
}

#[test]
fn a_cubbyhole_of_a_real_openbao_is_the_same() {
    let Some(bao) = Bao::find("cubbyholes, against a real OpenBao") else { return };
    cubbyholes(&Server::openbao(&bao));
}

fn cubbyholes(server: &Server) {
    let root = server.root();
    let (one, other) = (root.child(json!({ "policies": ["default"] })), root.child(json!({ "policies": ["default"] })));
    let (mine, theirs) = (server.as_token(&one), server.as_token(&other));
    mine.get("cubbyhole/a").assert_errors(404, &[]);
    mine.put("cubbyhole/a/b", json!({ "x": 1, "path": "p", "y": { "z": null } })).assert_status(204).assert_empty();
    mine.get("cubbyhole/a/b")
        .assert_status(200)
        .assert_at("/data", json!({ "x": 1, "path": "p", "y": { "z": null } }))
        .assert_at("/lease_id", "");
    mine.put("cubbyhole/a", json!({ "x": 2 })).assert_status(204);
    mine.list("cubbyhole/").assert_status(200).assert_at("/data/keys", json!(["a", "a/"]));
    mine.list("cubbyhole/a").assert_status(200).assert_at("/data/keys", json!(["b"]));
    mine.put("cubbyhole/c", json!({})).assert_multi(500, "missing data fields");
    for stranger in [&theirs, &root] {
        stranger.get("cubbyhole/a/b").assert_errors(404, &[]);
    }
    theirs.put("cubbyhole/a/b", json!({ "x": "theirs" })).assert_status(204);
    mine.get("cubbyhole/a/b").assert_at("/data/x", 1);
    mine.delete("cubbyhole/a/b").assert_status(204);
    mine.delete("cubbyhole/a/b").assert_status(204);
    mine.get("cubbyhole/a/b").assert_errors(404, &[]);

    let batch = server.as_token(&root.child(json!({ "policies": ["default"], "type": "batch", "ttl": "1h" })));
    for answer in [batch.put("cubbyhole/a", json!({ "x": 1 })), batch.get("cubbyhole/a")] {
        answer.assert_error(400, "cubbyhole operations are only supported by 'service' type tokens");
    }
    let creating = server.with_policy("creating", "path \"cubbyhole/*\" { capabilities = [\"create\"] }");
    creating.put("cubbyhole/a", json!({ "x": 1 })).assert_status(204);
    root.get("sys/mounts/cubbyhole")
        .assert_status(200)
        .assert_at("/data/type", "cubbyhole")
        .assert_at("/data/local", true)
        .assert_at("/data/description", "per-token private secret storage");
    root.delete("sys/mounts/cubbyhole").assert_status(400);
    root.post("sys/mounts/cubbyhole/x", json!({ "type": "kv" })).assert_status(400);
}

/// Nothing of a cubbyhole, and of what was wrapped, is left in the store when its token has ended.
#[test]
fn what_was_kept_for_a_token_leaves_the_store_with_it() {
    let store = DevPg::start(Options::default()).unwrap();
    let server = server_on(&url(&store));
    let root = server.root();
    let parent = root.child(json!({ "policies": ["root"] }));
    let child = server.as_token(&server.as_token(&parent).child(json!({ "policies": ["default"] })));
    for n in 0..450 {
        child.put(&format!("cubbyhole/folder/n{n}"), json!({ "v": n })).assert_status(204);
    }
    let kept = |of: &str| {
        let found = store.psql(&format!("select count(*) from leasehold_kv where key like 'token/{of}/%'")).unwrap();
        found.trim().parse::<u32>().unwrap()
    };
    assert_eq!(kept("cubbyhole"), 450);
    root.post("auth/token/revoke", json!({ "token": parent })).assert_status(204);
    assert_eq!(kept("cubbyhole"), 0);

    let wrap = || token_of(&wrapped(&root, "POST", "sys/wrapping/wrap", &json!({ "a": 1 }), "60"));
    let [read, moved, ended] = [wrap(), wrap(), wrap()];
    assert_eq!(kept("wrapped"), 3);
    unwrap(&root, &read).assert_status(200);
    root.put("sys/wrapping/rewrap", json!({ "token": moved })).assert_status(200);
    root.post("auth/token/revoke", json!({ "token": ended })).assert_status(204);
    assert_eq!(kept("wrapped"), 1);
    let wrapping = "select count(*) from leasehold_lease where id like 'sys/wrapping/%'";
    assert_eq!(store.psql(wrapping).unwrap().trim(), "1");
}
