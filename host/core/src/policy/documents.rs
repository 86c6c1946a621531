//! Policy texts: stored, and kept in memory because every request needs some.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use leasehold_model::Timestamp;
use leasehold_model::lock::RwLock;
use serde::{Deserialize, Serialize};

use super::holder::Holder;
use crate::codec::encode;
use crate::commit::{Stored, TRIES, commit_surely, delete_surely, overtaken_too_often, read, read_all, was_overtaken};
use crate::keys;
use crate::seams::error::RequestError;
use crate::seams::host::Clock;
use crate::seams::sandbox::{
    AclError, AclEvaluator, CompiledPolicies, Diagnostic, IdentityValues, PolicyReport, PolicySetId, PolicySource,
    SandboxError, Severity,
};
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// What `default` grants when nobody has changed it.
const DEFAULT: &str = include_str!("default.hcl");
/// What a wrapping token may do.
const RESPONSE_WRAPPING: &str = include_str!("response-wrapping.hcl");

/// The lint's code for an attribute that a block sets twice. Compiling takes such a text, as OpenBao does; writing it is refused,
/// as in Vault since 1.21.
const REPEATED_ATTRIBUTE: &str = "repeated-attribute";

/// The code of a refusal of an identity's value, whose text is complete and holds no more of the value than one character.
const FORBIDDEN_VALUE: &str = "forbidden-template-value";

/// Longer texts are refused before they reach a guest.
pub const TEXT_LEN_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDocument {
    pub name: String,
    pub text: Arc<str>,
    pub version: u64,
    pub modified: Timestamp,
    #[serde(default)]
    pub cas_required: bool,
    #[serde(default)]
    pub allow_wildcards_in_identity_templates: bool,
    #[serde(default)]
    pub allow_slashes_in_identity_templates: bool,
    /// From then on it is as if it had been deleted, but that versions go on from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Timestamp>,
}

impl PolicyDocument {
    fn holds_at(&self, now: Timestamp) -> bool {
        self.expiration.is_none_or(|end| end > now)
    }
}

/// What a `PATCH` changes; the rest stays.
#[derive(Clone, Debug, Default)]
pub struct PolicyChange {
    pub text: Option<String>,
    pub cas_required: Option<bool>,
    pub allow_wildcards_in_identity_templates: Option<bool>,
    pub allow_slashes_in_identity_templates: Option<bool>,
    pub expiration: Option<Timestamp>,
}

impl PolicyChange {
    fn applied_to(&self, before: &PolicyDocument, now: Timestamp) -> PolicyDocument {
        let wildcards = self.allow_wildcards_in_identity_templates;
        let slashes = self.allow_slashes_in_identity_templates;
        PolicyDocument {
            name: before.name.clone(),
            text: self.text.as_deref().map_or_else(|| before.text.clone(), Arc::from),
            version: before.version,
            modified: now,
            cas_required: self.cas_required.unwrap_or(before.cas_required),
            allow_wildcards_in_identity_templates: wildcards.unwrap_or(before.allow_wildcards_in_identity_templates),
            allow_slashes_in_identity_templates: slashes.unwrap_or(before.allow_slashes_in_identity_templates),
            expiration: self.expiration.or(before.expiration),
        }
    }
}

impl Stored<PolicyDocument> {
    fn in_force(&self, now: Timestamp) -> Option<&PolicyDocument> {
        self.record.as_ref().filter(|document| document.holds_at(now))
    }
}

/// What compiling a set brought, and the moment from which one of its policies is no more.
#[derive(Clone, Debug)]
struct CompiledSet {
    outcome: Result<Arc<CompiledPolicies>, Unusable>,
    good_until: Timestamp,
}

/// Why policies that were taken one by one cannot be used together. To compile them again would end the same way.
#[derive(Clone, Debug)]
enum Unusable {
    /// A text does not parse any more; the log says which.
    Broken,
    /// In words that a client may read.
    TooLarge(Arc<str>),
    /// The same: a value of the holder would make a pattern match what nobody meant.
    Value(Arc<str>),
}

impl From<Unusable> for RequestError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Broken => Self::Denied,
            Unusable::TooLarge(why) => Self::Forbidden(format!("permission denied: {why}")),
            Unusable::Value(why) => Self::Forbidden(why.to_string()),
        }
    }
}

/// All policies of the installation. Writes go to storage first, then to the copy in memory.
pub struct Policies {
    storage: Arc<dyn Storage>,
    acl: Arc<dyn AclEvaluator>,
    clock: Arc<dyn Clock>,
    /// Also those that have expired: whoever looks must ask [`PolicyDocument::holds_at`].
    documents: RwLock<BTreeMap<String, Arc<PolicyDocument>>>,
    /// Compiled sets by the policy names of a token, templates unfilled; emptied by every write.
    sets: RwLock<HashMap<Vec<String>, CompiledSet>>,
    /// The same for those whose templates have values, by these as well: two that differ in one are two sets.
    filled: RwLock<HashMap<(Vec<String>, IdentityValues), CompiledSet>>,
    /// One write at a time, so that memory and storage agree.
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Policies")
    }
}

/// How many distinct policy lists are remembered before the memory starts anew.
const SETS_MAX: usize = 4_096;

/// Bytes of all texts of one token. The guest needs some times as much memory to read them.
pub const SET_LEN_MAX: usize = 8 * TEXT_LEN_MAX;

/// A set that could not be used is tried again after this: rules that have expired may have made it smaller.
const UNUSABLE_FOR: Duration = Duration::from_secs(60);

impl Policies {
    /// Reads all documents; writes the built-in ones on the first start.
    ///
    /// # Errors
    /// As storage.
    pub async fn load(
        storage: Arc<dyn Storage>,
        acl: Arc<dyn AclEvaluator>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StorageError> {
        let mut documents = BTreeMap::new();
        for (_, document) in read_all::<PolicyDocument>(&*storage, &keys::policy("")).await? {
            documents.insert(document.name.clone(), Arc::new(document));
        }
        for (name, text) in [("default", DEFAULT), ("response-wrapping", RESPONSE_WRAPPING)] {
            if !documents.contains_key(name) {
                let document = PolicyDocument {
                    name: name.to_owned(),
                    text: text.into(),
                    version: 1,
                    modified: clock.now(),
                    cas_required: false,
                    allow_wildcards_in_identity_templates: false,
                    allow_slashes_in_identity_templates: false,
                    expiration: None,
                };
                let (key, value) = (keys::policy(name), encode(&document)?);
                let put = Batch::new().put(key.clone(), value.clone(), Expect::Absent);
                let document = match was_overtaken(commit_surely(&*storage, put, &key, &value).await)? {
                    false => Some(document),
                    true => read(&*storage, &key).await?.record,
                };
                documents.extend(document.map(|document| (name.to_owned(), Arc::new(document))));
            }
        }
        Ok(Self {
            storage,
            acl,
            clock,
            documents: RwLock::new(documents),
            sets: RwLock::new(HashMap::new()),
            filled: RwLock::new(HashMap::new()),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<PolicyDocument>> {
        let now = self.clock.now();
        self.documents.read().get(name).filter(|document| document.holds_at(now)).cloned()
    }

    /// In order; without the hidden ones.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let documents = self.documents.read();
        let now = self.clock.now();
        let shown = documents.values().filter(|d| d.name != "response-wrapping" && d.holds_at(now));
        shown.map(|document| document.name.clone()).collect()
    }

    /// Parses, then stores. Nothing is stored of a text that does not parse. Returns what is legal and probably not meant.
    ///
    /// # Errors
    /// `failed to parse policy: …` with the guest's words; a `cas` that does not match.
    pub async fn write(&self, document: PolicyDocument, cas: Option<i64>) -> Result<PolicyReport, RequestError> {
        let found = self.parse(&document).await?;
        let _writing = self.writing.lock().await;
        for _ in 0..TRIES {
            let stored = self.stored(&document.name).await?;
            let before = stored.in_force(self.clock.now());
            // Those who demand it of others give it themselves.
            if cas.is_none() && (document.cas_required || before.is_some_and(|old| old.cas_required)) {
                return Err(RequestError::invalid("check-and-set parameter required for this call"));
            }
            if self.replace(&stored, document.clone(), cas).await? {
                return Ok(found);
            }
        }
        Err(overtaken_too_often(&keys::policy(&document.name)).into())
    }

    /// Changes what is given and keeps the rest. What others store in between is read again, so `cas` need not be given.
    ///
    /// # Errors
    /// `policy not found`; as [`Policies::write`].
    pub async fn patch(
        &self,
        name: &str,
        change: PolicyChange,
        cas: Option<i64>,
    ) -> Result<PolicyReport, RequestError> {
        let _writing = self.writing.lock().await;
        for _ in 0..TRIES {
            let stored = self.stored(name).await?;
            let before = stored.in_force(self.clock.now());
            let before = before.ok_or_else(|| RequestError::invalid("policy not found"))?;
            let document = change.applied_to(before, self.clock.now());
            let found = self.parse(&document).await?;
            if self.replace(&stored, document, cas).await? {
                return Ok(found);
            }
        }
        Err(overtaken_too_often(&keys::policy(name)).into())
    }

    /// Warnings about a text that may be stored. Of what is only a hint a server says nothing.
    async fn parse(&self, document: &PolicyDocument) -> Result<PolicyReport, RequestError> {
        let mut found = check(&*self.acl, source(document)).await?;
        found.diagnostics.retain(|one| one.severity == Severity::Warning);
        Ok(found)
    }

    /// Reads what is stored. If it is not what is in memory, memory follows: another server wrote it, or a write of ours was said to
    /// have failed. Under the lock of writes.
    async fn stored(&self, name: &str) -> Result<Stored<PolicyDocument>, StorageError> {
        let stored = read::<PolicyDocument>(&*self.storage, &keys::policy(name)).await?;
        // A text that was deleted and written anew may have the number of the old one.
        let text_of = |document: &PolicyDocument| (document.version, document.modified);
        let known = self.documents.read().get(name).map(|document| text_of(document));
        if known != stored.record.as_ref().map(text_of) {
            self.show(name, stored.record.clone());
        }
        Ok(stored)
    }

    /// Stores a document in place of what was read; `false`: somebody else was faster. Under the lock of writes, so that memory changes
    /// in the order of the commits.
    async fn replace(
        &self,
        stored: &Stored<PolicyDocument>,
        mut document: PolicyDocument,
        cas: Option<i64>,
    ) -> Result<bool, RequestError> {
        let version = stored.in_force(self.clock.now()).map_or(0, |old| old.version);
        match cas {
            Some(-1) if version == 0 => {}
            Some(-1) => return Err(RequestError::invalid("check-and-set parameter set to -1 on existing entry")),
            Some(given) if u64::try_from(given) != Ok(version) => {
                return Err(RequestError::Invalid(format!(
                    "check-and-set parameter {given} did not match the current version {version}"
                )));
            }
            _ => {}
        }
        // It goes on from a text that has expired: a number that a client read of the old text must not come to fit the new one.
        document.version = stored.record.as_ref().map_or(0, |old| old.version).saturating_add(1);
        let (key, value) = (keys::policy(&document.name), encode(&document)?);
        let put = Batch::new().put(key.clone(), value.clone(), stored.unchanged);
        match was_overtaken(commit_surely(&*self.storage, put, &key, &value).await) {
            Ok(true) => Ok(false),
            Ok(false) => {
                self.show(&document.name.clone(), Some(document));
                Ok(true)
            }
            Err(error) => {
                self.after_failed_write(&document.name).await;
                Err(error.into())
            }
        }
    }

    /// # Errors
    /// As storage.
    pub async fn delete(&self, name: &str) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        let key = keys::policy(name);
        if let Err(error) = delete_surely(&*self.storage, Batch::new().delete(key.clone()), &key).await {
            self.after_failed_write(name).await;
            return Err(error.into());
        }
        self.show(name, None);
        Ok(())
    }

    /// Makes the copy in memory what is stored, as far as the store tells. Under the lock of writes.
    async fn after_failed_write(&self, name: &str) {
        if let Err(error) = self.stored(name).await {
            tracing::warn!(%error, "policy {name:?} could not be read again after a failed write");
        }
    }

    /// Makes the copy in memory what is stored, by whichever server.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow(&self, name: &str) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        self.stored(name).await.map(drop)
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        let stored = read_all::<PolicyDocument>(&*self.storage, &keys::policy("")).await?;
        let stored = stored.into_iter().map(|(_, document)| (document.name.clone(), Arc::new(document))).collect();
        self.change(|documents| *documents = stored);
        Ok(())
    }

    fn show(&self, name: &str, document: Option<PolicyDocument>) {
        self.change(|documents| match document {
            Some(document) => drop(documents.insert(name.to_owned(), Arc::new(document))),
            None => drop(documents.remove(name)),
        });
    }

    fn change(&self, apply: impl FnOnce(&mut BTreeMap<String, Arc<PolicyDocument>>)) {
        let mut documents = self.documents.write();
        apply(&mut documents);
        // Under the documents' lock: a set compiled from the old texts cannot slip in afterwards (see `compiled`).
        self.sets.write().clear();
        self.filled.write().clear();
    }

    /// The compiled set of a token's policies; names without a text, or whose text has expired, grant nothing.
    ///
    /// # Errors
    /// Texts that cannot be used, or a guest that failed: the request is refused.
    pub async fn set(&self, holder: Holder<'_>) -> Result<PolicySetId, RequestError> {
        for _ in 0..TRIES {
            let unfilled = self.compiled(holder.policies, IdentityValues::new()).await?;
            let values = holder.values(&unfilled.template_names);
            if values.is_empty() {
                return Ok(unfilled.id.clone());
            }
            let filled = self.compiled(holder.policies, values).await?;
            // A text that was written between the two may ask for more.
            if filled.template_names == unfilled.template_names {
                return Ok(filled.id.clone());
            }
        }
        Err(overtaken_too_often(&keys::policy("")).into())
    }

    async fn compiled(&self, names: &[String], values: IdentityValues) -> Result<Arc<CompiledPolicies>, RequestError> {
        let now = self.clock.now();
        let filled = (!values.is_empty()).then(|| (names.to_vec(), values));
        let known = match &filled {
            None => self.sets.read().get(names).cloned(),
            Some(filled) => self.filled.read().get(filled).cloned(),
        };
        if let Some(set) = known.filter(|set| set.good_until > now) {
            return Ok(set.outcome?);
        }
        let used = self.in_force(names, now);
        let nobody = IdentityValues::new();
        let outcome = self.compile(&used, filled.as_ref().map_or(&nobody, |(_, values)| values)).await?;
        let ends = used.iter().filter_map(|document| document.expiration);
        let again = outcome.is_err().then(|| now + UNUSABLE_FOR);
        let good_until = ends.chain(again).min().unwrap_or(Timestamp::NEVER);
        let documents = self.documents.read();
        // Every write replaces the document.
        let is_unchanged = in_force(&documents, names, now).map(Arc::as_ptr).eq(used.iter().map(Arc::as_ptr));
        if is_unchanged {
            let set = CompiledSet { outcome: outcome.clone(), good_until };
            match filled {
                None => remember(&mut self.sets.write(), names.to_vec(), set),
                Some(filled) => remember(&mut self.filled.write(), filled, set),
            }
        }
        Ok(outcome?)
    }

    /// The same, when the sandbox has dropped the set in the meantime.
    ///
    /// # Errors
    /// As [`Policies::set`].
    pub async fn compiled_anew(&self, holder: Holder<'_>, unknown: &PolicySetId) -> Result<PolicySetId, RequestError> {
        let is_known = |set: &CompiledSet| set.outcome.as_ref().map_or(true, |compiled| compiled.id != *unknown);
        self.sets.write().retain(|_, set| is_known(set));
        self.filled.write().retain(|_, set| is_known(set));
        self.set(holder).await
    }

    fn in_force(&self, names: &[String], now: Timestamp) -> Vec<Arc<PolicyDocument>> {
        let documents = self.documents.read();
        in_force(&documents, names, now).cloned().collect()
    }

    async fn compile(
        &self,
        used: &[Arc<PolicyDocument>],
        values: &IdentityValues,
    ) -> Result<Result<Arc<CompiledPolicies>, Unusable>, RequestError> {
        let too_large = |why: String| {
            tracing::error!(why, "policies cannot be used together: requests of their tokens are refused");
            Ok(Err(Unusable::TooLarge(why.into())))
        };
        if used.iter().map(|document| document.text.len()).sum::<usize>() > SET_LEN_MAX {
            return too_large(format!("the policies of this token are longer than {SET_LEN_MAX} bytes together"));
        }
        let sources: Vec<_> = used.iter().map(|document| source(document)).collect();
        match self.acl.compile_acl(&sources, values).await {
            Ok(set) => Ok(Ok(Arc::new(set))),
            Err(AclError::Refused(diagnostics)) => {
                let first = diagnostics.into_iter().next();
                let (code, why) = first.map(|d| (d.code, d.message)).unwrap_or_default();
                if code == "too-large" {
                    return too_large(why);
                }
                if code == FORBIDDEN_VALUE {
                    tracing::warn!(
                        why,
                        "an identity's value cannot be put into a policy: requests of its tokens are refused"
                    );
                    return Ok(Err(Unusable::Value(why.into())));
                }
                tracing::error!(why, "a stored policy does not compile: requests of its tokens are refused");
                Ok(Err(Unusable::Broken))
            }
            Err(AclError::Sandbox(SandboxError::Memory | SandboxError::Fuel)) => {
                too_large("the policies of this token are too large to be read together".to_owned())
            }
            Err(AclError::Sandbox(error)) => Err(error.into()),
        }
    }
}

/// Reads a text as it is read when it is written. Returns what is legal and probably not meant, and the groups that it names.
///
/// # Errors
/// `failed to parse policy: …` with the guest's words.
pub async fn check(acl: &dyn AclEvaluator, source: PolicySource) -> Result<PolicyReport, RequestError> {
    if source.text.len() > TEXT_LEN_MAX {
        return Err(RequestError::Invalid(format!("policy is longer than {TEXT_LEN_MAX} bytes")));
    }
    let failed = |error: &Diagnostic| {
        let refused = RequestError::Invalid(format!("failed to parse policy: {}", error.message));
        match &error.help {
            Some(help) => refused.with_help(format!("line {}: {help}", error.line)),
            None => refused,
        }
    };
    let report = acl.lint(&source).await.map_err(|error| match error {
        // What is wrong with the text is the client's to mend, however much there is to say of it.
        SandboxError::Answer(_) => RequestError::invalid(
            "failed to parse policy: what is wrong with the text takes more room to say than an answer has",
        ),
        error => error.into(),
    })?;
    // Nobody can tell which of two values was meant. Only who writes the text is asked: compiling reads such a text.
    if let Some(repeated) = report.diagnostics.iter().find(|found| found.code == REPEATED_ATTRIBUTE) {
        return Err(failed(repeated));
    }
    let Some(error) = report.diagnostics.iter().find(|found| found.severity == Severity::Error) else {
        return Ok(report);
    };
    // A lint knows no time. What is wrong in a block that has expired counts no more than the block.
    match acl.compile_acl(&[source], &IdentityValues::new()).await {
        Ok(_) => Ok(PolicyReport::default()),
        Err(AclError::Refused(diagnostics)) => Err(failed(diagnostics.first().unwrap_or(error))),
        Err(AclError::Sandbox(stopped)) => Err(stopped.into()),
    }
}

fn remember<K: Eq + std::hash::Hash>(sets: &mut HashMap<K, CompiledSet>, name: K, set: CompiledSet) {
    if sets.len() >= SETS_MAX {
        sets.clear();
    }
    sets.insert(name, set);
}

fn in_force<'a>(
    documents: &'a BTreeMap<String, Arc<PolicyDocument>>,
    names: &'a [String],
    now: Timestamp,
) -> impl Iterator<Item = &'a Arc<PolicyDocument>> {
    names.iter().filter_map(|name| documents.get(name)).filter(move |document| document.holds_at(now))
}

fn source(document: &PolicyDocument) -> PolicySource {
    PolicySource {
        name: document.name.clone(),
        text: document.text.clone(),
        allow_slashes: document.allow_slashes_in_identity_templates,
        allow_wildcards: document.allow_wildcards_in_identity_templates,
    }
}
