//! Time, randomness and what this process has counted: what nobody may take for himself.

use std::time::Duration;

use leasehold_model::Timestamp;
use serde_json::Value;

/// Tells the time. It may jump after a suspend: callers must not assume that it only grows.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    /// The time since some moment, which nobody can set and which goes on while the machine sleeps: for how long something has lasted.
    fn steady(&self) -> Duration;
}

/// The one source of randomness.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// What this process has counted and measured, in the two forms that clients ask for.
pub trait Metrics: Send + Sync {
    /// The text form of Prometheus.
    fn prometheus(&self) -> String;
    /// Vault's own: `Timestamp`, `Gauges`, `Points`, `Counters`, `Samples`.
    fn json(&self) -> Value;
}
