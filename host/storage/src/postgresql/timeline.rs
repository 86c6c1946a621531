//! What a fail-over has lost is written again.
//!
//! A standby that takes over begins a new timeline, and lacks what its primary had answered last unless that waited for it. So each
//! server keeps its latest writes ([`Journal`]). A term holds on one timeline only: on a new one a server writes nothing and decides
//! nothing before it has made its lost writes again ([`say`]) and joined anew, and none joins before every server that lives has said
//! what it had, or 6 s are over (`migrations/0006_timelines.sql`).
//!
//! Where it cannot be told which writes are lost (the new primary was started once more, several fail-overs came at once, more is lost
//! than is kept, others work already), only what ended a token or a lease is made again: that is right on every state of the store.
//!
//! Must not know: what a value means, but for the two kinds of ends.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::keys;
use leasehold_core::lease::LeaseState;
use leasehold_core::rows::job;
use leasehold_core::seams::storage::{Batch, Change, StorageError};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::commit::{Columns, locks};
use super::rows::get as column;
use super::session::Failed;
use super::{Parameter, Shared};

/// Writes are kept for so long: a standby that is further behind does not take over by itself.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// Bytes of them at most, about.
const KEPT_MAX: usize = 8 << 20;
/// What a change takes besides its bytes, about.
const CHANGE_BYTES: usize = 300;
/// How long a write waits for the one that it stands on: another server may have yet to make that again.
const BASE_MAX: Duration = Duration::from_secs(2);
const BASE_POLL: Duration = Duration::from_millis(50);
/// How long one statement may take.
const STEP_MAX: Duration = Duration::from_secs(5);

/// PostgreSQL's answer once servers work on the timeline.
const IS_OPEN: &str = "LH006";

/// The timeline of the server that is asked.
pub(super) const WHICH: &str = "select {p}timeline\"()";

/// Where a write stands.
#[derive(Clone, Copy, Debug)]
struct Receipt {
    /// A position in the log after all that it wrote, and before its commit.
    lsn: i64,
    transaction: i64,
    /// Of its change under the cached prefix.
    number: Option<i64>,
}

impl Receipt {
    fn read(row: &Row) -> Result<Self, StorageError> {
        match column::<Vec<Option<i64>>>(row, 0)?.as_slice() {
            [Some(lsn), Some(transaction), number] => {
                Ok(Self { lsn: *lsn, transaction: *transaction, number: *number })
            }
            _ => Err(StorageError::Corrupt("the store's own tables".to_owned())),
        }
    }
}

#[derive(Clone)]
struct Write {
    receipt: Receipt,
    batch: Batch,
    at: Instant,
    bytes: usize,
}

/// This server's latest writes.
#[derive(Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// Held by whoever says what this server had.
    saying: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The timeline that `writes` stand on; 0 before the first is known.
    timeline: i64,
    writes: VecDeque<Write>,
    bytes: usize,
    /// Up to this position writes were forgotten.
    forgotten: i64,
    /// On an earlier timeline: what is not said yet.
    unsaid: Unsaid,
    /// The timeline up to which everything is said.
    said: i64,
}

#[derive(Clone, Default)]
struct Unsaid {
    timeline: i64,
    forgotten: i64,
    writes: Vec<Write>,
}

impl Journal {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timeline that this server works on.
    pub(super) fn timeline(&self) -> i64 {
        self.state().timeline
    }

    /// Remembers what was written by a statement that was sent on `timeline`.
    ///
    /// # Errors
    /// `Unavailable`: on another timeline by now, where this write may be missing.
    pub(super) fn keep(&self, timeline: i64, found: &[Row], batch: Batch) -> Result<(), StorageError> {
        let row = found.first().ok_or_else(|| StorageError::Corrupt("the store's own tables".to_owned()))?;
        let receipt = Receipt::read(row)?;
        let mut state = self.state();
        if state.timeline != timeline {
            return Err(StorageError::Unavailable("PostgreSQL has failed over while this was written".to_owned()));
        }
        // Without timelines nothing can be found to be lost.
        if timeline != 0 {
            state.push(Write { receipt, bytes: bytes(&batch), batch, at: Instant::now() });
        }
        Ok(())
    }

    /// From now on this server works on `timeline`: what it has written before is to be said.
    fn turn(&self, timeline: i64) -> Unsaid {
        let mut state = self.state();
        if state.timeline != timeline {
            let mut writes = std::mem::take(&mut state.unsaid.writes);
            // Of those that two fail-overs have passed by nothing is known.
            let oldest = if writes.is_empty() { state.timeline } else { state.unsaid.timeline };
            writes.extend(std::mem::take(&mut state.writes));
            state.unsaid = Unsaid { timeline: oldest, forgotten: state.forgotten, writes };
            (state.timeline, state.bytes, state.forgotten) = (timeline, 0, 0);
        }
        state.unsaid.clone()
    }

    fn said(&self, timeline: i64, again: Vec<Write>) {
        let mut state = self.state();
        state.unsaid = Unsaid::default();
        state.said = timeline;
        again.into_iter().for_each(|write| state.push(write));
    }
}

impl State {
    fn push(&mut self, write: Write) {
        self.bytes += write.bytes;
        self.writes.push_back(write);
        while let Some(oldest) = self.writes.front()
            && (self.bytes > KEPT_MAX || oldest.at.elapsed() > KEPT_FOR)
        {
            self.bytes -= oldest.bytes;
            self.forgotten = self.forgotten.max(oldest.receipt.lsn);
            self.writes.pop_front();
        }
    }
}

fn bytes(batch: &Batch) -> usize {
    let of = |change: &Change| match change {
        Change::Put { value, .. } => value.len(),
        Change::Insert(row) | Change::Move { row, .. } => row.body.len(),
        _ => 0,
    };
    batch.0.iter().map(|change| CHANGE_BYTES + of(change)).sum()
}

/// Whether a change ends something whose name is never given again.
fn is_end(change: &Change) -> bool {
    match change {
        Change::Delete { key, .. } => keys::is_token(key),
        Change::Remove { id, .. } => !id.as_str().starts_with(job::PREFIX),
        Change::Move { row, .. } => row.state == LeaseState::Revoking,
        _ => false,
    }
}

/// If PostgreSQL has begun a new timeline since this server joined: makes again what was lost of its writes.
pub(super) async fn say(shared: &Shared) -> Result<(), Failed> {
    let journal = &shared.journal;
    let _one = journal.saying.lock().await;
    let found = ask(shared, WHICH, &[]).await?;
    let timeline: i64 = first(&found, 0)?;
    if journal.state().said == timeline {
        return Ok(());
    }
    let is_first = journal.timeline() == 0;
    let unsaid = journal.turn(timeline);
    let (exact, lost) = lost(shared, timeline, &unsaid).await?;
    if !is_first && exact {
        tracing::warn!(
            lost = lost.len(),
            "PostgreSQL has failed over to timeline {timeline}: what it has lost of this server's writes is made again"
        );
    } else if !is_first {
        tracing::error!(
            "PostgreSQL has failed over to timeline {timeline}, and what it has lost cannot be told: tokens and leases of which this \
             server knows the end are ended again, other writes of the last minutes may be gone"
        );
    }
    let again = replay(shared, timeline, exact, lost).await?;
    let term = shared.member.term();
    ask(shared, "select {p}said\"($1, $2)", &[(&term, Type::TEXT), (&timeline, Type::INT8)]).await?;
    journal.said(timeline, again);
    Ok(())
}

/// What is to be made again, and whether that is known exactly.
async fn lost(shared: &Shared, timeline: i64, unsaid: &Unsaid) -> Result<(bool, Vec<Write>), Failed> {
    let positions: Vec<i64> = unsaid.writes.iter().map(|write| write.receipt.lsn).collect();
    let transactions: Vec<i64> = unsaid.writes.iter().map(|write| write.receipt.transaction).collect();
    let found = ask(
        shared,
        "select * from {p}lost\"($1, $2, $3)",
        &[(&unsaid.timeline, Type::INT8), (&positions, Type::INT8_ARRAY), (&transactions, Type::INT8_ARRAY)],
    )
    .await?;
    let (now, is_open): (i64, bool) = (first(&found, 0)?, first(&found, 1)?);
    if now != timeline {
        return Err(Failed::Unknown("PostgreSQL fails over again".to_owned()));
    }
    let (lost_after, is_lost): (Option<i64>, Vec<Option<bool>>) = (first(&found, 2)?, first(&found, 3)?);
    let exact = !is_open && lost_after.is_some_and(|position| unsaid.forgotten <= position);
    let mut lost: Vec<Write> = unsaid
        .writes
        .iter()
        .zip(is_lost)
        .filter(|(_, is_lost)| is_lost.unwrap_or(true))
        .map(|(write, _)| write.clone())
        .collect();
    lost.sort_by_key(|write| write.receipt.lsn);
    Ok((exact, lost))
}

/// Makes writes again, in their order; answers with those that were, under their new receipts.
async fn replay(shared: &Shared, timeline: i64, exact: bool, mut lost: Vec<Write>) -> Result<Vec<Write>, Failed> {
    let mut again = Vec::new();
    let (began, mut only_ends) = (Instant::now(), !exact);
    loop {
        let mut waiting = Vec::new();
        let before = again.len();
        for mut write in lost {
            let mut made = make_again(shared, timeline, only_ends, &write).await;
            if !only_ends && matches!(&made, Err(failed) if failed.code() == Some(IS_OPEN)) {
                only_ends = true;
                made = make_again(shared, timeline, only_ends, &write).await;
            }
            match made? {
                Some(receipt) => {
                    if only_ends {
                        write.batch.0.retain(is_end);
                    }
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
                "writes that stood on what is lost for good are lost with it, but for what they ended"
            );
            only_ends = true;
        } else if again.len() == before {
            tokio::time::sleep(BASE_POLL).await;
        }
        lost = waiting;
    }
}

/// `None`: what it stands on is not there, perhaps not yet.
async fn make_again(shared: &Shared, timeline: i64, only_ends: bool, write: &Write) -> Result<Option<Receipt>, Failed> {
    const TEXT: &str = "select {p}receipt\"(false) from {p}replay\"($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
                        $16, $17, $18, $19) as was_made where was_made";
    let columns = Columns::of(&write.batch);
    let ends: Vec<bool> = write.batch.0.iter().map(is_end).collect();
    let (keys, _) = locks(&shared.names, &write.batch);
    let number = write.receipt.number.unwrap_or(0);
    let parameters: [Parameter<'_>; 19] = [
        (&timeline, Type::INT8),
        (&write.receipt.lsn, Type::INT8),
        (&number, Type::INT8),
        (&only_ends, Type::BOOL),
        (&keys, Type::INT8_ARRAY),
        (&columns.op, Type::INT2_ARRAY),
        (&columns.key, Type::BYTEA_ARRAY),
        (&columns.value, Type::BYTEA_ARRAY),
        (&columns.expect, Type::INT8_ARRAY),
        (&columns.numbered, Type::BOOL_ARRAY),
        (&ends, Type::BOOL_ARRAY),
        (&columns.kind, Type::TEXT_ARRAY),
        (&columns.state, Type::TEXT_ARRAY),
        (&columns.next, Type::INT8_ARRAY),
        (&columns.expires, Type::INT8_ARRAY),
        (&columns.fence, Type::INT8_ARRAY),
        (&columns.token, Type::BYTEA_ARRAY),
        (&columns.mount, Type::BYTEA_ARRAY),
        (&columns.connection, Type::BYTEA_ARRAY),
    ];
    let found = ask(shared, TEXT, &parameters).await?;
    found.first().map(|row| Receipt::read(row).map_err(|error| Failed::Unknown(error.to_string()))).transpose()
}

async fn ask(shared: &Shared, text: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failed> {
    shared.sessions.ask_aside(&shared.names.sql(text), parameters, STEP_MAX).await
}

fn first<'a, T: tokio_postgres::types::FromSql<'a>>(found: &'a [Row], at: usize) -> Result<T, Failed> {
    let row = found.first().ok_or_else(|| Failed::Unknown("PostgreSQL did not answer".to_owned()))?;
    column(row, at).map_err(|error| Failed::Unknown(error.to_string()))
}
