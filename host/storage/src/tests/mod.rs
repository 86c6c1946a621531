//! Every store against the suite, stores against each other, and what only durable stores promise.

mod crash;
mod durable;
mod histories;

use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::seams::storage::Storage;
use leasehold_core::testing::{CountingEntropy, ManualClock};
use tempfile::TempDir;

use crate::conformance::{self, Fixture, START_SECS};
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

pub(crate) async fn unsealed(inner: Arc<dyn Storage>) -> Barrier {
    let barrier = Barrier::new(inner, clock(), Arc::new(CountingEntropy::default()));
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
