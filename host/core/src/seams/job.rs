//! Jobs: work that recurs, whichever server does it.

use leasehold_model::Ttl;

/// Work that an engine or an auth method wants done for each of its mounts, once in each period over all servers of a store.
///
/// It may be given up at any moment, and be begun again after a crash, also while a server that has lost its claim is still at it:
/// it must bear both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountJob {
    /// Stands in the row's id, in the log and in metrics; a change makes another job of it.
    pub name: &'static str,
    pub every: Ttl,
}
