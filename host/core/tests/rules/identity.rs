//! Entities, aliases and groups: whose rights count when, what a fault leaves, and what two servers make of one name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use leasehold_core::lease::LeaseError;
use leasehold_core::lease::issue::IssueRequest;
use leasehold_core::seams::storage::{Key, Storage};
use leasehold_core::token::{MintError, NewToken, TokenKind};
use leasehold_model::{Operation, TokenId, Ttl};
use serde_json::{Map, Value, json};

use super::support::faults::{FAULTS, Gate};
use super::support::node::plan;
use super::support::server::{Answer, ROOT, Server, refusal, token_of};

async fn with_door(server: Server) -> Arc<Server> {
    server.root("sys/auth/door", json!({ "type": "scripted" })).await.unwrap();
    Arc::new(server)
}

async fn one() -> Arc<Server> {
    with_door(Server::start().await).await
}

/// What they do at once is mixed step by step.
async fn two() -> (Arc<Server>, Arc<Server>) {
    let one = with_door(Server::start_shared().await).await;
    let other = Arc::new(one.beside().await);
    for server in [&one, &other] {
        server.process.yields.store(true, Ordering::SeqCst);
    }
    (one, other)
}

fn data(answer: Answer) -> Map<String, Value> {
    answer.unwrap().data.unwrap()
}

async fn log_in(server: &Server, name: &str) -> Answer {
    server.call(None, Operation::Update, &format!("auth/door/login/{name}"), json!({})).await
}

async fn token(server: &Server, name: &str) -> String {
    token_of(&log_in(server, name).await.unwrap())
}

async fn entity_of(server: &Server, token: &str) -> String {
    server.lookup(token).await.unwrap()["entity_id"].as_str().unwrap().to_owned()
}

async fn made(server: &Server, path: &str, fields: Value) -> String {
    data(server.root(path, fields).await)["id"].as_str().unwrap().to_owned()
}

async fn delete(server: &Server, path: &str) -> Answer {
    server.call(Some(ROOT), Operation::Delete, path, Value::Null).await
}

async fn accessor(server: &Server) -> String {
    data(server.read(ROOT, "sys/auth/door").await)["accessor"].as_str().unwrap().to_owned()
}

async fn may_read(server: &Server, token: &str) -> bool {
    server.read(token, "db/creds/app").await.is_ok()
}

async fn keys_below(server: &Server, prefix: &str) -> BTreeSet<String> {
    let keys = server.process.store.scan(&Key::new(prefix), None, 10_000).await.unwrap();
    keys.iter().map(|key| key.as_str().to_owned()).collect()
}

/// Every row by which an entity or a group is found belongs to one that is there, and none is missing.
async fn assert_whole(server: &Server, context: &str) {
    let listed = |answer: Answer| match answer {
        Ok(answer) => answer.data.unwrap()["keys"].as_array().unwrap().clone(),
        Err(_) => Vec::new(),
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut wanted = BTreeSet::new();
    for id in listed(server.call(Some(ROOT), Operation::List, "identity/entity/id/", Value::Null).await) {
        let entity = data(server.read(ROOT, &format!("identity/entity/id/{}", text(&id))).await);
        let (id, name) = (text(&id), text(&entity["name"]));
        wanted.insert(format!("identity/entity/{id}"));
        wanted.insert(format!("identity/name/{}", hex::encode(name.to_lowercase())));
        wanted.insert(format!("identity/listed/{}", hex::encode(&name)));
        for alias in entity["aliases"].as_array().unwrap() {
            let (mount, name) = (text(&alias["mount_accessor"]), text(&alias["name"]).to_lowercase());
            wanted.insert(format!("identity/alias/{mount}/{}", hex::encode(name)));
            wanted.insert(format!("identity/alias-id/{}", text(&alias["id"])));
        }
        if entity["disabled"] == true {
            wanted.insert(format!("identity/disabled/{id}"));
        }
        for group in entity["direct_group_ids"].as_array().unwrap() {
            let shown = data(server.read(ROOT, &format!("identity/group/id/{}", text(group))).await);
            wanted.insert(match shown["type"] == "external" {
                true => {
                    let (mount, key) = (text(&shown["alias"]["mount_accessor"]), text(&shown["alias"]["name"]));
                    format!("identity/vouched/{mount}/{}/{id}", hex::encode(key.to_lowercase()))
                }
                false => format!("identity/member/{}/{id}", text(group)),
            });
        }
        for merged in entity["merged_entity_ids"].as_array().into_iter().flatten() {
            wanted.insert(format!("identity/merged/{}", text(merged)));
        }
    }
    for id in listed(server.call(Some(ROOT), Operation::List, "identity/group/id/", Value::Null).await) {
        let group = data(server.read(ROOT, &format!("identity/group/id/{}", text(&id))).await);
        wanted.insert(format!("identity/group-name/{}", hex::encode(text(&group["name"]).to_lowercase())));
        if let Some(alias) = group["alias"].as_object().filter(|alias| !alias.is_empty()) {
            let (mount, name) = (text(&alias["mount_accessor"]), text(&alias["name"]).to_lowercase());
            wanted.insert(format!("identity/group-alias/{mount}/{}", hex::encode(name)));
            wanted.insert(format!("identity/group-alias-id/{}", text(&alias["id"])));
        }
    }
    let mut found = keys_below(server, "identity/").await;
    // What a mount said of a group that has lost its name is kept until the next login.
    found.retain(|key| !key.starts_with("identity/vouched/") || wanted.contains(key));
    assert_eq!(found, wanted, "{context}");
}

#[tokio::test(start_paused = true)]
async fn whoever_logs_in_is_one_entity_however_often_and_on_whichever_server() {
    let (one, other) = two().await;
    let logins: Vec<_> = (0..6)
        .map(|n| {
            let server = if n % 2 == 0 { one.clone() } else { other.clone() };
            let name = if n < 3 { "slow-Bob" } else { "slow-bob" };
            tokio::spawn(async move { token(&server, name).await })
        })
        .collect();
    for _ in 0..6 {
        tokio::task::yield_now().await;
    }
    one.method.door.add_permits(6);
    other.method.door.add_permits(6);
    let mut entities = BTreeSet::new();
    for login in logins {
        entities.insert(entity_of(&one, &login.await.unwrap()).await);
    }
    assert_eq!(entities.len(), 1, "{entities:?}");
    assert_ne!(entity_of(&one, &token(&one, "carol").await).await, *entities.first().unwrap());
    assert_whole(&one, "after logins").await;
}

#[tokio::test(start_paused = true)]
async fn what_an_entity_and_its_groups_give_counts_with_the_next_request_on_every_server() {
    let (one, other) = two().await;
    one.policy("app", "db/creds/app: read").await;
    let bob = token(&one, "bob").await;
    let id = entity_of(&one, &bob).await;
    let inner = made(&one, "identity/group", json!({ "name": "inner" })).await;
    made(&one, "identity/group", json!({ "name": "outer", "member_group_ids": [inner], "policies": ["app"] })).await;
    let entity = format!("identity/entity/id/{id}");
    for round in 0..5 {
        for (give, take) in [
            ((entity.as_str(), json!({ "policies": ["app"] })), (entity.as_str(), json!({ "policies": [] }))),
            (
                ("identity/group/name/inner", json!({ "member_entity_ids": [id] })),
                ("identity/group/name/inner", json!({ "member_entity_ids": [] })),
            ),
        ] {
            assert!(!may_read(&other, &bob).await, "round {round}: before {}", give.0);
            one.root(give.0, give.1).await.unwrap();
            assert!(may_read(&other, &bob).await, "round {round}: after {}", give.0);
            one.root(take.0, take.1).await.unwrap();
            assert!(!may_read(&other, &bob).await, "round {round}: after {} was taken", take.0);
        }
    }
    one.root("identity/group/name/inner", json!({ "member_entity_ids": [id] })).await.unwrap();
    assert!(may_read(&other, &bob).await);
    assert_eq!(one.lookup(&bob).await.unwrap()["identity_policies"], json!(["app"]));
    assert_eq!(one.lookup(&bob).await.unwrap()["policies"], json!(["default"]));
    // The outer group lets go of the inner one; then the group is gone.
    one.root("identity/group/name/outer", json!({ "member_group_ids": [] })).await.unwrap();
    assert!(!may_read(&other, &bob).await);
    one.root("identity/group/name/outer", json!({ "member_group_ids": [inner] })).await.unwrap();
    assert!(may_read(&other, &bob).await);
    delete(&one, "identity/group/name/inner").await.unwrap();
    assert!(!may_read(&other, &bob).await);
    assert_whole(&other, "after the group has gone").await;
}

/// A right that a group gave ends while a write is under way that was decided by it: the write is decided again, by what holds then.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_tried_again_is_decided_by_the_groups_of_then() {
    let (one, other) = two().await;
    let path = "sys/policies/acl/mine";
    one.policy("app", &format!("{path}: create, update")).await;
    let bob = token(&one, "bob").await;
    let id = entity_of(&one, &bob).await;
    let group = json!({ "name": "g", "policies": ["app"], "member_entity_ids": [id] });
    let group = format!("identity/group/id/{}", made(&one, "identity/group", group).await);
    let gate = Gate { at: "/mine", ..Gate::default() };
    *other.process.conflict.lock().unwrap() = Some(gate.clone());
    let tried = {
        let (other, bob) = (other.clone(), bob.clone());
        tokio::spawn(async move { other.update(&bob, path, json!({ "policy": "x: read" })).await })
    };
    gate.reached.notified().await;
    one.root(&group, json!({ "policies": [] })).await.unwrap();
    gate.go_on.notify_one();
    assert_eq!(refusal(tried.await.unwrap()), "Denied: permission denied", "written by a right that had ended");
    assert_eq!(refusal(one.read(ROOT, path).await), "NotFound: not found");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_worth_nothing_without_its_entity() {
    let (one, other) = two().await;
    one.policy("default", "auth/token/lookup-self: read").await;
    for kind in ["bob", "batch"] {
        let held = token(&one, kind).await;
        let path = format!("identity/entity/id/{}", entity_of(&one, &held).await);
        let lookup = |server: Arc<Server>| {
            let held = held.clone();
            async move { server.read(&held, "auth/token/lookup-self").await }
        };
        assert!(lookup(other.clone()).await.is_ok(), "{kind}");
        one.root(&path, json!({ "disabled": true })).await.unwrap();
        assert_eq!(refusal(lookup(other.clone()).await), "BadToken: permission denied", "{kind}");
        assert_eq!(refusal(log_in(&other, kind).await), "LoginDenied: permission denied", "{kind}");
        let asked = json!({ "token": held, "path": "x" });
        assert_eq!(refusal(other.root("sys/capabilities", asked).await), "InvalidMulti: invalid token", "{kind}");
        one.root(&path, json!({ "disabled": false })).await.unwrap();
        assert!(lookup(other.clone()).await.is_ok(), "{kind}");
        delete(&one, &path).await.unwrap();
        assert_eq!(refusal(lookup(other.clone()).await), "BadToken: permission denied", "{kind}");
        let again = token(&other, kind).await;
        assert_ne!(format!("identity/entity/id/{}", entity_of(&one, &again).await), path, "{kind}: it is another one");
    }
}

/// Between the look at the entity and the token's commit there is a moment.
#[tokio::test(start_paused = true)]
async fn no_token_is_made_for_an_entity_that_is_gone() {
    let server = one().await;
    let unsealed = server.core.unsealed().unwrap();
    let id = entity_of(&server, &token(&server, "bob").await).await;
    let mint = async || {
        let new = NewToken {
            kind: TokenKind::Service,
            parent: None,
            mount: None,
            policies: Vec::new(),
            path: "auth/door/login/bob".to_owned(),
            display_name: "door-bob".to_owned(),
            meta: None,
            role: None,
            num_uses: 0,
            created_at: server.clock.now(),
            ttl: Ttl::from_secs(60),
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            agreed_end: None,
            renewable: true,
            bound_cidrs: Vec::new(),
            entity: Some(id.clone()),
            login: None,
            id: None,
            wraps: None,
        };
        unsealed.tokens.mint(new).await
    };
    assert!(mint().await.is_ok());
    server.root(&format!("identity/entity/id/{id}"), json!({ "disabled": true })).await.unwrap();
    assert!(matches!(mint().await, Err(MintError::Orphaned)), "it is disabled");
    server.root(&format!("identity/entity/id/{id}"), json!({ "disabled": false })).await.unwrap();
    assert!(mint().await.is_ok());
    delete(&server, &format!("identity/entity/id/{id}")).await.unwrap();
    let refused = mint().await;
    assert!(matches!(refused, Err(MintError::Orphaned)), "{refused:?}");
}

/// A request that was let in before its entity was disabled gets no lease when that was answered.
#[tokio::test(start_paused = true)]
async fn no_lease_begins_for_an_entity_that_is_disabled() {
    for ends in [json!({ "disabled": true }), Value::Null] {
        let (one, other) = two().await;
        one.policy("default", "db/creds/app: read").await;
        let bob = token(&one, "bob").await;
        let path = format!("identity/entity/id/{}", entity_of(&one, &bob).await);
        assert!(may_read(&other, &bob).await);
        let before = other.target.roles().len();
        let unsealed = other.core.unsealed().unwrap();
        let caller = unsealed.tokens.recognise(&TokenId::new(bob.as_str()), None).await.unwrap();
        let entity = caller.record.entity.clone();
        match ends {
            Value::Null => delete(&one, &path).await.unwrap(),
            ref disabled => one.root(&path, disabled.clone()).await.unwrap(),
        };
        let mount = unsealed.mounts.by_path("db/").unwrap();
        let plan = plan(Ttl::from_secs(60), Ttl::from_secs(60));
        let holder = caller.leaseholder();
        let order = IssueRequest {
            path: "db/creds/app",
            holder,
            entity: entity.as_deref(),
            mount: &mount,
            plan,
            ceiling: None,
        };
        let refused = unsealed.leases.issue(order).await.map(drop);
        assert!(matches!(refused, Err(LeaseError::TokenGone)), "{refused:?}");
        assert_eq!(other.target.roles().len(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn children_stand_for_whom_their_parent_stands_for_and_orphans_for_nobody() {
    let server = one().await;
    server.policy("app", "auth/token/*: update, sudo\ndb/creds/app: read").await;
    let bob = token(&server, "bob").await;
    let id = entity_of(&server, &bob).await;
    server.root(&format!("identity/entity/id/{id}"), json!({ "policies": ["app"] })).await.unwrap();
    // What the entity gives is not the token's to give away: the child would keep it.
    server.policy("plain", "auth/token/create: update").await;
    let ann = token(&server, "ann").await;
    let her = format!("identity/entity/id/{}", entity_of(&server, &ann).await);
    server.root(&her, json!({ "policies": ["plain"] })).await.unwrap();
    let refused = refusal(server.update(&ann, "auth/token/create", json!({ "policies": ["plain"] })).await);
    assert_eq!(refused, "Invalid: child policies must be subset of parent");
    server.update(&ann, "auth/token/create", json!({ "policies": ["default"] })).await.unwrap();

    for (path, fields, wanted) in [
        ("auth/token/create", json!({}), id.as_str()),
        ("auth/token/create", json!({ "policies": ["app"] }), &id),
        ("auth/token/create", json!({ "type": "batch" }), &id),
        ("auth/token/create", json!({ "no_parent": true }), ""),
        ("auth/token/create-orphan", json!({}), ""),
    ] {
        let answer = server.update(&bob, path, fields.clone()).await.unwrap();
        let shown = answer.auth.clone().unwrap();
        assert_eq!(entity_of(&server, &token_of(&answer)).await, wanted, "{path} {fields}");
        assert_eq!(shown.identity.map(|identity| identity.entity_id).unwrap_or_default(), wanted, "{path} {fields}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_role_lends_only_the_aliases_that_it_names() {
    let server = one().await;
    server.policy("app", "db/creds/app: read").await;
    let role = json!({ "allowed_entity_aliases": ["dev-*"], "allowed_policies": ["default"] });
    server.root("auth/token/roles/r", role).await.unwrap();
    let before = keys_below(&server, "identity/").await;
    let asked = |alias: &str| json!({ "entity_alias": alias });
    let refused = refusal(server.root("auth/token/create/r", asked("root")).await);
    assert_eq!(refused, "Invalid: invalid 'entity_alias' value");
    // What is refused for another reason leaves no entity behind either.
    let both = json!({ "entity_alias": "dev-x", "id": "s.mine" });
    assert!(server.root("auth/token/create/r", both).await.is_err());
    assert_eq!(keys_below(&server, "identity/").await, before);
    let first = token_of(&server.root("auth/token/create/r", asked("Dev-Ann")).await.unwrap());
    let again = token_of(&server.root("auth/token/create/r", asked("dev-ann")).await.unwrap());
    let id = entity_of(&server, &first).await;
    assert_eq!(entity_of(&server, &again).await, id);
    assert!(!may_read(&server, &first).await);
    server.root(&format!("identity/entity/id/{id}"), json!({ "policies": ["app"] })).await.unwrap();
    assert!(may_read(&server, &first).await);
}

#[tokio::test(start_paused = true)]
async fn an_external_group_is_whom_its_mount_says_at_the_last_login() {
    let (one, other) = two().await;
    one.policy("app", "db/creds/app: read").await;
    let mount = accessor(&one).await;
    let group = made(&one, "identity/group", json!({ "name": "g", "type": "external", "policies": ["app"] })).await;
    let alias = json!({ "name": "ops", "mount_accessor": mount, "canonical_id": group });
    let alias = made(&one, "identity/group-alias", alias).await;
    let bob = token(&other, "bob").await;
    assert!(!may_read(&one, &bob).await);
    let in_it = token(&other, "bob.ops.nobody-knows").await;
    assert!(may_read(&one, &in_it).await && may_read(&other, &bob).await, "it is of the entity, not of the token");
    token(&one, "bob.other").await;
    assert!(!may_read(&other, &in_it).await);
    token(&one, "bob.ops").await;
    assert!(may_read(&other, &in_it).await);
    assert_whole(&one, "in an external group").await;
    let text = "Invalid: member entities can't be set manually for external groups";
    let path = format!("identity/group/id/{group}");
    assert_eq!(refusal(one.root(&path, json!({ "member_entity_ids": [] })).await), text);
    // Nobody says any more who is in it.
    delete(&one, &format!("identity/group-alias/id/{alias}")).await.unwrap();
    assert!(!may_read(&other, &in_it).await);
}

/// Rights that a mount vouched for are of the name for which it did, of that group, and of that mount.
#[tokio::test(start_paused = true)]
async fn what_a_mount_said_of_one_name_counts_for_no_other() {
    let (one, other) = two().await;
    one.policy("app", "db/creds/app: read").await;
    let mount = accessor(&one).await;
    let group = made(&one, "identity/group", json!({ "name": "g", "type": "external", "policies": ["app"] })).await;
    let spare = made(&one, "identity/group", json!({ "name": "spare", "type": "external" })).await;
    let named = |name: &str, group: &str| json!({ "name": name, "mount_accessor": mount, "canonical_id": group });
    let alias = made(&one, "identity/group-alias", named("ops", &group)).await;
    let again = async || {
        let token = token(&other, "bob.ops").await;
        assert!(may_read(&one, &token).await);
        token
    };
    let bob = again().await;
    let id = entity_of(&one, &bob).await;
    let own = data(one.read(ROOT, &format!("identity/entity/id/{id}")).await)["aliases"][0]["id"].clone();
    let own = format!("identity/entity-alias/id/{}", own.as_str().unwrap());
    one.root(&own, json!({ "name": "alice" })).await.unwrap();
    assert!(!may_read(&other, &bob).await, "nobody has said anything of Alice");
    one.root(&own, json!({ "name": "bob" })).await.unwrap();
    assert!(!may_read(&other, &bob).await);

    let bob = again().await;
    let path = format!("identity/group-alias/id/{alias}");
    one.root(&path, json!({ "name": "others" })).await.unwrap();
    assert!(!may_read(&other, &bob).await, "of this name he was not said to be");
    one.root(&path, json!({ "name": "ops" })).await.unwrap();
    // The name goes to another group, and can be found there on every server.
    one.root(&path, json!({ "canonical_id": spare })).await.unwrap();
    assert!(!may_read(&other, &bob).await);
    for server in [&one, &other] {
        assert_eq!(data(server.read(ROOT, &path).await)["canonical_id"], spare);
        let by_name = json!({ "alias_name": "ops", "alias_mount_accessor": mount });
        assert_eq!(data(server.root("identity/lookup/group", by_name).await)["id"], spare);
    }
    one.root(&path, json!({ "canonical_id": group })).await.unwrap();
    let bob = again().await;
    // His token is of another mount, which stays.
    one.root("sys/auth/hall", json!({ "type": "scripted" })).await.unwrap();
    let hall = data(one.read(ROOT, "sys/auth/hall").await)["accessor"].clone();
    let elsewhere = json!({ "name": "bob", "mount_accessor": hall, "canonical_id": entity_of(&one, &bob).await });
    one.root("identity/entity-alias", elsewhere).await.unwrap();
    let answer = one.call(None, Operation::Update, "auth/hall/login/bob", json!({})).await;
    let hall = token_of(&answer.unwrap());
    assert!(may_read(&other, &hall).await);
    delete(&one, "sys/auth/door").await.unwrap();
    assert!(!may_read(&other, &hall).await, "the mount that said so is gone");
}

/// Names that groups give up and others take are found where they are, in whichever order a server hears of it.
#[tokio::test(start_paused = true)]
async fn a_name_that_passes_from_group_to_group_is_not_lost() {
    let (one, other) = two().await;
    let a = made(&one, "identity/group", json!({ "name": "a" })).await;
    let b = made(&one, "identity/group", json!({ "name": "b" })).await;
    for round in 0..8 {
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        one.root(&format!("identity/group/id/{first}"), json!({ "name": "aside" })).await.unwrap();
        one.root(&format!("identity/group/id/{second}"), json!({ "name": "a" })).await.unwrap();
        one.root(&format!("identity/group/id/{first}"), json!({ "name": "b" })).await.unwrap();
        for server in [&one, &other] {
            for (name, id) in [("a", second), ("b", first)] {
                assert_eq!(
                    data(server.read(ROOT, &format!("identity/group/name/{name}")).await)["id"],
                    **id,
                    "{round}"
                );
            }
        }
    }
}

/// Many members leave in many commits; who follows this server waits for none of them.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_large_group_holds_up_nobody() {
    let one = one().await;
    let mut ids = Vec::new();
    for n in 0..1_200 {
        ids.push(made(&one, "identity/entity", json!({ "name": format!("e{n}") })).await);
    }
    let group = made(&one, "identity/group", json!({ "name": "g", "member_entity_ids": ids })).await;
    assert_whole(&one, "a large group").await;
    one.process.yields.store(true, Ordering::SeqCst);
    let deleted = {
        let (one, path) = (one.clone(), format!("identity/group/id/{group}"));
        tokio::spawn(async move { delete(&one, &path).await })
    };
    while one.read(ROOT, "identity/group/name/g").await.is_ok() {
        tokio::task::yield_now().await;
    }
    one.root("identity/group", json!({ "name": "next" })).await.unwrap();
    assert!(!deleted.is_finished(), "its members are still leaving");
    deleted.await.unwrap().unwrap();
    assert_whole(&one, "without its large group").await;
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_merged_entity_stand_for_the_one_that_stays() {
    let server = one().await;
    server.policy("app", "db/creds/app: read").await;
    let (bob, ann) = (token(&server, "bob").await, token(&server, "ann").await);
    let (from, into) = (entity_of(&server, &bob).await, entity_of(&server, &ann).await);
    let group =
        made(&server, "identity/group", json!({ "name": "g", "policies": ["app"], "member_entity_ids": [from] })).await;
    let merge =
        |kept: Value| json!({ "from_entity_ids": [from], "to_entity_id": into, "conflicting_alias_ids_to_keep": kept });
    // Both have an alias at the same mount.
    let refused = refusal(server.root("identity/entity/merge", merge(json!([]))).await);
    assert!(refused.contains("aliases with the same mount accessor"), "{refused}");
    let aliases = data(server.read(ROOT, &format!("identity/entity/id/{from}")).await)["aliases"].clone();
    server.root("identity/entity/merge", merge(json!([aliases[0]["id"]]))).await.unwrap();
    for token in [&bob, &ann] {
        assert!(may_read(&server, token).await);
    }
    let shown = data(server.read(ROOT, &format!("identity/entity/id/{into}")).await);
    assert_eq!((&shown["direct_group_ids"], &shown["merged_entity_ids"]), (&json!([group]), &json!([from])));
    assert_eq!(shown["aliases"].as_array().unwrap().len(), 1);
    assert_eq!(refusal(server.read(ROOT, &format!("identity/entity/id/{from}")).await), "NotFound: not found");
    assert_eq!(entity_of(&server, &token(&server, "bob").await).await, into);
    assert_ne!(entity_of(&server, &token(&server, "ann").await).await, into, "that alias was given up");
    assert_whole(&server, "merged").await;
    delete(&server, &format!("identity/entity/id/{into}")).await.unwrap();
    assert_eq!(refusal(server.read(&bob, "auth/token/lookup-self").await), "BadToken: permission denied");
    assert_whole(&server, "deleted").await;
}

/// Two halves of a circle on two servers at once.
#[tokio::test(start_paused = true)]
async fn groups_close_no_circle_and_share_no_name_on_two_servers() {
    for _ in 0..10 {
        let (one, other) = two().await;
        let a = made(&one, "identity/group", json!({ "name": "a" })).await;
        let b = made(&one, "identity/group", json!({ "name": "b" })).await;
        let half = |server: Arc<Server>, group: &str, inner: &str| {
            let (path, fields) = (format!("identity/group/id/{group}"), json!({ "member_group_ids": [inner] }));
            tokio::spawn(async move { server.root(&path, fields).await })
        };
        let (first, second) = (half(one.clone(), &a, &b), half(other.clone(), &b, &a));
        let done = [first.await.unwrap(), second.await.unwrap()];
        assert_eq!(done.iter().filter(|one| one.is_ok()).count(), 1, "{done:?}");
        let refused = done.into_iter().find(Result::is_err).map(refusal).unwrap();
        assert!(refused.starts_with("Invalid: cyclic relationship detected"), "{refused}");
        for what in ["identity/group", "identity/entity"] {
            let name = |server: Arc<Server>| {
                let fields = json!({ "name": "Same", "metadata": {} });
                tokio::spawn(async move { server.root(what, fields).await })
            };
            let (first, second) = (name(one.clone()), name(other.clone()));
            let made = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
            assert_eq!(made.iter().filter(|answer| answer.data.is_some()).count(), 1, "{what}: one makes, one changes");
        }
        assert_whole(&one, "after races").await;
    }
}

/// Two holders of the same policies get what their own entity says, and nobody a value that another one has.
#[tokio::test(start_paused = true)]
async fn templates_are_filled_in_for_each_entity_alone() {
    let server = one().await;
    server.policy("default", "{{identity.entity.metadata.path}}: read\ndb/{{identity.groups.names.g.id}}: read").await;
    let (bob, ann, nobody) = (token(&server, "bob").await, token(&server, "ann").await, server.token(json!({})).await);
    let reads = |token: String, path: &'static str| {
        let server = server.clone();
        async move {
            let asked = json!({ "token": token, "path": path });
            data(server.root("sys/capabilities", asked).await)["capabilities"] == json!(["read"])
        }
    };
    let path = format!("identity/entity/id/{}", entity_of(&server, &bob).await);
    for round in 0..3 {
        server.root(&path, json!({ "metadata": { "path": "db/creds/app" } })).await.unwrap();
        assert!(may_read(&server, &bob).await && reads(bob.clone(), "db/creds/app").await, "round {round}");
        for other in [&ann, &nobody] {
            assert!(!reads(other.clone(), "db/creds/app").await, "round {round}");
        }
        server.root(&path, json!({ "metadata": { "path": "db/x" } })).await.unwrap();
        assert!(!may_read(&server, &bob).await && reads(bob.clone(), "db/x").await, "round {round}");
        server.root(&path, json!({ "metadata": {} })).await.unwrap();
        assert!(!reads(bob.clone(), "db/x").await, "round {round}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Write {
    FirstLogin,
    GroupsAtLogin,
    Entity,
    Rename,
    Alias,
    MoveAlias,
    Members,
    GroupAlias,
    MoveGroupAlias,
    Merge,
    DeleteEntity,
    DeleteGroup,
}

const WRITES: [Write; 12] = [
    Write::FirstLogin,
    Write::GroupsAtLogin,
    Write::Entity,
    Write::Rename,
    Write::Alias,
    Write::MoveAlias,
    Write::Members,
    Write::GroupAlias,
    Write::MoveGroupAlias,
    Write::Merge,
    Write::DeleteEntity,
    Write::DeleteGroup,
];

/// Bob and Ann, a group with Bob in it, and two external groups, one of them with an alias.
struct Scene {
    mount: String,
    bob: String,
    ann: String,
    group: String,
    external: String,
    unnamed: String,
}

async fn scene(server: &Server) -> Scene {
    let mount = accessor(server).await;
    let bob = entity_of(server, &token(server, "bob").await).await;
    let ann = made(server, "identity/entity", json!({ "name": "ann" })).await;
    let group = made(server, "identity/group", json!({ "name": "g", "member_entity_ids": [bob] })).await;
    let external = made(server, "identity/group", json!({ "name": "e", "type": "external" })).await;
    let unnamed = made(server, "identity/group", json!({ "name": "u", "type": "external" })).await;
    let alias = json!({ "name": "ops", "mount_accessor": mount, "canonical_id": external });
    server.root("identity/group-alias", alias).await.unwrap();
    Scene { mount, bob, ann, group, external, unnamed }
}

async fn write(server: &Server, what: Write, scene: &Scene) -> Answer {
    let Scene { mount, bob, ann, group, external, unnamed } = scene;
    match what {
        Write::FirstLogin => log_in(server, "carol.ops").await,
        Write::GroupsAtLogin => log_in(server, "bob.ops").await,
        Write::Entity => server.root("identity/entity", json!({ "name": "new", "metadata": { "a": "b" } })).await,
        Write::Rename => server.root(&format!("identity/entity/id/{ann}"), json!({ "name": "anna" })).await,
        Write::Alias => {
            let alias = json!({ "name": "ann", "mount_accessor": mount, "canonical_id": ann });
            server.root("identity/entity-alias", alias).await
        }
        Write::MoveAlias => {
            let alias = json!({ "name": "bob", "mount_accessor": mount, "canonical_id": ann });
            server.root("identity/entity-alias", alias).await
        }
        Write::Members => {
            server.root(&format!("identity/group/id/{group}"), json!({ "member_entity_ids": [ann] })).await
        }
        Write::GroupAlias => {
            let alias = json!({ "name": "dev", "mount_accessor": mount, "canonical_id": unnamed });
            server.root("identity/group-alias", alias).await
        }
        Write::MoveGroupAlias => {
            let alias = json!({ "name": "ops", "mount_accessor": mount, "canonical_id": unnamed });
            server.root("identity/group-alias", alias).await
        }
        Write::Merge => {
            server.root("identity/entity/merge", json!({ "from_entity_ids": [bob], "to_entity_id": ann })).await
        }
        Write::DeleteEntity => delete(server, &format!("identity/entity/id/{bob}")).await,
        Write::DeleteGroup => delete(server, &format!("identity/group/id/{external}")).await,
    }
}

/// A fault at every write: all of it has happened or nothing, in memory as in the store, and it can be asked for again.
#[tokio::test(start_paused = true)]
async fn a_fault_anywhere_leaves_no_half_of_anything() {
    for what in WRITES {
        for fault in FAULTS {
            let mut at = 0;
            loop {
                let context = format!("{what:?}, {fault:?} at write {at}");
                let server = one().await;
                let scene = scene(&server).await;
                assert_whole(&server, &context).await;
                server.process.fault_at(at, fault);
                let told = write(&server, what, &scene).await;
                let fired = !server.process.is_armed();
                server.process.disarm();
                let died = server.process.is_dead();
                if !died && what != Write::DeleteGroup {
                    assert_whole(&server, &format!("{context}, in memory")).await;
                }
                let next = server.again();
                next.unseal().await;
                if told.is_err() && !matches!(what, Write::Merge) {
                    // A merge that has happened has nobody to merge any more.
                    write(&next, what, &scene).await.unwrap_or_else(|error| panic!("{context}, again: {error}"));
                }
                if what != Write::DeleteGroup {
                    assert_whole(&next, &format!("{context}, after a restart")).await;
                }
                if !fired {
                    assert!(told.is_ok(), "{context}");
                    break;
                }
                at += 1;
            }
            assert!(at > 0, "{what:?}: it writes");
        }
    }
}
