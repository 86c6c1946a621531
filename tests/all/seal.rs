//! Init, seal, unseal, health and leader, and what the file on disk says to whoever steals it.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Client, Credential, Database, Durable, Server, eventually, shared_postgresql};

const FIVE_OF_WHICH_THREE: fn() -> Durable = || Durable { shares: 5, threshold: 3, ..Durable::default() };

#[test]
fn an_empty_server_knows_nothing_but_how_to_begin() {
    let server = Server::uninitialised(&Durable::default());
    let nobody = server.nobody();
    assert_eq!(nobody.get("sys/init").assert_status(200).json(), json!({ "initialized": false }));
    let status = nobody.get("sys/seal-status").assert_status(200);
    let status = status.assert_at("/initialized", false).assert_at("/sealed", true).assert_at("/type", "shamir");
    status.assert_at("/t", 0).assert_at("/n", 0).assert_at("/progress", 0).assert_at("/nonce", "");
    nobody.get("sys/health").assert_status(501).assert_at("/initialized", false).assert_at("/sealed", true);
    nobody.get("sys/health?uninitcode=299").assert_status(299);
    nobody.put("sys/unseal", json!({ "key": "00" })).assert_error(400, "Vault is not initialized");
    nobody.put("sys/seal", json!({})).assert_status(204);
    nobody.get("sys/leader").assert_error(503, "Vault is sealed");
    nobody.get("auth/token/lookup-self").assert_error(503, "Vault is sealed");

    for (shares, threshold, why) in [
        (0, 0, "shares must be at least one"),
        (2, 3, "threshold cannot be larger than shares"),
        (3, 1, "threshold must be greater than one for multiple shares"),
    ] {
        let body = json!({ "secret_shares": shares, "secret_threshold": threshold });
        nobody.put("sys/init", body).assert_error(400, &format!("invalid seal configuration: {why}"));
    }
    let body = json!({ "secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["mQENBF"] });
    nobody.put("sys/init", body).assert_error_has(400, "PGP keys is not supported");
    for (keys, names) in [
        (json!({ "recovery_shares": 1, "recovery_threshold": 1 }), "recovery_shares,recovery_threshold"),
        (json!({ "recovery_pgp_keys": ["mQENBF"] }), "recovery_pgp_keys"),
    ] {
        let mut body = json!({ "secret_shares": 1, "secret_threshold": 1 });
        body.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let why = format!("parameters {names} not applicable to seal type shamir");
        nobody.put("sys/init", body).assert_error(400, &why);
    }
    assert_eq!(nobody.get("sys/init").at("/initialized"), false);
}

#[test]
fn a_new_key_has_encrypted_nothing_yet() {
    let server = Server::dev();
    let root = server.root();
    let before = root.get("sys/key-status").assert_status(200);
    assert!(before.number("/data/encryptions") > 0, "{before}");
    root.post("sys/rotate", json!({})).assert_status(204);
    root.get("sys/key-status")
        .assert_at("/data/term", before.number("/data/term") + 1)
        .assert_at("/data/encryptions", 0);
}

#[test]
fn init_hands_out_what_was_asked_for_and_only_once() {
    let server = Server::uninitialised(&FIVE_OF_WHICH_THREE());
    let made = server.init(5, 3);
    let texts = |pointer: &str| -> Vec<String> { serde_json::from_value(made.at(pointer)).unwrap() };
    let (hex, base64) = (texts("/keys"), texts("/keys_base64"));
    assert_eq!((hex.len(), base64.len()), (5, 5));
    assert!(hex.iter().all(|key| key.len() == 66 && key.chars().all(|c| c.is_ascii_hexdigit())));
    assert!(made.text("/root_token").starts_with("s."));
    assert_eq!(server.nobody().get("sys/init").json(), json!({ "initialized": true }));
    let again = json!({ "secret_shares": 1, "secret_threshold": 1 });
    server.nobody().put("sys/init", again).assert_error(400, "Vault is already initialized");

    // Both spellings of a share are taken.
    let nobody = server.nobody();
    nobody.put("sys/unseal", json!({ "key": hex[4] })).assert_status(200).assert_at("/progress", 1);
    nobody.put("sys/unseal", json!({ "key": base64[2] })).assert_status(200).assert_at("/progress", 2);
    let open = nobody.put("sys/unseal", json!({ "key": hex[0] })).assert_status(200).assert_at("/sealed", false);
    assert!(!open.text("/cluster_id").is_empty());
    server.root().get("auth/token/lookup-self").assert_status(200).assert_at("/data/policies", json!(["root"]));
}

#[test]
fn shares_are_counted_forgotten_and_told_apart_from_wrong_ones() {
    let server = Server::uninitialised(&FIVE_OF_WHICH_THREE());
    server.init(5, 3);
    let shares = server.shares();
    let nobody = server.nobody();
    let give = |share: &str| nobody.put("sys/unseal", json!({ "key": share }));

    nobody
        .put("sys/unseal", json!({}))
        .assert_error(400, "'key' must be specified in request body as JSON, or 'reset' set to true");
    give("no key!").assert_error(400, "'key' must be a valid hex or base64 string");
    give("00ff").assert_error(400, "invalid key: key is shorter than minimum 16 bytes");

    let first = give(&shares[0]).assert_status(200).assert_at("/progress", 1).assert_at("/sealed", true);
    let first = first.assert_at("/t", 3).assert_at("/n", 5);
    let nonce = first.text("/nonce");
    assert_eq!(nonce.len(), 36, "{first}");
    give(&shares[0]).assert_status(200).assert_at("/progress", 1);
    give(&shares[1]).assert_at("/progress", 2).assert_at("/nonce", nonce);
    let reset = nobody.put("sys/unseal", json!({ "reset": true })).assert_status(200);
    reset.assert_at("/progress", 0).assert_at("/nonce", "").assert_at("/sealed", true);

    // Of a right length and a place of its own, but of another secret: it is refused, and spoils nothing.
    let stranger = "5a".repeat(32) + "fe";
    let annoy = || give(&stranger).assert_error_has(400, "cipher: message authentication failed");
    annoy();
    nobody.get("sys/seal-status").assert_at("/sealed", true).assert_at("/progress", 0);
    nobody.get("auth/token/lookup-self").assert_error(503, "Vault is sealed");

    // Any three, in any order.
    for share in [&shares[4], &shares[1], &shares[3]] {
        give(share).assert_status(200);
        annoyed_unless_open(&nobody, &stranger);
    }
    nobody.get("sys/seal-status").assert_at("/sealed", false).assert_at("/progress", 0);
    give(&shares[0]).assert_status(200).assert_at("/sealed", false);
}

/// Once the server is open, a share says nothing any more.
fn annoyed_unless_open(client: &Client, share: &str) {
    let is_sealed = client.get("sys/seal-status").at("/sealed") == true;
    let answer = client.put("sys/unseal", json!({ "key": share }));
    assert_eq!(answer.status, if is_sealed { 400 } else { 200 }, "{answer}");
}

#[test]
fn after_a_restart_everything_is_as_before() {
    let server = Server::durable(&FIVE_OF_WHICH_THREE());
    let database = Database::fresh();
    server.connect(&database);
    server.role("reader", json!({ "default_ttl": "20m" }));
    let app = server.with_policy("reader", "path \"database/creds/reader\" { capabilities = [\"read\"] }");
    let credential = app.credential("reader");
    server.root().put("sys/mounts/database/tune", json!({ "max_lease_ttl": "30h" })).assert_status(204);
    let seen = |client: &Client| -> Vec<Value> {
        let paths = [
            "sys/mounts",
            "sys/auth",
            "sys/mounts/database/tune",
            "sys/policy",
            "sys/policies/acl/reader",
            "database/config/pg",
            "database/roles/reader",
            "sys/internal/counters/tokens",
        ];
        paths.iter().map(|path| client.get(path).at("/data")).collect()
    };
    let lease = |server: &Server| {
        let mut data = server
            .root()
            .put("sys/leases/lookup", json!({ "lease_id": credential.lease }))
            .assert_status(200)
            .at("/data");
        data.as_object_mut().unwrap().remove("ttl");
        data
    };
    let (before, lease_before) = (seen(&server.root()), lease(&server));
    let cluster = server.nobody().get("sys/seal-status").text("/cluster_id");

    assert_eq!(server.terminate(), Some(0));
    server.start();
    let nobody = server.nobody();
    nobody.get("sys/seal-status").assert_at("/sealed", true).assert_at("/initialized", true).assert_at("/t", 3);
    nobody.get("sys/health").assert_status(503).assert_at("/sealed", true).assert_at("/initialized", true);
    nobody.get("sys/leader").assert_error(503, "Vault is sealed");
    for (method, path) in [
        ("GET", "sys/mounts"),
        ("GET", "database/creds/reader"),
        ("PUT", "sys/leases/renew"),
        ("LIST", "sys/policies/acl"),
        ("GET", "nowhere/at/all"),
    ] {
        for client in [&app, &nobody, &server.root()] {
            let answer = client.request(method, path, (method == "PUT").then(|| json!({})));
            answer.assert_error(503, "Vault is sealed");
        }
    }

    server.unseal();
    assert_eq!(seen(&server.root()), before);
    assert_eq!(lease(&server), lease_before);
    assert_eq!(nobody.get("sys/seal-status").text("/cluster_id"), cluster);
    // The token of before renews the lease of before, and PostgreSQL knows the login still.
    app.put("sys/leases/renew", json!({ "lease_id": credential.lease })).assert_at("/lease_duration", 1200);
    assert!(credential.login(&database).is_alive());
    server.root().put("sys/leases/revoke", json!({ "lease_id": credential.lease })).assert_status(204);
    assert!(!database.has_role(&credential.user));
    assert!(app.credential("reader").login(&database).is_alive());
}

#[test]
fn a_lease_that_ran_out_while_sealed_is_revoked_after_unsealing() {
    let server = Server::durable(&Durable::default());
    let database = Database::fresh();
    server.connect(&database);
    server.role("brief", json!({ "default_ttl": "2s" }));
    let credential = server.root().credential("brief");
    server.root().put("sys/seal", json!({})).assert_status(204);
    eventually("the lease has run out", || database.seconds_left(&credential.user) < 2);
    server.nobody().get("sys/health").assert_status(503);
    assert!(database.has_role(&credential.user), "a sealed server revokes nothing");
    server.unseal();
    eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
}

#[test]
fn sealing_needs_sudo_and_takes_effect_at_once() {
    let server = Server::durable(&Durable::default());
    let update = server.with_policy("sealer", "path \"sys/seal\" { capabilities = [\"update\"] }");
    update.put("sys/seal", json!({})).assert_multi(403, "permission denied");
    server.nobody().put("sys/seal", json!({})).assert_error(403, "permission denied");
    server.as_token("s.nosuchtoken").put("sys/seal", json!({})).assert_error(403, "permission denied");
    server.nobody().get("sys/seal-status").assert_at("/sealed", false);

    let sudo = server.with_policy("sealer-sudo", "path \"sys/seal\" { capabilities = [\"update\", \"sudo\"] }");
    sudo.put("sys/seal", json!({})).assert_status(204).assert_empty();
    // The answer comes when it is done.
    server.nobody().get("sys/seal-status").assert_at("/sealed", true);
    server.root().get("sys/mounts").assert_error(503, "Vault is sealed");
    sudo.put("sys/seal", json!({})).assert_error(503, "Vault is sealed");
    server.unseal();
    server.root().get("sys/mounts").assert_status(200);
}

#[test]
fn health_has_the_codes_that_a_prober_asks_for() {
    let server = Server::durable(&Durable::default());
    let nobody = server.nobody();
    let open = nobody.get("sys/health").assert_status(200).assert_at("/sealed", false).assert_at("/standby", false);
    assert!(!open.text("/version").is_empty() && open.number("/server_time_utc") > 0);
    nobody.get("sys/health?activecode=234&sealedcode=235").assert_status(234);
    nobody.get("sys/health?standbyok=true&drsecondarycode=299&haunhealhty=299&mystery=1").assert_status(200);
    nobody.get("sys/health?sealedcode=green").assert_errors(400, &[]);
    nobody.post("sys/health", json!({})).assert_errors(405, &[]);
    nobody.request("HEAD", "sys/health", None).assert_status(200).assert_empty();
    assert_eq!(nobody.get("sys/leader").assert_status(200).json(), json!({ "ha_enabled": false }));

    server.root().put("sys/seal", json!({})).assert_status(204);
    nobody.get("sys/health").assert_status(503);
    nobody.get("sys/health?sealedcode=298").assert_status(298).assert_at("/sealed", true);
    nobody.request("HEAD", "sys/health", None).assert_status(503).assert_empty();
    nobody.request("HEAD", "sys/health?sealedcode=204", None).assert_status(204);
}

#[test]
fn a_stolen_file_says_nothing() {
    let server = Server::durable(&FIVE_OF_WHICH_THREE());
    let database = Database::fresh();
    server.connect(&database);
    let marked = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; \
                  SELECT 'canary-statement';";
    server.role("canary-role", json!({ "creation_statements": marked }));
    let policy = "# canary-comment\npath \"database/creds/canary-role\" { capabilities = [\"read\"] }";
    let app = server.with_policy("canary-policy", policy);
    // Lease ids and accessors are names, not secrets: they stand in keys, which are readable by design.
    let Credential { user, password, .. } = app.credential("canary-role");
    let token = app.get("auth/token/lookup-self").text("/data/id");
    server.root().post("auth/token/create", json!({ "meta": { "owner": "canary-owner" } })).assert_status(200);

    let mut canaries: Vec<String> = vec![
        server.root_token(),
        token,
        password,
        user,
        database.name().to_owned() + "\"",
        format!("127.0.0.1:{}", shared_postgresql().port()),
        crate::support::ADMIN_PASSWORD.to_owned(),
    ];
    canaries.extend(server.shares());
    canaries.extend(
        ["canary-comment", "canary-statement", "canary-owner", "capabilities", "CREATE ROLE", "postgresql://"]
            .map(str::to_owned),
    );
    let look = |when: &str| {
        let mut files = 0;
        for entry in fs::read_dir(server.home()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("leasehold.db") {
                continue;
            }
            files += 1;
            let bytes = fs::read(entry.path()).unwrap();
            for canary in &canaries {
                let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
                assert!(!found, "{when}: `{canary}` is readable in {name}");
            }
        }
        assert!(files > 0, "no file to look through");
    };
    // With its journal beside it, after an orderly end, and after a kill.
    look("while running");
    server.kill();
    look("after a kill");
    server.start();
    server.unseal();
    assert_eq!(server.terminate(), Some(0));
    look("after an orderly end");
}
