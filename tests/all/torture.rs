//! Loads that somebody without a token can make. What is asserted are facts, not times: an expired role goes, SIGTERM is
//! obeyed, memory is bounded. `make torture` prints the times.

use std::time::Duration;

use crate::support::torture::{Load, Tortured};
use crate::support::{Database, eventually, own_postgresql, under_test};

/// What a server under load may take, in MiB: bodies have 256 MiB together, and a build for tests is larger than a release.
const MEMORY_MAX_MIB: u64 = 700;
/// Requests under way have 30 s, revocations 5 s, and a busy machine needs its own time.
const STOP_MAX: Duration = Duration::from_secs(60);

fn survives(load: Load) {
    let database = Database::fresh();
    let mut server = Tortured::start(&under_test(), load, &database);
    let leased = server.lease();
    let attack = load.start(&server);
    eventually("the expired role is gone while the load goes on", || !database.has_role(&leased.user));
    // Long enough for every attacker to have all that it can get.
    let most = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        server.memory_mib()
    });
    let most = most.max().unwrap_or_default();
    assert!((1..MEMORY_MAX_MIB).contains(&most), "{} MiB\n{}", most, server.log());
    server.root().get("auth/token/lookup-self").assert_status(200);
    server.root().get("sys/health").assert_status(200);
    let took = server.terminate(STOP_MAX);
    assert!(took.is_some(), "SIGTERM was not obeyed\n{}", server.log());
    drop(attack);
}

#[test]
fn idle_connections_beyond_the_limit_of_files_stop_nothing() {
    survives(Load::IdleConnections);
}

#[test]
fn unfinished_heads_stop_nothing() {
    survives(Load::UnfinishedHeads);
}

#[test]
fn large_bodies_stop_nothing() {
    survives(Load::LargeBodies);
}

#[test]
fn garbage_shares_stop_nothing() {
    survives(Load::GarbageShares);
}

#[test]
fn an_audit_device_that_nobody_reads_stops_nothing() {
    survives(Load::StuckStdout);
}

#[test]
fn stream_resets_stop_nothing() {
    survives(Load::StreamResets);
}

/// Requests and revocations that wait for a database do not hold up the end: the process ends within its own deadline.
#[test]
fn a_database_that_hangs_does_not_hold_up_the_end() {
    let postgresql = own_postgresql();
    let database = Database::first_of(&postgresql);
    let mut server = Tortured::start(&under_test(), Load::GarbageShares, &database);
    let _ends_while_it_hangs = server.lease();
    postgresql.pause().unwrap();
    // Its end has come, and the revocation hangs; so does a request.
    let root = server.root();
    let asking = std::thread::spawn(move || root.try_request("GET", "database/creds/short", None).is_ok());
    std::thread::sleep(Duration::from_secs(5));
    let took = server.terminate(STOP_MAX);
    assert!(took.is_some(), "SIGTERM was not obeyed\n{}", server.log());
    postgresql.resume().unwrap();
    let _ = asking.join();
}
