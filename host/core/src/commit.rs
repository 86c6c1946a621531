//! Records that are read, changed and stored again: the store's versions decide between writers, not a lock of this process.
//!
//! Each table in memory follows the same order: read the stored record, decide, commit with what was read as the condition, and only then
//! change the copy in memory. A conflict means that somebody else was faster; the decision is then made again from what they stored.

use serde::de::DeserializeOwned;

use crate::codec::decode;
use crate::seams::storage::{Batch, Expect, Key, Listed, Storage, StorageError};

/// How often a decision is made again because another writer was faster, before the request fails.
pub(crate) const TRIES: u32 = 32;

/// Keys read at once.
const PAGE: u32 = 1_000;

/// What is stored under a key, and what a commit must expect for it to be still so.
#[derive(Debug)]
pub(crate) struct Stored<T> {
    pub record: Option<T>,
    pub unchanged: Expect,
}

/// Reads one record.
///
/// # Errors
/// As the store's; `Corrupt` for what cannot be read.
pub(crate) async fn read<T: DeserializeOwned>(storage: &dyn Storage, key: &Key) -> Result<Stored<T>, StorageError> {
    Ok(match storage.get(key).await? {
        Some(stored) => {
            Stored { record: Some(decode(key.as_str(), &stored.value)?), unchanged: Expect::Version(stored.version) }
        }
        None => Stored { record: None, unchanged: Expect::Absent },
    })
}

/// Reads every record whose key begins with `prefix`, in the order of their keys.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_all<T: DeserializeOwned>(
    storage: &dyn Storage,
    prefix: &Key,
) -> Result<Vec<(Key, T)>, StorageError> {
    let mut records = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = storage.scan(prefix, after.as_ref(), PAGE).await?;
        let Some(last) = page.last().cloned() else { return Ok(records) };
        for key in page {
            // A record that is deleted while the others are read is left out.
            if let Some(record) = read(storage, &key).await?.record {
                records.push((key, record));
            }
        }
        after = Some(last);
    }
}

/// At most `most` names below a prefix, those after `after`, page by page: see [`Storage::names`].
///
/// # Errors
/// As the store's.
pub(crate) async fn names_below(
    storage: &dyn Storage,
    of: Listed,
    prefix: &str,
    after: &str,
    most: usize,
) -> Result<Vec<String>, StorageError> {
    let mut names: Vec<String> = Vec::new();
    while names.len() < most {
        let last = names.last().map_or(after, String::as_str);
        let wanted = u32::try_from(most - names.len()).map_or(PAGE, |wanted| wanted.min(PAGE));
        let page = storage.names(of, prefix, last, wanted).await?;
        let is_last = page.len() < wanted as usize;
        names.extend(page);
        if is_last {
            break;
        }
    }
    Ok(names)
}

/// What a commit demands of a row that is there only for its version: who changes any record of a table writes this row as well, so
/// that two changes whose rules look at the whole table cannot both be made.
///
/// # Errors
/// As the store's.
pub(crate) async fn table_unchanged(storage: &dyn Storage, key: &Key) -> Result<Expect, StorageError> {
    Ok(storage.get(key).await?.map_or(Expect::Absent, |stored| Expect::Version(stored.version)))
}

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

/// Whether another writer was faster, so that the decision is to be made again.
///
/// # Errors
/// Any other failure.
pub(crate) fn was_overtaken(committed: Result<(), StorageError>) -> Result<bool, StorageError> {
    match committed {
        Ok(()) => Ok(false),
        Err(StorageError::Conflict(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What a request hears that was overtaken [`TRIES`] times.
pub(crate) fn overtaken_too_often(key: &Key) -> StorageError {
    StorageError::Unavailable(format!("`{}` is changed all the time by others", key.as_str()))
}
