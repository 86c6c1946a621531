//! What is measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use leasehold_devpg::DevPg;
use serde_json::{Value, json};

use crate::access;
use crate::load::{Done, each_once, for_time, meanwhile, request};
use crate::peer::{Kind, PLUGIN, Peer, Running, Store, own_cpu};

#[derive(Debug)]
pub struct Plan {
    pub rounds: usize,
    pub length: Duration,
    /// Only cases whose name holds this.
    pub only: Option<String>,
}

/// One measured case: per side the figures of all rounds.
#[derive(Debug)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    pub wanted: &'static str,
    pub sides: BTreeMap<Kind, Vec<f64>>,
}

/// Keep-alive connections of a load.
pub const CLIENTS: usize = 8;
/// Whose memory is measured, and how many there are before.
const LEASES: usize = 4_000;
const LEASES_BEFORE: usize = 2_000;

pub struct Book {
    figures: Vec<Figure>,
    load_cpu: Duration,
    load_requests: usize,
}

impl Book {
    pub fn add(
        &mut self,
        name: &'static str,
        unit: &'static str,
        more_is_better: bool,
        wanted: &'static str,
        kind: Kind,
        value: f64,
    ) {
        eprintln!("  {:<18} {name}: {value:.3} {unit}", kind.name());
        let figure = match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure,
            None => {
                self.figures.push(Figure { name, unit, more_is_better, wanted, sides: BTreeMap::new() });
                self.figures.last_mut().expect("just pushed")
            }
        };
        figure.sides.entry(kind).or_default().push(value);
    }

    /// A load for a fixed time: its rate, and the server's CPU per request.
    pub fn measure(&mut self, server: &Running, run: impl FnOnce() -> Done) -> (Done, f64) {
        let (before, ours) = (server.cpu(), own_cpu());
        let done = run();
        self.load_cpu += own_cpu().saturating_sub(ours);
        self.load_requests += done.requests;
        let cpu = server.cpu().saturating_sub(before);
        (done, cpu.as_secs_f64() * 1_000.0 / done.requests.max(1) as f64)
    }
}

pub fn run(plan: &Plan, peers: &[Peer], postgresql: &DevPg) -> Vec<Figure> {
    let mut book = Book { figures: Vec::new(), load_cpu: Duration::ZERO, load_requests: 0 };
    let wants = |name: &str| plan.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        // Every second round goes the other way: whatever grows with time, as the catalogue of PostgreSQL does, favours nobody.
        let mut order: Vec<&Peer> = peers.iter().collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for peer in order {
            if wants("start") {
                start(&mut book, peer);
            }
            if wants("requests") {
                requests(&mut book, plan, peer);
            }
            if wants("leases") {
                leases(&mut book, plan, peer, postgresql);
            }
            if wants("access") {
                access::run(&mut book, plan, peer, postgresql);
            }
            if wants("memory") {
                memory(&mut book, peer, postgresql);
            }
            if wants("expiry") {
                expiry(&mut book, peer, postgresql);
            }
        }
        if wants("leases") {
            itself(&mut book, plan, postgresql);
        }
    }
    eprintln!(
        "the load itself: {} requests, {:.4} ms of CPU each",
        book.load_requests,
        book.load_cpu.as_secs_f64() * 1_000.0 / book.load_requests.max(1) as f64
    );
    book.figures
}

/// Starts in a round: the first finds its file on the disk, the others in memory.
const STARTS: usize = 5;

fn start(book: &mut Book, peer: &Peer) {
    for _ in 0..STARTS {
        let server = peer.start();
        book.add("start to the first answer", "ms", false, "≤ 100", peer.kind, server.start.as_secs_f64() * 1_000.0);
    }
    let server = peer.start();
    std::thread::sleep(Duration::from_secs(2));
    book.add("idle resident memory", "MiB", false, "≤ 64", peer.kind, server.rss() as f64 / 1_024.0);
}

/// 20 policies of 50 rules: exact ones, globs and segment wildcards.
pub fn write_policies(server: &Running) -> String {
    for policy in 0..20 {
        let mut text = String::new();
        for rule in 0..50 {
            let path = match rule % 20 {
                0..12 => format!("secret/team{policy}/app{rule}/config"),
                12..17 => format!("secret/team{policy}/app{rule}/*"),
                _ => format!("secret/+/app{rule}/team{policy}/*"),
            };
            text.push_str(&format!("path \"{path}\" {{\n  capabilities = [\"read\", \"list\"]\n}}\n"));
        }
        server.admin("PUT", &format!("sys/policies/acl/p{policy}"), &json!({ "policy": text }));
    }
    let names: Vec<String> = (0..20).map(|policy| format!("p{policy}")).collect();
    token(server, &json!({ "policies": names }))
}

fn token(server: &Running, body: &Value) -> String {
    server.admin("POST", "auth/token/create", body)["auth"]["client_token"].as_str().expect("a token").to_owned()
}

fn requests(book: &mut Book, plan: &Plan, peer: &Peer) {
    let server = peer.start();
    let app = token(&server, &json!({ "policies": ["default"] }));
    let many = write_policies(&server);
    let load = |wanted: &[u16], bytes: &[u8]| for_time(&server.address, CLIENTS, plan.length, wanted, bytes);

    let (done, cpu) = book.measure(&server, || load(&[200], &request("GET", "sys/health", "", "")));
    book.add("health: CPU per request", "ms", false, "≤ 1/2", peer.kind, cpu);
    book.add("health: rate", "/s", true, "", peer.kind, done.rate());

    let (done, cpu) = book.measure(&server, || load(&[200], &request("GET", "auth/token/lookup-self", &app, "")));
    book.add("lookup-self: CPU per request", "ms", false, "≤ 1/6", peer.kind, cpu);
    book.add("lookup-self: rate", "/s", true, "", peer.kind, done.rate());

    let (done, cpu) = book.measure(&server, || load(&[403], &request("GET", "sys/policies/acl/p1", &many, "")));
    book.add("denied under 20 × 50 rules: CPU per request", "ms", false, "≤ 1/25", peer.kind, cpu);
    book.add("denied under 20 × 50 rules: rate", "/s", true, "", peer.kind, done.rate());

    let paths: Vec<String> = (0..10).map(|i| format!("secret/team{i}/app{i}/config")).collect();
    let body = json!({ "paths": paths }).to_string();
    let (done, _) = book.measure(&server, || load(&[200], &request("POST", "sys/capabilities-self", &many, &body)));
    book.add("capabilities-self of 10 paths: rate", "/s", true, "≥ 100 ×", peer.kind, done.rate());
}

/// A role without direct grants: rights come from membership.
pub fn member_role(default_ttl: &str) -> Value {
    json!({
        "db_name": "pg",
        "creation_statements": "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;",
        "default_ttl": default_ttl,
        "max_ttl": "24h",
    })
}

fn leases(book: &mut Book, plan: &Plan, peer: &Peer, postgresql: &DevPg) {
    if peer.kind.is_leasehold() {
        let server = peer.start();
        server.connect(postgresql, "password", &member_role("1h"));
        let creds = request("GET", "database/creds/app", &server.root, "");
        let (done, _) = book.measure(&server, || for_time(&server.address, CLIENTS, plan.length, &[200], &creds));
        book.add(
            "creds, password_authentication=password: rate",
            "/s",
            true,
            "≥ 85 % of PostgreSQL itself",
            peer.kind,
            done.rate(),
        );
        server.admin(
            "POST",
            "database/config/pg",
            &json!({ "plugin_name": PLUGIN, "password_authentication": "scram-sha-256", "scram_iterations": 1_000 }),
        );
        let (done, cpu) = book.measure(&server, || for_time(&server.address, CLIENTS, plan.length, &[200], &creds));
        book.add("creds, scram_iterations=1000: rate", "/s", true, "", peer.kind, done.rate());
        book.add("creds, scram_iterations=1000: CPU per request", "ms", false, "", peer.kind, cpu);
        server.admin("PUT", "sys/leases/revoke-prefix/database/creds/app", &json!({}));
    }
    let server = peer.start();
    // Each side with its own default.
    server.connect(postgresql, peer.kind.default_authentication(), &member_role("1h"));
    let creds = request("GET", "database/creds/app", &server.root, "");
    let (done, cpu) = book.measure(&server, || for_time(&server.address, CLIENTS, plan.length, &[200], &creds));
    book.add("creds: rate", "/s", true, "≥ 2.5 ×", peer.kind, done.rate());
    book.add("creds: CPU per request", "ms", false, "≤ 1/3", peer.kind, cpu);

    let made = issue(&server, 1_000);
    let renewals: Vec<Vec<u8>> = made
        .iter()
        .map(|id| request("PUT", "sys/leases/renew", &server.root, &json!({ "lease_id": id }).to_string()))
        .collect();
    let (done, _) = book.measure(&server, || each_once(&server.address, CLIENTS, &[200], &renewals).0);
    book.add("renew: rate", "/s", true, "≥ 4 ×", peer.kind, done.rate());
    let ends: Vec<Vec<u8>> = made
        .iter()
        .map(|id| request("PUT", "sys/leases/revoke", &server.root, &json!({ "lease_id": id }).to_string()))
        .collect();
    let (done, _) = book.measure(&server, || each_once(&server.address, CLIENTS, &[204], &ends).0);
    book.add("default revocation: rate", "/s", true, "≥ 10 ×", peer.kind, done.rate());
    server.admin("PUT", "sys/leases/revoke-prefix/database/creds/app", &json!({}));
}

/// On a durable store, where leases need not stay in memory.
fn memory(book: &mut Book, peer: &Peer, postgresql: &DevPg) {
    let server = peer.start_durable(Store::Own);
    server.connect(postgresql, peer.kind.default_authentication(), &member_role("1h"));
    // Caches, pools and the allocator fill up first.
    issue(&server, LEASES_BEFORE);
    let before = server.rss();
    let began = Instant::now();
    issue(&server, LEASES);
    book.add(
        "creds on a durable store: rate",
        "/s",
        true,
        "",
        peer.kind,
        LEASES as f64 / began.elapsed().as_secs_f64(),
    );
    let grown = server.rss().saturating_sub(before) as f64 / LEASES as f64;
    book.add("memory per lease on a durable store", "KiB", false, "flat", peer.kind, grown);
    drop(server);
    sweep(postgresql);
}

/// Drops the roles of a server that is gone: OpenBao takes minutes to revoke so many.
fn sweep(postgresql: &DevPg) {
    let drop_all = "SET synchronous_commit = off; DO $$ DECLARE name text; BEGIN \
                    FOR name IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' LOOP \
                    EXECUTE format('DROP ROLE %I', name); COMMIT; END LOOP; END $$";
    postgresql.psql_in("postgres", drop_all).expect("roles are dropped");
}

pub fn issue(server: &Running, count: usize) -> Vec<String> {
    let requests = vec![request("GET", "database/creds/app", &server.root, ""); count];
    let (_, bodies) = each_once(&server.address, CLIENTS, &[200], &requests);
    let id = |body: &Vec<u8>| {
        serde_json::from_slice::<Value>(body).ok().and_then(|v| v["lease_id"].as_str().map(str::to_owned))
    };
    bodies.iter().map(|body| id(body).expect("a lease id")).collect()
}

/// 2,000 leases that end together; meanwhile a client looks itself up.
fn expiry(book: &mut Book, peer: &Peer, postgresql: &DevPg) {
    let server = peer.start();
    server.connect(postgresql, peer.kind.default_authentication(), &member_role("1h"));
    let made = issue(&server, 2_000);
    let app = token(&server, &json!({ "policies": ["default"] }));
    let increment = Duration::from_secs(20);
    let renewals: Vec<Vec<u8>> = made
        .iter()
        .map(|id| {
            let body = json!({ "lease_id": id, "increment": increment.as_secs() }).to_string();
            request("PUT", "sys/leases/renew", &server.root, &body)
        })
        .collect();
    let first_end = Instant::now() + increment;
    each_once(&server.address, CLIENTS, &[200], &renewals);
    // Or a moment sooner: its answer took its way.
    let last_end = Instant::now() + increment;
    let count = || -> i64 {
        let rows =
            postgresql.psql_in("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").expect("a count");
        rows.trim().parse().expect("a number")
    };
    std::thread::sleep(first_end.saturating_duration_since(Instant::now()));
    let look = request("GET", "auth/token/lookup-self", &app, "");
    let looked = meanwhile(&server.address, 1, &[200], &look, || {
        while count() > 0 {
            assert!(last_end.elapsed() < Duration::from_secs(180), "leases live on");
            std::thread::sleep(Duration::from_millis(100));
        }
        let gone = last_end.elapsed().as_secs_f64();
        book.add("2,000 leases that expire together: gone after", "s", false, "≤ 4", peer.kind, gone);
    });
    book.add(
        "2,000 leases that expire together: p99 of lookup-self meanwhile",
        "ms",
        false,
        "< 20",
        peer.kind,
        looked.p99.as_secs_f64() * 1_000.0,
    );
}

/// The same statement straight to PostgreSQL, on as many connections.
fn itself(book: &mut Book, plan: &Plan, postgresql: &DevPg) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let url = postgresql.admin_url();
    let (count, took) = runtime.block_on(async {
        let end = Instant::now() + plan.length;
        let began = Instant::now();
        let mut work = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let url = url.clone();
            work.spawn(async move {
                let (session, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
                tokio::spawn(connection);
                let mut count = 0_usize;
                while Instant::now() < end {
                    let sql = format!(
                        "CREATE ROLE \"bench-{client}-{count}\" WITH LOGIN PASSWORD 'abcdefghijklmnopqrst{count}' VALID UNTIL '2030-01-01' IN ROLE readonly"
                    );
                    session.batch_execute(&sql).await.expect("a role");
                    count += 1;
                }
                for made in 0..count {
                    session.batch_execute(&format!("DROP ROLE \"bench-{client}-{made}\"")).await.expect("dropped");
                }
                count
            });
        }
        let mut count = 0;
        while let Some(part) = work.join_next().await {
            count += part.expect("a client ends");
        }
        (count, began.elapsed().min(plan.length))
    });
    book.add(
        "creds, password_authentication=password: rate",
        "/s",
        true,
        "≥ 85 % of PostgreSQL itself",
        Kind::PostgreSql,
        count as f64 / took.as_secs_f64(),
    );
}
