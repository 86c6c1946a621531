//! May a request be decided here, and has a change overtaken it before its first write?

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard};

use super::{ADMIT_MAX, Nodes};
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;

const UNHEARD_OF: &str =
    "this server has not heard of the change that X-Vault-Index names: try again, or ask another server";

/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(1);
/// How long a request waits at most after it met with a faster writer, and how often that doubles: to 64 ms.
const ASIDE: Duration = Duration::from_millis(1);
const ASIDE_DOUBLED: u32 = 6;

tokio::task_local! {
    /// Of the request that this task answers.
    static ADMISSION: Arc<Admission>;
}

/// A request that this server may answer. What it writes is checked against it, from the moment of its decision to its first write:
/// there a change either comes before it or after it.
#[derive(Debug)]
pub(crate) struct Admission {
    /// When its decision was made; see [`Nodes`].
    epoch: AtomicU64,
    is_decided: AtomicBool,
    is_overtaken: AtomicBool,
    /// It has written something that servers keep in memory.
    has_changed_memory: AtomicBool,
    /// How often another writer was faster.
    conflicts: AtomicU32,
    turns: Arc<tokio::sync::Mutex<()>>,
    /// While it is its turn to be decided again.
    turn: Mutex<Option<OwnedMutexGuard<()>>>,
    _among_requests: OwnedRwLockReadGuard<()>,
}

impl Nodes {
    /// Lets a request in whose answer must reflect the change of number `required`, if that is given.
    ///
    /// # Errors
    /// 503: this server has not compared its memory with the store for too long. 429: it does not know of that change.
    pub(crate) async fn admit(self: &Arc<Self>, required: Option<u64>) -> Result<Arc<Admission>, RequestError> {
        let admitted = async {
            let among_requests = Arc::clone(&self.requests).read_owned().await;
            loop {
                let renewed = self.renewed.notified();
                if self.is_current() && required.is_none_or(|number| self.reflects(number)) {
                    return among_requests;
                }
                renewed.await;
            }
        };
        match tokio::time::timeout(ADMIT_MAX, admitted).await {
            Ok(among_requests) => Ok(Arc::new(Admission {
                epoch: AtomicU64::new(0),
                is_decided: AtomicBool::new(false),
                is_overtaken: AtomicBool::new(false),
                has_changed_memory: AtomicBool::new(false),
                conflicts: AtomicU32::new(0),
                turns: Arc::clone(&self.turns),
                turn: Mutex::default(),
                _among_requests: among_requests,
            })),
            Err(_) if self.is_current() => Err(RequestError::TooMany(UNHEARD_OF.to_owned())),
            Err(_) => Err(StorageError::Unavailable("this server has not heard of it for too long".to_owned()).into()),
        }
    }

    /// Whether the decision of this task's request, if it is one, still holds, before something that is no commit.
    ///
    /// # Errors
    /// As [`Nodes::check_decision`].
    pub(crate) fn still_decided(&self) -> Result<(), StorageError> {
        self.check_decision().map(drop)
    }

    /// A commit of the task that asks, just before it is sent. Whether it is the first one after a decision.
    ///
    /// # Errors
    /// [`StorageError::Overtaken`], and [`StorageError::Unavailable`] when the cache lease is over.
    pub(super) fn check_decision(&self) -> Result<bool, StorageError> {
        ADMISSION.try_with(|admission| admission.before_write(self)).unwrap_or(Ok(false))
    }

    /// Another writer was faster than the request of this task. Before it tries again it waits a moment, longer each time, and not as
    /// long as the others do: many that change one record at once would have most of them fail each time.
    pub(super) async fn step_aside(&self) {
        let Ok(before) = ADMISSION.try_with(|admission| admission.conflicts.fetch_add(1, Ordering::Relaxed)) else {
            return;
        };
        let longest = ASIDE.saturating_mul(1 << before.min(ASIDE_DOUBLED));
        // Multiples of the golden ratio, without their whole part, lie evenly between 0 and 1.
        let place = self.asides.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9);
        tokio::time::sleep(longest.mul_f64(f64::from(place) / f64::from(u32::MAX))).await;
    }

    /// The commit that was checked has written nothing: the next one is the first.
    pub(super) fn wrote_nothing(&self) {
        let _ = ADMISSION.try_with(|admission| admission.is_decided.store(true, Ordering::Release));
    }
}

/// The request of this task, if it is one, is overtaken no more: the next one may be decided again.
pub(super) fn ends_turn() {
    let _ = ADMISSION.try_with(|admission| admission.end_turn());
}

/// The request of this task, if it is one, has written something that servers keep in memory.
pub(super) fn changes_memory() {
    let _ = ADMISSION.try_with(|admission| admission.has_changed_memory.store(true, Ordering::Release));
}

impl Admission {
    /// That of the request which this task answers.
    pub(crate) fn current() -> Option<Arc<Self>> {
        ADMISSION.try_with(Arc::clone).ok()
    }

    /// Runs what answers the request.
    pub(crate) async fn scope<F: Future>(self: Arc<Self>, answering: F) -> F::Output {
        ADMISSION.scope(self, answering).await
    }

    /// The request is being decided, by what memory has held since `epoch`.
    pub(crate) fn decide(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
        self.is_overtaken.store(false, Ordering::Release);
        self.is_decided.store(true, Ordering::Release);
    }

    /// Waits until it may be decided again. Of those that were overtaken one is decided at a time, in the order in which they came:
    /// many that change what all are decided by would overtake each other without end. One that takes long over its turn, as its target
    /// does not answer, holds the others up no longer than [`TURN_MAX`]: then they are decided without one.
    pub(crate) async fn await_turn(&self) {
        if lock(&self.turn).is_some() {
            return;
        }
        if let Ok(turn) = tokio::time::timeout(TURN_MAX, Arc::clone(&self.turns).lock_owned()).await {
            *lock(&self.turn) = Some(turn);
        }
    }

    pub(crate) fn end_turn(&self) {
        *lock(&self.turn) = None;
    }

    /// Whether a write was refused because the decision no longer holds. Nothing of the request was done then.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.is_overtaken.load(Ordering::Acquire)
    }

    /// Nothing is being decided: what is written now follows from no decision.
    pub(crate) fn decide_nothing(&self) {
        self.is_decided.store(false, Ordering::Release);
        self.is_overtaken.store(false, Ordering::Release);
    }

    /// Whether there is something to [`Nodes::settle`].
    pub(crate) fn has_changed_memory(&self) -> bool {
        self.has_changed_memory.load(Ordering::Acquire)
    }

    /// Whether what was only read was read by a decision that no longer holds.
    pub(crate) fn is_outdated(&self, nodes: &Nodes) -> bool {
        self.is_decided.load(Ordering::Acquire)
            && (self.epoch.load(Ordering::Acquire) != nodes.epoch() || !nodes.is_current())
    }

    fn before_write(&self, nodes: &Nodes) -> Result<bool, StorageError> {
        if self.is_overtaken() {
            return Err(StorageError::Overtaken);
        }
        if !self.is_decided.load(Ordering::Acquire) {
            return Ok(false);
        }
        if self.epoch.load(Ordering::Acquire) != nodes.epoch.load(Ordering::Acquire) {
            self.is_overtaken.store(true, Ordering::Release);
            return Err(StorageError::Overtaken);
        }
        if !nodes.is_current() {
            return Err(StorageError::Unavailable("this server has not heard of it for too long".to_owned()));
        }
        // What comes next carries out what has begun.
        self.is_decided.store(false, Ordering::Release);
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::RwLock;
    use tokio::time::Instant;

    use super::*;

    async fn admission(turns: &Arc<tokio::sync::Mutex<()>>) -> Admission {
        Admission {
            epoch: AtomicU64::new(0),
            is_decided: AtomicBool::new(false),
            is_overtaken: AtomicBool::new(false),
            has_changed_memory: AtomicBool::new(false),
            conflicts: AtomicU32::new(0),
            turns: Arc::clone(turns),
            turn: Mutex::default(),
            _among_requests: Arc::<RwLock<()>>::default().read_owned().await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_one_requests_own_and_is_waited_for_only_for_a_while() {
        let turns = Arc::default();
        let (first, second, third) = (admission(&turns).await, admission(&turns).await, admission(&turns).await);
        let began = Instant::now();
        first.await_turn().await;
        first.await_turn().await;
        assert!(began.elapsed().is_zero(), "its own turn is not waited for");
        let next = tokio::spawn(async move {
            second.await_turn().await;
            second
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        first.end_turn();
        let second = next.await.unwrap();
        assert!(lock(&second.turn).is_some() && began.elapsed().is_zero());
        // It does not end its turn.
        third.await_turn().await;
        assert_eq!(began.elapsed(), TURN_MAX);
        assert!(lock(&third.turn).is_none());
        drop(second);
        third.await_turn().await;
        assert!(lock(&third.turn).is_some() && began.elapsed() == TURN_MAX);
    }
}
