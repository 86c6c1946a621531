//! Ports for the servers of one run.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what systems give to outgoing connections and beside what the private PostgreSQL takes.
const FIRST: u16 = 10_000;
const COUNT: u16 = 9_000;

static TAKEN: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 on which nobody listens, a different one at each call.
pub fn free_port() -> u16 {
    // Concurrent runs begin at different places.
    let start = u16::try_from(std::process::id() * 31 % u32::from(COUNT)).expect("less than COUNT");
    loop {
        let next = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + next % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
