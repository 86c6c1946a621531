//! Changes that are made only while no lease stands on a target: `things/pg` is what `creds/on-pg` are made of.

use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::lease::LeaseError;
use leasehold_core::lease::issue::IssueRequest;
use leasehold_core::seams::engine::LeasePlan;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Expect;
use leasehold_model::{Operation, TokenId, Ttl};
use serde_json::{Value, json};

use super::support::faults::FAULTS;
use super::support::node::plan;
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, lease_of, refusal, request};

async fn issue(server: &Server) -> Answer {
    server.read(ROOT, "db/creds/on-pg").await
}

async fn delete(server: &Server) -> Answer {
    server.call(Some(ROOT), Operation::Delete, "db/things/pg", Value::Null).await
}

async fn standing(server: &Server) -> usize {
    server.rows().await.iter().filter(|row| row.id.as_str().starts_with("db/creds/on-pg/")).count()
}

#[tokio::test(start_paused = true)]
async fn what_a_lease_stands_on_stays_until_the_lease_has_ended() {
    let server = Server::start().await;
    server.root("db/things/pg", json!({})).await.unwrap();
    let lease = lease_of(&issue(&server).await.unwrap());
    assert_eq!(refusal(delete(&server).await), "Invalid: 1 lease (of db/creds/on-pg)");
    server.read(ROOT, "db/things/pg").await.unwrap();
    // One that cannot be revoked yet still needs it.
    *server.target.refuses.lock().unwrap() = Some("revoke");
    server.root("sys/leases/revoke", json!({ "lease_id": lease.as_str() })).await.unwrap_err();
    assert_eq!(refusal(delete(&server).await), "Invalid: 1 lease (of db/creds/on-pg)");
    *server.target.refuses.lock().unwrap() = None;
    pass(600).await;
    // Nobody waits for a lease of another mount.
    server.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
    server.read(ROOT, "other/creds/app").await.unwrap();
    delete(&server).await.unwrap();
    assert_eq!(refusal(issue(&server).await), "NotFound: not found");
    server.root("db/things/pg", json!({})).await.unwrap();
    issue(&server).await.unwrap();
}

/// Leases begin on two servers while what they are made of is deleted: either it stays, or none of them is left.
#[tokio::test(start_paused = true)]
async fn no_lease_begins_on_what_is_being_deleted() {
    let (mut deleted, mut kept, mut refused) = (0, 0, 0);
    for round in 0..60_usize {
        let one = Server::start_shared().await;
        let other = one.beside().await;
        one.root("db/things/pg", json!({})).await.unwrap();
        for server in [&one, &other] {
            server.process.yields.store(true, Ordering::SeqCst);
        }
        let ask = |at: usize| {
            let core = if at.is_multiple_of(2) { one.core.clone() } else { other.core.clone() };
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis((round / 10 * 10 + at % 2 * 10) as u64)).await;
                for _ in 0..round % 10 * (10 * at + 4) {
                    tokio::task::yield_now().await;
                }
                core.handle(request(Some(ROOT), Operation::Read, "db/creds/on-pg", Value::Null)).await
            })
        };
        let asked: Vec<_> = (0..4).map(ask).collect();
        let gone = delete(&other).await;
        let mut issued = 0;
        for answer in asked {
            match answer.await.unwrap() {
                Ok(_) => issued += 1,
                Err(RequestError::NotFound) => refused += 1,
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        match gone {
            Ok(_) => {
                deleted += 1;
                assert_eq!((issued, standing(&one).await), (0, 0), "round {round}");
            }
            Err(RequestError::Invalid(_)) => {
                kept += 1;
                assert!(issued > 0 && standing(&one).await == issued, "round {round}");
            }
            Err(error) => panic!("round {round}: {error:?}"),
        }
    }
    assert!(deleted > 5 && kept > 5 && refused > 20, "all of it happens: {deleted}, {kept}, {refused}");
}

/// A request that was planned before the deletion makes no lease after it, nor on what has come in its place.
#[tokio::test(start_paused = true)]
async fn no_lease_begins_by_a_plan_that_is_out_of_date() {
    for comes_again in [false, true] {
        let server = Server::start().await;
        server.root("db/things/pg", json!({})).await.unwrap();
        let unsealed = server.core.unsealed().unwrap();
        let caller = unsealed.tokens.recognise(&TokenId::new(ROOT), None).await.unwrap();
        let mount = unsealed.mounts.by_path("db/").unwrap();
        let (_, context) = unsealed.engines.at(&mount.accessor).unwrap();
        let stored = context.storage.get("thing/pg").await.unwrap().unwrap();
        let made_of = vec![("thing/pg".to_owned(), Expect::Version(stored.version))];
        let plan = LeasePlan { made_of, ..plan(Ttl::from_secs(60), Ttl::from_secs(60)) };
        delete(&server).await.unwrap();
        if comes_again {
            server.root("db/things/pg", json!({})).await.unwrap();
        }
        let (path, holder) = ("db/creds/on-pg", caller.leaseholder());
        let order = IssueRequest { path, holder, entity: None, mount: &mount, plan, ceiling: None };
        let refused = unsealed.leases.issue(order).await.map(drop);
        assert!(matches!(refused, Err(LeaseError::PlanOutdated(_))), "{refused:?}");
        assert_eq!((standing(&server).await, server.target.count("effect")), (0, 0));
    }
}

/// A deletion that fails, lies or dies at each of its writes: the target is there or not, and leases begin again.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_cut_off_leaves_nothing_closed() {
    for fault in FAULTS {
        for write in 0.. {
            let server = Server::start().await;
            server.root("db/things/pg", json!({})).await.unwrap();
            server.process.fault_at(write, fault);
            let deleted = delete(&server).await;
            let is_over = server.process.is_armed();
            assert!(!is_over || (deleted.is_ok() && write >= 2), "{fault:?} at {write}: {deleted:?}");
            let again = server.again();
            again.unseal().await;
            let stands = again.read(ROOT, "db/things/pg").await.is_ok();
            assert!(!(deleted.is_ok() && stands), "{fault:?} at {write}: what was answered holds");
            // Whoever needs the leases waits, and opens them when nobody looks any more.
            assert_eq!(issue(&again).await.is_ok(), stands, "{fault:?} at {write}");
            again.read(ROOT, "db/creds/app").await.unwrap();
            if is_over {
                break;
            }
        }
    }
}
