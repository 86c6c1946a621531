//! What this server has written last.
//!
//! Must not know: PostgreSQL, or what becomes of a write that was lost ([`timeline`](super::timeline) replays it).
//!
//! Invariant: writes take no more memory than is said here, whatever is written.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::keys;
use leasehold_core::lease::LeaseState;
use leasehold_core::rows::job;
use leasehold_core::seams::storage::{Batch, Change, StorageError};
use tokio::time::Instant;

/// Writes are kept for so long: a standby that is further behind does not take over by itself.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// Bytes of them at most, about; and of older ones what ended something, half as many.
const KEPT_MAX: usize = 8 << 20;
const ENDS_MAX: usize = 4 << 20;
/// What a change takes besides its value, about.
const CHANGE_BYTES: usize = 500;
/// Where a write stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    /// A position in the log after all that it wrote, and before its commit.
    pub(super) lsn: i64,
    pub(super) transaction: i64,
    /// Of its change under the cached prefix.
    pub(super) number: Option<i64>,
}

#[derive(Clone)]
pub(super) struct Write {
    pub(super) receipt: Receipt,
    pub(super) batch: Batch,
    at: Instant,
    bytes: usize,
}

impl Write {
    pub(super) fn new(receipt: Receipt, batch: Batch) -> Self {
        Self { receipt, bytes: bytes(&batch), batch, at: Instant::now() }
    }

    /// Without what does not end anything.
    pub(super) fn ends(mut self) -> Self {
        self.batch.0.retain(is_end);
        self.batch.0.shrink_to_fit();
        Self { bytes: bytes(&self.batch), ..self }
    }
}

/// Of two servers that both took over from the same one, the timeline has the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timeline {
    pub(super) number: i64,
    pub(super) begun_at: i64,
}

/// This server's latest writes.
#[derive(Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// Held by whoever replays.
    pub(super) replaying: tokio::sync::Mutex<()>,
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
pub(super) struct Before {
    pub(super) number: i64,
    pub(super) forgotten: i64,
    pub(super) writes: Vec<Write>,
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
    pub(super) fn keep(&self, number: i64, receipt: Receipt, batch: Batch) -> Result<(), StorageError> {
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

    /// Whether all that was written before this timeline is replayed.
    pub(super) fn is_replayed(&self, timeline: Timeline) -> bool {
        self.state().replayed == timeline
    }

    /// From now on this server works on `timeline`: what it has written before that is to be looked at.
    pub(super) fn turn(&self, timeline: Timeline) -> Before {
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

    pub(super) fn has_replayed(&self, timeline: Timeline, again: Vec<Write>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::key;
    use leasehold_core::seams::storage::Expect;

    fn at(number: i64) -> Timeline {
        Timeline { number, begun_at: 0 }
    }

    fn receipt(lsn: i64) -> Receipt {
        Receipt { lsn, transaction: lsn, number: None }
    }

    fn put(bytes: usize) -> Batch {
        Batch::new().put(key("a"), vec![0; bytes], Expect::Anything)
    }

    /// Of a journal on timeline 1 to which these batches came.
    fn kept(batches: impl Iterator<Item = Batch>) -> Before {
        let journal = Journal::default();
        journal.turn(at(1));
        journal.has_replayed(at(1), Vec::new());
        for (lsn, batch) in batches.enumerate() {
            journal.keep(1, receipt(i64::try_from(lsn).unwrap()), batch).unwrap();
        }
        journal.turn(at(2))
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_known() {
        let before = kept((0..100).map(|_| put(KEPT_MAX / 10)));
        assert_eq!((before.number, before.writes.len(), before.forgotten), (1, 9, 90));
        assert!(before.writes.iter().all(|write| write.receipt.lsn > before.forgotten));
        let many = 3 * KEPT_MAX / CHANGE_BYTES;
        assert!(kept((0..many).map(|_| put(0))).writes.len() <= KEPT_MAX / CHANGE_BYTES);
        let ends = || Batch::new().delete(key("token/id/t"));
        let before = kept((0..many).map(|_| ends()));
        let bytes: usize = before.writes.iter().map(|write| write.bytes).sum();
        assert!((KEPT_MAX..=KEPT_MAX + ENDS_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn of_what_is_too_much_the_ends_stay() {
        let first = put(10).delete(key("token/id/t")).delete(key("plain"));
        let before = kept([first, put(KEPT_MAX)].into_iter());
        // The second is too much by itself.
        let [end] = before.writes.as_slice() else { panic!("{}", before.writes.len()) };
        assert_eq!((end.receipt.lsn, before.forgotten), (0, 1));
        assert!(matches!(&*end.batch.0, [Change::Delete { key, .. }] if key.as_str() == "token/id/t"));
    }

    /// It may be missing there, and whoever wrote must not hear that it is stored.
    #[test]
    fn a_write_that_is_answered_on_another_timeline_is_not_known_to_have_happened() {
        let journal = Journal::default();
        journal.turn(at(1));
        let sent_on = journal.timeline();
        journal.turn(at(2));
        assert!(matches!(journal.keep(sent_on, receipt(1), put(1)), Err(StorageError::Unavailable(_))));
        journal.keep(2, receipt(2), put(1)).unwrap();
    }

    /// Nothing is known of writes that two fail-overs have passed by, nor where two servers took over from the same one.
    #[test]
    fn what_was_not_replayed_is_kept_with_the_timeline_that_it_was_written_on() {
        let journal = Journal::default();
        journal.turn(at(5));
        journal.keep(5, receipt(1), put(1)).unwrap();
        assert_eq!(journal.turn(at(6)).number, 5);
        journal.keep(6, receipt(2), put(1)).unwrap();
        let before = journal.turn(Timeline { number: 6, begun_at: 1 });
        assert_eq!((before.number, before.writes.len()), (5, 2));
        journal.has_replayed(Timeline { number: 6, begun_at: 1 }, Vec::new());
        assert!(!journal.is_replayed(at(6)) && journal.is_replayed(Timeline { number: 6, begun_at: 1 }));
        journal.keep(6, receipt(3), put(1)).unwrap();
        assert_eq!(journal.turn(Timeline { number: 6, begun_at: 1 }).writes.len(), 0, "it was written there");
        assert_eq!(journal.turn(at(7)).writes.len(), 1);
    }
}
