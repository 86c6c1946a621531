//! Work that recurs: once in its period over all servers, over restarts, and whatever the store does; and no lease.

use std::time::Duration;

use leasehold_core::lease::reconcile::Reconciliation;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::rows::job::{self, JobBody};
use leasehold_core::seams::storage::{Batch, LeaseFilter, Page, Storage, StorageError};
use leasehold_model::{LeaseId, Operation};
use serde_json::{Value, json};

use super::support::auth::CHORE;
use super::support::engine::role;
use super::support::faults::FAULTS;
use super::support::gauges::Gauges;
use super::support::pass;
use super::support::server::{ROOT, Server, lease_of, refusal, scrape};

fn comparison() -> LeaseId {
    job::id(Reconciliation::NAME, None).unwrap()
}

/// All rows of jobs, as the barrier gives them.
async fn jobs(server: &Server) -> Vec<LeaseRow> {
    server.core.unsealed().unwrap().jobs.rows().await.unwrap()
}

async fn row_of(server: &Server, id: &LeaseId) -> LeaseRow {
    jobs(server).await.into_iter().find(|row| row.id == *id).expect("the job has a row")
}

async fn body_of(server: &Server, id: &LeaseId) -> JobBody {
    JobBody::of(&row_of(server, id).await).expect("its body can be read")
}

/// The chore of the one mount of the scripted method.
async fn chore(server: &Server) -> LeaseId {
    let rows = jobs(server).await;
    rows.into_iter().map(|row| row.id).find(|id| job::name(id) == CHORE.name).expect("the chore has a row")
}

async fn with_chore(server: &Server) {
    server.root("sys/auth/s", json!({ "type": "scripted" })).await.unwrap();
    pass(1).await;
}

fn begun(server: &Server) -> usize {
    server.method.chores.lock().unwrap().len()
}

// ---------------------------------------------------------------- no lease

#[tokio::test(start_paused = true)]
async fn nothing_of_the_api_shows_counts_renews_or_ends_a_job() {
    let gauges = Gauges::default();
    let _installed = metrics::set_default_local_recorder(&gauges);
    let server = Server::start().await;
    with_chore(&server).await;
    let before = jobs(&server).await;
    assert_eq!(before.len(), 3, "{before:?}");
    let delete =
        |path: String| server.call(Some(ROOT), Operation::Delete, Box::leak(path.into_boxed_str()), Value::Null);
    let list = |path: String| server.call(Some(ROOT), Operation::List, Box::leak(path.into_boxed_str()), Value::Null);
    for row in &before {
        let id = row.id.as_str();
        for path in ["sys/leases/lookup", "sys/leases/renew", "sys/renew"] {
            let answer = async |id: &str| refusal(server.root(path, json!({ "lease_id": id })).await);
            assert_eq!(answer(id).await, answer("sys/jobs/none/core").await, "{path} {id}");
        }
        for path in ["sys/leases/revoke", "sys/revoke"] {
            for sync in [true, false] {
                // An unknown lease counts as ended.
                server.root(path, json!({ "lease_id": id, "sync": sync })).await.unwrap();
            }
        }
        for (prefix, _) in id.match_indices('/').map(|(at, _)| (&id[..at], ())).chain([(id, ())]) {
            for path in ["sys/leases/revoke-prefix", "sys/leases/revoke-force", "sys/revoke-prefix", "sys/revoke-force"]
            {
                server.root(&format!("{path}/{prefix}"), Value::Null).await.unwrap();
            }
            let listed = list(format!("sys/leases/lookup/{prefix}/")).await;
            assert_eq!(refusal(listed), "NotFound: not found", "{prefix}");
        }
    }
    let listed = list("sys/leases/lookup/".to_owned()).await.unwrap().data.unwrap();
    assert_eq!(listed["keys"], json!(["auth/"]), "the root token's row, and nothing below `sys/`");
    // Neither do those who end many leases at once.
    let token = server.token(json!({ "policies": ["root"] })).await;
    server.root("auth/token/revoke", json!({ "token": token })).await.unwrap();
    delete("sys/mounts/db".to_owned()).await.unwrap();
    assert_eq!(jobs(&server).await, before);
    scrape(&server).await;
    assert!(!gauges.has_label("kind", "job"));
    assert_eq!(gauges.of("vault.expire.num_leases", &[]), 1.0, "the root token's");
}

// ---------------------------------------------------------------- once, whoever does it

#[tokio::test(start_paused = true)]
async fn of_many_servers_one_does_a_job_once_in_its_period() {
    let one = Server::start().await;
    with_chore(&one).await;
    let servers = [one.beside().await, one.beside().await, one];
    let (lists, chores) = (|| servers[0].target.count("list"), || servers.iter().map(begun).sum::<usize>());
    pass(50).await;
    assert_eq!((lists(), chores()), (0, 0));
    pass(15).await;
    assert_eq!((lists(), chores()), (1, 1), "a minute after the first unsealing");
    for round in 2..5 {
        pass(600).await;
        assert_eq!(lists(), round, "and every ten minutes");
    }
    pass(50).await;
    assert_eq!(chores(), 3, "and every quarter of an hour");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_job_is_due_when_it_was_due_before() {
    let first = Server::start().await;
    pass(300).await;
    assert_eq!(first.target.count("list"), 1);
    let second = first.again();
    second.unseal().await;
    pass(355).await;
    assert_eq!(second.target.count("list"), 1, "not yet");
    pass(10).await;
    assert_eq!(second.target.count("list"), 2);
    // What was due meanwhile waits for a minute: what the restart left behind has been worked through by then.
    second.core.seal().await;
    pass(3_600).await;
    second.unseal().await;
    pass(55).await;
    assert_eq!(second.target.count("list"), 2);
    pass(10).await;
    assert_eq!(second.target.count("list"), 3, "once, however often it was due");
}

/// The state of the comparison is the store's, not a server's.
#[tokio::test(start_paused = true)]
async fn orphans_found_by_two_servers_one_after_the_other_are_dropped() {
    for restart in [true, false] {
        let first = Server::start().await;
        *first.engine.drops_orphans.lock().unwrap() = true;
        let lost: LeaseId = "db/creds/app/lost".parse().unwrap();
        first.target.roles.lock().unwrap().insert(lost.clone());
        pass(70).await;
        assert_eq!((first.target.count("drop"), first.target.roles().len()), (0, 1));
        let second = if restart { first.again() } else { first.beside().await };
        *second.engine.drops_orphans.lock().unwrap() = true;
        if restart {
            second.unseal().await;
        } else {
            first.core.seal().await;
        }
        pass(600).await;
        assert_eq!((second.target.count("list"), second.target.roles().len()), (4, 0), "restart: {restart}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_longer_than_a_claim_is_done_by_one_server() {
    let one = Server::start().await;
    with_chore(&one).await;
    let other = one.beside().await;
    for server in [&one, &other] {
        *server.method.chores_take.lock().unwrap() = Duration::from_secs(300);
    }
    pass(350).await;
    assert_eq!(begun(&one) + begun(&other), 1);
    pass(30).await;
    let body = body_of(&one, &chore(&one).await).await;
    assert!(body.took_millis >= 300_000 && body.attempts == 0, "{body:?}");
}

#[tokio::test(start_paused = true)]
async fn the_job_of_a_server_that_is_gone_is_done_by_another() {
    let one = Server::start().await;
    with_chore(&one).await;
    *one.method.chores_take.lock().unwrap() = Duration::from_secs(300);
    pass(100).await;
    assert_eq!(begun(&one), 1);
    let other = one.beside().await;
    one.process.die();
    pass(90).await;
    assert_eq!(begun(&other), 1, "after its claim has ended");
    pass(400).await;
    assert_eq!((begun(&one), begun(&other)), (1, 1));
    let body = body_of(&other, &chore(&other).await).await;
    assert!(body.attempts == 0 && body.took_millis < 1_000, "{body:?}");
}

/// The first server hangs for longer than its claim lasts, and comes back.
#[tokio::test(start_paused = true)]
async fn a_server_that_has_lost_its_claim_gives_up_and_stores_nothing() {
    let one = Server::start().await;
    with_chore(&one).await;
    *one.method.chores_take.lock().unwrap() = Duration::from_secs(300);
    pass(100).await;
    let id = chore(&one).await;
    let row = one.process.store.lease(&id).await.unwrap().unwrap();
    let fence = row.fence;
    let stolen = LeaseRow { fence: fence + 1, holder: Some("another".to_owned()), ..row };
    one.process.store.commit(Batch::new().shift(stolen.clone(), LeaseState::Active, fence)).await.unwrap();
    pass(20).await;
    assert_eq!(*one.method.chores_at_once.lock().unwrap(), 0, "it was given up");
    let kept = one.process.store.lease(&id).await.unwrap().unwrap();
    assert_eq!((kept.fence, kept.body, kept.next_at), (stolen.fence, stolen.body, stolen.next_at));
}

/// An extension of the claim that was on its way when the run ended arrives after what came of it.
#[tokio::test(start_paused = true)]
async fn a_late_extension_of_a_claim_changes_nothing() {
    let server = Server::start().await;
    with_chore(&server).await;
    *server.method.chores_take.lock().unwrap() = Duration::from_secs(40);
    pass(80).await;
    let id = chore(&server).await;
    let held = server.process.store.lease(&id).await.unwrap().unwrap();
    assert!(held.holder.is_some());
    pass(60).await;
    let ended = server.process.store.lease(&id).await.unwrap().unwrap();
    let fence = held.fence;
    let late = server.process.store.commit(Batch::new().shift(held, LeaseState::Active, fence)).await;
    assert!(matches!(late, Err(StorageError::Fenced(_))), "{late:?}");
    assert_eq!((server.process.store.lease(&id).await.unwrap(), ended.holder.clone()), (Some(ended), None));
}

// ---------------------------------------------------------------- failures

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_tried_again_later_and_later() {
    let server = Server::start().await;
    with_chore(&server).await;
    *server.method.chores_fail.lock().unwrap() = Some("no luck");
    pass(65).await;
    let id = chore(&server).await;
    let mut waits = Vec::new();
    for tries in 1..=9 {
        let (row, body) = (row_of(&server, &id).await, body_of(&server, &id).await);
        assert_eq!((begun(&server), body.attempts, body.succeeded_at), (tries, u32::try_from(tries).unwrap(), None));
        let failure = body.failure.unwrap();
        assert_eq!(failure.why, "no luck");
        waits.push(row.next_at.seconds_from(failure.at));
        pass(u64::try_from(waits[tries - 1]).unwrap() + 2).await;
    }
    assert!(waits.windows(2).all(|two| two[0] <= two[1] + two[1] / 4), "{waits:?}");
    assert!((9..=13).contains(&waits[0]) && (600..=750).contains(&waits[8]), "{waits:?}");
    *server.method.chores_fail.lock().unwrap() = None;
    pass(800).await;
    let body = body_of(&server, &id).await;
    assert!(body.attempts == 0 && body.succeeded_at.is_some() && body.failure.is_some(), "{body:?}");
}

/// A try counts from its beginning: a job that kills every server that begins it must not kill one a minute for ever.
#[tokio::test(start_paused = true)]
async fn a_job_that_kills_its_server_comes_later_and_later() {
    let mut server = Server::start().await;
    with_chore(&server).await;
    let id = chore(&server).await;
    let mut gaps = Vec::new();
    for kills in 1..=5_u32 {
        *server.method.chores_take.lock().unwrap() = Duration::from_secs(300);
        while begun(&server) == 0 {
            pass(1).await;
        }
        let row = row_of(&server, &id).await;
        assert_eq!(JobBody::of(&row).unwrap().attempts, kills);
        gaps.push(row.next_at.seconds_from(row.held_until.unwrap()));
        server = server.again();
        server.unseal().await;
    }
    assert!(gaps[0] >= 9 && gaps[4] >= 150, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_seal_gives_a_job_back_at_once_and_counts_no_failure() {
    let one = Server::start().await;
    with_chore(&one).await;
    *one.method.chores_take.lock().unwrap() = Duration::from_secs(300);
    pass(100).await;
    let other = one.beside().await;
    pass(70).await;
    tokio::time::timeout(Duration::from_secs(1), one.core.seal()).await.unwrap();
    pass(3).await;
    let body = body_of(&other, &chore(&other).await).await;
    assert_eq!((begun(&other), body.attempts, body.failure), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_stored_state_is_damaged_begins_anew() {
    let server = Server::start().await;
    pass(70).await;
    server.damage(&comparison()).await;
    assert_eq!(JobBody::of(&row_of(&server, &comparison()).await), None);
    scrape(&server).await;
    pass(610).await;
    let body = body_of(&server, &comparison()).await;
    assert!(body.succeeded_at.is_some(), "{body:?}");
    assert_eq!(server.target.count("list"), 2);
}

/// From the making of its row to the end of its second run: the store fails, lies, or the process dies, at every write.
#[tokio::test(start_paused = true)]
async fn jobs_survive_every_fault_of_the_store() {
    for fault in FAULTS {
        let mut write = 0;
        loop {
            let context = format!("{fault:?} at write {write}");
            let first = Server::sealed().await;
            first.process.fault_at(write, fault);
            if first.core.unseal(&first.share).await.is_ok() {
                let _ = first.root("sys/mounts/db", json!({ "type": "scripted" })).await;
                let _ = first.root("sys/auth/s", json!({ "type": "scripted" })).await;
            }
            let lost: LeaseId = "db/creds/app/lost".parse().unwrap();
            first.target.roles.lock().unwrap().insert(lost.clone());
            pass(700).await;
            let fired = !first.process.is_armed();
            first.process.assert_no_violation(&context);

            let second = first.again();
            *second.engine.drops_orphans.lock().unwrap() = true;
            second.unseal().await;
            let _ = second.root("sys/mounts/db", json!({ "type": "scripted" })).await;
            let _ = second.root("sys/auth/s", json!({ "type": "scripted" })).await;
            pass(1_400).await;
            second.process.assert_no_violation(&context);
            assert!(!second.target.has(&lost), "{context}: the orphan stands");
            let rows = jobs(&second).await;
            assert_eq!(rows.len(), 3, "{context}: {rows:?}");
            for row in &rows {
                let body = JobBody::of(row).unwrap();
                assert!(body.succeeded_at.is_some() && body.attempts == 0, "{context}: {body:?}");
                assert_eq!(
                    (row.kind, row.state, &row.holder),
                    (LeaseKind::Job, LeaseState::Active, &None),
                    "{context}"
                );
            }
            assert!((1..=3).contains(&begun(&second)), "{context}: {}", begun(&second));
            if !fired {
                assert!(write > 8, "{context}: jobs write more often than that");
                break;
            }
            write += 1;
        }
    }
}

// ---------------------------------------------------------------- jobs of mounts

#[tokio::test(start_paused = true)]
async fn every_mount_has_its_jobs_for_as_long_as_it_is_there() {
    let server = Server::start().await;
    for path in ["a", "b"] {
        server.root(&format!("sys/auth/{path}"), json!({ "type": "scripted" })).await.unwrap();
    }
    pass(65).await;
    let done = || {
        let mut done = std::mem::take(&mut *server.method.chores.lock().unwrap());
        done.sort();
        done
    };
    assert_eq!(done(), ["auth/a/", "auth/b/"]);
    server.call(Some(ROOT), Operation::Delete, "sys/auth/a", Value::Null).await.unwrap();
    assert_eq!(jobs(&server).await.len(), 4);
    pass(910).await;
    assert_eq!(done(), ["auth/b/"]);
    assert_eq!(jobs(&server).await.len(), 3, "the row goes when it is found to be nobody's");
    server.process.assert_no_violation("a disabled mount");
}

#[tokio::test(start_paused = true)]
async fn secrets_engines_have_jobs_as_auth_methods_do() {
    let server = Server::start().await;
    *server.engine.has_chore.lock().unwrap() = true;
    server.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
    pass(65).await;
    // The engine's first mount was made before it had a job: that row was missing.
    let mut done: Vec<String> =
        server.target.log.lock().unwrap().iter().filter(|line| line.starts_with("chore")).cloned().collect();
    done.sort();
    assert_eq!(done, ["chore db/", "chore other/"]);
    pass(905).await;
    assert_eq!(server.target.count("chore"), 4);
}

/// A job of an engine says itself when it wants to be done again, and a request may have it done at once.
#[tokio::test(start_paused = true)]
async fn a_job_of_an_engine_is_done_when_it_or_a_request_says_so() {
    let server = Server::start().await;
    *server.engine.has_chore.lock().unwrap() = true;
    server.root("sys/mounts/other", json!({ "type": "scripted" })).await.unwrap();
    let clock = server.core.unsealed().unwrap().engines.clock.clone();
    let in_seconds = |secs| Some(clock.now() + leasehold_model::Ttl::from_secs(secs));
    *server.engine.chore_again_at.lock().unwrap() = in_seconds(75);
    pass(65).await;
    assert_eq!(server.target.count("chore"), 2);
    *server.engine.chore_again_at.lock().unwrap() = in_seconds(1_000_000);
    pass(15).await;
    assert_eq!(server.target.count("chore"), 4, "much earlier than after its period");
    pass(2_000).await;
    assert_eq!(server.target.count("chore"), 4, "much later");
    server.root("other/hasten", Value::Null).await.unwrap();
    pass(2).await;
    assert_eq!(server.target.count("chore other/"), 3);
    assert_eq!(server.target.count("chore db/"), 2);
    // A moment that has passed already does not make it spin.
    *server.engine.chore_again_at.lock().unwrap() = in_seconds(0);
    server.root("other/hasten", Value::Null).await.unwrap();
    pass(2).await;
    assert!(server.target.count("chore other/") <= 6, "{}", server.target.count("chore other/"));
}

/// A store that an older version has made, or that was written while the server died: the rows come at unsealing.
#[tokio::test(start_paused = true)]
async fn rows_that_are_missing_are_made_at_unsealing() {
    let server = Server::start().await;
    with_chore(&server).await;
    server.core.seal().await;
    let filter = LeaseFilter { kind: Some(LeaseKind::Job), ..LeaseFilter::default() };
    let rows = server.process.store.leases(&filter, &Page { after: None, limit: 10 }).await.unwrap();
    for row in rows {
        server.process.store.commit(Batch::new().remove(row.id, row.fence)).await.unwrap();
    }
    server.unseal().await;
    pass(65).await;
    assert_eq!((jobs(&server).await.len(), begun(&server), server.target.count("list")), (3, 1, 1));
}

/// What a server has in memory may be older than a mount that another one has made.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_a_mount_leaves_its_job_to_others() {
    let one = Server::start().await;
    let other = one.beside().await;
    with_chore(&one).await;
    let id = chore(&one).await;
    one.core.seal().await;
    pass(200).await;
    let put_off = row_of(&other, &id).await;
    assert!(put_off.fence > 1 && begun(&other) == 0, "{put_off:?}");
    one.unseal().await;
    pass(130).await;
    assert_eq!((begun(&one), begun(&other)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_somebody_asks_for_is_done_now_and_once() {
    let server = Server::start().await;
    with_chore(&server).await;
    let ask = async || {
        let answer = server.root("auth/s/chore", Value::Null).await.unwrap();
        answer.warnings.concat()
    };
    *server.method.chores_take.lock().unwrap() = Duration::from_secs(20);
    assert_eq!(ask().await, "begun");
    pass(2).await;
    assert_eq!(begun(&server), 1, "also in the first minute");
    assert_eq!(ask().await, "under way");
    pass(30).await;
    assert_eq!(ask().await, "begun");
    pass(2).await;
    assert_eq!(begun(&server), 2);
    pass(800).await;
    assert_eq!(begun(&server), 2, "its period begins anew");
}

/// However long jobs take, revocations have their places.
#[tokio::test(start_paused = true)]
async fn jobs_take_no_place_of_a_revocation() {
    let server = Server::start().await;
    for n in 0..12 {
        server.root(&format!("sys/auth/s{n}"), json!({ "type": "scripted" })).await.unwrap();
    }
    *server.method.chores_take.lock().unwrap() = Duration::from_secs(600);
    *server.engine.ttls.lock().unwrap() = (leasehold_model::Ttl::from_secs(100), leasehold_model::Ttl::from_secs(100));
    let leases: Vec<LeaseId> = {
        let mut leases = Vec::new();
        for _ in 0..80 {
            leases.push(lease_of(&server.read(ROOT, "db/creds/app").await.unwrap()));
        }
        leases
    };
    pass(90).await;
    assert_eq!(*server.method.chores_at_once.lock().unwrap(), 4, "and no more at once");
    pass(12).await;
    assert!(leases.iter().all(|lease| !server.target.has(lease)), "all are revoked in time");
    pass(2_000).await;
    let mut done = server.method.chores.lock().unwrap().clone();
    done.truncate(12);
    done.sort();
    done.dedup();
    assert_eq!(done.len(), 12, "every one has its turn");
}

// ---------------------------------------------------------------- what is shown

#[tokio::test(start_paused = true)]
async fn every_server_shows_the_same_gauges() {
    let gauges = Gauges::default();
    let _installed = metrics::set_default_local_recorder(&gauges);
    let one = Server::start().await;
    with_chore(&one).await;
    let other = one.beside().await;
    let id: LeaseId = "db/creds/app/lost".parse().unwrap();
    one.target.roles.lock().unwrap().insert(id.clone());
    assert_eq!(role(&id).lease, "lost");
    pass(70).await;
    for server in [&one, &other] {
        *server.method.chores_fail.lock().unwrap() = Some("no luck");
    }
    pass(900).await;
    let mut tries = Vec::new();
    for server in [&one, &other, &one] {
        gauges.scramble();
        scrape(server).await;
        let on = |name| gauges.of(name, &[("mount", "db/"), ("connection", "pg")]);
        assert_eq!((on("leasehold_orphan_roles"), on("leasehold_missing_roles")), (1.0, 0.0));
        let of = |name, job, mount| gauges.of(name, &[("job", job), ("mount", mount)]);
        let now = one.core.unsealed().unwrap().engines.clock.now();
        for (job, mount, has_failed) in [("compare-roles", "sys/", false), ("chore", "auth/s/", true)] {
            let ago = now.since(leasehold_model::Timestamp::from_secs(0)).as_secs_f64()
                - of("leasehold_job_last_success_timestamp_seconds", job, mount);
            assert!((300.0..920.0).contains(&ago), "{job}: {ago}");
            // How many there have been depends on how the pauses between them were drawn.
            let failed_tries = of("leasehold_job_failed_tries", job, mount);
            assert_eq!(failed_tries > 0.0, has_failed, "{job}");
            tries.push((job, failed_tries));
            assert_eq!(of("leasehold_job_last_failure_timestamp_seconds", job, mount) > 0.0, has_failed, "{job}");
            assert!(of("leasehold_job_duration_seconds", job, mount) < 2.0, "{job}");
        }
    }
    tries.sort_by(|a, b| a.partial_cmp(b).unwrap());
    tries.dedup();
    assert_eq!(tries.len(), 2, "every server shows the same: {tries:?}");
    // With its mount a job leaves the dashboards.
    one.call(Some(ROOT), Operation::Delete, "sys/auth/s", Value::Null).await.unwrap();
    scrape(&one).await;
    let of = |name| gauges.of(name, &[("job", "chore"), ("mount", "auth/s/")]);
    assert_eq!((of("leasehold_job_failed_tries"), of("leasehold_job_last_success_timestamp_seconds")), (0.0, 0.0));
}
