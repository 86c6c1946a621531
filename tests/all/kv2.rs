//! The kv engine, version 2, beside OpenBao's where that is given: contract.md §6.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::nodes::Nodes;
use crate::support::{Answer, Bao, Client, Durable, Server, eventually};

const MERGE: &[(&str, &str)] = &[("Content-Type", "application/merge-patch+json")];

fn mount(server: &Server) {
    server.root().post("sys/mounts/kv", json!({ "type": "kv", "options": { "version": "2" } })).assert_status(204);
}

fn mounted() -> Server {
    let server = Server::dev();
    mount(&server);
    server
}

fn patch(client: &Client, path: &str, body: &Value) -> Answer {
    client.bytes("PATCH", path, body.to_string().as_bytes(), MERGE)
}

/// What is the same on every server: moments become `T`, lists are in order, and the name of the command line is ours.
fn without_moments(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(name, value)| {
                let is_moment = name.ends_with("_time") && value.as_str().is_some_and(|text| !text.is_empty());
                let value = if is_moment { json!("T") } else { without_moments(value) };
                (name, value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        // OpenBao scans folder by folder, the last one first; here names come in order.
        Value::Array(mut items) => {
            items.sort_by_key(Value::to_string);
            items.into_iter().map(without_moments).collect()
        }
        Value::String(text) => {
            json!(text.replace("OpenBao CLI, use 'bao kv", "Leasehold CLI, use 'leasehold kv"))
        }
        other => other,
    }
}

/// One step on one server: its status, and the parts of its answer.
fn step(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = match (method, body) {
        ("PATCH", body) => patch(client, path, body),
        (_, Value::Null) => client.request(method, path, None),
        (_, body) => client.request(method, path, Some(body.clone())),
    };
    let whole: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let parts = json!({ "data": whole["data"], "warnings": whole["warnings"], "errors": whole["errors"], "empty": answer.body.is_empty() });
    (answer.status, without_moments(parts))
}

/// A table's steps on our server, and on OpenBao beside it where there is one. Gives back our answers.
fn walk(what: &str, steps: &[(&str, &str, Value)]) -> Vec<(u16, Value)> {
    let server = mounted();
    let ours: Vec<_> = steps.iter().map(|(method, path, body)| step(&server.root(), method, path, body)).collect();
    if let Some(bao) = Bao::find(what) {
        let other = Server::openbao(&bao);
        mount(&other);
        // It makes its keys after it has answered.
        eventually("OpenBao's mount is ready", || other.root().get("kv/config").status == 200);
        for ((method, path, body), ours) in steps.iter().zip(&ours) {
            assert_eq!(*ours, step(&other.root(), method, path, body), "{method} {path} {body}");
        }
    }
    ours
}

#[test]
fn values_and_their_versions_are_as_in_openbao() {
    let none = Value::Null;
    let write = |data: Value, options: Value| json!({ "data": data, "options": options });
    let seen = walk(
        "values of kv version 2",
        &[
            ("GET", "kv/data/a", none.clone()),
            ("PUT", "kv/data/a", json!({})),
            ("PUT", "kv/data/a", json!({ "x": 1 })),
            ("PUT", "kv/data/a", json!({ "data": {} })),
            ("GET", "kv/data/a", none.clone()),
            ("PUT", "kv/data/a", write(json!({ "x": 1 }), json!({ "cas": 5 }))),
            ("PUT", "kv/data/a", write(json!({ "x": 1 }), json!({ "cas": 0 }))),
            ("PUT", "kv/data/a", write(json!({ "x": 1, "d": { "e": [1, null] }, "n": null }), json!({ "cas": 1 }))),
            ("PUT", "kv/data/a", write(json!({ "x": 2 }), json!({ "cas": "abc" }))),
            ("PUT", "kv/data/a", write(json!({ "x": 2 }), json!({ "cas": 2.5 }))),
            ("PUT", "kv/data/a", write(json!({ "x": 2 }), json!({ "cas": null }))),
            ("PUT", "kv/data/a", write(json!({ "x": 2 }), json!({ "cas": -1 }))),
            ("PUT", "kv/data/a", write(json!({ "x": 2 }), json!({ "cas": [2] }))),
            ("PUT", "kv/data/a", write(json!({ "x": 3 }), json!({ "cas": "2" }))),
            ("POST", "kv/data/a", write(json!({ "x": 4 }), json!({ "other": 9 }))),
            ("PUT", "kv/data/a", write(json!({ "x": 2 }), json!("x"))),
            ("PUT", "kv/data/a", json!({ "data": "x" })),
            ("PUT", "kv/data/a", json!({ "data": [] })),
            ("PUT", "kv/data/new", write(json!({ "x": 1 }), json!({ "cas": 0 }))),
            ("PUT", "kv/data/absent", write(json!({ "x": 1 }), json!({ "cas": 1 }))),
            ("GET", "kv/data/absent", none.clone()),
            ("GET", "kv/data/a?version=2", none.clone()),
            ("GET", "kv/data/a?version=0", none.clone()),
            ("GET", "kv/data/a?version=-1", none.clone()),
            ("GET", "kv/data/a?version=99", none.clone()),
            ("GET", "kv/data/a?version=abc", none.clone()),
            ("GET", "kv/data/a?foo=bar", none.clone()),
            ("GET", "kv/metadata/a", none.clone()),
            // Deletion, and the way back.
            ("DELETE", "kv/data/a", none.clone()),
            ("GET", "kv/data/a", none.clone()),
            ("DELETE", "kv/data/a", none.clone()),
            ("PUT", "kv/data/a", write(json!({ "x": 5 }), json!({ "cas": 0 }))),
            ("DELETE", "kv/data/none", none.clone()),
            ("PUT", "kv/undelete/a", json!({ "versions": [5] })),
            ("GET", "kv/data/a", none.clone()),
            ("PUT", "kv/delete/a", json!({ "versions": "1,2" })),
            ("POST", "kv/delete/a", json!({ "versions": 3 })),
            ("POST", "kv/delete/a", json!({ "versions": ["4", "77", "0", "-1"] })),
            ("GET", "kv/data/a?version=1", none.clone()),
            ("GET", "kv/data/a?version=4", none.clone()),
            ("POST", "kv/undelete/a", json!({ "versions": ["1", "99"] })),
            ("GET", "kv/data/a?version=1", none.clone()),
            ("PUT", "kv/destroy/a", json!({ "versions": [1, 2, 77] })),
            ("PUT", "kv/undelete/a", json!({ "versions": [1, 2] })),
            ("PUT", "kv/delete/a", json!({ "versions": [1] })),
            ("GET", "kv/data/a?version=1", none.clone()),
            ("GET", "kv/data/a?version=2", none.clone()),
            ("GET", "kv/metadata/a", none.clone()),
            ("PUT", "kv/delete/a", json!({})),
            ("PUT", "kv/undelete/a", json!({ "versions": [] })),
            ("PUT", "kv/destroy/a", json!({})),
            ("PUT", "kv/undelete/a", json!({ "versions": ["abc"] })),
            ("PUT", "kv/delete/none", json!({ "versions": [1] })),
            ("PUT", "kv/undelete/none", json!({ "versions": [1] })),
            ("PUT", "kv/destroy/none", json!({ "versions": [1] })),
            ("GET", "kv/delete/a", none.clone()),
            ("LIST", "kv/data", none.clone()),
            ("DELETE", "kv/metadata/a", none.clone()),
            ("GET", "kv/data/a", none.clone()),
            ("GET", "kv/metadata/a", none.clone()),
            ("DELETE", "kv/metadata/a", none.clone()),
            ("PUT", "kv/data/a", json!({ "data": { "again": true } })),
        ],
    );
    assert_eq!(seen[4].1["data"]["data"], json!({}));
    assert_eq!(seen[7].1["data"]["version"], 2);
    assert_eq!(seen.last().unwrap().1["data"]["version"], 1, "nothing is left of a key whose metadata is deleted");
}

#[test]
fn patches_and_subkeys_are_as_in_openbao() {
    let none = Value::Null;
    walk(
        "patches of kv version 2",
        &[
            ("PATCH", "kv/data/b", json!({ "data": { "x": 1 } })),
            ("PUT", "kv/data/b", json!({ "data": { "x": 1, "d": { "e": [1, null], "f": "g", "h": {} }, "n": null } })),
            (
                "PATCH",
                "kv/data/b",
                json!({ "data": { "x": null, "y": 1, "d": { "f": null, "i": { "j": null, "k": 1 } } } }),
            ),
            ("GET", "kv/data/b", none.clone()),
            ("PATCH", "kv/data/b", json!({})),
            ("PATCH", "kv/data/b", json!({ "data": "x" })),
            ("PATCH", "kv/data/b", json!({ "data": { "a": 1 }, "options": { "cas": 1 } })),
            ("PATCH", "kv/data/b", json!({ "data": { "a": 1 }, "options": { "cas": 2 } })),
            ("GET", "kv/subkeys/b", none.clone()),
            ("GET", "kv/subkeys/b?depth=1", none.clone()),
            ("GET", "kv/subkeys/b?depth=2", none.clone()),
            ("GET", "kv/subkeys/b?version=1&depth=-1", none.clone()),
            ("GET", "kv/subkeys/b?version=9", none.clone()),
            ("GET", "kv/subkeys/none", none.clone()),
            ("GET", "kv/subkeys/b?depth=x", none.clone()),
            ("PUT", "kv/subkeys/b", json!({})),
            ("DELETE", "kv/data/b", none.clone()),
            ("GET", "kv/subkeys/b", none.clone()),
            ("PATCH", "kv/data/b", json!({ "data": { "x": 1 } })),
            ("PUT", "kv/metadata/only", json!({ "max_versions": 3 })),
            ("PATCH", "kv/data/only", json!({ "data": { "x": 1 } })),
            ("GET", "kv/data/only", none.clone()),
        ],
    );
    let server = mounted();
    let root = server.root();
    root.put("kv/data/b", json!({ "data": { "x": 1 } })).assert_status(200);
    // OpenBao makes a version of these whose value is null.
    root.put("kv/data/b", json!({ "data": null })).assert_error(400, "no data provided");
    patch(&root, "kv/data/b", &json!({ "data": null })).assert_error(400, "no data provided");
    root.request("PATCH", "kv/data/b", Some(json!({ "data": {} }))).assert_error(400, "mime: no media type");
    root.bytes("PATCH", "kv/data/b", b"{}", &[("Content-Type", "application/json")])
        .assert_error_has(415, "PATCH requires Content-Type of application/merge-patch+json");
    root.get("kv/data/b").assert_at("/data/metadata/version", 1);
}

#[test]
fn metadata_and_configuration_are_as_in_openbao() {
    let none = Value::Null;
    let many: Value = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let long = json!({ "k".repeat(129): "v" });
    let seen = walk(
        "metadata of kv version 2",
        &[
            ("GET", "kv/metadata/c", none.clone()),
            ("PUT", "kv/metadata/c", json!({})),
            ("PUT", "kv/metadata/c", json!({ "foo": 1 })),
            ("GET", "kv/metadata/c", none.clone()),
            (
                "PUT",
                "kv/metadata/c",
                json!({ "max_versions": 3, "cas_required": "true", "delete_version_after": "3h25m", "custom_metadata": { "a": "b", "n": 1, "t": true } }),
            ),
            ("GET", "kv/metadata/c", none.clone()),
            ("GET", "kv/data/c", none.clone()),
            ("PUT", "kv/data/c", json!({ "data": { "q": 1 } })),
            ("PATCH", "kv/data/c", json!({ "data": {} })),
            ("PUT", "kv/data/c", json!({ "data": { "q": 1 }, "options": { "cas": 0 } })),
            ("GET", "kv/data/c", none.clone()),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": { "z": null } })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": { "a": ["b"] } })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": { "a": { "b": 1 } } })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": { "": "x" } })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": { "c": "\u{1}" } })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": "x" })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": many })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": long })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": { "w": "v".repeat(513) } })),
            ("PUT", "kv/metadata/c", json!({ "custom_metadata": {} })),
            ("GET", "kv/metadata/c", none.clone()),
            ("PUT", "kv/metadata/c", json!({ "delete_version_after": "abc" })),
            ("PUT", "kv/metadata/c", json!({ "delete_version_after": 0, "max_versions": 0, "cas_required": false })),
            ("PATCH", "kv/metadata/none", json!({ "max_versions": 3 })),
            ("PATCH", "kv/metadata/c", json!({ "max_versions": 3, "custom_metadata": { "a": "x", "b": "y" } })),
            ("PATCH", "kv/metadata/c", json!({ "custom_metadata": { "a": null, "c": "z" } })),
            ("PATCH", "kv/metadata/c", json!({ "delete_version_after": "10m", "cas_required": true })),
            ("PATCH", "kv/metadata/c", json!({})),
            ("PATCH", "kv/metadata/c", json!({ "foo": 9 })),
            ("GET", "kv/metadata/c", none.clone()),
            ("PATCH", "kv/metadata/c", json!({ "cas_required": null, "max_versions": null, "custom_metadata": null })),
            ("GET", "kv/metadata/c", none.clone()),
            ("PATCH", "kv/metadata/c", json!({ "custom_metadata": { "a": { "b": 1 } } })),
            ("PUT", "kv/metadata/c", json!({ "max_versions": 2, "metadata_cas_required": true })),
            ("PUT", "kv/metadata/c", json!({ "max_versions": 4 })),
            ("PUT", "kv/metadata/c", json!({ "max_versions": 4, "metadata_cas": 1 })),
            ("PUT", "kv/metadata/c", json!({ "max_versions": 4, "metadata_cas": "x" })),
            ("PATCH", "kv/metadata/c", json!({ "max_versions": 4 })),
            ("GET", "kv/metadata/c", none.clone()),
            // The mount's configuration.
            ("GET", "kv/config", none.clone()),
            ("PUT", "kv/config", json!({ "max_versions": 5, "cas_required": true, "delete_version_after": "90s" })),
            ("GET", "kv/config", none.clone()),
            ("PUT", "kv/data/e", json!({ "data": { "a": 1 } })),
            ("PUT", "kv/data/e", json!({ "data": { "a": 1 }, "options": { "cas": 0 } })),
            ("PUT", "kv/metadata/e", json!({ "cas_required": false })),
            ("PATCH", "kv/metadata/e", json!({ "cas_required": false })),
            ("PUT", "kv/config", json!({ "delete_version_after": "-5s" })),
            ("GET", "kv/config", none.clone()),
            ("PUT", "kv/data/e", json!({ "data": { "a": 1 }, "options": { "cas": 1 } })),
            ("PUT", "kv/config", json!({ "delete_version_after": "abc" })),
            ("PUT", "kv/config", json!({ "cas_required": false, "max_versions": 0, "delete_version_after": "0" })),
            ("PUT", "kv/config", json!({})),
            ("GET", "kv/config", none.clone()),
            ("DELETE", "kv/config", none.clone()),
            ("PATCH", "kv/config", json!({ "max_versions": 1 })),
            ("PUT", "kv/config", json!({ "metadata_cas_required": true })),
            ("PUT", "kv/metadata/e", json!({ "max_versions": 3 })),
            ("PUT", "kv/metadata/e", json!({ "max_versions": 3, "metadata_cas": 0 })),
            ("PUT", "kv/metadata/e", json!({ "max_versions": 3, "metadata_cas": 2 })),
            ("GET", "kv/metadata/e", none.clone()),
        ],
    );
    assert_eq!(seen[5].1["data"]["custom_metadata"], json!({ "a": "b", "n": "1", "t": "1" }));
    assert_eq!(seen[5].1["data"]["delete_version_after"], "3h25m0s");
    let server = mounted();
    for most in [-1, 10_001] {
        for path in ["kv/metadata/c", "kv/config"] {
            server
                .root()
                .put(path, json!({ "max_versions": most }))
                .assert_error(400, "max_versions must be between 0 and 10000");
        }
    }
}

#[test]
fn lists_and_paths_that_lead_astray_are_as_in_openbao() {
    let none = Value::Null;
    let mut steps: Vec<(&str, &str, Value)> = Vec::new();
    for path in ["kv/data/f/a", "kv/data/f/b", "kv/data/f/g/h", "kv/data/z", "kv/data/caf\u{e9}"] {
        steps.push(("PUT", path, json!({ "data": { "v": 1 } })));
    }
    for path in [
        "kv/metadata",
        "kv/metadata/",
        "kv/metadata/f",
        "kv/metadata/f/",
        "kv/metadata/none",
        "kv/metadata/z",
        "kv/metadata/f?after=a&limit=1",
        "kv/detailed-metadata/f/g",
        "kv/detailed-metadata/f?after=a&limit=1",
        "kv/detailed-metadata/none",
        "kv/foo",
        "kv",
        "kv/delete/a",
    ] {
        steps.push(("LIST", path, none.clone()));
    }
    for path in ["kv/metadata", "kv/metadata/f", "kv/detailed-metadata/f/g"] {
        steps.push(("SCAN", path, none.clone()));
    }
    for path in ["data", "metadata", "delete", "undelete", "destroy", "subkeys", "detailed-metadata", "foo", "foo/bar"]
    {
        let path: &'static str = format!("kv/{path}").leak();
        steps.push(("GET", path, none.clone()));
        steps.push(("DELETE", path, none.clone()));
        steps.push(("PUT", path, json!({ "a": 1 })));
        steps.push(("PATCH", path, json!({ "a": 1 })));
    }
    for path in ["kv", "kv/detailed-metadata/f", "kv/metadata/f/"] {
        steps.push(("GET", path, none.clone()));
    }
    steps.push(("PUT", "kv/data/a/", json!({ "data": {} })));
    let seen = walk("lists of kv version 2", &steps);
    assert_eq!(seen[5].1["data"]["keys"], json!(["caf\u{e9}", "f/", "z"]));
    let lists = seen.iter().filter(|(status, _)| *status == 200).count();
    assert!(lists >= 15, "{lists}");
}

#[test]
fn too_many_versions_drop_the_oldest_with_their_data() {
    let none = Value::Null;
    let write = || ("PUT", "kv/data/a", json!({ "data": { "v": 1 } }));
    let mut steps = vec![];
    steps.extend((0..11).map(|_| write()));
    steps.push(("GET", "kv/metadata/a", none.clone()));
    steps.push(("GET", "kv/data/a?version=1", none.clone()));
    steps.push(("PUT", "kv/metadata/a", json!({ "max_versions": 2 })));
    steps.push(("GET", "kv/data/a?version=2", none.clone()));
    steps.push(write());
    steps.push(("GET", "kv/metadata/a", none.clone()));
    steps.push(("GET", "kv/data/a?version=10", none.clone()));
    steps.push(("PUT", "kv/config", json!({ "max_versions": 3 })));
    steps.push(write());
    steps.push(write());
    steps.push(("GET", "kv/metadata/a", none.clone()));
    let seen = walk("dropped versions of kv version 2", &steps);
    let versions = seen.last().unwrap().1["data"]["versions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(versions, ["12", "13", "14"]);
}

/// By the store's clock: a version whose time is over reads as deleted, without anybody doing something.
#[test]
fn versions_delete_themselves_when_their_time_is_over() {
    let server = mounted();
    let root = server.root();
    root.put("kv/metadata/a", json!({ "delete_version_after": "2s" })).assert_status(204);
    root.put("kv/data/a", json!({ "data": { "v": 1 } })).assert_status(200);
    root.get("kv/data/a").assert_status(200).assert_at("/data/data/v", 1);
    eventually("the version's time is over", || root.get("kv/data/a").status == 404);
    let answer = root.get("kv/data/a");
    assert_eq!(answer.at("/data/data"), Value::Null);
    assert_ne!(answer.text("/data/metadata/deletion_time"), "");
    patch(&root, "kv/data/a", &json!({ "data": { "v": 2 } })).assert_status(404);
    root.put("kv/undelete/a", json!({ "versions": [1] })).assert_status(204);
    root.get("kv/data/a").assert_status(200).assert_at("/data/metadata/deletion_time", "");
}

/// Each kind of path is judged by itself, and create is told from update, so that reading, writing, deleting and destroying can be
/// given to different people.
#[test]
fn rights_are_given_path_by_path() {
    let server = mounted();
    let root = server.root();
    root.put("kv/data/old", json!({ "data": { "v": 1 } })).assert_status(200);
    root.put("kv/data/own/x", json!({ "data": { "v": 1 } })).assert_status(200);
    let reader = server.with_policy("reader", "path \"kv/data/*\" { capabilities = [\"read\"] }");
    let updater = server.with_policy("updater", "path \"kv/data/*\" { capabilities = [\"update\"] }");
    let creator = server.with_policy("creator", "path \"kv/data/*\" { capabilities = [\"create\"] }");
    let patcher = server.with_policy("patcher", "path \"kv/data/*\" { capabilities = [\"patch\"] }");
    let keeper = server.with_policy("keeper", "path \"kv/metadata/*\" { capabilities = [\"create\"] }");
    let body = json!({ "data": { "v": 2 } });
    reader.get("kv/data/old").assert_status(200);
    for (client, path, allowed) in [
        (&reader, "kv/data/old", false),
        (&updater, "kv/data/old", true),
        (&updater, "kv/data/new", false),
        (&creator, "kv/data/old", false),
        (&creator, "kv/data/new", true),
        (&creator, "kv/data/new", false),
        (&patcher, "kv/data/old", false),
    ] {
        let answer = client.put(path, body.clone());
        assert_eq!(answer.status == 200, allowed, "{path}: {}", answer.body);
        if !allowed {
            answer.assert_multi(403, "permission denied");
        }
    }
    patch(&patcher, "kv/data/old", &body).assert_status(200);
    patch(&updater, "kv/data/old", &body).assert_multi(403, "permission denied");
    keeper.put("kv/metadata/old", json!({ "max_versions": 1 })).assert_multi(403, "permission denied");
    keeper.put("kv/metadata/fresh", json!({ "max_versions": 1 })).assert_status(204);
    // Neither destroys nor sees what stands beside the data.
    for client in [&reader, &updater, &creator, &patcher] {
        for path in ["kv/metadata/old", "kv/subkeys/old", "kv/config"] {
            client.get(path).assert_multi(403, "permission denied");
        }
        for path in ["kv/delete/old", "kv/undelete/old", "kv/destroy/old"] {
            client.put(path, json!({ "versions": [1] })).assert_multi(403, "permission denied");
        }
        client.delete("kv/data/old").assert_multi(403, "permission denied");
        client.delete("kv/metadata/old").assert_multi(403, "permission denied");
        client.list("kv/metadata").assert_multi(403, "permission denied");
    }
    let denied = server.with_policy(
        "denied",
        "path \"kv/data/*\" { capabilities = [\"read\"] }\npath \"kv/data/own/*\" { capabilities = [\"deny\"] }",
    );
    denied.get("kv/data/own/x").assert_multi(403, "permission denied");
}

/// Of writers that name the same version one wins, whoever they are; without one each makes a version, and none is lost.
#[test]
fn of_writers_with_the_same_version_one_wins() {
    let server = Server::durable(&Durable::default());
    mount(&server);
    let root = server.root();
    for round in 0..4 {
        let start = Barrier::new(8);
        let won: usize = thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let (root, start) = (server.root(), &start);
                    scope.spawn(move || {
                        start.wait();
                        let body = json!({ "data": { "by": writer }, "options": { "cas": round } });
                        let answer = root.put("kv/data/a", body);
                        if answer.status != 200 {
                            answer.assert_error(400, "check-and-set parameter did not match the current version");
                            return 0;
                        }
                        1
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(won, 1, "round {round}");
    }
    let versions: Vec<i64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let root = server.root();
                scope.spawn(move || {
                    root.put("kv/data/b", json!({ "data": { "by": writer } }))
                        .assert_status(200)
                        .number("/data/version")
                })
            })
            .collect();
        let mut versions: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        versions.sort_unstable();
        versions
    });
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
    root.get("kv/data/b").assert_status(200).assert_at("/data/metadata/version", 8);
}

/// What stands in a value reaches no audit record, log or error; what is kept survives `kill -9`.
#[test]
fn values_stay_out_of_records_and_survive_a_crash() {
    let server = Server::durable(&Durable::default());
    mount(&server);
    let root = server.root();
    let audit = server.home().join("audit/file.log");
    root.put("sys/audit/file", json!({ "type": "file", "options": { "file_path": audit } })).assert_status(204);
    const CANARY: &str = "canary-of-a-version";
    server.secrets().tell(CANARY);
    root.put("kv/data/a", json!({ "data": { "password": CANARY, "deep": { "x": [CANARY] } } })).assert_status(200);
    patch(&root, "kv/data/a", &json!({ "data": { "other": CANARY } })).assert_status(200);
    root.put("kv/data/a", json!({ "data": CANARY })).assert_status(400);
    root.put("kv/data/a", json!({ "data": { "x": CANARY }, "options": { "cas": CANARY } })).assert_status(400);
    root.get("kv/data/a").assert_status(200).assert_at("/data/data/other", CANARY);
    assert!(!root.get("kv/subkeys/a").assert_status(200).body.contains(CANARY));
    assert!(!root.get("kv/metadata/a").assert_status(200).body.contains(CANARY));
    let audit = std::fs::read_to_string(&audit).unwrap();
    assert!(audit.contains("kv/data/a") && audit.contains("hmac-sha256:"));
    assert!(!audit.contains(CANARY), "the value stands in the audit record");
    server.crash_and_restart();
    let root = server.root();
    root.get("kv/data/a").assert_status(200).assert_at("/data/data/other", CANARY);
    root.get("kv/data/a?version=1").assert_status(200).assert_at("/data/data/password", CANARY);
}

/// A mount of version 1 becomes one of version 2 at once: its values are the first versions of their keys, also those that nobody has
/// asked for and after `kill -9`. There is no way back.
#[test]
fn a_mount_of_version_1_is_upgraded_in_place() {
    let server = Server::durable(&Durable::default());
    let root = server.root();
    root.post("sys/mounts/old", json!({ "type": "kv", "options": { "version": "1" } })).assert_status(204);
    for n in 0..30 {
        root.put(&format!("old/f/k{n:02}"), json!({ "v": n, "deep": { "x": [null, true] } })).assert_status(204);
    }
    root.put("old/top", json!({ "v": "t" })).assert_status(204);
    root.post("sys/mounts/old/tune", json!({ "options": { "version": "2" } })).assert_status(204);
    root.get("sys/internal/ui/mounts/old").assert_status(200).assert_at("/data/options/version", "2");
    // At once, whether or not a value is taken over yet.
    root.get("old/data/top").assert_status(200).assert_at("/data/data/v", "t").assert_at("/data/metadata/version", 1);
    let keys = root.list("old/metadata/f").assert_status(200).at("/data/keys");
    assert_eq!(keys.as_array().map(Vec::len), Some(30));
    assert_eq!(root.list("old/metadata").at("/data/keys"), json!(["f/", "top"]));
    root.put("old/data/f/k03", json!({ "data": { "v": "x" }, "options": { "cas": 0 } })).assert_status(400);
    root.put("old/data/f/k03", json!({ "data": { "v": "x" }, "options": { "cas": 1 } })).assert_status(200);
    server
        .with_policy("creator", "path \"old/data/*\" { capabilities = [\"create\"] }")
        .put("old/data/f/k04", json!({ "data": { "v": "x" } }))
        .assert_multi(403, "permission denied");
    root.delete("old/metadata/f/k05").assert_status(204);
    root.get("old/data/f/k05").assert_status(404);
    server.crash_and_restart();
    let root = server.root();
    for n in (0..30).filter(|n| *n != 5) {
        let answer = root.get(&format!("old/data/f/k{n:02}")).assert_status(200);
        answer.assert_at("/data/metadata/version", if n == 3 { 2 } else { 1 });
    }
    root.get("old/data/f/k03?version=1").assert_status(200).assert_at("/data/data/v", 3);
    assert_eq!(root.list("old/metadata/f").at("/data/keys").as_array().map(Vec::len), Some(29));
    root.get("old/f/k01").assert_status(404);
    for version in ["1", ""] {
        root.post("sys/mounts/old/tune", json!({ "options": { "version": version } }))
            .assert_error(400, "cannot downgrade mount from version 2");
    }
    root.post("sys/mounts/old/tune", json!({ "description": "still tunable" })).assert_status(204);
}

/// Over three servers: of writers with the same version one wins, wherever they are, and without one nobody's version is lost.
#[test]
fn check_and_set_holds_over_three_servers() {
    let nodes = Nodes::start(3);
    mount(&nodes.servers[0]);
    for round in 0..4 {
        let start = Barrier::new(9);
        let won: Vec<i64> = thread::scope(|scope| {
            let writers: Vec<_> = (0..9)
                .map(|writer| {
                    let (root, start) = (nodes.root(writer), &start);
                    scope.spawn(move || {
                        start.wait();
                        let body = json!({ "data": { "by": writer }, "options": { "cas": round } });
                        let answer = root.put("kv/data/a", body);
                        if answer.status != 200 {
                            answer.assert_error(400, "check-and-set parameter did not match the current version");
                            return None;
                        }
                        i64::try_from(writer).ok()
                    })
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "round {round}");
        for at in 0..3 {
            nodes
                .root(at)
                .get("kv/data/a")
                .assert_at("/data/data/by", won[0])
                .assert_at("/data/metadata/version", round + 1);
        }
    }
    let mut versions: Vec<i64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..9)
            .map(|writer| {
                let root = nodes.root(writer);
                let body = json!({ "data": { "by": writer } });
                scope.spawn(move || root.put("kv/data/b", body).assert_status(200).number("/data/version"))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// A mount is upgraded on one server, which is killed at once, while others write to it as to one of version 1: what was
/// acknowledged is there on the servers that are left.
#[test]
fn an_upgrade_on_one_server_loses_nothing_that_others_acknowledge() {
    let nodes = Nodes::start(3);
    nodes.root(0).post("sys/mounts/old", json!({ "type": "kv" })).assert_status(204);
    for n in 0..20 {
        nodes.root(0).put(&format!("old/still/k{n}"), json!({ "v": n })).assert_status(204);
    }
    let acknowledged: Vec<i64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let root = nodes.root(1 + writer % 2);
                scope.spawn(move || {
                    let mut last = 0;
                    for value in 1..5_000 {
                        // A reader beside it takes the value over as soon as the server knows that it has versions.
                        let answer = root.put(&format!("old/w{writer}"), json!({ "v": value }));
                        let _ = root.get(&format!("old/data/w{writer}"));
                        if answer.status != 204 {
                            // 503 while this server has not heard that the mount has versions, and the key has them.
                            assert!(matches!(answer.status, 404 | 503), "{answer}");
                            break;
                        }
                        last = value;
                    }
                    last
                })
            })
            .collect();
        thread::sleep(std::time::Duration::from_millis(300));
        nodes.root(0).post("sys/mounts/old/tune", json!({ "options": { "version": "2" } })).assert_status(204);
        nodes.servers[0].kill();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for (writer, last) in acknowledged.into_iter().enumerate() {
        assert!(last > 0, "writer {writer} wrote nothing");
        for at in [1, 2] {
            nodes.root(at).get(&format!("old/data/w{writer}")).assert_status(200).assert_at("/data/data/v", last);
        }
    }
    for n in 0..20 {
        let read = nodes.root(1 + n % 2).get(&format!("old/data/still/k{n}")).assert_status(200);
        read.assert_at("/data/data/v", n).assert_at("/data/metadata/version", 1);
    }
}

/// Each command on our server with our command line, and, where there is one, OpenBao's command line on OpenBao: they print the same.
#[test]
fn the_command_line_prints_what_vaults_prints() {
    const LINES: &[&str] = &[
        "kv put secret/app color=green n=1",
        "kv put -cas=1 secret/app color=red",
        "kv put -cas=1 secret/app color=blue",
        "kv put -mount=secret -cas=0 app2 x=y",
        "kv get secret/app",
        "kv get -mount=secret -version=1 app",
        "kv get -field=color secret/app",
        "kv get -field=data -format=json secret/app",
        "kv get -format=json secret/app",
        "kv get -format=yaml secret/app",
        "kv get secret/none",
        "kv get -version=9 secret/app",
        "kv patch secret/app c=d",
        "kv patch -method=rw secret/app e=f",
        "kv patch -method=patch -cas=99 secret/app e=f",
        "kv patch secret/none e=f",
        "kv patch -method=rw secret/none e=f",
        "kv patch -remove-data=c secret/app z=1",
        "kv get secret/app",
        "kv delete secret/app",
        "kv get secret/app",
        "kv undelete -versions=4 secret/app",
        "kv undelete secret/app",
        "kv delete -versions=1,2 secret/app",
        "kv destroy -versions=1 secret/app",
        "kv destroy secret/app",
        "kv rollback -version=2 secret/app",
        "kv rollback -version=3 secret/app",
        "kv rollback -version=99 secret/app",
        "kv rollback secret/app",
        "kv rollback -version=3 secret/none",
        "kv list secret",
        "kv list -mount=secret",
        "kv list secret/none",
        "kv list -format=json secret/",
        "kv scan secret",
        "kv metadata put -max-versions=5 -delete-version-after=3h -custom-metadata=a=b -custom-metadata=c=d -cas-required secret/app",
        "kv metadata get secret/app",
        "kv metadata get -format=json secret/app2",
        "kv metadata get secret/none",
        "kv metadata patch -custom-metadata=a=z -max-versions=6 secret/app",
        "kv metadata patch -remove-custom-metadata=a secret/app",
        "kv metadata patch -max-versions=3 secret/none",
        "kv metadata get -mount=secret app",
        "kv put secret/app a=b",
        "kv metadata delete secret/app2",
        "kv metadata delete secret/none",
        "kv enable-versioning secret",
        "kv enable-versioning nope",
        "kv put k1/a b=c",
        "kv get k1/a",
        "kv patch k1/a b=c",
        "kv undelete -versions=1 k1/a",
        "kv destroy -versions=1 k1/a",
        "kv rollback -version=1 k1/a",
        "kv metadata get k1/a",
        "kv list k1",
        "kv delete k1/a",
        "kv put secret/x",
        "kv get",
        "kv get a b",
        "kv undelete",
    ];
    let server = Server::dev();
    server.root().post("sys/mounts/k1", json!({ "type": "kv" })).assert_status(204);
    let ours: Vec<_> = LINES.iter().map(|line| server.cli().line(line)).collect();
    let shown = |at: &str| &ours[LINES.iter().position(|line| *line == at).unwrap()];
    assert!(
        shown("kv get secret/app").stdout.starts_with("= Secret Path =\nsecret/data/app\n\n======= Metadata =======\n")
    );
    assert_eq!(shown("kv get -field=color secret/app").stdout, "red");
    let Some(bao) = Bao::find("the kv commands") else { return };
    let other = Server::openbao(&bao);
    other.root().post("sys/mounts/k1", json!({ "type": "kv" })).assert_status(204);
    eventually("OpenBao's mount is ready", || other.root().get("secret/config").status == 200);
    let cli = other.cli();
    for (line, ours) in LINES.iter().zip(&ours) {
        let theirs = cli.line(line);
        let ours = (ours.status, printed(&server, &ours.stdout), printed(&server, &ours.stderr));
        assert_eq!(ours, (theirs.status, printed(&other, &theirs.stdout), printed(&other, &theirs.stderr)), "{line}");
    }
}

/// What is printed, without moments, request ids and addresses.
fn printed(server: &Server, text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace(server.address(), "ADDRESS");
        match line.find("_time").or_else(|| line.find("request_id")) {
            Some(at) if line.contains("20") || line.contains("request_id") => line[..at].to_owned(),
            _ => line,
        }
    };
    text.trim().lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What a command only asks to prepare its request is neither wrapped nor only printed.
#[test]
fn only_the_request_that_is_meant_is_wrapped_or_printed() {
    let server = Server::dev();
    let cli = server.cli();
    for line in [
        "kv put -wrap-ttl=60s secret/app color=green",
        "kv patch -method=rw -wrap-ttl=60s secret/app size=5",
        "kv rollback -wrap-ttl=60s -version=1 secret/app",
        "kv get -wrap-ttl=60s secret/app",
        "kv metadata get -wrap-ttl=60s secret/app",
        "kv list -wrap-ttl=60s secret",
    ] {
        let token = cli.line(line).assert_status(0).row("wrapping_token:");
        server.secrets().tell(&token);
        cli.line(&format!("unwrap {token}")).assert_status(0);
    }
    cli.line("kv get -field=size secret/app").assert_status(1);
    for (line, printed) in [
        ("kv get -output-curl-string secret/app", "/v1/secret/data/app"),
        ("kv patch -method=rw -output-curl-string secret/app x=y", "-X PUT"),
        ("kv rollback -output-curl-string -version=1 secret/app", "-X PUT"),
        ("kv destroy -output-curl-string -versions=1 secret/app", "/v1/secret/destroy/app"),
        ("kv metadata delete -output-policy secret/app", "path \"secret/metadata/app\""),
    ] {
        let ran = cli.line(line).assert_stdout(printed);
        assert!(!ran.stdout.contains("sys/internal"), "{ran}");
    }
    server.root().get("secret/data/app").assert_at("/data/metadata/version", 3);
}
