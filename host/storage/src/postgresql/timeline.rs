//! What a fail-over has lost is replayed.
//!
//! A standby that takes over begins a new timeline, and lacks what its primary had answered last unless that waited for it. So each
//! server keeps its latest writes ([`journal`](super::journal)). A term holds on one timeline only: on a new one a server writes nothing and decides
//! nothing before it has replayed its lost writes ([`replay_lost`]) and joined anew, and none joins before every server that lives has
//! replayed, or 6 s are over (`migrations/0006_timelines.sql`).
//!
//! Where it cannot be told which writes are lost (the new primary was started once more, several fail-overs came at once, more is lost
//! than is kept, others work already), only what ended a token or a lease is replayed.
//!
//! Must not know: what a value means.

use std::time::Duration;

use leasehold_core::seams::storage::{Batch, StorageError};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::commit::{Columns, locks};
use super::journal::{Receipt, Timeline, Write};
use super::rows::get as column;
use super::session::Failed;
use super::{Parameter, Shared, places};

/// How long a write waits for the one that it stands on: another server may have yet to replay that.
const BASE_MAX: Duration = Duration::from_secs(5);
const BASE_POLL: Duration = Duration::from_millis(50);
/// After so many replayed writes the others are told that more are to come.
const TOLD_EVERY: usize = 100;
/// How long one statement may take.
const STEP_MAX: Duration = Duration::from_secs(5);

/// PostgreSQL's answer once servers work on the timeline.
const IS_OPEN: &str = "LH006";

/// The timeline of the server that is asked.
pub(super) const WHICH: &str = "select {p}timeline\"()";

/// If PostgreSQL has begun a new timeline since this server joined: replays what was lost of its writes.
pub(super) async fn replay_lost(shared: &Shared) -> Result<(), Failed> {
    let journal = &shared.journal;
    let _one = journal.replaying.lock().await;
    let Lookup { timeline, .. } = lookup(shared, 0, &[]).await?;
    if journal.is_replayed(timeline) {
        return Ok(());
    }
    let is_first = journal.timeline() == 0;
    let before = journal.turn(timeline);
    let found = lookup(shared, before.number, &before.writes).await?;
    if found.timeline != timeline {
        return Err(Failed::Unknown("PostgreSQL fails over again".to_owned()));
    }
    let is_exact = !found.is_open && found.lost_after.is_some_and(|position| before.forgotten <= position);
    let is_lost = found.is_lost.into_iter().map(|is_lost| is_lost.unwrap_or(true));
    let mut lost: Vec<Write> =
        before.writes.into_iter().zip(is_lost).filter(|(_, is_lost)| *is_lost).map(|(write, _)| write).collect();
    lost.sort_by_key(|write| write.receipt.lsn);
    let number = timeline.number;
    if !is_first && is_exact {
        tracing::warn!(
            lost = lost.len(),
            "PostgreSQL has failed over to timeline {number}: what it has lost of this server's writes is replayed"
        );
    } else if !is_first {
        tracing::error!(
            "PostgreSQL has failed over to timeline {number}, and what it has lost cannot be told: tokens and leases of which this \
             server knows the end are ended again, other writes of the last minutes may be gone"
        );
    }
    let again = replay_all(shared, number, !is_exact, lost).await?;
    let term = shared.member.term();
    ask(shared, "select {p}has_replayed\"($1, $2)", &[(&term, Type::TEXT), (&number, Type::INT8)]).await?;
    journal.has_replayed(timeline, again);
    Ok(())
}

/// What PostgreSQL says of its timeline, and of writes on the one with the number `from`.
struct Lookup {
    timeline: Timeline,
    is_open: bool,
    lost_after: Option<i64>,
    /// One for each write; `None`: not known.
    is_lost: Vec<Option<bool>>,
}

async fn lookup(shared: &Shared, from: i64, writes: &[Write]) -> Result<Lookup, Failed> {
    let positions: Vec<i64> = writes.iter().map(|write| write.receipt.lsn).collect();
    let transactions: Vec<i64> = writes.iter().map(|write| write.receipt.transaction).collect();
    let found = ask(
        shared,
        "select * from {p}lost\"($1, $2, $3)",
        &[(&from, Type::INT8), (&positions, Type::INT8_ARRAY), (&transactions, Type::INT8_ARRAY)],
    )
    .await?;
    Ok(Lookup {
        timeline: Timeline { number: first(&found, 0)?, begun_at: first(&found, 1)? },
        is_open: first(&found, 2)?,
        lost_after: first(&found, 3)?,
        is_lost: first(&found, 4)?,
    })
}

/// Replays writes in their order; answers with what was replayed, under new receipts.
async fn replay_all(
    shared: &Shared,
    timeline: i64,
    mut only_ends: bool,
    mut lost: Vec<Write>,
) -> Result<Vec<Write>, Failed> {
    let mut again = Vec::new();
    let began = Instant::now();
    loop {
        let mut waiting = Vec::new();
        let (before, count) = (again.len(), lost.len());
        for (at, write) in lost.into_iter().enumerate() {
            if at % TOLD_EVERY == TOLD_EVERY - 1 {
                let term = shared.member.term();
                ask(shared, "select {p}replays\"($1)", &[(&term, Type::TEXT)]).await?;
            }
            let mut write = if only_ends { write.ends() } else { write };
            let mut replayed = replay(shared, timeline, only_ends, &write).await;
            if !only_ends && matches!(&replayed, Err(failed) if failed.code() == Some(IS_OPEN)) {
                tracing::error!(
                    writes = count - at,
                    "other servers work already: of what is still to be replayed only ends of tokens and leases are"
                );
                only_ends = true;
                write = write.ends();
                replayed = replay(shared, timeline, only_ends, &write).await;
            }
            match replayed? {
                Some(receipt) => {
                    write.receipt = Receipt { number: write.receipt.number, ..receipt };
                    again.push(write);
                }
                None => waiting.push(write),
            }
        }
        if waiting.is_empty() {
            return Ok(again);
        }
        if began.elapsed() > BASE_MAX {
            tracing::error!(
                writes = waiting.len(),
                "writes that stood on what is lost for good are lost with it, but for the tokens and leases that they ended"
            );
            only_ends = true;
        } else if again.len() == before {
            tokio::time::sleep(BASE_POLL).await;
        }
        lost = waiting;
    }
}

/// What a commit has answered.
fn receipt(row: &Row) -> Result<Receipt, StorageError> {
    match column::<Vec<Option<i64>>>(row, 0)?.as_slice() {
        [Some(lsn), Some(transaction), number] => Ok(Receipt { lsn: *lsn, transaction: *transaction, number: *number }),
        _ => Err(StorageError::Corrupt("the store's own tables".to_owned())),
    }
}

/// A batch was committed by a statement that was sent on the timeline with this number.
///
/// # Errors
/// As [`Journal::keep`](super::journal::Journal::keep).
pub(super) fn committed(shared: &Shared, number: i64, found: &[Row], batch: Batch) -> Result<(), StorageError> {
    let row = found.first().ok_or_else(|| StorageError::Corrupt("the store's own tables".to_owned()))?;
    shared.journal.keep(number, receipt(row)?, batch)
}

/// `None`: what it stands on is not there, perhaps not yet.
pub(super) async fn replay(
    shared: &Shared,
    timeline: i64,
    only_ends: bool,
    write: &Write,
) -> Result<Option<Receipt>, Failed> {
    let columns = Columns::of(&write.batch);
    let (keys, exclusive) = locks(&shared.names, &write.batch);
    let number = write.receipt.number.unwrap_or(0);
    let head: [Parameter<'_>; 6] = [
        (&timeline, Type::INT8),
        (&write.receipt.lsn, Type::INT8),
        (&number, Type::INT8),
        (&only_ends, Type::BOOL),
        (&keys, Type::INT8_ARRAY),
        (&exclusive, Type::BOOL_ARRAY),
    ];
    let parameters = [&head[..], &columns.parameters()].concat();
    let places = places(parameters.len());
    let text = format!("select {{p}}receipt\"(false) from {{p}}replay\"({places}) as was_replayed where was_replayed");
    let found = ask(shared, &text, &parameters).await?;
    found.first().map(|row| receipt(row).map_err(|error| Failed::Unknown(error.to_string()))).transpose()
}

async fn ask(shared: &Shared, text: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failed> {
    shared.sessions.ask_aside(&shared.names.sql(text), parameters, STEP_MAX).await
}

fn first<'a, T: FromSql<'a>>(found: &'a [Row], at: usize) -> Result<T, Failed> {
    let row = found.first().ok_or_else(|| Failed::Unknown("PostgreSQL did not answer".to_owned()))?;
    column(row, at).map_err(|error| Failed::Unknown(error.to_string()))
}
