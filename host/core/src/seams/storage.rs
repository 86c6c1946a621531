//! Where bytes and lease rows are kept.

use std::fmt;

use async_trait::async_trait;
use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash, Ttl};

pub use crate::keys::Key;
use crate::rows::lease::LeaseRow;
use crate::rows::state::{LeaseKind, LeaseState};
use crate::seams::nodes::{Attendance, NodeReport};

/// A value with the number that its next writer must name. Versions of one key only grow.
#[derive(Clone)]
pub struct Versioned {
    pub value: Vec<u8>,
    pub version: u64,
}

impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What a batch demands of a key before anything of it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    Present,
    Version(u64),
}

#[derive(Clone)]
pub enum Change {
    Put {
        key: Key,
        value: Vec<u8>,
        expect: Expect,
    },
    Delete {
        key: Key,
        expect: Expect,
    },
    /// Only a condition.
    Check {
        key: Key,
        expect: Expect,
    },
    /// Only a condition, asked when all else of the batch is written: no key starts with `prefix`. It holds at the moment of the commit
    /// where whoever puts one there names a key in the same batch, be it as a condition, that this batch writes.
    Empty {
        prefix: Key,
    },
    /// As [`Change::Empty`]: `token` has no lease row, whatever its kind, but the one with the id `but`.
    NoLeases {
        token: TokenHash,
        but: LeaseId,
    },
    /// A new lease row; its id must not exist.
    Insert(LeaseRow),
    /// Replaces a lease row if it is in state `from` and its fence is `fence`. A row with an empty body leaves the stored one as
    /// it is; a barrier has bound that one to the row's kind, end, token, mount and connection, which must then stay as well.
    Move {
        row: LeaseRow,
        from: LeaseState,
        fence: u64,
    },
    /// Deletes a lease row if its fence is `fence`.
    Remove {
        id: LeaseId,
        fence: u64,
    },
}

/// Written all or nothing, in one atomic step.
#[derive(Clone, Default)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The changes in the order in which a store takes them.
    #[must_use]
    pub fn in_order(mut self) -> Vec<Change> {
        self.0.sort_by_key(|change| matches!(change, Change::Empty { .. } | Change::NoLeases { .. }));
        self.0
    }

    /// Whether it holds only where there is nothing.
    #[must_use]
    pub fn expects_nothing(&self) -> bool {
        self.0.iter().any(|change| matches!(change, Change::Empty { .. } | Change::NoLeases { .. }))
    }

    #[must_use]
    pub fn put(mut self, key: Key, value: Vec<u8>, expect: Expect) -> Self {
        self.0.push(Change::Put { key, value, expect });
        self
    }

    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.0.push(Change::Delete { key, expect: Expect::Anything });
        self
    }

    /// Deletes a key only if it is as `expect` says.
    #[must_use]
    pub fn delete_expecting(mut self, key: Key, expect: Expect) -> Self {
        self.0.push(Change::Delete { key, expect });
        self
    }

    #[must_use]
    pub fn check(mut self, key: Key, expect: Expect) -> Self {
        self.0.push(Change::Check { key, expect });
        self
    }

    #[must_use]
    pub fn check_empty(mut self, prefix: Key) -> Self {
        self.0.push(Change::Empty { prefix });
        self
    }

    #[must_use]
    pub fn check_no_leases(mut self, token: TokenHash, but: LeaseId) -> Self {
        self.0.push(Change::NoLeases { token, but });
        self
    }

    #[must_use]
    pub fn insert(mut self, row: LeaseRow) -> Self {
        self.0.push(Change::Insert(row));
        self
    }

    #[must_use]
    pub fn shift(mut self, row: LeaseRow, from: LeaseState, fence: u64) -> Self {
        self.0.push(Change::Move { row, from, fence });
        self
    }

    #[must_use]
    pub fn remove(mut self, id: LeaseId, fence: u64) -> Self {
        self.0.push(Change::Remove { id, fence });
        self
    }
}

/// Outlines only: values are what the barrier seals.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, expect, .. } => write!(f, "Put({}, {expect:?})", key.as_str()),
            Self::Delete { key, expect } => write!(f, "Delete({}, {expect:?})", key.as_str()),
            Self::Check { key, expect } => write!(f, "Check({}, {expect:?})", key.as_str()),
            Self::Empty { prefix } => write!(f, "Empty({})", prefix.as_str()),
            Self::NoLeases { token, but } => write!(f, "NoLeases({token}, {but})"),
            Self::Insert(row) => write!(f, "Insert({row:?})"),
            Self::Move { row, from, fence } => write!(f, "Move({row:?}, {from:?}, {fence})"),
            Self::Remove { id, fence } => write!(f, "Remove({id}, {fence})"),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} changes)", self.0.len())
    }
}

/// What has changed under the cached prefix (see [`keys::CACHED`](crate::keys::CACHED)) since a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These keys were written or deleted. `next` is what to ask from next time.
    Keys { keys: Vec<Key>, next: u64 },
    /// The store no longer knows all deletions since then: whatever is kept must be read again as a whole.
    All { next: u64 },
}

/// Which lease rows to list; every field that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    pub id_prefix: Option<String>,
    pub token: Option<TokenHash>,
    pub mount: Option<MountAccessor>,
    /// The target, as [`LeaseRow::connection`] names it.
    pub connection: Option<String>,
    pub state: Option<LeaseState>,
    /// None: secrets and tokens. Jobs are listed only when they are asked for, so that nothing takes one for a lease.
    pub kind: Option<LeaseKind>,
}

#[derive(Clone, Debug)]
pub struct Page {
    /// Rows after this id, in id order.
    pub after: Option<LeaseId>,
    pub limit: u32,
}

/// What a folder's names are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// The keys of values.
    Values,
    /// The ids of secrets and tokens. A job is no lease, and is left out.
    Leases,
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("Vault is sealed")]
    Sealed,
    /// An expectation of a batch did not hold; nothing was written.
    #[error("changed in the meantime: `{0}`")]
    Conflict(String),
    /// What a batch expects to be empty is not: the prefix, or the token that has leases. Nothing was written.
    #[error("there is something below `{0}`")]
    NotEmpty(String),
    /// The lease row is held by somebody else, in another state, or gone; nothing was written.
    #[error("lease `{0}` is no longer held")]
    Fenced(LeaseId),
    /// A value that this barrier cannot open: damaged, or moved to another key.
    #[error("stored value `{0}` is damaged")]
    Corrupt(String),
    /// A lease would have begun beyond the maximum of the quota that counts it; nothing was written.
    #[error("request path \"{path}\": lease count quota exceeded")]
    LeaseQuotaExceeded {
        path: String,
        /// What allows no more, in words: `quota "q"`.
        limit: String,
        max_leases: u64,
        /// In how many seconds a lease of it ends by itself, where that was looked up.
        retry_secs: Option<u64>,
    },
    /// So many requests of one entity wait for approval already, and there may be no more; nothing was written.
    #[error("{0} requests wait for approval already")]
    TooManyWaiting(u64),
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// This server is off the list of those that work on the store: another one has taken it off, or the store has failed over. Nothing
    /// was written.
    #[error(
        "this server is not on the list of those that work on the storage, because it was silent for too long or the storage has failed over: \
         it joins again by itself"
    )]
    Expelled,
    /// What the request was decided by has changed before its first write; nothing was written.
    #[error("what this request was decided by has changed meanwhile")]
    Overtaken,
}

/// Keeps values and lease rows. Every call is one atomic step; no transaction outlives a call. When `commit` has
/// returned, what it wrote survives `kill -9` (durable stores).
#[async_trait]
pub trait Storage: Send + Sync {
    /// The time by the store's own clock, which all servers over it share. Whatever is stored, or compared with what is stored,
    /// is reckoned by it.
    async fn now(&self) -> Result<Timestamp, StorageError>;
    /// Keys under the cached prefix that were written or deleted after the change with the number `since`; 0 asks from the
    /// beginning. Numbers become visible in their order, so that nobody who asks from `next` misses a change.
    async fn changes(&self, since: u64) -> Result<Changes, StorageError>;
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError>;
    /// Keys that start with `prefix`, after `after`, in byte order.
    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError>;
    /// The names directly below `prefix`, without it, in byte order; at most `limit`, and only those that are greater than `after`.
    /// Whatever has a slash after `prefix` is one name, which ends with its first slash, however much lies below it: the store steps
    /// over that and does not read it, so that a page costs what it shows.
    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError>;
    /// A row whose body a barrier cannot open comes with an empty one, here and from every call that gives rows: it must be
    /// found to be dealt with, and must not hide the others.
    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError>;
    /// In id order.
    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError>;
    /// How many rows of each kind and state there are, jobs included.
    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError>;
    /// Counts the rows anew where the store keeps their counts beside them, and corrects the counts. Answers by how much they were
    /// wrong in all.
    async fn recount_leases(&self) -> Result<u64, StorageError> {
        Ok(0)
    }
    /// # Errors
    /// [`StorageError::Conflict`], [`StorageError::NotEmpty`] or [`StorageError::Fenced`] when an expectation does not hold: nothing
    /// was written.
    async fn commit(&self, batch: Batch) -> Result<(), StorageError>;
    /// Takes up to `limit` rows with `next_at` ≤ now that nobody holds (or whose hold is over), in order of `next_at`, except those
    /// whose connection is in `skip`. A taken row has `holder` and `held_until = now + hold_for` set and its fence raised by one;
    /// its state is untouched. Now is this *store's* clock. A store of several servers may end the hold of one that it no longer hears
    /// of before its time, except on rows that are `Issuing` and on jobs: their effects must not happen beside their undoing.
    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError>;
    /// Takes one row, due or not, unless somebody else holds it. `Ok(None)`: gone. `Err(Fenced)`: held.
    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError>;
    /// The least `next_at` of all rows.
    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError>;
    /// Tells the others of this server, and this one of them. `None`: this store serves one server at a time, which then has nobody to
    /// tell. A report that says the same as the last one is stored twice a second at most.
    ///
    /// # Errors
    /// [`StorageError::Expelled`] when another server has taken this one off the list.
    async fn attend(&self, _report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        Ok(None)
    }
    /// Takes a server off the list that has not been heard of since `beat`: when this returns, nothing that it has sent or will send
    /// is written any more, until it joins again.
    async fn expel(&self, _id: &str, _beat: u64) -> Result<(), StorageError> {
        Ok(())
    }
    /// Puts this server on the list again. What it decided before it was taken off must have ended: from now on its writes count.
    async fn rejoin(&self, _report: &NodeReport) -> Result<(), StorageError> {
        Ok(())
    }
}
