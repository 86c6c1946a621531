//! Everything that is random in a history, from its seed.

use std::sync::Mutex;
use std::time::Duration;

/// SplitMix64. Who asks when is decided by the scheduler, and the scheduler by what was answered: one seed, one history.
pub struct Chance(Mutex<u64>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give histories that look alike.
        Self(Mutex::new(seed.wrapping_mul(0xA24B_AED4_963E_E407) ^ 0x9FB2_1C65_1E98_DF25))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From zero to just below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap())).unwrap()
    }

    /// As often as that in a hundred.
    pub fn percent(&self, often: u64) -> bool {
        self.below(100) < often
    }

    /// From `least` to just below `limit`.
    pub fn millis(&self, least: u64, limit: u64) -> Duration {
        Duration::from_millis(least + self.below(limit.saturating_sub(least)))
    }
}
