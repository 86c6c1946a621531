//! jwt: roles, logins with tokens of an identity provider, and the provider's keys.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::auth::enable;
use crate::support::{
    Answer, Bao, Client, Credential, Database, Durable, Provider, Server, Signer, eventually, leaf_certificate, now,
};

const REFUSED: &str = "error validating token: the token or the role is not valid for this login";

fn mounted() -> Server {
    let server = Server::dev();
    enable(&server, "jwt", "jwt");
    server
}

fn beside_openbao(bao: &Bao) -> Server {
    let server = Server::openbao(bao);
    enable(&server, "jwt", "jwt");
    server
}

/// Somebody's claims, good for a minute.
fn claims() -> Value {
    json!({ "iss": "https://issuer.example", "sub": "bob", "aud": "leasehold", "iat": now(), "exp": now() + 60 })
}

fn with(changes: Value) -> Value {
    let mut all = claims();
    for (name, value) in changes.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

fn configure(server: &Server, body: Value) {
    server.root().post("auth/jwt/config", body).assert_status(204).assert_empty();
}

fn role(server: &Server, name: &str, changes: Value) {
    let mut body =
        json!({ "role_type": "jwt", "user_claim": "sub", "bound_audiences": "leasehold", "token_policies": "apps" });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.root().post(&format!("auth/jwt/role/{name}"), body).assert_status(204);
}

fn log_in(server: &Server, role: &str, token: &str) -> Answer {
    server.secrets().tell(token);
    server.nobody().post("auth/jwt/login", json!({ "role": role, "jwt": token }))
}

fn token_of(server: &Server, answer: &Answer) -> Client {
    server.as_token(&answer.text("/auth/client_token"))
}

#[test]
fn a_token_of_the_provider_logs_in_and_others_do_not() {
    logins(&mounted());
}

#[test]
fn a_real_openbao_takes_the_same_tokens_and_refuses_the_same() {
    let Some(bao) = Bao::find("logins of jwt, against a real OpenBao") else { return };
    logins(&beside_openbao(&bao));
}

fn logins(server: &Server) {
    let (ours, theirs) = (Signer::new(), Signer::new());
    server.nobody().post("auth/jwt/login", json!({ "role": "r" })).assert_error(400, "could not load configuration");
    server.root().get("auth/jwt/config").assert_errors(404, &[]);
    configure(server, json!({ "jwt_validation_pubkeys": ours.public_pem(), "bound_issuer": "https://issuer.example" }));
    role(server, "r", json!({ "claim_mappings": { "email": "mail" }, "token_ttl": "1h", "token_max_ttl": "2h" }));
    let answer = log_in(server, "R", &ours.token(None, &with(json!({ "email": "bob@example.org" }))))
        .assert_status(200)
        .assert_at("/auth/policies", json!(["apps", "default"]))
        .assert_at("/auth/metadata", json!({ "role": "r", "mail": "bob@example.org" }))
        .assert_at("/auth/lease_duration", 3600)
        .assert_at("/auth/renewable", true)
        .assert_at("/auth/orphan", true);
    let bob = token_of(server, &answer);
    bob.get("auth/token/lookup-self")
        .assert_status(200)
        .assert_at("/data/display_name", "jwt-bob")
        .assert_at("/data/path", "auth/jwt/login")
        .assert_at("/data/meta", json!({ "role": "r", "mail": "bob@example.org" }));
    bob.post("auth/token/renew-self", json!({})).assert_status(200).assert_at("/auth/lease_duration", 3600);

    let good = ours.token(None, &claims());
    for (what, token) in [
        ("another key", theirs.token(None, &claims())),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned() + "."),
        ("another issuer", ours.token(None, &with(json!({ "iss": "https://other.example" })))),
        ("no issuer", ours.token(None, &with(json!({ "iss": null })))),
        ("another audience", ours.token(None, &with(json!({ "aud": "other" })))),
        ("no audience", ours.token(None, &with(json!({ "aud": null })))),
        ("expired", ours.token(None, &with(json!({ "iat": now() - 600, "exp": now() - 300 })))),
        ("too early", ours.token(None, &with(json!({ "nbf": now() + 300, "exp": now() + 600 })))),
        ("from the future", ours.token(None, &with(json!({ "iat": now() + 300, "nbf": now(), "exp": now() + 600 })))),
        ("no times", ours.token(None, &with(json!({ "iat": null, "exp": null })))),
        ("nobody", ours.token(None, &with(json!({ "sub": null })))),
        ("no text for a mapping", ours.token(None, &with(json!({ "email": ["x"] })))),
        ("no algorithm", ours.token_with_header(&json!({ "alg": "none" }), &claims())),
        ("a shared secret", ours.token_with_header(&json!({ "alg": "HS256" }), &claims())),
        ("a kind of key that is not there", ours.token_with_header(&json!({ "alg": "RS256" }), &claims())),
        ("an extension", ours.token_with_header(&json!({ "alg": "ES256", "crit": ["x"], "x": 1 }), &claims())),
        ("no token", "x".to_owned()),
        ("no content", "a.b.c".to_owned()),
    ] {
        let refused = log_in(server, "r", &token);
        assert_eq!(refused.status, 400, "{what}: {refused}");
        assert!(refused.at("/auth").is_null(), "{what}: {refused}");
    }
    assert_eq!(log_in(server, "nope", &good).status, 400);
    server.nobody().post("auth/jwt/login", json!({ "role": "r" })).assert_error(400, "missing token");
    server.nobody().post("auth/jwt/login", json!({ "jwt": good })).assert_error(400, "missing role");
    configure(server, json!({ "jwt_validation_pubkeys": ours.public_pem(), "default_role": "R" }));
    server.nobody().post("auth/jwt/login", json!({ "jwt": good })).assert_status(200);
}

#[test]
fn all_refusals_read_alike_and_the_audit_record_has_the_reason() {
    let server = Server::durable(&Durable::default());
    enable(&server, "jwt", "jwt");
    let (ours, theirs) = (Signer::new(), Signer::new());
    configure(&server, json!({ "jwt_validation_pubkeys": ours.public_pem() }));
    role(&server, "r", json!({ "bound_claims": { "team": "a" } }));
    let options = json!({ "type": "file", "options": { "file_path": server.home().join("audit/log") } });
    server.root().put("sys/audit/file", options).assert_status(204);
    let canary = "canary-of-a-claim";
    for (role, token, reason) in [
        ("r", theirs.token(None, &claims()), "no key that could have signed the token verifies its signature"),
        ("r", "a.b.c".to_owned(), "the token is no signed token of three parts in base64url"),
        ("nope", ours.token(None, &claims()), "no role has this name"),
        ("r", ours.token(None, &with(json!({ "aud": canary }))), "the token is for none of the bound audiences"),
        ("r", ours.token(None, &with(json!({ "team": canary }))), "claim \\\"team\\\" does not match"),
        ("r", ours.token(None, &with(json!({ "exp": 1 }))), "the token has expired"),
    ] {
        log_in(&server, role, &token).assert_error(400, REFUSED);
        let audit = server.audit_text();
        assert!(audit.contains(reason), "{reason}\n{audit}");
        assert!(!audit.contains(&token) && !audit.contains(canary), "{audit}");
    }
    // Without a token that the provider signed, a role that exists and one that does not are answered alike.
    let stranger = theirs.token(None, &claims());
    let (there, not_there) = (log_in(&server, "r", &stranger), log_in(&server, "nope", &stranger));
    assert_eq!((there.status, there.at("/errors")), (not_there.status, not_there.at("/errors")));
}

#[test]
fn configurations_and_roles_are_written_read_listed_and_deleted() {
    written(&mounted());
}

#[test]
fn configurations_and_roles_of_a_real_openbao_are_the_same() {
    let Some(bao) = Bao::find("configurations and roles of jwt, against a real OpenBao") else { return };
    written(&beside_openbao(&bao));
}

fn written(server: &Server) {
    let root = server.root();
    let pem = Signer::new().public_pem();
    let one_source = "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url', or 'provider_config' must be set";
    for (body, why) in [
        (json!({}), one_source),
        (json!({ "jwks_url": "https://127.0.0.1:1/", "oidc_discovery_url": "https://127.0.0.1:1/" }), one_source),
        (
            json!({ "jwt_validation_pubkeys": "x" }),
            "error parsing public key: data does not contain any valid public keys",
        ),
        (
            json!({ "jwt_validation_pubkeys": pem, "jwt_supported_algs": "HS256" }),
            "invalid jwt_supported_algs: unsupported signing algorithm \"HS256\"",
        ),
        (json!({ "jwks_url": "http://127.0.0.1:1/keys" }), "error checking "),
        (json!({ "oidc_discovery_url": "http://127.0.0.1:1/" }), "error checking "),
    ] {
        root.post("auth/jwt/config", body).assert_error_has(400, why);
        root.get("auth/jwt/config").assert_errors(404, &[]);
    }
    let body =
        json!({ "jwt_validation_pubkeys": [pem], "bound_issuer": "iss", "jwt_supported_algs": ["ES256", "EdDSA"] });
    configure(server, body);
    root.get("auth/jwt/config")
        .assert_status(200)
        .assert_at("/data/bound_issuer", "iss")
        .assert_at("/data/default_role", "")
        .assert_at("/data/jwks_url", "")
        .assert_at("/data/jwt_supported_algs", json!(["ES256", "EdDSA"]))
        .assert_at("/data/jwt_validation_pubkeys/0", pem.trim_end())
        .assert_at("/data/oidc_discovery_url", "");
    // What is not named is empty again.
    configure(server, json!({ "jwt_validation_pubkeys": [pem] }));
    root.get("auth/jwt/config").assert_at("/data/bound_issuer", "").assert_at("/data/jwt_supported_algs", json!([]));

    root.list("auth/jwt/role").assert_errors(404, &[]);
    root.get("auth/jwt/role/r").assert_errors(404, &[]);
    for (body, why) in [
        (json!({ "role_type": "jwt" }), "a user claim must be defined on the role"),
        (json!({ "role_type": "zz", "user_claim": "sub" }), "invalid 'role_type': zz"),
        (
            json!({ "role_type": "jwt", "user_claim": "sub" }),
            "must have at least one bound constraint when creating/updating a role",
        ),
    ] {
        let refused = root.post("auth/jwt/role/r", body);
        assert_eq!((refused.status, refused.at("/errors/0")), (400, json!(why)), "{refused}");
    }
    let body = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_claims": { "a": ["x", 1] }, "bound_claims_type": "string",
        "expiration_leeway": "5m", "clock_skew_leeway": -1, "claim_mappings": { "e": "m" }, "token_ttl": 60,
    });
    root.post("auth/jwt/role/Role", body).assert_status(204);
    root.get("auth/jwt/role/ROLE")
        .assert_status(200)
        .assert_at("/data/bound_claims", json!({ "a": ["x", 1] }))
        .assert_at("/data/bound_claims_type", "string")
        .assert_at("/data/bound_audiences", Value::Null)
        .assert_at("/data/bound_subject", "")
        .assert_at("/data/claim_mappings", json!({ "e": "m" }))
        .assert_at("/data/expiration_leeway", 300)
        .assert_at("/data/not_before_leeway", 0)
        .assert_at("/data/clock_skew_leeway", -1)
        .assert_at("/data/groups_claim", "")
        .assert_at("/data/role_type", "jwt")
        .assert_at("/data/token_ttl", 60)
        .assert_at("/data/user_claim", "sub")
        .assert_at("/data/user_claim_json_pointer", false);
    root.list("auth/jwt/role").assert_status(200).assert_at("/data/keys", json!(["role"]));
    root.delete("auth/jwt/role/role").assert_status(204);
    root.delete("auth/jwt/role/role").assert_status(204);
    root.get("auth/jwt/role/role").assert_errors(404, &[]);
}

#[test]
fn what_is_not_offered_is_refused_with_the_reason() {
    let server = mounted();
    let root = server.root();
    let pem = Signer::new().public_pem();
    for (body, why) in [
        (json!({ "jwt_validation_pubkeys": pem, "oidc_client_id": "x" }), "browser flow"),
        (json!({ "jwt_validation_pubkeys": pem, "oidc_client_secret": "hush-hush" }), "browser flow"),
        (json!({ "provider_config": { "provider": "azure" } }), "'provider_config' is not offered"),
        (json!({ "jwks_url": "https://a.example/", "override_allowed_server_names": "b" }), "is not offered"),
        (json!({ "jwks_url": "http://keys.example/" }), "plain http is taken to localhost only"),
        (json!({ "jwks_url": "http://169.254.169.254/latest/meta-data" }), "plain http is taken to localhost only"),
        (json!({ "jwks_url": "file:///etc/passwd" }), "'jwks_url': the address must be written as"),
        (json!({ "oidc_discovery_url": "https://me:hush-hush@a.example" }), "no user and no password"),
        (json!({ "jwks_url": "https://a.example/", "jwks_ca_pem": "zz" }), "CA certificate that cannot be used"),
        (json!({ "jwks_pairs": [{ "url": "https://a.example/" }] }), "'jwks_pairs' must be a list"),
    ] {
        let refused = root.post("auth/jwt/config", body).assert_error_has(400, why);
        assert!(!refused.body.contains("hush-hush"), "{refused}");
    }
    root.post("sys/auth/oidc", json!({ "type": "oidc" }))
        .assert_error_has(400, "plugin not found in the catalog: oidc");
    root.post("auth/jwt/role/r", json!({ "user_claim": "sub", "bound_subject": "x" }))
        .assert_error_has(400, "browser flow");
}

#[test]
fn keys_are_fetched_over_https_from_whom_the_configuration_vouches_for() {
    let server = mounted();
    let folder = TempDir::new().unwrap();
    let pem = std::fs::read_to_string(leaf_certificate(folder.path(), "provider")).unwrap();
    let stranger = std::fs::read_to_string(leaf_certificate(folder.path(), "stranger")).unwrap();
    let provider = Provider::https(folder.path(), "provider");
    let key = Signer::new();
    provider.shows(&[("one", &key)]);
    let url = format!("{}/keys", provider.url());
    for ca in ["", stranger.as_str()] {
        let body = json!({ "jwks_url": url, "jwks_ca_pem": ca });
        server.root().post("auth/jwt/config", body).assert_error_has(400, "error checking 'jwks_url'");
    }
    assert!(provider.asked().is_empty(), "nothing is asked of a server that nobody vouches for");
    configure(&server, json!({ "jwks_url": url, "jwks_ca_pem": pem }));
    role(&server, "r", json!({}));
    log_in(&server, "r", &key.token(Some("one"), &claims())).assert_status(200);

    // The same by an OpenID provider's configuration.
    let issuer = provider.url();
    provider.says("/.well-known/openid-configuration", 200, &json!({ "issuer": issuer, "jwks_uri": url }));
    configure(&server, json!({ "oidc_discovery_url": issuer, "oidc_discovery_ca_pem": pem, "bound_issuer": issuer }));
    log_in(&server, "r", &key.token(Some("one"), &with(json!({ "iss": issuer })))).assert_status(200);
    log_in(&server, "r", &key.token(Some("one"), &claims())).assert_error(400, REFUSED);
    let elsewhere = json!({ "issuer": issuer, "jwks_uri": "http://127.0.0.1:1/keys" });
    provider.says("/.well-known/openid-configuration", 200, &elsewhere);
    let body = json!({ "oidc_discovery_url": issuer, "oidc_discovery_ca_pem": pem });
    server.root().post("auth/jwt/config", body).assert_error_has(400, "leads away from https");
}

#[test]
fn a_new_key_of_the_provider_counts_when_a_token_names_it_and_an_old_one_is_kept_while_it_is_away() {
    let server = mounted();
    let provider = Provider::http();
    let (old, new) = (Signer::new(), Signer::new());
    provider.shows(&[("old", &old)]);
    configure(&server, json!({ "jwks_url": format!("{}/keys", provider.url()) }));
    role(&server, "r", json!({}));
    log_in(&server, "r", &old.token(Some("old"), &claims())).assert_status(200);
    let asked = provider.asked().len();
    for _ in 0..20 {
        log_in(&server, "r", &new.token(Some("new"), &claims())).assert_error(400, REFUSED);
        log_in(&server, "r", &old.token(Some("../../keys"), &claims())).assert_error(400, REFUSED);
    }
    assert!(provider.asked().len() <= asked + 2, "an unknown key id has keys fetched at a bounded rate");
    provider.shows(&[("old", &old), ("new", &new)]);
    // Ten seconds after the keys were fetched last, a token with an unknown key id has them fetched again.
    eventually("the provider's new key is taken", || {
        log_in(&server, "r", &new.token(Some("new"), &claims())).status == 200
    });
    provider.is_down(true);
    log_in(&server, "r", &old.token(Some("old"), &claims())).assert_status(200);

    // Where there are no keys at all, the answer is not that the token is bad.
    let body = json!({ "jwks_url": format!("{}/others", provider.url()), "skip_jwks_validation": true });
    server.root().post("auth/jwt/config", body).assert_status(200).assert_warning("does not work now");
    log_in(&server, "r", &old.token(Some("old"), &claims())).assert_error_has(503, "cannot be fetched at the moment");
}

#[test]
fn several_key_sets_are_asked_and_one_that_is_away_stops_no_other() {
    let server = mounted();
    let (one, other) = (Provider::http(), Provider::http());
    let (first, second) = (Signer::new(), Signer::new());
    one.shows(&[("k", &first)]);
    other.shows(&[("k", &second)]);
    let url = |provider: &Provider| format!("{}/keys", provider.url());
    configure(
        &server,
        json!({ "jwks_pairs": [{ "jwks_url": url(&one) }, { "jwks_url": url(&other), "jwks_ca_pem": "" }] }),
    );
    role(&server, "r", json!({}));
    for key in [&first, &second] {
        log_in(&server, "r", &key.token(Some("k"), &claims())).assert_status(200);
    }
    log_in(&server, "r", &Signer::new().token(Some("k"), &claims())).assert_error(400, REFUSED);
    other.is_down(true);
    let body = json!({ "jwks_pairs": [{ "jwks_url": url(&one) }, { "jwks_url": format!("{}/x", other.url()) }], "skip_jwks_validation": true });
    server.root().post("auth/jwt/config", body).assert_status(200);
    log_in(&server, "r", &first.token(Some("k"), &claims())).assert_status(200);
}

#[test]
fn what_a_login_with_a_token_made_ends_with_its_mount_and_its_role_is_asked_at_renewals() {
    let server = mounted();
    let database = Database::fresh();
    server.connect(&database);
    server.role("reader", json!({}));
    let reads = "path \"database/creds/reader\" { capabilities = [\"read\"] }";
    server.root().put("sys/policies/acl/apps", json!({ "policy": reads })).assert_status(204);
    let key = Signer::new();
    configure(&server, json!({ "jwt_validation_pubkeys": key.public_pem() }));
    role(&server, "service", json!({ "token_ttl": "1h" }));
    role(&server, "batch", json!({ "token_type": "batch" }));
    role(&server, "root", json!({ "token_policies": "root" }));
    role(&server, "far", json!({ "token_bound_cidrs": "10.0.0.0/8" }));
    log_in(&server, "root", &key.token(None, &claims())).assert_error(400, "auth methods cannot create root tokens");
    log_in(&server, "far", &key.token(None, &claims())).assert_error(400, REFUSED);
    let logged_in: Vec<Client> = ["service", "batch"]
        .iter()
        .map(|role| token_of(&server, &log_in(&server, role, &key.token(None, &claims())).assert_status(200)))
        .collect();
    let credentials: Vec<Credential> = logged_in
        .iter()
        .map(|client| Credential::of(&client.get("database/creds/reader").assert_status(200)))
        .collect();
    logged_in[0].post("auth/token/renew-self", json!({})).assert_status(200).assert_at("/auth/lease_duration", 3600);
    role(&server, "service", json!({ "token_ttl": "1m" }));
    logged_in[0].post("auth/token/renew-self", json!({})).assert_status(200).assert_at("/auth/lease_duration", 60);
    server.root().delete("auth/jwt/role/service").assert_status(204);
    logged_in[0].post("auth/token/renew-self", json!({})).assert_error_has(500, "does not exist during renewal");
    server.root().post("sys/remount", json!({ "from": "auth/jwt", "to": "auth/moved" })).assert_status(200);
    eventually("the mount has moved", || {
        server.nobody().post("auth/moved/login", json!({ "role": "batch", "jwt": key.token(None, &claims()) })).status
            == 200
    });
    server.root().delete("sys/auth/moved").assert_status(204);
    for client in &logged_in {
        client.get("auth/token/lookup-self").assert_error(403, "permission denied");
    }
    eventually("the roles of the mount's tokens are gone", || {
        credentials.iter().all(|credential| !database.has_role(&credential.user))
    });
}

#[test]
fn people_log_in_with_a_token_on_the_command_line() {
    let server = mounted();
    let key = Signer::new();
    configure(&server, json!({ "jwt_validation_pubkeys": key.public_pem() }));
    role(&server, "r", json!({}));
    let token = key.token(None, &claims());
    server.secrets().tell(&token);
    let person = server.cli().without_token();
    let made = person.line(&format!("login -method=jwt -token-only role=r jwt={token}")).assert_status(0);
    server.as_token(made.stdout.trim()).get("auth/token/lookup-self").assert_status(200);
    std::fs::write(person.home().join("token.jwt"), format!("{token}\n")).unwrap();
    person.line("login -method=jwt -path=jwt role=r jwt=@token.jwt").assert_status(0).assert_stdout("token_meta_role");
    person.line("login -method=jwt role=r").assert_status(2).assert_stderr("'jwt' must be specified");
    person.line("login -method=jwt role=r jwt=x.y.z").assert_status(2).assert_stderr(REFUSED);
    server.cli().line("auth help jwt").assert_status(0).assert_stdout("login -method=jwt");
}
