//! A view of storage that cannot leave `mount/<accessor>/`.

use std::fmt;
use std::sync::Arc;

use leasehold_model::MountAccessor;

use crate::commit::names_below;
use crate::keys;
use crate::seams::storage::{Batch, Change, Expect, Key, Listed, Storage, StorageError, Versioned};

/// How many names one step of [`MountStorage::names`] reads.
const PAGE: u32 = 1_000;

/// An engine's own corner. Names are relative to it.
#[derive(Clone)]
pub struct MountStorage {
    storage: Arc<dyn Storage>,
    accessor: MountAccessor,
}

impl fmt::Debug for MountStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MountStorage({})", self.accessor)
    }
}

/// Changes in one corner, written all or nothing. Names are relative to it.
#[derive(Clone, Debug, Default)]
pub struct MountBatch(Vec<MountChange>);

#[derive(Clone)]
enum MountChange {
    Put(String, Vec<u8>, Expect),
    Delete(String, Expect),
    Check(String, Expect),
}

impl fmt::Debug for MountChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(name, _, expect) => write!(f, "Put({name}, {expect:?})"),
            Self::Delete(name, expect) => write!(f, "Delete({name}, {expect:?})"),
            Self::Check(name, expect) => write!(f, "Check({name}, {expect:?})"),
        }
    }
}

impl MountBatch {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn put(mut self, name: impl Into<String>, value: Vec<u8>, expect: Expect) -> Self {
        self.0.push(MountChange::Put(name.into(), value, expect));
        self
    }

    #[must_use]
    pub fn delete(mut self, name: impl Into<String>, expect: Expect) -> Self {
        self.0.push(MountChange::Delete(name.into(), expect));
        self
    }

    /// Only a condition.
    #[must_use]
    pub fn check(mut self, name: impl Into<String>, expect: Expect) -> Self {
        self.0.push(MountChange::Check(name.into(), expect));
        self
    }
}

impl MountStorage {
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, accessor: MountAccessor) -> Self {
        Self { storage, accessor }
    }

    fn key(&self, name: &str) -> Key {
        keys::mount_data(&self.accessor, name)
    }

    /// # Errors
    /// As [`Storage::get`].
    pub async fn get(&self, name: &str) -> Result<Option<Versioned>, StorageError> {
        self.storage.get(&self.key(name)).await
    }

    /// # Errors
    /// [`StorageError::Conflict`] when `expect` does not hold.
    pub async fn put(&self, name: &str, value: Vec<u8>, expect: Expect) -> Result<(), StorageError> {
        self.storage.commit(Batch::new().put(self.key(name), value, expect)).await
    }

    /// # Errors
    /// As [`Storage::commit`].
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.storage.commit(Batch::new().delete(self.key(name))).await
    }

    /// Removes everything below a folder, page by page: not in one step.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub async fn remove_below(&self, folder: &str) -> Result<(), StorageError> {
        loop {
            let page = self.list(folder, None, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let gone = page.iter().fold(Batch::new(), |batch, name| batch.delete(self.key(&format!("{folder}{name}"))));
            self.storage.commit(gone).await?;
        }
    }

    /// At most `most` names directly below a folder, after `after` (empty: from the first one on); what lies deeper is one name, with
    /// a slash.
    ///
    /// # Errors
    /// As [`Storage::names`].
    pub async fn names(&self, folder: &str, after: &str, most: usize) -> Result<Vec<String>, StorageError> {
        names_below(&*self.storage, Listed::Values, self.key(folder).as_str(), after, most).await
    }

    /// Writes a whole batch in one atomic step.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when an expectation does not hold: nothing was written.
    pub async fn commit(&self, batch: MountBatch) -> Result<(), StorageError> {
        self.storage.commit(self.batch(batch)).await
    }

    /// A batch as the whole store sees it.
    #[must_use]
    pub fn batch(&self, batch: MountBatch) -> Batch {
        let changes = batch.0.into_iter().map(|change| match change {
            MountChange::Put(name, value, expect) => Change::Put { key: self.key(&name), value, expect },
            MountChange::Delete(name, expect) => Change::Delete { key: self.key(&name), expect },
            MountChange::Check(name, expect) => Change::Check { key: self.key(&name), expect },
        });
        Batch(changes.collect())
    }

    /// Names directly or deeper below `folder` (`role/`), without it, in byte order; at most `limit`, after `after`.
    ///
    /// # Errors
    /// As [`Storage::scan`].
    pub async fn list(&self, folder: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError> {
        let prefix = self.key(folder);
        let after = after.map(|name| self.key(&format!("{folder}{name}")));
        let keys = self.storage.scan(&prefix, after.as_ref(), limit).await?;
        Ok(keys.iter().filter_map(|key| key.as_str().strip_prefix(prefix.as_str())).map(str::to_owned).collect())
    }
}
