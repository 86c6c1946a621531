//! Listeners as an operator configures them: who is believed about a client's address, TLS, Unix sockets, metrics for
//! everybody, response headers; and what a service manager is told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use crate::support::{Cli, Durable, Server, eventually, free_port, leaf_certificate, under_test};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one more listener on this port, which says this; unsealed, with an audit file.
fn server_with(port: u16, settings: &str) -> Server {
    let server = Server::prepared(&Durable::default());
    server.write_config(&format!(
        "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  {settings}\n}}\n\
         audit \"file\" \"file\" {{\n  options = {{ file_path = \"{}/audit/audit.log\" }}\n}}\n",
        server.home().display()
    ));
    server.start();
    server.init(1, 1);
    server.unseal();
    server
}

fn plain(port: u16, settings: &str) -> Server {
    server_with(port, &format!("tls_disable = true\n  {settings}"))
}

/// Sends these bytes and reads to the end.
fn said(mut stream: impl std::io::Read + std::io::Write, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn request(path: &str, headers: &str) -> String {
    format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n")
}

/// Where the newest request for this path came from, by the audit file.
fn audited_address(server: &Server, path: &str) -> Option<(String, i64)> {
    let text = server.audit_text();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let request = records.rev().find(|record| record["request"]["path"] == path)?["request"].clone();
    Some((request["remote_address"].as_str()?.to_owned(), request["remote_port"].as_i64()?))
}

#[test]
fn a_forwarded_address_is_believed_from_named_proxies_only() {
    let port = free_port();
    let server = plain(port, "x_forwarded_for_authorized_addrs = \"127.0.0.1/32\"\n  x_forwarded_for_hop_skips = 1");
    let token = format!("X-Vault-Token: {}\r\n", server.root_token());
    let ask = |headers: &str| said(connect(port), request("sys/mounts", &format!("{token}{headers}")).as_bytes());
    let answer = ask("X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\nX-Forwarded-For: 10.0.0.1\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(audited_address(&server, "sys/mounts").map(|found| found.0).as_deref(), Some("192.0.2.7"));
    for (headers, text) in [
        ("", "missing x-forwarded-for header and configured to reject when not present"),
        ("X-Forwarded-For: 192.0.2.7\r\n", "hops to skip (1) would skip before earliest chain link (chain length 1)"),
        ("X-Forwarded-For: nobody, 10.0.0.1\r\n", "is not an address"),
    ] {
        let answer = ask(headers);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(text), "{answer}");
    }
    // The other listener believes nobody.
    let answer = server.root().bytes("GET", "sys/mounts", b"", &[("X-Forwarded-For", "192.0.2.8, 192.0.2.9")]);
    answer.assert_status(200);
    assert_eq!(audited_address(&server, "sys/mounts").map(|found| found.0).as_deref(), Some("127.0.0.1"));

    let strangers = free_port();
    let server = plain(strangers, "x_forwarded_for_authorized_addrs = \"10.0.0.0/8\"");
    let answer = said(connect(strangers), request("sys/health", "X-Forwarded-For: 10.0.0.1\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("not authorized for x-forwarded-for"), "{answer}");
    server.nobody().get("sys/health").assert_status(200);
}

#[test]
fn the_proxy_protocol_names_the_client_before_http() {
    let port = free_port();
    let server = plain(
        port,
        "proxy_protocol_behavior = \"deny_unauthorized\"\n  proxy_protocol_authorized_addrs = \"127.0.0.1\"",
    );
    let asked = request("sys/mounts", &format!("X-Vault-Token: {}\r\n", server.root_token()));
    let first = format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 {port}\r\n{asked}");
    assert!(said(connect(port), first.as_bytes()).starts_with("HTTP/1.1 200"));
    assert_eq!(audited_address(&server, "sys/mounts"), Some(("192.0.2.7".to_owned(), 4711)));
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    second.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    second.extend([0; 16]);
    second.extend([0x10, 0x01, 0x20, 0x08]);
    second.extend(asked.as_bytes());
    assert!(said(connect(port), &second).starts_with("HTTP/1.1 200"));
    assert_eq!(audited_address(&server, "sys/mounts"), Some(("2001:db8::7".to_owned(), 4097)));
    assert!(said(connect(port), asked.as_bytes()).starts_with("HTTP/1.1 200"), "a balancer's probe has no header");
    assert_eq!(said(connect(port), b"PROXY TCP4 nonsense\r\n"), "", "closed without a word");

    let strangers = free_port();
    let server = plain(
        strangers,
        "proxy_protocol_behavior = \"deny_unauthorized\"\n  proxy_protocol_authorized_addrs = \"10.0.0.1\"",
    );
    assert_eq!(said(connect(strangers), first.as_bytes()), "");
    server.nobody().get("sys/health").assert_status(200);
}

#[test]
fn metrics_need_no_token_where_the_listener_says_so_and_leave_no_record() {
    let (port, silent) = (free_port(), free_port());
    let server = Server::prepared(&Durable::default());
    server.write_config(&format!(
        "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n  telemetry {{\n    \
         unauthenticated_metrics_access = true\n  }}\n}}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:{silent}\"\n  \
         tls_disable = true\n  telemetry {{\n    disallow_metrics = true\n  }}\n}}\n\
         audit \"file\" \"file\" {{\n  options = {{ file_path = \"{}/audit/audit.log\" }}\n}}\n",
        server.home().display()
    ));
    server.start();
    let scrape = || said(connect(port), request("sys/metrics?format=prometheus", "").as_bytes());
    let is_unsealed = |text: &str, value: &str| {
        text.starts_with("HTTP/1.1 200")
            && text.lines().any(|line| line.starts_with("vault_core_unsealed") && line.ends_with(value))
    };
    assert!(is_unsealed(&scrape(), " 0"), "before init: {}", scrape());
    server.init(1, 1);
    server.unseal();
    assert!(is_unsealed(&scrape(), " 1"), "{}", scrape());
    let unsealed = scrape().lines().filter(|line| line.starts_with("vault_core_unsealed")).count();
    assert_eq!(unsealed, 1, "one series: {}", scrape());
    server.root().put("sys/seal", serde_json::json!({})).assert_status(204);
    eventually("the gauge says sealed", || is_unsealed(&scrape(), " 0"));
    server.unseal();
    assert!(!server.audit_text().contains("sys/metrics"), "{}", server.audit_text());
    let json = said(connect(port), request("sys/metrics", "").as_bytes());
    assert!(json.contains("\"Gauges\""), "{json}");
    server.nobody().get("sys/metrics").assert_status(403);
    let token = format!("X-Vault-Token: {}\r\n", server.root_token());
    assert!(said(connect(silent), request("sys/metrics", &token).as_bytes()).starts_with("HTTP/1.1 404"));
    assert!(said(connect(silent), request("sys/mounts", &token).as_bytes()).starts_with("HTTP/1.1 200"));
}

#[test]
fn response_headers_go_by_status() {
    let port = free_port();
    let server = plain(
        port,
        "custom_response_headers {\n    \"default\" = { \"X-Site\" = [\"a\", \"b\"] }\n    \"4xx\" = { \"X-Site\" = \"denied\" }\n  }",
    );
    let ok = said(connect(port), request("sys/health", "").as_bytes());
    assert!(ok.contains("x-site: a; b\r\n"), "{ok}");
    let denied = said(connect(port), request("sys/mounts", "").as_bytes());
    assert!(denied.contains("x-site: denied\r\n") && !denied.contains("a; b"), "{denied}");
    assert_eq!(server.nobody().get("sys/health").headers.iter().filter(|(name, _)| *name == "x-site").count(), 0);
}

#[test]
fn a_unix_socket_serves_the_api_and_goes_with_the_server() {
    let server = Server::prepared(&Durable::default());
    let socket = server.home().join("api.sock");
    // What a killed server left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    server.write_config(&format!(
        "listener \"unix\" {{\n  address = \"{}\"\n  socket_mode = \"0600\"\n}}\n",
        socket.display()
    ));
    server.start();
    server.init(1, 1);
    server.unseal();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = said(UnixStream::connect(&socket).unwrap(), request("sys/health", "").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let home = server.home().join("person");
    fs::create_dir_all(&home).unwrap();
    let cli = Cli::new(&under_test(), &format!("unix://{}", socket.display()), &home, Some(&server.root_token()));
    let read = cli.run(&["read", "-format=json", "sys/mounts"]);
    assert!(read.stdout.contains("cubbyhole") || read.stdout.contains("\"sys/\""), "{read:?}");
    let curl = cli.run(&["read", "-output-curl-string", "sys/mounts"]);
    let said = format!("{}{}", curl.stdout, curl.stderr);
    assert!(said.contains(&format!("--unix-socket '{}'", socket.display())), "{said}");
    assert_eq!(server.terminate(), Some(0));
    assert!(!socket.exists(), "the socket's file is removed at the end");
}

/// A client that trusts `ca`, speaks these versions and shows `shown`, if any.
fn tls(
    port: u16,
    ca: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
    shown: Option<&Path>,
) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(certificate.with_extension("key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, connect(port));
    stream.write_all(request("sys/health", "").as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn tls_is_as_strict_as_the_listener_says() {
    let folder = tempfile::tempdir().unwrap();
    let served = leaf_certificate(folder.path(), "server");
    let friend = leaf_certificate(folder.path(), "friend");
    let stranger = leaf_certificate(folder.path(), "stranger");
    let files =
        format!("tls_cert_file = \"{0}/server.crt\"\n  tls_key_file = \"{0}/server.key\"\n  ", folder.path().display());
    let both: &[_] = &[&version::TLS13, &version::TLS12];

    let port = free_port();
    let _server = server_with(port, &format!("{files}tls_min_version = \"tls13\""));
    assert!(tls(port, &served, both, None).unwrap().starts_with("HTTP/1.1 200"));
    tls(port, &served, &[&version::TLS12], None).unwrap_err();
    let plain = said(connect(port), request("sys/health", "").as_bytes());
    assert!(
        plain.starts_with("HTTP/1.0 400") && plain.ends_with("Client sent an HTTP request to an HTTPS server.\n"),
        "{plain}"
    );
    let large = format!("POST /v1/sys/x HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000));
    assert!(said(connect(port), large.as_bytes()).contains("HTTP request to an HTTPS server"));

    let port = free_port();
    let _server = server_with(
        port,
        &format!("{files}tls_max_version = \"tls12\"\n  tls_cipher_suites = \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\""),
    );
    assert!(tls(port, &served, both, None).unwrap().starts_with("HTTP/1.1 200"));
    tls(port, &served, &[&version::TLS13], None).unwrap_err();

    let port = free_port();
    let server = server_with(
        port,
        &format!("{files}tls_require_and_verify_client_cert = true\n  tls_client_ca_file = \"{}\"", friend.display()),
    );
    assert!(tls(port, &served, both, Some(&friend)).unwrap().starts_with("HTTP/1.1 200"));
    for shown in [None, Some(stranger.as_path())] {
        let answer = tls(port, &served, both, shown);
        assert!(!answer.as_ref().is_ok_and(|text| text.starts_with("HTTP")), "{shown:?}: {answer:?}");
    }
    server.nobody().get("sys/health").assert_status(200);
}

#[test]
fn a_development_server_has_the_listeners_of_its_files_besides() {
    let folder = tempfile::tempdir().unwrap();
    let served = leaf_certificate(folder.path(), "server");
    let port = free_port();
    let file = folder.path().join("local.json");
    let place = folder.path().display();
    let listener = serde_json::json!({ "tcp": {
        "address": format!("127.0.0.1:{port}"),
        "tls_cert_file": format!("{place}/server.crt"),
        "tls_key_file": format!("{place}/server.key"),
    } });
    let text = serde_json::json!({ "listener": [listener], "storage": [{ "inmem": {} }], "max_lease_ttl": "900h" });
    fs::write(&file, text.to_string()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let flags = [format!("-config={}", folder.path().display()), format!("-config={}", empty.path().display())];
    let server = Server::dev_with(&flags.each_ref().map(String::as_str), &[]);
    server.root().get("sys/mounts/secret/tune").assert_status(200).assert_at("/max_lease_ttl", 3_240_000);
    assert!(tls(port, &served, &[&version::TLS13], None).unwrap().starts_with("HTTP/1.1 200"));
    let export = format!("VAULT_ADDR='http://{}'\n", server.address());
    assert!(server.log().contains(&export), "it prints the address of -dev: {}", server.log());

    // SIGHUP reads them again.
    let renewed = leaf_certificate(folder.path(), "server");
    server.signal(rustix::process::Signal::HUP);
    eventually("the new certificate is shown", || {
        tls(port, &renewed, &[&version::TLS13], None).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    fs::write(&file, "seal \"static\" {}").unwrap();
    server.signal(rustix::process::Signal::HUP);
    eventually("what is wrong is said", || server.log().contains("`seal` does not go with -dev"));
    server.root().get("sys/mounts").assert_status(200);
}

#[test]
fn a_service_manager_is_told_and_finds_the_process_id() {
    let mut server = Server::prepared(&Durable::default());
    let told = UnixDatagram::bind(server.home().join("notify.sock")).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let path = server.home().join("notify.sock").display().to_string();
    server.set_environment("NOTIFY_SOCKET", Some(&path));
    let pid_file = server.home().join("server.pid");
    server.write_config(&format!("pid_file = \"{}\"\n", pid_file.display()));
    let next = || {
        let mut message = [0; 512];
        let count = told.recv(&mut message).expect("the server says something");
        String::from_utf8_lossy(&message[..count]).into_owned()
    };
    server.start();
    assert_eq!(next().trim(), "READY=1");
    assert_eq!(fs::read_to_string(&pid_file).unwrap().trim(), server.process_id().unwrap().to_string());
    server.signal(rustix::process::Signal::HUP);
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next().trim(), "READY=1");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(next().trim(), "STOPPING=1");
    assert_eq!(server.wait_for_end(), Some(0));
    assert!(!pid_file.exists());
}

#[test]
fn the_log_follows_flag_environment_and_file_in_this_order() {
    let mut server = Server::prepared(&Durable::default());
    server.write_config("log_level = \"error\"\nlog_format = \"standard\"\n");
    server.set_environment("VAULT_LOG_LEVEL", Some("info"));
    server.set_environment("BAO_LOG_FORMAT", Some("json"));
    server.set_environment("VAULT_CLUSTER_ADDR", Some("https://x:8201"));
    server.start();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("VAULT_CLUSTER_ADDR")).unwrap_or_else(|| panic!("{log}"));
    assert!(serde_json::from_str::<Value>(line).is_ok() && line.contains("has no effect"), "{line}");
}

/// The one who checks may not be who runs the server: nothing is made, opened for writing or removed.
#[test]
fn a_check_writes_and_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("live.log", "a record\n");
    fs::set_permissions(folder.path().join("live.log"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(format!("{home}/nowhere/later.log"), folder.path().join("dangling.log")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("api.sock")).unwrap());
    let config = |files: &[&str]| {
        let audit: String = files
            .iter()
            .map(|file| format!("audit \"file\" \"{file}\" {{\n  options = {{ file_path = \"{home}/{file}\" }}\n}}\n"))
            .collect();
        format!(
            "storage \"sqlite\" {{\n  path = \"{home}/x.db\"\n}}\npid_file = \"{home}/x.pid\"\n\
             listener \"unix\" {{\n  address = \"{home}/api.sock\"\n}}\n{audit}"
        )
    };
    let check = |text: &str| {
        write("server.hcl", text);
        let output = std::process::Command::new(under_test())
            .args(["server", "-check", &format!("-config={home}/server.hcl")])
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    let state = || {
        let mut found: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let about = entry.metadata().unwrap();
                (entry.file_name(), about.permissions().mode(), about.len(), about.modified().unwrap())
            })
            .filter(|(name, ..)| name != "server.hcl")
            .collect();
        found.sort();
        found
    };
    write("server.hcl", "");
    let before = state();
    let (status, said) = check(&config(&["live.log", "new.log"]));
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(state(), before);
    let (status, said) = check(&config(&["dangling.log"]));
    assert!(status == Some(1) && said.contains("symbolic link"), "{said}");
    assert_eq!(state(), before);
    let (status, said) = check(&config(&["nowhere/x.log"]));
    assert!(status == Some(1) && said.contains("No such file"), "{said}");
    assert_eq!(state(), before);
    let postgresql = |lines: &str| {
        format!("storage \"postgresql\" {{\n{lines}\n}}\nlistener \"unix\" {{\n  address = \"{home}/api.sock\"\n}}\n")
    };
    let url = "  connection_url = \"postgres://u:p@127.0.0.1:1/d?sslmode=disable\"\n";
    for (lines, wanted) in [
        (String::new(), "needs `connection_url`"),
        ("  connection_url = \"postgres://u:p@127.0.0.1:1/d?sslmod=disable\"".to_owned(), "sslmod"),
        (format!("{url}  table = \"a b\""), "`table` must be letters"),
        (format!("{url}  max_parallel = 3000000000000000000"), "must be a number from 1 to 1000"),
    ] {
        let (status, said) = check(&postgresql(&lines));
        assert!(status == Some(1) && said.contains(wanted), "{lines}: {said}");
    }
    let (status, said) = check(&postgresql(&format!("{url}  max_connect_retries = 0")));
    assert_eq!(status, Some(0), "nothing is opened: {said}");
}
