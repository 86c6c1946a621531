//! Entities, aliases, groups and templated policies, beside OpenBao's where that is given: contract.md §4.6 and §6.

use std::fs;

use serde_json::{Value, json};

use super::audit::{audited, last};
use super::auth::enable;
use super::nodes::Nodes;
use crate::support::{Answer, Bao, Client, Kind, Server, Signer, now};

/// With `userpass/`, `approle/` and what OpenBao has of them.
pub(super) fn mounted(server: Server) -> Server {
    enable(&server, "userpass", "userpass");
    enable(&server, "approle", "approle");
    server
}

pub(super) fn ours() -> Server {
    mounted(Server::dev())
}

pub(super) fn beside(what: &str) -> Option<Server> {
    Bao::find(what).map(|bao| mounted(Server::openbao(&bao)))
}

fn accessor(root: &Client, mount: &str) -> String {
    root.get("sys/auth").assert_status(200).text(&format!("/data/{mount}~1/accessor"))
}

pub(super) fn policy(root: &Client, name: &str, text: &str) {
    let answer = root.post(&format!("sys/policies/acl/{name}"), json!({ "policy": text }));
    // A warning where it names groups that come later.
    assert!(matches!(answer.status, 200 | 204), "{answer}");
}

pub(super) fn reads(path: &str) -> String {
    format!("path \"{path}\" {{ capabilities = [\"read\"] }}")
}

pub(super) fn made(root: &Client, path: &str, body: Value) -> String {
    root.post(path, body).assert_status(200).text("/data/id")
}

pub(super) fn user(root: &Client, name: &str, policies: &str) {
    let body = json!({ "password": "a-long-password", "token_policies": policies });
    root.post(&format!("auth/userpass/users/{name}"), body).assert_status(204);
}

pub(super) fn log_in(server: &Server, name: &str) -> Answer {
    server.nobody().post(&format!("auth/userpass/login/{name}"), json!({ "password": "a-long-password" }))
}

pub(super) fn client(server: &Server, name: &str) -> Client {
    server.as_token(&log_in(server, name).assert_status(200).text("/auth/client_token"))
}

fn may_read(client: &Client, path: &str) -> bool {
    client.post("sys/capabilities-self", json!({ "path": path })).assert_status(200).at("/data/capabilities")
        == json!(["read"])
}

#[test]
fn entities_are_written_read_listed_and_deleted() {
    entities(&ours());
}

#[test]
fn entities_of_a_real_openbao_are_the_same() {
    if let Some(server) = beside("entities, against a real OpenBao") {
        entities(&server);
    }
}

fn entities(server: &Server) {
    let root = server.root();
    root.list("identity/entity/id").assert_errors(404, &[]);
    root.list("identity/entity/name").assert_errors(404, &[]);
    let bob = json!({ "name": "Bob", "metadata": { "team": "ops" }, "policies": ["p1", "Default"] });
    let first = root.post("identity/entity", bob).assert_status(200).assert_at("/data/name", "Bob");
    assert_eq!(first.at("/data/aliases"), Value::Null);
    let id = first.text("/data/id");
    root.post("identity/entity", json!({ "name": "bOB", "metadata": { "team": "dev" } }))
        .assert_status(204)
        .assert_empty();
    let shown = root.get("identity/entity/name/BOB").assert_status(200);
    let mut data = shown.at("/data");
    for time in ["creation_time", "last_update_time"] {
        assert!(data[time].as_str().is_some_and(|time| time.ends_with('Z')), "{shown}");
        data.as_object_mut().unwrap().remove(time);
    }
    let wanted = json!({
        "aliases": [], "direct_group_ids": [], "disabled": false, "group_ids": [], "id": id, "inherited_group_ids": [],
        "merged_entity_ids": null, "metadata": { "team": "dev" }, "name": "bOB", "namespace_id": "root",
        "policies": ["default", "p1"],
    });
    assert_eq!(data, wanted);
    root.get(&format!("identity/entity/id/{id}")).assert_at("/data/name", "bOB");
    let other = made(&root, "identity/entity", json!({ "name": "other" }));
    let generated = root.post("identity/entity", json!({})).assert_status(200);
    assert!(generated.text("/data/name").starts_with("entity_"), "{generated}");
    made(&root, "identity/entity/name/a%20b/c", json!({}));
    root.get("identity/entity/name/a%20b/c").assert_at("/data/metadata", Value::Null).assert_at("/data/name", "a b/c");
    let listed = root.list("identity/entity/id").assert_status(200);
    assert_eq!(listed.at("/data/keys").as_array().unwrap().len(), 4);
    listed.assert_at(&format!("/data/key_info/{id}"), json!({ "name": "bOB" }));
    let names = root.list("identity/entity/name").assert_status(200).at("/data/keys");
    for name in ["bOB", "other", "a b/c"] {
        assert!(names.as_array().unwrap().contains(&json!(name)), "{names}");
    }
    for (path, body, why) in [
        ("identity/entity", json!({ "id": id, "name": "other" }), "entity name is already in use"),
        (&*format!("identity/entity/id/{id}"), json!({ "name": "OTHER" }), "entity name is already in use"),
        ("identity/entity", json!({ "id": "nope", "name": "zz" }), "entity not found from id"),
        ("identity/entity/id/nope", json!({ "metadata": {} }), "entity not found from id"),
        ("identity/entity", json!({ "name": "r", "policies": ["a", "Root"] }), "policies cannot contain root"),
        ("identity/entity/batch-delete", json!({}), "missing entity ids to delete"),
        ("identity/entity/merge", json!({ "to_entity_id": id }), "missing entity ids to merge from"),
        ("identity/entity/merge", json!({ "from_entity_ids": id }), "missing entity id to merge to"),
        (
            "identity/entity/merge",
            json!({ "from_entity_ids": [id], "to_entity_id": "nope" }),
            "entity id to merge to is invalid",
        ),
        (
            "identity/entity/merge",
            json!({ "from_entity_ids": ["nope"], "to_entity_id": id }),
            "entity id to merge from is invalid",
        ),
        (
            "identity/entity/merge",
            json!({ "from_entity_ids": [id], "to_entity_id": id }),
            "to_entity_id should not be present in from_entity_ids",
        ),
        ("identity/lookup/entity", json!({}), "query parameter not supplied"),
        (
            "identity/lookup/entity",
            json!({ "id": id, "name": "x" }),
            "query parameter conflict; please supply distinct set of query parameters",
        ),
        (
            "identity/lookup/entity",
            json!({ "alias_name": "x" }),
            "both 'alias_name' and 'alias_mount_accessor' needs to be set",
        ),
    ] {
        root.post(path, body).assert_error(400, why);
    }
    // OpenBao answers 500, which clients try again.
    let status = if server.kind() == Kind::OpenBao { 500 } else { 400 };
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (metadata, why) in [
        (json!(many), "metadata cannot contain more than 64 key/value pairs"),
        (json!({ "k".repeat(129): "v" }), "key is too long (limit: 128 characters)"),
        (json!({ "k": "v".repeat(513) }), "value is too long (limit: 512 characters)"),
    ] {
        root.post("identity/entity", json!({ "name": "bad", "metadata": metadata })).assert_error_has(status, why);
    }
    root.get("identity/entity/name/bad").assert_errors(404, &[]);
    root.post("identity/lookup/entity", json!({ "name": "bob" })).assert_status(200).assert_at("/data/id", id.as_str());
    root.post("identity/lookup/entity", json!({ "id": "nope" })).assert_status(204).assert_empty();
    root.post(&format!("identity/entity/id/{other}"), json!({ "disabled": true })).assert_status(204);
    root.get("identity/entity/name/other").assert_at("/data/disabled", true).assert_at("/data/metadata", Value::Null);
    for path in ["identity/entity/id/nope", "identity/entity/name/nope", "identity/entity/name/OTHER"] {
        root.delete(path).assert_status(204).assert_empty();
    }
    root.post("identity/entity/batch-delete", json!({ "entity_ids": [id, "nope"] })).assert_status(204);
    for path in [format!("identity/entity/id/{id}"), "identity/entity/name/other".to_owned()] {
        root.get(&path).assert_errors(404, &[]);
    }
    for path in ["identity/", "identity/nope"] {
        root.get(path).assert_multi(404, "unsupported path");
    }
    root.get("identity/entity").assert_multi(405, "unsupported operation");
}

#[test]
fn aliases_are_written_moved_and_looked_up() {
    aliases(&ours());
}

#[test]
fn aliases_of_a_real_openbao_are_the_same() {
    if let Some(server) = beside("aliases, against a real OpenBao") {
        aliases(&server);
    }
}

fn aliases(server: &Server) {
    let root = server.root();
    let mount = accessor(&root, "userpass");
    let (bob, ann) = (
        made(&root, "identity/entity", json!({ "name": "bob" })),
        made(&root, "identity/entity", json!({ "name": "ann" })),
    );
    let alias = |changes: Value| {
        let mut body = json!({ "name": "bob", "canonical_id": bob, "mount_accessor": mount });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    for (body, why) in [
        (
            json!({ "canonical_id": bob, "name": "bob" }),
            "'id' or 'mount_accessor' and 'name' must be provided".to_owned(),
        ),
        (
            json!({ "canonical_id": bob, "mount_accessor": mount }),
            "'id' or 'mount_accessor' and 'name' must be provided".to_owned(),
        ),
        (alias(json!({ "mount_accessor": "nope" })), "invalid mount accessor \"nope\"".to_owned()),
        (alias(json!({ "canonical_id": "nope" })), "invalid canonical ID".to_owned()),
        (alias(json!({ "id": "nope" })), "invalid alias ID provided".to_owned()),
    ] {
        root.post("identity/entity-alias", body).assert_error(400, &why);
    }
    let first =
        root.post("identity/entity-alias", alias(json!({ "custom_metadata": { "k": "v" } }))).assert_status(200);
    let id = first.text("/data/id");
    assert_eq!(first.text("/data/canonical_id"), bob);
    root.post("identity/entity-alias", alias(json!({ "name": "BOB" })))
        .assert_status(200)
        .assert_at("/data/id", id.as_str());
    root.post("identity/entity-alias", alias(json!({ "canonical_id": "nope" })))
        .assert_error(400, "given 'canonical_id' is not associated with an entity");
    root.post("identity/entity-alias", alias(json!({ "name": "bob2" })))
        .assert_error(400, "Alias already exists for requested entity and mount accessor");
    let path = format!("identity/entity-alias/id/{id}");
    // What changes nothing has an empty answer, by which clients know, and touches nothing.
    let metadata = json!({ "custom_metadata": { "k": "v" } });
    root.post(&path, alias(metadata.clone())).assert_status(200);
    let touched = root.get(&path).text("/data/last_update_time");
    for body in [json!({}), json!({ "canonical_id": bob }), metadata.clone(), alias(json!({}))] {
        root.post(&path, body).assert_status(204);
    }
    for body in [json!({ "id": id }), alias(json!({ "id": id })), alias(metadata)] {
        root.post("identity/entity-alias", body).assert_status(204);
    }
    assert_eq!(root.get(&path).text("/data/last_update_time"), touched);
    root.post(&path, json!({ "name": "renamed", "custom_metadata": { "z": "1" } })).assert_status(200);
    let shown = root.get(&path).assert_status(200);
    let mut data = shown.at("/data");
    for time in ["creation_time", "last_update_time"] {
        data.as_object_mut().unwrap().remove(time).unwrap();
    }
    let wanted = json!({
        "canonical_id": bob, "custom_metadata": { "z": "1" }, "id": id, "local": false, "merged_from_canonical_ids": null,
        "metadata": null, "mount_accessor": mount, "mount_path": "auth/userpass/", "mount_type": "userpass",
        "name": "renamed", "namespace_id": "root",
    });
    assert_eq!(data, wanted);
    // Two spellings of the list, one of them from the first days of Vault.
    for list in ["identity/entity-alias/id", "identity/persona/id"] {
        root.list(list).assert_status(200).assert_at("/data/keys", json!([id]));
    }
    root.post(&path, json!({ "canonical_id": ann })).assert_status(200).assert_at("/data/canonical_id", ann.as_str());
    root.get("identity/entity/name/bob").assert_at("/data/aliases", json!([]));
    root.get("identity/entity/name/ann").assert_at("/data/aliases/0/id", id.as_str());
    let by_alias = json!({ "alias_name": "Renamed", "alias_mount_accessor": mount });
    for body in [by_alias, json!({ "alias_id": id })] {
        root.post("identity/lookup/entity", body).assert_status(200).assert_at("/data/id", ann.as_str());
    }
    // Without an entity it makes one.
    let made = root.post("identity/entity-alias", json!({ "name": "new", "mount_accessor": mount })).assert_status(200);
    let entity = made.text("/data/canonical_id");
    assert!(root.get(&format!("identity/entity/id/{entity}")).text("/data/name").starts_with("entity_"));
    root.delete(&path).assert_status(204);
    root.delete(&path).assert_status(204);
    root.get(&path).assert_errors(404, &[]);
    root.get("identity/entity/name/ann").assert_at("/data/aliases", json!([]));
}

#[test]
fn groups_are_written_read_listed_and_deleted() {
    groups(&ours());
}

#[test]
fn groups_of_a_real_openbao_are_the_same() {
    if let Some(server) = beside("groups, against a real OpenBao") {
        groups(&server);
    }
}

fn groups(server: &Server) {
    let root = server.root();
    let mount = accessor(&root, "userpass");
    root.list("identity/group/id").assert_errors(404, &[]);
    let bob = made(&root, "identity/entity", json!({ "name": "bob" }));
    let inner = json!({ "name": "Inner", "policies": ["gp"], "member_entity_ids": [bob], "metadata": { "k": "v" } });
    let inner = made(&root, "identity/group", inner);
    let outer =
        made(&root, "identity/group", json!({ "name": "outer", "member_group_ids": [inner], "policies": ["op"] }));
    let mut data = root.get("identity/group/name/INNER").assert_status(200).at("/data");
    for changing in ["creation_time", "last_update_time", "modify_index"] {
        data.as_object_mut().unwrap().remove(changing).unwrap();
    }
    let wanted = json!({
        "alias": {}, "id": inner, "member_entity_ids": [bob], "member_group_ids": null, "metadata": { "k": "v" },
        "name": "Inner", "namespace_id": "root", "parent_group_ids": [outer], "policies": ["gp"], "type": "internal",
    });
    assert_eq!(data, wanted);
    root.get(&format!("identity/group/id/{outer}"))
        .assert_at("/data/member_group_ids", json!([inner]))
        .assert_at("/data/member_entity_ids", Value::Null);
    let shown = root.get("identity/entity/name/bob").assert_status(200);
    let shown = shown
        .assert_at("/data/direct_group_ids", json!([inner]))
        .assert_at("/data/inherited_group_ids", json!([outer]));
    assert_eq!(shown.at("/data/group_ids").as_array().unwrap().len(), 2);
    assert!(root.post("identity/group", json!({})).assert_status(200).text("/data/name").starts_with("group_"));
    let external = json!({ "name": "ext", "type": "external", "policies": ["ep"] });
    let external = made(&root, "identity/group", external);
    let listed = root.list("identity/group/id").assert_status(200);
    let about = json!({ "name": "Inner", "num_member_entities": 1, "num_parent_groups": 1 });
    listed.assert_at(&format!("/data/key_info/{inner}"), about);
    let names = root.list("identity/group/name").assert_status(200).at("/data/keys");
    assert!(names.as_array().unwrap().contains(&json!("Inner")), "{names}");
    root.post("identity/group", json!({ "name": "inner", "policies": ["gp2"] })).assert_status(204).assert_empty();
    root.get("identity/group/name/inner")
        .assert_at("/data/policies", json!(["gp2"]))
        .assert_at("/data/member_entity_ids", json!([bob]));

    let path = format!("identity/group/id/{inner}");
    for (path, body, why) in [
        ("identity/group", json!({ "name": "x", "type": "weird" }), "invalid group type \"weird\"".to_owned()),
        (
            "identity/group",
            json!({ "name": "x", "type": "external", "member_entity_ids": [bob] }),
            "member entities can't be set manually for external groups".to_owned(),
        ),
        (&*path, json!({ "type": "external" }), "group type cannot be changed".to_owned()),
        (
            &*path,
            json!({ "member_group_ids": [outer] }),
            format!("cyclic relationship detected for member group ID \"{outer}\""),
        ),
        (&*path, json!({ "name": "OUTER" }), "group name is already in use".to_owned()),
        ("identity/group/id/nope", json!({ "policies": ["x"] }), "invalid group ID".to_owned()),
        ("identity/group", json!({ "name": "r", "policies": ["root"] }), "policies cannot contain root".to_owned()),
        (
            "identity/group-alias",
            json!({ "canonical_id": external, "mount_accessor": mount }),
            "missing alias name".to_owned(),
        ),
        ("identity/group-alias", json!({ "canonical_id": external, "name": "x" }), "missing mount_accessor".to_owned()),
        (
            "identity/group-alias",
            json!({ "name": "x", "canonical_id": external, "mount_accessor": "nope" }),
            "invalid mount accessor \"nope\"".to_owned(),
        ),
        (
            "identity/group-alias",
            json!({ "name": "x", "canonical_id": "nope", "mount_accessor": mount }),
            "invalid group ID given in 'canonical_id'".to_owned(),
        ),
        (
            "identity/group-alias",
            json!({ "name": "x", "canonical_id": inner, "mount_accessor": mount }),
            "alias can't be set on an internal group".to_owned(),
        ),
        ("identity/lookup/group", json!({}), "query parameter not supplied".to_owned()),
    ] {
        root.post(path, body).assert_error(400, &why);
    }
    // OpenBao answers 500, which clients try again.
    let status = if server.kind() == Kind::OpenBao { 500 } else { 400 };
    for (body, why) in [
        (json!({ "member_entity_ids": ["nope"] }), "invalid entity ID \"nope\"".to_owned()),
        (json!({ "member_group_ids": ["nope"] }), "invalid member group ID \"nope\"".to_owned()),
        (json!({ "member_group_ids": [inner] }), format!("member group ID \"{inner}\" is same as the ID of the group")),
    ] {
        root.post(&path, body).assert_multi(status, &why);
    }
    root.get(&path).assert_at("/data/member_entity_ids", json!([bob])).assert_at("/data/type", "internal");

    let named = json!({ "name": "ext-team", "canonical_id": external, "mount_accessor": mount });
    let made = root.post("identity/group-alias", named.clone()).assert_status(200);
    let alias = format!("identity/group-alias/id/{}", made.text("/data/id"));
    // What changes nothing has an empty answer and touches nothing.
    let touched = root.get(&alias).text("/data/last_update_time");
    root.post(&alias, named).assert_status(204);
    root.post(&alias, json!({ "name": "ext-team", "mount_accessor": mount })).assert_status(204);
    root.get(&alias)
        .assert_at("/data/last_update_time", touched)
        .assert_status(200)
        .assert_at("/data/name", "ext-team")
        .assert_at("/data/mount_path", "auth/userpass/")
        .assert_at("/data/canonical_id", external.as_str());
    root.get("identity/group/name/ext").assert_at("/data/alias/name", "ext-team").assert_at("/data/type", "external");
    let by_alias = json!({ "alias_name": "ext-team", "alias_mount_accessor": mount });
    root.post("identity/lookup/group", by_alias).assert_status(200).assert_at("/data/id", external.as_str());
    root.post("identity/lookup/group", json!({ "name": "nope" })).assert_status(204);
    root.list("identity/group-alias/id").assert_status(200).assert_at("/data/keys", json!([made.text("/data/id")]));
    root.delete(&alias).assert_status(204);
    root.get(&alias).assert_errors(404, &[]);
    root.get("identity/group/name/ext").assert_at("/data/alias", json!({}));
    for path in [path.as_str(), "identity/group/name/outer", "identity/group/id/nope", "identity/group/name/nope"] {
        root.delete(path).assert_status(204);
    }
    root.get("identity/group/name/inner").assert_errors(404, &[]);
    root.get("identity/entity/name/bob").assert_at("/data/group_ids", json!([]));
}

#[test]
fn whoever_logs_in_has_the_rights_of_who_they_are() {
    rights(&ours());
}

#[test]
fn whoever_logs_in_at_a_real_openbao_has_the_same_rights() {
    if let Some(server) = beside("rights of identities, against a real OpenBao") {
        rights(&server);
    }
}

fn rights(server: &Server) {
    let root = server.root();
    for name in ["own", "ent", "grp", "top"] {
        policy(&root, name, &reads(&format!("k/{name}")));
    }
    policy(
        &root,
        "own",
        &format!(
            "{}\npath \"auth/token/*\" {{ capabilities = [\"create\", \"update\", \"read\", \"sudo\"] }}",
            reads("k/own")
        ),
    );
    user(&root, "bob", "own");
    // The first login makes the entity.
    let first = log_in(server, "bob").assert_status(200);
    let id = first.text("/auth/entity_id");
    assert_eq!(first.at("/auth/identity_policies"), Value::Null);
    let bob = server.as_token(&first.text("/auth/client_token"));
    let shown = root.get(&format!("identity/entity/id/{id}")).assert_status(200);
    shown.assert_at("/data/aliases/0/name", "bob").assert_at("/data/aliases/0/mount_type", "userpass");
    let inner = made(&root, "identity/group", json!({ "name": "inner", "member_entity_ids": [id], "policies": "grp" }));
    made(&root, "identity/group", json!({ "name": "outer", "member_group_ids": [inner], "policies": "top" }));
    root.post(&format!("identity/entity/id/{id}"), json!({ "policies": "ent,default" })).assert_status(204);
    for (path, wanted) in [("k/own", true), ("k/ent", true), ("k/grp", true), ("k/top", true), ("k/x", false)] {
        assert_eq!(may_read(&bob, path), wanted, "{path}");
    }
    let lookup = bob.get("auth/token/lookup-self").assert_status(200).assert_at("/data/entity_id", id.as_str());
    assert_eq!(lookup.at("/data/policies"), json!(["default", "own"]));
    assert_eq!(
        lookup.at("/data/identity_policies"),
        json!(["ent", "default", "grp", "top"]).sorted_as(&lookup.at("/data/identity_policies"))
    );
    log_in(server, "BOB")
        .assert_status(200)
        .assert_at("/auth/entity_id", id.as_str())
        .assert_at("/auth/policies", json!(["default", "ent", "grp", "own", "top"]))
        .assert_at("/auth/token_policies", json!(["default", "own"]))
        .assert_at("/auth/identity_policies", json!(["default", "ent", "grp", "top"]));
    // One's own entity, and nobody else's.
    let other = made(&root, "identity/entity", json!({ "name": "other" }));
    bob.get(&format!("identity/entity/id/{id}")).assert_status(200);
    let name = root.get(&format!("identity/entity/id/{id}")).text("/data/name");
    bob.get(&format!("identity/entity/name/{name}")).assert_status(200);
    bob.get(&format!("identity/entity/id/{other}")).assert_multi(403, "permission denied");

    let child = bob.post("auth/token/create", json!({ "policies": ["own", "grp"], "ttl": "1h" })).assert_status(200);
    child
        .clone()
        .assert_at("/auth/entity_id", id.as_str())
        .assert_at("/auth/token_policies", json!(["default", "grp", "own"]));
    let batch = bob.post("auth/token/create", json!({ "type": "batch" })).assert_status(200);
    batch.clone().assert_at("/auth/entity_id", id.as_str());
    let orphan = bob.post("auth/token/create-orphan", json!({})).assert_status(200).assert_at("/auth/entity_id", "");
    let held: Vec<Client> =
        [&child, &batch].iter().map(|made| server.as_token(&made.text("/auth/client_token"))).chain([bob]).collect();
    let orphan = server.as_token(&orphan.text("/auth/client_token"));
    for (disabled, status) in [(true, 403), (false, 200)] {
        root.post(&format!("identity/entity/id/{id}"), json!({ "disabled": disabled })).assert_status(204);
        for client in &held {
            client.get("auth/token/lookup-self").assert_status(status);
        }
        let wanted = if disabled { 403 } else { 200 };
        assert_eq!(log_in(server, "bob").status, wanted);
        orphan.get("auth/token/lookup-self").assert_status(200);
    }
    root.delete(&format!("identity/entity/id/{id}")).assert_status(204);
    for client in &held {
        client.get("auth/token/lookup-self").assert_error(403, "permission denied");
    }
    assert_ne!(log_in(server, "bob").assert_status(200).text("/auth/entity_id"), id);

    // What an entity gives is not its token's to give away.
    policy(&root, "maker", "path \"auth/token/create\" { capabilities = [\"create\", \"update\"] }");
    user(&root, "ann", "maker");
    let ann = log_in(server, "ann").assert_status(200);
    let path = format!("identity/entity/id/{}", ann.text("/auth/entity_id"));
    root.post(&path, json!({ "policies": "ent" })).assert_status(204);
    let ann = server.as_token(&ann.text("/auth/client_token"));
    ann.post("auth/token/create", json!({ "policies": ["ent"] }))
        .assert_error(400, "child policies must be subset of parent");
    ann.post("auth/token/create", json!({ "policies": ["maker"] }))
        .assert_status(200)
        .assert_at("/auth/identity_policies", json!(["ent"]));

    // An AppRole is one entity, by its role id.
    root.post("auth/approle/role/r", json!({ "token_policies": "own" })).assert_status(204);
    let role_id = root.get("auth/approle/role/r/role-id").text("/data/role_id");
    let secret_id =
        root.post("auth/approle/role/r/secret-id", json!({ "metadata": "{\"m\":\"1\"}" })).text("/data/secret_id");
    let body = json!({ "role_id": role_id, "secret_id": secret_id });
    let entity = server.nobody().post("auth/approle/login", body).assert_status(200).text("/auth/entity_id");
    root.get(&format!("identity/entity/id/{entity}"))
        .assert_at("/data/aliases/0/name", role_id.as_str())
        .assert_at("/data/aliases/0/metadata", json!({ "m": "1", "role_name": "r" }));
    // And a token role lends what its aliases allow.
    root.post("auth/token/roles/tr", json!({ "allowed_entity_aliases": "al*", "allowed_policies": "own" }))
        .assert_status(204);
    let lent = root.post("auth/token/create/tr", json!({ "entity_alias": "Alice" })).assert_status(200);
    let again =
        root.post("auth/token/create/tr", json!({ "entity_alias": "alice", "type": "batch" })).assert_status(200);
    assert_eq!(lent.text("/auth/entity_id"), again.text("/auth/entity_id"));
    assert_ne!(lent.text("/auth/entity_id"), "");
    root.post("auth/token/create/tr", json!({ "entity_alias": "zed" }))
        .assert_error(400, "invalid 'entity_alias' value");
}

/// Lists whose order is not promised.
trait Sorted {
    /// These, in the order of `like`, if it has the same.
    fn sorted_as(self, like: &Value) -> Value;
}

impl Sorted for Value {
    fn sorted_as(self, like: &Value) -> Value {
        let key = |value: &Value| {
            let mut all: Vec<String> = value.as_array().unwrap().iter().map(ToString::to_string).collect();
            all.sort();
            all
        };
        if key(&self) == key(like) { like.clone() } else { self }
    }
}

/// CVE class "wrong identity or alias in templates": no value ever makes a pattern match what the policy does not name.
#[test]
fn hard_values_never_widen_a_right() {
    let server = ours();
    let root = server.root();
    let mount = accessor(&root, "userpass");
    let text = format!(
        "{}\n{}\n{}\n{}\n{}",
        reads("secret/{{identity.entity.metadata.team}}/*"),
        reads("pre/{{identity.entity.metadata.team}}"),
        reads("{{identity.entity.metadata.team}}"),
        reads(&format!("alias/{{{{identity.entity.aliases.{mount}.name}}}}")),
        reads("tail/x{{identity.entity.metadata.team}}*"),
    );
    policy(&root, "tm", &text);
    user(&root, "bob", "tm");
    let bob = client(&server, "bob");
    let id = bob.get("auth/token/lookup-self").text("/data/entity_id");
    let others = [
        "secret/other/x",
        "secret/x",
        "secret//x",
        "secret/",
        "pre/",
        "pre/other",
        "alias/",
        "alias/ann",
        "tail/x",
        "tail/y",
        "sys/policies/acl/tm",
        "k",
        "pre/a/b",
        "other",
    ];
    assert!(may_read(&bob, "alias/bob") && !may_read(&bob, "alias/ann"));
    for team in [
        "",
        " ",
        "a,b",
        "{",
        "}}",
        "{{identity.entity.id}}",
        "..",
        ".",
        "a\nb",
        "\u{0}",
        "a%2fb",
        "a?b",
        "ä",
        "\u{2028}",
        "$",
        "^",
    ] {
        root.post(&format!("identity/entity/id/{id}"), json!({ "metadata": { "team": team } })).assert_status(204);
        for path in others {
            assert!(!may_read(&bob, path), "{team:?} opens {path}");
        }
        assert!(may_read(&bob, "alias/bob"), "{team:?}");
    }
    // These say something in a pattern: every request of the token is refused, and the answer says why.
    for (team, sign) in [("a/b", '/'), ("*", '*'), ("+", '+'), ("a*", '*'), ("/", '/'), ("+/+", '/')] {
        root.post(&format!("identity/entity/id/{id}"), json!({ "metadata": { "team": team } })).assert_status(204);
        let refused = bob.get("auth/token/lookup-self").assert_status(403);
        assert!(
            refused.body.contains("error parsing templated policy") && refused.body.contains("forbidden value"),
            "{refused}"
        );
        assert!(refused.body.contains(sign), "{refused}");
    }
    // Whoever writes the policy may allow them.
    let allowed = json!({ "policy": text, "allow_slashes_in_identity_templates": true });
    root.post("sys/policies/acl/tm", allowed).assert_status(204);
    root.post(&format!("identity/entity/id/{id}"), json!({ "metadata": { "team": "a/b" } })).assert_status(204);
    assert!(may_read(&bob, "secret/a/b/x") && !may_read(&bob, "secret/a/x"));
    // Nobody: without an entity no template has a value.
    let child = root.child(json!({ "policies": ["tm"] }));
    let nobody = server.as_token(&child);
    for path in others.iter().chain(&["alias/bob", "secret/a/b/x"]) {
        assert!(!may_read(&nobody, path), "{path}");
    }
}

/// CVE class "wrong identity or alias in templates": names of several mounts, and of several entities, stay apart.
#[test]
fn templates_take_the_alias_of_the_mount_that_they_name_and_groups_of_the_caller_alone() {
    let server = ours();
    let root = server.root();
    enable(&server, "other", "userpass");
    let (first, second) = (accessor(&root, "userpass"), accessor(&root, "other"));
    let alias = |accessor: &str, what: &str| format!("{{{{identity.entity.aliases.{accessor}.{what}}}}}");
    let text = [
        reads(&format!("one/{}", alias(&first, "name"))),
        reads(&format!("two/{}", alias(&second, "name"))),
        reads(&format!("custom/{}", alias(&first, "custom_metadata.team"))),
        reads("group/{{identity.groups.names.dev.team.id}}"),
        reads("meta/{{identity.groups.names.dev.team.metadata.room}}"),
        "path \"sys/capabilities-self\" { capabilities = [\"update\"] }".to_owned(),
    ]
    .join("\n");
    policy(&root, "default", &text);
    user(&root, "bob", "none");
    user(&root, "ann", "none");
    let (bob, ann) = (client(&server, "bob"), client(&server, "ann"));
    let id = |name: &str| log_in(&server, name).assert_status(200).text("/auth/entity_id");
    let (bob_id, ann_id) = (id("bob"), id("ann"));
    // Bob is called `ann` elsewhere.
    root.post("identity/entity-alias", json!({ "name": "ann", "canonical_id": bob_id, "mount_accessor": second }))
        .assert_status(200);
    let metadata = json!({ "name": "bob", "mount_accessor": first, "custom_metadata": { "team": "ops" } });
    root.post("identity/entity-alias", metadata).assert_status(200);
    let group = json!({ "name": "dev.team", "member_entity_ids": [bob_id], "metadata": { "room": "12" } });
    let group = made(&root, "identity/group", group);
    for (path, of_bob, of_ann) in [
        ("one/bob".to_owned(), true, false),
        ("one/ann".to_owned(), false, true),
        ("two/ann".to_owned(), true, false),
        ("two/bob".to_owned(), false, false),
        ("custom/ops".to_owned(), true, false),
        (format!("group/{group}"), true, false),
        ("meta/12".to_owned(), true, false),
    ] {
        assert_eq!(may_read(&bob, &path), of_bob, "bob on {path}");
        assert_eq!(may_read(&ann, &path), of_ann, "ann on {path}");
    }
    root.post("identity/group/name/dev.team", json!({ "member_entity_ids": [ann_id] })).assert_status(204);
    assert!(!may_read(&bob, "meta/12") && may_read(&ann, "meta/12"));
}

/// Groups that a token of an identity provider names.
#[test]
fn a_groups_claim_makes_members_of_external_groups() {
    let server = ours();
    let root = server.root();
    enable(&server, "jwt", "jwt");
    let mount = accessor(&root, "jwt");
    let key = Signer::new();
    root.post("auth/jwt/config", json!({ "jwt_validation_pubkeys": key.public_pem() })).assert_status(204);
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_audiences": "here", "groups_claim": "groups" });
    root.post("auth/jwt/role/r", role).assert_status(204);
    policy(&root, "ops", &reads("k/ops"));
    let group = made(&root, "identity/group", json!({ "name": "ops", "type": "external", "policies": "ops" }));
    let alias = json!({ "name": "Ops", "mount_accessor": mount, "canonical_id": group });
    root.post("identity/group-alias", alias).assert_status(200);
    let log_in = |sub: &str, groups: Value| {
        let claims = json!({ "sub": sub, "aud": "here", "iat": now(), "exp": now() + 60, "groups": groups });
        let token = key.token(None, &claims);
        server.secrets().tell(&token);
        let answer = server.nobody().post("auth/jwt/login", json!({ "role": "r", "jwt": token })).assert_status(200);
        (answer.text("/auth/entity_id"), server.as_token(&answer.text("/auth/client_token")))
    };
    let (bob, token) = log_in("Bob", json!(["dev", "Ops"]));
    assert!(may_read(&token, "k/ops"));
    // Names that differ in their case are two people, and two groups.
    let (other, stranger) = log_in("bob", json!(["ops"]));
    assert!(bob != other && !may_read(&stranger, "k/ops"));
    log_in("Bob", json!("dev"));
    assert!(!may_read(&token, "k/ops"), "what the provider says at the last login holds");
    // Nobody keeps a group by a role that does not look.
    log_in("Bob", json!("Ops"));
    assert!(may_read(&token, "k/ops"));
    let blind = json!({ "role_type": "jwt", "user_claim": "sub", "bound_audiences": "here" });
    root.post("auth/jwt/role/blind", blind).assert_status(204);
    let claims = json!({ "sub": "Bob", "aud": "here", "iat": now(), "exp": now() + 60, "groups": ["Ops"] });
    let signed = key.token(None, &claims);
    server.secrets().tell(&signed);
    server.nobody().post("auth/jwt/login", json!({ "role": "blind", "jwt": signed })).assert_status(200);
    assert!(!may_read(&token, "k/ops"));
}

#[test]
fn audit_and_modules_know_who_it_was() {
    let (server, file) = audited();
    let server = mounted(server);
    let root = server.root();
    policy(&root, "ent", &reads("k/ent"));
    user(&root, "bob", "default");
    let id = log_in(&server, "bob").assert_status(200).text("/auth/entity_id");
    root.post(&format!("identity/entity/id/{id}"), json!({ "policies": "ent" })).assert_status(204);
    let bob = client(&server, "bob");
    let (_, response) = last(&file, "auth/userpass/login/bob");
    let auth = &response["response"]["auth"];
    assert_eq!((&auth["entity_id"], &auth["identity_policies"]), (&json!(id), &json!(["ent"])));
    assert_eq!((&auth["policies"], &auth["token_policies"]), (&json!(["default", "ent"]), &json!(["default"])));
    bob.get("auth/token/lookup-self").assert_status(200);
    let (request, _) = last(&file, "auth/token/lookup-self");
    assert_eq!((&request["auth"]["entity_id"], &request["request"]["client_id"]), (&json!(id), &json!(id)));
    assert_eq!(request["auth"]["identity_policies"], json!(["ent"]));
    root.post(&format!("identity/entity/id/{id}"), json!({ "disabled": true })).assert_status(204);
    bob.get("auth/token/lookup-self").assert_status(403);
    let (request, _) = last(&file, "auth/token/lookup-self");
    assert_eq!(request["auth"]["entity_id"], json!(id), "also of who is let in no more");
    assert!(fs::read_to_string(&file).unwrap().contains(&id));
}

#[test]
fn what_is_changed_on_one_node_counts_on_all_and_outlives_them() {
    let nodes = Nodes::start(3);
    let root = |at: usize| nodes.root(at);
    root(0).post("sys/auth/userpass", json!({ "type": "userpass" })).assert_status(204);
    policy(&root(1), "ent", &reads("k/ent"));
    user(&root(2), "bob", "default");
    let bob = log_in(&nodes.servers[0], "bob").assert_status(200);
    let (id, token) = (bob.text("/auth/entity_id"), bob.text("/auth/client_token"));
    for at in 1..3 {
        assert_eq!(log_in(&nodes.servers[at], "bob").text("/auth/entity_id"), id);
    }
    let group = made(&root(1), "identity/group", json!({ "name": "g", "policies": "ent" }));
    let path = format!("identity/group/id/{group}");
    for round in 0..6 {
        let members = if round % 2 == 0 { json!([id]) } else { json!([]) };
        root(round).post(&path, json!({ "member_entity_ids": members })).assert_status(204);
        for at in 0..3 {
            let client = nodes.servers[at].as_token(&token);
            assert_eq!(may_read(&client, "k/ent"), round % 2 == 0, "round {round}, node {at}");
        }
    }
    root(2).post(&path, json!({ "member_entity_ids": [id] })).assert_status(204);
    nodes.servers[0].kill();
    nodes.servers[0].start();
    nodes.servers[0].unseal();
    assert!(may_read(&nodes.servers[0].as_token(&token), "k/ent"));
    root(0).post(&format!("identity/entity/id/{id}"), json!({ "disabled": true })).assert_status(204);
    for at in 0..3 {
        nodes.servers[at].as_token(&token).get("auth/token/lookup-self").assert_status(403);
    }
}
