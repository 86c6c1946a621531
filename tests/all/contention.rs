//! Many clients that write at once, on one server and on several: each of them is answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::nodes::Nodes;
use crate::support::{Answer, Client, Durable, Server};

const CLIENTS: usize = 16;
/// Of each client, one after the other.
const WRITES: usize = 12;

/// One write of a client, its n-th.
type Write<'a> = &'a (dyn Fn(&Client, usize) -> Answer + Sync);

/// Writes until that is answered. A server that was not let run for seconds, on a machine that is busy with other work, has to refuse
/// what comes until it has heard of the others again, and its log says so of the request: that is repeated, and nothing else is.
fn answered(server: &Server, client: &Client, write: impl Fn(&Client) -> Answer) -> usize {
    for refused in 0..50 {
        let answer = write(client);
        // What was refused may have been done all the same.
        if matches!(answer.status, 200 | 204) || refused > 0 && answer.body.contains("already in use") {
            return refused;
        }
        let text = answer.text("/errors/0");
        let id = text.rsplit(' ').next().filter(|_| answer.status == 503).unwrap_or_default();
        let log = server.log();
        let why: Vec<&str> = log.lines().filter(|line| !id.is_empty() && line.contains(id)).collect();
        let starved = |line: &&str| line.contains("has not heard of it") || line.contains("was silent");
        assert!(why.iter().any(starved), "{answer}\n{}", why.join("\n"));
        thread::sleep(Duration::from_millis(200));
    }
    panic!("refused for 10 s");
}

/// Clients that change at once what everything is decided by: each of them is answered, however many they are.
fn all_at_once(servers: &[&Server]) {
    let root = |at: usize| servers[at % servers.len()].root();
    let entity = root(0).post("identity/entity", json!({ "name": "e" })).text("/data/id");
    let policy = json!({ "policy": "path \"k/*\" { capabilities = [\"read\"] }" });
    let group = |n| json!({ "name": format!("g{n}"), "member_entity_ids": [entity], "policies": ["p0"] });
    let writes: [Write; 4] = [
        &|client, n| client.put(&format!("sys/policies/acl/p{n}"), policy.clone()),
        &|client, n| client.post("identity/group", group(n)),
        &|client, n| client.post(&format!("sys/mounts/m{n}"), json!({ "type": "kv" })),
        &|client, n| client.post(&format!("sys/auth/a{n}"), json!({ "type": "approle" })),
    ];
    thread::scope(|scope| {
        for at in 0..12 {
            let (server, client) = (servers[at % servers.len()], root(at));
            scope.spawn(move || {
                for n in 0..6 {
                    for write in writes {
                        answered(server, &client, |client| write(client, at * 6 + n));
                    }
                }
            });
        }
    });
    assert_eq!(root(1).list("sys/policies/acl").at("/data/keys").as_array().unwrap().len(), 72 + 2);
}

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
    let refused = &AtomicUsize::new(0);
    for write in writes {
        thread::scope(|scope| {
            for at in 0..CLIENTS {
                let (server, client) = (servers[at % servers.len()], root(at));
                scope.spawn(move || {
                    for n in 0..WRITES {
                        refused.fetch_add(answered(server, &client, |client| write(client, n)), Ordering::Relaxed);
                    }
                });
            }
        });
    }
    let left = root(1).post("auth/many/role/r/secret-id/lookup", json!({ "secret_id": secret }));
    let taken = 500 - usize::try_from(left.number("/data/secret_id_num_uses")).unwrap();
    let (logins, refused) = (CLIENTS * WRITES, refused.load(Ordering::Relaxed));
    // One that was refused may have taken its use.
    assert!((logins..=logins + refused).contains(&taken), "{taken} uses, {logins} logins, {refused} refused");
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
