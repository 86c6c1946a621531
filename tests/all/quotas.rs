//! Quotas: host/docs/quotas.md. Rate limits stand beside OpenBao's; lease counts are in Vault Enterprise only.

use serde_json::{Value, json};

use crate::nodes::Nodes;
use crate::support::{Bao, Database, Durable, Server, eventually, own_postgresql};

/// Definitions, and why they are refused; empty: they are taken.
const DEFINITIONS: &[(&str, &str)] = &[
    ("{}", "'rate' is invalid"),
    (r#"{"rate":0}"#, "'rate' is invalid"),
    (r#"{"rate":-1}"#, "'rate' is invalid"),
    (
        r#"{"rate":"x"}"#,
        "Field validation failed: error converting input for field \"rate\": '' cannot parse value as 'float64': strconv.ParseFloat: invalid syntax",
    ),
    (
        r#"{"rate":1,"interval":"x"}"#,
        "Field validation failed: error converting input for field \"interval\": time: invalid duration \"x\"",
    ),
    (
        r#"{"rate":1,"block_interval":-5}"#,
        "Field validation failed: error converting input for field \"block_interval\": cannot provide negative value '-5'",
    ),
    (
        r#"{"rate":1,"inheritable":"maybe"}"#,
        "Field validation failed: error converting input for field \"inheritable\": '' cannot parse value as 'bool': strconv.ParseBool: invalid syntax",
    ),
    (r#"{"rate":1,"path":"nomount/"}"#, "invalid mount path \"nomount/\""),
    (r#"{"rate":1,"path":"sec*"}"#, "invalid mount path \"sec*/\""),
    (
        r#"{"rate":1,"path":"cubbyhole/foo","role":"x"}"#,
        "Quotas cannot contain both a path suffix and a role. If a role is provided, path must be a valid auth mount with a concept of roles",
    ),
    (
        r#"{"rate":1,"path":"cubbyhole/","role":"x"}"#,
        "Mount path \"cubbyhole/\" is not a valid auth method and therefore unsuitable for use with role-based quotas",
    ),
    (
        r#"{"rate":1,"role":"x"}"#,
        "Mount path \"\" is not a valid auth method and therefore unsuitable for use with role-based quotas",
    ),
    (
        r#"{"rate":1,"path":"auth/token","role":"x"}"#,
        "Mount path \"auth/token/\" does not support use with role-based quotas",
    ),
    (
        r#"{"rate":1,"path":"auth/userpass","role":"x"}"#,
        "Mount path \"auth/userpass/\" does not support use with role-based quotas",
    ),
    (r#"{"rate":100000.5}"#, ""),
    (r#"{"rate":"100000","path":"/cubbyhole/foo/*/","interval":"2s"}"#, ""),
    (r#"{"rate":100000,"path":"sys/"}"#, ""),
    (r#"{"rate":100000,"path":"cubbyhole","inheritable":true,"interval":0}"#, ""),
    (r#"{"rate":100000,"interval":"90m","block_interval":"1h"}"#, ""),
    (r#"{"rate":100000,"type":"x","path":"cubbyhole/f*o/bar"}"#, ""),
    (r#"{"rate":100000,"path":"auth/approle","role":"app"}"#, ""),
];

#[test]
fn rate_limits_are_written_read_listed_and_hold() {
    let server = Server::dev();
    walk(&server);
    // Where the headers are off, a refusal says all the same when to come back; OpenBao's does not.
    let root = server.root();
    root.post("sys/quotas/rate-limit/t", json!({ "rate": 1, "interval": 100, "path": "cubbyhole" })).assert_status(204);
    root.get("cubbyhole/a").assert_status(404);
    let refused =
        root.get("cubbyhole/a").assert_errors(429, &["request path \"cubbyhole/a\": rate limit quota exceeded"]);
    assert_eq!(refused.header("retry-after"), Some("100"), "{refused}");
    assert_eq!(refused.header("x-ratelimit-limit"), None, "{refused}");
    // In OpenBao such a limit lets one request in and none ever after: here it is one in two seconds.
    root.post("sys/quotas/rate-limit/t", json!({ "rate": 0.5, "path": "cubbyhole" })).assert_status(204);
    root.get("cubbyhole/a").assert_status(404);
    let refused = root.get("cubbyhole/a");
    assert!(refused.header("retry-after").is_some_and(|secs| secs == "2" || secs == "1"), "{refused}");
    let counted = root.get("sys/metrics?format=prometheus");
    assert!(counted.body.contains("vault_quota_rate_limit_violation{"), "{counted}");
}

#[test]
fn a_real_openbao_limits_alike() {
    let Some(bao) = Bao::find("rate limits, against a real OpenBao") else { return };
    walk(&Server::openbao(&bao));
}

fn walk(server: &Server) {
    let root = server.root();
    let on = "sys/quotas/rate-limit/q";
    for method in ["userpass", "approle"] {
        root.post(&format!("sys/auth/{method}"), json!({ "type": method })).assert_status(204);
    }
    root.list("sys/quotas/rate-limit").assert_errors(404, &[]);
    root.get(on).assert_errors(404, &[]);
    root.delete(on).assert_status(204);
    for (definition, why) in DEFINITIONS {
        let definition: Value = serde_json::from_str(definition).unwrap();
        let answer = root.post(on, definition.clone());
        if why.is_empty() {
            answer.assert_status(204);
            let rate = root.get(on).assert_status(200).at("/data/rate");
            assert!(rate.as_f64().is_some_and(|rate| rate >= 100_000.0), "{definition}: {rate}");
        } else {
            answer.assert_errors(400, &[why]);
        }
    }
    root.delete(on).assert_status(204);
    root.post(on, json!({ "rate": 100_000, "path": "/cubbyhole/foo/*/", "interval": "2s", "block_interval": 60 }));
    root.get(on).assert_at(
        "/data",
        json!({
            "block_interval": 60, "inheritable": false, "interval": 2, "name": "q", "path": "cubbyhole/foo/*", "rate": 100_000,
            "role": "", "type": "rate-limit",
        }),
    );
    root.post("sys/quotas/rate-limit/p", json!({ "rate": 5, "path": "cubbyhole/foo/*" }))
        .assert_errors(400, &["quota rule with similar properties exists under the name \"q\""]);
    root.post("sys/quotas/rate-limit/a.b-c", json!({ "rate": 100_000 })).assert_status(204);
    root.get("sys/quotas/rate-limit/a.b-c").assert_at("/data/inheritable", true).assert_at("/data/path", "");
    // OpenBao has them in an order of its own.
    let mut names = root.list("sys/quotas/rate-limit").assert_status(200).at("/data/keys");
    names.as_array_mut().unwrap().sort_by_key(Value::to_string);
    assert_eq!(names, json!(["a.b-c", "q"]));
    root.post("sys/quotas/rate-limit/x/y", json!({ "rate": 1 })).assert_multi(404, "unsupported path");
    root.get("sys/quotas/rate-limit").assert_multi(405, "unsupported operation");
    root.delete("sys/quotas/config").assert_multi(405, "unsupported operation");
    root.get("sys/quotas").assert_multi(404, "unsupported path");
    for name in ["a.b-c", "q"] {
        root.delete(&format!("sys/quotas/rate-limit/{name}")).assert_status(204);
    }

    // The configuration is replaced as a whole.
    root.get("sys/quotas/config").assert_at(
        "/data",
        json!({
            "enable_rate_limit_audit_logging": false,
            "enable_rate_limit_response_headers": false,
            "rate_limit_exempt_paths": [
                "sys/generate-recovery-token/attempt", "sys/generate-recovery-token/update", "sys/generate-root/attempt",
                "sys/generate-root/update", "sys/health", "sys/seal-status", "sys/unseal",
            ],
        }),
    );
    root.post("sys/quotas/config", json!({ "enable_rate_limit_response_headers": true })).assert_status(204);
    root.get("sys/quotas/config").assert_at(
        "/data",
        json!({
            "enable_rate_limit_audit_logging": false,
            "enable_rate_limit_response_headers": true,
            "rate_limit_exempt_paths": [],
        }),
    );

    root.post(on, json!({ "rate": 2, "interval": 100, "path": "cubbyhole/s*" })).assert_status(204);
    for remaining in ["1", "0"] {
        let answer = root.get("cubbyhole/stuff");
        assert_eq!(answer.header("x-ratelimit-limit"), Some("2"), "{answer}");
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(remaining), "{answer}");
        assert!(answer.header("x-ratelimit-reset").is_some_and(|secs| secs == "99" || secs == "100"), "{answer}");
        assert_eq!(answer.header("retry-after"), None, "{answer}");
    }
    // It is counted before anybody looks at the token.
    let refused = server
        .nobody()
        .get("cubbyhole/so")
        .assert_errors(429, &["request path \"cubbyhole/so\": rate limit quota exceeded"]);
    assert!(refused.header("retry-after").is_some_and(|secs| secs == "99" || secs == "100"), "{refused}");
    assert_eq!(root.get("cubbyhole/other").assert_status(404).header("x-ratelimit-limit"), None);

    root.post(on, json!({ "rate": 1, "interval": 1, "block_interval": 600, "path": "cubbyhole/s*" }))
        .assert_status(204);
    root.get("cubbyhole/stuff").assert_status(404);
    let refused = root.get("cubbyhole/stuff");
    assert!(refused.header("retry-after").is_some_and(|secs| secs == "599" || secs == "600"), "{refused}");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"), "{refused}");
    let refused = root.get("cubbyhole/stuff");
    assert!(refused.header("retry-after").is_some_and(|secs| secs == "599" || secs == "600"), "{refused}");
    assert_eq!(refused.header("x-ratelimit-remaining"), None, "{refused}");
    let exempt = json!({ "rate_limit_exempt_paths": ["cubbyhole/s*", "!cubbyhole/stuff"] });
    root.post("sys/quotas/config", exempt).assert_status(204);
    root.get("cubbyhole/so").assert_status(404);
    root.get("cubbyhole/stuff").assert_status(429);
    root.delete(on).assert_status(204);

    // A limit of a role is for the logins that name it.
    root.post("auth/approle/role/app", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.0/8" }));
    let role_id = root.get("auth/approle/role/app/role-id").text("/data/role_id");
    root.post("sys/quotas/config", json!({})).assert_status(204);
    root.post(on, json!({ "rate": 1, "interval": 100, "path": "auth/approle", "role": "app" })).assert_status(204);
    let log_in = |role_id: &str| server.nobody().post("auth/approle/login", json!({ "role_id": role_id }));
    log_in(&role_id).assert_status(200);
    log_in(&role_id).assert_errors(429, &["request path \"auth/approle/login\": rate limit quota exceeded"]);
    log_in("another").assert_status(400);
    root.get("auth/approle/role/app").assert_status(200);
    // It ends with its mount.
    root.delete("sys/auth/approle").assert_status(204);
    root.get(on).assert_errors(404, &[]);
}

#[test]
fn lease_counts_are_written_read_listed_and_hold() {
    let server = Server::durable(&Durable::default());
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let on = "sys/quotas/lease-count/q";
    root.list("sys/quotas/lease-count").assert_errors(404, &[]);
    root.get(on).assert_errors(404, &[]);
    root.delete(on).assert_status(204);
    for (definition, why) in [
        (json!({}), "'max_leases' is invalid"),
        (json!({ "max_leases": 0 }), "'max_leases' is invalid"),
        (json!({ "max_leases": -1 }), "'max_leases' is invalid"),
        (json!({ "max_leases": 1, "path": "nomount" }), "invalid mount path \"nomount/\""),
        (
            json!({ "max_leases": 1, "path": "database", "role": "r" }),
            "Mount path \"database/\" is not a valid auth method and therefore unsuitable for use with role-based quotas",
        ),
    ] {
        root.post(on, definition).assert_errors(400, &[why]);
    }
    let first = root.credential("r");
    root.post(on, json!({ "max_leases": "2", "path": "/database/creds/*" })).assert_status(204);
    root.get(on).assert_at(
        "/data",
        json!({
            "counter": 1, "inheritable": false, "max_leases": 2, "name": "q", "path": "database/creds/*", "role": "",
            "type": "lease-count",
        }),
    );
    root.post("sys/quotas/lease-count/p", json!({ "max_leases": 9, "path": "database/creds/*" }))
        .assert_errors(400, &["quota rule with similar properties exists under the name \"q\""]);
    root.list("sys/quotas/lease-count").assert_at("/data/keys", json!(["q"]));
    root.credential("r");
    let full = [
        "1 error occurred:\n\t* request path \"database/creds/r\": lease count quota exceeded\n\n",
        "quota \"q\" allows 2 leases, and no fewer stand: revoke some, or wait until fewer do",
    ];
    let before = database.sql("SELECT count(*) FROM pg_roles");
    root.get("database/creds/r").assert_errors(429, &full);
    assert_eq!(database.sql("SELECT count(*) FROM pg_roles"), before, "nothing was made");
    let shown = root.get("sys/metrics?format=prometheus").body;
    for (metric, value) in [("counter", "2"), ("max", "2"), ("violation", "1")] {
        let line = shown.lines().find(|line| line.starts_with(&format!("vault_quota_lease_count_{metric}{{")));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {value}"))), "{metric}: {line:?}");
    }
    // What is counted is there after a kill, and what ends makes room.
    server.crash_and_restart();
    server.unseal();
    root.get(on).assert_at("/data/counter", 2);
    root.get("database/creds/r").assert_errors(429, &full);
    root.put("sys/leases/revoke", json!({ "lease_id": first.lease, "sync": true })).assert_status(204);
    root.get("database/creds/r").assert_status(200);
    root.get("database/creds/r").assert_status(429);
    root.delete(on).assert_status(204);
    root.get("database/creds/r").assert_status(200);
}

/// Many at once on three servers, of which one is killed: the count is that of the leases, and never more than the quota.
#[test]
fn a_lease_count_is_exact_over_three_servers() {
    const MOST: usize = 20;
    let postgresql = own_postgresql();
    let mut nodes = Nodes::start(3);
    let database = Database::first_of(&postgresql);
    nodes.servers[0].connect(&database);
    nodes.servers[0].role("r", json!({}));
    let on = "sys/quotas/lease-count/q";
    nodes.root(1).post(on, json!({ "max_leases": MOST, "path": "database" })).assert_status(204);
    let statuses = nodes.at_once(2 * MOST, "database/creds/r");
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), MOST, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), MOST, "{statuses:?}");
    (0..3).for_each(|at| drop(nodes.root(at).get(on).assert_at("/data/counter", MOST)));
    assert_eq!(database.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), MOST.to_string());
    nodes.servers.remove(0).kill();
    let roots = [nodes.root(0), nodes.root(1)];
    roots[0].put("sys/leases/revoke-prefix/database/creds/r", json!({ "sync": true })).assert_status(204);
    eventually("every end was counted", || roots[1].get(on).at("/data/counter") == json!(0));
    for at in 0..=MOST {
        roots[at % 2].get("database/creds/r").assert_status(if at < MOST { 200 } else { 429 });
    }
}

/// A client that asks three servers in turn gets no more than its rate and one batch more for each further server.
#[test]
fn three_servers_share_the_requests_of_a_client() {
    let nodes = Nodes::start(3);
    let limit = json!({ "rate": 30, "interval": 600, "path": "cubbyhole" });
    nodes.root(0).post("sys/quotas/rate-limit/q", limit).assert_status(204);
    let let_in = (0..120).filter(|at| nodes.root(*at).get("cubbyhole/a").status == 404).count();
    assert!((30..=50).contains(&let_in), "{let_in}");
    let refused = nodes.root(1).get("cubbyhole/a").assert_status(429);
    assert!(refused.header("retry-after").is_some(), "{refused}");
}
