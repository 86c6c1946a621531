//! A whole store on its way: out of one store, into another one, or into a file and back.
//!
//! Must not know: what a value means, or how a file looks. Values travel as the barrier sealed them; nothing here needs a key.
//!
//! Start with [`WholeStore`].
//!
//! Invariants: what leaves a store is its content at one moment; what replaces it does so in one step, or not at all.

use std::fmt;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::storage::{Key, Storage, StorageError};
use crate::rows::lease::LeaseRow;

/// One thing that a store holds. Versions of values stay behind: they are the store's own.
#[derive(Clone, PartialEq, Eq)]
pub enum Record {
    Value { key: Key, value: Vec<u8> },
    Lease(LeaseRow),
}

impl Record {
    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Value { key, value } => key.as_str().len() + value.len(),
            Self::Lease(row) => {
                row.id.as_str().len() + row.body.len() + row.connection.len() + row.token.as_str().len()
            }
        }
    }
}

/// Names it; its contents are what the barrier seals.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, .. } => write!(f, "Value({})", key.as_str()),
            Self::Lease(row) => write!(f, "Lease({})", row.id),
        }
    }
}

/// What a store is told to hold instead of what it holds. Without [`Piece::End`] the sender has failed, and nothing is replaced.
#[derive(Debug)]
pub enum Piece {
    Records(Vec<Record>),
    End,
}

/// Records travel in groups: of at most this many, or of about this many bytes.
pub const GROUP_RECORDS: usize = 512;
pub const GROUP_BYTES: usize = 256 << 10;
/// Groups that wait between two who work at different speeds.
pub const GROUPS_WAITING: usize = 4;

/// Gathers records into groups.
#[derive(Debug, Default)]
pub struct Grouping {
    group: Vec<Record>,
    bytes: usize,
}

impl Grouping {
    /// Takes one more; gives a group once it is large enough.
    pub fn add(&mut self, record: Record) -> Option<Vec<Record>> {
        self.bytes += record.size();
        self.group.push(record);
        (self.group.len() >= GROUP_RECORDS || self.bytes >= GROUP_BYTES).then(|| self.rest())
    }

    /// What has been gathered since the last group.
    pub fn rest(&mut self) -> Vec<Record> {
        self.bytes = 0;
        std::mem::take(&mut self.group)
    }
}

/// A store that can be copied as a whole. A barrier is none: what lies beneath it is.
#[async_trait]
pub trait WholeStore: Storage {
    /// Sends all that is stored, as it is at one moment: values in the order of their keys, then lease rows in the order of their ids.
    /// Gives the number of the last change that is in it.
    ///
    /// Nothing is held for longer than the receiver takes; it should write to a file, not to a client.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names a row that cannot be read; [`StorageError::Unavailable`] also when the receiver is gone.
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError>;

    /// Puts what is sent in the place of all that is stored, in one step. Versions go on: whatever is there afterwards has a greater one
    /// than it ever had, and [`Storage::changes`] since any moment before says that everything must be read again.
    ///
    /// # Errors
    /// Nothing was replaced, also when the sender was gone before [`Piece::End`]. (Where a store is away, its error may hide that the
    /// step was taken, as with a commit.)
    async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError>;
}

/// What a store says when the other end of a copy is gone.
#[must_use]
pub fn cut_short() -> StorageError {
    StorageError::Unavailable("the copy was cut short".to_owned())
}
