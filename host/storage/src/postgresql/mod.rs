//! The store in a PostgreSQL database.
//!
//! Must not know: what a value means, or that a barrier seals it.
//!
//! Start with [`open`] (settings, the schema, the claim to write), then `migrations/` (the tables, and the functions that write),
//! [`session`] (a bounded pool, deadlines), [`commit`] (a batch as one call), [`copy`] (all of it at once) and [`claim`] (which server
//! may write).
//!
//! Invariants: each call but a whole copy is one statement, and so one transaction and one round trip; it keeps no state in a session, so that
//! PgBouncer in transaction mode may stand in between. Nothing is written by a server whose claim another one has taken over.
//! A commit whose outcome is not known is reported as `Unavailable` and never repeated.

mod claim;
mod commit;
mod copy;
mod open;
mod query;
mod rows;
mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::storage::{Batch, Changes, Key, LeaseFilter, Page, Storage, StorageError, Versioned};
use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

pub use open::{PostgresOpenError, PostgresSettings};

use claim::Claim;
use session::{Failed, Sessions};

/// How often a call is repeated that PostgreSQL has rolled back because of another one (SQLSTATE 40001, 40P01).
const REPEATS_MAX: u32 = 8;
/// The first pause before a repeat; each further one is twice as long.
const REPEAT_AFTER: Duration = Duration::from_millis(2);

/// Durable: what `commit` has answered survives `kill -9` of this server and of PostgreSQL.
pub struct PostgresStorage {
    shared: Arc<Shared>,
    /// Keeps the claim to write; ends with the storage.
    keeper: tokio::task::JoinHandle<()>,
}

/// What the storage and the keeper of its claim share.
struct Shared {
    sessions: Sessions,
    claim: Claim,
    names: Names,
    /// Of tests that move time by hand; otherwise the clock is PostgreSQL's.
    clock: Option<Arc<dyn Clock>>,
}

/// Where the tables are.
#[derive(Clone, Debug)]
struct Names {
    /// `"schema"."prefix_`: the name of a table follows, and a quote.
    prefix: String,
    /// The key of the advisory lock behind which the claim changes hands.
    lock: i64,
}

impl Names {
    /// A text of ours with the tables' names in it.
    fn sql(&self, text: &str) -> String {
        text.replace("{p}", &self.prefix)
    }
}

impl fmt::Debug for PostgresStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStorage").field("tables", &self.shared.names.prefix).finish_non_exhaustive()
    }
}

impl Drop for PostgresStorage {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl PostgresStorage {
    /// Connects, makes or migrates the tables, and claims the right to write.
    ///
    /// # Errors
    /// [`PostgresOpenError`] says what is wrong with the settings, the server or the tables.
    pub async fn open(settings: PostgresSettings) -> Result<Self, PostgresOpenError> {
        Self::start(settings, None).await
    }

    /// As [`PostgresStorage::open`], with a clock that a test moves.
    ///
    /// # Errors
    /// As [`PostgresStorage::open`].
    #[cfg(any(test, feature = "testing"))]
    pub async fn open_with_clock(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self, PostgresOpenError> {
        Self::start(settings, Some(clock)).await
    }

    async fn start(settings: PostgresSettings, clock: Option<Arc<dyn Clock>>) -> Result<Self, PostgresOpenError> {
        let (sessions, names) = open::prepare(&settings).await?;
        let claim = Claim::new(settings.server_name);
        let shared = Arc::new(Shared { sessions, claim, names, clock });
        claim::take(&shared).await?;
        let keeper = tokio::spawn(claim::keep(Arc::clone(&shared)));
        Ok(Self { shared, keeper })
    }

    /// A second handle on the same tables under the claim of this one, for tests of what must hold for two.
    #[cfg(test)]
    pub(crate) async fn beside(&self, settings: PostgresSettings) -> Result<Self, PostgresOpenError> {
        let (sessions, names) = open::prepare(&settings).await?;
        let claim = self.shared.claim.clone();
        let shared = Arc::new(Shared { sessions, claim, names, clock: self.shared.clock.clone() });
        Ok(Self { shared, keeper: tokio::spawn(async {}) })
    }

    /// Whether another server has taken over. There is no way back: what this server keeps in memory may be old.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.claim.is_lost()
    }

    /// Gives the claim to write back, so that the next server need not wait until it is stale.
    pub async fn release(&self) {
        self.keeper.abort();
        claim::release(&self.shared).await;
    }
}

impl Shared {
    /// Now, where a test moves the clock; `None` has PostgreSQL look at its own.
    fn given_now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now().as_nanos())
    }

    /// One statement that reads.
    async fn read(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StorageError> {
        self.claim.current()?;
        Ok(self.repeated(&self.names.sql(text), parameters).await?)
    }

    /// One statement; repeated while PostgreSQL rolls it back for the sake of another transaction.
    async fn repeated(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failed> {
        let mut pause = REPEAT_AFTER;
        for _ in 0..REPEATS_MAX {
            match self.sessions.query(sql, parameters, self.claim.down()).await {
                Err(failed) if failed.was_rolled_back_for_another() => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        self.sessions.query(sql, parameters, self.claim.down()).await
    }
}

#[async_trait]
impl Storage for PostgresStorage {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        if let Some(now) = self.shared.given_now() {
            return Ok(Timestamp::from_nanos(now));
        }
        query::now(&self.shared).await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        query::changes(&self.shared, since).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        query::get(&self.shared, key).await
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        query::scan(&self.shared, prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        query::lease(&self.shared, id).await
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        query::leases(&self.shared, filter, page).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        query::count_leases(&self.shared).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        commit::commit(&self.shared, batch).await
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        commit::claim_due(&self.shared, holder, limit, hold_for, skip).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        commit::claim(&self.shared, holder, id, hold_for).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        query::next_due(&self.shared).await
    }
}

#[async_trait]
impl WholeStore for PostgresStorage {
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
        copy::export(&self.shared, into).await
    }

    async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
        copy::replace(&self.shared, from).await
    }
}
