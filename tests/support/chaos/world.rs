//! The processes: three servers, their store, a target, and what lies between them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use leasehold_devpg::{self as devpg, DevPg, Login, Options, Stop};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::balancer::Balancer;
use super::clients::Caller;
use super::clock::Clocks;
use super::network::Network;
use super::patroni::Patroni;
use super::plan::{Abilities, Fault, Place};
use crate::support::{ADMIN, ADMIN_PASSWORD, CREATE_IN_GROUP, free_port};

/// A saturated machine needs seconds where an idle one needs 100 ms.
const START_WAIT: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);
pub const NODES: usize = 3;

/// A server as a process that may be killed, stopped and started again.
#[derive(Debug)]
pub struct Node {
    /// Where clients reach it.
    pub address: String,
    home: TempDir,
    launch: Launch,
    child: Mutex<Option<Child>>,
}

/// How a server is started.
#[derive(Clone, Debug)]
struct Launch {
    program: PathBuf,
    namespace: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Launch {
    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        for (name, _) in std::env::vars() {
            if ["VAULT_", "BAO_", "LEASEHOLD_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().cloned());
        command
    }
}

impl Node {
    fn prepare(launch: Launch, address: String, storage: &str) -> Self {
        let home = tempfile::Builder::new()
            .prefix("leasehold-chaos-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory can be made");
        let text = format!(
            "cluster_name = \"chaos\"\napi_addr = \"http://{address}\"\nstorage \"postgresql\" {{\n  connection_url = \"{storage}\"\n}}\n\
             listener \"tcp\" {{\n  address = \"{address}\"\n  tls_disable = true\n}}\n"
        );
        fs::write(home.path().join("server.hcl"), text).expect("a configuration can be written");
        Self { address, home, launch, child: Mutex::new(None) }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, caller: &Caller) {
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join("server.log"))
            .expect("a log can be opened");
        let mut command = self.launch.command();
        command.args(["server", "-config=server.hcl"]).current_dir(self.home.path()).stdin(Stdio::null());
        command.env("HOME", self.home.path()).process_group(0);
        command.stdout(log.try_clone().expect("a log can be opened")).stderr(log);
        *self.child() = Some(command.spawn().expect("the server can be started"));
        let began = Instant::now();
        while caller.send(&self.address, None, "GET", "sys/seal-status", None).status.is_none() {
            // While the store is away a server may end at its start: an operator's supervisor starts it again.
            let has_ended = self.child().as_mut().is_none_or(|child| child.try_wait().ok().flatten().is_some());
            assert!(began.elapsed() < START_WAIT, "a server does not listen\n{}", self.log());
            thread::sleep(LOOK_EVERY);
            if has_ended {
                thread::sleep(Duration::from_millis(300));
                *self.child() = Some(respawn(&mut command));
            }
        }
    }

    fn unseal(&self, caller: &Caller, key: &str) {
        let began = Instant::now();
        loop {
            let answer = caller.send(&self.address, None, "PUT", "sys/unseal", Some(json!({ "key": key })));
            if answer.status == Some(200) && answer.body["sealed"] == false {
                return;
            }
            assert!(began.elapsed() < START_WAIT, "a server is not unsealed: {answer:?}\n{}", self.log());
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child().as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Everything that it has written, over all its runs.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home.path().join("server.log")).unwrap_or_default()).into_owned()
    }
}

fn respawn(command: &mut Command) -> Child {
    command.spawn().expect("the server can be started")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}

/// What holds leases and tokens.
#[derive(Debug)]
enum Store {
    One(DevPg),
    Pair(Patroni),
}

/// How the store is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One PostgreSQL.
    One,
    /// Two under Patroni; what is committed is on both.
    Synchronous,
    /// Two under Patroni; a fail-over may lose the last commits.
    Asynchronous,
}

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    pub nodes: Vec<Node>,
    balancer: Option<Balancer>,
    store: Store,
    pub target: DevPg,
    clocks: Option<Clocks>,
    network: Option<Network>,
    pub caller: Caller,
    key: String,
    pub root: String,
}

/// The target as all worlds have it.
fn target_options() -> Options {
    Options { admin: Login::new(ADMIN, ADMIN_PASSWORD), max_connections: 200, ..Options::default() }
}

impl World {
    /// On the loopback interface: nothing can be cut, and clocks stay.
    pub fn on_loopback(program: &Path) -> Self {
        let store = DevPg::start(Options::default()).expect("a store");
        let target = DevPg::start(target_options()).expect("a target");
        let storage = format!("{}?sslmode=disable", store.superuser_url());
        let launch = Launch { program: program.to_owned(), namespace: None, environment: Vec::new() };
        let nodes =
            (0..NODES).map(|_| Node::prepare(launch.clone(), format!("127.0.0.1:{}", free_port()), &storage)).collect();
        let mut world = Self {
            nodes,
            balancer: None,
            store: Store::One(store),
            target,
            clocks: None,
            network: None,
            caller: Caller::new(),
            key: String::new(),
            root: String::new(),
        };
        world.begin();
        world
    }

    /// Each process in a network namespace of its own, with a clock of its own. This process must have entered [`super::network`].
    ///
    /// # Errors
    /// What is not installed.
    pub fn on_network(program: &Path, kind: StoreKind) -> Result<Self, String> {
        let mut places = vec![Place::Target, Place::Balancer, Place::Witness, Place::Store(0), Place::Store(1)];
        places.extend((0..NODES).map(Place::Node));
        let (network, clocks, caller) = (Network::make(&places), Clocks::new()?, Caller::new());
        let at = |place| Some(devpg::Network { namespace: network.namespace(place), address: network.address(place) });
        let store = match kind {
            StoreKind::One => {
                let environment = clocks.environment(Place::Store(0));
                let options = Options { network: at(Place::Store(0)), environment, ..Options::default() };
                Store::One(DevPg::start(options).map_err(|error| error.to_string())?)
            }
            _ => Store::Pair(Patroni::start(&network, &clocks, &caller, kind == StoreKind::Synchronous)?),
        };
        let storage = match &store {
            Store::One(store) => format!("{}?sslmode=disable", store.superuser_url()),
            Store::Pair(pair) => pair.url("sslmode=disable&target_session_attrs=read-write"),
        };
        let environment = clocks.environment(Place::Target);
        let options = Options { network: at(Place::Target), environment, ..target_options() };
        let target = DevPg::start(options).map_err(|error| error.to_string())?;
        let nodes: Vec<Node> = (0..NODES)
            .map(|node| {
                let place = Place::Node(node);
                let launch = Launch {
                    program: program.to_owned(),
                    namespace: Some(network.namespace(place)),
                    environment: clocks.environment(place),
                };
                Node::prepare(launch, format!("{}:8200", network.address(place)), &storage)
            })
            .collect();
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
        let balancer = Some(Balancer::start(&network, &addresses));
        let (clocks, network) = (Some(clocks), Some(network));
        let (key, root) = (String::new(), String::new());
        let mut world = Self { nodes, balancer, store, target, clocks, network, caller, key, root };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        self.nodes[0].start(&self.caller);
        let body = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = self.caller.send(&self.nodes[0].address, None, "PUT", "sys/init", Some(body));
        let text = |pointer| made.body.pointer(pointer).and_then(Value::as_str).expect("sys/init answers").to_owned();
        self.key = text("/keys_base64/0");
        self.root = text("/root_token");
        for (at, node) in self.nodes.iter().enumerate() {
            if at > 0 {
                node.start(&self.caller);
            }
            node.unseal(&self.caller, &self.key);
        }
        self.must("POST", "sys/mounts/database", json!({ "type": "database" }));
        self.must("POST", "sys/mounts/kv", json!({ "type": "kv" }));
        self.must("POST", "kv/a", json!({ "x": "1" }));
        let connection = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": ["*"],
            "connection_url": self.target.templated_url(), "username": ADMIN, "password": ADMIN_PASSWORD,
        });
        self.must("POST", "database/config/pg", connection);
        for (name, ttl, most) in super::clients::ROLES {
            let role = json!({
                "db_name": "pg", "creation_statements": CREATE_IN_GROUP,
                "default_ttl": format!("{ttl}s"), "max_ttl": format!("{most}s"),
            });
            self.must("POST", &format!("database/roles/{name}"), role);
        }
    }

    /// A change that is needed to begin with.
    fn must(&self, method: &str, path: &str, body: Value) {
        let answer = self.caller.send(&self.nodes[0].address, Some(&self.root), method, path, Some(body));
        assert!(matches!(answer.status, Some(200 | 204)), "{method} {path}: {answer:?}");
    }

    pub fn abilities(&self) -> Abilities {
        Abilities {
            nodes: NODES,
            cuts: self.network.is_some(),
            clocks: self.clocks.is_some(),
            fails_over: matches!(self.store, Store::Pair(_)),
        }
    }

    /// Where the load balancer listens, if there is one.
    pub fn balancer(&self) -> Option<String> {
        self.balancer.as_ref().map(|balancer| balancer.address.clone())
    }

    /// The target, for its superuser.
    pub fn target_url(&self) -> String {
        self.target.superuser_url()
    }

    /// The servers of the store, for the superuser.
    pub fn store_urls(&self) -> Vec<String> {
        match &self.store {
            Store::One(store) => vec![store.superuser_url()],
            Store::Pair(pair) => pair.urls(),
        }
    }

    pub fn inflict(&self, fault: Fault) {
        match (fault, &self.store) {
            (Fault::Kill(at), _) => self.nodes[at].kill(),
            (Fault::Pause(at), _) => self.nodes[at].signal(Signal::STOP),
            (Fault::Restart(Place::Target), _) => self.target.stop(Stop::Immediate).expect("the target stops"),
            (Fault::Freeze(Place::Target), _) => self.target.pause().expect("the target pauses"),
            (Fault::Restart(_), Store::One(store)) => store.stop(Stop::Immediate).expect("the store stops"),
            (Fault::Freeze(_), Store::One(store)) => store.pause().expect("the store pauses"),
            (Fault::Freeze(Place::Store(at)), Store::Pair(pair)) => pair.pause(at),
            (Fault::FailOver, Store::Pair(pair)) => {
                // What is committed now and not on the standby is lost, unless the primary waits for it.
                self.cut(Place::Store(0), Place::Store(1), true);
                thread::sleep(Duration::from_secs(1));
                pair.kill_primary();
                self.cut(Place::Store(0), Place::Store(1), false);
            }
            (Fault::Cut(one, other), _) => self.cut(one, other, true),
            (Fault::Bend(place, by), _) => self.bend(place, by),
            (Fault::Restart(_) | Fault::Freeze(_) | Fault::FailOver, _) => panic!("this world cannot {fault}"),
        }
    }

    /// Ends a fault; returns when what it concerned serves again.
    pub fn heal(&self, fault: Fault) {
        match (fault, &self.store) {
            (Fault::Kill(at), _) => {
                self.nodes[at].start(&self.caller);
                self.nodes[at].unseal(&self.caller, &self.key);
                self.serves(at);
            }
            (Fault::Pause(at), _) => {
                self.nodes[at].signal(Signal::CONT);
                self.serves(at);
            }
            (Fault::Restart(Place::Target), _) => self.target.start_again().expect("the target starts"),
            (Fault::Freeze(Place::Target), _) => self.target.resume().expect("the target goes on"),
            (Fault::Restart(_), Store::One(store)) => store.start_again().expect("the store starts"),
            (Fault::Freeze(_), Store::One(store)) => store.resume().expect("the store goes on"),
            (Fault::Freeze(Place::Store(at)), Store::Pair(pair)) => pair.resume(at),
            (Fault::FailOver, Store::Pair(pair)) => pair.start_killed(),
            (Fault::Cut(one, other), _) => {
                self.cut(one, other, false);
                if let Store::Pair(pair) = &self.store {
                    pair.settle();
                }
            }
            (Fault::Bend(place, _), _) => self.bend(place, 0),
            (Fault::Restart(_) | Fault::Freeze(_) | Fault::FailOver, _) => panic!("this world cannot {fault}"),
        }
    }

    fn cut(&self, one: Place, other: Place, is_cut: bool) {
        self.network.as_ref().expect("a network that can be cut").cut(one, other, is_cut);
    }

    fn bend(&self, place: Place, by: i64) {
        self.clocks.as_ref().expect("clocks that can be set").set(place, by);
    }

    /// The end of what each server has written.
    pub fn logs(&self) -> String {
        let ends = self.nodes.iter().enumerate().map(|(at, node)| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            format!(
                "--- node{at} ---\n{}\n",
                lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
            )
        });
        ends.collect()
    }

    /// Waits until a node takes requests that it decides from memory.
    pub fn serves(&self, at: usize) {
        let began = Instant::now();
        loop {
            let asked =
                self.caller.send(&self.nodes[at].address, Some(&self.root), "GET", "auth/token/lookup-self", None);
            if asked.status == Some(200) {
                return;
            }
            assert!(began.elapsed() < START_WAIT, "node{at} does not serve: {asked:?}\n{}", self.nodes[at].log());
            thread::sleep(Duration::from_millis(100));
        }
    }
}
