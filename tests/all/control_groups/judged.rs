//! What has changed between asking and release counts: tokens, policies, approvals, addresses, mounts.

use serde_json::{Value, json};

use super::{APPROVER, Staged, control, one, waits};
use crate::identity::{client, made, mounted, policy, reads};
use crate::modules::{ALWAYS, bind, push, window};
use crate::support::{Client, Credential, Database, Durable, Server, change_freeze, free_port};

/// Everything is judged anew when a request is let go: the token, the entity, the policies, every approval.
#[test]
fn what_has_changed_since_counts() {
    let staged = Staged::ours();
    let Staged { server, alice, bob, carol, .. } = &staged;
    let root = server.root();
    let held = one(1);
    staged.guard(&[("k/a", &held)]);
    root.put("k/a", json!({ "a": "1" })).assert_status(204);
    let approved = || {
        let waiting = waits(alice.get("k/a"));
        waiting.approved_by(bob, true);
        waiting
    };

    // A policy that grants no more.
    let waiting = approved();
    staged.guard(&[("k/b", &held)]);
    waiting.unwrap(alice).assert_multi(403, "permission denied");
    // It waits on: what is granted again may still be let go.
    staged.guard(&[("k/a", &held)]);
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // One that asks for more.
    let waiting = approved();
    staged.guard(&[("k/a", &one(2))]);
    waiting.needs(alice, "sec has 1 of 2");
    waiting.approved_by(carol, true);
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // One that asks for nothing any more.
    staged.guard(&[("k/a", &held)]);
    let waiting = waits(alice.get("k/a"));
    staged.guard(&[("k/a", "")]);
    let vain = waiting.authorize(bob).assert_status(200).assert_at("/data/approved", true);
    vain.assert_warning("all that this entity could approve of is approved");
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // A parameter that is refused by now.
    staged.guard(&[("k/a", &held)]);
    let waiting = waits(alice.put("k/a", json!({ "b": "2" })));
    waiting.approved_by(bob, true);
    staged.guard(&[("k/a", &format!("denied_parameters = {{ \"b\" = [] }} {held}"))]);
    waiting.unwrap(alice).assert_multi(403, "permission denied");
    staged.guard(&[("k/a", &held)]);

    // The right to approve: by the token's policies, and by the entity's.
    let waiting = approved();
    policy(&root, "approver", &reads("k/none"));
    waiting.needs(alice, "sec has 0 of 1");
    policy(&root, "approver", APPROVER);
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // An approver who is disabled, and comes back.
    let waiting = approved();
    let of_bob = format!("identity/entity/id/{}", staged.entity("bob"));
    root.post(&of_bob, json!({ "disabled": true })).assert_status(204);
    waiting.needs(alice, "sec has 0 of 1");
    waiting.shown(carol).assert_at("/data/approved", false).assert_at("/data/authorizations", json!([]));
    root.post(&of_bob, json!({ "disabled": false })).assert_status(204);
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // One who has left the group, and one who is gone.
    let waiting = approved();
    staged.leaves_the_group("bob");
    waiting.needs(alice, "sec has 0 of 1");
    waiting.approved_by(carol, true);
    root.delete(&format!("identity/entity/id/{}", staged.entity("carol"))).assert_status(204);
    waiting.needs(alice, "sec has 0 of 1");
}

/// Two entities that were found to be one are one: neither two approvals, nor somebody else's.
#[test]
fn a_merged_entity_approves_once_and_not_of_its_own_requests() {
    let staged = Staged::ours();
    let Staged { server, alice, bob, carol, .. } = &staged;
    let root = server.root();
    staged.guard(&[("k/a", &one(2)), ("k/b", &one(1))]);
    root.put("k/a", json!({ "a": "1" })).assert_status(204);
    let merge = |from: &str, to: &str| {
        let alias = root.get(&format!("identity/entity/id/{from}")).text("/data/aliases/0/id");
        let body = json!({ "from_entity_ids": from, "to_entity_id": to, "conflicting_alias_ids_to_keep": alias });
        root.post("identity/entity/merge", body).assert_status(204);
    };
    let (of_alice, of_bob, of_carol) = (staged.entity("alice"), staged.entity("bob"), staged.entity("carol"));
    let waiting = waits(alice.get("k/a"));
    waiting.approved_by(bob, false);
    waiting.approved_by(carol, true);
    merge(&of_carol, &of_bob);
    waiting.needs(alice, "sec has 1 of 2");
    // Asked by alice, approved by bob, who turns out to be alice.
    let waiting = waits(alice.get("k/b"));
    waiting.approved_by(bob, true);
    merge(&of_bob, &of_alice);
    waiting.needs(alice, "sec has 0 of 1");
    waiting.authorize(bob).assert_multi(400, "token owner cannot be approver");
}

/// Whose token it is, is asked again, and so is where the request comes from.
#[test]
fn a_token_that_has_ended_has_nothing_carried_out() {
    let staged = Staged::ours();
    let Staged { server, bob, .. } = &staged;
    let root = server.root();
    staged.guard(&[("k/a", &one(1))]);
    root.put("k/a", json!({ "a": "1" })).assert_status(204);
    // Revoked.
    let alice = client(server, "alice");
    let waiting = waits(alice.get("k/a"));
    waiting.approved_by(bob, true);
    alice.post("auth/token/revoke-self", json!({})).assert_status(204);
    waiting.unwrap(bob).assert_error_has(403, "the token that asked for this has ended");
    waiting.authorize(bob).assert_status(200).assert_warning("the token that asked has ended");
    let waiting = waits(client(server, "alice").get("k/a"));
    // Of an entity that is disabled.
    let path = format!("identity/entity/id/{}", staged.entity("alice"));
    root.post(&path, json!({ "disabled": true })).assert_status(204);
    waiting.authorize(bob).assert_status(200).assert_warning("the token that asked has ended");
    waiting.unwrap(bob).assert_error_has(403, "the token that asked for this has ended");
    root.post(&path, json!({ "disabled": false })).assert_status(204);
}

/// The address of whoever has it carried out is the one that the token that asked must be used from, and modules see it, too.
#[test]
fn addresses_and_modules_are_asked_when_a_request_is_released() {
    let port = free_port();
    let settings = format!(
        "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n  \
         x_forwarded_for_authorized_addrs = \"127.0.0.1/32\"\n}}\n"
    );
    let staged = Staged::on(mounted(Server::durable(&Durable { settings, ..Durable::default() })));
    let Staged { server, alice, bob, .. } = &staged;
    let root = server.root();
    let database = Database::fresh();
    server.connect(&database);
    server.role("r", json!({}));
    staged.guard(&[("database/creds/r", &one(1))]);
    let body = json!({ "password": "a-long-password", "token_policies": "asker", "token_bound_cidrs": "192.0.2.0/24" });
    root.post("auth/userpass/users/erin", body).assert_status(204);
    let behind = Client::new(&format!("127.0.0.1:{port}"), None, server.secrets().clone());
    let from = |address: &str, method: &str, path: &str, token: &str, body: &Value| {
        let headers = [("X-Forwarded-For", address), ("X-Vault-Token", token)];
        behind.bytes(method, path, body.to_string().as_bytes(), &headers)
    };
    let login = json!({ "password": "a-long-password" });
    let login = from("192.0.2.7", "POST", "auth/userpass/login/erin", "", &login).assert_status(200);
    let erin = login.text("/auth/client_token");
    let waiting = waits(from("192.0.2.7", "GET", "database/creds/r", &erin, &json!({})));
    waiting.approved_by(bob, true);
    let token = json!({ "token": waiting.token });
    for elsewhere in
        [waiting.unwrap(alice), from("203.0.113.9", "PUT", "sys/wrapping/unwrap", &server.root_token(), &token)]
    {
        elsewhere.assert_error_has(403, "or cannot be used from this address");
    }
    from("192.0.2.9", "PUT", "sys/wrapping/unwrap", &waiting.token, &json!({})).assert_status(200).text("/lease_id");

    // A module that refuses by then, and one that shortens the lease.
    push(server, "freeze", &change_freeze()).assert_status(200);
    let waiting = waits(alice.get("database/creds/r"));
    waiting.approved_by(bob, true);
    bind(server, "freeze", "freeze", "hard-mandatory", window(ALWAYS.0, ALWAYS.1)).assert_status(204);
    waiting.unwrap(alice).assert_error_has(403, "release week");
    // It refuses who asks anew, before anybody has to approve of it.
    alice.get("database/creds/r").assert_error_has(403, "release week");
    bind(server, "freeze", "freeze", "hard-mandatory", window(1_000_000_000, 1_000_000_060)).assert_status(204);
    assert_eq!(Credential::of(&waiting.unwrap(alice)).ttl, 600);
}

/// What the reading of a rule must not weaken: a slash at the end, a mount that was replaced, a list's length.
#[test]
fn what_is_carried_out_is_what_was_approved() {
    let staged = Staged::ours();
    let Staged { server, alice, bob, dave, .. } = &staged;
    let root = server.root();
    root.put("k/a", json!({ "a": "1" })).assert_status(204);
    made(&root, "identity/group", json!({ "name": "owners", "member_entity_ids": [staged.entity("dave")] }));
    let owners = control("ttl = 60", &[("own", "owners", 1)]);

    // Where `x/` is served as `x`, the control groups of both must be met, and a refusal of either refuses at once.
    let read = |policies: &str| {
        policy(&root, "asker", policies);
        alice.get("sys/policies/acl/asker/")
    };
    let rule = |path: &str, control: &str| format!("path \"{path}\" {{ capabilities = [\"read\"] {control} }}\n");
    let waiting = waits(read(&(rule("sys/policies/acl/*", &one(1)) + &rule("sys/policies/acl/asker", &owners))));
    waiting.needs(alice, "sec has 0 of 1, own has 0 of 1");
    waiting.approved_by(bob, false);
    waiting.approved_by(dave, true);
    waiting.unwrap(alice).assert_at("/data/name", "asker");
    waits(read(&rule("sys/policies/acl/*", &one(1)))).needs(alice, "sec has 0 of 1");
    let waiting = waits(read(&(rule("sys/policies/acl/*", &one(1)) + &rule("sys/policies/acl/asker", ""))));
    waiting.approved_by(bob, true);
    let denied = "path \"sys/policies/acl/asker\" { capabilities = [\"deny\"] }";
    read(&(rule("sys/policies/acl/*", &one(1)) + denied)).assert_multi(403, "permission denied");

    // So it is with the case of a name that its method folds.
    let rules = rule("auth/userpass/users/*", &one(1)) + &rule("auth/userpass/users/bob", &owners);
    policy(&root, "asker", &rules);
    let waiting = waits(alice.get("auth/userpass/users/BOB"));
    waiting.needs(alice, "sec has 0 of 1, own has 0 of 1");
    waiting.approved_by(bob, false);
    waiting.approved_by(dave, true);
    waiting.unwrap(alice).assert_status(200);

    // Another mount at the same path is not what was asked.
    staged.guard(&[("k/a", &one(1))]);
    let waiting = waits(alice.get("k/a"));
    waiting.approved_by(bob, true);
    root.delete("sys/mounts/k").assert_status(204);
    root.post("sys/mounts/k", json!({ "type": "kv" })).assert_status(204);
    root.put("k/a", json!({ "a": "of another one" })).assert_status(204);
    waiting.unwrap(alice).assert_error_has(400, "belongs to another mount");

    // Who approves sees how the answer is to be wrapped.
    let asked = alice.bytes("GET", "k/a", b"", &[("X-Vault-Wrap-TTL", "40s")]);
    waits(asked).shown(bob).assert_at("/data/request_wrap_ttl", 40);
    // And what was asked for as it came: `max` is as much as the policy grants by then.
    let pages = format!("path \"k/*\" {{ capabilities = [\"list\"] pagination_limit = 2 {} }}", one(1))
        .replace("\"create\", \"read\"", "\"list\", \"read\"");
    policy(&root, "asker", &pages);
    let waiting = waits(alice.get("k/?list=true&limit=max"));
    waiting.shown(bob).assert_at("/data/request_data/limit", "max");
    staged.guard(&[("k/a", &one(1))]);
    // Nothing can be kept under the token of a request that waits, and it stays good.
    let waiting = waits(alice.get("k/a"));
    let own = server.as_token(&waiting.token);
    own.put("cubbyhole/response", json!({ "x": "y" })).assert_multi(403, "permission denied");
    own.get("auth/token/lookup-self").assert_multi(403, "permission denied");
    // Once there are enough, no more are kept.
    waiting.approved_by(bob, true);
    let more = waiting.authorize(&staged.carol).assert_status(200).assert_at("/data/approved", true);
    more.assert_warning("all that this entity could approve of is approved");
    waiting.shown(bob).assert_at("/data/authorizations/1", Value::Null);
    waiting.unwrap(alice).assert_status(200);

    // The right to approve may ask for the field that every approval has.
    let text =
        "path \"sys/control-group/authorize\" { capabilities = [\"update\"] required_parameters = [\"accessor\"] }";
    policy(&root, "approver", text);
    waits(alice.get("k/a")).approved_by(bob, true);
}
