//! New keys in place of the old ones: a root key and its shares, or recovery shares.
//!
//! Everything happens in one commit: whatever ends the server, the old shares open the store or the new ones do.
//!
//! Other servers over the store keep the old root key in memory. The commit leaves them the new one, wrapped with each of the last data
//! keys, of which they know one; in it a data key is added besides, so that what is written from then on is not under a key that the
//! holders of the old shares may know from an old copy of the store. What was left is taken away after a day ([`HANDOVER_MAX`]).
//!
//! Start with [`Barrier::adopt_keys`], then `handed_over` (what the other servers do).

use std::sync::atomic::Ordering;

use leasehold_core::keys;
use leasehold_core::seams::seal::{Dealt, NewKeys, SealError, SecretKey, Split, WrappedRoot};
use leasehold_core::seams::storage::{Batch, Change, Expect, StorageError};
use leasehold_model::{Timestamp, Ttl};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ring::{self, KEY_LEN, Ring};
use super::seal::{SealConfig, broken, written};
use super::stored_key::StoredKey;
use super::{Barrier, TRIES, sealings, shares};

/// For how long servers that were cut off can still follow to a new root key.
const HANDOVER_MAX: Ttl = Ttl::from_secs(86_400);

const CUT_OFF: &str = "the key ring cannot be read: the root key was replaced while this server was cut off for more than a day, or the \
     storage is damaged. Restart the server, and open it with the present key shares or by its seal";

/// With how many data keys a new root key is wrapped: a server that does not write learns late of those that others add.
const HANDOVER_KEYS: usize = 64;

/// The new root key, for the other servers. No secret.
#[derive(Serialize, Deserialize)]
struct Handover {
    at: Timestamp,
    /// In hex, each with another data key.
    wrapped: Vec<String>,
}

impl Barrier {
    pub(super) fn deal_shares(&self, shares: u8, threshold: u8) -> Result<Dealt, SealError> {
        shares::check(shares, threshold, "seal")?;
        let key = ring::random(&*self.entropy);
        let dealt = shares::split(&*self.entropy, &key, shares, threshold);
        let digests = dealt.iter().map(|share| shares::digest(&share.0)).collect();
        Ok(Dealt { key: SecretKey(key), threshold, digests, shares: dealt })
    }

    pub(super) async fn wrap_fresh(&self) -> Result<Option<WrappedRoot>, SealError> {
        let key = SecretKey(ring::random(&*self.entropy));
        let wrapped = self.wrapped_by(&key).await?;
        Ok(wrapped.map(|(kind, wrapped)| WrappedRoot { key, kind, wrapped }))
    }

    /// See [`leasehold_core::seams::seal::Seal::adopt`].
    pub(super) async fn adopt_keys(
        &self,
        new: NewKeys<'_>,
        proved: &Split,
        also: Batch,
        hands_over: bool,
    ) -> Result<(), SealError> {
        for _ in 0..TRIES {
            let config = self.stored_config().await?;
            if config.split() != *proved {
                return Err(SealError::Invalid(Split::REPLACED.to_owned()));
            }
            let (config, root) = match &new {
                NewKeys::Root(dealt) if config.opens_by_shares() => {
                    (config.with_split(dealt, None), Some(dealt.key.0.clone()))
                }
                NewKeys::Wrapped(fresh) if !config.opens_by_shares() => {
                    let stored_key = Some(StoredKey::new(fresh.kind, &fresh.wrapped));
                    (SealConfig { stored_key, ..config }, Some(fresh.key.0.clone()))
                }
                NewKeys::Recovery(dealt) if !config.opens_by_shares() => {
                    let stored_key = config.stored_key.clone();
                    (config.with_split(dealt, stored_key), None)
                }
                _ => return Err(SealError::Invalid(Split::REPLACED.to_owned())),
            };
            match self.store_keys(config, root, also.clone(), hands_over).await {
                Err(SealError::Storage(StorageError::Conflict(key)))
                    if [keys::keyring(), keys::integrity(), keys::seal()].iter().any(|own| own.as_str() == key) => {}
                done => return done,
            }
        }
        Err(broken("the keys change all the time"))
    }

    /// The commit. It conflicts where another server has changed a key, or anything under `sys/`.
    async fn store_keys(
        &self,
        config: SealConfig,
        root: Option<Zeroizing<[u8; KEY_LEN]>>,
        also: Batch,
        hands_over: bool,
    ) -> Result<(), SealError> {
        // Before the locks, since it may take one of them.
        self.ring_for(sealings(&also).saturating_add(1)).await?;
        let _turn = self.digest_turn.lock().await;
        let changing = self.unsealing.lock().await;
        if changing.is_restoring {
            return Err(broken("a snapshot is being restored"));
        }
        let mut ring = self.ring()?;
        let stored = self.inner.get(&keys::keyring()).await?;
        if stored.is_none_or(|stored| stored.version != ring.version()) {
            ring = self.reload_ring(&ring).await?;
        }
        // Under the key that the other servers know.
        let Batch(mut changes) = self.seal_batch(&ring, also)?;
        if changes.iter().any(|change| matches!(change, Change::Put { key, .. } | Change::Delete { key, .. } if super::integrity::covers(key))) {
            changes.push(self.digest_after(&ring, &changes).await?);
        }
        let value = config.bytes()?;
        changes.push(Change::Put { key: keys::seal(), value, expect: Expect::Version(config.version) });
        let expect = Expect::Version(ring.version());
        match root {
            Some(root) => {
                if hands_over {
                    changes.push(self.handover(&ring, &root).await?);
                }
                let next = ring
                    .rotated(&*self.entropy, self.inner.now().await?, 0)
                    .ok_or_else(|| broken("no key could be made"))?;
                self.install(next.under(root), expect, changes).await?;
                self.sealed_values.store(0, Ordering::Relaxed);
            }
            None => {
                changes.push(Change::Check { key: keys::keyring(), expect });
                self.commit_config(changes).await?;
            }
        }
        self.forget_config();
        tracing::warn!("the key shares or the root key were replaced");
        Ok(())
    }

    /// As any commit; one that is said to have failed may have happened all the same.
    async fn commit_config(&self, changes: Vec<Change>) -> Result<(), SealError> {
        let batch = Batch(changes);
        let wanted = written(&batch, &keys::seal());
        match (self.inner.commit(batch).await, wanted) {
            (Err(StorageError::Unavailable(_)), Some(wanted)) if self.is_written(&wanted).await? => Ok(()),
            (done, _) => Ok(done?),
        }
    }

    /// The ring as it is stored. Its root key may be a new one, which was left for servers that have `seen`.
    pub(super) async fn unwrapped(&self, seen: &Ring, wrapped: Vec<u8>) -> Result<Ring, StorageError> {
        if let Some(ring) = Ring::unwrap_with(seen.root(), wrapped.clone()) {
            return Ok(ring);
        }
        let root = self.handed_over(seen).await?;
        let ring = root.and_then(|root| Ring::unwrap_with(&root, wrapped));
        // Whoever follows says it once; requests are refused meanwhile.
        ring.ok_or_else(|| StorageError::Unavailable(CUT_OFF.to_owned()))
    }

    async fn handover(&self, ring: &Ring, root: &[u8; KEY_LEN]) -> Result<Change, SealError> {
        let key = keys::root_handover();
        let wrapped = ring.wrap_with_last_keys(&*self.entropy, key.as_str().as_bytes(), root, HANDOVER_KEYS);
        let wrapped = wrapped.iter().map(hex::encode).collect();
        let handover = Handover { at: self.inner.now().await?, wrapped };
        let value = serde_json::to_vec(&handover).map_err(|_| broken("the root key could not be handed over"))?;
        Ok(Change::Put { key, value, expect: Expect::Anything })
    }

    async fn handed_over(&self, seen: &Ring) -> Result<Option<Zeroizing<[u8; KEY_LEN]>>, StorageError> {
        let key = keys::root_handover();
        let Some(stored) = self.inner.get(&key).await? else { return Ok(None) };
        let handover: Option<Handover> = serde_json::from_slice(&stored.value).ok();
        let wrapped = handover.into_iter().flat_map(|handover| handover.wrapped);
        let known = wrapped.filter_map(|one| hex::decode(one).ok()).find(|one| seen.knows(one));
        let root = known.and_then(|known| seen.open(key.as_str().as_bytes(), known)).map(Zeroizing::new);
        Ok(root.and_then(|root| root.as_slice().try_into().ok().map(Zeroizing::new)))
    }

    /// Whatever the configuration of the seal and the stored ring are by now.
    pub(super) async fn follow_keys(&self) -> Result<(), SealError> {
        self.forget_config();
        let ring = self.ring()?;
        let stored = self.inner.get(&keys::keyring()).await?;
        if stored.is_none_or(|stored| stored.version != ring.version()) {
            self.reload_ring(&ring).await?;
        }
        Ok(())
    }

    /// Takes away what was left for other servers, once none needs it any more.
    pub(super) async fn end_old_handover(&self) -> Result<(), SealError> {
        let key = keys::root_handover();
        let Some(stored) = self.inner.get(&key).await? else { return Ok(()) };
        let handover: Option<Handover> = serde_json::from_slice(&stored.value).ok();
        let now = self.inner.now().await?;
        if handover.is_some_and(|handover| now < handover.at + HANDOVER_MAX) {
            return Ok(());
        }
        Ok(self.inner.commit(Batch::new().delete_expecting(key, Expect::Version(stored.version))).await?)
    }
}

impl SealConfig {
    fn opens_by_shares(&self) -> bool {
        !self.stored_key.as_ref().is_some_and(StoredKey::is_of_wrapper)
    }

    fn with_split(&self, dealt: &Dealt, stored_key: Option<StoredKey>) -> Self {
        let shares = u8::try_from(dealt.digests.len()).unwrap_or(u8::MAX);
        Self { shares, threshold: dealt.threshold, digests: dealt.digests.clone(), stored_key, version: self.version }
    }
}
