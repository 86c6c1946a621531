//! Mounts and their tuning: contract.md §2.2, and the preflight of §2.7.

use serde_json::json;

use crate::support::Server;

#[test]
fn the_mounts_of_the_beginning() {
    let server = Server::dev();
    let mounts = server.root().get("sys/mounts").assert_status(200);
    let system = mounts.at("/data/sys~1");
    assert_eq!(system["type"], json!("system"), "{mounts}");
    let auth = server.root().get("sys/auth").assert_status(200);
    assert_eq!(auth.at("/data/token~1/type"), json!("token"), "{auth}");
    assert!(auth.text("/data/token~1/accessor").starts_with("auth_token_"), "{auth}");
    for key in [
        "accessor",
        "config",
        "description",
        "external_entropy_access",
        "local",
        "options",
        "seal_wrap",
        "type",
        "uuid",
    ] {
        assert!(system.get(key).is_some(), "{key}: {mounts}");
    }
}

#[test]
fn a_mount_comes_and_goes() {
    let server = Server::dev();
    let root = server.root();
    let body = json!({ "type": "database", "description": "d", "config": { "default_lease_ttl": "1h", "max_lease_ttl": 7200 }, "options": null });
    root.post("sys/mounts/team/db", body).assert_status(204).assert_empty();
    let mount = root.get("sys/mounts").at("/data/team~1db~1");
    assert_eq!(mount["config"]["default_lease_ttl"], json!(3600));
    assert_eq!(mount["config"]["max_lease_ttl"], json!(7200));
    assert_eq!(mount["description"], json!("d"));
    let accessor = mount["accessor"].as_str().unwrap();
    assert!(accessor.strip_prefix("database_").is_some_and(|rest| rest.len() == 8), "{accessor}");
    assert_eq!(root.get("sys/mounts/team/db").assert_status(200).at("/data/accessor"), mount["accessor"]);
    root.list("team/db/roles").assert_errors(404, &[]);
    root.delete("sys/mounts/team/db").assert_status(204);
    root.delete("sys/mounts/team/db").assert_status(204);
    root.get("sys/mounts/team/db").assert_error(400, "No secret engine mount at team/db/");
}

#[test]
fn a_mount_that_is_no_good_is_refused_in_the_fields_words() {
    let server = Server::dev();
    let root = server.root();
    let mount = |path: &str, body: serde_json::Value| root.post(&format!("sys/mounts/{path}"), body);
    mount("abc", json!({ "type": "database" })).assert_status(204);
    mount("abc", json!({ "type": "database" })).assert_error(400, "path is already in use at abc/");
    mount("abc/def", json!({ "type": "database" })).assert_error(400, "path is already in use at abc/");
    mount("x", json!({ "type": "nosuch" })).assert_error_has(400, "plugin not found in the catalog: nosuch");
    mount("x", json!({})).assert_error(400, "backend type must be specified as a string");
    mount("sys/x", json!({ "type": "database" })).assert_error_has(400, "cannot mount \"sys/x/\"");
    mount("auth/x", json!({ "type": "database" })).assert_error_has(400, "cannot mount \"auth/x/\"");
    mount("x", json!({ "type": "database", "config": { "default_lease_ttl": "9999h" } }))
        .assert_error_has(400, "given default lease TTL greater than system max lease TTL of 2764800");
    root.delete("sys/mounts/sys").assert_error(400, "cannot unmount \"sys/\"");
    root.delete("sys/auth/token").assert_error_has(400, "token credential backend cannot be disabled");
    root.get("sys/mounts/nope").assert_error(400, "No secret engine mount at nope/");
}

#[test]
fn tuning_changes_what_is_named() {
    let server = Server::dev();
    let root = server.root();
    root.post("sys/mounts/database", json!({ "type": "database", "description": "before" })).assert_status(204);
    root.get("sys/mounts/database/tune")
        .assert_status(200)
        .assert_at("/data/default_lease_ttl", 2_764_800)
        .assert_at("/data/max_lease_ttl", 2_764_800);
    // What the command line sends.
    root.post(
        "sys/mounts/database/tune",
        json!({ "options": null, "default_lease_ttl": "2h0m0s", "max_lease_ttl": "", "force_no_cache": false }),
    )
    .assert_status(204);
    root.get("sys/mounts/database/tune")
        .assert_at("/data/default_lease_ttl", 7200)
        .assert_at("/data/max_lease_ttl", 2_764_800)
        .assert_at("/data/description", "before");
    root.post("sys/mounts/database/tune", json!({ "default_lease_ttl": "3h", "max_lease_ttl": "2h" }))
        .assert_error(400, "backend max lease TTL of 7200 would be less than backend default lease TTL of 10800");
    root.post("sys/mounts/database/tune", json!({ "default_lease_ttl": "system" })).assert_status(204);
    root.get("sys/mounts/database/tune").assert_at("/data/default_lease_ttl", 2_764_800);
    root.post(
        "sys/mounts/database/tune",
        json!({ "listing_visibility": "hidden", "audit_non_hmac_request_keys": "a,b" }),
    )
    .assert_status(204);
    for answer in [root.get("sys/mounts/database/tune").at("/data"), root.get("sys/mounts/database").at("/data/config")]
    {
        assert_eq!(answer["listing_visibility"], json!("hidden"));
        assert_eq!(answer["audit_non_hmac_request_keys"], json!(["a", "b"]));
    }
    root.get("sys/mounts/auth/token/tune").assert_at("/data/token_type", "default-service");
    root.get("sys/mounts/nope/tune").assert_error(400, "cannot fetch sysview for path \"nope/\"");
    root.post("sys/mounts/nope/tune", json!({ "default_lease_ttl": "1h" }))
        .assert_error(400, "tune of path \"nope/\" failed: no mount entry found");
}

#[test]
fn auth_mounts_need_sudo_and_secret_mounts_do_not() {
    let server = Server::dev();
    let client =
        server.with_policy("p", "path \"sys/*\" { capabilities = [\"create\", \"update\", \"delete\", \"read\"] }");
    client.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    client.delete("sys/mounts/database").assert_status(204);
    client.get("sys/auth").assert_status(200);
    client.post("sys/auth/x", json!({ "type": "token" })).assert_multi(403, "permission denied");
    client.delete("sys/auth/x").assert_multi(403, "permission denied");
    client.get("sys/auth/token").assert_multi(403, "permission denied");
}

#[test]
fn the_preflight_tells_only_those_who_may_enter() {
    let server = Server::dev();
    server.root().post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
    let inside = server.with_policy("inside", "path \"database/creds/r\" { capabilities = [\"read\"] }");
    inside
        .get("sys/internal/ui/mounts/database/creds/r")
        .assert_status(200)
        .assert_at("/data/path", "database/")
        .assert_at("/data/type", "database");
    let refusal = |path: &str| {
        format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
        )
    };
    inside.get("sys/internal/ui/mounts/nope").assert_error(403, &refusal("nope"));
    let outside = server.with_policy("outside", "path \"other/*\" { capabilities = [\"read\"] }");
    outside.get("sys/internal/ui/mounts/database").assert_error(403, &refusal("database"));
    let all = server.root().get("sys/internal/ui/mounts").assert_status(200);
    assert!(all.at("/data/secret/database~1").is_object(), "{all}");
    assert!(outside.get("sys/internal/ui/mounts").at("/data/secret/database~1").is_null());
}

#[test]
fn visible_mounts_are_shown_to_whoever_is_somebody_and_cost_no_use() {
    let server = Server::dev();
    let visible = json!({ "type": "database", "config": { "listing_visibility": "unauth" } });
    server.root().post("sys/mounts/seen", visible).assert_status(204);
    server.root().post("sys/mounts/hidden", json!({ "type": "database" })).assert_status(204);
    let token = server.root().child(json!({ "policies": ["default"], "num_uses": 1 }));
    let once = server.as_token(&token);
    for _ in 0..3 {
        let shown = once.get("sys/internal/ui/mounts").assert_status(200);
        assert!(shown.at("/data/secret/seen~1/accessor").is_string(), "{shown}");
        assert!(shown.at("/data/secret/hidden~1").is_null(), "{shown}");
        once.get("sys/internal/ui/mounts/seen").assert_error_has(403, "preflight capability check");
    }
    once.get("auth/token/lookup-self").assert_status(200).assert_at("/data/num_uses", -1);
    for bad in [once, server.as_token("s.notatokenofthisserver00")] {
        bad.get("sys/internal/ui/mounts").assert_error(403, "permission denied");
    }
    let shown = server.nobody().get("sys/internal/ui/mounts").assert_status(200);
    assert_eq!(shown.at("/data/secret/seen~1"), json!({ "description": "", "options": {}, "type": "database" }));
}
