//! Requests that wait for somebody's approval, beside OpenBao's where that is given: contract.md §2.9.
//!
//! Start with [`Staged`], then [`walk`]; what has changed by the time of release is in `judged`, what waits and how in `waiting`.

mod judged;
mod waiting;

use std::thread;

use serde_json::{Value, json};

use super::identity::{beside, client, log_in, made, ours, policy, reads, user};
use crate::support::{Answer, Client, Credential, Database, Kind, Server, eventually};

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
