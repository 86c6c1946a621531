//! The count of one quota, spread over places, so that leases can begin and end beside each other.
//!
//! Each place counts some leases and may count so many at most. The sum of what they count is the number of leases, and the sum of what
//! they may count is the quota's maximum. A lease that begins needs one place that is not full: whoever has found one, and commits by its
//! version, has not gone beyond the maximum, whatever the other places count. A lease that ends is taken off any place.
//!
//! Invariant: a place counts more than it may only where it is the only one, after a quota was written that has fewer than there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use leasehold_model::lock::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::table::LeaseCount;
use crate::codec::{decode, encode};
use crate::keys;
use crate::seams::storage::{Expect, Key, Storage, StorageError};

/// More of them let more leases begin at once, and make a look at all of them longer.
const PLACES_MAX: u64 = 16;
/// A quota that has fewer leases than this for each place has fewer places.
const LEASES_FOR_A_PLACE: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub used: u64,
    pub most: u64,
}

/// A change of one place, to be committed with what it counts.
pub(super) struct Taken {
    pub key: Key,
    pub value: Vec<u8>,
    pub unchanged: Expect,
    /// Nobody else of this server changes the place meanwhile: its tasks take turns, and only servers can overtake each other.
    _turn: OwnedMutexGuard<()>,
}

/// What came of looking for a place.
pub(super) enum Found {
    Place(Taken),
    /// No place has room for a further lease, or none has one to take off.
    None,
}

/// The turns of this server's tasks at places.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turns: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    next: AtomicUsize,
}

impl Turns {
    fn of(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.lock().entry(key.clone()).or_default().clone()
    }

    /// Forgets those of quotas that are there no more.
    pub(super) fn keep_only(&self, quotas: &[LeaseCount]) {
        let known = |key: &Key| {
            quotas.iter().any(|quota| key.as_str().starts_with(keys::lease_count_places(&quota.id).as_str()))
        };
        self.turns.lock().retain(|key, _| known(key));
    }

    /// A place of `quota` that `by` leases can be added to or, where that is negative, taken off from.
    ///
    /// # Errors
    /// As storage.
    pub(super) async fn find(&self, storage: &dyn Storage, quota: &LeaseCount, by: i64) -> Result<Found, StorageError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = quota.places.max(1);
        let mut busy = Vec::new();
        for place in 0..count as usize {
            let place = u32::try_from((first + place) % count as usize).unwrap_or_default();
            let key = keys::lease_count_place(&quota.id, place);
            match self.of(&key).try_lock_owned() {
                Ok(turn) => {
                    if let Some(taken) = take(storage, key, by, turn).await? {
                        return Ok(Found::Place(taken));
                    }
                }
                Err(_) => busy.push(key),
            }
        }
        for key in busy {
            let turn = self.of(&key).lock_owned().await;
            if let Some(taken) = take(storage, key, by, turn).await? {
                return Ok(Found::Place(taken));
            }
        }
        Ok(Found::None)
    }
}

async fn take(
    storage: &dyn Storage,
    key: Key,
    by: i64,
    turn: OwnedMutexGuard<()>,
) -> Result<Option<Taken>, StorageError> {
    let Some((place, version)) = read(storage, &key).await? else { return Ok(None) };
    let used = match place.used.checked_add_signed(by) {
        Some(used) if by <= 0 || used <= place.most => used,
        _ => return Ok(None),
    };
    let value = encode(&Place { used, ..place })?;
    Ok(Some(Taken { key, value, unchanged: Expect::Version(version), _turn: turn }))
}

async fn read(storage: &dyn Storage, key: &Key) -> Result<Option<(Place, u64)>, StorageError> {
    match storage.get(key).await? {
        Some(found) => Ok(Some((decode(key.as_str(), &found.value)?, found.version))),
        None => Ok(None),
    }
}

/// All places of a quota, with their versions.
///
/// # Errors
/// As storage.
pub(super) async fn all(storage: &dyn Storage, quota: &LeaseCount) -> Result<Vec<(Key, Place, u64)>, StorageError> {
    let mut places = Vec::new();
    for place in 0..quota.places {
        let key = keys::lease_count_place(&quota.id, place);
        if let Some((place, version)) = read(storage, &key).await? {
            places.push((key, place, version));
        }
    }
    Ok(places)
}

/// How many leases a quota counts.
///
/// # Errors
/// As storage.
pub(super) async fn sum(storage: &dyn Storage, quota: &LeaseCount) -> Result<u64, StorageError> {
    Ok(all(storage, quota).await?.iter().map(|(_, place, _)| place.used).sum())
}

/// The places of a quota that counts `used` leases.
pub(super) fn spread(used: u64, most: u64) -> Vec<Place> {
    // While there are more than there may be, one place decides: others would have room as soon as one of theirs ends.
    let count = if used >= most { 1 } else { (most / LEASES_FOR_A_PLACE).clamp(1, PLACES_MAX) };
    let share = |of: u64, at: u64| of / count + u64::from(at < of % count);
    (0..count).map(|at| Place { used: share(used, at), most: share(most, at) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_a_quota_count_what_there_is_and_may_count_what_it_allows() {
        for (used, most, places) in
            [(0, 1, 1), (0, 15, 1), (3, 16, 2), (0, 128, 16), (99, 1_000, 16), (7, 7, 1), (90, 7, 1)]
        {
            let spread = spread(used, most);
            assert_eq!(spread.len(), places, "{used} of {most}");
            assert_eq!(spread.iter().map(|place| place.used).sum::<u64>(), used, "{used} of {most}");
            assert_eq!(spread.iter().map(|place| place.most).sum::<u64>(), most, "{used} of {most}");
            assert!(spread.len() == 1 || spread.iter().all(|place| place.used <= place.most), "{spread:?}");
        }
    }
}
