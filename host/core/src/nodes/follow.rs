//! Makes memory follow what other servers have written, and keeps the cache lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Nodes, POLL};
use crate::core::{Unsealed, seal_error};
use crate::keys::{self, Cached};
use crate::mount::{MountEntry, Table};
use crate::seams::error::RequestError;
use crate::seams::storage::{Changes, Key, StorageError};

/// How long sealing waits to tell the others; they find out by themselves.
const LEAVE_MAX: Duration = Duration::from_secs(1);

impl Nodes {
    /// Follows until `stop` says so.
    pub(crate) async fn follow(self: &Arc<Self>, unsealed: &Unsealed, stop: CancellationToken) {
        if !self.is_alone.load(Ordering::Acquire) {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.follow_for_ever(unsealed) => {}
            }
            self.unloaded();
            // What was decided before is written before the others stop waiting for this server, or not at all.
            self.overtake().await;
            // The others need not wait for a server that decides nothing.
            let _ = tokio::time::timeout(LEAVE_MAX, self.attend()).await;
        }
    }

    async fn follow_for_ever(&self, unsealed: &Unsealed) {
        // A report counts for the others when it has been answered: until then they do not wait for this server.
        let mut is_known = false;
        let mut is_failing = false;
        loop {
            let sent = self.clock.steady();
            let followed = match self.attend().await {
                Ok(Some(attendance)) => {
                    let followed = self.follow_up_to(unsealed, attendance.changed).await;
                    if followed == Ok(Caught::Up) && is_known {
                        self.renew(sent);
                    }
                    is_known = true;
                    followed
                }
                Ok(None) => Ok(Caught::Up),
                Err(StorageError::Expelled) => {
                    is_known = false;
                    self.join_again(unsealed).await.map(|()| Caught::More)
                }
                Err(error) => Err(error.to_string()),
            };
            match &followed {
                Ok(_) => is_failing = false,
                Err(why) if !std::mem::replace(&mut is_failing, true) => {
                    tracing::warn!(why, "cannot follow what other servers change: requests are refused from 2 s on");
                }
                Err(_) => {}
            }
            // What was followed is said at once: others wait for it.
            if followed != Ok(Caught::More) {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    async fn follow_up_to(&self, unsealed: &Unsealed, changed: u64) -> Result<Caught, String> {
        let applied = self.applied.load(Ordering::Acquire);
        if applied == changed {
            return Ok(Caught::Up);
        }
        let said = |error: RequestError| error.to_string();
        if applied > changed {
            // The store has lost commits in a fail-over: what was followed may not be there any more.
            tracing::warn!(applied, changed, "the storage has lost changes that were made: everything is read again");
            // Nobody is told meanwhile that memory reflects what is lost.
            self.settled.store(0, Ordering::Release);
            self.applied.store(0, Ordering::Release);
            if let Err(error) = unsealed.follow_all().await {
                self.applied.store(applied, Ordering::Release);
                return Err(said(error));
            }
            self.overtake().await;
            self.applied.store(changed, Ordering::Release);
            return Ok(Caught::More);
        }
        let (followed, next) = match self.storage.changes(applied).await.map_err(|error| error.to_string())? {
            Changes::Keys { keys, next } => (unsealed.follow(&keys).await.map_err(said)?, next),
            Changes::All { next } => (unsealed.follow_all().await.map_err(said)?, next),
        };
        if followed {
            self.overtake().await;
        }
        self.applied.store(next, Ordering::Release);
        // The question was about `changed`, and that is followed now; the answer to it is given with the next one.
        Ok(Caught::More)
    }

    /// This server was silent for so long that another one has taken it off the list, or the list is that of a store that has failed over.
    /// Nothing that it decided may be written by now, so it joins again when all of that has ended.
    async fn join_again(&self, unsealed: &Unsealed) -> Result<(), String> {
        self.good_until.store(0, Ordering::Release);
        let _no_request = self.requests.write().await;
        tracing::warn!(
            "this server was silent for too long and was taken off the list, or the storage has failed over: it joins again"
        );
        self.storage.rejoin(&self.report()).await.map_err(|error| error.to_string()).map(drop)?;
        unsealed.follow_all().await.map(drop).map_err(|error| error.to_string())
    }
}

/// How far memory follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caught {
    Up,
    /// It did not before: the others should hear of it.
    More,
}

impl Unsealed {
    /// Reads again what these keys hold; whether anything is decided by it.
    ///
    /// # Errors
    /// As storage: then it must be tried again.
    pub(crate) async fn follow(&self, keys: &[Key]) -> Result<bool, RequestError> {
        let (mut mounts, mut devices) = (false, false);
        let mut is_decided_by = false;
        for key in keys {
            let Some(cached) = keys::cached(key) else { continue };
            is_decided_by = true;
            match cached {
                Cached::Policy(name) => self.policies.follow(name).await?,
                Cached::Module(name) => self.modules.follow(name).await?,
                Cached::Egp(name) => self.egps.follow(name, &self.modules).await?,
                Cached::Mount => mounts = true,
                Cached::AuditDevice => devices = true,
                Cached::AuditedHeader(name) => self.audit.follow_header(name).await?,
                Cached::Quota(key) => self.quotas.follow(key).await?,
                Cached::Group(id) => self.identities.groups.follow(id).await?,
                Cached::RootKey => self.seal.follow().await.map_err(seal_error)?,
            }
        }
        if mounts {
            self.follow_mounts().await?;
        }
        if devices {
            self.audit.follow_devices().await?;
        }
        Ok(is_decided_by)
    }

    /// Reads everything again.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self) -> Result<bool, RequestError> {
        self.seal.follow().await.map_err(seal_error)?;
        self.policies.follow_all().await?;
        self.modules.follow_all().await?;
        self.egps.follow_all(&self.modules).await?;
        self.follow_mounts().await?;
        self.audit.follow_devices().await?;
        self.audit.follow_headers().await?;
        self.quotas.follow_all().await?;
        self.identities.groups.follow_all().await?;
        Ok(true)
    }

    async fn follow_mounts(&self) -> Result<(), StorageError> {
        let before = self.mounts.all();
        self.mounts.follow_all().await?;
        for gone in before.iter().filter(|entry| self.mounts.by_accessor(&entry.accessor).is_none()) {
            self.unmount(gone).await;
        }
        Ok(())
    }

    /// Closes what engine or method of a mount keeps open, once the mount is gone.
    pub(crate) async fn unmount(&self, gone: &MountEntry) {
        match gone.table {
            Table::Auth => {
                if let Some(method) = self.methods.of(gone) {
                    method.unmount(&self.methods.context(gone)).await;
                }
                self.lockouts.forget_mount(&gone.accessor);
            }
            Table::Mount => {
                if let Some(engine) = self.engines.of_kind(&gone.kind) {
                    engine.unmount(&self.engines.context(gone)).await;
                }
            }
        }
    }
}
