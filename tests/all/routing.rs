//! Paths, methods, headers, bodies, limits: contract.md §1.

use serde_json::{Value, json};

use crate::support::{Answer, Bao, Client, Server};

fn raw_get(client: &Client, target: &str) -> Answer {
    client.raw_path("GET", target)
}

#[test]
fn paths_are_cleaned_and_everything_lives_under_v1() {
    let server = Server::dev();
    let root = server.root();
    for target in ["/v2/x", "/v1", "/x", "/"] {
        let answer = raw_get(&root, target);
        assert!(answer.status == 404 || (target == "/" && answer.status == 307), "{answer}");
    }
    raw_get(&root, "/v2/x").assert_errors(404, &[]);
    raw_get(&root, "/v1/").assert_error(404, "no handler for route \"\". route entry not found.");
    for (dirty, clean) in [
        ("/v1/sys//mounts", "/v1/sys/mounts"),
        ("/v1/sys/../sys/mounts", "/v1/sys/mounts"),
        ("/v1/sys/./mounts", "/v1/sys/mounts"),
    ] {
        let answer = raw_get(&root, dirty);
        assert_eq!(answer.status, 307, "{answer}");
        assert_eq!(answer.header("location"), Some(clean), "{answer}");
    }
    let odd = raw_get(&root, "/v1/sys/policies/acl/a%0ab");
    assert_eq!((odd.status, odd.body.as_str(), odd.header("content-type")), (400, "", None), "{odd}");
    assert_eq!(raw_get(&root, "/v1/sys/%6dounts").status, 200);
    root.put("sys/policies/acl/a%2Fb", json!({ "policy": "path \"x\" {}" })).assert_status(204);
    root.get("sys/policies/acl/a/b").assert_status(200).assert_at("/data/name", "a/b");
}

/// Whatever way a path is written, the policy judges the one that the router uses.
#[test]
fn no_spelling_of_a_path_steps_around_a_policy() {
    let server = Server::dev();
    let client = server.with_policy(
        "narrow",
        "path \"sys/policies/acl/*\" { capabilities = [\"read\"] }\npath \"sys/policies/acl/hidden\" { capabilities = [\"deny\"] }",
    );
    server
        .root()
        .put("sys/policies/acl/hidden", json!({ "policy": "path \"canary-in-policy\" {}" }))
        .assert_status(204);
    for spelling in [
        "hidden",
        "./hidden",
        "x/../hidden",
        "/hidden",
        "%68idden",
        "hidden/",
        "hidden//",
        "%2e/hidden",
        "x/%2e%2e/hidden",
        "%2Fhidden",
        "HIDDEN",
        "Hidden",
        "hidden%00",
        "hidden%20",
        "hidden;x",
        "hidden%3Fx",
        "hidden?x",
        "hidden%23",
    ] {
        let answer = raw_get(&client, &format!("/v1/sys/policies/acl/{spelling}"));
        assert!(!answer.body.contains("canary-in-policy"), "{spelling}: {answer}");
        assert!(answer.status != 200, "{spelling}: {answer}");
    }
}

#[test]
fn unknown_paths_and_operations_have_their_own_answers() {
    let server = Server::dev();
    let (root, nobody) = (server.root(), server.nobody());
    root.get("nomount/x").assert_error(404, "no handler for route \"nomount/x\". route entry not found.");
    nobody.get("nomount/x").assert_error(403, "permission denied");
    nobody.post("auth/nomount/login/x", json!({})).assert_error(403, "permission denied");
    root.get("sys/nonsense").assert_multi(404, "unsupported path");
    root.delete("sys/leases/renew").assert_multi(405, "unsupported operation");
    root.post("sys/policies/acl/", json!({})).assert_error(400, "cannot write to a path ending in '/'");
    root.get("sys/policies/acl").assert_multi(405, "unsupported operation");
    root.get("sys/policies/acl/none").assert_errors(404, &[]);
}

#[test]
fn a_list_of_what_is_no_folder_is_no_path() {
    no_folders(&Server::dev());
}

#[test]
fn a_real_openbao_knows_the_same_folders() {
    let Some(bao) = Bao::find("lists of what is no folder") else { return };
    no_folders(&Server::openbao(&bao));
}

fn no_folders(server: &Server) {
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    for method in ["LIST", "SCAN"] {
        for path in [
            "sys/mounts",
            "sys/auth",
            "sys/audit",
            "sys/capabilities-self",
            "sys/key-status",
            "sys/leases",
            "sys/leases/renew",
            "auth/token/create",
            "auth/token/lookup-self",
            "database/config/x",
            "database/roles/x",
            "database/creds/x",
            "database/reset/x",
        ] {
            root.request(method, path, None).assert_multi(404, "unsupported path");
        }
        for path in ["sys/mounts/x", "sys/auth/x", "sys/audit/x", "sys/leases/renew/x", "sys/leases/revoke-prefix/x"] {
            root.request(method, path, None).assert_multi(405, "unsupported operation");
        }
    }
    for path in ["sys/leases/lookup", "auth/token/accessors", "sys/policies/acl", "database/config", "database/roles"] {
        root.request("SCAN", path, None).assert_multi(405, "unsupported operation");
        root.get(&format!("{path}/")).assert_multi(405, "unsupported operation");
        root.get(&format!("{path}/?help=1")).assert_status(200);
    }
    root.get("sys/policy/").assert_status(200).assert_at("/data/keys/0", "default");
    for path in ["sys/mounts/", "database/creds/", "database/creds/x/", "database/roles/x/"] {
        root.get(path).assert_multi(404, "unsupported path");
    }
    for path in ["nomount", "nomount/", "nomount/a/"] {
        root.get(path).assert_error(404, &format!("no handler for route \"{path}\". route entry not found."));
    }
}

#[test]
fn methods_are_the_fields_operations() {
    let server = Server::dev();
    let root = server.root();
    for path in [
        "sys/policies/acl?list=true",
        "sys/policies/acl?list=True",
        "sys/policies/acl?list=1",
        "sys/policies/acl?list=t",
    ] {
        root.get(path).assert_status(200);
    }
    root.list("sys/policies/acl").assert_status(200);
    for path in ["sys/policies/acl?list=maybe", "sys/policies/acl?list=true&scan=true"] {
        root.get(path).assert_errors(400, &[]);
    }
    root.post("sys/policies/acl/p", json!({ "policy": "path \"x\" {}" })).assert_status(204);
    root.put("sys/policies/acl/p", json!({ "policy": "path \"x\" {}" })).assert_status(204);
    root.request("PATCH", "sys/policies/acl/p", Some(json!({}))).assert_error(400, "mime: no media type");
    let other = root.bytes("PATCH", "sys/policies/acl/p", b"{}", &[("Content-Type", "application/json")]);
    other.assert_error_has(415, "PATCH requires Content-Type of application/merge-patch+json, provided ");
    root.request("OPTIONS", "sys/policies/acl/p", None)
        .assert_error(400, "cannot handle internal-only request operation");
    root.request("TRACE", "sys/policies/acl/p", None).assert_errors(405, &[]);
    root.request("BREW", "sys/policies/acl/p", None).assert_errors(405, &[]);
    assert_eq!(root.request("HEAD", "sys/policies/acl/p", None).status, 405);
    let health = server.nobody().request("HEAD", "sys/health", None).assert_status(200);
    assert_eq!(health.body, "");
}

#[test]
fn every_answer_has_the_fields_headers() {
    let server = Server::dev();
    let root = server.root();
    for answer in [
        root.get("sys/policies/acl/default"),
        root.put("sys/policies/acl/p", json!({ "policy": "path \"x\" {}" })),
        root.get("nomount/x"),
        server.nobody().get("sys/mounts"),
        server.nobody().get("sys/health"),
    ] {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains"), "{answer}");
        assert!(answer.status == 204 || answer.body.ends_with('\n'), "{answer}");
    }
    root.put("sys/policies/acl/esc", json!({ "policy": "# <&>\npath \"x\" {}" })).assert_status(204);
    assert!(root.get("sys/policies/acl/esc").body.contains(r"\u003c\u0026\u003e"));
}

#[test]
fn the_envelope_has_all_its_keys() {
    let server = Server::dev();
    let answer = server.root().get("sys/policies/acl/default").assert_status(200);
    let keys: Vec<String> = answer.json().as_object().unwrap().keys().cloned().collect();
    for key in ["request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"] {
        assert!(keys.iter().any(|known| known == key), "{key} is missing: {answer}");
    }
    // Old clients read these beside the envelope.
    let answer = server.root().get("sys/mounts");
    assert_eq!(answer.at("/data/sys~1"), answer.at("/sys~1"));
    let answer = server.root().get("sys/policy/default");
    assert_eq!(answer.at("/data/rules"), answer.at("/rules"));
    assert!(answer.at("/rules").is_string());
}

#[test]
fn namespaces_are_root_or_nothing() {
    let server = Server::dev();
    let asked = |name: &str| server.root().bytes("POST", "auth/token/lookup", b"{}", &[("X-Vault-Namespace", name)]);
    asked("root").assert_status(200);
    asked("").assert_status(200);
    asked("team").assert_error(404, "namespace not found");
}

#[test]
fn bodies_are_json_objects_or_nothing() {
    let server = Server::dev();
    let root = server.root();
    let send = |body: &[u8], kind: &str| root.bytes("POST", "auth/token/create", body, &[("Content-Type", kind)]);
    for nothing in [&b""[..], b"null", b"{}", b"  {}  "] {
        send(nothing, "application/json").assert_status(200);
    }
    send(b"{\"ttl\":\"1h\"}", "text/plain").assert_at("/auth/lease_duration", 3600);
    send(b"{\"ttl\":\"1h\"}", "application/x-www-form-urlencoded").assert_at("/auth/lease_duration", 3600);
    send(b"ttl=1h&display_name=x", "application/x-www-form-urlencoded").assert_at("/auth/lease_duration", 3600);
    send(b"[1]", "application/json").assert_error(
        400,
        "failed to decode JSON input: json: cannot unmarshal array into Go value of type map[string]interface {}",
    );
    send(b"bogus", "application/json")
        .assert_error(400, "failed to decode JSON input: invalid character 'b' looking for beginning of value");
    for broken in [
        &b"{"[..],
        b"{\"a\":",
        b"{\"a\" 1}",
        b"{\"a\":1}}",
        b"\xff\xfe",
        b"{\"a\":\"\xff\"}",
        b"\x00",
        b"1",
        b"\"x\"",
        b"true",
    ] {
        let answer = send(broken, "application/json");
        assert!(matches!(answer.status, 200 | 400), "{broken:?}: {answer}");
        assert!(answer.status == 200 || answer.body.contains("failed to decode JSON input"), "{broken:?}: {answer}");
    }
    root.post("auth/token/create", json!({ "no_such_field": 1, "another": 2 }))
        .assert_status(200)
        .assert_warning("Endpoint ignored these unrecognized parameters: [another no_such_field]");
}

#[test]
fn unknown_parameters_are_named_where_the_field_names_them() {
    unknown_parameters(&Server::dev());
}

#[test]
fn unknown_parameters_are_named_where_a_real_openbao_names_them() {
    let Some(bao) = Bao::find("parameters that an endpoint does not know, against a real OpenBao") else { return };
    unknown_parameters(&Server::openbao(&bao));
}

fn unknown_parameters(server: &Server) {
    let root = server.root();
    let policy = "path \"x/*\" { capabilities = [\"read\"] }";
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let url = "postgresql://{{username}}:{{password}}@127.0.0.1:1/app";
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "username": "u", "password": "p-w-d",
        "allowed_roles": "*", "verify_connection": false, "bogus": 1,
    });
    root.post("sys/mounts/database", json!({ "type": "database", "bogus": 1 })).assert_status(204).assert_empty();
    // A connection keeps what it does not know. Vault's answer has no body; ours warns.
    let kept = root.post("database/config/x", connection);
    assert!(matches!(kept.status, 200 | 204), "{kept}");
    // An answer without a body has no place for a warning, in Vault neither: a reader of the role sees what it took.
    for (method, path, body) in [
        ("POST", "sys/mounts/database/tune", json!({ "description": "d", "bogus": 1 })),
        ("POST", "database/roles/r", json!({ "db_name": "x", "creation_statements": create, "bogus": 1 })),
        ("PUT", "sys/policies/acl/p", json!({ "policy": policy, "bogus": 1 })),
        ("PUT", "sys/leases/revoke", json!({ "lease_id": "database/creds/x/y", "bogus": 1 })),
        ("POST", "auth/token/revoke", json!({ "token": "x", "bogus": 1 })),
    ] {
        root.request(method, path, Some(body)).assert_status(204).assert_empty();
    }
    let warning = "Endpoint ignored these unrecognized parameters: [another bogus]";
    for (method, path, body) in [
        ("GET", "database/config/x?another=1&bogus=1", None),
        ("GET", "database/roles/r?bogus=1&another=1", None),
        ("LIST", "database/roles?bogus=1&another=1", None),
        ("GET", "sys/policies/acl/p?bogus=1&another=1", None),
        ("GET", "sys/mounts?bogus=1&another=1", None),
        ("GET", "sys/key-status?bogus=1&another=1", None),
        ("PUT", "sys/policy/p", Some(json!({ "rules": policy, "bogus": 1, "another": 1 }))),
        ("POST", "sys/capabilities-self", Some(json!({ "paths": ["a"], "bogus": 1, "another": 1 }))),
        ("POST", "auth/token/create", Some(json!({ "bogus": 1, "another": 1 }))),
        ("POST", "auth/token/lookup-self", Some(json!({ "bogus": 1, "another": 1 }))),
        ("POST", "auth/token/revoke-accessor", Some(json!({ "accessor": "x", "bogus": 1, "another": 1 }))),
    ] {
        root.request(method, path, body).assert_status(200).assert_warning(warning);
    }
    // Of a connection every key is kept and read back.
    root.get("database/config/x").assert_at("/data/connection_details/bogus", 1).assert_at("/warnings", Value::Null);
    let queued = root.put("sys/leases/tidy", json!({ "bogus": 1 })).assert_status(202);
    assert_eq!(queued.at("/warnings").as_array().map(Vec::len), Some(1), "{queued}");
}

#[test]
fn sizes_are_limited_before_anybody_is_asked_who_he_is() {
    let server = Server::dev();
    let nobody = server.nobody();
    // 33 MiB announced, without a token: refused without being read. What a living token may send, tests/all/hostile.rs says.
    let head = format!(
        "POST /v1/auth/token/create HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        33 << 20
    );
    let mut request = head.into_bytes();
    request.extend(vec![b' '; 1 << 16]);
    nobody.raw(&request).assert_error(403, "permission denied");

    let strings = |count: usize| Value::from((0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    nobody
        .post("auth/token/create", json!({ "meta": strings(1001) }))
        .assert_error(400, "refused JSON input due to high complexity: exceeded maximum number of strings");
    nobody.post("auth/token/create", json!({ "policies": strings(998) })).assert_error(403, "permission denied");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = server.root().bytes("POST", "auth/token/create", deep.as_bytes(), &[]);
    assert_eq!(answer.status, 400, "{}", answer.status);
    let long = "x".repeat(1 << 20);
    let answer = nobody.raw_path("GET", &format!("/v1/{long}"));
    assert!(matches!(answer.status, 0 | 400 | 414 | 431 | 404), "{}", answer.status);
    let many: String = (0..5000).map(|n| format!("X-H{n}: y\r\n")).collect();
    let answer =
        nobody.raw(format!("GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n{many}Connection: close\r\n\r\n").as_bytes());
    assert!(matches!(answer.status, 0 | 400 | 431), "{}", answer.status);
    nobody.get("sys/health").assert_status(200);
}

#[test]
fn durations_are_read_as_the_field_reads_them() {
    let server = Server::dev();
    let root = server.root();
    let ttl = |value: Value| root.post("auth/token/create", json!({ "policies": ["x"], "ttl": value }));
    for (text, seconds) in [
        (json!(90), 90),
        (json!("90"), 90),
        (json!("1h30m"), 5400),
        (json!("1.5h"), 5400),
        (json!("+5m"), 300),
        (json!("2d"), 172_800),
    ] {
        ttl(text.clone()).assert_status(200).assert_at("/auth/lease_duration", seconds);
    }
    for wrong in [
        json!("90.5"),
        json!("1w"),
        json!("1D"),
        json!(" 5m"),
        json!("1d12h"),
        json!("-5"),
        json!("abc"),
        json!("9".repeat(400)),
        json!("1e400"),
    ] {
        let answer = ttl(wrong.clone());
        assert_eq!(answer.status, 400, "{wrong}: {answer}");
    }
    // What Vault's own default is: nothing, null and zero.
    for unset in [json!(""), json!(null), json!(0), json!("0s"), json!("0ms")] {
        ttl(unset).assert_status(200).assert_at("/auth/lease_duration", 2_764_800);
    }
}

#[test]
fn help_is_there_for_every_path() {
    let server = Server::dev();
    let answer = server.root().get("sys/mounts?help=1").assert_status(200);
    assert!(answer.at("/help").as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    let answer = server.root().get("sys?help=1").assert_status(200);
    assert!(answer.text("/help").contains("leases/renew"), "{answer}");
    server.nobody().get("sys/mounts?help=1").assert_status(403);
}

#[test]
fn half_requests_and_nonsense_do_not_disturb_others() {
    let server = Server::dev();
    let nobody = server.nobody();
    for bytes in [
        &b"GET"[..],
        b"GET /v1/sys/health HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/sys/health HTTP/9.9\r\n\r\n",
        b"POST /v1/sys/init HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        b"POST /v1/sys/init HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        b"POST /v1/sys/init HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnull",
        b"GET /v1/sys/health\x00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nX-Vault-Token: \xff\xfe\r\nConnection: close\r\n\r\n",
    ] {
        use std::io::Write as _;
        // A half request is left hanging: the server must not wait for it with the others.
        let mut stream = std::net::TcpStream::connect(nobody.address()).unwrap();
        let _ = stream.write_all(bytes);
        nobody.get("sys/health").assert_status(200);
    }
}
