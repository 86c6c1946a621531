//! A store with a thousand tokens and leases beside one with a million (`COUNT`), on SQLite and on PostgreSQL.

use std::time::{Duration, Instant};

use leasehold_devpg::DevPg;
use serde_json::json;

use crate::cases::CLIENTS;
use crate::load::{Connection, for_time, request};
use crate::peer::{Peer, Running, Store, store};

const FEW: usize = 1_000;

/// What was measured of one store with so many rows.
#[derive(Debug)]
struct Size {
    figures: Vec<(&'static str, f64)>,
}

pub fn run(peer: &Peer, postgresql: &DevPg, many: usize, length: Duration, only: Option<&str>) {
    for name in ["SQLite", "PostgreSQL"].into_iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let sizes = [FEW, many].map(|count| {
            let url = store(postgresql, "bench_scale", None);
            let store = if name == "SQLite" { Store::Own } else { Store::PostgreSql(&url) };
            eprintln!("{name}, {count} tokens and leases");
            measured(peer.start_durable(store), store, postgresql, count, length)
        });
        println!("\n| on {name} | {FEW} | {many} | ratio |\n|---|---|---|---|");
        for ((what, few), (_, many)) in sizes[0].figures.iter().zip(&sizes[1].figures) {
            println!("| {what} | {few:.2} | {many:.2} | {:.2} |", many / few);
        }
    }
}

fn measured(mut server: Running, store: Store, postgresql: &DevPg, count: usize, length: Duration) -> Size {
    // A lease without a role: a million roles would be PostgreSQL's own time.
    server.connect(
        postgresql,
        "password",
        &json!({ "db_name": "pg", "creation_statements": ["SELECT 1"], "default_ttl": "24h" }),
    );
    let create = request("POST", "auth/token/create", &server.root, "{\"policies\":[\"default\"],\"ttl\":\"24h\"}");
    let creds = request("GET", "database/creds/app", &server.root, "");
    let mut figures = Vec::new();
    // One of each is made by the server. The others are copies, each sealed under its own name: over HTTP a million would take an hour.
    for ask in [&create, &creds] {
        assert_eq!(Connection::open(&server.address).ask(ask).status, 200);
    }
    let began = Instant::now();
    server.fill(store, count);
    eprintln!("  filled within {:.0} s", began.elapsed().as_secs_f64());
    let after = server.restart();
    figures.push(("from the share to the first answer, ms", after.as_secs_f64() * 1_000.0));
    std::thread::sleep(Duration::from_secs(3));
    figures.push(("resident after that, MiB", server.rss() as f64 / 1_024.0));
    let rate = |what: &str, request: &[u8]| {
        let rate = for_time(&server.address, CLIENTS, length, &[200], request).rate();
        eprintln!("  {what}: {rate:.0}/s");
        rate
    };
    let lookup = request("GET", "auth/token/lookup-self", &server.root, "");
    figures.push(("lookup-self, per s", rate("lookup-self", &lookup)));
    figures.push(("token create, per s", rate("token create", &create)));
    figures.push(("creds of a role that makes no login, per s", rate("creds", &creds)));
    for (what, path) in [
        ("a scrape of sys/metrics, ms", "sys/metrics?format=prometheus"),
        ("the first 100 leases of a role, ms", "sys/leases/lookup/database/creds/app?list=true&limit=100"),
        ("the first 100 accessors, ms", "auth/token/accessors?list=true&limit=100"),
    ] {
        let mut connection = Connection::open(&server.address);
        let ask = request("GET", path, &server.root, "");
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let began = Instant::now();
                let answer = connection.ask(&ask);
                assert!(answer.status == 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        figures.push((what, times[4].as_secs_f64() * 1_000.0));
    }
    figures.push(("resident at the end, MiB", server.rss() as f64 / 1_024.0));
    Size { figures }
}
