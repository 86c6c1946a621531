//! Tokens: contract.md §3.

use serde_json::{Value, json};

use crate::support::{Bao, Client, Credential, Database, Durable, Server, eventually};

fn lookup(client: &Client) -> crate::support::Answer {
    client.get("auth/token/lookup-self")
}

#[test]
fn a_token_is_made_with_the_fields_answer() {
    let server = Server::dev();
    let root = server.root();
    let made = root
        .post(
            "auth/token/create",
            json!({ "policies": ["B", "a", "a"], "ttl": "1h", "display_name": "My Tok.en", "meta": { "n": 1 }, "num_uses": 5 }),
        )
        .assert_status(200);
    let token = made.text("/auth/client_token");
    assert_eq!(token.len(), 26, "`s.` and 24 characters");
    assert!(token.starts_with("s."));
    assert_eq!(made.text("/auth/accessor").len(), 24);
    let made = made
        .assert_at("/auth/policies", json!(["a", "b", "default"]))
        .assert_at("/auth/token_policies", json!(["a", "b", "default"]))
        .assert_at("/auth/metadata", json!({ "n": "1" }))
        .assert_at("/auth/lease_duration", 3600)
        .assert_at("/auth/renewable", true)
        .assert_at("/auth/token_type", "service")
        .assert_at("/auth/orphan", false)
        .assert_at("/auth/num_uses", 5)
        .assert_at("/auth/entity_id", "")
        .assert_at("/auth/mfa_requirement", Value::Null)
        .assert_at("/data", Value::Null)
        .assert_warning("Policy \"a\" does not exist");
    let found = lookup(&server.as_token(&token))
        .assert_status(200)
        .assert_at("/data/id", token.as_str())
        .assert_at("/data/accessor", made.text("/auth/accessor"))
        .assert_at("/data/display_name", "token-My-Tok-en")
        .assert_at("/data/path", "auth/token/create")
        .assert_at("/data/creation_ttl", 3600)
        .assert_at("/data/num_uses", 4)
        .assert_at("/data/orphan", false)
        .assert_at("/data/explicit_max_ttl", 0)
        .assert_at("/data/type", "service")
        .assert_at("/data/policies", json!(["a", "b", "default"]))
        .assert_at("/data/meta", json!({ "n": "1" }));
    assert!((3540..=3600).contains(&found.number("/data/ttl")), "{found}");
}

#[test]
fn a_development_server_begins_with_a_token_that_was_made() {
    let found = lookup(&Server::dev().root());
    found.assert_at("/data/path", "auth/token/create").assert_at("/data/display_name", "token");
    let found = lookup(&Server::durable(&Durable::default()).root());
    found.assert_at("/data/path", "auth/token/root").assert_at("/data/display_name", "root");
}

#[test]
fn the_root_token_never_ends_and_cannot_be_renewed() {
    let server = Server::dev();
    lookup(&server.root())
        .assert_at("/data/policies", json!(["root"]))
        .assert_at("/data/ttl", 0)
        .assert_at("/data/expire_time", Value::Null)
        .assert_at("/data/orphan", true);
    server.root().post("auth/token/renew-self", json!({})).assert_error(400, "lease is not renewable");
}

#[test]
fn a_bad_token_is_refused_alike_everywhere() {
    let server = Server::dev();
    let nobody = server.nobody();
    for client in [
        nobody.clone(),
        nobody.with_token("s.AAAAAAAAAAAAAAAAAAAAAAAA"),
        nobody.with_token("x"),
        nobody.with_token("b.AAAA"),
    ] {
        for path in ["auth/token/lookup-self", "sys/mounts", "nomount/x", "sys/policies/acl/x"] {
            client.get(path).assert_error(403, "permission denied");
        }
    }
    server
        .root()
        .post("auth/token/lookup", json!({ "token": "s.AAAAAAAAAAAAAAAAAAAAAAAA" }))
        .assert_error(403, "bad token");
}

#[test]
fn a_renewal_tells_the_uses_of_creation_and_gives_none_back_to_a_dying_token() {
    let server = Server::dev();
    let of_uses =
        |uses: i32| server.as_token(&server.root().child(json!({ "policies": ["default"], "num_uses": uses })));
    let five = of_uses(5);
    for _ in 0..2 {
        // What is left would be 0 at the end, which clients read as without limit.
        five.post("auth/token/renew-self", json!({})).assert_status(200).assert_at("/auth/num_uses", 5);
    }
    five.get("auth/token/lookup-self").assert_at("/data/num_uses", 2);
    let one = of_uses(1);
    one.post("auth/token/renew-self", json!({})).assert_error(400, "token not found");
    one.post("auth/token/renew-self", json!({})).assert_error(403, "permission denied");
}

#[test]
fn there_is_nothing_to_tidy_and_nobody_is_refused() {
    let server = Server::dev();
    server.root().post("auth/token/tidy", json!({})).assert_status(202).assert_warning("Tidy operation");
    server.root().get("auth/token/tidy").assert_multi(405, "unsupported operation");
    server.with_policy("none", "path \"x\" {}").post("auth/token/tidy", json!({})).assert_status(403);
}

#[test]
fn a_look_up_is_also_a_read() {
    let server = Server::dev();
    let root = server.root();
    let token = root.child(json!({ "policies": ["default"], "display_name": "seen" }));
    root.get("auth/token/lookup").assert_status(200).assert_at("/data/policies", json!(["root"]));
    root.get(&format!("auth/token/lookup?token={token}"))
        .assert_status(200)
        .assert_at("/data/id", token)
        .assert_at("/data/display_name", "token-seen");
    root.get("auth/token/lookup?token=s.AAAAAAAAAAAAAAAAAAAAAAAA").assert_error(403, "bad token");
    let reader = server.with_policy("reads", "path \"auth/token/lookup\" { capabilities = [\"read\"] }");
    reader.get("auth/token/lookup").assert_status(200).assert_at("/data/policies", json!(["default", "reads"]));
    reader.post("auth/token/lookup", json!({})).assert_multi(403, "permission denied");
}

#[test]
fn the_bearer_header_works_and_the_vault_header_comes_first() {
    let server = Server::dev();
    let bearer = format!("Bearer {}", server.root_token());
    let asked = |headers: &[(&str, &str)]| server.nobody().bytes("POST", "auth/token/lookup", b"{}", headers).status;
    assert_eq!(asked(&[("Authorization", &bearer)]), 200);
    assert_eq!(asked(&[("Authorization", &bearer.replace("Bearer", "bearer"))]), 403);
    assert_eq!(asked(&[("Authorization", &bearer), ("X-Vault-Token", "wrong")]), 403);
}

#[test]
fn children_get_no_more_than_their_parents_have() {
    let server = Server::dev();
    let create = "path \"auth/token/create\" { capabilities = [\"update\"] }\npath \"auth/token/create-orphan\" { capabilities = [\"update\"] }";
    let plain = server.with_policy("plain", create);
    plain
        .post("auth/token/create", json!({ "policies": ["other"] }))
        .assert_error(400, "child policies must be subset of parent");
    plain.post("auth/token/create", json!({ "policies": ["root"] })).assert_status(400);
    plain
        .post("auth/token/create", json!({ "policies": ["plain"] }))
        .assert_status(200)
        .assert_at("/auth/policies", json!(["default", "plain"]));
    plain.post("auth/token/create", json!({})).assert_at("/auth/policies", json!(["default", "plain"]));
    plain.post("auth/token/create-orphan", json!({})).assert_status(200).assert_at("/auth/orphan", true);
    plain
        .post("auth/token/create-orphan", json!({ "policies": ["other"] }))
        .assert_error(400, "child policies must be subset of parent");
    plain
        .post("auth/token/create", json!({ "no_parent": true }))
        .assert_error(400, "root or sudo privileges required to create orphan token");
    plain
        .post("auth/token/create", json!({ "id": "custom" }))
        .assert_error(400, "root or sudo privileges required to specify token id");
    plain
        .post("auth/token/create", json!({ "period": "1h" }))
        .assert_error(400, "root or sudo privileges required to create periodic token");
    plain.post("auth/token/create", json!({ "num_uses": -1 })).assert_error(400, "number of uses cannot be negative");
    plain.post("auth/token/create", json!({ "type": "x" })).assert_error(400, "invalid 'token_type' value");

    let sudo = server.with_policy("sudo", "path \"auth/token/create\" { capabilities = [\"update\", \"sudo\"] }");
    sudo.post("auth/token/create", json!({ "policies": ["other"] })).assert_status(200);
    sudo.post("auth/token/create", json!({ "policies": ["root"] }))
        .assert_error(400, "root tokens may not be created without parent token being root");
    sudo.post("auth/token/create", json!({ "no_parent": true })).assert_status(200).assert_at("/auth/orphan", true);

    let root = server.root();
    root.post("auth/token/create", json!({ "policies": ["x", "root"] }))
        .assert_status(200)
        .assert_at("/auth/policies", json!(["root"]));
    root.post("auth/token/create", json!({ "policies": ["x"], "no_default_policy": true }))
        .assert_at("/auth/policies", json!(["x"]));
    root.post("auth/token/create", json!({ "policies": "p-x,default" }))
        .assert_at("/auth/policies", json!(["default", "p-x,default"]))
        .assert_warning("Policy \"p-x,default\" does not exist");
    let restricted = root.child(json!({ "num_uses": 10 }));
    server
        .as_token(&restricted)
        .post("auth/token/create", json!({}))
        .assert_error(400, "restricted use token cannot generate child tokens");
}

#[test]
fn tokens_of_ones_own_choice() {
    let server = Server::dev();
    let root = server.root();
    assert_eq!(root.child(json!({ "id": "my-custom-token" })), "my-custom-token");
    lookup(&server.as_token("my-custom-token")).assert_status(200);
    root.post("auth/token/create", json!({ "id": "my-custom-token" }))
        .assert_error(400, "cannot create a token with a duplicate ID");
    root.post("auth/token/create", json!({ "id": "a.b" }))
        .assert_error(400, "custom token ID cannot have a '.' in the value");
    root.post("auth/token/create", json!({ "id": "s.b" })).assert_status(400);
}

#[test]
fn ttls_of_tokens() {
    let server = Server::dev();
    let root = server.root();
    root.post("auth/token/create", json!({ "ttl": "9999h" }))
        .assert_at("/auth/lease_duration", 2_764_800)
        .assert_warning("TTL of \"9999h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly");
    // What the command line sends: zero is unset.
    root.post("auth/token/create", json!({ "policies": ["x"], "ttl": "0s", "explicit_max_ttl": "0s", "period": "0s", "display_name": "", "num_uses": 0, "renewable": true, "type": "service", "entity_alias": "" }))
        .assert_at("/auth/lease_duration", 2_764_800);
    let capped = root.child(json!({ "policies": ["x"], "ttl": "10m", "explicit_max_ttl": "20m" }));
    let capped = server.as_token(&capped);
    let renewed = capped.post("auth/token/renew-self", json!({ "increment": "5h" })).assert_status(200);
    assert!((1140..=1200).contains(&renewed.number("/auth/lease_duration")), "{renewed}");

    let periodic = root.child(json!({ "policies": ["x"], "period": "30m" }));
    let periodic = server.as_token(&periodic);
    periodic.post("auth/token/renew-self", json!({ "increment": "5h" })).assert_at("/auth/lease_duration", 1800);
    lookup(&periodic).assert_at("/data/period", 1800);

    let fixed = root.child(json!({ "policies": ["x"], "renewable": false, "ttl": "1h" }));
    server.as_token(&fixed).post("auth/token/renew-self", json!({})).assert_error(400, "lease is not renewable");

    let short = root.child(json!({ "policies": ["x"], "ttl": "2s" }));
    let short = server.as_token(&short);
    eventually("the token has ended", || lookup(&short).status == 403);
}

#[test]
fn less_than_a_second_is_never_for_ever() {
    less_than_a_second(&Server::dev());
}

#[test]
fn less_than_a_second_is_never_for_ever_with_a_real_openbao() {
    let Some(bao) = Bao::find("lengths below a second, against a real OpenBao") else { return };
    less_than_a_second(&Server::openbao(&bao));
}

fn less_than_a_second(server: &Server) {
    let root = server.root();
    for body in [
        json!({ "policies": ["root"], "ttl": "500ms" }),
        json!({ "policies": ["root"], "explicit_max_ttl": "0.5s" }),
        json!({ "policies": ["root"], "period": "999999us" }),
        json!({ "policies": ["default"], "ttl": "500ms", "type": "batch" }),
    ] {
        let made = root.post("auth/token/create", body).assert_status(200);
        assert!(made.number("/auth/lease_duration") <= 1, "{made}");
        let made = server.as_token(&made.text("/auth/client_token"));
        eventually("the token has ended", || lookup(&made).status == 403);
    }
    root.post("auth/token/create", json!({ "ttl": "-1ms" })).assert_error(400, "ttl must be positive");
}

#[test]
fn whoever_gets_less_time_than_he_asked_for_is_told_what_is_left() {
    told_what_is_left(&Server::dev());
}

#[test]
fn a_real_openbao_says_the_same_of_what_is_left() {
    let Some(bao) = Bao::find("warnings about capped lengths, against a real OpenBao") else { return };
    told_what_is_left(&Server::openbao(&bao));
}

fn told_what_is_left(server: &Server) {
    let root = server.root();
    let of = |what: &str, wanted: &str, max: &str| {
        format!(
            "{what} of \"{wanted}\" exceeded the effective max_ttl of \"{max}\"; {what} value is capped accordingly"
        )
    };
    let made = |body: Value| root.post("auth/token/create", body).assert_status(200);
    let whole = server.as_token(&root.child(json!({ "policies": ["default"] })));
    let short = server.as_token(&root.child(json!({ "policies": ["default"], "ttl": "1h", "explicit_max_ttl": "2h" })));
    let later = root.child(json!({ "ttl": "2s" }));
    made(json!({ "policies": ["default"], "period": "2h", "explicit_max_ttl": "1h" }))
        .assert_at("/warnings", json!([of("period", "2h", "1h")]));
    made(json!({ "policies": ["default"], "ttl": "2h", "explicit_max_ttl": "1h" }))
        .assert_at("/warnings", json!([of("TTL", "2h", "1h")]));
    made(json!({ "policies": ["root"], "explicit_max_ttl": "1h" }))
        .assert_at("/warnings", Value::Null)
        .assert_at("/auth/lease_duration", 3_600);
    eventually("two seconds have passed", || lookup(&server.as_token(&later)).status == 403);
    // Not the whole maximum, and not at all where there is enough.
    whole.post("auth/token/renew-self", json!({})).assert_warning("exceeded the effective max_ttl of \"767h59m5");
    short.post("auth/token/renew-self", json!({ "increment": "3h" })).assert_warning("max_ttl of \"1h59m5");
    short.post("auth/token/renew-self", json!({ "increment": "30m" })).assert_at("/warnings", Value::Null);
    // Without an increment it asks for what it had last.
    for (increment, ttl) in [(json!(null), 1_800), (json!("100s"), 100), (json!(0), 100), (json!(""), 100)] {
        short
            .post("auth/token/renew-self", json!({ "increment": increment }))
            .assert_at("/auth/lease_duration", ttl)
            .assert_at("/warnings", Value::Null);
    }
    lookup(&short).assert_at("/data/creation_ttl", 3_600);
    root.post("sys/auth/token/tune", json!({ "max_lease_ttl": "90m" })).assert_status(204);
    root.get("sys/auth/token/tune").assert_at("/data/default_lease_ttl", 2_764_800);
    made(json!({ "policies": ["default"] }))
        .assert_at("/warnings", json!([of("TTL", "768h", "1h30m")]))
        .assert_at("/auth/lease_duration", 5_400);
    made(json!({ "policies": ["default"], "period": "2h" }))
        .assert_at("/warnings", json!([of("period", "2h", "1h30m")]));
}

#[test]
fn uses_are_counted_exactly() {
    let server = Server::dev();
    let token = server.root().child(json!({ "policies": ["default"], "num_uses": 3 }));
    let client = server.as_token(&token);
    lookup(&client).assert_at("/data/num_uses", 2);
    lookup(&client).assert_at("/data/num_uses", 1);
    lookup(&client).assert_at("/data/num_uses", -1);
    lookup(&client).assert_error(403, "permission denied");

    let token = server.root().child(json!({ "policies": ["default"], "num_uses": 20 }));
    let client = server.as_token(&token);
    let passed: usize = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..10).filter(|_| lookup(&client).status == 200).count())).collect();
        asking.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(passed, 20, "as many as were allowed, however many asked at once");
}

#[test]
fn accessors_look_up_renew_and_revoke_but_never_act() {
    let server = Server::dev();
    let root = server.root();
    let made = root.post("auth/token/create", json!({ "policies": ["x"] })).assert_status(200);
    let (token, accessor) = (made.text("/auth/client_token"), made.text("/auth/accessor"));
    root.post("auth/token/lookup-accessor", json!({ "accessor": accessor }))
        .assert_status(200)
        .assert_at("/data/id", "");
    root.post("auth/token/renew-accessor", json!({ "accessor": accessor }))
        .assert_status(200)
        .assert_at("/auth/client_token", "");
    lookup(&server.nobody().with_token(&accessor)).assert_error(403, "permission denied");
    assert!(root.list("auth/token/accessors").at("/data/keys").as_array().unwrap().contains(&json!(accessor)));
    root.post("auth/token/lookup-accessor", json!({ "accessor": "none" })).assert_multi(400, "invalid accessor");
    root.post("auth/token/lookup-accessor", json!({})).assert_multi(400, "missing accessor");
    root.post("auth/token/revoke-accessor", json!({ "accessor": accessor })).assert_status(204);
    lookup(&server.nobody().with_token(&token)).assert_error(403, "permission denied");
    root.post("auth/token/revoke-accessor", json!({ "accessor": "none" }))
        .assert_status(200)
        .assert_warning("No token found with this accessor");
}

#[test]
fn revoking_a_token_ends_its_descendants_and_all_their_leases() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let parent = root.child(json!({}));
    let parent_client = server.as_token(&parent);
    let child = parent_client.child(json!({}));
    let grandchild = server.as_token(&child).child(json!({}));
    let orphan = server.as_token(&child).post("auth/token/create-orphan", json!({})).text("/auth/client_token");
    let credentials: Vec<_> = [&parent, &child, &grandchild].map(|token| server.as_token(token).credential("r")).into();
    let kept = server.as_token(&orphan).credential("r");

    root.post("auth/token/revoke", json!({ "token": parent })).assert_status(204).assert_empty();
    for token in [&parent, &child, &grandchild] {
        eventually("the token is refused", || lookup(&server.as_token(token)).status == 403);
    }
    for credential in &credentials {
        eventually("the PostgreSQL role is gone", || !database.has_role(&credential.user));
        eventually("the lease is gone", || !root.has_lease(&credential.lease));
    }
    assert_eq!(lookup(&server.as_token(&orphan)).status, 200);
    assert!(database.has_role(&kept.user));
    root.post("auth/token/revoke", json!({ "token": parent })).assert_status(204);
    root.post("auth/token/revoke", json!({})).assert_error(400, "missing token ID");
}

#[test]
fn revoke_orphan_leaves_the_children_alone() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let root = server.root();
    let parent = root.child(json!({}));
    let child = server.as_token(&parent).child(json!({}));
    let credential = server.as_token(&parent).credential("r");
    let path = |rights: &str| format!("path \"auth/token/revoke-orphan\" {{ capabilities = [{rights}] }}");
    server
        .with_policy("update", &path("\"update\""))
        .post("auth/token/revoke-orphan", json!({ "token": parent }))
        .assert_error(400, "root or sudo privileges required to revoke and orphan");
    assert_eq!(lookup(&server.as_token(&parent)).status, 200);
    let sudo = server.with_policy("sudo", &path("\"update\", \"sudo\""));
    sudo.post("auth/token/revoke-orphan", json!({ "token": parent })).assert_status(204);
    assert_eq!(lookup(&server.as_token(&parent)).status, 403);
    lookup(&server.as_token(&child)).assert_status(200).assert_at("/data/orphan", true);
    eventually("its own lease is gone", || !database.has_role(&credential.user));
    root.post("auth/token/revoke-orphan", json!({ "token": "s.AAAAAAAAAAAAAAAAAAAAAAAA" }))
        .assert_error(400, "token to revoke not found");
}

#[test]
fn a_tokens_end_is_its_leases_end() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let token = server.root().child(json!({ "ttl": "3s" }));
    let credential = server.as_token(&token).credential("r");
    assert_eq!(credential.ttl, 3600, "a lease is not shortened to its token's end");
    eventually("the PostgreSQL role is gone with the token", || !database.has_role(&credential.user));
}

#[test]
fn a_last_use_gets_no_lease() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    let token = server.root().child(json!({ "num_uses": 1 }));
    server.as_token(&token).get("database/creds/r").assert_error(
        400,
        "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
    );
    eventually("nothing is left", || server.root().list("sys/leases/lookup/database/creds/r").status == 404);
}

#[test]
fn tokens_in_urls_are_unsupported() {
    let server = Server::dev();
    let token = server.root().child(json!({}));
    server.root().get(&format!("auth/token/lookup/{token}")).assert_multi(404, "unsupported path");
}

#[test]
fn batch_tokens_are_the_fields() {
    batch_tokens(&Server::dev());
}

#[test]
fn batch_tokens_are_those_of_a_real_openbao() {
    let Some(bao) = Bao::find("batch tokens against a real OpenBao") else { return };
    batch_tokens(&Server::openbao(&bao));
}

fn batch_tokens(server: &Server) {
    let root = server.root();
    let all = "path \"auth/token/*\" { capabilities = [\"read\", \"update\", \"sudo\"] }";
    root.put("sys/policies/acl/p", json!({ "policy": all })).assert_status(204);
    let fields = json!({
        "type": "batch", "policies": ["p"], "ttl": "1h", "meta": { "a": "b" }, "renewable": true, "display_name": "x",
        "period": "0s", "explicit_max_ttl": "0s", "num_uses": 0,
    });
    let made = root.post("auth/token/create", fields).assert_status(200);
    let made = made.assert_at("/auth/accessor", "").assert_at("/auth/token_type", "batch");
    let made = made.assert_at("/auth/renewable", false).assert_at("/auth/orphan", false).assert_at("/auth/num_uses", 0);
    let token = made.assert_at("/auth/lease_duration", 3600).text("/auth/client_token");
    assert!(token.starts_with("b."));
    let client = server.as_token(&token);
    for found in [lookup(&client), root.post("auth/token/lookup", json!({ "token": token }))] {
        let found = found.assert_status(200).assert_at("/data/type", "batch").assert_at("/data/accessor", "");
        let found = found.assert_at("/data/id", token.as_str()).assert_at("/data/policies", json!(["default", "p"]));
        let found = found.assert_at("/data/creation_ttl", 3600).assert_at("/data/renewable", false);
        let found = found.assert_at("/data/meta", json!({ "a": "b" })).assert_at("/data/display_name", "token-x");
        let found = found.assert_at("/data/orphan", false).assert_at("/data/num_uses", 0);
        assert!((3540..=3600).contains(&found.number("/data/ttl")), "{found}");
    }
    root.post("sys/capabilities", json!({ "token": token, "paths": "auth/token/x" }))
        .assert_at("/data/capabilities", json!(["read", "sudo", "update"]));
    for (caller, path, body, why) in [
        (&client, "auth/token/renew-self", json!({}), "batch tokens cannot be renewed"),
        (&root, "auth/token/renew", json!({ "token": token }), "batch tokens cannot be renewed"),
        (&client, "auth/token/revoke-self", json!({}), "batch tokens cannot be revoked"),
        (&root, "auth/token/revoke", json!({ "token": token }), "batch tokens cannot be revoked"),
        (&root, "auth/token/revoke-orphan", json!({ "token": token }), "batch tokens cannot be revoked"),
        (&client, "auth/token/create", json!({}), "batch tokens cannot create more tokens"),
        (&root, "auth/token/create", json!({ "type": "batch" }), "batch tokens cannot be root tokens"),
        (
            &root,
            "auth/token/create",
            json!({ "type": "batch", "period": "1h" }),
            "batch tokens cannot have \"period\" set",
        ),
        (
            &root,
            "auth/token/create",
            json!({ "type": "batch", "num_uses": 3 }),
            "batch tokens cannot have \"num_uses\" set",
        ),
        (
            &root,
            "auth/token/create",
            json!({ "type": "batch", "explicit_max_ttl": "1h" }),
            "batch tokens cannot have \"explicit_max_ttl\" set",
        ),
    ] {
        caller.post(path, body).assert_error(400, why);
    }
    let (start, end) = token.split_at(token.len() / 2);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    lookup(&server.as_token(&format!("{start}{other}{}", &end[1..]))).assert_error(403, "permission denied");

    let parent = root.child(json!({ "policies": ["p"] }));
    let below = |path: &str| {
        let fields = json!({ "type": "batch", "policies": ["p"] });
        server.as_token(&server.as_token(&parent).post(path, fields).assert_status(200).text("/auth/client_token"))
    };
    let (child, orphan) = (below("auth/token/create"), below("auth/token/create-orphan"));
    lookup(&orphan).assert_at("/data/orphan", true);
    root.post("auth/token/revoke", json!({ "token": parent })).assert_status(204);
    lookup(&child).assert_error(403, "permission denied");
    lookup(&orphan).assert_status(200);

    let short = root.post("auth/token/create", json!({ "type": "batch", "policies": ["p"], "ttl": "2s" }));
    let short = server.as_token(&short.text("/auth/client_token"));
    lookup(&short).assert_status(200);
    eventually("it ends with its time", || lookup(&short).status == 403);
}

#[test]
fn no_credential_outlives_the_batch_token_that_asked_for_it() {
    let (server, database) = (Server::dev(), Database::fresh());
    server.connect(&database);
    server.role("r", json!({}));
    server
        .root()
        .put("sys/policies/acl/p", json!({ "policy": "path \"database/creds/r\" { capabilities = [\"read\"] }" }));
    for path in ["auth/token/create", "auth/token/create-orphan"] {
        let made = server.root().post(path, json!({ "type": "batch", "policies": ["p"], "ttl": "4s" }));
        let client = server.as_token(&made.text("/auth/client_token"));
        let credential = Credential::of(&client.get("database/creds/r"));
        assert!((1..=4).contains(&credential.ttl), "{}", credential.ttl);
        assert!(database.lets_in(&credential.user, &credential.password));
        let increment = json!({ "lease_id": credential.lease, "increment": "1h" });
        let renewed = server.root().post("sys/leases/renew", increment).assert_status(200);
        assert!(renewed.number("/lease_duration") <= 4, "{renewed}");
        eventually("the PostgreSQL role is gone with the token", || !database.has_role(&credential.user));
    }
}
