//! From one store into another of any kind, without a key: what was sealed stays sealed.
//!
//! Must not know: which kinds of stores they are, or what a value means.
//!
//! Start with [`transfer`].
//!
//! Invariants: what is there afterwards has the same digest as what was read, or a mark says that it is unfinished; a server refuses a
//! store with that mark ([`unfinished`]). Killed anywhere, the destination is as before, or bears the mark, or is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_core::keys;
use leasehold_core::seams::snapshot::SnapshotError;
use leasehold_core::seams::storage::{Batch, Key, LeaseFilter, Page, Storage, StorageError};
use leasehold_core::seams::store_copy::{GROUPS_WAITING, Piece, Record, WholeStore, cut_short};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::snapshot::writer::StateWriter;

/// How much has been done so far.
#[derive(Debug, Default)]
pub struct Progress {
    pub values: AtomicU64,
    pub leases: AtomicU64,
    /// The same while what was written is read again.
    pub compared: AtomicU64,
}

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transferred {
    pub values: u64,
    pub leases: u64,
    pub bytes: u64,
    /// SHA-256 over all keys, values and rows, in order: that of a snapshot's records.
    pub digest: String,
    /// An earlier try had not come to its end.
    pub began_again: bool,
}

/// Why nothing was moved. The text goes to the operator.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the source holds nothing: it has not been initialised")]
    Empty,
    #[error("the source is itself unfinished: it was to be filled from {0}")]
    SourceUnfinished(String),
    #[error("the destination is not empty (it has `{0}`): name an empty one")]
    NotEmpty(String),
    #[error("the source could not be read")]
    Source(#[source] StorageError),
    #[error("the destination could not be written: nothing is in it that was not there before")]
    Destination(#[source] StorageError),
    #[error("what was written could not be read again: the destination is marked as unfinished")]
    Unread(#[source] StorageError),
    #[error(
        "what is in the destination is not what was read (SHA-256 {found} in place of {wanted}): it is marked as unfinished"
    )]
    Differs { wanted: String, found: String },
}

/// From where a store was to be filled when that did not come to its end.
///
/// # Errors
/// As the store.
pub async fn unfinished(store: &dyn Storage) -> Result<Option<String>, StorageError> {
    let mark = store.get(&keys::unfinished()).await?;
    Ok(mark.map(|mark| String::from_utf8_lossy(&mark.value).into_owned()))
}

/// Empties a destination that bears the mark; `false`: it bears none, and stays as it is.
///
/// # Errors
/// As the store; it is as it was.
pub async fn reset(store: &dyn WholeStore) -> Result<bool, StorageError> {
    if unfinished(store).await?.is_none() {
        return Ok(false);
    }
    let (pieces, waiting) = mpsc::channel(1);
    pieces.send(Piece::End).await.map_err(|_| cut_short())?;
    store.replace(waiting).await?;
    Ok(true)
}

/// Copies everything. `name` says in the mark where it comes from.
///
/// # Errors
/// [`TransferError`] says what the destination is like then.
pub async fn transfer(
    from: &dyn WholeStore,
    to: &dyn WholeStore,
    name: &str,
    progress: &Arc<Progress>,
) -> Result<Transferred, TransferError> {
    if let Some(name) = unfinished(from).await.map_err(TransferError::Source)? {
        return Err(TransferError::SourceUnfinished(name));
    }
    if from.get(&keys::seal()).await.map_err(TransferError::Source)?.is_none() {
        return Err(TransferError::Empty);
    }
    let began_again = unfinished(to).await.map_err(TransferError::Destination)?.is_some();
    if !began_again && let Some(name) = first_name(to).await.map_err(TransferError::Destination)? {
        return Err(TransferError::NotEmpty(name));
    }
    let read = copy(from, to, name, progress).await?;
    let written = digest_of(to, progress).await.map_err(TransferError::Unread)?;
    let (wanted, found) = (hex::encode(read.digest()), hex::encode(written.digest()));
    if (&wanted, read.values, read.leases) != (&found, written.values, written.leases) {
        return Err(TransferError::Differs { wanted, found });
    }
    to.commit(Batch::new().delete(keys::unfinished())).await.map_err(TransferError::Unread)?;
    Ok(Transferred { values: read.values, leases: read.leases, bytes: read.len, digest: wanted, began_again })
}

/// Something that a store holds, if it holds anything.
async fn first_name(store: &dyn WholeStore) -> Result<Option<String>, StorageError> {
    if let Some(key) = store.scan(&Key::new(""), None, 1).await?.pop() {
        return Ok(Some(key.as_str().to_owned()));
    }
    let rows = store.leases(&LeaseFilter::default(), &Page { after: None, limit: 1 }).await?;
    Ok(rows.into_iter().next().map(|row| row.id.to_string()))
}

/// All of it and the mark, in one step of the destination.
async fn copy(
    from: &dyn WholeStore,
    to: &dyn WholeStore,
    name: &str,
    progress: &Arc<Progress>,
) -> Result<StateWriter, TransferError> {
    let (groups, mut waiting) = mpsc::channel::<Vec<Record>>(GROUPS_WAITING);
    let (pieces, taken) = mpsc::channel(GROUPS_WAITING);
    let mark = Record::Value { key: keys::unfinished(), value: name.as_bytes().to_vec() };
    let (passing, progress) = (pieces.clone(), Arc::clone(progress));
    let pump = spawn_blocking(move || {
        let mut state = StateWriter::to_nothing();
        passing.blocking_send(Piece::Records(vec![mark])).ok()?;
        while let Some(group) = waiting.blocking_recv() {
            for record in &group {
                state.put(record).ok()?;
            }
            progress.values.store(state.values, Ordering::Relaxed);
            progress.leases.store(state.leases, Ordering::Relaxed);
            passing.blocking_send(Piece::Records(group)).ok()?;
        }
        Some(state)
    });
    let reading = async move {
        let exported = from.export(groups).await;
        let state = pump.await.ok().flatten();
        match (exported, state) {
            // Only now is it known that nothing is missing.
            (Ok(_), Some(state)) => {
                pieces.send(Piece::End).await.map_err(|_| cut_short())?;
                Ok(state)
            }
            (Err(error), Some(_)) => Err(error),
            // The destination took no more: its error says why.
            (_, None) => Err(cut_short()),
        }
    };
    let (read, replaced) = tokio::join!(reading, to.replace(taken));
    match (read, replaced) {
        (Ok(state), Ok(())) => Ok(state),
        (Err(error), Err(other)) if error.to_string() == cut_short().to_string() => {
            Err(TransferError::Destination(other))
        }
        (Err(error), _) => Err(TransferError::Source(error)),
        (_, Err(error)) => Err(TransferError::Destination(error)),
    }
}

/// The digest of what a store holds, but for the mark.
async fn digest_of(store: &dyn WholeStore, progress: &Arc<Progress>) -> Result<StateWriter, StorageError> {
    let (groups, mut waiting) = mpsc::channel::<Vec<Record>>(GROUPS_WAITING);
    let progress = Arc::clone(progress);
    let reading = spawn_blocking(move || {
        let mut state = StateWriter::to_nothing();
        let is_mark = |record: &Record| matches!(record, Record::Value { key, .. } if *key == keys::unfinished());
        while let Some(group) = waiting.blocking_recv() {
            for record in group.iter().filter(|record| !is_mark(record)) {
                state.put(record)?;
            }
            progress.compared.store(state.values + state.leases, Ordering::Relaxed);
        }
        Ok::<_, SnapshotError>(state)
    });
    store.export(groups).await?;
    reading.await.map_err(|_| cut_short())?.map_err(|_| cut_short())
}

#[cfg(test)]
mod tests {
    use leasehold_core::seams::seal::Seal as _;
    use leasehold_core::seams::storage::Expect;

    use super::*;
    use crate::conformance::{key, row};
    use crate::tests::{clock, place, unsealed};
    use crate::{MemoryStorage, SqliteStorage};

    fn memory() -> Arc<dyn WholeStore> {
        Arc::new(MemoryStorage::new(clock()))
    }

    async fn filled() -> Arc<dyn WholeStore> {
        let inner = memory();
        let barrier = unsealed(Arc::clone(&inner)).await;
        barrier.commit(Batch::new().put(key("sys/p"), vec![1], Expect::Absent).insert(row("a/1", 9))).await.unwrap();
        barrier.seal().await;
        inner
    }

    async fn moved(from: &dyn WholeStore, to: &dyn WholeStore) -> Result<Transferred, TransferError> {
        transfer(from, to, "the source", &Arc::default()).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_goes_over_sealed_and_back() {
        let (_directory, file) = place();
        let (from, back) = (filled().await, memory());
        let to = SqliteStorage::open(file, clock()).unwrap();
        let there = moved(&*from, &to).await.unwrap();
        assert_eq!((there.leases, there.began_again), (1, false));
        assert_eq!(moved(&to, &*back).await.unwrap(), there, "the same digest there and back");
        assert!(unfinished(&to).await.unwrap().is_none() && unfinished(&*back).await.unwrap().is_none());
        assert!(to.get(&keys::keyring()).await.unwrap().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_there_is_not_written_over() {
        let (from, to) = (filled().await, memory());
        assert!(matches!(moved(&*to, &*memory()).await, Err(TransferError::Empty)));
        for batch in [Batch::new().put(key("x"), vec![], Expect::Absent), Batch::new().insert(row("b/1", 1))] {
            let to = memory();
            to.commit(batch).await.unwrap();
            assert!(matches!(moved(&*from, &*to).await, Err(TransferError::NotEmpty(_))));
            assert!(to.get(&keys::seal()).await.unwrap().is_none());
            assert!(!reset(&*to).await.unwrap(), "nor by a reset");
            assert!(first_name(&*to).await.unwrap().is_some());
        }
    }

    /// Killed between the copy and the end of the comparison.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_unfinished_destination_is_known_and_begun_again() {
        let (from, to) = (filled().await, memory());
        copy(&*from, &*to, "the source", &Arc::default()).await.unwrap();
        assert_eq!(unfinished(&*to).await.unwrap().as_deref(), Some("the source"));
        assert!(matches!(moved(&*to, &*memory()).await, Err(TransferError::SourceUnfinished(_))));
        // Whatever is in it meanwhile goes.
        to.commit(Batch::new().put(key("x"), vec![], Expect::Absent)).await.unwrap();
        assert!(moved(&*from, &*to).await.unwrap().began_again);
        assert!(to.get(&key("x")).await.unwrap().is_none() && unfinished(&*to).await.unwrap().is_none());
        copy(&*from, &*to, "the source", &Arc::default()).await.unwrap();
        assert!(reset(&*to).await.unwrap());
        assert!(first_name(&*to).await.unwrap().is_none());
    }
}
