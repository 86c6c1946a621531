//! Rate limits: what they count, where they stand, and that every server knows of them.

use leasehold_core::connection::ConnectionInfo;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Storage as _;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::pass;
use super::support::server::{ROOT, Server, refusal, request};

/// What a rate limit says to a read from `address` (`None`: it is let in), and how much is left, if that is said.
async fn asks(server: &Server, path: &str, address: &str) -> Result<Option<u64>, String> {
    let mut asked = request(None, Operation::Read, path, Value::Null);
    asked.client = Some(ConnectionInfo::of_peer(format!("{address}:4711").parse().unwrap()));
    match server.core.limit_rate(&asked).await {
        Ok(counts) => Ok(counts.map(|counts| counts.remaining)),
        Err(RequestError::RateLimited { path, retry_secs, .. }) => Err(format!("{path} in {retry_secs} s")),
        Err(other) => panic!("{other:?}"),
    }
}

async fn limit(server: &Server, name: &str, fields: Value) {
    server.root(&format!("sys/quotas/rate-limit/{name}"), fields).await.unwrap();
}

async fn shown(server: &Server, path: &str) -> Value {
    Value::Object(server.read(ROOT, path).await.unwrap().data.unwrap())
}

#[tokio::test(start_paused = true)]
async fn each_client_is_counted_for_itself_without_a_look_at_its_token() {
    let server = Server::start().await;
    assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Ok(None), "there is no limit");
    limit(&server, "all", json!({ "rate": 2, "interval": 10 })).await;
    for _ in 0..2 {
        assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Ok(None));
    }
    assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Err("db/things/a in 10 s".to_owned()));
    assert_eq!(asks(&server, "nomount/x", "10.0.0.1").await, Err("nomount/x in 10 s".to_owned()));
    assert_eq!(asks(&server, "db/things/a", "10.0.0.2").await, Ok(None));
    // What operators need in trouble is never refused, unless somebody says so.
    for _ in 0..5 {
        for path in ["sys/health", "sys/seal-status", "sys/unseal", "sys/generate-root/attempt"] {
            assert_eq!(asks(&server, path, "10.0.0.1").await, Ok(None));
        }
    }
    pass(10).await;
    assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Ok(None));
    server.root("sys/quotas/config", json!({ "enable_rate_limit_response_headers": true })).await.unwrap();
    assert_eq!(asks(&server, "sys/health", "10.0.0.1").await, Ok(Some(0)), "an empty list exempts nothing");
    assert!(asks(&server, "sys/health", "10.0.0.1").await.is_err());
    // A changed limit begins to count anew, and a deleted one counts nothing.
    limit(&server, "all", json!({ "rate": 1, "interval": 10 })).await;
    assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Ok(Some(0)));
    assert!(asks(&server, "db/things/a", "10.0.0.1").await.is_err());
    server.call(Some(ROOT), Operation::Delete, "sys/quotas/rate-limit/all", Value::Null).await.unwrap();
    assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_limit_moves_with_its_mount_and_ends_with_it() {
    let server = Server::start().await;
    limit(&server, "things", json!({ "rate": 1, "interval": 60, "path": "db/things/*" })).await;
    assert_eq!(asks(&server, "db/things/a", "10.0.0.1").await, Ok(None));
    assert!(asks(&server, "db/things/b/", "10.0.0.1").await.is_err());
    assert_eq!(asks(&server, "db/other", "10.0.0.1").await, Ok(None));
    server.root("sys/remount", json!({ "from": "db", "to": "moved" })).await.unwrap();
    pass(1).await;
    assert_eq!(shown(&server, "sys/quotas/rate-limit/things").await["path"], "moved/things/*");
    assert!(asks(&server, "moved/things/a", "10.0.0.1").await.is_err(), "it is the same limit");
    server.call(Some(ROOT), Operation::Delete, "sys/mounts/moved", Value::Null).await.unwrap();
    assert_eq!(refusal(server.read(ROOT, "sys/quotas/rate-limit/things").await), "NotFound: not found");
    // Another mount in its place has none.
    server.root("sys/mounts/moved", json!({ "type": "scripted" })).await.unwrap();
    for _ in 0..3 {
        assert_eq!(asks(&server, "moved/things/a", "10.0.0.1").await, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_and_its_configuration_count_on_every_server_and_after_a_restart() {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    limit(&one, "all", json!({ "rate": 1, "interval": 60 })).await;
    assert_eq!(asks(&other, "db/things/a", "10.0.0.1").await, Ok(None));
    assert!(asks(&other, "db/things/a", "10.0.0.1").await.is_err());
    let similar = other.root("sys/quotas/rate-limit/same", json!({ "rate": 5 })).await;
    assert_eq!(refusal(similar), "Invalid: quota rule with similar properties exists under the name \"all\"");
    other.root("sys/quotas/config", json!({ "rate_limit_exempt_paths": ["db/"] })).await.unwrap();
    for _ in 0..3 {
        assert_eq!(asks(&one, "db/things/a", "10.0.0.1").await, Ok(None));
    }
    other.process.die();
    let again = one.again();
    again.unseal().await;
    assert_eq!(asks(&again, "sys/mounts", "10.0.0.1").await, Ok(None));
    assert!(asks(&again, "sys/mounts", "10.0.0.1").await.is_err());
    assert_eq!(asks(&again, "db/things/a", "10.0.0.1").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_audited_where_somebody_wants_that() {
    let server = Server::start().await;
    server.audited().await;
    limit(&server, "all", json!({ "rate": 1, "interval": 60, "path": "db" })).await;
    let refused = async || {
        server.audit.first.clear();
        let _ = asks(&server, "db/things/a", "10.0.0.1").await;
        assert!(asks(&server, "db/things/a", "10.0.0.1").await.is_err());
        server.audit.first.lines()
    };
    assert_eq!(refused().await.len(), 0);
    server.root("sys/quotas/config", json!({ "enable_rate_limit_audit_logging": true })).await.unwrap();
    let lines = refused().await;
    assert!(!lines.is_empty());
    let line = server.audit.first.last("request");
    assert_eq!(line["error"], "request path \"db/things/a\": rate limit quota exceeded");
    assert_eq!((&line["request"]["path"], &line["request"]["data"]), (&json!("db/things/a"), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn one_name_has_one_limit_in_all_its_cases() {
    let server = Server::start().await;
    server.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    limit(&server, "ada", json!({ "rate": 1, "interval": 60, "path": "auth/s/login/ada" })).await;
    let same = server.root("sys/quotas/rate-limit/other", json!({ "rate": 9, "path": "auth/s/login/ADA" })).await;
    assert_eq!(refusal(same), "Invalid: quota rule with similar properties exists under the name \"ada\"");
    limit(&server, "a", json!({ "rate": 9, "path": "db/creds/a" })).await;
    limit(&server, "A", json!({ "rate": 9, "path": "db/creds/A" })).await;
}

/// How many of `count` requests are let in, each on the next of these servers.
async fn let_in(servers: &[&Server], address: &str, count: usize) -> usize {
    let mut let_in = 0;
    for at in 0..count {
        let_in += usize::from(asks(servers[at % servers.len()], "db/things/a", address).await.is_ok());
    }
    let_in
}

#[tokio::test(start_paused = true)]
async fn servers_share_the_requests_of_a_client() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    limit(&one, "all", json!({ "rate": 12, "interval": 60, "block_interval": 0 })).await;
    pass(1).await;
    assert_eq!(let_in(&[&one], "10.0.0.1", 40).await, 12, "who speaks to one server has all requests there");
    assert_eq!(let_in(&[&other], "10.0.0.1", 40).await, 4, "and on each other server one batch more");
    let together = let_in(&[&one, &other, &third], "10.0.0.2", 90).await;
    assert!((12..=20).contains(&together), "{together}");
    // Nothing is drawn for who stays within a server's share, and nothing more for who has drawn all.
    let stored = async || {
        let rows = leasehold_core::seams::storage::Key::new("quota/rate-limit/");
        let rows = one.process.store.scan(&rows, None, 1_000).await.unwrap();
        let mut stored = Vec::new();
        for row in rows {
            stored.push(one.process.store.get(&row).await.unwrap().unwrap().version);
        }
        stored
    };
    let before = stored().await;
    assert!(!before.is_empty());
    assert_eq!(let_in(&[&one, &other, &third], "10.0.0.3", 12).await, 12);
    assert_eq!(let_in(&[&one, &other, &third], "10.0.0.2", 30).await, 0);
    assert_eq!(stored().await, before);
    // In the next window it begins anew.
    pass(61).await;
    assert_eq!(let_in(&[&third], "10.0.0.2", 40).await, 12);
    // What was drawn goes with the limit.
    server_delete(&one).await;
    assert!(stored().await.is_empty());
    // When a server is gone, those that are left have all.
    limit(&one, "all", json!({ "rate": 12, "interval": 60 })).await;
    third.core.seal().await;
    pass(5).await;
    assert_eq!(let_in(&[&one], "10.0.0.4", 6).await, 6);
    assert_eq!(let_in(&[&one, &other], "10.0.0.4", 40).await, 12);
}

async fn server_delete(server: &Server) {
    server.call(Some(ROOT), Operation::Delete, "sys/quotas/rate-limit/all", Value::Null).await.unwrap();
}

/// Whoever has an IPv6 address has 2^64 of them.
#[tokio::test(start_paused = true)]
async fn an_ipv6_network_is_one_client() {
    let server = Server::start().await;
    limit(&server, "all", json!({ "rate": 1, "interval": 60 })).await;
    assert!(asks(&server, "db/things/a", "[2001:db8::1]").await.is_ok());
    assert!(asks(&server, "db/things/a", "[2001:db8::ffff:2]").await.is_err());
    assert!(asks(&server, "db/things/a", "[2001:db8:0:1::1]").await.is_ok());
}
