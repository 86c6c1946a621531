//! Lease rows between their columns and their type.

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::StorageError;
use leasehold_model::{MountAccessor, Timestamp, TokenHash};
use rusqlite::types::{FromSql, FromSqlError};
use rusqlite::{CachedStatement, Row, ToSql};

use super::unavailable;
use crate::integers::{integer, number};

/// In the order of `LeaseRow`'s fields; every statement that reads or writes whole rows names them so.
macro_rules! columns {
    () => {
        "id, kind, state, next_at, expires_at, fence, holder, held_until, token, mount, connection, body"
    };
}
pub(super) use columns;

pub(super) fn read(row: &Row<'_>) -> Result<LeaseRow, StorageError> {
    let id = text(row, 0)?;
    let damaged = || StorageError::Corrupt(id.to_owned());
    let moment = |at| row.get(at).map(Timestamp::from_nanos).map_err(|_| damaged());
    Ok(LeaseRow {
        id: id.parse().map_err(|_| damaged())?,
        kind: LeaseKind::parse(text(row, 1)?).ok_or_else(damaged)?,
        state: LeaseState::parse(text(row, 2)?).ok_or_else(damaged)?,
        next_at: moment(3)?,
        expires_at: moment(4)?,
        fence: number(get(row, 5)?),
        holder: get(row, 6)?,
        held_until: get::<Option<i64>>(row, 7)?.map(Timestamp::from_nanos),
        token: TokenHash::from_hex(text(row, 8)?),
        mount: MountAccessor::new(text(row, 9)?),
        connection: get(row, 10)?,
        body: get(row, 11)?,
    })
}

/// Runs a statement whose first parameters are the columns, in order, and then `more`. Answers how many rows it changed.
pub(super) fn write(
    statement: &mut CachedStatement<'_>,
    row: &LeaseRow,
    more: &[&dyn ToSql],
) -> rusqlite::Result<usize> {
    let (next_at, expires_at, fence) = (row.next_at.as_nanos(), row.expires_at.as_nanos(), integer(row.fence));
    let held_until = row.held_until.map(Timestamp::as_nanos);
    let columns: [&dyn ToSql; 12] = [
        &row.id.as_str(),
        &row.kind.as_str(),
        &row.state.as_str(),
        &next_at,
        &expires_at,
        &fence,
        &row.holder,
        &held_until,
        &row.token.as_str(),
        &row.mount.as_str(),
        &row.connection,
        &row.body,
    ];
    for (at, value) in (1..).zip(columns.iter().chain(more)) {
        statement.raw_bind_parameter(at, value)?;
    }
    statement.raw_execute()
}

fn get<T: FromSql>(row: &Row<'_>, at: usize) -> Result<T, StorageError> {
    row.get(at).map_err(unavailable)
}

fn text<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a str, StorageError> {
    let value = row.get_ref(at).map_err(unavailable)?;
    value.as_str().map_err(|error: FromSqlError| StorageError::Unavailable(error.to_string()))
}
