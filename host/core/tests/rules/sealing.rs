//! Seals that open the server without people: opening, being away, moving from one to another, dying at every write of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_core::keys;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Storage as _;
use leasehold_core::token::create::First;
use leasehold_model::Operation;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::support::faults::{FAULTS, Fault};
use super::support::server::{Seals, Server, request};
use super::support::wrapper::ScriptedWrapper;

fn seal(kind: &'static str) -> Arc<ScriptedWrapper> {
    Arc::new(ScriptedWrapper::new(kind))
}

fn by(current: &Arc<ScriptedWrapper>) -> Seals {
    Seals { current: Some(current.clone()), disabled: None }
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Dropped, it ends.
struct Keeping(JoinHandle<()>);

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn keep(server: &Server) -> Keeping {
    let core = server.core.clone();
    Keeping(tokio::spawn(async move { core.keep_unsealed().await }))
}

async fn is_open(server: &Server) -> bool {
    !server.core.seal_status().await.unwrap().sealed
}

/// Lets the server try for as long as this.
async fn opens_within(server: &Server, time: Duration) -> bool {
    let _keeping = keep(server);
    pause(time).await;
    is_open(server).await
}

/// Initialised with two recovery shares, both needed; its root token.
async fn initialised(server: &Server) -> (Vec<Vec<u8>>, String) {
    let made = server.core.init(2, 2, First::Root).await.unwrap();
    let shares = made.shares.iter().map(|share| share.0.to_vec()).collect();
    (shares, made.root_token.expose().to_owned())
}

async fn give(server: &Server, shares: &[Vec<u8>], migrate: bool) -> Result<(), RequestError> {
    for share in shares {
        server.core.unseal_from(share, migrate, None).await?;
    }
    Ok(())
}

async fn status(server: &Server) -> Value {
    let answer = server.call(None, Operation::Read, "sys/seal-status", Value::Null).await;
    Value::Object(answer.unwrap().data.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_server_with_a_seal_opens_itself_after_init_and_after_each_start() {
    let wrapper = seal("static");
    let server = Server::empty_with(by(&wrapper));
    let keeping = keep(&server);
    pause(Duration::from_secs(5)).await;
    let (shares, root) = initialised(&server).await;
    assert_eq!(shares.len(), 2);
    pause(Duration::from_secs(3)).await;
    assert!(server.read(&root, "auth/token/lookup-self").await.is_ok());
    drop(keeping);
    let next = server.again();
    assert!(!is_open(&next).await);
    assert!(opens_within(&next, Duration::from_millis(10)).await);
    assert!(next.read(&root, "auth/token/lookup-self").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_is_away_is_asked_until_it_answers_and_stops_no_open_server() {
    let wrapper = seal("transit");
    let server = Server::empty_with(by(&wrapper));
    wrapper.set_away(true);
    let refused = server.core.init(0, 0, First::Root).await.map(drop);
    assert!(matches!(refused, Err(RequestError::Unavailable(_))), "{refused:?}");
    assert!(!server.core.seal_status().await.unwrap().initialized, "nothing is stored that nobody could open");
    wrapper.set_away(false);
    let root = server.core.init(0, 0, First::Root).await.unwrap().root_token.expose().to_owned();

    wrapper.set_away(true);
    let next = server.again();
    let keeping = keep(&next);
    pause(Duration::from_secs(600)).await;
    assert!(!is_open(&next).await);
    let asked = wrapper.asked.load(Ordering::SeqCst);
    assert!((15..60).contains(&asked), "in ten minutes it was asked {asked} times");
    wrapper.set_away(false);
    pause(Duration::from_secs(31)).await;
    assert!(is_open(&next).await);

    wrapper.set_away(true);
    let before = wrapper.asked.load(Ordering::SeqCst);
    pause(Duration::from_secs(3600)).await;
    assert!(next.read(&root, "auth/token/lookup-self").await.is_ok());
    assert!(next.update(&root, "sys/rotate", json!({})).await.is_ok());
    assert_eq!(wrapper.asked.load(Ordering::SeqCst), before, "an open server needs no seal");
    drop(keeping);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_sealed_by_hand_stays_so_until_recovery_shares_open_it() {
    let wrapper = seal("static");
    let server = Server::empty_with(by(&wrapper));
    let (shares, root) = initialised(&server).await;
    let _keeping = keep(&server);
    pause(Duration::from_secs(1)).await;
    assert!(server.update(&root, "sys/seal", json!({})).await.is_ok());
    // Whatever asks again is not to open it either.
    let _again = keep(&server);
    pause(Duration::from_secs(600)).await;
    assert!(!is_open(&server).await, "nobody has asked for it to be opened again");
    assert!(give(&server, &[vec![7; 33]], false).await.is_err());
    assert!(give(&server, &[shares[0].clone(), shares[0].clone()], false).await.is_ok());
    assert!(!is_open(&server).await, "one share twice is one share");
    // The shares prove who asks; the seal opens.
    wrapper.set_away(true);
    assert!(matches!(give(&server, &shares[1..], false).await, Err(RequestError::Unavailable(_))));
    assert!(!is_open(&server).await);
    wrapper.set_away(false);
    give(&server, &shares, false).await.unwrap();
    assert!(is_open(&server).await);
}

#[tokio::test(start_paused = true)]
async fn without_recovery_shares_nobodys_share_opens_a_sealed_server() {
    let wrapper = seal("static");
    let server = Server::empty_with(by(&wrapper));
    let made = server.core.init(0, 0, First::Root).await.unwrap();
    assert!(made.shares.is_empty());
    for share in [vec![0; 32], vec![1; 33], vec![2; 16]] {
        let refused = give(&server, &[share], false).await.unwrap_err().to_string();
        assert!(refused.contains("there are no recovery keys"), "{refused}");
    }
    assert!(!is_open(&server).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_rotated_is_used_from_the_next_start_on() {
    let wrapper = seal("static");
    let server = Server::empty_with(by(&wrapper));
    initialised(&server).await;
    wrapper.rotate();
    let next = server.again();
    assert!(opens_within(&next, Duration::from_millis(10)).await);
    wrapper.lose_old_keys();
    let next = next.again();
    assert!(opens_within(&next, Duration::from_millis(10)).await, "the key before is not needed any more");
    // A key that is lost is said to be, and nothing else is tried.
    wrapper.rotate();
    wrapper.lose_old_keys();
    let next = next.again();
    assert!(!opens_within(&next, Duration::from_secs(60)).await);
}

/// One way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    FromShares,
    ToShares,
    Between,
}

const MOVES: [Move; 3] = [Move::FromShares, Move::ToShares, Move::Between];

impl Move {
    /// Before, and while it moves.
    fn seals(self) -> (Seals, Seals, Seals) {
        let (one, other) = (seal("static"), seal("transit"));
        let none = Seals::default();
        match self {
            Self::FromShares => (none, by(&one), by(&one)),
            Self::ToShares => (by(&one), Seals { current: None, disabled: Some(one) }, none),
            Self::Between => (by(&one), Seals { current: Some(other.clone()), disabled: Some(one) }, by(&other)),
        }
    }
}

/// Whether this configuration opens the store, by itself or with the shares.
async fn opens(server: &Server, seals: &Seals, shares: &[Vec<u8>]) -> bool {
    let next = server.again_with(seals.clone());
    if seals.current.is_some() {
        opens_within(&next, Duration::from_millis(10)).await
    } else {
        give(&next, shares, false).await.is_ok() && is_open(&next).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_to_another_seal_is_done_or_not_done_whatever_goes_wrong() {
    for way in MOVES {
        for fault in FAULTS {
            let mut write = 0;
            loop {
                let context = format!("{way:?}: {fault:?} at write {write}");
                let (before, moving, after) = way.seals();
                let first = Server::empty_with(before.clone());
                let (shares, root) = initialised(&first).await;

                let server = first.again_with(moving.clone());
                assert_eq!(status(&server).await["migration"], true, "{context}");
                assert!(!opens_within(&server, Duration::from_secs(10)).await, "{context}: moved without people");
                let pending = give(&server, &shares, false).await.unwrap_err();
                assert!(pending.to_string().contains("migrate option not provided"), "{context}: {pending}");
                server.process.fault_at(write, fault);
                let told = give(&server, &shares, true).await;
                let fired = !server.process.is_armed();
                server.process.disarm();
                if told.is_ok() {
                    assert!(is_open(&server).await, "{context}");
                }

                let is_moved = opens(&server, &after, &shares).await;
                let is_as_before = opens(&server, &before, &shares).await;
                assert!(is_moved != is_as_before, "{context}: new {is_moved}, old {is_as_before}");
                assert!(is_moved || told.is_err(), "{context}: said to be done");
                if !is_moved {
                    let again = server.again_with(moving.clone());
                    give(&again, &shares, true).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                    assert!(opens(&again, &after, &shares).await, "{context}");
                }
                let last = server.again_with(after.clone());
                if after.current.is_some() {
                    assert!(opens_within(&last, Duration::from_millis(10)).await, "{context}");
                } else {
                    give(&last, &shares, false).await.unwrap();
                }
                assert!(last.read(&root, "auth/token/lookup-self").await.is_ok(), "{context}");
                if !fired {
                    break;
                }
                write += 1;
            }
            assert!(write > 0 || fault == Fault::CrashAfter, "{way:?} never writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shares_that_opened_the_server_open_nothing_after_the_move() {
    let wrapper = seal("static");
    let first = Server::empty_with(Seals::default());
    let (shares, _) = initialised(&first).await;
    let kept = first.process.store.get(&keys::seal()).await.unwrap().unwrap();
    let server = first.again_with(by(&wrapper));
    give(&server, &shares, true).await.unwrap();
    // Somebody who has the file and the shares puts the old configuration of the seal there.
    let store = &server.process.store;
    let batch = leasehold_core::seams::storage::Batch::new();
    let batch = batch.put(keys::seal(), kept.value, leasehold_core::seams::storage::Expect::Present);
    store.commit(batch).await.unwrap();
    let thief = server.again_with(Seals::default());
    assert!(give(&thief, &shares, false).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_move_with_wrong_shares_or_without_its_seal_changes_nothing() {
    for way in MOVES {
        let (before, moving, _) = way.seals();
        let first = Server::empty_with(before.clone());
        let (shares, _) = initialised(&first).await;
        let server = first.again_with(moving.clone());
        assert!(give(&server, &[vec![9; 33]], true).await.is_err());
        for wrapper in [&moving.current, &moving.disabled].into_iter().flatten() {
            wrapper.set_away(true);
            assert!(give(&server, &shares, true).await.is_err(), "{way:?}");
            wrapper.set_away(false);
        }
        assert!(opens(&server, &before, &shares).await, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_the_configuration_lacks_is_named() {
    let (one, other) = (seal("static"), seal("transit"));
    let first = Server::empty_with(by(&one));
    let (shares, _) = initialised(&first).await;
    for (seals, to) in [(Seals::default(), "Shamir"), (by(&other), "\"transit\"")] {
        let server = first.again_with(seals);
        assert!(!opens_within(&server, Duration::from_secs(10)).await);
        for migrate in [false, true] {
            let said = give(&server, &shares, migrate).await.unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("cannot seal migrate from \"static\" to {to}, no disabled seal")),
                "{said}"
            );
        }
    }
    let server = first.again_with(by(&one));
    let said = give(&server, &shares, true).await.unwrap_err().to_string();
    assert_eq!(said, "can't perform a seal migration, no migration seal found");
}

#[tokio::test(start_paused = true)]
async fn servers_over_one_store_open_themselves_and_do_not_lose_each_other_in_a_move() {
    let wrapper = seal("static");
    let first = Server::empty_with(Seals::default());
    let (shares, root) = initialised(&first).await;
    give(&first, &shares, false).await.unwrap();
    let second = first.another(by(&wrapper));
    // The root key changes with this move, and the first server has the old one.
    let refused = give(&second, &shares, true).await.unwrap_err().to_string();
    assert!(refused.contains("seal each of them first"), "{refused}");
    assert!(first.update(&root, "sys/seal", json!({})).await.is_ok());
    give(&second, &shares, true).await.unwrap();

    let third = second.another(by(&wrapper));
    let fourth = second.another(by(&wrapper));
    let (_keeping_third, _keeping_fourth) = (keep(&third), keep(&fourth));
    pause(Duration::from_secs(5)).await;
    for server in [&second, &third, &fourth] {
        assert!(server.read(&root, "auth/token/lookup-self").await.is_ok());
        server.update(&root, "sys/policies/acl/p", json!({ "policy": "x: read" })).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_opened_or_moved_at_the_same_moment_do_not_spoil_each_other() {
    let wrapper = seal("static");
    let first = Server::empty_with(Seals::default());
    let (shares, root) = initialised(&first).await;
    let second = first.another(Seals::default());
    for server in [&first, &second] {
        server.process.yields.store(true, Ordering::SeqCst);
    }
    let (one, other) = tokio::join!(give(&first, &shares, false), give(&second, &shares, false));
    one.unwrap();
    other.unwrap();
    for server in [&first, &second] {
        assert!(server.update(&root, "sys/seal", json!({})).await.is_ok());
    }

    let (third, fourth) = (first.another(by(&wrapper)), first.another(by(&wrapper)));
    for server in [&third, &fourth] {
        server.process.yields.store(true, Ordering::SeqCst);
    }
    let (one, other) = tokio::join!(give(&third, &shares, true), give(&fourth, &shares, true));
    assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    for failed in [one, other].into_iter().filter_map(Result::err) {
        assert!(matches!(failed, RequestError::SealRefused(_)), "{failed:?}");
    }
    let _keeping = (keep(&third), keep(&fourth));
    pause(Duration::from_secs(5)).await;
    for server in [&third, &fourth] {
        assert!(server.read(&root, "auth/token/lookup-self").await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_snapshot_is_opened_where_the_seal_can_and_not_where_it_cannot() {
    let wrapper = seal("static");
    let server = Server::empty_with(by(&wrapper));
    let (_, root) = initialised(&server).await;
    let _keeping = keep(&server);
    pause(Duration::from_secs(1)).await;
    let path = "sys/storage/raft/snapshot";
    let spool = server.read(&root, path).await.unwrap().attachment.unwrap().spool;
    let restore = async |server: &Server, root: &str| {
        let mut asked = request(Some(root), Operation::Update, "sys/storage/raft/snapshot-force", json!({}));
        asked.upload = Some(Arc::clone(&spool));
        server.core.handle(asked).await
    };
    assert!(restore(&server, &root).await.is_ok());
    pause(Duration::from_secs(2)).await;
    assert!(server.read(&root, "auth/token/lookup-self").await.is_ok());

    // Another installation, whose seal has another key.
    let stranger = seal("static");
    stranger.rotate();
    stranger.lose_old_keys();
    let other = Server::empty_with(by(&stranger));
    let (_, other_root) = initialised(&other).await;
    let _keeping_other = keep(&other);
    pause(Duration::from_secs(1)).await;
    assert!(restore(&other, &other_root).await.is_ok());
    pause(Duration::from_secs(60)).await;
    assert!(!is_open(&other).await, "it has not the key");
}
