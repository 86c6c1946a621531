//! The one source of randomness.

use aws_lc_rs::rand;
use leasehold_core::seams::host::Entropy;

/// The operating system's generator, through AWS-LC.
#[derive(Debug)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if rand::fill(bytes).is_err() {
            // Every token, key and password would be guessable: no answer is better than that one.
            std::process::abort();
        }
    }
}
