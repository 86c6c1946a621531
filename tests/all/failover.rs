//! The store's PostgreSQL fails over to a standby that lacks what was answered last: the servers replay it.

use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Options, Stop};
use rustix::process::Signal;
use serde_json::json;

use crate::nodes::Nodes;
use crate::support::{Database, eventually, own_postgresql};

const PATIENCE: Duration = Duration::from_secs(60);

/// From now on the standby hears of nothing more.
fn cut(primary: &DevPg, standby: &DevPg) {
    let written = primary.psql("SELECT pg_current_wal_flush_lsn()").unwrap();
    eventually("the standby has everything", || {
        standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")).unwrap() == "t"
    });
    standby.psql("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
    standby.psql("SELECT pg_reload_conf()").unwrap();
    eventually("the standby hears of nothing more", || {
        standby.psql("SELECT count(*) FROM pg_stat_wal_receiver").unwrap() == "0"
    });
}

#[test]
fn what_was_answered_stands_after_a_fail_over_that_lost_it() {
    let store = DevPg::start(Options::default()).unwrap();
    let standby = store.standby().unwrap();
    let url = store.superuser_url().replace(
        &format!("127.0.0.1:{}", store.port()),
        &format!("127.0.0.1:{},127.0.0.1:{}", store.port(), standby.port()),
    );
    let nodes = Nodes::start_on(store, &url, 3);
    let target = own_postgresql();
    let database = Database::first_of(&target);
    nodes.servers[0].connect(&database);
    nodes.servers[0].role("r", json!({}));
    let allow = "path \"sys/mounts\" { capabilities = [\"read\"] }";
    nodes.root(0).put("sys/policies/acl/app", json!({ "policy": allow })).assert_status(204);
    let token = || nodes.root(0).child(json!({ "policies": ["app"] }));
    let (revoked, forbidden) = (token(), token());
    let late = token();
    let ended = nodes.servers[0].root().get("database/creds/r").assert_status(200);
    cut(&nodes.store, &standby);

    let deny = "path \"sys/mounts\" { capabilities = [\"deny\"] }";
    nodes.client(0, &revoked).post("auth/token/revoke-self", json!({})).assert_status(204);
    nodes.root(1).put("sys/policies/acl/app", json!({ "policy": deny })).assert_status(204);
    nodes
        .root(1)
        .put("sys/leases/revoke", json!({ "lease_id": ended.text("/lease_id"), "sync": true }))
        .assert_status(204);
    let issued = nodes.root(0).get("database/creds/r").assert_status(200);
    let born = nodes.root(1).child(json!({ "policies": ["default"] }));
    // This server knows of an end that nobody else has heard of, and cannot replay it for now.
    nodes.client(2, &late).post("auth/token/revoke-self", json!({})).assert_status(204);
    nodes.servers[2].pause();

    nodes.store.stop(Stop::Immediate).unwrap();
    standby.promote().unwrap();
    let began = Instant::now();
    for at in 0..2 {
        while nodes.root(at).get("sys/mounts").status != 200 {
            assert!(began.elapsed() < PATIENCE, "{}", nodes.servers[at].log());
            for (what, token) in [("revoked", &revoked), ("forbidden", &forbidden)] {
                assert_ne!(nodes.client(at, token).get("sys/mounts").status, 200, "{what}");
            }
        }
    }
    for at in 0..2 {
        nodes.client(at, &revoked).get("auth/token/lookup-self").assert_status(403);
        nodes.client(at, &forbidden).get("sys/mounts").assert_status(403);
        nodes.client(at, &born).get("auth/token/lookup-self").assert_status(200);
        assert!(nodes.root(at).has_lease(&issued.text("/lease_id")), "acknowledged and forgotten");
        assert!(!nodes.root(at).has_lease(&ended.text("/lease_id")), "revoked and there again");
    }
    nodes.servers[2].signal(Signal::CONT);
    eventually("the server that was silent replays what it knows", || {
        (0..2).all(|at| nodes.client(at, &late).get("auth/token/lookup-self").status == 403)
    });
    eventually("it joins again", || nodes.root(2).get("sys/mounts").status == 200);
    // Its keys are as they were written: whoever starts now finds nothing that was changed from outside.
    nodes.servers[1].kill();
    nodes.servers[1].start();
    nodes.servers[1].unseal();
    nodes.root(1).put("sys/leases/revoke-prefix/database/creds/r", json!({ "sync": true })).assert_status(204);
    assert_eq!(database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), "0");
}
