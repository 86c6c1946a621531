//! Several servers over one store: what one writes counts on all of them when it is answered, also while one of them is silent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{ModuleDecision, ModuleVerdict};
use leasehold_model::Operation;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::faults::Gate;
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, refusal, request};

async fn two() -> (Server, Server) {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    (one, other)
}

fn delete(server: &Server, path: &str) -> impl Future<Output = Answer> {
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

/// A server that waits for others may learn of a later change while it does: who does not follow that one is not gone for its sake.
#[tokio::test(start_paused = true)]
async fn nobody_is_taken_off_the_list_who_may_still_decide() {
    let (one, other) = two().await;
    let third = one.beside().await;
    one.policy("app", "db/creds/app: read").await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    other.read(&token, "db/creds/app").await.unwrap();
    *one.process.pause_next_report.lock().unwrap() = Duration::from_millis(1_500);
    let earlier = asked(&one, ROOT, Operation::Update, "sys/policies/acl/unrelated", json!({ "policy": "x: read" }));
    tokio::time::sleep(Duration::from_millis(1_400)).await;
    cut(&other, true);
    third.policy("app", "db/other: read").await;
    cut(&other, false);
    assert!(other.read(&token, "db/creds/app").await.is_err(), "decided by what was answered to be over");
    earlier.await.unwrap().unwrap();
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

/// A request by a token that may do what `policy` says, on the second server, whose record keeps it between its decision and what follows
/// from that.
async fn slow(one: &Server, other: &Server, policy: &str, operation: Operation, path: &str) -> JoinHandle<Answer> {
    slow_with(one, other, policy, (operation, path, json!({ "policy": "x: read" }))).await
}

pub(super) async fn slow_with(
    one: &Server,
    other: &Server,
    policy: &str,
    (operation, path, data): (Operation, &str, Value),
) -> JoinHandle<Answer> {
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    one.policy("app", policy).await;
    other.audited().await;
    other.audit.first.block();
    let slow = asked(other, &token, operation, path, data);
    pass(1).await;
    slow
}

fn asked(server: &Server, token: &str, operation: Operation, path: &str, data: Value) -> JoinHandle<Answer> {
    let (core, request) = (server.core.clone(), request(Some(token), operation, path, data));
    tokio::spawn(async move { core.handle(request).await })
}

/// The right is gone on both servers, and nobody waits for the request that was decided by it.
pub(super) async fn right_ends(one: &Server) {
    one.core.unsealed().unwrap().policies.delete("app").await.unwrap();
    pass(1).await;
}

/// Decided, and then slow: the change comes before the first write, so that the decision is made again.
#[tokio::test(start_paused = true)]
async fn a_request_that_a_change_overtakes_is_decided_again() {
    let (one, other) = two().await;
    let slow = slow(&one, &other, "db/creds/app: read", Operation::Read, "db/creds/app").await;
    right_ends(&one).await;
    other.audit.first.unblock();
    assert_eq!(refusal(slow.await.unwrap()), "Denied: permission denied");
    assert!(other.target.roles().is_empty(), "no role was made");
}

/// As above, and the server is sealed and unsealed meanwhile: what the request was decided by is followed by nobody.
#[tokio::test(start_paused = true)]
async fn a_request_that_outlives_a_seal_is_not_carried_out() {
    let (one, other) = two().await;
    let slow = slow(&one, &other, "db/creds/app: read", Operation::Read, "db/creds/app").await;
    other.core.seal().await;
    right_ends(&one).await;
    other.unseal().await;
    pass(1).await;
    other.audit.first.unblock();
    let ended = slow.await.unwrap();
    assert!(matches!(ended, Err(RequestError::Sealed)), "{ended:?}");
    assert!(other.target.roles().is_empty(), "no role was made");
}

/// What was read by a right that ended meanwhile does not leave.
#[tokio::test(start_paused = true)]
async fn a_reading_that_a_change_overtakes_is_decided_again() {
    let (one, other) = two().await;
    let slow = slow(&one, &other, "sys/mounts: read", Operation::Read, "sys/mounts").await;
    right_ends(&one).await;
    other.audit.first.unblock();
    assert_eq!(refusal(slow.await.unwrap()), "Denied: permission denied");
}

/// A commit that conflicts has written nothing: the one that follows it is still held against the decision.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_tried_again_is_checked_again() {
    let (one, other) = two().await;
    let path = "sys/policies/acl/mine";
    one.policy("app", &format!("{path}: create, update")).await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    let gate = Gate { at: "/mine", ..Gate::default() };
    *other.process.conflict.lock().unwrap() = Some(gate.clone());
    let tried = asked(&other, &token, Operation::Update, path, json!({ "policy": "x: read" }));
    gate.reached.notified().await;
    right_ends(&one).await;
    // As long as whoever has made that change waits for this server.
    pass(2).await;
    gate.go_on.notify_one();
    assert!(tried.await.unwrap().is_err(), "written by a right that had ended");
    pass(1).await;
    assert!(matches!(one.read(ROOT, path).await, Err(RequestError::NotFound)));
}

/// So has one that found something where nothing should be.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_that_is_tried_in_another_way_is_checked_again() {
    let (one, other) = two().await;
    one.policy("app", "auth/token/revoke: update").await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    let kept = one.token(json!({ "policies": ["default"] })).await;
    let gate = Gate::default();
    *other.process.conflict.lock().unwrap() = Some(gate.clone());
    let tried = asked(&other, &token, Operation::Update, "auth/token/revoke", json!({ "token": kept }));
    gate.reached.notified().await;
    right_ends(&one).await;
    pass(2).await;
    gate.go_on.notify_one();
    assert!(tried.await.unwrap().is_err(), "ended by a right that had ended");
    assert!(one.lives(&kept).await);
}

async fn since(server: &Server, index: &str) -> Answer {
    let mut asked = request(Some(ROOT), Operation::Read, "sys/mounts", Value::Null);
    asked.headers.insert("x-vault-index".to_owned(), vec![index.to_owned()]);
    server.core.handle(asked).await
}

/// Whoever has seen a change on one server sees nothing older on another, or is told to come again.
#[tokio::test(start_paused = true)]
async fn an_answer_is_not_older_than_the_index_that_a_client_has_seen() {
    let (one, other) = two().await;
    let before = one.read(ROOT, "sys/mounts").await.unwrap().index.unwrap();
    one.root("sys/mounts/new", json!({ "type": "scripted" })).await.unwrap();
    let seen = one.read(ROOT, "sys/mounts").await.unwrap().index.unwrap();
    assert_ne!(before, seen);
    assert!(since(&other, &seen).await.unwrap().data.unwrap().contains_key("new/"));
    since(&one, &seen).await.unwrap();
    assert!(one.read("nobody", "sys/mounts").await.is_err(), "and nobody learns it without a token");

    // What a server that decides as usual has not heard of it waits for, and not for long.
    let ahead = later(&seen);
    let begun = Instant::now();
    assert!(refusal(since(&other, &ahead).await).starts_with("TooMany: this server has not heard of the change"));
    assert!((400..1_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let waiting = {
        let (core, mut asked) = (other.core.clone(), request(Some(ROOT), Operation::Read, "sys/mounts", Value::Null));
        asked.headers.insert("x-vault-index".to_owned(), vec![ahead]);
        tokio::spawn(async move { core.handle(asked).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    delete(&one, "sys/mounts/new").await.unwrap();
    assert!(!waiting.await.unwrap().unwrap().data.unwrap().contains_key("new/"));
}

/// The index of the change after that of `index`.
fn later(index: &str) -> String {
    let mut read: Value = serde_json::from_slice(&STANDARD.decode(index).unwrap()).unwrap();
    read["value"] = (read["value"].as_str().unwrap().parse::<u64>().unwrap() + 1).to_string().into();
    STANDARD.encode(read.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_serves_one_server_has_no_index() {
    let server = Server::start().await;
    assert_eq!(server.read(ROOT, "sys/mounts").await.unwrap().index, None);
    // Of a server over another store, in the same installation.
    let (one, _) = two().await;
    let index = one.read(ROOT, "sys/mounts").await.unwrap().index.unwrap();
    since(&server, &index).await.unwrap();
}

/// Another's change is nobody's reason to wait, and what that one hears is not what this one hears.
#[tokio::test(start_paused = true)]
async fn only_whoever_has_made_a_change_waits_for_it() {
    let (one, other) = two().await;
    cut(&other, true);
    let changing = delete(&one, "sys/policies/acl/app");
    let reading = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let begun = Instant::now();
            one.read(ROOT, "db/creds/app").await.unwrap();
            assert!(begun.elapsed() < Duration::from_millis(500), "waited {:?}", begun.elapsed());
        }
    };
    let (changed, ()) = tokio::join!(changing, reading);
    changed.unwrap();
}

/// A snapshot is not restored under another server that decides from its memory; one that nobody hears of is taken off the list.
#[tokio::test(start_paused = true)]
async fn a_restore_beside_another_server_is_refused() {
    let (one, other) = two().await;
    let path = "sys/storage/raft/snapshot";
    let spool = one.read(ROOT, path).await.unwrap().attachment.unwrap().spool;
    let restored = async || {
        let mut asked = request(Some(ROOT), Operation::Update, path, json!({}));
        asked.upload = Some(spool.clone());
        one.core.handle(asked).await
    };
    assert!(refusal(restored().await).contains("other servers work on this storage"));
    one.read(ROOT, "sys/mounts").await.unwrap();
    other.process.die();
    pass(5).await;
    let shown = one.read(ROOT, "sys/ha-status").await.unwrap().data.unwrap();
    let active = shown["nodes"].as_array().unwrap().iter().filter(|node| node["active_node"] == true).count();
    assert_eq!(active, 1, "{shown:?}");
    restored().await.unwrap();
}
