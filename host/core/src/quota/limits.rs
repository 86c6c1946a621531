//! The rate limits that are stored, all in one record: no two servers can make two that cover the same.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use leasehold_model::lock::RwLock;

use super::QUOTAS_MAX;
use super::pool::Pools;
use super::rate::{RateLimit, Taken, Windows};
use super::scope::{At, Scope, deciding};
use crate::codec::encode;
use crate::commit::{Stored, TRIES, commit_surely, overtaken_too_often, read, was_overtaken};
use crate::keys;
use crate::mount::MountTable;
use crate::seams::error::RequestError;
use crate::seams::host::Clock;
use crate::seams::storage::{Batch, Storage, StorageError};

/// Rate limits in memory, and the windows of clients. Writes go to the store first.
pub struct RateLimits {
    storage: Arc<dyn Storage>,
    mounts: Arc<MountTable>,
    limits: RwLock<Arc<Vec<RateLimit>>>,
    windows: Windows,
    pools: Pools,
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RateLimits")
    }
}

impl RateLimits {
    pub(super) async fn load(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        mounts: Arc<MountTable>,
    ) -> Result<Self, StorageError> {
        let limits = stored(&*storage).await?.record.unwrap_or_default();
        Ok(Self {
            pools: Pools::new(storage.clone(), clock),
            storage,
            mounts,
            limits: RwLock::new(Arc::new(limits)),
            windows: Windows::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Whether there is nothing to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.limits.read().is_empty()
    }

    /// Those whose mount is there, by name.
    #[must_use]
    pub fn all(&self) -> Vec<RateLimit> {
        let mut all: Vec<RateLimit> = self.limits.read().iter().filter(|limit| self.is_alive(limit)).cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<RateLimit> {
        self.limits.read().iter().find(|limit| limit.name == name && self.is_alive(limit)).cloned()
    }

    fn is_alive(&self, limit: &RateLimit) -> bool {
        is_alive(&limit.scope, &self.mounts)
    }

    /// Whether a limit of a login's role stands at this mount.
    pub(crate) fn ask_for_roles(&self, at: &At<'_>) -> bool {
        at.mount().is_some_and(|mount| {
            let limits = self.limits.read();
            limits.iter().any(|limit| !limit.scope.role.is_empty() && limit.scope.mount.as_ref() == Some(mount))
        })
    }

    /// Counts a request by the limit that fits it best; with that limit's name. `None`: none fits. `now`: the steady time.
    pub(crate) async fn take(
        &self,
        at: &At<'_>,
        client: Option<IpAddr>,
        now: impl Fn() -> Duration + Send + Sync,
        servers: usize,
    ) -> Option<(String, Taken)> {
        let limits = self.limits.read().clone();
        let limit = deciding(&*limits, |limit| &limit.scope, at)?;
        let taken = match self.windows.take(limit, client, now(), servers) {
            Taken::Draw(_) => self.draw(limit, client, now, servers).await,
            taken => taken,
        };
        Some((limit.name.clone(), taken))
    }

    async fn draw(
        &self,
        limit: &RateLimit,
        client: Option<IpAddr>,
        now: impl Fn() -> Duration + Send + Sync,
        servers: usize,
    ) -> Taken {
        let _turn = self.pools.turn(client).await;
        loop {
            // Somebody else may have drawn since, or the window may have ended. Each turn of the loop draws, until there is nothing left.
            let wanted = match self.windows.take(limit, client, now(), servers) {
                Taken::Draw(wanted) => wanted,
                taken => return taken,
            };
            let drawn = self.pools.draw(limit, client, wanted).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "could not draw requests for a client: this server counts by itself until its window ends");
                wanted.most
            });
            self.windows.grant(limit, client, drawn);
        }
    }

    /// # Errors
    /// Another one covers the same; too many; or as storage.
    pub(crate) async fn write(&self, limit: RateLimit) -> Result<(), RequestError> {
        self.change(|limits| {
            let mut others = limits.iter().filter(|other| other.name != limit.name);
            if let Some(other) = others.find(|other| other.scope.is_same(&limit.scope, &self.mounts)) {
                return Err(similar(&other.name));
            }
            limits.retain(|other| other.name != limit.name);
            if limits.len() >= QUOTAS_MAX {
                return Err(too_many());
            }
            limits.push(limit.clone());
            Ok(())
        })
        .await
    }

    /// # Errors
    /// As storage.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), RequestError> {
        self.change(|limits| {
            limits.retain(|limit| limit.name != name);
            Ok(())
        })
        .await
    }

    /// # Errors
    /// As storage.
    pub(super) async fn prune(&self) -> Result<(), RequestError> {
        if self.limits.read().iter().all(|limit| self.is_alive(limit)) {
            return Ok(());
        }
        self.change(|_| Ok(())).await
    }

    async fn change(
        &self,
        change: impl Fn(&mut Vec<RateLimit>) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        let key = keys::quota_rate_limits();
        for _ in 0..TRIES {
            let Stored { record, unchanged } = stored(&*self.storage).await?;
            let before = record.unwrap_or_default();
            let mut limits = before.clone();
            limits.retain(|limit| self.is_alive(limit));
            change(&mut limits)?;
            if limits == before {
                self.show(limits);
                return Ok(());
            }
            let value = encode(&limits)?;
            let batch = Batch::new().put(key.clone(), value.clone(), unchanged);
            let committed = commit_surely(&*self.storage, batch, &key, &value).await;
            if let Err(StorageError::Unavailable(_)) = committed {
                self.read_again().await;
            }
            if !was_overtaken(committed)? {
                let gone = before.iter().filter(|known| !limits.iter().any(|limit| limit.id == known.id));
                for gone in gone {
                    if let Err(error) = self.pools.forget(&gone.id).await {
                        tracing::debug!(%error, "what was drawn under a rate limit that is gone stays in the store");
                    }
                }
                self.show(limits);
                return Ok(());
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    pub(super) async fn follow(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        self.show(stored(&*self.storage).await?.record.unwrap_or_default());
        Ok(())
    }

    /// After a write of which nobody knows whether it happened.
    async fn read_again(&self) {
        match stored(&*self.storage).await {
            Ok(found) => self.show(found.record.unwrap_or_default()),
            Err(error) => tracing::warn!(%error, "rate limits could not be read again after a failed write"),
        }
    }

    fn show(&self, limits: Vec<RateLimit>) {
        self.windows.keep_only(|id| limits.iter().any(|limit| limit.id == id));
        *self.limits.write() = Arc::new(limits);
    }
}

/// Whether a quota's mount is there.
pub(super) fn is_alive(scope: &Scope, mounts: &MountTable) -> bool {
    scope.mount.as_ref().is_none_or(|mount| mounts.by_accessor(mount).is_some())
}

/// OpenBao's words.
pub(super) fn similar(name: &str) -> RequestError {
    RequestError::Invalid(format!("quota rule with similar properties exists under the name {name:?}"))
}

pub(super) fn too_many() -> RequestError {
    RequestError::Invalid(format!("more than {QUOTAS_MAX} quotas of one kind cannot be stored"))
}

async fn stored(storage: &dyn Storage) -> Result<Stored<Vec<RateLimit>>, StorageError> {
    read(storage, &keys::quota_rate_limits()).await
}
