//! What a role says of its leases: how many there may be at once, and how long their making and their end may take.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::nodes::Nodes;
use crate::support::{CREATE_IN_GROUP, Database, Server, eventually, own_postgresql};

#[test]
fn a_role_has_as_many_leases_as_it_says() {
    let (server, postgresql) = (Server::dev(), own_postgresql());
    let database = Database::first_of(&postgresql);
    server.connect(&database);
    let root = server.root();
    server.role("r", json!({ "max_leases": 2, "default_ttl": "1h" }));
    root.get("database/roles/r").assert_at("/data/max_leases", 2);
    let first = root.credential("r");
    root.credential("r");
    let refused = root.get("database/creds/r");
    let secs: u64 = refused.header("retry-after").and_then(|secs| secs.parse().ok()).unwrap();
    assert!((3_590..=3_601).contains(&secs), "{refused}");
    refused.assert_status(429).assert_at(
        "/errors",
        json!([
            "1 error occurred:\n\t* request path \"database/creds/r\": lease count quota exceeded\n\n",
            format!("role \"r\" allows 2 leases, and no fewer stand: revoke some, or wait until fewer do; the next one ends in {secs} s"),
        ]),
    );
    assert_eq!(database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), "2");
    // Another role has a limit of its own, and no quota is to be seen.
    server.role("other", json!({}));
    root.credential("other");
    root.list("sys/quotas/lease-count").assert_errors(404, &[]);
    root.put("sys/leases/revoke", json!({ "lease_id": first.lease, "sync": true })).assert_status(204);
    root.credential("r");
    root.get("database/creds/r").assert_status(429);
    let cli = server.cli();
    cli.line("write database/roles/r max_leases=3").assert_status(0);
    root.credential("r");
    root.get("database/creds/r").assert_status(429);
    // A role of the same name that comes later has no limit of the former one.
    root.delete("database/roles/r").assert_status(204);
    server.role("r", json!({}));
    for _ in 0..3 {
        root.credential("r");
    }
    let lowered = root.post("database/roles/r", json!({ "max_leases": 1 })).assert_status(200);
    let wanted =
        "6 leases stand, and max_leases is 1: they go on, and a further one begins only when fewer than 1 stand";
    lowered.assert_at("/warnings", json!([wanted]));
    root.get("database/creds/r")
        .assert_error_has(429, "role \"r\" allows 1 lease, and no fewer stand: revoke some, or wait");
    root.post("database/roles/r", json!({ "max_leases": 6 })).assert_status(204);
    let quota = json!({ "path": "database/creds/r", "max_leases": 2 });
    let wanted =
        "6 leases stand, and max_leases is 2: they go on, and a further one begins only when fewer than 2 stand";
    root.post("sys/quotas/lease-count/q", quota).assert_status(200).assert_at("/warnings", json!([wanted]));
    root.delete("sys/quotas/lease-count/q").assert_status(204);
    root.post("database/roles/r", json!({ "max_leases": -1 }))
        .assert_error(400, "max_leases must not be negative; 0 allows as many as anybody wants");
}

#[test]
fn the_limit_of_a_role_is_exact_over_three_servers_and_outlives_a_kill() {
    const MOST: usize = 20;
    let postgresql = own_postgresql();
    let mut nodes = Nodes::start(3);
    let database = Database::first_of(&postgresql);
    nodes.servers[0].connect(&database);
    nodes.servers[0].role("r", json!({ "max_leases": MOST, "creation_timeout": "5s" }));
    let roles = || database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'");
    let statuses = nodes.at_once(2 * MOST, "database/creds/r");
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), MOST, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), MOST, "{statuses:?}");
    assert_eq!(roles(), MOST.to_string());
    // One dies while leases begin and end.
    nodes.root(1).put("sys/leases/revoke-prefix/database/creds/r", json!({ "sync": true })).assert_status(204);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| nodes.root(0)).collect();
        for client in clients {
            scope.spawn(move || {
                while client.try_request("GET", "database/creds/r", None).is_ok_and(|answer| answer.status == 200) {}
            });
        }
        thread::sleep(Duration::from_millis(150));
        nodes.servers.remove(0).kill();
    });
    let roots = [nodes.root(0), nodes.root(1)];
    // What it had begun is undone after its deadline; then there is room again, and no more than before.
    roots[0].put("sys/leases/revoke-prefix/database/creds/r", json!({}));
    eventually("all of them are gone", || roots[1].list("sys/leases/lookup/database/creds/r").status == 404);
    for at in 0..=MOST {
        roots[at % 2].get("database/creds/r").assert_status(if at < MOST { 200 } else { 429 });
    }
    assert_eq!(roles(), MOST.to_string());
}

#[test]
fn creation_that_takes_too_long_leaves_nothing_behind() {
    let (server, postgresql) = (Server::dev(), own_postgresql());
    let database = Database::first_of(&postgresql);
    server.connect(&database);
    let root = server.root();
    let slow = format!("{CREATE_IN_GROUP} SELECT pg_sleep(4);");
    server.role("r", json!({ "creation_statements": slow, "creation_timeout": "2s" }));
    let began = Instant::now();
    let refused = root.get("database/creds/r").assert_status(500);
    assert!(began.elapsed() < Duration::from_millis(3_800), "{:?}: {refused}", began.elapsed());
    eventually("neither lease nor role is left", || {
        root.list("sys/leases/lookup/database/creds/r").status == 404
            && database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'") == "0"
    });
    server.role("r", json!({ "creation_statements": slow, "creation_timeout": "20s" }));
    root.credential("r");
}

#[test]
fn revocation_that_takes_too_long_says_so_and_is_tried_again() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    let root = server.root();
    let slow = r#"SELECT pg_sleep(8); DROP ROLE "{{name}}";"#;
    server.role("r", json!({ "revocation_statements": slow, "revocation_timeout": "5s" }));
    let credential = root.credential("r");
    let began = Instant::now();
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease, "sync": true })).assert_error_has(
        400,
        "the revocation was not through after 5 s, its revocation_timeout; what is done stays done, and it is tried again",
    );
    assert!((5..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(root.has_lease(&credential.lease));
    // Its login is closed from the first try on, and nothing of that try runs on.
    assert_eq!(database.sql(&format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{}'", credential.user)), "f");
    eventually("PostgreSQL has ended the statement", || {
        database
            .sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(8)%' AND pid <> pg_backend_pid()")
            == "0"
    });
    // What was too short can be made longer, for leases that are there too.
    server.role("r", json!({ "revocation_statements": slow, "revocation_timeout": "30s" }));
    eventually("it ends by itself", || !root.has_lease(&credential.lease) && !database.has_role(&credential.user));
    for (field, refused) in [
        ("revocation_timeout", "revocation_timeout must be between 5 s and 600 s, or 0 for the default"),
        ("creation_timeout", "creation_timeout must not be longer than 600 s"),
    ] {
        root.post("database/roles/r", json!({ field: "20m" })).assert_error(400, refused);
    }
}
