//! The servers that are measured: started, accounted, stopped.

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

/// A running, unsealed server. Ends when dropped.
#[derive(Debug)]
pub struct Running {
    pub kind: Kind,
    pub address: String,
    pub root: String,
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

    /// On disk: SQLite here, Raft with one node there; initialised and unsealed.
    pub fn start_durable(&self) -> Running {
        let mut running = self.spawn(|address, home| {
            let store = match self.kind {
                kind if kind.is_leasehold() => format!("storage \"sqlite\" {{\n  path = \"{}/store.db\"\n}}\n", home.display()),
                _ => {
                    let store = home.join("raft");
                    std::fs::create_dir(&store).expect("a directory");
                    format!(
                        "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"one\"\n}}\ncluster_addr = \"http://127.0.0.1:{}\"\n",
                        store.display(),
                        free_port()
                    )
                }
            };
            let listener = format!("listener \"tcp\" {{\n  address = \"{address}\"\n  tls_disable = true\n}}\n");
            let file = home.join("server.hcl");
            std::fs::write(&file, format!("{store}{listener}api_addr = \"http://{address}\"\n")).expect("a file");
            vec![format!("-config={}", file.display())]
        });
        // Not initialised, sealed.
        while !running.answers(&[501, 503]) {
            assert!(running.began.elapsed() < Duration::from_secs(60), "does not start: {}", running.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let keys = running.admin("PUT", "sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }));
        running.root = keys["root_token"].as_str().expect("a root token").to_owned();
        running.admin("PUT", "sys/unseal", &json!({ "key": keys["keys"][0] }));
        while !running.answers(&[200]) {
            std::thread::sleep(Duration::from_millis(10));
        }
        running
    }

    fn spawn(&self, arguments: impl FnOnce(&str, &Path) -> Vec<String>) -> Running {
        let address = format!("127.0.0.1:{}", free_port());
        let home = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(home.path().join("log")).expect("a log");
        let arguments = arguments(&address, home.path());
        let began = Instant::now();
        let child = Command::new(&self.program)
            .arg("server")
            .args(arguments)
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let root = ROOT.to_owned();
        Running { kind: self.kind, address, root, began, start: Duration::ZERO, child, home }
    }
}

impl Running {
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

/// User and system time of this process: what the load itself costs.
pub fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat")).expect("accounting");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")) * 10)
}
