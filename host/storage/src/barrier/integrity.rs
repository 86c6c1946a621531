//! One digest over everything under `sys/`: it shows rows that were removed, added or put back from outside.
//!
//! Each value opens under its own key only, so that nobody can forge one or move it. But whoever can write the store could delete a
//! policy, or restore yesterday's. The digest is the sum, modulo 2²⁵⁶, of a keyed hash of every row as it is stored, so a change costs
//! the hashes of the rows that it touches; it is stored sealed, in the same commit. Unsealing sums up all rows and compares.
//!
//! A copy of the whole store is consistent in itself: that somebody put back all of it cannot be seen from within.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use leasehold_core::keys;
use leasehold_core::seams::seal::SealError;
use leasehold_core::seams::storage::{Change, Expect, Key, StorageError};
use serde::{Deserialize, Serialize};

use super::Barrier;
use super::ring::Ring;

/// Keys per call to the store.
const PAGE: u32 = 1_000;
/// How often unsealing sums up again because another server wrote meanwhile.
const TRIES: u32 = 8;

/// Whether a key's row is part of the digest.
pub(super) fn covers(key: &Key) -> bool {
    keys::is_cached(key) && !keys::is_outside_barrier(key) && *key != keys::integrity()
}

/// The rows counted, and the sum of their hashes, big endian.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digest {
    rows: u64,
    sum: [u8; 32],
}

/// Hashes rows under a key of their own.
pub(super) struct Hasher(hmac::Key);

impl Hasher {
    pub(super) fn of(ring: &Ring) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*ring.derive("integrity of sys/").0))
    }

    fn hash(&self, key: &Key, stored: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&u64::try_from(key.as_str().len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(key.as_str().as_bytes());
        context.update(stored);
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl Digest {
    fn add(&mut self, hash: [u8; 32]) {
        let mut carry = 0_u16;
        for (to, from) in self.sum.iter_mut().zip(hash).rev() {
            carry += u16::from(*to) + u16::from(from);
            [_, *to] = carry.to_be_bytes();
            carry >>= 8;
        }
        self.rows = self.rows.wrapping_add(1);
    }

    fn subtract(&mut self, hash: [u8; 32]) {
        let mut borrow = 0_i16;
        for (to, from) in self.sum.iter_mut().zip(hash).rev() {
            let difference = i16::from(*to) - i16::from(from) - borrow;
            borrow = i16::from(difference < 0);
            [_, *to] = difference.to_be_bytes();
        }
        self.rows = self.rows.wrapping_sub(1);
    }
}

impl Barrier {
    /// The digest as stored, and what its next writer must expect. Where none is stored, no row is.
    async fn stored_digest(&self, ring: &Ring) -> Result<(Digest, Expect), StorageError> {
        let key = keys::integrity();
        let damaged = || StorageError::Corrupt(key.as_str().to_owned());
        let Some(stored) = self.inner.get(&key).await? else { return Ok((Digest::default(), Expect::Absent)) };
        let plain = ring.open(key.as_str().as_bytes(), stored.value).ok_or_else(damaged)?;
        let digest = serde_json::from_slice(&plain).map_err(|_| damaged())?;
        Ok((digest, Expect::Version(stored.version)))
    }

    /// The change that makes the digest follow these changes, which are sealed already. It conflicts when another server has
    /// changed anything under `sys/` since.
    pub(super) async fn digest_after(&self, ring: &Ring, changes: &[Change]) -> Result<Change, StorageError> {
        let (mut digest, expect) = self.stored_digest(ring).await?;
        let hasher = Hasher::of(ring);
        let mut rows: BTreeMap<&Key, Option<Vec<u8>>> = BTreeMap::new();
        for change in changes {
            let (key, after) = match change {
                Change::Put { key, value, .. } if covers(key) => (key, Some(value.clone())),
                Change::Delete { key, .. } if covers(key) => (key, None),
                _ => continue,
            };
            let before = match rows.remove(key) {
                Some(staged) => staged,
                None => self.inner.get(key).await?.map(|stored| stored.value),
            };
            if let Some(before) = before {
                digest.subtract(hasher.hash(key, &before));
            }
            if let Some(after) = &after {
                digest.add(hasher.hash(key, after));
            }
            rows.insert(key, after);
        }
        self.put_digest(ring, &digest, expect)
    }

    fn put_digest(&self, ring: &Ring, digest: &Digest, expect: Expect) -> Result<Change, StorageError> {
        let key = keys::integrity();
        let plain = serde_json::to_vec(digest).map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let value = self.seal_bytes(ring, key.as_str().as_bytes(), plain)?;
        Ok(Change::Put { key, value, expect })
    }

    /// Sums up the rows that are there.
    async fn summed_up(&self, ring: &Ring) -> Result<Digest, StorageError> {
        let hasher = Hasher::of(ring);
        let (mut digest, mut after, all) = (Digest::default(), None, Key::new(keys::CACHED));
        loop {
            let page = self.inner.scan(&all, after.as_ref(), PAGE).await?;
            for key in page.iter().filter(|key| covers(key)) {
                if let Some(stored) = self.inner.get(key).await? {
                    digest.add(hasher.hash(key, &stored.value));
                }
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => return Ok(digest),
            }
        }
    }

    /// Compares the rows with the stored digest.
    ///
    /// # Errors
    /// [`SealError::Invalid`] when they differ, with what the operator can do.
    pub(super) async fn check_integrity(&self, ring: &Ring) -> Result<(), SealError> {
        let mut found = Digest::default();
        let mut stored = Digest::default();
        for _ in 0..TRIES {
            let (before, expect) = self.stored_digest(ring).await?;
            (found, stored) = (self.summed_up(ring).await?, before);
            if found == stored {
                return Ok(());
            }
            if self.stored_digest(ring).await?.1 == expect {
                break;
            }
        }
        Err(SealError::Invalid(format!(
            "the stored configuration was changed outside this server: {} rows under `sys/` were written, {} are there{}. Restore the \
             storage from a backup, or start the server once with `-accept-changed-storage` to go on with what is there",
            stored.rows,
            found.rows,
            if found.rows == stored.rows { ", and some of them are not the ones that were written" } else { "" },
        )))
    }

    /// The change that makes the digest say what is there.
    pub(super) async fn adopt_rows(&self, ring: &Ring) -> Result<Change, StorageError> {
        let digest = self.summed_up(ring).await?;
        let stored = self.inner.get(&keys::integrity()).await?;
        let expect = stored.map_or(Expect::Absent, |stored| Expect::Version(stored.version));
        self.put_digest(ring, &digest, expect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_forgets_nothing_and_needs_no_order() {
        let hashes = [[0xff; 32], [1; 32], [0x80; 32], [0; 32], [0xfe; 32]];
        let sum_of = |order: &[usize]| {
            let mut digest = Digest::default();
            order.iter().for_each(|at| digest.add(hashes[*at]));
            digest
        };
        assert_eq!(sum_of(&[0, 1, 2, 3, 4]), sum_of(&[4, 2, 0, 3, 1]));
        let mut digest = sum_of(&[0, 1, 2, 3, 4]);
        digest.subtract(hashes[2]);
        assert_eq!(digest, sum_of(&[0, 1, 3, 4]));
        assert_ne!(digest, sum_of(&[0, 1, 2, 4]));
        [0, 1, 3, 4].iter().for_each(|at| digest.subtract(hashes[*at]));
        assert_eq!(digest, Digest::default());
    }
}
