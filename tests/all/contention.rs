//! Many clients that write at once, on one server and on several: each of them is answered.

use std::thread;

use serde_json::json;

use super::nodes::Nodes;
use crate::support::{Answer, Client, Durable, Server};

const CLIENTS: usize = 16;
/// Of each client, one after the other.
const WRITES: usize = 12;

/// Clients that change at once what everything is decided by: each of them is answered, however many they are.
fn all_at_once(servers: &[&Server]) {
    let root = |at: usize| servers[at % servers.len()].root();
    let entity = root(0).post("identity/entity", json!({ "name": "e" })).text("/data/id");
    let change = |client: &Client, n: usize| {
        let policy = json!({ "policy": "path \"k/*\" { capabilities = [\"read\"] }" });
        let group = json!({ "name": format!("g{n}"), "member_entity_ids": [entity], "policies": ["p0"] });
        [
            client.put(&format!("sys/policies/acl/p{n}"), policy),
            client.post("identity/group", group),
            client.post(&format!("sys/mounts/m{n}"), json!({ "type": "kv" })),
            client.post(&format!("sys/auth/a{n}"), json!({ "type": "approle" })),
        ]
    };
    thread::scope(|scope| {
        for at in 0..12 {
            let (client, change) = (root(at), &change);
            scope.spawn(move || {
                for n in 0..6 {
                    for answer in change(&client, at * 6 + n) {
                        assert!(matches!(answer.status, 200 | 204), "{answer}");
                    }
                }
            });
        }
    });
    assert_eq!(root(1).list("sys/policies/acl").at("/data/keys").as_array().unwrap().len(), 72 + 2);
}

/// One write of a client, its n-th.
type Write<'a> = &'a (dyn Fn(&Client, usize) -> Answer + Sync);

/// Clients that write one and the same record at once.
fn all_at_one(servers: &[&Server]) {
    let root = |at: usize| servers[at % servers.len()].root();
    root(0).post("sys/auth/many", json!({ "type": "approle" })).assert_status(204);
    root(0).post("auth/many/role/r", json!({ "token_policies": "default" })).assert_status(204);
    let role = root(0).get("auth/many/role/r/role-id").text("/data/role_id");
    let secret = root(0).post("auth/many/role/r/secret-id", json!({ "num_uses": 500 })).text("/data/secret_id");
    let entity = root(0).post("identity/entity", json!({ "name": "one" })).text("/data/id");
    // One kind after the other: all at the same record.
    let writes: [Write; 4] = [
        &|client, _| client.post("auth/many/login", json!({ "role_id": role, "secret_id": secret })),
        &|client, n| client.post("auth/many/role/r", json!({ "token_ttl": n + 1 })),
        &|client, n| client.post("auth/token/roles/r", json!({ "token_period": n + 1 })),
        &|client, n| {
            client.post(&format!("identity/entity/id/{entity}"), json!({ "metadata": { "n": n.to_string() } }))
        },
    ];
    for write in writes {
        thread::scope(|scope| {
            for at in 0..CLIENTS {
                let client = root(at);
                scope.spawn(move || {
                    for n in 0..WRITES {
                        let answer = write(&client, n);
                        assert!(matches!(answer.status, 200 | 204), "{answer}");
                    }
                });
            }
        });
    }
    let uses = root(1).post("auth/many/role/r/secret-id/lookup", json!({ "secret_id": secret }));
    uses.assert_at("/data/secret_id_num_uses", 500 - CLIENTS * WRITES);
}

#[test]
fn many_that_write_one_record_at_once_are_all_answered() {
    all_at_one(&[&Server::durable(&Durable::default())]);
    let nodes = Nodes::start(3);
    all_at_one(&nodes.servers.iter().collect::<Vec<_>>());
}

#[test]
fn many_that_change_what_is_decided_by_at_once_are_all_answered() {
    all_at_once(&[&Server::durable(&Durable::default())]);
    let nodes = Nodes::start(3);
    all_at_once(&nodes.servers.iter().collect::<Vec<_>>());
}
