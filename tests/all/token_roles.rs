//! Token roles, beside OpenBao's where that is given: contract.md §3.

use serde_json::{Value, json};

use crate::support::{Answer, Bao, Client, Server};

#[test]
fn token_roles_are_written_read_listed_and_deleted() {
    roles(&Server::dev());
}

#[test]
fn token_roles_of_a_real_openbao_are_the_same() {
    let Some(bao) = Bao::find("token roles, against a real OpenBao") else { return };
    roles(&Server::openbao(&bao));
}

fn role(root: &Client, name: &str, body: Value) {
    root.post(&format!("auth/token/roles/{name}"), body).assert_status(204);
}

fn create(client: &Client, role: &str, body: Value) -> Answer {
    client.post(&format!("auth/token/create/{role}"), body)
}

fn roles(server: &Server) {
    let root = server.root();
    root.list("auth/token/roles").assert_errors(404, &[]);
    root.get("auth/token/roles/x").assert_errors(404, &[]);
    create(&root, "x", json!({})).assert_error(400, "unknown role x");
    role(&root, "x", json!({}));
    let empty = json!({
        "allowed_entity_aliases": null, "allowed_policies": [], "allowed_policies_glob": [], "disallowed_policies": [],
        "disallowed_policies_glob": [], "explicit_max_ttl": 0, "name": "x", "orphan": false, "path_suffix": "", "period": 0,
        "renewable": true, "token_explicit_max_ttl": 0, "token_no_default_policy": false, "token_period": 0,
        "token_type": "default-service",
    });
    root.get("auth/token/roles/x").assert_status(200).assert_at("/data", empty);
    let whole = json!({
        "allowed_policies": "b,A", "path_suffix": "sfx", "token_period": "1h", "token_bound_cidrs": "127.0.0.1/32,10.0.0.0/8",
        "token_num_uses": 5, "explicit_max_ttl": "2h", "disallowed_policies": ["z"], "allowed_policies_glob": "dev-*",
        "renewable": false, "orphan": true, "token_type": "service",
    });
    role(&root, "y", whole);
    let shown = json!({
        "allowed_entity_aliases": null, "allowed_policies": ["a", "b"], "allowed_policies_glob": ["dev-*"],
        "disallowed_policies": ["z"], "disallowed_policies_glob": [], "explicit_max_ttl": 7200, "name": "y", "orphan": true,
        "path_suffix": "sfx", "period": 0, "renewable": false, "token_bound_cidrs": ["127.0.0.1", "10.0.0.0/8"],
        "token_explicit_max_ttl": 7200, "token_no_default_policy": false, "token_num_uses": 5, "token_period": 3600,
        "token_type": "service",
    });
    root.get("auth/token/roles/y").assert_status(200).assert_at("/data", shown);
    root.list("auth/token/roles").assert_status(200).assert_at("/data/keys", json!(["x", "y"]));
    root.post("auth/token/roles/old", json!({ "period": "1h", "token_period": "2h" }))
        .assert_status(200)
        .assert_warning("Both 'token_period' and deprecated 'period' value supplied, ignoring the deprecated value");
    root.get("auth/token/roles/old").assert_at("/data/period", 0).assert_at("/data/token_period", 7200);

    let suffix = "given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w";
    let batch = "'token_type' cannot be 'batch' when role is set to generate";
    for (body, why) in [
        (json!({ "path_suffix": "-x" }), suffix.to_owned()),
        (json!({ "path_suffix": "x" }), suffix.to_owned()),
        (json!({ "token_type": "nope" }), "invalid 'token_type' value \"nope\"".to_owned()),
        (json!({ "token_type": "batch" }), format!("{batch} non-orphan tokens")),
        (json!({ "token_type": "batch", "orphan": true }), format!("{batch} renewable tokens")),
        (
            json!({ "token_type": "batch", "orphan": true, "renewable": false, "token_period": 5 }),
            format!("{batch} periodic tokens"),
        ),
        (
            json!({ "token_type": "batch", "orphan": true, "renewable": false, "token_explicit_max_ttl": 5 }),
            format!("{batch} tokens with an explicit max TTL"),
        ),
        (json!({ "token_num_uses": -1 }), "error parsing role fields: 'token_num_uses' cannot be negative".to_owned()),
    ] {
        root.post("auth/token/roles/bad", body).assert_error(400, &why);
        root.get("auth/token/roles/bad").assert_errors(404, &[]);
    }

    // What the lists say counts, and not what the parent has.
    create(&root, "y", json!({}))
        .assert_status(200)
        .assert_at("/auth/policies", json!(["a", "b", "default"]))
        .assert_at("/auth/lease_duration", 3600)
        .assert_at("/auth/renewable", false)
        .assert_at("/auth/orphan", true)
        .assert_at("/auth/num_uses", 5);
    let subset =
        "must be subset of the role's allowed policies ([\"a\" \"b\" \"default\"]) or glob policies ([\"dev-*\"])";
    create(&root, "y", json!({ "policies": ["dev-a", "c"] }))
        .assert_error(400, &format!("token policies ([\"c\" \"default\" \"dev-a\"]) {subset}"));
    create(&root, "y", json!({ "policies": ["root"] }))
        .assert_error(400, &format!("token policies ([\"root\"]) {subset}"));
    let asked = json!({
        "policies": ["dev-a"], "ttl": "5m", "explicit_max_ttl": "1h", "period": "30m", "num_uses": 9, "display_name": "q",
        "meta": { "a": "b" }, "no_default_policy": true,
    });
    let least = create(&root, "y", asked)
        .assert_status(200)
        .assert_at("/auth/policies", json!(["dev-a"]))
        .assert_at("/auth/lease_duration", 1800)
        .assert_at("/auth/num_uses", 5);
    for (what, seconds) in [("Explicit max TTL", 3600), ("Period", 1800)] {
        let said = format!(
            "{what} specified both during creation call and in role; using the lesser value of {seconds} seconds"
        );
        assert!(least.body.contains(&said), "{least}");
    }
    root.post("auth/token/lookup", json!({ "token": least.text("/auth/client_token") }))
        .assert_status(200)
        .assert_at("/data/role", "y")
        .assert_at("/data/path", "auth/token/create/y/sfx")
        .assert_at("/data/bound_cidrs", json!(["127.0.0.1", "10.0.0.0/8"]));
    role(&root, "d", json!({ "disallowed_policies": "a,default", "disallowed_policies_glob": "q*" }));
    for name in ["a", "qx"] {
        let why = format!("token policy {name:?} is disallowed by this role");
        create(&root, "d", json!({ "policies": [name] })).assert_error(400, &why);
    }
    create(&root, "d", json!({ "policies": ["b"] })).assert_status(200).assert_at("/auth/policies", json!(["b"]));
    create(&root, "x", json!({ "entity_alias": "q" })).assert_error(400, "invalid 'entity_alias' value");
    create(&root, "x", json!({ "no_parent": true })).assert_status(200).assert_at("/auth/orphan", false);

    // The kind, where the role leaves it open and where it does not.
    let kind = |name: &str, body: Value| create(&root, name, body).assert_status(200).text("/auth/token_type");
    let open =
        json!({ "allowed_policies": "default", "token_type": "default-batch", "renewable": false, "orphan": true });
    role(&root, "open", open);
    role(
        &root,
        "fixed",
        json!({ "allowed_policies": "default", "token_type": "batch", "renewable": false, "orphan": true }),
    );
    assert_eq!(kind("open", json!({})), "batch");
    assert_eq!(kind("open", json!({ "type": "service" })), "service");
    assert_eq!(kind("fixed", json!({ "type": "service" })), "batch");

    // A role is asked again at each renewal, and without it there is none.
    role(&root, "p", json!({ "allowed_policies": "default", "token_period": "1h" }));
    let token = create(&root, "p", json!({})).text("/auth/client_token");
    let renew = || root.post("auth/token/renew", json!({ "token": token }));
    renew().assert_status(200).assert_at("/auth/lease_duration", 3600);
    role(&root, "p", json!({ "token_period": "30m" }));
    renew().assert_status(200).assert_at("/auth/lease_duration", 1800);
    root.delete("auth/token/roles/p").assert_status(204);
    root.delete("auth/token/roles/p").assert_status(204);
    renew().assert_multi(500, "failed to renew entry: original token role \"p\" could not be found, not renewing");

    // Who may use a role may have its policies, and no more.
    role(&root, "e", json!({ "allowed_policies": "default,m2", "orphan": true }));
    role(&root, "n", json!({}));
    role(&root, "rt", json!({ "allowed_policies": "root" }));
    let user = server.with_policy(
        "user",
        "path \"auth/token/create/+\" { capabilities = [\"update\"] }\n\
         path \"auth/token/roles/new\" { capabilities = [\"create\"] }",
    );
    create(&user, "e", json!({})).assert_status(200).assert_at("/auth/policies", json!(["default", "m2"]));
    create(&user, "e", json!({ "policies": "user" })).assert_status(400);
    create(&user, "n", json!({ "policies": "m2" })).assert_error(400, "child policies must be subset of parent");
    create(&user, "rt", json!({})).assert_error(400, "root tokens may not be created without parent token being root");
    for (body, what) in
        [(json!({ "period": "5m" }), "create periodic token"), (json!({ "id": "q" }), "specify token id")]
    {
        create(&user, "e", body).assert_error(400, &format!("root or sudo privileges required to {what}"));
    }
    // Creation and change are told apart.
    user.post("auth/token/roles/new", json!({})).assert_status(204);
    user.post("auth/token/roles/new", json!({})).assert_status(403);
}
