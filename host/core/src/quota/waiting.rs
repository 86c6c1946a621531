//! How many requests of one entity wait for approval, counted in the commits in which one begins or ends to wait.
//!
//! Must not know: what such a request is. A key stands for each of them ([`keys::waits_of`]); whoever puts or deletes one cannot forget to
//! count it.
//!
//! Start with [`changed`], then [`counted`].

use std::collections::BTreeMap;

use crate::codec::encode;
use crate::commit::{Stored, read};
use crate::keys;
use crate::seams::storage::{Batch, Change, Key, Storage, StorageError};

/// Each of them may have 64 KiB of data.
pub(super) const WAITING_MAX: u64 = 1_000;

/// By how many more or fewer requests of each entity wait after this batch.
pub(super) fn changed(batch: &Batch) -> BTreeMap<String, i64> {
    let mut changed = BTreeMap::new();
    for change in &batch.0 {
        let (key, by) = match change {
            Change::Put { key, .. } => (key, 1),
            Change::Delete { key, .. } => (key, -1),
            _ => continue,
        };
        if let Some(entity) = keys::waits_of_whom(key) {
            *changed.entry(entity.to_owned()).or_insert(0) += by;
        }
    }
    changed
}

/// The batch with the counts that belong to it, and where those stand.
///
/// # Errors
/// [`StorageError::TooManyWaiting`], or as storage.
pub(super) async fn counted(
    storage: &dyn Storage,
    mut batch: Batch,
    changed: &BTreeMap<String, i64>,
) -> Result<(Batch, Vec<Key>), StorageError> {
    let mut places = Vec::with_capacity(changed.len());
    for (entity, by) in changed {
        let key = keys::waiting_count(entity);
        let Stored { record, unchanged } = read::<u64>(storage, &key).await?;
        let waiting = record.unwrap_or_default();
        let count = waiting.saturating_add_signed(*by);
        if *by > 0 && count > WAITING_MAX {
            return Err(StorageError::TooManyWaiting(waiting));
        }
        batch = match (count, record) {
            (0, Some(_)) => batch.delete_expecting(key.clone(), unchanged),
            (0, None) => batch.check(key.clone(), unchanged),
            _ => batch.put(key.clone(), encode(&count)?, unchanged),
        };
        places.push(key);
    }
    Ok((batch, places))
}
