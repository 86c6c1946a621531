//! Third parties' modules: stored by digest, named by the operator, loaded into the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leasehold_model::Timestamp;
use leasehold_model::lock::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Egps;
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, delete_surely, overtaken_too_often, read, read_all, was_overtaken};
use crate::keys;
use crate::seams::error::RequestError;
use crate::seams::sandbox::{Digest, ModuleFacts, ModuleHost};
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// A name that stands for a digest. Pushing other bytes under it makes a new version; what was judged before stays known by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRecord {
    pub name: String,
    pub digest: String,
    pub size: usize,
    pub world: String,
    pub functions: u32,
    pub module_name: String,
    pub module_version: String,
    pub description: String,
    pub uploaded_at: Timestamp,
    pub uploaded_by: String,
}

/// Modules that can be stored. Each is compiled after every unsealing and stays in memory as machine code.
pub const MODULES_MAX: usize = 128;

/// When the stored modules are loaded, from unsealing on: one that took the compiler too long on a busy machine gets another try.
const LOADS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(60), Duration::from_secs(600)];

pub struct Modules {
    storage: Arc<dyn Storage>,
    host: Arc<dyn ModuleHost>,
    records: RwLock<BTreeMap<String, ModuleRecord>>,
    /// Digests that are stored and not yet loaded. What names them fails closed.
    loading: RwLock<BTreeSet<String>>,
    /// Another server has stored one.
    arrived: Notify,
    /// One change at a time of modules and of what names them, so that no name changes its meaning under a policy.
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Modules")
    }
}

impl Modules {
    /// Reads all records; [`Modules::load_all`] loads the modules.
    ///
    /// # Errors
    /// As storage.
    pub async fn load(storage: Arc<dyn Storage>, host: Arc<dyn ModuleHost>) -> Result<Self, StorageError> {
        let stored = read_all::<ModuleRecord>(&*storage, &keys::module("")).await?;
        let records: BTreeMap<_, _> = stored.into_iter().map(|(_, record)| (record.name.clone(), record)).collect();
        let loading = RwLock::new(records.values().map(|record| record.digest.clone()).collect());
        Ok(Self {
            storage,
            host,
            records: RwLock::new(records),
            loading,
            arrived: Notify::new(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Loads every stored module, and those that other servers store from now on.
    pub async fn keep_loaded(&self, egps: &Egps) {
        loop {
            self.load_all(egps).await;
            self.arrived.notified().await;
        }
    }

    /// Loads every stored module, one after the other: those of mandatory policies first, since requests are refused until they are
    /// there, then those of advisory ones, then the others. One that does not load is logged; policies that name it fail closed.
    pub async fn load_all(&self, egps: &Egps) {
        let mut tried = BTreeSet::new();
        for pause in LOADS {
            let mut waiting = self.loading.read().clone();
            if waiting.is_empty() {
                return;
            }
            tokio::time::sleep(pause).await;
            // Asked anew for each: policies come and go while a module is compiled.
            while let Some(digest) = self.most_urgent(&waiting, egps) {
                waiting.remove(&digest);
                tried.insert(digest.clone());
                match self.load_one(&digest).await {
                    Ok(()) => self.is_loaded(&digest),
                    Err(error) => {
                        tracing::error!(module.digest = digest, %error, "a stored module does not load: what it judges is refused");
                    }
                }
            }
        }
        // What another server has stored meanwhile has its turn yet.
        self.loading.write().retain(|digest| !tried.contains(digest));
    }

    /// Of these digests the one that most depends on.
    fn most_urgent(&self, waiting: &BTreeSet<String>, egps: &Egps) -> Option<String> {
        let urgency = egps.urgency();
        let records = self.records.read();
        let urgency_of = |digest: &String| {
            let names = records.values().filter(|record| record.digest == *digest).map(|record| &record.name);
            names.filter_map(|name| urgency.get(name)).max().copied()
        };
        waiting.iter().max_by_key(|digest| urgency_of(digest)).cloned()
    }

    async fn load_one(&self, digest: &str) -> Result<(), RequestError> {
        let Some(bytes) = self.storage.get(&keys::module_bytes(digest)).await? else {
            return Err(RequestError::Internal("its bytes are not stored".to_owned()));
        };
        self.host.load(&bytes.value).await.map_err(|e| RequestError::Invalid(e.to_string()))?;
        // It may have been deleted meanwhile.
        let _writing = self.writing.lock().await;
        self.unload_unnamed(digest).await;
        Ok(())
    }

    async fn unload_unnamed(&self, digest: &str) {
        let is_named = self.records.read().values().any(|record| record.digest == digest);
        if !is_named {
            self.host.unload(&Digest(digest.to_owned())).await;
        }
    }

    fn is_loaded(&self, digest: &str) {
        self.loading.write().remove(digest);
    }

    /// Held by whoever lets a policy name a module.
    pub(super) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    #[must_use]
    pub fn is_loading(&self, digest: &str) -> bool {
        self.loading.read().contains(digest)
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<ModuleRecord> {
        self.records.read().get(name).cloned()
    }

    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.records.read().keys().cloned().collect()
    }

    /// Inspects, loads, then stores. What the gate refuses leaves no trace.
    ///
    /// # Errors
    /// The gate's words; `in use` when a policy names the module and the bytes differ.
    pub async fn push(
        &self,
        name: &str,
        bytes: Vec<u8>,
        by: &str,
        now: Timestamp,
        egps: &Egps,
    ) -> Result<ModuleRecord, RequestError> {
        self.refuse_one_too_many(name)?;
        let facts: ModuleFacts = self.host.inspect(&bytes).await.map_err(|e| RequestError::Invalid(e.to_string()))?;
        // Outside of the lock, under which it is there already: compiling may take a minute.
        self.host.load(&bytes).await.map_err(|e| RequestError::Invalid(e.to_string()))?;
        let _writing = self.writing.lock().await;
        if let Err(refused) = self.refuse_one_too_many(name) {
            self.unload_unnamed(&facts.digest).await;
            return Err(refused);
        }
        let digest = facts.digest.clone();
        let stored = self.store(name, bytes, facts, (by, now), egps).await;
        match &stored {
            Ok(record) => self.is_loaded(&record.digest),
            Err(_) => {
                self.after_failed_write(name).await;
                self.unload_unnamed(&digest).await;
            }
        }
        stored
    }

    /// Under the lock of writes.
    async fn store(
        &self,
        name: &str,
        bytes: Vec<u8>,
        facts: ModuleFacts,
        (by, now): (&str, Timestamp),
        egps: &Egps,
    ) -> Result<ModuleRecord, RequestError> {
        self.host.load(&bytes).await.map_err(|e| RequestError::Invalid(e.to_string()))?;
        let record = ModuleRecord {
            name: name.to_owned(),
            digest: facts.digest,
            size: facts.size,
            world: facts.world,
            functions: facts.functions,
            module_name: facts.name,
            module_version: facts.version,
            description: facts.description,
            uploaded_at: now,
            uploaded_by: by.to_owned(),
        };
        let (key, value) = (keys::module(name), encode(&record)?);
        for _ in 0..TRIES {
            // Before the policies: one that names this module from now on changes this row, and the commit is refused.
            let stored = read::<ModuleRecord>(&*self.storage, &key).await?;
            if let Some(old) = &stored.record {
                if old.digest == record.digest {
                    self.show(name, Some(old.clone()));
                    return Ok(old.clone());
                }
                if !egps.stored_users_of(name).await?.is_empty() {
                    return Err(RequestError::Invalid(format!(
                        "module \"{name}\" is used by a policy and cannot change under it: push the new version under another name, then let the policy name that"
                    )));
                }
            }
            let mut batch = Batch::new().put(keys::module_bytes(&record.digest), bytes.clone(), Expect::Anything).put(
                key.clone(),
                value.clone(),
                stored.unchanged,
            );
            let old = stored.record.map(|old| old.digest);
            if let Some(digest) = &old {
                batch = self.with_orphaned_bytes(batch, digest, name).await?;
            }
            if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                self.show(name, Some(record.clone()));
                if let Some(digest) = old {
                    self.unload_unnamed(&digest).await;
                }
                return Ok(record);
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// Deletes bytes as well that no other name stands for. Who pushes the same bytes writes them again, so their version tells
    /// whether somebody has in the meantime.
    async fn with_orphaned_bytes(&self, batch: Batch, digest: &str, name: &str) -> Result<Batch, StorageError> {
        let key = keys::module_bytes(digest);
        let Some(bytes) = self.storage.get(&key).await? else { return Ok(batch) };
        let named = read_all::<ModuleRecord>(&*self.storage, &keys::module("")).await?;
        let is_used = named.iter().any(|(_, record)| record.digest == digest && record.name != name);
        Ok(if is_used { batch } else { batch.delete_expecting(key, Expect::Version(bytes.version)) })
    }

    /// Makes the copy in memory what is stored, as far as the store tells. Under the lock of writes.
    async fn after_failed_write(&self, name: &str) {
        match read::<ModuleRecord>(&*self.storage, &keys::module(name)).await {
            Ok(stored) => self.show(name, stored.record),
            Err(error) => tracing::warn!(%error, "module {name:?} could not be read again after a failed write"),
        }
    }

    /// Makes the copy in memory what is stored, by whichever server. What is new is loaded by [`Modules::keep_loaded`]; until then,
    /// what names it fails closed.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow(&self, name: &str) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        let stored = read::<ModuleRecord>(&*self.storage, &keys::module(name)).await?;
        self.follow_record(name, stored.record).await;
        Ok(())
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        let stored = read_all::<ModuleRecord>(&*self.storage, &keys::module("")).await?;
        let mut stored: BTreeMap<String, ModuleRecord> =
            stored.into_iter().map(|(_, record)| (record.name.clone(), record)).collect();
        let known: Vec<String> = self.records.read().keys().cloned().collect();
        for name in known {
            let record = stored.remove(&name);
            self.follow_record(&name, record).await;
        }
        for (name, record) in stored {
            self.follow_record(&name, Some(record)).await;
        }
        Ok(())
    }

    /// Under the lock of writes.
    async fn follow_record(&self, name: &str, record: Option<ModuleRecord>) {
        let before = self.find(name);
        if before == record {
            return;
        }
        if let Some(record) = &record {
            let is_there = self.records.read().values().any(|known| known.digest == record.digest);
            if !is_there {
                self.loading.write().insert(record.digest.clone());
                self.arrived.notify_one();
            }
        }
        self.show(name, record);
        if let Some(before) = before {
            self.unload_unnamed(&before.digest).await;
        }
    }

    fn show(&self, name: &str, record: Option<ModuleRecord>) {
        let mut records = self.records.write();
        match record {
            Some(record) => drop(records.insert(name.to_owned(), record)),
            None => drop(records.remove(name)),
        }
    }

    fn refuse_one_too_many(&self, name: &str) -> Result<(), RequestError> {
        let records = self.records.read();
        if records.len() < MODULES_MAX || records.contains_key(name) {
            return Ok(());
        }
        Err(RequestError::Invalid(format!(
            "{MODULES_MAX} modules are stored, and no more can be: delete one that no policy uses first"
        )))
    }

    /// # Errors
    /// `is used by` and the policies; as storage.
    pub async fn delete(&self, name: &str, egps: &Egps) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        let deleted = self.remove(name, egps).await;
        if deleted.is_err() {
            self.after_failed_write(name).await;
        }
        deleted
    }

    /// Under the lock of writes.
    async fn remove(&self, name: &str, egps: &Egps) -> Result<(), RequestError> {
        let key = keys::module(name);
        for _ in 0..TRIES {
            // Before the policies, as in `store`.
            let stored = read::<ModuleRecord>(&*self.storage, &key).await?;
            let users = egps.stored_users_of(name).await?;
            if !users.is_empty() {
                return Err(RequestError::Invalid(format!(
                    "module \"{name}\" is used by {}: delete these policies first",
                    users.join(", ")
                )));
            }
            if let Some(record) = stored.record {
                let batch = Batch::new().delete_expecting(key.clone(), stored.unchanged);
                let batch = self.with_orphaned_bytes(batch, &record.digest, name).await?;
                if was_overtaken(delete_surely(&*self.storage, batch, &key).await)? {
                    continue;
                }
            }
            let known = self.records.write().remove(name);
            if let Some(record) = known {
                self.unload_unnamed(&record.digest).await;
            }
            return Ok(());
        }
        Err(overtaken_too_often(&key).into())
    }
}
