//! Loads that somebody without a token can make, and what they do to a server: shared by the tests and `make torture`.
//!
//! Bounded, and on loopback only. The attackers come from three addresses of their own (127.0.0.2 to 127.0.0.4), as several
//! hosts would; who works with the server comes from 127.0.0.1.
//!
//! Start with [`Load`], then [`Tortured`] (the server), then [`Measured`].

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tempfile::TempDir;

use super::{CREATE_IN_GROUP, Client, Credential, Database, Secrets, certificate, eventually, free_port};

/// What one attacker does, over and over, from each of three addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// More connections than the server may have files, and not a byte on any of them.
    IdleConnections,
    /// Heads of 30 KB that never end.
    UnfinishedHeads,
    /// Bodies of 31 MiB with long keys and a token that nobody knows.
    LargeBodies,
    /// Wrong key shares.
    GarbageShares,
    /// Nobody reads standard output, where one of two audit devices writes.
    StuckStdout,
    /// HTTP/2 requests that are reset at once.
    StreamResets,
}

impl Load {
    pub const ALL: [Self; 6] = [
        Self::IdleConnections,
        Self::UnfinishedHeads,
        Self::LargeBodies,
        Self::GarbageShares,
        Self::StuckStdout,
        Self::StreamResets,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::IdleConnections => "idle connections",
            Self::UnfinishedHeads => "unfinished heads",
            Self::LargeBodies => "31 MiB bodies",
            Self::GarbageShares => "garbage shares",
            Self::StuckStdout => "stuck stdout",
            Self::StreamResets => "stream resets",
        }
    }

    /// Begins, and goes on until the result is dropped.
    pub fn start(self, server: &Tortured) -> Attack {
        let stop = Arc::new(AtomicBool::new(false));
        let address: SocketAddr = server.address.parse().expect("an address");
        let tls = server.tls_address.parse().expect("an address");
        let certificate = server.home.path().join("tls.crt");
        let threads = (2..=4_u8)
            .map(|last| {
                let stop = Arc::clone(&stop);
                let certificate = certificate.clone();
                thread::spawn(move || match self {
                    Self::IdleConnections => hold(last, address, 500, b"", &stop),
                    Self::UnfinishedHeads => {
                        let mut head = b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n".to_vec();
                        for number in 0..30 {
                            head.extend(format!("X-{number}: {}\r\n", "x".repeat(1_000)).as_bytes());
                        }
                        hold(last, address, 300, &head, &stop);
                    }
                    Self::LargeBodies => large_bodies(last, address, &stop),
                    Self::GarbageShares => {
                        let body = format!("{{\"key\":\"{}\"}}", "ab".repeat(33));
                        repeat(last, address, &post("sys/unseal", body.as_bytes()), &stop);
                    }
                    Self::StuckStdout => {
                        repeat(last, address, b"GET /v1/sys/mounts HTTP/1.1\r\nHost: x\r\nX-Vault-Token: hvs.x\r\nConnection: close\r\n\r\n", &stop);
                    }
                    Self::StreamResets => stream_resets(last, tls, &certificate, &stop),
                })
            })
            .collect();
        Attack { stop, threads }
    }
}

/// A load that goes on until this is dropped.
#[derive(Debug)]
pub struct Attack {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// From 127.0.0.`last`. None: the server does not take it now.
fn connect(last: u8, to: SocketAddr) -> Option<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().ok()?;
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).ok()?;
        let stream = tokio::time::timeout(PATIENCE, socket.connect(to)).await.ok()?.ok()?;
        stream.into_std().ok()
    })?;
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /v1/{path} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: hvs.nobody\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    request
}

/// Holds so many connections open, each with these bytes on it, and opens those anew that the server closes.
fn hold(last: u8, to: SocketAddr, count: usize, bytes: &[u8], stop: &AtomicBool) {
    let mut held: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        held.retain(is_open);
        for _ in held.len()..count {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let Some(mut stream) = connect(last, to) else { break };
            if stream.write_all(bytes).is_ok() {
                held.push(stream);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the server has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let mut stream = stream;
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn repeat(last: u8, to: SocketAddr, request: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(mut stream) = connect(last, to) {
            let _ = stream.write_all(request);
            let _ = stream.read(&mut [0; 1_024]);
        }
    }
}

fn large_bodies(last: u8, to: SocketAddr, stop: &AtomicBool) {
    // As many long keys as a body may have.
    let mut body = b"{".to_vec();
    for number in 0..480 {
        body.extend(format!("\"{number}{}\":\"\",", "k".repeat(67_000)).as_bytes());
    }
    body.extend(b"\"z\":\"\"}");
    repeat(last, to, &post("sys/policies/acl/x", &body), stop);
}

fn stream_resets(last: u8, to: SocketAddr, certificate: &Path, stop: &AtomicBool) {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(certificate).expect("a certificate");
    roots.add(trusted).expect("a certificate that can be trusted");
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    while !stop.load(Ordering::Relaxed) {
        let Some(stream) = connect(last, to) else { continue };
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let Ok(connection) = ClientConnection::new(Arc::clone(&config), name) else { continue };
        let mut stream = StreamOwned::new(connection, stream);
        // Preface and empty settings.
        let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for stream_id in (1..20_001_u32).step_by(2) {
            // GET, https, `:path` and `:authority` as literals.
            let mut head = vec![0x82, 0x87, 0x04, 14];
            head.extend(b"/v1/sys/health");
            head.extend([0x01, 1, b'x']);
            frames.extend([0, 0, u8::try_from(head.len()).expect("a short head"), 0x01, 0x05]);
            frames.extend(stream_id.to_be_bytes());
            frames.extend(&head);
            frames.extend([0, 0, 4, 0x03, 0]);
            frames.extend(stream_id.to_be_bytes());
            frames.extend(8_u32.to_be_bytes());
            if frames.len() > 16_000 {
                if stop.load(Ordering::Relaxed) || stream.write_all(&frames).is_err() {
                    break;
                }
                frames.clear();
            }
        }
        let _ = stream.flush();
    }
}

/// A server that has work to do: a database, a token, audit devices; with the usual limit of 1,024 open files.
#[derive(Debug)]
pub struct Tortured {
    child: Child,
    pub address: String,
    pub tls_address: String,
    token: String,
    home: TempDir,
    secrets: Secrets,
}

impl Tortured {
    /// `load` decides whether standard output is an audit device; nobody reads it in any case.
    pub fn start(program: &Path, load: Load, database: &Database<'_>) -> Self {
        raise_our_limit();
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let folder = home.path().display();
        certificate(home.path(), "tls");
        let (address, tls_address) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let stdout = match load {
            Load::StuckStdout => "audit \"file\" \"stdout\" {\n  options = { file_path = \"stdout\" }\n}\n",
            _ => "",
        };
        let configuration = format!(
            "storage \"sqlite\" {{\n  path = \"{folder}/store.db\"\n}}\nlistener \"tcp\" {{\n  address = \"{address}\"\n  \
             tls_disable = true\n}}\nlistener \"tcp\" {{\n  address = \"{tls_address}\"\n  tls_cert_file = \"{folder}/tls.crt\"\n  \
             tls_key_file = \"{folder}/tls.key\"\n}}\naudit \"file\" \"file\" {{\n  options = {{ file_path = \"{folder}/audit.log\" }}\n}}\n{stdout}"
        );
        fs::write(home.path().join("server.hcl"), configuration).expect("a configuration can be written");
        let log = fs::File::create(home.path().join("stderr.log")).expect("a log can be opened");
        let child = Command::new("sh")
            .args(["-c", "ulimit -n 1024; exec \"$0\" server -config=server.hcl"])
            .arg(program)
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a server can be started");
        let secrets = Secrets::default();
        let mut server = Self { child, address, tls_address, token: String::new(), home, secrets };
        server.prepare(database);
        server
    }

    fn prepare(&mut self, database: &Database<'_>) {
        let nobody = Client::new(&self.address, None, self.secrets.clone());
        eventually("the server listens", || nobody.try_request("GET", "sys/seal-status", None).is_ok());
        let made = nobody.put("sys/init", json!({ "secret_shares": 1, "secret_threshold": 1 })).assert_status(200);
        self.token = made.text("/root_token");
        nobody.put("sys/unseal", json!({ "key": made.text("/keys_base64/0") })).assert_status(200);
        let root = self.root();
        root.post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
        root.post("database/config/pg", database.config()).assert_status(204);
        let role =
            json!({ "db_name": "pg", "creation_statements": CREATE_IN_GROUP, "default_ttl": "3s", "max_ttl": "1h" });
        let answer = root.post("database/roles/short", role);
        assert!(matches!(answer.status, 200 | 204), "{answer}");
    }

    pub fn root(&self) -> Client {
        Client::new(&self.address, Some(&self.token), self.secrets.clone())
    }

    /// A lease that ends in three seconds.
    pub fn lease(&self) -> Credential {
        self.root().credential("short")
    }

    /// Resident memory, in MiB.
    pub fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    /// How long SIGTERM takes; none when the process is still there after `patience` (it is killed then).
    pub fn terminate(&mut self, patience: Duration) -> Option<Duration> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        let began = Instant::now();
        kill_process(pid, Signal::TERM).expect("the server can be signalled");
        while began.elapsed() < patience {
            if self.child.try_wait().expect("the process can be looked at").is_some() {
                return Some(began.elapsed());
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join("stderr.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Tortured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The attackers need more files than a shell gives.
fn raise_our_limit() {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// What somebody who works with the server sees.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The 99th percentile of `lookup-self`; those that were not answered within the patience count as that.
    pub p99: Duration,
    /// Answers other than 200, and none.
    pub failed: usize,
    /// From a lease's end until its role is gone; none when that took longer than the patience.
    pub lag: Option<Duration>,
    pub memory_mib: u64,
}

impl Measured {
    pub fn of(server: &Tortured, database: &Database<'_>, requests: usize) -> Self {
        let root = server.root();
        let leased = root.try_request("GET", "database/creds/short", None).ok().filter(|answer| answer.status == 200);
        let ends = Instant::now() + Duration::from_secs(3);
        let mut times = Vec::with_capacity(requests);
        let mut failed = 0;
        for _ in 0..requests {
            let began = Instant::now();
            let answered = root.try_request("GET", "auth/token/lookup-self", None);
            times.push(began.elapsed());
            failed += usize::from(answered.map_or(0, |answer| answer.status) != 200);
        }
        times.sort();
        let p99 = times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
        let lag = leased.and_then(|answer| {
            let user = answer.text("/data/username");
            while Instant::now() < ends + Duration::from_secs(60) {
                if !database.has_role(&user) {
                    return Some(Instant::now().saturating_duration_since(ends));
                }
                thread::sleep(Duration::from_millis(20));
            }
            None
        });
        Self { p99, failed, lag, memory_mib: server.memory_mib() }
    }
}
