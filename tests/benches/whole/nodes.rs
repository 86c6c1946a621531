//! Several servers over one PostgreSQL (`NODES=3`): what a request costs on one and on all of them, and how long a change takes to count on
//! each.
//!
//! On two processors all servers share the first one, and PostgreSQL and the load the second: what is compared is the same processor
//! given to one server and to several.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leasehold_devpg::DevPg;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::cases::CLIENTS;
use crate::load::{Connection, Done, for_time, request};
use crate::peer::{Peer, Running, Store, store};

/// Changes whose time is taken while all servers follow.
const CHANGES: usize = 300;
/// How often a server is paused.
const PAUSES: usize = 5;

const CASES: [&str; 4] = ["lookup-self", "denied", "token create", "creds"];

/// Of one load: requests a second, and CPU of all servers and of PostgreSQL for a request, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    rate: f64,
    cpu: f64,
    store: f64,
}

pub fn run(peer: &Peer, postgresql: &DevPg, count: usize, rounds: usize, length: Duration) {
    let mut costs: [Vec<[Cost; CASES.len()]>; 2] = Default::default();
    for round in 0..rounds {
        let mut order = [1, count];
        if round % 2 == 1 {
            order.reverse();
        }
        for servers in order {
            eprintln!("round {} of {rounds}: {servers} servers", round + 1);
            let nodes = started(peer, postgresql, servers);
            costs[usize::from(servers != 1)].push(measured(&nodes, postgresql, length));
        }
    }
    println!(
        "\n| what | one server: rate, CPU, PostgreSQL's CPU | {count} servers: rate, CPU, PostgreSQL's CPU | rate, {count} ÷ 1 |\n|---|---|---|---|"
    );
    for (case, name) in CASES.iter().enumerate() {
        let [one, all] = [0, 1].map(|side| median(&costs[side], case));
        let shown = |cost: Cost| format!("{:.0}/s, {:.3} ms, {:.3} ms", cost.rate, cost.cpu, cost.store);
        println!("| {name} | {} | {} | {:.2} |", shown(one), shown(all), all.rate / one.rate);
    }
    let nodes = started(peer, postgresql, count);
    println!("\n| until a changed policy counts on {count} servers | |\n|---|---|");
    let mut times = changes(&nodes, CHANGES);
    times.sort_unstable();
    for (what, of) in [("median", 50), ("p99", 99), ("longest", 100)] {
        let time = times[(times.len() - 1) * of / 100];
        println!("| {what} of {CHANGES} | {:.1} ms |", time.as_secs_f64() * 1_000.0);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..PAUSES {
        let paused = nodes.last().expect("a server");
        signal(paused, Signal::STOP);
        longest = longest.max(changes(&nodes[..1], 1)[0]);
        signal(paused, Signal::CONT);
        // It joins again.
        std::thread::sleep(Duration::from_secs(2));
    }
    println!("| longest of {PAUSES}, the first after one server was paused | {:.2} s |", longest.as_secs_f64());
}

fn started(peer: &Peer, postgresql: &DevPg, count: usize) -> Vec<Running> {
    let url = store(postgresql, "bench_nodes", None);
    let first = peer.start_durable(Store::PostgreSql(&url));
    let role = json!({
        "db_name": "pg",
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"],
        "default_ttl": "1h",
    });
    first.connect(postgresql, "password", &role);
    let mut nodes = vec![first];
    while nodes.len() < count {
        nodes.push(peer.join(&nodes[0], &url));
    }
    nodes
}

fn measured(nodes: &[Running], postgresql: &DevPg, length: Duration) -> [Cost; CASES.len()] {
    nodes.iter().for_each(|node| pin(node.pid(), 0));
    pin(postgresql.process_id().expect("it runs"), 1);
    pin(std::process::id(), 1);
    let root = &nodes[0].root;
    let token = nodes[0].admin("POST", "auth/token/create", &json!({ "policies": ["default"] }));
    let token = token["auth"]["client_token"].as_str().expect("a token").to_owned();
    let asked: [(u16, Vec<u8>); CASES.len()] = [
        (200, request("GET", "auth/token/lookup-self", &token, "")),
        (403, request("GET", "database/roles/app", &token, "")),
        (200, request("POST", "auth/token/create", root, "{\"policies\":[\"default\"]}")),
        (200, request("GET", "database/creds/app", root, "")),
    ];
    let costs = asked.map(|(status, request)| {
        let cpu = || nodes.iter().map(Running::cpu).sum::<Duration>();
        let (ours, theirs) = (cpu(), store_cpu(postgresql));
        let done: Vec<Done> = std::thread::scope(|scope| {
            let request = &request;
            let loads: Vec<_> = nodes
                .iter()
                .map(|node| {
                    let clients = CLIENTS.div_ceil(nodes.len());
                    scope.spawn(move || for_time(&node.address, clients, length, &[status], request))
                })
                .collect();
            loads.into_iter().map(|load| load.join().expect("a load ends")).collect()
        });
        let requests = done.iter().map(|done| done.requests).sum::<usize>().max(1) as f64;
        let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1_000.0 / requests;
        let rate = done.iter().map(Done::rate).sum();
        Cost { rate, cpu: each(ours, cpu()), store: each(theirs, store_cpu(postgresql)) }
    });
    nodes[0].admin("PUT", "sys/leases/revoke-prefix/database", &json!({ "sync": true }));
    costs
}

/// How long each of so many changes takes, made on one server after the other.
fn changes(nodes: &[Running], count: usize) -> Vec<Duration> {
    let mut connections: Vec<Connection> = nodes.iter().map(|node| Connection::open(&node.address)).collect();
    let mut change = |at: usize| {
        let body = json!({ "policy": format!("path \"kv/{at}\" {{ capabilities = [\"read\"] }}") }).to_string();
        let ask = request("PUT", "sys/policies/acl/changing", &nodes[0].root, &body);
        let connection = &mut connections[at % nodes.len()];
        let began = Instant::now();
        assert_eq!(connection.ask(&ask).status, 204);
        began.elapsed()
    };
    (0..count).map(&mut change).collect()
}

fn median(rounds: &[[Cost; CASES.len()]], case: usize) -> Cost {
    let middle = |of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(|round| of(&round[case])).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost { rate: middle(|cost| cost.rate), cpu: middle(|cost| cost.cpu), store: middle(|cost| cost.store) }
}

/// All threads of a process, and what it starts later, on one processor.
fn pin(process: u32, processor: usize) {
    let pinned = Command::new("taskset")
        .args(["-acp", &processor.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(pinned.expect("taskset, of util-linux").success(), "process {process} could not be pinned");
}

/// User and system time of PostgreSQL and its sessions so far, also of those that have ended.
fn store_cpu(postgresql: &DevPg) -> Duration {
    let main = postgresql.process_id().expect("it runs").to_string();
    let mut ticks = 0;
    for process in std::fs::read_dir("/proc").expect("accounting").flatten() {
        let Ok(stat) = std::fs::read_to_string(Path::new(&process.path()).join("stat")) else { continue };
        let Some((before, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let is_main = before.starts_with(&format!("{main} "));
        // utime and stime, and for the first of them cutime and cstime.
        let of = if is_main { 11..15 } else { 11..13 };
        if is_main || fields[1] == main {
            ticks += fields[of].iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    Duration::from_millis(ticks * 10)
}

fn signal(node: &Running, signal: Signal) {
    let pid = i32::try_from(node.pid()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, signal).expect("it lives");
}
