//! What is stored goes by the store's clock, whatever the server's own says.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use leasehold_core::seams::host::Clock;
use leasehold_core::testing::ManualClock;
use leasehold_model::Timestamp;
use leasehold_storage::MemoryStorage;
use serde_json::json;

use super::support::server::{Server, lease_of};
use super::support::{PausedClock, pass};

/// The server's clock, some seconds ahead of the store's, or behind it.
struct Off(Arc<PausedClock>, i64);

impl Clock for Off {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.now().as_nanos() + self.1 * 1_000_000_000)
    }

    fn steady(&self) -> Duration {
        self.0.steady()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_the_stores_clock_whether_the_servers_is_ahead_or_behind() {
    for seconds in [-600, 0, 600] {
        let clock = Arc::new(PausedClock::new());
        let store = Arc::new(MemoryStorage::new(clock.clone()));
        let server = Server::sealed_over(store, Arc::new(Off(clock.clone(), seconds))).await;
        server.unseal().await;
        server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
        let token = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
        let lease = server.read(&token, "db/creds/app").await.unwrap();
        let row = server.rows().await.into_iter().find(|row| row.id == lease_of(&lease)).unwrap();
        let ttl = lease.lease.as_ref().unwrap().ttl;
        assert_eq!(row.expires_at, clock.now() + ttl, "{seconds} s off: the end that is stored");
        assert_eq!(server.lookup(&token).await.unwrap()["ttl"], 3_600, "{seconds} s off: what is left of a token");
        pass(ttl.as_secs() + 10).await;
        assert!(!server.target.has(&row.id), "{seconds} s off: it has ended");
    }
}

/// A server's own clock, which somebody sets now and then.
struct Set(Arc<PausedClock>, AtomicI64);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.now().as_nanos() + self.1.load(Ordering::SeqCst) * 1_000_000_000)
    }

    fn steady(&self) -> Duration {
        self.0.steady()
    }
}

/// Before the store's clock is measured again, too: a renewal right after it would end a lease at once, or not for ten minutes.
#[tokio::test(start_paused = true)]
async fn a_servers_clock_that_is_set_changes_no_end_and_refuses_nobody() {
    let clock = Arc::new(PausedClock::new());
    let store = Arc::new(MemoryStorage::new(clock.clone()));
    let own = Arc::new(Set(clock.clone(), AtomicI64::new(0)));
    let server = Server::sealed_over(store, own.clone()).await;
    server.unseal().await;
    server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
    let token = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
    for seconds in [-7_200, 7_200, 600, 0] {
        own.1.store(seconds, Ordering::SeqCst);
        assert!(server.lives(&token).await, "{seconds} s off");
        let lease = server.read(&token, "db/creds/app").await.unwrap();
        let row = server.rows().await.into_iter().find(|row| row.id == lease_of(&lease)).unwrap();
        assert_eq!(row.expires_at, clock.now() + lease.lease.as_ref().unwrap().ttl, "{seconds} s off");
        assert!(server.target.has(&row.id), "{seconds} s off");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_clock_is_set_is_followed_within_seconds() {
    let store_clock = Arc::new(ManualClock::at(50_000));
    let store = Arc::new(MemoryStorage::new(store_clock.clone()));
    let server = Server::sealed_over(store, Arc::new(PausedClock::new())).await;
    server.unseal().await;
    let token = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
    store_clock.advance(Duration::from_secs(1_800));
    pass(3).await;
    assert_eq!(server.lookup(&token).await.unwrap()["ttl"], 1_800);
    store_clock.advance(Duration::from_secs(3_600));
    pass(3).await;
    assert!(!server.lives(&token).await);
}
