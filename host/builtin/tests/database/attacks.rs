//! What a leased role, or somebody who shares its server, might do so that something of it outlives the lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::seams::engine::{EngineError, SecretsEngine as _};
use leasehold_core::seams::storage::Expect;
use leasehold_devpg::{Options, Stop};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::support::{Issued, MEMBER, World, log_in, own_server};

/// A role that may make things in `public`, and has no other right.
const MAKER: &str = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
    GRANT CREATE, USAGE ON SCHEMA public TO "{{name}}";"#;
/// A role without any right.
const NOBODY: &str = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"#;

async fn own_world(options: Options) -> World {
    let world = World::on(Arc::new(own_server(options)));
    world.connect("pg", json!({})).await;
    world
}

async fn lives(client: &Client) -> bool {
    let asked = tokio::time::timeout(Duration::from_secs(3), client.simple_query("SELECT 1")).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

fn refused(result: Result<(), EngineError>) -> String {
    match result {
        Err(EngineError::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Logs in with `SET ROLE readonly` already done, again and again until refused; hands out every session that came about.
async fn keeps_coming(url: String) -> Vec<Client> {
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.options("-c role=readonly");
    let mut sessions = Vec::new();
    while let Ok((client, connection)) = config.connect(NoTls).await {
        tokio::spawn(connection);
        sessions.push(client);
    }
    sessions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_takes_long_to_start_ends_too() {
    let world = own_world(Options::default()).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    // A login of this role takes a good part of a second from then on, between its password and its first statement.
    let slow = format!(
        "SELECT set_config('search_path', repeat('a,', 4000000) || 'b', false) IS NULL; \
         ALTER ROLE \"{}\" SET search_path FROM CURRENT",
        issued.username
    );
    world.log_in(&issued).await.unwrap().batch_execute(&slow).await.unwrap();
    let url = world.pg.url(&issued.username, &issued.password);
    let coming: Vec<_> = (0..3).map(|_| tokio::spawn(keeps_coming(url.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(700)).await;

    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
    for coming in coming {
        for session in coming.await.unwrap() {
            assert!(!lives(&session).await, "a session outlived its role");
        }
    }
}

/// The function that a role left for others to call locks its own row, in their transaction.
async fn holder(world: &World, issued: &Issued) -> String {
    let name = &issued.username;
    let make = format!(
        "CREATE FUNCTION public.hold() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS \
         $f$ BEGIN EXECUTE 'ALTER ROLE \"{name}\" PASSWORD ''x'''; END $f$; \
         GRANT EXECUTE ON FUNCTION public.hold() TO PUBLIC"
    );
    world.log_in(issued).await.unwrap().batch_execute(&make).await.unwrap();
    "BEGIN; SELECT public.hold()".to_owned()
}

#[tokio::test]
async fn another_leased_role_cannot_hold_the_login_open() {
    let world = own_world(Options::default()).await;
    world.role("maker", MAKER, json!({})).await;
    world.role("nobody", NOBODY, json!({})).await;
    let (held, other) = (world.issue("maker").await, world.issue("nobody").await);
    let hold = holder(&world, &held).await;
    let session = world.log_in(&other).await.unwrap();
    session.batch_execute(&hold).await.unwrap();

    world.revoke(&held).await.unwrap();
    assert!(!world.role_exists(&held.username) && !lives(&session).await);
    assert!(world.log_in(&other).await.is_ok(), "who held it has lost a session, no more");
}

#[tokio::test]
async fn a_stranger_who_holds_the_login_open_is_named() {
    let world = own_world(Options::default()).await;
    world.role("maker", MAKER, json!({})).await;
    let held = world.issue("maker").await;
    let hold = holder(&world, &held).await;
    let (superuser, connection) = tokio_postgres::connect(&world.pg.superuser_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    superuser.batch_execute(&hold).await.unwrap();

    let said = refused(world.revoke(&held).await);
    assert!(said.contains("an open transaction of role \"postgres\" (process "), "{said}");
    superuser.batch_execute("ROLLBACK").await.unwrap();
    world.revoke(&held).await.unwrap();
}

/// Who holds a lock on what the role owns keeps it from being given away.
#[tokio::test]
async fn a_lock_on_what_a_role_owns_names_its_holder_who_is_ended_only_if_it_is_being_revoked() {
    let world = own_world(Options::default()).await;
    world.role("maker", MAKER, json!({})).await;
    world.role("nobody", NOBODY, json!({})).await;
    let (owner, holder) = (world.issue("maker").await, world.issue("nobody").await);
    let make = "CREATE TABLE public.held (x int); GRANT SELECT ON public.held TO PUBLIC";
    world.log_in(&owner).await.unwrap().batch_execute(make).await.unwrap();
    let session = world.log_in(&holder).await.unwrap();
    session.batch_execute("SET application_name = 'nightly job'; BEGIN; SELECT * FROM public.held").await.unwrap();

    let said = refused(world.revoke(&owner).await);
    let named = format!("of role {:?} holds the lock (application \"nightly job\"", holder.username);
    assert!(said.contains("SQLSTATE 55P03") && said.contains(&named), "{said}");
    assert!(lives(&session).await, "its lease is in force");
    // As the first step of its own revocation leaves it.
    world.pg.psql(&format!("ALTER ROLE \"{}\" NOLOGIN", holder.username)).unwrap();
    world.revoke(&owner).await.unwrap();
    assert!(!world.role_exists(&owner.username) && !lives(&session).await);
}

#[tokio::test]
async fn a_crash_of_the_server_brings_no_revoked_role_back() {
    let settings = vec![("synchronous_commit".into(), "off".into()), ("wal_writer_delay".into(), "10s".into())];
    let world = own_world(Options { settings, ..Options::default() }).await;
    world.role("readonly", MEMBER, json!({})).await;
    world.role("maker", MAKER, json!({})).await;
    let (plain, made) = (world.issue("readonly").await, world.issue("maker").await);
    world.log_in(&made).await.unwrap().batch_execute("CREATE TABLE made (x int)").await.unwrap();
    world.pg.psql("CHECKPOINT").unwrap();
    world.revoke(&made).await.unwrap();
    world.revoke(&plain).await.unwrap();
    world.pg.stop(Stop::Immediate).unwrap();
    world.pg.start_again().unwrap();
    assert!(!world.role_exists(&plain.username) && !world.role_exists(&made.username));
}

#[tokio::test]
async fn a_role_whose_commit_is_not_over_does_not_count_as_gone() {
    let world = own_world(Options::default()).await;
    world.role("readonly", MEMBER, json!({})).await;
    world.issue("readonly").await;
    let standby = |names: &str| {
        world.pg.psql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).unwrap();
        world.pg.psql("SELECT pg_reload_conf()").unwrap();
    };
    standby("nobody");
    let plan = world.plan("readonly").await.unwrap();
    let mut intent = world.intent("readonly", &plan);
    intent.deadline = world.context.clock.now() + Duration::from_secs(2);
    let again = world.intent("readonly", &plan);
    let id = intent.id.clone();
    world.effect(intent).await.err().expect("its commit waits for a standby that is not there");
    let mut late = again;
    late.id = id;
    let issued = Issued {
        username: plan.effect["username"].as_str().unwrap().to_owned(),
        password: String::new(),
        intent: late,
    };
    assert!(!world.role_exists(&issued.username), "nobody can see it yet");

    let said = refused(world.revoke(&issued).await);
    assert!(said.contains("has not ended"), "{said}");
    standby("");
    while !world.role_exists(&issued.username) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn what_statements_set_in_their_session_does_not_reach_the_next_lease() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({ "max_open_connections": 1 })).await;
    let admin = world.pg.admin_user();
    world
        .pg
        .psql(&format!(
            "CREATE SCHEMA secret; CREATE TABLE secret.t (x int); CREATE TABLE public.t (x int); \
             GRANT USAGE ON SCHEMA secret TO \"{admin}\" WITH GRANT OPTION; \
             GRANT SELECT ON secret.t, public.t TO \"{admin}\" WITH GRANT OPTION"
        ))
        .unwrap();
    world.role("setting", &format!("SET search_path = secret; {MEMBER}"), json!({})).await;
    world.role("granted", &format!("{MEMBER} GRANT SELECT ON t TO \"{{{{name}}}}\";"), json!({})).await;
    world.issue("setting").await;
    let issued = world.issue("granted").await;
    let may = |table: &str| {
        let sql = format!("SELECT has_table_privilege('{}', '{table}', 'SELECT')", issued.username);
        world.pg.psql(&sql).unwrap()
    };
    assert_eq!((may("public.t").as_str(), may("secret.t").as_str()), ("t", "f"));
}

#[tokio::test]
async fn what_one_application_left_cannot_be_reached_by_what_another_left() {
    let world = own_world(Options::default()).await;
    world.role("attacker", MAKER, json!({})).await;
    world.role("payments", MAKER, json!({})).await;
    world.role("nobody", NOBODY, json!({})).await;
    let (attacker, payments) = (world.issue("attacker").await, world.issue("payments").await);
    let function = "CREATE FUNCTION public.run(what text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS \
                    $f$ DECLARE r text; BEGIN EXECUTE what INTO r; RETURN r; END $f$; \
                    CREATE VIEW public.peek AS SELECT 1 AS x; GRANT EXECUTE ON FUNCTION public.run(text) TO PUBLIC";
    world.log_in(&attacker).await.unwrap().batch_execute(function).await.unwrap();
    let table = "CREATE TABLE public.cards (pan text); INSERT INTO public.cards VALUES ('4111-1111')";
    world.log_in(&payments).await.unwrap().batch_execute(table).await.unwrap();
    world.revoke(&attacker).await.unwrap();
    world.revoke(&payments).await.unwrap();

    let nobody = world.issue("nobody").await;
    let session = world.log_in(&nobody).await.unwrap();
    let read = session.query("SELECT public.run('SELECT pan FROM public.cards')", &[]).await;
    assert!(read.is_err_and(|error| error.to_string().contains("db error")), "its heir may not read the other's table");
    assert_eq!(world.pg.psql("SELECT pan FROM public.cards").unwrap(), "4111-1111");
}

#[tokio::test]
async fn rights_that_somebody_gives_an_heir_keep_no_lease_from_ending() {
    let world = own_world(Options::default()).await;
    world.role("maker", MAKER, json!({})).await;
    for table in ["first", "second"] {
        let issued = world.issue("maker").await;
        let make = format!("CREATE TABLE public.{table} (x int)");
        world.log_in(&issued).await.unwrap().batch_execute(&make).await.unwrap();
        world.revoke(&issued).await.unwrap();
        assert!(!world.role_exists(&issued.username), "{table}");
        if table == "first" {
            world.pg.psql(&format!("GRANT readonly TO \"{}\"", world.heir("maker"))).unwrap();
        }
    }
    let owners = "SELECT count(DISTINCT tableowner) FROM pg_tables WHERE tablename IN ('first', 'second')";
    assert_eq!(world.pg.psql(owners).unwrap(), "2", "the one with rights got nothing more");
}

#[tokio::test]
async fn settings_of_the_database_do_not_govern_our_sessions() {
    let world = own_world(Options::default()).await;
    let ready = "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; \
                 CREATE FUNCTION evil.quote_ident(t text) RETURNS text LANGUAGE plpgsql AS \
                 $f$ BEGIN RAISE EXCEPTION 'hijacked'; END $f$; \
                 ALTER DATABASE myapp SET search_path = evil, pg_catalog, public; \
                 ALTER DATABASE myapp SET default_transaction_read_only = on";
    world.pg.psql(ready).unwrap();
    // A new pool, whose sessions take the database's settings.
    world.write("reset/pg", json!({})).await.unwrap();
    let block =
        "DO $$ BEGIN EXECUTE 'CREATE ROLE ' || quote_ident('{{name}}') || ' LOGIN PASSWORD ''{{password}}'''; END $$;";
    world.role("block", block, json!({})).await;
    let issued = world.issue("block").await;
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn any_number_of_objects_changes_hands_in_portions() {
    let world = own_world(Options::default()).await;
    for (tag, more) in [("kept", json!({})), ("dropped", json!({ "drop_owned": true }))] {
        world.connect("pg", more).await;
        world.role("maker", MAKER, json!({})).await;
        let issued = world.issue("maker").await;
        let make = format!(
            "SELECT count(lo_create(0)) FROM generate_series(1, 700); \
             DO $d$ BEGIN FOR i IN 1..600 LOOP EXECUTE format('CREATE TABLE public.{tag}_%s (x serial)', i); END LOOP; END $d$"
        );
        world.log_in(&issued).await.unwrap().batch_execute(&make).await.unwrap();
        world.revoke(&issued).await.unwrap();
        assert!(!world.role_exists(&issued.username), "{tag}");
    }
    let heir = world.heir("maker");
    let kept = format!(
        "SELECT (SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner = '{heir}'::regrole), \
         (SELECT count(*) FROM pg_tables WHERE tableowner = '{heir}'), (SELECT count(*) FROM pg_largeobject_metadata)"
    );
    assert_eq!(world.pg.psql(&kept).unwrap(), "700|600|700");
}

/// Where the servers of these tests come from, all have one identity: so another is written into what is stored.
#[tokio::test]
async fn a_connection_that_leads_elsewhere_does_not_make_roles_count_as_gone() {
    let world = own_world(Options::default()).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    assert_eq!(issued.intent.effect["server"].as_str().map(|id| id.len() > 9), Some(true));
    world.pg.psql(&format!("DROP ROLE \"{}\"", issued.username)).unwrap();

    let mut elsewhere = issued.intent.clone();
    elsewhere.effect["server"] = json!("1234");
    let said = refused(world.engine.revoke(&world.context, &elsewhere).await);
    assert!(said.contains("made on another server"), "{said}");
    world.revoke(&issued).await.unwrap();

    let storage = &world.context.storage;
    let stored = storage.get("connection/pg").await.unwrap().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    record["server"] = json!("1234");
    storage.put("connection/pg", record.to_string().into_bytes(), Expect::Version(stored.version)).await.unwrap();
    // Leases that stand there could not end any more.
    world.standing.leases.store(2, Ordering::Relaxed);
    let said = world.write("config/pg", json!({})).await.unwrap_err().to_string();
    assert!(
        said.contains("would lead to another server than before, and 2 leases (of database/creds/readonly) stand on")
            && said.contains("force=true"),
        "{said}"
    );
    let still = storage.get("connection/pg").await.unwrap().unwrap();
    assert_eq!(still.value, record.to_string().into_bytes());
    let answer = world.write("config/pg", json!({ "force": true })).await.unwrap();
    let warned = |warning: &String| warning.contains("2 leases") && warning.contains("to that server again");
    assert!(answer.warnings.iter().any(warned), "{:?}", answer.warnings);
    assert_eq!(world.read("config/pg").await.unwrap()["connection_details"]["force"], json!(null));

    // Where there are none, nobody need be told.
    world.standing.leases.store(0, Ordering::Relaxed);
    let stored = storage.get("connection/pg").await.unwrap().unwrap();
    storage.put("connection/pg", record.to_string().into_bytes(), Expect::Version(stored.version)).await.unwrap();
    assert!(!world.write("config/pg", json!({})).await.unwrap().has_body());
}

#[tokio::test]
async fn a_role_under_another_name_ends_with_its_lease() {
    let world = own_world(Options::default()).await;
    world.role("readonly", MEMBER, json!({})).await;
    let issued = world.issue("readonly").await;
    let session = world.log_in(&issued).await.unwrap();
    world.pg.psql(&format!("ALTER ROLE \"{}\" RENAME TO escaped", issued.username)).unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists("escaped") && !lives(&session).await);
}

#[tokio::test]
async fn a_database_that_lets_nobody_in_takes_no_connection_down() {
    let world = own_world(Options::default()).await;
    let admin = world.pg.admin_user().to_owned();
    world.pg.psql(&format!("ALTER ROLE \"{admin}\" CREATEDB")).unwrap();
    let creation = NOBODY.replace("LOGIN", "LOGIN CREATEDB");
    world.role("maker", &creation, json!({})).await;
    let issued = world.issue("maker").await;
    let session = world.log_in(&issued).await.unwrap();
    session.batch_execute("CREATE DATABASE evil").await.unwrap();
    let there = log_in(&world.pg, &issued.username, &issued.password, "evil").await.unwrap();
    there.batch_execute("CREATE TABLE x (x int)").await.unwrap();
    session.batch_execute("ALTER DATABASE evil CONNECTION LIMIT 0").await.unwrap();
    let said = refused(world.revoke(&issued).await);
    assert!(said.contains("failed to connect to database \"evil\""), "{said}");
}

#[tokio::test]
async fn one_connection_is_enough_to_end_a_prepared_transaction() {
    let settings = vec![("max_prepared_transactions".into(), "4".into())];
    let world = World::on(Arc::new(own_server(Options { settings, ..Options::default() })));
    world.connect("pg", json!({ "max_open_connections": 1 })).await;
    world.role("maker", MAKER, json!({})).await;
    let issued = world.issue("maker").await;
    let prepare = format!("BEGIN; ALTER ROLE \"{}\" PASSWORD 'x'; PREPARE TRANSACTION 'held'", issued.username);
    world.log_in(&issued).await.unwrap().batch_execute(&prepare).await.unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
}

#[tokio::test]
async fn revocation_statements_that_were_wrong_are_replaced_by_those_of_the_role_now() {
    let world = World::new().await;
    world.role("fixed", MEMBER, json!({ "revocation_statements": "SELECT 1/0;" })).await;
    let issued = world.issue("fixed").await;
    world.role("fixed", MEMBER, json!({ "revocation_statements": "COMMENT ON ROLE \"{{name}}\" IS 'fixed'" })).await;
    world.revoke(&issued).await.unwrap();
    assert_eq!(world.comment(&issued), "fixed", "the default revocation would have dropped it");
}

#[tokio::test]
async fn an_admin_who_cannot_end_what_it_makes_is_told_at_once() {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.pg.psql("CREATE ROLE weak LOGIN NOINHERIT PASSWORD 'w'").unwrap();
    let body = json!({ "plugin_name": "postgresql-database-plugin", "connection_url": world.pg.templated_url(),
                       "username": "weak", "password": "w" });
    let said = world.write("config/weak", body).await.unwrap().warnings.join("\n");
    assert!(said.contains("may not create roles") && said.contains("does not inherit"), "{said}");
}

#[tokio::test]
async fn statements_that_outlive_the_request_or_the_lease_are_warned_of_and_harm_nobody() {
    let world = World::new().await;
    for (tail, part) in [
        ("CREATE ROLE \"{{name}}-2\" LOGIN;", "another role than"),
        ("COPY customers TO STDOUT;", "COPY"),
        ("PREPARE TRANSACTION 'left';", "PREPARE TRANSACTION"),
        ("COMMIT;", "one transaction"),
    ] {
        let body = json!({ "db_name": "pg", "creation_statements": format!("{MEMBER} {tail}") });
        let said = world.write("roles/odd", body).await.unwrap().warnings.join("\n");
        assert!(said.contains(part), "{tail}: {said}");
    }
    for tail in ["COPY customers TO STDOUT;", "PREPARE TRANSACTION 'left';"] {
        world.role("odd", &format!("{MEMBER} {tail}"), json!({})).await;
        let plan = world.plan("odd").await.unwrap();
        let failed = world.effect(world.intent("odd", &plan)).await.err().unwrap();
        assert!(matches!(failed, EngineError::Failed(_)), "{tail}: not the server's fault: {failed:?}");
    }
    world.role("readonly", MEMBER, json!({})).await;
    world.issue("readonly").await;
}
