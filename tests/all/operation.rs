//! Running the server: its configuration, its signals, and one server for one file.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use crate::support::{Client, Durable, Pair, Pairs, Server, eventually, free_port};

#[test]
fn health_and_leader_answer_without_a_token() {
    let server = Server::dev();
    let nobody = server.nobody();
    let health = nobody.get("sys/health").assert_status(200).assert_at("/sealed", false).assert_at("/standby", false);
    assert!(health.number("/server_time_utc") > 1_700_000_000, "{health}");
    let version = health.text("/version");
    let numbers: Vec<u32> = version.split(['.', '+', '-']).take(3).filter_map(|n| n.parse().ok()).collect();
    assert!(numbers.len() == 3 && (numbers[0], numbers[1]) >= (1, 10), "clients gate features on it: {version}");
    nobody.get("sys/health?activecode=204").assert_status(204);
    nobody.get("sys/health?drsecondarycode=299&haunhealhty=299&standbycode=299").assert_status(200);
    nobody.get("sys/health?activecode=abc").assert_errors(400, &[]);
    nobody.post("sys/health", json!({})).assert_errors(405, &[]);
    let leader = nobody.get("sys/leader").assert_status(200);
    assert_eq!(leader.json(), json!({ "ha_enabled": false }));
    let status = nobody.get("sys/seal-status").assert_status(200);
    for key in [
        "type",
        "initialized",
        "sealed",
        "t",
        "n",
        "progress",
        "nonce",
        "recovery_seal",
        "version",
        "build_date",
        "commit_date",
        "migration",
        "cluster_name",
        "cluster_id",
        "storage_type",
    ] {
        assert!(status.json().get(key).is_some(), "{key}: {status}");
    }
}

#[test]
fn a_client_that_wraps_everything_still_sees_how_the_server_is() {
    let server = Server::dev();
    let wrapped =
        |client: &Client, method: &str, path: &str| client.bytes(method, path, b"", &[("X-Vault-Wrap-TTL", "60")]);
    for path in ["sys/health", "sys/seal-status", "sys/leader", "sys/init"] {
        wrapped(&server.nobody(), "GET", path).assert_status(200);
    }
    wrapped(&server.root(), "DELETE", "sys/policies/acl/none").assert_status(204);
    wrapped(&server.root(), "GET", "sys/mounts").assert_status(200).assert_at("/wrap_info/creation_path", "sys/mounts");
    let body = server.root().bytes("DELETE", "sys/policies/acl/none", b"", &[("X-Vault-Wrap-TTL", "abc")]);
    body.assert_error_has(400, "error parsing X-Vault-Wrap-TTL header");
}

#[test]
fn a_second_server_is_kept_out_of_the_file() {
    let server = Server::durable(&Durable::default());
    let program = env!("CARGO_BIN_EXE_leasehold-under-test");
    let text = fs::read_to_string(server.home().join("server.hcl")).unwrap();
    fs::write(server.home().join("second.hcl"), text.replace(server.address(), "127.0.0.1:0")).unwrap();
    let second = std::process::Command::new(program)
        .args(["server", "-config=second.hcl"])
        .current_dir(server.home())
        .output()
        .unwrap();
    assert_ne!(second.status.code(), Some(0), "{second:?}");
    server.root().get("sys/mounts").assert_status(200);
}

/// How a server ends with this configuration and these flags, and what it says.
fn started(folder: &Path, configuration: &str, flags: &[&str]) -> (Option<i32>, String) {
    fs::write(folder.join("server.hcl"), configuration).unwrap();
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_leasehold-under-test"))
        .args(["server", "-config=server.hcl"])
        .args(flags)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    (ran.status.code(), said)
}

/// What a server says that does not start with this configuration.
#[track_caller]
fn refused(folder: &Path, configuration: &str) -> String {
    let (status, said) = started(folder, configuration, &[]);
    assert_eq!(status, Some(1), "{said}");
    said
}

#[test]
fn files_that_cannot_be_used_are_told_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = "storage \"sqlite\" {\n  path = \"x.db\"\n}\n";
    let listener = "listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}\n";
    let audit = |file: &str| {
        let file = folder.path().join(file);
        format!("audit \"file\" \"main\" {{\n  options = {{ file_path = \"{}\" }}\n}}\n", file.display())
    };
    let wrong = format!("{store}{listener}{}", audit("nowhere/audit.log"));
    for flags in [[].as_slice(), &["-check"]] {
        let (status, said) = started(folder.path(), &wrong, flags);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("nowhere/audit.log") && said.contains("No such file or directory"), "{said}");
    }
    let (status, said) =
        started(folder.path(), &format!("ui = true\n{store}{listener}{}", audit("audit.log")), &["-check"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("warning: server.hcl: line 1: `ui` has no effect") && said.contains("would start with"),
        "{said}"
    );
    for made in ["x.db", "audit.log"] {
        assert!(!folder.path().join(made).exists(), "nothing was started: {made}");
    }
}

#[test]
fn a_second_signal_does_not_wait_for_requests_under_way() {
    let server = Server::durable(&Durable::default());
    let mut slow = std::net::TcpStream::connect(server.address()).unwrap();
    slow.write_all(b"PUT /v1/sys/policies/acl/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    eventually("the request has come in", || server.root().get("sys/health").status == 200);
    server.signal(rustix::process::Signal::TERM);
    eventually("it waits", || server.log().contains("another signal stops at once"));
    assert!(!server.has_ended());
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_end(), Some(0));
    assert!(server.log().contains("stopping at once"), "{}", server.log());
}

#[test]
fn a_storage_that_cannot_be_opened_is_told_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("x.db.lock")).unwrap();
    let said = refused(
        folder.path(),
        "storage \"sqlite\" {\n  path = \"x.db\"\n}\nlistener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}\n",
    );
    assert!(said.contains("could not open storage file `x.db.lock`: Is a directory"), "{said}");
}

#[test]
fn a_wrong_configuration_is_refused_with_every_error_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let said = refused(
        directory.path(),
        "storrage \"sqlite\" {\n  path = \"x.db\"\n}\nlistener \"tcp\" {\n  adress = \"127.0.0.1:1\"\n  tls_disable = true\n}\nmax_lease_ttl = \"soon\"\n",
    );
    for part in ["storage", "address", "max_lease_ttl", "5", "8"] {
        assert!(said.contains(part), "`{part}`: {said}");
    }
    assert!(!directory.path().join("x.db").exists());
}

#[test]
fn a_hangup_reloads_and_serves_on() {
    let server = Server::durable(&Durable::default());
    let before = server.process_id();
    server.write_config("log_level = \"debug\"\n");
    server.signal(rustix::process::Signal::HUP);
    eventually("the new level is in force", || server.log().contains("the log level is debug"));
    server.write_config("log_level = \"debug\"\ncluster_name = \"other\"\n");
    server.signal(rustix::process::Signal::HUP);
    eventually("what needs a restart is named", || server.log().contains("`cluster_name` has changed"));
    assert!(!server.log().contains("`listener` has changed"), "{}", server.log());
    server.write_config("nonsense = 1\n");
    server.signal(rustix::process::Signal::HUP);
    eventually("a wrong file is said to be wrong", || server.log().contains("could not reload"));
    server.root().get("sys/mounts").assert_status(200);
    assert_eq!(before, server.process_id());
}

#[test]
fn a_hangup_takes_a_new_certificate_for_new_connections() {
    let server = Server::prepared(&Durable::default());
    let at = format!("127.0.0.1:{}", free_port());
    let listener = |pair: &str| {
        format!(
            "listener \"tcp\" {{\n  address = \"{at}\"\n  tls_cert_file = \"{home}/{pair}.crt\"\n  \
             tls_key_file = \"{home}/{pair}.key\"\n}}\n",
            home = server.home().display()
        )
    };
    let pairs = Pairs::make();
    pairs.write(Pair::First, server.home(), "served");
    server.write_config(&format!("log_level = \"debug\"\n{}", listener("served")));
    server.start();
    let mut before = pairs.open(&at);
    assert_eq!(before.presented(&pairs), Some(Pair::First));

    pairs.write(Pair::Second, server.home(), "served");
    assert_eq!(pairs.presented(&at), Some(Pair::First), "nobody has said so yet");
    server.signal(rustix::process::Signal::HUP);
    let shown = || {
        let opened =
            pairs.try_open(&at).unwrap_or_else(|error| panic!("{error}, and the server says:\n{}", server.log()));
        opened.presented(&pairs)
    };
    eventually("the new certificate is presented", || shown() == Some(Pair::Second));
    assert_eq!(pairs.open(&at).status_of("sys/seal-status"), 200);
    assert_eq!(before.status_of("sys/seal-status"), 200, "a connection that was open goes on");

    // A key that is not the certificate's.
    pairs.write(Pair::First, server.home(), "mixed");
    fs::copy(server.home().join("served.key"), server.home().join("mixed.key")).unwrap();
    server.write_config(&listener("mixed"));
    server.signal(rustix::process::Signal::HUP);
    eventually("what is wrong is said", || server.log().contains("could not reload a certificate"));
    assert_eq!(pairs.presented(&at), Some(Pair::Second));

    pairs.write(Pair::First, server.home(), "elsewhere");
    server.write_config(&listener("elsewhere"));
    server.signal(rustix::process::Signal::HUP);
    eventually("other files are read", || pairs.presented(&at) == Some(Pair::First));
}
