//! Open files: the soft limit is raised at the start, and clients never get them all.
//!
//! The usual soft limit is 1,024, which idle connections alone could use up; then no database could be reached and no
//! lease ended. So connections of clients are bounded, and the rest is kept for the storage, the databases, audit files
//! and the compiler.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::defaults;

/// Kept from clients where the limit is large enough: pools of databases above all.
const RESERVE: usize = 512;

/// How many connections of clients may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) all: usize,
    pub(crate) per_address: usize,
}

/// Raises the soft limit to the hard one; gives the limit that holds then.
pub(crate) fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit at all.
    let holds = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    // Some programs loop over every possible descriptor; a million is as good as no limit.
    let wished = Some(maximum.unwrap_or(u64::MAX).min(1 << 20));
    if current.is_some_and(|current| wished.is_some_and(|wished| current < wished)) {
        match setrlimit(Resource::Nofile, Rlimit { current: wished, maximum }) {
            Ok(()) => return holds(wished),
            Err(error) => tracing::warn!(%error, "could not raise the limit of open files"),
        }
    }
    holds(current)
}

/// What the configuration asks for, as far as the limit of open files allows it.
pub(crate) fn connections(limit: usize, all: Option<usize>, per_address: Option<usize>) -> Connections {
    let reserve = RESERVE.min(limit / 2);
    let possible = limit.saturating_sub(reserve).max(1);
    let wished = all.unwrap_or(defaults::CONNECTIONS);
    if wished > possible {
        tracing::warn!(
            "the limit of {limit} open files allows {possible} connections, not {wished}: raise it, in a unit by `LimitNOFILE={}`",
            wished.saturating_add(RESERVE)
        );
    }
    let all = wished.min(possible);
    Connections { all, per_address: per_address.unwrap_or((all / 4).max(1)).min(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_every_descriptor() {
        for (limit, all, per_address, expected) in [
            (1 << 20, None, None, (4_096, 1_024)),
            (1_024, None, None, (512, 128)),
            (256, None, None, (128, 32)),
            (1 << 20, Some(100), Some(10), (100, 10)),
            (1 << 20, Some(100), Some(1_000), (100, 100)),
            (1_024, Some(10_000), None, (512, 128)),
            (2, None, None, (1, 1)),
            (usize::MAX, Some(1), None, (1, 1)),
        ] {
            let found = connections(limit, all, per_address);
            assert_eq!((found.all, found.per_address), expected, "{limit} {all:?} {per_address:?}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let limit = raise();
        let now = getrlimit(Resource::Nofile);
        assert!(now.maximum.is_none_or(|maximum| now.current.is_none_or(|current| current >= maximum.min(1 << 20))));
        assert!(limit > 0);
    }
}
