//! Audit devices that fail, block, or are meant to be got round.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::audit::{Full, audited, records};
use crate::support::{Database, Durable, Server, eventually};

/// Whoever may enable devices cannot look into what the operator's device writes, nor keep records from it.
#[test]
fn a_declared_device_cannot_be_got_round() {
    let settings = "audit \"file\" \"declared\" {\n  options = { file_path = \"audit/declared.log\" }\n}\n";
    let server = Server::durable(&Durable { settings: settings.to_owned(), ..Durable::default() });
    let file = server.home().join("audit/declared.log");
    let root = server.root();
    let asked = |options: Value| root.put("sys/audit/second", json!({ "type": "file", "options": options }));
    asked(json!({ "file_path": file })).assert_error_has(400, "another audit device writes to ");
    asked(json!({ "file_path": file, "mode": "0777", "log_raw": "true" }))
        .assert_error_has(400, "log_raw cannot be set");
    asked(json!({ "file_path": file, "mode": "0777" })).assert_error_has(400, "mode must not let others");
    asked(json!({ "file_path": file, "mode": "0660" })).assert_error_has(400, "another audit device writes to ");
    asked(json!({ "file_path": "other.log", "mode": "0644" })).assert_error_has(400, "mode must not let others");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    asked(json!({ "file_path": "discard" })).assert_status(204);
    let full = Full::of(&file);
    full.leave(0);
    root.get("sys/mounts").assert_error_has(500, "internal error, request id ");
    drop(full);
    root.get("sys/mounts").assert_status(200);
}

#[test]
fn records_stay_parseable_after_a_disk_was_full() {
    let (server, file) = audited();
    let full = Full::of(&file);
    // Half of a record fits. What is left of it is put at the end of a file that can be read.
    full.leave(60);
    server.root().get("sys/mounts").assert_error_has(500, "internal error, request id ");
    drop(full);
    let torn = fs::read_to_string(&file).unwrap() + "{\"time\":\"2026-";
    // Room is made, and the file is opened again: by a signal, and by a restart.
    for open_again in [(|server: &Server| server.signal(Signal::HUP)) as fn(&Server), |server| {
        server.terminate();
        server.start();
        server.unseal();
    }] {
        let fresh = file.with_extension("fresh");
        fs::write(&fresh, &torn).unwrap();
        fs::rename(&fresh, &file).unwrap();
        open_again(&server);
        eventually("records go to the file that is there now", || {
            server.root().get("sys/policy").assert_status(200);
            fs::read_to_string(&file).unwrap().contains("sys/policy\"")
        });
        let text = fs::read_to_string(&file).unwrap();
        let torn_lines = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).collect::<Vec<_>>();
        assert_eq!(torn_lines, ["{\"time\":\"2026-"], "nothing is glued to the half line");
    }
}

/// Standard output that is open, and that nobody reads: a write to it blocks when some 64 KiB are in it.
struct Unread {
    path: PathBuf,
    _held: File,
}

impl Unread {
    fn of(server: &Server) -> Self {
        server.terminate();
        let path = server.home().join("stdout.log");
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        server.start();
        server.unseal();
        Self { path, _held: held }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Whoever reads the logs must not wait for ever.
        let _ = fs::remove_file(&self.path);
    }
}

fn threads(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/task", server.process_id().unwrap())).unwrap().count()
}

#[test]
fn a_device_that_nobody_reads_holds_up_nobody() {
    let settings = "audit \"file\" \"kept\" {\n  options = { file_path = \"audit/kept.log\" }\n}\n\
                    audit \"file\" \"out\" {\n  options = { file_path = \"stdout\" }\n}\n";
    let server = Server::durable(&Durable { settings: settings.to_owned(), ..Durable::default() });
    let unread = Unread::of(&server);
    let kept = server.home().join("audit/kept.log");
    let root = server.root();
    let before = threads(&server);
    // More than the pipe holds, many at a time.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    root.get("sys/mounts").assert_status(200);
                }
            });
        }
    });
    assert!(
        fs::read_to_string(server.home().join("stderr.log")).unwrap().contains("did not take a record within"),
        "it is said"
    );
    let after = threads(&server);
    assert!(after <= before + 24, "{before} threads became {after}");
    let recorded = records(&kept).iter().filter(|line| line["request"]["path"] == "sys/mounts").count();
    assert_eq!(recorded, 2 * 8 * 40, "the healthy device has everything");
    root.get("sys/metrics?format=prometheus").assert_status(200);
    assert_eq!(server.terminate(), Some(0));
    drop(unread);
}

#[test]
fn a_stuck_device_alone_stops_requests_and_nothing_else() {
    let settings = "audit \"file\" \"out\" {\n  options = { file_path = \"stdout\" }\n}\n";
    let server = Server::durable(&Durable { settings: settings.to_owned(), ..Durable::default() });
    let database = Database::fresh();
    server.connect(&database);
    server.role("brief", json!({ "default_ttl": "25s" }));
    let unread = Unread::of(&server);
    let credential = server.root().credential("brief");
    let begun = std::time::Instant::now();
    while server.root().get("sys/mounts").status == 200 {
        assert!(begun.elapsed().as_secs() < 60, "the pipe is never full");
    }
    let before = threads(&server);
    for _ in 0..50 {
        server.root().get("sys/mounts").assert_error_has(500, "internal error, request id ");
    }
    assert!(threads(&server) <= before + 24);
    server.nobody().get("sys/health").assert_status(200);
    eventually("the expired role is gone", || !database.has_role(&credential.user));
    server.signal(Signal::HUP);
    assert_eq!(server.terminate(), Some(0));
    drop(unread);
}
