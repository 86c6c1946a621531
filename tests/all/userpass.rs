//! userpass: users, logins by password, lockout.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::auth::enable;
use crate::support::{Answer, Bao, Durable, Server};

const PASSWORD: &str = "correct-horse-battery";

fn server() -> Server {
    let server = Server::dev();
    enable(&server, "userpass", "userpass");
    server
}

fn log_in(server: &Server, name: &str, password: &str) -> Answer {
    server.nobody().post(&format!("auth/userpass/login/{name}"), json!({ "password": password }))
}

#[test]
fn users_are_written_read_listed_and_deleted() {
    users(&server());
}

#[test]
fn users_of_a_real_openbao_are_the_same() {
    let Some(bao) = Bao::find("users of userpass, against a real OpenBao") else { return };
    let server = Server::openbao(&bao);
    enable(&server, "userpass", "userpass");
    users(&server);
}

fn users(server: &Server) {
    let root = server.root();
    root.list("auth/userpass/users").assert_errors(404, &[]);
    root.get("auth/userpass/users/bob").assert_errors(404, &[]);
    let body = json!({ "password": PASSWORD, "token_policies": "p2,P1", "token_ttl": "1h", "token_bound_cidrs": ["127.0.0.0/8", "1.2.3.4/32"] });
    root.post("auth/userpass/users/Bob", body).assert_status(204).assert_empty();
    let shown = json!({
        "token_bound_cidrs": ["127.0.0.0/8", "1.2.3.4"], "token_explicit_max_ttl": 0, "token_max_ttl": 0,
        "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0, "token_strictly_bind_ip": false,
        "token_ttl": 3600, "token_type": "default",
    });
    let read = root.get("auth/userpass/users/bob").assert_status(200);
    for (key, value) in shown.as_object().unwrap() {
        assert_eq!(read.at("/data")[key], *value, "{key}\n{read}");
    }
    assert!(read.at("/data/password").is_null() && read.at("/data/policies").is_null(), "{read}");
    // What is named changes, and the password stays.
    root.post("auth/userpass/users/bob", json!({ "token_ttl": 60 })).assert_status(204);
    root.get("auth/userpass/users/BOB")
        .assert_at("/data/token_ttl", 60)
        .assert_at("/data/token_bound_cidrs/1", "1.2.3.4");
    log_in(server, "bob", PASSWORD).assert_status(200);

    root.post("auth/userpass/users/old", json!({ "password": "x", "policies": "a", "ttl": 5, "max_ttl": "1m" }))
        .assert_status(204);
    root.get("auth/userpass/users/old")
        .assert_at("/data/policies", json!(["a"]))
        .assert_at("/data/token_policies", json!(["a"]))
        .assert_at("/data/ttl", 5)
        .assert_at("/data/token_ttl", 5)
        .assert_at("/data/max_ttl", 60);
    root.post("auth/userpass/users/old/policies", json!({ "token_policies": "b" })).assert_status(204);
    root.get("auth/userpass/users/old")
        .assert_at("/data/token_policies", json!(["b"]))
        .assert_at("/data/policies", Value::Null);
    root.list("auth/userpass/users").assert_status(200).assert_at("/data/keys", json!(["bob", "old"]));
    root.list("auth/userpass/users?limit=1").assert_at("/data/keys", json!(["bob"]));
    root.list("auth/userpass/users?after=bob").assert_at("/data/keys", json!(["old"]));
    root.delete("auth/userpass/users/old").assert_status(204);
    root.delete("auth/userpass/users/old").assert_status(204);
    log_in(server, "old", "x").assert_error(400, "invalid username or password");
}

#[test]
fn what_is_no_good_is_refused_in_vaults_words() {
    refusals(&server());
}

#[test]
fn what_is_no_good_is_refused_by_a_real_openbao_too() {
    let Some(bao) = Bao::find("refusals of userpass, against a real OpenBao") else { return };
    let server = Server::openbao(&bao);
    enable(&server, "userpass", "userpass");
    refusals(&server);
}

fn refusals(server: &Server) {
    let root = server.root();
    root.post("auth/userpass/users/bob", json!({ "password": PASSWORD })).assert_status(204);
    for (body, why) in [
        (json!({}), "must provide either password or password_hash"),
        (json!({ "password": "a", "password_hash": "b" }), "only one of password or password_hash may be provided"),
        (json!({ "password_hash": "b" }), "password_hash is not a valid bcrypt hash"),
        (json!({ "password": "a", "token_type": "default-service" }), "invalid 'token_type' value \"default-service\""),
        (
            json!({ "password": "a", "token_ttl": 9, "token_max_ttl": 8 }),
            "'token_ttl' cannot be greater than 'token_max_ttl'",
        ),
        (json!({ "password": "a", "token_num_uses": -1 }), "'token_num_uses' cannot be negative"),
    ] {
        root.post("auth/userpass/users/new", body).assert_error(400, why);
    }
    root.get("auth/userpass/users/new").assert_errors(404, &[]);
    root.post("auth/userpass/users/nope/password", json!({ "password": "b" }))
        .assert_multi(500, "username does not exist");
    root.post("auth/userpass/users/nope/policies", json!({ "policies": "b" }))
        .assert_multi(500, "username does not exist");
    root.post("auth/userpass/users/bob/password", json!({}))
        .assert_error(400, "must provide either password or password_hash");
    log_in(server, "bob", "wrong").assert_error(400, "invalid username or password");
    log_in(server, "nope", "wrong").assert_error(400, "invalid username or password");
    server.nobody().post("auth/userpass/login/bob", json!({})).assert_error(500, "missing password");
    root.post("auth/userpass/users/admin", json!({ "password": PASSWORD, "policies": "root" })).assert_status(204);
    log_in(server, "admin", PASSWORD).assert_error(400, "auth methods cannot create root tokens");
}

#[test]
fn a_login_answers_with_a_token_of_the_user() {
    login(&server());
}

#[test]
fn a_login_at_a_real_openbao_answers_alike() {
    let Some(bao) = Bao::find("logins of userpass, against a real OpenBao") else { return };
    let server = Server::openbao(&bao);
    enable(&server, "userpass", "userpass");
    login(&server);
}

fn login(server: &Server) {
    let root = server.root();
    root.post("auth/userpass/users/bob", json!({ "password": PASSWORD, "token_policies": "p1", "token_ttl": "1h" }))
        .assert_status(204);
    let answer = log_in(server, "BOB", PASSWORD)
        .assert_status(200)
        .assert_at("/data", Value::Null)
        .assert_at("/warnings", Value::Null)
        .assert_at("/auth/policies", json!(["default", "p1"]))
        .assert_at("/auth/token_policies", json!(["default", "p1"]))
        .assert_at("/auth/metadata", json!({ "username": "bob" }))
        .assert_at("/auth/lease_duration", 3600)
        .assert_at("/auth/renewable", true)
        .assert_at("/auth/orphan", true)
        .assert_at("/auth/mfa_requirement", Value::Null);
    server
        .as_token(&answer.text("/auth/client_token"))
        .get("auth/token/lookup-self")
        .assert_status(200)
        .assert_at("/data/display_name", "userpass-bob")
        // The path is the one that was asked for; the name is the user's.
        .assert_at("/data/path", "auth/userpass/login/BOB")
        .assert_at("/data/meta", json!({ "username": "bob" }))
        .assert_at("/data/orphan", true);
    // A hash that an operator brought along: the password is `U*U`.
    let hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    root.post("auth/userpass/users/bob/password", json!({ "password_hash": hash })).assert_status(204);
    log_in(server, "bob", PASSWORD).assert_status(400);
    log_in(server, "bob", "U*U").assert_status(200);
    root.post("auth/userpass/users/bob/password", json!({ "password": "another-password" })).assert_status(204);
    log_in(server, "bob", "U*U").assert_status(400);
    log_in(server, "bob", "another-password").assert_status(200);
}

#[test]
fn five_failures_lock_a_name_whether_or_not_it_exists() {
    let server = server();
    let root = server.root();
    root.post("auth/userpass/users/bob", json!({ "password": PASSWORD })).assert_status(204);
    for name in ["bob", "nobody"] {
        for _ in 0..5 {
            log_in(&server, name, "wrong").assert_error(400, "invalid username or password");
        }
        log_in(&server, name, "wrong").assert_error(403, "permission denied");
    }
    log_in(&server, "bob", PASSWORD).assert_error(403, "permission denied");
    let accessor = root.get("sys/auth/userpass").text("/data/accessor");
    root.get("sys/locked-users")
        .assert_status(200)
        .assert_at("/data/total", 2)
        .assert_at("/data/by_namespace/0/mount_accessors/0/mount_accessor", accessor.as_str())
        .assert_at("/data/by_namespace/0/mount_accessors/0/alias_identifiers", json!(["bob", "nobody"]));
    root.post(&format!("sys/locked-users/{accessor}/unlock/bob"), json!({})).assert_status(204);
    log_in(&server, "bob", PASSWORD).assert_status(200);
    // A success begins the count anew.
    for _ in 0..2 {
        for _ in 0..4 {
            log_in(&server, "bob", "wrong").assert_status(400);
        }
        log_in(&server, "bob", PASSWORD).assert_status(200);
    }
    root.post(
        "sys/auth/userpass/tune",
        json!({ "user_lockout_config": { "lockout_threshold": "1", "lockout_duration": "10m" } }),
    )
    .assert_status(204);
    root.get("sys/auth/userpass/tune")
        .assert_at("/data/user_lockout_threshold", 1)
        .assert_at("/data/user_lockout_duration", 600)
        .assert_at("/data/user_lockout_disable", false);
    log_in(&server, "bob", "wrong").assert_status(400);
    log_in(&server, "bob", PASSWORD).assert_status(403);
    root.post("sys/auth/userpass/tune", json!({ "user_lockout_config": { "lockout_disable": true } }))
        .assert_status(204);
    log_in(&server, "bob", PASSWORD).assert_status(200);
    root.post("sys/auth/token/tune", json!({ "user_lockout_config": { "lockout_disable": true } }))
        .assert_error(400, "tuning of user lockout configuration for auth type \"token\" not allowed");
}

/// Many guesses at once learn no more than guesses one after another.
#[test]
fn guesses_at_the_same_time_are_counted_like_others() {
    let server = server();
    server.root().post("auth/userpass/users/bob", json!({ "password": PASSWORD })).assert_status(204);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..16).map(|_| scope.spawn(|| log_in(&server, "bob", "wrong").status)).collect();
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let told = answers.iter().filter(|status| **status == 400).count();
    assert_eq!(told, 5, "{answers:?}");
    assert!(answers.iter().all(|status| [400, 403].contains(status)), "{answers:?}");
    log_in(&server, "bob", PASSWORD).assert_error(403, "permission denied");
}

/// Hashing has its own places: whoever does not log in does not wait for them.
#[test]
fn a_flood_of_logins_is_refused_and_leaves_everything_else_fast() {
    let server = server();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut slowest, mut busy) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..64)
            .map(|worker| {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut busy = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let answer = log_in(server, &format!("name-{worker}"), "wrong");
                        busy += usize::from([429, 503].contains(&answer.status));
                        assert!([400, 403, 429, 503].contains(&answer.status), "{answer}");
                    }
                    busy
                })
            })
            .collect();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            server.root().get("auth/token/lookup-self").assert_status(200);
            slowest = slowest.max(asked.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        busy = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    });
    // Bounded by far less than the minutes that the queue would take without a bound; machines under test are slow.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    tracing(busy);
}

/// How many were refused depends on the machine: it is shown, not asserted.
fn tracing(busy: usize) {
    println!("{busy} logins were refused because too many others were waiting");
}

/// Passwords and their hashes stand in no log and no audit record; the reason of a refusal does stand there.
#[test]
fn passwords_are_nowhere_and_the_reason_of_a_refusal_is_audited() {
    let server = Server::durable(&Durable::default());
    let file = server.home().join("audit/main.log");
    server.root().put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } })).assert_status(204);
    enable(&server, "userpass", "userpass");
    let (password, wrong, unknown) = ("canary-password-1", "canary-password-2", "canary-password-3");
    for secret in [password, wrong, unknown] {
        server.secrets().tell(secret);
    }
    let root = server.root();
    root.post("auth/userpass/users/bob", json!({ "password": password })).assert_status(204);
    root.post("auth/userpass/users/bob", json!({ "password": password, "token_ttl": -1 })).assert_status(400);
    log_in(&server, "bob", password).assert_status(200);
    log_in(&server, "bob", wrong).assert_status(400);
    log_in(&server, "nobody", unknown).assert_status(400);
    for _ in 0..5 {
        log_in(&server, "bob", wrong);
    }
    let log = server.audit_text();
    for reason in [
        "invalid username or password: the password is wrong",
        "invalid username or password: no user has this name",
        "permission denied: too many failed logins have locked this name for some time",
    ] {
        assert!(log.contains(reason), "{reason}\n{log}");
    }
    // The server's end looks for the secrets in all that it wrote. What it stores is sealed; look all the same.
    server.kill();
    for entry in std::fs::read_dir(server.home()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let found = bytes.windows(password.len()).any(|window| window == password.as_bytes());
        assert!(!found, "the password stands in {:?}", entry.path());
    }
}

#[test]
fn users_and_their_tokens_survive_a_crash() {
    let server = Server::durable(&Durable::default());
    enable(&server, "userpass", "userpass");
    server.root().post("auth/userpass/users/bob", json!({ "password": PASSWORD })).assert_status(204);
    let token = log_in(&server, "bob", PASSWORD).assert_status(200).text("/auth/client_token");
    server.crash_and_restart();
    server.as_token(&token).get("auth/token/lookup-self").assert_status(200);
    log_in(&server, "bob", PASSWORD).assert_status(200);
    server.root().delete("sys/auth/userpass").assert_status(204);
    server.crash_and_restart();
    server.as_token(&token).get("auth/token/lookup-self").assert_error(403, "permission denied");
}
