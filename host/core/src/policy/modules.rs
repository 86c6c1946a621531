//! Third parties' modules: stored by digest, named by the operator, loaded into the sandbox.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use leasehold_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::request::RequestError;
use crate::seams::sandbox::{Digest, ModuleFacts, Sandbox};
use crate::seams::storage::{Batch, Expect, Key, Storage, StorageError};
use crate::token::store::{decode, encode};

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

pub struct Modules {
    storage: Arc<dyn Storage>,
    sandbox: Arc<dyn Sandbox>,
    records: RwLock<BTreeMap<String, ModuleRecord>>,
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Modules")
    }
}

impl Modules {
    /// Reads all records and loads every module. One that no longer loads is logged; policies that name it fail closed.
    ///
    /// # Errors
    /// As storage.
    pub async fn load(storage: Arc<dyn Storage>, sandbox: Arc<dyn Sandbox>) -> Result<Self, StorageError> {
        let mut records = BTreeMap::new();
        let prefix = keys::module("");
        let mut after: Option<Key> = None;
        loop {
            let page = storage.scan(&prefix, after.as_ref(), 1_000).await?;
            let Some(last) = page.last().cloned() else { break };
            for key in &page {
                let Some(stored) = storage.get(key).await? else { continue };
                let record: ModuleRecord = decode(key.as_str(), &stored.value)?;
                if let Some(bytes) = storage.get(&keys::module_bytes(&record.digest)).await?
                    && let Err(error) = sandbox.load(&bytes.value).await
                {
                    tracing::error!(module.name = record.name, module.digest = record.digest, %error, "a stored module does not load");
                }
                records.insert(record.name.clone(), record);
            }
            after = Some(last);
        }
        Ok(Self { storage, sandbox, records: RwLock::new(records), writing: tokio::sync::Mutex::new(()) })
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<ModuleRecord> {
        self.records.read().ok()?.get(name).cloned()
    }

    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.records.read().map(|records| records.keys().cloned().collect()).unwrap_or_default()
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
        in_use: bool,
    ) -> Result<ModuleRecord, RequestError> {
        let facts: ModuleFacts =
            self.sandbox.inspect(&bytes).await.map_err(|e| RequestError::Invalid(e.to_string()))?;
        let _writing = self.writing.lock().await;
        let before = self.find(name);
        if let Some(old) = &before {
            if old.digest == facts.digest {
                return Ok(old.clone());
            }
            if in_use {
                return Err(RequestError::Invalid(format!(
                    "module \"{name}\" is used by a policy and cannot change under it: push the new version under another name, then let the policy name that"
                )));
            }
        }
        self.sandbox.load(&bytes).await.map_err(|e| RequestError::Invalid(e.to_string()))?;
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
        let mut batch = Batch::new().put(keys::module_bytes(&record.digest), bytes, Expect::Anything).put(
            keys::module(name),
            encode(&record)?,
            Expect::Anything,
        );
        let orphaned = before.filter(|old| !self.digest_used_elsewhere(&old.digest, name));
        if let Some(old) = &orphaned {
            batch = batch.delete(keys::module_bytes(&old.digest));
        }
        self.storage.commit(batch).await?;
        if let Some(old) = orphaned {
            self.sandbox.unload(&Digest(old.digest)).await;
        }
        if let Ok(mut records) = self.records.write() {
            records.insert(name.to_owned(), record.clone());
        }
        Ok(record)
    }

    /// # Errors
    /// As storage.
    pub async fn delete(&self, name: &str) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        let Some(record) = self.find(name) else { return Ok(()) };
        let mut batch = Batch::new().delete(keys::module(name));
        let last = !self.digest_used_elsewhere(&record.digest, name);
        if last {
            batch = batch.delete(keys::module_bytes(&record.digest));
        }
        self.storage.commit(batch).await?;
        if last {
            self.sandbox.unload(&Digest(record.digest)).await;
        }
        if let Ok(mut records) = self.records.write() {
            records.remove(name);
        }
        Ok(())
    }

    fn digest_used_elsewhere(&self, digest: &str, name: &str) -> bool {
        self.records.read().is_ok_and(|records| records.values().any(|r| r.digest == digest && r.name != name))
    }
}
