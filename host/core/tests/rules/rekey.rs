//! New key shares in place of the present ones: one commit, verified where that is asked for, followed by the other servers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::keys;
use leasehold_core::seams::seal::Seal as _;
use leasehold_core::seams::storage::Storage as _;
use leasehold_core::token::create::First;
use leasehold_model::{Operation, TokenId, Ttl};
use serde_json::{Value, json};

use super::quorum::{bytes, data, hex, initialised, open, server, wrong};
use super::support::faults::{FAULTS, Fault};
use super::support::pass;
use super::support::server::{Answer, ROOT, Seals, Server, refusal, request};
use super::support::wrapper::ScriptedWrapper;

/// `root` or `recovery`, whose attempt a test is about.
pub(super) struct Rotation<'a> {
    server: &'a Server,
    target: &'static str,
}

impl<'a> Rotation<'a> {
    pub(super) fn of_root(server: &'a Server) -> Self {
        Self { server, target: "root" }
    }

    pub(super) fn of_recovery(server: &'a Server) -> Self {
        Self { server, target: "recovery" }
    }

    fn path(&self, step: &str) -> String {
        format!("sys/rotate/{}/{step}", self.target)
    }

    /// Its nonce.
    pub(super) async fn begin(&self, shares: u8, threshold: u8, verify: bool) -> String {
        let wish = json!({ "secret_shares": shares, "secret_threshold": threshold, "require_verification": verify });
        data(self.server.root(&self.path("init"), wish).await)["nonce"].as_str().unwrap().to_owned()
    }

    pub(super) async fn step(&self, step: &str, share: &str, nonce: &str) -> Answer {
        self.server.root(&self.path(step), json!({ "key": share, "nonce": nonce })).await
    }

    /// The new shares, and the nonce of their verification.
    pub(super) async fn deal(&self, shares: &[String], nonce: &str) -> (Vec<String>, String) {
        data(self.step("update", &shares[0], nonce).await);
        dealt(self.step("update", &shares[1], nonce).await)
    }

    pub(super) async fn read(&self, step: &str) -> serde_json::Map<String, Value> {
        data(self.server.read(ROOT, &self.path(step)).await)
    }

    pub(super) async fn delete(&self, step: &str) -> Answer {
        self.server.call(Some(ROOT), Operation::Delete, &self.path(step), Value::Null).await
    }
}

fn dealt(answer: Answer) -> (Vec<String>, String) {
    let data = data(answer);
    assert_eq!(data["complete"], true);
    let shares: Vec<String> = serde_json::from_value(data["keys"].clone()).unwrap();
    (shares, data["verification_nonce"].as_str().unwrap().to_owned())
}

/// Whether the first two of these open a server over this store.
pub(super) async fn opens(server: &Server, shares: &[String]) -> bool {
    let next = server.again();
    for share in &shares[..2.min(shares.len())] {
        if next.core.unseal(&bytes(share)).await.is_err() {
            return false;
        }
    }
    let is_open = !next.core.seal_status().await.unwrap().sealed;
    assert!(!is_open || next.read(ROOT, "auth/token/lookup-self").await.is_ok());
    is_open
}

#[tokio::test(start_paused = true)]
async fn new_shares_open_the_server_and_the_old_ones_do_not() {
    let (server, old) = server().await;
    let before = server.process.store.get(&keys::seal()).await.unwrap().unwrap();
    let rotation = Rotation::of_root(&server);
    assert_eq!(rotation.read("init").await["started"], false);
    let nonce = rotation.begin(5, 2, false).await;
    let status = rotation.read("init").await;
    assert_eq!((&status["n"], &status["t"], &status["required"]), (&json!(5), &json!(2), &json!(2)));
    let (new, verification) = rotation.deal(&old, &nonce).await;
    assert_eq!((new.len(), verification.as_str()), (5, ""));
    assert!(server.lives(ROOT).await, "the server goes on");
    assert!(server.root("sys/policies/acl/p", json!({ "policy": "db/x: read" })).await.is_ok());
    let status = server.core.seal_status().await.unwrap();
    assert_eq!((status.shares, status.threshold), (5, 2));
    assert!(opens(&server, &new[3..]).await && !opens(&server, &old).await);
    // Nor do they with the configuration of the seal that was theirs.
    let batch = leasehold_core::seams::storage::Batch::new();
    let batch = batch.put(keys::seal(), before.value, leasehold_core::seams::storage::Expect::Present);
    server.process.store.commit(batch).await.unwrap();
    assert!(!opens(&server, &old).await);
}

#[tokio::test(start_paused = true)]
async fn shares_that_are_to_be_verified_count_only_then() {
    let (server, old) = server().await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, true).await;
    let early = refusal(rotation.step("verify", &old[0], &nonce).await);
    assert!(early.ends_with("no rotation verification in progress"), "{early}");
    let (new, first) = rotation.deal(&old, &nonce).await;
    let again = refusal(rotation.step("update", &old[0], &nonce).await);
    assert!(again.contains("rotation already finished; verification must be performed; nonce"), "{again}");
    data(rotation.step("verify", &new[0], &first).await);
    let twice = refusal(rotation.step("verify", &new[0], &first).await);
    assert!(twice.ends_with("given key has already been provided during this verify operation"), "{twice}");
    for wrong in [wrong(), old[0].clone()] {
        let nonce = rotation.read("verify").await["nonce"].as_str().unwrap().to_owned();
        let said = refusal(rotation.step("verify", &wrong, &nonce).await);
        assert!(said.ends_with("rotation verification failed; incorrect key shares supplied"), "{said}");
    }
    let status = rotation.read("verify").await;
    let second = status["nonce"].as_str().unwrap();
    assert!(status["progress"] == 0 && second != first);
    let stale = refusal(rotation.step("verify", &new[0], &first).await);
    assert!(stale.contains("incorrect nonce supplied; nonce for this verify operation is"), "{stale}");
    data(rotation.step("verify", &new[1], second).await);
    let third = data(rotation.delete("verify").await)["nonce"].as_str().unwrap().to_owned();
    assert!(opens(&server, &old).await && !opens(&server, &new).await, "not verified yet");

    // Any server goes on, and a restart loses nothing.
    let next = server.again();
    open(&next, &old).await;
    let rotation = Rotation::of_root(&next);
    data(rotation.step("verify", &new[2], &third).await);
    let done = data(rotation.step("verify", &new[0], &third).await);
    assert_eq!((&done["complete"], &done["nonce"]), (&json!(true), &json!(third)));
    assert!(opens(&next, &new).await && !opens(&next, &old).await);
    assert!(refusal(next.again().read(ROOT, "sys/rotate/root/verify").await).contains("sealed"));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_is_cancelled_leaves_the_shares_as_they_are() {
    let (server, old) = server().await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, true).await;
    let (new, verification) = rotation.deal(&old, &nonce).await;
    rotation.delete("init").await.unwrap();
    assert_eq!(rotation.read("init").await["started"], false);
    let late = refusal(rotation.step("verify", &new[0], &verification).await);
    assert!(late.ends_with("no rotation in progress"), "{late}");
    let gone = refusal(server.read(ROOT, "sys/rotate/root/verify").await);
    assert!(gone.ends_with("no rotation configuration found"), "{gone}");
    assert!(opens(&server, &old).await && !opens(&server, &new).await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_before_it_begins() {
    let (server, old) = server().await;
    for (wish, why) in [
        (json!({}), "Invalid: invalid rotate seal configuration: shares must be at least one"),
        (
            json!({ "secret_shares": 3, "secret_threshold": 5 }),
            "Invalid: invalid rotate seal configuration: threshold cannot be larger than shares",
        ),
        (json!({ "secret_shares": 1, "secret_threshold": 1, "backup": true }), "Invalid: cannot request a backup"),
        (
            json!({ "secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["x"] }),
            "Invalid: encrypting key shares with PGP keys is not supported",
        ),
    ] {
        let said = refusal(server.root("sys/rotate/root/init", wish).await);
        assert!(said.starts_with(why), "{said}");
    }
    let recovery = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let said = refusal(server.root("sys/rotate/recovery/init", recovery).await);
    assert_eq!(said, "Invalid: recovery keys not supported");
    assert!(refusal(server.root("sys/rotate/root", json!({})).await).contains("sys/rotate/root/init"));
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(1, 1, false).await;
    let again = json!({ "secret_shares": 1, "secret_threshold": 1 });
    assert_eq!(refusal(server.root("sys/rotate/root/init", again).await), "Invalid: rotation already in progress");
    data(rotation.step("update", &old[0], &nonce).await);
    let said = refusal(rotation.step("update", &wrong(), &nonce).await);
    assert!(said.ends_with("cipher: message authentication failed"), "{said}");
    assert_eq!(rotation.read("init").await["progress"], 0);
    let (new, _) = rotation.deal(&old[1..], &nonce).await;
    assert!(new.len() == 1 && opens(&server, &new).await);
}

/// Whatever fails at whichever write, the old shares open the server or the new ones do, and never none.
#[tokio::test(start_paused = true)]
async fn the_old_shares_or_the_new_ones_open_the_server_whatever_goes_wrong() {
    for fault in FAULTS {
        for verify in [false, true] {
            for write in 0..8 {
                let (server, old) = server().await;
                let rotation = Rotation::of_root(&server);
                let nonce = rotation.begin(3, 2, verify).await;
                data(rotation.step("update", &old[0], &nonce).await);
                let mut new = Vec::new();
                let mut last = (old[1].clone(), nonce, "update");
                if verify {
                    let (shares, nonce) = dealt(rotation.step("update", &old[1], &last.1).await);
                    data(rotation.step("verify", &shares[0], &nonce).await);
                    last = (shares[1].clone(), nonce, "verify");
                    new = shares;
                }
                server.process.fault_at(write, fault);
                let asked = rotation.step(last.2, &last.0, &last.1);
                let told = tokio::time::timeout(Duration::from_secs(60), asked).await;
                let fired = !server.process.is_armed();
                server.process.disarm();
                let context = format!("{fault:?} at write {write}, verify: {verify}, told: {:?}", told.is_ok());
                let is_told = matches!(&told, Ok(Ok(_)));
                // The store did not say whether it has happened.
                let is_done = matches!(&told, Ok(Ok(answer)) if answer.warnings.is_empty());
                if let (Ok(Ok(answer)), false) = (told, verify) {
                    new = serde_json::from_value(answer.data.unwrap()["keys"].clone()).unwrap();
                }
                let by_old = opens(&server, &old).await;
                let by_new = !new.is_empty() && opens(&server, &new).await;
                assert!(!is_done || by_new && !by_old, "{context}: said to be done");
                assert!(fault != Fault::LiesFailure || is_done, "{context}: what has happened is told");
                // Shares that nobody has seen may be the ones that count: that is what verification is for.
                assert!(by_old != by_new || !verify && !is_told, "{context}: old {by_old}, new {by_new}");
                if !fired {
                    assert!(is_done, "{context}");
                    break;
                }
            }
        }
    }
}

/// The store takes new keys and is away before it says so: whoever asked for them gets them, and is told to keep both.
#[tokio::test(start_paused = true)]
async fn shares_that_may_count_are_handed_out() {
    let mut uncertain = 0;
    for write in 0..6 {
        let (server, old) = server().await;
        let rotation = Rotation::of_root(&server);
        let nonce = rotation.begin(3, 2, false).await;
        data(rotation.step("update", &old[0], &nonce).await);
        server.process.leaves.store(true, Ordering::SeqCst);
        server.process.fault_at(write, Fault::LiesFailure);
        let told = tokio::time::timeout(Duration::from_secs(300), rotation.step("update", &old[1], &nonce)).await;
        server.process.is_cut.store(false, Ordering::SeqCst);
        server.process.disarm();
        let Ok(Ok(answer)) = told else {
            assert!(opens(&server, &old).await, "nobody has the new ones, at write {write}");
            continue;
        };
        let new: Vec<String> = serde_json::from_value(answer.data.unwrap()["keys"].clone()).unwrap();
        assert_ne!(opens(&server, &old).await, opens(&server, &new).await, "at write {write}");
        uncertain += usize::from(answer.warnings.iter().any(|said| said.contains("keep them AND the old ones")));
    }
    assert!(uncertain > 0);
}

/// What leaves with one answer is not put where it may be lost.
#[tokio::test(start_paused = true)]
async fn new_shares_are_asked_for_by_who_can_be_answered() {
    let (server, old) = server().await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, false).await;
    data(rotation.step("update", &old[0], &nonce).await);
    let last = json!({ "key": old[1], "nonce": nonce });
    let mut wrapped = request(Some(ROOT), Operation::Update, &rotation.path("update"), last.clone());
    wrapped.wrap_ttl = Some(Ttl::from_secs(60));
    assert_eq!(
        refusal(server.core.handle(wrapped).await),
        "Invalid: new key shares are not wrapped: ask for them without a wrap TTL"
    );
    let counted = server.token(json!({ "num_uses": 1 })).await;
    assert_eq!(
        refusal(server.update(&counted, &rotation.path("update"), last.clone()).await),
        "Invalid: new key shares are not handed to a token whose uses are counted"
    );
    assert_eq!(rotation.read("init").await["progress"], 1);
    let (new, _) = dealt(server.root(&rotation.path("update"), last).await);
    assert!(opens(&server, &new).await);
}

/// Where nobody has a recovery share, nobody's is asked for: then it takes `sudo`.
#[tokio::test(start_paused = true)]
async fn first_recovery_shares_take_sudo() {
    let (server, shares, _) = with_seal(0, 0).await;
    assert!(shares.is_empty());
    let wish = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let paths = ["sys/rotate/recovery/init", "sys/rekey-recovery-key/init"];
    let plain = server.token_with(&paths.map(|path| format!("{path}: update")).join("\n")).await;
    for path in paths {
        let refused = refusal(server.update(&plain, path, wish.clone()).await);
        assert!(refused.contains("this takes a token with sudo on the path"), "{path}: {refused}");
        // Nor does whoever is let in without a token get one.
        let mut nobody = request(None, Operation::Update, path, wish.clone());
        nobody.is_let_in = true;
        assert!(server.core.handle(nobody).await.is_err(), "{path}");
    }
    let able = server.token_with(&paths.map(|path| format!("{path}: update, sudo")).join("\n")).await;
    let (first, _) = dealt(server.update(&able, paths[0], wish).await);
    assert_eq!(first.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_other_servers_follow_to_the_new_keys() {
    let one = Server::start_shared().await;
    let other = one.beside().await;
    let late = one.beside().await;
    let mut share = hex(&one.share);
    for round in 0..3 {
        let rotation = Rotation::of_root(&one);
        let nonce = rotation.begin(1, 1, false).await;
        let (new, _) = dealt(rotation.step("update", &share, &nonce).await);
        assert_eq!(new.len(), 1);
        share.clone_from(&new[0]);
        for server in [&other, &late, &one] {
            let policy = json!({ "policy": format!("db/{round}: read") });
            server.root("sys/policies/acl/p", policy).await.unwrap();
            assert!(server.lives(ROOT).await);
            server.root("sys/rotate", json!({})).await.unwrap();
        }
        let status = other.core.seal_status().await.unwrap();
        assert!(!status.sealed && status.shares == 1);
    }
    // Every server knows what every other one has written, and a further one opens with the last share.
    let mut next = other.another(Seals::default());
    next.share = bytes(&share);
    next.unseal().await;
    assert!(next.lives(ROOT).await);
    let mut stale = other.another(Seals::default());
    stale.share.clone_from(&one.share);
    assert!(stale.core.unseal(&stale.share).await.is_err());
}

fn seal(kind: &'static str) -> Seals {
    Seals { current: Some(Arc::new(ScriptedWrapper::new(kind))), disabled: None }
}

/// With a seal, opened by it.
async fn with_seal(shares: u8, threshold: u8) -> (Server, Vec<String>, Seals) {
    let seals = seal("static");
    let server = Server::empty_with(seals.clone());
    let first = First::Development(Some(TokenId::new(ROOT)));
    let made = server.core.init(shares, threshold, first).await.unwrap();
    opened_by_seal(&server).await;
    (server, made.shares.iter().map(|share| hex(&share.0)).collect(), seals)
}

async fn opened_by_seal(server: &Server) {
    let core = server.core.clone();
    let keeping = tokio::spawn(async move { core.keep_unsealed().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    keeping.abort();
    assert!(!server.core.seal_status().await.unwrap().sealed);
}

#[tokio::test(start_paused = true)]
async fn recovery_shares_are_replaced_without_the_root_key() {
    let (server, old, _) = with_seal(3, 2).await;
    let rotation = Rotation::of_recovery(&server);
    let nonce = rotation.begin(2, 2, true).await;
    let (new, nonce) = rotation.deal(&old, &nonce).await;
    data(rotation.step("verify", &new[0], &nonce).await);
    assert_eq!(data(rotation.step("verify", &new[1], &nonce).await)["complete"], true);
    // Sealed by hand, shares open it.
    server.root("sys/seal", json!({})).await.unwrap();
    for share in &old[..2] {
        assert!(server.core.unseal(&bytes(share)).await.is_err());
    }
    open(&server, &new).await;
    let next = server.again();
    opened_by_seal(&next).await;
}

/// What another server shows of the shares follows, though nothing of the root key has changed.
#[tokio::test(start_paused = true)]
async fn the_other_servers_hear_of_new_recovery_shares() {
    let (server, old, seals) = with_seal(3, 2).await;
    let other = server.another(seals);
    opened_by_seal(&other).await;
    let rotation = Rotation::of_recovery(&server);
    let nonce = rotation.begin(7, 5, false).await;
    rotation.deal(&old, &nonce).await;
    let status = other.core.seal_status().await.unwrap();
    assert_eq!((status.shares, status.threshold), (7, 5));
}

#[tokio::test(start_paused = true)]
async fn recovery_shares_are_made_at_once_where_there_are_none() {
    let (server, none, _) = with_seal(0, 0).await;
    assert!(none.is_empty());
    let root = json!({ "otp": "0123456789ABCDEFGHIJKLMNOP" });
    assert!(refusal(server.root("sys/generate-root-token/attempt", root).await).contains("there are no recovery keys"));
    let wish = json!({ "secret_shares": 3, "secret_threshold": 2 });
    assert!(refusal(server.root("sys/rotate/root/init", json!({})).await).contains("there are no recovery keys"));
    let (new, _) = dealt(server.root("sys/rotate/recovery/init", wish).await);
    assert_eq!(new.len(), 3);
    assert_eq!(data(server.read(ROOT, "sys/rotate/recovery/init").await)["required"], 2);
    server.root("sys/seal", json!({})).await.unwrap();
    open(&server, &new[1..]).await;
}

#[tokio::test(start_paused = true)]
async fn the_root_key_under_a_seal_is_replaced_by_recovery_shares_or_by_whoever_may() {
    let (server, shares, _) = with_seal(3, 2).await;
    let stored = async |server: &Server| server.process.store.get(&keys::seal()).await.unwrap().unwrap().value;
    let verify = json!({ "require_verification": true });
    let said = refusal(server.root("sys/rotate/root/init", verify).await);
    assert!(said.ends_with("requiring verification not supported when rotating the barrier key with recovery keys"));
    let first = stored(&server).await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(7, 5, false).await;
    let (none, _) = rotation.deal(&shares, &nonce).await;
    assert!(none.is_empty());
    let second = stored(&server).await;
    assert_ne!(first, second);
    let weak = server.token_with("sys/rotate/root: update").await;
    assert!(refusal(server.update(&weak, "sys/rotate/root", json!({})).await).starts_with("Denied"), "it needs sudo");
    server.root("sys/rotate/root", json!({})).await.unwrap();
    assert_ne!(stored(&server).await, second);
    let next = server.again();
    opened_by_seal(&next).await;
    assert!(next.lives(ROOT).await);
    // The shares are what they were.
    next.root("sys/seal", json!({})).await.unwrap();
    open(&next, &shares).await;
}

/// A store that has moved away from a seal is opened by shares that wrap the root key; from then on they give it.
#[tokio::test(start_paused = true)]
async fn shares_of_a_store_that_had_a_seal_are_replaced_as_well() {
    let (server, recovery, seals) = with_seal(3, 2).await;
    let moved = server.again_with(Seals { current: None, disabled: seals.current });
    for share in &recovery[..2] {
        moved.core.unseal_from(&bytes(share), true, None).await.unwrap();
    }
    let server = moved.again_with(Seals::default());
    open(&server, &recovery).await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, false).await;
    let (new, _) = rotation.deal(&recovery, &nonce).await;
    assert!(opens(&server, &new).await && !opens(&server, &recovery).await);
}

/// What other servers need to follow is there for a day.
#[tokio::test(start_paused = true)]
async fn the_new_root_key_is_left_for_other_servers_and_not_for_ever() {
    let (server, old) = server().await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, false).await;
    rotation.deal(&old, &nonce).await;
    let left = async |server: &Server| server.process.store.get(&keys::root_handover()).await.unwrap().is_some();
    assert!(!left(&server).await, "nobody else can be over this store");

    let one = Server::start_shared().await;
    let rotation = Rotation::of_root(&one);
    let nonce = rotation.begin(1, 1, false).await;
    let (new, _) = dealt(rotation.step("update", &hex(&one.share), &nonce).await);
    assert!(left(&one).await);
    one.barrier.end_handover().await.unwrap();
    assert!(left(&one).await);
    pass(86_401).await;
    one.barrier.end_handover().await.unwrap();
    assert!(!left(&one).await);
    one.barrier.end_handover().await.unwrap();
    assert!(opens(&one, &new).await);
}

#[tokio::test(start_paused = true)]
async fn audit_has_none_of_the_shares() {
    let (server, old) = server().await;
    server.audited().await;
    let rotation = Rotation::of_root(&server);
    let nonce = rotation.begin(3, 2, true).await;
    let (new, nonce) = rotation.deal(&old, &nonce).await;
    data(rotation.step("verify", &new[0], &nonce).await);
    data(rotation.step("verify", &new[1], &nonce).await);
    let recorded = server.audit.first.text();
    assert!(recorded.contains("rotate/root/verify"));
    for share in old.iter().chain(&new) {
        assert!(!recorded.contains(share.as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_schedule_of_rotations_is_kept_by_a_job() {
    let server = Server::start().await;
    let read = async || data(server.read(ROOT, "sys/rotate/config").await);
    let first = read().await;
    assert_eq!(
        (&first["enabled"], &first["interval"], &first["max_operations"]),
        (&json!(true), &json!(0), &json!(3_865_470_566_u64))
    );
    for (fields, why) in [
        (json!({ "interval": 3_600 }), "interval must be greater or equal to 24h0m0s"),
        (json!({ "max_operations": 999_999 }), "max_operations must be in the range [1000000,3865470566]"),
        (json!({ "max_operations": -1 }), "max_operations must be in the range [1000000,3865470566]"),
        (json!({ "max_operations": 3_865_470_567_u64 }), "max_operations must be in the range [1000000,3865470566]"),
    ] {
        assert_eq!(refusal(server.root("sys/rotate/config", fields).await), format!("Invalid: {why}"));
    }
    server.root("sys/rotate/keyring/config", json!({ "interval": "26h30m" })).await.unwrap();
    assert_eq!(read().await["interval"], "26h30m0s");
    let term = async || data(server.read(ROOT, "sys/key-status").await)["term"].as_u64().unwrap();
    assert_eq!(term().await, 1);
    pass(26 * 3_600).await;
    assert_eq!(term().await, 1);
    pass(3_600).await;
    assert_eq!(term().await, 2, "the job has added one");
    server.root("sys/rotate/config", json!({ "enabled": false })).await.unwrap();
    pass(30 * 3_600).await;
    assert_eq!(term().await, 2);
    server.root("sys/rotate", json!({})).await.unwrap();
    assert_eq!(term().await, 3, "whoever may rotates all the same");
}

/// What nobody goes on with is taken away, with the secrets in it.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_over_is_taken_away() {
    let server = Server::start().await;
    Rotation::of_root(&server).begin(3, 2, true).await;
    server.root("sys/generate-root-token/attempt", json!({})).await.unwrap();
    let left = async || server.process.store.scan(&keys::Key::new("attempt/"), None, 10).await.unwrap().len();
    pass(86_000).await;
    assert_eq!(left().await, 2);
    pass(1_200).await;
    assert_eq!(left().await, 0);
}

/// The old routes and the new ones are about one attempt.
#[tokio::test(start_paused = true)]
async fn the_old_routes_speak_of_the_same_attempt() {
    let (server, old) = server().await;
    let nonce = Rotation::of_root(&server).begin(3, 2, false).await;
    let status = data(server.read(ROOT, "sys/rekey/init").await);
    assert_eq!((&status["nonce"], &status["pgp_fingerprints"]), (&json!(nonce), &Value::Null));
    let step = |share: &String| json!({ "key": share, "nonce": nonce });
    assert_eq!(data(server.root("sys/rekey/update", step(&old[0])).await)["progress"], 1);
    let (new, _) = {
        let data = data(server.root("sys/rekey/update", step(&old[2])).await);
        assert!(!data.contains_key("verification_nonce"));
        (serde_json::from_value::<Vec<String>>(data["keys"].clone()).unwrap(), ())
    };
    assert!(opens(&server, &new).await);
    let server = server.again();
    open(&server, &new).await;
    for (path, why) in [
        ("sys/rekey/init", "SealRefused: invalid rekey seal configuration: shares must be at least one"),
        ("sys/rekey-recovery-key/init", "Invalid: recovery rekeying not supported"),
        ("sys/rekey/update", "Invalid: 'key' must be specified in request body as JSON"),
    ] {
        assert_eq!(refusal(server.root(path, json!({})).await), why, "{path}");
    }
    assert!(refusal(server.read(ROOT, "sys/rekey/verify").await).ends_with("no rekey configuration found"));
    let initial = initialised(&Server::empty(Vec::new())).await;
    assert_eq!(initial.len(), 3);
}
