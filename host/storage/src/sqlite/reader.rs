//! Reads: a pool of connections, each used by one thread at a time.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Changes, Key, LeaseFilter, Listed, Page, StorageError, Versioned};
use leasehold_model::{LeaseId, Timestamp, TokenHash};
use rusqlite::{Connection, OptionalExtension, Statement, ToSql};

use super::rows::{self, columns};
use super::{open, unavailable};
use crate::integers::{integer, number};
use crate::text_range::{end_of_prefix, first_after, name_below};

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

/// Steps from name to name. A folder is left at its first row: the next step begins behind all of it.
pub(super) fn names(
    connection: &Connection,
    of: Listed,
    prefix: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<String>, StorageError> {
    let mut statement = connection.prepare_cached(names_text(of, prefix)).map_err(unavailable)?;
    names_by(&mut statement, prefix, after, limit).map_err(unavailable)
}

/// From ?1 on, and before ?2 where the prefix has an end: without it, SQLite would look through the rest of the table for more.
pub(super) fn names_text(of: Listed, prefix: &str) -> &'static str {
    match (of, end_of_prefix(prefix).is_some()) {
        (Listed::Values, true) => "select key from kv where key >= ?1 and key < ?2 order by key",
        (Listed::Values, false) => "select key from kv where key >= ?1 order by key",
        (Listed::Leases, true) => "select id from lease where id >= ?1 and id < ?2 and kind <> 'job' order by id",
        (Listed::Leases, false) => "select id from lease where id >= ?1 and kind <> 'job' order by id",
    }
}

pub(super) fn names_by(
    statement: &mut Statement<'_>,
    prefix: &str,
    after: &str,
    limit: u32,
) -> rusqlite::Result<Vec<String>> {
    let end = end_of_prefix(prefix);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut names: Vec<String> = Vec::new();
    let mut from = first_after(prefix, after);
    'folders: while names.len() < limit {
        let range: Vec<&dyn ToSql> =
            std::iter::once(&from as &dyn ToSql).chain(end.as_ref().map(|end| end as _)).collect();
        let mut found = statement.query(range.as_slice())?;
        while let Some(row) = found.next()? {
            let text: String = row.get(0)?;
            let name = name_below(prefix, &text);
            names.push(name.to_owned());
            if names.len() >= limit {
                break 'folders;
            }
            if name.ends_with('/') {
                from = first_after(prefix, name);
                continue 'folders;
            }
        }
        break;
    }
    Ok(names)
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
    let query = leases_query(filter, page);
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

/// All rows of a token, whatever they are, in the order of their ids.
pub(super) fn leases_of(connection: &Connection, token: &TokenHash, limit: u32) -> Result<Vec<LeaseRow>, StorageError> {
    const TEXT: &str = concat!("select ", columns!(), " from lease where token = ?1 order by id limit ?2");
    let mut statement = connection.prepare_cached(TEXT).map_err(unavailable)?;
    let mut found = statement.query(rusqlite::params![token.as_str(), limit]).map_err(unavailable)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(unavailable)? {
        rows.push(rows::read(row)?);
    }
    Ok(rows)
}

fn leases_query(filter: &LeaseFilter, page: &Page) -> Query {
    let mut query = Query::new(concat!("select ", columns!(), " from lease"));
    query.range("id", filter.id_prefix.as_deref().unwrap_or_default(), page.after.as_ref().map(LeaseId::as_str));
    if let Some(token) = &filter.token {
        query.equal("token", token.as_str());
    }
    if let Some(mount) = &filter.mount {
        query.equal("mount", mount.as_str());
    }
    if let Some(connection) = &filter.connection {
        query.equal("connection", connection);
    }
    if let Some(state) = filter.state {
        query.word("state", "=", state.as_str());
    }
    match filter.kind {
        Some(kind) => query.word("kind", "=", kind.as_str()),
        None => query.word("kind", "<>", LeaseKind::Job.as_str()),
    }
    query.finish("id", page.limit);
    query
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
    has_condition: bool,
    values: Vec<Box<dyn ToSql>>,
}

impl Query {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), has_condition: false, values: Vec::new() }
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
        let word = self.next_word();
        self.values.push(Box::new(value.to_owned()));
        self.text.push_str(&format!(" {word} {column} {relation} ?{}", self.values.len()));
    }

    /// A word of ours, in the text itself: an index of a part of the table is used only where the text says which part is asked for.
    fn word(&mut self, column: &str, relation: &str, word: &'static str) {
        let and = self.next_word();
        self.text.push_str(&format!(" {and} {column} {relation} '{word}'"));
    }

    fn next_word(&mut self) -> &'static str {
        let first = std::mem::replace(&mut self.has_condition, true);
        if first { "and" } else { "where" }
    }

    fn finish(&mut self, order: &str, limit: u32) {
        self.values.push(Box::new(limit));
        self.text.push_str(&format!(" order by {order} limit ?{}", self.values.len()));
    }

    fn parameters(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    fn with_leases(count: usize) -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let opened = open::open(&directory.path().join("leasehold.db")).unwrap();
        let fill = format!(
            "with recursive n(n) as (select 0 union all select n + 1 from n where n + 1 < {count}) \
             insert into lease select printf('d/creds/r%04d/%06d', n % 7, n), 'secret', \
             case n when 3 then 'revoking' else 'active' end, n, n, 0, null, null, 'aa', 'm', 'c', x'00' from n; \
             with recursive n(n) as (select 0 union all select n + 1 from n where n + 1 < {count}) \
             insert into kv select printf('token/accessor/%06d', n), x'00', 1 from n"
        );
        opened.connection.execute_batch(&fill).unwrap();
        let connection = open::connect(&directory.path().join("leasehold.db")).unwrap();
        (directory, connection)
    }

    /// A page costs what it shows, however much there is in the folder, below it and behind it.
    #[test]
    fn a_page_takes_as_many_steps_from_many_rows_as_from_few() {
        let cost = |connection: &Connection, of, prefix: &str, after: &str, limit| {
            let mut statement = connection.prepare(names_text(of, prefix)).unwrap();
            let names = names_by(&mut statement, prefix, after, limit).unwrap();
            (names, statement.get_status(StatementStatus::VmStep))
        };
        let ((_one, few), (_other, many)) = (with_leases(200), with_leases(20_000));
        for (of, prefix, after, limit, shown) in [
            (Listed::Leases, "", "", 100, 1),
            (Listed::Leases, "d/creds/", "", 100, 7),
            (Listed::Leases, "d/creds/", "r0003/", 2, 2),
            (Listed::Leases, "d/creds/r0001/", "", 20, 20),
            (Listed::Leases, "d/creds/r0001/", "000029", 20, 20),
            (Listed::Leases, "none/", "", 20, 0),
            (Listed::Values, "token/accessor/", "000100", 50, 50),
            (Listed::Values, "", "", 50, 1),
        ] {
            let (small, large) = (cost(&few, of, prefix, after, limit), cost(&many, of, prefix, after, limit));
            assert_eq!((small.0.len(), large.0.len()), (shown, shown), "{of:?} {prefix} {after}");
            assert_eq!(small, large, "{of:?} {prefix} {after}");
        }
    }

    /// What is revoking is a few of many.
    #[test]
    fn rows_of_a_state_are_found_by_an_index_of_that_state() {
        let (_directory, connection) = with_leases(5_000);
        let filter =
            LeaseFilter { state: Some(LeaseState::Revoking), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() };
        let page = Page { after: None, limit: 10 };
        let query = leases_query(&filter, &page);
        let mut statement = connection.prepare(&query.text).unwrap();
        let found = statement.query_map(query.parameters().as_slice(), |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), ["d/creds/r0003/000003"]);
        let steps = statement.get_status(StatementStatus::VmStep);
        assert!(steps < 200, "{steps} steps for one row: {}", query.text);
    }
}
