//! Seals that open the server: `static` and `transit`, recovery shares, moves between them, several servers.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Options};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Answer, Bao, Durable, Server, eventually, free_port};

/// A key file of this server's home, and the block that names it.
fn key_file(server: &Server, name: &str, byte: u8) -> String {
    let path = server.home().join(name);
    fs::write(&path, [byte; 32]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    format!("file://{}", path.display())
}

fn static_block(id: &str, key: &str, more: &str) -> String {
    format!("seal \"static\" {{\n  current_key_id = \"{id}\"\n  current_key = \"{key}\"\n{more}\n}}\n")
}

/// With a static seal, running on an empty store.
fn with_static() -> (Server, String) {
    let server = Server::prepared(&Durable::default());
    let block = static_block("k1", &key_file(&server, "key1", 0x11), "");
    server.write_config(&block);
    server.start();
    (server, block)
}

/// Initialised with two recovery shares, both needed.
fn init_recovery(server: &Server) -> Answer {
    let body = json!({ "recovery_shares": 2, "recovery_threshold": 2 });
    let made = server.nobody().put("sys/init", body).assert_status(200);
    server.take_root(&made);
    made
}

fn recovery_keys(made: &Answer) -> Vec<String> {
    serde_json::from_value(made.at("/recovery_keys_base64")).unwrap()
}

fn is_open(server: &Server) -> bool {
    server.nobody().get("sys/seal-status").at("/sealed") == false
}

fn restart_with(server: &Server, settings: &str) {
    server.terminate();
    server.write_config(settings);
    server.start();
}

fn give(server: &Server, keys: &[String], migrate: bool) -> Answer {
    let mut answers: Vec<Answer> = Vec::new();
    for key in keys {
        answers.push(server.nobody().put("sys/unseal", json!({ "key": key, "migrate": migrate })));
    }
    answers.pop().unwrap()
}

/// Init, status and refusals as OpenBao 2.7 answers them with the same block.
#[test]
fn a_static_seal_answers_as_openbaos_and_opens_the_server_after_each_start() {
    let (server, _) = with_static();
    let nobody = server.nobody();
    let status = nobody.get("sys/seal-status").assert_status(200);
    let status = status.assert_at("/type", "static").assert_at("/initialized", false).assert_at("/recovery_seal", true);
    status.assert_at("/recovery_seal_type", "shamir").assert_at("/migration", false).assert_at("/t", 0);
    for (body, why) in [
        (
            json!({ "secret_shares": 1, "secret_threshold": 1 }),
            "parameters secret_shares,secret_threshold not applicable to seal type static",
        ),
        (
            json!({ "secret_shares": 1, "recovery_shares": 1, "recovery_threshold": 1, "pgp_keys": ["x"] }),
            "parameters secret_shares,pgp_keys not applicable to seal type static",
        ),
        (
            json!({ "recovery_shares": 3, "recovery_threshold": 4 }),
            "invalid recovery configuration: threshold cannot be larger than shares",
        ),
        (
            json!({ "recovery_shares": 5 }),
            "invalid recovery configuration: threshold must be greater than one for multiple shares",
        ),
    ] {
        nobody.put("sys/init", body).assert_error(400, why);
    }
    nobody
        .put("sys/init", json!({ "recovery_shares": 1, "recovery_threshold": 1, "recovery_pgp_keys": ["x"] }))
        .assert_error_has(400, "PGP keys is not supported");

    let made = init_recovery(&server);
    assert_eq!((made.at("/keys"), made.at("/keys_base64")), (json!([]), json!([])));
    let hex: Vec<String> = serde_json::from_value(made.at("/recovery_keys")).unwrap();
    assert!(hex.len() == 2 && hex.iter().all(|key| key.len() == 66), "{hex:?}");
    let open = nobody.get("sys/seal-status").assert_at("/sealed", false).assert_at("/t", 2).assert_at("/n", 2);
    assert!(!open.text("/cluster_id").is_empty());
    nobody.put("sys/init", json!({ "recovery_shares": 0 })).assert_error(400, "Vault is already initialized");

    server.root().post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    server.root().post("kv/a", json!({ "x": "1" })).assert_status(204);
    for _ in 0..2 {
        server.kill();
        server.start();
        eventually("the server opens itself", || is_open(&server));
        server.root().get("kv/a").assert_status(200).assert_at("/data/x", "1");
    }
    // Nothing of the key is in what is stored.
    let stored = fs::read(server.home().join("leasehold.db")).unwrap();
    assert!(!stored.windows(32).any(|window| window == [0x11; 32]));
}

#[test]
fn a_server_without_recovery_shares_is_initialised_like_openbaos() {
    let (server, _) = with_static();
    let made = server.nobody().put("sys/init", json!({})).assert_status(200);
    server.take_root(&made);
    let names: Vec<String> = made.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["keys", "keys_base64", "root_token"]);
    server.root().put("sys/seal", json!({})).assert_status(204);
    server
        .nobody()
        .put("sys/unseal", json!({ "key": "00".repeat(32) }))
        .assert_error_has(500, "there are no recovery keys");
    assert!(!is_open(&server));
}

#[test]
fn the_command_line_shows_recovery_keys_as_openbaos() {
    let (server, _) = with_static();
    assert!(server.log().contains("everybody on this machine can read"), "the key file of this test is not private");
    let refused = server.cli().without_token().line("operator init -key-shares=1 -key-threshold=1");
    refused
        .assert_status(2)
        .assert_stderr("parameters secret_shares,secret_threshold not applicable to seal type static");
    let made =
        server.cli().without_token().line("operator init -recovery-shares=2 -recovery-threshold=2").assert_status(0);
    let rows: Vec<&str> = made.stdout.lines().filter(|line| line.contains(": ")).collect();
    let names: Vec<&str> = rows.iter().filter_map(|row| Some(row.split_once(':')?.0)).collect();
    assert_eq!(names, ["Recovery Key 1", "Recovery Key 2", "Initial Root Token"], "{made}");
    made.assert_stdout("Recovery key initialized with 2 key shares and a key threshold of 2. Please")
        .assert_stdout("securely distribute the key shares printed above.");
    let status = server.cli().line("status").assert_status(0);
    let shown: Vec<&str> =
        status.stdout.lines().filter(|line| line.contains("Recovery") || line.contains("Seal Type")).collect();
    assert_eq!(shown.len(), 3, "{status}");
    status.assert_stdout("Total Recovery Shares").assert_stdout("Recovery Seal Type");
}

#[test]
fn the_key_of_a_static_seal_is_rotated_and_a_wrong_one_is_said() {
    let (server, _) = with_static();
    init_recovery(&server);
    let (first, second) = (key_file(&server, "key1", 0x11), key_file(&server, "key2", 0x22));
    // The new key alone does not open what the old one has wrapped.
    restart_with(&server, &static_block("k2", &second, ""));
    eventually("the log says which key is missing", || server.log().contains("unknown key id for data: `k1`"));
    assert!(!is_open(&server));
    server.nobody().get("sys/health").assert_status(503);

    let both = format!("  previous_key_id = \"k1\"\n  previous_key = \"{first}\"");
    restart_with(&server, &static_block("k2", &second, &both));
    eventually("the server opens itself", || is_open(&server));
    eventually("the key is wrapped anew", || server.log().contains("wrapped with a newer key"));
    restart_with(&server, &static_block("k2", &second, ""));
    eventually("the new key is enough", || is_open(&server));

    // A file that cannot be used is said before anything else.
    let check = |block: &str| {
        server.write_config(block);
        let ran = server.cli().line(&format!("server -check -config={}", server.home().join("server.hcl").display()));
        (ran.status, format!("{}{}", ran.stdout, ran.stderr))
    };
    let (status, said) = check(&static_block("k3", "file:///none/such", ""));
    assert!(status != 0 && said.contains("`current_key`: /none/such: No such file"), "{said}");
    let (status, said) = check(&static_block("k3", "c0ffee", ""));
    assert!(status != 0 && said.contains("unknown encoding for AES-256 key") && !said.contains("c0ffee"), "{said}");
}

#[test]
fn a_server_that_is_sealed_by_hand_waits_for_its_recovery_shares() {
    let (server, _) = with_static();
    let keys = recovery_keys(&init_recovery(&server));
    server.cli().line("operator seal").assert_status(0);
    thread::sleep(Duration::from_secs(3));
    assert!(!is_open(&server), "it opened itself though somebody has sealed it");
    server.nobody().put("sys/unseal", json!({ "key": "11".repeat(33) })).assert_status(400);
    give(&server, &keys, false).assert_status(200).assert_at("/sealed", false);
    server.terminate();
    server.start();
    eventually("a start opens it", || is_open(&server));
}

#[test]
fn the_server_moves_from_shares_to_a_seal_and_back() {
    let server = Server::uninitialised(&Durable { shares: 2, threshold: 2, ..Durable::default() });
    server.init(2, 2);
    server.unseal();
    let keys = server.shares();
    let refused = server.nobody().put("sys/unseal", json!({ "key": keys[0], "migrate": true }));
    // Open already: nothing is to be done.
    refused.assert_status(200);
    let block = static_block("k1", &key_file(&server, "key1", 0x11), "");
    restart_with(&server, &block);
    let status = server.nobody().get("sys/seal-status").assert_at("/migration", true).assert_at("/type", "static");
    status.assert_at("/sealed", true).assert_at("/recovery_seal", true).assert_at("/t", 2);
    server
        .nobody()
        .put("sys/unseal", json!({ "key": keys[0] }))
        .assert_error(500, "migrate option not provided and seal migration is pending");
    let shown = server.cli().line("status");
    assert!(shown.stdout.contains("Seal Migration in Progress"), "{}", shown.stdout);
    for key in &keys {
        server.cli().line(&format!("operator unseal -migrate {key}")).assert_status(0);
    }
    server.nobody().get("sys/seal-status").assert_at("/migration", false).assert_at("/sealed", false);
    server.kill();
    server.start();
    eventually("the seal opens the server", || is_open(&server));

    // Without the block, the server says what it misses.
    restart_with(&server, "");
    give(&server, &keys, false).assert_error_has(500, "no disabled seal in configuration");
    eventually("the log says so", || server.log().contains("no disabled seal in configuration"));
    restart_with(&server, &block.replace("current_key_id", "disabled = \"true\"\n  current_key_id"));
    server.nobody().get("sys/seal-status").assert_at("/migration", true).assert_at("/type", "shamir");
    give(&server, &keys, true).assert_status(200).assert_at("/sealed", false);
    restart_with(&server, "");
    assert!(!is_open(&server));
    server
        .nobody()
        .put("sys/unseal", json!({ "key": keys[0], "migrate": true }))
        .assert_error(500, "can't perform a seal migration, no migration seal found");
    give(&server, &keys, false).assert_status(200).assert_at("/sealed", false);
    server.root().get("auth/token/lookup-self").assert_status(200);
}

#[test]
fn a_snapshot_that_was_restored_is_opened_by_the_seal() {
    let (server, _) = with_static();
    init_recovery(&server);
    let path = server.home().join("backup.snap");
    let saved = server.cli().line(&format!("operator snapshot save {}", path.display()));
    saved.assert_status(0);
    server.root().put("sys/policies/acl/later", json!({ "policy": "path \"x\" {}" })).assert_status(204);
    server.cli().line(&format!("operator snapshot restore {}", path.display())).assert_status(0);
    eventually("the server opens itself", || is_open(&server));
    server.root().get("sys/policies/acl/later").assert_status(404);
}

#[test]
fn servers_over_one_postgresql_open_themselves() {
    let store = DevPg::start(Options::default()).unwrap();
    let url = format!("{}?sslmode=disable", store.superuser_url());
    let storage = format!("storage \"postgresql\" {{\n  connection_url = \"{url}\"\n}}");
    let start = || {
        let server = Server::prepared(&Durable::default());
        server.write_config_with(&static_block("k1", &key_file(&server, "key1", 0x11), ""), &storage);
        server.start();
        server
    };
    let servers = [start(), start(), start()];
    let made = init_recovery(&servers[0]);
    for server in &servers {
        server.take_root(&made);
        eventually("each server opens itself after one was initialised", || is_open(server));
    }
    servers[0].root().put("sys/policies/acl/p", json!({ "policy": "path \"x\" {}" })).assert_status(204);
    servers[2].root().get("sys/policies/acl/p").assert_status(200);
    for server in &servers {
        server.kill();
    }
    for server in &servers {
        server.start();
    }
    for server in &servers {
        eventually("all open themselves at once", || is_open(server));
        server.root().get("sys/policies/acl/p").assert_status(200);
    }
    // A store that is away keeps a server closed, and it opens itself when the store comes back.
    servers[1].root().put("sys/rotate", json!({})).assert_status(204);
}

/// A real OpenBao with a transit key, and the token that may use it.
struct Keeper {
    bao: Server,
    token: String,
}

impl Keeper {
    fn start(bao: &Bao) -> Self {
        let bao = Server::openbao(bao);
        let root = bao.root();
        root.post("sys/mounts/transit", json!({ "type": "transit" })).assert_status(204);
        root.post("transit/keys/unseal", json!({})).assert_status(200);
        let policy = "path \"transit/encrypt/unseal\" { capabilities = [\"update\"] }\n\
                      path \"transit/decrypt/unseal\" { capabilities = [\"update\"] }";
        root.put("sys/policies/acl/unseal", json!({ "policy": policy })).assert_status(204);
        let body = json!({ "policies": ["unseal"], "period": "6s" });
        let token = root.post("auth/token/create-orphan", body).assert_status(200).text("/auth/client_token");
        Self { bao, token }
    }

    fn block(&self, more: &str) -> String {
        format!(
            "seal \"transit\" {{\n  address = \"http://{}\"\n  token = \"{}\"\n  key_name = \"unseal\"\n  mount_path = \"transit/\"\n{more}\n}}\n",
            self.bao.address(),
            self.token
        )
    }

    fn unseal(&self) {
        let log = self.bao.log();
        let key = log.lines().find_map(|line| line.strip_prefix("Unseal Key: ")).expect("it prints its key").trim();
        self.bao.nobody().put("sys/unseal", json!({ "key": key })).assert_status(200).assert_at("/sealed", false);
    }
}

#[test]
fn a_transit_seal_of_a_real_openbao_opens_the_server_waits_and_moves() {
    let Some(bao) = Bao::find("the transit seal") else { return };
    let keeper = Keeper::start(&bao);
    let server = Server::prepared(&Durable::default());
    server.secrets().tell(&keeper.token);
    server.write_config(&keeper.block(""));
    server.start();
    server.nobody().get("sys/seal-status").assert_at("/type", "transit").assert_at("/initialized", false);
    let keys = recovery_keys(&init_recovery(&server));
    assert!(is_open(&server));

    // The token lives for 6 s: it is renewed.
    thread::sleep(Duration::from_secs(8));
    server.kill();
    server.start();
    eventually("the seal opens the server", || is_open(&server));

    // A seal that answers 503 stops no open server, and keeps a closed one closed until it answers again.
    keeper.bao.root().put("sys/seal", json!({})).assert_status(204);
    server.root().put("sys/policies/acl/p", json!({ "policy": "path \"x\" {}" })).assert_status(204);
    server.kill();
    server.start();
    eventually("the log says why", || server.log().contains("could not unseal itself") && server.log().contains("503"));
    server.nobody().get("sys/health").assert_status(503).assert_at("/initialized", true);
    keeper.unseal();
    eventually("the server opens itself", || is_open(&server));

    // One that does not answer at all holds up nothing else.
    server.kill();
    keeper.bao.signal(Signal::STOP);
    server.start();
    let began = Instant::now();
    for _ in 0..20 {
        server.nobody().get("sys/seal-status").assert_status(200).assert_at("/sealed", true);
        server.nobody().get("sys/health").assert_status(503);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "status waited for the seal: {:?}", began.elapsed());
    assert_eq!(server.terminate(), Some(0));
    keeper.bao.signal(Signal::CONT);
    server.start();
    eventually("the server opens itself", || is_open(&server));

    // A newer version of the transit key is used from the next start on.
    keeper.bao.root().post("transit/keys/unseal/rotate", json!({})).assert_status(200);
    server.kill();
    server.start();
    eventually("the key is wrapped anew", || server.log().contains("wrapped with a newer key"));
    let minimum = json!({ "min_decryption_version": 2 });
    keeper.bao.root().post("transit/keys/unseal/config", minimum).assert_status(200);
    server.kill();
    server.start();
    eventually("the version before is not needed", || is_open(&server));

    // To a static seal, to the transit seal again, and to shares.
    let key = key_file(&server, "key1", 0x11);
    let disabled = "  disabled = \"true\"";
    for (moving, after) in [
        (format!("{}{}", keeper.block(disabled), static_block("k1", &key, "")), static_block("k1", &key, "")),
        (format!("{}{}", keeper.block(""), static_block("k1", &key, disabled)), keeper.block("")),
    ] {
        restart_with(&server, &moving);
        server.nobody().get("sys/seal-status").assert_at("/migration", true);
        give(&server, &keys, true).assert_status(200).assert_at("/sealed", false);
        restart_with(&server, &after);
        eventually("the seal that it moved to opens the server", || is_open(&server));
    }
    restart_with(&server, &keeper.block(disabled));
    give(&server, &keys, true).assert_status(200).assert_at("/sealed", false);
    restart_with(&server, "");
    give(&server, &keys, false).assert_status(200).assert_at("/sealed", false);
    server.root().get("sys/policies/acl/p").assert_status(200);
}

#[test]
fn a_transit_seal_that_refuses_is_told_and_takes_its_settings_from_the_environment() {
    let Some(bao) = Bao::find("the transit seal's settings") else { return };
    let keeper = Keeper::start(&bao);
    let mut server = Server::prepared(&Durable::default());
    server.secrets().tell(&keeper.token);
    let variables = [
        ("VAULT_SEAL_TYPE", "transit"),
        ("BAO_TRANSIT_SEAL_KEY_NAME", "unseal"),
        ("VAULT_TRANSIT_SEAL_MOUNT_PATH", "transit/"),
        ("VAULT_TOKEN", &keeper.token),
    ];
    for (name, value) in variables {
        server.set_environment(name, Some(value));
    }
    let address = format!("http://{}", keeper.bao.address());
    server.set_environment("VAULT_ADDR", Some(&address));
    server.write_config("");
    server.start();
    init_recovery(&server);
    assert!(is_open(&server));

    // Refused at init, nothing is stored.
    let other = Server::prepared(&Durable::default());
    other.secrets().tell(&keeper.token);
    other.write_config(&keeper.block("").replace("\"unseal\"", "\"another\""));
    other.start();
    let refused = other.nobody().put("sys/init", json!({ "recovery_shares": 1, "recovery_threshold": 1 }));
    refused.assert_error_has(500, "the seal `transit`");
    assert_eq!(other.nobody().get("sys/init").at("/initialized"), Value::Bool(false));
}

/// Ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_transit_seal_judges_the_other_servers_certificate() {
    let Some(bao) = Bao::find("the transit seal over TLS") else { return };
    let server = Server::prepared(&Durable::default());
    let (folder, port) = (server.home().join("bao"), free_port());
    fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(&bao.program);
    command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token", "-dev-root-token-id=root"]);
    command.arg(format!("-dev-listen-address=127.0.0.1:{port}")).arg(format!("-dev-tls-cert-dir={}", folder.display()));
    let quiet = command.env("HOME", &folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _running = Ended(quiet.spawn().unwrap());
    let ca = || {
        let files = fs::read_dir(&folder).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let mut named = files.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
        named.find(|(name, _)| name.ends_with("-ca.pem")).map(|(_, path)| path)
    };
    eventually("OpenBao writes its authority", || ca().is_some());
    let ca = ca().unwrap();
    let address = format!("https://127.0.0.1:{port}");
    let ask = |words: &[&str]| {
        let mut command = Command::new(&bao.program);
        command.args(words).env("BAO_ADDR", &address).env("BAO_CACERT", &ca).env("BAO_TOKEN", "root");
        command.env("HOME", &folder).output().unwrap().status.success()
    };
    eventually("OpenBao answers", || ask(&["secrets", "enable", "transit"]));
    assert!(ask(&["write", "-f", "transit/keys/unseal"]));

    let block = |more: &str| {
        format!(
            "seal \"transit\" {{\n  address = \"{address}\"\n  token = \"root\"\n  key_name = \"unseal\"\n  mount_path = \"transit\"\n{more}\n}}\n"
        )
    };
    let init = || server.nobody().put("sys/init", json!({}));
    // The system does not know this authority; and the certificate has not this name.
    let ca_line = format!("  tls_ca_cert = \"{}\"", ca.display());
    server.write_config(&block(""));
    server.start();
    init().assert_error_has(503, "does not answer: invalid peer certificate");
    restart_with(&server, &block(&format!("{ca_line}\n  tls_server_name = \"elsewhere.example\"")));
    init().assert_error_has(503, "does not answer: invalid peer certificate");
    restart_with(&server, &block(&ca_line));
    let made = init().assert_status(200);
    server.take_root(&made);
    assert!(is_open(&server));
    restart_with(&server, &block(&format!("{ca_line}\n  tls_server_name = \"localhost\"")));
    eventually("the certificate has this name, too", || is_open(&server));
}
