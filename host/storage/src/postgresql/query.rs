//! Reads: one statement each, without a transaction around it.

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Changes, Key, LeaseFilter, Page, StorageError, Versioned};
use leasehold_model::{LeaseId, Timestamp};
use tokio_postgres::types::{ToSql, Type};

use super::rows::{self, COLUMNS, get as column};
use super::{Parameter, Shared};
use crate::integers::{integer, number};
use crate::text_range::end_of_prefix;

pub(super) async fn now(shared: &Shared) -> Result<Timestamp, StorageError> {
    let rows = shared.read("select {p}now\"()", &[]).await?;
    let row = rows.first().ok_or_else(no_row)?;
    Ok(Timestamp::from_nanos(column(row, 0)?))
}

pub(super) async fn changes(shared: &Shared, since: u64) -> Result<Changes, StorageError> {
    // One statement sees one moment: a change between the number and the keys would be missed for ever.
    const TEXT: &str = "select c.value, case when $1 < c.horizon then null else array(\
                        select key from {p}kv\" where version > $1 and key >= '\\x7379732f'::bytea and key < '\\x73797330'::bytea \
                        union all select key from {p}tombstone\" where version > $1) end from {p}counter\" c";
    let since = integer(since);
    let found = shared.read(TEXT, &[(&since, Type::INT8)]).await?;
    let row = found.first().ok_or_else(no_row)?;
    let next = number(column(row, 0)?);
    let Some(keys) = column::<Option<Vec<&[u8]>>>(row, 1)? else { return Ok(Changes::All { next }) };
    Ok(Changes::Keys { keys: keys.into_iter().map(|key| Key::new(String::from_utf8_lossy(key))).collect(), next })
}

pub(super) async fn get(shared: &Shared, key: &Key) -> Result<Option<Versioned>, StorageError> {
    let key = key.as_str().as_bytes();
    let found = shared.read("select value, version from {p}kv\" where key = $1", &[(&key, Type::BYTEA)]).await?;
    let read = |row| Ok(Versioned { value: column(row, 0)?, version: number(column(row, 1)?) });
    found.first().map(read).transpose()
}

pub(super) async fn scan(
    shared: &Shared,
    prefix: &Key,
    after: Option<&Key>,
    limit: u32,
) -> Result<Vec<Key>, StorageError> {
    let mut query = Query::new("select key from {p}kv\"".to_owned());
    query.range("key", prefix.as_str(), after.map(Key::as_str));
    query.finish("key", limit);
    let found = shared.read(&query.text, &query.parameters()).await?;
    found.iter().map(|row| rows::text(row, 0).map(Key::new)).collect()
}

pub(super) async fn lease(shared: &Shared, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
    let id = id.as_str().as_bytes();
    let text = format!("select {COLUMNS} from {{p}}lease\" where id = $1");
    let found = shared.read(&text, &[(&id, Type::BYTEA)]).await?;
    found.first().map(rows::read).transpose()
}

pub(super) async fn leases(shared: &Shared, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
    let mut query = Query::new(format!("select {COLUMNS} from {{p}}lease\""));
    query.range("id", filter.id_prefix.as_deref().unwrap_or_default(), page.after.as_ref().map(LeaseId::as_str));
    if let Some(token) = &filter.token {
        query.condition("token", "=", token.as_str());
    }
    if let Some(mount) = &filter.mount {
        query.condition("mount", "=", mount.as_str());
    }
    if let Some(state) = filter.state {
        query.word("state", "=", state.as_str());
    }
    match filter.kind {
        Some(kind) => query.word("kind", "=", kind.as_str()),
        None => query.word("kind", "<>", LeaseKind::Job.as_str()),
    }
    query.finish("id", page.limit);
    let found = shared.read(&query.text, &query.parameters()).await?;
    // A list that leaves out what it cannot read would prove that a role has no lease.
    found.iter().map(rows::read).collect()
}

pub(super) async fn count_leases(shared: &Shared) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
    let found = shared.read("select kind, state, count(*) from {p}lease\" group by kind, state", &[]).await?;
    let mut counts = Vec::new();
    for row in &found {
        let (kind, state): (&str, &str) = (column(row, 0)?, column(row, 1)?);
        let (Some(known_kind), Some(known_state)) = (LeaseKind::parse(kind), LeaseState::parse(state)) else {
            return Err(StorageError::Corrupt(format!("lease {kind} {state}")));
        };
        counts.push((known_kind, known_state, number(column(row, 2)?)));
    }
    counts.sort_unstable();
    Ok(counts)
}

pub(super) async fn next_due(shared: &Shared) -> Result<Option<Timestamp>, StorageError> {
    let found = shared.read("select min(next_at) from {p}lease\"", &[]).await?;
    let row = found.first().ok_or_else(no_row)?;
    Ok(column::<Option<i64>>(row, 0)?.map(Timestamp::from_nanos))
}

fn no_row() -> StorageError {
    StorageError::Corrupt("the store's own tables".to_owned())
}

/// A `select` whose conditions depend on what is asked. Column names are ours; every value is a parameter.
struct Query {
    text: String,
    values: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Query {
    fn new(text: String) -> Self {
        Self { text, values: Vec::new() }
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
        self.add(column, relation, Box::new(value.as_bytes().to_vec()), Type::BYTEA);
    }

    fn word(&mut self, column: &str, relation: &str, value: &str) {
        self.add(column, relation, Box::new(value.to_owned()), Type::TEXT);
    }

    fn add(&mut self, column: &str, relation: &str, value: Box<dyn ToSql + Sync + Send>, kind: Type) {
        let word = if self.values.is_empty() { "where" } else { "and" };
        self.values.push((value, kind));
        self.text.push_str(&format!(" {word} {column} {relation} ${}", self.values.len()));
    }

    fn finish(&mut self, order: &str, limit: u32) {
        self.values.push((Box::new(i64::from(limit)), Type::INT8));
        self.text.push_str(&format!(" order by {order} limit ${}", self.values.len()));
    }

    fn parameters(&self) -> Vec<Parameter<'_>> {
        self.values.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect()
    }
}
