//! How many leases of one path an engine allows: counted as quotas are, beside them. `things/limit-3` allows `creds/app` three.

use std::sync::atomic::Ordering;

use leasehold_core::seams::error::RequestError;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::faults::FAULTS;
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, lease_of, refusal, request};

async fn issue(server: &Server) -> Answer {
    server.read(ROOT, "db/creds/app").await
}

async fn limit(server: &Server, most: u64) -> Answer {
    server.root(&format!("db/things/limit-{most}"), json!({})).await
}

/// Which limit has refused, and in how many seconds to come back.
fn refused(answer: Answer) -> (String, u64, Option<u64>) {
    match answer {
        Err(RequestError::LeaseCountExceeded { limit, max_leases, retry_secs, .. }) => (limit, max_leases, retry_secs),
        other => panic!("{other:?}"),
    }
}

async fn rows(server: &Server) -> usize {
    server.rows().await.iter().filter(|row| row.id.as_str().starts_with("db/creds/app/")).count()
}

#[tokio::test(start_paused = true)]
async fn an_engines_limit_holds_beside_the_quotas_and_is_none_of_them() {
    let server = Server::start().await;
    let first = lease_of(&issue(&server).await.unwrap());
    pass(100).await;
    limit(&server, 2).await.unwrap();
    issue(&server).await.unwrap();
    let effects = server.target.count("effect");
    // The first lease lasts an hour.
    assert_eq!(refused(issue(&server).await), ("thing \"app\"".to_owned(), 2, Some(3_501)));
    assert_eq!(server.target.count("effect"), effects, "it is refused before anything is done");
    server.read(ROOT, "db/creds/web").await.unwrap();
    // No client sees a quota, makes one that is in its way, or deletes it by its name.
    let listed = server.call(Some(ROOT), Operation::List, "sys/quotas/lease-count/", Value::Null).await;
    assert_eq!(refusal(listed), "NotFound: not found");
    server.root("sys/quotas/lease-count/q", json!({ "path": "db/creds/app", "max_leases": 3 })).await.unwrap();
    assert_eq!(refused(issue(&server).await).0, "thing \"app\"");
    server.root("sys/leases/revoke", json!({ "lease_id": first.as_str() })).await.unwrap();
    pass(5).await;
    issue(&server).await.unwrap();
    // Each counts by itself, and the one that is full refuses.
    limit(&server, 9).await.unwrap();
    issue(&server).await.unwrap();
    assert_eq!(refused(issue(&server).await), ("quota \"q\"".to_owned(), 3, None));
    server.call(Some(ROOT), Operation::Delete, "sys/quotas/lease-count/q", Value::Null).await.unwrap();
    for _ in 3..9 {
        issue(&server).await.unwrap();
    }
    assert_eq!(refused(issue(&server).await).1, 9);
    // A limit below what is there ends nothing.
    limit(&server, 1).await.unwrap();
    assert_eq!((refused(issue(&server).await).1, rows(&server).await), (1, 9));
    limit(&server, 0).await.unwrap();
    issue(&server).await.unwrap();
    // It goes with its mount.
    limit(&server, 3).await.unwrap();
    server.call(Some(ROOT), Operation::Delete, "sys/mounts/db", Value::Null).await.unwrap();
    server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
    for _ in 0..5 {
        issue(&server).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_on_two_servers_stop_exactly_at_the_limit() {
    for most in [1_u64, 7, 40] {
        let one = Server::start_shared().await;
        let other = one.beside().await;
        limit(&one, most).await.unwrap();
        for server in [&one, &other] {
            server.process.yields.store(true, Ordering::SeqCst);
        }
        let ask = |at: usize| {
            let core = if at.is_multiple_of(2) { one.core.clone() } else { other.core.clone() };
            let asked = request(Some(ROOT), Operation::Read, "db/creds/app", Value::Null);
            tokio::spawn(async move { core.handle(asked).await })
        };
        let mut issued = 0;
        for answer in (0..most as usize + 20).map(ask).collect::<Vec<_>>() {
            match answer.await.unwrap() {
                Ok(_) => issued += 1,
                Err(RequestError::LeaseCountExceeded { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!((issued, rows(&one).await as u64), (most, most));
    }
}

/// A change that fails, lies or dies at each of its writes: the engine's record and the limit are both as they were, or both new.
#[tokio::test(start_paused = true)]
async fn a_limit_and_what_it_belongs_to_are_written_in_one_step() {
    for fault in FAULTS {
        for write in 0.. {
            let server = Server::start().await;
            server.process.fault_at(write, fault);
            let changed = limit(&server, 2).await;
            let is_over = server.process.is_armed();
            assert!(!is_over || (changed.is_ok() && write >= 2), "{fault:?} at {write}: {changed:?}");
            let again = server.again();
            again.unseal().await;
            let is_written = again.read(ROOT, "db/things/limit-2").await.is_ok();
            assert!(is_written || changed.is_err(), "{fault:?} at {write}: what was answered holds");
            for _ in 0..2 {
                issue(&again).await.unwrap();
            }
            assert_eq!(issue(&again).await.is_err(), is_written, "{fault:?} at {write}");
            if is_over {
                break;
            }
        }
    }
}

/// Each write of an issue is cut off: what has no row does not count.
#[tokio::test(start_paused = true)]
async fn an_issue_that_is_cut_off_takes_no_room_for_ever() {
    for fault in FAULTS {
        for write in 0.. {
            let server = Server::start().await;
            limit(&server, 1).await.unwrap();
            server.process.fault_at(write, fault);
            let _ = issue(&server).await;
            let is_over = server.process.is_armed();
            let again = server.again();
            again.unseal().await;
            let may_begin = rows(&again).await == 0;
            assert_eq!(issue(&again).await.is_ok(), may_begin, "{fault:?} at {write}");
            pass(100).await;
            again.root("sys/leases/revoke-prefix/db", json!({})).await.unwrap();
            pass(600).await;
            assert_eq!(rows(&again).await, 0, "{fault:?} at {write}");
            issue(&again).await.unwrap();
            if is_over {
                break;
            }
        }
    }
}
