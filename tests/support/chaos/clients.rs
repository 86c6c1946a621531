//! What clients do: they lease, renew and revoke, change policies, and use tokens of few uses, each on a node of their choice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http;

use super::history::{At, Op, Outcome, What};
use super::observer;
use super::plan::Seeded;
use super::world::World;

/// Name, TTL and longest TTL of the roles, in seconds.
pub const ROLES: [(&str, u64, u64); 3] = [("short", 4, 20), ("middle", 15, 60), ("long", 7_200, 14_400)];
/// A client gives up after this. What it asked for may still happen.
const PATIENCE: Duration = Duration::from_secs(5);
const LIMIT: usize = 5;

/// What was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// None: no answer.
    pub status: Option<u16>,
    pub body: Value,
}

impl Heard {
    fn outcome(&self) -> Outcome {
        match self.status {
            Some(200 | 204) => Outcome::Accepted,
            Some(status @ 400..=499) => Outcome::Refused(status),
            _ => Outcome::Unknown,
        }
    }

    fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(self.body.pointer("/lease_duration").and_then(Value::as_u64).unwrap_or_default())
    }
}

/// Sends requests, each on a connection of its own.
#[derive(Clone, Debug)]
pub struct Caller {
    agent: ureq::Agent,
}

impl Caller {
    pub fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .allow_non_standard_methods(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE))
            .max_idle_connections(0)
            .build();
        Self { agent: config.into() }
    }

    /// `path` is what follows `/v1/`.
    pub fn send(&self, address: &str, token: Option<&str>, method: &str, path: &str, body: Option<Value>) -> Heard {
        self.send_to(&format!("http://{address}/v1/{path}"), token, method, body)
    }

    pub fn send_to(&self, url: &str, token: Option<&str>, method: &str, body: Option<Value>) -> Heard {
        let nothing = Heard { status: None, body: Value::Null };
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        let sent = match body {
            Some(body) => request.body(body.to_string()).map(|request| self.agent.run(request)),
            None => request.body(()).map(|request| self.agent.run(request)),
        };
        let Ok(Ok(mut response)) = sent else { return nothing };
        let status = Some(response.status().as_u16());
        match response.body_mut().read_to_string() {
            Ok(text) => Heard { status, body: serde_json::from_str(&text).unwrap_or(Value::Null) },
            Err(_) => nothing,
        }
    }
}

/// The last part of a lease's id, by which the comment on a role names it.
pub fn short(lease: &str) -> String {
    lease.rsplit('/').next().unwrap_or_default().to_owned()
}

/// What all clients share.
pub struct Clients<'a> {
    pub world: &'a World,
    pub began: Instant,
    pub stop: &'a AtomicBool,
    ops: Mutex<Vec<Op>>,
    number: AtomicUsize,
}

impl<'a> Clients<'a> {
    pub fn new(world: &'a World, began: Instant, stop: &'a AtomicBool) -> Self {
        Self { world, began, stop, ops: Mutex::default(), number: AtomicUsize::new(0) }
    }

    pub fn into_ops(self) -> Vec<Op> {
        self.ops.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn next(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&self, begin: At, node: Option<usize>, what: What, outcome: Outcome) {
        let op = Op { begin, end: self.began.elapsed(), node, what, outcome };
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    /// A node, or the load balancer.
    fn somewhere(&self, random: &mut Seeded) -> (Option<usize>, String) {
        let addresses = &self.world.nodes;
        let at = random.below(addresses.len() + usize::from(self.world.balancer().is_some()));
        match addresses.get(at) {
            Some(node) => (Some(at), node.address.clone()),
            None => (None, self.world.balancer().unwrap_or_default()),
        }
    }

    /// One request that is recorded when it has ended.
    fn op(
        &self,
        random: &mut Seeded,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        what: impl FnOnce(&Heard) -> What,
    ) -> Heard {
        let (node, address) = self.somewhere(random);
        let begin = self.began.elapsed();
        let heard = self.world.caller.send(&address, Some(token), method, path, body);
        self.record(begin, node, what(&heard), heard.outcome());
        heard
    }

    /// A change on any node that is needed for what comes next; tried until the client knows that it has happened, a few times.
    fn prepare(&self, random: &mut Seeded, method: &str, path: &str, body: Value) -> Option<Heard> {
        for _ in 0..20 {
            let (_, address) = self.somewhere(random);
            let heard = self.world.caller.send(&address, Some(&self.world.root), method, path, Some(body.clone()));
            if heard.outcome() == Outcome::Accepted {
                return Some(heard);
            }
            if !self.goes_on() {
                return None;
            }
            thread::sleep(Duration::from_millis(200));
        }
        None
    }

    /// Leases credentials, renews and revokes some of them, and tries those that it has revoked.
    pub fn lease(&self, seed: u64) {
        let mut random = Seeded::new(seed);
        let root = self.world.root.clone();
        while self.goes_on() {
            let (role, ..) = ROLES[random.below(ROLES.len())];
            let issued =
                self.op(&mut random, &root, "GET", &format!("database/creds/{role}"), None, |heard| What::Issue {
                    lease: short(&heard.text("/lease_id")),
                    role: heard.text("/data/username"),
                    ttl: heard.ttl(),
                });
            thread::sleep(random.millis(50, 400));
            if issued.outcome() != Outcome::Accepted {
                continue;
            }
            let (lease, user) = (issued.text("/lease_id"), issued.text("/data/username"));
            let password = issued.text("/data/password");
            if random.below(4) == 0 {
                self.login(&user, &password);
            }
            for _ in 0..random.below(3) {
                self.renew(&mut random, &lease);
                thread::sleep(random.millis(50, 1_500));
            }
            self.look_up(&mut random, &lease);
            // What is never revoked must end by itself, and only then.
            if random.below(3) > 0 || role == "long" && random.below(8) > 0 {
                self.revoke(&mut random, &lease);
                self.login(&user, &password);
                self.renew(&mut random, &lease);
                self.look_up(&mut random, &lease);
            }
        }
    }

    fn renew(&self, random: &mut Seeded, lease: &str) {
        let root = self.world.root.clone();
        let asked = random.millis(3_000, 18_000).as_secs();
        let body = json!({ "lease_id": lease, "increment": asked });
        self.op(random, &root, "PUT", "sys/leases/renew", Some(body), |heard| What::Renew {
            lease: short(lease),
            asked: Duration::from_secs(asked),
            ttl: heard.ttl(),
        });
    }

    fn look_up(&self, random: &mut Seeded, lease: &str) {
        let root = self.world.root.clone();
        let body = json!({ "lease_id": lease });
        self.op(random, &root, "PUT", "sys/leases/lookup", Some(body), |_| What::Lookup { lease: short(lease) });
    }

    fn revoke(&self, random: &mut Seeded, lease: &str) {
        let root = self.world.root.clone();
        let body = json!({ "lease_id": lease });
        self.op(random, &root, "PUT", "sys/leases/revoke", Some(body), |_| What::Revoke { lease: short(lease) });
    }

    fn login(&self, user: &str, password: &str) {
        let target = &self.world.target;
        let begin = self.began.elapsed();
        let let_in = observer::lets_in(target.host(), target.port(), target.database(), user, password);
        let outcome = match let_in {
            Some(true) => Outcome::Accepted,
            Some(false) => Outcome::Refused(403),
            None => Outcome::Unknown,
        };
        self.record(begin, None, What::Login { role: user.to_owned() }, outcome);
    }

    /// Lets a token do something, forbids it on one node, and tries on all of them all the while.
    pub fn forbid(&self, seed: u64) {
        let mut random = Seeded::new(seed);
        let root = self.world.root.clone();
        while self.goes_on() {
            let number = self.next();
            let (alias, policy) = (format!("token-{number}"), format!("chaos-{number}"));
            let path = format!("sys/policies/acl/{policy}");
            let allowed = json!({ "policy": "path \"kv/a\" { capabilities = [\"read\", \"update\"] }" });
            // A try of which nothing was heard may still happen, and would allow it again: each has a policy of its own.
            let (_, address) = self.somewhere(&mut random);
            let heard = self.world.caller.send(&address, Some(&self.world.root), "PUT", &path, Some(allowed));
            if heard.outcome() != Outcome::Accepted {
                thread::sleep(Duration::from_millis(200));
                continue;
            }
            let body = json!({ "policies": [policy], "no_default_policy": true, "ttl": "24h", "no_parent": true });
            let Some(made) = self.prepare(&mut random, "POST", "auth/token/create", body) else { continue };
            let token = made.text("/auth/client_token");
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                for at in 0..self.world.nodes.len() {
                    let mut random = Seeded::new(random.number());
                    let (alias, token, is_over) = (&alias, &token, &is_over);
                    scope.spawn(move || {
                        while !is_over.load(Ordering::Relaxed) {
                            self.use_once(&mut random, Some(at), alias, token);
                            thread::sleep(random.millis(5, 60));
                        }
                    });
                }
                thread::sleep(random.millis(200, 600));
                let changed = json!({ "policy": "path \"kv/b\" { capabilities = [\"read\"] }" });
                let (method, path, body, how) = match random.below(3) {
                    0 => ("PUT", path.as_str(), Some(changed), "change a policy"),
                    1 => ("DELETE", path.as_str(), None, "delete a policy"),
                    _ => ("PUT", "auth/token/revoke", Some(json!({ "token": token })), "revoke a token"),
                };
                self.op(&mut random, &root, method, path, body, |_| What::Forbid { token: alias.clone(), how });
                thread::sleep(random.millis(500, 1_500));
                is_over.store(true, Ordering::Relaxed);
            });
        }
    }

    /// A read or a write, on this node.
    fn use_once(&self, random: &mut Seeded, at: Option<usize>, alias: &str, token: &str) {
        let Some((at, node)) = at.and_then(|at| Some((at, self.world.nodes.get(at)?))) else { return };
        let begin = self.began.elapsed();
        let heard = match random.below(2) {
            0 => self.world.caller.send(&node.address, Some(token), "GET", "kv/a", None),
            _ => self.world.caller.send(&node.address, Some(token), "POST", "kv/a", Some(json!({ "x": "1" }))),
        };
        self.record(begin, Some(at), What::Use { token: alias.to_owned() }, heard.outcome());
    }

    /// Uses a token of few uses on all nodes at once.
    pub fn count(&self, seed: u64) {
        let mut random = Seeded::new(seed);
        while self.goes_on() {
            let alias = format!("uses-{}", self.next());
            let body = json!({ "policies": ["root"], "num_uses": LIMIT, "ttl": "24h", "no_parent": true });
            let Some(made) = self.prepare(&mut random, "POST", "auth/token/create", body) else { continue };
            let token = made.text("/auth/client_token");
            thread::scope(|scope| {
                for _ in 0..2 {
                    let mut random = Seeded::new(random.number());
                    let (alias, token) = (&alias, &token);
                    scope.spawn(move || {
                        for _ in 0..LIMIT {
                            let what = |_: &Heard| What::LimitedUse { token: alias.clone(), limit: LIMIT };
                            self.op(&mut random, token, "GET", "sys/mounts", None, what);
                        }
                    });
                }
            });
            thread::sleep(random.millis(200, 800));
        }
    }
}
