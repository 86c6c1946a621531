//! Snapshots: everything that is stored, in one file, as the barrier sealed it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_model::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::storage::StorageError;

/// A file without a name that ends with its last handle. What is in it may be read by several at once.
pub struct Spool {
    file: File,
    len: u64,
    /// Among the files that are kept at once.
    _place: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Spool {
    /// What has been written to `file`, which holds `len` bytes.
    #[must_use]
    pub fn new(file: File, len: u64) -> Self {
        Self { file, len, _place: None }
    }

    /// Gives the place back when the file ends.
    #[must_use]
    pub fn in_place(self, place: OwnedSemaphorePermit) -> Self {
        Self { _place: Some(place), ..self }
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads at `offset`; 0 at the end. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
}

/// Reads a spool from its beginning.
#[derive(Debug)]
pub struct SpoolReader {
    spool: Arc<Spool>,
    at: u64,
}

impl SpoolReader {
    #[must_use]
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { spool, at: 0 }
    }
}

impl io::Read for SpoolReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.spool.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// What a snapshot says of where it comes from. No secret.
#[derive(Clone, Debug)]
pub struct SnapshotOrigin {
    pub cluster_id: String,
    pub cluster_name: String,
    /// Of the server.
    pub version: String,
    pub storage_type: String,
    pub made_at: Timestamp,
}

/// Whose snapshot may be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// Of this installation: its seal shows that nothing in it was changed.
    OwnOnly,
    /// Of any: its keys are not here, so only its digests are compared.
    Any,
}

/// What is in a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotFacts {
    pub id: String,
    pub cluster_id: String,
    pub values: u64,
    pub leases: u64,
}

/// A snapshot that has been read to its end and found whole.
#[derive(Debug)]
pub struct CheckedSnapshot {
    pub spool: Arc<Spool>,
    pub facts: SnapshotFacts,
    /// Of the records in it, SHA-256.
    pub digest: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not a snapshot, or not whole. The text says where.
    #[error("{0}")]
    Damaged(String),
    /// It is whole, and this installation's keys have not sealed it.
    #[error("the snapshot was sealed with other keys")]
    Foreign,
    /// Others are being made or restored.
    #[error("{0}")]
    Busy(&'static str),
    #[error("{0}")]
    Disk(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Makes snapshots and puts them back. The barrier does: it has the keys that authenticate them.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Everything that is stored at one moment.
    ///
    /// # Errors
    /// Sealed; as the store.
    async fn save(&self, origin: SnapshotOrigin) -> Result<Arc<Spool>, SnapshotError>;
    /// Reads all of a snapshot and compares what there is to compare. Writes nothing.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`], [`SnapshotError::Foreign`].
    async fn check(&self, spool: Arc<Spool>, from: Provenance) -> Result<CheckedSnapshot, SnapshotError>;
    /// Seals the barrier and puts the snapshot in the place of all that is stored, in one step. The barrier stays sealed: the
    /// snapshot's keys open it.
    ///
    /// # Errors
    /// As the store; nothing was replaced, and the barrier is sealed.
    async fn restore(&self, snapshot: CheckedSnapshot) -> Result<(), SnapshotError>;
}
