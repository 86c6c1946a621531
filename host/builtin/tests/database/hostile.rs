//! Names and texts that try to be SQL.

use std::sync::Arc;

use leasehold_core::seams::engine::{LeaseIntent, SecretsEngine};
use leasehold_devpg::{DevPg, Options};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::support::{MEMBER, World, log_in, own_server};

/// Names that databases, schemas and roles can have, and that mean something else wherever they are not quoted.
fn odd_names() -> Vec<String> {
    let names = [
        "we\"ird db",
        "semi;colon",
        "quo'te",
        "back\\slash",
        "ünïcode",
        "%2e",
        "a/b?c=d#e",
        "host=elsewhere port=1",
        " blanks ",
        "$$dollar$$",
        "$1",
        "--comment",
        "Upper.Lower",
        "select",
    ];
    names.into_iter().map(str::to_owned).chain([format!("{}\"", "x".repeat(62))]).collect()
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn percent_encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A superuser's session in this database; `psql` would take some of the names for connection strings.
async fn superuser_in(pg: &DevPg, database: &str) -> Client {
    let mut config: tokio_postgres::Config = pg.superuser_url().parse().unwrap();
    let (client, connection) = config.dbname(database).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn own_world() -> World {
    let world = World::on(Arc::new(own_server(Options { max_connections: 200, ..Options::default() })));
    world.connect("pg", json!({})).await;
    world
}

#[tokio::test]
async fn a_role_is_emptied_in_every_database_whatever_its_name() {
    let world = own_world().await;
    world.role("member", MEMBER, json!({})).await;
    let issued = world.issue("member").await;
    let (admin, leased) = (ident(world.pg.admin_user()), ident(&issued.username));
    let mut there = Vec::new();
    for name in odd_names() {
        let odd = ident(&name);
        world.pg.psql(&format!("CREATE DATABASE {odd}")).unwrap();
        let superuser = superuser_in(&world.pg, &name).await;
        let ready = format!(
            "CREATE SCHEMA {odd}; CREATE TABLE {odd}.{odd} (x int); \
             GRANT ALL ON DATABASE {odd} TO {admin} WITH GRANT OPTION; \
             GRANT ALL ON SCHEMA {odd} TO {admin} WITH GRANT OPTION; \
             GRANT ALL ON {odd}.{odd} TO {admin} WITH GRANT OPTION"
        );
        superuser.batch_execute(&ready).await.unwrap();
        // What the superuser grants, the admin could not take away.
        let granting = log_in(&world.pg, world.pg.admin_user(), world.pg.admin_password(), &name).await.unwrap();
        let grants = format!(
            "GRANT CREATE ON DATABASE {odd} TO {leased}; GRANT ALL ON SCHEMA {odd} TO {leased}; \
             GRANT SELECT ON {odd}.{odd} TO {leased}"
        );
        granting.batch_execute(&grants).await.unwrap();
        let session = log_in(&world.pg, &issued.username, &issued.password, &name).await.unwrap();
        let owned = format!(
            "CREATE SCHEMA owned; CREATE TABLE {odd}.owned (x int); \
             CREATE FUNCTION {odd}.owned() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
        );
        session.batch_execute(&owned).await.unwrap();
        there.push((name, superuser, session));
    }
    world.revoke(&issued).await.unwrap();
    assert!(!world.role_exists(&issued.username));
    for (name, superuser, session) in there {
        assert!(session.simple_query("SELECT 1").await.is_err(), "{name}: a session is left");
        let owners = "SELECT DISTINCT pg_get_userbyid(owner)::text FROM (SELECT relowner FROM pg_class WHERE relname = 'owned' \
                      UNION ALL SELECT proowner FROM pg_proc WHERE proname = 'owned' \
                      UNION ALL SELECT nspowner FROM pg_namespace WHERE nspname = 'owned') o (owner)";
        let owners = superuser.query(owners, &[]).await.unwrap();
        let owners: Vec<String> = owners.iter().map(|row| row.get(0)).collect();
        let heir = world.heir("member");
        assert_eq!(owners, [heir.as_str()], "{name}");
        let may = "SELECT has_schema_privilege($1::text, oid, 'CREATE') FROM pg_namespace WHERE nspname = $2";
        let may: bool = superuser.query_one(may, &[&heir, &name]).await.unwrap().get(0);
        assert!(!may, "{name}: the heir kept what it needed for a moment");
    }
}

#[tokio::test]
async fn odd_names_of_schemas_and_groups_stand_in_statements() {
    let world = own_world().await;
    let admin = ident(world.pg.admin_user());
    for (index, name) in odd_names().iter().enumerate() {
        let odd = ident(name);
        let ready = format!(
            "CREATE ROLE {odd} NOLOGIN; GRANT {odd} TO {admin} WITH ADMIN OPTION; CREATE SCHEMA {odd}; \
             GRANT ALL ON SCHEMA {odd} TO {admin} WITH GRANT OPTION"
        );
        world.pg.psql(&ready).unwrap();
        let creation = format!(
            "CREATE ROLE \"{{{{name}}}}\" WITH LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE {odd};\n\
             GRANT USAGE, CREATE ON SCHEMA {odd} TO \"{{{{name}}}}\";"
        );
        let role = format!("odd{index}");
        world.role(&role, &creation, json!({})).await;
        let issued = world.issue(&role).await;
        let session = world.log_in(&issued).await.unwrap();
        let rights = "SELECT pg_has_role(current_user, r.oid, 'MEMBER') AND has_schema_privilege(n.oid, 'CREATE') \
                      FROM pg_roles r, pg_namespace n WHERE r.rolname = $1 AND n.nspname = $1";
        let has: bool = session.query_one(rights, &[name]).await.unwrap().get(0);
        assert!(has, "{name}");
        session.batch_execute(&format!("CREATE TABLE {odd}.made (x int)")).await.unwrap();
        world.revoke(&issued).await.unwrap();
        assert!(!world.role_exists(&issued.username), "{name}");
        assert!(world.role_exists(name), "{name}: the group is nobody's lease");
        let owner = superuser_in(&world.pg, world.pg.database()).await;
        let made = "SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                    WHERE c.relname = 'made' AND n.nspname = $1";
        let owner: String = owner.query_one(made, &[name]).await.unwrap().get(0);
        assert_eq!(owner, world.heir(&role), "{name}");
    }
}

#[tokio::test]
async fn a_connection_reaches_a_database_whatever_its_name() {
    let world = own_world().await;
    let (host, port) = (world.pg.host(), world.pg.port());
    // Only where this schema is can a lease be issued.
    let creation = format!("{MEMBER} GRANT USAGE ON SCHEMA here TO \"{{{{name}}}}\";");
    for (index, name) in odd_names().iter().enumerate() {
        world.pg.psql(&format!("CREATE DATABASE {}", ident(name))).unwrap();
        let admin = ident(world.pg.admin_user());
        let ready = format!("CREATE SCHEMA here; GRANT USAGE ON SCHEMA here TO {admin} WITH GRANT OPTION");
        superuser_in(&world.pg, name).await.batch_execute(&ready).await.unwrap();
        let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
        for (form, url) in [
            ("url", format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{}", percent_encoded(name))),
            (
                "option",
                format!(
                    "postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/?dbname={}",
                    percent_encoded(name)
                ),
            ),
            (
                "pairs",
                format!("host={host} port={port} user={{{{username}}}} password={{{{password}}}} dbname='{quoted}'"),
            ),
        ] {
            let connection = format!("{form}{index}");
            world.connect(&connection, json!({ "connection_url": url })).await;
            let read = world.read(&format!("config/{connection}")).await.unwrap();
            assert_eq!(read["connection_details"]["connection_url"], url);
            world.role(&connection, &creation, json!({ "db_name": connection })).await;
            let issued = world.issue(&connection).await;
            assert!(log_in(&world.pg, &issued.username, &issued.password, name).await.is_ok(), "{name}");
            world.revoke(&issued).await.unwrap();
            assert!(!world.role_exists(&issued.username), "{name}");
        }
    }
}

#[tokio::test]
async fn a_lease_with_a_hostile_role_name_ends_that_role_and_no_other() {
    let world = World::new().await;
    let names = [
        "a\"; DROP ROLE bystander; --",
        "it's",
        "back\\slash",
        "$$dollar$$",
        "Ünïcode 名前",
        "{{name}}",
        "x'; SELECT pg_sleep(9); --",
    ];
    // By the admin, as a lease's: from PostgreSQL 16 on it may drop only what it made.
    let admin = log_in(&world.pg, world.pg.admin_user(), world.pg.admin_password(), "myapp").await.unwrap();
    admin.batch_execute("CREATE ROLE bystander").await.unwrap();
    for name in names {
        let quoted = name.replace('"', "\"\"");
        admin.batch_execute(&format!("CREATE ROLE \"{quoted}\" LOGIN IN ROLE readonly")).await.unwrap();
        let intent = LeaseIntent {
            id: "database/creds/x/y".parse().unwrap(),
            issued_at: world.context.clock.now(),
            expires_at: world.context.clock.now(),
            deadline: world.context.clock.now(),
            effect: json!({
                "connection": "pg", "role": "x", "username": name, "creation": [], "password_at": "La",
                "expiration_at": "Lb", "revocation": [],
            }),
            receipt: Value::Null,
        };
        SecretsEngine::revoke(&world.engine, &world.context, &intent).await.unwrap();
        assert!(!world.role_exists(name), "{name}");
    }
    assert!(world.role_exists("bystander"));
}

/// For every operator of PostgreSQL, and for some pairs of types that only a conversion brings together, one that raises an error.
const TRAPS: &str = r#"DO $do$ DECLARE o record; BEGIN
    FOR o IN SELECT row_number() OVER () AS n, oprname AS name, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result FROM (
        SELECT DISTINCT oprname, oprleft, oprright, oprresult FROM pg_operator WHERE oprkind = 'b' AND NOT EXISTS (
            SELECT FROM pg_type t WHERE t.oid IN (oprleft, oprright, oprresult) AND t.typtype = 'p')
        UNION VALUES ('=', 'oid'::regtype, 'int4'::regtype, 'bool'::regtype), ('=', 'oid', 'regclass', 'bool'),
            ('*', 'float8', 'int4', 'float8')) a
    LOOP
        EXECUTE format('CREATE FUNCTION public.trap_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS '
            '$f$ BEGIN RAISE EXCEPTION ''operator %% %% %% as %%'', %L, %L, %L, current_user; END $f$', o.n, o.l, o.r, o.result, o.l, o.name, o.r);
        EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.trap_%s)', o.name, o.l, o.r, o.n);
    END LOOP; END $do$"#;

#[tokio::test]
async fn operators_that_a_leased_role_left_behind_do_not_run_with_the_admins_rights() {
    let world = own_world().await;
    let creation = format!("{MEMBER} GRANT CREATE, USAGE ON SCHEMA public TO \"{{{{name}}}}\";");
    world.role("maker", &creation, json!({})).await;
    let maker = world.issue("maker").await;
    world.log_in(&maker).await.unwrap().batch_execute(TRAPS).await.unwrap();
    let traps = world.pg.psql("SELECT count(*) > 500 FROM pg_proc WHERE proname LIKE 'trap%'").unwrap();
    assert_eq!(traps, "t");

    let (admin, database) = (world.pg.admin_user(), world.pg.database());
    // As a server comes, where only what fits better than PostgreSQL's own is found, and as it may be set, where all is found.
    for path in ["\"$user\", public", "public, pg_catalog"] {
        let set = format!("ALTER ROLE {} IN DATABASE {} SET search_path = {path}", ident(admin), ident(database));
        world.pg.psql(&set).unwrap();
        world.connect("pg", json!({})).await;
        let unused = world.issue("maker").await;
        world.renew(&unused, unused.intent.expires_at).await.unwrap();
        world.revoke(&unused).await.unwrap();
        let used = world.issue("maker").await;
        let session = world.log_in(&used).await.unwrap();
        session.batch_execute("CREATE TABLE public.made (x int)").await.unwrap();
        world.revoke(&used).await.unwrap();
        world.pg.psql("DROP TABLE public.made").unwrap();

        let orphan = world.issue("maker").await;
        let target = SecretsEngine::targets(&world.engine, &world.context).await.unwrap().remove(0);
        let roles = world.engine.owned_roles(&world.context, &target).await.unwrap();
        let role = roles.iter().find(|role| role.name == orphan.username).unwrap();
        world.engine.drop_orphan(&world.context, &target, role).await.unwrap();
        for issued in [unused, used, orphan] {
            assert!(!world.role_exists(&issued.username), "{path}");
        }
    }
    world.revoke(&maker).await.unwrap();
    assert!(!world.role_exists(&maker.username));
}

#[tokio::test]
async fn a_stored_effect_that_is_not_readable_is_an_error_and_no_panic() {
    let world = World::new().await;
    let now = world.context.clock.now();
    for effect in [json!(null), json!({}), json!({"connection": 1}), json!([1])] {
        let intent = LeaseIntent {
            id: "a/b".parse().unwrap(),
            issued_at: now,
            expires_at: now,
            deadline: now,
            effect,
            receipt: Value::Null,
        };
        let error = SecretsEngine::revoke(&world.engine, &world.context, &intent).await.unwrap_err();
        assert_eq!(error.to_string(), "the lease's stored effect is not readable");
    }
}
