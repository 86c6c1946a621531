//! Every store against the suite, stores against each other, and what only durable stores promise.

mod crash;
mod durable;
mod histories;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{
    Batch, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
use leasehold_core::testing::{CountingEntropy, ManualClock};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::conformance::{self, Copied, Fixture, START_SECS};
use crate::{Barrier, MemoryStorage, SqliteStorage};

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START_SECS))
}

/// A database in a directory of its own, which the caller must keep.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leasehold.db");
    (directory, file)
}

pub(crate) async fn unsealed(inner: Arc<dyn WholeStore>) -> Barrier {
    let barrier = Barrier::new(inner, Arc::new(CountingEntropy::default()));
    barrier.init_and_unseal_dev().await.unwrap();
    barrier
}

fn sqlite(directory: &TempDir) -> (Arc<ManualClock>, SqliteStorage) {
    let clock = clock();
    // A file of its own for each fact.
    let count = std::fs::read_dir(directory.path()).unwrap().count();
    let file = directory.path().join(format!("{count}.db"));
    (Arc::clone(&clock), SqliteStorage::open(file, clock).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_what_every_store_promises() {
    conformance::run(|| async {
        let clock = clock();
        Fixture { storage: Arc::new(MemoryStorage::new(clock.clone())), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_what_every_store_promises() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run(|| async {
        let (clock, storage) = sqlite(&directory);
        Fixture { storage: Arc::new(storage), clock }
    })
    .await;
}

/// Writes go through one handle, reads through another: what one promises must hold for both together.
#[derive(Debug)]
pub(crate) struct TwoHandles<S> {
    pub(crate) first: S,
    pub(crate) second: S,
    pub(crate) turn: AtomicUsize,
}

impl<S> TwoHandles<S> {
    /// Now the one, now the other.
    fn next(&self) -> &S {
        if self.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { &self.first } else { &self.second }
    }
}

#[async_trait]
impl<S: Storage> Storage for TwoHandles<S> {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.next().now().await
    }
    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.next().changes(since).await
    }
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.next().get(key).await
    }
    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.next().scan(prefix, after, limit).await
    }
    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.next().names(of, prefix, after, limit).await
    }
    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.next().lease(id).await
    }
    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.next().leases(filter, page).await
    }
    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.next().count_leases().await
    }
    async fn recount_leases(&self) -> Result<u64, StorageError> {
        self.next().recount_leases().await
    }
    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        self.next().commit(batch).await
    }
    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.next().claim_due(holder, limit, hold_for, skip).await
    }
    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        self.next().claim(holder, id, hold_for).await
    }
    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.next().next_due().await
    }
}

#[async_trait]
impl<S: WholeStore> WholeStore for TwoHandles<S> {
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
        self.next().export(into).await
    }
    async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
        self.next().replace(from).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_copied_as_every_store_is() {
    conformance::run_copies(|| async {
        let clock = clock();
        Copied { storage: Arc::new(MemoryStorage::new(clock.clone())), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_copied_as_every_store_is() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run_copies(|| async {
        let (clock, storage) = sqlite(&directory);
        Copied { storage: Arc::new(storage), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_with_two_handles_is_copied_as_every_store_is() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run_copies(|| async {
        let clock = clock();
        let count = std::fs::read_dir(directory.path()).unwrap().count();
        let file = directory.path().join(format!("{count}.db"));
        let first = SqliteStorage::open(&file, clock.clone()).unwrap();
        let second = SqliteStorage::open_beside(&file, clock.clone()).unwrap();
        Copied { storage: Arc::new(TwoHandles { first, second, turn: AtomicUsize::new(0) }), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_file_keep_what_every_store_promises() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run(|| async {
        let clock = clock();
        let count = std::fs::read_dir(directory.path()).unwrap().count();
        let file = directory.path().join(format!("{count}.db"));
        let first = SqliteStorage::open(&file, clock.clone()).unwrap();
        let second = SqliteStorage::open_beside(&file, clock.clone()).unwrap();
        Fixture { storage: Arc::new(TwoHandles { first, second, turn: AtomicUsize::new(0) }), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_over_memory_keeps_what_every_store_promises() {
    conformance::run(|| async {
        let clock = clock();
        let storage = unsealed(Arc::new(MemoryStorage::new(clock.clone()))).await;
        Fixture { storage: Arc::new(storage), clock }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_over_sqlite_keeps_what_every_store_promises() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run(|| async {
        let (clock, storage) = sqlite(&directory);
        Fixture { storage: Arc::new(unsealed(Arc::new(storage)).await), clock }
    })
    .await;
}
