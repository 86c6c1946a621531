//! What bad fields are told: scripts and people match on these texts, so they are OpenBao's, letter by letter.

use serde_json::{Value, json};

use crate::support::{Bao, Client, Server};

#[test]
fn refusals_read_as_the_fields() {
    refusals(&Server::dev());
}

#[test]
fn a_real_openbao_says_the_same() {
    let Some(bao) = Bao::find("the words of refusals against a real OpenBao") else { return };
    refusals(&Server::openbao(&bao));
}

/// What a duration is told, whoever reads it.
const DURATIONS: &[(&str, &str)] = &[
    ("abc", r#"time: invalid duration "abc""#),
    (" 5m", r#"time: invalid duration " 5m""#),
    ("h", r#"time: invalid duration "h""#),
    ("+", r#"time: invalid duration "+""#),
    ("é", r#"time: invalid duration "\xc3\xa9""#),
    ("99999999999999999999", r#"time: invalid duration "99999999999999999999""#),
    ("9999999999999h", r#"time: invalid duration "9999999999999h""#),
    ("90.5", r#"time: missing unit in duration "90.5""#),
    ("1h30", r#"time: missing unit in duration "1h30""#),
    ("1w", r#"time: unknown unit "w" in duration "1w""#),
    ("1D", r#"time: unknown unit "D" in duration "1D""#),
    ("1d12h", r#"time: unknown unit "d" in duration "1d12h""#),
    ("1h-5m", r#"time: unknown unit "h-" in duration "1h-5m""#),
    ("1e3s", r#"time: unknown unit "e" in duration "1e3s""#),
    ("d", r#"strconv.ParseInt: parsing "": invalid syntax"#),
    ("1.5d", r#"strconv.ParseInt: parsing "1.5": invalid syntax"#),
    ("10000000000", "multiplication of durations resulted in overflow, one operand may be too large"),
];

const NO_INT: &str = "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax";
const NO_BOOL: &str = "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax";

fn refusals(server: &Server) {
    let root = server.root();
    root.post("sys/mounts/db", json!({ "type": "database" })).assert_status(204);
    let refused = |path: &str, body: Value, why: &str| {
        let shown = format!("{path} {body}");
        let answer = root.post(path, body);
        assert_eq!((answer.status, answer.json()), (400, json!({ "errors": [why] })), "{shown}");
    };
    // The framework's own fields say `Field validation failed`, an engine's do not, and a token's lengths are texts.
    let core = |field: &str, why: &str| {
        format!("Field validation failed: error converting input for field \"{field}\": {why}")
    };
    let engine = |field: &str, why: &str| format!("error converting input for field \"{field}\": {why}");

    for (given, why) in DURATIONS {
        for field in ["ttl", "explicit_max_ttl", "period"] {
            refused("auth/token/create", json!({ field: given }), why);
        }
        refused("auth/token/renew-self", json!({ "increment": given }), &core("increment", why));
        refused("db/roles/r", json!({ "db_name": "x", "default_ttl": given }), &engine("default_ttl", why));
        refused("sys/mounts/db/tune", json!({ "default_lease_ttl": given }), why);
        for (field, shown) in [("default_lease_ttl", "default"), ("max_lease_ttl", "max")] {
            let body = json!({ "type": "database", "config": { field: given } });
            refused("sys/mounts/new", body, &format!("unable to parse {shown} TTL of {given}: {why}"));
        }
    }
    for (given, shown) in [(json!(-5), "-5"), (json!("-5"), "-5"), (json!("-5m"), "-300"), (json!("-1.5h"), "-5400")] {
        let why = format!("cannot provide negative value '{shown}'");
        for field in ["ttl", "lease", "explicit_max_ttl", "period"] {
            refused("auth/token/create", json!({ field: given }), &format!("{field} must be positive"));
        }
        refused("auth/token/renew-self", json!({ "increment": given }), &core("increment", &why));
        refused("db/roles/r", json!({ "db_name": "x", "max_ttl": given }), &engine("max_ttl", &why));
        refused("sys/policies/acl/p", json!({ "policy": "path \"a\" {}", "ttl": given }), &core("ttl", &why));
    }
    let no_unit = r#"time: missing unit in duration "90.5""#;
    for (path, body, why) in [
        ("auth/token/create", json!({ "ttl": 90.5 }), no_unit.to_owned()),
        ("auth/token/create", json!({ "ttl": [] }), core("ttl", &unconvertible("string", "[]interface {}"))),
        ("auth/token/create", json!({ "num_uses": "x" }), core("num_uses", NO_INT)),
        ("auth/token/create", json!({ "num_uses": 1.5 }), core("num_uses", NO_INT)),
        ("auth/token/create", json!({ "num_uses": [] }), core("num_uses", &unconvertible("int", "[]interface {}"))),
        ("auth/token/create", json!({ "num_uses": -1 }), "number of uses cannot be negative".to_owned()),
        ("auth/token/create", json!({ "renewable": "maybe" }), core("renewable", NO_BOOL)),
        ("auth/token/create", json!({ "no_parent": 5 }), core("no_parent", NO_BOOL)),
        ("auth/token/create", json!({ "renewable": [] }), core("renewable", &unconvertible("bool", "[]interface {}"))),
        ("auth/token/create", json!({ "policies": [{}] }), core("policies", &undecodable())),
        ("auth/token/create", json!({ "policies": { "a": 1 } }), core("policies", &undecodable())),
        ("auth/token/create", json!({ "num_uses": "08" }), core("num_uses", NO_INT)),
        ("auth/token/create", json!({ "type": "default-service" }), "invalid 'token_type' value".to_owned()),
        ("auth/token/create", json!({ "meta": "" }), core("meta", &no_pair("meta"))),
        ("auth/token/create", json!({ "meta": "x" }), core("meta", &no_pair("meta"))),
        ("auth/token/create", json!({ "meta": ["x"] }), core("meta", &no_pair("meta"))),
        ("auth/token/create", json!({ "meta": 5 }), core("meta", &no_pair("meta"))),
        ("auth/token/create", json!({ "meta": { "a": {} } }), core("meta", &undecodable())),
        (
            "auth/token/create",
            json!({ "display_name": {} }),
            core("display_name", &unconvertible("string", "map[string]interface {}")),
        ),
        ("auth/token/create", json!({ "type": "x" }), "invalid 'token_type' value".to_owned()),
        ("sys/leases/revoke", json!({ "lease_id": "x", "sync": "maybe" }), core("sync", NO_BOOL)),
        ("sys/leases/revoke", json!({ "lease_id": "x", "sync": 5 }), core("sync", NO_BOOL)),
        ("sys/policies/acl/p", json!({ "policy": "path \"a\" {}", "cas": "x" }), core("cas", NO_INT)),
        ("sys/policies/acl/p", json!({ "policy": "path \"a\" {}", "cas": 1.5 }), core("cas", NO_INT)),
        ("sys/mounts/new", json!({ "type": "database", "config": { "default_lease_ttl": true } }), no_config()),
        ("sys/mounts/new", json!({ "type": "database", "config": { "default_lease_ttl": [] } }), no_config()),
        ("sys/mounts/new", json!({ "type": "database", "local": "maybe" }), core("local", NO_BOOL)),
        (
            "sys/mounts/new",
            json!({ "type": "database", "config": "x" }),
            core("config", &unconvertible("map[string]interface {}", "string")),
        ),
        (
            "sys/mounts/new",
            json!({ "type": "database", "config": 5 }),
            core("config", &unconvertible("map[string]interface {}", "json.Number")),
        ),
        ("sys/mounts/new", json!({ "type": "database", "options": "x" }), core("options", &no_pair("options"))),
        (
            "sys/mounts/new",
            json!({ "type": "database", "config": { "listing_visibility": "bogus" } }),
            "invalid listing_visibility bogus".to_owned(),
        ),
        (
            "sys/mounts/new",
            json!({ "type": "database", "config": { "listing_visibility": 5 } }),
            "invalid listing_visibility 5".to_owned(),
        ),
        ("sys/mounts/db/tune", json!({ "listing_visibility": "bogus" }), "invalid listing_visibility bogus".to_owned()),
        (
            "sys/mounts/db/tune",
            json!({ "token_type": "service" }),
            "'token_type' can only be modified on auth mounts".to_owned(),
        ),
        (
            "sys/mounts/auth/token/tune",
            json!({ "token_type": "service" }),
            "'token_type' cannot be set for 'token' or 'ns_token' auth mounts".to_owned(),
        ),
        ("sys/capabilities-accessor", json!({ "path": "a" }), "missing accessor".to_owned()),
        ("sys/capabilities-accessor", json!({ "accessor": "" }), "missing accessor".to_owned()),
        ("sys/capabilities-self", json!({ "path": "" }), "paths must be supplied".to_owned()),
        ("db/roles/r", json!({ "db_name": "x", "default_ttl": 90.5 }), engine("default_ttl", no_unit)),
        (
            "db/roles/r",
            json!({ "db_name": "x", "default_ttl": true }),
            engine("default_ttl", "could not parse duration from input"),
        ),
        (
            "db/roles/r",
            json!({ "db_name": "x", "creation_statements": [{}] }),
            engine("creation_statements", &undecodable()),
        ),
        (
            "db/roles/r",
            json!({ "db_name": "x", "credential_config": "x" }),
            engine("credential_config", &no_pair("credential_config")),
        ),
        (
            "db/config/c",
            json!({ "plugin_name": "postgresql-database-plugin", "verify_connection": "maybe" }),
            engine("verify_connection", NO_BOOL),
        ),
        (
            "sys/init",
            json!({ "secret_shares": 256, "secret_threshold": 3 }),
            "invalid seal configuration: shares must be less than 256".to_owned(),
        ),
        (
            "sys/init",
            json!({ "secret_shares": 1, "secret_threshold": 1, "recovery_shares": 1, "recovery_threshold": 1 }),
            "parameters recovery_shares,recovery_threshold not applicable to seal type shamir".to_owned(),
        ),
        (
            "sys/init",
            json!({ "secret_shares": 255, "secret_threshold": 256 }),
            "invalid seal configuration: threshold must be less than 256".to_owned(),
        ),
    ] {
        refused(path, body, &why);
    }
    for (mount, field, value) in [
        ("sys", "max_lease_ttl", json!("10s")),
        ("sys", "default_lease_ttl", json!("")),
        ("sys", "description", json!("z")),
        ("sys", "listing_visibility", json!("unauth")),
        ("sys", "passthrough_request_headers", json!(["X"])),
        ("sys", "options", json!(null)),
        ("sys/x", "token_type", json!("batch")),
        ("cubbyhole", "plugin_version", json!("v1")),
    ] {
        let why = format!("cannot tune parameter {field} of {mount}/");
        refused(&format!("sys/mounts/{mount}/tune"), json!({ field: value }), &why);
    }
    root.post("sys/mounts/sys/tune", json!({ "audit_non_hmac_request_keys": ["a"] })).assert_status(204);
    options_of_mounts(&root);
    types_of_values(&root);
    for fixed in ["sys", "cubbyhole", "identity", "auth/token"] {
        root.delete(&format!("sys/mounts/{fixed}")).assert_error(400, &format!("cannot unmount \"{fixed}/\""));
    }
    for absent in ["sys/x", "auth", "auth/x", "identity/x", "audit"] {
        root.delete(&format!("sys/mounts/{absent}")).assert_status(204);
    }
    for (limit, why) in [
        ("bad", r#"invalid 'limit' provided: strconv.Atoi: parsing "bad": invalid syntax"#),
        ("0", "limit must be 'none' or a positive integer"),
        ("-1", "limit must be 'none' or a positive integer"),
    ] {
        root.get(&format!("sys/leases?type=irrevocable&limit={limit}")).assert_multi(500, why);
    }
    let counted = root.get("sys/leases?type=irrevocable&limit=none&include_child_namespaces=true").assert_status(200);
    counted.assert_at("/warnings", json!(null)).assert_at("/data/lease_count", 0);
    let plain = server.with_policy("plain", "path \"auth/token/*\" { capabilities = [\"update\"] }");
    for (body, why) in [
        (json!({}), "missing token ID"),
        (json!({ "token": "nosuch" }), "root or sudo privileges required to revoke and orphan"),
    ] {
        plain.post("auth/token/revoke-orphan", body).assert_error(400, why);
    }
    for (given, why) in [
        ("abc", r#"time: invalid duration "abc""#),
        ("5x", r#"time: unknown unit "x" in duration "5x""#),
        ("90.5", no_unit),
        ("-5m", "requested wrap ttl cannot be negative"),
    ] {
        let answer = root.bytes("GET", "sys/mounts", b"", &[("X-Vault-Wrap-TTL", given)]);
        let said = format!("error parsing X-Vault-Wrap-TTL header: {why}");
        assert_eq!((answer.status, answer.json()), (400, json!({ "errors": [said] })), "{given}");
    }
}

/// What a mount is made with and tuned by.
fn options_of_mounts(root: &Client) {
    root.get("sys/mounts/db").assert_at("/data/options", json!({}));
    root.post("sys/mounts/empty", json!({ "type": "database", "config": [] })).assert_status(204);
    let odd = json!({ "type": "database", "config": { "force_no_cache": "true" } });
    root.post("sys/mounts/odd", odd).assert_error(400, "unable to convert given mount config information");

    let tune = |body: Value| root.post("sys/mounts/db/tune", body);
    tune(json!({ "options": { "a": "1", "b": true } })).assert_status(204);
    tune(json!({ "options": { "c": 2, "b": null } })).assert_status(204);
    root.get("sys/mounts/db/tune").assert_at("/data/options", json!({ "a": "1", "c": "2" }));
    tune(json!({ "options": { "a": "", "c": "" } })).assert_status(204);
    root.get("sys/mounts/db/tune").assert_at("/data/options", Value::Null);

    let config = |version: &str| {
        let body = json!({
            "plugin_name": "postgresql-database-plugin", "plugin_version": version, "username": "u",
            "connection_url": "postgresql://{{username}}@127.0.0.1:1/x", "verify_connection": false,
        });
        root.post("db/config/versions", body)
    };
    let malformed = r#"version "bad" is not a valid semantic version: malformed version: bad"#;
    tune(json!({ "plugin_version": "bad" })).assert_error(400, malformed);
    config("bad").assert_error(400, malformed);
    let unknown = |kind: &str| format!("plugin not found in the catalog: {kind}, version=v1.2.0");
    tune(json!({ "plugin_version": "v1.2" })).assert_error(400, &unknown("database"));
    let why = unknown("postgresql-database-plugin");
    config("1.2").assert_error_has(400, &format!("invalid database version: 2 errors occurred:\n\t* {why}\n\t* {why}"));
    config("").assert_status(204);
}

/// What of another type is taken, and what is told else than that.
fn types_of_values(root: &Client) {
    for value in [json!(5), json!(null), json!(["a"]), json!(true), json!({})] {
        for route in ["lookup", "renew", "revoke", "revoke-orphan"] {
            root.post(&format!("auth/token/{route}"), json!({ "token": value })).assert_error(403, "invalid token");
        }
        let why = if value.is_null() { "lease_id must be specified" } else { "invalid lease ID" };
        for route in ["lookup", "renew", "revoke"] {
            root.put(&format!("sys/leases/{route}"), json!({ "lease_id": value })).assert_error(400, why);
        }
    }
    root.put("sys/leases/revoke", json!({ "lease_id": "a/b", "sync": null })).assert_status(202);

    let made = |body: Value| root.post("auth/token/create", body).assert_status(200);
    for (uses, number) in [("010", 8), ("0x10", 16), ("1_0", 10)] {
        made(json!({ "num_uses": uses })).assert_at("/auth/num_uses", number);
    }
    made(json!({ "policies": [null] })).assert_at("/auth/policies", json!(["default"]));
    made(json!({ "meta": { "a": null } })).assert_at("/auth/metadata", json!({ "a": "" }));
    made(json!({ "meta": {} })).assert_at("/auth/metadata", json!({}));
    made(json!({ "metadata": { "a": "b" } }))
        .assert_at("/auth/metadata", Value::Null)
        .assert_warning("Endpoint ignored these unrecognized parameters: [metadata]");
    let bare =
        made(json!({ "policies": ["default"], "no_default_policy": true })).assert_at("/auth/policies", json!([]));
    assert!(bare.json()["auth"].get("token_policies").is_none(), "{bare}");
}

fn unconvertible(wanted: &str, got: &str) -> String {
    format!("'' expected type '{wanted}', got unconvertible type '{got}'")
}

fn undecodable() -> String {
    "decoding failed due to the following error(s):\n\n'[0]' expected type 'string', got unconvertible type \
     'map[string]interface {}'"
        .to_owned()
}

fn no_pair(field: &str) -> String {
    format!("invalid key pair at index 0 in field \"{field}\"")
}

fn no_config() -> String {
    "unable to convert given mount config information".to_owned()
}
