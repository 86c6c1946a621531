//! All of the tables at once: out in one transaction that reads one moment, in by one that writes.
//!
//! Both use a session of their own, so that a copy that takes minutes keeps no request from its place in the pool.

use std::future::Future;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use leasehold_core::keys;
use leasehold_core::lease::LeaseRow;
use leasehold_core::seams::storage::{Key, StorageError};
use leasehold_core::seams::store_copy::{Grouping, Piece, Record, cut_short};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::rows::{self, COLUMNS};
use super::session::Failed;
use super::{Names, Parameter, Shared, places};
use crate::integers::{integer, number};

/// How long one step may take: emptying the tables takes time for each row of them.
const STEP_MAX: Duration = Duration::from_secs(900);
/// A store that says nothing for so long is away.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// PostgreSQL notices by itself that nobody waits for a statement any more, where it can: an abandoned copy must not hold its locks
/// for as long as its step takes.
const NOTICES_WHO_IS_GONE: &str = "do $$ begin perform pg_catalog.set_config('client_connection_check_interval', '2s', true); \
                                   exception when others then null; end $$";
/// How long the next row may take to come.
const ROW_MAX: Duration = Duration::from_secs(60);

/// Writers go on beside it, and what they write is not in it.
pub(super) async fn export(shared: &Shared, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
    shared.member.is_up()?;
    let (client, task) = shared.sessions.alone().await?;
    shared.sessions.checked(&client).await?;
    let done = while_up(shared, read_all(&client, &shared.names, into)).await.unwrap_or_else(|away| Err(away.into()));
    drop(client);
    // The transaction ends with its session.
    task.abort();
    done
}

async fn read_all(client: &Client, names: &Names, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
    step(client.batch_execute("begin isolation level repeatable read read only")).await?;
    step(client.batch_execute(NOTICES_WHO_IS_GONE)).await?;
    let found = step(client.query_typed(&names.sql("select value from {p}counter\""), &[])).await?;
    let row = found.first().ok_or_else(|| StorageError::Corrupt("the store's own tables".to_owned()))?;
    let last = number(rows::get(row, 0)?);
    let mut grouping = Grouping::default();
    let values = names.sql("select key, value from {p}kv\" order by key");
    let mut found = Box::pin(step(client.query_typed_raw(&values, nothing())).await?);
    while let Some(row) = within(ROW_MAX, found.try_next()).await? {
        let record = Record::Value { key: Key::new(rows::text(&row, 0)?), value: rows::get(&row, 1)? };
        send(&mut grouping, record, &into).await?;
    }
    let leases = names.sql(&format!("select {COLUMNS} from {{p}}lease\" order by id"));
    let mut found = Box::pin(step(client.query_typed_raw(&leases, nothing())).await?);
    while let Some(row) = within(ROW_MAX, found.try_next()).await? {
        send(&mut grouping, Record::Lease(rows::read(&row)?), &into).await?;
    }
    let rest = grouping.rest();
    if !rest.is_empty() {
        into.send(rest).await.map_err(|_| cut_short())?;
    }
    step(client.batch_execute("commit")).await?;
    Ok(last)
}

/// A step of a copy may take minutes, a store that is away must not: its beats tell. One that comes late does no copy any harm.
async fn while_up<T>(shared: &Shared, copying: impl Future<Output = T>) -> Result<T, Failed> {
    tokio::select! {
        biased;
        () = shared.member.silent_for(SILENCE_MAX) => {
            Err(Failed::Unknown(format!("PostgreSQL has said nothing for {} s", SILENCE_MAX.as_secs())))
        }
        done = copying => Ok(done),
    }
}

fn nothing() -> Vec<(bool, Type)> {
    Vec::new()
}

async fn send(grouping: &mut Grouping, record: Record, into: &mpsc::Sender<Vec<Record>>) -> Result<(), StorageError> {
    match grouping.add(record) {
        Some(group) => into.send(group).await.map_err(|_| cut_short()),
        None => Ok(()),
    }
}

/// Waits for the writes under way, and keeps further ones waiting until it has ended.
pub(super) async fn replace(shared: &Shared, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
    let term = shared.member.current()?;
    let (client, task) = shared.sessions.alone().await?;
    let done =
        while_up(shared, write_all(&client, &shared.names, &term, from)).await.unwrap_or_else(|away| Err(away.into()));
    drop(client);
    if done.is_err() {
        // What was not committed is rolled back with its session.
        task.abort();
    }
    done.map_err(|failed| match failed {
        Refused::Failed(failed) if shared.member.is_refused(&failed, &term) => StorageError::Expelled,
        Refused::Failed(failed) => failed.into(),
        Refused::CutShort => cut_short(),
    })
}

enum Refused {
    Failed(Failed),
    CutShort,
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

async fn write_all(client: &Client, names: &Names, term: &str, mut from: mpsc::Receiver<Piece>) -> Result<(), Refused> {
    step(client.batch_execute("begin isolation level read committed")).await?;
    step(client.batch_execute(NOTICES_WHO_IS_GONE)).await?;
    // Every transaction that writes holds this lock, shared: behind it nobody is halfway, and nobody begins.
    let lock: [Parameter<'_>; 1] = [(&names.lock, Type::INT8)];
    step(client.query_typed("select pg_catalog.pg_advisory_xact_lock($1)", &lock)).await?;
    let guard: [Parameter<'_>; 2] = [(&term, Type::TEXT), (&names.lock, Type::INT8)];
    step(client.query_typed(&names.sql("select {p}guard\"($1, $2)"), &guard)).await?;
    let empty = "delete from {p}kv\"; delete from {p}lease\"; delete from {p}tombstone\"; delete from {p}lease_count\"";
    step(client.batch_execute(&names.sql(empty))).await?;
    // Both kinds of number go on from where they were.
    let text = names.sql("update {p}counter\" set value = value + 1, horizon = value + 1 returning value");
    let cached = first(step(client.query_typed(&text, &[])).await?)?;
    let sequence = format!("{}version\"", names.prefix);
    let text = "select pg_catalog.nextval($1::text::regclass)";
    let other = first(step(client.query_typed(text, &[(&sequence, Type::TEXT)])).await?)?;
    loop {
        match from.recv().await {
            Some(Piece::Records(records)) => {
                let (values, leases): (Vec<_>, Vec<_>) =
                    records.iter().partition(|record| matches!(record, Record::Value { .. }));
                put_values(client, names, &values, (cached, other)).await?;
                put_leases(client, names, &leases).await?;
            }
            Some(Piece::End) => break,
            None => return Err(Refused::CutShort),
        }
    }
    let count = "insert into {p}lease_count\" (place, kind, state, rows) \
                 select 0, kind, state, pg_catalog.count(*) from {p}lease\" group by kind, state";
    step(client.batch_execute(&names.sql(count))).await?;
    // Until PostgreSQL's own maintenance comes by, it would plan for tables that are nearly empty.
    step(client.batch_execute(&names.sql("analyze {p}kv\"; analyze {p}lease\""))).await?;
    step(client.batch_execute("commit")).await?;
    Ok(())
}

fn first(found: Vec<tokio_postgres::Row>) -> Result<i64, Failed> {
    let number = found.first().and_then(|row| row.try_get(0).ok());
    number.ok_or_else(|| Failed::Unknown("PostgreSQL gave no number for the change".to_owned()))
}

async fn put_values(
    client: &Client,
    names: &Names,
    records: &[&Record],
    (cached, other): (i64, i64),
) -> Result<(), Failed> {
    const TEXT: &str = "insert into {p}kv\" (key, value, version) select * from unnest($1, $2, $3)";
    let (mut keys, mut values, mut versions): (Vec<&[u8]>, Vec<&[u8]>, Vec<i64>) = Default::default();
    for record in records {
        if let Record::Value { key, value } = record {
            keys.push(key.as_str().as_bytes());
            values.push(value);
            versions.push(if keys::is_cached(key) { cached } else { other });
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let parameters: [Parameter<'_>; 3] =
        [(&keys, Type::BYTEA_ARRAY), (&values, Type::BYTEA_ARRAY), (&versions, Type::INT8_ARRAY)];
    step(client.query_typed(&names.sql(TEXT), &parameters)).await.map(drop)
}

async fn put_leases(client: &Client, names: &Names, records: &[&Record]) -> Result<(), Failed> {
    let rows: Vec<&LeaseRow> = records
        .iter()
        .filter_map(|record| match record {
            Record::Lease(row) => Some(row),
            Record::Value { .. } => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(rows: &[&'a LeaseRow], of: impl Fn(&'a LeaseRow) -> T) -> Vec<T> {
        rows.iter().copied().map(of).collect()
    }
    let id = column(&rows, |row| row.id.as_str().as_bytes());
    let kind = column(&rows, |row| row.kind.as_str());
    let state = column(&rows, |row| row.state.as_str());
    let next_at = column(&rows, |row| row.next_at.as_nanos());
    let expires_at = column(&rows, |row| row.expires_at.as_nanos());
    let fence = column(&rows, |row| integer(row.fence));
    let holder = column(&rows, |row| row.holder.as_deref().map(str::as_bytes));
    let held_until = column(&rows, |row| row.held_until.map(leasehold_model::Timestamp::as_nanos));
    let token = column(&rows, |row| row.token.as_str().as_bytes());
    let mount = column(&rows, |row| row.mount.as_str().as_bytes());
    let connection = column(&rows, |row| row.connection.as_bytes());
    let body = column(&rows, |row| row.body.as_slice());
    let parameters: [Parameter<'_>; 12] = [
        (&id, Type::BYTEA_ARRAY),
        (&kind, Type::TEXT_ARRAY),
        (&state, Type::TEXT_ARRAY),
        (&next_at, Type::INT8_ARRAY),
        (&expires_at, Type::INT8_ARRAY),
        (&fence, Type::INT8_ARRAY),
        (&holder, Type::BYTEA_ARRAY),
        (&held_until, Type::INT8_ARRAY),
        (&token, Type::BYTEA_ARRAY),
        (&mount, Type::BYTEA_ARRAY),
        (&connection, Type::BYTEA_ARRAY),
        (&body, Type::BYTEA_ARRAY),
    ];
    let text = format!("insert into {{p}}lease\" ({COLUMNS}) select * from unnest({})", places(parameters.len()));
    step(client.query_typed(&names.sql(&text), &parameters)).await.map(drop)
}

async fn step<T>(asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failed> {
    within(STEP_MAX, asked).await
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failed> {
    match timeout(limit, asked).await {
        Ok(answer) => answer.map_err(Failed::from),
        Err(_) => Err(Failed::Unknown(format!("PostgreSQL did not answer within {} s", limit.as_secs()))),
    }
}
