//! Connections as they are stored, and the pools that were opened from them.
//!
//! Must not know: what is done on a connection.
//!
//! Start with [`DatabaseEngine::open`].
//!
//! Invariant: a pool serves only the version of the stored connection that it was made from.

use std::sync::{Arc, PoisonError};

use leasehold_core::seams::engine::{EngineContext, EngineError};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::StorageError;

use super::connection::{self, ConnectionRecord};
use super::postgresql::failure::TargetError;
use super::postgresql::pool::ConnectionPool;
use super::{DatabaseEngine, TargetId, connection_key};

/// A connection as it is stored, opened.
pub(super) struct Opened {
    pub(super) record: ConnectionRecord,
    /// Of the record.
    pub(super) version: u64,
    pub(super) target: Arc<ConnectionPool>,
}

/// Why a connection cannot be used.
pub(super) enum Unusable {
    Missing(String),
    Broken(String),
    Storage(StorageError),
}

impl From<Unusable> for RequestError {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Missing(name) => Self::Engine(missing(&name)),
            Unusable::Broken(why) => Self::Engine(why),
            Unusable::Storage(error) => error.into(),
        }
    }
}

impl From<Unusable> for EngineError {
    fn from(why: Unusable) -> Self {
        Self::Failed(match why {
            Unusable::Missing(name) => missing(&name),
            Unusable::Broken(why) => why,
            Unusable::Storage(error) => error.to_string(),
        })
    }
}

/// Of a lease that is to be renewed or to end.
pub(super) fn for_lease(why: Unusable) -> EngineError {
    match why {
        Unusable::Missing(name) => EngineError::Failed(format!(
            "{}: write it again so that its leases can end, or give them up with `lease revoke -force -prefix`",
            missing(&name)
        )),
        other => other.into(),
    }
}

pub(super) fn missing(name: &str) -> String {
    format!("failed to find entry for connection with name: {name:?}")
}

impl DatabaseEngine {
    pub(super) async fn pool(&self, record: &ConnectionRecord) -> Result<Arc<ConnectionPool>, String> {
        ConnectionPool::new(record, Arc::clone(&self.turns), &self.files).await.map(Arc::new)
    }

    /// Opened anew when what is stored has changed, on whichever node that was.
    pub(super) async fn open(&self, at: &EngineContext, name: &str) -> Result<Opened, Unusable> {
        let stored = at.storage.get(&connection_key(name)).await.map_err(Unusable::Storage)?;
        let stored = stored.ok_or_else(|| Unusable::Missing(name.to_owned()))?;
        let record = ConnectionRecord::from_bytes(&stored.value)
            .map_err(|_| Unusable::Broken(format!("the stored connection {name:?} is not readable")))?;
        let id = (at.mount.accessor.clone(), name.to_owned());
        if let Some(target) = self.cached(&id, stored.version) {
            return Ok(Opened { record, version: stored.version, target });
        }
        if record.reads_old_files() {
            tracing::warn!(connection = name, "{}", connection::OLD_FILES);
        }
        let target = self.pool(&record).await.map_err(Unusable::Broken)?;
        Ok(Opened { record, version: stored.version, target: self.keep(id, stored.version, target) })
    }

    pub(super) fn cached(&self, id: &TargetId, version: u64) -> Option<Arc<ConnectionPool>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.get(id).filter(|(known, _)| *known == version).map(|(_, target)| Arc::clone(target))
    }

    /// The pool to use: somebody else may have opened the same meanwhile.
    pub(super) fn keep(&self, id: TargetId, version: u64, target: Arc<ConnectionPool>) -> Arc<ConnectionPool> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        match targets.get(&id) {
            Some((known, kept)) if *known == version => return Arc::clone(kept),
            Some((_, old)) => old.close(),
            None => {}
        }
        targets.insert(id, (version, Arc::clone(&target)));
        target
    }

    pub(super) fn retain_pools(&self, keep: impl Fn(&TargetId) -> bool) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|id, (_, target)| {
            let kept = keep(id);
            if !kept {
                target.close();
            }
            kept
        });
    }
}

impl Opened {
    /// In the wire's words, without a secret.
    pub(super) fn failed(&self, error: TargetError) -> EngineError {
        self.record.scrubbed(error).into_engine()
    }
}
