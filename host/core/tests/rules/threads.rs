//! The core on several threads and in real time: what only a second thread can break.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use leasehold_core::seams::error::RequestError;
use leasehold_model::{LeaseId, Operation};
use serde_json::{Value, json};

use super::support::server::{ROOT, Server, lease_of, request, token_of};

/// Waits in real time for what other threads do.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uses_of_one_token_are_counted_once_each_on_several_threads() {
    let server = Server::start().await;
    server.policy("app", "db/*: read").await;
    for _ in 0..10 {
        let token = server.token(json!({ "policies": ["app"], "num_uses": 16 })).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (core, token) = (server.core.clone(), token.clone());
            calls.spawn(async move {
                core.handle(request(Some(&token), Operation::Read, "db/static", Value::Null)).await.is_ok()
            });
        }
        assert_eq!(calls.join_all().await.into_iter().filter(|ok| *ok).count(), 16);
        assert!(!server.lives(&token).await);
    }
    assert_eq!(server.rows().await.len(), 1, "only root's row is left");
}

/// Tokens get leases and children on some threads while others end them: whatever the order, nothing outlives its token.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_outlives_a_token_that_ends_while_it_is_used() {
    let server = Server::start().await;
    server.audited().await;
    server.policy("app", "db/*: read\nauth/token/create: update").await;
    let mut tokens = Vec::new();
    for _ in 0..12 {
        tokens.push(server.token(json!({ "policies": ["app"], "no_default_policy": true, "ttl": "1h" })).await);
    }
    let mut users = tokio::task::JoinSet::new();
    for token in tokens.iter().chain(&tokens) {
        let token = token.clone();
        let core = server.core.clone();
        users.spawn(async move {
            let mut made = 0_usize;
            loop {
                let lease = request(Some(&token), Operation::Read, "db/creds/app", Value::Null);
                let child = request(Some(&token), Operation::Update, "auth/token/create", json!({ "ttl": "30m" }));
                for asked in [lease, child] {
                    match core.handle(asked).await {
                        Ok(answer) => {
                            made += 1;
                            // A child gets one, too.
                            if answer.auth.is_some() {
                                let child = token_of(&answer);
                                let asked = request(Some(&child), Operation::Read, "db/creds/app", Value::Null);
                                let _ = core.handle(asked).await;
                            }
                        }
                        Err(RequestError::BadToken) => return made,
                        Err(RequestError::Unavailable(_) | RequestError::Engine(_)) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut enders = tokio::task::JoinSet::new();
    for token in tokens.iter().chain(&tokens) {
        let token = token.clone();
        let core = server.core.clone();
        enders.spawn(async move {
            let asked = request(Some(ROOT), Operation::Update, "auth/token/revoke", json!({ "token": token }));
            core.handle(asked).await.map(drop)
        });
    }
    assert!(enders.join_all().await.iter().all(Result::is_ok));
    let made: usize = users.join_all().await.into_iter().sum();
    assert!(made > 24, "only {made} were made: nothing was tried");
    eventually("all roles and rows are gone", async || {
        server.target.roles().is_empty() && server.rows().await.len() == 1
    })
    .await;
    let violations = server.process.violations.lock().unwrap();
    assert!(violations.is_empty(), "{violations:?}");
}

/// Leases are renewed and revoked at once, on several threads: an acknowledged revocation is one, and every role has its row.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn renewals_and_revocations_of_one_lease_meet() {
    let server = Server::start().await;
    let mut leases: BTreeSet<LeaseId> = BTreeSet::new();
    for _ in 0..40 {
        leases.insert(lease_of(&server.read(ROOT, "db/creds/app").await.unwrap()));
    }
    let mut work = tokio::task::JoinSet::new();
    for id in &leases {
        for (path, sync) in [("renew", true), ("revoke", true), ("renew", true), ("revoke", false)] {
            let (core, id) = (server.core.clone(), id.clone());
            work.spawn(async move {
                let data = match path {
                    "renew" => json!({ "lease_id": id.as_str(), "increment": 7_200 }),
                    _ => json!({ "lease_id": id.as_str(), "sync": sync }),
                };
                let asked = request(Some(ROOT), Operation::Update, &format!("sys/leases/{path}"), data);
                (path, core.handle(asked).await.map(drop))
            });
        }
    }
    for (path, answer) in work.join_all().await {
        assert!(path == "renew" || answer.is_ok(), "{answer:?}");
    }
    eventually("all are revoked", async || server.target.roles().is_empty() && server.rows().await.len() == 1).await;
    let violations = server.process.violations.lock().unwrap();
    assert!(violations.is_empty(), "{violations:?}");
}

/// Sealing comes in the middle of everything, and unsealing goes on with what was left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sealing_in_the_middle_loses_nothing() {
    let server = Server::start().await;
    for _ in 0..5 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let core = server.core.clone();
            calls.spawn(
                async move { core.handle(request(Some(ROOT), Operation::Read, "db/creds/app", Value::Null)).await },
            );
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        server.root("sys/seal", json!({})).await.unwrap();
        let told: BTreeSet<LeaseId> = calls.join_all().await.iter().flatten().map(lease_of).collect();
        assert!(server.core.unsealed().is_err());
        server.unseal().await;
        let roles = server.target.roles();
        assert!(told.is_subset(&roles), "an acknowledged lease is lost");
    }
}
