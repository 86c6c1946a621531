//! A short round of chaos, and that the checker finds each contradiction. `make chaos` runs long rounds.

use std::time::Duration;

use crate::support::chaos::checker::{self, Rule};
use crate::support::chaos::history::{History, Look, Op, Orphan, Outcome, Overdue, Seen, Span, What};
use crate::support::chaos::observer::{Row, Tracker};
use crate::support::chaos::plan::{self, Abilities, Fault, Place};
use crate::support::chaos::report;
use crate::support::chaos::round;
use crate::support::chaos::world::World;
use crate::support::under_test;

/// Faults come for so long; healing and the last looks take about a minute more.
const SHORT: Duration = Duration::from_secs(45);

#[test]
fn a_short_round_contradicts_no_rule() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_129);
    eprintln!("SEED={seed}");
    let world = World::on_loopback(&under_test());
    let history = round::run(&world, seed, SHORT);
    let violations = checker::check(&history);
    let report = report::report(&history, &violations);
    assert!(violations.is_empty() && history.unhealed.is_empty(), "SEED={seed}\n{report}\n{}", world.logs());
    // A round in which nothing worked has shown nothing.
    for kind in ["issue a credential", "renew a lease", "revoke a lease", "use a token", "use a token of few uses"] {
        assert!(report::accepted(&history, kind) >= 20, "{kind}\n{report}");
    }
    assert!(history.spans.len() >= 5 && history.role_looks.len() > 50 && history.row_looks.len() > 50, "{report}");
    assert!(!world.logs().contains("panicked"), "a server panicked\n{}", world.logs());
    eprintln!("{report}");
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn op(begin: u64, end: u64, what: What, outcome: Outcome) -> Op {
    Op { begin: at(begin), end: at(end), node: Some(0), what, outcome }
}

fn issued(begin: u64, end: u64, secs: u64) -> Op {
    let what = What::Issue { lease: "l".to_owned(), role: "r".to_owned(), ttl: Duration::from_secs(secs) };
    op(begin, end, what, Outcome::Accepted)
}

fn renewal(begin: u64, secs: u64, outcome: Outcome) -> Op {
    let secs = Duration::from_secs(secs);
    op(begin, begin + 100, What::Renew { lease: lease(), asked: secs, ttl: secs }, outcome)
}

fn lease() -> String {
    "l".to_owned()
}

fn looks(upto: u64) -> Vec<Look> {
    (0..upto).step_by(100).map(|from| Look { asked: at(from), answered: at(from + 20) }).collect()
}

/// One lease of ten seconds that goes as it should.
fn sound() -> History {
    let seen = |last| Seen { lease: lease(), first: at(1_020), last: at(last) };
    History {
        ops: vec![issued(900, 1_000, 10)],
        nodes: 3,
        roles: [("r".to_owned(), seen(11_000))].into(),
        rows: [("l".to_owned(), seen(11_000))].into(),
        role_looks: looks(30_000),
        row_looks: looks(30_000),
        ..History::default()
    }
}

fn broken(history: &History) -> Vec<Rule> {
    let mut rules: Vec<Rule> = checker::check(history).into_iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

fn forbidden(used_at: u64, outcome: Outcome) -> History {
    let token = || "t".to_owned();
    let forbid = op(1_000, 1_100, What::Forbid { token: token(), how: "revoke a token" }, outcome);
    let used = op(used_at, used_at + 10, What::Use { token: token() }, Outcome::Accepted);
    History { ops: vec![forbid, used], ..History::default() }
}

fn uses(accepted: usize, unknown: usize) -> History {
    let used = |outcome| op(0, 10, What::LimitedUse { token: "t".to_owned(), limit: 5 }, outcome);
    let mut ops = vec![used(Outcome::Accepted); accepted];
    ops.extend(vec![used(Outcome::Unknown); unknown]);
    ops.push(op(20, 30, What::LimitedUse { token: "t".to_owned(), limit: 5 }, Outcome::Refused(403)));
    History { ops, ..History::default() }
}

fn overdue(secs: u64, spans: Vec<Span>) -> History {
    let role = Overdue { role: "r".to_owned(), lease: lease(), from: at(1_000), last: at(1_000 + secs * 1_000) };
    History { overdue: vec![role], nodes: 3, spans, ..History::default() }
}

fn span(fault: Fault, from: u64, to: u64) -> Span {
    Span { fault, begin: at(from), end: at(to) }
}

#[test]
fn the_checker_accepts_what_is_sound() {
    assert_eq!(broken(&sound()), []);
    // What began before the answer may be accepted, and what nobody knows promises nothing.
    assert_eq!(broken(&forbidden(1_050, Outcome::Accepted)), []);
    assert_eq!(broken(&forbidden(1_200, Outcome::Unknown)), []);
    assert_eq!(broken(&uses(5, 0)), []);
    assert_eq!(broken(&uses(3, 2)), []);
    assert_eq!(broken(&overdue(9, vec![])), []);
    // The target is away in the middle; then all nodes are, each in its own way.
    assert_eq!(broken(&overdue(16, vec![span(Fault::Restart(Place::Target), 6_000, 8_000)])), []);
    let all = vec![
        span(Fault::Kill(0), 5_000, 9_000),
        span(Fault::Pause(1), 5_000, 9_000),
        span(Fault::Cut(Place::Node(2), Place::Target), 5_000, 9_000),
    ];
    assert_eq!(broken(&overdue(16, all)), []);
    // A revocation that was asked for may have happened, whatever was heard.
    let mut asked = sound();
    asked.roles.get_mut("r").unwrap().last = at(4_000);
    asked.ops.push(op(3_900, 4_500, What::Revoke { lease: lease() }, Outcome::Unknown));
    assert_eq!(broken(&asked), []);
    // A renewal may make it end earlier, also one whose outcome is unknown.
    for outcome in [Outcome::Accepted, Outcome::Unknown, Outcome::Refused(400)] {
        let mut shortened = sound();
        shortened.roles.get_mut("r").unwrap().last = at(4_000);
        shortened.rows.get_mut("l").unwrap().last = at(4_000);
        shortened.ops.push(renewal(2_000, 2, outcome));
        assert_eq!(broken(&shortened), []);
    }
    // The store's clock was ahead.
    let mut bent = sound();
    bent.roles.get_mut("r").unwrap().last = at(4_000);
    bent.rows.get_mut("l").unwrap().last = at(4_000);
    bent.spans.push(span(Fault::Bend(Place::Store(0), 300), 3_000, 6_000));
    assert_eq!(broken(&bent), []);
}

#[test]
fn the_checker_finds_each_contradiction() {
    let mut dropped = sound();
    dropped.roles.get_mut("r").unwrap().last = at(4_000);
    assert_eq!(broken(&dropped), [Rule::NotBeforeItsEnd]);
    let mut never_there = sound();
    never_there.roles.clear();
    assert_eq!(broken(&never_there), [Rule::NotBeforeItsEnd]);
    let mut forgotten = sound();
    forgotten.rows.get_mut("l").unwrap().last = at(4_000);
    assert_eq!(broken(&forgotten), [Rule::NothingForgotten]);
    let mut unknown = sound();
    unknown.ops.push(op(3_000, 3_100, What::Lookup { lease: lease() }, Outcome::Refused(400)));
    assert_eq!(broken(&unknown), [Rule::NothingForgotten]);
    // A renewal promises more.
    let mut renewed = sound();
    renewed.ops.push(renewal(9_000, 10, Outcome::Accepted));
    assert_eq!(broken(&renewed), [Rule::NotBeforeItsEnd, Rule::NothingForgotten]);
    // What was asked for later and may have been granted is still more.
    renewed.ops.push(renewal(10_000, 10, Outcome::Unknown));
    assert_eq!(broken(&renewed), [Rule::NotBeforeItsEnd, Rule::NothingForgotten]);

    assert_eq!(broken(&forbidden(1_101, Outcome::Accepted)), [Rule::NothingAfterRevocation]);
    for what in [
        renewal(2_200, 1, Outcome::Accepted).what,
        What::Lookup { lease: lease() },
        What::Login { role: "r".to_owned() },
    ] {
        let mut used = sound();
        used.roles.get_mut("r").unwrap().last = at(2_000);
        used.ops.push(op(2_000, 2_100, What::Revoke { lease: lease() }, Outcome::Accepted));
        assert_eq!(broken(&used), []);
        used.ops.push(op(2_200, 2_300, what, Outcome::Accepted));
        assert_eq!(broken(&used), [Rule::NothingAfterRevocation]);
    }
    let mut there = sound();
    there.ops.push(op(2_000, 2_100, What::Revoke { lease: lease() }, Outcome::Accepted));
    assert_eq!(broken(&there), [Rule::NothingAfterRevocation]);

    assert_eq!(broken(&uses(6, 0)), [Rule::NoUseTwice]);
    assert_eq!(broken(&uses(3, 1)), [Rule::NoUseTwice]);
    assert_eq!(broken(&overdue(11, vec![])), [Rule::NotLate]);
    // One node is away, and two could have dropped it.
    assert_eq!(broken(&overdue(11, vec![span(Fault::Kill(0), 5_000, 9_000)])), [Rule::NotLate]);
    let orphan = Orphan { role: "r".to_owned(), lease: lease(), at: at(1) };
    assert_eq!(broken(&History { orphans: vec![orphan], ..History::default() }), [Rule::NoRoleWithoutRow]);
    assert_eq!(broken(&History { left: vec!["r".to_owned()], ..History::default() }), [Rule::NothingLeft]);
}

#[test]
fn the_observer_keeps_what_matters() {
    let look = |from| Look { asked: at(from), answered: at(from + 10) };
    let role = || vec![("r".to_owned(), lease())];
    let row = |is_over| vec![Row { lease: lease(), state: "active".to_owned(), is_over }];
    let told = |tracker: Tracker| {
        let mut history = History::default();
        tracker.tell(&mut history);
        history
    };
    // Its row goes between two looks, and so does the role.
    let mut tracker = Tracker::default();
    tracker.saw_roles(look(0), role());
    tracker.saw_rows(look(20), &[]);
    tracker.saw_roles(look(40), vec![]);
    assert_eq!(told(tracker).orphans, []);
    // The role is there before and after a look that finds no row.
    let mut tracker = Tracker::default();
    tracker.saw_roles(look(0), role());
    tracker.saw_rows(look(20), &[]);
    tracker.saw_roles(look(40), role());
    assert_eq!(told(tracker).orphans, [Orphan { role: "r".to_owned(), lease: lease(), at: at(40) }]);
    // It is over, is renewed after all, and is over again.
    let mut tracker = Tracker::default();
    for (round, is_over) in [true, true, false, true, true].into_iter().enumerate() {
        let from = u64::try_from(round).unwrap() * 100;
        tracker.saw_roles(look(from), role());
        tracker.saw_rows(look(from + 20), &row(is_over));
    }
    tracker.saw_roles(look(500), role());
    let history = told(tracker);
    let spans: Vec<_> = history.overdue.iter().map(|overdue| (overdue.from, overdue.last)).collect();
    assert_eq!(spans, [(at(30), at(200)), (at(330), at(500))]);
    assert_eq!(history.roles["r"], Seen { lease: lease(), first: at(10), last: at(500) });
}

#[test]
fn a_plan_follows_from_its_seed_and_leaves_each_place_alone_for_a_while() {
    let abilities = Abilities { nodes: 3, cuts: true, clocks: true, fails_over: true };
    let length = Duration::from_secs(1_800);
    for seed in 0..20 {
        let planned = plan::plan(seed, length, &abilities);
        assert_eq!(planned, plan::plan(seed, length, &abilities));
        assert!(planned.len() > 200, "{}", planned.len());
        let kinds: std::collections::BTreeSet<_> = planned.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), 10, "{kinds:?}");
        assert!(planned.iter().all(|planned| planned.at + planned.lasts <= length));
        for pair in planned.windows(2) {
            let [one, other] = [pair[0], pair[1]];
            assert!(one.at <= other.at && (one.fault != other.fault || other.at >= one.at + one.lasts), "{pair:?}");
        }
    }
    assert_ne!(plan::plan(1, length, &abilities), plan::plan(2, length, &abilities));
}
