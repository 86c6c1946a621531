//! What operators do to a server, failing, lying and dying at every write: done or not done, and never half.

use std::net::{IpAddr, SocketAddr};

use leasehold_core::connection::ConnectionInfo;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::seal::Seal;
use leasehold_core::token::create::First;
use leasehold_model::Operation;
use serde_json::{Value, json};

use super::support::faults::{FAULTS, Fault};
use super::support::pass;
use super::support::server::{Answer, ROOT, Server, refusal, request, token_of};

#[tokio::test(start_paused = true)]
async fn init_can_be_repeated_whatever_goes_wrong() {
    for fault in FAULTS {
        let mut write = 0;
        loop {
            let context = format!("{fault:?} at write {write}");
            let mut server = Server::empty(Vec::new());
            server.process.fault_at(write, fault);
            let made = server.core.init(3, 2, First::Root).await;
            let fired = !server.process.is_armed();
            server.process.disarm();
            if server.process.is_dead() {
                server = server.again();
            }
            let made = match made {
                Ok(made) => made,
                // The process died with the shares in its hands, after the store had the keys. Nobody was told anything.
                Err(_) if fault == Fault::CrashAfter => {
                    let again = server.core.init(3, 2, First::Root).await.map(drop);
                    assert!(matches!(again, Err(RequestError::Invalid(why)) if why.contains("already initialized")));
                    break;
                }
                Err(_) => {
                    assert!(!server.core.seal_status().await.unwrap().initialized, "{context}");
                    server.core.init(3, 2, First::Root).await.unwrap_or_else(|error| panic!("{context}: {error}"))
                }
            };
            for share in &made.shares[1..] {
                server.core.unseal(&share.0).await.unwrap();
            }
            let root = made.root_token.expose().to_owned();
            assert!(server.read(&root, "auth/token/lookup-self").await.is_ok(), "{context}");
            if !fired {
                break;
            }
            write += 1;
        }
        assert!(write > 0 || fault == Fault::CrashAfter, "init never writes");
    }
}

#[tokio::test(start_paused = true)]
async fn init_that_succeeded_is_whole_after_one_write() {
    let server = Server::empty(Vec::new());
    // Anything after the first write would be lost.
    server.process.fault_at(1, Fault::CrashBefore);
    let made = server.core.init(1, 1, First::Root).await.unwrap();
    assert!(server.process.is_armed(), "there is one write only");
    let next = server.again();
    next.core.unseal(&made.shares[0].0).await.unwrap();
    let root = made.root_token.expose();
    let mounts = next.read(root, "sys/mounts").await.unwrap().data.unwrap();
    assert!(mounts.contains_key("sys/"));
    assert!(next.read(root, "auth/token/lookup-self").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unsealing_can_be_repeated_whatever_goes_wrong() {
    for fault in FAULTS {
        let mut write = 0;
        loop {
            let context = format!("{fault:?} at write {write}");
            // The first unsealing writes most: what a new installation begins with.
            let mut server = Server::sealed().await;
            server.process.fault_at(write, fault);
            let told = server.core.unseal(&server.share).await;
            let fired = !server.process.is_armed();
            server.process.disarm();
            if server.process.is_dead() {
                server = server.again();
            } else {
                let sealed = server.core.seal_status().await.unwrap().sealed;
                assert_eq!(sealed, told.is_err(), "{context}");
            }
            if server.core.seal_status().await.unwrap().sealed {
                server.unseal().await;
            }
            assert!(server.read(ROOT, "sys/policies/acl/default").await.is_ok(), "{context}");
            if !fired {
                break;
            }
            write += 1;
        }
        assert!(write > 0);
    }
}

/// One command of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Rotate,
    Enable,
    Disable,
    Tune,
    Audit,
    AuditOff,
    Policy,
    PolicyPatch,
    PolicyOff,
    Module,
    ModuleOff,
    Binding,
    BindingOff,
    Header,
    HeaderOff,
    Config,
}

const COMMANDS: [Command; 16] = [
    Command::Rotate,
    Command::Enable,
    Command::Disable,
    Command::Tune,
    Command::Audit,
    Command::AuditOff,
    Command::Policy,
    Command::PolicyPatch,
    Command::PolicyOff,
    Command::Module,
    Command::ModuleOff,
    Command::Binding,
    Command::BindingOff,
    Command::Header,
    Command::HeaderOff,
    Command::Config,
];

const BINDING: &str = "sys/policies/egp/gate";
const HEADER: &str = "sys/config/auditing/request-headers/x-seen";

impl Command {
    /// What must be there for it.
    async fn prepare(self, server: &Server) {
        let push = async |name: &str| server.root(&format!("sys/modules/{name}"), json!({ "module": "AAEC" })).await;
        match self {
            Self::PolicyPatch | Self::PolicyOff => server.policy("app", "db/*: read").await,
            Self::ModuleOff | Self::Binding => drop(push("probe").await.unwrap()),
            Self::BindingOff => {
                push("probe").await.unwrap();
                Self::Binding.give(server).await.unwrap();
            }
            Self::HeaderOff => drop(Self::Header.give(server).await.unwrap()),
            _ => {}
        }
    }

    async fn give(self, server: &Server) -> Answer {
        let delete = |path| server.call(Some(ROOT), Operation::Delete, path, Value::Null);
        match self {
            Self::Rotate => server.root("sys/rotate", json!({})).await,
            Self::Enable => server.root("sys/mounts/more", json!({ "type": "scripted" })).await,
            Self::Disable => delete("sys/mounts/db").await,
            Self::Tune => server.root("sys/mounts/db/tune", json!({ "description": "tuned" })).await,
            Self::Audit => server.root("sys/audit/second", json!({ "type": "second" })).await,
            Self::AuditOff => delete("sys/audit/first").await,
            Self::Policy => server.root("sys/policies/acl/app", json!({ "policy": "db/*: read" })).await,
            Self::PolicyPatch => {
                let change = json!({ "policy": "db/other: read" });
                server.call(Some(ROOT), Operation::Patch, "sys/policies/acl/app", change).await
            }
            Self::PolicyOff => delete("sys/policies/acl/app").await,
            Self::Module => server.root("sys/modules/probe", json!({ "module": "AAEC" })).await,
            Self::ModuleOff => delete("sys/modules/probe").await,
            Self::Binding => {
                let binding = json!({ "module": "probe", "paths": "else/*", "enforcement_level": "advisory" });
                server.root(BINDING, binding).await
            }
            Self::BindingOff => delete(BINDING).await,
            Self::Header => server.root(HEADER, json!({ "hmac": true })).await,
            Self::HeaderOff => delete(HEADER).await,
            Self::Config => server.root("db/things/a", json!({ "color": "red" })).await,
        }
    }

    /// Whether it is in force, as a client sees it.
    async fn is_done(self, server: &Server) -> bool {
        let has = async |path: &str, name: &str| {
            server.read(ROOT, path).await.unwrap().data.unwrap_or_default().contains_key(name)
        };
        match self {
            Self::Rotate => server.read(ROOT, "sys/key-status").await.unwrap().data.unwrap()["term"] != 1,
            Self::Enable => has("sys/mounts", "more/").await,
            Self::Disable => !has("sys/mounts", "db/").await,
            Self::Tune => {
                let mounts = server.read(ROOT, "sys/mounts").await.unwrap().data.unwrap();
                mounts["db/"]["description"] == "tuned"
            }
            Self::Audit => has("sys/audit", "second/").await,
            Self::AuditOff => !has("sys/audit", "first/").await,
            Self::Policy => server.read(ROOT, "sys/policies/acl/app").await.is_ok(),
            Self::PolicyPatch => {
                let shown = server.read(ROOT, "sys/policies/acl/app").await.unwrap().data.unwrap();
                shown["policy"] == "db/other: read"
            }
            Self::PolicyOff => server.read(ROOT, "sys/policies/acl/app").await.is_err(),
            Self::Module => server.read(ROOT, "sys/modules/probe").await.is_ok(),
            Self::ModuleOff => server.read(ROOT, "sys/modules/probe").await.is_err(),
            Self::Binding => server.read(ROOT, BINDING).await.is_ok(),
            Self::BindingOff => server.read(ROOT, BINDING).await.is_err(),
            Self::Header => server.read(ROOT, HEADER).await.is_ok(),
            Self::HeaderOff => server.read(ROOT, HEADER).await.is_err(),
            Self::Config => server.read(ROOT, "db/things/a").await.is_ok(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_command_can_be_repeated_whatever_goes_wrong() {
    for command in COMMANDS {
        for fault in FAULTS {
            let mut write = 0;
            loop {
                let context = format!("{command:?}, {fault:?} at write {write}");
                let server = Server::start().await;
                server.audited().await;
                server.read(ROOT, "db/creds/app").await.unwrap();
                command.prepare(&server).await;
                server.process.fault_at(write, fault);
                let told = command.give(&server).await;
                let fired = !server.process.is_armed();
                server.process.disarm();
                let died = server.process.is_dead();

                // Given again, by whoever saw it fail, it is done.
                if told.is_err() && !died {
                    command.give(&server).await.unwrap_or_else(|error| panic!("{context}, again: {error}"));
                }
                if !died {
                    assert!(command.is_done(&server).await, "{context}");
                }
                let next = server.again();
                next.unseal().await;
                pass(120).await;
                if told.is_ok() || !died {
                    assert!(command.is_done(&next).await, "{context}, after a restart");
                } else {
                    // It may have happened, and nobody was told.
                    if !command.is_done(&next).await {
                        command.give(&next).await.unwrap_or_else(|error| panic!("{context}, after a restart: {error}"));
                    }
                    assert!(command.is_done(&next).await, "{context}, after a restart and again");
                }
                // Each path is there once, and what was there before can be read.
                assert!(next.read(ROOT, "sys/policies/acl/default").await.is_ok(), "{context}");
                assert!(next.core.unsealed().unwrap().mounts.all().len() <= 6, "{context}: a mount is there twice");
                if command == Command::Disable {
                    assert!(next.target.roles().is_empty(), "{context}: a role outlives its mount");
                }
                if !fired {
                    break;
                }
                write += 1;
            }
            assert!(write > 0, "{command:?} never writes");
        }
    }
}

/// Also right after a failure, before anybody has asked again: a commit that was said to have failed and happened is in force in
/// memory as it is in the store.
#[tokio::test(start_paused = true)]
async fn memory_shows_what_is_stored_after_a_write_that_failed() {
    // Ending the leases of a mount takes several writes, and the next commit finds out that the key ring was rotated.
    let others = [Command::Disable, Command::Rotate];
    for command in COMMANDS.into_iter().filter(|command| !others.contains(command)) {
        for fault in [Fault::Fails, Fault::LiesFailure] {
            for write in 0..8 {
                let server = Server::start().await;
                command.prepare(&server).await;
                if command == Command::AuditOff {
                    server.audited().await;
                }
                server.process.fault_at(write, fault);
                let told = command.give(&server).await;
                let fired = !server.process.is_armed();
                server.process.disarm();
                let in_memory = command.is_done(&server).await;
                let next = server.again();
                next.unseal().await;
                let context = format!("{command:?}, {fault:?} at write {write}: {told:?}");
                assert_eq!(command.is_done(&next).await, in_memory, "{context}");
                assert!(in_memory || told.is_err(), "{context}");
                if !fired {
                    break;
                }
            }
        }
    }
}

fn from(address: &str, data: Value) -> leasehold_core::request::LogicalRequest {
    let mut request = request(None, Operation::Update, "sys/unseal", data);
    let peer = SocketAddr::new(address.parse::<IpAddr>().unwrap(), 40_000);
    request.client = Some(ConnectionInfo::of_peer(peer));
    request
}

#[tokio::test(start_paused = true)]
async fn nobody_else_keeps_a_server_from_being_unsealed() {
    let server = Server::empty(Vec::new());
    let made = server.core.init(5, 3, First::Root).await.unwrap();
    let unseal = async |address: &str, data: Value| server.core.handle(from(address, data)).await;
    let annoy = async |progress: u8| {
        for n in 0..20_u8 {
            let garbage = json!({ "key": hex(&[n; 33]) });
            assert!(refusal(unseal("203.0.113.9", garbage).await).contains("message authentication failed"));
        }
        let reset = unseal("203.0.113.9", json!({ "reset": true })).await;
        assert_eq!(reset.is_ok(), progress == 0, "{reset:?}");
        assert_eq!(server.core.seal_status().await.unwrap().progress, progress);
    };
    annoy(0).await;
    for (given, (share, address)) in made.shares[1..].iter().zip(["10.0.0.1", "10.0.0.2"]).enumerate() {
        unseal(address, json!({ "key": hex(&share.0) })).await.unwrap();
        annoy(u8::try_from(given + 1).unwrap()).await;
    }
    // Whoever has given one may begin anew.
    let reset = unseal("10.0.0.2", json!({ "reset": true })).await.unwrap();
    assert_eq!(reset.data.unwrap()["progress"], 0);
    for share in &made.shares[2..] {
        annoy(server.core.seal_status().await.unwrap().progress).await;
        unseal("10.0.0.1", json!({ "key": hex(&share.0) })).await.unwrap();
    }
    assert!(!server.core.seal_status().await.unwrap().sealed);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_after_a_tokens_last_use_leaves_nothing_of_it() {
    let server = Server::start().await;
    server.policy("app", "db/*: read\nauth/token/create: update\nauth/token/lookup-self: read").await;
    let token = server.token(json!({ "policies": ["app"], "num_uses": 2, "ttl": "700h" })).await;
    // Its first use gets a lease.
    server.read(&token, "db/creds/app").await.unwrap();
    assert_eq!(server.target.roles().len(), 1);
    server.process.fault_at(0, Fault::CrashAfter);
    assert!(server.read(&token, "auth/token/lookup-self").await.is_err());
    assert!(server.process.is_dead());

    let next = server.again();
    next.unseal().await;
    pass(5).await;
    assert!(matches!(next.read(&token, "auth/token/lookup-self").await, Err(RequestError::BadToken)));
    pass(90).await;
    assert!(!next.lives(&token).await && next.target.roles().is_empty());
    assert_eq!(next.rows().await.len(), 1, "only root's row is left");
}

#[tokio::test(start_paused = true)]
async fn a_token_with_uses_left_does_not_fall_due_early() {
    let server = Server::start().await;
    server.policy("app", "db/*: read").await;
    let token = server.token(json!({ "policies": ["app"], "num_uses": 3, "ttl": "700h" })).await;
    server.read(&token, "db/creds/app").await.unwrap();
    server.read(&token, "db/static").await.unwrap();
    pass(300).await;
    assert!(server.lives(&token).await);
    assert_eq!(server.target.roles().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_children_become_orphans_or_end_in_portions() {
    for (route, lives) in [("auth/token/revoke-orphan", true), ("auth/token/revoke", false)] {
        let server = Server::start().await;
        let parent = server.token(json!({ "policies": ["root"], "ttl": "1h" })).await;
        let mut children = Vec::new();
        for _ in 0..450 {
            let made =
                server.update(&parent, "auth/token/create", json!({ "ttl": "30m", "policies": ["default"] })).await;
            children.push(token_of(&made.unwrap()));
        }
        server.root(route, json!({ "token": parent })).await.unwrap();
        assert!(!server.lives(&parent).await);
        for child in &children {
            let found = server.lookup(child).await;
            assert_eq!(found.is_ok(), lives, "{route}");
            if let Ok(found) = found {
                assert_eq!(found["orphan"], true);
            }
        }
        let largest = server.process.largest_batch();
        assert!(largest <= 401, "{route}: a batch of {largest} changes");
    }
}

/// What a lease's row says of its end, while it is there.
async fn cause_of(server: &Server, lease: &str) -> String {
    let found = server.root("sys/leases/lookup", json!({ "lease_id": lease })).await.unwrap().data.unwrap();
    found.get("revoke_cause").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_go_says_why_it_should() {
    let server = Server::start().await;
    *server.target.refuses.lock().unwrap() = Some("revoke");
    let accessor = server.lookup(ROOT).await.unwrap()["accessor"].as_str().unwrap().to_owned();
    let by_root = format!("by the token with accessor {accessor}");
    let issue = async |token: &str| {
        let answer = server.read(token, "db/creds/app").await.unwrap();
        super::support::server::lease_of(&answer).as_str().to_owned()
    };
    server.policy("app", "db/*: read\nauth/token/create: update").await;

    let lease = issue(ROOT).await;
    assert_eq!(cause_of(&server, &lease).await, "");
    assert!(server.root("sys/leases/revoke", json!({ "lease_id": lease })).await.is_err());
    assert_eq!(cause_of(&server, &lease).await, format!("it was revoked {by_root}"));
    // The first cause stays.
    let token = server.token(json!({ "policies": ["app"], "ttl": "1h" })).await;
    let lease = issue(&token).await;
    let found = server.lookup(&token).await.unwrap();
    server.root("auth/token/revoke", json!({ "token": token })).await.unwrap();
    assert!(server.root("sys/leases/revoke", json!({ "lease_id": lease })).await.is_err());
    let named = found["accessor"].as_str().unwrap();
    assert_eq!(cause_of(&server, &lease).await, format!("its token, accessor {named}, ended"));

    *server.engine.ttls.lock().unwrap() = (leasehold_model::Ttl::from_secs(30), leasehold_model::Ttl::from_secs(30));
    let lease = issue(ROOT).await;
    pass(40).await;
    assert_eq!(cause_of(&server, &lease).await, "it expired");
    *server.engine.ttls.lock().unwrap() =
        (leasehold_model::Ttl::from_secs(3_600), leasehold_model::Ttl::from_secs(3_600));

    let lease = issue(ROOT).await;
    assert!(server.call(Some(ROOT), Operation::Delete, "sys/mounts/db", Value::Null).await.is_err());
    assert_eq!(cause_of(&server, &lease).await, format!("`db/` was disabled {by_root}"));
}

#[tokio::test(start_paused = true)]
async fn metrics_of_leases_mean_what_they_say() {
    let measured = super::support::meter::Measured::begin();
    let server = Server::start().await;
    let issue = async || super::support::server::lease_of(&server.read(ROOT, "db/creds/app").await.unwrap());
    // Revoked early, and it takes its time: that is the lag, however long the lease would have lived.
    let lease = issue().await;
    *server.engine.takes.lock().unwrap() = std::time::Duration::from_secs(7);
    server.root("sys/leases/revoke", json!({ "lease_id": lease.as_str() })).await.unwrap();
    let lags = measured.histogram("leasehold_revocation_lag_seconds");
    assert!(matches!(lags.as_slice(), [lag] if (6.9..8.0).contains(lag)), "{lags:?}");
    // Asked for, refused at first and tried again: since it was asked for.
    *server.engine.takes.lock().unwrap() = std::time::Duration::ZERO;
    let lease = issue().await;
    *server.target.refuses.lock().unwrap() = Some("revoke");
    assert!(server.root("sys/leases/revoke", json!({ "lease_id": lease.as_str() })).await.is_err());
    pass(5).await;
    *server.target.refuses.lock().unwrap() = None;
    pass(60).await;
    let lags = measured.histogram("leasehold_revocation_lag_seconds");
    assert!(lags.len() == 2 && (9.0..20.0).contains(&lags[1]), "{lags:?}");
    assert_eq!(measured.counter("leasehold_revocation_failures_total"), 1);
    assert_eq!(measured.counter("leasehold_leases_revoked_total"), 2);
    assert_eq!(measured.counter("leasehold_leases_issued_total"), 2);
    // Expired, and revoked at once.
    *server.engine.ttls.lock().unwrap() = (leasehold_model::Ttl::from_secs(30), leasehold_model::Ttl::from_secs(30));
    issue().await;
    pass(40).await;
    let lags = measured.histogram("leasehold_revocation_lag_seconds");
    assert!(lags.len() == 3 && lags[2] < 2.0, "{lags:?}");

    // A scrape opens no row: what it shows was counted before, also what another process left behind.
    issue().await;
    *server.target.refuses.lock().unwrap() = Some("revoke");
    pass(3_600).await;
    let server = server.again();
    server.unseal().await;
    pass(1).await;
    *server.process.lists.lock().unwrap() = 0;
    server.read(ROOT, "sys/metrics").await.unwrap();
    assert_eq!(*server.process.lists.lock().unwrap(), 0, "a scrape lists leases");
    assert_eq!(measured.gauge("vault.expire.num_irrevocable_leases"), 1.0);
    assert_eq!(measured.gauge("vault.expire.num_leases"), 2.0);
    assert_eq!(measured.gauge("vault.token.count"), 1.0);
    server.root("sys/leases/revoke-force/db", json!({})).await.unwrap();
    server.read(ROOT, "sys/metrics").await.unwrap();
    assert_eq!(measured.gauge("vault.expire.num_irrevocable_leases"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn metrics_of_audit_mean_what_they_say() {
    let measured = super::support::meter::Measured::begin();
    let server = Server::start().await;
    server.audited().await;
    let before = measured.counter("vault.audit.log_request");
    server.read(ROOT, "db/static").await.unwrap();
    assert_eq!(measured.counter("vault.audit.log_request"), before + 1);
    assert_eq!(measured.counter("leasehold_audit_failures_total"), 0);
    *server.audit.first.refuses.lock().unwrap() = Some("type");
    assert!(server.read(ROOT, "db/static").await.is_err());
    assert_eq!(measured.counter("vault.audit.log_request_failure"), 1);
    assert_eq!(measured.counter("leasehold_audit_failures_total"), 1);
    *server.audit.first.refuses.lock().unwrap() = None;
    assert_eq!(measured.gauge("leasehold_audit_device_stalled"), 0.0);
    server.audit.first.block();
    assert!(server.read(ROOT, "db/static").await.is_err());
    assert_eq!(measured.gauge("leasehold_audit_device_stalled"), 1.0);
    server.audit.first.unblock();
    assert_eq!(measured.gauge("leasehold_audit_device_stalled"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn every_request_is_timed_whatever_comes_of_it() {
    let measured = super::support::meter::Measured::begin();
    let server = Server::start().await;
    *server.engine.takes.lock().unwrap() = std::time::Duration::from_secs(2);
    let before = measured.histogram("vault.core.handle_request").len();
    server.read(ROOT, "db/creds/app").await.unwrap();
    assert!(server.read(ROOT, "db/boom").await.is_err());
    assert!(server.read("s.unknown", "db/static").await.is_err());
    let timed = measured.histogram("vault.core.handle_request")[before..].to_vec();
    assert!(timed.len() == 3 && (2_000.0..2_100.0).contains(&timed[0]), "milliseconds: {timed:?}");
    assert!(timed[1..].iter().all(|took| *took < 100.0), "{timed:?}");
}

#[tokio::test(start_paused = true)]
async fn metrics_say_whether_the_server_is_open_and_what_it_made() {
    let measured = super::support::meter::Measured::begin();
    let server = Server::start().await;
    for name in ["vault.core.unsealed", "vault.core.active"] {
        assert_eq!(measured.gauge(name), 1.0, "{name}");
    }
    server.read(ROOT, "db/creds/app").await.unwrap();
    server.token(json!({ "ttl": "1h" })).await;
    server.token(json!({ "ttl": "1h", "type": "batch", "policies": ["a"] })).await;
    server.read(ROOT, "sys/metrics").await.unwrap();
    assert_eq!(measured.counter("vault.secret.lease.creation"), 1);
    assert_eq!(measured.counter("vault.token.creation"), 2);
    assert_eq!(measured.gauge("vault.token.count"), 2.0, "the batch token is stored nowhere");
    server.core.seal().await;
    for name in ["vault.core.unsealed", "vault.core.active"] {
        assert_eq!(measured.gauge(name), 0.0, "{name}");
    }
}

/// Keys are in memory a moment before anything can be served: until then clients are told to wait.
#[tokio::test(start_paused = true)]
async fn a_server_counts_as_sealed_until_all_is_loaded() {
    let server = Server::sealed().await;
    assert!(server.core.seal_status().await.unwrap().sealed);
    let opened = server.barrier.unseal(&server.share).await.unwrap();
    assert!(!opened.sealed && server.core.seal_status().await.unwrap().sealed);
    assert!(matches!(server.read(ROOT, "sys/mounts").await, Err(RequestError::Sealed)));
}

#[tokio::test(start_paused = true)]
async fn metrics_come_in_the_form_that_was_asked_for_and_say_that_the_server_is_sealed() {
    let server = Server::start().await;
    let text = "text/plain; version=0.0.4; charset=utf-8";
    for (format, accept, kind) in [
        (None, None, "application/json"),
        (None, Some("*/*"), "application/json"),
        (None, Some("application/openmetrics-text; version=1.0.0"), text),
        (None, Some("application/vnd.prometheus/telemetry"), text),
        (Some(""), None, "application/json"),
        (Some("prometheus"), None, text),
        (Some("prometheus"), Some("*/*"), text),
        (Some("xml"), None, "text/plain"),
    ] {
        let fields = format.map_or(Value::Null, |format| json!({ "format": format }));
        let mut asked = request(Some(ROOT), Operation::Read, "sys/metrics", fields);
        asked.headers.extend(accept.map(|accept| ("accept".to_owned(), vec![accept.to_owned()])));
        let open = server.core.metrics(&asked).await;
        let answer = server.core.handle(asked).await.unwrap();
        for answer in [open, answer] {
            let (body, shown) = answer.raw.unwrap();
            assert_eq!(shown, kind, "{format:?} {accept:?}");
            assert_eq!(answer.status, (format == Some("xml")).then_some(400));
            assert_eq!(body.contains("vault_core_unsealed 0"), kind == text, "nothing has been counted here: {body}");
        }
    }
}
