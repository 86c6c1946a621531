//! contract.md §5.3, §5.5, §5.6: credentials.

use std::time::Duration;

use leasehold_core::seams::engine::EngineError;
use leasehold_core::seams::error::RequestError;
use leasehold_devpg::Options;
use leasehold_model::Ttl;
use serde_json::json;
use std::sync::Arc;

use crate::support::{MEMBER, World, own_server};

#[tokio::test]
async fn a_credential_logs_in_and_may_do_what_its_role_may() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;

    let client = world.log_in(&issued).await.unwrap();
    assert_eq!(client.query_one("SELECT count(*) FROM customers", &[]).await.unwrap().get::<_, i64>(0), 3);
    assert!(client.execute("INSERT INTO customers (name, city) VALUES ('x', 'y')", &[]).await.is_err());

    assert!(issued.username.starts_with("v-token-readonly-"), "{}", issued.username);
    assert_eq!(issued.password.len(), 24);
    let until = world.pg.psql(&format!(
        "SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles WHERE rolname = '{}'",
        issued.username
    ));
    let wanted = (issued.intent.expires_at + Ttl::from_secs(5)).as_secs();
    assert_eq!(until.unwrap(), wanted.to_string(), "VALID UNTIL is the lease's end and 5 seconds");
    let comment =
        format!("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}'", issued.username);
    assert_eq!(world.pg.psql(&comment).unwrap(), format!("leasehold:test-installation:{}", issued.intent.id.random()));
    let stored = issued.intent.effect.to_string();
    assert!(!stored.contains(&issued.password) && !stored.contains("SCRAM"), "nothing secret is stored with the lease");
}

#[tokio::test]
async fn every_failure_has_the_fields_words() {
    let world = World::new().await;
    world.role("ok", MEMBER, json!({})).await;
    world.role("empty", "", json!({})).await;
    world.role("nodb", MEMBER, json!({"db_name": "nodb"})).await;
    world.role("rsa", MEMBER, json!({"credential_type": "rsa_private_key"})).await;
    world.role("policy", MEMBER, json!({"credential_config": {"password_policy": "none"}})).await;
    world.role("quotes", "CREATE ROLE '{{name}}' LOGIN PASSWORD '{{password}}'", json!({})).await;

    assert!(matches!(world.plan("nope").await, Err(RequestError::Invalid(text)) if text == "unknown role: nope"));
    assert!(matches!(world.plan("rsa").await,
        Err(RequestError::Invalid(text)) if text == "unsupported credential_type: \"rsa_private_key\""));
    for (role, said) in [
        ("nodb", "failed to find entry for connection with name: \"nodb\""),
        ("empty", "empty creation statements"),
        ("policy", "failed to generate password: no password policy found"),
    ] {
        assert!(matches!(world.plan(role).await, Err(RequestError::Engine(text)) if text == said), "{role}");
    }
    let said = world.issue_fails("quotes").await;
    assert!(said.starts_with("failed to execute query: ERROR: syntax error at or near \"'v-token-quotes-"), "{said}");
    assert!(said.ends_with("(SQLSTATE 42601): creation statement 1 of 1, line 1"), "{said}");

    world.write("config/pg", json!({"allowed_roles": "app-*"})).await.unwrap();
    assert!(
        matches!(world.plan("ok").await, Err(RequestError::Engine(text)) if text == "\"ok\" is not an allowed role")
    );
}

#[tokio::test]
async fn a_failed_statement_leaves_nothing_behind() {
    let world = World::new().await;
    world.role("half", &format!("{MEMBER} SELECT 1 / 0;"), json!({})).await;
    let plan = world.plan("half").await.unwrap();
    let username = plan.effect["username"].as_str().unwrap().to_owned();
    let error = world.effect(world.intent("half", &plan)).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "failed to execute query: ERROR: division by zero (SQLSTATE 22012): creation statement 2 of 2"
    );
    assert!(!world.role_exists(&username));
}

/// Vault leases whatever the statements make; a role of PostgreSQL's need not be among it.
#[tokio::test]
async fn statements_that_create_no_role_are_leased_renewed_and_undone() {
    let world = World::new().await;
    world.pg.psql("CREATE TABLE app_users (name text, until text); GRANT ALL ON app_users TO PUBLIC").unwrap();
    let statements = json!({
        "creation_statements": "INSERT INTO app_users VALUES ('{{name}}', '{{expiration}}'); SELECT '{{password}}'",
        "renew_statements": "UPDATE app_users SET until = '{{expiration}}' WHERE name = '{{name}}'",
        "revocation_statements": "DELETE FROM app_users WHERE name = '{{name}}'",
    });
    world.role("app", "", statements).await;
    let issued = world.issue("app").await;
    let until = issued.intent.expires_at + Ttl::from_secs(600);
    let stored = format!(
        "SELECT until::timestamptz = to_timestamp({} + 5) FROM app_users WHERE name = '{}'",
        until.as_secs(),
        issued.username
    );
    assert_eq!(world.pg.psql(&stored).unwrap(), "f");
    world.renew(&issued, until).await.unwrap();
    assert_eq!(world.pg.psql(&stored).unwrap(), "t");
    for _ in 0..2 {
        world.revoke(&issued).await.unwrap();
        assert_eq!(world.pg.psql("SELECT count(*) FROM app_users").unwrap(), "0");
    }

    let failing = json!({ "revocation_statements": "DELETE FROM app_users WHERE name = '{{name}}'; SELECT 1 / 0" });
    world.role("app", "INSERT INTO app_users VALUES ('{{name}}', '')", failing).await;
    let issued = world.issue("app").await;
    let error = world.revoke(&issued).await.unwrap_err().to_string();
    assert!(
        error.contains("revocation statement 2 of 2"),
        "what they make is still there, and nobody else can undo it: {error}"
    );
}

/// hashicorp/terraform-provider-vault#384, and other ways to leave a session otherwise than it was found.
#[tokio::test]
async fn creation_statements_may_leave_their_session_as_they_like() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({ "max_open_connections": 1 })).await;
    let admin = world.pg.admin_user().to_owned();
    world
        .pg
        .psql(&format!("CREATE ROLE plain_group; GRANT plain_group TO \"{admin}\"; CREATE SCHEMA elsewhere"))
        .unwrap();
    for tail in [
        "SET ROLE plain_group",
        "SET LOCAL ROLE plain_group",
        "SET search_path = elsewhere",
        "SET search_path = ''",
        "SET standard_conforming_strings = off",
        "SET TIME ZONE 'Asia/Tokyo'; SET DateStyle = 'German'",
        "SET statement_timeout = 0",
        "SAVEPOINT leasehold",
    ] {
        world.role("tail", &format!("{MEMBER} {tail};"), json!({})).await;
        let issued = world.issue("tail").await;
        assert!(world.log_in(&issued).await.is_ok(), "{tail}");
        assert!(world.comment(&issued).starts_with("leasehold:test-installation:"), "{tail}: no mark");
        world.renew(&issued, issued.intent.expires_at).await.unwrap();
        world.revoke(&issued).await.unwrap();
        assert!(!world.role_exists(&issued.username), "{tail}");
    }
}

#[tokio::test]
async fn an_error_says_which_statement_and_which_line_and_what_postgresql_advises() {
    let world = World::new().await;
    for (creation, parts) in [
        (
            format!("{MEMBER}\nGRANT readonly TO \"{{{{name}}}}\";\nSELECT 1,\n  nonsense\n FROM customers;"),
            vec!["creation statement 3 of 3, line 2", "column \"nonsense\" does not exist (SQLSTATE 42703)"],
        ),
        (
            format!("{MEMBER} INSERT INTO customers (id, name, city) VALUES (1, 'a', 'b');"),
            vec!["creation statement 2 of 2", "DETAIL: Column", "HINT: Use OVERRIDING SYSTEM VALUE"],
        ),
        (
            format!("{MEMBER} DO $$ BEGIN RAISE EXCEPTION 'odd' USING DETAIL = 'in detail', HINT = 'do this'; END $$;"),
            vec![
                "creation statement 2 of 2; DETAIL: in detail; HINT: do this; CONTEXT: PL/pgSQL function inline_code_block line 1 at RAISE",
            ],
        ),
    ] {
        world.role("wrong", &creation, json!({})).await;
        let said = world.issue_fails("wrong").await;
        for part in parts {
            assert!(said.contains(part), "{creation}: {said}");
        }
    }
}

#[tokio::test]
async fn after_the_deadline_no_role_is_made() {
    let world = World::new().await;
    world.role("late", MEMBER, json!({})).await;
    let plan = world.plan("late").await.unwrap();
    let mut intent = world.intent("late", &plan);
    intent.deadline = intent.issued_at;
    let error = world.effect(intent.clone()).await.err().unwrap();
    assert_eq!(error.to_string(), "the deadline of this request passed before the role was created");

    // The target's own clock says so, even when ours stands still.
    world.role("slow", &format!("SELECT pg_sleep(0.5); {MEMBER}"), json!({})).await;
    let plan = world.plan("slow").await.unwrap();
    let mut intent = world.intent("slow", &plan);
    intent.deadline = intent.issued_at + Duration::from_millis(700);
    assert!(world.effect(intent.clone()).await.is_ok());
    world.role("slower", &format!("SELECT pg_sleep(0.4); SELECT pg_sleep(0.4); {MEMBER}"), json!({})).await;
    let plan = world.plan("slower").await.unwrap();
    let username = plan.effect["username"].as_str().unwrap().to_owned();
    let mut intent = world.intent("slower", &plan);
    intent.deadline = intent.issued_at + Duration::from_millis(500);
    let error = world.effect(intent).await.err().unwrap();
    assert_eq!(error.to_string(), "the deadline of this request passed before the role was created");
    assert!(!world.role_exists(&username));
}

#[tokio::test]
async fn a_statement_cannot_outlast_the_deadline() {
    let world = World::new().await;
    world.role("sleepy", &format!("{MEMBER} SELECT pg_sleep(30);"), json!({})).await;
    let plan = world.plan("sleepy").await.unwrap();
    let mut intent = world.intent("sleepy", &plan);
    intent.deadline = intent.issued_at + Duration::from_millis(600);
    let error = world.effect(intent).await.err().unwrap();
    assert!(error.to_string().contains("statement timeout (SQLSTATE 57014)"), "{error}");
}

#[tokio::test]
async fn the_servers_log_never_sees_a_password() {
    let pg = Arc::new(own_server(Options { log_statements: true, ..Options::default() }));
    let world = World::on(pg);
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.log_in(&issued).await.unwrap();
    let log = world.pg.log().unwrap();
    assert!(log.contains(&issued.username) && log.contains("SCRAM-SHA-256$4096:"), "the statement is logged");
    assert!(!log.contains(&issued.password) && !log.contains(world.pg.admin_password()));

    world.write("config/pg", json!({"password_authentication": "password"})).await.unwrap();
    let plain = world.issue("readonly").await;
    world.log_in(&plain).await.unwrap();
    assert!(world.pg.log().unwrap().contains(&plain.password), "asked for: the plain password is sent");

    let fewer = json!({"password_authentication": "scram-sha-256", "scram_iterations": 1000});
    world.write("config/pg", fewer).await.unwrap();
    let cheap = world.issue("readonly").await;
    world.log_in(&cheap).await.unwrap();
    assert!(world.pg.log().unwrap().contains("SCRAM-SHA-256$1000:"), "asked for: fewer rounds");
}

/// What stood in single quotes in the statements that the server logged as failed.
fn secrets_in(log: &str) -> Vec<String> {
    log.split('\'')
        .skip(1)
        .step_by(2)
        .filter(|text| text.len() >= 24 && !text.contains(' '))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn no_error_quotes_the_password_or_its_verifier() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    for (mode, statement) in [
        ("password", r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' NONSENSE"#),
        ("password", r#"CREATE ROLE "{{name}}" LOGIN; SELECT '{{password}}'::int"#),
        ("password", r#"CREATE ROLE "{{name}}" LOGIN; SELECT 1 FROM '{{password}}'"#),
        ("scram-sha-256", r#"CREATE ROLE "{{name}}" LOGIN; SELECT '{{password}}'::int"#),
        ("scram-sha-256", r#"DO $$ BEGIN RAISE EXCEPTION 'here: %', '{{password}}'; END $$"#),
    ] {
        world.write("config/pg", json!({"password_authentication": mode})).await.unwrap();
        world.role("leaky", statement, json!({})).await;
        let before = world.pg.log().unwrap().len();
        let said = world.issue_fails("leaky").await;
        // By default PostgreSQL logs a statement that failed, so the log knows what was sent.
        let log = world.pg.log().unwrap();
        let sent = secrets_in(log[before..].split_once("STATEMENT:").expect("the statement is logged").1);
        assert!(!sent.is_empty(), "{log}");
        for secret in &sent {
            let part = |window: &[u8]| said.contains(std::str::from_utf8(window).unwrap());
            assert!(!secret.as_bytes().windows(8).any(part), "{statement}: {said} holds a part of {secret}");
        }
        assert!(said.contains("SQLSTATE"), "{said}");
    }
}

#[tokio::test]
async fn a_password_outside_of_quotes_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let statement = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD {{password}}"#;
    let written = world.write("roles/bare", json!({"db_name": "pg", "creation_statements": statement})).await.unwrap();
    assert!(written.warnings.iter().any(|said| said.contains("the password stands outside of quotes")), "{written:?}");
    let said = world.issue_fails("bare").await;
    assert!(said.starts_with("failed to render creation statements: the secret stands outside of quotes"), "{said}");
}

#[tokio::test]
async fn grants_on_one_table_do_not_collide() {
    let world = Arc::new(World::new().await);
    world.connect("pg", json!({"max_open_connections": 8})).await;
    let creation = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
                      GRANT SELECT ON orders TO "{{name}}";"#;
    world.role("granted", creation, json!({})).await;
    let many = (0..24).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let issued = world.issue("granted").await;
            // As the lease module does: what could not get its turn is tried again in a moment.
            while let Err(error) = world.revoke(&issued).await {
                assert!(matches!(error, EngineError::Busy(_)), "{error:?}");
            }
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let left = world.pg.psql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-granted-%'").unwrap();
    assert_eq!(left, "0");
}

#[tokio::test]
async fn an_unavailable_admin_right_is_told_and_no_lease_is_left() {
    let world = World::new().await;
    world.role("super", r#"CREATE ROLE "{{name}}" SUPERUSER LOGIN PASSWORD '{{password}}'"#, json!({})).await;
    let said = world.issue_fails("super").await;
    // In the words of PostgreSQL up to 15, and from 16 on.
    assert!(said.contains("must be superuser") || said.contains("permission denied to create role"), "{said}");
    assert!(said.contains("(SQLSTATE 42501)"), "{said}");
}

#[tokio::test]
async fn a_lease_says_which_connection_must_be_down_for_it_to_wait() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    assert_eq!(world.plan("readonly").await.unwrap().connection, "database_0a1b2c3d/pg");
}
