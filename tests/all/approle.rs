//! approle: roles, secret ids, logins by machines.

use serde_json::{Value, json};

use super::auth::enable;
use crate::support::{Answer, Bao, Durable, Server, eventually};

fn server() -> Server {
    let server = Server::dev();
    enable(&server, "approle", "approle");
    server
}

/// The same scenario at a real OpenBao, if there is one.
fn at_openbao(what: &str, scenario: impl FnOnce(&Server)) {
    let Some(bao) = Bao::find(what) else { return };
    let server = Server::openbao(&bao);
    enable(&server, "approle", "approle");
    scenario(&server);
}

fn role(server: &Server, name: &str, body: Value) {
    let answer = server.root().post(&format!("auth/approle/role/{name}"), body);
    assert!(matches!(answer.status, 200 | 204), "{answer}");
}

fn secret_id(server: &Server, role: &str, body: Value) -> Answer {
    server.root().post(&format!("auth/approle/role/{role}/secret-id"), body).assert_status(200)
}

fn log_in(server: &Server, role_id: &str, secret_id: &str) -> Answer {
    server.nobody().post("auth/approle/login", json!({ "role_id": role_id, "secret_id": secret_id }))
}

#[test]
fn roles_are_written_read_listed_and_deleted() {
    roles(&server());
}

#[test]
fn roles_of_a_real_openbao_are_the_same() {
    at_openbao("roles of approle, against a real OpenBao", roles);
}

fn roles(server: &Server) {
    let root = server.root();
    root.list("auth/approle/role").assert_errors(404, &[]);
    root.get("auth/approle/role/r").assert_errors(404, &[]);
    role(server, "R1", json!({ "token_policies": "p1" }));
    let shown = json!({
        "bind_secret_id": true, "local_secret_ids": false, "secret_id_bound_cidrs": null, "secret_id_num_uses": 0,
        "secret_id_ttl": 0, "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0,
        "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0, "token_policies": ["p1"],
        "token_strictly_bind_ip": false, "token_ttl": 0, "token_type": "default",
    });
    root.get("auth/approle/role/r1").assert_status(200).assert_at("/data", shown);
    let id = root.get("auth/approle/role/r1/role-id").assert_status(200).text("/data/role_id");
    assert_eq!(id.len(), 36, "{id}");
    role(
        server,
        "r3",
        json!({ "secret_id_bound_cidrs": "10.0.0.0/8", "secret_id_num_uses": 3, "secret_id_ttl": 60, "policies": "a,b", "period": 30, "role_id": "chosen" }),
    );
    root.get("auth/approle/role/r3")
        .assert_at("/data/secret_id_bound_cidrs", json!(["10.0.0.0/8"]))
        .assert_at("/data/secret_id_num_uses", 3)
        .assert_at("/data/secret_id_ttl", 60)
        .assert_at("/data/policies", json!(["a", "b"]))
        .assert_at("/data/token_policies", json!(["a", "b"]))
        .assert_at("/data/period", 30)
        .assert_at("/data/token_period", 30);
    root.get("auth/approle/role/r3/role-id").assert_at("/data/role_id", "chosen");
    root.list("auth/approle/role").assert_at("/data/keys", json!(["r1", "r3"]));
    for (name, body, status, why) in [
        ("r4", json!({ "role_id": "chosen" }), 500, "role_id already in use"),
        ("r4", json!({ "bind_secret_id": false }), 500, "at least one constraint should be enabled on the role"),
        (
            "r4",
            json!({ "secret_id_bound_cidrs": "zz" }),
            500,
            "failed to validate CIDR blocks: invalid CIDR address: zz",
        ),
        ("r1", json!({ "bind_secret_id": false }), 500, "at least one constraint should be enabled on the role"),
    ] {
        root.post(&format!("auth/approle/role/{name}"), body).assert_multi(status, why);
    }
    for (name, body, why) in [
        ("r4", json!({ "secret_id_num_uses": -1 }), "secret_id_num_uses cannot be negative"),
        ("r4", json!({ "role_id": "" }), "invalid role_id supplied, or failed to generate a role_id"),
        ("r4", json!({ "token_type": "foo" }), "invalid 'token_type' value \"foo\""),
        ("r1", json!({ "local_secret_ids": true }), "local_secret_ids can only be modified during role creation"),
    ] {
        root.post(&format!("auth/approle/role/{name}"), body).assert_error(400, why);
    }
    root.post("auth/approle/role/old", json!({ "token_type": "default-batch" }))
        .assert_status(200)
        .assert_warning("default-batch has no useful meaning; adjusting to batch");
    root.get("auth/approle/role/old").assert_at("/data/token_type", "batch");
    // A role id that is given up can be taken by another role.
    root.post("auth/approle/role/r3/role-id", json!({ "role_id": "new" })).assert_status(204);
    root.post("auth/approle/role/r3/role-id", json!({})).assert_error(400, "missing role_id");
    role(server, "r4", json!({ "role_id": "chosen" }));
    root.delete("auth/approle/role/r4").assert_status(204);
    root.delete("auth/approle/role/r4").assert_status(204);
    log_in(server, "chosen", "x").assert_error(400, "invalid role or secret ID");
}

#[test]
fn each_field_has_a_route_of_its_own() {
    single_fields(&server());
}

#[test]
fn each_field_of_a_real_openbao_has_one_too() {
    at_openbao("single fields of approle, against a real OpenBao", single_fields);
}

fn single_fields(server: &Server) {
    let root = server.root();
    role(server, "r", json!({ "token_policies": "p1" }));
    for (segment, field, body, set, unset, nothing_named) in [
        (
            "policies",
            "token_policies",
            json!({ "token_policies": "b,a" }),
            json!(["a", "b"]),
            json!([]),
            "missing token_policies",
        ),
        (
            "secret-id-bound-cidrs",
            "secret_id_bound_cidrs",
            json!({ "secret_id_bound_cidrs": "10.0.0.0/8" }),
            json!(["10.0.0.0/8"]),
            Value::Null,
            "",
        ),
        (
            "token-bound-cidrs",
            "token_bound_cidrs",
            json!({ "token_bound_cidrs": "10.0.0.0/8" }),
            json!(["10.0.0.0/8"]),
            Value::Null,
            "",
        ),
        (
            "secret-id-num-uses",
            "secret_id_num_uses",
            json!({ "secret_id_num_uses": 5 }),
            json!(5),
            json!(0),
            "missing secret_id_num_uses",
        ),
        (
            "secret-id-ttl",
            "secret_id_ttl",
            json!({ "secret_id_ttl": "5m" }),
            json!(300),
            json!(0),
            "missing secret_id_ttl",
        ),
        ("period", "token_period", json!({ "token_period": 7 }), json!(7), json!(0), "missing period"),
        (
            "token-num-uses",
            "token_num_uses",
            json!({ "token_num_uses": 7 }),
            json!(7),
            json!(0),
            "missing token_num_uses",
        ),
        ("token-ttl", "token_ttl", json!({ "token_ttl": "7m" }), json!(420), json!(0), "missing token_ttl"),
        (
            "token-max-ttl",
            "token_max_ttl",
            json!({ "token_max_ttl": "8m" }),
            json!(480),
            json!(0),
            "missing token_max_ttl",
        ),
    ] {
        let path = format!("auth/approle/role/r/{segment}");
        root.post(&path, body.clone()).assert_status(204);
        root.get(&path).assert_status(200).assert_at(&format!("/data/{field}"), set);
        match nothing_named {
            "" => root.post(&path, json!({})).assert_status(204),
            why => root.post(&path, json!({})).assert_error(400, why),
        };
        root.delete(&path).assert_status(204);
        root.get(&path).assert_status(200).assert_at(&format!("/data/{field}"), unset);
        let nowhere = format!("auth/approle/role/nope/{segment}");
        root.get(&nowhere).assert_errors(404, &[]);
        root.post(&nowhere, body).assert_multi(404, "unsupported path");
        root.delete(&nowhere).assert_status(204);
    }
    root.get("auth/approle/role/r/local-secret-ids").assert_at("/data/local_secret_ids", false);
    root.get("auth/approle/role/r/bound-cidr-list").assert_warning("The \"bound_cidr_list\" field is deprecated");
    root.post("auth/approle/role/r/token-max-ttl", json!({ "token_max_ttl": "8m" })).assert_status(204);
    root.post("auth/approle/role/r/token-ttl", json!({ "token_ttl": "9m" }))
        .assert_error(400, "token_ttl should not be greater than token_max_ttl");
}

#[test]
fn secret_ids_are_made_looked_up_and_destroyed() {
    secret_ids(&server());
}

#[test]
fn secret_ids_of_a_real_openbao_are_the_same() {
    at_openbao("secret ids of approle, against a real OpenBao", secret_ids);
}

fn secret_ids(server: &Server) {
    let root = server.root();
    role(server, "r", json!({ "role_id": "the-role", "secret_id_num_uses": 3, "secret_id_ttl": "10m" }));
    root.list("auth/approle/role/r/secret-id").assert_errors(404, &[]);
    root.list("auth/approle/role/nope/secret-id").assert_error(400, "role \"nope\" does not exist");
    root.post("auth/approle/role/nope/secret-id", json!({})).assert_error(404, "role \"nope\" does not exist");
    let made = secret_id(server, "r", json!({ "metadata": "{\"a\":\"b\"}", "num_uses": 2, "ttl": "1m" }))
        .assert_at("/data/secret_id_num_uses", 2)
        .assert_at("/data/secret_id_ttl", 60);
    let (id, accessor) = (made.text("/data/secret_id"), made.text("/data/secret_id_accessor"));
    root.list("auth/approle/role/r/secret-id").assert_at("/data/keys", json!([accessor.as_str()]));
    for (route, body) in [
        ("secret-id/lookup", json!({ "secret_id": id })),
        ("secret-id-accessor/lookup", json!({ "secret_id_accessor": accessor })),
    ] {
        let shown = root.post(&format!("auth/approle/role/r/{route}"), body).assert_status(200);
        for (key, value) in [
            ("secret_id_accessor", json!(accessor)),
            ("secret_id_num_uses", json!(2)),
            ("secret_id_ttl", json!(60)),
            ("metadata", json!({ "a": "b" })),
            ("cidr_list", json!([])),
            ("token_bound_cidrs", json!([])),
        ] {
            assert_eq!(shown.at("/data")[key], value, "{key}\n{shown}");
        }
        assert!(shown.at("/data/secret_id").is_null(), "{shown}");
    }
    for (body, why) in [
        (json!({ "num_uses": 4 }), "num_uses cannot be higher than the role's secret_id_num_uses"),
        (json!({ "num_uses": 0 }), "num_uses cannot be higher than the role's secret_id_num_uses"),
        (json!({ "num_uses": -1 }), "num_uses cannot be negative"),
        (json!({ "ttl": "11m" }), "ttl cannot be longer than the role's secret_id_ttl"),
        (
            json!({ "metadata": "zzz" }),
            "failed to parse metadata: failed to parse the input: invalid <key,value> format",
        ),
    ] {
        root.post("auth/approle/role/r/secret-id", body).assert_error(400, why);
    }
    root.post("auth/approle/role/r/secret-id", json!({ "cidr_list": "1.2.3.4" }))
        .assert_multi(500, "failed to validate CIDR blocks: invalid CIDR address: 1.2.3.4");
    let custom = "auth/approle/role/r/custom-secret-id";
    root.post(custom, json!({})).assert_error(400, "missing secret_id");
    root.post(custom, json!({ "secret_id": "chosen-secret-id" }))
        .assert_status(200)
        .assert_at("/data/secret_id", "chosen-secret-id")
        .assert_at("/data/secret_id_num_uses", 3);
    root.post(custom, json!({ "secret_id": "chosen-secret-id" }))
        .assert_multi(500, "failed to store secret_id: SecretID is already registered");
    log_in(server, "the-role", "chosen-secret-id").assert_status(200);
    root.post("auth/approle/role/r/secret-id/lookup", json!({ "secret_id": "chosen-secret-id" }))
        .assert_at("/data/secret_id_num_uses", 2);
    root.post("auth/approle/role/r/secret-id/lookup", json!({ "secret_id": "none" })).assert_status(204);
    root.post("auth/approle/role/r/secret-id/lookup", json!({})).assert_error(400, "missing secret_id");
    root.post("auth/approle/role/nope/secret-id/lookup", json!({ "secret_id": "x" }))
        .assert_multi(500, "role \"nope\" does not exist");
    let unknown = json!({ "secret_id_accessor": "none" });
    root.post("auth/approle/role/r/secret-id-accessor/lookup", unknown.clone())
        .assert_status(404)
        .assert_at("/data/error", "failed to find accessor entry for secret_id_accessor: \"none\"");
    root.post("auth/approle/role/r/secret-id-accessor/destroy", unknown)
        .assert_multi(500, "failed to find accessor entry for secret_id_accessor: \"none\"");
    for _ in 0..2 {
        root.post("auth/approle/role/r/secret-id/destroy", json!({ "secret_id": "chosen-secret-id" }))
            .assert_status(204);
    }
    log_in(server, "the-role", "chosen-secret-id").assert_error(400, "invalid role or secret ID");
    root.post("auth/approle/role/r/secret-id-accessor/destroy", json!({ "secret_id_accessor": accessor }))
        .assert_status(204);
    log_in(server, "the-role", &id).assert_error(400, "invalid role or secret ID");
    root.list("auth/approle/role/r/secret-id").assert_errors(404, &[]);
    root.post("auth/approle/tidy/secret-id", json!({}))
        .assert_status(202)
        .assert_warning("Tidy operation successfully started.");
}

#[test]
fn a_machine_logs_in_with_role_id_and_secret_id() {
    logins(&server());
}

#[test]
fn a_machine_logs_in_at_a_real_openbao_alike() {
    at_openbao("logins of approle, against a real OpenBao", logins);
}

fn logins(server: &Server) {
    let root = server.root();
    role(server, "r", json!({ "role_id": "the-role", "token_policies": "p1", "token_ttl": "10m" }));
    let id = secret_id(server, "r", json!({ "metadata": "{\"team\":\"a\",\"role_name\":\"other\"}" }))
        .text("/data/secret_id");
    let answer = log_in(server, "the-role", &id)
        .assert_status(200)
        .assert_at("/auth/policies", json!(["default", "p1"]))
        .assert_at("/auth/metadata", json!({ "role_name": "r", "team": "a" }))
        .assert_at("/auth/lease_duration", 600)
        .assert_at("/auth/orphan", true);
    let client = server.as_token(&answer.text("/auth/client_token"));
    client
        .get("auth/token/lookup-self")
        .assert_at("/data/display_name", "approle")
        .assert_at("/data/path", "auth/approle/login");
    client.post("auth/token/renew-self", json!({})).assert_status(200).assert_at("/auth/lease_duration", 600);
    for (body, status, why) in [
        (json!({ "role_id": "the-role", "secret_id": "x" }), 400, "invalid role or secret ID"),
        (json!({ "role_id": "x", "secret_id": id }), 400, "invalid role or secret ID"),
        (json!({ "role_id": "the-role" }), 400, "missing secret_id"),
        (json!({ "secret_id": id }), 500, "missing role_id"),
    ] {
        server.nobody().post("auth/approle/login", body).assert_error(status, why);
    }
    // Two uses, and no third.
    let twice = secret_id(server, "r", json!({ "num_uses": 2 })).text("/data/secret_id");
    for status in [200, 200, 400] {
        log_in(server, "the-role", &twice).assert_status(status);
    }
    // Without a secret id.
    role(server, "open", json!({ "role_id": "open", "bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8" }));
    server.nobody().post("auth/approle/login", json!({ "role_id": "open" })).assert_status(200);
    // From elsewhere.
    role(server, "far", json!({ "role_id": "far", "secret_id_bound_cidrs": "10.0.0.0/8" }));
    let far = secret_id(server, "far", json!({ "num_uses": 1 })).text("/data/secret_id");
    log_in(server, "far", &far)
        .assert_error_has(400, "source address \"127.0.0.1\" unauthorized by CIDR restrictions on the role");
    root.post("auth/approle/role/far/secret-id", json!({ "cidr_list": "1.2.3.4/32" }))
        .assert_error_has(500, "failed to verify subset relationship between CIDR blocks on the role");
    root.delete("auth/approle/role/r").assert_status(204);
    client
        .post("auth/token/renew-self", json!({}))
        .assert_multi(500, "failed to renew entry: role \"r\" does not exist during renewal");
    // Another role of the same name and the same id is another role.
    role(server, "r", json!({ "role_id": "the-role" }));
    log_in(server, "the-role", &id).assert_error(400, "invalid role or secret ID");
}

/// Here, unlike in Vault, who comes from a wrong address takes no use.
#[test]
fn a_login_from_elsewhere_takes_no_use() {
    let server = server();
    role(&server, "r", json!({ "role_id": "r" }));
    let id = secret_id(&server, "r", json!({ "num_uses": 1, "cidr_list": "10.0.0.0/8" })).text("/data/secret_id");
    for _ in 0..3 {
        log_in(&server, "r", &id).assert_error_has(400, "unauthorized by CIDR restrictions on the secret ID");
    }
    server
        .root()
        .post("auth/approle/role/r/secret-id/lookup", json!({ "secret_id": id }))
        .assert_at("/data/secret_id_num_uses", 1);
}

/// Of many logins that want the same uses, exactly so many succeed as there are uses.
#[test]
fn logins_at_the_same_time_take_each_use_once() {
    let server = Server::durable(&Durable::default());
    enable(&server, "approle", "approle");
    role(&server, "r", json!({ "role_id": "r" }));
    // Failures are no guesses here.
    server
        .root()
        .post("sys/auth/approle/tune", json!({ "user_lockout_config": { "lockout_disable": true } }))
        .assert_status(204);
    for uses in [1, 5] {
        let id = secret_id(&server, "r", json!({ "num_uses": uses })).text("/data/secret_id");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let logins: Vec<_> = (0..16).map(|_| scope.spawn(|| log_in(&server, "r", &id).status)).collect();
            logins.into_iter().map(|login| login.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), uses, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 400].contains(status)), "{statuses:?}");
        server.root().post("auth/approle/role/r/secret-id/lookup", json!({ "secret_id": id })).assert_status(204);
    }
    server.root().list("auth/approle/role/r/secret-id").assert_errors(404, &[]);
}

#[test]
fn an_expired_secret_id_is_gone_and_tidied_away() {
    let server = server();
    let root = server.root();
    role(&server, "r", json!({ "role_id": "r" }));
    let short = secret_id(&server, "r", json!({ "ttl": "1s" })).text("/data/secret_id");
    let long = secret_id(&server, "r", json!({ "ttl": "1h" })).text("/data/secret_id");
    eventually("the secret id expires", || log_in(&server, "r", &short).status == 400);
    root.post("auth/approle/role/r/secret-id/lookup", json!({ "secret_id": short })).assert_status(204);
    let forgotten = secret_id(&server, "r", json!({ "ttl": "1s" })).text("/data/secret_id_accessor");
    eventually("tidying removes what nobody asks for", || {
        root.post("auth/approle/tidy/secret-id", json!({})).assert_status(202);
        let keys = root.list("auth/approle/role/r/secret-id").at("/data/keys");
        !keys.as_array().into_iter().flatten().any(|key| *key == json!(forgotten))
    });
    log_in(&server, "r", &long).assert_status(200);
}

/// Secret ids stand in no log and no audit record, and neither they nor their hashes' keys can be read in the store.
#[test]
fn secret_ids_are_nowhere() {
    let server = Server::durable(&Durable::default());
    let file = server.home().join("audit/main.log");
    server.root().put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } })).assert_status(204);
    enable(&server, "approle", "approle");
    role(&server, "r", json!({ "role_id": "the-role" }));
    // The server's end looks for what answers brought, and for this one.
    let custom = "canary-secret-id-1";
    server.secrets().tell(custom);
    let random = secret_id(&server, "r", json!({})).text("/data/secret_id");
    server.root().post("auth/approle/role/r/custom-secret-id", json!({ "secret_id": custom })).assert_status(200);
    for id in [custom, &random] {
        log_in(&server, "the-role", id).assert_status(200);
        log_in(&server, "no-role", id).assert_status(400);
        server.root().post("auth/approle/role/r/secret-id/lookup", json!({ "secret_id": id })).assert_status(200);
        server.root().post("auth/approle/role/nope/secret-id/lookup", json!({ "secret_id": id })).assert_status(500);
    }
    let log = server.audit_text();
    assert!(log.contains("invalid role or secret ID: no role has this role_id"), "{log}");
    server.kill();
    for entry in std::fs::read_dir(server.home()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        for id in [custom, &random] {
            let found = bytes.windows(id.len()).any(|window| window == id.as_bytes());
            assert!(!found, "a secret id stands in {:?}", entry.path());
        }
    }
}
