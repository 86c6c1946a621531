//! `sslmode`, with certificates made for the test.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leasehold_core::request::{LogicalResponse, RequestError};
use leasehold_devpg::{Options, TlsFiles};
use serde_json::json;

use crate::support::{MEMBER, World, own_server};

/// An authority, a server certificate for `localhost` only, and another authority that signed nothing.
fn certificates(folder: &Path) -> TlsFiles {
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    for name in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        ));
    }
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
    );
    std::fs::write(folder.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt");
    TlsFiles { certificate: folder.join("server.crt"), key: folder.join("server.key"), required: true }
}

#[tokio::test]
async fn sslmode_means_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path());
    let world = World::on(Arc::new(own_server(Options { tls: Some(tls), ..Options::default() })));
    let port = world.pg.port();
    let (ca, other) = (folder.path().join("ca.crt"), folder.path().join("other.crt"));
    let try_with = async |host: &str, options: String| -> Result<LogicalResponse, RequestError> {
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/myapp?{options}");
        let body = json!({
            "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*",
            "username": world.pg.admin_user(), "password": world.pg.admin_password(),
        });
        world.write("config/pg", body).await
    };
    let root = |file: &Path| format!("sslrootcert={}", file.display());

    for (host, options) in [
        ("127.0.0.1", String::new()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
        ("127.0.0.1", "sslmode=allow".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&{}", root(&ca))),
        ("localhost", format!("sslmode=verify-full&{}", root(&ca))),
    ] {
        let done = try_with(host, options.clone()).await;
        assert!(done.is_ok(), "{host} {options}: {done:?}");
    }
    for (host, options, why) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), "no encryption"),
        ("127.0.0.1", format!("sslmode=verify-full&{}", root(&ca)), "certificate not valid for name"),
        ("localhost", format!("sslmode=verify-full&{}", root(&other)), "UnknownIssuer"),
        ("127.0.0.1", format!("sslmode=verify-ca&{}", root(&other)), "UnknownIssuer"),
        ("127.0.0.1", format!("sslmode=require&{}", root(&other)), "UnknownIssuer"),
        ("localhost", "sslmode=verify-full&sslrootcert=/nonexistent".to_owned(), "cannot be read"),
    ] {
        match try_with(host, options.clone()).await {
            Err(RequestError::Invalid(said)) => assert!(said.contains(why), "{host} {options}: {said}"),
            other => panic!("{host} {options}: {other:?}"),
        }
    }
    // The connection stored last is verify-full, and it works.
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.revoke(&issued).await.unwrap();
}

#[tokio::test]
async fn prefer_reaches_a_server_without_tls() {
    let world = World::new().await;
    world.connect("pg", json!({"connection_url": format!("{}?sslmode=prefer", world.pg.templated_url())})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.revoke(&issued).await.unwrap();
    let url = format!("{}?sslmode=require", world.pg.templated_url());
    assert!(world.write("config/pg", json!({"connection_url": url})).await.is_err());
}
