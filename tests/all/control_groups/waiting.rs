//! What waits, for how long, where and at what cost, and what cannot.

use std::thread;

use serde_json::json;

use super::{APPROVER, NOT_VALID, Staged, control, one, waits};
use crate::identity::{client, log_in, made, mounted, policy, user};
use crate::nodes::Nodes;
use crate::support::{Answer, Client, Durable, Server, eventually};

/// By what it holds back, by how long, and by who asks.
#[test]
fn what_waits_and_for_how_long() {
    let staged = Staged::ours();
    let Staged { server, alice, bob, carol, .. } = &staged;
    let root = server.root();
    root.put("k/a", json!({ "a": "1" })).assert_status(204);
    let writes = "control_group { factor \"w\" { controlled_capabilities = [\"update\", \"delete\"]\n\
                  identity { group_names = [\"approvers\"] approvals = 1 } } }";
    staged.guard(&[("k/a", writes), ("k/b", &control("ttl = \"2s\"", &[("s", "approvers", 1)]))]);
    alice.get("k/a").assert_at("/data/a", "1");
    // Without a length a request waits for a day.
    let answer = alice.put("k/a", json!({ "a": "2" })).assert_at("/wrap_info/ttl", 24 * 60 * 60);
    waits(answer).needs(alice, "w has 0 of 1");
    waits(alice.delete("k/a")).needs(alice, "w has 0 of 1");
    // Then it is gone.
    let waiting = waits(alice.put("k/b", json!({ "a": "2" })));
    waiting.approved_by(bob, true);
    let lookup = || server.nobody().post("sys/wrapping/lookup", json!({ "token": waiting.token }));
    lookup().assert_at("/data/creation_path", "k/b").assert_at("/data/creation_ttl", 2);
    eventually("it has ended", || lookup().status == 400);
    waiting.unwrap(alice).assert_error(400, NOT_VALID);
    root.get("k/b").assert_status(404);
    // Its end can be had earlier.
    let waiting = waits(alice.put("k/a", json!({ "a": "2" })));
    root.post("auth/token/revoke-accessor", json!({ "accessor": waiting.accessor })).assert_status(204);
    waiting.unwrap(alice).assert_error(400, NOT_VALID);

    // Two factors are two groups.
    let dave = staged.entity("dave");
    made(&root, "identity/group", json!({ "name": "owners", "member_entity_ids": [dave] }));
    let both = control("ttl = \"5m\"", &[("sec", "approvers", 1), ("own", "owners", 1)]);
    staged.guard(&[("k/a", &both)]);
    let waiting = waits(alice.get("k/a"));
    waiting.approved_by(bob, false);
    waiting.needs(alice, "own has 0 of 1");
    waiting.approved_by(&staged.dave, true);
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // Of groups within a group, and by the group's id.
    let group = &staged.group;
    made(&root, "identity/group", json!({ "name": "all", "member_group_ids": [group] }));
    let by_id = one(1).replace("group_names = [\"approvers\"]", &format!("group_ids = [\"{group}\"]"));
    staged.guard(&[("k/a", &control("ttl = 60", &[("x", "all", 1)])), ("k/b", &by_id)]);
    for path in ["k/a", "k/b"] {
        let waiting = waits(alice.get(path));
        waiting.approved_by(carol, true);
    }
    // Whoever asks may approve where the block says so.
    staged.guard(&[("k/a", &control("ttl = 60 self_auth_allowed = true", &[("x", "approvers", 1)]))]);
    let waiting = waits(alice.get("k/a"));
    waiting.approved_by(alice, true);
    waiting.unwrap(alice).assert_at("/data/a", "1");
    // Two policies on one path: what each of them asks for.
    policy(&root, "more", &format!("path \"k/a\" {{ capabilities = [\"read\"] {} }}", one(1)));
    staged.guard(&[("k/a", "")]);
    user(&root, "alice", "asker,approver,more");
    let both = client(server, "alice");
    waits(both.get("k/a")).needs(&both, "sec has 0 of 1");
}

/// Who cannot wait is told so, and nothing happens.
#[test]
fn what_cannot_wait_is_refused_with_the_reason() {
    let staged = Staged::ours();
    let Staged { server, alice, bob, .. } = &staged;
    let root = server.root();
    let held = one(1);
    staged.guard(&[("k/*", &held), ("sys/wrapping/wrap", &held), ("sys/control-group/request", &held)]);
    let nobody = server.as_token(&root.child(json!({ "policies": ["asker"] })));
    nobody.get("k/a").assert_error_has(403, "only a token that stands for an entity");
    let body = json!({ "password": "a-long-password", "token_policies": "asker", "token_type": "batch" });
    root.post("auth/userpass/users/batch", body).assert_status(204);
    client(server, "batch").get("k/a").assert_error_has(403, "a batch token cannot wait");
    let body = json!({ "password": "a-long-password", "token_policies": "asker", "token_num_uses": 1 });
    root.post("auth/userpass/users/once", body).assert_status(204);
    client(server, "once").get("k/a").assert_error_has(403, "the token's last use");
    alice.put("sys/wrapping/wrap", json!({ "a": "1" })).assert_error_has(403, "cannot wait itself");
    let big = "x".repeat(65 * 1024);
    alice.put("k/a", json!({ "a": big })).assert_error_has(403, "bytes of data");
    root.get("k/a").assert_status(404);
    // It stays where it is.
    let waiting = waits(alice.get("k/a"));
    root.put("sys/wrapping/rewrap", json!({ "token": waiting.token }))
        .assert_error_has(400, "waits for approval: it cannot be moved");
    // A token that wraps an answer stands for no request.
    let wrapped = root.bytes("GET", "sys/mounts", b"", &[("X-Vault-Wrap-TTL", "60")]);
    let body = json!({ "accessor": wrapped.text("/wrap_info/accessor") });
    bob.post("sys/control-group/request", body).assert_multi(400, "invalid wrapping token");
}

/// A use that a limited token takes by asking is taken, and so is the one for having it carried out.
#[test]
fn uses_are_counted_when_a_request_is_asked_for_and_when_it_is_released() {
    let staged = Staged::ours();
    let Staged { server, bob, .. } = &staged;
    let root = server.root();
    staged.guard(&[("k/a", &one(1))]);
    root.put("k/a", json!({ "a": "1" })).assert_status(204);
    let body = json!({ "password": "a-long-password", "token_policies": "asker", "token_num_uses": 2 });
    root.post("auth/userpass/users/twice", body).assert_status(204);
    let login = log_in(server, "twice").assert_status(200);
    let token = login.text("/auth/client_token");
    let waiting = waits(server.as_token(&token).get("k/a"));
    // Asking too early takes none.
    for _ in 0..3 {
        waiting.unwrap_alone(server).assert_error_has(400, "sec has 0 of 1");
    }
    waiting.approved_by(bob, true);
    // Nor does a refusal.
    staged.guard(&[("k/b", &one(1))]);
    for _ in 0..3 {
        waiting.unwrap_alone(server).assert_multi(403, "permission denied");
    }
    staged.guard(&[("k/a", &one(1))]);
    waiting.unwrap_alone(server).assert_at("/data/a", "1");
    root.post("auth/token/lookup", json!({ "token": token })).assert_status(403);
}

/// Approvals from two places at once count both, and what a server held before it was killed, another one has.
#[test]
fn requests_wait_on_all_nodes_and_outlive_them() {
    let nodes = Nodes::start(3);
    nodes.root(0).post("sys/auth/userpass", json!({ "type": "userpass" })).assert_status(204);
    let root = |at: usize| nodes.root(at);
    root(0).post("sys/mounts/k", json!({ "type": "kv" })).assert_status(204);
    policy(&root(0), "approver", APPROVER);
    policy(&root(1), "asker", &format!("path \"k/a\" {{ capabilities = [\"read\"] {} }}", one(2)));
    for (name, policies) in [("alice", "asker"), ("bob", "approver"), ("carol", "approver")] {
        user(&root(2), name, policies);
    }
    let logged_in = |at: usize, name: &str| log_in(&nodes.servers[at], name).assert_status(200);
    let (alice, bob, carol) = (logged_in(0, "alice"), logged_in(1, "bob"), logged_in(2, "carol"));
    let members = [&bob, &carol].map(|login| login.text("/auth/entity_id"));
    made(&root(1), "identity/group", json!({ "name": "approvers", "member_entity_ids": members }));
    root(0).put("k/a", json!({ "a": "1" })).assert_status(204);
    let at = |at: usize, login: &Answer| nodes.servers[at].as_token(&login.text("/auth/client_token"));
    for round in 0..4 {
        let waiting = waits(at(round % 3, &alice).get("k/a"));
        at((round + 1) % 3, &alice)
            .put("sys/wrapping/unwrap", json!({ "token": waiting.token }))
            .assert_error(400, "Request needs further approval: sec has 0 of 2");
        thread::scope(|scope| {
            for (node, login) in [(1, &bob), (2, &carol)] {
                let (waiting, client) = (&waiting, at((round + node) % 3, login));
                scope.spawn(move || waiting.authorize(&client).assert_status(200));
            }
        });
        if round == 0 {
            for server in &nodes.servers {
                server.kill();
            }
            for server in &nodes.servers {
                server.start();
                server.unseal();
            }
        }
        let clients: Vec<Client> = (0..6).map(|one| at(one % 3, &alice)).collect();
        let statuses: Vec<u16> = thread::scope(|scope| {
            let asked: Vec<_> = clients.iter().map(|client| scope.spawn(|| waiting.unwrap(client))).collect();
            asked.into_iter().map(|one| one.join().unwrap().status).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 400)), "{statuses:?}");
    }
    // An approval that is taken away on one server is missed on all.
    let waiting = waits(at(0, &alice).get("k/a"));
    waiting.approved_by(&at(1, &bob), false);
    waiting.approved_by(&at(2, &carol), true);
    root(1).post(&format!("identity/entity/id/{}", members[0]), json!({ "disabled": true })).assert_status(204);
    for node in 0..3 {
        waiting.needs(&at(node, &alice), "sec has 1 of 2");
    }
}

/// What is asked for, and by whose token, is in no log and not readable in the store; audit tells who approved.
#[test]
fn what_waits_is_kept_secret_and_told_to_audit() {
    let staged = Staged::on(mounted(Server::durable(&Durable::default())));
    let Staged { server, alice, bob, .. } = &staged;
    let root = server.root();
    let file = server.home().join("audit/main.log");
    root.put("sys/audit/file", json!({ "type": "file", "options": { "file_path": file } })).assert_status(204);
    staged.guard(&[("k/a", &one(1))]);
    let canary = "canary-of-a-request-that-waits";
    let waiting = waits(alice.put("k/a", json!({ "a": canary })));
    waiting.needs(alice, "sec has 0 of 1");
    waiting.approved_by(bob, true);
    waiting.unwrap(alice).assert_status(204);
    let audit = server.audit_text();
    let entity = staged.entity("bob");
    let approved = format!(
        "\"control_group\":{{\"factors\":[{{\"name\":\"sec\",\"approvals\":1,\"approved_by\":[\"{entity}\"]}}]}}"
    );
    for wanted in [&*approved, "\"approved_by\":[]", "\"path\":\"sys/control-group/authorize\""] {
        assert!(audit.contains(wanted), "{wanted} is not in {audit}");
    }
    for secret in [canary, &waiting.token] {
        assert!(!audit.contains(secret) && !server.log().contains(secret), "{secret}");
    }
}
