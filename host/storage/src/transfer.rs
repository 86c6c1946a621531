//! From one store into another of any kind, without a key: what was sealed stays sealed.
//!
//! Must not know: which kinds of stores they are, or what a value means.
//!
//! Start with [`transfer`].
//!
//! Invariants: what is there afterwards has the same digest as what was read, or a mark says that it is unfinished; a server refuses a
//! store with that mark ([`unfinished`]). Killed anywhere, the destination is empty, or bears the mark, or is whole. The mark says how far
//! the copy has come and changes in the same commit as what it speaks of, so that the next try writes only what is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_core::fail;
use leasehold_core::keys;
use leasehold_core::seams::snapshot::SnapshotError;
use leasehold_core::seams::storage::{Batch, Expect, Key, LeaseFilter, Page, Storage, StorageError};
use leasehold_core::seams::store_copy::{GROUPS_WAITING, Piece, Record, WholeStore, cut_short};
use serde::{Deserialize, Serialize};
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
    /// Values and leases that an earlier try had written already.
    pub found: u64,
    /// An earlier try had left something of which this one could make no use.
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
    #[error("the destination could not be written: start the migration again, and it goes on from there")]
    Destination(#[source] StorageError),
    #[error("what was written could not be read again: the destination is marked as unfinished")]
    Unread(#[source] StorageError),
    #[error(
        "what is in the destination is not what was read (SHA-256 {found} in place of {wanted}): it is marked as unfinished"
    )]
    Differs { wanted: String, found: String },
}

/// What the mark in an unfinished destination says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Where it comes from.
    source: String,
    /// How far the copy has come: all up to here is written.
    last: Option<Place>,
    /// How many values and leases that is.
    written: u64,
}

/// A record's place in the order in which a store gives all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Place {
    Value(String),
    Lease(String),
}

impl Place {
    fn of(record: &Record) -> Self {
        match record {
            Record::Value { key, .. } => Self::Value(key.as_str().to_owned()),
            Record::Lease(row) => Self::Lease(row.id.as_str().to_owned()),
        }
    }
}

impl Mark {
    /// A mark of before marks said more than a name: nothing is known of how far that try came.
    fn read(bytes: &[u8]) -> (Self, bool) {
        match serde_json::from_slice(bytes) {
            Ok(mark) => (mark, true),
            Err(_) => (Self { source: String::from_utf8_lossy(bytes).into_owned(), ..Self::default() }, false),
        }
    }

    fn put(&self, batch: Batch, expect: Expect) -> Result<Batch, StorageError> {
        let written = serde_json::to_vec(self).map_err(|_| cut_short())?;
        Ok(batch.put(keys::unfinished(), written, expect))
    }
}

/// From where a store was to be filled when that did not come to its end.
///
/// # Errors
/// As the store.
pub async fn unfinished(store: &dyn Storage) -> Result<Option<String>, StorageError> {
    let mark = store.get(&keys::unfinished()).await?;
    Ok(mark.map(|mark| Mark::read(&mark.value).0.source))
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

/// Copies everything, or what an earlier try has not. `name` says in the mark where it comes from.
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
    let found = to.get(&keys::unfinished()).await.map_err(TransferError::Destination)?;
    let mut began_again = false;
    if let Some(stored) = found {
        let (mark, is_known) = Mark::read(&stored.value);
        if is_known && mark.source == name {
            match moved(from, to, mark, progress).await {
                // The source has changed since that try: a server was started on it.
                Err(TransferError::Differs { .. }) => {}
                other => return other,
            }
        }
        reset(to).await.map_err(TransferError::Destination)?;
        began_again = true;
    }
    if let Some(name) = first_name(to).await.map_err(TransferError::Destination)? {
        return Err(TransferError::NotEmpty(name));
    }
    let mark = Mark { source: name.to_owned(), ..Mark::default() };
    let marked = mark.put(Batch::new(), Expect::Absent).map_err(TransferError::Destination)?;
    to.commit(marked).await.map_err(TransferError::Destination)?;
    let moved = moved(from, to, mark, progress).await?;
    Ok(Transferred { began_again, ..moved })
}

/// From where the mark stands to the end, and then the comparison.
async fn moved(
    from: &dyn WholeStore,
    to: &dyn WholeStore,
    mark: Mark,
    progress: &Arc<Progress>,
) -> Result<Transferred, TransferError> {
    let already = mark.written;
    let read = copy(from, to, mark, progress).await?;
    fail::point("migrate-copied");
    let written = digest_of(to, progress).await.map_err(TransferError::Unread)?;
    let (wanted, found) = (hex::encode(read.digest()), hex::encode(written.digest()));
    if (&wanted, read.values, read.leases) != (&found, written.values, written.leases) {
        return Err(TransferError::Differs { wanted, found });
    }
    to.commit(Batch::new().delete(keys::unfinished())).await.map_err(TransferError::Unread)?;
    Ok(Transferred {
        values: read.values,
        leases: read.leases,
        bytes: read.len,
        digest: wanted,
        found: already,
        began_again: false,
    })
}

/// Something that a store holds, if it holds anything.
async fn first_name(store: &dyn WholeStore) -> Result<Option<String>, StorageError> {
    if let Some(key) = store.scan(&Key::new(""), None, 1).await?.pop() {
        return Ok(Some(key.as_str().to_owned()));
    }
    let rows = store.leases(&LeaseFilter::default(), &Page { after: None, limit: 1 }).await?;
    Ok(rows.into_iter().next().map(|row| row.id.to_string()))
}

/// Reads all of the source, and writes what lies behind the mark, group by group, each with the mark moved up in the same commit.
async fn copy(
    from: &dyn WholeStore,
    to: &dyn WholeStore,
    mut mark: Mark,
    progress: &Arc<Progress>,
) -> Result<StateWriter, TransferError> {
    let (groups, mut waiting) = mpsc::channel::<Vec<Record>>(GROUPS_WAITING);
    let (passing, taken) = mpsc::channel::<Vec<Record>>(GROUPS_WAITING);
    let progress = Arc::clone(progress);
    let pump = spawn_blocking(move || {
        let mut state = StateWriter::to_nothing();
        while let Some(group) = waiting.blocking_recv() {
            for record in &group {
                state.put(record).ok()?;
            }
            progress.values.store(state.values, Ordering::Relaxed);
            progress.leases.store(state.leases, Ordering::Relaxed);
            passing.blocking_send(group).ok()?;
        }
        Some(state)
    });
    let writing = async move {
        // Dropped at the end of this block, also of a failed one, so that whoever reads ends as well.
        let mut taken = taken;
        while let Some(mut group) = taken.recv().await {
            group.retain(|record| mark.last.as_ref().is_none_or(|last| Place::of(record) > *last));
            let Some(last) = group.last() else { continue };
            mark.last = Some(Place::of(last));
            mark.written += group.len() as u64;
            let batch = group.into_iter().fold(Batch::new(), |batch, record| match record {
                Record::Value { key, value } => batch.put(key, value, Expect::Absent),
                Record::Lease(row) => batch.insert(row),
            });
            to.commit(mark.put(batch, Expect::Present)?).await?;
            fail::point("migrate-group");
        }
        Ok::<_, StorageError>(())
    };
    let reading = async {
        let exported = from.export(groups).await;
        (exported, pump.await.ok().flatten())
    };
    let ((exported, state), written) = tokio::join!(reading, writing);
    match (written, exported, state) {
        (Err(error), ..) => Err(TransferError::Destination(error)),
        // Only now is it known that nothing is missing.
        (Ok(()), Ok(_), Some(state)) => Ok(state),
        (Ok(()), Err(error), _) => Err(TransferError::Source(error)),
        (Ok(()), Ok(_), None) => Err(TransferError::Source(cut_short())),
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
    use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
    use leasehold_core::seams::seal::Seal as _;
    use leasehold_core::seams::storage::{Changes, Listed, Versioned};
    use leasehold_model::{LeaseId, Timestamp, Ttl};

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

    /// A store that fails at its n-th commit, before it or after it.
    struct Failing {
        inner: Arc<dyn WholeStore>,
        left: AtomicU64,
        writes_first: bool,
        written: AtomicU64,
    }

    #[async_trait::async_trait]
    impl Storage for Failing {
        async fn now(&self) -> Result<Timestamp, StorageError> {
            self.inner.now().await
        }
        async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
            self.inner.changes(since).await
        }
        async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
            self.inner.get(key).await
        }
        async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
            self.inner.scan(prefix, after, limit).await
        }
        async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
            self.inner.names(of, prefix, after, limit).await
        }
        async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
            self.inner.lease(id).await
        }
        async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
            self.inner.leases(filter, page).await
        }
        async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
            self.inner.count_leases().await
        }
        async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
            let away = || StorageError::Unavailable("injected".to_owned());
            let is_last = self.left.fetch_sub(1, Ordering::Relaxed) == 1;
            if is_last && !self.writes_first {
                return Err(away());
            }
            self.written.fetch_add(batch.0.len() as u64, Ordering::Relaxed);
            self.inner.commit(batch).await?;
            if is_last { Err(away()) } else { Ok(()) }
        }
        async fn claim_due(&self, _: &str, _: u32, _: Ttl, _: &[String]) -> Result<Vec<LeaseRow>, StorageError> {
            Ok(Vec::new())
        }
        async fn claim(&self, _: &str, _: &LeaseId, _: Ttl) -> Result<Option<LeaseRow>, StorageError> {
            Ok(None)
        }
        async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
            Ok(None)
        }
    }

    #[async_trait::async_trait]
    impl WholeStore for Failing {
        async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
            self.inner.export(into).await
        }
        async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
            self.inner.replace(from).await
        }
    }

    /// More than one group of values and of leases, with names that sort by their bytes.
    async fn many() -> Arc<dyn WholeStore> {
        let inner = filled().await;
        for n in 0..1_300 {
            let batch = Batch::new().put(key(&format!("v/{n}/é")), vec![1; 40], Expect::Absent);
            inner.commit(batch.insert(row(&format!("d/{n}/x"), n))).await.unwrap();
        }
        inner
    }

    /// Ended at each of its commits, before and after it: the next try writes what is missing, and nothing twice.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_try_goes_on_where_the_one_before_it_ended() {
        let from = many().await;
        let whole = moved(&*from, &*memory()).await.unwrap();
        assert_eq!((whole.found, whole.began_again), (0, false));
        let (mut ends, mut went_on) = (0, 0);
        for writes_first in [false, true] {
            for commits in 1.. {
                let to = Arc::new(Failing {
                    inner: memory(),
                    left: AtomicU64::new(commits),
                    writes_first,
                    written: AtomicU64::default(),
                });
                if moved(&*from, &*to).await.is_ok() {
                    break;
                }
                ends += 1;
                let marked = unfinished(&*to).await.unwrap();
                let rest = if marked.is_some() || first_name(&*to).await.unwrap().is_none() {
                    moved(&*from, &*to).await.unwrap()
                } else {
                    // Its last step was done: it is whole.
                    assert!(writes_first);
                    moved(&*to, &*memory()).await.unwrap()
                };
                went_on += u64::from(rest.found > 0);
                let expected = Transferred { found: rest.found, ..whole.clone() };
                assert_eq!(rest, expected, "after {commits} commits, written first: {writes_first}");
                // The marks besides: one for each commit, and the one that goes at the end.
                let (written, all) = (to.written.load(Ordering::Relaxed), whole.values + whole.leases);
                assert!(written <= all + 40, "{written} changes for {all} records");
                assert!(unfinished(&*to).await.unwrap().is_none());
                assert_eq!(moved(&*to, &*memory()).await.unwrap().digest, whole.digest);
            }
        }
        assert!(ends >= 14 && went_on >= 8, "{ends} ends, {went_on} of them in the middle");
    }

    /// A server was started on the source in between, or the mark is that of another source, or one of before marks said how far.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_does_not_fit_the_source_any_more_is_begun_again() {
        let from = many().await;
        let ended = async |commits| {
            let inner = memory();
            let to = Failing {
                inner: Arc::clone(&inner),
                left: AtomicU64::new(commits),
                writes_first: true,
                written: AtomicU64::default(),
            };
            assert!(moved(&*from, &to).await.is_err());
            assert_eq!(unfinished(&*inner).await.unwrap().as_deref(), Some("the source"));
            assert!(matches!(moved(&*inner, &*memory()).await, Err(TransferError::SourceUnfinished(_))));
            inner
        };
        for change in [
            Batch::new().put(key("a"), vec![9], Expect::Absent),
            Batch::new().put(key("v/1/é"), vec![9], Expect::Present),
            Batch::new().delete(key("v/2/é")),
        ] {
            let to = ended(4).await;
            from.commit(change).await.unwrap();
            let done = moved(&*from, &*to).await.unwrap();
            assert!(done.began_again && done.found == 0, "{done:?}");
            assert_eq!(moved(&*to, &*memory()).await.unwrap().digest, done.digest);
        }
        for mark in [&b"the source"[..], b"{\"source\":\"another\",\"last\":null,\"written\":0}"] {
            let to = ended(3).await;
            to.commit(Batch::new().put(keys::unfinished(), mark.to_vec(), Expect::Present)).await.unwrap();
            to.commit(Batch::new().put(key("x"), vec![], Expect::Absent)).await.unwrap();
            assert!(moved(&*from, &*to).await.unwrap().began_again);
            assert!(to.get(&key("x")).await.unwrap().is_none() && unfinished(&*to).await.unwrap().is_none());
        }
        let to = ended(3).await;
        assert!(reset(&*to).await.unwrap());
        assert!(first_name(&*to).await.unwrap().is_none());
    }
}
