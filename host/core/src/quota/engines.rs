//! What engines may ask of the leases of their mounts.
//!
//! A limit of one path is a row of the table of quotas, and is changed in one commit with the configuration that it belongs to.
//!
//! Some changes are made only while no lease stands on a target: the end of a connection, or its move to another server. The leases of
//! the mount are closed, looked through, and opened in the commit of the change, as for a changed quota. So no lease can begin between
//! the look and the commit, on whichever server, and a server that is killed in between leaves everything as it was.

use std::num::NonZeroU64;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_model::MountAccessor;

use super::QUOTAS_MAX;
use super::leases::{Known, LeaseCounts};
use super::scope::Scope;
use super::table::{LeaseCount, LeaseTable};
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, overtaken_too_often};
use crate::keys;
use crate::metrics;
use crate::random;
use crate::seams::error::RequestError;
use crate::seams::mount_leases::{MountLeases, NotCommitted, PathLimit, Standing};
use crate::seams::storage::{Batch, LeaseFilter, Page, StorageError};

/// Leases that are looked at to say what stands on a target.
const LOOKED_AT: u32 = 1_000;
/// Leases that are looked at to tell when one of them ends.
const ENDS_LOOKED_AT: u32 = 100;
/// Paths that an error names.
const PATHS_NAMED: usize = 3;

#[async_trait]
impl MountLeases for LeaseCounts {
    async fn standing(&self, mount: &MountAccessor, connection: &str) -> Result<Standing, StorageError> {
        let connection = Some(connection.to_owned());
        let filter = LeaseFilter { mount: Some(mount.clone()), connection, ..LeaseFilter::default() };
        let rows = self.storage.leases(&filter, &Page { after: None, limit: LOOKED_AT }).await?;
        let mut paths: Vec<String> = Vec::new();
        for path in rows.iter().map(super::table::path_of) {
            if paths.len() < PATHS_NAMED && !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        Ok(Standing { leases: rows.len(), has_more: rows.len() >= LOOKED_AT as usize, paths })
    }

    async fn commit_with_limit(
        &self,
        mount: &MountAccessor,
        limit: PathLimit,
        batch: Batch,
    ) -> Result<u64, RequestError> {
        let PathLimit { path, of, max_leases } = limit;
        let scope = Scope { mount: Some(mount.clone()), suffix: path, role: String::new() };
        let id = random::base62(&*self.entropy, 12);
        self.change(batch, |quotas| {
            quotas.retain(|quota| !quota.is_engines || quota.scope != scope);
            let Some(max_leases) = max_leases.map(NonZeroU64::get) else { return Ok(()) };
            if quotas.iter().filter(|quota| quota.is_engines).count() >= QUOTAS_MAX {
                return Err(RequestError::Invalid(format!("at most {QUOTAS_MAX} roles can have max_leases")));
            }
            let (id, name, scope) = (id.clone(), of.clone(), scope.clone());
            quotas.push(LeaseCount { id, name, scope, max_leases, inheritable: false, places: 0, is_engines: true });
            Ok(())
        })
        .await?;
        Ok(self.standing_below(|quota| quota.is_engines && quota.scope == scope).await)
    }

    async fn commit_unless_standing(
        &self,
        mount: &MountAccessor,
        connection: &str,
        batch: Batch,
    ) -> Result<(), NotCommitted> {
        // Most refusals need no lease to wait.
        self.refuse_standing(mount, connection).await?;
        let _writing = self.writing.lock().await;
        let key = keys::quota_lease_counts();
        let mut waited = Duration::ZERO;
        for _ in 0..TRIES {
            let known = self.opened(&mut waited).await?;
            let Some(held) = self.close(&known, Some(mount.clone())).await? else { continue };
            crate::fail::point("target-closed");
            if let Err(standing) = self.refuse_standing(mount, connection).await {
                self.open_again(held).await;
                return Err(standing);
            }
            let opened_by = random::base62(&*self.entropy, 12);
            let value = encode(&LeaseTable { closed: None, opened_by, ..held.table.clone() })?;
            let batch = batch.clone().put(key.clone(), value.clone(), held.unchanged);
            match commit_surely(&*self.storage, batch, &key, &value).await {
                Ok(()) => {
                    crate::fail::point("target-changed");
                    // What this server knows is old now; the next commit would find that out, too.
                    if let Err(error) = self.follow().await {
                        tracing::debug!(%error, "lease count quotas are read again later");
                    }
                    return Ok(());
                }
                // It took so long that another server has opened them.
                Err(StorageError::Conflict(conflict)) if conflict == key.as_str() => {}
                Err(error) => {
                    self.open_again(held).await;
                    return Err(error.into());
                }
            }
        }
        Err(overtaken_too_often(&key).into())
    }
}

impl LeaseCounts {
    /// How many leases a quota counts that has just been stored. Nothing depends on it, so a store that fails says none.
    pub(super) async fn standing_below(&self, is_it: impl Fn(&LeaseCount) -> bool) -> u64 {
        let known = self.known();
        match known.as_ref().and_then(|known| known.table.quotas.iter().find(|quota| is_it(quota))) {
            Some(quota) => self.count(quota).await.unwrap_or(0),
            None => 0,
        }
    }

    /// What a request hears that would begin one lease too many.
    pub(super) async fn full(&self, known: &Known, quota: &LeaseCount, path: String) -> StorageError {
        metrics::lease_refused(&self.cluster.read(), &quota.name);
        let retry_secs = self.next_end(known, quota).await;
        StorageError::LeaseQuotaExceeded { path, limit: quota.described(), max_leases: quota.max_leases, retry_secs }
    }

    /// In how many seconds the first lease of an engine's limit ends by itself. Where there are many leases it is not looked up: a
    /// refusal must not cost more than an issue.
    async fn next_end(&self, known: &Known, quota: &LeaseCount) -> Option<u64> {
        if !quota.is_engines || quota.max_leases > u64::from(ENDS_LOOKED_AT) {
            return None;
        }
        let entry = known.mounts.by_accessor(quota.scope.mount.as_ref()?)?;
        let id_prefix = Some(format!("{}{}/", entry.path, quota.scope.suffix));
        let filter = LeaseFilter { id_prefix, mount: quota.scope.mount.clone(), ..LeaseFilter::default() };
        let rows = self.storage.leases(&filter, &Page { after: None, limit: ENDS_LOOKED_AT }).await.ok()?;
        let first = rows.iter().map(|row| row.expires_at).min()?;
        // Rounded up: who waits so long finds that it has ended.
        let left = first.since(self.clock.now());
        Some(left.as_secs() + 1)
    }

    async fn refuse_standing(&self, mount: &MountAccessor, connection: &str) -> Result<(), NotCommitted> {
        let standing = self.standing(mount, connection).await?;
        if standing.leases > 0 { Err(NotCommitted::Standing(standing)) } else { Ok(()) }
    }
}

impl From<RequestError> for NotCommitted {
    fn from(error: RequestError) -> Self {
        Self::Failed(error)
    }
}

impl From<StorageError> for NotCommitted {
    fn from(error: StorageError) -> Self {
        Self::Failed(error.into())
    }
}
