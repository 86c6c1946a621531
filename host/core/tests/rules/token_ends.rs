//! What ends with a token, whatever ends it.

use std::future::Future;
use std::time::Duration;

use leasehold_core::keys;
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::storage::Storage;
use leasehold_model::{Operation, TokenId, Ttl};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::support::faults::Fault;
use super::support::node::World;
use super::support::pass;
use super::support::server::{ROOT, Server, request, token_of};

/// Everything that can hang on a token, and nothing.
const HANGING: [&str; 4] = ["nothing", "a child", "a value in its cubbyhole", "a lease"];

async fn hang(server: &Server, token: &str, what: &str) -> Option<String> {
    let made = match what {
        "a child" => {
            let child = server.update(token, "auth/token/create", json!({ "ttl": "2h" })).await.unwrap();
            return Some(token_of(&child));
        }
        "a value in its cubbyhole" => server.update(token, "cubbyhole/a/b", json!({ "k": "v" })).await,
        "a lease" => server.read(token, "db/creds/app").await,
        _ => return None,
    };
    made.unwrap();
    None
}

/// Ends a token on which each of these hangs in turn, and looks what is left.
async fn ends<E: Future<Output = ()>>(end: impl Fn(&'static Server, String) -> E) {
    // Ends with the test's process: the futures above may borrow it.
    let server: &'static Server = Box::leak(Box::new(Server::start().await));
    let rows = server.rows().await.len();
    for what in HANGING {
        let token = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
        let child = hang(server, &token, what).await;
        let shown = server.lookup(&token).await.unwrap();
        end(server, token.clone()).await;
        pass(5).await;
        assert!(!server.lives(&token).await, "{what}");
        if let Some(child) = child {
            assert!(!server.lives(&child).await, "a child lives on");
        }
        assert!(server.target.roles().is_empty(), "{what}: a role is left");
        assert_eq!(server.rows().await.len(), rows, "{what}: a row is left");
        let hash = server.core.unsealed().unwrap().tokens.hash(&leasehold_model::TokenId::new(token));
        for prefix in [keys::cubbyhole(&hash, ""), keys::token_children(&hash), keys::token(&hash)] {
            assert!(server.process.store.scan(&prefix, None, 1).await.unwrap().is_empty(), "{what}: {prefix:?}");
        }
        let accessor = json!({ "accessor": shown["accessor"] });
        assert!(server.root("auth/token/lookup-accessor", accessor).await.is_err(), "{what}: its accessor is left");
    }
    server.process.assert_no_violation("the end of a token");
}

#[tokio::test(start_paused = true)]
async fn whatever_hangs_on_a_token_goes_when_it_is_revoked() {
    ends(|server, token| async move {
        server.root("auth/token/revoke", json!({ "token": token })).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whatever_hangs_on_a_token_goes_when_its_time_is_over() {
    ends(|_, _| pass(3_601)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_on_which_nothing_hangs_goes_in_one_write() {
    let server = Server::start().await;
    let token = server.token(json!({ "policies": ["default"] })).await;
    server.process.fault_at(1, Fault::Fails);
    server.call(Some(ROOT), Operation::Update, "auth/token/revoke", json!({ "token": token })).await.unwrap();
    assert!(server.process.is_armed(), "it was written twice");
    assert!(!server.lives(&token).await);
}

/// While leases are counted for a changed quota no row of theirs goes; a token ends all the same, at once.
#[tokio::test(start_paused = true)]
async fn no_count_of_leases_holds_up_the_end_of_a_token() {
    let server = Server::start_shared().await;
    let other = server.beside().await;
    let token = server.token(json!({ "policies": ["default"] })).await;
    let due = server.token(json!({ "policies": ["default"], "ttl": "2s" })).await;
    let due = server.core.unsealed().unwrap().tokens.hash(&TokenId::new(due));
    other.process.fault_at(0, Fault::CrashAfter);
    assert!(other.root("sys/quotas/lease-count/all", json!({ "max_leases": 100 })).await.is_err());
    let ask = |path: &str, data| {
        let (core, asked) = (server.core.clone(), request(Some(ROOT), Operation::Update, path, data));
        tokio::spawn(async move { core.handle(asked).await })
    };
    let waits = ask("auth/token/create", json!({ "policies": ["default"] }));
    // Its answer comes when its row may go.
    let revoked = ask("auth/token/revoke", json!({ "token": token }));
    pass(3).await;
    assert!(!waits.is_finished(), "nothing is being counted");
    assert!(!server.lives(&token).await);
    let key = keys::token(&due);
    assert!(server.process.store.get(&key).await.unwrap().is_none(), "what was due has not ended");
    assert!(revoked.await.unwrap().is_ok() && waits.await.unwrap().is_ok());
}

/// Whoever works on what is due looks every second, and sooner only if something falls due before that: each look is a write.
#[tokio::test(start_paused = true)]
async fn only_what_falls_due_within_a_second_is_looked_for_at_once() {
    let world = World::new();
    let node = world.start().await;
    let stop = CancellationToken::new();
    let ticker = tokio::spawn(node.leases.clone().run(node.jobs.clone(), stop.clone()));
    let moment = Duration::from_millis(100);
    tokio::time::sleep(moment).await;
    // The next look finds that it is due.
    let token = keys::token(&node.token("t", None, Ttl::ZERO).await);
    let has_looked = async |falls_due| {
        node.leases.falls_due(world.clock.now() + falls_due);
        tokio::time::sleep(moment).await;
        world.store.get(&token).await.unwrap().is_none()
    };
    assert!(!has_looked(Duration::from_millis(1_001)).await);
    assert!(has_looked(Duration::from_millis(999)).await);
    stop.cancel();
    ticker.await.unwrap();
}
