//! Saving and restoring all that is stored, through the pipeline: what a restore closes, and what a store that fails leaves.

use std::sync::Arc;

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::snapshot::Spool;
use leasehold_model::Operation;
use serde_json::json;

use super::support::faults::{Fault, Gate};
use super::support::server::{Answer, ROOT, Server, refusal, request, token_of};

const PATH: &str = "sys/storage/raft/snapshot";

async fn saved(server: &Server) -> Arc<Spool> {
    server.read(ROOT, PATH).await.unwrap().attachment.unwrap().spool
}

async fn restored(server: &Server, token: &str, spool: &Arc<Spool>) -> Answer {
    let mut asked = request(Some(token), Operation::Update, PATH, json!({}));
    asked.upload = Some(Arc::clone(spool));
    server.core.handle(asked).await
}

#[tokio::test(start_paused = true)]
async fn a_restore_seals_and_brings_back_the_past() {
    let server = Server::start().await;
    server.policy("before", "x: read").await;
    let spool = saved(&server).await;
    server.policy("after", "x: read").await;
    let revoked = server.token(json!({})).await;
    assert!(restored(&server, ROOT, &spool).await.is_ok());
    assert!(matches!(server.read(ROOT, "sys/policies/acl/before").await, Err(RequestError::Sealed)));
    server.unseal().await;
    server.read(ROOT, "sys/policies/acl/before").await.unwrap();
    assert!(matches!(server.read(ROOT, "sys/policies/acl/after").await, Err(RequestError::NotFound)));
    assert!(!server.lives(&revoked).await, "what did not exist then does not exist now");
    // And once more, which shows that it is an ordinary server again.
    server.policy("after", "x: read").await;
    assert!(restored(&server, ROOT, &saved(&server).await).await.is_ok());
    server.unseal().await;
    server.read(ROOT, "sys/policies/acl/after").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_in_a_restore_keeps_what_it_has_and_the_server_is_sealed() {
    for fault in [Fault::Fails, Fault::CrashBefore, Fault::CrashAfter, Fault::LiesFailure] {
        let server = Server::start().await;
        server.policy("before", "x: read").await;
        let spool = saved(&server).await;
        server.policy("after", "x: read").await;
        server.process.fault_at(0, fault);
        assert!(restored(&server, ROOT, &spool).await.is_err());
        assert!(matches!(server.read(ROOT, "sys/policies/acl/before").await, Err(RequestError::Sealed)));
        let server = if server.process.is_dead() { server.again() } else { server };
        server.unseal().await;
        server.read(ROOT, "sys/policies/acl/before").await.unwrap();
        let is_new = server.read(ROOT, "sys/policies/acl/after").await.is_err();
        assert_eq!(is_new, matches!(fault, Fault::CrashAfter | Fault::LiesFailure), "{fault:?}");
    }
}

/// Refused because another copy is under way: the server is sealed, and only its share opens it.
#[tokio::test]
async fn a_restore_that_is_refused_leaves_no_open_keys() {
    let server = Server::start().await;
    let spool = saved(&server).await;
    let gate = Gate::default();
    *server.process.copy.lock().unwrap() = Some(gate.clone());
    let core = server.core.clone();
    let saving =
        tokio::spawn(async move { core.handle(request(Some(ROOT), Operation::Read, PATH, json!(null))).await });
    gate.reached.notified().await;
    let refused = restored(&server, ROOT, &spool).await;
    assert!(matches!(refused, Err(RequestError::Unavailable(_))), "{refused:?}");
    let mut wrong = server.share.clone();
    wrong[3] ^= 1;
    for _ in 0..2 {
        assert!(server.core.unseal(&wrong).await.is_err(), "a wrong share opened the server");
        assert!(matches!(server.read(ROOT, "sys/mounts").await, Err(RequestError::Sealed)));
    }
    server.unseal().await;
    server.read(ROOT, "sys/mounts").await.unwrap();
    gate.go_on.notify_one();
    drop(saving.await);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_file_or_with_a_wrong_one_changes_nothing() {
    let server = Server::start().await;
    let said = refusal(server.root(PATH, json!({})).await);
    assert!(said.contains("the request has no body"), "{said}");
    let said =
        refusal(restored(&server, ROOT, &Arc::new(Spool::new(std::fs::File::open("/dev/null").unwrap(), 0))).await);
    assert!(said.contains("the request has no body"), "{said}");
    server.policy("still", "x: read").await;
}

/// Its last use: the token is gone with the store that it was in, and the answer says what happened.
#[tokio::test(start_paused = true)]
async fn a_token_with_one_use_left_restores() {
    let server = Server::start().await;
    let spool = saved(&server).await;
    let token =
        token_of(&server.root("auth/token/create", json!({ "num_uses": 1, "policies": ["root"] })).await.unwrap());
    restored(&server, &token, &spool).await.unwrap();
    server.unseal().await;
}

/// Asked before a file is read: takes no use, and says no to whoever could not restore.
#[tokio::test(start_paused = true)]
async fn who_may_send_a_file() {
    let server = Server::start().await;
    let may = async |token: &str| server.core.may_upload(&leasehold_model::TokenId::new(token), PATH, None).await;
    assert!(may(ROOT).await);
    assert!(!may("s.nobody").await);
    let once = server.token(json!({ "num_uses": 1, "policies": ["root"] })).await;
    assert!(may(&once).await && may(&once).await);
    assert!(server.lives(&once).await);
    server.core.seal().await;
    assert!(!may(ROOT).await);
}
