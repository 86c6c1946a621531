//! `sslmode`, tried against real servers beside `psql`, with certificates of every kind.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Expect;
use leasehold_devpg::Options;
use serde_json::json;

use crate::certificates::Certificates;
use crate::support::{MEMBER, World, own_server};

const MODES: [&str; 7] =
    ["disable", "allow", "prefer", "require", "require, root", "verify-ca, root", "verify-full, root"];

/// One server, and how far each mode gets: `t` encrypted, `p` in plain text, `-` refused.
struct Case {
    what: &'static str,
    /// Its certificate; none: it speaks no TLS.
    certificate: Option<&'static str>,
    root: &'static str,
    required: bool,
    more: &'static str,
    wanted: &'static str,
}

const fn case(what: &'static str, certificate: &'static str, root: &'static str, wanted: &'static str) -> Case {
    Case { what, certificate: Some(certificate), root, required: true, more: "", wanted }
}

/// D2 and D3: a certificate of version 1 led `prefer` into plain text without a word and `require` nowhere; a self-signed authority
/// could not be trusted at all.
#[tokio::test(flavor = "multi_thread")]
async fn every_mode_meets_every_certificate_as_psql_does() {
    let made = Certificates::new();
    let leaf = "basicConstraints=CA:FALSE\n";
    made.signed("good", "localhost", Some(&format!("{leaf}subjectAltName=DNS:localhost\n")), "-days 2");
    made.signed("v1", "localhost", None, "-days 2");
    made.signed(
        "authority",
        "localhost",
        Some("basicConstraints=critical,CA:TRUE\nsubjectAltName=DNS:localhost\n"),
        "-days 2",
    );
    made.signed("nosan", "localhost", Some(leaf), "-days 2");
    made.signed("wrong", "other.example", Some(&format!("{leaf}subjectAltName=DNS:other.example\n")), "-days 2");
    made.signed("wrongcn", "other.example", Some(leaf), "-days 2");
    made.signed("hidden", "localhost", Some(&format!("{leaf}subjectAltName=DNS:other.example\n")), "-days 2");
    made.signed("expired", "localhost", Some(&format!("{leaf}subjectAltName=DNS:localhost\n")), "-days -1");
    made.signed("oldv1", "localhost", None, "-days -1");
    made.signed(
        "client",
        "localhost",
        Some(&format!("{leaf}subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth\n")),
        "-days 2",
    );
    made.self_signed("self", "localhost");
    made.self_signed("selfwrong", "other.example");
    let cases = [
        case("in order", "good", "ca", "-tttttt"),
        case("unknown authority", "good", "other", "-ttt---"),
        case("version 1", "v1", "ca", "-tttttt"),
        case("version 1, unknown authority", "v1", "other", "-ttt---"),
        case("version 1, expired", "oldv1", "ca", "-ttt---"),
        case("an authority as server", "authority", "ca", "-tttttt"),
        case("an authority as server, unknown authority", "authority", "other", "-ttt---"),
        case("no alternative name", "nosan", "ca", "-tttttt"),
        case("wrong name", "wrong", "ca", "-ttttt-"),
        case("wrong common name", "wrongcn", "ca", "-ttttt-"),
        case("right common name hidden by an alternative one", "hidden", "ca", "-ttttt-"),
        case("expired", "expired", "ca", "-ttt---"),
        case("made out for clients", "client", "ca", "-ttt---"),
        case("self-signed, trusted", "self", "self", "-tttttt"),
        case("self-signed, wrong name", "selfwrong", "selfwrong", "-ttttt-"),
        case("self-signed, not trusted", "self", "other", "-ttt---"),
        Case { required: false, ..case("plain text is allowed, too", "good", "ca", "ppttttt") },
        Case { certificate: None, required: false, ..case("the server says no", "", "ca", "ppp----") },
        Case {
            required: false,
            more: "ssl_max_protocol_version=TLSv1.2",
            ..case("the server says yes and fails", "good", "ca", "ppp----")
        },
    ];
    for case in cases {
        let tls = case.certificate.map(|name| made.server(name, case.required));
        let mut options = Options { tls, ..Options::default() };
        if !case.more.is_empty() {
            options.settings.push(("ssl_min_protocol_version".to_owned(), "TLSv1.3".to_owned()));
        }
        let world = World::on(Arc::new(own_server(options)));
        let (mut ours, mut theirs) = (String::new(), String::new());
        for mode in MODES {
            let (mode, root) = mode.split_once(", ").map_or((mode, None), |(mode, _)| (mode, Some(case.root)));
            ours.push(by_us(&world, &made, mode, root, &case).await);
            theirs.push(by_psql(&world, &made, mode, root, &case));
        }
        assert_eq!(ours, theirs, "{}: ours and psql's, by {MODES:?}", case.what);
        assert_eq!(ours, case.wanted, "{}: by {MODES:?}", case.what);
    }
}

async fn by_us(world: &World, made: &Certificates, mode: &str, root: Option<&str>, case: &Case) -> char {
    let more = if case.more.is_empty() { String::new() } else { format!("&{}", case.more) };
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@localhost:{}/myapp?application_name=probe&sslmode={mode}{more}",
        world.pg.port()
    );
    let body = json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*",
        "username": world.pg.admin_user(), "password": world.pg.admin_password(),
        "tls_ca": root.map_or_else(String::new, |root| made.text(&format!("{root}.pem"))),
    });
    let Ok(answer) = world.write("config/probe", body).await else { return '-' };
    // The session that this leaves in the pool shows how it was made.
    world.write("reset/probe", json!({})).await.unwrap();
    let seen = world.pg.psql(
        "SELECT string_agg(DISTINCT s.ssl::text, ',') FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
         WHERE a.application_name = 'probe'",
    );
    let is_encrypted = match seen.unwrap().as_str() {
        "true" => true,
        "false" => false,
        other => panic!("sessions of both kinds, or none: {other}"),
    };
    let told = answer.warnings.iter().any(|warning| warning.contains("plain text"));
    let fell_back = !is_encrypted && mode == "prefer" && case.certificate.is_some();
    assert_eq!(told, fell_back, "{} {mode}: {:?}", case.what, answer.warnings);
    if is_encrypted { 't' } else { 'p' }
}

fn by_psql(world: &World, made: &Certificates, mode: &str, root: Option<&str>, case: &Case) -> char {
    let root =
        root.map_or_else(String::new, |root| format!("sslrootcert={}", made.file(&format!("{root}.pem")).display()));
    let target = format!(
        "host=localhost port={} user={} dbname=myapp sslmode={mode} {root} {}",
        world.pg.port(),
        world.pg.admin_user(),
        case.more
    );
    let done = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-d", &target, "-c"])
        .arg("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", made.path())
        .env("PGPASSWORD", world.pg.admin_password())
        .output()
        .expect("psql");
    match String::from_utf8_lossy(&done.stdout).trim() {
        "t" => 't',
        "f" => 'p',
        "" if !done.status.success() => '-',
        other => panic!("{} {mode}: {other}", case.what),
    }
}

#[tokio::test]
async fn certificates_come_from_files_of_the_directory_or_as_text() {
    let made = Certificates::new();
    made.signed("server", "localhost", Some("basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n"), "-days 2");
    let mut world =
        World::on(Arc::new(own_server(Options { tls: Some(made.server("server", true)), ..Options::default() })));
    world.engine = DatabaseEngine::with_files(Some(made.path().to_owned()));
    let port = world.pg.port();
    let try_with =
        async |world: &World, host: &str, options: &str, ca: &str| -> Result<LogicalResponse, RequestError> {
            let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/myapp?{options}");
            let body = json!({
                "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*", "tls_ca": ca,
                "username": world.pg.admin_user(), "password": world.pg.admin_password(),
            });
            world.write("config/pg", body).await
        };
    let absolute = format!("sslmode=verify-ca&sslrootcert={}", made.file("ca.pem").display());
    for (host, options, ca) in [
        ("127.0.0.1", absolute.as_str(), String::new()),
        ("localhost", "sslmode=verify-full&sslrootcert=ca.pem", String::new()),
        ("localhost", "sslmode=verify-full", made.text("ca.pem")),
        ("localhost", "sslmode=verify-full&hostaddr=127.0.0.1", made.text("ca.pem")),
        ("127.0.0.1", "sslmode=require&channel_binding=require", String::new()),
    ] {
        let done = try_with(&world, host, options, &ca).await;
        assert!(done.is_ok(), "{host} {options}: {done:?}");
    }
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.revoke(&issued).await.unwrap();
    for (host, options, why) in [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=ca.pem", "certificate not valid for name"),
        ("localhost", "sslmode=verify-full&sslrootcert=other.pem", "UnknownIssuer"),
        ("localhost", "sslmode=verify-full&sslrootcert=/etc/hostname", "names a file that cannot be used"),
        ("localhost", "sslmode=verify-full&sslrootcert=ca.key", "names a file that cannot be used"),
        ("localhost", "sslmode=verify-full&sslrootcert=/dev/zero", "names a file that cannot be used"),
        ("localhost", "sslmode=verify-ca", "needs to know the authority"),
        ("localhost", "sslmode=require&sslrootcert=system", "must be verify-full"),
    ] {
        let refused = try_with(&world, host, options, "").await;
        assert!(matches!(&refused, Err(RequestError::Invalid(said)) if said.contains(why)), "{options}: {refused:?}");
    }
    world.engine = DatabaseEngine::new();
    let refused = try_with(&world, "localhost", "sslmode=verify-full&sslrootcert=ca.pem", "").await;
    let hint = "connection_files_dir is not set in the server's configuration: send the PEM text in tls_ca instead";
    assert!(matches!(&refused, Err(RequestError::Invalid(said)) if said.contains(hint)), "{refused:?}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let made = Certificates::new();
    made.signed("server", "localhost", Some("basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n"), "-days 2");
    made.signed("client", "leasehold_admin", Some("basicConstraints=CA:FALSE\n"), "-days 2");
    // The server's user must be able to read it.
    std::fs::set_permissions(made.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = vec![("ssl_ca_file".to_owned(), made.file("ca.pem").display().to_string())];
    let options = Options { tls: Some(made.server("server", true)), settings, ..Options::default() };
    let world = World::on(Arc::new(own_server(options)));
    world.connect("pg", json!({
        "connection_url": format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@localhost:{}/myapp?sslmode=verify-full&application_name=shown", world.pg.port()
        ),
        "tls_ca": made.text("ca.pem"), "tls_certificate": made.text("client.pem"), "private_key": made.text("client.key"),
    })).await;
    world.write("reset/pg", json!({})).await.unwrap();
    let seen = "SELECT DISTINCT s.client_dn FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'shown'";
    assert_eq!(world.pg.psql(seen).unwrap(), "/CN=leasehold_admin");
    let read = world.read("config/pg").await.unwrap().to_string();
    assert!(!read.contains("PRIVATE KEY") && read.contains("BEGIN CERTIFICATE"), "{read}");
    for (certificate, key, why) in [
        (made.text("client.pem"), String::new(), "must be given together"),
        (made.text("client.pem"), made.text("server.key"), "does not belong to the certificate"),
        (made.text("client.pem"), "none".to_owned(), "holds no private key"),
    ] {
        let refused = world.write("config/pg", json!({"tls_certificate": certificate, "private_key": key})).await;
        assert!(matches!(&refused, Err(RequestError::Invalid(said)) if said.contains(why)), "{refused:?}");
    }
}

/// A connection of an earlier release named its files wherever they lay; leases on it must still end.
#[tokio::test]
async fn a_connection_that_was_stored_before_files_were_confined_is_read_on() {
    let made = Certificates::new();
    made.signed("server", "localhost", Some("basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n"), "-days 2");
    let world =
        World::on(Arc::new(own_server(Options { tls: Some(made.server("server", true)), ..Options::default() })));
    let url = |file: &str| {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@localhost:{}/myapp?sslmode=verify-full&sslrootcert={file}",
            world.pg.port()
        )
    };
    let ca = made.file("ca.pem").display().to_string();
    let stored = json!({
        "plugin_name": "postgresql-database-plugin", "plugin_version": "", "allowed_roles": ["*"],
        "root_rotation_statements": [], "password_policy": "", "connection_url": url(&ca),
        "password": world.pg.admin_password(), "details": { "username": world.pg.admin_user() },
    });
    let bytes = serde_json::to_vec(&stored).unwrap();
    world.context.storage.put("connection/pg", bytes, Expect::Absent).await.unwrap();

    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.revoke(&issued).await.unwrap();
    // A write that leaves the files alone goes on, and says what should be done.
    let answer = world.write("config/pg", json!({"max_open_connections": 3})).await.unwrap();
    assert!(answer.warnings.iter().any(|warning| warning.contains("connection_files_dir")), "{:?}", answer.warnings);
    world.write("reset/pg", json!({})).await.unwrap();
    // One that names another is held to the rule of today.
    for file in ["/etc/hostname", "/dev/zero", &made.file("other.pem").display().to_string()] {
        let body = json!({"connection_url": url(file), "password": world.pg.admin_password()});
        let refused = world.write("config/pg", body).await;
        assert!(
            matches!(&refused, Err(RequestError::Invalid(said)) if said.contains("connection_files_dir is not set")),
            "{file}: {refused:?}"
        );
    }
    let plain = url(&ca).replace(&format!("&sslrootcert={ca}"), "");
    let body = json!({"connection_url": plain, "password": world.pg.admin_password(), "tls_ca": made.text("ca.pem")});
    assert_eq!(world.write("config/pg", body).await.unwrap().warnings, Vec::<String>::new());
}
