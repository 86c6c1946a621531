//! How long to wait after a failed try, of a revocation or of a job.

use std::time::Duration;

use crate::seams::host::Entropy;

/// First wait after a failed try; doubles up to [`BACKOFF_MAX`].
const BACKOFF_BASE: Duration = Duration::from_secs(10);
/// A database restart with recovery fits in it.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How long that many failed tries in a row take at least.
pub(crate) fn elapsed(attempts: u32) -> Duration {
    (1..=attempts).fold(Duration::ZERO, |sum, attempts| sum.saturating_add(doubled(attempts)))
}

fn doubled(attempts: u32) -> Duration {
    BACKOFF_BASE.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

/// The wait after so many failed tries in a row: doubling, with a quarter of jitter so that many leases of one dead target do not come
/// back together.
#[must_use]
pub fn backoff(attempts: u32, entropy: &dyn Entropy) -> Duration {
    let doubled = doubled(attempts);
    let mut byte = [0_u8; 1];
    entropy.fill(&mut byte);
    doubled + doubled.mul_f64(f64::from(byte[0]) / 1_020.0)
}
