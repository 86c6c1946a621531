//! The store as a primary and a standby under Patroni, with etcd as the witness of who is the primary.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::clients::Caller;
use super::clock::Clocks;
use super::network::{Network, find};
use super::plan::Place;

const SERVERS: usize = 2;
const PASSWORD: &str = "chaos";
/// A standby copies the primary first.
const START_WAIT: Duration = Duration::from_secs(120);
/// How long a standby may take to mend itself.
const REMAKE_AFTER: Duration = Duration::from_secs(25);

/// Two servers. Dropping it ends them and removes their files.
#[derive(Debug)]
pub struct Patroni {
    witness: Child,
    servers: Vec<Mutex<Option<Child>>>,
    /// Which of them was killed last.
    killed: Mutex<Option<usize>>,
    commands: Vec<Recipe>,
    addresses: Vec<Ipv4Addr>,
    caller: Caller,
    home: TempDir,
}

/// How to start one of them again.
#[derive(Debug)]
struct Recipe {
    namespace: PathBuf,
    program: PathBuf,
    settings: PathBuf,
    user: (u32, u32),
    log: PathBuf,
}

impl Recipe {
    fn start(&self) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("a log can be opened");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display()));
        command.arg("--setuid").arg(self.user.0.to_string()).arg("--setgid").arg(self.user.1.to_string());
        command.arg("--").arg(&self.program).arg(&self.settings);
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command.stdout(log.try_clone().expect("a log can be opened")).stderr(log);
        command.spawn().expect("patroni can be started")
    }
}

impl Patroni {
    /// Starts all of it and waits until the standby follows. `synchronous`: what is committed is on both.
    ///
    /// # Errors
    /// What is not installed.
    pub fn start(network: &Network, clocks: &Clocks, caller: &Caller, synchronous: bool) -> Result<Self, String> {
        let installs = "host/xtask/bootstrap.sh chaos installs it";
        let program = std::env::var_os("LEASEHOLD_PATRONI").map(PathBuf::from).or_else(|| find("patroni"));
        let program = program.ok_or_else(|| format!("Patroni is not installed (PyPI's patroni[etcd3]): {installs}"))?;
        let etcd = find("etcd").ok_or_else(|| format!("etcd is not installed (Debian's etcd-server): {installs}"))?;
        let bin = leasehold_devpg::programs().map_err(|error| error.to_string())?;
        // It may hold links to two programs only, and Patroni needs all of them.
        let real = fs::canonicalize(bin.join("postgres")).map_err(|error| error.to_string())?;
        let bin = real.parent().map_or(bin, Path::to_owned);
        let home = tempfile::Builder::new().prefix("leasehold-patroni-").tempdir_in("/tmp").expect("a directory");
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("a directory's mode can be set");
        let user = leasehold_devpg::user().map_err(|error| error.to_string())?;
        let url = format!("http://{}:2379", network.address(Place::Witness));
        let mut command = network.command(Place::Witness, &etcd);
        command.arg("--data-dir").arg(home.path().join("etcd")).args(["--name", "witness"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let witness = command.spawn().expect("etcd can be started");
        let addresses: Vec<_> = (0..SERVERS).map(|at| network.address(Place::Store(at))).collect();
        let commands: Vec<_> = (0..SERVERS)
            .map(|at| {
                let place = home.path().join(format!("store{at}"));
                fs::create_dir(&place).expect("a directory can be made");
                chown(&place, Some(user.0), Some(user.1)).expect("a directory can be given away");
                let settings = home.path().join(format!("store{at}.yml"));
                let bin = with_clock(&bin, home.path().join(format!("bin{at}")), &clocks.environment(Place::Store(at)));
                let text = settings_of(at, addresses[at], network.address(Place::Witness), &place, &bin, synchronous);
                fs::write(&settings, text).expect("a configuration can be written");
                let namespace = network.namespace(Place::Store(at));
                let log = home.path().join(format!("store{at}.log"));
                Recipe { namespace, program: program.clone(), settings, user, log }
            })
            .collect();
        let servers = commands.iter().map(|recipe| Mutex::new(Some(recipe.start()))).collect();
        let caller = caller.clone();
        let patroni = Self { witness, servers, killed: Mutex::new(None), commands, addresses, caller, home };
        for at in 0..SERVERS {
            patroni.serves(at);
        }
        Ok(patroni)
    }

    /// For nodes: whichever is the primary. `options` follow the `?`.
    pub fn url(&self, options: &str) -> String {
        let hosts: Vec<String> = self.addresses.iter().map(|address| format!("{address}:5432")).collect();
        format!("postgresql://postgres:{PASSWORD}@{}/postgres?{options}", hosts.join(","))
    }

    /// Each for itself.
    pub fn urls(&self) -> Vec<String> {
        let url = |address| format!("postgresql://postgres:{PASSWORD}@{address}:5432/postgres?connect_timeout=2");
        self.addresses.iter().map(url).collect()
    }

    fn answers(&self, at: usize, what: &str) -> bool {
        let address = format!("{}:8008", self.addresses[at]);
        self.caller.send_to(&format!("http://{address}/{what}"), None, "GET", None).status == Some(200)
    }

    /// Waits until this server is the primary, or a standby that follows it. One that cannot be mended is made anew from the primary, as
    /// an operator would.
    fn serves(&self, at: usize) {
        let began = Instant::now();
        let mut last = began;
        while !(self.answers(at, "primary") || self.answers(at, "replica")) {
            assert!(began.elapsed() < START_WAIT, "store{at} does not serve\n{}", self.log(at));
            if last.elapsed() > REMAKE_AFTER && self.answers((at + 1) % SERVERS, "primary") {
                let url = format!("http://{}:8008/reinitialize", self.addresses[at]);
                self.caller.send_to(&url, None, "POST", Some(serde_json::json!({ "force": true })));
                last = Instant::now();
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn log(&self, at: usize) -> String {
        let log = fs::read_to_string(&self.commands[at].log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// SIGKILL for the primary, with Patroni and all that belongs to it.
    pub fn kill_primary(&self) {
        let at = (0..SERVERS).find(|&at| self.answers(at, "primary")).unwrap_or(0);
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.signal(at, Signal::STOP);
        self.signal(at, Signal::KILL);
        if let Some(mut child) = self.servers[at].lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.wait();
        }
    }

    /// Starts what was killed, and waits until it serves.
    pub fn start_killed(&self) {
        let killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(at) = killed {
            *self.servers[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(self.commands[at].start());
            self.serves(at);
        }
    }

    /// Stops everything of a server, as a machine that is frozen.
    pub fn pause(&self, at: usize) {
        self.signal(at, Signal::STOP);
    }

    /// Ends a pause, and waits until the server serves.
    pub fn resume(&self, at: usize) {
        self.signal(at, Signal::CONT);
        self.serves(at);
    }

    /// Waits until both serve.
    pub fn settle(&self) {
        for at in 0..SERVERS {
            self.serves(at);
        }
    }

    fn signal(&self, at: usize, signal: Signal) {
        let place = self.home.path().join(format!("store{at}"));
        let patroni = self.servers[at].lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id);
        let postmaster = fs::read_to_string(place.join("data/postmaster.pid")).ok();
        let postmaster = postmaster.and_then(|text| text.lines().next()?.trim().parse().ok());
        let mut all: Vec<u32> = patroni.into_iter().chain(postmaster).collect();
        let mut seen = 0;
        while let Some(&parent) = all.get(seen) {
            seen += 1;
            all.extend(children(parent));
        }
        for id in all {
            if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for at in 0..SERVERS {
            self.signal(at, Signal::KILL);
            if let Some(mut child) = self.servers[at].lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = child.wait();
            }
        }
        let _ = self.witness.kill();
        let _ = self.witness.wait();
    }
}

/// PostgreSQL's programs, of which `postgres` alone has a clock that can be set: Python's waits break when libfaketime sets theirs.
fn with_clock(programs: &Path, place: PathBuf, environment: &[(String, String)]) -> PathBuf {
    fs::create_dir(&place).expect("a directory can be made");
    for program in fs::read_dir(programs).expect("a directory can be read").flatten() {
        if program.file_name() != "postgres" {
            symlink(program.path(), place.join(program.file_name())).expect("a link can be made");
        }
    }
    let variables: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let real = programs.join("postgres");
    let script = format!("#!/bin/sh\nexec env {} {} \"$@\"\n", variables.join(" "), real.display());
    let postgres = place.join("postgres");
    fs::write(&postgres, script).expect("a script can be written");
    fs::set_permissions(postgres, Permissions::from_mode(0o755)).expect("a script's mode can be set");
    place
}

fn children(parent: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name in parentheses may hold blanks.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok()) == Some(parent)
    };
    ids.filter(is_child).collect()
}

fn settings_of(at: usize, own: Ipv4Addr, witness: Ipv4Addr, place: &Path, bin: &Path, synchronous: bool) -> String {
    let (place, bin) = (place.display(), bin.display());
    format!(
        "scope: chaos
name: store{at}
restapi:
  listen: {own}:8008
  connect_address: {own}:8008
etcd3:
  hosts: ['{witness}:2379']
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 4
    primary_start_timeout: 0
    maximum_lag_on_failover: 104857600
    synchronous_mode: {synchronous}
    postgresql:
      use_pg_rewind: true
      parameters:
        max_connections: 200
        wal_log_hints: 'on'
        wal_keep_size: 1GB
        full_page_writes: 'on'
        fsync: 'off'
  initdb:
  - encoding: UTF8
  - no-locale
postgresql:
  listen: {own}:5432
  connect_address: {own}:5432
  data_dir: {place}/data
  bin_dir: {bin}
  pgpass: {place}/pgpass
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  authentication:
    superuser: {{username: postgres, password: {PASSWORD}}}
    replication: {{username: replicator, password: {PASSWORD}}}
  pg_hba:
  - local all all trust
  - host replication replicator 10.99.0.0/24 scram-sha-256
  - host all all 10.99.0.0/24 scram-sha-256
  parameters:
    unix_socket_directories: {place}
    password_encryption: scram-sha-256
"
    )
}
