//! One round: clients work, faults come by the plan, everything heals and is revoked, and the history is put together.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::clients::Clients;
use super::history::{History, Span};
use super::observer::{self, Tracker};
use super::plan::{self, Planned, Seeded};
use super::world::World;

/// How long the clients go on when all faults are over.
const AFTER: Duration = Duration::from_secs(5);
/// How long what has ended, or what nobody was told of, may take to go.
const QUIET: Duration = Duration::from_secs(25);
/// How long revoking everything may take.
const REVOKE_MAX: Duration = Duration::from_secs(60);

/// Runs a round of faults that lasts for `length`.
pub fn run(world: &World, seed: u64, length: Duration) -> History {
    let planned = plan::plan(seed, length, &world.abilities());
    let mut random = Seeded::new(seed);
    let began = Instant::now();
    let (stop, stop_looking) = (AtomicBool::new(false), AtomicBool::new(false));
    let clients = Clients::new(world, began, &stop);
    let spans = Mutex::new(Vec::new());
    let unhealed = Mutex::new(Vec::new());
    let (target, stores) = (world.target_url(), world.store_urls());
    let mut left = Vec::new();
    let tracker = thread::scope(|scope| {
        let looking = scope.spawn(|| observer::observe(began, &target, &stores, &stop_looking));
        let mut working = Vec::new();
        let clients = &clients;
        for at in 0..7 {
            let seed = random.number();
            working.push(scope.spawn(move || match at {
                0 | 1 => clients.forbid(seed),
                2 => clients.count(seed),
                _ => clients.lease(seed),
            }));
        }
        let inflicting: Vec<_> =
            planned.iter().map(|planned| scope.spawn(|| inflict(world, began, planned, &spans, &unhealed))).collect();
        thread::sleep(length);
        for done in inflicting {
            done.join().expect("a fault was inflicted and ended");
        }
        thread::sleep(AFTER);
        stop.store(true, Ordering::Relaxed);
        for done in working {
            done.join().expect("a client came to its end");
        }
        thread::sleep(QUIET);
        stop_looking.store(true, Ordering::Relaxed);
        let tracker: Tracker = looking.join().expect("the observer came to its end");
        left = revoke_everything(world);
        tracker
    });
    let mut history = History {
        ops: clients.into_ops(),
        spans: spans.into_inner().unwrap_or_else(PoisonError::into_inner),
        nodes: world.nodes.len(),
        left,
        unhealed: unhealed.into_inner().unwrap_or_else(PoisonError::into_inner),
        ..History::default()
    };
    history.spans.sort_by_key(|span| span.begin);
    tracker.tell(&mut history);
    history
}

fn inflict(world: &World, began: Instant, planned: &Planned, spans: &Mutex<Vec<Span>>, unhealed: &Mutex<Vec<String>>) {
    thread::sleep(planned.at.saturating_sub(began.elapsed()));
    let begin = began.elapsed();
    eprintln!("[{:8.3} s] {} for {:.1} s", begin.as_secs_f64(), planned.fault, planned.lasts.as_secs_f64());
    world.inflict(planned.fault);
    thread::sleep(planned.lasts);
    // What was seen until then must not be lost when something does not come back.
    if std::panic::catch_unwind(AssertUnwindSafe(|| world.heal(planned.fault))).is_err() {
        let what = format!("[{:.3} s] what followed `{}` did not end well", begin.as_secs_f64(), planned.fault);
        unhealed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
    let span = Span { fault: planned.fault, begin, end: began.elapsed() };
    spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
}

/// What is there when nothing may be there any more.
fn revoke_everything(world: &World) -> Vec<String> {
    let begun = Instant::now();
    loop {
        for node in &world.nodes {
            world.caller.send(
                &node.address,
                Some(&world.root),
                "PUT",
                "sys/leases/revoke-prefix/database",
                Some(json!({})),
            );
        }
        let left = observer::roles_now(&world.target_url());
        match left {
            Some(left) if left.is_empty() || begun.elapsed() > REVOKE_MAX => return left,
            _ => thread::sleep(Duration::from_millis(500)),
        }
    }
}
