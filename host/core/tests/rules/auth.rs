//! Logins: what is made of them while the world changes.

use std::sync::Arc;

use leasehold_core::lease::LeaseKind;
use leasehold_core::lockout::LockoutRules;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::{Key, Storage};
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::faults::Fault;
use super::support::pass;
use super::support::server::{ROOT, Server, refusal, token_of};

async fn server() -> Arc<Server> {
    let server = Server::start().await;
    server.root("sys/auth/door", json!({ "type": "scripted" })).await.unwrap();
    Arc::new(server)
}

/// Begins a login and waits until the method has it.
async fn begin(server: &Arc<Server>, name: &str) -> tokio::task::JoinHandle<super::support::server::Answer> {
    let (asked, path) = (server.clone(), format!("auth/door/login/{name}"));
    let login = tokio::spawn(async move { asked.call(None, Operation::Update, &path, json!({})).await });
    server.method.arrived.acquire().await.unwrap().forget();
    login
}

#[tokio::test(start_paused = true)]
async fn a_login_whose_mount_goes_meanwhile_makes_no_token() {
    let server = server().await;
    let login = begin(&server, "slow").await;
    server.call(Some(ROOT), Operation::Delete, "sys/auth/door", Value::Null).await.unwrap();
    server.method.door.add_permits(1);
    assert_eq!(refusal(login.await.unwrap()), "BadToken: permission denied");
    let left: Vec<_> =
        server.rows().await.into_iter().filter(|row| row.id.as_str().starts_with("auth/door/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_mount_ends_its_tokens_and_no_others() {
    let server = server().await;
    let tokens: Vec<String> = {
        let service = begin(&server, "a").await.await.unwrap().unwrap();
        let batch = begin(&server, "batch").await.await.unwrap().unwrap();
        vec![token_of(&service), token_of(&batch)]
    };
    let other = server.token(json!({ "policies": ["default"] })).await;
    for token in tokens.iter().chain([&other]) {
        assert!(server.lives(token).await, "{token}");
    }
    let row = server.rows().await.into_iter().find(|row| row.id.as_str().starts_with("auth/door/")).unwrap();
    assert_eq!((row.kind, row.mount.as_str().split('_').next()), (LeaseKind::Token, Some("auth")));
    server.call(Some(ROOT), Operation::Delete, "sys/auth/door", Value::Null).await.unwrap();
    for token in &tokens {
        assert!(!server.lives(token).await, "{token}");
    }
    assert!(server.lives(&other).await);
}

/// A good proof that was given while its name became locked is worth nothing: else many guesses at once would all be answered.
#[tokio::test(start_paused = true)]
async fn a_name_that_becomes_locked_locks_out_who_is_under_way() {
    let server = server().await;
    let good = begin(&server, "slow-bob").await;
    let bad = begin(&server, "slow-bob-wrong").await;
    for _ in 0..5 {
        assert_eq!(refusal(begin(&server, "bob-wrong").await.await.unwrap()), "LoginRefused: no");
    }
    server.method.door.add_permits(2);
    for login in [good, bad] {
        assert_eq!(refusal(login.await.unwrap()), "LoginDenied: permission denied");
    }
    let asked = server.call(None, Operation::Update, "auth/door/login/bob", json!({})).await;
    assert_eq!(refusal(asked), "LoginDenied: permission denied");
    assert_eq!(server.method.arrived.available_permits(), 0, "the method is not even asked");
}

/// What the method says of a login's token holds when it is renewed, within the limits of its mount.
#[tokio::test(start_paused = true)]
async fn a_logins_token_is_renewed_as_its_method_says() {
    let secs = leasehold_model::Ttl::from_secs;
    let server = server().await;
    let made = begin(&server, "a").await.await.unwrap().unwrap();
    assert_eq!(made.auth.as_ref().unwrap().ttl, secs(600));
    let token = token_of(&made);
    let renew = async |increment: Value| {
        server.root("auth/token/renew", json!({ "token": token, "increment": increment })).await
    };
    pass(300).await;
    // The method names no TTL: the mount's holds.
    server.root("sys/auth/door/tune", json!({ "default_lease_ttl": "20m", "max_lease_ttl": "1h" })).await.unwrap();
    assert_eq!(renew(json!(null)).await.unwrap().auth.unwrap().ttl, secs(1_200));
    assert_eq!(renew(json!("5m")).await.unwrap().auth.unwrap().ttl, secs(300));
    assert_eq!(
        renew(json!("9h")).await.unwrap().auth.unwrap().ttl,
        secs(3_300),
        "an hour from its making, five minutes ago"
    );
    let limits = |ttl, max_ttl, period| leasehold_core::seams::auth::LoginLimits {
        ttl: secs(ttl),
        max_ttl: secs(max_ttl),
        period: secs(period),
    };
    *server.method.limits.lock().unwrap() = limits(120, 0, 0);
    assert_eq!(renew(json!(null)).await.unwrap().auth.unwrap().ttl, secs(120));
    *server.method.limits.lock().unwrap() = limits(0, 420, 0);
    assert_eq!(renew(json!(null)).await.unwrap().auth.unwrap().ttl, secs(120), "seven minutes from its making");
    *server.method.limits.lock().unwrap() = limits(60, 0, 240);
    assert_eq!(renew(json!("9h")).await.unwrap().auth.unwrap().ttl, secs(240), "a period is what every renewal gives");
    *server.method.limits.lock().unwrap() = limits(60, 240, 0);
    assert_eq!(refusal(renew(json!(null)).await), "Invalid: past the max TTL, cannot renew");
}

#[tokio::test(start_paused = true)]
async fn a_mounts_tuning_decides_what_kind_of_token_its_logins_get() {
    let server = server().await;
    for (tuned, kind) in [
        ("batch", "batch"),
        ("default-batch", "batch"),
        ("service", "service"),
        ("default-service", "service"),
        ("", "service"),
    ] {
        server.root("sys/auth/door/tune", json!({ "token_type": tuned })).await.unwrap();
        let made = begin(&server, "a").await.await.unwrap().unwrap();
        assert_eq!(made.auth.unwrap().token_type, kind, "{tuned}");
    }
    for nonsense in ["nonsense", "Batch"] {
        let said = server.root("sys/auth/door/tune", json!({ "token_type": nonsense })).await;
        assert_eq!(refusal(said), "Invalid: invalid value for 'token_type'", "{nonsense:?}");
    }
    let mounts = server.read(ROOT, "sys/mounts").await.unwrap().data.unwrap();
    let methods = server.read(ROOT, "sys/auth").await.unwrap().data.unwrap();
    assert_eq!((&mounts["sys/"]["seal_wrap"], &methods["token/"]["seal_wrap"]), (&json!(true), &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn a_logins_token_is_named_after_its_mount_and_told_what_was_cut() {
    let server = server().await;
    server
        .root("sys/auth/team/front", json!({ "type": "scripted", "config": { "max_lease_ttl": "5m" } }))
        .await
        .unwrap();
    for (path, name, ttl, warned) in [("door", "door-bob", 600, false), ("team/front", "team-front-bob", 300, true)] {
        let login = server.call(None, Operation::Update, &format!("auth/{path}/login/bob"), json!({})).await.unwrap();
        assert_eq!(!login.warnings.is_empty(), warned, "{path}: {:?}", login.warnings);
        let token = token_of(&login);
        let shown = server.lookup(&token).await.unwrap();
        assert_eq!((&shown["display_name"], &shown["ttl"]), (&json!(name), &json!(ttl)));
        assert_eq!(shown["path"], format!("auth/{path}/login/bob"));
    }
}

#[tokio::test(start_paused = true)]
async fn locked_names_are_listed_by_mount_the_most_of_them_first_and_can_be_unlocked() {
    let server = server().await;
    server.root("sys/auth/other", json!({ "type": "scripted" })).await.unwrap();
    for (path, names) in [("door", vec!["bob"]), ("other", vec!["amy", "eve"])] {
        for name in names {
            for _ in 0..5 {
                let path = format!("auth/{path}/login/{name}-wrong");
                assert_eq!(refusal(server.call(None, Operation::Update, &path, json!({})).await), "LoginRefused: no");
            }
        }
    }
    let methods = server.read(ROOT, "sys/auth").await.unwrap().data.unwrap();
    let accessor = |path: &str| methods[path]["accessor"].as_str().unwrap().to_owned();
    let (door, other) = (accessor("door/"), accessor("other/"));
    let listed = async |fields: Value| server.read_with(ROOT, "sys/locked-users", fields).await.unwrap().data.unwrap();
    let of_door = json!({ "mount_accessor": door, "counts": 1, "alias_identifiers": ["bob"] });
    let of_other = json!({ "mount_accessor": other, "counts": 2, "alias_identifiers": ["amy", "eve"] });
    for (asked, mounts, total) in [
        (json!({}), json!([of_other, of_door]), 3),
        (json!({ "mount_accessor": "" }), json!([of_other, of_door]), 3),
        (json!({ "mount_accessor": door }), json!([of_door]), 1),
        (json!({ "mount_accessor": "nosuch" }), json!([]), 0),
    ] {
        let answer = listed(asked.clone()).await;
        assert_eq!(
            (&answer["by_namespace"][0]["mount_accessors"], &answer["total"]),
            (&mounts, &json!(total)),
            "{asked}"
        );
        assert_eq!(answer["by_namespace"][0]["counts"], total);
    }
    server.root(&format!("sys/locked-users/{other}/unlock/eve"), json!({})).await.unwrap();
    server.root("sys/locked-users/nosuch/unlock/amy", json!({})).await.unwrap();
    assert_eq!(listed(json!({})).await["total"], 2);
    assert!(server.call(None, Operation::Update, "auth/other/login/eve", json!({})).await.is_ok());
}

async fn logs_in(server: &Server, name: &str) -> super::support::server::Answer {
    server.call(None, Operation::Update, &format!("auth/door/login/{name}"), json!({})).await
}

async fn lock(server: &Server, name: &str) {
    for _ in 0..5 {
        assert_eq!(refusal(logs_in(server, &format!("{name}-wrong")).await), "LoginRefused: no");
    }
}

/// Whichever server the failures came to, and whichever an operator asks.
#[tokio::test(start_paused = true)]
async fn a_locked_name_is_locked_on_every_server_and_over_a_restart() {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    one.root("sys/auth/door", json!({ "type": "scripted" })).await.unwrap();
    lock(&one, "bob").await;
    assert_eq!(refusal(logs_in(&other, "bob").await), "LoginDenied: permission denied");
    assert!(logs_in(&other, "amy").await.is_ok(), "and no other name");
    other.core.seal().await;
    other.unseal().await;
    assert_eq!(refusal(logs_in(&other, "bob").await), "LoginDenied: permission denied");
    let methods = one.read(ROOT, "sys/auth").await.unwrap().data.unwrap();
    let accessor = methods["door/"]["accessor"].as_str().unwrap();
    other.root(&format!("sys/locked-users/{accessor}/unlock/bob"), json!({})).await.unwrap();
    assert!(logs_in(&one, "bob").await.is_ok());
    lock(&other, "bob").await;
    pass(899).await;
    assert_eq!(refusal(logs_in(&one, "bob").await), "LoginDenied: permission denied");
    pass(1).await;
    assert!(logs_in(&one, "bob").await.is_ok());
}

/// The store is away when a name becomes locked: the server that counted refuses it all the same.
#[tokio::test(start_paused = true)]
async fn a_lock_that_could_not_be_stored_holds_where_it_was_counted() {
    let server = server().await;
    for _ in 0..4 {
        assert_eq!(refusal(logs_in(&server, "bob-wrong").await), "LoginRefused: no");
    }
    server.process.fault_at(0, Fault::Fails);
    assert!(matches!(logs_in(&server, "bob-wrong").await, Err(RequestError::Storage(_))));
    assert_eq!(refusal(logs_in(&server, "bob").await), "LoginDenied: permission denied");
}

/// A flood of names takes a bounded place in the store, and none of it stays when the mount goes.
#[tokio::test(start_paused = true)]
async fn locks_take_a_bounded_place_and_go_with_their_mount() {
    let server = server().await;
    let unsealed = server.core.unsealed().unwrap();
    let accessor = unsealed.mounts.by_path("auth/door/").unwrap().accessor.clone();
    let rules = LockoutRules { threshold: 1, ..LockoutRules::default() };
    let now = leasehold_model::Timestamp::from_secs(1_000);
    for name in 0..12_000 {
        unsealed.lockouts.failed(&accessor, &format!("n{name}"), &rules, now).await.unwrap();
    }
    let locked = unsealed.lockouts.locked(&accessor, &rules, now).await.unwrap();
    assert!((9_000..=10_240).contains(&locked.len()), "{}", locked.len());
    assert!(locked.contains(&"n11999".to_owned()), "the last ones are kept");
    let rows = async || {
        let prefix = Key::new(format!("mount/{accessor}/"));
        server.process.scan(&prefix, None, 1_000).await.unwrap()
    };
    assert_eq!(rows().await.len(), 256);
    server.call(Some(ROOT), Operation::Delete, "sys/auth/door", Value::Null).await.unwrap();
    assert!(rows().await.is_empty());
    // A login that was under way cannot bring one back.
    assert!(unsealed.lockouts.failed(&accessor, "late", &rules, now).await.is_err());
    assert!(rows().await.is_empty());
}
