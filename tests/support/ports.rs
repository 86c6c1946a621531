//! Ports for the servers of one run.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what systems give to outgoing connections and beside what the private PostgreSQL takes.
const FIRST: u16 = 10_000;
const COUNT: u16 = 9_000;

static TAKEN: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 on which nobody listens, a different one at each call, and none on the port after it.
pub fn free_port() -> u16 {
    // Concurrent runs begin at different places.
    let start = u16::try_from(std::process::id() * 31 % u32::from(COUNT)).expect("less than COUNT");
    loop {
        // An OpenBao takes the next one as well, for its cluster.
        let next = TAKEN.fetch_add(2, Ordering::Relaxed);
        let port = FIRST + (start + next % COUNT) % COUNT;
        if [port, port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}
