//! One instance of the ACL component with the policy sets it has compiled.
//!
//! Invariant: an instance whose guest trapped is broken and answers no more; its owner drops it.

use leasehold_core::seams::sandbox::{Diagnostic, PolicyReport, PolicySetId, SandboxError};
use leasehold_model::Timestamp;
use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::ResourceAny;
use wasmtime::{Engine, Store};

use super::convert;
use super::{KnownSet, Question, Reply};
use crate::bindings::acl::exports::leasehold::acl::evaluator as wit;
use crate::bindings::acl::{Acl, AclPre};
use crate::config::{Budget, GuestLimits};
use crate::store::{self, Guest};

pub(super) struct Instance {
    store: Store<Guest>,
    acl: Acl,
    sets: Cache<PolicySetId, Held, UnitWeighter, DefaultHashBuilder, Evicted>,
    calls: u32,
    born: Timestamp,
    broken: bool,
    /// Fuel of the last question.
    pub(super) fuel: u64,
}

struct Held {
    set: ResourceAny,
    /// Unix seconds.
    valid_until: Option<u64>,
}

/// Collects the sets that have to leave, so that the guest's memory can be given back.
#[derive(Clone)]
struct Evicted;

impl Lifecycle<PolicySetId, Held> for Evicted {
    type RequestState = Vec<Held>;

    fn on_evict(&self, evicted: &mut Vec<Held>, _: PolicySetId, held: Held) {
        evicted.push(held);
    }
}

/// What compiling a set brought.
pub(super) enum Compiled {
    Done,
    /// The texts are refused.
    Refused(Vec<Diagnostic>),
}

impl Instance {
    pub(super) fn new(
        engine: &Engine,
        pre: &AclPre<Guest>,
        limits: &GuestLimits,
        now: Timestamp,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, SandboxError> {
        let mut store = store::fresh(engine, &limits.decide, place);
        store::arm(&mut store, &limits.decide)?;
        match pre.instantiate(&mut store) {
            Ok(acl) => {
                // Of one set alone the cache would keep none.
                let capacity = limits.warm_sets.max(2);
                let sets = Cache::with(capacity, capacity as u64, UnitWeighter, DefaultHashBuilder::default(), Evicted);
                Ok(Self { store, acl, sets, calls: 0, born: now, broken: false, fuel: 0 })
            }
            Err(error) => Err(store::stopped(&store, &error)),
        }
    }

    /// Whether the set is here, and none of its rules has expired since it was compiled.
    pub(super) fn holds(&mut self, id: &PolicySetId, now: Timestamp) -> bool {
        let valid_until = match self.sets.get(id) {
            Some(held) => held.valid_until,
            None => return false,
        };
        valid_until.is_none_or(|until| seconds(now) < until)
    }

    /// Whether it may serve another question.
    pub(super) fn is_fit(&self, limits: &GuestLimits, now: Timestamp) -> bool {
        let age = now.since(self.born);
        // A clock that went back makes it no younger.
        let is_young = age < limits.warm_age && now >= self.born;
        !self.broken && self.calls < limits.warm_calls && is_young && self.store.data().memory() <= limits.warm_memory
    }

    pub(super) fn compile(
        &mut self,
        id: &PolicySetId,
        known: &KnownSet,
        limits: &GuestLimits,
        now: Timestamp,
    ) -> Result<Compiled, SandboxError> {
        self.calls = self.calls.saturating_add(1);
        if let Some((_, old)) = self.sets.remove(id) {
            self.drop_set(old, limits)?;
        }
        store::arm(&mut self.store, &limits.compile_acl)?;
        let sources: Vec<wit::Source> = known.sources.iter().map(convert::source).collect();
        let identity = convert::identity(&known.identity);
        let guest = self.acl.leasehold_acl_evaluator().policy_set();
        let answer = guest.call_compile(&mut self.store, &sources, &identity, seconds(now));
        self.fuel = store::used(&self.store, limits.compile_acl.fuel);
        let set = match self.ended(answer)? {
            Ok(set) => set,
            Err(diagnostics) => {
                let diagnostics: Vec<_> = diagnostics.into_iter().map(convert::diagnostic).collect();
                return Ok(Compiled::Refused(diagnostics));
            }
        };
        let answer = self.acl.leasehold_acl_evaluator().policy_set().call_valid_until(&mut self.store, set);
        let valid_until = self.ended(answer)?;
        let mut evicted = Vec::new();
        self.sets.insert_with_lifecycle(id.clone(), Held { set, valid_until }, &mut evicted);
        for old in evicted {
            self.drop_set(old, limits)?;
        }
        Ok(Compiled::Done)
    }

    /// The lower-cased keys whose values matter to the set.
    pub(super) fn watched(&mut self, id: &PolicySetId, limits: &GuestLimits) -> Result<Vec<String>, SandboxError> {
        let set = self.set(id)?;
        store::arm(&mut self.store, &limits.decide)?;
        let answer = self.acl.leasehold_acl_evaluator().policy_set().call_watched_parameters(&mut self.store, set);
        self.ended(answer)
    }

    /// The names that the set's templates ask for.
    pub(super) fn template_names(
        &mut self,
        id: &PolicySetId,
        limits: &GuestLimits,
    ) -> Result<Vec<String>, SandboxError> {
        let set = self.set(id)?;
        store::arm(&mut self.store, &limits.decide)?;
        let answer = self.acl.leasehold_acl_evaluator().policy_set().call_template_names(&mut self.store, set);
        self.ended(answer)
    }

    /// Answers from a set that it [`holds`](Self::holds), with as much fuel as a decision may have.
    pub(super) fn answer(
        &mut self,
        id: &PolicySetId,
        question: &Question,
        limits: &GuestLimits,
    ) -> Result<Reply, SandboxError> {
        self.answer_within(id, question, limits, u64::MAX)
    }

    /// The same, but no single question gets more fuel than this, and of a list of paths only as many are answered, the first at
    /// least, as can be begun with it. A question that runs out of it leaves the instance broken.
    pub(super) fn answer_within(
        &mut self,
        id: &PolicySetId,
        question: &Question,
        limits: &GuestLimits,
        fuel: u64,
    ) -> Result<Reply, SandboxError> {
        let set = self.set(id)?;
        self.calls = self.calls.saturating_add(1);
        self.fuel = 0;
        let each = fuel.min(limits.decide.fuel);
        store::arm(&mut self.store, &Budget { fuel: each, ..limits.decide })?;
        let reply = match question {
            Question::Decide(request) => {
                let answer =
                    self.acl.leasehold_acl_evaluator().policy_set().call_evaluate(&mut self.store, set, request);
                Reply::Verdict(convert::verdict(self.ended(answer)?)?)
            }
            Question::Capabilities(paths) => {
                let mut all = Vec::with_capacity(paths.len());
                for path in paths {
                    if self.fuel > fuel {
                        break;
                    }
                    let answer =
                        self.acl.leasehold_acl_evaluator().policy_set().call_capabilities(&mut self.store, set, path);
                    all.push(convert::capabilities(self.ended(answer)?));
                    self.fuel = self.fuel.saturating_add(store::used(&self.store, each));
                    store::refuel(&mut self.store, each)?;
                }
                Reply::Capabilities(all)
            }
            Question::GrantsBelow(prefix) => {
                let answer =
                    self.acl.leasehold_acl_evaluator().policy_set().call_grants_below(&mut self.store, set, prefix);
                Reply::GrantsBelow(self.ended(answer)?)
            }
        };
        self.fuel = self.fuel.saturating_add(store::used(&self.store, each));
        Ok(reply)
    }

    pub(super) fn lint(&mut self, source: &wit::Source, limits: &GuestLimits) -> Result<PolicyReport, SandboxError> {
        store::arm(&mut self.store, &limits.compile_acl)?;
        let answer = self.acl.leasehold_acl_evaluator().call_lint(&mut self.store, source);
        self.fuel = store::used(&self.store, limits.compile_acl.fuel);
        Ok(convert::report(self.ended(answer)?))
    }

    fn set(&mut self, id: &PolicySetId) -> Result<ResourceAny, SandboxError> {
        let held = self.sets.get(id).map(|held| held.set);
        held.ok_or_else(|| SandboxError::Host("the instance does not hold the policy set".to_owned()))
    }

    fn drop_set(&mut self, held: Held, limits: &GuestLimits) -> Result<(), SandboxError> {
        store::arm(&mut self.store, &limits.decide)?;
        let answer = held.set.resource_drop(&mut self.store);
        self.ended(answer)
    }

    fn ended<T>(&mut self, answer: Result<T, wasmtime::Error>) -> Result<T, SandboxError> {
        answer.map_err(|error| {
            self.broken = true;
            store::stopped(&self.store, &error)
        })
    }
}

fn seconds(now: Timestamp) -> u64 {
    u64::try_from(now.as_secs()).unwrap_or(0)
}
