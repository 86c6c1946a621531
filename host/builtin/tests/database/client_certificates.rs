//! Client certificates of the connection's own user, before servers that let nobody in without one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::seams::error::RequestError;
use leasehold_devpg::Options;
use leasehold_model::Ttl;
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::support::{MEMBER, World, own_server};

const LEAF: &str = "basicConstraints=CA:FALSE\n";

/// A server that asks our user for a certificate as `rule` says, and everybody else for a password.
fn asking(rule: &str) -> (World, Certificates) {
    let made = Certificates::new();
    made.signed("server", "localhost", Some(&format!("{LEAF}subjectAltName=DNS:localhost\n")), "-days 2");
    made.signed("client", "leasehold_admin", Some(LEAF), "-days 2");
    made.signed("somebody", "somebody_else", Some(LEAF), "-days 2");
    made.signed("expired", "leasehold_admin", Some(LEAF), "-days -1");
    made.self_signed("unknown", "leasehold_admin");
    fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let settings = vec![("ssl_ca_file".to_owned(), made.file("ca.pem").display().to_string())];
    let options = Options { tls: Some(made.server("server", false)), settings, ..Options::default() };
    let mut world = World::on(Arc::new(own_server(options)));
    world.engine = DatabaseEngine::with_files(Some(made.path().to_owned()));
    let rules = world.pg.psql("SHOW hba_file").unwrap();
    let others = fs::read_to_string(&rules).unwrap();
    fs::write(
        &rules,
        format!("hostssl all leasehold_admin 127.0.0.1/32 {rule}\nhost all leasehold_admin all reject\n{others}"),
    )
    .unwrap();
    world.pg.psql("SELECT pg_reload_conf()").unwrap();
    (world, made)
}

fn url(world: &World, login: &str, more: &str) -> String {
    format!("postgresql://{login}@localhost:{}/myapp?sslmode=verify-full{more}", world.pg.port())
}

/// With the certificate and the key of these names.
fn config(world: &World, made: &Certificates, login: &str, certificate: &str, key: &str) -> Value {
    json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url(world, login, ""),
        "username": world.pg.admin_user(), "tls_ca": made.text("ca.pem"),
        "tls_certificate": made.text(&format!("{certificate}.pem")), "private_key": made.text(&format!("{key}.key")),
    })
}

async fn lives_and_ends(world: &World) {
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.log_in(&issued).await.unwrap();
    world.renew(&issued, world.clock_now() + Ttl::from_secs(600)).await.unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn a_certificate_alone_logs_in_where_the_server_asks_for_nothing_else() {
    let (world, made) = asking("cert");
    for body in [
        config(&world, &made, "{{username}}", "client", "client"),
        // Both in one text, in either order.
        json!({"tls_certificate": format!("{}{}", made.text("client.pem"), made.text("client.key"))}),
        json!({"tls_certificate": format!("{}{}", made.text("client.key"), made.text("client.pem"))}),
        json!({"private_key": "", "tls_certificate": "",
            "connection_url": url(&world, "{{username}}", "&sslcert=client.pem&sslkey=client.key")}),
    ] {
        world.write("config/pg", body.clone()).await.unwrap_or_else(|error| panic!("{body}: {error}"));
        let read = world.read("config/pg").await.unwrap().to_string();
        assert!(!read.contains("PRIVATE KEY"), "{read}");
        lives_and_ends(&world).await;
    }
}

#[tokio::test]
async fn a_certificate_and_a_password_log_in_together() {
    let (world, made) = asking("scram-sha-256 clientcert=verify-full");
    let mut body = config(&world, &made, "{{username}}:{{password}}", "client", "client");
    body["password"] = json!(world.pg.admin_password());
    world.write("config/pg", body.clone()).await.unwrap();
    lives_and_ends(&world).await;
    body["password"] = json!("somewhat-else-1234");
    let refused = world.write("config/pg", body).await.unwrap_err().to_string();
    assert!(refused.contains("password authentication failed"), "{refused}");
}

#[tokio::test]
async fn a_certificate_that_will_not_do_is_refused_with_the_reason() {
    let (world, made) = asking("cert");
    let config = |certificate, key| config(&world, &made, "{{username}}", certificate, key);
    let files = |name: &str| {
        json!({
            "plugin_name": "postgresql-database-plugin", "username": world.pg.admin_user(), "tls_ca": made.text("ca.pem"),
            "connection_url": url(&world, "{{username}}", &format!("&sslcert={name}.pem&sslkey={name}.key")),
        })
    };
    let mut none = config("client", "client");
    (none["tls_certificate"], none["private_key"]) = (json!(""), json!(""));
    let mut in_ca = config("client", "client");
    in_ca["tls_ca"] = json!(format!("{}{}", made.text("ca.pem"), made.text("client.key")));
    let mut elsewhere = config("client", "client");
    elsewhere["ssl_client"] = json!({"key": made.text("client.key")});
    let mut long = config("client", "client");
    long["tls_certificate"] = json!("-----BEGIN X-----".repeat(8 << 10));
    for (body, why) in [
        (long, "tls_certificate is longer than 65536 bytes"),
        (config("client", "server"), "holds a key that does not belong to the certificate"),
        (config("expired", "expired"), "tls_certificate has expired at 20"),
        (files("expired"), "the server refuses the client certificate (tls_certificate or sslcert): it has expired"),
        (config("unknown", "unknown"), "it does not know the authority that signed it"),
        (config("somebody", "somebody"), "certificate authentication failed for user \"leasehold_admin\""),
        (none, "connection requires a valid client certificate"),
        (in_ca, "tls_ca holds a private key, and this field is read back: send the key in private_key"),
        (elsewhere, "ssl_client holds a private key"),
    ] {
        let refused = world.write("config/pg", body).await;
        let Err(RequestError::Invalid(said)) = &refused else { panic!("{why}: {refused:?}") };
        assert!(said.contains(why), "{why}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
    }
    assert!(world.read("config/pg").await.is_err(), "nothing was stored");
}

/// The key logs in as an admin wherever it is used: a writer without it must not choose where.
#[tokio::test]
async fn a_stored_key_is_used_only_where_and_as_whom_it_was_given_for() {
    let (world, made) = asking("cert");
    let first = config(&world, &made, "{{username}}", "client", "client");
    world.write("config/pg", first.clone()).await.unwrap();
    let key = made.text("client.key");
    let elsewhere = |login: &str| url(&world, login, "&hostaddr=127.0.0.1");
    let other = || json!({"tls_certificate": made.text("somebody.pem"), "private_key": made.text("somebody.key")});
    let with = |mut body: Value, more: Value| {
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body["verify_connection"] = json!(false);
        body
    };
    let moved = || json!({"connection_url": elsewhere("{{username}}")});
    let moves = || {
        [
            moved(),
            json!({"username": "postgres"}),
            json!({"tls_ca": made.text("other.pem")}),
            json!({"connection_url": url(&world, "{{username}}", "").replace("verify-full", "require")}),
            with(moved(), json!({"tls_certificate": made.text("client.pem")})),
        ]
    };
    for body in moves() {
        for sudo in [false, true] {
            world.has_sudo.store(sudo, Ordering::Relaxed);
            let refused = world.write("config/pg", with(body.clone(), json!({}))).await;
            let is_told = matches!(&refused, Err(RequestError::Invalid(why)) if why.contains("send private_key again"));
            assert!(is_told, "{body}: {refused:?}");
        }
    }
    world.has_sudo.store(false, Ordering::Relaxed);
    for key in ["", made.text("somebody.key").as_str()] {
        let refused = world
            .write(
                "config/pg",
                with(moved(), json!({"tls_certificate": made.text("somebody.pem"), "private_key": key})),
            )
            .await;
        let is_told = match &refused {
            Err(RequestError::Forbidden(why)) => why.contains("without the stored private_key"),
            Err(RequestError::Invalid(why)) => key.is_empty() && why.contains("must be given together"),
            _ => false,
        };
        assert!(is_told, "{refused:?}");
    }
    // Neither in two steps: what was replaced or emptied without sudo opens no way.
    for replaced in [other(), json!({"tls_certificate": "", "private_key": ""})] {
        world.write("config/pg", with(replaced.clone(), json!({}))).await.unwrap();
        let refused = world.write("config/pg", with(moved(), replaced.clone())).await;
        let is_told = matches!(&refused, Err(RequestError::Forbidden(why)) if why.contains("replaced without sudo"));
        assert!(is_told, "{replaced}: {refused:?}");
        world.has_sudo.store(true, Ordering::Relaxed);
        world.write("config/pg", first.clone()).await.unwrap();
        world.has_sudo.store(false, Ordering::Relaxed);
    }
    // Whoever has the key may, and so may an operator with sudo and another one.
    world.write("config/pg", with(moved(), json!({"private_key": key}))).await.unwrap();
    world.has_sudo.store(true, Ordering::Relaxed);
    world.write("config/pg", with(json!({"connection_url": url(&world, "{{username}}", "")}), other())).await.unwrap();
}
