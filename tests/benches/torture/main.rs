//! What loads without a token do to the optimised server: `make torture`. Bounded, and on loopback only.
//!
//! For each load the 99th percentile of `lookup-self`, the lag of expiry and the resident memory are printed before, during
//! and after it, and how long SIGTERM takes while it goes on. Nothing is asserted here: `tests/all/torture.rs` asserts the facts.

#![expect(clippy::expect_used, reason = "a measurement that cannot go on has nothing to save")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::Database;
use support::torture::{Load, Measured, Tortured};

const REQUESTS: usize = 300;
const SETTLE: Duration = Duration::from_secs(5);

fn main() {
    let only = std::env::var("ONLY").ok();
    let target = std::env::var("CARGO_TARGET_DIR")
        .map_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let program = std::env::var_os("PROGRAM").map_or_else(|| target.join("release/leasehold"), PathBuf::from);
    let program = program.canonicalize().expect("a program: run `make build` first, or name one in PROGRAM");
    println!("{:<18} {:<8} {:>12} {:>8} {:>12} {:>9}", "load", "when", "p99 ms", "failed", "lag ms", "RSS MiB");
    for load in Load::ALL {
        if only.as_ref().is_some_and(|only| !load.name().contains(only.as_str())) {
            continue;
        }
        let database = Database::fresh();
        let mut server = Tortured::start(&program, load, &database);
        print(load, "before", Measured::of(&server, &database, REQUESTS));
        let attack = load.start(&server);
        std::thread::sleep(SETTLE);
        print(load, "during", Measured::of(&server, &database, REQUESTS));
        drop(attack);
        std::thread::sleep(SETTLE);
        print(load, "after", Measured::of(&server, &database, REQUESTS));
        let attack = load.start(&server);
        std::thread::sleep(SETTLE);
        match server.terminate(Duration::from_secs(90)) {
            Some(took) => println!("{:<18} SIGTERM  ended after {:.1} s", load.name(), took.as_secs_f64()),
            None => println!("{:<18} SIGTERM  not obeyed within 90 s", load.name()),
        }
        drop(attack);
    }
}

fn print(load: Load, when: &str, found: Measured) {
    let lag = found.lag.map_or_else(|| "> 60,000".to_owned(), |lag| lag.as_millis().to_string());
    let p99 = found.p99.as_secs_f64() * 1e3;
    println!("{:<18} {when:<8} {p99:>12.2} {:>8} {lag:>12} {:>9}", load.name(), found.failed, found.memory_mib);
}
