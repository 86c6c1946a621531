//! Lease rows between their columns and their type.

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::StorageError;
use leasehold_model::{MountAccessor, Timestamp, TokenHash};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::integers::number;

/// In the order of `LeaseRow`'s fields and of the table.
pub(super) const COLUMNS: &str =
    "id, kind, state, next_at, expires_at, fence, holder, held_until, token, mount, connection, body";

pub(super) fn read(row: &Row) -> Result<LeaseRow, StorageError> {
    let id = text(row, 0)?;
    let damaged = || StorageError::Corrupt(id.clone());
    let moment = |at| get::<i64>(row, at).map(Timestamp::from_nanos);
    Ok(LeaseRow {
        id: id.parse().map_err(|_| damaged())?,
        kind: LeaseKind::parse(get(row, 1)?).ok_or_else(damaged)?,
        state: LeaseState::parse(get(row, 2)?).ok_or_else(damaged)?,
        next_at: moment(3)?,
        expires_at: moment(4)?,
        fence: number(get(row, 5)?),
        holder: get::<Option<&[u8]>>(row, 6)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        held_until: get::<Option<i64>>(row, 7)?.map(Timestamp::from_nanos),
        token: TokenHash::from_hex(text(row, 8)?),
        mount: MountAccessor::new(text(row, 9)?),
        connection: text(row, 10)?,
        body: get(row, 11)?,
    })
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, StorageError> {
    row.try_get(at).map_err(|error| StorageError::Unavailable(error.to_string()))
}

/// What a column of bytes holds as text.
pub(super) fn text(row: &Row, at: usize) -> Result<String, StorageError> {
    let bytes: &[u8] = get(row, at)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|error| StorageError::Corrupt(String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
