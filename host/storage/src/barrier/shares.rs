//! Splitting a key, by Shamir's scheme, and putting it together: the root key, or the recovery key where a wrapper opens the root key.

use std::convert::Infallible;

use aws_lc_rs::digest;
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
/// [`SealError::Invalid`] for numbers that make no sense, in Vault's words. `what` is what the shares are for: `seal` or `recovery`.
pub(super) fn check(shares: u8, threshold: u8, what: &str) -> Result<(), SealError> {
    let why = if shares == 0 {
        "shares must be at least one"
    } else if threshold == 0 && (shares == 1 || what == "seal") {
        "threshold must be at least one"
    } else if threshold > shares {
        "threshold cannot be larger than shares"
    } else if shares > 1 && threshold <= 1 {
        "threshold must be greater than one for multiple shares"
    } else {
        return Ok(());
    };
    Err(SealError::Invalid(format!("invalid {what} configuration: {why}")))
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

/// Names a share without saying anything about it.
pub(super) fn digest(share: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"leasehold unseal share 1\0");
    context.update(share);
    hex::encode(context.finish())
}

/// All shares of a key, from enough of them. `None`: these are none.
pub(super) fn all(parts: &[Zeroizing<Vec<u8>>], shares: u8, threshold: u8) -> Option<Vec<KeyShare>> {
    if let ([only], 1) = (parts, threshold) {
        return Some(vec![KeyShare(only.clone())]);
    }
    let known: Vec<Share> = parts.iter().map(|part| Share::try_from(part.as_slice())).collect::<Result<_, _>>().ok()?;
    (1..=shares).map(|place| share_at(place, &known, threshold)).collect()
}

/// The library finds the value at zero, where the key is. Moved by `place`, which is to add it in this field, what stands at
/// `place` stands at zero.
fn share_at(place: u8, known: &[Share], threshold: u8) -> Option<KeyShare> {
    let here = known.iter().find(|share| share.x.0 == place);
    let y = match here {
        Some(share) => share.y.iter().map(|value| value.0).collect(),
        None => {
            let moved = known.iter().cloned().map(|mut share| {
                share.x.0 ^= place;
                share
            });
            Sharks(threshold).recover(&moved.collect::<Vec<Share>>()).ok()?
        }
    };
    let mut share = Zeroizing::new(vec![place]);
    share.extend(y);
    Some(KeyShare(share))
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

#[cfg(test)]
mod tests {
    use leasehold_core::testing::CountingEntropy;

    use super::*;

    #[test]
    fn enough_shares_give_all_the_others() {
        let root = [0x5a; KEY_LEN];
        for (shares, threshold) in [(1, 1), (2, 2), (5, 3), (7, 7), (40, 12)] {
            let dealt = split(&CountingEntropy::default(), &root, shares, threshold);
            let plain = |shares: &[KeyShare]| shares.iter().map(|share| share.0.to_vec()).collect::<Vec<_>>();
            let given: Vec<_> = dealt.iter().rev().take(threshold.into()).map(|share| share.0.clone()).collect();
            assert_eq!(plain(&all(&given, shares, threshold).unwrap()), plain(&dealt), "{threshold} of {shares}");
        }
    }
}
