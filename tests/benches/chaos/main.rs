//! A long round of chaos in network namespaces: `make chaos`. Ends with an error when a rule is broken.
//!
//! `MINUTES` says how long faults come (30), `SEED` which (a new one each time, and it is printed), `STORE` over which store: `one`
//! PostgreSQL, or two under Patroni, `synchronous` (the default) or `asynchronous`. Over the last one, a fail-over may lose what was
//! promised: then only what is broken before the first one counts. The history and the servers' logs are kept under `target/chaos/`.

#![expect(clippy::expect_used, reason = "a round that cannot go on has nothing to save")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use support::chaos::plan::Fault;
use support::chaos::world::{StoreKind, World};
use support::chaos::{checker, network, report, round};

fn main() -> ExitCode {
    if let Err(why) = network::enter() {
        eprintln!("make chaos: {why}");
        return ExitCode::FAILURE;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("make chaos: {why}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}` and must be a number")))
}

/// Whether no rule was broken.
fn run() -> Result<bool, String> {
    let minutes = number("MINUTES").unwrap_or(30);
    let seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()) ^ started());
    let store = std::env::var("STORE").unwrap_or_default();
    let kind = match store.as_str() {
        "one" => StoreKind::One,
        "" | "synchronous" => StoreKind::Synchronous,
        "asynchronous" => StoreKind::Asynchronous,
        other => return Err(format!("STORE is `{other}` and must be `one`, `synchronous` or `asynchronous`")),
    };
    let target = std::env::var("CARGO_TARGET_DIR")
        .map_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let program = std::env::var_os("PROGRAM").map_or_else(|| target.join("release/leasehold"), PathBuf::from);
    let program = program.canonicalize().map_err(|_| "no server: run `make build` first, or name one in PROGRAM")?;
    println!("SEED={seed} MINUTES={minutes} STORE={kind:?} PROGRAM={}", program.display());
    let world = World::on_network(&program, kind)?;
    let history = round::run(&world, seed, Duration::from_secs(minutes * 60));
    let violations = checker::check(&history);
    let report = report::report(&history, &violations);
    println!("{report}");
    let kept = target.join("chaos").join(format!("{seed}"));
    std::fs::create_dir_all(&kept).expect("a directory can be made");
    let mut text = String::new();
    for op in &history.ops {
        let _ = writeln!(
            text,
            "{:.3} {:.3} {:?} {:?} {:?}",
            op.begin.as_secs_f64(),
            op.end.as_secs_f64(),
            op.node,
            op.outcome,
            op.what
        );
    }
    let mut faults = String::new();
    for span in &history.spans {
        let _ = writeln!(faults, "{:.3} {:.3} {}", span.begin.as_secs_f64(), span.end.as_secs_f64(), span.fault);
    }
    let panicked = world.nodes.iter().any(|node| node.log().contains("panicked"));
    for (name, text) in [("history.txt", text), ("faults.txt", faults), ("report.md", report)] {
        std::fs::write(kept.join(name), text).expect("a file can be written");
    }
    for (at, node) in world.nodes.iter().enumerate() {
        std::fs::write(kept.join(format!("node{at}.log")), node.log()).expect("a file can be written");
    }
    println!("The history, the faults and the servers' logs are in {}.", kept.display());
    if panicked {
        println!("A server panicked.");
    }
    let first_fail_over = history.spans.iter().find(|span| span.fault == Fault::FailOver).map(|span| span.begin);
    let may_be_lost = first_fail_over.filter(|_| kind == StoreKind::Asynchronous);
    let is_broken = violations.iter().any(|violation| may_be_lost.is_none_or(|from| violation.at < from));
    if !is_broken && !violations.is_empty() {
        println!("Every contradiction follows a fail-over that may lose commits: nothing is promised then.");
    }
    Ok(!is_broken && !panicked && history.unhealed.is_empty())
}

/// Differs from run to run.
fn started() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    stat.bytes()
        .chain(uptime.bytes())
        .fold(1_469_598_103_934_665_603_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211))
        % 1_000_000_000
}
