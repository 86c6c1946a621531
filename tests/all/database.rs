//! The database engine: contract.md §5, and what PostgreSQL itself says.

use serde_json::{Value, json};

use crate::support::{
    ADMIN, ADMIN_PASSWORD, Bao, CREATE_IN_GROUP, Database, Kind, Server, eventually, shared_postgresql,
};

/// The refusal of another type, with what there is.
const CREDENTIAL_TYPES: &str = "invalid credential_type \"foo\": \"password\" is issued here; \"rsa_private_key\" and \
     \"client_certificate\" are known, and not issued yet";

fn ready() -> (Server, Database<'static>) {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    (server, database)
}

/// `write -verify` says what came of each statement, and a role whose statements fail is not stored.
#[test]
fn the_command_line_tries_the_statements_of_a_role_before_it_is_stored() {
    let (server, database) = ready();
    let cli = server.cli();
    let create = format!(
        "creation_statements=CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'; \
         GRANT CONNECT ON DATABASE {} TO \"{{{{name}}}}\";",
        database.name()
    );

    let tried = cli.run(&["write", "-verify", "database/roles/rehearsed", "db_name=pg", &create]).assert_status(0);
    let lines: Vec<&str> = tried.stdout.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("Statements"), "{}", tried.stdout);
    for wanted in ["creation_statements    1 of 2       ok", "creation_statements    2 of 2       ok"] {
        assert!(lines.contains(&wanted), "{}", tried.stdout);
    }
    assert!(tried.stdout.contains("The role could log in and had an end"), "{}", tried.stdout);
    assert!(tried.stdout.ends_with("Success! Data written to: database/roles/rehearsed\n"), "{}", tried.stdout);
    let read: Value = server.root().get("database/roles/rehearsed").assert_status(200).at("/data");
    assert!(read.get("verify").is_none(), "{read}");

    let json =
        cli.run(&["write", "-verify", "-format=json", "database/roles/rehearsed", "db_name=pg"]).assert_status(0);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["data"]["verification"]["statements"][1]["result"], "ok", "{json}");

    let broken = "creation_statements=CREATE ROLE \"{{name}}\"; GRANT no_such_role TO \"{{name}}\";";
    cli.run(&["write", "-verify", "database/roles/misspelt", "db_name=pg", broken])
        .assert_status(2)
        .assert_stderr("statement 2 of 2");
    server.root().get("database/roles/misspelt").assert_status(404);
    // Nothing is sent to a path that might store the word.
    cli.run(&["write", "-verify", "database/config/pg", "allowed_roles=*"])
        .assert_status(1)
        .assert_stderr("write to MOUNT/roles/NAME");
    // A path that looks alike and stores every word: nobody is told that something was tried.
    server.root().post("sys/mounts/store", json!({ "type": "kv", "options": { "version": "1" } })).assert_status(204);
    cli.run(&["write", "-verify", "store/roles/app", "x=1"])
        .assert_status(1)
        .assert_stderr("the server did not try the statements");
    // Roles are the whole cluster's: no other test may use these names.
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%-rehearsed-%' OR rolname LIKE '%-misspelt-%'";
    assert_eq!(database.sql(left), "0", "a role is left in the database");
}

/// A2: `update` alone moves no connection; the way out for a password that nobody knows is `sudo` on this very path.
#[test]
fn a_connection_moves_for_whoever_has_sudo_on_its_path_and_brings_another_login() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    let policy =
        |pattern: &str, more: &str| format!("path {pattern:?} {{ capabilities = [\"create\", \"update\"{more}] }}\n");
    let both = policy("database/config/pg", "") + &policy("database/config/*", ", \"sudo\"");
    let elsewhere = json!({
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:1/{}", database.name()),
        "username": "another", "password": "other", "verify_connection": false,
    });
    for (name, text) in [("update", policy("database/config/*", "")), ("elsewhere", both)] {
        let answer = server.with_policy(name, &text).post("database/config/pg", elsewhere.clone());
        assert_eq!(answer.status, 403, "{text}: {answer}");
        assert!(answer.to_string().contains("somebody with sudo on this path"), "{answer}");
    }
    let knows = server.with_policy("update", &policy("database/config/*", ""));
    let mut brought = elsewhere.clone();
    brought["username"] = json!(ADMIN);
    brought["password"] = json!(ADMIN_PASSWORD);
    knows.post("database/config/pg", brought).assert_status(204);
    let operator = server.with_policy("sudo", &policy("database/config/*", ", \"sudo\""));
    operator.post("database/config/pg", elsewhere).assert_status(204);
    // Root may do it as well.
    server.root().post("database/config/pg", database.config()).assert_status(204);
}

#[test]
fn roles_are_listed_in_pages() {
    pages_of_roles(&Server::dev());
}

#[test]
fn a_real_openbao_lists_roles_in_the_same_pages() {
    let Some(bao) = Bao::find("pages of roles, against a real OpenBao") else { return };
    pages_of_roles(&Server::openbao(&bao));
}

fn pages_of_roles(server: &Server) {
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    for name in ["p0", "p1", "p2", "p3", "r"] {
        let answer = root.post(&format!("database/roles/{name}"), json!({ "db_name": "pg" }));
        assert!(matches!(answer.status, 200 | 204), "{answer}");
    }
    let paths = "path \"database/roles\" { capabilities = [\"list\"] pagination_limit = 2 }\n\
                 path \"database/roles/\" { capabilities = [\"list\"] pagination_limit = 2 }";
    let limited = server.with_policy("limited", paths);
    let free = server.with_policy("free", "path \"database/roles/\" { capabilities = [\"list\"] }");
    for (client, query, keys) in [
        (&root, "limit=2", "p0 p1"),
        (&root, "after=p1", "p2 p3 r"),
        (&root, "after=p1&limit=2", "p2 p3"),
        (&root, "after=p&limit=0", "p0 p1 p2 p3 r"),
        (&root, "after=p1/&limit=1", "p2"),
        (&root, "after=&limit=", "p0 p1 p2 p3 r"),
        (&root, "limit=-1", "p0 p1 p2 p3 r"),
        (&free, "limit=max&after=p2", "p3 r"),
        (&limited, "", "p0 p1"),
        (&limited, "after=p1", "p2 p3"),
        (&limited, "after=p3&limit=max", "r"),
        (&limited, "after=p1&limit=1", "p2"),
        (&limited, "limit=0", "p0 p1"),
    ] {
        client
            .list(&format!("database/roles?{query}"))
            .assert_status(200)
            .assert_at("/data/keys", keys.split(' ').collect::<Vec<_>>())
            .assert_at("/warnings", Value::Null);
    }
    root.list("database/roles?after=r&limit=1").assert_errors(404, &[]);
    limited.list("database/roles?after=r").assert_errors(404, &[]);
    root.list("database/roles?limit=2&bogus=1").assert_warning("unrecognized parameters: [bogus]");
    for (client, limit) in [(&root, "bad"), (&root, "max"), (&root, "1.5"), (&free, "bad")] {
        client.list(&format!("database/roles?limit={limit}")).assert_error(
            400,
            "Field validation failed: error converting input for field \"limit\": '' cannot parse value as 'int': \
             strconv.ParseInt: invalid syntax",
        );
    }
    for limit in ["3", "-1", "bad"] {
        limited.list(&format!("database/roles?limit={limit}")).assert_multi(403, "permission denied");
    }
}

#[test]
fn a_connection_is_read_back_without_its_password() {
    let (server, database) = ready();
    let root = server.root();
    let read = root.get("database/config/pg").assert_status(200);
    assert!(!read.body.contains(ADMIN_PASSWORD), "{read}");
    let read = read
        .assert_at("/data/plugin_name", "postgresql-database-plugin")
        .assert_at("/data/allowed_roles", json!(["*"]))
        .assert_at("/data/connection_details/username", ADMIN)
        .assert_at("/data/connection_details/connection_url", database.templated_url());
    assert_eq!(read.at("/data/root_credentials_rotate_statements"), json!([]));

    let plain = json!({ "plugin_name": "postgresql-database-plugin", "connection_url": database.plain_url() });
    root.post("database/config/plain", plain)
        .assert_status(200)
        .assert_warning("Password found in connection_url, use a templated url");
    let shown = root.get("database/config/plain").text("/data/connection_details/connection_url");
    assert_eq!(shown, database.plain_url().replace(ADMIN_PASSWORD, "xxxxx"));
    root.list("database/config").assert_status(200).assert_at("/data/keys", json!(["pg", "plain"]));
    root.get("database/config/none").assert_errors(404, &[]);
    root.delete("database/config/plain").assert_status(204);
    root.delete("database/config/plain").assert_status(204);
}

#[test]
fn a_second_write_to_a_connection_changes_only_what_it_names() {
    let (server, _database) = ready();
    let root = server.root();
    root.post("database/config/pg", json!({ "allowed_roles": "a, b" })).assert_status(204);
    root.get("database/config/pg")
        .assert_at("/data/allowed_roles", json!(["a", "b"]))
        .assert_at("/data/connection_details/username", ADMIN);
    // The password was not given again, and is still there.
    server.role("a", json!({}));
    root.credential("a");
}

#[test]
fn a_connection_that_does_not_work_is_refused_in_the_fields_words() {
    let (server, database) = ready();
    let root = server.root();
    let config = |changes: serde_json::Value| {
        let mut config = database.config();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        root.post("database/config/other", config)
    };
    let wrong = config(json!({ "password": "not-the-password" }))
        .assert_error_has(400, "error creating database object: error verifying connection: failed to connect to");
    assert!(wrong.body.contains("password authentication failed for user"), "{wrong}");
    assert!(!wrong.body.contains("not-the-password"), "{wrong}");
    config(json!({ "plugin_name": "" })).assert_error(400, "empty plugin name");
    config(json!({ "plugin_name": "nosuch" })).assert_error_has(400, "plugin not found in the catalog: nosuch");
    config(json!({ "connection_url": "" }))
        .assert_error(400, "error creating database object: connection_url cannot be empty");
    config(json!({ "password_authentication": "md5" }))
        .assert_error_has(400, "'md5' is not a valid password authentication type");
    config(json!({ "username_template": "{{ bad }}" })).assert_error(
        400,
        "error creating database object: unable to initialize username template: unable to parse template: template: \
         template:1: function \"bad\" not defined",
    );
    root.get("database/config/other").assert_errors(404, &[]);
    // Unverified, it is stored, and fails when it is used.
    config(json!({ "password": "not-the-password", "verify_connection": false })).assert_status(204);
    server.role("other", json!({ "db_name": "other" }));
    let failed = root.get("database/creds/other").assert_error_has(500, "failed to connect to");
    assert!(!failed.body.contains("not-the-password"), "{failed}");
    root.list("sys/leases/lookup/database/creds/other").assert_errors(404, &[]);
    root.post("database/config/other", json!({ "password": ADMIN_PASSWORD })).assert_status(204);
    root.get("database/creds/other").assert_status(200);
}

#[test]
fn a_role_is_kept_as_it_was_written() {
    let (server, _database) = ready();
    let root = server.root();
    root.get("database/roles/r").assert_errors(404, &[]);
    root.list("database/roles").assert_errors(404, &[]);
    root.post("database/roles/r", json!({ "default_ttl": "1h" })).assert_error(400, "database name is required");
    server.role("r", json!({ "default_ttl": "90m", "max_ttl": 7200, "revocation_statements": ["a; b", "c"] }));
    root.get("database/roles/r")
        .assert_at("/data/db_name", "pg")
        .assert_at("/data/creation_statements", json!([CREATE_IN_GROUP]))
        .assert_at("/data/revocation_statements", json!(["a; b", "c"]))
        .assert_at("/data/renew_statements", json!([]))
        .assert_at("/data/rollback_statements", json!([]))
        .assert_at("/data/credential_type", "password")
        .assert_at("/data/default_ttl", 5400)
        .assert_at("/data/max_ttl", 7200);
    let answer = root.post("database/roles/r", json!({ "max_ttl": "3h" }));
    assert!(matches!(answer.status, 200 | 204), "{answer}");
    root.get("database/roles/r").assert_at("/data/default_ttl", 5400).assert_at("/data/max_ttl", 10_800);
    root.post("database/roles/r", json!({ "credential_type": "foo" })).assert_error(400, CREDENTIAL_TYPES);
    root.request("PATCH", "database/roles/r", None).assert_status(400);
    root.bytes("PATCH", "database/roles/r", b"{}", &[("Content-Type", "application/merge-patch+json")])
        .assert_multi(405, "unsupported operation");
    root.list("database/roles").assert_at("/data/keys", json!(["r"]));
    root.delete("database/roles/r").assert_status(204);
    root.get("database/roles/r").assert_errors(404, &[]);
}

/// A write that Vault accepts is never refused; what looks wrong is said.
#[test]
fn a_doubtful_role_is_stored_with_a_warning() {
    let (server, _database) = ready();
    let rows = [
        ("near miss", "CREATE ROLE \"{{ nmae }}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';", "name"),
        ("unknown", "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{pass}}' VALID UNTIL '{{expiration}}';", "pass"),
        ("no end", "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}';", "VALID UNTIL"),
        ("quotes", "CREATE ROLE '{{name}}' LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';", "quote"),
        ("broken", "CREATE ROLE \"{{name}}\" {{#if}} PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';", "plain"),
    ];
    for (what, text, part) in rows {
        let answer = server.role("doubtful", json!({ "creation_statements": text }));
        assert_eq!(answer.status, 200, "{what}: {answer}");
        answer.assert_warning(part);
        server.root().get("database/roles/doubtful").assert_at("/data/creation_statements", json!([text]));
        server.root().delete("database/roles/doubtful").assert_status(204);
    }
}

#[test]
fn refused_credentials_leave_neither_lease_nor_postgresql_role() {
    let (server, database) = ready();
    let root = server.root();
    root.post("database/config/narrow", {
        let mut config = database.config();
        config["allowed_roles"] = json!("app-*,x");
        config
    })
    .assert_status(204);
    let broken = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT nosuchgroup TO \"{{name}}\";";
    server.role("r0", json!({ "db_name": "narrow" }));
    server.role("nodb", json!({ "db_name": "nodb" }));
    server.role("empty", json!({ "creation_statements": [] }));
    server.role("broken", json!({ "creation_statements": broken }));
    server.role("key", json!({ "credential_type": "rsa_private_key" }));
    root.get("database/creds/nope").assert_error(400, "unknown role: nope");
    root.get("database/creds/r0").assert_multi(500, "\"r0\" is not an allowed role");
    root.get("database/creds/nodb").assert_multi(500, "failed to find entry for connection with name: \"nodb\"");
    root.get("database/creds/empty").assert_multi(500, "empty creation statements");
    root.get("database/creds/broken")
        .assert_error_has(500, "failed to execute query: ERROR: role \"nosuchgroup\" does not exist (SQLSTATE 42704)");
    root.get("database/creds/key").assert_error(400, "unsupported credential_type: \"rsa_private_key\"");
    assert_eq!(database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-broken-%'"), "0");
    root.list("sys/leases/lookup/database/creds").assert_errors(404, &[]);

    server.role("app-1", json!({ "db_name": "narrow" }));
    root.credential("app-1");
    root.post("database/creds/app-1", json!({})).assert_multi(405, "unsupported operation");
}

#[test]
fn ttls_are_capped_and_valid_until_lies_five_seconds_behind() {
    let (server, database) = ready();
    let root = server.root();
    server.role("long", json!({ "default_ttl": "9999h", "max_ttl": 0 }));
    let answer = root.get("database/creds/long").assert_status(200).assert_at("/lease_duration", 2_764_800);
    let answer = answer
        .assert_warning("TTL of \"9999h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly");
    assert_eq!(answer.at("/renewable"), json!(true));
    server.role("short", json!({ "default_ttl": "48h", "max_ttl": "2h" }));
    let credential = root.credential("short");
    assert_eq!(credential.ttl, 7200);
    let left = database.seconds_left(&credential.user);
    assert!((7200 - 60..=7205).contains(&left), "{left}");
    server.role("unset", json!({ "default_ttl": 0, "max_ttl": 0 }));
    assert_eq!(root.credential("unset").ttl, 2_764_800);
    root.post("sys/mounts/database/tune", json!({ "default_lease_ttl": "30m", "max_lease_ttl": "45m" }))
        .assert_status(204);
    assert_eq!(root.credential("unset").ttl, 1800);
    assert_eq!(root.credential("short").ttl, 2700);
}

#[test]
fn names_and_passwords_have_the_fields_shape() {
    let (server, database) = ready();
    let root = server.root();
    let role = "a-very-long-role-name.with_dots";
    server.role(role, json!({}));
    let token = root.child(json!({ "display_name": "My Tok.en" }));
    let credential = server.as_token(&token).credential(role);
    let random_and_time = credential.user.strip_prefix("v-token-My-a-very-l-").expect(&credential.user);
    let (random, time) = random_and_time.split_once('-').unwrap();
    assert_eq!(random.len(), 20, "{}", credential.user);
    assert!(time.parse::<u64>().is_ok(), "{}", credential.user);
    assert!(credential.user.len() <= 63, "{}", credential.user);
    assert!(credential.password.len() >= 24, "too short");
    credential.login(&database);

    // A template's name is never longer than PostgreSQL keeps, and its random part survives.
    let template = "{{ printf \"%s-%s\" (printf \"%s%s%s%s\" .RoleName .RoleName .RoleName .RoleName) (random 20) }}";
    root.post("database/config/pg", json!({ "username_template": template })).assert_status(204);
    let made: Vec<_> = (0..3).map(|_| root.credential(role)).collect();
    for credential in &made {
        assert!(credential.user.len() <= 63, "{}", credential.user);
        let (_, random) = credential.user.rsplit_once('-').expect(&credential.user);
        assert_eq!(random.len(), 20, "{}", credential.user);
        credential.login(&database);
    }
}

/// What templates make, and what a real OpenBao makes of the same: what is drawn, and the time, left aside.
#[test]
fn usernames_by_templates_are_as_a_real_openbaos() {
    let Some(bao) = Bao::find("username templates, against a real OpenBao") else { return };
    let (ours, database) = ready();
    let theirs = Server::openbao(&bao);
    let other = Database::fresh();
    theirs.root().post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    let mut config = other.config();
    config["allowed_roles"] = json!("*");
    theirs.root().post("database/config/pg", config.clone()).assert_status(204);
    let statements = json!(["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"]);
    for server in [&ours, &theirs] {
        let role = json!({ "db_name": "pg", "creation_statements": statements });
        server.root().post("database/roles/Some.role", role).assert_status(204);
    }
    for (template, is_fixed) in [
        ("u-{{ .RoleName }}-{{ .DisplayName }}-{{ random 8 }}", false),
        ("{{ .RoleName | uppercase | truncate 5 }}-{{ random 12 | lowercase }}", false),
        ("{{- .RoleName | replace \".\" \"_\" -}} {{/* nothing */ -}} -x", true),
        ("{{ printf \"%s_%d_%v%%\" .RoleName 7 \"z\" | replace \"%\" \"\" }}", true),
        ("{{ sha256 .RoleName | truncate 20 }}{{ base64 \"ab\" }}{{ hex \"ab\" }}", true),
        ("{{ truncate_sha256 20 \"a-very-long-name-that-is-cut\" }}", true),
        ("{{ truncate_sha256 40 \"short\" }}{{ lowercase \"ABC\" }}", true),
        ("{{ print \"a\" 1 \"b\" 2 }}x", true),
        ("v{{ uuid }}", false),
        ("t{{ timestamp \"2006-01-02T15\" }}{{ timestamp \"Jan_Monday\" }}", true),
        ("{{ unix_time | truncate 7 }}{{ unix_time_millis | truncate 7 }}", true),
    ] {
        // They share the server that has the roles: one name after the other.
        let made = [(&ours, &database), (&theirs, &other)].map(|(server, database)| {
            let body = json!({ "username_template": template, "allowed_roles": "*" });
            let answer = server.root().post("database/config/pg", body);
            assert!(answer.status < 300, "{template}: {answer}");
            if is_fixed && server.kind() == Kind::Leasehold {
                answer.assert_warning("no random part");
            }
            let name = server.root().get("database/creds/Some.role").assert_status(200).text("/data/username");
            assert!(database.has_role(&name), "{template}: {name}");
            database.sql(&format!("DROP ROLE \"{name}\""));
            name
        });
        if is_fixed {
            assert_eq!(made[0], made[1], "{template}");
        } else {
            let shape = |name: &str| -> String {
                name.chars().map(|c| if c.is_ascii_alphanumeric() { 'x' } else { c }).collect()
            };
            assert_eq!(shape(&made[0]), shape(&made[1]), "{template}: {made:?}");
        }
    }
    for template in [
        "{{.Foo}}",
        "{{",
        "{{ .DisplayName",
        "{{ random }}",
        "{{ random \"x\" }}",
        "{{ truncate 0 .DisplayName }}",
        "{{ truncate_sha256 8 .DisplayName }}",
        "{{ timestamp }}",
        "{{ .DisplayName.Foo }}",
        "{{ truncate 8 }}",
        "{{ \"abc\" | truncate 2 3 }}",
        "{{ (random 5 }}",
        "{{ \"unterminated }}",
        "{{ .DisplayName | truncate -1 }}",
        "{{ random 1.5 }}",
        "{{ nope .RoleName }}",
    ] {
        let said: Vec<String> = [&ours, &theirs]
            .iter()
            .map(|server| {
                let answer = server.root().post("database/config/pg", json!({ "username_template": template }));
                answer.assert_status(400).text("/errors/0")
            })
            .collect();
        assert_eq!(said[0], said[1], "{template}");
    }
}

/// No template and no display name brings SQL into a statement, a name that is too long, or one that cannot be told from others.
#[test]
fn usernames_by_templates_are_bounded_and_harmless() {
    let (server, database) = ready();
    let root = server.root();
    server.role("r", json!({}));
    for (template, why) in [
        ("a'b{{ random 9 }}", "which could mean something to SQL"),
        ("a\"b{{ random 9 }}", "which could mean something to SQL"),
        ("{{ printf \"%q\" .RoleName }}{{ random 9 }}", "which could mean something to SQL"),
        ("a b{{ random 9 }}", "which could mean something to SQL"),
        ("{{ \"$x$;\" }}{{ random 9 }}", "which could mean something to SQL"),
        ("ü{{ random 9 }}", "which could mean something to SQL"),
        ("{{ random 40 }}{{ random 40 }}", "makes a name of 80 bytes even without display name and role name"),
        ("{{ \"\" }}", "makes an empty name"),
        ("{{ if true }}x{{ end }}", "\"if\" is not offered in a username_template"),
        ("{{ $x := random 5 }}", "variables are not offered in a username_template"),
        ("{{ random 0 }}", "length must be from 1 to 63 but was 0"),
        (
            "{{ replace \"\" \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" (printf \"%s\" (hex (hex (hex (hex (hex .RoleName))))) ) }}",
            "the result is longer than 16384 bytes",
        ),
    ] {
        for path in ["database/config/pg", "database/roles/r"] {
            let refused = root.post(path, json!({ "username_template": template, "db_name": "pg" }));
            refused.assert_error_has(400, why);
        }
    }
    root.post("database/config/pg", json!({ "username_template": format!("{{{{ random 9 }}}}{}", " ".repeat(5_000)) }))
        .assert_error_has(400, "longer than 4096 bytes");
    // A role's own counts before the connection's.
    root.post("database/config/pg", json!({ "username_template": "conn-{{ random 10 }}" })).assert_status(204);
    assert!(root.credential("r").user.starts_with("conn-"));
    let own = "own-{{ .DisplayName }}-{{ .RoleName }}-{{ random 10 }}";
    root.post("database/roles/r", json!({ "username_template": own })).assert_status(204);
    root.get("database/roles/r").assert_status(200).assert_at("/data/username_template", own);
    let hostile = root.child(json!({ "display_name": "a\"'; DROP ROLE x; --" }));
    for token in [hostile, root.child(json!({ "display_name": "x".repeat(200) }))] {
        let credential = server.as_token(&token).credential("r");
        assert!(credential.user.starts_with("own-token-") && credential.user.len() <= 63, "{}", credential.user);
        let (_, random) = credential.user.rsplit_once('-').unwrap();
        assert_eq!(random.len(), 10, "{}", credential.user);
        credential.login(&database);
        root.post("sys/leases/revoke", json!({ "lease_id": credential.lease, "sync": true })).assert_status(204);
        assert!(!database.has_role(&credential.user));
    }
    root.post("database/roles/r", json!({ "username_template": "" })).assert_status(204);
    assert!(root.credential("r").user.starts_with("conn-"));
    root.post("database/config/pg", json!({ "username_template": "" })).assert_status(204);
    assert!(root.credential("r").user.starts_with("v-"));
}

#[test]
fn no_password_reaches_postgresqls_log_by_default() {
    let (server, database) = ready();
    server.role("r", json!({}));
    let root = server.root();
    let credential = root.credential("r");
    credential.login(&database);
    let log = shared_postgresql().log().unwrap();
    assert!(log.contains(&credential.user), "statements are logged");
    assert!(!log.contains(&credential.password), "the password is in PostgreSQL's log");
    let stored = database.sql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", credential.user));
    assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");

    root.post("database/config/pg", json!({ "password_authentication": "password" })).assert_status(204);
    let credential = root.credential("r");
    credential.login(&database);
    assert!(shared_postgresql().log().unwrap().contains(&credential.password), "as asked for, PostgreSQL was told it");
}

#[test]
fn a_renewal_moves_the_end_in_postgresql_too() {
    let (server, database) = ready();
    let root = server.root();
    server.role("r", json!({ "default_ttl": "10m", "max_ttl": "1h" }));
    let credential = root.credential("r");
    let renew = |increment: serde_json::Value| {
        root.put("sys/leases/renew", json!({ "lease_id": credential.lease, "increment": increment })).assert_status(200)
    };
    renew(json!("30m")).assert_at("/lease_duration", 1800).assert_at("/renewable", true);
    let left = database.seconds_left(&credential.user);
    assert!((1800 - 60..=1805).contains(&left), "{left}");
    // Without an increment, the role's default TTL.
    renew(json!(0)).assert_at("/lease_duration", 600);
    let capped = renew(json!("2h")).assert_warning("TTL of \"2h\" exceeded the effective max_ttl of");
    assert!((3540..=3600).contains(&capped.number("/lease_duration")), "{capped}");
    let left = database.seconds_left(&credential.user);
    assert!((3480..=3605).contains(&left), "{left}");

    server.role(
        "own",
        json!({ "renew_statements": ["ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}' CONNECTION LIMIT 3;"] }),
    );
    let own = root.credential("own");
    root.put("sys/leases/renew", json!({ "lease_id": own.lease })).assert_status(200);
    assert_eq!(database.sql(&format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{}'", own.user)), "3");
}

/// Where OpenBao fails and leaves a working login: the role owns something.
#[test]
fn revocation_ends_a_role_that_owns_tables_and_has_grants_elsewhere() {
    let (server, database) = ready();
    let other = Database::fresh();
    let root = server.root();
    let statements = format!(
        "{CREATE_IN_GROUP} GRANT CREATE, USAGE ON SCHEMA public TO \"{{{{name}}}}\"; GRANT SELECT ON customers TO \"{{{{name}}}}\";"
    );
    server.role("owner", json!({ "creation_statements": statements }));
    let credential = root.credential("owner");
    let session = credential.login(&database);
    session.sql("CREATE TABLE mine (id int)").unwrap();
    session.sql("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'").unwrap();
    other.sql(&format!("SET ROLE {ADMIN}; GRANT SELECT ON orders TO \"{}\"", credential.user));

    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user));
    eventually("the session has ended", || !session.is_alive());
    assert!(!database.lets_in(&credential.user, &credential.password));
    // What it owned stays, and belongs to somebody who can do nothing.
    let owner = database.sql("SELECT r.rolname || ' ' || r.rolcanlogin || ' ' || r.rolsuper || ' ' || r.rolcreaterole FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.relname = 'mine'");
    assert!(owner.ends_with(" false false false"), "{owner}");
    assert!(!owner.starts_with(&format!("{ADMIN} ")), "{owner}");
}

#[test]
fn revocation_statements_are_those_of_the_issue() {
    let (server, database) = ready();
    let root = server.root();
    let custom = "REASSIGN OWNED BY \"{{name}}\" TO readonly; DROP OWNED BY \"{{name}}\"; DROP ROLE \"{{name}}\";";
    let first = format!("GRANT \"{{{{name}}}}\" TO CURRENT_USER; {custom}");
    server.role("r", json!({ "revocation_statements": first }));
    let credential = root.credential("r");
    // What the role says today is broken; the lease remembers what it said then.
    server.role("r", json!({ "revocation_statements": "SELECT nosuchfunction();" }));
    root.delete("database/roles/r").assert_status(204);
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user));

    server.role("broken", json!({ "revocation_statements": "SELECT nosuchfunction();" }));
    let credential = root.credential("broken");
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user), "the default revocation follows statements that fail for good");

    let credential = root.credential("broken");
    database.sql(&format!(
        "CREATE TABLE of_the_superuser (x int); GRANT SELECT ON of_the_superuser TO \"{}\"",
        credential.user
    ));
    root.put("sys/leases/revoke", json!({ "lease_id": credential.lease }))
        .assert_error_has(400, "failed to revoke entry: resp: (*logical.Response)(nil) err: ")
        .assert_error_has(400, "of_the_superuser granted by \"postgres\"");
    assert!(root.has_lease(&credential.lease), "a lease whose revocation failed is kept");
    root.put("sys/leases/revoke-force/database/creds/broken", json!({})).assert_status(204);
    assert!(!root.has_lease(&credential.lease));
}

#[test]
fn reset_reopens_a_connection() {
    let (server, _database) = ready();
    let root = server.root();
    root.post("database/reset/pg", json!({})).assert_status(204);
    root.post("database/reset/nope", json!({}))
        .assert_multi(500, "failed to find entry for connection with name: \"nope\"");
    server.role("r", json!({}));
    root.credential("r");
}

/// vault#11507: whoever needs a credential for ten minutes asks for ten minutes.
#[test]
fn a_reader_may_ask_for_a_shorter_or_a_longer_lease_within_the_roles_limit() {
    let (server, database) = ready();
    server.role("r", json!({ "default_ttl": "1h", "max_ttl": "2h" }));
    let root = server.root();
    for (asked, seconds) in [("?ttl=10m", 600), ("?ttl=90m", 5_400), ("?ttl=0", 3_600), ("", 3_600)] {
        let answer = root.get(&format!("database/creds/r{asked}")).assert_status(200);
        assert_eq!(answer.number("/lease_duration"), seconds, "{answer}");
        let left = database.seconds_left(&answer.text("/data/username"));
        assert!((seconds - 20..=seconds + 6).contains(&left), "{asked}: PostgreSQL ends it in {left} s");
        let renewed = root.put("sys/leases/renew", json!({ "lease_id": answer.text("/lease_id") })).assert_status(200);
        assert_eq!(renewed.number("/lease_duration"), 3_600, "a renewal goes by the role again");
    }
    let answer = root.get("database/creds/r?ttl=100h").assert_status(200);
    answer.assert_at("/lease_duration", 7_200).assert_warning("exceeded the effective max_ttl");
    let why = "Field validation failed: error converting input for field \"ttl\": time: unknown unit \"x\" in duration \"1x\"";
    root.get("database/creds/r?ttl=1x").assert_error(400, why);
    // A policy can bound it.
    let text = "path \"database/creds/r\" { capabilities = [\"read\"], allowed_parameters = { \"ttl\" = [\"5m\"] } }";
    let bound = server.with_policy("bound", text);
    bound.get("database/creds/r?ttl=5m").assert_status(200);
    bound.get("database/creds/r?ttl=6m").assert_status(403);
}

#[test]
fn what_comes_later_is_an_unsupported_path() {
    let (server, _database) = ready();
    for path in ["database/nonsense", "database/config/-x", "database/rotate-rooted/pg"] {
        server.root().get(path).assert_multi(404, "unsupported path");
    }
    // A path that Vault serves says what is missing.
    let reload = server.root().post("database/reload/postgresql-database-plugin", json!({}));
    reload.assert_error_has(404, "unsupported path: the plugin is part of this server");
}

#[test]
fn sql_is_split_where_sql_ends() {
    let (server, database) = ready();
    let root = server.root();
    // OpenBao splits at every semicolon, and breaks these.
    let texts = [
        format!("{CREATE_IN_GROUP} COMMENT ON ROLE \"{{{{name}}}}\" IS 'a;b';"),
        format!("{CREATE_IN_GROUP} -- a; comment\nCOMMENT ON ROLE \"{{{{name}}}}\" IS $$x;y$$"),
        format!("{CREATE_IN_GROUP} DO $do$ begin perform 1; end $do$;"),
    ];
    for (number, text) in texts.iter().enumerate() {
        let role = format!("split{number}");
        server.role(&role, json!({ "creation_statements": text }));
        let credential = root.credential(&role);
        credential.login(&database);
    }
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(CREATE_IN_GROUP);
    server.role("base64", json!({ "creation_statements": encoded }));
    root.credential("base64").login(&database);
}
