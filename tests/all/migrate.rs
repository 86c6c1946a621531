//! `operator migrate`: from one storage to another, refused while a server uses either, killed anywhere and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use leasehold_devpg::{DevPg, Options};
use serde_json::{Value, json};

use crate::support::{Cli, Database, Durable, Server, under_test};

fn sqlite(path: &Path) -> String {
    format!("\"sqlite\" {{\n  path = \"{}\"\n}}", path.display())
}

fn postgresql(store: &DevPg) -> String {
    format!("\"postgresql\" {{\n  connection_url = \"{}?sslmode=disable\"\n}}", store.superuser_url())
}

/// The file of a migration, and what runs it.
struct Migration {
    folder: tempfile::TempDir,
}

impl Migration {
    fn new(from: &str, to: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m.hcl"), format!("storage_source {from}\nstorage_destination {to}\n")).unwrap();
        Self { folder }
    }

    fn cli(&self) -> Cli {
        Cli::new(&under_test(), "127.0.0.1:1", self.folder.path(), None)
    }

    /// Dies at a point, if one is named.
    fn start(&self, point: &str) -> Child {
        Command::new(under_test())
            .args(["operator", "migrate", "-config=m.hcl"])
            .current_dir(self.folder.path())
            .env("LEASEHOLD_FAIL_POINT", point)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn report(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A2: there and back, and the credentials of before renew and end.
#[test]
fn everything_moves_to_postgresql_and_back() {
    let (server, database) = (Server::durable(&Durable::default()), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let credentials: Vec<_> = (0..3).map(|_| server.root().credential("r")).collect();
    let file = server.home().join("leasehold.db");
    let store = DevPg::start(Options::default()).unwrap();

    let there = Migration::new(&sqlite(&file), &postgresql(&store));
    there.cli().line("operator migrate -config=m.hcl").assert_status(1).assert_stderr("is in use by another server");
    server.terminate();
    let told = report(&there.cli().line("operator storage migrate -config=m.hcl -format=json").assert_status(0).stdout);
    // The root token has a row of its own.
    assert!(told["leases"].as_u64() >= Some(3), "{told}");
    // Once more: it is not empty now.
    there.cli().line("operator migrate -config=m.hcl").assert_status(1).assert_stderr("the destination is not empty");
    there.cli().line("operator migrate -config=m.hcl -reset").assert_status(0).assert_stdout("Nothing to reset");

    server.write_config_with("", &format!("storage {}", postgresql(&store)));
    server.start();
    server.unseal();
    let root = server.root();
    root.put("sys/leases/renew", json!({ "lease_id": credentials[0].lease })).assert_status(200);
    root.put("sys/leases/revoke", json!({ "lease_id": credentials[1].lease })).assert_status(204);
    assert!(!database.has_role(&credentials[1].user));
    let new = root.credential("r");

    let other = file.with_file_name("back.db");
    let back = Migration::new(&postgresql(&store), &sqlite(&other));
    back.cli().line("operator migrate -config=m.hcl").assert_status(1).assert_stderr("in use by another server");
    server.terminate();
    back.cli()
        .line("operator migrate -config=m.hcl")
        .assert_status(0)
        .assert_stdout("Success! Moved ")
        .assert_stdout("Both hold the same: SHA-256 ");
    server.write_config_with("", &format!("storage {}", sqlite(&other)));
    server.start();
    server.unseal();
    let root = server.root();
    assert!(!root.has_lease(&credentials[1].lease));
    for credential in [&credentials[0], &credentials[2], &new] {
        credential.login(&database);
        root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
        assert!(!database.has_role(&credential.user));
    }
}

/// A server that has stored values of several megabytes, and has ended.
fn filled() -> Server {
    let server = Server::durable(&Durable::default());
    server.root().post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    let value = "v".repeat(8_000);
    for n in 0..300 {
        server.root().post(&format!("kv/{n}"), json!({ "x": value })).assert_status(204);
    }
    server.terminate();
    server
}

/// A2: killed after its first group, and before the comparison: what is written stays, and the next try writes the rest.
#[test]
fn a_migration_that_is_killed_goes_on_where_it_was() {
    let server = filled();
    let file = server.home().join("leasehold.db");
    let store = DevPg::start(Options::default()).unwrap();
    let mut whole: Option<Value> = None;
    for point in ["migrate-group", "migrate-copied"] {
        for to in [sqlite(&server.home().join(format!("{point}.db"))), postgresql(&store)] {
            let migration = Migration::new(&sqlite(&file), &to);
            let ended = migration.start(point).wait().unwrap();
            assert!(!ended.success() && ended.code().is_none(), "{point}: it ends by a signal: {ended}");
            server.write_config_with("", &format!("storage {to}"));
            let refused = Command::new(under_test())
                .args(["server", "-config=server.hcl"])
                .current_dir(server.home())
                .output()
                .unwrap();
            // On PostgreSQL the one that was killed still counts for a moment; that is refused as well.
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success(), "{refused:?}");
            assert!(said.contains("it was to be filled from") || said.contains("in use by another server"), "{said}");
            let told =
                report(&migration.cli().line("operator migrate -config=m.hcl -format=json").assert_status(0).stdout);
            let number = |name: &str| told[name].as_u64().unwrap();
            let (all, found) = (number("values") + number("leases"), number("found"));
            assert_eq!(told["began_again"], false, "{told}");
            if point == "migrate-copied" {
                assert_eq!(found, all, "{told}");
            } else {
                assert!(found > 0 && found < all / 2, "{told}");
            }
            assert_eq!(told["sha256"], *whole.get_or_insert_with(|| told["sha256"].clone()), "{told}");
            server.start();
            server.unseal();
            server.root().get("kv/299").assert_status(200);
            server.terminate();
        }
        // Empty again for the next round.
        store.psql("drop schema public cascade; create schema public").unwrap();
    }
}

/// SIGKILL anywhere: a server takes the destination for empty, or refuses it, or it is whole. Started again, it comes to its end.
#[test]
fn a_migration_that_is_killed_anywhere_comes_to_its_end() {
    let server = filled();
    let file = server.home().join("leasehold.db");
    let store = DevPg::start(Options::default()).unwrap();
    let mut whole: Option<Value> = None;
    for round in 0..14_u64 {
        let to_file = round.is_multiple_of(2);
        let target = server.home().join(format!("to{round}.db"));
        let to = if to_file {
            sqlite(&target)
        } else {
            format!(
                "\"postgresql\" {{\n  connection_url = \"{}?sslmode=disable\"\n  table = \"to{round}\"\n}}",
                store.superuser_url()
            )
        };
        let migration = Migration::new(&sqlite(&file), &to);
        let mut child = migration.start("");
        thread::sleep(Duration::from_millis(40 + 30 * round));
        let _ = child.kill();
        let _ = child.wait();
        let again = migration.cli().line("operator migrate -config=m.hcl -format=json");
        if again.status != 0 {
            // It had come to its end before it was killed.
            assert!(again.stderr.contains("the destination is not empty"), "{again}");
            continue;
        }
        let told = report(&again.stdout);
        let digest = whole.get_or_insert_with(|| told["sha256"].clone());
        assert_eq!(told["sha256"], *digest, "{told}");
        server.write_config_with("", &format!("storage {to}"));
        server.start();
        server.unseal();
        server.root().get("kv/299").assert_status(200);
        server.terminate();
    }
}

/// What was copied and not compared yet is no storage for a server.
#[test]
fn a_server_refuses_a_storage_that_is_not_whole() {
    let server = Server::durable(&Durable::default());
    server.terminate();
    let store = DevPg::start(Options::default()).unwrap();
    let migration = Migration::new(&sqlite(&server.home().join("leasehold.db")), &postgresql(&store));
    migration.cli().line("operator migrate -config=m.hcl").assert_status(0);
    // As it is between its copy and its comparison.
    store.psql("insert into leasehold_kv values ('unfinished', 'sqlite /old.db', 1)").unwrap();
    server.write_config_with("", &format!("storage {}", postgresql(&store)));
    let started =
        Command::new(under_test()).args(["server", "-config=server.hcl"]).current_dir(server.home()).output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && said.contains("it was to be filled from sqlite /old.db"), "{said}");
    assert!(said.contains("operator migrate"), "{said}");
    migration
        .cli()
        .line("operator migrate -config=m.hcl")
        .assert_status(0)
        .assert_stdout("An earlier try had not come to its end; this one began again.");
    store.psql("insert into leasehold_kv values ('unfinished', 'x', 1)").unwrap();
    migration.cli().line("operator migrate -config=m.hcl -reset").assert_status(0).assert_stdout("Success! Emptied");
    assert_eq!(store.psql("select count(*) from leasehold_kv").unwrap().trim(), "0");
    migration.cli().line("operator migrate -config=m.hcl").assert_status(0);
    server.start();
    server.unseal();
}

#[test]
fn wrong_flags_and_files_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    fs::write(at("empty.hcl"), "").unwrap();
    let both = |from: &str, to: &str| format!("storage_source {from}\nstorage_destination {to}\n");
    let none = sqlite(&at("none.db"));
    fs::write(at("none.hcl"), both(&none, &sqlite(&at("to.db")))).unwrap();
    fs::write(at("same.hcl"), both(&none, &none)).unwrap();
    let url = "\"postgresql\" {\n  connection_url = \"postgres://u:secretword@127.0.0.1:1/d?sslmode=disable\"\n  max_connect_retries = 0\n}";
    fs::write(at("down.hcl"), both(url, &sqlite(&at("to.db")))).unwrap();
    let cli = Cli::new(&under_test(), "127.0.0.1:1", folder.path(), None);
    for (flags, said) in [
        ("", "say -config=FILE, or -from and -to"),
        ("-config=missing.hcl", "could not read missing.hcl"),
        (
            "-config=empty.hcl",
            "empty.hcl is not a configuration of a migration:\n  empty.hcl: line 1: no `storage_source`",
        ),
        ("-config=none.hcl", "none.db): there is no such file"),
        ("-config=same.hcl", "source and destination are the same storage"),
        ("-config=none.hcl -start=sys/", "-start is not supported"),
        ("-config=none.hcl -from=a -to=b", "do not go together"),
        ("-from=a", "--to"),
        ("-from=mysql://u:secretword@h/d -to=b", "take a file of SQLite or a postgres:// URL"),
        ("-config=none.hcl -log-level=loud", "unknown log level `loud`"),
        ("-config=down.hcl", "could not be reached"),
    ] {
        let ran = cli.line(&format!("operator migrate {flags}")).assert_status(1).assert_stderr(said);
        assert!(!ran.stderr.contains("secretword"), "{ran}");
    }
    assert!(!at("to.db").exists() && !at("none.db").exists(), "nothing is made before the source is known to be there");
    // The two ends without a file.
    let server = Server::durable(&Durable::default());
    server.terminate();
    let from = server.home().join("leasehold.db");
    let line =
        format!("operator migrate -from={} -to=sqlite://{} -max-parallel=4", from.display(), at("moved.db").display());
    cli.line(&line).assert_status(0).assert_stdout("Success! Moved ");
    cli.line(&format!("operator migrate -from={} -to=x.db", at("to.db").display())).assert_status(1);
}
