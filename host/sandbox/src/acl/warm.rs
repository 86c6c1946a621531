//! Instances that wait for the next question.
//!
//! Must not know: what is in them.
//!
//! Invariant: what was lent when [`Warm::drop_all`] was called does not come back.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use leasehold_model::lock::Mutex;

pub(super) struct Warm<T> {
    state: Mutex<State<T>>,
    most: usize,
}

struct State<T> {
    idle: Vec<T>,
    generation: u64,
}

/// An instance in use.
pub(super) struct Lent<T> {
    instance: T,
    generation: u64,
}

impl<T> Warm<T> {
    /// Keeps at most so many that nobody uses.
    pub(super) fn new(most: usize) -> Self {
        Self { state: Mutex::new(State { idle: Vec::new(), generation: 0 }), most }
    }

    /// The wanted one that came back last.
    pub(super) fn take(&self, wanted: impl FnMut(&mut T) -> bool) -> Option<Lent<T>> {
        let mut state = self.state();
        let at = state.idle.iter_mut().rposition(wanted)?;
        Some(Lent { instance: state.idle.swap_remove(at), generation: state.generation })
    }

    /// Whether an idle one is such.
    pub(super) fn has(&self, wanted: impl FnMut(&mut T) -> bool) -> bool {
        self.state().idle.iter_mut().any(wanted)
    }

    /// Any, or a new one.
    pub(super) fn take_any<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Lent<T>, E> {
        let generation = {
            let mut state = self.state();
            if let Some(instance) = state.idle.pop() {
                return Ok(Lent { instance, generation: state.generation });
            }
            state.generation
        };
        make().map(|instance| Lent { instance, generation })
    }

    /// Keeps it for the next question, unless there are enough.
    pub(super) fn give_back(&self, lent: Lent<T>) {
        let mut state = self.state();
        if lent.generation == state.generation && state.idle.len() < self.most {
            state.idle.push(lent.instance);
        }
    }

    /// Idle ones go now, lent ones when they come back.
    pub(super) fn drop_all(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.idle.clear();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.instance
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.instance
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn new(warm: &Warm<u8>, instance: u8) -> Lent<u8> {
        warm.take_any(|| Ok::<_, Infallible>(instance)).unwrap()
    }

    #[test]
    fn what_was_lent_when_all_were_dropped_does_not_come_back() {
        let warm = Warm::new(4);
        let (idle, lent) = (new(&warm, 1), new(&warm, 2));
        warm.give_back(idle);

        warm.drop_all();

        assert!(warm.take(|_| true).is_none());
        warm.give_back(lent);
        assert!(warm.take(|_| true).is_none());
        let later = new(&warm, 3);
        warm.give_back(later);
        assert_eq!(warm.take(|_| true).map(|lent| *lent), Some(3));
    }

    #[test]
    fn no_more_are_kept_than_wanted() {
        let warm = Warm::new(1);
        let (one, two) = (new(&warm, 1), new(&warm, 2));
        warm.give_back(one);
        warm.give_back(two);
        assert!(warm.take(|instance| *instance == 2).is_none());
        assert!(warm.take(|instance| *instance == 1).is_some());
    }
}
