//! Snapshots: saved, inspected, refused when damaged, restored on the same store and on another kind.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use leasehold_devpg::{DevPg, Options};
use serde_json::{Value, json};

use crate::support::{Bao, Client, Database, Durable, Server, eventually};

const PATH: &str = "sys/storage/raft/snapshot";
const FORCE: &str = "sys/storage/raft/snapshot-force";
/// Vault's words.
const OTHER_KEYS: &str = "could not verify hash file, possibly the snapshot is using a different set of unseal keys; \
                          use the snapshot-force API to bypass this check";

fn ready() -> (Server, Database<'static>) {
    let (server, database) = (Server::durable(&Durable::default()), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    (server, database)
}

fn saved(server: &Server, name: &str) -> PathBuf {
    server
        .cli()
        .run(&["operator", "snapshot", "save", name])
        .assert_status(0)
        .assert_stdout("Success! Saved a snapshot of ");
    server.cli().home().join(name)
}

fn send(client: &Client, path: &str, bytes: &[u8]) -> crate::support::Answer {
    client.bytes("POST", path, bytes, &[("Content-Type", "application/gzip")])
}

fn is_sealed(server: &Server) -> bool {
    server.nobody().get("sys/seal-status").assert_status(200).at("/sealed") == true
}

#[test]
fn a_snapshot_brings_back_what_was_there_and_says_what_it_cannot_bring_back() {
    let (server, database) = ready();
    let root = server.root();
    let (kept, revoked) = (root.credential("r"), root.credential("r"));
    let token = root.child(json!({ "policies": ["default"], "ttl": "1h" }));
    root.put("sys/policies/acl/before", json!({ "policy": "path \"x\" { capabilities = [\"read\"] }" }))
        .assert_status(204);
    saved(&server, "one.snap");

    root.put("sys/leases/revoke", json!({ "lease_id": revoked.lease })).assert_status(204);
    let later = root.credential("r");
    root.put("auth/token/revoke", json!({ "token": token })).assert_status(204);
    root.delete("sys/policies/acl/before").assert_status(204);
    root.put("sys/rotate", json!({})).assert_status(204);
    server.cli().line("operator snapshot restore one.snap").assert_status(0).assert_stdout("The server is sealed now");
    assert!(is_sealed(&server), "after a restore the server is sealed");
    root.get("sys/mounts").assert_error(503, "Vault is sealed");
    server.nobody().get("sys/health").assert_status(503);

    server.unseal();
    let root = server.root();
    root.get("sys/policies/acl/before").assert_status(200);
    // What was issued before is a lease as any other.
    root.put("sys/leases/renew", json!({ "lease_id": kept.lease })).assert_status(200);
    kept.login(&database);
    // What was revoked since has a row again and no role: revoking it once more succeeds.
    assert!(root.has_lease(&revoked.lease) && !database.has_role(&revoked.user));
    root.put("sys/leases/revoke", json!({ "lease_id": revoked.lease })).assert_status(204);
    // What was issued since has a role and no row.
    assert!(!root.has_lease(&later.lease) && database.has_role(&later.user));
    // A token that was revoked since lives again: the log says that such tokens do.
    server.as_token(&token).get("auth/token/lookup-self").assert_status(200);
    assert!(server.log().contains("Tokens that were revoked and leases that ended since it was made are there again"));
    root.put("sys/leases/revoke", json!({ "lease_id": kept.lease })).assert_status(204);
    assert!(!database.has_role(&kept.user));
    server.crash_and_restart();
    server.root().get("sys/policies/acl/before").assert_status(200);
}

/// A2: another machine, another kind of store, keys of its own until the snapshot's are there.
#[test]
fn a_snapshot_of_another_installation_needs_force_and_goes_onto_another_kind_of_store() {
    let (server, database) = ready();
    let kept = server.root().credential("r");
    let bytes = fs::read(saved(&server, "one.snap")).unwrap();
    let (key, token) = (server.shares()[0].clone(), server.root_token());
    server.kill();

    let store = DevPg::start(Options::default()).unwrap();
    let url = format!("{}?sslmode=disable", store.superuser_url());
    let other = Server::prepared(&Durable::default());
    other.write_config_with("", &format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}"));
    other.start();
    other.init(1, 1);
    other.unseal();
    send(&other.root(), PATH, &bytes).assert_error(400, OTHER_KEYS);
    other.root().get("sys/mounts").assert_status(200);
    send(&other.root(), FORCE, &bytes).assert_status(204);
    other.nobody().put("sys/unseal", json!({ "key": other.shares()[0] })).assert_status(400);
    other.nobody().put("sys/unseal", json!({ "key": key })).assert_status(200).assert_at("/sealed", false);
    other.root().get("auth/token/lookup-self").assert_status(403);
    let root = other.as_token(&token);
    root.put("sys/leases/renew", json!({ "lease_id": kept.lease })).assert_status(200);
    let new = root.credential("r");
    for credential in [kept, new] {
        credential.login(&database);
        root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
        assert!(!database.has_role(&credential.user));
    }
    other.kill();
    other.start();
    other.nobody().put("sys/unseal", json!({ "key": key })).assert_status(200).assert_at("/sealed", false);
    root.get("database/roles/r").assert_status(200);
}

#[test]
fn what_is_no_whole_snapshot_changes_nothing() {
    let (server, _database) = ready();
    let root = server.root();
    let kept = root.credential("r");
    let whole = fs::read(saved(&server, "one.snap")).unwrap();
    for path in [PATH, FORCE] {
        for at in (0..whole.len()).step_by(4_096).skip(1) {
            send(&root, path, &whole[..at]).assert_error_has(400, "the snapshot is refused: ");
            let mut turned = whole.clone();
            turned[at] ^= 0x20;
            send(&root, path, &turned).assert_error_has(400, "the snapshot is refused: ");
        }
        send(&root, path, b"").assert_error(400, "the request has no body: send the snapshot as it is");
        send(&root, path, b"{}").assert_error_has(400, "the snapshot is refused: it is not a snapshot");
        send(&root, path, &[whole.as_slice(), b"x"].concat()).assert_error_has(400, "behind its end");
    }
    assert!(!is_sealed(&server) && root.has_lease(&kept.lease));
}

/// The bytes are sealed, so that reading needs no more than it does in Vault; replacing everything needs `sudo`.
#[test]
fn who_may_save_and_who_may_restore() {
    let server = Server::durable(&Durable::default());
    let whole = fs::read(saved(&server, "one.snap")).unwrap();
    let reader = server.with_policy("backup", &format!("path \"{PATH}\" {{ capabilities = [\"read\"] }}"));
    let answer = reader.get(PATH).assert_status(200);
    assert_eq!(answer.header("content-type"), Some("application/gzip"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
    let writer = server.with_policy("writer", &format!("path \"{PATH}*\" {{ capabilities = [\"read\", \"update\"] }}"));
    for client in [&reader, &writer] {
        for path in [PATH, FORCE] {
            send(client, path, &whole).assert_multi(403, "permission denied");
        }
    }
    for path in [PATH, FORCE] {
        send(&server.nobody(), path, &whole).assert_error(403, "permission denied");
        // Larger than what is read of a client without a right, and sent all the same.
        send(&server.as_token("s.nobody"), path, &vec![7; 3 << 20]).assert_error(403, "permission denied");
    }
    server.nobody().get(PATH).assert_error(403, "permission denied");
    server
        .with_policy("none", "path \"x\" { capabilities = [\"read\"] }")
        .get(PATH)
        .assert_multi(403, "permission denied");
    assert!(!is_sealed(&server));
    let operator =
        server.with_policy("restore", &format!("path \"{PATH}\" {{ capabilities = [\"update\", \"sudo\"] }}"));
    send(&operator, PATH, &whole).assert_status(204);
    assert!(is_sealed(&server));
    send(&server.nobody(), PATH, &whole).assert_error(503, "Vault is sealed");
    server.nobody().get(PATH).assert_error(503, "Vault is sealed");
}

#[test]
fn audit_records_the_request_and_never_the_bytes() {
    let server = Server::durable(&Durable::default());
    let root = server.root();
    let path = server.home().join("audit/audit.log");
    root.put("sys/audit/file", json!({ "type": "file", "options": { "file_path": path } })).assert_status(204);
    let whole = fs::read(saved(&server, "one.snap")).unwrap();
    send(&root, PATH, &whole).assert_status(204);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str, operation: &str| {
        let is_it = |line: &&Value| {
            line["type"] == kind && line["request"]["operation"] == operation && line["request"]["path"] == PATH
        };
        lines.iter().filter(is_it).count()
    };
    for (operation, count) in [("read", 1), ("update", 1)] {
        assert_eq!((of("request", operation), of("response", operation)), (count, count), "{operation}\n{text}");
    }
    assert!(text.contains(&format!("\"body_bytes\":{}", whole.len())) && text.len() < 100_000, "{text}");
}

/// While it is saved, credentials come and go; each that was acknowledged before it began is in it.
#[test]
fn a_snapshot_under_load_is_of_one_moment() {
    let (server, database) = ready();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (root, stop) = (server.root(), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let credential = root.credential("r");
                    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
                }
            })
        })
        .collect();
    let mut kept = Vec::new();
    for round in 0..4 {
        kept.push(server.root().credential("r"));
        saved(&server, &format!("{round}.snap"));
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    for round in (0..4).rev() {
        server.cli().run(&["operator", "raft", "snapshot", "restore", &format!("{round}.snap")]).assert_status(0);
        server.unseal();
        let root = server.root();
        for (n, credential) in kept.iter().enumerate() {
            assert_eq!(root.has_lease(&credential.lease), n <= round, "credential {n} in snapshot {round}");
        }
    }
    assert!(kept.iter().all(|credential| database.has_role(&credential.user)));
}

/// SIGKILL somewhere in the middle of a restore: the one or the other store, never a part of both.
#[test]
fn a_restore_that_is_killed_leaves_the_old_store_or_the_new_one() {
    let server = Server::durable(&Durable::default());
    let root = server.root();
    root.post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    let value = "v".repeat(4_000);
    for n in 0..400 {
        root.post(&format!("kv/old/{n}"), json!({ "x": value })).assert_status(204);
    }
    let whole = fs::read(saved(&server, "one.snap")).unwrap();
    root.delete("kv/old/0").assert_status(204);
    for n in 0..3 {
        root.post(&format!("kv/new/{n}"), json!({ "x": "1" })).assert_status(204);
    }
    let mut seen = [0, 0];
    for round in 0..12 {
        let (sender, bytes) = (server.root(), whole.clone());
        let sending = thread::spawn(move || {
            // The server may be gone before it answers.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send(&sender, PATH, &bytes))).is_ok()
        });
        thread::sleep(Duration::from_millis(15 * round));
        server.kill();
        let _ = sending.join();
        server.start();
        server.unseal();
        let root = server.root();
        let is_new = root.get("kv/new/0").status == 404;
        let wanted = if is_new { 200 } else { 404 };
        root.get("kv/old/0").assert_status(wanted);
        for n in 1..400 {
            root.get(&format!("kv/old/{n}")).assert_status(200);
        }
        for n in 0..3 {
            root.get(&format!("kv/new/{n}")).assert_status(if is_new { 404 } else { 200 });
        }
        seen[usize::from(is_new)] += 1;
        if is_new {
            root.delete("kv/old/0").assert_status(204);
            for n in 0..3 {
                root.post(&format!("kv/new/{n}"), json!({ "x": "1" })).assert_status(204);
            }
        }
    }
    println!("{} times the old store, {} times the new one", seen[0], seen[1]);
}

#[test]
fn a_file_is_inspected_without_a_server() {
    let (server, _database) = ready();
    server.root().credential("r");
    let file = saved(&server, "one.snap");
    let cli = server.cli();
    server.kill();
    for words in ["operator snapshot inspect", "operator raft snapshot inspect"] {
        let table = cli.line(&format!("{words} one.snap")).assert_status(0);
        assert!(table.row("ID").starts_with("leasehold-"), "{table}");
        assert_eq!(table.row("Version"), "1");
        assert!(table.row("lease/database").starts_with("1 "), "{table}");
        let told: Value =
            serde_json::from_str(&cli.line(&format!("{words} -format=json one.snap")).assert_status(0).stdout).unwrap();
        assert_eq!(told["Storage"], "sqlite");
        let count: u64 = told["KVDetails"].as_array().unwrap().iter().map(|one| one["Count"].as_u64().unwrap()).sum();
        assert_eq!(Some(count), told["Values"].as_u64().zip(told["Leases"].as_u64()).map(|(a, b)| a + b));
    }
    cli.line("operator snapshot inspect -details=false one.snap").assert_status(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(cli.home().join("bad.snap"), bytes).unwrap();
    cli.line("operator snapshot inspect bad.snap")
        .assert_status(1)
        .assert_stderr("Error inspecting the snapshot bad.snap: ");
    cli.line("operator snapshot inspect none.snap").assert_status(1).assert_stderr("No such file");
    cli.line("operator snapshot inspect").assert_status(1);
}

#[test]
fn wrong_usage_is_said_and_a_failed_save_leaves_the_backup_of_before() {
    let server = Server::durable(&Durable::default());
    let cli = server.cli();
    let before = fs::read(saved(&server, "one.snap")).unwrap();
    for (line, status, said) in [
        ("operator snapshot save", 1, "Not enough arguments (expected 1, got 0)"),
        ("operator snapshot save a b", 1, "Too many arguments (expected 1, got 2)"),
        ("operator snapshot save none/x.snap", 1, "none/x.snap.part: No such file"),
        ("operator snapshot restore none.snap", 1, "none.snap is not a file"),
        ("operator snapshot restore", 1, "Not enough arguments"),
        ("operator raft list-peers", 1, "there is no cluster of Raft"),
    ] {
        cli.line(line).assert_status(status).assert_stderr(said);
    }
    cli.with_token("s.wrong")
        .line("operator snapshot save one.snap")
        .assert_status(2)
        .assert_stderr("permission denied");
    assert_eq!(fs::read(cli.home().join("one.snap")).unwrap(), before);
    assert!(!cli.home().join("one.snap.part").exists());
    cli.line("operator snapshot save -output-curl-string x").assert_stdout("/v1/sys/storage/raft/snapshot");
    cli.line("operator snapshot restore -output-policy -force one.snap").assert_stdout(FORCE);
    let told = cli.line("operator snapshot save -format=json two.snap").assert_status(0);
    assert!(serde_json::from_str::<Value>(&told.stdout).unwrap()["bytes"].as_u64() > Some(500), "{told}");
}

/// The jobs that people have: OpenBao's own client saves and restores our snapshot, and curl saves one.
#[test]
fn the_clients_of_existing_backup_jobs_work() {
    let Some(bao) = Bao::find("snapshots with OpenBao's client") else { return };
    let (server, _database) = ready();
    let kept = server.root().credential("r");
    let home = server.cli().home().to_owned();
    let cli = crate::support::Cli::new(&bao.program, server.address(), &home, Some(&server.root_token()));
    cli.line("operator raft snapshot save bao.snap").assert_status(0);
    let url = format!("http://{}/v1/{PATH}", server.address());
    let token = format!("X-Vault-Token: {}", server.root_token());
    let curl = Command::new("curl").args(["-sf", "-o", "curl.snap", "-H", &token, &url]).current_dir(&home).status();
    assert!(curl.unwrap().success());
    for file in ["bao.snap", "curl.snap"] {
        cli.run(&["operator", "raft", "snapshot", "restore", file]).assert_status(0);
        assert!(is_sealed(&server));
        server.unseal();
        assert!(server.root().has_lease(&kept.lease));
    }
}

/// A store in memory has no other backup.
#[test]
fn a_development_server_is_saved_and_restored() {
    let server = Server::dev();
    let root = server.root();
    root.put("sys/policies/acl/before", json!({ "policy": "path \"x\" { capabilities = [\"read\"] }" }))
        .assert_status(204);
    let whole = fs::read(saved(&server, "one.snap")).unwrap();
    root.delete("sys/policies/acl/before").assert_status(204);
    send(&root, PATH, &whole).assert_status(204);
    eventually("it is sealed", || is_sealed(&server));
}
