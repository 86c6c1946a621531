//! Waiting for what another process does. Polls with a generous end: no test depends on how fast the machine is.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything that is waited for takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `found` gives a value; fails with `what` after a minute.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited for a minute, and still not: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until `holds`; fails with `what` after a minute.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}
