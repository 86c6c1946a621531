//! Requests that wait for somebody's approval, beside OpenBao's where that is given: contract.md §6.

use std::thread;

use serde_json::{Value, json};

use super::identity::{beside, client, log_in, made, mounted, ours, policy, reads, user};
use super::modules::{ALWAYS, bind, push, window};
use super::nodes::Nodes;
use crate::support::{
    Answer, Client, Credential, Database, Durable, Kind, Server, change_freeze, eventually, free_port,
};

const NOT_VALID: &str = "wrapping token is not valid or does not exist";
const APPROVER: &str = "path \"sys/control-group/*\" { capabilities = [\"update\"] }";

/// Who asks, who approves, and what holds them back.
pub(super) struct Staged {
    pub(super) server: Server,
    /// May ask for what [`Staged::guard`] guards, and approve, but not of what it asked for.
    alice: Client,
    /// Members of the group `approvers`.
    bob: Client,
    carol: Client,
    /// May approve, and is in no group.
    dave: Client,
    group: String,
}

impl Staged {
    pub(super) fn on(server: Server) -> Self {
        let root = server.root();
        root.post("sys/mounts/k", json!({ "type": "kv" })).assert_status(204);
        policy(&root, "approver", APPROVER);
        policy(&root, "asker", &reads("k/nothing"));
        for (name, policies) in
            [("alice", "asker,approver"), ("bob", "approver"), ("carol", "approver"), ("dave", "approver")]
        {
            user(&root, name, policies);
        }
        let entity = |name: &str| log_in(&server, name).assert_status(200).text("/auth/entity_id");
        let members = json!([entity("alice"), entity("bob"), entity("carol")]);
        let group = made(&root, "identity/group", json!({ "name": "approvers", "member_entity_ids": members }));
        let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| client(&server, name));
        Self { server, alice, bob, carol, dave, group }
    }

    fn ours() -> Self {
        Self::on(ours())
    }

    /// What alice may ask for.
    pub(super) fn guard(&self, rules: &[(&str, &str)]) {
        let rule = |(path, control): &(&str, &str)| {
            format!("path \"{path}\" {{ capabilities = [\"create\", \"read\", \"update\", \"delete\"] {control} }}\n")
        };
        policy(&self.server.root(), "asker", &rules.iter().map(rule).collect::<String>());
    }

    fn entity(&self, name: &str) -> String {
        log_in(&self.server, name).assert_status(200).text("/auth/entity_id")
    }

    fn leaves_the_group(&self, name: &str) {
        let gone = self.entity(name);
        let path = format!("identity/group/id/{}", self.group);
        let members = self.server.root().get(&path).at("/data/member_entity_ids");
        let left: Vec<&Value> = members.as_array().unwrap().iter().filter(|id| **id != *gone).collect();
        self.server.root().post(&path, json!({ "member_entity_ids": left })).assert_status(204);
    }
}

/// A block with one factor for each group: its name, how many, and what it holds back.
fn control(settings: &str, factors: &[(&str, &str, u32)]) -> String {
    let factor = |(name, group, approvals): &(&str, &str, u32)| {
        format!(
            "factor \"{name}\" {{ controlled_capabilities = [\"create\", \"read\", \"update\", \"delete\"]\n\
             identity {{ group_names = [\"{group}\"] approvals = {approvals} }} }}\n"
        )
    };
    format!("control_group {{ {settings}\n{} }}", factors.iter().map(factor).collect::<String>())
}

pub(super) fn one(approvals: u32) -> String {
    control("ttl = \"5m\"", &[("sec", "approvers", approvals)])
}

/// A request that came to wait.
pub(super) struct Waits {
    pub(super) token: String,
    pub(super) accessor: String,
}

#[track_caller]
pub(super) fn waits(answer: Answer) -> Waits {
    let answer = answer.assert_status(200).assert_at("/data", Value::Null).assert_at("/auth", Value::Null);
    Waits { token: answer.text("/wrap_info/token"), accessor: answer.text("/wrap_info/accessor") }
}

impl Waits {
    fn unwrap(&self, client: &Client) -> Answer {
        client.put("sys/wrapping/unwrap", json!({ "token": self.token }))
    }

    /// By its own token alone.
    fn unwrap_alone(&self, server: &Server) -> Answer {
        server.as_token(&self.token).request("PUT", "sys/wrapping/unwrap", None)
    }

    fn authorize(&self, client: &Client) -> Answer {
        client.post("sys/control-group/authorize", json!({ "accessor": self.accessor }))
    }

    #[track_caller]
    fn approved_by(&self, client: &Client, all: bool) {
        self.authorize(client).assert_status(200).assert_at("/data/approved", all).assert_at("/warnings", Value::Null);
    }

    fn shown(&self, client: &Client) -> Answer {
        client.post("sys/control-group/request", json!({ "accessor": self.accessor })).assert_status(200)
    }

    #[track_caller]
    fn needs(&self, client: &Client, missing: &str) {
        self.unwrap(client).assert_error(400, &format!("Request needs further approval: {missing}"));
    }
}

#[test]
fn a_request_waits_until_somebody_else_approves() {
    walk(&Staged::ours());
}

#[test]
fn a_real_openbao_has_requests_wait_alike() {
    if let Some(server) = beside("control groups, against a real OpenBao") {
        walk(&Staged::on(server));
    }
}

fn walk(staged: &Staged) {
    let Staged { server, alice, bob, carol, dave, .. } = staged;
    let root = server.root();
    let is_ours = server.kind() == Kind::Leasehold;
    // OpenBao says 500 to what a client did wrong, and of a token that waits it says that there is none.
    let refused = |answer: Answer, why: &str| drop(answer.assert_multi(if is_ours { 400 } else { 500 }, why));
    let early = |waiting: &Waits, client: &Client, missing: &str| {
        if is_ours {
            waiting.needs(client, missing);
        } else {
            waiting.unwrap(client).assert_error(400, NOT_VALID);
        }
    };
    staged.guard(&[("k/one", &one(1)), ("k/two", &one(2)), ("k/free", "")]);

    let answer = alice.put("k/one", json!({ "a": "1" }));
    answer
        .clone()
        .assert_at("/request_id", "")
        .assert_at("/wrap_info/ttl", 300)
        .assert_at("/wrap_info/creation_path", "k/one");
    let waiting = waits(answer);
    root.get("k/one").assert_status(404);
    early(&waiting, alice, "sec has 0 of 1");
    let alone = waiting.unwrap_alone(server).assert_status(400);
    assert_eq!(alone.body.contains("needs further approval"), is_ours, "{alone}");
    let shown = waiting
        .shown(bob)
        .assert_at("/data/approved", false)
        .assert_at("/data/authorizations", json!([]))
        .assert_at("/data/request_operation", if is_ours { "update" } else { "create" })
        .assert_at("/data/request_path", "k/one")
        .assert_at("/data/request_data", json!({ "a": "1" }))
        .assert_at("/data/request_entity/ID", staged.entity("alice"))
        .assert_at("/data/request_entity/aliases/0/name", "alice");
    assert!(!shown.body.contains(&waiting.token), "{shown}");

    // Who cannot.
    refused(waiting.authorize(alice), "token owner cannot be approver");
    refused(waiting.authorize(&root), "empty entity ID");
    let stranger = waiting.authorize(dave).assert_status(200).assert_at("/data/approved", false);
    if is_ours {
        stranger.assert_warning("No approval was recorded: this entity is in no group");
    }
    server
        .with_policy("nothing", &reads("k/nothing"))
        .post("sys/control-group/authorize", json!({ "accessor": "x" }))
        .assert_status(403);
    for route in ["request", "authorize"] {
        let ask = |body: Value| bob.post(&format!("sys/control-group/{route}"), body);
        ask(json!({})).assert_multi(400, "missing accessor");
        ask(json!({ "accessor": "nonsense" })).assert_multi(400, "invalid accessor");
    }
    early(&waiting, alice, "sec has 0 of 1");

    waiting.approved_by(bob, true);
    refused(waiting.authorize(bob), "approver has already authorized");
    waiting.shown(carol).assert_at("/data/approved", true).assert_at(
        "/data/authorizations",
        json!([{ "entity_id": staged.entity("bob"), "entity_name": "userpass-bob" }]),
    );
    root.get("k/one").assert_status(404);
    waiting.unwrap(alice).assert_status(204);
    root.get("k/one").assert_at("/data", json!({ "a": "1" }));
    if is_ours {
        // Once: OpenBao does it again for whoever asks.
        root.put("k/one", json!({ "a": "2" })).assert_status(204);
        waiting.unwrap(alice).assert_error(400, NOT_VALID);
        root.get("k/one").assert_at("/data", json!({ "a": "2" }));
        bob.post("sys/control-group/request", json!({ "accessor": waiting.accessor }))
            .assert_multi(400, "invalid accessor");
    }

    // A read is answered by what there is when it is let go, to whoever has the token.
    root.put("k/two", json!({ "a": "old" })).assert_status(204);
    let waiting = waits(alice.get("k/two"));
    waiting.approved_by(carol, false);
    early(&waiting, alice, "sec has 1 of 2");
    waiting.approved_by(bob, true);
    root.put("k/two", json!({ "a": "new" })).assert_status(204);
    waiting.unwrap_alone(server).assert_status(200).assert_at("/data", json!({ "a": "new" }));

    // What it was asked to be wrapped in, it comes in.
    let asked = alice.bytes("GET", "k/two", b"", &[("X-Vault-Wrap-TTL", "40s")]);
    let waiting = waits(asked.assert_at("/wrap_info/ttl", 300));
    waiting.approved_by(carol, false);
    waiting.approved_by(bob, true);
    let wrapped =
        waiting.unwrap(alice).assert_status(200).assert_at("/data", Value::Null).assert_at("/wrap_info/ttl", 40);
    let answer = alice.put("sys/wrapping/unwrap", json!({ "token": wrapped.text("/wrap_info/token") }));
    if is_ours {
        answer.assert_at("/data/a", "new");
    } else {
        // Nobody ever sees it.
        answer.assert_error(400, NOT_VALID);
    }

    alice.get("k/free").assert_status(404);
    // Root is held back by nothing.
    root.get("k/two").assert_at("/data/a", "new");
}

/// The credential is made when it is let go, and by nobody twice.
#[test]
fn a_credential_is_made_when_it_is_released() {
    let staged = Staged::ours();
    let Staged { server, alice, bob, .. } = &staged;
    let database = Database::fresh();
    server.connect(&database);
    server.role("r", json!({}));
    staged.guard(&[("database/creds/r", &one(1))]);
    let roles = || database.sql("select count(*) from pg_roles where rolname like 'v-%'");
    let none = roles();

    let waiting = waits(alice.get("database/creds/r"));
    waiting.approved_by(bob, true);
    assert_eq!(roles(), none);
    // Many ask at once: one gets it.
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| waiting.unwrap(alice))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let given: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(given.len(), 1, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.clone().assert_error(400, NOT_VALID);
    }
    let credential = Credential::of(given[0]);
    credential.login(&database);
    // It is the asker's: it ends with the token that asked.
    alice.post("auth/token/revoke-self", json!({})).assert_status(204);
    eventually("it is gone with its token", || roles() == none);
}

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
