//! Hostile modules: each meets the limit that is named, and the next request is served all the same.

use std::time::{Duration, Instant};

use leasehold_core::seams::sandbox::{ModuleDecision, ModuleHost as _, SandboxError};
use leasehold_model::Ttl;
use leasehold_sandbox::Sandbox;

use crate::support::{module_request, module_sandbox, policy_probe};

/// Loads the probe and one that allows, asks the probe twice, and the other in between and afterwards.
async fn stopped_by(sandbox: &Sandbox, name: &str) -> SandboxError {
    let probe = sandbox.load(&policy_probe(name)).await.unwrap();
    let other = sandbox.load(&policy_probe("allow")).await.unwrap();
    let first = sandbox.evaluate("binding", &probe, b"", &module_request()).await.unwrap_err().why;
    assert_eq!(
        sandbox.evaluate("binding", &other, b"", &module_request()).await.unwrap().decision,
        ModuleDecision::Allow
    );
    let second = sandbox.evaluate("binding", &probe, b"", &module_request()).await.unwrap_err().why;
    assert_eq!(first, second, "the same request ends the same way");
    assert_eq!(
        sandbox.evaluate("binding", &other, b"", &module_request()).await.unwrap().decision,
        ModuleDecision::Allow
    );
    first
}

#[tokio::test]
async fn an_endless_loop_runs_out_of_fuel() {
    let sandbox = module_sandbox(|_| {});
    assert_eq!(stopped_by(&sandbox, "endless-loop").await, SandboxError::Fuel);
}

#[tokio::test]
async fn an_endless_loop_with_plenty_of_fuel_runs_out_of_time() {
    let sandbox = module_sandbox(|config| {
        config.limits.evaluate.fuel = u64::MAX / 2;
        config.limits.evaluate.wall = Duration::from_millis(100);
    });
    let begun = Instant::now();
    assert_eq!(stopped_by(&sandbox, "endless-loop").await, SandboxError::Time);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_memory_bomb_meets_the_memory_limit() {
    let sandbox = module_sandbox(|_| {});
    assert_eq!(stopped_by(&sandbox, "memory-bomb").await, SandboxError::Memory);
}

#[tokio::test]
async fn a_table_bomb_meets_the_table_limit() {
    let SandboxError::Trap(why) = stopped_by(&module_sandbox(|_| {}), "table-bomb").await else { panic!("no trap") };
    assert!(why.contains("a table of 10001 elements was wanted, 10000 are allowed"), "{why}");
}

#[tokio::test]
async fn deep_recursion_meets_the_stack_limit() {
    let SandboxError::Trap(why) = stopped_by(&module_sandbox(|_| {}), "deep-recursion").await else {
        panic!("no trap")
    };
    assert!(why.contains("call stack exhausted"), "{why}");
}

#[tokio::test]
async fn a_panic_is_a_trap_that_names_the_function() {
    let SandboxError::Trap(why) = stopped_by(&module_sandbox(|_| {}), "panics").await else { panic!("no trap") };
    assert!(why.contains("unreachable") && why.contains(" in "), "{why}");
}

#[tokio::test]
async fn answers_out_of_bounds_are_no_answers() {
    let sandbox = module_sandbox(|_| {});
    for (probe, expected) in [
        ("huge-answer", "fuel allocated for hostcalls has been exhausted"),
        ("many-messages", "33 messages, 32 are allowed"),
        ("long-message", "a message of 1025 bytes, 1024 are allowed"),
        ("invalid-utf8", "utf-8"),
        ("stray-pointer", "out of bounds"),
        ("wrong-case", "discriminant"),
        ("unknown-obligation", "the obligation `probe` is not known"),
        ("zero-ttl", "`max-ttl` of 0 seconds"),
    ] {
        let SandboxError::Answer(why) = stopped_by(&sandbox, probe).await else { panic!("{probe}") };
        assert!(why.contains(expected), "{probe}: {why}");
    }
}

#[tokio::test]
async fn a_module_that_says_it_failed_has_not_decided() {
    assert_eq!(stopped_by(&module_sandbox(|_| {}), "own-failure").await, SandboxError::Failed("probe".to_owned()));
}

#[tokio::test]
async fn a_module_remembers_nothing_from_one_decision_to_the_next() {
    let sandbox = module_sandbox(|_| {});
    let module = sandbox.load(&policy_probe("remembers")).await.unwrap();
    for _ in 0..50 {
        let verdict = sandbox.evaluate("binding", &module, b"", &module_request()).await.unwrap();
        assert_eq!(verdict.decision, ModuleDecision::Allow);
    }
}

#[tokio::test]
async fn of_several_ttl_ceilings_the_least_counts() {
    let sandbox = module_sandbox(|_| {});
    let module = sandbox.load(&policy_probe("two-ceilings")).await.unwrap();
    let verdict = sandbox.evaluate("binding", &module, b"", &module_request()).await.unwrap();
    assert_eq!(verdict.max_ttl, Some(Ttl::from_secs(3600)));
}

#[tokio::test]
async fn fuel_is_the_same_in_every_run() {
    let sandbox = module_sandbox(|_| {});
    let module = sandbox.load(&policy_probe("allow")).await.unwrap();
    let first = sandbox.evaluate("binding", &module, b"", &module_request()).await.unwrap().fuel;
    assert!(first > 0);
    for _ in 0..5 {
        assert_eq!(sandbox.evaluate("binding", &module, b"", &module_request()).await.unwrap().fuel, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_more_than_may_run_at_once_is_refused_as_busy() {
    let sandbox = std::sync::Arc::new(module_sandbox(|config| {
        config.limits.modules_at_once = 1;
        config.limits.binding_patience = Duration::from_millis(10);
        config.limits.evaluate.fuel = u64::MAX / 2;
        config.limits.evaluate.wall = Duration::from_millis(500);
    }));
    let slow = sandbox.load(&policy_probe("endless-loop")).await.unwrap();
    let (one, other) = (sandbox.clone(), slow.clone());
    let running = tokio::spawn(async move { one.evaluate("binding", &other, b"", &module_request()).await });
    tokio::time::sleep(Duration::from_millis(100)).await;

    assert_eq!(sandbox.evaluate("binding", &slow, b"", &module_request()).await.unwrap_err().why, SandboxError::Busy);

    assert_eq!(running.await.unwrap().unwrap_err().why, SandboxError::Time);
}

/// An advisory module that burned time took every place, and paths of a mandatory one were answered 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_whose_module_burns_time_keeps_no_other_binding_waiting() {
    let sandbox = std::sync::Arc::new(module_sandbox(|config| {
        config.limits.evaluate.fuel = u64::MAX / 2;
        config.limits.evaluate.wall = Duration::from_millis(100);
        config.limits.binding_queue = 8;
    }));
    let burning = sandbox.load(&policy_probe("endless-loop")).await.unwrap();
    let quick = sandbox.load(&policy_probe("allow")).await.unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..48)
        .map(|_| {
            let (sandbox, burning, stop) = (sandbox.clone(), burning.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut stopped, mut busy) = (0, 0);
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    match sandbox.evaluate("advice", &burning, b"", &module_request()).await.unwrap_err().why {
                        SandboxError::Time => stopped += 1,
                        SandboxError::Busy => busy += 1,
                        other => panic!("{other}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (stopped, busy)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..50 {
        let judged = sandbox.evaluate("gate", &quick, b"", &module_request()).await;
        assert_eq!(judged.map(|verdict| verdict.decision).map_err(|failed| failed.why), Ok(ModuleDecision::Allow));
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (mut stopped, mut busy) = (0, 0);
    for client in clients {
        let (one, other) = client.await.unwrap();
        (stopped, busy) = (stopped + one, busy + other);
    }
    assert!(stopped > 0 && busy > 0, "the load was one: {stopped} ran, {busy} were turned away");
}

#[tokio::test]
async fn what_a_failed_judgement_used_is_told() {
    let sandbox = module_sandbox(|config| config.limits.evaluate.fuel = 100_000);
    for (probe, least) in [("endless-loop", 100_000), ("deep-recursion", 1_000)] {
        let module = sandbox.load(&policy_probe(probe)).await.unwrap();
        let unjudged = sandbox.evaluate("binding", &module, b"", &module_request()).await.unwrap_err();
        assert!(unjudged.fuel >= least, "{probe}: {unjudged:?}");
    }
}

#[tokio::test]
async fn a_request_longer_than_a_module_is_shown_is_refused() {
    let sandbox = module_sandbox(|_| {});
    let module = sandbox.load(&policy_probe("allow")).await.unwrap();
    let mut ask = module_request();
    ask.parameters.push(("big".to_owned(), Some("x".repeat(64 << 10))));
    assert!(matches!(sandbox.evaluate("binding", &module, b"", &ask).await.unwrap_err().why, SandboxError::Host(_)));
}
