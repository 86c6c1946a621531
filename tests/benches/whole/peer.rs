//! The servers that are measured: started, accounted, stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Login, Options};
use serde_json::{Value, json};

use crate::load::{Answer, Connection, request};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Leasehold,
    /// An older Leasehold, which `BEFORE` names.
    Before,
    OpenBao,
    PostgreSql,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Leasehold => "Leasehold",
            Self::Before => "Leasehold before",
            Self::OpenBao => "OpenBao",
            Self::PostgreSql => "PostgreSQL itself",
        }
    }

    /// Whether it is a Leasehold, of whatever age.
    pub fn is_leasehold(self) -> bool {
        matches!(self, Self::Leasehold | Self::Before)
    }

    /// How this side hashes passwords when nobody says anything.
    pub fn default_authentication(self) -> &'static str {
        if self.is_leasehold() { "scram-sha-256" } else { "password" }
    }
}

/// A program that can be started.
#[derive(Debug)]
pub struct Peer {
    pub kind: Kind,
    program: PathBuf,
}

/// Where a server that outlives its process keeps what it knows.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    /// SQLite here, Raft with one node there.
    Own,
    /// A database of its own, by its URL.
    PostgreSql(&'a str),
}

/// A running, unsealed server. Ends when dropped.
#[derive(Debug)]
pub struct Running {
    pub kind: Kind,
    pub address: String,
    pub root: String,
    /// The only share; empty in memory.
    share: String,
    arguments: Vec<String>,
    program: PathBuf,
    began: Instant,
    /// From the start of the process to the first answer.
    pub start: Duration,
    child: Child,
    home: tempfile::TempDir,
}

pub const PLUGIN: &str = "postgresql-database-plugin";
const ROOT: &str = "bench-root-token";

impl Peer {
    pub fn new(kind: Kind, program: PathBuf) -> Self {
        Self { kind, program }
    }

    /// In memory, unsealed.
    pub fn start(&self) -> Running {
        let mut running = self.spawn(|address, _| {
            vec![
                "-dev".to_owned(),
                "-dev-no-store-token".to_owned(),
                format!("-dev-root-token-id={ROOT}"),
                format!("-dev-listen-address={address}"),
            ]
        });
        let began = running.began;
        while !running.answers(&[200]) {
            assert!(began.elapsed() < Duration::from_secs(60), "does not start: {}", running.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        running.start = began.elapsed();
        running
    }

    /// On disk, initialised and unsealed.
    pub fn start_durable(&self, store: Store) -> Running {
        let mut running = self.spawn(|address, home| {
            let store = match (store, self.kind) {
                (Store::PostgreSql(url), _) => format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}\n"),
                (Store::Own, kind) if kind.is_leasehold() => {
                    format!("storage \"sqlite\" {{\n  path = \"{}/store.db\"\n}}\n", home.display())
                }
                (Store::Own, _) => {
                    let store = home.join("raft");
                    std::fs::create_dir(&store).expect("a directory");
                    format!(
                        "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"one\"\n}}\ncluster_addr = \"http://127.0.0.1:{}\"\n",
                        store.display(),
                        free_port()
                    )
                }
            };
            configured(&store, address, home)
        });
        running.wait_for(&[501, 503]);
        let keys = running.admin("PUT", "sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }));
        running.root = keys["root_token"].as_str().expect("a root token").to_owned();
        running.share = keys["keys"][0].as_str().expect("a share").to_owned();
        running.unseal();
        running
    }

    /// Another server over the store of `first`, unsealed.
    pub fn join(&self, first: &Running, url: &str) -> Running {
        let mut running = self.spawn(|address, home| {
            configured(&format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}\n"), address, home)
        });
        running.wait_for(&[501, 503]);
        (running.root, running.share) = (first.root.clone(), first.share.clone());
        running.unseal();
        running
    }

    fn spawn(&self, arguments: impl FnOnce(&str, &Path) -> Vec<String>) -> Running {
        let address = format!("127.0.0.1:{}", free_port());
        let home = tempfile::tempdir().expect("a directory");
        let arguments = arguments(&address, home.path());
        let began = Instant::now();
        let child = served(&self.program, &arguments, home.path());
        let (root, share, program) = (ROOT.to_owned(), String::new(), self.program.clone());
        Running { kind: self.kind, address, root, share, arguments, program, began, start: Duration::ZERO, child, home }
    }
}

/// The arguments of a server with this `storage` block.
fn configured(store: &str, address: &str, home: &Path) -> Vec<String> {
    let listener = format!("listener \"tcp\" {{\n  address = \"{address}\"\n  tls_disable = true\n}}\n");
    let file = home.join("server.hcl");
    std::fs::write(&file, format!("{store}{listener}api_addr = \"http://{address}\"\n")).expect("a file");
    vec![format!("-config={}", file.display())]
}

/// Starts a server, which writes to the log in `home`.
fn served(program: &Path, arguments: &[String], home: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(home.join("log")).expect("a log");
    Command::new(program)
        .arg("server")
        .args(arguments)
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

impl Running {
    fn wait_for(&self, statuses: &[u16]) {
        while !self.answers(statuses) {
            assert!(self.began.elapsed() < Duration::from_secs(60), "does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn unseal(&self) {
        self.admin("PUT", "sys/unseal", &json!({ "key": self.share }));
        self.wait_for(&[200]);
    }

    /// Killed, started again and unsealed: from the share to the first answer to a token.
    pub fn restart(&mut self) -> Duration {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.began = Instant::now();
        self.child = served(&self.program, &self.arguments, self.home.path());
        self.wait_for(&[503]);
        let unsealed = Instant::now();
        self.unseal();
        self.admin("GET", "auth/token/lookup-self", &Value::Null);
        unsealed.elapsed()
    }

    /// Stops the server and puts `count` tokens and leases into its store, as `fill` does, whose program `FILL` names.
    pub fn fill(&mut self, store: Store, count: usize) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let program = std::env::var_os("FILL").expect("FILL names the example `fill` of leasehold-storage, as built");
        let store = match store {
            Store::Own => format!("sqlite:{}/store.db", self.home.path().display()),
            Store::PostgreSql(url) => url.to_owned(),
        };
        let filled = Command::new(program).args([&store, &self.share, &count.to_string()]).status();
        assert!(filled.expect("a program").success(), "the store was not filled");
    }

    fn answers(&self, wanted: &[u16]) -> bool {
        std::net::TcpStream::connect(&self.address).is_ok()
            && wanted.contains(&Connection::open(&self.address).ask(&request("GET", "sys/health", "", "")).status)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// As root; the status must be a success.
    pub fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer: Answer = Connection::open(&self.address).ask(&request(method, path, &self.root, &body));
        assert!(
            answer.status < 300,
            "{} {method} {path}: {} {}",
            self.kind.name(),
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of the process so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("accounting");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in KiB.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("accounting");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// Mounts `database/` and configures a connection and a role whose credentials are members of a group.
    pub fn connect(&self, postgresql: &DevPg, authentication: &str, role: &Value) {
        self.admin("POST", "sys/mounts/database", &json!({ "type": "database" }));
        self.admin(
            "POST",
            "database/config/pg",
            &json!({
                "plugin_name": PLUGIN,
                "allowed_roles": "*",
                "connection_url": postgresql.templated_url(),
                "username": postgresql.admin_user(),
                "password": postgresql.admin_password(),
                "password_authentication": authentication,
                "max_open_connections": 8,
                "max_idle_connections": 8,
            }),
        );
        self.admin("POST", "database/roles/app", role);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then the run has failed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// One PostgreSQL for both sides, with its own defaults where they matter (fsync on).
pub fn postgresql() -> DevPg {
    let options = Options {
        admin: Login::new("vaultadmin", "vaultadmin-password"),
        fsync: true,
        max_connections: 100,
        ..Options::default()
    };
    DevPg::start(options).expect("PostgreSQL starts")
}

/// An empty database for a store: its URL, by way of `through` if that is given.
pub fn store(postgresql: &DevPg, name: &str, through: Option<SocketAddr>) -> String {
    postgresql.psql_in("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).expect("a database can go");
    postgresql.psql_in("postgres", &format!("CREATE DATABASE {name}")).expect("a database can be made");
    let url = postgresql.superuser_url();
    let (rest, _) = url.rsplit_once('/').expect("a URL with a database");
    let (login, own) = rest.rsplit_once('@').expect("a URL with a login");
    let place = through.map_or_else(|| own.to_owned(), |place| place.to_string());
    format!("{login}@{place}/{name}?sslmode=disable")
}

/// User and system time of this process: what the load itself costs.
pub fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat")).expect("accounting");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")) * 10)
}
