//! PostgreSQL is away, slow or changed behind our back: leases end when it is back, and nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold_devpg::Stop;
use serde_json::json;

use crate::support::{Bao, Database, Durable, Kind, Server, eventually, own_postgresql};

/// One that nobody disturbs, mounted as `other/` beside the one under test.
fn with_a_neighbour(server: &Server) -> Database<'static> {
    let neighbour = Database::fresh();
    let root = server.root();
    root.post("sys/mounts/other", json!({ "type": "database" })).assert_status(204);
    root.post("other/config/pg", neighbour.config()).assert_status(204);
    let role = json!({ "db_name": "pg", "creation_statements": crate::support::CREATE_IN_GROUP });
    let answer = root.post("other/roles/r", role);
    assert!(matches!(answer.status, 200 | 204), "{answer}");
    neighbour
}

fn neighbour_works(server: &Server) {
    server.root().get("other/creds/r").assert_status(200);
}

#[test]
fn leases_end_when_a_stopped_postgresql_is_back() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let server = Server::durable(&Durable::default());
    server.connect(&database);
    with_a_neighbour(&server);
    server.role("r", json!({}));
    server.role("short", json!({ "default_ttl": "2s" }));
    let root = server.root();
    let (revoked, expiring, kept) = (root.credential("r"), root.credential("short"), root.credential("r"));

    postgresql.stop(Stop::Immediate).unwrap();
    // The second hears what the first met, in the same words.
    for _ in 0..2 {
        let refused = root.get("database/creds/r").assert_error_has(500, "unable to start transaction: ");
        assert!(!refused.body.contains("database_"), "no accessor of the mount: {refused}");
    }
    let left = root.list("sys/leases/lookup/database/creds/r").at("/data/keys");
    assert_eq!(left.as_array().unwrap().len(), 2, "a failed connect leaves nothing: {left}");
    let failed = root.put("sys/leases/revoke", json!({ "lease_id": revoked.lease }));
    failed.assert_error_has(400, "failed to revoke entry: resp: (*logical.Response)(nil) err: ");
    assert!(root.has_lease(&revoked.lease), "what could not be revoked is kept");
    root.put("sys/leases/renew", json!({ "lease_id": kept.lease })).assert_error_has(400, "failed to renew entry");
    neighbour_works(&server);
    // Not even a crash in between loses the work.
    server.crash_and_restart();
    neighbour_works(&server);

    postgresql.start_again().unwrap();
    for credential in [&revoked, &expiring] {
        eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
        eventually("the lease is gone", || !root.has_lease(&credential.lease));
    }
    assert!(database.has_role(&kept.user), "the failed renewal did not end it");
    eventually("credentials are granted again", || root.get("database/creds/r").status == 200);
    root.put("sys/leases/renew", json!({ "lease_id": kept.lease })).assert_status(200);
}

/// SIGSTOP: connections are accepted, and nothing answers.
#[test]
fn a_hanging_postgresql_stops_nobody_else() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let server = Server::dev();
    server.connect(&database);
    with_a_neighbour(&server);
    server.role("r", json!({}));
    let root = server.root();
    let credential = root.credential("r");

    postgresql.pause().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| root.get("database/creds/r"));
        let revoking = scope.spawn(|| root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })));
        let others = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                neighbour_works(&server);
                root.get("sys/mounts").assert_status(200);
                slowest = slowest.max(began.elapsed());
            }
            slowest
        });
        let answers = [hanging.join().unwrap(), revoking.join().unwrap()];
        over.store(true, Ordering::Relaxed);
        let slowest = others.join().unwrap();
        for answer in answers {
            assert!(matches!(answer.status, 400 | 500 | 503), "an error, and in time: {answer}");
        }
        assert!(slowest < Duration::from_secs(20), "others waited {slowest:?}");
    });
    postgresql.resume().unwrap();
    // Whatever the statements that hung did in the end, nothing is left of them.
    root.put("sys/leases/revoke-prefix/database", json!({ "sync": false })).assert_status(202);
    let began = Instant::now();
    loop {
        let roles = database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'");
        if roles == "0" && root.list("sys/leases/lookup/database/creds/r").status == 404 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(150), "{roles} PostgreSQL roles are left");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn too_many_connections_is_an_error_and_no_more() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let server = Server::dev();
    server.connect(&database);
    with_a_neighbour(&server);
    server.role("r", json!({}));
    let root = server.root();
    let credential = root.credential("r");
    database.sql(&format!("ALTER ROLE {} CONNECTION LIMIT 0", crate::support::ADMIN));
    postgresql
        .psql_in("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'root'")
        .unwrap();

    let refused = root.get("database/creds/r");
    assert_eq!(refused.status, 500, "{refused}");
    assert!(refused.body.contains("too many connections"), "{refused}");
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease, "sync": false })).assert_status(202);
    neighbour_works(&server);

    database.sql(&format!("ALTER ROLE {} CONNECTION LIMIT -1", crate::support::ADMIN));
    eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
    eventually("credentials are granted again", || root.get("database/creds/r").status == 200);
}

#[test]
fn a_postgresql_role_that_was_dropped_by_hand() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let credential = root.credential("r");
    database.sql(&format!("DROP ROLE \"{}\"", credential.user));
    let failed = root.put("sys/leases/renew", json!({ "lease_id": credential.lease }));
    let failed = failed.assert_error_has(400, "failed to renew entry");
    assert!(failed.body.contains("does not exist (SQLSTATE 42704)"), "{failed}");
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!root.has_lease(&credential.lease));
}

#[test]
fn a_role_that_was_deleted_while_its_leases_live() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("cust", json!({}));
    let root = server.root();
    let credential = root.credential("cust");
    root.delete("database/roles/cust").assert_status(204);
    root.put("sys/leases/renew", json!({ "lease_id": credential.lease }))
        .assert_error_has(400, "could not find role with name \"cust\"");
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user));
}

#[test]
fn a_connection_that_was_deleted_while_its_leases_live() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let (first, second) = (root.credential("r"), root.credential("r"));
    // Without force it stays, and so do its leases.
    root.delete("database/config/pg").assert_errors(
        400,
        &["connection \"pg\" cannot be deleted: 2 leases (of database/creds/r) stand on it and could not end without it; revoke them, or send \
           force=true to delete it all the same"],
    );
    assert_ne!(root.credential("r").user, first.user);
    let forced = root.delete("database/config/pg?force=true").assert_status(200);
    forced.assert_at(
        "/warnings/0",
        "3 leases (of database/creds/r) stood on this connection: they end only when a connection of this name leads to that server again, or when \
         `lease revoke -force -prefix` gives them up",
    );
    for route in ["renew", "revoke"] {
        root.put(&format!("sys/leases/{route}"), json!({ "lease_id": first.lease })).assert_error_has(
            400,
            "failed to find entry for connection with name: \"pg\": write it again so that its leases can end",
        );
    }
    assert!(root.has_lease(&first.lease), "a lease that could not be revoked is kept");
    root.get("database/creds/r").assert_multi(500, "failed to find entry for connection with name: \"pg\"");

    // It is configured again, and the work goes on.
    root.post("database/config/pg", database.config()).assert_status(204);
    root.put("sys/leases/revoke", json!({ "lease_id": first.lease })).assert_status(204);
    assert!(!database.has_role(&first.user));

    let cli = server.cli();
    cli.line("delete database/config/pg")
        .assert_status(2)
        .assert_stderr("2 leases (of database/creds/r) stand on it")
        .assert_stderr("On the command line: leasehold delete -force database/config/pg");
    cli.line("delete -force database/config/pg").assert_status(0);
    root.get("database/config/pg").assert_status(404);
    root.put("sys/leases/revoke-force/database/creds/r", json!({})).assert_status(204);
    assert!(!root.has_lease(&second.lease));
    assert!(database.has_role(&second.user), "force forgets the lease, and the role stays");

    // What has no lease goes without a word.
    root.post("database/config/pg", database.config()).assert_status(204);
    root.delete("database/config/pg").assert_status(204);
}

#[test]
fn a_changed_admin_password_is_said_and_made_good() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let server = Server::dev();
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let credential = root.credential("r");
    database.sql(&format!("ALTER ROLE {} PASSWORD 'another-password'", crate::support::ADMIN));
    postgresql
        .psql_in("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'root'")
        .unwrap();
    let refused = root.get("database/creds/r").assert_status(500);
    assert!(!refused.body.contains(crate::support::ADMIN_PASSWORD), "{refused}");
    root.post("database/config/pg", json!({ "password": "another-password" })).assert_status(204);
    root.get("database/creds/r").assert_status(200);
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user));
}

#[test]
fn a_mount_that_could_not_be_disabled_says_so_until_it_is() {
    half_disabled(&Server::dev());
}

#[test]
fn a_mount_that_could_not_be_disabled_is_as_in_a_real_openbao() {
    let Some(bao) = Bao::find("a mount whose leases cannot be revoked, against a real OpenBao") else { return };
    half_disabled(&Server::openbao(&bao));
}

fn half_disabled(server: &Server) {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let (first, second) = (root.credential("r"), root.credential("r"));
    let is_ours = server.kind() == Kind::Leasehold;
    let listed = || {
        let shown = is_ours.then(|| server.cli().line("secrets list"));
        (root.get("sys/mounts").at("/data/database~1"), shown)
    };
    if let (mount, Some(shown)) = listed() {
        assert!(mount.get("tainted").is_none() && !shown.stderr.contains("tainted"), "{mount} {}", shown.stderr);
    }
    postgresql.stop(Stop::Fast).unwrap();
    for _ in 0..2 {
        let failed = root.delete("sys/mounts/database").assert_error_has(400, "failed to revoke \"database/creds/r/");
        let failed = failed.assert_error_has(400, "(1 / 2): ");
        if is_ours {
            failed
                .assert_error_has(400, "\"database/\" is tainted now")
                .assert_error_has(400, "revoke-force/database/");
        }
        let tainted = "on namespace \"\". route entry or namespace is tainted.";
        for path in ["database/creds/r", "database/config/pg"] {
            root.get(path).assert_error(404, &format!("no handler for route \"{path}\" {tainted}"));
        }
        let (mount, shown) = listed();
        assert_eq!(mount["type"], json!("database"), "it is still there");
        if let Some(shown) = shown {
            assert_eq!(mount["tainted"], json!(true));
            assert!(shown.stdout.contains("database/"), "{}", shown.stdout);
            assert!(shown.stderr.contains("database/ is tainted"), "{}", shown.stderr);
            server.cli().line("secrets list -format=json").assert_stdout("\"tainted\": true");
        }
        root.post("sys/mounts/database", json!({ "type": "database" }))
            .assert_error(400, "path is already in use at database/");
        assert!(root.has_lease(&first.lease) && root.has_lease(&second.lease), "nothing is forgotten");
    }
    root.put("sys/leases/revoke-force/database", json!({})).assert_status(204);
    root.delete("sys/mounts/database").assert_status(204);
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    postgresql.start_again().unwrap();
    assert!(database.has_role(&first.user), "what was given up stays");
}
