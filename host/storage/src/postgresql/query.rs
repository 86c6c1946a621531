//! Reads: one statement each, without a transaction around it.

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Changes, Key, LeaseFilter, Listed, Page, StorageError, Versioned};
use leasehold_model::{LeaseId, Timestamp};
use tokio_postgres::types::{ToSql, Type};

use super::rows::{self, COLUMNS, get as column};
use super::{Parameter, Shared, commit};
use crate::integers::{integer, number};
use crate::text_range::{end_of_prefix, first_after, name_below};

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

pub(super) async fn names(
    shared: &Shared,
    of: Listed,
    prefix: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<String>, StorageError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let asked = NamesAsked::new(prefix, after, limit);
    let found = shared.read(&asked.text(of), &asked.parameters()).await?;
    let text = |row| rows::text(row, 0).map(|text| name_below(prefix, &text).to_owned());
    found.iter().map(text).collect()
}

/// A page of names as PostgreSQL is asked for it.
pub(super) struct NamesAsked {
    from: Vec<u8>,
    end: Option<Vec<u8>>,
    limit: i64,
    /// `substring` counts from one: the first byte below the prefix.
    below: i32,
}

impl NamesAsked {
    pub(super) fn new(prefix: &str, after: &str, limit: u32) -> Self {
        Self {
            from: first_after(prefix, after).into_bytes(),
            end: end_of_prefix(prefix).map(String::into_bytes),
            limit: i64::from(limit),
            below: i32::try_from(prefix.len() + 1).unwrap_or(i32::MAX),
        }
    }

    pub(super) fn text(&self, of: Listed) -> String {
        names_text(of, self.end.is_some())
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 4] {
        [(&self.from, Type::BYTEA), (&self.end, Type::BYTEA), (&self.limit, Type::INT8), (&self.below, Type::INT4)]
    }
}

/// From name to name, each by one look into the index: behind a folder it goes on at the first byte after the slash, behind any other
/// name at the next longer text.
fn names_text(of: Listed, has_end: bool) -> String {
    let (name, table, no_job) = match of {
        Listed::Values => ("key", "kv", ""),
        Listed::Leases => ("id", "lease", " and kind <> 'job'"),
    };
    // Without an end the parameter must still have a place, or its type is not known.
    let end = if has_end { format!("{name} < $2") } else { "$2::bytea is null".to_owned() };
    let first = |from: &str| {
        format!(
            "select {name} as found from {{p}}{table}\" where {name} >= {from} and {end}{no_job} order by {name} limit 1"
        )
    };
    let slash = "position('\\x2f'::bytea in substring(l.found from $4))";
    let next = format!(
        "case when {slash} > 0 then substring(l.found from 1 for $4 + {slash} - 2) || '\\x30'::bytea \
         else l.found || '\\x00'::bytea end"
    );
    format!(
        "with recursive l(found, place) as ((select found, 1::bigint from ({}) s) union all \
         select s.found, l.place + 1 from l, lateral ({}) s where l.place < $3) \
         select found from l order by place",
        first("$1"),
        first(&next),
    )
}

pub(super) async fn lease(shared: &Shared, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
    let id = id.as_str().as_bytes();
    let text = format!("select {COLUMNS} from {{p}}lease\" where id = $1");
    let found = shared.read(&text, &[(&id, Type::BYTEA)]).await?;
    found.first().map(rows::read).transpose()
}

pub(super) async fn leases(shared: &Shared, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
    let query = leases_query(filter, page);
    let found = shared.read(&query.text, &query.parameters()).await?;
    // A list that leaves out what it cannot read would prove that a role has no lease.
    found.iter().map(rows::read).collect()
}

pub(super) fn leases_query(filter: &LeaseFilter, page: &Page) -> Query {
    let mut query = Query::new(format!("select {COLUMNS} from {{p}}lease\""));
    query.range("id", filter.id_prefix.as_deref().unwrap_or_default(), page.after.as_ref().map(LeaseId::as_str));
    if let Some(token) = &filter.token {
        query.condition("token", "=", token.as_str());
    }
    if let Some(mount) = &filter.mount {
        query.condition("mount", "=", mount.as_str());
    }
    if let Some(connection) = &filter.connection {
        query.condition("connection", "=", connection);
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

pub(super) const COUNTS: &str =
    "select kind, state, sum(rows)::bigint from {p}lease_count\" group by kind, state having sum(rows) > 0";

pub(super) async fn count_leases(shared: &Shared) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
    let found = shared.read(COUNTS, &[]).await?;
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

/// The rows and their counts are read by one statement and so at one moment: what commits meanwhile changes both, and the difference
/// stays what it is. It is written as one more change, so that nobody waits for the counting.
pub(super) async fn recount_leases(shared: &Shared) -> Result<u64, StorageError> {
    const DIFFERENCES: &str = "select kind, state, sum(rows)::bigint from (\
                               select kind, state, count(*) as rows from {p}lease\" group by kind, state union all \
                               select kind, state, -rows from {p}lease_count\") both_sides \
                               group by kind, state having sum(rows) <> 0";
    let found = shared.read(DIFFERENCES, &[]).await?;
    if found.is_empty() {
        return Ok(0);
    }
    let kinds = found.iter().map(|row| column(row, 0)).collect::<Result<Vec<&str>, _>>()?;
    let states = found.iter().map(|row| column(row, 1)).collect::<Result<Vec<&str>, _>>()?;
    let by = found.iter().map(|row| column(row, 2)).collect::<Result<Vec<i64>, _>>()?;
    commit::correct_counts(shared, &kinds, &states, &by).await?;
    Ok(by.iter().fold(0, |sum, by| sum.saturating_add(by.unsigned_abs())))
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
pub(super) struct Query {
    pub(super) text: String,
    has_condition: bool,
    values: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Query {
    fn new(text: String) -> Self {
        Self { text, has_condition: false, values: Vec::new() }
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
        self.values.push((Box::new(value.as_bytes().to_vec()), Type::BYTEA));
        self.text.push_str(&format!(" {word} {column} {relation} ${}", self.values.len()));
    }

    /// A word of ours, in the text itself: an index of a part of the table is used only where the text says which part is asked for.
    fn word(&mut self, column: &str, relation: &str, word: &'static str) {
        let and = self.next_word();
        self.text.push_str(&format!(" {and} {column} {relation} '{word}'"));
    }

    fn next_word(&mut self) -> &'static str {
        let has_condition = std::mem::replace(&mut self.has_condition, true);
        if has_condition { "and" } else { "where" }
    }

    fn finish(&mut self, order: &str, limit: u32) {
        self.values.push((Box::new(i64::from(limit)), Type::INT8));
        self.text.push_str(&format!(" order by {order} limit ${}", self.values.len()));
    }

    pub(super) fn parameters(&self) -> Vec<Parameter<'_>> {
        self.values.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect()
    }
}
