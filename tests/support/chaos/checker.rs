//! The rules. Each takes the whole history and names what contradicts it.
//!
//! A rule is only broken when no order of the events could explain what was seen: a request counts from when it was answered, a look
//! from when it was asked, and a request whose outcome is unknown may have happened at any time after it was sent, or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::history::{At, History, Look, Op, Outcome, Seen, What};
use super::plan::{Fault, Place};

/// How long after the end of its lease a role may be there.
pub const LATE: Duration = Duration::from_secs(10);
/// Ends are whole seconds in answers, and the store's clock is estimated by nodes.
const ROUNDING: Duration = Duration::from_secs(2);
/// A node that was killed, paused or cut off works again so long after that has ended.
const RECOVERY: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    NoRoleWithoutRow,
    NothingForgotten,
    NothingAfterRevocation,
    NoUseTwice,
    NotBeforeItsEnd,
    NotLate,
    NothingLeft,
}

impl Rule {
    pub const ALL: [Self; 7] = [
        Self::NoRoleWithoutRow,
        Self::NothingForgotten,
        Self::NothingAfterRevocation,
        Self::NoUseTwice,
        Self::NotBeforeItsEnd,
        Self::NotLate,
        Self::NothingLeft,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::NoRoleWithoutRow => "no role without a row of its lease",
            Self::NothingForgotten => "no credential acknowledged and forgotten by the store",
            Self::NothingAfterRevocation => "nothing accepted after the answer to its revocation",
            Self::NoUseTwice => "no use counted twice, and none beyond the limit",
            Self::NotBeforeItsEnd => "no role dropped before its end by the store's clock",
            Self::NotLate => "no role 10 s after its end while target, store and a node answer",
            Self::NothingLeft => "no role left after everything was revoked",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub at: At,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:.3} s] {}: {}", self.at.as_secs_f64(), self.rule.text(), self.what)
    }
}

/// Everything that contradicts a rule.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for orphan in &history.orphans {
        let what = format!("role {} of lease {} had no row", orphan.role, orphan.lease);
        found.push(Violation { rule: Rule::NoRoleWithoutRow, at: orphan.at, what });
    }
    found.extend(dropped_or_forgotten(history));
    found.extend(accepted_after_revocation(history));
    found.extend(uses(history));
    found.extend(late(history).into_iter().filter(|late| late.by > LATE).map(|late| Violation {
        rule: Rule::NotLate,
        at: late.at,
        what: format!(
            "role {} was there for {:.1} s after its lease {} had ended, which was over from {:.3} s to {:.3} s",
            late.role,
            late.by.as_secs_f64(),
            late.lease,
            late.over.0.as_secs_f64(),
            late.over.1.as_secs_f64()
        ),
    }));
    for role in &history.left {
        let what = format!("role {role} is there");
        let end = history.ops.iter().map(|op| op.end).max().unwrap_or_default();
        found.push(Violation { rule: Rule::NothingLeft, at: end, what });
    }
    found.sort_by_key(|violation| violation.at);
    found
}

/// A role that stayed.
#[derive(Clone, Debug)]
pub struct Late {
    pub role: String,
    pub lease: String,
    /// The longest time without a break in which it could have been dropped.
    pub by: Duration,
    pub at: At,
    /// From the end of the lease to the last look that found the role.
    over: (At, At),
}

/// How late roles went, of all that were seen after the end of their lease.
pub fn late(history: &History) -> Vec<Late> {
    let blocked = blocked(history);
    let measured = history.overdue.iter().map(|overdue| {
        let (by, at) = longest_outside(overdue.from, overdue.last, &blocked);
        Late { role: overdue.role.clone(), lease: overdue.lease.clone(), by, at, over: (overdue.from, overdue.last) }
    });
    measured.collect()
}

/// When no role could be dropped: the target or the store was away, or no node was at work.
fn blocked(history: &History) -> Vec<(At, At)> {
    let mut blocked: Vec<(At, At)> = Vec::new();
    // Of each node, when it could not work.
    let mut idle: BTreeMap<usize, Vec<(At, At)>> = (0..history.nodes).map(|node| (node, Vec::new())).collect();
    for span in &history.spans {
        let interval = (span.begin, span.end + RECOVERY);
        let node = match span.fault {
            Fault::Kill(node) | Fault::Pause(node) => Some(node),
            Fault::Cut(Place::Node(node), Place::Store(_) | Place::Target) => Some(node),
            Fault::Restart(_) | Fault::Freeze(_) | Fault::FailOver | Fault::Cut(Place::Store(_), _) => {
                blocked.push(interval);
                None
            }
            Fault::Cut(..) => None,
            // The end itself moves; the look at the store says to where.
            Fault::Bend(Place::Store(_), _) => {
                blocked.push((span.begin, span.begin + RECOVERY));
                blocked.push((span.end, span.end + RECOVERY));
                None
            }
            Fault::Bend(..) => None,
        };
        if let Some(idle) = node.and_then(|node| idle.get_mut(&node)) {
            idle.push(interval);
        }
    }
    let mut edges: Vec<At> = idle.values().flatten().flat_map(|&(from, to)| [from, to]).collect();
    edges.sort();
    for pair in edges.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        let all_idle = idle.values().all(|spans| spans.iter().any(|&(begin, end)| begin <= from && to <= end));
        if all_idle && from < to && history.nodes > 0 {
            blocked.push((from, to));
        }
    }
    blocked.sort();
    blocked
}

/// The longest stretch between two moments that touches none of these, and where it begins.
fn longest_outside(from: At, to: At, blocked: &[(At, At)]) -> (Duration, At) {
    let mut longest = (Duration::ZERO, from);
    let mut free_from = from;
    for &(begin, end) in blocked {
        if end <= free_from || begin >= to {
            continue;
        }
        if begin > free_from && begin - free_from > longest.0 {
            longest = (begin - free_from, free_from);
        }
        free_from = free_from.max(end);
    }
    if to > free_from && to - free_from > longest.0 {
        longest = (to - free_from, free_from);
    }
    longest
}

/// The first look after `since` that did not find it.
fn first_without(seen: Option<&Seen>, looks: &[Look], since: At) -> Option<Look> {
    let since = seen.map_or(since, |seen| since.max(seen.last + Duration::from_nanos(1)));
    let at = looks.partition_point(|look| look.asked < since);
    looks.get(at).copied()
}

/// Credentials that were acknowledged, and gone before they had ended.
fn dropped_or_forgotten(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut by_lease: HashMap<&str, Vec<&Op>> = HashMap::new();
    for op in &history.ops {
        if let What::Renew { lease, .. } | What::Revoke { lease } | What::Lookup { lease } = &op.what {
            by_lease.entry(lease.as_str()).or_default().push(op);
        }
    }
    for op in history.ops.iter().filter(|op| op.outcome == Outcome::Accepted) {
        let What::Issue { lease, role, ttl } = &op.what else { continue };
        let others = by_lease.get(lease.as_str()).map(Vec::as_slice).unwrap_or_default();
        // Whoever asks for its end may get it from then on, whatever they hear.
        let asked_to_end =
            others.iter().filter(|other| matches!(other.what, What::Revoke { .. })).map(|other| other.begin).min();
        // Each answer promises an end. A renewal may replace it by an earlier one, whatever its client heard.
        let mut promises = vec![(op, *ttl, true)];
        for other in others {
            if let What::Renew { asked, ttl, .. } = other.what {
                match other.outcome {
                    Outcome::Accepted => promises.push((other, ttl, true)),
                    Outcome::Refused(403 | 404) => {}
                    Outcome::Refused(_) | Outcome::Unknown => promises.push((other, asked, false)),
                }
            }
        }
        let is_early = |at: At| {
            let has_time = |(op, ttl, _): &(&Op, Duration, bool)| at_latest(history, op, at) + ROUNDING < *ttl;
            let holds = |promise: &(&Op, Duration, bool)| {
                let may_replace = |other: &&(&Op, Duration, bool)| other.0.end > promise.0.begin && other.0.begin <= at;
                promise.2 && promise.0.end <= at && promises.iter().filter(may_replace).all(has_time)
            };
            asked_to_end.is_none_or(|asked| at < asked) && promises.iter().any(holds)
        };
        let gone = first_without(history.roles.get(role), &history.role_looks, op.end);
        if let Some(look) = gone.filter(|look| is_early(look.answered)) {
            let what = format!(
                "role {role} of lease {lease}, promised for {ttl:?} at {:.3} s, was gone",
                op.end.as_secs_f64()
            );
            found.push(Violation { rule: Rule::NotBeforeItsEnd, at: look.answered, what });
        }
        let forgotten = first_without(history.rows.get(lease), &history.row_looks, op.end);
        if let Some(look) = forgotten.filter(|look| is_early(look.answered)) {
            let what =
                format!("the store had no row of lease {lease}, promised for {ttl:?} at {:.3} s", op.end.as_secs_f64());
            found.push(Violation { rule: Rule::NothingForgotten, at: look.answered, what });
        }
        for other in others {
            let is_unknown = matches!(other.outcome, Outcome::Refused(400 | 404));
            if matches!(other.what, What::Lookup { .. }) && is_unknown && other.begin >= op.end && is_early(other.end) {
                let what = format!("node {:?} did not know lease {lease}, promised for {ttl:?}", other.node);
                found.push(Violation { rule: Rule::NothingForgotten, at: other.end, what });
            }
        }
    }
    found
}

/// How much of a promised time may have passed at `at`, by the store's clock.
fn at_latest(history: &History, promise: &Op, at: At) -> Duration {
    let passed = at.saturating_sub(promise.begin);
    let (least, _) = history.store_offsets(promise.begin, promise.end);
    let (_, most) = history.store_offsets(promise.begin, at);
    passed + Duration::from_secs(u64::try_from(most - least).unwrap_or(0))
}

/// Requests that were sent after the answer to a revocation, and accepted.
fn accepted_after_revocation(history: &History) -> Vec<Violation> {
    let mut ended: HashMap<&str, (At, &str)> = HashMap::new();
    let roles: HashMap<&str, &str> = history
        .ops
        .iter()
        .filter_map(|op| match &op.what {
            What::Issue { lease, role, .. } if !lease.is_empty() => Some((lease.as_str(), role.as_str())),
            _ => None,
        })
        .collect();
    for op in history.ops.iter().filter(|op| op.outcome == Outcome::Accepted) {
        let (what, how) = match &op.what {
            What::Revoke { lease } => (lease.as_str(), "the revocation of the lease"),
            What::Forbid { token, how } => (token.as_str(), *how),
            _ => continue,
        };
        for ended_thing in [Some(what), roles.get(what).copied()].into_iter().flatten() {
            let entry = ended.entry(ended_thing).or_insert((op.end, how));
            if op.end < entry.0 {
                *entry = (op.end, how);
            }
        }
    }
    let mut found = Vec::new();
    for op in history.ops.iter().filter(|op| op.outcome == Outcome::Accepted) {
        let on = match &op.what {
            What::Renew { lease, .. } | What::Lookup { lease } => lease,
            What::Login { role } => role,
            What::Use { token } => token,
            _ => continue,
        };
        let Some(&(answered, how)) = ended.get(on.as_str()) else { continue };
        if op.begin > answered {
            let what = format!(
                "`{}` of {on} was accepted by node {:?}; it was sent {} ms after the answer to `{how}`",
                op.what.kind(),
                op.node,
                (op.begin - answered).as_millis()
            );
            found.push(Violation { rule: Rule::NothingAfterRevocation, at: op.end, what });
        }
    }
    // The role itself must be gone, too.
    for (&role, seen) in roles.values().filter_map(|role| Some((role, history.roles.get(*role)?))) {
        if let Some(&(answered, how)) = ended.get(role)
            && seen.last > answered
        {
            let what =
                format!("role {role} was there {} ms after the answer to {how}", (seen.last - answered).as_millis());
            found.push(Violation { rule: Rule::NothingAfterRevocation, at: seen.last, what });
        }
    }
    found
}

/// Tokens of few uses.
fn uses(history: &History) -> Vec<Violation> {
    let mut tokens: BTreeMap<&str, (usize, Vec<&Op>)> = BTreeMap::new();
    for op in &history.ops {
        if let What::LimitedUse { token, limit } = &op.what {
            tokens.entry(token).or_insert((*limit, Vec::new())).1.push(op);
        }
    }
    let mut found = Vec::new();
    for (token, (limit, ops)) in tokens {
        let accepted = ops.iter().filter(|op| op.outcome == Outcome::Accepted).count();
        if accepted > limit {
            let at = ops.iter().map(|op| op.end).max().unwrap_or_default();
            let what = format!("{token} of {limit} uses was accepted {accepted} times");
            found.push(Violation { rule: Rule::NoUseTwice, at, what });
        }
        for refused in ops.iter().filter(|op| op.outcome == Outcome::Refused(403)) {
            let may_have_counted =
                ops.iter().filter(|op| !matches!(op.outcome, Outcome::Refused(_)) && op.begin < refused.end).count();
            if may_have_counted < limit {
                let what = format!("{token} of {limit} uses was refused after {may_have_counted}");
                found.push(Violation { rule: Rule::NoUseTwice, at: refused.end, what });
                break;
            }
        }
    }
    found
}
