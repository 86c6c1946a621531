//! contract.md §5.1 and §5.2: what is configured, and how it reads back.

use std::sync::Arc;

use leasehold_core::seams::engine::SecretsEngine as _;
use leasehold_core::seams::error::RequestError;
use leasehold_model::Operation;
use serde_json::{Value, json};

use crate::support::{MEMBER, World, shared_server};

fn refused(result: Result<leasehold_core::request::LogicalResponse, RequestError>) -> String {
    match result {
        Err(RequestError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn wrong_connections_are_refused_in_the_fields_words() {
    let world = World::on(shared_server());
    let pg = "postgresql-database-plugin";
    let url = "postgresql://{{username}}:{{password}}@127.0.0.1:1/d";
    for (body, said) in [
        (json!({}), "empty plugin name"),
        (
            json!({"plugin_name": "nosuch", "connection_url": "x"}),
            "error creating database object: invalid database version: 2 errors occurred:\n\
             \t* plugin not found in the catalog: nosuch\n\t* plugin not found in the catalog: nosuch\n\n",
        ),
        (json!({"plugin_name": pg}), "error creating database object: connection_url cannot be empty"),
        (
            json!({"plugin_name": pg, "connection_url": url, "username": "{{username}}", "password": "x"}),
            "error creating database object: username and/or password cannot contain the template variables",
        ),
        (
            json!({"plugin_name": pg, "connection_url": url, "username": "u", "password_authentication": "md5"}),
            "error creating database object: 'md5' is not a valid password authentication type",
        ),
        (
            json!({"plugin_name": pg, "connection_url": url, "username": "u", "scram_iterations": 0}),
            "error creating database object: scram_iterations must be between 1 and 100000",
        ),
        (
            json!({"plugin_name": pg, "connection_url": url, "username": "u", "username_template": "{{.Nope}}"}),
            "error creating database object: invalid username template: unable to apply template: template: template:1:2: \
             executing \"template\" at <.Nope>: can't evaluate field Nope in type dbplugin.UsernameMetadata",
        ),
        (
            json!({"plugin_name": pg, "connection_url": format!("{url}?sslmod=require"), "username": "u"}),
            "error creating database object: connection_url option \"sslmod\" is not known; did you mean \"sslmode\"?",
        ),
        (
            json!({"plugin_name": pg, "connection_url": url, "username": "u", "private_key": "k"}),
            "error creating database object: tls_certificate and private_key must be given together",
        ),
    ] {
        assert_eq!(refused(world.write("config/wrong", body).await), said);
    }
    assert!(matches!(world.read("config/wrong").await, Err(RequestError::NotFound)), "nothing was stored");
}

#[tokio::test]
async fn a_connection_is_tried_before_it_is_stored_and_no_error_holds_its_password() {
    let world = World::on(shared_server());
    let body = |url: String| json!({"plugin_name": "postgresql-database-plugin", "connection_url": url});
    let (host, port) = (world.pg.host(), world.pg.port());

    let wrong = refused(world.write("config/x", body(format!("postgresql://nobody:canary@{host}:{port}/myapp"))).await);
    assert!(
        wrong.starts_with("error creating database object: error verifying connection: failed to connect to `"),
        "{wrong}"
    );
    assert!(wrong.contains("FATAL: password authentication failed for user \"nobody\" (SQLSTATE 28P01)"), "{wrong}");
    assert!(!wrong.contains("canary"));

    let closed = refused(world.write("config/x", body("postgresql://u:canary@127.0.0.1:1/d".to_owned())).await);
    assert!(closed.contains("`user=u database=d`: 127.0.0.1:1") && closed.contains("refused"), "{closed}");

    let mut unverified = body("postgresql://u:canary@127.0.0.1:1/d".to_owned());
    unverified["verify_connection"] = json!(false);
    let stored = world.write("config/x", unverified).await.unwrap();
    assert_eq!(
        stored.warnings,
        ["Password found in connection_url, use a templated url to enable root rotation and prevent read access to \
          password information."]
    );
    assert_eq!(
        world.read("config/x").await.unwrap()["connection_details"]["connection_url"],
        "postgresql://u:xxxxx@127.0.0.1:1/d"
    );
}

/// D6: a password that begins like the user's name took user and database out of the message.
#[tokio::test]
async fn an_error_names_user_and_database_although_the_password_holds_their_letters() {
    let world = World::on(shared_server());
    let (host, port) = (world.pg.host(), world.pg.port());
    world.pg.psql("CREATE ROLE postgres2 LOGIN PASSWORD 'postgres2password'").unwrap();
    let body = |password: &str| {
        json!({
            "plugin_name": "postgresql-database-plugin", "username": "postgres2", "password": password,
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/postgres2_app"),
        })
    };
    let said = refused(world.write("config/named", body("postgres2password")).await);
    assert!(said.contains("`user=postgres2 database=postgres2_app`"), "{said}");
    assert!(said.contains("FATAL: database \"postgres2_app\" does not exist (SQLSTATE 3D000)"), "{said}");
    let said = refused(world.write("config/named", body("postgres2passwore")).await);
    assert!(said.contains("failed for user \"postgres2\"") && !said.contains("passwore"), "{said}");
}

#[tokio::test]
async fn a_connection_reads_back_as_given_without_its_password_and_writes_merge() {
    let world = World::new().await;
    world.connect("b", json!({"max_open_connections": 5, "max_connection_lifetime": "5m", "bogus": 1})).await;
    let merged = world.write("config/b", json!({"allowed_roles": "none, app-*"})).await.unwrap();
    assert!(!merged.has_body(), "a templated URL gives no warning: 204");

    let read = world.read("config/b").await.unwrap();
    assert_eq!(
        read,
        json!({
            "allowed_roles": ["none", "app-*"],
            "connection_details": {
                "bogus": 1,
                "connection_url": world.pg.templated_url(),
                "max_connection_lifetime": "5m",
                "max_open_connections": 5,
                "username": world.pg.admin_user(),
            },
            "password_policy": "",
            "plugin_name": "postgresql-database-plugin",
            "plugin_version": "",
            "root_credentials_rotate_statements": [],
        })
    );
    let list = world.answer(Operation::List, "config/", json!({})).await.unwrap();
    assert_eq!(Value::Object(list.data.unwrap()), json!({"keys": ["b", "pg"]}));

    assert!(!world.write("reset/b", json!({})).await.unwrap().has_body());
    assert!(!world.answer(Operation::Delete, "config/b", json!({})).await.unwrap().has_body());
    assert!(!world.answer(Operation::Delete, "config/b", json!({})).await.unwrap().has_body(), "again is no error");
    match world.write("reset/b", json!({})).await {
        Err(RequestError::Engine(text)) => assert_eq!(text, "failed to find entry for connection with name: \"b\""),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn key_value_urls_and_odd_passwords_connect_too() {
    let world = World::on(shared_server());
    let password = "p@:/?#[]'\\ %é\"";
    world.pg.psql(&format!("CREATE ROLE odd LOGIN CREATEROLE PASSWORD {}", quoted(password))).unwrap();
    let (host, port) = (world.pg.host(), world.pg.port());
    for url in [
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/myapp?sslmode=disable&connect_timeout=3"),
        format!("host={host} port={port} user={{{{username}}}} password={{{{password}}}} dbname=myapp"),
    ] {
        let body = json!({"plugin_name": "postgresql-database-plugin", "connection_url": url, "username": "odd", "password": password});
        assert!(!world.write("config/odd", body).await.unwrap().has_body(), "{url}");
    }
}

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[tokio::test]
async fn a_role_reads_back_in_vaults_shape() {
    let world = World::new().await;
    let body = json!({"db_name": "pg", "creation_statements": MEMBER, "default_ttl": "1h", "max_ttl": "24h"});
    assert!(!world.write("roles/readonly", body).await.unwrap().has_body(), "nothing to warn about: 204");
    assert_eq!(
        world.read("roles/readonly").await.unwrap(),
        json!({
            "creation_statements": [MEMBER],
            "credential_type": "password",
            "db_name": "pg",
            "default_ttl": 3600,
            "max_ttl": 86400,
            "renew_statements": [],
            "revocation_statements": [],
            "rollback_statements": [],
            "template_dialect": "handlebars",
        })
    );
    world.write("roles/readonly", json!({"max_ttl": "2h"})).await.unwrap();
    let read = world.read("roles/readonly").await.unwrap();
    assert_eq!((&read["max_ttl"], &read["creation_statements"]), (&json!(7200), &json!([MEMBER])), "writes merge");

    assert!(matches!(world.read("roles/none").await, Err(RequestError::NotFound)));
    world.answer(Operation::Delete, "roles/readonly", json!({})).await.unwrap();
    assert!(matches!(world.answer(Operation::List, "roles/", json!({})).await, Err(RequestError::NotFound)));
}

#[tokio::test]
async fn wrong_roles_are_refused_and_odd_statements_only_warned_about() {
    let world = World::new().await;
    for (body, said) in [
        (json!({}), "database name is required"),
        (
            json!({"db_name": "pg", "credential_type": "foo"}),
            "invalid credential_type \"foo\": \"password\" is issued here; \"rsa_private_key\" and \"client_certificate\" are known, and \
             not issued yet",
        ),
        (
            json!({"db_name": "pg", "template_dialect": "go"}),
            "invalid template_dialect \"go\": it is \"handlebars\" or \"plain\"",
        ),
    ] {
        assert_eq!(refused(world.write("roles/r", body).await), said);
    }
    let endless = json!({"db_name": "nodb", "creation_statements": "CREATE ROLE \"{{name}}\" -- endless"});
    let warned = world.write("roles/r", endless).await.unwrap().warnings.join("\n");
    assert!(warned.contains("kept as plain: checking creation_statements exceeded its limits"), "{warned}");
    let near =
        json!({"db_name": "nodb", "creation_statements": "CREATE ROLE \"{{ nmae }}\" LOGIN PASSWORD '{{password}}'"});
    let warned = world.write("roles/r", near).await.unwrap().warnings.join("\n");
    for part in ["creation_statements 1, line 1, column", "nmae", "VALID UNTIL", "no connection named \"nodb\""] {
        assert!(warned.contains(part), "{part} is missing in:\n{warned}");
    }
    let read = world.read("roles/r").await.unwrap();
    assert_eq!(read["template_dialect_kept"], json!({"creation_statements": "plain"}), "what holds is shown");
}

#[tokio::test]
async fn what_is_to_come_is_an_unsupported_path() {
    let world = World::new().await;
    for path in ["reload/postgresql-database-plugin", "creds/"] {
        assert!(matches!(world.write(path, json!({})).await, Err(RequestError::UnsupportedPath)), "{path}");
        assert_eq!(
            world.engine.not_offered(path).is_some(),
            path != "creds/",
            "{path}: what Vault serves says what is missing"
        );
    }
    assert!(matches!(world.write("creds/x", json!({})).await, Err(RequestError::UnsupportedOperation)));
}

#[tokio::test]
async fn writes_that_meet_are_all_done_and_issuing_goes_on_meanwhile() {
    let world = Arc::new(World::new().await);
    world.role("readonly", MEMBER, json!({})).await;
    let mut work = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (writer, issuer) = (Arc::clone(&world), Arc::clone(&world));
        work.spawn(async move {
            writer.write("config/pg", json!({ format!("key{number}"): number })).await.unwrap();
        });
        work.spawn(async move {
            issuer.issue("readonly").await;
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let kept = world.read("config/pg").await.unwrap();
    for number in 0..12 {
        assert_eq!(kept["connection_details"][format!("key{number}")], number, "{kept}");
    }
}
