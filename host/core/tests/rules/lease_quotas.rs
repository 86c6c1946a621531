//! Lease count quotas: exact whatever happens, and in the way of no end.

use std::sync::atomic::Ordering;

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Storage as _;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::faults::FAULTS;
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, lease_of, refusal, request, token_of};

const FULL: &str = "LeaseCountExceeded: request path \"db/creds/app\": lease count quota exceeded";

async fn quota(server: &Server, name: &str, fields: Value) {
    server.root(&format!("sys/quotas/lease-count/{name}"), fields).await.unwrap();
}

async fn count(server: &Server, name: &str) -> u64 {
    let shown = server.read(ROOT, &format!("sys/quotas/lease-count/{name}")).await.unwrap();
    shown.data.unwrap()["counter"].as_u64().unwrap()
}

async fn issue(server: &Server, path: &str) -> Answer {
    server.read(ROOT, path).await
}

async fn delete(server: &Server, path: &str) {
    server.call(Some(ROOT), Operation::Delete, path, Value::Null).await.unwrap();
}

async fn log_in(server: &Server, name: &str) -> Answer {
    server.call(None, Operation::Update, &format!("auth/s/login/{name}"), json!({})).await
}

/// Leases whose names begin so.
async fn rows(server: &Server, prefix: &str) -> u64 {
    server.rows().await.iter().filter(|row| row.id.as_str().starts_with(prefix)).count() as u64
}

#[tokio::test(start_paused = true)]
async fn no_lease_begins_beyond_the_maximum_and_its_end_makes_room() {
    let server = Server::start().await;
    let there = lease_of(&issue(&server, "db/creds/app").await.unwrap());
    quota(&server, "db", json!({ "path": "db", "max_leases": 3 })).await;
    assert_eq!(count(&server, "db").await, 1, "what is there counts");
    for _ in 0..2 {
        issue(&server, "db/creds/app").await.unwrap();
    }
    let effects = server.target.count("effect");
    assert_eq!(refusal(issue(&server, "db/creds/app").await), FULL);
    assert_eq!(server.target.count("effect"), effects, "it is refused before anything is done");
    server.root("sys/leases/revoke", json!({ "lease_id": there.as_str() })).await.unwrap();
    pass(5).await;
    assert_eq!(count(&server, "db").await, 2);
    issue(&server, "db/creds/app").await.unwrap();
    // A smaller quota ends nothing, and lets nothing begin until there is room.
    quota(&server, "db", json!({ "path": "db", "max_leases": 1 })).await;
    assert_eq!(refusal(issue(&server, "db/creds/app").await), FULL);
    server.root("sys/leases/revoke-prefix/db", json!({})).await.unwrap();
    pass(5).await;
    assert_eq!((count(&server, "db").await, rows(&server, "db/").await), (0, 0));
    issue(&server, "db/creds/app").await.unwrap();
    // What expires makes room as well.
    assert_eq!(refusal(issue(&server, "db/creds/app").await), FULL);
    pass(3_700).await;
    issue(&server, "db/creds/app").await.unwrap();
    delete(&server, "sys/quotas/lease-count/db").await;
    issue(&server, "db/creds/app").await.unwrap();
    assert_eq!(refusal(server.read(ROOT, "sys/quotas/lease-count/db").await), "NotFound: not found");
}

#[tokio::test(start_paused = true)]
async fn of_several_quotas_the_one_that_fits_best_counts_a_lease() {
    let server = Server::start().await;
    server.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
    for path in ["db/creds/app", "db/creds/web", "other/creds/app"] {
        issue(&server, path).await.unwrap();
    }
    let tokens = rows(&server, "auth/token/").await;
    quota(&server, "all", json!({ "max_leases": 100 })).await;
    let counts = async |names: &[&str]| {
        let mut counts = Vec::new();
        for name in names {
            counts.push(count(&server, name).await);
        }
        counts
    };
    let root = u64::from(count(&server, "all").await == 3);
    assert_eq!(root, 1, "root tokens count nowhere, and there are {tokens} tokens");
    quota(&server, "db", json!({ "path": "db/", "max_leases": 100 })).await;
    assert_eq!(counts(&["all", "db"]).await, [1, 2]);
    quota(&server, "creds", json!({ "path": "db/creds/a*", "max_leases": 100 })).await;
    quota(&server, "web", json!({ "path": "db/creds/web", "max_leases": 1 })).await;
    assert_eq!(counts(&["all", "db", "creds", "web"]).await, [1, 0, 1, 1]);
    assert!(issue(&server, "db/creds/web").await.is_err());
    issue(&server, "db/creds/app").await.unwrap();
    issue(&server, "other/creds/app").await.unwrap();
    assert_eq!(counts(&["all", "db", "creds", "web"]).await, [2, 0, 2, 1]);
    delete(&server, "sys/quotas/lease-count/creds").await;
    assert_eq!(counts(&["all", "db", "web"]).await, [2, 2, 1]);
    // The quota of a mount ends with it, and what covers everything goes on.
    delete(&server, "sys/mounts/db").await;
    assert_eq!(counts(&["all"]).await, [2]);
    let listed = server.call(Some(ROOT), Operation::List, "sys/quotas/lease-count/", Value::Null).await.unwrap();
    assert_eq!(listed.data.unwrap()["keys"], json!(["all"]));
}

#[tokio::test(start_paused = true)]
async fn tokens_count_by_the_login_that_made_them_and_root_tokens_do_not() {
    let server = Server::start().await;
    server.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    let bob = token_of(&log_in(&server, "bob").await.unwrap());
    log_in(&server, "alice").await.unwrap();
    quota(&server, "bob", json!({ "path": "auth/s", "role": "bob", "max_leases": 2 })).await;
    quota(&server, "logins", json!({ "path": "auth/s", "max_leases": 3 })).await;
    quota(&server, "tokens", json!({ "path": "auth/token", "max_leases": 1 })).await;
    assert_eq!((count(&server, "bob").await, count(&server, "logins").await), (1, 1));
    log_in(&server, "bob").await.unwrap();
    let full = "LeaseCountExceeded: request path \"auth/s/login/bob\": lease count quota exceeded";
    assert_eq!(refusal(log_in(&server, "bob").await), full);
    log_in(&server, "alice").await.unwrap();
    // A renewed token is still the same role's.
    server.root("auth/token/renew", json!({ "token": bob })).await.unwrap();
    server.root("auth/token/revoke", json!({ "token": bob })).await.unwrap();
    pass(5).await;
    assert_eq!((count(&server, "bob").await, count(&server, "logins").await), (1, 2));
    // Batch tokens count nowhere, and are not made where there is no room.
    log_in(&server, "batch").await.unwrap();
    assert_eq!(count(&server, "logins").await, 2);
    log_in(&server, "carol").await.unwrap();
    assert!(matches!(log_in(&server, "batch").await, Err(RequestError::LeaseCountExceeded { .. })));
    let child = json!({ "policies": ["default"] });
    server.token(child.clone()).await;
    assert!(server.root("auth/token/create", child.clone()).await.is_err());
    let batch = json!({ "policies": ["default"], "type": "batch" });
    assert!(matches!(server.root("auth/token/create", batch).await, Err(RequestError::LeaseCountExceeded { .. })));
    let root = json!({ "policies": ["root"], "ttl": "1h" });
    let rescue = token_of(&server.root("auth/token/create", root).await.unwrap());
    server.root("auth/token/revoke", json!({ "token": rescue })).await.unwrap();
    pass(5).await;
    assert_eq!(count(&server, "tokens").await, 1);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_on_two_servers_stop_exactly_at_the_maximum() {
    for most in [7_u64, 40] {
        let one = Server::start_shared().await;
        let other = one.beside().await;
        quota(&one, "db", json!({ "path": "db", "max_leases": most })).await;
        for server in [&one, &other] {
            server.process.yields.store(true, Ordering::SeqCst);
        }
        let ask = |at: usize| {
            let core = if at.is_multiple_of(2) { one.core.clone() } else { other.core.clone() };
            tokio::spawn(
                async move { core.handle(request(Some(ROOT), Operation::Read, "db/creds/app", Value::Null)).await },
            )
        };
        let asked: Vec<_> = (0..most as usize + 20).map(ask).collect();
        let (mut issued, mut refused) = (Vec::new(), 0);
        for answer in asked {
            match answer.await.unwrap() {
                Ok(answer) => issued.push(lease_of(&answer)),
                Err(RequestError::LeaseCountExceeded { .. }) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!((issued.len() as u64, refused), (most, 20));
        assert_eq!((count(&one, "db").await, rows(&one, "db/").await), (most, most));
        let end = |(at, id): (usize, &leasehold_model::LeaseId)| {
            let core = if at.is_multiple_of(2) { one.core.clone() } else { other.core.clone() };
            let body = json!({ "lease_id": id.as_str(), "sync": true });
            tokio::spawn(
                async move { core.handle(request(Some(ROOT), Operation::Update, "sys/leases/revoke", body)).await },
            )
        };
        for ended in issued.iter().enumerate().map(end).collect::<Vec<_>>() {
            ended.await.unwrap().unwrap();
        }
        pass(5).await;
        assert_eq!((count(&other, "db").await, rows(&one, "db/").await), (0, 0));
    }
}

/// Leases begin and end on both servers while quotas come, change and go: in the end each count is that of the rows.
#[tokio::test(start_paused = true)]
async fn quotas_that_change_while_leases_begin_and_end_count_what_there_is() {
    for round in 0..12_usize {
        let one = Server::start_shared().await;
        let other = one.beside().await;
        one.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
        for server in [&one, &other] {
            server.process.yields.store(true, Ordering::SeqCst);
        }
        let work = |at: usize| {
            let core = if at.is_multiple_of(2) { one.core.clone() } else { other.core.clone() };
            let path = if at.is_multiple_of(3) { "other/creds/app" } else { "db/creds/app" };
            tokio::spawn(async move {
                for _ in 0..at {
                    tokio::task::yield_now().await;
                }
                let issued = core.handle(request(Some(ROOT), Operation::Read, path, Value::Null)).await.unwrap();
                if at.is_multiple_of(4) {
                    let body = json!({ "lease_id": lease_of(&issued).as_str(), "sync": true });
                    core.handle(request(Some(ROOT), Operation::Update, "sys/leases/revoke", body)).await.unwrap();
                }
            })
        };
        let working: Vec<_> = (0..24).map(|at| work(at * (round + 1))).collect();
        quota(&one, "all", json!({ "max_leases": 1_000 })).await;
        quota(&other, "db", json!({ "path": "db", "max_leases": 500 })).await;
        quota(&one, "app", json!({ "path": "db/creds/*", "max_leases": 400 })).await;
        delete(&other, "sys/quotas/lease-count/db").await;
        quota(&one, "app", json!({ "path": "db/creds/app", "max_leases": 100 })).await;
        quota(&other, "app", json!({ "path": "db/creds/app", "max_leases": 90 })).await;
        quota(&one, "all", json!({ "max_leases": 900 })).await;
        for done in working {
            done.await.unwrap();
        }
        pass(5).await;
        assert_eq!(count(&one, "app").await, rows(&one, "db/").await, "round {round}");
        assert_eq!(count(&one, "all").await, rows(&one, "other/").await, "round {round}");
    }
}

/// A change of quotas that fails, lies or dies at each of its writes: the next one is right, and nothing stays closed.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_cut_off_leaves_the_quotas_as_they_were_or_as_they_were_to_be() {
    for fault in FAULTS {
        for write in 0.. {
            let server = Server::start().await;
            quota(&server, "all", json!({ "max_leases": 100 })).await;
            for _ in 0..3 {
                issue(&server, "db/creds/app").await.unwrap();
            }
            server.process.fault_at(write, fault);
            let changed = server.root("sys/quotas/lease-count/db", json!({ "path": "db", "max_leases": 50 })).await;
            if server.process.is_armed() {
                assert!(changed.is_ok() && write >= 2, "{fault:?} at {write}: {changed:?}");
                break;
            }
            let again = server.again();
            again.unseal().await;
            pass(1).await;
            // Whoever needs the leases waits, and opens them when nobody counts any more.
            issue(&again, "db/creds/app").await.unwrap();
            quota(&again, "db", json!({ "path": "db", "max_leases": 50 })).await;
            assert_eq!((count(&again, "db").await, count(&again, "all").await), (4, 0), "{fault:?} at {write}");
        }
    }
}

/// Each write of an issue and of its end is cut off: the count is that of the rows.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_cut_off_counts_for_as_long_as_its_row_is_there() {
    for fault in FAULTS {
        for write in 0.. {
            let server = Server::start().await;
            quota(&server, "db", json!({ "path": "db", "max_leases": 50 })).await;
            server.process.fault_at(write, fault);
            let lease = issue(&server, "db/creds/app").await;
            if let Ok(lease) = &lease {
                let body = json!({ "lease_id": lease_of(lease).as_str(), "sync": true });
                let _ = server.root("sys/leases/revoke", body).await;
            }
            let is_over = server.process.is_armed();
            let again = server.again();
            again.unseal().await;
            assert_eq!(count(&again, "db").await, rows(&again, "db/").await, "{fault:?} at {write}");
            // What is under way is over by then.
            pass(100).await;
            again.root("sys/leases/revoke-prefix/db", json!({})).await.unwrap();
            pass(600).await;
            assert_eq!((count(&again, "db").await, rows(&again, "db/").await), (0, 0), "{fault:?} at {write}");
            if is_over {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_wrong_is_put_right() {
    let server = Server::start().await;
    quota(&server, "db", json!({ "path": "db", "max_leases": 50 })).await;
    let lease = lease_of(&issue(&server, "db/creds/app").await.unwrap());
    // Behind the back of whoever counts.
    let row = server.process.store.lease(&lease).await.unwrap().unwrap();
    server.process.force.store(true, Ordering::SeqCst);
    let gone = leasehold_core::seams::storage::Batch::new().remove(lease, row.fence);
    server.process.store.commit(gone).await.unwrap();
    assert_eq!(count(&server, "db").await, 1);
    pass(700).await;
    assert_eq!(count(&server, "db").await, 0);
}

/// Whoever serves a login folds the name: another case of it must not begin leases that no quota counts.
#[tokio::test(start_paused = true)]
async fn the_case_of_a_name_steps_out_of_no_quota_on_any_server() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    one.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    quota(&one, "ada", json!({ "path": "auth/s/login/Ada", "max_leases": 3 })).await;
    let similar =
        other.root("sys/quotas/lease-count/ADA", json!({ "path": "auth/s/login/aDA", "max_leases": 9 })).await;
    assert_eq!(refusal(similar), "Invalid: quota rule with similar properties exists under the name \"ada\"");
    let mut made = Vec::new();
    for (server, name) in [(&one, "ada"), (&other, "ADA"), (&third, "Ada")] {
        made.push(token_of(&log_in(server, name).await.unwrap()));
    }
    assert_eq!(count(&one, "ada").await, 3);
    let refused = refusal(log_in(&other, "adA").await);
    assert_eq!(refused, "LeaseCountExceeded: request path \"auth/s/login/adA\": lease count quota exceeded");
    log_in(&other, "Eve").await.unwrap();
    for token in made {
        third.root("auth/token/revoke", json!({ "token": token })).await.unwrap();
    }
    pass(5).await;
    assert_eq!(count(&third, "ada").await, 0);
    // The same of roles, and of what has no row.
    quota(&one, "role", json!({ "path": "auth/s", "role": "Batch", "max_leases": 1 })).await;
    quota(&one, "path", json!({ "path": "auth/s/login/eve", "max_leases": 1 })).await;
    let similar =
        other.root("sys/quotas/lease-count/same", json!({ "path": "auth/s", "role": "batch", "max_leases": 9 }));
    assert_eq!(refusal(similar.await), "Invalid: quota rule with similar properties exists under the name \"role\"");
    assert!(refusal(log_in(&third, "EVE").await).starts_with("LeaseCountExceeded"));
}

/// Whether rows of what ends stay for now.
fn keeps_rows(servers: [&Server; 3], keeps: bool) {
    for server in servers {
        server.process.keeps_rows.store(keeps, Ordering::SeqCst);
    }
}

/// Whoever has claimed it lets go of it after a while.
async fn has_ended(server: &Server, prefix: &str) {
    for _ in 0..90 {
        pass(1).await;
        if rows(server, prefix).await == 0 {
            return;
        }
    }
    panic!("{prefix} does not end");
}

#[tokio::test(start_paused = true)]
async fn what_a_moved_mount_has_left_behind_is_taken_off_where_it_was_counted() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    one.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    quota(&one, "ada", json!({ "path": "auth/s/login/ada", "max_leases": 5 })).await;
    quota(&one, "s", json!({ "path": "auth/s", "max_leases": 5 })).await;
    // The counts have been compared with the leases, and are not soon again.
    pass(120).await;
    log_in(&one, "ada").await.unwrap();
    keeps_rows([&one, &other, &third], true);
    assert_eq!((count(&other, "ada").await, count(&other, "s").await), (1, 0));
    other.root("sys/remount", json!({ "from": "auth/s", "to": "auth/t" })).await.unwrap();
    pass(5).await;
    assert_eq!(rows(&third, "auth/s/login/ada").await, 1, "it is still ending");
    let shown = third.read(ROOT, "sys/quotas/lease-count/ada").await.unwrap().data.unwrap();
    assert_eq!((&shown["path"], &shown["counter"]), (&json!("auth/t/login/ada"), &json!(1)));
    third.call(None, Operation::Update, "auth/t/login/zoe", json!({})).await.unwrap();
    assert_eq!(count(&other, "s").await, 1);
    keeps_rows([&one, &other, &third], false);
    has_ended(&one, "auth/s/login/ada").await;
    assert_eq!((count(&other, "ada").await, count(&other, "s").await), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_mount_has_left_behind_counts_for_those_that_take_over() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    one.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    quota(&one, "all", json!({ "max_leases": 50 })).await;
    quota(&one, "s", json!({ "path": "auth/s", "max_leases": 5 })).await;
    let before = count(&one, "all").await;
    // The counts have been compared with the leases, and are not soon again.
    pass(120).await;
    log_in(&one, "ada").await.unwrap();
    keeps_rows([&one, &other, &third], true);
    assert_eq!((count(&other, "all").await, count(&other, "s").await), (before, 1));
    delete(&other, "sys/auth/s").await;
    pass(5).await;
    assert_eq!(rows(&third, "auth/s/login/ada").await, 1, "it is still ending");
    assert_eq!(count(&third, "all").await, before + 1, "it counts for the one that covers everything");
    keeps_rows([&one, &other, &third], false);
    has_ended(&one, "auth/s/login/ada").await;
    assert_eq!(count(&third, "all").await, before);
}

/// Leases wait for as long as others are being looked at, so that no more of them are than must.
#[tokio::test(start_paused = true)]
async fn a_change_looks_at_no_more_leases_than_it_counts_otherwise() {
    let one = Server::start_shared().await;
    let (other, third) = (one.beside().await, one.beside().await);
    for _ in 0..30 {
        issue(&one, "db/creds/app").await.unwrap();
    }
    for _ in 0..2 {
        issue(&other, "db/creds/web").await.unwrap();
    }
    let looked_at = async |server: &Server, name: &str, fields: Option<Value>| {
        *server.process.listed.lock().unwrap() = 0;
        match fields {
            Some(fields) => quota(server, name, fields).await,
            None => delete(server, &format!("sys/quotas/lease-count/{name}")).await,
        }
        *server.process.listed.lock().unwrap()
    };
    assert_eq!(looked_at(&one, "web", Some(json!({ "path": "db/creds/web", "max_leases": 9 }))).await, 2);
    assert_eq!(looked_at(&other, "db", Some(json!({ "path": "db", "max_leases": 99 }))).await, 32);
    assert_eq!((count(&third, "web").await, count(&third, "db").await), (2, 30));
    // Another maximum, and another name, change nothing of what is counted.
    assert_eq!(looked_at(&third, "db", Some(json!({ "path": "db", "max_leases": 31 }))).await, 0);
    assert_eq!((count(&one, "web").await, count(&one, "db").await), (2, 30));
    issue(&other, "db/creds/app").await.unwrap();
    assert_eq!(refusal(issue(&one, "db/creds/app").await), FULL);
    // Those that the other one takes over.
    assert_eq!(looked_at(&one, "web", None).await, 2);
    assert_eq!(count(&third, "db").await, 33);
    // Nobody takes these over.
    assert_eq!(looked_at(&other, "db", None).await, 0);
    issue(&third, "db/creds/app").await.unwrap();
    let left = one.process.store.scan(&leasehold_core::keys::Key::new("quota/lease-count/"), None, 100).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
