//! Commits whose outcome the store could not tell.

use crate::seams::storage::{Batch, Key, Storage, StorageError};

/// Commits a batch that puts `value` under `key`. When the store says that it failed and it happened all the same, it has
/// happened: otherwise what is in memory and what is stored would differ until the next start.
///
/// # Errors
/// As the store's; nothing was written then, as far as can be told.
pub(crate) async fn commit_surely(
    storage: &dyn Storage,
    batch: Batch,
    key: &Key,
    value: &[u8],
) -> Result<(), StorageError> {
    let Err(error) = storage.commit(batch).await else { return Ok(()) };
    match error {
        StorageError::Unavailable(_) => match storage.get(key).await {
            Ok(Some(stored)) if stored.value == value => Ok(()),
            _ => Err(error),
        },
        known => Err(known),
    }
}

/// Commits a batch that deletes `key`; as [`commit_surely`].
///
/// # Errors
/// As the store's; nothing was deleted then, as far as can be told.
pub(crate) async fn delete_surely(storage: &dyn Storage, batch: Batch, key: &Key) -> Result<(), StorageError> {
    let Err(error) = storage.commit(batch).await else { return Ok(()) };
    match error {
        StorageError::Unavailable(_) if matches!(storage.get(key).await, Ok(None)) => Ok(()),
        known => Err(known),
    }
}
