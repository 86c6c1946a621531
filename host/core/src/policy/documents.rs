//! Policy texts: stored, and kept in memory because every request needs some.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use leasehold_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::request::RequestError;
use crate::seams::{
    AclError, Batch, Diagnostic, Expect, IdentityValues, Key, PolicySetId, PolicySource, Sandbox, Severity, Storage,
    StorageError,
};
use crate::token::store::{decode, encode};

/// What `default` grants when nobody has changed it.
const DEFAULT: &str = include_str!("default.hcl");
/// What a wrapping token may do.
const RESPONSE_WRAPPING: &str = include_str!("response-wrapping.hcl");

/// Longer texts are refused before they reach a guest.
pub const TEXT_LEN_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDocument {
    pub name: String,
    pub text: String,
    pub version: u64,
    pub modified: Timestamp,
    #[serde(default)]
    pub cas_required: bool,
    #[serde(default)]
    pub allow_wildcards_in_identity_templates: bool,
    #[serde(default)]
    pub allow_slashes_in_identity_templates: bool,
}

/// All policies of the installation. Writes go to storage first, then to the copy in memory.
pub struct Policies {
    storage: Arc<dyn Storage>,
    sandbox: Arc<dyn Sandbox>,
    documents: RwLock<BTreeMap<String, Arc<PolicyDocument>>>,
    /// Compiled sets by the policy names of a token; emptied by every write.
    sets: RwLock<HashMap<Vec<String>, PolicySetId>>,
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

impl Policies {
    /// Reads all documents; writes the built-in ones on the first start.
    ///
    /// # Errors
    /// As storage.
    pub async fn load(
        storage: Arc<dyn Storage>,
        sandbox: Arc<dyn Sandbox>,
        now: Timestamp,
    ) -> Result<Self, StorageError> {
        let mut documents = BTreeMap::new();
        let prefix = keys::policy("");
        let mut after: Option<Key> = None;
        loop {
            let page = storage.scan(&prefix, after.as_ref(), 1_000).await?;
            let Some(last) = page.last().cloned() else { break };
            for key in &page {
                if let Some(stored) = storage.get(key).await? {
                    let document: PolicyDocument = decode(key.as_str(), &stored.value)?;
                    documents.insert(document.name.clone(), Arc::new(document));
                }
            }
            after = Some(last);
        }
        for (name, text) in [("default", DEFAULT), ("response-wrapping", RESPONSE_WRAPPING)] {
            if !documents.contains_key(name) {
                let document = PolicyDocument {
                    name: name.to_owned(),
                    text: text.to_owned(),
                    version: 1,
                    modified: now,
                    cas_required: false,
                    allow_wildcards_in_identity_templates: false,
                    allow_slashes_in_identity_templates: false,
                };
                storage.commit(Batch::new().put(keys::policy(name), encode(&document)?, Expect::Anything)).await?;
                documents.insert(name.to_owned(), Arc::new(document));
            }
        }
        Ok(Self {
            storage,
            sandbox,
            documents: RwLock::new(documents),
            sets: RwLock::new(HashMap::new()),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<PolicyDocument>> {
        self.documents.read().ok()?.get(name).cloned()
    }

    /// In order; without the hidden ones.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let Ok(documents) = self.documents.read() else { return Vec::new() };
        documents.keys().filter(|name| *name != "response-wrapping").cloned().collect()
    }

    /// Parses, then stores. Nothing is stored of a text that does not parse.
    ///
    /// # Errors
    /// `failed to parse policy: …` with the guest's words; a `cas` that does not match.
    pub async fn write(&self, mut document: PolicyDocument, cas: Option<i64>) -> Result<Vec<Diagnostic>, RequestError> {
        if document.text.len() > TEXT_LEN_MAX {
            return Err(RequestError::Invalid(format!("policy is longer than {TEXT_LEN_MAX} bytes")));
        }
        let diagnostics = self.sandbox.lint(&source(&document)).await?;
        if let Some(error) = diagnostics.iter().find(|d| d.severity == Severity::Error) {
            return Err(RequestError::Invalid(format!("failed to parse policy: {}", error.message)));
        }
        let _writing = self.writing.lock().await;
        let before = self.find(&document.name);
        let version = before.as_ref().map_or(0, |old| old.version);
        match cas {
            None if before.as_ref().is_some_and(|old| old.cas_required) => {
                return Err(RequestError::invalid("check-and-set parameter required for this call"));
            }
            Some(-1) if version == 0 => {}
            Some(given) if u64::try_from(given) != Ok(version) => {
                return Err(RequestError::Invalid(format!(
                    "check-and-set parameter {given} did not match the current version {version}"
                )));
            }
            _ => {}
        }
        document.version = version + 1;
        let key = keys::policy(&document.name);
        self.storage.commit(Batch::new().put(key, encode(&document)?, Expect::Anything)).await?;
        self.change(|documents| {
            documents.insert(document.name.clone(), Arc::new(document));
        });
        Ok(diagnostics)
    }

    /// # Errors
    /// As storage.
    pub async fn delete(&self, name: &str) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        self.storage.commit(Batch::new().delete(keys::policy(name))).await?;
        self.change(|documents| {
            documents.remove(name);
        });
        Ok(())
    }

    fn change(&self, apply: impl FnOnce(&mut BTreeMap<String, Arc<PolicyDocument>>)) {
        let mut documents = self.documents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        apply(&mut documents);
        // Under the documents' lock: a set compiled from the old texts cannot slip in afterwards (see `set`).
        self.sets.write().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// The compiled set of a token's policies; names without a text grant nothing.
    ///
    /// # Errors
    /// A text that no longer parses, or a guest that failed: the request is refused.
    pub async fn set(&self, names: &[String]) -> Result<PolicySetId, RequestError> {
        if let Some(id) = self.sets.read().ok().and_then(|sets| sets.get(names).cloned()) {
            return Ok(id);
        }
        let sources = self.sources(names);
        let id = self.compile(&sources).await?;
        let documents = self.documents.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unchanged = names.iter().filter_map(|n| documents.get(n)).map(|d| source(d)).eq(sources.iter().cloned());
        if unchanged && let Ok(mut sets) = self.sets.write() {
            if sets.len() >= SETS_MAX {
                sets.clear();
            }
            sets.insert(names.to_vec(), id.clone());
        }
        Ok(id)
    }

    /// The same, when the sandbox has dropped the set in the meantime.
    ///
    /// # Errors
    /// As [`Policies::set`].
    pub async fn compiled_anew(&self, names: &[String]) -> Result<PolicySetId, RequestError> {
        if let Ok(mut sets) = self.sets.write() {
            sets.remove(names);
        }
        self.set(names).await
    }

    fn sources(&self, names: &[String]) -> Vec<PolicySource> {
        let Ok(documents) = self.documents.read() else { return Vec::new() };
        names.iter().filter_map(|name| documents.get(name)).map(|document| source(document)).collect()
    }

    async fn compile(&self, sources: &[PolicySource]) -> Result<PolicySetId, RequestError> {
        match self.sandbox.compile_acl(sources, &IdentityValues::new()).await {
            Ok(id) => Ok(id),
            Err(AclError::Refused(diagnostics)) => {
                let why = diagnostics.first().map(|d| d.message.clone()).unwrap_or_default();
                tracing::error!(why, "a stored policy does not compile: requests of its tokens are refused");
                Err(RequestError::Denied)
            }
            Err(AclError::Sandbox(error)) => Err(error.into()),
        }
    }
}

fn source(document: &PolicyDocument) -> PolicySource {
    PolicySource {
        name: document.name.clone(),
        text: document.text.clone(),
        allow_slashes: document.allow_slashes_in_identity_templates,
        allow_wildcards: document.allow_wildcards_in_identity_templates,
    }
}
