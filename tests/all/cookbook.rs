//! `host/docs/cookbook.md`: its policies allow what the page says and no more, and its statements work for a login without superuser.
//!
//! The commands of the page are run with those of the other documents (`documents`).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Credential, Database, Server, Session, Signer, now, own_postgresql};

/// The block behind `<!-- file: NAME -->`.
#[track_caller]
fn block(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/docs/cookbook.md");
    let page = fs::read_to_string(path).unwrap();
    let behind = page.split_once(&format!("<!-- file: {name} -->")).unwrap_or_else(|| panic!("no block {name}")).1;
    behind.split("```").nth(1).and_then(|block| block.split_once('\n')).unwrap().1.to_owned()
}

fn with_policy(server: &Server, name: &str) -> Client {
    server.with_policy(name, &block(&format!("{name}.hcl")))
}

#[track_caller]
fn may(client: &Client, granted: &[(&str, &str)], denied: &[(&str, &str)]) {
    for (rows, is_granted) in [(granted, true), (denied, false)] {
        for (method, path) in rows {
            let answer = client.request(method, path, (*method == "PUT").then(|| json!({ "ttl": "1h" })));
            assert_eq!(answer.status != 403, is_granted, "{answer}");
        }
    }
}

#[test]
fn an_application_reads_its_credential_and_keeps_it() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("read", json!({}));
    server.role("other", json!({}));
    let client = with_policy(&server, "application");
    let credential = client.credential("read");
    client.put("sys/leases/renew", json!({ "lease_id": credential.lease })).assert_status(200);
    client.put("sys/leases/revoke", json!({ "lease_id": credential.lease, "sync": true })).assert_status(204);
    assert!(!database.has_role(&credential.user));
    let denied = [
        ("GET", "database/creds/other"),
        ("GET", "database/roles/read"),
        ("GET", "database/config/pg"),
        ("LIST", "database/roles"),
        ("PUT", "sys/leases/revoke-prefix/database"),
        ("LIST", "sys/leases/lookup/database/creds/read"),
        ("PUT", "auth/token/create"),
        ("GET", "secret/data/x"),
    ];
    may(&client, &[("GET", "auth/token/lookup-self"), ("PUT", "auth/token/renew-self")], &denied);
}

#[test]
fn an_operator_manages_databases_and_sees_no_credential() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("read", json!({}));
    let lent = server.root().credential("read");
    let client = with_policy(&server, "operator");
    client
        .put("database/roles/new", json!({ "db_name": "pg", "creation_statements": block("read.sql") }))
        .assert_status(204);
    client.list("sys/leases/lookup/database/creds/read").assert_status(200);
    let granted = [
        ("GET", "database/config/pg"),
        ("LIST", "database/config"),
        ("GET", "database/roles/read"),
        ("PUT", "database/reset/pg"),
    ];
    let denied = [
        ("GET", "database/creds/read"),
        ("GET", "database/creds/new"),
        ("GET", "database/static-creds/x"),
        ("PUT", "sys/policies/acl/x"),
        ("PUT", "auth/token/create"),
        ("PUT", "sys/leases/revoke-prefix/auth"),
        ("PUT", "sys/mounts/x"),
        ("GET", "secret/data/x"),
    ];
    may(&client, &granted, &denied);
    client.put("sys/leases/revoke-prefix/database/creds/read", json!({ "sync": true })).assert_status(204);
    assert!(!database.has_role(&lent.user));
    // Not even with a policy that says otherwise of all of it.
    let body = json!({ "policies": ["operator", "generous"] });
    let text = "path \"database/*\" { capabilities = [\"read\"] }";
    server.root().put("sys/policies/acl/generous", json!({ "policy": text })).assert_status(204);
    server.as_token(&server.root().child(body)).get("database/creds/new").assert_multi(403, "permission denied");
}

#[test]
fn a_job_of_the_named_repository_and_branch_logs_in_and_no_other() {
    let (server, signer) = (Server::dev(), Signer::new());
    let root = server.root();
    with_policy(&server, "ci");
    root.post("sys/auth/jwt", json!({ "type": "jwt" })).assert_status(204);
    root.post("auth/jwt/config", json!({ "jwt_validation_pubkeys": signer.public_pem() })).assert_status(204);
    let role: Value = serde_json::from_str(&block("ci-role.json")).unwrap();
    root.post("auth/jwt/role/deploy", role).assert_status(204);
    let log_in = |repository: &str, branch: &str, audience: &str| -> Answer {
        let claims = json!({
            "sub": "repo:example/shop", "aud": audience, "iat": now(), "exp": now() + 60,
            "repository": repository, "ref": branch,
        });
        server.nobody().post("auth/jwt/login", json!({ "role": "deploy", "jwt": signer.token(None, &claims) }))
    };
    for (repository, branch, audience) in [
        ("example/other", "refs/heads/main", "leasehold"),
        ("example/shop", "refs/heads/evil", "leasehold"),
        ("example/shop", "refs/heads/main/x", "leasehold"),
        ("Example/Shop", "refs/heads/main", "leasehold"),
        ("example/shop", "refs/heads/main", "other"),
    ] {
        assert_eq!(log_in(repository, branch, audience).status, 400, "{repository} {branch} {audience}");
    }
    let login = log_in("example/shop", "refs/heads/main", "leasehold").assert_status(200);
    let login = login.assert_at("/auth/policies", json!(["ci"])).assert_at("/auth/lease_duration", 900);
    let job = server.as_token(&login.text("/auth/client_token"));
    let denied = [("GET", "database/creds/read"), ("GET", "auth/token/lookup-self"), ("PUT", "sys/leases/revoke")];
    may(&job, &[("GET", "database/creds/migrate"), ("PUT", "auth/token/revoke-self")], &denied);
}

#[test]
fn each_person_has_their_own_and_each_team_its_role() {
    let server = Server::dev();
    let root = server.root();
    with_policy(&server, "own");
    root.post("sys/auth/userpass", json!({ "type": "userpass" })).assert_status(204);
    let mount = root.get("sys/auth").text("/data/userpass~1/accessor");
    let person = |name: &str, metadata: Value| -> Client {
        let entity = root.post("identity/entity", json!({ "name": name, "metadata": metadata })).text("/data/id");
        root.post("identity/entity-alias", json!({ "name": name, "canonical_id": entity, "mount_accessor": mount }))
            .assert_status(200);
        let user = json!({ "password": "correct-horse", "token_policies": "own" });
        root.post(&format!("auth/userpass/users/{name}"), user).assert_status(204);
        let login =
            server.nobody().post(&format!("auth/userpass/login/{name}"), json!({ "password": "correct-horse" }));
        server.as_token(&login.assert_status(200).text("/auth/client_token"))
    };
    let (ann, bob) = (person("ann", json!({ "team": "shop" })), person("bob", json!({})));
    ann.post("secret/data/people/ann/key", json!({ "data": { "a": "b" } })).assert_status(200);
    may(
        &ann,
        &[
            ("GET", "secret/data/people/ann/key"),
            ("LIST", "secret/metadata/people/ann"),
            ("GET", "database/creds/shop"),
        ],
        &[("GET", "secret/data/people/bob/key"), ("GET", "secret/data/people/key"), ("GET", "database/creds/other")],
    );
    // Without a team there is no role, and none without a name either.
    let denied = [("GET", "secret/data/people/ann/key"), ("GET", "database/creds/shop"), ("GET", "database/creds/")];
    may(&bob, &[("GET", "secret/data/people/bob/key")], &denied);
}

#[test]
fn who_hands_out_a_secret_id_does_not_see_it() {
    let server = Server::dev();
    let root = server.root();
    root.post("sys/auth/approle", json!({ "type": "approle" })).assert_status(204);
    root.post("auth/approle/role/app", json!({ "token_policies": "default" })).assert_status(204);
    let client = with_policy(&server, "wrapping");
    let path = "auth/approle/role/app/secret-id";
    client.post(path, json!({})).assert_multi(403, "permission denied");
    assert_eq!(client.try_wrapped("POST", path, "1h").unwrap().status, 403, "too long");
    let wrapped = client.try_wrapped("POST", path, "1m").unwrap().assert_status(200);
    assert!(wrapped.at("/data").is_null(), "{wrapped}");
    let machine = server.as_token(&wrapped.text("/wrap_info/token"));
    let secret = machine.put("sys/wrapping/unwrap", json!({})).assert_status(200).text("/data/secret_id");
    let role = root.get("auth/approle/role/app/role-id").text("/data/role_id");
    server.nobody().post("auth/approle/login", json!({ "role_id": role, "secret_id": secret })).assert_status(200);
}

/// A managed service: who its customer is, what runs there besides, and what its connection needs.
struct Service {
    name: &'static str,
    /// As the service documents them; run by its superuser.
    groups: &'static str,
    master: &'static str,
    /// A block of the page.
    also: Option<&'static str>,
    connection: fn() -> Value,
}

const SERVICES: [Service; 5] = [
    Service {
        name: "PostgreSQL itself",
        groups: "",
        master: "CREATEROLE CREATEDB",
        also: None,
        connection: || json!({}),
    },
    Service {
        name: "Amazon RDS and Aurora",
        groups: "CREATE ROLE rds_superuser NOLOGIN IN ROLE pg_monitor, pg_signal_backend; CREATE ROLE rds_password NOLOGIN; \
                 GRANT rds_password TO master WITH ADMIN OPTION; GRANT rds_superuser TO master",
        master: "CREATEROLE CREATEDB NOREPLICATION",
        also: Some("rds.sql"),
        connection: || json!({}),
    },
    Service {
        name: "Cloud SQL",
        groups: "CREATE ROLE cloudsqlsuperuser NOLOGIN IN ROLE pg_monitor, pg_signal_backend; GRANT cloudsqlsuperuser TO master",
        master: "CREATEROLE CREATEDB",
        also: None,
        connection: || json!({}),
    },
    Service {
        name: "Azure",
        groups: "CREATE ROLE azure_pg_admin NOLOGIN IN ROLE pg_monitor, pg_signal_backend; GRANT azure_pg_admin TO master",
        master: "CREATEROLE CREATEDB",
        also: None,
        connection: || json!({}),
    },
    Service {
        name: "Neon",
        groups: "CREATE ROLE neon_superuser NOLOGIN CREATEDB CREATEROLE BYPASSRLS IN ROLE pg_read_all_data, pg_write_all_data; \
                 GRANT neon_superuser TO master",
        master: "CREATEROLE CREATEDB BYPASSRLS",
        also: None,
        connection: || json!({ "password_authentication": "password" }),
    },
];

#[test]
fn the_statements_work_for_the_logins_that_managed_services_give() {
    for service in SERVICES {
        let own = own_postgresql();
        let first = Database::first_of(&own);
        first.sql(&format!("CREATE ROLE master LOGIN {} PASSWORD 'master-password'", service.master));
        first.sql(service.groups);
        first.sql("CREATE DATABASE shop OWNER master");
        let database = Database::named(&own, "shop");
        let master = database.login("master", "master-password").unwrap();
        let run = |what: &str| master.sql(what).unwrap_or_else(|error| panic!("{}: {what}: {error}", service.name));
        run(
            "CREATE TABLE goods (id int GENERATED ALWAYS AS IDENTITY, name text); INSERT INTO goods (name) VALUES ('loom')",
        );
        run(&block("setup.sql"));
        service.also.iter().for_each(|name| drop(run(&block(name))));
        assert_eq!(database.sql("SELECT rolsuper FROM pg_roles WHERE rolname IN ('master', 'leasehold')"), "f\nf");
        leases(&service, &database);
    }
}

fn leases(service: &Service, database: &Database<'_>) {
    let server = Server::dev();
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    let mut config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": database.templated_url(),
        "username": "leasehold", "password": "change-me-at-once",
    });
    for (key, value) in (service.connection)().as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    root.post("database/config/shop", config).assert_status(204);
    root.post("database/rotate-root/shop", json!({})).assert_status(204);
    assert!(!database.lets_in("leasehold", "change-me-at-once"), "{}", service.name);
    for (role, creation) in
        [("read", "read.sql"), ("write", "write.sql"), ("migrate", "migrate.sql"), ("own", "write.sql")]
    {
        let revocation = if role == "own" { block("revoke.sql") } else { String::new() };
        let body = json!({
            "db_name": "shop", "creation_statements": block(creation), "revocation_statements": revocation, "default_ttl": "1h",
        });
        let written = root.post(&format!("database/roles/{role}"), body);
        assert_eq!(written.status, 204, "{}: {role}: {written}", service.name);
        let credential = root.credential(role);
        let session = credential.login(database);
        uses(service, role, &session);
        // A renewal needs the right to alter the role.
        root.put("sys/leases/renew", json!({ "lease_id": credential.lease })).assert_status(200);
        ends(&root, database, &credential, &session);
    }
    // What a migration made stays, and the groups have their rights on it.
    let made = "SELECT tableowner FROM pg_tables WHERE tablename = 'made'";
    assert_eq!(database.sql(made), "shop_owner", "{}", service.name);
    let reader = root.credential("read");
    assert_eq!(reader.login(database).sql("SELECT count(*) FROM made").unwrap(), ["0"], "{}", service.name);
}

fn uses(service: &Service, role: &str, session: &Session) {
    let insert = session.sql("INSERT INTO goods (name) VALUES ('shuttle')");
    let create = session.sql("CREATE TABLE made (id int)");
    let select = session.sql("SELECT count(*) > 0 FROM goods");
    let (reads, writes, creates) = match role {
        "read" => (true, false, false),
        "migrate" => (false, false, true),
        _ => (true, true, false),
    };
    let told = format!("{}: {role}: {select:?} {insert:?} {create:?}", service.name);
    assert_eq!((select.is_ok(), insert.is_ok(), create.is_ok()), (reads, writes, creates), "{told}");
}

fn ends(root: &Client, database: &Database<'_>, credential: &Credential, session: &Session) {
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease, "sync": true })).assert_status(204);
    assert!(!session.is_alive() && !database.has_role(&credential.user), "{}", credential.user);
}
