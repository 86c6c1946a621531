//! The store as everything above it sees it: each commit of a request is held against what the request was decided by.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_model::{LeaseId, Timestamp, Ttl};

use super::{Nodes, admission};
use crate::keys;
use crate::rows::lease::LeaseRow;
use crate::rows::state::{LeaseKind, LeaseState};
use crate::seams::seal::SealError;
use crate::seams::storage::{Batch, Change, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned};

pub(crate) struct Watched {
    storage: Arc<dyn Storage>,
    nodes: Arc<Nodes>,
}

impl Watched {
    pub(crate) fn new(storage: Arc<dyn Storage>, nodes: Arc<Nodes>) -> Self {
        Self { storage, nodes }
    }
}

impl Nodes {
    /// A write of the keys, which goes past the store that requests see: of a request it is held against its decision like any commit.
    ///
    /// # Errors
    /// As `write`; [`StorageError::Overtaken`].
    pub(crate) async fn write_keys<T>(
        &self,
        write: impl Future<Output = Result<T, SealError>>,
    ) -> Result<T, SealError> {
        let writing = self.writing.read().await;
        let is_first = self.check_decision()?;
        let done = write.await;
        let wrote = matches!(done, Ok(_) | Err(SealError::Storage(StorageError::Unavailable(_))));
        if is_first && !wrote {
            self.wrote_nothing();
        } else if wrote {
            // Nothing is decided by a data key; whoever has replaced the root key settles that.
            admission::ends_turn();
        }
        drop(writing);
        done
    }
}

#[async_trait]
impl Storage for Watched {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.storage.now().await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.storage.changes(since).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.storage.get(key).await
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.storage.scan(prefix, after, limit).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.storage.names(of, prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.storage.lease(id).await
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.storage.leases(filter, page).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.storage.count_leases().await
    }

    async fn recount_leases(&self) -> Result<u64, StorageError> {
        self.storage.recount_leases().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let is_cached = |change: &Change| matches!(change, Change::Put { key, .. } | Change::Delete { key, .. } if keys::is_cached(key));
        let changes_memory = batch.0.iter().any(is_cached);
        let writing = self.nodes.writing.read().await;
        let is_first = self.nodes.check_decision()?;
        let done = self.storage.commit(batch).await;
        let is_refused =
            matches!(done, Err(StorageError::Conflict(_) | StorageError::NotEmpty(_) | StorageError::Fenced(_)));
        if is_first && (is_refused || matches!(done, Err(StorageError::Expelled))) {
            self.nodes.wrote_nothing();
        }
        // Also one that is said to have failed: it may have happened.
        if changes_memory && !is_refused {
            admission::changes_memory();
        } else if done.is_ok() {
            admission::ends_turn();
        }
        drop(writing);
        if matches!(done, Err(StorageError::Conflict(_))) {
            self.nodes.step_aside().await;
        }
        done
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.storage.claim_due(holder, limit, hold_for, skip).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        let _writing = self.nodes.writing.read().await;
        let is_first = self.nodes.check_decision()?;
        let claimed = self.storage.claim(holder, id, hold_for).await;
        if is_first && !matches!(claimed, Ok(Some(_)) | Err(StorageError::Unavailable(_))) {
            self.nodes.wrote_nothing();
        } else {
            admission::ends_turn();
        }
        claimed
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.storage.next_due().await
    }
}
