//! Several servers over one store: what one writes counts on all of them when it is answered, also while one of them is silent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{ModuleDecision, ModuleVerdict};
use leasehold_model::Operation;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::pass;
use super::support::server::{ROOT, Server, refusal};

async fn two() -> (Server, Server) {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    (one, other)
}

fn delete(server: &Server, path: &str) -> impl Future<Output = super::support::server::Answer> {
    server.call(Some(ROOT), Operation::Delete, path, Value::Null)
}

fn cut(server: &Server, is_cut: bool) {
    server.process.is_cut.store(is_cut, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_changed_on_one_server_counts_on_the_other_when_that_is_answered() {
    let (one, other) = two().await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    for round in 0..20 {
        one.policy("app", "db/creds/app: read").await;
        other.read(&token, "db/creds/app").await.unwrap();
        match round % 2 {
            0 => one.policy("app", "db/other: read").await,
            _ => drop(delete(&one, "sys/policies/acl/app").await.unwrap()),
        }
        assert!(matches!(other.read(&token, "db/creds/app").await, Err(RequestError::Denied)), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn mounts_come_and_go_on_all_servers() {
    let (one, other) = two().await;
    one.root("sys/mounts/new", json!({ "type": "scripted" })).await.unwrap();
    other.read(ROOT, "new/creds/app").await.unwrap();
    one.root("sys/mounts/new/tune", json!({ "description": "tuned" })).await.unwrap();
    assert_eq!(other.read(ROOT, "sys/mounts/new/tune").await.unwrap().data.unwrap()["description"], "tuned");
    delete(&one, "sys/mounts/new").await.unwrap();
    assert!(matches!(other.read(ROOT, "new/creds/app").await, Err(RequestError::NoRoute(_))));
    other.root("sys/mounts/new", json!({ "type": "scripted" })).await.unwrap();
    one.read(ROOT, "new/creds/app").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_module_and_its_binding_judge_on_all_servers() {
    let (one, other) = two().await;
    let token = one.token_with("db/creds/app: read").await;
    other.read(&token, "db/creds/app").await.unwrap();
    let denies = ModuleVerdict {
        decision: ModuleDecision::Deny,
        messages: Vec::new(),
        annotations: Vec::new(),
        max_ttl: None,
        fuel: 1,
    };
    *other.sandbox.module.lock().unwrap() = Some(Ok(denies));
    one.judge("hard-mandatory", "db/*").await;
    // Until the module is loaded there, and when it is.
    assert!(other.read(&token, "db/creds/app").await.is_err());
    pass(1).await;
    assert!(matches!(other.read(&token, "db/creds/app").await, Err(RequestError::DeniedByModule { .. })));
    assert_eq!(other.sandbox.loaded.lock().unwrap().len(), 1);
    delete(&one, "sys/policies/egp/gate").await.unwrap();
    other.read(&token, "db/creds/app").await.unwrap();
    delete(&one, "sys/modules/probe").await.unwrap();
    assert!(matches!(other.read(ROOT, "sys/modules/probe").await, Err(RequestError::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn an_audit_device_that_one_server_enables_has_the_records_of_all() {
    let (one, other) = two().await;
    one.audited().await;
    other.read(ROOT, "sys/mounts").await.unwrap();
    assert_eq!(other.audit.first.lines().len(), 2, "request and response");
    one.root("sys/config/auditing/request-headers/x-who", json!({ "hmac": false })).await.unwrap();
    assert!(other.read(ROOT, "sys/config/auditing/request-headers/x-who").await.is_ok());
    delete(&one, "sys/audit/first").await.unwrap();
    other.audit.first.clear();
    other.read(ROOT, "sys/mounts").await.unwrap();
    assert_eq!(other.audit.first.lines().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_open_on_a_server_stops_that_server_until_it_does() {
    let (one, other) = two().await;
    *other.audit.refuses_to_open.lock().unwrap() = true;
    one.audited().await;
    assert!(matches!(other.read(ROOT, "sys/mounts").await, Err(RequestError::Audit)));
    one.read(ROOT, "sys/mounts").await.unwrap();
    *other.audit.refuses_to_open.lock().unwrap() = false;
    pass(2).await;
    let _ = other.read(ROOT, "sys/mounts").await;
    pass(1).await;
    other.read(ROOT, "sys/mounts").await.unwrap();
    assert!(!other.audit.first.lines().is_empty());
}

/// Cut off from the store, it remembers what it may no longer decide by.
#[tokio::test(start_paused = true)]
async fn a_server_that_hears_nothing_of_the_store_decides_nothing_after_two_seconds() {
    let (one, other) = two().await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    one.policy("app", "sys/mounts: read").await;
    cut(&other, true);
    let begun = Instant::now();
    delete(&one, "sys/policies/acl/app").await.unwrap();
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "answered after {waited:?}");
    assert!(matches!(other.read(&token, "sys/mounts").await, Err(RequestError::Storage(_))));
    let begun = Instant::now();
    one.policy("app", "sys/mounts: read").await;
    assert!(begun.elapsed() < Duration::from_millis(100), "a server that was taken off the list keeps nobody waiting");
    delete(&one, "sys/policies/acl/app").await.unwrap();
    cut(&other, false);
    pass(1).await;
    assert!(matches!(other.read(&token, "sys/mounts").await, Err(RequestError::Denied)), "it has joined again");
    one.policy("app", "sys/mounts: read").await;
    other.read(&token, "sys/mounts").await.unwrap();
}

/// Its memory of the token's right is as old as its last look at the store: whatever it hears of that, and for however long.
#[tokio::test(start_paused = true)]
async fn no_moment_of_a_server_that_does_not_follow_outlives_the_answer_to_a_change() {
    for is_deaf in [false, true] {
        for length in [0, 300, 900, 1_500, 1_900, 2_100, 2_300, 4_000] {
            let (one, other) = two().await;
            let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
            one.policy("app", "db/creds/app: read").await;
            let flag = if is_deaf { &other.process.is_deaf } else { &other.process.is_cut };
            flag.store(true, Ordering::SeqCst);
            let asking = async {
                delete(&one, "sys/policies/acl/app").await.unwrap();
                for _ in 0..400 {
                    let asked = other.read(&token, "db/creds/app").await;
                    assert!(asked.is_err(), "for {length} ms, deaf: {is_deaf}: {asked:?}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::join!(asking, async {
                tokio::time::sleep(Duration::from_millis(length)).await;
                flag.store(false, Ordering::SeqCst);
            });
        }
    }
}

/// Decided, and then slow: the change comes before the first write, so that the decision is made again.
#[tokio::test(start_paused = true)]
async fn a_request_that_a_change_overtakes_is_decided_again() {
    let (one, other) = two().await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    one.policy("app", "db/creds/app: read").await;
    other.audited().await;
    // The record of the request keeps it between its decision and its first write.
    other.audit.first.block();
    let slow = {
        let (core, token) = (other.core.clone(), token.clone());
        tokio::spawn(async move {
            let request = super::support::server::request(Some(&token), Operation::Read, "db/creds/app", Value::Null);
            core.handle(request).await
        })
    };
    pass(1).await;
    let deleted = one.core.unsealed().unwrap();
    deleted.policies.delete("app").await.unwrap();
    pass(1).await;
    other.audit.first.unblock();
    assert_eq!(refusal(slow.await.unwrap()), "Denied: permission denied");
    assert!(other.target.roles().is_empty(), "no role was made");
}

/// As above, and the server is sealed and unsealed meanwhile: what the request was decided by is followed by nobody.
#[tokio::test(start_paused = true)]
async fn a_request_that_outlives_a_seal_is_not_carried_out() {
    let (one, other) = two().await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    one.policy("app", "db/creds/app: read").await;
    other.audited().await;
    other.audit.first.block();
    let slow = {
        let (core, token) = (other.core.clone(), token.clone());
        tokio::spawn(async move {
            let request = super::support::server::request(Some(&token), Operation::Read, "db/creds/app", Value::Null);
            core.handle(request).await
        })
    };
    pass(1).await;
    other.core.seal().await;
    one.core.unsealed().unwrap().policies.delete("app").await.unwrap();
    other.unseal().await;
    pass(1).await;
    other.audit.first.unblock();
    assert!(slow.await.unwrap().is_err());
    assert!(other.target.roles().is_empty(), "no role was made");
}

/// What was read by a right that ended meanwhile does not leave.
#[tokio::test(start_paused = true)]
async fn a_reading_that_a_change_overtakes_is_decided_again() {
    let (one, other) = two().await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    one.policy("app", "sys/mounts: read").await;
    other.audited().await;
    other.audit.first.block();
    let slow = {
        let (core, token) = (other.core.clone(), token.clone());
        tokio::spawn(async move {
            let request = super::support::server::request(Some(&token), Operation::Read, "sys/mounts", Value::Null);
            core.handle(request).await
        })
    };
    pass(1).await;
    one.core.unsealed().unwrap().policies.delete("app").await.unwrap();
    pass(1).await;
    other.audit.first.unblock();
    assert_eq!(refusal(slow.await.unwrap()), "Denied: permission denied");
}
