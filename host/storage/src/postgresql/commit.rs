//! Writes: a batch or a claim is one call of a function that the migrations made, and so one round trip.
//!
//! A batch's conditions hold at the moment of its commit because each key that it names is locked first, in one order: shared where
//! it is only checked, exclusively where it is written. The locks are advisory and end with the transaction.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use leasehold_core::keys;
use leasehold_core::lease::LeaseRow;
use leasehold_core::seams::storage::{Batch, Change, Expect, Key, StorageError};
use leasehold_model::{LeaseId, Ttl};
use tokio_postgres::types::Type;

use super::rows;
use super::session::Failed;
use super::{Names, Parameter, Shared, places, timeline};
use crate::integers::integer;
use crate::memory::TOMBSTONES_MAX;

/// Longer holds are cut to this: no claim needs more, and the sum with a moment must fit.
const HOLD_MAX: Ttl = Ttl::from_secs(366 * 24 * 3600);

/// A batch as columns, one element for each change.
#[derive(Default)]
pub(super) struct Columns<'a> {
    op: Vec<i16>,
    key: Vec<&'a [u8]>,
    value: Vec<&'a [u8]>,
    expect: Vec<i64>,
    numbered: Vec<bool>,
    kind: Vec<&'a str>,
    state: Vec<&'a str>,
    from: Vec<&'a str>,
    next: Vec<i64>,
    expires: Vec<i64>,
    fence: Vec<i64>,
    holder: Vec<Option<&'a [u8]>>,
    until: Vec<Option<i64>>,
    token: Vec<&'a [u8]>,
    mount: Vec<&'a [u8]>,
    connection: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        let mut columns = Self::default();
        for change in &batch.0 {
            match change {
                Change::Put { key, value, expect } => columns.value(0, key, value, *expect),
                Change::Delete { key, expect } => columns.value(1, key, &[], *expect),
                Change::Check { key, expect } => columns.value(2, key, &[], *expect),
                Change::Empty { prefix } => {
                    columns.head(6, prefix.as_str().as_bytes(), &[], 0, false);
                    columns.no_row();
                }
                Change::NoLeases { token, but } => {
                    columns.head(7, but.as_str().as_bytes(), token.as_str().as_bytes(), 0, false);
                    columns.no_row();
                }
                Change::Insert(row) => columns.row(3, row, "", 0),
                Change::Move { row, from, fence } => columns.row(4, row, from.as_str(), *fence),
                Change::Remove { id, fence } => {
                    columns.head(5, id.as_str().as_bytes(), &[], integer(*fence), false);
                    columns.no_row();
                }
            }
        }
        columns
    }

    /// In the order in which the functions take them.
    pub(super) fn parameters(&self) -> [Parameter<'_>; 16] {
        [
            (&self.op, Type::INT2_ARRAY),
            (&self.key, Type::BYTEA_ARRAY),
            (&self.value, Type::BYTEA_ARRAY),
            (&self.expect, Type::INT8_ARRAY),
            (&self.numbered, Type::BOOL_ARRAY),
            (&self.kind, Type::TEXT_ARRAY),
            (&self.state, Type::TEXT_ARRAY),
            (&self.from, Type::TEXT_ARRAY),
            (&self.next, Type::INT8_ARRAY),
            (&self.expires, Type::INT8_ARRAY),
            (&self.fence, Type::INT8_ARRAY),
            (&self.holder, Type::BYTEA_ARRAY),
            (&self.until, Type::INT8_ARRAY),
            (&self.token, Type::BYTEA_ARRAY),
            (&self.mount, Type::BYTEA_ARRAY),
            (&self.connection, Type::BYTEA_ARRAY),
        ]
    }

    fn head(&mut self, op: i16, key: &'a [u8], value: &'a [u8], expect: i64, numbered: bool) {
        self.op.push(op);
        self.key.push(key);
        self.value.push(value);
        self.expect.push(expect);
        self.numbered.push(numbered);
    }

    fn value(&mut self, op: i16, key: &'a Key, value: &'a [u8], expect: Expect) {
        let expect = match expect {
            Expect::Anything => -1,
            Expect::Absent => -2,
            Expect::Present => -3,
            Expect::Version(version) => integer(version),
        };
        self.head(op, key.as_str().as_bytes(), value, expect, op != 2 && keys::is_cached(key));
        self.no_row();
    }

    fn row(&mut self, op: i16, row: &'a LeaseRow, from: &'a str, fence: u64) {
        self.head(op, row.id.as_str().as_bytes(), &row.body, integer(fence), false);
        self.kind.push(row.kind.as_str());
        self.state.push(row.state.as_str());
        self.from.push(from);
        self.next.push(row.next_at.as_nanos());
        self.expires.push(row.expires_at.as_nanos());
        self.fence.push(integer(row.fence));
        self.holder.push(row.holder.as_deref().map(str::as_bytes));
        self.until.push(row.held_until.map(leasehold_model::Timestamp::as_nanos));
        self.token.push(row.token.as_str().as_bytes());
        self.mount.push(row.mount.as_str().as_bytes());
        self.connection.push(row.connection.as_bytes());
    }

    fn no_row(&mut self) {
        self.kind.push("");
        self.state.push("");
        self.from.push("");
        self.next.push(0);
        self.expires.push(0);
        self.fence.push(0);
        self.holder.push(None);
        self.until.push(None);
        self.token.push(&[]);
        self.mount.push(&[]);
        self.connection.push(&[]);
    }
}

/// The advisory lock of a name under these tables.
pub(super) fn lock_of(prefix: &str, what: &str, name: &str) -> i64 {
    let hash = digest(&SHA256, format!("leasehold\0{prefix}\0{what}\0{name}").as_bytes());
    hash.as_ref().iter().take(8).fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte))
}

/// The locks of a batch in the order in which everybody takes them, and whether each is exclusive.
pub(super) fn locks(names: &Names, batch: &Batch) -> (Vec<i64>, Vec<bool>) {
    let mut wanted = BTreeMap::new();
    for change in &batch.0 {
        let (key, writes) = match change {
            Change::Put { key, .. } | Change::Delete { key, .. } => (key, true),
            Change::Check { key, .. } => (key, false),
            _ => continue,
        };
        *wanted.entry(lock_of(&names.prefix, "key", key.as_str())).or_insert(false) |= writes;
    }
    wanted.into_iter().unzip()
}

pub(super) async fn commit(shared: &Shared, batch: Batch) -> Result<(), StorageError> {
    let function = if batch.expects_nothing() { "commit_if_empty" } else { "commit" };
    // Before the statement is sent: see `Journal::keep`.
    let number = shared.journal.timeline();
    let term = shared.member.current()?;
    let columns = Columns::of(&batch);
    let (keys, exclusive) = locks(&shared.names, &batch);
    let is_put = |change: &Change| matches!(change, Change::Put { key, .. } if !keys::is_cached(key));
    let versioned = batch.0.iter().any(is_put);
    let cached = columns.numbered.contains(&true);
    let tombstones = i32::try_from(TOMBSTONES_MAX).unwrap_or(i32::MAX);
    let head: [Parameter<'_>; 7] = [
        (&term, Type::TEXT),
        (&shared.names.lock, Type::INT8),
        (&keys, Type::INT8_ARRAY),
        (&exclusive, Type::BOOL_ARRAY),
        (&versioned, Type::BOOL),
        (&cached, Type::BOOL),
        (&tombstones, Type::INT4),
    ];
    let parameters = [&head[..], &columns.parameters()].concat();
    let text = format!("select {{p}}receipt\"($6) from {{p}}{function}\"({})", places(parameters.len()));
    let text = shared.names.sql(&text);
    match shared.repeated(&text, &parameters).await {
        Ok(found) => timeline::committed(shared, number, &found, batch),
        Err(failed) => Err(refusal(shared, &failed, &term, &batch).unwrap_or_else(|| failed.into())),
    }
}

/// What the function's own errors mean.
fn refusal(shared: &Shared, failed: &Failed, term: &str, batch: &Batch) -> Option<StorageError> {
    if shared.member.is_refused(failed, term) {
        return Some(StorageError::Expelled);
    }
    let Failed::Sql { code, detail, .. } = failed else { return None };
    let place: usize = detail.as_deref()?.parse().ok()?;
    let change = batch.0.get(place.checked_sub(1)?)?;
    match (code.as_str(), change) {
        ("LH001", Change::Put { key, .. } | Change::Delete { key, .. } | Change::Check { key, .. }) => {
            Some(StorageError::Conflict(key.as_str().to_owned()))
        }
        ("LH001", Change::Insert(row)) => Some(StorageError::Conflict(row.id.to_string())),
        ("LH004", Change::Empty { prefix }) => Some(StorageError::NotEmpty(prefix.as_str().to_owned())),
        ("LH004", Change::NoLeases { token, .. }) => Some(StorageError::NotEmpty(token.to_string())),
        ("LH002", Change::Move { row, .. }) => Some(StorageError::Fenced(row.id.clone())),
        ("LH002", Change::Remove { id, .. }) => Some(StorageError::Fenced(id.clone())),
        _ => None,
    }
}

fn nanos(hold_for: Ttl) -> i64 {
    (leasehold_model::Timestamp::from_nanos(0) + hold_for.min(HOLD_MAX)).as_nanos()
}

pub(super) async fn claim_due(
    shared: &Shared,
    holder: &str,
    limit: u32,
    hold_for: Ttl,
    skip: &[String],
) -> Result<Vec<LeaseRow>, StorageError> {
    let term = shared.member.current()?;
    let (now, limit, hold) = (shared.given_now(), i64::from(limit), nanos(hold_for));
    let holder = holder.as_bytes();
    let skip: Vec<&[u8]> = skip.iter().map(String::as_bytes).collect();
    let parameters: [Parameter<'_>; 7] = [
        (&term, Type::TEXT),
        (&shared.names.lock, Type::INT8),
        (&now, Type::INT8),
        (&holder, Type::BYTEA),
        (&limit, Type::INT8),
        (&hold, Type::INT8),
        (&skip, Type::BYTEA_ARRAY),
    ];
    let text = format!("select {} from {{p}}claim_due\"($1, $2, $3, $4, $5, $6, $7)", rows::COLUMNS);
    let found = shared.repeated(&shared.names.sql(&text), &parameters).await;
    let found =
        found.map_err(|failed| refusal(shared, &failed, &term, &Batch::new()).unwrap_or_else(|| failed.into()))?;
    let mut claimed = Vec::new();
    for row in &found {
        // One row that cannot be read must not keep the others from their end; it stays held, then comes again.
        match rows::read(row) {
            Ok(row) => claimed.push(row),
            Err(error) => tracing::error!(error = %error, "could not read a lease row that is due"),
        }
    }
    claimed.sort_unstable_by(|a, b| (a.next_at, &a.id).cmp(&(b.next_at, &b.id)));
    Ok(claimed)
}

pub(super) async fn claim(
    shared: &Shared,
    holder: &str,
    id: &LeaseId,
    hold_for: Ttl,
) -> Result<Option<LeaseRow>, StorageError> {
    let term = shared.member.current()?;
    let (now, hold, holder, name) = (shared.given_now(), nanos(hold_for), holder.as_bytes(), id.as_str().as_bytes());
    let parameters: [Parameter<'_>; 6] = [
        (&term, Type::TEXT),
        (&shared.names.lock, Type::INT8),
        (&now, Type::INT8),
        (&holder, Type::BYTEA),
        (&name, Type::BYTEA),
        (&hold, Type::INT8),
    ];
    let text = format!("select {} from {{p}}claim\"($1, $2, $3, $4, $5, $6)", rows::COLUMNS);
    let found = shared.repeated(&shared.names.sql(&text), &parameters).await;
    let found =
        found.map_err(|failed| refusal(shared, &failed, &term, &Batch::new()).unwrap_or_else(|| failed.into()))?;
    if let Some(row) = found.first() {
        return rows::read(row).map(Some);
    }
    let there = shared.read("select 1 from {p}lease\" where id = $1", &[(&name, Type::BYTEA)]).await?;
    if there.is_empty() { Ok(None) } else { Err(StorageError::Fenced(id.clone())) }
}

/// Adds to the counts of rows what they lack.
pub(super) async fn correct_counts(
    shared: &Shared,
    kinds: &[&str],
    states: &[&str],
    by: &[i64],
) -> Result<(), StorageError> {
    let term = shared.member.current()?;
    let parameters: [Parameter<'_>; 5] = [
        (&term, Type::TEXT),
        (&shared.names.lock, Type::INT8),
        (&kinds, Type::TEXT_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&by, Type::INT8_ARRAY),
    ];
    let text = shared.names.sql("select {p}correct_counts\"($1, $2, $3, $4, $5)");
    match shared.repeated(&text, &parameters).await {
        Ok(_) => Ok(()),
        Err(failed) => Err(refusal(shared, &failed, &term, &Batch::new()).unwrap_or_else(|| failed.into())),
    }
}
