//! Several servers over one PostgreSQL: each serves everything, and what one answers counts on all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Options, Stop};
use rustix::process::Signal;
use serde_json::json;

use crate::audit::records;
use crate::support::{Answer, Client, Credential, Database, Durable, Server, Signer, eventually, now, own_postgresql};

/// Some servers over one store, all unsealed.
pub(crate) struct Nodes {
    pub(crate) servers: Vec<Server>,
    pub(crate) store: DevPg,
    url: String,
}

impl Nodes {
    pub(crate) fn start(count: usize) -> Self {
        let store = DevPg::start(Options::default()).unwrap();
        let url = store.superuser_url();
        Self::start_on(store, &url, count)
    }

    /// `url` leads to the store, and to whoever takes over from it.
    pub(crate) fn start_on(store: DevPg, url: &str, count: usize) -> Self {
        let nodes = Self { servers: Vec::new(), store, url: url.to_owned() };
        (0..count).fold(nodes, |mut nodes, _| {
            let server = nodes.join();
            nodes.servers.push(server);
            nodes
        })
    }

    /// One more, by its configuration alone.
    fn join(&self) -> Server {
        let server = Server::prepared(&Durable::default());
        let url = format!("{}?sslmode=disable", self.url);
        server.write_config_with("", &format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}"));
        server.start();
        match self.servers.first() {
            Some(first) => server.knows_keys_of(first),
            None => drop(server.init(1, 1)),
        }
        server.unseal();
        server
    }

    /// As many ask for a path at the same moment, each of the next server: the statuses of their answers.
    pub(crate) fn at_once(&self, count: usize, path: &str) -> Vec<u16> {
        thread::scope(|scope| {
            let asked: Vec<_> = (0..count).map(|at| scope.spawn(move || self.root(at).get(path).status)).collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        })
    }

    pub(crate) fn root(&self, at: usize) -> Client {
        self.servers[at % self.servers.len()].root()
    }

    /// What a server says to somebody who has seen `index`.
    fn since(&self, at: usize, index: &str, how: &str) -> Answer {
        let token = self.servers[0].root_token();
        let headers = [("X-Vault-Token", &*token), ("X-Vault-Index", index), ("X-Vault-Inconsistent", how)];
        self.servers[at].nobody().bytes("GET", "sys/mounts", b"", &headers)
    }

    pub(crate) fn client(&self, at: usize, token: &str) -> Client {
        self.servers[at % self.servers.len()].as_token(token)
    }
}

fn policy(root: &Client, text: &str) {
    root.put("sys/policies/acl/app", json!({ "policy": text })).assert_status(204);
}

/// The header, as a client keeps it and sends it on.
fn index(answer: &Answer) -> String {
    answer.header("x-vault-index").unwrap_or_else(|| panic!("no index: {answer}")).to_owned()
}

#[test]
fn a_client_that_names_what_it_has_seen_gets_nothing_older() {
    let nodes = Nodes::start(2);
    let since = |at: usize, index: &str, how: &str| nodes.since(at, index, how);
    for how in ["fail", "forward-active-node", "await-state"] {
        nodes.root(0).post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
        let seen = index(&nodes.root(0).get("sys/mounts"));
        since(1, &seen, how).assert_status(200).at("/data/kv~1");
        index(&nodes.root(0).delete("sys/mounts/kv").assert_status(204));
    }
    since(0, "nonsense", "fail").assert_errors(400, &["failed to decode \"X-Vault-Index\""]);
    since(0, "e30=", "perhaps").assert_errors(400, &["unknown value for \"X-Vault-Inconsistent\" header"]);
    assert_eq!(nodes.servers[0].nobody().get("sys/health").header("x-vault-index"), None);
    assert_eq!(nodes.client(0, "unknown").get("sys/mounts").header("x-vault-index"), None);
}

/// An answer that was wrapped on one node is unwrapped on any, once; a cubbyhole is the same on all.
#[test]
fn a_wrapped_answer_is_unwrapped_once_on_whichever_node() {
    let nodes = Nodes::start(3);
    for at in 0..3 {
        let wrapped = nodes.root(at).try_wrapped("GET", "auth/token/lookup-self", "60s").unwrap();
        let body = json!({ "token": wrapped.text("/wrap_info/token") });
        let ask = |at| nodes.root(at).put("sys/wrapping/unwrap", body.clone()).status;
        let statuses: Vec<u16> = thread::scope(|scope| {
            let ask = &ask;
            let asked: Vec<_> = (0..9).map(|at| scope.spawn(move || ask(at))).collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    }
    let token = nodes.root(0).child(json!({ "policies": ["default"] }));
    nodes.client(1, &token).put("cubbyhole/a", json!({ "x": 1 })).assert_status(204);
    nodes.client(2, &token).get("cubbyhole/a").assert_status(200).assert_at("/data/x", 1);
}

/// Who may sign, and for whom: a change counts for the next login on every node.
#[test]
fn a_jwt_mount_is_the_same_on_every_node_at_once() {
    let nodes = Nodes::start(3);
    let (first, second) = (Signer::new(), Signer::new());
    nodes.root(0).post("sys/auth/jwt", json!({ "type": "jwt" })).assert_status(204);
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_subject": "job" });
    nodes.root(1).post("auth/jwt/role/r", role).assert_status(204);
    let claims = json!({ "sub": "job", "iat": now(), "exp": now() + 600 });
    let log_in = |at: usize, key: &Signer| {
        let body = json!({ "role": "r", "jwt": key.token(None, &claims) });
        nodes.servers[at].nobody().post("auth/jwt/login", body)
    };
    for (at, key) in [(0, &first), (1, &second), (2, &first)] {
        let config = json!({ "jwt_validation_pubkeys": key.public_pem() });
        nodes.root(at).post("auth/jwt/config", config).assert_status(204);
        let other = if std::ptr::eq(key, &first) { &second } else { &first };
        for at in 0..3 {
            log_in(at, key).assert_status(200);
            log_in(at, other).assert_status(400);
        }
    }
    let token = log_in(1, &first).assert_status(200).text("/auth/client_token");
    nodes.root(2).delete("auth/jwt/role/r").assert_status(204);
    for at in 0..3 {
        log_in(at, &first).assert_status(400);
        nodes
            .client(at, &token)
            .post("auth/token/renew-self", json!({}))
            .assert_error_has(500, "does not exist during renewal");
    }
    nodes.root(0).delete("sys/auth/jwt").assert_status(204);
    for at in 0..3 {
        log_in(at, &first).assert_status(403);
        nodes.client(at, &token).get("auth/token/lookup-self").assert_status(403);
    }
}

#[test]
fn what_one_node_answers_counts_on_every_node() {
    let nodes = Nodes::start(3);
    nodes.root(0).post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    nodes.root(1).post("kv/a", json!({ "x": "1" })).assert_status(204);
    let mut waits = Vec::new();
    for round in 0..24 {
        let (writer, reader) = (nodes.root(round), round + 1);
        policy(&writer, "path \"kv/a\" { capabilities = [\"read\"] }");
        let token = writer.child(json!({ "policies": ["app"], "no_default_policy": true }));
        nodes.client(reader, &token).get("kv/a").assert_status(200);
        nodes.client(reader + 1, &token).get("kv/a").assert_status(200);
        let begun = Instant::now();
        match round % 4 {
            0 => policy(&writer, "path \"kv/b\" { capabilities = [\"read\"] }"),
            1 => drop(writer.delete("sys/policies/acl/app").assert_status(204)),
            2 => drop(writer.put("auth/token/revoke", json!({ "token": token })).assert_status(204)),
            _ => drop(writer.delete("sys/mounts/kv").assert_status(204)),
        }
        waits.push(begun.elapsed());
        for at in 0..3 {
            let asked = nodes.client(reader + at, &token).get("kv/a");
            let wanted = if round % 4 == 3 { 404 } else { 403 };
            assert_eq!(asked.status, wanted, "round {round}, node {at} after: {asked}");
        }
        if round % 4 == 3 {
            nodes.root(reader).post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
            nodes.root(reader + 1).post("kv/a", json!({ "x": "1" })).assert_status(204);
        }
    }
    waits.sort();
    eprintln!("changes were answered after {:?} in the middle, {:?} at most", waits[waits.len() / 2], waits.last());
}

#[test]
fn a_credential_outlives_its_node_and_ends_on_another() {
    let mut nodes = Nodes::start(3);
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    nodes.servers[0].connect(&database);
    nodes.servers[0].role("r", json!({}));
    nodes.servers[0].role("short", json!({ "default_ttl": "4s", "max_ttl": "4s" }));
    let kept: Vec<Credential> = (0..3).map(|at| nodes.root(at).credential("r")).collect();
    let short: Vec<Credential> = (0..6).map(|at| nodes.root(at).credential("short")).collect();
    drop(kept[0].login(&database));
    // Issued on one, renewed on the next, and the one that issued it dies.
    nodes.root(1).put("sys/leases/renew", json!({ "lease_id": kept[0].lease })).assert_status(200);
    nodes.servers[0].kill();
    for credential in &kept {
        nodes.root(2).put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
        assert!(!database.has_role(&credential.user), "revoked means gone");
        assert!(!nodes.root(1).has_lease(&credential.lease));
    }
    eventually("what the dead node issued ends as well", || short.iter().all(|one| !database.has_role(&one.user)));
    // It comes back as a new node; meanwhile the others go on.
    let again = nodes.join();
    nodes.servers[0] = again;
    let last = nodes.root(0).credential("r");
    nodes.root(1).put("sys/leases/revoke", json!({ "lease_id": last.lease })).assert_status(204);
    assert!(!database.has_role(&last.user));
}

/// SIGSTOP: it neither follows nor says so, and would decide by what it remembers when it goes on.
#[test]
fn a_paused_node_keeps_nobody_waiting_for_long_and_decides_nothing_old() {
    let nodes = Nodes::start(2);
    nodes.root(0).post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    nodes.root(0).post("kv/a", json!({ "x": "1" })).assert_status(204);
    policy(&nodes.root(0), "path \"kv/a\" { capabilities = [\"read\", \"update\"] }");
    let token = nodes.root(0).child(json!({ "policies": ["app"], "no_default_policy": true }));
    let paused = nodes.client(1, &token);
    paused.get("kv/a").assert_status(200);
    for _ in 0..3 {
        nodes.servers[1].pause();
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let client = paused.clone();
                thread::spawn(move || client.post("kv/a", json!({ "x": "too late" })))
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        policy(&nodes.root(0), "path \"kv/b\" { capabilities = [\"read\"] }");
        let waited = begun.elapsed();
        assert!(waited < Duration::from_millis(4_000), "the change was answered after {waited:?}");
        let begun = Instant::now();
        nodes
            .root(0)
            .put("sys/policies/acl/other", json!({ "policy": "path \"x\" { capabilities = [\"read\"] }" }))
            .assert_status(204);
        assert!(begun.elapsed() < Duration::from_secs(1), "the second one waits for nobody");
        nodes.servers[1].signal(Signal::CONT);
        for asked in asked {
            let answer = asked.join().unwrap();
            assert!(matches!(answer.status, 403 | 503), "{answer}");
        }
        nodes.root(0).get("kv/a").assert_at("/data/x", "1");
        eventually("the node that was paused serves again", || nodes.root(1).get("kv/a").status == 200);
        paused.get("kv/a").assert_status(403);
        policy(&nodes.root(1), "path \"kv/a\" { capabilities = [\"read\", \"update\"] }");
        paused.get("kv/a").assert_status(200);
    }
}

#[test]
fn uses_of_a_token_are_counted_once_over_all_nodes() {
    let nodes = Nodes::start(3);
    for _ in 0..5 {
        let token = nodes.root(0).child(json!({ "policies": ["root"], "num_uses": 10, "ttl": "1h" }));
        let asked: Vec<_> = (0..24)
            .map(|at| {
                let client = nodes.client(at, &token);
                thread::spawn(move || client.get("sys/mounts").status)
            })
            .collect();
        let accepted = asked.into_iter().map(|asked| asked.join().unwrap()).filter(|status| *status == 200).count();
        assert_eq!(accepted, 10);
    }
}

#[test]
fn the_key_ring_rotates_under_load_and_the_store_goes_and_comes() {
    let nodes = Nodes::start(2);
    nodes.root(0).post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    for round in 0..10 {
        nodes.root(round).put("sys/rotate", json!({})).assert_status(204);
        for at in 0..4 {
            nodes.root(at).post(&format!("kv/{round}-{at}"), json!({ "x": at })).assert_status(204);
            nodes.root(at + 1).get(&format!("kv/{round}-{at}")).assert_status(200);
        }
    }
    nodes.store.stop(Stop::Immediate).unwrap();
    for at in 0..2 {
        nodes.root(at).get("kv/0-0").assert_status(503);
        nodes.servers[at].nobody().get("sys/health").assert_status(200);
    }
    nodes.store.start_again().unwrap();
    for at in 0..2 {
        eventually("the store is back", || nodes.root(at).get("kv/0-0").status == 200);
        nodes.root(at).post("kv/last", json!({ "x": at })).assert_status(204);
    }
}

/// A client behind a load balancer asks another server each time.
#[test]
fn how_far_a_move_has_come_is_known_on_every_node() {
    let nodes = Nodes::start(2);
    nodes.root(0).post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    nodes.root(1).post("kv/a", json!({ "x": "1" })).assert_status(204);
    let begun = nodes.root(0).post("sys/remount", json!({ "from": "kv", "to": "moved" })).assert_status(200);
    let status = format!("sys/remount/status/{}", begun.at("/data/migration_id").as_str().unwrap());
    eventually("the move has come to its end", || {
        let told: Vec<_> = (0..2).map(|at| nodes.root(at).get(&status).assert_status(200)).collect();
        told.iter().all(|told| told.at("/data/migration_info/status") == "success")
    });
    for at in 0..2 {
        nodes.root(at).get("moved/a").assert_status(200);
        nodes.root(at).get("sys/remount/status/unknown").assert_status(404);
    }
}

#[test]
fn audit_devices_come_and_go_on_every_node() {
    let nodes = Nodes::start(2);
    // Each writes beneath its own directory.
    let asked = |at: usize, path: &str| {
        nodes.root(at).get(path);
        let file = nodes.servers[at].home().join("audit/f.log");
        records(&file).iter().filter(|line| line["request"]["path"] == path).count()
    };
    let device = json!({ "type": "file", "options": { "file_path": "f.log" } });
    for round in 0..2 {
        nodes.root(round).put("sys/audit/f", device.clone()).assert_status(204);
        for at in 0..2 {
            assert_eq!(asked(at, &format!("kv/{round}-{at}")), 2, "node {at} records request and response");
        }
        // What is hashed can be compared, whichever server has written it.
        let hash = |at| nodes.root(at).post("sys/audit-hash/f", json!({ "input": "x" })).at("/data/hash");
        assert_eq!(hash(0), hash(1));
        nodes.root(round + 1).delete("sys/audit/f").assert_status(204);
        for at in 0..2 {
            assert_eq!(asked(at, &format!("kv/after-{round}-{at}")), 0, "node {at} has closed it");
        }
    }
    let impossible = json!({ "type": "file", "options": { "file_path": "f.log/below-a-file" } });
    nodes.root(0).put("sys/audit/g", impossible).assert_status(400);
    assert!(nodes.root(1).get("sys/audit").assert_status(200).json()["data"]["g/"].is_null());
}

#[test]
fn members_are_shown_and_sealed_together() {
    let nodes = Nodes::start(2);
    let shown = nodes.root(1).get("sys/ha-status").assert_status(200).at("/data/nodes");
    let mut addresses: Vec<_> = shown.as_array().unwrap().iter().map(|node| node["api_address"].clone()).collect();
    addresses.sort_by_key(ToString::to_string);
    let mut wanted: Vec<_> = nodes.servers.iter().map(|server| json!(format!("http://{}", server.address()))).collect();
    wanted.sort_by_key(ToString::to_string);
    assert_eq!(addresses, wanted);
    assert!(shown.as_array().unwrap().iter().all(|node| node["active_node"] == true));
    let leads = nodes.servers[1].nobody().get("sys/leader").assert_at("/ha_enabled", true).assert_at("/is_self", true);
    leads.assert_at("/leader_address", format!("http://{}", nodes.servers[1].address()));
    let table = nodes.servers[0].cli().run(&["operator", "members"]).assert_status(0).stdout;
    assert!(table.starts_with("Host Name") && table.matches("true").count() == 2, "{table}");
    nodes.servers[0].cli().run(&["operator", "members", "-seal"]).assert_status(0);
    for server in &nodes.servers {
        server.nobody().get("sys/seal-status").assert_at("/sealed", true);
    }
    for server in &nodes.servers {
        server.unseal();
    }
    nodes.root(1).get("sys/mounts").assert_status(200);
}

/// A fail-over to a standby that had not everything: what is there now counts, on every node and without a restart.
#[test]
fn a_store_that_lost_changes_is_read_again() {
    let nodes = Nodes::start(2);
    policy(&nodes.root(0), "path \"sys/mounts\" { capabilities = [\"read\"] }");
    let token = nodes.root(0).child(json!({ "policies": ["app"], "no_default_policy": true }));
    nodes
        .store
        .psql("create table before as table leasehold_kv; create table number as table leasehold_counter")
        .unwrap();
    policy(&nodes.root(1), "path \"x\" { capabilities = [\"read\"] }");
    let lost = index(&nodes.root(1).get("sys/mounts"));
    for at in 0..2 {
        nodes.client(at, &token).get("sys/mounts").assert_status(403);
    }
    nodes
        .store
        .psql(
            "begin; delete from leasehold_kv where key like 'sys/%'; \
             insert into leasehold_kv select * from before where key like 'sys/%'; \
             update leasehold_counter set value = (select value from number); commit",
        )
        .unwrap();
    for at in 0..2 {
        eventually("the older text counts", || nodes.client(at, &token).get("sys/mounts").status == 200);
        // Whoever has seen what is lost is told that it is not there.
        let refused = nodes.since(at, &lost, "await-state").assert_error_has(429, "has not heard of the change");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    policy(&nodes.root(0), "path \"x\" { capabilities = [\"read\"] }");
    for at in 0..2 {
        nodes.client(at, &token).get("sys/mounts").assert_status(403);
    }
}

/// One server after the other is stopped in good order, started again and unsealed, while clients go on with the others.
#[test]
fn servers_are_replaced_one_by_one_under_load() {
    let nodes = Nodes::start(3);
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    nodes.servers[0].connect(&database);
    nodes.servers[0].role("r", json!({}));
    let stop = AtomicBool::new(false);
    let issued: Vec<(String, String)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|first| {
                let (nodes, stop) = (&nodes, &stop);
                scope.spawn(move || {
                    let mut issued = Vec::new();
                    for at in first.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        match nodes.root(at).try_request("GET", "database/creds/r", None) {
                            Ok(answer) if answer.status == 200 => {
                                issued.push((answer.text("/lease_id"), answer.text("/data/username")));
                            }
                            // It drains, is sealed, or has not joined yet: the next one is asked.
                            Ok(answer) => assert_eq!(answer.status, 503, "{answer}"),
                            Err(_) => thread::sleep(Duration::from_millis(20)),
                        }
                    }
                    issued
                })
            })
            .collect();
        for server in &nodes.servers {
            thread::sleep(Duration::from_secs(1));
            assert_eq!(server.terminate(), Some(0), "{}", server.log());
            server.start();
            server.unseal();
        }
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(issued.len() > 20, "{}", issued.len());
    for (lease, user) in &issued {
        assert!(nodes.root(0).has_lease(lease), "{lease} was acknowledged");
        assert!(database.has_role(user), "{user} was acknowledged");
    }
    nodes.root(1).put("sys/leases/revoke-prefix/database/creds/r", json!({ "sync": true })).assert_status(204);
    assert_eq!(database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), "0");
}

#[test]
fn a_changed_password_counts_on_every_node_and_a_schedule_is_kept_once() {
    let mut nodes = Nodes::start(3);
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    nodes.servers[0].connect(&database);
    nodes.servers[0].role("r", json!({}));
    database.sql(
        "CREATE TABLE turned (who text); GRANT INSERT ON turned TO PUBLIC; \
         SELECT format('CREATE ROLE node_app_%s LOGIN', n) FROM generate_series(0, 5) n \\gexec",
    );
    for at in 0..6 {
        let user = format!("node_app_{at}");
        let statements = [
            "ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'".to_owned(),
            "INSERT INTO turned VALUES ('{{name}}')".to_owned(),
        ];
        let body = json!({
            "db_name": "pg", "username": user, "rotation_period": "24h", "rotation_statements": statements,
        });
        nodes.root(at).post(&format!("database/static-roles/app-{at}"), body).assert_status(204);
    }
    // Leases are issued and ended on every node while each of them changes the password that they need for it.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|at| {
                let (root, stop) = (nodes.root(at), &stop);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let lease = root.credential("r");
                        root.put("sys/leases/revoke", json!({ "lease_id": lease.lease })).assert_status(204);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let rotations: Vec<_> = (0..3)
            .map(|at| {
                let root = nodes.root(at);
                scope.spawn(move || {
                    for _ in 0..4 {
                        root.post("database/rotate-root/pg", json!({})).assert_status(204);
                        root.post(&format!("database/rotate-role/app-{at}"), json!({})).assert_status(204);
                    }
                })
            })
            .collect();
        rotations.into_iter().for_each(|rotation| rotation.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            assert!(worker.join().unwrap() > 0);
        }
    });
    assert_eq!(database.sql("SELECT count(*) FROM turned"), "18", "one for each creation, four on each of three");
    for at in 0..6 {
        let creds = nodes.root(at + 1).get(&format!("database/static-creds/app-{at}")).assert_status(200);
        assert!(database.lets_in(&format!("node_app_{at}"), &creds.text("/data/password")), "{creds}");
    }
    // A short period: whichever nodes look, each change happens once, also when one of them goes.
    nodes.root(0).post("database/static-roles/app-0", json!({ "rotation_period": 5 })).assert_status(204);
    let turned = || -> i64 { database.sql("SELECT count(*) FROM turned WHERE who = 'node_app_0'").parse().unwrap() };
    let (began, before) = (Instant::now(), turned());
    eventually("it changes by itself", || turned() >= before + 2);
    nodes.servers.remove(0).kill();
    eventually("it changes on the others", || turned() >= before + 4);
    let most = i64::try_from(began.elapsed().as_secs()).unwrap() * 10 / 45 + 2;
    assert!(turned() - before <= most, "{} changes in {:?}", turned() - before, began.elapsed());
}
