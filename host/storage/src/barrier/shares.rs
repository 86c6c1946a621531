//! Splitting the root key, by Shamir's scheme, and putting it together.

use std::convert::Infallible;

use blahaj::{Share, Sharks};
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::seal::{KeyShare, SealError};
use rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

use super::ring::KEY_LEN;

/// Shortest and longest share that is taken at all; Vault's numbers.
pub(super) const SHARE_LEN_MIN: usize = 16;
pub(super) const SHARE_LEN_MAX: usize = KEY_LEN + 1;

/// # Errors
/// [`SealError::Invalid`] for numbers that make no sense, in Vault's words.
pub(super) fn check(shares: u8, threshold: u8) -> Result<(), SealError> {
    let why = if shares == 0 {
        "shares must be at least one"
    } else if threshold == 0 {
        "threshold must be at least one"
    } else if threshold > shares {
        "threshold cannot be larger than shares"
    } else if shares > 1 && threshold == 1 {
        "threshold must be greater than one for multiple shares"
    } else {
        return Ok(());
    };
    Err(SealError::Invalid(format!("invalid seal configuration: {why}")))
}

/// One share is the key itself; of several each has one byte more, which tells them apart.
pub(super) fn split(entropy: &dyn Entropy, root: &[u8; KEY_LEN], shares: u8, threshold: u8) -> Vec<KeyShare> {
    if shares == 1 {
        return vec![KeyShare(Zeroizing::new(root.to_vec()))];
    }
    let dealer = Sharks(threshold);
    let dealt = dealer.dealer_rng(root, &mut Dice(entropy)).take(usize::from(shares));
    dealt.map(|share| KeyShare(Zeroizing::new(Vec::from(&share)))).collect()
}

/// # Errors
/// [`SealError::Invalid`], in Vault's words, when these cannot be shares of one key. Shares that fit each other may
/// still give a wrong key.
pub(super) fn combine(parts: &[Zeroizing<Vec<u8>>], threshold: u8) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if let ([only], 1) = (parts, threshold) {
        return Ok(only.clone());
    }
    let failed = |why: &str| SealError::Invalid(format!("invalid key: failed to compute combined key: {why}"));
    let mut shares: Vec<Share> = Vec::with_capacity(parts.len());
    for part in parts {
        let share = Share::try_from(part.as_slice()).map_err(failed)?;
        if shares.iter().any(|other| other.y.len() != share.y.len()) {
            return Err(failed("all parts must be the same length"));
        }
        if shares.iter().any(|other| other.x == share.x) {
            return Err(failed("duplicate part detected"));
        }
        shares.push(share);
    }
    let root = Sharks(threshold).recover(&shares).map_err(failed)?;
    Ok(Zeroizing::new(root))
}

/// Our one source of randomness, as the library wants it.
struct Dice<'a>(&'a dyn Entropy);

impl TryRng for Dice<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Dice<'_> {}
