//! What the store costs: one server over PostgreSQL beside one over SQLite and beside an OpenBao over PostgreSQL. CPU and round trips
//! to the store per request.

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_devpg::DevPg;
use serde_json::{Value, json};

use crate::cases::CLIENTS;
use crate::load::{Connection, Done, each_once, for_time, request};
use crate::peer::{Peer, Running, Store, store};
use crate::trips::Counter;

/// Credentials, renewals and ends of a round: as many as leave the catalogue of PostgreSQL small.
const LEASES: usize = 600;
/// Requests one after the other, whose round trips are counted.
const COUNTED: u64 = 200;

const SIDES: [&str; 3] = ["Leasehold on PostgreSQL", "Leasehold on SQLite", "OpenBao on PostgreSQL"];
const CASES: [&str; 6] = ["lookup-self", "denied", "token create", "creds", "renew", "revoke"];

#[derive(Debug, Default)]
struct Cell {
    cpu: Vec<f64>,
    rate: Vec<f64>,
    trips: Option<f64>,
}

type Table = BTreeMap<(usize, usize), Cell>;

pub fn run(ours: &Peer, bao: Option<&Peer>, postgresql: &DevPg, rounds: usize, length: Duration) {
    let mut table = Table::new();
    let sides = [Some(ours), Some(ours), bao];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let mut order: Vec<usize> = (0..SIDES.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let Some(peer) = sides[at] else { continue };
            let url = store(postgresql, "bench_store", None);
            let server = peer.start_durable(if at == 1 { Store::Own } else { Store::PostgreSql(&url) });
            measure(&server, at, postgresql, length, &mut table);
        }
    }
    for (at, peer) in sides.iter().enumerate() {
        if at != 1
            && let Some(peer) = peer
        {
            count(peer, at, postgresql, &mut table);
        }
    }
    print(&table, rounds, length);
}

fn prepared(server: &Running, postgresql: &DevPg) -> String {
    let role = json!({
        "db_name": "pg",
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"],
        "default_ttl": "1h",
    });
    server.connect(postgresql, "password", &role);
    server.admin(
        "PUT",
        "sys/policies/acl/app",
        &json!({ "policy": "path \"database/creds/*\" { capabilities = [\"read\"] }" }),
    );
    let token = server.admin("POST", "auth/token/create", &json!({ "policies": ["app"] }));
    token["auth"]["client_token"].as_str().expect("a token").to_owned()
}

fn leases(bodies: &[Vec<u8>]) -> Vec<String> {
    let id = |body: &Vec<u8>| {
        serde_json::from_slice::<Value>(body).expect("JSON")["lease_id"].as_str().expect("a lease").to_owned()
    };
    bodies.iter().map(id).collect()
}

fn ends(server: &Running, ids: &[String]) -> Vec<Vec<u8>> {
    let end = |id: &String| {
        request("PUT", "sys/leases/revoke", &server.root, &json!({ "lease_id": id, "sync": true }).to_string())
    };
    ids.iter().map(end).collect()
}

fn renewals(server: &Running, ids: &[String]) -> Vec<Vec<u8>> {
    let renew = |id: &String| request("PUT", "sys/leases/renew", &server.root, &json!({ "lease_id": id }).to_string());
    ids.iter().map(renew).collect()
}

fn measure(server: &Running, at: usize, postgresql: &DevPg, length: Duration, table: &mut Table) {
    let token = prepared(server, postgresql);
    let address = &server.address;
    let mut book = |case: &str, run: &mut dyn FnMut() -> Done| {
        let before = server.cpu();
        let done = run();
        let cpu = server.cpu().saturating_sub(before).as_secs_f64() * 1_000.0 / done.requests.max(1) as f64;
        eprintln!("  {:<24} {case}: {cpu:.3} ms, {:.0}/s", SIDES[at], done.rate());
        let cell = table.entry((CASES.iter().position(|known| *known == case).expect("a case"), at)).or_default();
        cell.cpu.push(cpu);
        cell.rate.push(done.rate());
    };
    let lookup = request("GET", "auth/token/lookup-self", &token, "");
    book("lookup-self", &mut || for_time(address, CLIENTS, length, &[200], &lookup));
    let denied = request("GET", "database/roles/app", &token, "");
    book("denied", &mut || for_time(address, CLIENTS, length, &[403], &denied));
    let create = request("POST", "auth/token/create", &server.root, "{\"policies\":[\"app\"]}");
    book("token create", &mut || for_time(address, CLIENTS, length, &[200], &create));
    let mut bodies = Vec::new();
    let asked = vec![request("GET", "database/creds/app", &token, ""); LEASES];
    book("creds", &mut || {
        let (done, given) = each_once(address, CLIENTS, &[200], &asked);
        bodies = given;
        done
    });
    let ids = leases(&bodies);
    let renewals = renewals(server, &ids);
    book("renew", &mut || each_once(address, CLIENTS, &[200], &renewals).0);
    let ends = ends(server, &ids);
    book("revoke", &mut || each_once(address, CLIENTS, &[204], &ends).0);
}

/// Round trips to the store per request; those of a server that nobody asks are taken off.
fn count(peer: &Peer, at: usize, postgresql: &DevPg, table: &mut Table) {
    let upstream = std::net::SocketAddr::from(([127, 0, 0, 1], postgresql.port()));
    let counter = Counter::before(upstream);
    let url = store(postgresql, "bench_store", Some(counter.address));
    let server = peer.start_durable(Store::PostgreSql(&url));
    let token = prepared(&server, postgresql);
    std::thread::sleep(Duration::from_secs(2));
    let (before, began) = (counter.so_far(), std::time::Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let idle = counter.so_far().saturating_sub(before) as f64 / began.elapsed().as_secs_f64();
    eprintln!("  {:<24} asks its store {idle:.1} times a second when nobody asks it", SIDES[at]);
    let mut connection = Connection::open(&server.address);
    let mut turns = |case: usize, requests: &[Vec<u8>]| {
        let (before, began) = (counter.so_far(), std::time::Instant::now());
        let answers: Vec<Vec<u8>> = requests.iter().map(|request| connection.ask(request).body).collect();
        let trips = counter.so_far().saturating_sub(before) as f64 - idle * began.elapsed().as_secs_f64();
        table.entry((case, at)).or_default().trips = Some(trips.max(0.0) / requests.len() as f64);
        answers
    };
    let times = usize::try_from(COUNTED).expect("a count");
    turns(0, &vec![request("GET", "auth/token/lookup-self", &token, ""); times]);
    turns(1, &vec![request("GET", "database/roles/app", &token, ""); times]);
    turns(2, &vec![request("POST", "auth/token/create", &server.root, "{\"policies\":[\"app\"]}"); times]);
    let ids = leases(&turns(3, &vec![request("GET", "database/creds/app", &token, ""); times]));
    turns(4, &renewals(&server, &ids));
    turns(5, &ends(&server, &ids));
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn print(table: &Table, rounds: usize, length: Duration) {
    println!(
        "\nMedians of {rounds} interleaved rounds of {} s a load, {CLIENTS} keep-alive connections, `password_authentication=password`.",
        length.as_secs()
    );
    println!("CPU per request is the server's own; round trips to the store are counted one request at a time.\n");
    println!(
        "| what | {} CPU, rate, trips | {} CPU, rate | {} CPU, rate, trips | CPU, PostgreSQL ÷ SQLite | CPU, OpenBao ÷ Leasehold |",
        SIDES[0], SIDES[1], SIDES[2]
    );
    println!("|---|---|---|---|---|---|");
    for (case, name) in CASES.iter().enumerate() {
        let cell = |at: usize| table.get(&(case, at));
        let cpu = |at: usize| cell(at).and_then(|cell| median(&cell.cpu));
        let shown = |at: usize| {
            let Some(cell) = cell(at) else { return "–".to_owned() };
            let trips = cell.trips.map(|trips| format!(", {trips:.1}")).unwrap_or_default();
            format!(
                "{:.3} ms, {:.0}/s{trips}",
                median(&cell.cpu).unwrap_or_default(),
                median(&cell.rate).unwrap_or_default()
            )
        };
        let ratio =
            |a: Option<f64>, b: Option<f64>| a.zip(b).map_or_else(|| "–".to_owned(), |(a, b)| format!("{:.2}", a / b));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            shown(0),
            shown(1),
            shown(2),
            ratio(cpu(0), cpu(1)),
            ratio(cpu(2), cpu(0))
        );
    }
}
