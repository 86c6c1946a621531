//! Random histories of the lease machine, with crashes in them.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::lease::revoke::Wait;
use leasehold_core::seams::host::Clock;
use leasehold_core::token::end::Children;
use leasehold_model::{LeaseId, Timestamp, TokenHash, Ttl};
use proptest::prelude::*;

use super::support::asked;
use super::support::engine::{TROUBLES, Trouble};
use super::support::faults::{FAULTS, Fault};
use super::support::node::{Node, World};
use super::support::pass;

#[derive(Clone, Debug)]
enum Step {
    /// A token below the n-th one, or an orphan.
    Token(Option<usize>),
    Issue(usize),
    Renew(usize),
    Revoke(usize, bool),
    EndToken(usize),
    EndTokenKeepChildren(usize),
    Prefix,
    /// The ticker works for so long.
    Tick(u64),
    /// Time passes, and nobody works.
    Pass(u64),
    Restart,
    Fault(usize, Fault),
    Trouble(usize, Trouble),
}

fn step() -> impl Strategy<Value = Step> {
    let some = 0_usize..8;
    prop_oneof![
        2 => proptest::option::of(some.clone()).prop_map(Step::Token),
        6 => some.clone().prop_map(Step::Issue),
        3 => some.clone().prop_map(Step::Renew),
        3 => (some.clone(), any::<bool>()).prop_map(|(n, wait)| Step::Revoke(n, wait)),
        1 => some.clone().prop_map(Step::EndToken),
        1 => some.clone().prop_map(Step::EndTokenKeepChildren),
        1 => Just(Step::Prefix),
        3 => (1_u64..400).prop_map(Step::Tick),
        2 => (1_u64..2_000).prop_map(Step::Pass),
        2 => Just(Step::Restart),
        4 => (0_usize..6, 0_usize..FAULTS.len()).prop_map(|(at, n)| Step::Fault(at, FAULTS[n])),
        4 => (0_usize..3, 0_usize..TROUBLES.len()).prop_map(|(at, n)| Step::Trouble(at, TROUBLES[n])),
    ]
}

/// What clients were told and may rely on.
#[derive(Default)]
struct Known {
    tokens: Vec<TokenHash>,
    parents: BTreeMap<TokenHash, TokenHash>,
    /// Acknowledged, with their tokens and the ends that were promised.
    leases: Vec<(LeaseId, TokenHash, Timestamp)>,
    /// Somebody asked for the end of these tokens; it may or may not have come.
    doomed: BTreeSet<TokenHash>,
    /// An acknowledged end.
    ended: BTreeSet<LeaseId>,
    asked: BTreeSet<LeaseId>,
}

impl Known {
    fn token(&self, n: usize) -> Option<TokenHash> {
        self.tokens.get(n % self.tokens.len().max(1)).cloned()
    }

    fn lease(&self, n: usize) -> Option<LeaseId> {
        self.leases.get(n % self.leases.len().max(1)).map(|(id, ..)| id.clone())
    }

    /// Whether somebody asked for the end of this token or of one above it.
    fn is_doomed(&self, token: &TokenHash) -> bool {
        let mut at = Some(token);
        while let Some(token) = at {
            if self.doomed.contains(token) {
                return true;
            }
            at = self.parents.get(token);
        }
        false
    }
}

const LONG: Ttl = Ttl::from_secs(3_600);

async fn act(node: &Node, known: &mut Known, step: &Step, n: usize) {
    match step {
        Step::Token(parent) => {
            let parent = parent.and_then(|n| known.token(n));
            if let Ok(token) = node.try_token(&format!("t{n}"), parent.as_ref(), Ttl::from_secs(30 * 86_400)).await {
                if let Some(parent) = parent {
                    known.parents.insert(token.clone(), parent);
                }
                known.tokens.push(token);
            }
        }
        Step::Issue(n) => {
            let Some(token) = known.token(*n) else { return };
            if let Ok(issued) = node.issue_for(&token, LONG, Ttl::from_secs(86_400), None).await {
                known.leases.push((issued.lease.id, token, node.at(issued.lease.ttl.as_secs())));
            }
        }
        Step::Renew(n) => {
            let Some(id) = known.lease(*n) else { return };
            let renewed = node.renew(&id, None).await;
            if let Ok((lease, _)) = renewed {
                assert!(!known.ended.contains(&id), "{id} came back to life");
                let end = node.at(lease.ttl.as_secs());
                known.leases.iter_mut().filter(|(other, ..)| *other == id).for_each(|(.., promised)| *promised = end);
            }
        }
        Step::Revoke(n, wait) => {
            let Some(id) = known.lease(*n) else { return };
            known.asked.insert(id.clone());
            let wait = if *wait { Wait::UntilGone } else { Wait::UntilStored };
            if node.leases.revoke(&id, wait, &asked()).await.is_ok() {
                known.ended.insert(id.clone());
                assert!(wait == Wait::UntilStored || !node.engine.target.has(&id), "{id} was said to be gone");
            }
        }
        Step::EndToken(n) => {
            let Some(token) = known.token(*n) else { return };
            known.doomed.insert(token.clone());
            let _ = node.leases.end_token(&token, Children::AreRevoked, &asked()).await;
        }
        Step::EndTokenKeepChildren(n) => {
            let Some(token) = known.token(*n) else { return };
            // An end of it or of one above that was asked for earlier takes the children along.
            let was_doomed = known.is_doomed(&token);
            let done = node.leases.end_token(&token, Children::BecomeOrphans, &asked()).await;
            known.doomed.insert(token.clone());
            if done.is_ok() {
                // Their fate is their own from now on, unless it was sealed before.
                let children: Vec<TokenHash> = known
                    .parents
                    .iter()
                    .filter(|(_, parent)| **parent == token)
                    .map(|(child, _)| child.clone())
                    .collect();
                for child in children {
                    if !was_doomed {
                        known.parents.remove(&child);
                    }
                }
            }
        }
        Step::Prefix => {
            known.asked.extend(known.leases.iter().map(|(id, ..)| id.clone()));
            if node.leases.revoke_prefix("db", Wait::UntilGone, &asked()).await.is_ok() {
                known.ended.extend(known.leases.iter().map(|(id, ..)| id.clone()));
            }
        }
        Step::Tick(secs) => node.tick(*secs).await,
        Step::Pass(secs) => pass(*secs).await,
        Step::Fault(at, fault) => node.process.fault_at(*at, *fault),
        Step::Trouble(at, trouble) => node.process.trouble_at(*at, *trouble),
        Step::Restart => {}
    }
}

impl Known {
    /// A promised lease works until its end, unless somebody asked for another.
    fn assert_kept(&self, world: &World, step: &Step) {
        let now = world.clock.now();
        for (id, token, promised) in &self.leases {
            if *promised > now && !self.asked.contains(id) && !self.is_doomed(token) {
                assert!(world.target.has(id), "{step:?} drops {id} before its end");
            }
        }
    }
}

async fn live(steps: &[Step]) {
    let world = World::new();
    let mut node = world.start().await;
    let mut known = Known::default();
    known.tokens.push(node.token("first", None, Ttl::from_secs(30 * 86_400)).await);
    for (n, step) in steps.iter().enumerate() {
        act(&node, &mut known, step, n).await;
        node.assert_no_violation("history");
        let named: BTreeSet<LeaseId> = world.secrets().await.into_iter().map(|row| row.id).collect();
        assert!(world.target.roles().is_subset(&named), "{step:?} leaves a role without a row");
        known.assert_kept(&world, step);
        if matches!(step, Step::Restart) || node.process.is_dead() {
            node.process.die();
            node = world.start().await;
        }
    }
    node.process.die();
    let node = world.recover(1_500).await;
    node.assert_no_violation("recovery");
    world.assert_settled("recovery").await;
    let active: BTreeSet<LeaseId> = world.secrets().await.into_iter().map(|row| row.id).collect();
    assert!(active.is_disjoint(&known.ended), "acknowledged ends that did not come");
    for row in world.secrets().await {
        assert!(world.token_lives(&row.token).await, "{} outlives its token", row.id);
    }
    pass(40 * 86_400).await;
    let last = world.recover(300).await;
    last.assert_no_violation("the end");
    assert!(world.target.roles().is_empty() && world.rows().await.is_empty(), "something is left at the end of time");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_roles_have_rows_and_rows_end(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live(&steps));
    }
}
