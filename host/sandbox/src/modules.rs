//! Third parties' policy modules: a fresh instance for every decision.
//!
//! Must not know: who bound a module to which path, or how strictly it counts. That is policy's business in core.
//!
//! Start with [`ModulesRoom::load`] and [`ModulesRoom::evaluate`].
//!
//! Invariants: what runs has passed the load gate. Nothing a module remembers reaches its next decision. An answer out
//! of bounds is no answer. No binding takes the places of another one (see [`places`](crate::places)).

use std::collections::HashMap;
use std::sync::Arc;

use leasehold_core::seams::host::Clock;
use leasehold_core::seams::sandbox::{
    Digest, EvaluationFailed, LoadError, ModuleDecision, ModuleFacts, ModuleRequest, ModuleVerdict, SandboxError,
};
use leasehold_model::lock::{Mutex, RwLock};
use leasehold_model::{Operation, Ttl};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use crate::acl::blocking;
use crate::bindings::policy::exports::leasehold::policy::policy as wit;
use crate::bindings::policy::leasehold::policy::types;
use crate::bindings::policy::{PolicyModule, PolicyModulePre};
use crate::compile::{self, Workshop};
use crate::config::{Compiler, GuestLimits};
use crate::gate::{self, Facts};
use crate::metrics::Meter;
use crate::places::BindingPlaces;
use crate::store::{self, Guest, words};

const MAX_MESSAGES: usize = 32;
const MAX_MESSAGE: usize = 1024;
const MAX_OBLIGATIONS: usize = 32;
const MAX_NAME: usize = 128;
const MAX_CONFIG: usize = 64 << 10;
/// The load gate's work on the largest upload takes a core for a good part of a second.
const UPLOADS_AT_ONCE: usize = 2;
/// Instances that only say who they are, or whether they take a configuration.
pub(crate) const LOOKS_AT_ONCE: usize = 2;

pub(crate) struct ModulesRoom {
    shared: Arc<Shared>,
    workshop: Workshop,
    loaded: RwLock<HashMap<Digest, Arc<Loaded>>>,
    /// The last module that was inspected: it is mostly loaded next.
    inspected: Mutex<Option<Arc<Loaded>>>,
    places: BindingPlaces,
    /// For `describe` and `configure`, which nobody's requests wait for.
    looking: Arc<Semaphore>,
    /// Uploads that the load gate looks at, whether or not their clients still wait.
    door: Arc<Semaphore>,
}

struct Shared {
    engine: Engine,
    limits: GuestLimits,
    clock: Arc<dyn Clock>,
}

struct Loaded {
    facts: ModuleFacts,
    pre: PolicyModulePre<Guest>,
    meter: Meter,
}

impl ModulesRoom {
    pub(crate) fn new(engine: &Engine, compiler: Compiler, limits: GuestLimits, clock: Arc<dyn Clock>) -> Self {
        let workshop = Workshop::new(engine.clone(), compiler, limits.module.clone());
        let places = BindingPlaces::new(&limits);
        let shared = Arc::new(Shared { engine: engine.clone(), limits, clock });
        Self {
            shared,
            workshop,
            loaded: RwLock::default(),
            inspected: Mutex::default(),
            places,
            looking: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
            door: Arc::new(Semaphore::new(UPLOADS_AT_ONCE)),
        }
    }

    pub(crate) async fn inspect(&self, bytes: &[u8]) -> Result<ModuleFacts, LoadError> {
        let module = self.prepare(bytes).await?;
        let facts = module.facts.clone();
        *self.inspected.lock() = Some(module);
        Ok(facts)
    }

    pub(crate) async fn load(&self, bytes: &[u8]) -> Result<Digest, LoadError> {
        let digest = Digest(gate::digest(bytes));
        if self.find(&digest).is_ok() {
            return Ok(digest);
        }
        let inspected = self.inspected.lock().take();
        let module = match inspected {
            Some(module) if module.facts.digest == digest.0 => module,
            _ => self.prepare(bytes).await?,
        };
        self.loaded.write().insert(digest.clone(), module);
        Ok(digest)
    }

    pub(crate) fn unload(&self, digest: &Digest) {
        self.loaded.write().remove(digest);
    }

    async fn prepare(&self, bytes: &[u8]) -> Result<Arc<Loaded>, LoadError> {
        let limits = self.shared.limits.module.clone();
        let ended = |_| LoadError("a sandbox thread ended early".to_owned());
        let entered = compile::turn(&self.door, limits.compile_wall).await?;
        let copy = bytes.to_vec();
        let facts = blocking(move || {
            let _entered = entered;
            gate::inspect(&copy, &limits)
        });
        let facts = facts.await.map_err(ended)??;
        let component = self.workshop.compile(bytes).await?;
        let place = compile::turn(&self.looking, self.shared.limits.module.compile_wall).await?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.describe(facts, &component, Some(place))).await.map_err(ended)?.map(Arc::new)
    }

    pub(crate) async fn configure(&self, digest: &Digest, config: &[u8]) -> Result<(), SandboxError> {
        let module = self.find(digest)?;
        let looking = compile::turn(&self.looking, self.shared.limits.module.compile_wall).await;
        let place = module.meter.seen(looking.map_err(|_| SandboxError::Busy))?;
        let (shared, config) = (Arc::clone(&self.shared), config.to_vec());
        blocking(move || {
            let configured = shared.instance(&module.pre, Some(place), &config);
            module.meter.seen(configured.map(drop).map_err(|unjudged| unjudged.why))
        })
        .await?
    }

    pub(crate) async fn evaluate(
        &self,
        binding: &str,
        digest: &Digest,
        config: &[u8],
        ask: &ModuleRequest,
    ) -> Result<ModuleVerdict, EvaluationFailed> {
        let module = self.find(digest)?;
        let request = module.meter.seen(request(ask, self.shared.limits.module_request))?;
        let place = module.meter.seen(self.places.take(binding).await)?;
        let (shared, config) = (Arc::clone(&self.shared), config.to_vec());
        blocking(move || {
            let begun = shared.clock.now();
            let judged = shared.evaluate(&module.pre, &config, &request);
            drop(place);
            let verdict = judged.inspect_err(|unjudged| module.meter.failed(&unjudged.why))?;
            module.meter.answered(shared.clock.now().since(begun).as_secs_f64(), verdict.fuel);
            Ok(verdict)
        })
        .await?
    }

    fn find(&self, digest: &Digest) -> Result<Arc<Loaded>, SandboxError> {
        let loaded = self.loaded.read();
        loaded.get(digest).cloned().ok_or_else(|| SandboxError::Unknown(digest.0.clone()))
    }
}

impl std::fmt::Debug for ModulesRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModulesRoom").finish_non_exhaustive()
    }
}

impl Shared {
    /// Links the component, and lets it say who it is.
    fn describe(
        &self,
        facts: Facts,
        component: &Component,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Loaded, LoadError> {
        let pre = Linker::new(&self.engine).instantiate_pre(component).and_then(PolicyModulePre::new);
        let pre = pre.map_err(|error| {
            LoadError(format!(
                "the component does not answer for the world `policy-module`: {}",
                words(&format!("{error:#}"))
            ))
        })?;
        let budget = &self.limits.evaluate;
        let mut store = store::fresh(&self.engine, budget, place);
        let said = store::arm(&mut store, budget).and_then(|()| {
            let said = pre
                .instantiate(&mut store)
                .and_then(|module| module.leasehold_policy_policy().call_describe(&mut store));
            said.map_err(|error| store::stopped(&store, &error))
        });
        let said = said.map_err(|error| LoadError(format!("`describe` gave no answer that counts: {error}")))?;
        for (what, text, max) in [
            ("name", &said.name, MAX_NAME),
            ("version", &said.version, MAX_NAME),
            ("description", &said.description, MAX_MESSAGE),
        ] {
            if text.len() > max || !text.chars().all(store::is_harmless) {
                return Err(LoadError(format!(
                    "the {what} in `describe` is longer than {max} bytes or holds control characters"
                )));
            }
        }
        let facts = ModuleFacts {
            digest: facts.digest,
            size: facts.size,
            world: facts.world,
            functions: facts.functions,
            exports: facts.exports,
            imports: facts.imports,
            name: said.name,
            version: said.version,
            description: said.description,
        };
        // Enough of the digest to tell modules apart in a graph.
        let label: String = facts.digest.chars().take(12).collect();
        Ok(Loaded { meter: Meter::new(label), facts, pre })
    }

    /// A fresh instance that has its configuration, with the fuel that this took.
    fn instance(
        &self,
        pre: &PolicyModulePre<Guest>,
        place: Option<OwnedSemaphorePermit>,
        config: &[u8],
    ) -> Result<(Store<Guest>, PolicyModule, u64), EvaluationFailed> {
        if config.len() > MAX_CONFIG {
            let why = SandboxError::Host(format!("the configuration is longer than {MAX_CONFIG} bytes"));
            return Err(why.into());
        }
        let config = if config.is_empty() { b"{}".as_slice() } else { config };
        let mut store = store::fresh(&self.engine, &self.limits.evaluate, place);
        store::arm(&mut store, &self.limits.evaluate)?;
        store::refuel(&mut store, self.limits.configure_fuel)?;
        let configured = pre.instantiate(&mut store).and_then(|module| {
            let said = module.leasehold_policy_policy().call_configure(&mut store, config)?;
            Ok((module, said))
        });
        let fuel = store::used(&store, self.limits.configure_fuel);
        match configured {
            Ok((module, Ok(()))) => Ok((store, module, fuel)),
            Ok((_, Err(why))) => Err(EvaluationFailed { why: SandboxError::Failed(words(&why)), fuel }),
            Err(error) => Err(EvaluationFailed { why: store::stopped(&store, &error), fuel }),
        }
    }

    fn evaluate(
        &self,
        pre: &PolicyModulePre<Guest>,
        config: &[u8],
        request: &wit::Request,
    ) -> Result<ModuleVerdict, EvaluationFailed> {
        let (mut store, module, configuring) = self.instance(pre, None, config)?;
        // The deadline stays where `instance` has set it: it counts for the whole decision.
        store::refuel(&mut store, self.limits.evaluate.fuel)?;
        let judged = module.leasehold_policy_policy().call_evaluate(&mut store, request);
        let fuel = configuring.saturating_add(store::used(&store, self.limits.evaluate.fuel));
        let judged = match judged {
            Ok(Ok(answer)) => verdict(answer, fuel),
            Ok(Err(why)) => Err(SandboxError::Failed(words(&why))),
            Err(error) => Err(store::stopped(&store, &error)),
        };
        judged.map_err(|why| EvaluationFailed { why, fuel })
    }
}

/// The request as the module sees it. Nothing is added to what the caller decided to show.
fn request(ask: &ModuleRequest, max: usize) -> Result<wit::Request, SandboxError> {
    let operation = match ask.operation {
        Operation::Create => types::Operation::Create,
        Operation::Read => types::Operation::Read,
        Operation::Update => types::Operation::Update,
        Operation::Patch => types::Operation::Patch,
        Operation::Delete => types::Operation::Delete,
        Operation::List => types::Operation::List,
        Operation::Scan => types::Operation::Scan,
        Operation::Renew => types::Operation::Renew,
        Operation::Revoke => types::Operation::Revoke,
        Operation::Help => return Err(SandboxError::Host("no module is asked about help".to_owned())),
    };
    let identity = &ask.identity;
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let size = [&ask.id, &ask.path, &ask.mount_path, &ask.mount_type, &identity.display_name, &identity.auth_path]
        .iter()
        .map(|text| text.len())
        .chain(ask.parameters.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)))
        .chain(identity.token_policies.iter().map(String::len))
        .chain([pairs(&identity.metadata), pairs(&ask.attributes)])
        .fold(0, usize::saturating_add);
    if size > max {
        return Err(SandboxError::Host(format!("the request is longer than the {max} bytes that a module is shown")));
    }
    let parameters = ask.parameters.iter();
    Ok(wit::Request {
        id: ask.id.clone(),
        path: ask.path.clone(),
        mount_path: ask.mount_path.clone(),
        mount_type: ask.mount_type.clone(),
        operation,
        parameters: parameters
            .map(|(name, value)| types::Parameter { name: name.clone(), value: value.clone() })
            .collect(),
        identity: types::Identity {
            entity_id: identity.entity_id.clone(),
            display_name: identity.display_name.clone(),
            token_accessor: identity.token_accessor.clone(),
            token_policies: identity.token_policies.clone(),
            metadata: identity.metadata.clone(),
            token_created: u64::try_from(identity.token_created).unwrap_or(0),
            token_ttl: identity.token_ttl,
            auth_path: identity.auth_path.clone(),
        },
        now: u64::try_from(ask.now.as_secs()).unwrap_or(0),
        client_address: ask.client_address.clone(),
        attributes: ask.attributes.clone(),
    })
}

fn verdict(from: wit::Verdict, fuel: u64) -> Result<ModuleVerdict, SandboxError> {
    let refuse = |why: String| Err(SandboxError::Answer(why));
    if from.messages.len() > MAX_MESSAGES {
        return refuse(format!("{} messages, {MAX_MESSAGES} are allowed", from.messages.len()));
    }
    if let Some(long) = from.messages.iter().find(|message| message.len() > MAX_MESSAGE) {
        return refuse(format!("a message of {} bytes, {MAX_MESSAGE} are allowed", long.len()));
    }
    if from.obligations.len() > MAX_OBLIGATIONS {
        return refuse(format!("{} obligations, {MAX_OBLIGATIONS} are allowed", from.obligations.len()));
    }
    let (mut max_ttl, mut annotations) = (None::<Ttl>, Vec::new());
    for obligation in from.obligations {
        match obligation {
            // To Vault a TTL of zero means "not set", which would be no ceiling at all.
            types::Obligation::MaxTtl(0) => return refuse("an obligation `max-ttl` of 0 seconds".to_owned()),
            types::Obligation::MaxTtl(seconds) => {
                let ttl = Ttl::from_secs(u64::from(seconds));
                max_ttl = Some(max_ttl.map_or(ttl, |least| least.min(ttl)));
            }
            types::Obligation::AnnotateAudit((name, value)) => {
                if name.is_empty() || name.len() > MAX_NAME || value.len() > MAX_MESSAGE {
                    return refuse(format!(
                        "an audit annotation without a name, or beyond {MAX_NAME} and {MAX_MESSAGE} bytes"
                    ));
                }
                annotations.push((words(&name), words(&value)));
            }
            types::Obligation::Other((name, _)) => {
                return refuse(format!("the obligation `{}` is not known to this server", words(&name)));
            }
        }
    }
    let decision = match from.decision {
        types::Decision::Allow => ModuleDecision::Allow,
        types::Decision::Deny => ModuleDecision::Deny,
        types::Decision::Abstain => ModuleDecision::Abstain,
    };
    let messages = from.messages.iter().map(|message| words(message)).collect();
    Ok(ModuleVerdict { decision, messages, max_ttl, annotations, fuel })
}

/// Inspects a module without a server: the load gate, then its own `describe`.
///
/// # Errors
/// As [`crate::Sandbox::inspect`]. Compiles in this process and may take as long as that takes.
pub(crate) fn inspect_offline(
    bytes: &[u8],
    limits: GuestLimits,
    clock: Arc<dyn Clock>,
) -> Result<ModuleFacts, LoadError> {
    let host = |error: wasmtime::Error| LoadError(words(&format!("{error:#}")));
    let facts = gate::inspect(bytes, &limits.module)?;
    let engine = crate::engine::on_demand().map_err(host)?;
    let component = Component::from_binary(&engine, bytes)
        .map_err(|error| LoadError(format!("this is no valid component: {}", words(&format!("{error:#}")))))?;
    Shared { engine, limits, clock }.describe(facts, &component, None).map(|module| module.facts)
}
