//! Endpoint-governing policies: a module, its configuration, the paths it judges, and what its word is worth.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_model::lock::RwLock;
use leasehold_model::{Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use super::egp_paths;
use super::modules::{ModuleRecord, Modules};
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, delete_surely, overtaken_too_often, read, read_all, was_overtaken};
use crate::keys;
use crate::request::Object;
use crate::seams::error::RequestError;
use crate::seams::sandbox::{
    Digest, EvaluationFailed, ModuleDecision, ModuleHost, ModuleRequest, ModuleVerdict, SandboxError,
};
use crate::seams::storage::{Batch, Key, Storage, StorageError};

/// Policies that can be stored. Every request is held against the paths of all of them.
pub const POLICIES_MAX: usize = 256;

/// The stricter level is the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Enforcement {
    /// Recorded, never refused.
    #[serde(rename = "advisory")]
    Advisory,
    /// A denial or a failure refuses the request.
    #[serde(rename = "hard-mandatory")]
    HardMandatory,
}

impl Enforcement {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Advisory => "advisory",
            Self::HardMandatory => "hard-mandatory",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egp {
    pub name: String,
    pub module: String,
    /// Handed to the module as it stands; readable by whoever may read the policy. No place for secrets.
    pub config: Object,
    /// As [`egp_paths`] reads them.
    pub paths: Vec<String>,
    pub enforcement_level: Enforcement,
    pub modified: Timestamp,
}

impl Egp {
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| egp_paths::covers(pattern, path))
    }
}

/// What one module said about one request: goes to audit as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    pub policy: String,
    pub module: String,
    pub digest: String,
    pub enforcement_level: Enforcement,
    /// `allow`, `deny`, `abstain` or `failed`.
    pub verdict: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Ttl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The module gave no judgement that counts, and the request went on all the same, because its policy is advisory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passed_over: bool,
    pub fuel: u64,
}

/// All judgements on a request, and what follows from them.
#[derive(Debug, Default)]
pub struct Judged {
    pub judgements: Vec<Judgement>,
    /// The least ceiling of all modules.
    pub max_ttl: Option<Ttl>,
    pub refusal: Option<RequestError>,
}

pub struct Egps {
    storage: Arc<dyn Storage>,
    host: Arc<dyn ModuleHost>,
    /// Changed while [`Modules::hold`] is held.
    policies: RwLock<Arc<BTreeMap<String, Arc<Egp>>>>,
}

impl std::fmt::Debug for Egps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Egps")
    }
}

impl Egps {
    /// # Errors
    /// As storage.
    pub async fn load(storage: Arc<dyn Storage>, host: Arc<dyn ModuleHost>) -> Result<Self, StorageError> {
        let stored = read_all::<Egp>(&*storage, &keys::egp("")).await?;
        Ok(Self { storage, host, policies: RwLock::new(Arc::new(by_name(stored))) })
    }

    fn all(&self) -> Arc<BTreeMap<String, Arc<Egp>>> {
        self.policies.read().clone()
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Egp>> {
        self.all().get(name).cloned()
    }

    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    /// Policies that name this module.
    #[must_use]
    pub fn users_of(&self, module: &str) -> Vec<String> {
        self.all().values().filter(|egp| egp.module == module).map(|egp| egp.name.clone()).collect()
    }

    /// The same as it is stored, by whichever server: what this one has not heard of counts as well.
    pub(super) async fn stored_users_of(&self, module: &str) -> Result<Vec<String>, StorageError> {
        let stored = read_all::<Egp>(&*self.storage, &keys::egp("")).await?;
        Ok(stored.into_iter().filter(|(_, egp)| egp.module == module).map(|(_, egp)| egp.name).collect())
    }

    /// The modules that policies name, each with the strictest level of these.
    pub(super) fn urgency(&self) -> BTreeMap<String, Enforcement> {
        let mut urgency = BTreeMap::new();
        for egp in self.all().values() {
            let level = urgency.entry(egp.module.clone()).or_insert(egp.enforcement_level);
            *level = egp.enforcement_level.max(*level);
        }
        urgency
    }

    /// Lets the module read its configuration, then stores.
    ///
    /// # Errors
    /// An unknown module, or the module's own words about its configuration.
    pub async fn write(&self, egp: Egp, modules: &Modules) -> Result<(), RequestError> {
        let Some(module) = modules.find(&egp.module) else {
            return Err(RequestError::Invalid(format!(
                "no module named \"{}\": push it to sys/modules/{0} first",
                egp.module
            )));
        };
        if modules.is_loading(&module.digest) {
            return Err(SandboxError::Loading.into());
        }
        let digest = Digest(module.digest);
        match self.host.configure(&digest, &encode(&egp.config)?).await {
            Ok(()) => {}
            Err(SandboxError::Failed(why)) => {
                return Err(RequestError::Invalid(format!(
                    "module \"{}\" refuses this configuration: {why}",
                    egp.module
                )));
            }
            Err(other) => {
                return Err(RequestError::Invalid(format!(
                    "module \"{}\" could not read this configuration: {other}",
                    egp.module
                )));
            }
        }
        let _held = modules.hold().await;
        if self.all().len() >= POLICIES_MAX && self.find(&egp.name).is_none() {
            return Err(RequestError::Invalid(format!(
                "{POLICIES_MAX} policies of this kind are stored, and no more can be: delete one first"
            )));
        }
        let written = self.store(&egp, &digest).await;
        if written.is_err() {
            self.after_failed_write(&egp.name).await;
        }
        written
    }

    /// While [`Modules::hold`] is held.
    async fn store(&self, egp: &Egp, digest: &Digest) -> Result<(), RequestError> {
        let (key, value) = (keys::egp(&egp.name), encode(egp)?);
        let module_key = keys::module(&egp.module);
        for _ in 0..TRIES {
            let module = read::<ModuleRecord>(&*self.storage, &module_key).await?;
            let Some(record) = module.record.filter(|record| record.digest == digest.0) else {
                return Err(RequestError::Invalid(format!(
                    "module \"{}\" was changed or deleted in the meantime: look at it and try again",
                    egp.module
                )));
            };
            let stored = read::<Egp>(&*self.storage, &key).await?;
            // The module's row is written again as it is: whoever changes or deletes the module meanwhile, because they saw no policy
            // that names it, is refused.
            let batch = Batch::new().put(key.clone(), value.clone(), stored.unchanged).put(
                module_key.clone(),
                encode(&record)?,
                module.unchanged,
            );
            if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                self.show(&egp.name, Some(egp.clone()));
                return Ok(());
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// # Errors
    /// As storage.
    pub async fn delete(&self, name: &str, modules: &Modules) -> Result<(), RequestError> {
        let _held = modules.hold().await;
        let key = keys::egp(name);
        if let Err(error) = delete_surely(&*self.storage, Batch::new().delete(key.clone()), &key).await {
            self.after_failed_write(name).await;
            return Err(error.into());
        }
        self.show(name, None);
        Ok(())
    }

    /// Makes the copy in memory what is stored, as far as the store tells. While [`Modules::hold`] is held.
    async fn after_failed_write(&self, name: &str) {
        if let Err(error) = self.read_again(name).await {
            tracing::warn!(%error, "binding {name:?} could not be read again after a failed write");
        }
    }

    async fn read_again(&self, name: &str) -> Result<(), StorageError> {
        let stored = read::<Egp>(&*self.storage, &keys::egp(name)).await?;
        self.show(name, stored.record);
        Ok(())
    }

    /// Makes the copy in memory what is stored, by whichever server.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow(&self, name: &str, modules: &Modules) -> Result<(), StorageError> {
        let _held = modules.hold().await;
        self.read_again(name).await
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self, modules: &Modules) -> Result<(), StorageError> {
        let _held = modules.hold().await;
        let stored = read_all::<Egp>(&*self.storage, &keys::egp("")).await?;
        self.change(|policies| *policies = by_name(stored));
        Ok(())
    }

    fn show(&self, name: &str, egp: Option<Egp>) {
        self.change(|policies| match egp {
            Some(egp) => drop(policies.insert(name.to_owned(), Arc::new(egp))),
            None => drop(policies.remove(name)),
        });
    }

    fn change(&self, apply: impl FnOnce(&mut BTreeMap<String, Arc<Egp>>)) {
        let mut policies = self.policies.write();
        let mut changed = BTreeMap::clone(&policies);
        apply(&mut changed);
        *policies = Arc::new(changed);
    }

    /// Whether any policy covers a path: most requests stop here.
    #[must_use]
    pub fn cover(&self, path: &str) -> bool {
        self.all().values().any(|egp| egp.covers(path))
    }

    /// Asks every policy that covers the path, each on a fresh instance, in name order. All are asked, so that audit has them all.
    pub async fn judge(&self, modules: &Modules, ask: &ModuleRequest) -> Judged {
        let mut judged = Judged::default();
        for egp in self.all().values().filter(|egp| egp.covers(&ask.path)) {
            let module = modules.find(&egp.module);
            let digest = module.map(|m| m.digest).unwrap_or_default();
            let answer = match encode(&egp.config) {
                Ok(_) if modules.is_loading(&digest) => Err(SandboxError::Loading.into()),
                Ok(config) => self.host.evaluate(&egp.name, &Digest(digest.clone()), &config, ask).await,
                Err(error) => Err(SandboxError::Host(error.to_string()).into()),
            };
            judged.add(egp, digest, answer);
        }
        judged
    }
}

fn by_name(stored: Vec<(Key, Egp)>) -> BTreeMap<String, Arc<Egp>> {
    stored.into_iter().map(|(_, egp)| (egp.name.clone(), Arc::new(egp))).collect()
}

impl Judged {
    fn add(&mut self, egp: &Egp, digest: String, answer: Result<ModuleVerdict, EvaluationFailed>) {
        let mandatory = egp.enforcement_level == Enforcement::HardMandatory;
        let mut judgement = Judgement {
            policy: egp.name.clone(),
            module: egp.module.clone(),
            digest,
            enforcement_level: egp.enforcement_level,
            verdict: "failed",
            messages: Vec::new(),
            annotations: Vec::new(),
            max_ttl: None,
            error: None,
            passed_over: false,
            fuel: 0,
        };
        // In Vault zero means "no limit"; no module means that by it.
        let answer = match answer {
            Ok(ModuleVerdict { max_ttl: Some(Ttl::ZERO), fuel, .. }) => {
                Err(EvaluationFailed { why: SandboxError::Answer("a TTL ceiling of zero".to_owned()), fuel })
            }
            other => other,
        };
        match answer {
            Ok(verdict) => {
                judgement.verdict = match verdict.decision {
                    ModuleDecision::Allow => "allow",
                    ModuleDecision::Deny => "deny",
                    ModuleDecision::Abstain => "abstain",
                };
                judgement.messages = verdict.messages;
                judgement.annotations = verdict.annotations;
                judgement.max_ttl = verdict.max_ttl;
                judgement.fuel = verdict.fuel;
                if mandatory {
                    if verdict.decision == ModuleDecision::Deny {
                        self.refusal.get_or_insert_with(|| RequestError::DeniedByModule {
                            policy: egp.name.clone(),
                            messages: judgement.messages.clone(),
                        });
                    }
                    self.max_ttl = [self.max_ttl, verdict.max_ttl].into_iter().flatten().min();
                }
            }
            Err(EvaluationFailed { why, fuel }) => {
                judgement.error = Some(why.to_string());
                judgement.fuel = fuel;
                judgement.passed_over = !mandatory;
                if why == SandboxError::Busy {
                    // Under load this is said once a request: the counter and the audit record are enough.
                    tracing::debug!(policy = egp.name, module.name = egp.module, "a policy module had no place to run");
                } else {
                    tracing::error!(policy = egp.name, module.name = egp.module, error = %why, "a policy module failed");
                }
                if mandatory {
                    // A failure outweighs another module's denial: the operator must learn of it.
                    self.refusal = Some(why.into());
                } else {
                    metrics::counter!("leasehold_policy_judgements_passed_over_total", "policy" => egp.name.clone())
                        .increment(1);
                }
            }
        }
        self.judgements.push(judgement);
    }
}
