//! A server as a child process: started, killed, restarted, and looked through when it goes.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::eventually;
use super::{Answer, Bao, Cli, Client, Secrets, free_port};

/// A saturated machine needs seconds where an idle one needs 100 ms.
const START_WAIT: Duration = Duration::from_secs(60);
const STOP_WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The dev servers' root token.
const DEV_TOKEN: &str = "dev-root-token";

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Leasehold,
    OpenBao,
}

/// How to start a durable server.
#[derive(Clone, Debug)]
pub struct Durable {
    pub shares: u32,
    pub threshold: u32,
    /// Lines put in front of the configuration.
    pub settings: String,
    /// Further variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Durable {
    fn default() -> Self {
        Self { shares: 1, threshold: 1, settings: String::new(), environment: Vec::new() }
    }
}

/// A running server. Dropping it ends it and looks through what it leaves behind.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
    address: String,
    home: TempDir,
    token: Mutex<String>,
    shares: Mutex<Vec<String>>,
    threshold: usize,
    secrets: Secrets,
    /// Of a dev server root token and key are printed, as Vault's prints them.
    prints_root: bool,
    agent: Client,
}

impl Server {
    /// Our server in memory, unsealed.
    pub fn dev() -> Self {
        Self::dev_with(&[], &[])
    }

    /// The same with further arguments and environment.
    pub fn dev_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut all: Vec<String> = vec![
            "server".into(),
            "-dev".into(),
            format!("-dev-root-token-id={DEV_TOKEN}"),
            format!("-dev-listen-address=127.0.0.1:{port}"),
        ];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let server = Self::prepare(Kind::Leasehold, under_test(), port, all, environment);
        server.start();
        server
    }

    /// A real OpenBao in memory, unsealed.
    pub fn openbao(bao: &Bao) -> Self {
        let port = free_port();
        let arguments = vec![
            "server".into(),
            "-dev".into(),
            "-dev-no-store-token".into(),
            format!("-dev-root-token-id={DEV_TOKEN}"),
            format!("-dev-listen-address=127.0.0.1:{port}"),
        ];
        let server = Self::prepare(Kind::OpenBao, bao.program.clone(), port, arguments, &[]);
        server.start();
        server
    }

    /// A real OpenBao in memory by a configuration file, without keys yet; `settings` come first.
    pub fn openbao_on(bao: &Bao, threshold: u32, settings: &str) -> Self {
        let arguments = vec!["server".into(), "-config=server.hcl".into()];
        let mut server = Self::prepare(Kind::OpenBao, bao.program.clone(), free_port(), arguments, &[]);
        server.prints_root = false;
        server.threshold = threshold as usize;
        server.write_config_with(settings, "disable_mlock = true\nstorage \"inmem\" {}");
        server.start();
        server
    }

    /// Our server on a SQLite file, initialised and unsealed.
    pub fn durable(options: &Durable) -> Self {
        let server = Self::uninitialised(options);
        server.init(options.shares, options.threshold);
        server.unseal();
        server
    }

    /// Our server on an empty SQLite file.
    pub fn uninitialised(options: &Durable) -> Self {
        let server = Self::prepared(options);
        server.write_config(&options.settings);
        server.start();
        server
    }

    /// The same, not started yet and without its `server.hcl`.
    pub fn prepared(options: &Durable) -> Self {
        let port = free_port();
        let arguments = vec!["server".into(), "-config=server.hcl".into()];
        let mut server = Self::prepare(Kind::Leasehold, under_test(), port, arguments, &[]);
        server.prints_root = false;
        server.threshold = options.threshold as usize;
        server.environment.extend(options.environment.iter().cloned());
        server
    }

    fn prepare(kind: Kind, program: PathBuf, port: u16, arguments: Vec<String>, environment: &[(&str, &str)]) -> Self {
        // On the disk that the build is on: a temporary directory may be in memory, where no file is ever full.
        let place = env!("CARGO_TARGET_TMPDIR");
        let home = tempfile::Builder::new().prefix("leasehold-test-").tempdir_in(place).expect("a directory");
        fs::create_dir(home.path().join("audit")).expect("a directory");
        let address = format!("127.0.0.1:{port}");
        let secrets = Secrets::default();
        let agent = Client::new(&address, None, secrets.clone());
        Self {
            kind,
            program,
            arguments,
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            child: Mutex::new(None),
            address,
            home,
            token: Mutex::new(DEV_TOKEN.to_owned()),
            shares: Mutex::new(Vec::new()),
            threshold: 1,
            secrets,
            prints_root: true,
            agent,
        }
    }

    /// Writes `server.hcl`; `settings` come first.
    pub fn write_config(&self, settings: &str) {
        let path = self.home.path().join("leasehold.db");
        self.write_config_with(settings, &format!("storage \"sqlite\" {{\n  path = \"{}\"\n}}", path.display()));
    }

    /// As [`Server::write_config`], on another store.
    pub fn write_config_with(&self, settings: &str, storage: &str) {
        let home = self.home.path().display();
        let text = format!(
            "{settings}\n{storage}\n\
             listener \"tcp\" {{\n  address = \"{}\"\n  tls_disable = true\n}}\n\
             audit_directory = \"{home}/audit\"\n",
            self.address
        );
        fs::write(self.home.path().join("server.hcl"), text).expect("a configuration can be written");
    }

    /// Starts the process and waits until it listens.
    pub fn start(&self) {
        let log = |name| -> File {
            let path = self.home.path().join(name);
            OpenOptions::new().create(true).append(true).open(path).expect("a log can be opened")
        };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(self.home.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars() {
            if ["VAULT_", "BAO_", "LEASEHOLD_"].iter().any(|prefix| name.starts_with(prefix))
                && !name.starts_with("LEASEHOLD_PG")
            {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).envs(self.environment.iter().cloned());
        command.stdout(log("stdout.log")).stderr(log("stderr.log"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        *self.child() = Some(child);
        let began = Instant::now();
        while self.agent.try_request("GET", "sys/seal-status", None).is_err() {
            let ended = self.child().as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                panic!("the server ended at its start ({status})\n{}", self.log());
            }
            assert!(began.elapsed() < START_WAIT, "the server does not listen\n{}", self.log());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes environment for the next start.
    pub fn set_environment(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        if let Some(value) = value {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Initialises; shares and root token are kept for [`Server::unseal`] and [`Server::root`].
    pub fn init(&self, shares: u32, threshold: u32) -> Answer {
        let body = json!({ "secret_shares": shares, "secret_threshold": threshold });
        let answer = self.nobody().put("sys/init", body).assert_status(200);
        let keys = answer.at("/keys_base64");
        let keys: Vec<String> =
            keys.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        *self.shares.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = answer.text("/root_token");
        answer
    }

    /// Keeps the root token of an init that gave no unseal keys.
    pub fn take_root(&self, made: &Answer) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = made.text("/root_token");
    }

    /// Both work over one store, so that shares and root token of the one are those of the other.
    pub fn knows_keys_of(&self, other: &Self) {
        *self.shares.lock().unwrap_or_else(PoisonError::into_inner) = other.shares();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = other.root_token();
    }

    /// Gives as many shares as are needed.
    pub fn unseal(&self) {
        for share in self.shares().iter().take(self.threshold) {
            self.nobody().put("sys/unseal", json!({ "key": share })).assert_status(200);
        }
        self.nobody().get("sys/seal-status").assert_at("/sealed", false);
    }

    /// The unseal keys, base64.
    pub fn shares(&self) -> Vec<String> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The root token.
    pub fn root_token(&self) -> String {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client with the root token.
    pub fn root(&self) -> Client {
        self.agent.with_token(&self.root_token())
    }

    /// A client without a token.
    pub fn nobody(&self) -> Client {
        self.agent.clone()
    }

    /// A client with this token.
    pub fn as_token(&self, token: &str) -> Client {
        self.secrets.tell(token);
        self.agent.with_token(token)
    }

    /// A client whose new token has exactly this policy text (and `default`).
    pub fn with_policy(&self, name: &str, text: &str) -> Client {
        let written = self.root().put(&format!("sys/policies/acl/{name}"), json!({ "policy": text }));
        // With a body where there is something to warn of.
        assert!(matches!(written.status, 200 | 204), "{written}");
        let made = self.root().post("auth/token/create", json!({ "policies": [name] })).assert_status(200);
        self.agent.with_token(&made.text("/auth/client_token"))
    }

    /// The command line client that belongs to this server, as root.
    pub fn cli(&self) -> Cli {
        let home = self.home.path().join("person");
        fs::create_dir_all(&home).expect("a directory");
        Cli::new(&self.program, &self.address, &home, Some(&self.root_token()))
    }

    /// Everything that the process has written, over all its runs.
    pub fn log(&self) -> String {
        let read = |name| {
            let bytes = fs::read(self.home.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        format!("{}{}", read("stdout.log"), read("stderr.log"))
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// SIGKILL.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end; gives the exit status.
    pub fn terminate(&self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    /// Waits until the process has ended by itself; gives the exit status, none after a signal.
    pub fn wait_for_end(&self) -> Option<i32> {
        let mut child = self.child().take()?;
        let began = Instant::now();
        loop {
            match child.try_wait().expect("the process can be looked at") {
                Some(status) => return status.code(),
                None if began.elapsed() > STOP_WAIT => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("the server did not end\n{}", self.log());
                }
                None => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.child().as_mut().is_none_or(|child| child.try_wait().ok().flatten().is_some())
    }

    /// Stops the process where it is; returns when each of its threads has stopped. `SIGCONT` lets it go on.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.process_id().expect("the server runs"));
        eventually("the process has stopped", || {
            fs::read_dir(&threads).expect("its threads").flatten().all(|thread| {
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
            })
        });
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.process_id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("the server runs"), signal).expect("the server can be signalled");
    }

    /// SIGKILL, start, unseal.
    pub fn crash_and_restart(&self) {
        self.kill();
        self.start();
        self.unseal();
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every file that audit devices have written beneath the audit directory.
    pub fn audit_text(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.home.path().join("audit")).into_iter().flatten().flatten() {
            text.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap_or_default()));
        }
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if thread::panicking() {
            let lines: Vec<_> = log.lines().collect();
            let end = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
            eprintln!("--- the end of the server's log ---\n{end}\n---");
            return;
        }
        if self.kind == Kind::OpenBao {
            return;
        }
        // In the standard library's words, or in the server's own.
        let panicked = log.contains("panicked at") || log.contains("a thread panicked");
        assert!(!panicked, "the server panicked\n{log}");
        for (place, text) in [("log", log), ("audit file", self.audit_text())] {
            let mut found = self.secrets.found_in(&text);
            if self.prints_root {
                found.retain(|secret| *secret != DEV_TOKEN);
            }
            assert!(found.is_empty(), "secrets in the {place}: {found:?}");
        }
    }
}

/// The server's own main, built for these tests.
pub fn under_test() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_leasehold-under-test"))
}
