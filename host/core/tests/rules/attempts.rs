//! What an attempt of a quorum must not outlive: the shares that allowed it, the right of who asks, and a snapshot of before its end.

use std::sync::Arc;

use leasehold_core::keys;
use leasehold_core::quota::leases::LeaseCounts;
use leasehold_core::seams::mount_leases::MountLeases as _;
use leasehold_core::seams::storage::{Batch, Expect, Storage as _};
use leasehold_core::testing::CountingEntropy;
use leasehold_model::{MountAccessor, Operation};
use serde_json::{Value, json};

use super::quorum::{hex, server};
use super::rekey::{Rotation, opens};
use super::several_servers::{right_ends, slow_with};
use super::support::faults::{Fault, Process};
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, refusal, request};

/// An attempt comes back as a store that was brought back to an earlier state would bring it: what was dealt counts for nothing once
/// others are the present shares.
#[tokio::test(start_paused = true)]
async fn shares_are_not_verified_over_those_of_another_attempt() {
    let (server, old) = server().await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, true).await;
    let (dealt, verification) = rotation.deal(&old, &nonce).await;
    let key = keys::attempt("rotate-root");
    let stored = server.process.store.get(&key).await.unwrap().unwrap().value;
    rotation.delete("init").await.unwrap();
    let nonce = rotation.begin(3, 2, false).await;
    let (present, _) = rotation.deal(&old, &nonce).await;
    server.process.store.commit(Batch::new().put(key, stored, Expect::Absent)).await.unwrap();
    rotation.step("verify", &dealt[0], &verification).await.unwrap();
    let said = refusal(rotation.step("verify", &dealt[1], &verification).await);
    assert!(said.contains("the key shares were replaced meanwhile: begin anew"), "{said}");
    assert_eq!(rotation.read("init").await["started"], false, "nobody can go on with it");
    assert!(opens(&server, &present).await && !opens(&server, &dealt).await);
}

#[tokio::test(start_paused = true)]
async fn a_restored_snapshot_brings_no_attempt_back() {
    let server = Server::start().await;
    let begun = async |path: &str| server.root(path, json!({ "secret_shares": 3, "secret_threshold": 2 })).await;
    begun("sys/rotate/root/init").await.unwrap();
    begun("sys/generate-root-token/attempt").await.unwrap();
    let path = "sys/storage/raft/snapshot";
    let spool = server.read(ROOT, path).await.unwrap().attachment.unwrap().spool;
    let left = async || server.process.store.scan(&keys::Key::new("attempt/"), None, 10).await.unwrap().len();
    assert_eq!(left().await, 2);
    let mut asked = request(Some(ROOT), Operation::Update, path, json!({}));
    asked.upload = Some(spool);
    server.core.handle(asked).await.unwrap();
    assert_eq!(left().await, 0);
    server.unseal().await;
    for status in ["sys/rotate/root/init", "sys/generate-root-token/attempt"] {
        assert_eq!(server.read(ROOT, status).await.unwrap().data.unwrap()["started"], false, "{status}");
    }
}

/// What is asked of the second server by a right that ends before the first write.
async fn overtaken(one: &Server, other: &Server, path: &str, data: Value) -> Answer {
    let slow = slow_with(one, other, &format!("{path}: update, sudo"), (Operation::Update, path, data)).await;
    right_ends(one).await;
    other.audit.first.unblock();
    slow.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_key_is_replaced_by_a_right_that_has_ended() {
    for path in ["sys/rotate/root/update", "sys/rotate", "sys/rotate/config"] {
        let one = Server::start_shared().await;
        let (other, third) = (one.beside().await, one.beside().await);
        let nonce = Rotation::of_root(&third).begin(1, 1, false).await;
        let seal = async || one.process.store.get(&keys::seal()).await.unwrap().unwrap().version;
        let before = seal().await;
        let data = json!({ "key": hex(&one.share), "nonce": nonce, "max_operations": 2_000_000 });
        assert_eq!(refusal(overtaken(&one, &other, path, data).await), "Denied: permission denied", "{path}");
        assert_eq!(seal().await, before, "{path}");
        let shown = async |path: &str| one.read(ROOT, path).await.unwrap().data.unwrap();
        assert_eq!(shown("sys/key-status").await["term"], 1, "{path}");
        assert_eq!(shown("sys/rotate/config").await["max_operations"], 3_865_470_566_u64, "{path}");
    }
}

/// Whoever restores a snapshot is asked once more as well.
#[tokio::test(start_paused = true)]
async fn nothing_is_restored_by_a_right_that_has_ended() {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    let path = "sys/storage/raft/snapshot";
    let spool = one.read(ROOT, path).await.unwrap().attachment.unwrap().spool;
    one.policy("app", &format!("{path}: update, sudo")).await;
    let token = one.token(json!({ "policies": ["app"], "no_default_policy": true })).await;
    other.audited().await;
    other.audit.first.block();
    let mut asked = request(Some(&token), Operation::Update, path, json!({}));
    asked.upload = Some(spool);
    let core = other.core.clone();
    let slow = tokio::spawn(async move { core.handle(asked).await });
    pass(1).await;
    right_ends(&one).await;
    // Beside another server nothing would be restored either way.
    one.core.seal().await;
    other.audit.first.unblock();
    assert_eq!(refusal(slow.await.unwrap()), "Denied: permission denied");
}

/// Leases that somebody has left closed are opened by whoever comes by, and no request has asked for that: its own first write is still to
/// be held against its decision.
#[tokio::test(start_paused = true)]
async fn what_no_request_has_asked_for_is_written_apart() {
    let server = Server::start().await;
    let store = server.process.store.clone();
    let over = || Process::new(store.clone(), Arc::default());
    let (of_requests, apart) = (over(), over());
    of_requests.fault_at(0, Fault::Fails);
    let key = keys::quota_lease_counts();
    let closed = json!({ "quotas": [], "closed": { "mount": null, "until": 0, "by": "nobody" } });
    store.commit(Batch::new().put(key.clone(), serde_json::to_vec(&closed).unwrap(), Expect::Anything)).await.unwrap();
    let clock = server.clock.clone();
    let counts = LeaseCounts::new(of_requests.clone(), apart, clock, Arc::new(CountingEntropy::default()));
    // It goes no further: this one is sealed.
    let mount = MountAccessor::new("db");
    assert!(counts.commit_unless_standing(&mount, "target", Batch::new()).await.is_err());
    let opened = store.get(&key).await.unwrap().unwrap().value;
    let opened: Value = serde_json::from_slice(&opened).unwrap();
    assert_eq!(opened.get("closed"), None, "{opened}");
    assert!(of_requests.is_armed(), "it was written as a step of a request");
}
