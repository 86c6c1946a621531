//! The end of a credential: architecture §6, ADR 0010, contract.md §5.7.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::seams::engine::EngineError;
use leasehold_devpg::Options;
use leasehold_model::Operation;
use serde_json::json;

use crate::support::{Issued, MEMBER, World, log_in, own_server};

fn failed(result: Result<(), EngineError>) -> String {
    match result {
        Err(EngineError::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Whether a session still answers.
async fn lives(client: &tokio_postgres::Client) -> bool {
    let asked = tokio::time::timeout(Duration::from_secs(3), client.simple_query("SELECT 1")).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

#[tokio::test]
async fn a_revoked_role_is_gone_and_again_is_no_error() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
    assert!(world.log_in(&issued).await.is_err());
    world.revoke(&issued).await.unwrap();
}

#[tokio::test]
async fn sessions_end_with_the_lease_even_those_that_have_set_another_role() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let (plain, other, busy) = (
        world.log_in(&issued).await.unwrap(),
        world.log_in(&issued).await.unwrap(),
        world.log_in(&issued).await.unwrap(),
    );
    other.batch_execute("SET ROLE readonly").await.unwrap();
    assert!(other.query_one("SELECT count(*) FROM customers", &[]).await.is_ok());
    let sleeping =
        tokio::spawn(async move { busy.batch_execute("BEGIN; SET ROLE readonly; SELECT pg_sleep(60)").await });
    tokio::time::sleep(Duration::from_millis(100)).await;

    world.revoke(&issued).await.unwrap();
    assert!(!lives(&plain).await && !lives(&other).await);
    assert!(sleeping.await.unwrap().is_err());
    assert!(!world.role_exists(&issued.username));
}

/// What ours would change waits for this transaction, and then finds the row changed.
async fn somebody_grants(world: &World) -> tokio::task::JoinHandle<String> {
    let pg = Arc::clone(&world.pg);
    let grants = "BEGIN; GRANT SELECT ON orders TO PUBLIC; SELECT pg_sleep(1); COMMIT";
    let granting = tokio::task::spawn_blocking(move || pg.psql(grants).unwrap());
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while world.pg.psql(sleeps).unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    granting
}

#[tokio::test]
async fn a_grant_of_somebody_else_at_the_same_time_fails_neither_an_issue_nor_a_revocation() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.role("granted", &format!("{MEMBER} GRANT SELECT ON orders TO \"{{{{name}}}}\";"), json!({})).await;
    let granting = somebody_grants(&world).await;
    let issued = world.issue("granted").await;
    granting.await.unwrap();
    let granting = somebody_grants(&world).await;
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
    granting.await.unwrap();
}

const OWNER: &str = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;
    GRANT CREATE, USAGE ON SCHEMA public TO "{{name}}";"#;

async fn make_things(world: &World, issued: &Issued, tag: &str) {
    let client = world.log_in(issued).await.unwrap();
    client
        .batch_execute(&format!(
            "CREATE TABLE kept_{tag} (id serial, note text); INSERT INTO kept_{tag} (note) VALUES ('application data'); \
             CREATE FUNCTION escape_{tag}() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS \
             $f$ BEGIN EXECUTE 'CREATE ROLE escaped_{tag} LOGIN CREATEROLE'; END $f$; \
             CREATE VIEW seen_{tag} AS SELECT * FROM kept_{tag}; CREATE TYPE mood_{tag} AS ENUM ('a'); \
             GRANT SELECT ON kept_{tag} TO readonly; GRANT EXECUTE ON FUNCTION escape_{tag}() TO PUBLIC"
        ))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_leased_role_made_stays_but_gives_nobody_the_admins_rights() {
    let world = World::new().await;
    world.role("owner", OWNER, json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("owner").await;
    make_things(&world, &issued, "one").await;
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));

    assert_eq!(world.pg.psql("SELECT note FROM kept_one").unwrap(), "application data");
    for (class, name) in [("pg_class WHERE relname", "kept_one"), ("pg_proc WHERE proname", "escape_one")] {
        let column = if class.contains("proc") { "proowner" } else { "relowner" };
        let owner = world.pg.psql(&format!("SELECT {column}::regrole FROM {class} = '{name}'")).unwrap();
        assert_eq!(owner, world.heir("owner"), "{name}");
    }
    let heir = world.heir("owner");
    let rights = world.pg.psql(&format!(
        "SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb, \
         (SELECT count(*) FROM pg_auth_members m WHERE m.member = r.oid), has_schema_privilege(r.oid, 'public', 'CREATE') \
         FROM pg_roles r WHERE rolname = '{heir}'",
    ));
    assert_eq!(rights.unwrap(), "f|0|f", "the heir has no rights, not even those it needed for a moment");

    // The escape of ADR 0010: another leased role calls the function that the first one left behind.
    let next = world.issue("readonly").await;
    let client = world.log_in(&next).await.unwrap();
    let error = client.batch_execute("SELECT escape_one()").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error}");
    assert!(!world.role_exists("escaped_one"));
    world.revoke(&next).await.unwrap();
}

#[tokio::test]
async fn rights_and_objects_in_other_databases_are_found_too() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    let admin = world.pg.admin_user();
    world.pg.psql("CREATE DATABASE \"se\"\"cond; --\"").unwrap();
    let grants = format!(
        "GRANT CREATE ON DATABASE \"se\"\"cond; --\" TO \"{admin}\" WITH GRANT OPTION; \
         CREATE SCHEMA \"odd\"\"schema'; --\"; GRANT CREATE, USAGE ON SCHEMA \"odd\"\"schema'; --\" TO \"{admin}\" WITH GRANT OPTION; \
         CREATE ROLE builders; GRANT builders TO \"{admin}\" WITH ADMIN OPTION; CREATE SCHEMA built; GRANT ALL ON SCHEMA built TO builders"
    );
    world.pg.psql_in("se\"cond; --", &grants).unwrap();
    let creation = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly, builders;
        GRANT CREATE, USAGE ON SCHEMA public TO "{{name}}"; GRANT TEMPORARY ON DATABASE myapp TO "{{name}}";"#;
    world.role("both", creation, json!({})).await;
    let issued = world.issue("both").await;
    let name = &issued.username;
    world
        .pg
        .psql_in("se\"cond; --", &format!("GRANT CREATE, USAGE ON SCHEMA \"odd\"\"schema'; --\" TO \"{name}\""))
        .unwrap();
    make_things(&world, &issued, "here").await;
    let there = log_in(&world.pg, name, &issued.password, "se\"cond; --").await.unwrap();
    there
        .batch_execute(
            "CREATE TABLE \"odd\"\"schema'; --\".\"t\"\"able\" (x int); \
             CREATE FUNCTION \"odd\"\"schema'; --\".\"f\"() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             CREATE FUNCTION built.g() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        )
        .await
        .unwrap();

    // Granted by the superuser: this admin cannot take it away. See the next test; here it goes first.
    world.pg.psql_in("se\"cond; --", &format!("REVOKE ALL ON SCHEMA \"odd\"\"schema'; --\" FROM \"{name}\"")).unwrap();
    world
        .pg
        .psql_in(
            "se\"cond; --",
            &format!("GRANT CREATE ON SCHEMA \"odd\"\"schema'; --\" TO \"{admin}\" WITH GRANT OPTION"),
        )
        .unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(name) && !lives(&there).await);
    let owners =
        world.pg.psql_in("se\"cond; --", "SELECT DISTINCT proowner::regrole FROM pg_proc WHERE proname IN ('f', 'g')");
    assert_eq!(owners.unwrap(), world.heir("both"));
}

#[tokio::test]
async fn a_right_that_somebody_else_granted_is_named_and_the_role_stays_shut() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.pg.psql(&format!("CREATE TABLE theirs (x int); GRANT SELECT ON theirs TO \"{}\"", issued.username)).unwrap();
    let session = world.log_in(&issued).await.unwrap();

    let said = failed(world.revoke(&issued).await);
    assert!(said.contains("SQLSTATE 2BP01"), "{said}");
    assert!(
        said.contains("SELECT on table public.theirs granted by \"postgres\" in database \"myapp\"")
            || said.contains("SELECT on table theirs granted by \"postgres\" in database \"myapp\""),
        "{said}"
    );
    assert!(
        !lives(&session).await && world.log_in(&issued).await.is_err(),
        "no session, no login, though the role is there"
    );

    world.pg.psql(&format!("REVOKE SELECT ON theirs FROM \"{}\"; DROP TABLE theirs", issued.username)).unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn the_connection_may_name_another_heir_or_drop_what_is_left() {
    let world = World::new().await;
    world.role("owner", OWNER, json!({})).await;
    world.connect("pg", json!({"drop_owned": true})).await;
    let issued = world.issue("owner").await;
    make_things(&world, &issued, "dropped").await;
    world.revoke(&issued).await.unwrap();
    assert_eq!(world.pg.psql("SELECT count(*) FROM pg_class WHERE relname = 'kept_dropped'").unwrap(), "0");

    world.connect("pg", json!({"drop_owned": false, "reassign_owned_to": "heir"})).await;
    let issued = world.issue("owner").await;
    make_things(&world, &issued, "heired").await;
    world.revoke(&issued).await.unwrap();
    assert_eq!(world.pg.psql("SELECT relowner::regrole FROM pg_class WHERE relname = 'kept_heired'").unwrap(), "heir");

    let admin = world.pg.admin_user().to_owned();
    world.connect("pg", json!({"reassign_owned_to": admin})).await;
    let issued = world.issue("owner").await;
    make_things(&world, &issued, "admins").await;
    let said = failed(world.revoke(&issued).await);
    assert_eq!(said, "reassign_owned_to must not name the connection's own user");
    assert!(world.log_in(&issued).await.is_err(), "shut all the same");
    world.connect("pg", json!({"reassign_owned_to": ""})).await;
    world.revoke(&issued).await.unwrap();
}

#[tokio::test]
async fn revocation_statements_are_those_of_the_issue() {
    let world = World::new().await;
    let custom = r#"CREATE TABLE trace_{{name}} (x int); DROP ROLE "{{name}}";"#;
    world.role("custom", MEMBER, json!({"revocation_statements": r#"COMMENT ON ROLE readonly IS 'for {{name}}'; DROP ROLE "{{username}}";"#})).await;
    let issued = world.issue("custom").await;
    world.role("custom", MEMBER, json!({"revocation_statements": custom})).await;
    world.answer(Operation::Delete, "roles/custom", json!({})).await.unwrap();
    let session = world.log_in(&issued).await.unwrap();

    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username) && !lives(&session).await);
    let comment = world.pg.psql("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'readonly'");
    assert_eq!(comment.unwrap(), format!("for {}", issued.username));
}

/// quarkusio/quarkus#8747: whoever writes NOLOGIN wants the role and its objects to stay.
#[tokio::test]
async fn statements_that_succeed_and_leave_the_role_mean_what_they_say() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    for statements in [r#"ALTER ROLE "{{name}}" NOLOGIN;"#, "SELECT 1;", r#"REVOKE readonly FROM "{{name}}";"#] {
        world.role("kept", OWNER, json!({ "revocation_statements": statements })).await;
        let issued = world.issue("kept").await;
        let session = world.log_in(&issued).await.unwrap();
        session.batch_execute("CREATE TABLE theirs_still (x int)").await.unwrap();
        for _ in 0..2 {
            world.revoke(&issued).await.unwrap();
            assert!(world.role_exists(&issued.username), "{statements}");
            assert!(
                !lives(&session).await && world.log_in(&issued).await.is_err(),
                "{statements}: no login, no session"
            );
        }
        let owner = world.pg.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'theirs_still'").unwrap();
        assert_eq!(owner, issued.username, "{statements}");
        assert!(world.comment(&issued).starts_with("leasehold-kept:"), "it is nobody's orphan");
        world.pg.psql("DROP TABLE theirs_still").unwrap();
    }
    // A login or a session is what no lease leaves behind, whatever its statements say.
    world.role("alive", MEMBER, json!({ "revocation_statements": r#"ALTER ROLE "{{name}}" LOGIN;"# })).await;
    let issued = world.issue("alive").await;
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn statements_that_fail_for_good_are_followed_by_the_default_revocation() {
    let world = World::new().await;
    for statements in ["SELECT 1 / 0;", "DROP ROLE no_such_role;", "nonsense", r#"DROP ROLE "{{name}}"; SELECT 1 / 0;"#]
    {
        world.role("broken", OWNER, json!({ "revocation_statements": statements })).await;
        let issued = world.issue("broken").await;
        let session = world.log_in(&issued).await.unwrap();
        session.batch_execute("SELECT lo_create(0)").await.unwrap();
        world.revoke(&issued).await.unwrap();
        assert!(!world.role_exists(&issued.username) && !lives(&session).await, "{statements}");
    }
    // Where ours fail too, both are told.
    world.role("broken", MEMBER, json!({ "revocation_statements": "SELECT 1; SELECT 1 / 0;" })).await;
    let issued = world.issue("broken").await;
    world
        .pg
        .psql(&format!("CREATE TABLE theirs_too (x int); GRANT SELECT ON theirs_too TO \"{}\"", issued.username))
        .unwrap();
    let said = failed(world.revoke(&issued).await);
    assert!(said.contains("division by zero (SQLSTATE 22012): revocation statement 2 of 2"), "{said}");
    assert!(
        said.contains("SELECT on table theirs_too granted by \"postgres\"")
            || said.contains("SELECT on table public.theirs_too granted by \"postgres\""),
        "{said}"
    );
    world.pg.psql("DROP TABLE theirs_too").unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn publications_and_foreign_servers_are_given_away_too() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    let (admin, database) = (world.pg.admin_user(), world.pg.database());
    let ready = format!(
        "CREATE FOREIGN DATA WRAPPER wrapper; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO \"{admin}\" WITH GRANT OPTION; \
         CREATE ROLE publishers; GRANT CREATE ON DATABASE \"{database}\" TO publishers; \
         GRANT publishers TO \"{admin}\" WITH ADMIN OPTION"
    );
    world.pg.psql(&ready).unwrap();
    let creation = format!(
        "{OWNER} GRANT publishers TO \"{{{{name}}}}\"; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO \"{{{{name}}}}\";"
    );
    world.role("publisher", &creation, json!({})).await;
    let issued = world.issue("publisher").await;
    let session = world.log_in(&issued).await.unwrap();
    let made = "CREATE TABLE published (x int); CREATE PUBLICATION made FOR TABLE published; \
                CREATE SERVER made FOREIGN DATA WRAPPER wrapper; CREATE USER MAPPING FOR CURRENT_USER SERVER made";
    session.batch_execute(made).await.unwrap();

    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username) && !lives(&session).await);
    let owners =
        "SELECT pubowner::regrole FROM pg_publication UNION ALL SELECT srvowner::regrole FROM pg_foreign_server";
    let heir = world.heir("publisher");
    assert_eq!(world.pg.psql(owners).unwrap(), format!("{heir}\n{heir}"));
    let groups = format!("SELECT count(*) FROM pg_auth_members WHERE member = '{heir}'::regrole");
    assert_eq!(world.pg.psql(&groups).unwrap(), "0", "the heir kept what it needed for a moment");
}

#[tokio::test]
async fn a_role_that_holds_itself_fast_in_an_open_transaction_ends_all_the_same() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session = world.log_in(&issued).await.unwrap();
        // The first holds the role's row, the others wait for it.
        let holds = session.batch_execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'");
        drop(tokio::time::timeout(Duration::from_millis(300), holds).await);
        sessions.push(session);
    }
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
    for session in &sessions {
        assert!(!lives(session).await);
    }
}

#[tokio::test]
async fn prepared_transactions_end_with_the_lease() {
    let settings = vec![("max_prepared_transactions".to_owned(), "8".to_owned())];
    let world = World::on(Arc::new(own_server(Options { settings, ..Options::default() })));
    world.connect("pg", json!({})).await;
    world.pg.psql("CREATE DATABASE second").unwrap();
    world.role("owner", OWNER, json!({})).await;
    let (first, second) = (world.issue("owner").await, world.issue("owner").await);
    let session = world.log_in(&first).await.unwrap();
    session.batch_execute("BEGIN; CREATE TABLE prepared (x int); PREPARE TRANSACTION 'it''s \\ this'").await.unwrap();
    let there = log_in(&world.pg, &first.username, &first.password, "second").await.unwrap();
    there.batch_execute("BEGIN; SELECT lo_create(0); PREPARE TRANSACTION 'there'").await.unwrap();
    let session = world.log_in(&second).await.unwrap();
    session.batch_execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; PREPARE TRANSACTION 'held'").await.unwrap();
    drop((session, there));
    for issued in [first, second] {
        world.revoke(&issued).await.unwrap();
        assert!(!world.role_exists(&issued.username));
    }
    assert_eq!(world.pg.psql("SELECT count(*) FROM pg_prepared_xacts").unwrap(), "0");
}

#[tokio::test]
async fn a_database_that_lets_nobody_in_does_not_make_its_server_count_as_down() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.pg.psql("CREATE DATABASE closed").unwrap();
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let there = log_in(&world.pg, &issued.username, &issued.password, "closed").await.unwrap();
    there.batch_execute("SELECT lo_create(0)").await.unwrap();
    world.pg.psql("ALTER DATABASE closed ALLOW_CONNECTIONS false").unwrap();

    let said = failed(world.revoke(&issued).await);
    assert!(said.starts_with("failed to connect to database \"closed\"") && said.contains("55000"), "{said}");
    world.pg.psql("ALTER DATABASE closed ALLOW_CONNECTIONS true").unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn a_catalogue_that_is_slow_to_read_does_not_count_as_a_target_that_hangs() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    // With statements of its own the role is not first dropped to see whether anything depends on it.
    world.role("owner", OWNER, json!({"revocation_statements": "ALTER ROLE \"{{name}}\" LOGIN"})).await;
    let issued = world.issue("owner").await;
    make_things(&world, &issued, "slow").await;
    let pg = Arc::clone(&world.pg);
    let slow = "BEGIN; LOCK TABLE pg_catalog.pg_shdepend IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(6.5); COMMIT";
    let slow = tokio::task::spawn_blocking(move || pg.psql(slow).unwrap());
    let locked =
        "SELECT count(*) FROM pg_locks WHERE relation = 'pg_shdepend'::regclass AND mode = 'AccessExclusiveLock'";
    while world.pg.psql(locked).unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = std::time::Instant::now();
    world.revoke(&issued).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(5), "it was not slow: {:?}", begun.elapsed());
    assert!(!world.role_exists(&issued.username));
    slow.await.unwrap();
}

#[tokio::test]
async fn a_lease_outlives_its_connections_configuration() {
    let world = World::new().await;
    world.connect("pg9", json!({})).await;
    world.role("readonly", MEMBER, json!({"db_name": "pg9"})).await;
    let issued = world.issue("readonly").await;
    world.answer(Operation::Delete, "config/pg9", json!({})).await.unwrap();
    assert_eq!(
        failed(world.revoke(&issued).await),
        "failed to find entry for connection with name: \"pg9\": write it again so that its leases can end, or give them up with \
         `lease revoke -force -prefix`"
    );
    world.connect("pg9", json!({})).await;
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn a_role_dropped_by_hand_counts_as_revoked() {
    let world = World::new().await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    world.pg.psql(&format!("DROP ROLE \"{}\"", issued.username)).unwrap();
    world.revoke(&issued).await.unwrap();
}
