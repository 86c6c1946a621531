//! Reads: a pool of connections, each used by one thread at a time.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Changes, Key, LeaseFilter, Page, StorageError, Versioned};
use leasehold_model::{LeaseId, Timestamp};
use rusqlite::{Connection, OptionalExtension, ToSql};

use super::rows::{self, columns};
use super::{open, unavailable};
use crate::integers::{integer, number};
use crate::text_range::end_of_prefix;

/// Grows to as many connections as threads read at once; keeps a few of them.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// Two more than the machines we know have cores for; each keeps at most 2 MiB of pages.
const IDLE_MAX: usize = 8;

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    /// Runs `read` on a connection of the pool, on this thread: a point read takes microseconds, less than a hand-over.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().map_err(unavailable)?,
        };
        let found = read(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        found
    }

    /// A connection outside the pool.
    pub(super) fn connect_to_write(&self) -> rusqlite::Result<Connection> {
        open::connect(&self.path)
    }

    pub(super) fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = self.connect_to_write()?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}

pub(super) fn get(connection: &Connection, key: &Key) -> Result<Option<Versioned>, StorageError> {
    let mut statement =
        connection.prepare_cached("select value, version from kv where key = ?1").map_err(unavailable)?;
    statement
        .query_row([key.as_str()], |row| Ok(Versioned { value: row.get(0)?, version: number(row.get(1)?) }))
        .optional()
        .map_err(unavailable)
}

pub(super) fn scan(
    connection: &Connection,
    prefix: &Key,
    after: Option<&Key>,
    limit: u32,
) -> Result<Vec<Key>, StorageError> {
    let mut query = Query::new("select key from kv");
    query.range("key", prefix.as_str(), after.map(Key::as_str));
    query.finish("key", limit);
    let mut statement = connection.prepare_cached(&query.text).map_err(unavailable)?;
    let keys = statement.query_map(query.parameters().as_slice(), |row| row.get(0).map(|key: String| Key::new(key)));
    keys.and_then(Iterator::collect).map_err(unavailable)
}

/// The numbers and the keys are read in one transaction: a change between the two would be missed for ever.
pub(super) fn changes(connection: &Connection, since: u64) -> Result<Changes, StorageError> {
    const KEYS: &str = "select key from kv where version > ?1 and key >= 'sys/' and key < 'sys0' \
                        union all select key from tombstone where version > ?1";
    let read = || -> rusqlite::Result<Changes> {
        let transaction = connection.unchecked_transaction()?;
        let counter = |name: &str| {
            let mut statement = transaction.prepare_cached("select value from counter where name = ?1")?;
            statement.query_row([name], |row| row.get(0)).map(number)
        };
        let (next, horizon) = (counter("version")?, counter("horizon")?);
        if since < horizon {
            return Ok(Changes::All { next });
        }
        let mut statement = transaction.prepare_cached(KEYS)?;
        let keys = statement.query_map([integer(since)], |row| row.get(0).map(|key: String| Key::new(key)))?;
        Ok(Changes::Keys { keys: keys.collect::<rusqlite::Result<_>>()?, next })
    };
    read().map_err(unavailable)
}

pub(super) fn lease(connection: &Connection, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
    const TEXT: &str = concat!("select ", columns!(), " from lease where id = ?1");
    let mut statement = connection.prepare_cached(TEXT).map_err(unavailable)?;
    let mut found = statement.query([id.as_str()]).map_err(unavailable)?;
    found.next().map_err(unavailable)?.map(rows::read).transpose()
}

pub(super) fn leases(
    connection: &Connection,
    filter: &LeaseFilter,
    page: &Page,
) -> Result<Vec<LeaseRow>, StorageError> {
    let mut query = Query::new(concat!("select ", columns!(), " from lease"));
    query.range("id", filter.id_prefix.as_deref().unwrap_or_default(), page.after.as_ref().map(LeaseId::as_str));
    if let Some(token) = &filter.token {
        query.equal("token", token.as_str());
    }
    if let Some(mount) = &filter.mount {
        query.equal("mount", mount.as_str());
    }
    if let Some(state) = filter.state {
        query.equal("state", state.as_str());
    }
    match filter.kind {
        Some(kind) => query.equal("kind", kind.as_str()),
        None => query.condition("kind", "<>", LeaseKind::Job.as_str()),
    }
    query.finish("id", page.limit);
    let mut statement = connection.prepare_cached(&query.text).map_err(unavailable)?;
    let mut found = statement.query(query.parameters().as_slice()).map_err(unavailable)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(unavailable)? {
        // A list that leaves out what it cannot read would prove that a role has no lease. A body that cannot be unsealed is another
        // matter: that row is known.
        rows.push(rows::read(row)?);
    }
    Ok(rows)
}

pub(super) fn count_leases(connection: &Connection) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
    const TEXT: &str = "select kind, state, rows from lease_count where rows > 0";
    let mut statement = connection.prepare_cached(TEXT).map_err(unavailable)?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(unavailable)?;
    let mut counts = Vec::new();
    for row in found {
        let (kind, state, count): (String, String, i64) = row.map_err(unavailable)?;
        let (Some(known_kind), Some(known_state)) = (LeaseKind::parse(&kind), LeaseState::parse(&state)) else {
            return Err(StorageError::Corrupt(format!("lease {kind} {state}")));
        };
        counts.push((known_kind, known_state, number(count)));
    }
    counts.sort_unstable();
    Ok(counts)
}

pub(super) fn next_due(connection: &Connection) -> Result<Option<Timestamp>, StorageError> {
    let mut statement = connection.prepare_cached("select min(next_at) from lease").map_err(unavailable)?;
    let least: Option<i64> = statement.query_row([], |row| row.get(0)).map_err(unavailable)?;
    Ok(least.map(Timestamp::from_nanos))
}

/// A `select` whose conditions depend on what is asked. Column names are ours; every value is a parameter.
struct Query {
    text: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Query {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    fn equal(&mut self, column: &str, value: &str) {
        self.condition(column, "=", value);
    }

    /// What starts with `prefix` and comes after `after`.
    fn range(&mut self, column: &str, prefix: &str, after: Option<&str>) {
        match after {
            Some(after) if after >= prefix => self.condition(column, ">", after),
            _ if prefix.is_empty() => return,
            _ => self.condition(column, ">=", prefix),
        }
        if let Some(end) = end_of_prefix(prefix) {
            self.condition(column, "<", &end);
        }
    }

    fn condition(&mut self, column: &str, relation: &str, value: &str) {
        let word = if self.values.is_empty() { "where" } else { "and" };
        self.values.push(Box::new(value.to_owned()));
        self.text.push_str(&format!(" {word} {column} {relation} ?{}", self.values.len()));
    }

    fn finish(&mut self, order: &str, limit: u32) {
        self.values.push(Box::new(limit));
        self.text.push_str(&format!(" order by {order} limit ?{}", self.values.len()));
    }

    fn parameters(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}
