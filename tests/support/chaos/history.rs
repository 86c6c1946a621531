//! What is recorded of a round: what clients asked and heard, what the target and the store held, and which faults there were.

use std::collections::HashMap;
use std::time::Duration;

use super::plan::{Fault, Place};

/// A moment, since the beginning of the round, by a clock that nobody sets.
pub type At = Duration;

/// How a request ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 or 204: it has happened.
    Accepted,
    /// 4xx with this status: it has not happened.
    Refused(u16),
    /// 5xx, or no answer: it may have happened, or happen later.
    Unknown,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A credential. Lease and role are empty when it was not accepted.
    Issue {
        lease: String,
        role: String,
        ttl: Duration,
    },
    /// Another end, which may be an earlier one: `asked` is what was asked for, and `ttl` what was granted.
    Renew {
        lease: String,
        asked: Duration,
        ttl: Duration,
    },
    Revoke {
        lease: String,
    },
    Lookup {
        lease: String,
    },
    /// A login at the target.
    Login {
        role: String,
    },
    /// A request with a token that its policy allows until it is forbidden.
    Use {
        token: String,
    },
    /// After this nothing is accepted from the token: it is revoked, or its policy is changed or deleted.
    Forbid {
        token: String,
        how: &'static str,
    },
    /// A request with a token of so many uses.
    LimitedUse {
        token: String,
        limit: usize,
    },
}

impl What {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Issue { .. } => "issue a credential",
            Self::Renew { .. } => "renew a lease",
            Self::Revoke { .. } => "revoke a lease",
            Self::Lookup { .. } => "look up a lease",
            Self::Login { .. } => "log in at the target",
            Self::Use { .. } => "use a token",
            Self::Forbid { how, .. } => how,
            Self::LimitedUse { .. } => "use a token of few uses",
        }
    }
}

/// One request and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Before it was sent.
    pub begin: At,
    /// After it was answered, or given up.
    pub end: At,
    /// The node that was asked; none for the load balancer and the target.
    pub node: Option<usize>,
    pub what: What,
    pub outcome: Outcome,
}

/// A fault that was inflicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub fault: Fault,
    /// Before it was inflicted.
    pub begin: At,
    /// After it was over, and the process served again.
    pub end: At,
}

/// A role of the target, or a row of the store, while it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The lease that it belongs to.
    pub lease: String,
    /// When the first look that found it was answered.
    pub first: At,
    /// When the last look that found it was begun.
    pub last: At,
}

/// A look at all roles, or at all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub asked: At,
    pub answered: At,
}

/// A role that was there while the store had no row of its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    pub role: String,
    pub lease: String,
    pub at: At,
}

/// A role that was there although its lease had ended, by the store's clock or by a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    pub role: String,
    pub lease: String,
    /// When the store's answer came that said so.
    pub from: At,
    /// When the last look that found the role was begun.
    pub last: At,
}

/// Everything that the checker reads.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub ops: Vec<Op>,
    pub spans: Vec<Span>,
    pub nodes: usize,
    pub roles: HashMap<String, Seen>,
    pub role_looks: Vec<Look>,
    pub rows: HashMap<String, Seen>,
    pub row_looks: Vec<Look>,
    pub orphans: Vec<Orphan>,
    pub overdue: Vec<Overdue>,
    /// Roles that were there at the end, after everything was revoked.
    pub left: Vec<String>,
    /// Faults after which something did not come back: the round has shown less than it should.
    pub unhealed: Vec<String>,
}

/// How far off an observation of a bent clock may be: a node learns of it within a second, and more slowly when the store is away.
const CLOCK_SLACK: Duration = Duration::from_secs(4);

impl History {
    /// The least and the greatest offset of the store's clock between two moments, in seconds.
    pub fn store_offsets(&self, from: At, to: At) -> (i64, i64) {
        let bent = self.spans.iter().filter_map(|span| match span.fault {
            Fault::Bend(Place::Store(_), by)
                if span.begin.saturating_sub(CLOCK_SLACK) <= to && from <= span.end + CLOCK_SLACK =>
            {
                Some(by)
            }
            _ => None,
        });
        bent.fold((0, 0), |(least, most), by| (least.min(by), most.max(by)))
    }
}
