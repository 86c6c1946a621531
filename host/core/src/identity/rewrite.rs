//! Records that are found by several rows, changed together with those rows in one commit.
//!
//! Must not know: what the records are about.
//!
//! Start with [`Rewrite`]: it is told what was and what is to be, and makes of that the least batch that leads from one to the other.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::encode;
use crate::commit::read;
use crate::seams::storage::{Batch, Expect, Key, Storage, StorageError};

/// A record with the rows by which it is found.
pub(super) trait Indexed: Serialize {
    /// Of the record itself.
    fn key(&self) -> Key;
    /// Every row by which it is found. No two records have the same.
    fn rows(&self) -> Vec<(Key, Vec<u8>)>;
    /// What must be there when the record begins to name it.
    fn relies_on(&self) -> Vec<Key>;
}

/// A record that was read, and what a commit must expect for it to be still so.
#[derive(Clone, Debug)]
pub struct AsStored<T> {
    pub record: T,
    pub(super) unchanged: Expect,
}

/// # Errors
/// As storage.
pub(super) async fn as_stored<T: DeserializeOwned>(
    storage: &dyn Storage,
    key: &Key,
) -> Result<Option<AsStored<T>>, StorageError> {
    let stored = read::<T>(storage, key).await?;
    Ok(stored.record.map(|record| AsStored { record, unchanged: stored.unchanged }))
}

/// Some records as they were and as they are to be.
#[derive(Debug)]
pub(super) struct Rewrite<T> {
    before: Vec<AsStored<T>>,
    after: Vec<T>,
}

/// What leads to a record under one key.
#[derive(Default)]
struct Row {
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

impl<T: Indexed> Rewrite<T> {
    pub(super) const fn new() -> Self {
        Self { before: Vec::new(), after: Vec::new() }
    }

    /// One that is not there yet.
    pub(super) fn create(mut self, record: T) -> Self {
        self.after.push(record);
        self
    }

    /// One that was read.
    pub(super) fn replace(mut self, before: AsStored<T>, after: T) -> Self {
        self.before.push(before);
        self.after.push(after);
        self
    }

    /// One that goes.
    pub(super) fn delete(mut self, before: AsStored<T>) -> Self {
        self.before.push(before);
        self
    }

    /// All of it in one commit. A conflict: one of the records has changed, or another has taken a row of theirs.
    pub(super) fn into_batch(self) -> Result<Batch, StorageError> {
        let mut records: BTreeMap<Key, (Expect, Option<Vec<u8>>)> = BTreeMap::new();
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        // By whether it is relied on already.
        let mut relied_on: BTreeMap<Key, bool> = BTreeMap::new();
        for AsStored { record, unchanged } in &self.before {
            records.insert(record.key(), (*unchanged, None));
            for (key, value) in record.rows() {
                rows.entry(key).or_default().before = Some(value);
            }
            relied_on.extend(record.relies_on().into_iter().map(|key| (key, true)));
        }
        for record in &self.after {
            records.entry(record.key()).or_insert((Expect::Absent, None)).1 = Some(encode(record)?);
            for (key, value) in record.rows() {
                rows.entry(key).or_default().after = Some(value);
            }
            for key in record.relies_on() {
                relied_on.entry(key).or_insert(false);
            }
        }
        let mut batch = Batch::new();
        for (key, (expect, value)) in records {
            batch = match value {
                Some(value) => batch.put(key, value, expect),
                None => batch.delete_expecting(key, expect),
            };
        }
        for (key, Row { before, after }) in rows {
            batch = match (before, after) {
                (Some(before), Some(after)) if before == after => batch,
                (Some(_), Some(after)) => batch.put(key, after, Expect::Present),
                (None, Some(after)) => batch.put(key, after, Expect::Absent),
                (_, None) => batch.delete(key),
            };
        }
        let new = relied_on.into_iter().filter(|(_, is_old)| !is_old);
        Ok(new.fold(batch, |batch, (key, _)| batch.check(key, Expect::Present)))
    }
}
