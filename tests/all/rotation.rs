//! Passwords that change: rotate-root and static roles, as clients see them.

use serde_json::{Value, json};

use crate::support::{Bao, Client, Database, Durable, Server, eventually, shared_postgresql};

/// A server with a connection whose user is `admin`, and a PostgreSQL role `user`: names are the whole cluster's.
fn ready(server: &Server, database: &Database<'_>, admin: &str, user: &str) -> Client {
    database.sql(&format!("CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD 'first-password'; CREATE ROLE {user} LOGIN"));
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    let mut config = database.config();
    config["username"] = json!(admin);
    config["password"] = json!("first-password");
    root.post("database/config/pg", config).assert_status(204);
    root
}

#[test]
fn a_connection_and_a_static_role_change_their_passwords_over_the_api_and_the_command_line() {
    let (server, database) = (Server::durable(&Durable::default()), Database::fresh());
    let root = ready(&server, &database, "rotapi_admin", "rotapi_app");
    let file = server.home().join("audit").join("rotation.log");
    let device = json!({ "type": "file", "options": { "file_path": file } });
    root.post("sys/audit/rotation", device).assert_status(204);
    root.post("database/rotate-root/pg", json!({})).assert_status(204).assert_empty();
    assert!(!database.lets_in("rotapi_admin", "first-password"));
    root.put("database/rotate-root/pg", json!({})).assert_status(204);
    let cli = server.cli();
    cli.run(&["write", "-f", "database/rotate-root/pg"]).assert_status(0);
    let period = ["write", "database/static-roles/app", "db_name=pg", "username=rotapi_app", "rotation_period=24h"];
    cli.run(&period).assert_status(0).assert_stdout("Success! Data written to: database/static-roles/app");
    let read = cli.run(&["read", "database/static-creds/app"]).assert_status(0);
    assert!(database.lets_in("rotapi_app", &read.row("password")), "{}", read.stdout);
    assert_eq!((read.row("username"), read.row("rotation_period")), ("rotapi_app".to_owned(), "24h".to_owned()));
    cli.run(&["write", "-f", "database/rotate-role/app"]).assert_status(0);
    let answer = root.get("database/static-creds/app").assert_status(200);
    assert!(answer.json()["lease_id"] == "" && answer.at("/renewable") == false, "{answer}");
    let password = answer.text("/data/password");
    assert!(database.lets_in("rotapi_app", &password) && password != read.row("password"));
    server.secrets().tell(&password);
    server.secrets().tell("first-password");
    // Audit has the password as a digest, as it has that of a leased role.
    let audit = std::fs::read_to_string(&file).unwrap();
    assert!(audit.contains("database/static-creds/app") && audit.contains("hmac-sha256:"), "{audit}");
    assert_eq!(server.secrets().found_in(&audit), Vec::<String>::new());
    assert_eq!(server.secrets().found_in(&server.log()), Vec::<String>::new());
    // Another server that opens the same store goes on.
    server.crash_and_restart();
    assert_eq!(root.get("database/static-creds/app").text("/data/password"), password);
    root.post("database/rotate-root/pg", json!({})).assert_status(204);
    root.list("database/static-roles").assert_at("/data/keys/0", "app");
    root.delete("database/static-roles/app").assert_status(204);
    assert!(database.lets_in("rotapi_app", &password));
}

#[test]
fn a_policy_for_reading_a_static_credential_allows_nothing_else() {
    let (server, database) = (Server::dev(), Database::fresh());
    let root = ready(&server, &database, "rotpol_admin", "rotpol_app");
    let body = json!({ "db_name": "pg", "username": "rotpol_app", "rotation_period": "1h" });
    root.post("database/static-roles/app", body.clone()).assert_status(204);
    let reader = server.with_policy("reader", "path \"database/static-creds/app\" { capabilities = [\"read\"] }");
    reader.get("database/static-creds/app").assert_status(200);
    reader.post("database/rotate-role/app", json!({})).assert_status(403);
    reader.post("database/rotate-root/pg", json!({})).assert_status(403);
    reader.get("database/static-roles/app").assert_status(403);
    // Creating and changing are told apart.
    let creator = server.with_policy("creator", "path \"database/static-roles/*\" { capabilities = [\"create\"] }");
    creator.post("database/static-roles/app", body).assert_status(403);
    database.sql("CREATE ROLE rotpol_new LOGIN");
    let new = json!({ "db_name": "pg", "username": "rotpol_new", "rotation_period": "1h" });
    creator.post("database/static-roles/new", new).assert_status(204);
}

/// The job changes what is due by itself, over and over.
#[test]
fn a_short_period_is_kept_without_anybody_asking() {
    let (server, database) = (Server::dev(), Database::fresh());
    let root = ready(&server, &database, "rotshort_admin", "rotshort_app");
    let body = json!({ "db_name": "pg", "username": "rotshort_app", "rotation_period": 5 });
    root.post("database/static-roles/app", body).assert_status(204);
    let read = || root.get("database/static-creds/app").assert_status(200);
    let first = read();
    assert!((1..=5).contains(&first.number("/data/ttl")), "{first}");
    let mut seen = vec![first.text("/data/password")];
    eventually("the password has changed twice by itself", || {
        let password = read().text("/data/password");
        if seen.last() != Some(&password) {
            seen.push(password);
        }
        seen.len() >= 3
    });
    eventually("the last one works", || database.lets_in("rotshort_app", &read().text("/data/password")));
    assert!(!database.lets_in("rotshort_app", &seen[0]));
}

#[test]
fn refusals_of_rotations_read_as_openbaos() {
    refusals(&Server::dev());
}

#[test]
fn a_real_openbao_refuses_rotations_in_the_same_words() {
    let Some(bao) = Bao::find("the words about rotations against a real OpenBao") else { return };
    refusals(&Server::openbao(&bao));
}

fn refusals(server: &Server) {
    let database = Database::fresh_in(shared_postgresql());
    let kind = format!("{:?}", server.kind()).to_lowercase();
    let (admin, user) = (format!("rotword_{kind}"), format!("rotword_{kind}_app"));
    let root = ready(server, &database, &admin, &user);
    let inline =
        format!("postgresql://{admin}:first-password@127.0.0.1:{}/{}", database.server().port(), database.name());
    let plugin = "postgresql-database-plugin";
    let config = |more: Value| {
        let mut body = json!({ "plugin_name": plugin, "allowed_roles": "*" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    root.post("database/config/inline", config(json!({ "connection_url": inline })));
    let url = database.templated_url();
    let nameless = json!({ "connection_url": url, "username": admin, "verify_connection": false });
    root.post("database/config/nopw", config(nameless)).assert_status(204);
    let narrow =
        json!({ "connection_url": url, "username": admin, "password": "first-password", "allowed_roles": "x" });
    root.post("database/config/narrow", config(narrow)).assert_status(204);
    for (name, why) in [
        ("nope", "failed to find entry for connection with name: \"nope\""),
        ("inline", "unable to rotate root credentials: no username in configuration"),
        ("nopw", "unable to rotate root credentials: no password in configuration"),
    ] {
        root.post(&format!("database/rotate-root/{name}"), json!({})).assert_multi(500, why);
    }
    for path in ["database/rotate-root/pg", "database/rotate-role/a"] {
        root.get(path).assert_multi(405, "unsupported operation");
        root.delete(path).assert_multi(405, "unsupported operation");
    }
    root.post("database/static-creds/a", json!({})).assert_multi(405, "unsupported operation");
    root.list("database/static-roles").assert_errors(404, &[]);
    root.get("database/static-roles/nope").assert_errors(404, &[]);
    root.delete("database/static-roles/nope").assert_status(204);
    root.get("database/static-creds/nope").assert_error(400, "unknown role: nope");
    root.post("database/rotate-role/nope", json!({})).assert_error(400, "no static role found for role name");
    root.post("database/roles/dyn", json!({ "db_name": "pg", "creation_statements": "x" }));
    let good = json!({ "db_name": "pg", "username": user, "rotation_period": 60 });
    let with = |more: Value| {
        let mut body = good.clone();
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    // Here the list of those that there are follows.
    root.post("database/static-roles/a", with(json!({ "credential_type": "foo" })))
        .assert_error_has(400, "invalid credential_type \"foo\"");
    for (name, body, why) in [
        ("a", json!({}), "database name is a required field"),
        ("a", json!({ "db_name": "pg" }), "username is a required field to create a static account"),
        ("a", json!({ "db_name": "pg", "username": user }), "rotation_period is required to create static accounts"),
        ("a", with(json!({ "rotation_period": 4 })), "rotation_period must be 5 seconds or more"),
        (
            "a",
            with(json!({ "rotation_period": -4 })),
            "error converting input for field \"rotation_period\": cannot provide negative value '-4'",
        ),
        ("dyn", with(json!({})), "Role and Static Role names must be unique"),
    ] {
        root.post(&format!("database/static-roles/{name}"), body).assert_error(400, why);
    }
    for (body, why) in [
        (json!({ "db_name": "nodb" }), "failed to find entry for connection with name: \"nodb\""),
        (json!({ "db_name": "narrow" }), "\"a\" is not an allowed role"),
        (json!({ "credential_type": "rsa_private_key" }), "unsupported credential_type: \"rsa_private_key\""),
        (
            json!({ "credential_config": { "password_policy": "p" } }),
            "failed to generate password: no password policy found",
        ),
    ] {
        root.post("database/static-roles/a", with(body)).assert_multi(500, why);
    }
    let absent = root.post("database/static-roles/a", with(json!({ "username": "rotword_absent" })));
    let shown = absent.assert_status(500).to_string();
    assert!(
        shown.contains("error setting credentials: ") && shown.contains("does not exist (SQLSTATE 42704)"),
        "{shown}"
    );
    root.post("database/static-roles/a", good.clone()).assert_status(204);
    root.post("database/static-roles/a", with(json!({ "username": "other" })))
        .assert_error(400, "cannot update static account username");
    root.post("database/roles/a", json!({ "db_name": "pg", "creation_statements": "x" }))
        .assert_error(400, "Role and Static Role names must be unique");
    let creds = root.get("database/static-creds/a").assert_status(200);
    let keys: Vec<String> = creds.json()["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["last_vault_rotation", "password", "rotation_period", "ttl", "username"]);
    assert!(database.lets_in(&user, &creds.text("/data/password")));
    let role = root.get("database/static-roles/a").assert_status(200);
    let keys: Vec<String> = role.json()["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        ["credential_type", "db_name", "last_vault_rotation", "rotation_period", "rotation_statements", "username"]
    );
    root.post("database/rotate-role/a", json!({})).assert_status(204);
    root.post("database/rotate-root/pg", json!({})).assert_status(204);
    root.get("database/creds/a").assert_error(400, "unknown role: a");
    let again = root.post("database/config/pg", json!({ "plugin_name": plugin, "password": "first-password" }));
    let shown = again.assert_status(400).to_string();
    assert!(shown.contains("error verifying connection: failed to connect to"), "{shown}");
    for _ in 0..2 {
        root.delete("database/static-roles/a").assert_status(204);
    }
}
