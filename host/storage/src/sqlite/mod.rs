//! The embedded store: one SQLite file, one server.
//!
//! Must not know: what a value means, or that a barrier seals it.
//!
//! Start with [`open`] (the file, our lock, the schema), then [`writer`] (one thread, one transaction for the commits of
//! many requests) and [`reader`] (a pool of connections for point reads on the caller's own thread).
//!
//! Invariants: a commit is answered only after SQLite's `COMMIT` has returned with `synchronous=FULL`; a batch that
//! conflicts spoils no other batch of its transaction; two servers never have one file open.

mod copy;
mod open;
mod reader;
mod recognise;
mod rows;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::storage::{
    Batch, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::{Piece, Record, WholeStore, cut_short};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use tokio::sync::mpsc;

pub use open::OpenError;

use crate::memory::matches;
use reader::Readers;
use writer::Writer;

/// Durable: what `commit` has answered survives `kill -9` and a power cut.
pub struct SqliteStorage {
    clock: Arc<dyn Clock>,
    readers: Arc<Readers>,
    writer: Writer,
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage").finish_non_exhaustive()
    }
}

/// Lists up to this long are read on the caller's thread; longer ones would hold up its other requests.
const INLINE_ROWS_MAX: u32 = 32;

impl SqliteStorage {
    /// Opens the file at `path`, or makes it (mode 0600); its directory must exist. Blocks for as long as migrations take.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another server has it open; the other variants say what is wrong with the file.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let opened = open::open(path.as_ref())?;
        open::release_claims(&opened, clock.now())?;
        let readers = Arc::new(Readers::new(path.as_ref().to_owned()));
        let writer = Writer::start(opened, Arc::clone(&clock))?;
        Ok(Self { clock, readers, writer })
    }

    /// A second handle on a file that is open already, past the lock that keeps a second server out: what one handle promises must
    /// hold for two.
    ///
    /// # Errors
    /// As [`SqliteStorage::open`].
    #[cfg(test)]
    pub(crate) fn open_beside(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let opened = open::open_beside(path.as_ref())?;
        let readers = Arc::new(Readers::new(path.as_ref().to_owned()));
        let writer = Writer::start(opened, Arc::clone(&clock))?;
        Ok(Self { clock, readers, writer })
    }

    /// Reads on this thread when `limit` is small, else on a blocking one.
    async fn list<T: Send + 'static>(
        &self,
        limit: u32,
        read: impl FnOnce(&rusqlite::Connection) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        if limit <= INLINE_ROWS_MAX {
            return self.readers.read(read);
        }
        let readers = Arc::clone(&self.readers);
        let done = tokio::task::spawn_blocking(move || readers.read(read)).await;
        done.unwrap_or_else(|_| Err(StorageError::Unavailable("reading was cut short".to_owned())))
    }

    /// The rows of a token that has few, which are most. `None`: it is not that.
    fn few_of_a_token(&self, filter: &LeaseFilter, page: &Page) -> Result<Option<Vec<LeaseRow>>, StorageError> {
        let (Some(token), None) = (&filter.token, &page.after) else { return Ok(None) };
        let mut rows = self.readers.read(|connection| reader::leases_of(connection, token, INLINE_ROWS_MAX))?;
        if rows.len() >= INLINE_ROWS_MAX as usize {
            return Ok(None);
        }
        rows.retain(|row| matches(row, filter));
        rows.truncate(page.limit as usize);
        Ok(Some(rows))
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        Ok(self.clock.now())
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.list(u32::MAX, move |connection| reader::changes(connection, since)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.readers.read(|connection| reader::get(connection, key))
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        // Most have few or none below them.
        let few = limit.min(INLINE_ROWS_MAX);
        let found = self.readers.read(|connection| reader::scan(connection, prefix, after, few))?;
        if few == limit || found.len() < few as usize {
            return Ok(found);
        }
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.list(limit, move |connection| reader::scan(connection, &prefix, after.as_ref(), limit)).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.list(limit, move |connection| reader::names(connection, of, &prefix, &after, limit)).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.readers.read(|connection| reader::lease(connection, id))
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        if let Some(found) = self.few_of_a_token(filter, page)? {
            return Ok(found);
        }
        let (filter, page) = (filter.clone(), page.clone());
        self.list(page.limit, move |connection| reader::leases(connection, &filter, &page)).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.list(u32::MAX, reader::count_leases).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        self.writer.commit(batch).await
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.writer.claim_due(holder, limit, hold_for, skip).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        self.writer.claim(holder, id, hold_for).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.readers.read(reader::next_due)
    }
}

#[async_trait]
impl WholeStore for SqliteStorage {
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
        let connection = self.readers.connect().map_err(unavailable)?;
        let done = tokio::task::spawn_blocking(move || copy::export(&connection, &into)).await;
        done.unwrap_or_else(|_| Err(cut_short()))
    }

    async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
        // A connection of its own: the one that writes for requests waits meanwhile, and reads its counters anew.
        let mut connection = self.readers.connect_to_write().map_err(unavailable)?;
        let done = tokio::task::spawn_blocking(move || copy::replace(&mut connection, from)).await;
        done.unwrap_or_else(|_| Err(cut_short()))
    }
}

/// SQLite's own words, which name tables and codes but never a bound value.
fn unavailable(error: rusqlite::Error) -> StorageError {
    StorageError::Unavailable(error.to_string())
}
