//! Bad input: Vault's own error, nothing stored, no secret in the answer or the log, and the server stays up.
//!
//! That the server has not panicked and that its log holds no secret is looked at when each server goes.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, Server};

const PROBE: &str = "sys/policies/acl/probe";

#[track_caller]
fn still_up(server: &Server) {
    server.nobody().get("sys/health").assert_status(200);
}

#[test]
fn malformed_bodies_are_refused_in_the_fields_words_and_store_nothing() {
    let server = Server::dev();
    let (root, nobody) = (server.root(), server.nobody());
    let go = |kind: &str| format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
    for (body, error) in [
        (&b"[]"[..], go("array")),
        (b"\"x\"", go("string")),
        (b"5", go("number")),
        (b"true", go("bool")),
        (b"{", "unexpected EOF".into()),
        (b"{\"policy\":\"x\"", "unexpected EOF".into()),
        (b"b", "invalid character 'b' looking for beginning of value".into()),
        (b"{a:1}", "invalid character 'a' looking for beginning of value".into()),
        (b"\0", "invalid character '\\x00' looking for beginning of value".into()),
        (b"\xff\xfe", "invalid character '\\xff' looking for beginning of value".into()),
        (b"{\"a\":NaN}", "invalid character 'N' looking for beginning of value".into()),
        (b"{\"policy\":\"\xff\"}", "invalid UTF-8 in string".into()),
        (b"{\"policy\":\"a\nb\"}", "invalid character '\\n' in string".into()),
    ] {
        let error = format!("failed to decode JSON input: {error}");
        // A body is judged before the token is.
        for client in [&root, &nobody] {
            client.bytes("PUT", PROBE, body, &[]).assert_error(400, &error);
        }
    }
    root.get(PROBE).assert_errors(404, &[]);
    still_up(&server);
}

#[test]
fn wrong_types_are_refused_and_store_nothing() {
    let server = Server::dev();
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    for value in [json!(["x"]), json!({ "a": 1 })] {
        root.put(PROBE, json!({ "policy": value }))
            .assert_error_has(400, "error converting input for field \"policy\"");
    }
    for field in ["db_name", "default_ttl", "creation_statements"] {
        let answer = root.put("database/roles/r", json!({ "db_name": "x", field: { "a": 1 } }));
        answer.assert_error_has(400, &format!("error converting input for field \"{field}\""));
    }
    for ttl in
        ["1w", "1D", " 5m", "1h ", "1d12h", "-5", "-5m", "abc", "90.5", "1e3", "0x10", "9223372036854775808", "٣"]
    {
        let answer = root.put("database/roles/r", json!({ "db_name": "x", "default_ttl": ttl }));
        answer.assert_error_has(400, "error converting input for field \"default_ttl\"");
    }
    root.get("database/roles/r").assert_errors(404, &[]);
    root.get(PROBE).assert_errors(404, &[]);
    still_up(&server);
}

#[test]
fn huge_deep_and_long_requests_are_refused_before_authentication() {
    let server = Server::dev();
    let nobody = server.nobody();
    let many = json!({ "a": vec!["x"; 1_000] }).to_string();
    let error = "refused JSON input due to high complexity: exceeded maximum number of strings";
    nobody.bytes("PUT", PROBE, many.as_bytes(), &[]).assert_error(400, error);
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    nobody.bytes("PUT", PROBE, deep(20_000).as_bytes(), &[]).assert_status(400);
    for deep in ["[".repeat(1_000_000), deep(200_000)] {
        server.root().bytes("PUT", PROBE, deep.as_bytes(), &[]).assert_status(400);
    }
    for length in [5_000, 70_000, 1_500_000] {
        let answer = nobody.raw_path("GET", &format!("/v1/sys/policies/acl/{}", "a".repeat(length)));
        assert!(matches!(answer.status, 414 | 431), "{}", answer.status);
    }
    for garbage in [
        &b"\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /v1/\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let answer = nobody.raw(garbage);
        assert!(matches!(answer.status, 0 | 400), "{answer}");
    }
    still_up(&server);
}

/// Attack A4: 31 MiB without a token cost 62 MiB of audit and a full disk.
#[test]
fn only_a_living_token_may_send_megabytes() {
    let server = Server::dev();
    let (root, nobody) = (server.root(), server.nobody());
    let large = json!({ "policy": "x".repeat(1 << 20) }).to_string();
    for client in [&nobody, &nobody.with_token("s.unknown")] {
        client.bytes("PUT", PROBE, large.as_bytes(), &[]).assert_error(403, "permission denied");
    }
    root.bytes("PUT", PROBE, large.as_bytes(), &[]).assert_error_has(400, "failed to parse policy: ");
    for path in ["sys/unseal", "sys/init"] {
        nobody.bytes("PUT", path, large.as_bytes(), &[]).assert_error(413, "http: request body too large");
    }
    let token = server.root_token();
    let head = format!(
        "PUT /v1/{PROBE} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        33 << 20
    );
    let answer = root.raw(&[head.as_bytes(), &vec![b' '; 33 << 20]].concat());
    answer.assert_error(413, "http: request body too large");
    still_up(&server);
}

#[test]
fn bad_policies_are_refused_and_the_old_one_stays() {
    let server = Server::dev();
    let root = server.root();
    root.put(PROBE, json!({ "policy": "path \"a\" {}" })).assert_status(204);
    let deep = format!("path \"a\" {{ comment = {}", "[".repeat(100_000));
    for text in [
        "path \"a\" {",
        "path \"a\" { capabilities = [\"foo\"] }",
        "path \"a\" { capabilities = \"read\" }",
        "path \"a+*\" { capabilities = [\"read\"] }",
        "foo \"a\" {}",
        "path \"a\" { bogus = 1 }",
        "/* open",
        "@",
        "\0",
        &deep,
    ] {
        root.put(PROBE, json!({ "policy": text })).assert_error_has(400, "failed to parse policy: ");
    }
    root.get(PROBE).assert_at("/data/policy", "path \"a\" {}");
    still_up(&server);
}

#[test]
fn hostile_names_in_a_path_are_no_path() {
    let server = Server::dev();
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    for name in
        ["a%20b", "a%27b", "a%22b", "a%3Bb", "-a", "a-", "a.", ".a", "%C3%A9", "a%2Cb", "%28x%29", "%27%3B--", "a%2Fb"]
    {
        for (kind, body) in [("roles", json!({ "db_name": "x" })), ("config", json!({ "plugin_name": "x" }))] {
            let answer = root.put(&format!("database/{kind}/{name}"), body);
            answer.assert_multi(404, "unsupported path");
        }
    }
    for odd in ["a%00b", "a%0Ab"] {
        root.put(&format!("database/roles/{odd}"), json!({ "db_name": "x" })).assert_status(400).assert_empty();
    }
    root.list("database/roles").assert_errors(404, &[]);
    root.list("database/config").assert_errors(404, &[]);
    still_up(&server);
}

/// One mount, one connection, one role whose statements are `creation`.
fn prepare(root: &Client, database: &Database<'_>, creation: Value) {
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    root.put("database/config/pg", database.config()).assert_status(204);
    let answer = root.put("database/roles/r", json!({ "db_name": "pg", "creation_statements": creation }));
    assert!(matches!(answer.status, 200 | 204), "{answer}");
}

const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';";

#[test]
fn sql_in_a_display_name_stays_a_name() {
    let server = Server::dev();
    let (root, database) = (server.root(), Database::fresh());
    prepare(&root, &database, json!([CREATE]));
    let text = "path \"database/creds/r\" { capabilities = [\"read\"] }";
    root.put("sys/policies/acl/creds", json!({ "policy": text })).assert_status(204);
    let roles = || database.sql("SELECT count(*) FROM pg_roles WHERE rolsuper OR rolcreaterole");
    let before = roles();
    for name in [
        "x\"; DROP TABLE customers; --",
        "x'; DROP TABLE customers; --",
        "\" SUPERUSER; --",
        "$$; DROP TABLE customers; $$",
        "\\'; DROP TABLE customers; --",
        "{{password}}{{name}}",
        "Zoë\u{202e}\u{0}",
        &"long".repeat(500),
    ] {
        let made = root.post("auth/token/create", json!({ "policies": ["creds"], "display_name": name }));
        let answer = root.with_token(&made.assert_status(200).text("/auth/client_token")).get("database/creds/r");
        let answer = answer.assert_status(200);
        let (user, password) = (answer.text("/data/username"), answer.text("/data/password"));
        assert!(user.len() <= 63, "{user}");
        assert!(user.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{user}");
        assert!(database.lets_in(&user, &password), "{user}");
        let body = json!({ "lease_id": answer.text("/lease_id"), "sync": true });
        root.put("sys/leases/revoke", body).assert_status(204);
        assert!(!database.has_role(&user), "{user}");
    }
    assert_eq!(database.sql("SELECT count(*) > 0 FROM customers"), "t");
    assert_eq!(roles(), before);
}

#[test]
fn a_revocation_quotes_the_names_of_hostile_schemas() {
    let server = Server::dev();
    let (root, database) = (server.root(), Database::fresh());
    let schema = "\"evil\"\"; DROP TABLE public.customers; --'\"";
    database.sql(&format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.\"t'; --\" (id int); \
         GRANT USAGE ON SCHEMA {schema} TO root WITH GRANT OPTION; \
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO root WITH GRANT OPTION;"
    ));
    let grant = format!("GRANT USAGE ON SCHEMA {schema} TO \"{{{{name}}}}\";");
    let select = format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO \"{{{{name}}}}\";");
    prepare(&root, &database, json!([CREATE, grant, select]));
    let answer = root.get("database/creds/r").assert_status(200);
    let user = answer.text("/data/username");
    let session = database.login(&user, &answer.text("/data/password")).unwrap();
    assert_eq!(session.sql(&format!("SELECT count(*) FROM {schema}.\"t'; --\"")).unwrap(), ["0"]);
    drop(session);
    root.put("sys/leases/revoke", json!({ "lease_id": answer.text("/lease_id"), "sync": true })).assert_status(204);
    assert!(!database.has_role(&user));
    assert_eq!(database.sql("SELECT count(*) > 0 FROM public.customers"), "t");
}

#[test]
fn a_secret_in_a_bad_request_comes_back_nowhere() {
    const CANARY: &str = "canary-7Qx9vTz3";
    let server = Server::dev();
    let root = server.root();
    server.secrets().tell(CANARY);
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    let quiet = |answer: Answer| {
        assert!(answer.status >= 400, "{answer}");
        assert!(!answer.body.contains(CANARY), "{answer}");
    };
    let config = |url: &str| json!({ "plugin_name": "postgresql-database-plugin", "connection_url": url, "username": "u", "password": CANARY });
    for url in [
        "postgresql://{{username}}:{{password}}@127.0.0.1:1/x".to_owned(),
        format!("postgresql://u:{CANARY}@127.0.0.1:1/x"),
        format!("postgresql://u:{CANARY}@127.0.0.1:notaport/x"),
        format!("postgresql://u:{CANARY}@[::1/x"),
        format!("host=127.0.0.1 port=1 password={CANARY}"),
        format!("host=127.0.0.1 port=x password='{CANARY}"),
        format!("nonsense {CANARY}"),
    ] {
        quiet(root.put("database/config/pg", config(&url)));
    }
    quiet(root.put("database/config/pg", json!({ "password": { "a": CANARY } })));
    quiet(root.bytes("PUT", "database/config/pg", format!("{{\"password\":\"{CANARY}\"").as_bytes(), &[]));
    quiet(root.bytes("PUT", "database/config/pg", format!("{{\"password\":\"{CANARY}\\x\"}}").as_bytes(), &[]));
    quiet(root.put("sys/unseal", json!({ "key": { "a": CANARY } })));
    quiet(root.with_token(CANARY).get("sys/mounts"));
    quiet(root.put("auth/token/lookup", json!({ "token": CANARY })));
    quiet(root.put("auth/token/renew", json!({ "token": CANARY })));
    quiet(root.put("sys/capabilities", json!({ "token": CANARY, "paths": ["x"] })));
    root.get("database/config/pg").assert_errors(404, &[]);
    still_up(&server);
}
