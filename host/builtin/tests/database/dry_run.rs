//! `verify=true` on a role: its statements are tried on the real database, and nothing of it stays.

use std::sync::Arc;

use leasehold_core::seams::error::RequestError;
use leasehold_devpg::Options;
use serde_json::{Value, json};

use crate::support::{MEMBER, World, own_server};

async fn own_world() -> World {
    let world = World::on(Arc::new(own_server(Options { log_statements: true, ..Options::default() })));
    world.connect("pg", json!({ "max_open_connections": 1 })).await;
    world
}

fn body(creation: &str, more: Value) -> Value {
    let mut body = json!({ "db_name": "pg", "creation_statements": creation, "default_ttl": "1h", "verify": true });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// Everything that statements could leave behind.
fn traces(world: &World) -> String {
    world
        .pg
        .psql(
            "SELECT (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_auth_members), (SELECT count(*) FROM pg_class), \
             (SELECT string_agg(relacl::text, ',') FROM pg_class WHERE relname = 'orders'), \
             (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), (SELECT count(*) FROM pg_prepared_xacts)",
        )
        .unwrap()
}

/// What belongs to a session goes when its server has noticed that it was closed.
async fn has_no_traces_but(world: &World, before: &str) {
    for _ in 0..100 {
        if traces(world) == before {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(traces(world), before);
}

async fn refused(world: &World, creation: &str, more: Value) -> String {
    match world.write("roles/tried", body(creation, more)).await {
        Err(RequestError::Invalid(text)) => text,
        other => panic!("{creation}: {other:?}"),
    }
}

#[tokio::test]
async fn a_role_is_created_looked_at_renewed_revoked_and_nothing_stays() {
    let world = own_world().await;
    let before = traces(&world);
    let creation = format!("{MEMBER} GRANT SELECT ON orders TO \"{{{{name}}}}\"; SELECT pg_advisory_lock(1);");
    let more = json!({
        "renew_statements": "ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",
        "revocation_statements": "DROP OWNED BY \"{{name}}\"; DROP ROLE \"{{name}}\"",
    });
    for more in [
        json!({}),
        more,
        json!({ "revocation_statements": "REVOKE SELECT ON orders FROM \"{{name}}\"; DROP ROLE \"{{name}}\"" }),
    ] {
        let answer = world.write("roles/tried", body(&creation, more)).await.unwrap();
        let found = &answer.data.unwrap()["verification"];
        assert_eq!(
            found["statements"][0],
            json!({ "list": "creation_statements", "statement": 1, "of": 3, "result": "ok" })
        );
        assert_eq!(found["role"], json!({ "can_login": true, "valid_until": true }));
        assert!(answer.warnings.iter().all(|warning| !warning.contains("tried")), "{:?}", answer.warnings);
    }
    has_no_traces_but(&world, &before).await;
    let log = world.pg.log().unwrap();
    assert!(log.contains("CREATE ROLE \"v-token-tried-"), "it was tried on the database");
    // It is stored as any other, and its credentials work.
    world.log_in(&world.issue("tried").await).await.unwrap();
    assert!(world.read("roles/tried").await.unwrap().get("verify").is_none());
}

#[tokio::test]
async fn a_role_whose_statements_fail_is_not_stored_and_leaves_nothing() {
    let world = own_world().await;
    let before = traces(&world);
    for (creation, more, parts) in [
        (
            format!("{MEMBER}\nGRANT SELECT\n ON no_such_table TO \"{{{{name}}}}\"; SELECT 1; SELECT 2;"),
            json!({}),
            vec![
                "creation statement 2 of 4",
                "relation \"no_such_table\" does not exist",
                "2 statements after that were not run",
            ],
        ),
        (MEMBER.to_owned(), json!({ "renew_statements": "SELECT\n nonsense" }), vec!["renew statement 1 of 1, line 2"]),
        (
            MEMBER.to_owned(),
            json!({ "revocation_statements": "DROP ROLE \"{{nam}}\"" }),
            vec!["revocation statement 1 of 1"],
        ),
        (format!("{MEMBER} COMMIT;"), json!({}), vec!["COMMIT ends the transaction"]),
        (format!("{MEMBER} PREPARE TRANSACTION 'x';"), json!({}), vec!["PREPARE ends the transaction"]),
        (
            "DO $$ BEGIN CREATE ROLE \"{{name}}\"; COMMIT; END $$".to_owned(),
            json!({}),
            vec!["invalid transaction termination"],
        ),
        (
            MEMBER.to_owned(),
            json!({ "db_name": "nowhere" }),
            vec!["failed to find entry for connection with name: \"nowhere\""],
        ),
        (String::new(), json!({}), vec!["empty creation statements"]),
        (format!("{MEMBER} SELECT '{{{{password}}}}'::int;"), json!({}), vec!["creation statement 2 of 2"]),
    ] {
        let said = refused(&world, &creation, more).await;
        for part in parts {
            assert!(said.contains(part), "{creation}: {said}");
        }
        assert!(!said.contains("SCRAM-SHA-256"), "{said}");
        assert!(matches!(world.read("roles/tried").await, Err(RequestError::NotFound)), "{creation}");
    }
    has_no_traces_but(&world, &before).await;
}

#[tokio::test]
async fn what_is_odd_about_the_role_is_told_although_nothing_failed() {
    let world = own_world().await;
    for (creation, part) in [
        ("SELECT 1", "no PostgreSQL role named {{name}} stands"),
        (r#"CREATE ROLE "{{name}}" PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"#, "cannot log in"),
        (r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'"#, "has no VALID UNTIL"),
    ] {
        let answer = world.write("roles/tried", body(creation, json!({}))).await.unwrap();
        let said = answer.warnings.join("\n");
        assert!(said.contains("tried on the database") && said.contains(part), "{creation}: {said}");
    }
}
