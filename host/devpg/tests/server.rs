//! The private PostgreSQL, looked at from outside with `psql`.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use leasehold_devpg::{DevPg, Error, Login, Options, Stop, TlsFiles};

/// Runs SQL over TCP, as a client of the server does.
fn client(url: &str, sql: &str) -> Output {
    Command::new("psql").args(["-X", "-A", "-t", "-w", "-c", sql, url]).output().unwrap()
}

fn answer(url: &str, sql: &str) -> String {
    let output = client(url, sql);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn refusal(url: &str, sql: &str) -> String {
    let output = client(url, sql);
    assert!(!output.status.success(), "{sql} was not refused");
    String::from_utf8(output.stderr).unwrap()
}

/// Waits for something that another process does; says whether it happened within ten seconds.
fn eventually(mut happened: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        if happened() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn alive(process: u32) -> bool {
    // A dead process that nobody has collected yet (`Z`) counts as dead.
    if Path::new("/proc/self").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
    }
    Command::new("ps")
        .args(["-o", "stat=", "-p", &process.to_string()])
        .output()
        .is_ok_and(|output| !output.stdout.is_empty() && !output.stdout.starts_with(b"Z"))
}

#[test]
fn the_admin_logs_in_over_tcp_and_is_not_a_superuser() {
    let server = DevPg::start(Options::default()).unwrap();

    let rights =
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = current_user";

    assert_eq!(answer(&server.admin_url(), rights), "f|t|f|f");
    assert_eq!(answer(&server.superuser_url(), "SHOW is_superuser"), "on");
}

#[test]
fn a_wrong_password_is_refused_and_every_stored_one_is_scram() {
    let server = DevPg::start(Options::default()).unwrap();

    let said = refusal(&server.url(server.admin_user(), "wrong"), "SELECT 1");

    assert!(said.contains("password authentication failed"), "{said}");
    let stored =
        "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'";
    assert_eq!(server.psql(stored).unwrap(), "0");
    let rules = "SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE type LIKE 'host%'";
    assert_eq!(server.psql(rules).unwrap(), "scram-sha-256");
}

#[test]
fn the_admin_can_give_a_leased_role_what_the_guide_gives_it() {
    let server = DevPg::start(Options { admin: Login::new("root", "root'pass\\word"), ..Options::default() }).unwrap();
    let admin = server.admin_url();

    answer(&admin, "CREATE ROLE leased WITH LOGIN PASSWORD 'secret' VALID UNTIL '2100-01-01'");
    answer(&admin, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO leased");
    answer(&admin, "CREATE ROLE member WITH LOGIN PASSWORD 'secret' IN ROLE readonly");

    for name in ["leased", "member"] {
        let url = server.url(name, "secret");
        assert_eq!(answer(&url, "SELECT count(*) FROM orders"), "4");
        let said = refusal(&url, "INSERT INTO customers (name, city) VALUES ('x', 'y')");
        assert!(said.contains("permission denied"), "{said}");
    }
}

#[test]
fn passwords_given_to_the_server_are_not_in_its_log() {
    let options = Options { admin: Login::new("root", "rootpassword"), log_statements: true, ..Options::default() };
    let server = DevPg::start(options).unwrap();

    server.psql("SELECT 'seen in the log'").unwrap();

    let log = server.log().unwrap();
    assert!(log.contains("seen in the log"), "{log}");
    assert!(!log.contains("rootpassword"), "{log}");
    assert!(!log.to_uppercase().contains("PASSWORD"), "{log}");
}

#[test]
fn data_and_port_survive_a_stop_and_a_kill() {
    let server = DevPg::start(Options { fsync: true, ..Options::default() }).unwrap();
    let port = server.port();

    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        server.psql("INSERT INTO customers (name, city) VALUES ('Barbara', 'Boston')").unwrap();
        server.stop(how).unwrap();
        assert!(!client(&server.admin_url(), "SELECT 1").status.success());
        assert!(matches!(server.stop(how), Err(Error::NotRunning)));
        server.start_again().unwrap();
    }

    assert_eq!(server.port(), port);
    assert_eq!(answer(&server.admin_url(), "SELECT count(*) FROM customers"), "6");
    assert!(matches!(server.start_again(), Err(Error::Running)));
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let server = DevPg::start(Options::default()).unwrap();

    let ssl_request = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]; // answered with one letter, before any login
    let mut answer = [0];

    server.pause().unwrap();
    let mut connection = TcpStream::connect((server.host(), server.port())).unwrap();
    connection.write_all(&ssl_request).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let silence = connection.read(&mut answer).unwrap_err();
    server.resume().unwrap();

    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(connection.read(&mut answer).unwrap(), 1);
    assert_eq!(&answer, b"N");
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    for paused in [false, true] {
        let server = DevPg::start(Options::default()).unwrap();
        let (process, home) = (server.process_id().unwrap(), server.data_dir().parent().unwrap().to_owned());
        assert!(alive(process) && home.exists());
        if paused {
            server.pause().unwrap();
        }

        drop(server);

        assert!(!alive(process));
        assert!(!home.exists());
    }
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_leasehold-devpg"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> = BufReader::new(owner.stdout.take().unwrap()).lines().take(5).map(Result::unwrap).collect();
    let value = |name: &str| {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let (process, data): (u32, PathBuf) = (value("process").parse().unwrap(), value("data").into());
    assert!(alive(process) && data.exists());

    owner.kill().unwrap(); // SIGKILL: no code of the owner runs after this
    owner.wait().unwrap();

    assert!(eventually(|| !alive(process)), "the server outlived its owner");
    assert!(eventually(|| !data.parent().unwrap().exists()), "files outlived their owner");
}

#[test]
fn several_start_at_once() {
    let servers: Vec<_> = (0..3).map(|_| std::thread::spawn(|| DevPg::start(Options::default()).unwrap())).collect();
    let servers: Vec<_> = servers.into_iter().map(|thread| thread.join().unwrap()).collect();

    for server in &servers {
        assert_eq!(answer(&server.admin_url(), "SELECT count(*) FROM customers"), "3");
    }
}

#[test]
fn with_required_tls_plain_text_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = self_signed(files.path());
    let tls = Some(TlsFiles { certificate, key, required: true });
    let server = DevPg::start(Options { tls, ..Options::default() }).unwrap();

    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

    assert_eq!(answer(&format!("{}?sslmode=require", server.admin_url()), encrypted), "t");
    let said = refusal(&format!("{}?sslmode=disable", server.admin_url()), encrypted);
    assert!(said.contains("no pg_hba.conf entry"), "{said}");
}

#[test]
fn debug_output_holds_no_password() {
    let server = DevPg::start(Options { admin: Login::new("root", "rootpassword"), ..Options::default() }).unwrap();

    let shown = format!("{server:?} {:?}", Options { admin: Login::new("root", "rootpassword"), ..Options::default() });

    assert!(!shown.contains("rootpassword"), "{shown}");
}

fn self_signed(directory: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}
