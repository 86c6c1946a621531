//! Whether warm instances still decide as fresh ones do.
//!
//! Must not know: how an instance is asked.
//!
//! Start with [`Shadow::turn`] (which answers are compared), then [`Shadow::judge`] (what comes of it).
//!
//! Invariants: one comparison runs at a time. Of `every` answers of warm instances one is compared; while a comparison
//! runs none is, and the first answer after it is. An answer that differs, and a fresh instance that stops where a warm
//! one answered, are a difference; a fresh instance that could not be made, or that the clock stopped, is none, and the
//! next answer is compared instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_core::seams::sandbox::{PolicySetId, SandboxError};
use metrics::{Counter, counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, warn};

use super::Reply;

pub(super) struct Shadow {
    every: u64,
    /// Answers since the last one that was compared.
    since: AtomicU64,
    one: Arc<Semaphore>,
    checks: Counter,
    unfinished: Counter,
    differences: Counter,
}

/// The right to compare one answer; no other is compared until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit);

/// What a comparison found.
#[derive(Debug, PartialEq)]
pub(super) enum Comparison {
    Agreement,
    Difference,
    /// No second answer to compare with.
    Nothing,
}

impl Shadow {
    /// Zero: nothing is compared. The recorder of metrics must be installed before.
    pub(super) fn new(every: u64) -> Self {
        Self {
            every,
            since: AtomicU64::new(0),
            one: Arc::new(Semaphore::new(1)),
            checks: counter!("leasehold_sandbox_shadow_checks_total"),
            unfinished: counter!("leasehold_sandbox_shadow_unfinished_total"),
            differences: counter!("leasehold_sandbox_shadow_differences_total"),
        }
    }

    /// Counts one answer of a warm instance; whether it is the one to compare.
    pub(super) fn turn(&self) -> Option<Turn> {
        let since = self.since.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if self.every == 0 || since < self.every {
            return None;
        }
        let permit = Arc::clone(&self.one).try_acquire_owned().ok()?;
        self.since.store(0, Ordering::Relaxed);
        Some(Turn(permit))
    }

    /// Counts and reports. On a difference the caller drops all warm instances.
    pub(super) fn judge(&self, set: &PolicySetId, warm: &Reply, fresh: Result<Reply, SandboxError>) -> Comparison {
        let other = match fresh {
            Ok(fresh) if fresh == *warm => {
                self.checks.increment(1);
                return Comparison::Agreement;
            }
            Ok(fresh) => fresh.in_a_word().to_owned(),
            Err(why @ (SandboxError::Busy | SandboxError::Host(_) | SandboxError::Time)) => {
                self.unfinished.increment(1);
                // Due again at once.
                self.since.store(self.every, Ordering::Relaxed);
                warn!(policy_set = %set.0, "no fresh ACL instance could answer for comparison: {why}");
                return Comparison::Nothing;
            }
            Err(stopped) => stopped.to_string(),
        };
        self.checks.increment(1);
        self.differences.increment(1);
        // No path: old clients put tokens into paths.
        error!(
            policy_set = %set.0,
            warm = warm.in_a_word(),
            fresh = other,
            "a warm ACL instance answered otherwise than a fresh one: that answer has been given, and earlier ones may be \
             wrong, too; all warm instances are dropped"
        );
        Comparison::Difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> PolicySetId {
        PolicySetId("a set".into())
    }

    #[test]
    fn one_answer_in_so_many_is_compared() {
        let shadow = Shadow::new(3);
        let turns: Vec<bool> = (0..9).map(|_| shadow.turn().is_some()).collect();
        assert_eq!(turns, [false, false, true, false, false, true, false, false, true]);
        assert!((0..9).all(|_| Shadow::new(0).turn().is_none()));
    }

    #[test]
    fn one_comparison_runs_at_a_time_and_the_next_follows_it() {
        let shadow = Shadow::new(2);
        assert!(shadow.turn().is_none());
        let turn = shadow.turn().unwrap();
        assert!((0..5).all(|_| shadow.turn().is_none()));
        drop(turn);
        assert!(shadow.turn().is_some());
        assert!(shadow.turn().is_none());
    }

    #[test]
    fn only_the_same_answer_is_agreement() {
        let warm = Reply::GrantsBelow(true);
        for (fresh, found) in [
            (Ok(Reply::GrantsBelow(true)), Comparison::Agreement),
            (Ok(Reply::GrantsBelow(false)), Comparison::Difference),
            (Ok(Reply::Capabilities(Vec::new())), Comparison::Difference),
            // Where a warm instance answered, a fresh one must.
            (Err(SandboxError::Trap("unreachable".to_owned())), Comparison::Difference),
            (Err(SandboxError::Fuel), Comparison::Difference),
            (Err(SandboxError::Memory), Comparison::Difference),
            (Err(SandboxError::Answer("no case".to_owned())), Comparison::Difference),
            (Err(SandboxError::Failed("does not compile".to_owned())), Comparison::Difference),
            // Says nothing about either: the machine was busy.
            (Err(SandboxError::Busy), Comparison::Nothing),
            (Err(SandboxError::Time), Comparison::Nothing),
            (Err(SandboxError::Host("no memory".to_owned())), Comparison::Nothing),
        ] {
            let case = format!("{fresh:?}");
            assert_eq!(Shadow::new(1).judge(&set(), &warm, fresh), found, "{case}");
        }
    }

    #[test]
    fn a_comparison_that_found_nothing_is_made_up_for() {
        let shadow = Shadow::new(1000);
        shadow.judge(&set(), &Reply::GrantsBelow(true), Err(SandboxError::Busy));
        assert!(shadow.turn().is_some());
    }
}
