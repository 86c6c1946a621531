//! Counts calls: how they ended, how long they took, how much fuel they used.

use leasehold_core::seams::sandbox::SandboxError;
use metrics::{Counter, Histogram, SharedString, counter, histogram};

/// The handles of one module. The recorder must be installed before a meter is made: handles do not follow it.
pub(crate) struct Meter {
    module: SharedString,
    answered: Counter,
    seconds: Histogram,
    fuel: Histogram,
}

impl Meter {
    pub(crate) fn new(module: impl Into<SharedString>) -> Self {
        let module = module.into();
        Self {
            answered: counter!("leasehold_sandbox_calls_total", "module" => module.clone(), "outcome" => "answered"),
            seconds: histogram!("leasehold_sandbox_call_seconds", "module" => module.clone()),
            fuel: histogram!("leasehold_sandbox_call_fuel", "module" => module.clone()),
            module,
        }
    }

    pub(crate) fn answered(&self, seconds: f64, fuel: u64) {
        self.answered.increment(1);
        self.seconds.record(seconds);
        #[expect(clippy::cast_precision_loss, reason = "a histogram is not exact")]
        self.fuel.record(fuel as f64);
    }

    pub(crate) fn failed(&self, error: &SandboxError) {
        let kind = match error {
            SandboxError::Trap(_) => "trap",
            SandboxError::Fuel => "fuel",
            SandboxError::Time => "time",
            SandboxError::Memory => "memory",
            SandboxError::Answer(_) => "answer",
            SandboxError::Failed(_) => "failed",
            SandboxError::Unknown(_) => "unknown",
            SandboxError::Loading => "loading",
            SandboxError::TooLong(_) => "too-long",
            SandboxError::Busy => "busy",
            SandboxError::Host(_) => "host",
        };
        counter!("leasehold_sandbox_calls_total", "module" => self.module.clone(), "outcome" => kind).increment(1);
    }

    /// Counts what failed, hands everything through.
    pub(crate) fn seen<T>(&self, result: Result<T, SandboxError>) -> Result<T, SandboxError> {
        if let Err(error) = &result {
            self.failed(error);
        }
        result
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("module", &self.module).finish_non_exhaustive()
    }
}
