//! One device's lane: what waits for it, and whether anybody waits for it.
//!
//! A device that does not answer in time is *stalled*. It still gets its lines, as many as its queue takes, but nobody waits for
//! it until it has written all that it was given. What it could not be given is counted and said when it is back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use tokio::sync::mpsc;

use crate::seams::audit::{AuditDevice, AuditError, AuditLine, Receipt};

/// A device that is behind by more than this gets no further line.
const WAITING_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 16 << 20;

/// What became of one line: the position of its device among those of the record, and whether it was written.
pub(super) type Outcome = (usize, bool);

/// A device, and what is known of it.
pub(super) struct Lane {
    /// The device's path.
    name: String,
    pub(super) sink: Arc<dyn AuditDevice>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stalled: bool,
    waiting: usize,
    waiting_bytes: usize,
    /// Lines that the device was not given since it stalled.
    lost: u64,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Lane {
    pub(super) fn new(name: &str, sink: Arc<dyn AuditDevice>) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), sink, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.state().stalled
    }

    /// Gives the device a line, without waiting. The outcome comes on `outcomes`, at once when there is no place for it.
    pub(super) fn submit(self: &Arc<Self>, line: String, position: usize, outcomes: &mpsc::UnboundedSender<Outcome>) {
        let bytes = line.len();
        {
            let mut state = self.state();
            if state.waiting >= WAITING_MAX || state.waiting_bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
                state.lost = state.lost.saturating_add(1);
                drop(state);
                counter!("leasehold_audit_lines_lost_total", "device" => self.name.clone()).increment(1);
                let _ = outcomes.send((position, false));
                return;
            }
            state.waiting += 1;
            state.waiting_bytes += bytes;
        }
        let (lane, outcomes) = (self.clone(), outcomes.clone());
        let receipt = Receipt::new(move |written| {
            lane.answered(bytes, &written);
            // Nobody waits any more for a device that took too long.
            let _ = outcomes.send((position, written.is_ok()));
        });
        self.sink.submit(AuditLine(line), receipt);
    }

    fn answered(&self, bytes: usize, written: &Result<(), AuditError>) {
        let back = {
            let mut state = self.state();
            state.waiting = state.waiting.saturating_sub(1);
            state.waiting_bytes = state.waiting_bytes.saturating_sub(bytes);
            let is_back = state.stalled && state.waiting == 0;
            if is_back {
                state.stalled = false;
            }
            is_back.then(|| std::mem::take(&mut state.lost))
        };
        if let Err(error) = written {
            self.count_failure();
            tracing::error!(why = error.why, "audit device `{}` did not take a record", self.name);
        }
        if let Some(lost) = back {
            self.show_stalled(false);
            tracing::warn!(lost, "audit device `{}` answers again; {lost} records were not written to it", self.name);
        }
    }

    /// It took too long over a line: nobody waits for it until it has caught up.
    pub(super) fn stall(&self, waited: std::time::Duration) {
        let news = {
            let mut state = self.state();
            // It answered in this very moment.
            let is_behind = state.waiting > 0;
            is_behind && !std::mem::replace(&mut state.stalled, true)
        };
        self.count_failure();
        if news {
            self.show_stalled(true);
            tracing::error!(
                "audit device `{}` did not take a record within {} s: no request waits for it until it answers again",
                self.name,
                waited.as_secs()
            );
        }
    }

    fn count_failure(&self) {
        counter!("leasehold_audit_failures_total", "device" => self.name.clone()).increment(1);
    }

    pub(super) fn show_stalled(&self, stalled: bool) {
        gauge!("leasehold_audit_device_stalled", "device" => self.name.clone()).set(f64::from(u8::from(stalled)));
    }
}
