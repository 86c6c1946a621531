//! What a fail-over has lost is replayed.
//!
//! A standby that takes over begins a new timeline, and lacks what its primary had answered last unless that waited for it. So each
//! server keeps its latest writes ([`Journal`]). A term holds on one timeline only: on a new one a server writes nothing and decides
//! nothing before it has replayed its lost writes ([`replay_lost`]) and joined anew, and none joins before every server that lives has
//! replayed, or 6 s are over (`migrations/0006_timelines.sql`).
//!
//! Where it cannot be told which writes are lost (the new primary was started once more, several fail-overs came at once, more is lost
//! than is kept, others work already), only what ended a token or a lease is replayed.
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
/// Bytes of them at most, about; and of older ones what ended something, half as many.
const KEPT_MAX: usize = 8 << 20;
const ENDS_MAX: usize = 4 << 20;
/// What a change takes besides its value, about.
const CHANGE_BYTES: usize = 500;
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

/// Where a write stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    /// A position in the log after all that it wrote, and before its commit.
    pub(super) lsn: i64,
    pub(super) transaction: i64,
    /// Of its change under the cached prefix.
    pub(super) number: Option<i64>,
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
pub(super) struct Write {
    receipt: Receipt,
    batch: Batch,
    at: Instant,
    bytes: usize,
}

impl Write {
    pub(super) fn new(receipt: Receipt, batch: Batch) -> Self {
        Self { receipt, bytes: bytes(&batch), batch, at: Instant::now() }
    }

    /// Without what does not end anything.
    fn ends(mut self) -> Self {
        self.batch.0.retain(is_end);
        self.batch.0.shrink_to_fit();
        Self { bytes: bytes(&self.batch), ..self }
    }
}

/// Of two servers that both took over from the same one, the timeline has the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Timeline {
    number: i64,
    begun_at: i64,
}

/// This server's latest writes.
#[derive(Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// Held by whoever replays.
    replaying: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// What `recent` and `ends` stand on; the number is 0 before it is known.
    timeline: Timeline,
    recent: Writes,
    /// Of older writes.
    ends: Writes,
    /// Up to this position nothing but ends is kept.
    forgotten: i64,
    /// Of an earlier timeline, and not replayed yet.
    before: Before,
    /// Everything before this timeline is replayed.
    replayed: Timeline,
}

#[derive(Default)]
struct Writes {
    queue: VecDeque<Write>,
    bytes: usize,
}

impl Writes {
    fn push(&mut self, write: Write) {
        self.bytes += write.bytes;
        self.queue.push_back(write);
    }

    /// The oldest one, if it is too old or all are too many.
    fn pop_over(&mut self, max: usize) -> Option<Write> {
        let oldest = self.queue.front()?;
        if self.bytes <= max && oldest.at.elapsed() <= KEPT_FOR {
            return None;
        }
        self.bytes -= oldest.bytes;
        self.queue.pop_front()
    }
}

#[derive(Clone, Default)]
struct Before {
    number: i64,
    forgotten: i64,
    writes: Vec<Write>,
}

impl Journal {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the timeline that this server works on.
    pub(super) fn timeline(&self) -> i64 {
        self.state().timeline.number
    }

    /// Remembers what was written by a statement that was sent on the timeline with this number.
    ///
    /// # Errors
    /// `Unavailable`: on another timeline by now, where this write may be missing.
    pub(super) fn keep(&self, number: i64, found: &[Row], batch: Batch) -> Result<(), StorageError> {
        let row = found.first().ok_or_else(|| StorageError::Corrupt("the store's own tables".to_owned()))?;
        let receipt = Receipt::read(row)?;
        let mut state = self.state();
        if state.timeline.number != number {
            return Err(StorageError::Unavailable("PostgreSQL has failed over while this was written".to_owned()));
        }
        // Without timelines nothing can be found to be lost.
        if number != 0 {
            state.push(Write::new(receipt, batch));
        }
        Ok(())
    }

    /// From now on this server works on `timeline`: what it has written before that is to be looked at.
    fn turn(&self, timeline: Timeline) -> Before {
        let mut state = self.state();
        if state.timeline != timeline {
            let mut writes = std::mem::take(&mut state.before.writes);
            // Of those that two fail-overs have passed by nothing is known.
            let number = if writes.is_empty() { state.timeline.number } else { state.before.number };
            writes.extend(std::mem::take(&mut state.ends).queue);
            writes.extend(std::mem::take(&mut state.recent).queue);
            state.before = Before { number, forgotten: state.forgotten, writes };
            (state.timeline, state.forgotten) = (timeline, 0);
        }
        state.before.clone()
    }

    fn has_replayed(&self, timeline: Timeline, again: Vec<Write>) {
        let mut state = self.state();
        state.before = Before::default();
        state.replayed = timeline;
        again.into_iter().for_each(|write| state.push(write));
    }
}

impl State {
    fn push(&mut self, write: Write) {
        self.recent.push(write);
        while let Some(old) = self.recent.pop_over(KEPT_MAX) {
            self.forgotten = self.forgotten.max(old.receipt.lsn);
            let ends = old.ends();
            if !ends.batch.0.is_empty() {
                self.ends.push(ends);
            }
        }
        while self.ends.pop_over(ENDS_MAX).is_some() {}
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

/// Whether a change ends something for good: its name is given again, if at all, by somebody who chooses it.
fn is_end(change: &Change) -> bool {
    match change {
        Change::Delete { key, .. } => keys::is_token(key),
        Change::Remove { id, .. } => !id.as_str().starts_with(job::PREFIX),
        Change::Move { row, .. } => row.state == LeaseState::Revoking,
        _ => false,
    }
}

/// If PostgreSQL has begun a new timeline since this server joined: replays what was lost of its writes.
pub(super) async fn replay_lost(shared: &Shared) -> Result<(), Failed> {
    let journal = &shared.journal;
    let _one = journal.replaying.lock().await;
    let Lookup { timeline, .. } = lookup(shared, 0, &[]).await?;
    if journal.state().replayed == timeline {
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

/// `None`: what it stands on is not there, perhaps not yet.
pub(super) async fn replay(
    shared: &Shared,
    timeline: i64,
    only_ends: bool,
    write: &Write,
) -> Result<Option<Receipt>, Failed> {
    const TEXT: &str = "select {p}receipt\"(false) from {p}replay\"($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
                        $16, $17, $18, $19, $20, $21) as was_replayed where was_replayed";
    let columns = Columns::of(&write.batch);
    let (keys, exclusive) = locks(&shared.names, &write.batch);
    let number = write.receipt.number.unwrap_or(0);
    let parameters: [Parameter<'_>; 21] = [
        (&timeline, Type::INT8),
        (&write.receipt.lsn, Type::INT8),
        (&number, Type::INT8),
        (&only_ends, Type::BOOL),
        (&keys, Type::INT8_ARRAY),
        (&exclusive, Type::BOOL_ARRAY),
        (&columns.op, Type::INT2_ARRAY),
        (&columns.key, Type::BYTEA_ARRAY),
        (&columns.value, Type::BYTEA_ARRAY),
        (&columns.expect, Type::INT8_ARRAY),
        (&columns.numbered, Type::BOOL_ARRAY),
        (&columns.kind, Type::TEXT_ARRAY),
        (&columns.state, Type::TEXT_ARRAY),
        (&columns.next, Type::INT8_ARRAY),
        (&columns.expires, Type::INT8_ARRAY),
        (&columns.fence, Type::INT8_ARRAY),
        (&columns.holder, Type::BYTEA_ARRAY),
        (&columns.until, Type::INT8_ARRAY),
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
