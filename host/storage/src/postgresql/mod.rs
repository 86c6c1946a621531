//! The store in a PostgreSQL database.
//!
//! Must not know: what a value means, or that a barrier seals it.
//!
//! Start with [`open`] (settings, the schema), then `migrations/` (the tables, and the functions that write), [`session`] (a bounded
//! pool, deadlines), [`commit`] (a batch as one call), [`copy`] (all of it at once), [`node`] (this server among the others) and
//! [`timeline`] (what a fail-over has lost of the [`journal`]).
//!
//! Invariants: each call but a whole copy is one statement, and so one transaction and one round trip; it keeps no state in a session, so that
//! PgBouncer in transaction mode may stand in between. Nothing is written by a server that another one has taken off the list.
//! A commit whose outcome is not known is reported as `Unavailable` and never repeated.

mod commit;
mod copy;
mod journal;
mod node;
mod open;
mod query;
mod rows;
mod session;
#[cfg(test)]
mod tests;
mod timeline;
#[cfg(test)]
mod timeline_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::nodes::{Attendance, NodeReport};
use leasehold_core::seams::storage::{
    Batch, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

pub use open::{PostgresOpenError, PostgresSettings};

use node::Membership;
use session::{Failed, Sessions};

/// How often a call is repeated that PostgreSQL has rolled back because of another one (SQLSTATE 40001, 40P01).
const REPEATS_MAX: u32 = 8;
/// The first pause before a repeat; each further one is twice as long.
const REPEAT_AFTER: Duration = Duration::from_millis(2);

/// Durable: what `commit` has answered survives `kill -9` of this server and of PostgreSQL.
pub struct PostgresStorage {
    shared: Arc<Shared>,
    /// Notices when the store goes and comes; ends with the storage.
    keeper: tokio::task::JoinHandle<()>,
}

/// What the storage and its keeper share.
struct Shared {
    sessions: Sessions,
    member: Membership,
    names: Names,
    journal: journal::Journal,
    /// Of tests that move time by hand; otherwise the clock is PostgreSQL's.
    clock: Option<Arc<dyn Clock>>,
}

/// Where the tables are.
#[derive(Clone, Debug)]
struct Names {
    /// `"schema"."prefix_`: the name of a table follows, and a quote.
    prefix: String,
    /// The key of the advisory lock behind which a server is taken off the list.
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

/// `$1, $2, $3`.
fn places(count: usize) -> String {
    (1..=count).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ")
}

impl PostgresStorage {
    /// Connects, makes or migrates the tables, and joins the servers that work on them.
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
        let member = Membership::new(settings.server_name, settings.alone)
            .map_err(|error| PostgresOpenError::Server(error.to_string()))?;
        let shared = Arc::new(Shared { sessions, member, names, journal: journal::Journal::default(), clock });
        node::begin(&shared).await?;
        let keeper = tokio::spawn(node::keep(Arc::clone(&shared)));
        Ok(Self { shared, keeper })
    }

    /// Leaves the other servers, who then need not find out that this one has ended.
    pub async fn leave(&self) {
        self.keeper.abort();
        node::leave(&self.shared).await;
    }
}

impl Shared {
    /// Now, where a test moves the clock; `None` has PostgreSQL look at its own.
    fn given_now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now().as_nanos())
    }

    /// One statement that reads.
    async fn read(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StorageError> {
        self.member.is_up()?;
        Ok(self.repeated(&self.names.sql(text), parameters).await?)
    }

    /// One statement; repeated while PostgreSQL rolls it back for the sake of another transaction.
    async fn repeated(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failed> {
        let mut pause = REPEAT_AFTER;
        for _ in 0..REPEATS_MAX {
            match self.sessions.query(sql, parameters, self.member.down()).await {
                Err(failed) if failed.was_rolled_back_for_another() => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        self.sessions.query(sql, parameters, self.member.down()).await
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

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        query::names(&self.shared, of, prefix, after, limit).await
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

    async fn recount_leases(&self) -> Result<u64, StorageError> {
        query::recount_leases(&self.shared).await
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

    async fn attend(&self, report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        node::attend(&self.shared, report).await.map(Some)
    }

    async fn expel(&self, id: &str, beat: u64) -> Result<(), StorageError> {
        node::expel(&self.shared, id, beat).await
    }

    async fn rejoin(&self, _: &NodeReport) -> Result<(), StorageError> {
        node::rejoin(&self.shared).await
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
