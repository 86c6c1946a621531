//! All of the file at once: out in one transaction that reads, in by one that writes.

use leasehold_core::lease::LeaseRow;
use leasehold_core::seams::storage::{Key, StorageError};
use leasehold_core::seams::store_copy::{Grouping, Piece, Record, cut_short};
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::mpsc;

use super::rows::{self, columns};
use super::{unavailable, writer};
use crate::integers::{integer, number};

/// Blocks; writers go on beside it, and what they write is not in it.
pub(super) fn export(connection: &Connection, into: &mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
    const LEASES: &str = concat!("select ", columns!(), " from lease order by id");
    let transaction = connection.unchecked_transaction().map_err(unavailable)?;
    // The first read decides which moment all others see.
    let text = "select value from counter where name = 'version'";
    let last: i64 = transaction.query_row(text, [], |row| row.get(0)).map_err(unavailable)?;
    let mut grouping = Grouping::default();
    let mut send = |record: Record| match grouping.add(record) {
        Some(group) => into.blocking_send(group).map_err(|_| cut_short()),
        None => Ok(()),
    };
    {
        let mut values = transaction.prepare("select key, value from kv order by key").map_err(unavailable)?;
        let mut found = values.query([]).map_err(unavailable)?;
        while let Some(row) = found.next().map_err(unavailable)? {
            let key: String = row.get(0).map_err(unavailable)?;
            send(Record::Value { key: Key::new(key), value: row.get(1).map_err(unavailable)? })?;
        }
        let mut leases = transaction.prepare(LEASES).map_err(unavailable)?;
        let mut found = leases.query([]).map_err(unavailable)?;
        while let Some(row) = found.next().map_err(unavailable)? {
            send(Record::Lease(rows::read(row)?))?;
        }
    }
    let rest = grouping.rest();
    if !rest.is_empty() {
        into.blocking_send(rest).map_err(|_| cut_short())?;
    }
    Ok(number(last))
}

/// Blocks, and keeps writers waiting until it has ended; those who read see what was there before.
pub(super) fn replace(connection: &mut Connection, mut from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
    connection.pragma_update(None, "synchronous", "full").map_err(unavailable)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
    let version = writer::counter(&transaction, "version").map_err(unavailable)? + 1;
    transaction.execute_batch("delete from kv; delete from lease; delete from tombstone").map_err(unavailable)?;
    let mut has_ended = false;
    while let Some(piece) = from.blocking_recv() {
        match piece {
            Piece::Records(records) => {
                for record in records {
                    load(&transaction, record, version).map_err(unavailable)?;
                }
            }
            Piece::End => {
                has_ended = true;
                break;
            }
        }
    }
    if !has_ended {
        return Err(cut_short());
    }
    writer::set_counter(&transaction, "version", version).map_err(unavailable)?;
    writer::set_counter(&transaction, "horizon", version).map_err(unavailable)?;
    transaction.commit().map_err(unavailable)?;
    // All of it stands in the log now. A reader in between keeps it from being emptied; then a later commit does it.
    let emptied = connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
    if let Err(error) = emptied {
        tracing::debug!(%error, "the log of the storage file could not be emptied at once");
    }
    Ok(())
}

fn load(connection: &Connection, record: Record, version: u64) -> rusqlite::Result<()> {
    match record {
        Record::Value { key, value } => {
            let text = "insert into kv (key, value, version) values (?1, ?2, ?3)";
            connection.prepare_cached(text)?.execute(params![key.as_str(), value, integer(version)]).map(drop)
        }
        Record::Lease(row) => insert(connection, &row),
    }
}

fn insert(connection: &Connection, row: &LeaseRow) -> rusqlite::Result<()> {
    const TEXT: &str =
        concat!("insert into lease (", columns!(), ") values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
    rows::write(&mut connection.prepare_cached(TEXT)?, row, &[]).map(drop)
}
