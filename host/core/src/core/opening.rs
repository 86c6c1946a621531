//! Opening and closing: from sealed to unsealed and back, one move at a time.
//!
//! Start with `take_share` (by people) and `open_with_fetched_key` (by a seal); `open` is what both end in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{Core, Running, Unsealed, seal_error};
use crate::metrics;
use crate::seams::error::RequestError;
use crate::seams::seal::{KeyShare, SealStatus};
use crate::seams::snapshot::{CheckedSnapshot, SnapshotError};
use crate::seams::storage::StorageError;

impl Core {
    /// Takes a share of the key; unseals when that was the last one needed. Goes on when nobody waits for it any more:
    /// half way the keys would be in memory and the server said to be sealed.
    ///
    /// # Errors
    /// Vault's words for a wrong share.
    pub async fn unseal(self: &Arc<Self>, share: &[u8]) -> Result<SealStatus, RequestError> {
        self.unseal_from(share, false, None).await
    }

    /// As [`Core::unseal`], by whoever is at this address. `migrate`: the shares are given to move to the seal that is configured.
    ///
    /// # Errors
    /// As [`Core::unseal`].
    pub async fn unseal_from(
        self: &Arc<Self>,
        share: &[u8],
        migrate: bool,
        from: Option<IpAddr>,
    ) -> Result<SealStatus, RequestError> {
        let (core, share) = (Arc::clone(self), KeyShare(share.to_vec().into()));
        let opening = tokio::spawn(async move { core.take_share(&share, migrate, from).await });
        opening.await.map_err(|_| RequestError::Internal("unsealing ended early".to_owned()))?
    }

    async fn take_share(
        &self,
        share: &KeyShare,
        migrate: bool,
        from: Option<IpAddr>,
    ) -> Result<SealStatus, RequestError> {
        {
            let mut transition = self.transition.lock().await;
            if self.unsealed().is_ok() {
                drop(transition);
                return self.seal_status().await.map_err(seal_error);
            }
            let before = self.closed_barrier().await?;
            if migrate && before.replaces_root {
                self.refuse_beside_others("before this one moves to another seal, which replaces the root key").await?;
            }
            let status = self.seams.seal.unseal_or_migrate(&share.0, migrate).await.map_err(seal_error)?;
            if status.sealed {
                self.givers().extend(from);
                return Ok(status);
            }
            self.givers().clear();
            self.open(&mut transition).await?;
        }
        self.auto_unseal.release();
        self.seal_status().await.map_err(seal_error)
    }

    /// A closed server has a closed barrier, whatever came before: what opens it must be proved by its keys.
    async fn closed_barrier(&self) -> Result<SealStatus, RequestError> {
        let status = self.seams.seal.status().await.map_err(seal_error)?;
        if !status.sealed {
            self.seams.seal.seal().await;
        }
        // Opening it writes to the key ring, which is refused to a server that is not on the list.
        self.nodes.arrive().await?;
        Ok(status)
    }

    /// Loads what the open barrier shows, and starts what runs while unsealed.
    async fn open(&self, transition: &mut Option<Running>) -> Result<(), RequestError> {
        let unsealed = match self.load_unsealed().await {
            Ok(unsealed) => Arc::new(unsealed),
            Err(error) => {
                self.seams.seal.seal().await;
                tracing::error!(%error, "could not open after unsealing; sealed again");
                return Err(error);
            }
        };
        metrics::open(&unsealed.installation.cluster_name, true);
        let stop = CancellationToken::new();
        let (leases, jobs, opened) = (unsealed.leases.clone(), unsealed.jobs.clone(), unsealed.clone());
        let (clock, nodes, storage) = (self.clock.clone(), self.nodes.clone(), self.seams.storage.clone());
        let (stopped, stopped_following) = (stop.clone(), stop.clone());
        // In a task of its own: whatever happens to it, leases go on.
        let following = tokio::spawn(async move { nodes.follow(&opened, stopped_following).await });
        let leases = tokio::spawn(async move {
            let ((), (), (), (), _) = tokio::join!(
                leases.clone().run(jobs.clone(), stopped.clone()),
                leases.count_irrevocable(stopped.clone()),
                jobs.keep_rows(stopped.clone()),
                clock.follow(&*storage, stopped),
                following,
            );
        });
        let opened = unsealed.clone();
        // Compiling takes up to a minute for each; leases cannot wait for that.
        let modules = tokio::spawn(async move { opened.modules.keep_loaded(&opened.egps).await });
        *transition = Some(Running { stop: stop.drop_guard(), leases, modules });
        *self.unsealed.write().unwrap_or_else(PoisonError::into_inner) = Some(unsealed);
        tracing::info!("unsealed");
        Ok(())
    }

    /// # Errors
    /// Other servers over this storage are unsealed: `before` says what they would not survive.
    pub(crate) async fn refuse_beside_others(&self, before: &str) -> Result<(), RequestError> {
        let others = self.nodes.others_at_work().await?;
        let names: Vec<&str> = others.iter().map(|node| node.report.address.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let names = names.join(", ");
        Err(RequestError::Invalid(format!(
            "other servers work on this storage ({names}): seal each of them first, {before}"
        )))
    }

    /// Forgets the shares given so far. Anybody may ask for it, so it is done only for those who have given one: nobody else may
    /// keep the server from being unsealed.
    ///
    /// # Errors
    /// As storage; the address is not of somebody who has given a share.
    pub async fn reset_unseal(&self, from: Option<IpAddr>) -> Result<SealStatus, RequestError> {
        {
            let mut givers = self.givers();
            if from.is_some_and(|from| !givers.is_empty() && !givers.contains(&from)) {
                return Err(RequestError::invalid(
                    "only from an address that has given one of the present shares can they be reset; a wrong share is never \
                     kept, so that unsealing can go on",
                ));
            }
            givers.clear();
        }
        self.seams.seal.reset().await.map_err(seal_error)
    }

    fn givers(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.givers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the barrier with the key that was fetched, unless somebody wants the server to stay sealed.
    pub(crate) async fn open_with_fetched_key(&self) -> Result<(), RequestError> {
        let mut transition = self.transition.lock().await;
        if self.unsealed().is_ok() || self.auto_unseal.is_held() {
            self.seams.seal.forget_fetched();
            return Ok(());
        }
        self.closed_barrier().await?;
        self.seams.seal.unseal_fetched().await.map_err(seal_error)?;
        self.givers().clear();
        self.open(&mut transition).await
    }

    /// Stops work on leases, shuts the barrier, wipes the keys. The server stays sealed until it is started again or people give
    /// their shares.
    pub async fn seal(&self) {
        self.auto_unseal.hold();
        let mut transition = self.transition.lock().await;
        self.close(&mut transition).await;
        self.seams.seal.seal().await;
        tracing::info!("sealed");
    }

    /// Nobody is answered any more, and nothing works on leases.
    async fn close(&self, transition: &mut Option<Running>) {
        self.givers().clear();
        let unsealed = self.unsealed.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = transition.take() {
            running.modules.abort();
            // Errors mean that it has ended already.
            drop(running.stop);
            let _ = running.leases.await;
            let _ = running.modules.await;
        }
        if let Some(unsealed) = unsealed {
            metrics::open(&unsealed.installation.cluster_name, false);
        }
    }

    /// Seals, and puts a snapshot in the place of all that is stored. Nobody unseals before it has ended; its keys do afterwards.
    ///
    /// # Errors
    /// As the store; then the server is sealed, and what was stored is there.
    pub(crate) async fn restore(
        &self,
        unsealed: &Arc<Unsealed>,
        snapshot: CheckedSnapshot,
        by: &str,
    ) -> Result<(), SnapshotError> {
        let mut transition = self.transition.lock().await;
        // Whoever was allowed to was so by what is there now.
        if !self.is_still(unsealed) {
            return Err(SnapshotError::Storage(StorageError::Sealed));
        }
        self.nodes.still_decided()?;
        self.close(&mut transition).await;
        let facts = snapshot.facts.clone();
        let restored = self.seams.snapshots.restore(snapshot).await;
        self.auto_unseal.wake();
        if restored.is_err() {
            self.seams.seal.seal().await;
        }
        match &restored {
            Ok(()) => tracing::warn!(
                snapshot.id = facts.id,
                snapshot.cluster_id = facts.cluster_id,
                values = facts.values,
                leases = facts.leases,
                by,
                "a snapshot was restored, and the server is sealed: the snapshot's keys open it, or its seal does. \
                 Tokens that were revoked and leases that ended since it was made are there again; \
                 roles of leases that were issued since have no lease any more"
            ),
            Err(error) => tracing::error!(
                %error, snapshot.id = facts.id, by,
                "a snapshot could not be restored, and the server is sealed: what was stored is there as it was, unless only the answer \
                 to the last step was lost"
            ),
        }
        restored
    }
}
