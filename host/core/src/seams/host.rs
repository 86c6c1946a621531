//! Time and randomness: what nobody may take for himself.

use leasehold_model::Timestamp;

/// Tells the time. It may jump after a suspend: callers must not assume that it only grows.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The one source of randomness.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}
