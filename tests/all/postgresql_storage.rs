//! The server on `storage "postgresql"`: the guide's way, a crash, a store that is away, PgBouncer.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Options, Stop};
use serde_json::json;

use crate::support::{Database, Durable, Server, eventually, own_postgresql};

pub(crate) fn url(store: &DevPg) -> String {
    format!("{}?sslmode=disable", store.superuser_url())
}

pub(crate) fn server_on(url: &str) -> Server {
    let server = Server::prepared(&Durable::default());
    server.write_config_with("", &format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}"));
    server.start();
    server.init(1, 1);
    server.unseal();
    server
}

fn issue_and_revoke(server: &Server, database: &Database<'_>) {
    server.connect(database);
    server.role("r", json!({}));
    let root = server.root();
    let (kept, revoked) = (root.credential("r"), root.credential("r"));
    root.put("sys/leases/revoke", json!({ "lease_id": revoked.lease })).assert_status(204);
    assert!(!database.has_role(&revoked.user) && database.has_role(&kept.user));

    server.kill();
    server.start();
    server.unseal();
    let root = server.root();
    assert!(root.has_lease(&kept.lease), "an acknowledged lease outlives kill -9");
    assert!(!root.has_lease(&revoked.lease));
    root.put("sys/leases/renew", json!({ "lease_id": kept.lease })).assert_status(200);
    root.put("sys/leases/revoke", json!({ "lease_id": kept.lease })).assert_status(204);
    assert!(!database.has_role(&kept.user));
}

#[test]
fn credentials_are_leased_and_outlive_a_crash_of_the_server() {
    let store = DevPg::start(Options::default()).unwrap();
    let postgresql = own_postgresql();
    let server = server_on(&url(&store));
    server.nobody().get("sys/seal-status").assert_at("/storage_type", "postgresql");
    issue_and_revoke(&server, &Database::first_of(&postgresql));
    let stored = store.psql("select encode(value, 'escape') from leasehold_kv").unwrap();
    assert!(!stored.contains("rootpassword"), "values are sealed");
}

/// A3: needs the store → 503 that says so; needs it not → served.
#[test]
fn a_store_that_is_away_stops_what_needs_it_and_comes_back_without_a_restart() {
    let store = DevPg::start(Options::default()).unwrap();
    let server = server_on(&url(&store));
    let root = server.root();
    root.post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    root.post("kv/a", json!({ "x": "1" })).assert_status(204);
    store.stop(Stop::Immediate).unwrap();
    for _ in 0..3 {
        let begun = Instant::now();
        root.get("kv/a").assert_error_has(503, "the storage is unavailable, try again; request id ");
        assert!(begun.elapsed() < Duration::from_secs(3), "told after {:?}", begun.elapsed());
        server.nobody().get("sys/health").assert_status(200);
    }
    store.start_again().unwrap();
    eventually("the store is back", || root.get("kv/a").status == 200);
    root.post("kv/b", json!({ "x": "2" })).assert_status(204);
}

/// PgBouncer ends with the test.
struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pooler(store: &DevPg, home: &Path) -> (Pooler, u16) {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
    let program = program.expect("PgBouncer is not installed: host/xtask/bootstrap.sh installs it");
    let port = crate::support::free_port();
    let password = store.superuser_url();
    let login = password.strip_prefix("postgresql://").and_then(|rest| rest.split_once('@')).unwrap().0;
    let (user, password) = login.split_once(':').unwrap();
    fs::write(home.join("users.txt"), format!("\"{user}\" \"{password}\"\n")).unwrap();
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {home}/users.txt\npool_mode = transaction\n\
         default_pool_size = 3\nserver_lifetime = 1\nlogfile = {home}/pgbouncer.log\npidfile = {home}/pgbouncer.pid\n",
        store.port(),
        home = home.display()
    );
    fs::write(home.join("pgbouncer.ini"), settings).unwrap();
    fs::set_permissions(home, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(program);
    // It refuses to run as root.
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        command.args(["-u", "nobody"]);
    }
    command.arg(home.join("pgbouncer.ini")).stdout(Stdio::null()).stderr(Stdio::null());
    let pooler = Pooler(command.spawn().unwrap());
    eventually("PgBouncer listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (pooler, port)
}

/// A1: three connections for everybody, each closed after a second, no state kept on any.
#[test]
fn pgbouncer_in_transaction_mode_may_stand_before_the_store() {
    let store = DevPg::start(Options::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (_pooler, port) = pooler(&store, home.path());
    let postgresql = own_postgresql();
    let through = url(&store).replace(&format!(":{}/", store.port()), &format!(":{port}/"));
    issue_and_revoke(&server_on(&through), &Database::first_of(&postgresql));
}

/// The most memory that the server has had since this was called last, in KiB.
fn peak(server: &Server) -> u64 {
    let process = format!("/proc/{}", server.process_id().unwrap());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    fs::write(format!("{process}/clear_refs"), "5").unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Values that no server reads, of bytes that cannot be compressed: 20,000 of 2 KiB.
const MANY: &str = "insert into leasehold_kv select convert_to('mount/none/' || n, 'UTF8'), \
                    (select string_agg(sha512(convert_to(n || ' ' || part, 'UTF8')), '') from generate_series(1, 32) part), 1 \
                    from generate_series(1, 20000) n";

/// A2: a snapshot of 40 MiB is made and restored in little memory, and by way of PgBouncer in transaction mode.
#[test]
fn a_large_snapshot_takes_little_memory_and_goes_through_pgbouncer() {
    let store = DevPg::start(Options::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (_pooler, port) = pooler(&store, home.path());
    let server = server_on(&url(&store).replace(&format!(":{}/", store.port()), &format!(":{port}/")));
    server.root().post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    server.root().post("kv/before", json!({ "x": "1" })).assert_status(204);
    store.psql(MANY).unwrap();
    peak(&server);
    let idle = peak(&server);
    let cli = server.cli();
    cli.line("operator snapshot save one.snap").assert_status(0);
    let size = fs::metadata(cli.home().join("one.snap")).unwrap().len();
    assert!(size > 35 << 20, "{size} bytes: it is not large");
    let saving = peak(&server);
    server.root().post("kv/after", json!({ "x": "1" })).assert_status(204);
    store.psql("delete from leasehold_kv where key >= 'mount/none/1' and key < 'mount/none/2'").unwrap();
    cli.line("operator snapshot restore one.snap").assert_status(0).assert_stdout("The server is sealed now");
    let restoring = peak(&server);
    for (what, peak) in [("saving", saving), ("restoring", restoring)] {
        let more = peak.saturating_sub(idle) >> 10;
        assert!(more < 24, "{what} 40 MiB took {more} MiB more than the {} MiB of before", idle >> 10);
    }
    server.unseal();
    server.root().get("kv/before").assert_status(200);
    server.root().get("kv/after").assert_errors(404, &[]);
    assert_eq!(
        store
            .psql("select count(*) from leasehold_kv where key >= 'mount/none/' and key < 'mount/none0'")
            .unwrap()
            .trim(),
        "20000"
    );
}

/// A2: the store goes away, or stands still, in the middle of a restore: it holds what it held, and the answer says so.
#[test]
fn a_store_that_goes_away_in_the_middle_of_a_restore_holds_what_it_held() {
    let store = DevPg::start(Options::default()).unwrap();
    let server = server_on(&url(&store));
    server.root().post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    store.psql(MANY).unwrap();
    let cli = server.cli();
    cli.line("operator snapshot save one.snap").assert_status(0);
    server.root().post("kv/after", json!({ "x": "1" })).assert_status(204);
    store.psql("delete from leasehold_kv where key = 'mount/none/7'").unwrap();
    for hangs in [false, true] {
        std::thread::scope(|scope| {
            let restoring = scope.spawn(|| cli.line("operator snapshot restore one.snap"));
            eventually("rows are being written", || {
                let asked = "select count(*) from pg_stat_activity where query like 'insert into %leasehold_kv%select * from unnest%'";
                store.psql(asked).unwrap().trim() != "0"
            });
            if hangs {
                store.pause().unwrap();
            } else {
                store.stop(Stop::Immediate).unwrap();
            }
            let ran = restoring.join().unwrap();
            assert!(ran.status != 0, "{ran}");
            assert!(ran.stderr.contains("the storage failed while the snapshot was being restored"), "{ran}");
            assert!(ran.stderr.contains("this server is sealed"), "{ran}");
        });
        server.nobody().get("sys/health").assert_status(503);
        if hangs {
            store.resume().unwrap();
        } else {
            store.start_again().unwrap();
        }
        eventually("it can be unsealed again", || {
            let body = json!({ "key": server.shares()[0] });
            server.nobody().put("sys/unseal", body).status == 200 && server.root().get("kv/after").status == 200
        });
        let count =
            store.psql("select count(*) from leasehold_kv where key >= 'mount/none/' and key < 'mount/none0'").unwrap();
        assert_eq!(count.trim(), "19999", "hangs: {hangs}");
    }
    // And once more, with the store there.
    cli.line("operator snapshot restore one.snap").assert_status(0);
    server.unseal();
    server.root().get("kv/after").assert_errors(404, &[]);
}
