//! A view of storage that cannot leave `mount/<accessor>/`.

use std::fmt;
use std::sync::Arc;

use leasehold_model::MountAccessor;

use crate::keys;
use crate::seams::storage::{Batch, Expect, Key, Storage, StorageError, Versioned};

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

    /// Writes several values all or nothing.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when an expectation does not hold; nothing was written.
    pub async fn commit(&self, batch: MountBatch) -> Result<(), StorageError> {
        let changes = batch.0.into_iter().fold(Batch::new(), |all, change| match change {
            MountChange::Put { name, value, expect } => all.put(self.key(&name), value, expect),
            MountChange::Delete { name } => all.delete(self.key(&name)),
            MountChange::Check { name, expect } => all.check(self.key(&name), expect),
        });
        self.storage.commit(changes).await
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

/// Changes to an engine's own corner, written in one step by [`MountStorage::commit`].
#[derive(Default)]
pub struct MountBatch(Vec<MountChange>);

enum MountChange {
    Put { name: String, value: Vec<u8>, expect: Expect },
    Delete { name: String },
    Check { name: String, expect: Expect },
}

/// Values stay out of it.
impl fmt::Debug for MountBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MountBatch({} changes)", self.0.len())
    }
}

impl MountBatch {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn put(mut self, name: impl Into<String>, value: Vec<u8>, expect: Expect) -> Self {
        self.0.push(MountChange::Put { name: name.into(), value, expect });
        self
    }

    #[must_use]
    pub fn delete(mut self, name: impl Into<String>) -> Self {
        self.0.push(MountChange::Delete { name: name.into() });
        self
    }

    /// Only a condition.
    #[must_use]
    pub fn check(mut self, name: impl Into<String>, expect: Expect) -> Self {
        self.0.push(MountChange::Check { name: name.into(), expect });
        self
    }
}
