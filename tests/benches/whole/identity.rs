//! A store with few entities and groups beside one with many: `ENTITIES=100000`, a tenth as many groups, on SQLite.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cases::CLIENTS;
use crate::load::{each_once, for_time, request};
use crate::peer::{Peer, Running, Store};

const FEW: usize = 100;
/// Members of each group.
const MEMBERS: usize = 20;
/// Tokens whose first request is measured.
const FIRSTS: usize = 500;
const ADMIN: &str = "identity";

const LOADS: [&str; 4] = ["lookup-self", "kv read by a templated policy", "entity by name", "group by name"];

pub fn run(peer: &Peer, many: usize, rounds: usize, length: Duration) {
    let mut sides = [FEW, many].map(|count| (count, filled(peer, count)));
    // Each load on one side and then on the other, by turns.
    let mut cpu: Vec<[Vec<f64>; 2]> = LOADS.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for round in 0..rounds {
        for (load, of) in LOADS.iter().zip(&mut cpu) {
            for turn in 0..2 {
                let at = (turn + round) % 2;
                let (_, side) = &sides[at];
                let before = side.server.cpu();
                let done = for_time(&side.server.address, CLIENTS, length, &[200], &side.request(load));
                let each = side.server.cpu().saturating_sub(before).as_secs_f64() * 1_000.0 / done.requests as f64;
                eprintln!("  {load} of {}: {each:.4} ms, {:.0}/s", sides[at].0, done.rate());
                of[at].push(each);
            }
        }
    }
    println!("\nMedians of {rounds} interleaved rounds of {} s a load: CPU per request on SQLite.\n", length.as_secs());
    println!("| what | {FEW} entities | {many} | ratio |\n|---|---|---|---|");
    let row = |what: &str, few: f64, many: f64, unit: &str| {
        println!("| {what} | {few:.3} {unit} | {many:.3} {unit} | {:.2} |", many / few);
    };
    for (load, of) in LOADS.iter().zip(&mut cpu) {
        let median = |values: &mut Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        };
        row(load, median(&mut of[0]), median(&mut of[1]), "ms");
    }
    for (_, side) in &mut sides {
        side.figures[0].1 = side.server.restart().as_secs_f64() * 1_000.0;
    }
    let (few, many) = (&sides[0].1, &sides[1].1);
    for ((what, few, unit), (_, many, _)) in few.figures.iter().zip(&many.figures) {
        row(what, *few, *many, unit);
    }
}

struct Side {
    server: Running,
    /// Of an entity that is in one group.
    token: String,
    figures: Vec<(&'static str, f64, &'static str)>,
}

impl Side {
    fn request(&self, load: &str) -> Vec<u8> {
        match load {
            "lookup-self" => request("GET", "auth/token/lookup-self", &self.token, ""),
            "entity by name" => request("GET", "identity/entity/name/e1", &self.server.root, ""),
            "group by name" => request("GET", "identity/group/name/g0", &self.server.root, ""),
            _ => request("GET", "k/e1/app", &self.token, ""),
        }
    }
}

fn filled(peer: &Peer, count: usize) -> Side {
    eprintln!("{count} entities, {} groups", count / 10);
    let server = peer.start_durable(Store::Own);
    let post = |path: &str, body: &Value| request("POST", path, &server.root, &body.to_string());
    server.admin("POST", "sys/mounts/k", &json!({ "type": "kv" }));
    server.admin(
        "PUT",
        &format!("sys/policies/acl/{ADMIN}"),
        &json!({
            "policy": "path \"k/{{identity.entity.name}}/*\" { capabilities = [\"read\"] }"
        }),
    );
    let entities: Vec<Vec<u8>> =
        (0..count).map(|n| post("identity/entity", &json!({ "name": format!("e{n}"), "policies": [ADMIN] }))).collect();
    let (done, bodies) = each_once(&server.address, CLIENTS, &[200], &entities);
    let id = |body: &Vec<u8>| {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        body["data"]["id"].as_str().expect("an id").to_owned()
    };
    let ids: Vec<String> = bodies.iter().map(id).collect();
    let groups: Vec<Vec<u8>> = (0..count / 10)
        .map(|n| {
            let members: Vec<&String> = (0..MEMBERS).map(|member| &ids[(n * 10 + member) % ids.len()]).collect();
            post(
                "identity/group",
                &json!({ "name": format!("g{n}"), "member_entity_ids": members, "policies": [ADMIN] }),
            )
        })
        .collect();
    let (grouped, _) = each_once(&server.address, 1, &[200], &groups);
    // Tokens that stand for entities, by aliases at `token/`.
    let mounts = server.admin("GET", "sys/auth", &Value::Null);
    let accessor = mounts["data"]["token/"]["accessor"].clone();
    server.admin("POST", "auth/token/roles/as", &json!({ "allowed_entity_aliases": ["*"], "orphan": true }));
    let firsts = FIRSTS.min(count);
    let aliases: Vec<Vec<u8>> = (0..firsts)
        .map(|n| {
            let entity = server.admin("GET", &format!("identity/entity/name/e{n}"), &Value::Null);
            let body =
                json!({ "name": format!("a{n}"), "mount_accessor": accessor, "canonical_id": entity["data"]["id"] });
            post("identity/entity-alias", &body)
        })
        .collect();
    each_once(&server.address, CLIENTS, &[200], &aliases);
    let tokens: Vec<String> = (0..firsts)
        .map(|n| {
            let body = json!({ "entity_alias": format!("a{n}"), "policies": ["default"] });
            let made = server.admin("POST", "auth/token/create/as", &body);
            made["auth"]["client_token"].as_str().expect("a token").to_owned()
        })
        .collect();
    for n in 0..firsts {
        server.admin("POST", &format!("k/e{n}/app"), &json!({ "a": "b" }));
    }
    let reads: Vec<Vec<u8>> =
        tokens.iter().enumerate().map(|(n, token)| request("GET", &format!("k/e{n}/app"), token, "")).collect();
    let each = || {
        let before = server.cpu();
        each_once(&server.address, CLIENTS, &[200], &reads);
        server.cpu().saturating_sub(before).as_secs_f64() * 1_000.0 / firsts as f64
    };
    let (first, second) = (each(), each());
    std::thread::sleep(Duration::from_secs(2));
    let figures = vec![
        ("from the share to the first answer", 0.0, "ms"),
        ("an entity's first request, which compiles its policies: CPU", first, "ms"),
        ("its second one", second, "ms"),
        ("entities made", done.rate(), "/s"),
        ("groups of 20 made", grouped.rate(), "/s"),
        ("resident memory", server.rss() as f64 / 1_024.0, "MiB"),
    ];
    Side { token: tokens[1].clone(), server, figures }
}
