//! The whole server under a closed-loop load, beside a real OpenBao when `BAO` names one, and beside an older Leasehold when `BEFORE`
//! names its program: `make bench`. `STORES=1` measures what the store costs in its place, `SCALE=1` what a million leases cost
//! (`ONLY=SQLite`, `ONLY=PostgreSQL`: on one of the two), `NODES=N` what several servers cost, `ENTITIES=N` what entities and groups
//! cost, `KEYS=N` what keys cost.
//!
//! All sides run in one process tree, take turns round by round, and serve the same PostgreSQL. What is printed are medians;
//! CPU per request is the server's own user and system time from the kernel's accounting, without PostgreSQL's and ours.
//! Nothing is asserted: a figure that falls short is printed as it is.
//!
//! Start with `cases`, `access`, `stores`, `scale`, `nodes`, `identity` and `keys` (what is measured), then `load` (the clients), `peer` (the servers), `table` (the print-out).

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has nothing to save")]

mod access;
mod cases;
mod identity;
mod keys;
mod load;
mod nodes;
mod peer;
mod scale;
mod stores;
mod table;
mod trips;

use std::path::PathBuf;

use peer::{Kind, Peer};

fn main() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let seconds: u64 = std::env::var("SECONDS_EACH").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let only = std::env::var("ONLY").ok();
    let target = std::env::var("CARGO_TARGET_DIR")
        .map_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let ours = target.join("release/leasehold");
    assert!(ours.is_file(), "no {}: run `make build` first", ours.display());
    let program = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);

    let postgresql = peer::postgresql();
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let length = std::time::Duration::from_secs(seconds);
    if is_set("SCALE") {
        let count = std::env::var("COUNT").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
        return scale::run(&Peer::new(Kind::Leasehold, ours), &postgresql, count, length, only.as_deref());
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    if let Some(count) = number("NODES") {
        return nodes::run(&Peer::new(Kind::Leasehold, ours), &postgresql, count, rounds, length);
    }
    if let Some(count) = number("ENTITIES") {
        return identity::run(&Peer::new(Kind::Leasehold, ours), count, rounds, length);
    }
    if let Some(count) = number("KEYS") {
        return keys::run(&Peer::new(Kind::Leasehold, ours), count, length);
    }
    if is_set("STORES") {
        let bao = program("BAO").map(|program| Peer::new(Kind::OpenBao, program));
        return stores::run(&Peer::new(Kind::Leasehold, ours), bao.as_ref(), &postgresql, rounds, length);
    }
    let mut peers = vec![Peer::new(Kind::Leasehold, ours)];
    if let Some(before) = program("BEFORE") {
        assert!(before.is_file(), "BEFORE names no program: {}", before.display());
        peers.push(Peer::new(Kind::Before, before));
    }
    match program("BAO") {
        Some(program) => peers.push(Peer::new(Kind::OpenBao, program)),
        None => eprintln!("BAO names no OpenBao program: OpenBao is not measured"),
    }
    let plan = cases::Plan { rounds, length, only };
    let figures = cases::run(&plan, &peers, &postgresql);
    table::print(&figures, &plan);
}
