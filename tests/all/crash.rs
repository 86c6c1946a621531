//! The crash ring: the binary is killed at every named point of the saga, on a file and on a store in PostgreSQL, and at random moments
//! under load. Afterwards no acknowledged credential is unknown, no PostgreSQL role is left without a lease, and none was dropped early.
//!
//! What had no answer when the process died may have happened or not: it counts on neither side.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Options};
use serde_json::{Value, json};

use super::control_groups::{Staged, Waits, one, waits};
use super::identity::{log_in, mounted};
use crate::support::{Answer, Client, Credential, Database, Durable, Server, eventually, own_postgresql};

const CLIENTS: usize = 8;
const KILLS: u64 = 100;
/// As often when, on a busy machine, too few answers came between the kills.
const KILLS_MAX: u64 = 5 * KILLS;
/// A dead process's claims hold rows for a minute, and an issue falls due half a minute after it began.
const SETTLING: Duration = Duration::from_secs(240);

/// What the clients were told.
#[derive(Debug, Default)]
struct Told {
    /// Leases handed out and never revoked by an answered request, with their users.
    live: BTreeMap<String, String>,
    /// Users whose revocation was answered with 204.
    gone: Vec<String>,
}

impl Told {
    fn issued(&mut self, credential: &Credential) {
        self.live.insert(credential.lease.clone(), credential.user.clone());
    }

    /// Kills that hit nothing prove nothing.
    fn is_enough(&self) -> bool {
        self.live.len() > 20 && self.gone.len() > 20
    }
}

/// Everything the server still has a row for.
fn leases(root: &Client) -> usize {
    let answer = root.list("sys/leases/lookup/database/creds/r");
    answer.json()["data"]["keys"].as_array().map_or(0, Vec::len)
}

fn roles(database: &Database<'_>) -> usize {
    database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").trim().parse().unwrap()
}

/// Waits until leases and roles stand one for one, then holds what was told against what is.
fn settle(server: &Server, database: &Database<'_>, told: &Told) {
    let root = server.root();
    let began = Instant::now();
    loop {
        let (leases, roles) = (leases(&root), roles(database));
        if leases == roles && told.gone.iter().all(|user| !database.has_role(user)) {
            break;
        }
        assert!(began.elapsed() < SETTLING, "{leases} leases and {roles} PostgreSQL roles");
        thread::sleep(Duration::from_millis(500));
    }
    for (lease, user) in &told.live {
        assert!(root.has_lease(lease), "acknowledged and forgotten: {lease}");
        assert!(database.has_role(user), "acknowledged and dropped early: {user}");
    }
    // Every role that is left can be ended through a lease: none is an orphan.
    root.put("sys/leases/revoke-prefix/database/creds/r", json!({})).assert_status(204);
    assert_eq!(roles(database), 0);
}

fn durable(database: &Database<'_>) -> Server {
    ready(Server::durable(&Durable::default()), database)
}

/// On a store in PostgreSQL, apart from the database that credentials are for.
fn durable_on(store: &DevPg, database: &Database<'_>) -> Server {
    let server = Server::prepared(&Durable::default());
    let url = format!("{}?sslmode=disable", store.superuser_url());
    server.write_config_with("", &format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}"));
    server.start();
    server.init(1, 1);
    server.unseal();
    ready(server, database)
}

fn ready(server: Server, database: &Database<'_>) -> Server {
    server.connect(database);
    server.role("r", json!({}));
    server
}

/// One client: asks until the server dies.
fn load(client: &Client, seed: usize, stop: &AtomicBool, told: &Mutex<Told>) {
    let ask = |path: &str, body: Value| client.try_request("PUT", path, Some(body));
    for turn in seed.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(answer) = client.try_request("GET", "database/creds/r", None) else { return };
        if answer.status != 200 {
            continue;
        }
        let credential = Credential::of(&answer);
        told.lock().unwrap().issued(&credential);
        let lease = json!({ "lease_id": credential.lease });
        match turn % 4 {
            0 if ask("sys/leases/renew", lease.clone()).is_err() => return,
            1 | 2 => {
                // From here on nobody can say whether it lives, until there is an answer.
                told.lock().unwrap().live.remove(&credential.lease);
                match ask("sys/leases/revoke", lease) {
                    Ok(Answer { status: 204, .. }) => told.lock().unwrap().gone.push(credential.user),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_kill_at_any_moment_loses_no_acknowledged_credential_and_leaves_no_orphan() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let server = durable(&database);
    let told = Mutex::new(Told::default());
    for kill in 0..KILLS_MAX {
        if kill >= KILLS && told.lock().unwrap().is_enough() {
            break;
        }
        let stop = AtomicBool::new(false);
        let clients: Vec<Client> = (0..CLIENTS).map(|_| server.root()).collect();
        thread::scope(|scope| {
            for (seed, client) in clients.iter().enumerate() {
                let (stop, told) = (&stop, &told);
                scope.spawn(move || load(client, seed, stop, told));
            }
            // Spread over the life of a request, repeatably; over more of it when the machine is too slow for much to happen.
            let window = 130_000 * (1 + kill / KILLS);
            thread::sleep(Duration::from_micros(20_000 + kill.wrapping_mul(2_654_435_761) % window));
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        server.start();
        server.unseal();
    }
    let told = told.into_inner().unwrap();
    assert!(told.is_enough(), "too little was going on: {} live, {} gone", told.live.len(), told.gone.len());
    settle(&server, &database, &told);
}

/// Arms one point, does what runs into it, and restarts without it.
fn die_at(server: &mut Server, point: &str, act: impl FnOnce(&Client)) {
    server.kill();
    server.set_environment("LEASEHOLD_FAIL_POINT", Some(point));
    server.start();
    server.unseal();
    act(&server.root());
    assert_eq!(server.wait_for_end(), None, "the process does not die at `{point}`");
    server.set_environment("LEASEHOLD_FAIL_POINT", None);
    server.start();
    server.unseal();
}

#[test]
fn a_crash_at_every_named_point_of_the_saga_is_made_good() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    killed_at_points(durable(&database), &database);
}

#[test]
fn a_crash_at_every_named_point_of_the_saga_is_made_good_on_postgresql() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let store = DevPg::start(Options::default()).unwrap();
    killed_at_points(durable_on(&store, &database), &database);
}

fn killed_at_points(mut server: Server, database: &Database<'_>) {
    let mut told = Told::default();
    let kept = server.root().credential("r");
    told.issued(&kept);

    for point in ["after-intent", "after-effect", "after-commit"] {
        die_at(&mut server, point, |root| {
            assert!(root.try_request("GET", "database/creds/r", None).is_err(), "{point}");
        });
    }
    for point in ["renew-claimed", "renew-after-effect"] {
        let renewed = server.root().credential("r");
        told.issued(&renewed);
        die_at(&mut server, point, |root| {
            let body = json!({ "lease_id": renewed.lease });
            assert!(root.try_request("PUT", "sys/leases/renew", Some(body)).is_err(), "{point}");
        });
    }
    for (point, sync) in
        [("revoke-marked", true), ("revoke-after-effect", true), ("revoke-removed", true), ("revoke-stored", false)]
    {
        let ended = server.root().credential("r");
        die_at(&mut server, point, |root| {
            let body = json!({ "lease_id": ended.lease, "sync": sync });
            assert!(root.try_request("PUT", "sys/leases/revoke", Some(body)).is_err(), "{point}");
        });
        // Its duty was stored before the process died: it is gone without anybody asking again.
        told.gone.push(ended.user);
    }
    let parent = server.root().child(json!({ "policies": ["root"], "ttl": "1h" }));
    let child = server.as_token(&parent).child(json!({ "policies": ["root"], "ttl": "1h" }));
    for owner in [&parent, &child] {
        told.gone.push(server.as_token(owner).credential("r").user);
    }
    die_at(&mut server, "token-buried", |root| {
        assert!(root.try_request("POST", "auth/token/revoke", Some(json!({ "token": parent }))).is_err());
    });
    server.as_token(&parent).get("auth/token/lookup-self").assert_status(403);

    let parent = server.root().child(json!({ "policies": ["root"], "ttl": "1h" }));
    let child = server.as_token(&parent).child(json!({ "policies": ["root"], "ttl": "1h" }));
    told.gone.push(server.as_token(&child).credential("r").user);
    die_at(&mut server, "child-buried", |root| {
        assert!(root.try_request("POST", "auth/token/revoke", Some(json!({ "token": parent }))).is_err());
    });
    server.as_token(&parent).get("auth/token/lookup-self").assert_status(403);

    for point in ["move-closed", "move-revoked"] {
        let (from, to) = (format!("from-{point}"), format!("to-{point}"));
        let body = json!({ "from": from, "to": to });
        server.root().post(&format!("sys/mounts/{from}"), json!({ "type": "kv" })).assert_status(204);
        server.root().put(&format!("{from}/kept"), json!({ "a": "b" })).assert_status(204);
        die_at(&mut server, point, |root| {
            // It moves in the background: whether the answer still comes is chance.
            let _ = root.try_request("POST", "sys/remount", Some(body.clone()));
        });
        server.root().post("sys/remount", body).assert_status(200);
        let moved = format!("{to}/kept");
        eventually("moved by the second try", || server.root().get(&moved).status == 200);
    }

    // A right that our admin cannot take away makes the revocation fail; once it is taken away, the work goes on.
    let stuck = server.root().credential("r");
    database.sql(&format!("SET ROLE app_owner; GRANT SELECT ON orders TO \"{}\"", stuck.user));
    die_at(&mut server, "revoke-failed", |root| {
        let body = json!({ "lease_id": stuck.lease });
        assert!(root.try_request("PUT", "sys/leases/revoke", Some(body)).is_err());
    });
    database.sql(&format!("SET ROLE app_owner; REVOKE SELECT ON orders FROM \"{}\"", stuck.user));
    told.gone.push(stuck.user);
    settle(&server, database, &told);
}

/// Killed before PostgreSQL hears of a new password, after it has taken it, and after that was stored: somebody can always log in.
#[test]
fn a_crash_at_every_named_point_of_a_rotation_locks_nobody_out() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let mut server = durable(&database);
    database.sql("CREATE ROLE crash_app LOGIN");
    let body = json!({ "db_name": "pg", "username": "crash_app", "rotation_period": "24h" });
    server.root().post("database/static-roles/app", body).assert_status(204);
    for point in ["root-rotation-stored", "root-rotation-set", "root-rotation-ended"] {
        die_at(&mut server, point, |root| {
            assert!(root.try_request("POST", "database/rotate-root/pg", Some(json!({}))).is_err());
        });
        // At once, with whichever password it is by now.
        let lease = server.root().credential("r");
        server.root().put("sys/leases/revoke", json!({ "lease_id": lease.lease })).assert_status(204);
    }
    // It waits until the last one that was begun can no longer happen.
    server.root().post("database/rotate-root/pg", json!({})).assert_status(204);
    server.root().credential("r");
    for point in ["static-rotation-stored", "static-rotation-set", "static-rotation-ended"] {
        let before = server.root().get("database/static-creds/app").text("/data/password");
        die_at(&mut server, point, |root| {
            assert!(root.try_request("POST", "database/rotate-role/app", Some(json!({}))).is_err());
        });
        eventually("a reader gets the password that works", || {
            let creds = server.root().get("database/static-creds/app").assert_status(200);
            database.lets_in("crash_app", &creds.text("/data/password"))
        });
        let after = server.root().get("database/static-creds/app").text("/data/password");
        assert_eq!(before == after, point == "static-rotation-stored", "{point}");
    }
    server.root().post("database/rotate-role/app", json!({})).assert_status(204);
    let creds = server.root().get("database/static-creds/app");
    assert!(database.lets_in("crash_app", &creds.text("/data/password")), "{creds}");
    server.root().put("sys/leases/revoke-prefix/database/creds/r", json!({})).assert_status(204);
    assert_eq!(roles(&database), 0);
}

/// What was wrapped and never unwrapped is gone, wherever the process died.
#[test]
fn a_crash_around_a_wrapped_answer_leaves_nothing_that_nobody_read() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let mut server = durable(&database);
    let wrapped = |root: &Client| root.try_wrapped("GET", "database/creds/r", "5s");
    die_at(&mut server, "wrapped", |root| assert!(wrapped(root).is_err()));
    assert_eq!(roles(&database), 1, "it was made before the process died");
    for (point, route) in [("unwrap-admitted", "sys/wrapping/unwrap"), ("unread-ended", "auth/token/revoke")] {
        die_at(&mut server, point, |root| {
            let token = wrapped(root).unwrap().assert_status(200).text("/wrap_info/token");
            assert!(root.try_request("POST", route, Some(json!({ "token": token }))).is_err(), "{point}");
        });
        eventually("nothing is left", || roles(&database) == 0 && leases(&server.root()) == 0);
    }
}

/// Killed when a request has come to wait, when it is approved, and when it is let go: it waits on, or is gone, and nothing is left of it.
#[test]
fn a_crash_around_a_request_that_waits_neither_loses_an_approval_nor_does_anything_twice() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let staged = Staged::on(mounted(durable(&database)));
    staged.guard(&[("database/creds/r", &one(1))]);
    let [alice, bob] = ["alice", "bob"].map(|name| log_in(&staged.server, name).text("/auth/client_token"));
    let mut server = staged.server;
    let ask = |root: &Client| root.with_token(&alice).try_request("GET", "database/creds/r", None);
    let authorize = |root: &Client, waiting: &Waits| {
        let body = json!({ "accessor": waiting.accessor });
        root.with_token(&bob).try_request("POST", "sys/control-group/authorize", Some(body))
    };
    let unwrap = |root: &Client, waiting: &Waits| {
        root.try_request("PUT", "sys/wrapping/unwrap", Some(json!({ "token": waiting.token })))
    };

    // Nobody has its token: it ends by its time, and nothing was done.
    die_at(&mut server, "deferred", |root| assert!(ask(root).is_err()));
    // The approval was stored, and is not given twice.
    let waiting = waits(ask(&server.root()).unwrap());
    die_at(&mut server, "approved", |root| assert!(authorize(root, &waiting).is_err()));
    authorize(&server.root(), &waiting).unwrap().assert_multi(400, "approver has already authorized");
    // It is gone with its token, and must be asked for again.
    die_at(&mut server, "released", |root| assert!(unwrap(root, &waiting).is_err()));
    let not_valid = "wrapping token is not valid or does not exist";
    unwrap(&server.root(), &waiting).unwrap().assert_error(400, not_valid);
    assert_eq!(roles(&database), 0);
    let waiting = waits(ask(&server.root()).unwrap());
    authorize(&server.root(), &waiting).unwrap().assert_at("/data/approved", true);
    let credential = Credential::of(&unwrap(&server.root(), &waiting).unwrap().assert_status(200));
    assert!(database.has_role(&credential.user));
    server.root().put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    eventually("nothing is left", || roles(&database) == 0);
}

/// A server that is killed while it counts the leases of a quota leaves the quotas as they were, and holds nobody up for long.
#[test]
fn a_crash_while_leases_are_counted_leaves_them_open_and_the_quotas_as_they_were() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let mut server = durable(&database);
    let on = "sys/quotas/lease-count/q";
    server.root().credential("r");
    for point in ["leases-closed", "leases-counted"] {
        die_at(&mut server, point, |root| {
            assert!(
                root.try_request("POST", on, Some(json!({ "max_leases": 9, "path": "database" }))).is_err(),
                "{point}"
            );
        });
        server.root().get(on).assert_errors(404, &[]);
        server.root().credential("r");
    }
    server.root().post(on, json!({ "max_leases": 4, "path": "database" })).assert_status(204);
    server.root().get(on).assert_at("/data/counter", 3);
    server.root().credential("r");
    server.root().get("database/creds/r").assert_status(429);
}

/// A server that is killed while it looks whether leases stand on a connection leaves it, or has deleted it; nobody is held up for long.
#[test]
fn a_crash_while_a_connection_is_deleted_leaves_it_or_has_deleted_it() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let mut server = durable(&database);
    let root = server.root();
    let on = "database/config/other";
    for (point, stays) in [("target-closed", true), ("target-changed", false)] {
        root.post(on, database.config()).assert_status(204);
        die_at(&mut server, point, |root| assert!(root.try_request("DELETE", on, None).is_err(), "{point}"));
        let root = server.root();
        root.get(on).assert_status(if stays { 200 } else { 404 });
        root.credential("r");
        root.delete("database/config/pg").assert_status(400);
        root.delete(on).assert_status(204);
        root.get(on).assert_status(404);
    }
}

/// The names in the server's sources are the names above.
#[test]
fn no_named_point_is_left_out() {
    fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                rust_files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host");
    let mut files = Vec::new();
    for room in fs::read_dir(host).unwrap().flatten().filter(|room| room.path().join("src").is_dir()) {
        rust_files(&room.path().join("src"), &mut files);
    }
    let mut points = 0;
    for file in files {
        for call in fs::read_to_string(&file).unwrap().split("fail::point(\"").skip(1) {
            let name = call.split('"').next().unwrap();
            points += 1;
            let dies_there = |tests: &str| tests.contains(&format!("\"{name}\""));
            let chapters = [
                include_str!("crash.rs"),
                include_str!("migrate.rs"),
                include_str!("quorum.rs"),
                include_str!("rekey.rs"),
            ];
            assert!(chapters.into_iter().any(dies_there), "nobody dies at `{name}` ({})", file.display());
        }
    }
    assert!(points >= 12, "the points are called otherwise now");
}
