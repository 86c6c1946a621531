//! Jobs that engines and auth methods declare for each of their mounts.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_model::{Timestamp, Ttl};
use serde_json::Value;

use super::{Job, JobError, Jobs};
use crate::keys;
use crate::mount::{MountEntry, Table};
use crate::rows::job;
use crate::rows::lease::LeaseRow;
use crate::seams::auth::{AuthContext, AuthMethod};
use crate::seams::engine::{EngineContext, SecretsEngine};
use crate::seams::job::MountJob;
use crate::seams::storage::StorageError;

/// A job that asks to be run again at once is run after this time: it must not keep a server busy.
const SOONEST: Ttl = Ttl::from_secs(1);

/// Whose a claimed row is.
pub(super) enum Owner {
    Known(Arc<dyn Job>),
    /// The mount was disabled.
    Gone,
    /// Another server knows this job, or has made its mount; or the mount is being disabled.
    Elsewhere,
}

/// A job of one mount, and who does it.
struct OfMount {
    job: MountJob,
    backend: Backend,
    /// When the run that succeeded wants the next one, if earlier or later than its period would have it.
    again_at: Mutex<Option<Timestamp>>,
}

enum Backend {
    Auth(Arc<dyn AuthMethod>, AuthContext),
    Secrets(Arc<dyn SecretsEngine>, EngineContext),
}

#[async_trait]
impl Job for OfMount {
    fn name(&self) -> &'static str {
        self.job.name
    }

    fn every(&self) -> Ttl {
        self.job.every
    }

    fn next_at(&self, now: Timestamp) -> Timestamp {
        let again_at = *self.again_at.lock().unwrap_or_else(PoisonError::into_inner);
        again_at.map_or(now + self.every(), |at| at.max(now + SOONEST))
    }

    async fn run(&self, _: Value) -> Result<Value, JobError> {
        match &self.backend {
            Backend::Auth(method, context) => method.run_job(context, self.job.name).await?,
            Backend::Secrets(engine, context) => {
                let again_at = engine.run_job(context, self.job.name).await?;
                *self.again_at.lock().unwrap_or_else(PoisonError::into_inner) = again_at;
            }
        }
        Ok(Value::Null)
    }
}

impl Jobs {
    /// The jobs that whoever serves a mount declares for it.
    pub(super) fn jobs_of(&self, entry: &MountEntry) -> &'static [MountJob] {
        match entry.table {
            Table::Auth => self.methods.of(entry).map_or(&[], |method| method.jobs()),
            Table::Mount => self.engines.of_kind(&entry.kind).map_or(&[], |engine| engine.jobs()),
        }
    }

    pub(super) async fn owner(&self, row: &LeaseRow) -> Result<Owner, StorageError> {
        if row.mount.as_str().is_empty() {
            return Ok(self.own_job(row).cloned().map_or(Owner::Elsewhere, Owner::Known));
        }
        let Some(entry) = self.engines.mounts.by_accessor(&row.mount) else {
            // What this server has in memory may be older than the mount.
            for table in [Table::Mount, Table::Auth] {
                if self.engines.storage.get(&keys::mount(table.as_str(), &row.mount)).await?.is_some() {
                    return Ok(Owner::Elsewhere);
                }
            }
            return Ok(Owner::Gone);
        };
        let name = job::name(&row.id);
        let declared = self.jobs_of(&entry).iter().find(|job| job.name == name && !entry.tainted);
        let Some(job) = declared.copied() else { return Ok(Owner::Elsewhere) };
        let backend = match entry.table {
            Table::Auth => {
                let method = self.methods.of(&entry).cloned();
                method.map(|method| Backend::Auth(method, self.methods.context(&entry)))
            }
            Table::Mount => {
                let engine = self.engines.of_kind(&entry.kind).cloned();
                engine.map(|engine| Backend::Secrets(engine, self.engines.context(&entry)))
            }
        };
        Ok(backend.map_or(Owner::Elsewhere, |backend| {
            Owner::Known(Arc::new(OfMount { job, backend, again_at: Mutex::default() }))
        }))
    }
}
