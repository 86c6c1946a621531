//! ACL decisions from warm instances.
//!
//! Must not know: what a rule means. It keeps texts, hands them to the guest, and compares answers.
//!
//! Start with [`AclRoom::ask`]. A set is named by the hash of its texts and identity values. Its texts stay here, so any
//! instance can compile it: some milliseconds for a thousand rules, once for each instance. After that a decision takes
//! microseconds. `warm` keeps the instances, `shadow` says which answers are compared and what a difference is.
//!
//! Invariants: a client's value enters a guest only for a key that a rule of the set names, when the verdict may depend on
//! it, and then on an instance that is dropped afterwards. An instance that trapped, grew old or served its calls is not used again.
//!
//! One in N answers of warm instances (decisions, capabilities and grants below alike) is computed once more, from the
//! same texts, for the same moment, on an instance that nobody has used: behind the caller's back, one at a time. When
//! the two differ, every warm instance goes, those in use when they come back. The answer itself has been given by then,
//! as have those before it that were not compared: the error in the log says so (`host/docs/decisions/0007`).

mod convert;
mod instance;
mod known;
mod question;
mod shadow;
mod warm;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use leasehold_core::seams::host::Clock;
use leasehold_core::seams::sandbox::{
    AclError, AclRequest, CompiledPolicies, Diagnostic, IdentityValues, PolicyReport, PolicySetId, PolicySource,
    Reason, SandboxError, Verdict,
};
use leasehold_model::{Capabilities, Timestamp};
use metrics::{Counter, counter};
use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use self::instance::{Compiled, Instance};
use self::known::{ByLength, KnownSet, content_id, is_wide, known};
use self::question::{Question, Reply};
use self::shadow::{Comparison, Shadow};
use self::warm::{Lent, Warm};
use crate::bindings::acl::AclPre;
use crate::bindings::acl::exports::leasehold::acl::evaluator as wit;
use crate::config::GuestLimits;
use crate::metrics::Meter;
use crate::store::Guest;

/// Fuel of what is answered on the caller's thread, well below a millisecond: a usual set needs a fortieth of it for a question. What
/// needs more is stopped there and begins anew on a thread that may block, and so does, from the start, every later question to
/// a set that needed more for a single one.
const BRIEF: u64 = 500_000;
pub(crate) struct AclRoom {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    pre: AclPre<Guest>,
    limits: GuestLimits,
    clock: Arc<dyn Clock>,
    lane: Arc<Semaphore>,
    /// For what compiles a set of usual size.
    compiling: Arc<Semaphore>,
    /// For what compiles a wide set: those who have many of them compiled wait for each other, and for nobody else.
    compiling_wide: Arc<Semaphore>,
    /// For questions that take long although their set is compiled.
    answering: Arc<Semaphore>,
    known: Cache<PolicySetId, Arc<KnownSet>, ByLength>,
    warm: Warm<Instance>,
    /// Wide sets have instances of their own: to compile one takes no instance from others, and pushes no usual set out.
    warm_wide: Warm<Instance>,
    shadow: Shadow,
    meter: Meter,
    compiled: [Counter; 2],
}

/// Given back when it is dropped.
struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _common: OwnedSemaphorePermit,
}

impl AclRoom {
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        limits: GuestLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, wasmtime::Error> {
        let pre = AclPre::new(Linker::new(engine).instantiate_pre(component)?)?;
        let lane = Arc::new(Semaphore::new(limits.acl_at_once as usize));
        let places = |count: u32| Arc::new(Semaphore::new(count.max(1) as usize));
        let compiling = places(limits.compiles_at_once);
        let compiling_wide = places(limits.wide_compiles_at_once);
        let answering = places(limits.compiles_at_once);
        let known = known(&limits);
        let (warm, warm_wide) = (Warm::new(limits.warm), Warm::new(limits.warm_wide));
        let shadow = Shadow::new(limits.shadow_one_in);
        let (engine, meter) = (engine.clone(), Meter::new("acl"));
        let compiled = ["usual", "wide"].map(|size| counter!("leasehold_acl_sets_compiled_total", "size" => size));
        let shared = Shared {
            engine,
            pre,
            limits,
            clock,
            lane,
            compiling,
            compiling_wide,
            answering,
            known,
            warm,
            warm_wide,
            shadow,
            meter,
            compiled,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes a set known by its content. Also to find its name takes a while when its texts are long.
    pub(crate) async fn compile(
        &self,
        sources: &[PolicySource],
        identity: &IdentityValues,
    ) -> Result<CompiledPolicies, AclError> {
        let lane = self.shared.compiling(is_wide(sources, &self.shared.limits));
        let turn = self.shared.meter.seen(self.shared.turn(lane, None).await)?;
        let place = self.shared.place()?;
        let known = KnownSet::new(sources, identity, &self.shared.limits);
        let shared = Arc::clone(&self.shared);
        let compiled = blocking(move || shared.make_known(known, place, turn)).await?;
        self.shared.meter.seen(compiled)?.map_err(AclError::Refused)
    }

    pub(crate) async fn decide(&self, id: &PolicySetId, ask: &AclRequest<'_>) -> Result<Verdict, SandboxError> {
        let (known, max) = (self.shared.known(id)?, self.shared.limits.request);
        // A missing value never helps a request: what is granted without values is granted with them, and most refusals are
        // not about values either. So a value goes in only when a rule that names it decides about this path.
        let (request, _) = convert::request(ask, &[], max)?;
        let verdict = self.verdict(id, &known, request, false).await?;
        if known.watched.is_empty() || !matches!(verdict.reason, Reason::Parameter(_) | Reason::Pagination(_)) {
            return Ok(verdict);
        }
        match convert::request(ask, &known.watched, max)? {
            (request, true) => self.verdict(id, &known, request, true).await,
            (_, false) => Ok(verdict),
        }
    }

    async fn verdict(
        &self,
        id: &PolicySetId,
        known: &Arc<KnownSet>,
        request: wit::Request,
        with_values: bool,
    ) -> Result<Verdict, SandboxError> {
        match self.ask(id, Arc::clone(known), Question::Decide(request), with_values).await? {
            Reply::Verdict(verdict) => Ok(verdict),
            _ => Err(SandboxError::Host("an answer to another question".to_owned())),
        }
    }

    pub(crate) async fn capabilities(
        &self,
        id: &PolicySetId,
        paths: &[&str],
    ) -> Result<Vec<Capabilities>, SandboxError> {
        let known = self.shared.known(id)?;
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        match self.ask(id, known, Question::Capabilities(paths), false).await? {
            Reply::Capabilities(all) => Ok(all),
            _ => Err(SandboxError::Host("an answer to another question".to_owned())),
        }
    }

    pub(crate) async fn grants_below(&self, id: &PolicySetId, prefix: &str) -> Result<bool, SandboxError> {
        let known = self.shared.known(id)?;
        match self.ask(id, known, Question::GrantsBelow(prefix.to_owned()), false).await? {
            Reply::GrantsBelow(any) => Ok(any),
            _ => Err(SandboxError::Host("an answer to another question".to_owned())),
        }
    }

    /// On an instance of its own: the text may be anybody's.
    pub(crate) async fn lint(&self, source: &PolicySource) -> Result<PolicyReport, SandboxError> {
        let lane = self.shared.compiling(source.text.len() > self.shared.limits.wide_set);
        let turn = self.shared.meter.seen(self.shared.turn(lane, None).await)?;
        let place = self.shared.place()?;
        let (shared, source) = (Arc::clone(&self.shared), convert::source(source));
        let linted = blocking(move || {
            let _turn = turn;
            let mut instance = shared.instance(shared.clock.now(), Some(place))?;
            instance.lint(&source, &shared.limits)
        });
        self.shared.meter.seen(linted.await?)
    }

    async fn ask(
        &self,
        id: &PolicySetId,
        known: Arc<KnownSet>,
        question: Question,
        with_values: bool,
    ) -> Result<Reply, SandboxError> {
        let shared = &self.shared;
        let (begun, question) = (shared.clock.now(), Arc::new(question));
        let answered = match shared.answer_briefly(id, &known, &question, with_values, begun) {
            Some(answered) => answered,
            None => self.answer_elsewhere(id, &known, &question, with_values, begun).await,
        };
        let (reply, fuel) = shared.meter.seen(answered)?;
        shared.meter.answered(shared.clock.now().since(begun).as_secs_f64(), fuel);
        Ok(reply)
    }

    /// On a thread that may block, after waiting for its turn: with more of these than cores all would run out of time. A question
    /// to a set that is compiled waits for no compilation.
    async fn answer_elsewhere(
        &self,
        id: &PolicySetId,
        known: &Arc<KnownSet>,
        question: &Arc<Question>,
        with_values: bool,
        now: Timestamp,
    ) -> Result<(Reply, u64), SandboxError> {
        let is_compiled = !with_values && self.shared.warm(known).has(|instance| instance.holds(id, now));
        let lane = if is_compiled { &self.shared.answering } else { self.shared.compiling(known.is_wide) };
        let turn = self.shared.turn(lane, Some(known)).await?;
        let place = self.shared.place()?;
        let (shared, id, known, question) =
            (Arc::clone(&self.shared), id.clone(), Arc::clone(known), Arc::clone(question));
        blocking(move || {
            let (_place, _turn) = (place, turn);
            if with_values {
                return shared.ask_fresh(&id, &known, &question, now);
            }
            let mut instance = shared.take_compiled(&id, &known, now)?;
            let reply = instance.answer(&id, &question, &shared.limits);
            shared.answered(instance, &id, &known, question, reply, now)
        })
        .await?
    }
}

impl Shared {
    fn place(&self) -> Result<OwnedSemaphorePermit, SandboxError> {
        Arc::clone(&self.lane).try_acquire_owned().map_err(|_| SandboxError::Busy)
    }

    /// The places for compiling sets of this size.
    fn compiling(&self, wide: bool) -> &Arc<Semaphore> {
        if wide { &self.compiling_wide } else { &self.compiling }
    }

    /// The instances that hold sets of this size.
    fn warm(&self, known: &KnownSet) -> &Warm<Instance> {
        if known.is_wide { &self.warm_wide } else { &self.warm }
    }

    /// Leave to do what takes long, for a set that is known within its share.
    async fn turn(&self, lane: &Arc<Semaphore>, known: Option<&KnownSet>) -> Result<Turn, SandboxError> {
        let turn = async {
            let own = match known {
                Some(known) => Some(Arc::clone(&known.share).acquire_owned().await),
                None => None,
            };
            let common = Arc::clone(lane).acquire_owned().await;
            Some(Turn { _own: own.transpose().ok()?, _common: common.ok()? })
        };
        match tokio::time::timeout(self.limits.compile_patience, turn).await {
            Ok(Some(turn)) => Ok(turn),
            Ok(None) | Err(_) => Err(SandboxError::Busy),
        }
    }

    fn known(&self, id: &PolicySetId) -> Result<Arc<KnownSet>, SandboxError> {
        self.known.get(id).ok_or_else(|| SandboxError::Unknown(id.0.to_string()))
    }

    fn instance(&self, now: Timestamp, place: Option<OwnedSemaphorePermit>) -> Result<Instance, SandboxError> {
        Instance::new(&self.engine, &self.pre, &self.limits, now, place)
    }

    /// A warm instance that can answer from this set at once.
    fn take_holding(&self, id: &PolicySetId, known: &KnownSet, now: Timestamp) -> Option<Lent<Instance>> {
        self.warm(known).take(|instance| instance.holds(id, now))
    }

    /// A warm instance that holds the set after this, or a new one.
    fn take_compiled(
        &self,
        id: &PolicySetId,
        known: &KnownSet,
        now: Timestamp,
    ) -> Result<Lent<Instance>, SandboxError> {
        if let Some(instance) = self.take_holding(id, known, now) {
            return Ok(instance);
        }
        let mut instance = self.warm(known).take_any(|| self.instance(now, None))?;
        match self.compile(&mut instance, id, known, now)? {
            Compiled::Done => Ok(instance),
            // It did once, at another time or with the same texts: never a reason to answer from less than all of them.
            Compiled::Refused(diagnostics) => Err(no_longer(&diagnostics)),
        }
    }

    fn compile(
        &self,
        instance: &mut Instance,
        id: &PolicySetId,
        known: &KnownSet,
        now: Timestamp,
    ) -> Result<Compiled, SandboxError> {
        let [usual, wide] = &self.compiled;
        if known.is_wide { wide } else { usual }.increment(1);
        instance.compile(id, known, &self.limits, now)
    }

    /// Keeps an instance for the next question, unless it is worn out.
    fn give_back(&self, instance: Lent<Instance>, known: &KnownSet, now: Timestamp) {
        if instance.is_fit(&self.limits, now) {
            self.warm(known).give_back(instance);
        }
    }

    fn make_known(
        &self,
        mut known: KnownSet,
        _place: OwnedSemaphorePermit,
        _turn: Turn,
    ) -> Result<Result<CompiledPolicies, Vec<Diagnostic>>, SandboxError> {
        let id = content_id(&known.sources, &known.identity);
        if let Some(known) = self.known.get(&id) {
            return Ok(Ok(CompiledPolicies { id, template_names: known.template_names.clone() }));
        }
        let now = self.clock.now();
        let mut instance = self.warm(&known).take_any(|| self.instance(now, None))?;
        match self.compile(&mut instance, &id, &known, now)? {
            Compiled::Refused(diagnostics) => {
                self.give_back(instance, &known, now);
                Ok(Err(diagnostics))
            }
            Compiled::Done => {
                known.watched = instance.watched(&id, &self.limits)?;
                known.template_names = instance.template_names(&id, &self.limits)?;
                self.give_back(instance, &known, now);
                let template_names = known.template_names.clone();
                self.known.insert(id.clone(), Arc::new(known));
                Ok(Ok(CompiledPolicies { id, template_names }))
            }
        }
    }

    /// On the caller's thread, if a warm instance holds the set and the answer takes no time worth mentioning.
    fn answer_briefly(
        self: &Arc<Self>,
        id: &PolicySetId,
        known: &Arc<KnownSet>,
        question: &Arc<Question>,
        with_values: bool,
        now: Timestamp,
    ) -> Option<Result<(Reply, u64), SandboxError>> {
        if with_values || !question.is_brief() || known.is_slow.load(Ordering::Relaxed) {
            return None;
        }
        let mut instance = self.take_holding(id, known, now)?;
        let reply = instance.answer_within(id, question, &self.limits, BRIEF);
        let answered = match &reply {
            // The guest was stopped in the middle, so its instance is lost: once for each set that is so slow.
            Err(SandboxError::Fuel) => {
                known.is_slow.store(true, Ordering::Relaxed);
                return None;
            }
            Ok(Reply::Capabilities(some)) => some.len(),
            _ => 1,
        };
        if reply.is_ok() && answered < question.count() {
            self.give_back(instance, known, now);
            return None;
        }
        Some(self.answered(instance, id, known, Arc::clone(question), reply, now))
    }

    /// What a warm instance replied, and its fuel. Sometimes the same is asked once more, behind the caller's back.
    fn answered(
        self: &Arc<Self>,
        instance: Lent<Instance>,
        id: &PolicySetId,
        known: &Arc<KnownSet>,
        question: Arc<Question>,
        reply: Result<Reply, SandboxError>,
        now: Timestamp,
    ) -> Result<(Reply, u64), SandboxError> {
        let fuel = instance.fuel;
        self.give_back(instance, known, now);
        let reply = reply?;
        if let Some(turn) = self.shadow.turn() {
            let (shared, id, known, warm) = (Arc::clone(self), id.clone(), Arc::clone(known), reply.clone());
            // Nobody waits for it, not even for its place.
            tokio::task::spawn_blocking(move || shared.compare(&id, &known, &question, &warm, now, turn));
        }
        Ok((reply, fuel))
    }

    /// Asks once more, for the moment of the first answer: rules may have expired since.
    fn compare(
        &self,
        id: &PolicySetId,
        known: &KnownSet,
        question: &Question,
        warm: &Reply,
        at: Timestamp,
        _: shadow::Turn,
    ) {
        let fresh = self.ask_fresh(id, known, question, at).map(|(reply, _)| reply);
        if self.shadow.judge(id, warm, fresh) == Comparison::Difference {
            self.warm.drop_all();
            self.warm_wide.drop_all();
        }
    }

    /// On an instance that nobody has used and nobody will use again.
    fn ask_fresh(
        &self,
        id: &PolicySetId,
        known: &KnownSet,
        question: &Question,
        now: Timestamp,
    ) -> Result<(Reply, u64), SandboxError> {
        let mut instance = self.instance(now, None)?;
        match instance.compile(id, known, &self.limits, now)? {
            Compiled::Done => {}
            Compiled::Refused(diagnostics) => return Err(no_longer(&diagnostics)),
        }
        // Values may be long; the set itself has just cost as much.
        let mut limits = self.limits.clone();
        limits.decide.fuel = limits.decide.fuel.max(limits.compile_acl.fuel);
        let reply = instance.answer(id, question, &limits)?;
        Ok((reply, instance.fuel))
    }
}

impl std::fmt::Debug for AclRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AclRoom").finish_non_exhaustive()
    }
}

fn no_longer(diagnostics: &[Diagnostic]) -> SandboxError {
    let first = diagnostics.first().map_or("no reason was given", |diagnostic| diagnostic.message.as_str());
    warn!("a policy set that compiled once does not any more: {first}");
    SandboxError::Failed(format!("the policy set does not compile any more: {first}"))
}

/// Runs what may take longer than a worker of the runtime should be kept from others.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SandboxError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| SandboxError::Host("a sandbox thread ended early".to_owned()))
}
