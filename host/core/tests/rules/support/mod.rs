//! What plugs into the core in these tests.

pub mod audit;
pub mod auth;
pub mod engine;
pub mod faults;
pub mod gauges;
pub mod meter;
pub mod node;
pub mod sandbox;
pub mod server;
pub mod wrapper;

use std::time::Duration;

use leasehold_core::lease::EndCause;
use leasehold_core::seams::host::Clock;
use leasehold_model::Timestamp;
use tokio::time::Instant;

/// 2026-11-23 00:00:00 UTC.
pub const START: i64 = 1_795_392_000;

/// Goes with tokio's paused time: a wait of the code under test moves it, and so does a test's own.
#[derive(Debug)]
pub struct PausedClock(Instant);

impl PausedClock {
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(START) + self.0.elapsed()
    }

    fn steady(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The cause that tests give for an end.
pub fn asked() -> EndCause {
    EndCause::Revoked { by: "a test".to_owned() }
}

/// Lets time pass, and with it whatever falls due.
pub async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}
