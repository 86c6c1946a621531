//! Init, unseal, seal: the life of the keys. Who opens the root key is in [`super::stored_key`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::seams::seal::{
    Dealt, FirstValues, KeyShare, KeyStatus, NewKeys, RotationSchedule, ScheduleChange, Seal, SealError, SealStatus,
    SecretKey, Split, WrappedRoot,
};
use leasehold_core::seams::storage::{Batch, Change, Expect, Key, StorageError, Versioned};
use leasehold_core::{keys, random};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ring::{self, KEY_LEN, Ring};
use super::shares::{self, SHARE_LEN_MAX, SHARE_LEN_MIN};
use super::stored_key::{Moved, StoredKey};
use super::{Barrier, sealings};

/// How often, and how far apart, is looked for what a store that was away has done.
const LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const OVERTAKEN: &str = "another server has moved to another seal at the same moment: look at the seal's status, and give the shares again \
     if the migration is still pending";

/// What is stored under `sys/seal`: how the root key is split, or who else opens it. No secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SealConfig {
    /// Recovery shares where a wrapper opens the root key; then there may be none.
    pub(super) shares: u8,
    pub(super) threshold: u8,
    /// A digest of each share. A share is random, and as long as a key: nobody finds it by its digest. With these a wrong share is
    /// known before it is kept. Empty in stores from before they were kept; the next unsealing adds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) digests: Vec<String>,
    /// `None`: the shares give the root key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stored_key: Option<StoredKey>,
    /// Of the stored value.
    #[serde(skip)]
    pub(super) version: u64,
}

impl SealConfig {
    fn read(stored: &Versioned) -> Result<Self, StorageError> {
        let config: Self = serde_json::from_slice(&stored.value)
            .map_err(|_| StorageError::Corrupt(keys::seal().as_str().to_owned()))?;
        Ok(Self { version: stored.version, ..config })
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, SealError> {
        serde_json::to_vec(self).map_err(|_| broken("no configuration"))
    }

    pub(super) fn split(&self) -> Split {
        // Shares that open the root key of a seal are those of a store that has moved away from one.
        let recovery = self.stored_key.as_ref().is_some_and(|key| key.is_of_wrapper());
        let Self { shares, threshold, digests, version, .. } = self;
        Split { shares: *shares, threshold: *threshold, recovery, digests: digests.clone(), version: *version }
    }

    /// Whether this may be one of the shares. Only shares that give the root key itself may have no digest: the root key proves them.
    fn may_be_share(&self, share: &[u8]) -> bool {
        (self.digests.is_empty() && self.stored_key.is_none()) || self.digests.contains(&shares::digest(share))
    }
}

/// The shares given so far.
#[derive(Default)]
pub(super) struct Unsealing {
    parts: Vec<Zeroizing<Vec<u8>>>,
    nonce: String,
    /// What is stored is being replaced: no key of before may be made or opened meanwhile.
    pub(super) is_restoring: bool,
}

impl Unsealing {
    pub(super) fn take(&mut self) -> Vec<Zeroizing<Vec<u8>>> {
        self.nonce.clear();
        std::mem::take(&mut self.parts)
    }
}

/// What a batch puts under a key.
pub(super) fn written(batch: &Batch, key: &Key) -> Option<(Key, Vec<u8>)> {
    batch.0.iter().find_map(|change| match change {
        Change::Put { key: put, value, .. } if put == key => Some((put.clone(), value.clone())),
        _ => None,
    })
}

impl Barrier {
    /// One share, unsealed at once: for development mode and tests.
    ///
    /// # Errors
    /// As [`Seal::init`] and [`Seal::unseal`].
    pub async fn init_and_unseal_dev(&self) -> Result<KeyShare, SealError> {
        let shares = self.init(1, 1).await?;
        let Some(share) = shares.into_iter().next() else {
            return Err(broken("no share was made"));
        };
        self.unseal(&share.0).await?;
        Ok(share)
    }

    /// Reads the configuration until it is there; from then on only a restored snapshot changes it.
    pub(super) async fn seal_config(&self) -> Result<Option<Arc<SealConfig>>, SealError> {
        // While sealed, another server may restore a snapshot with other keys.
        if !self.is_sealed()
            && let Some(config) = &*self.config.read().unwrap_or_else(PoisonError::into_inner)
        {
            return Ok(Some(Arc::clone(config)));
        }
        let Some(stored) = self.inner.get(&keys::seal()).await? else { return Ok(None) };
        let config = Arc::new(SealConfig::read(&stored)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&config));
        Ok(Some(config))
    }

    /// As it is stored now, whatever is remembered.
    pub(super) async fn stored_config(&self) -> Result<SealConfig, SealError> {
        let stored = self.inner.get(&keys::seal()).await?.ok_or(SealError::NotInitialized)?;
        Ok(SealConfig::read(&stored)?)
    }

    pub(super) fn forget_config(&self) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) async fn status_with(&self, unsealing: &Unsealing) -> Result<SealStatus, SealError> {
        let config = self.seal_config().await?;
        let migration = config.as_ref().is_some_and(|config| self.is_moving(config).unwrap_or(false));
        Ok(SealStatus {
            kind: self.kind(),
            recovery: self.wrappers.current.is_some(),
            migration,
            replaces_root: migration && config.as_ref().is_some_and(|config| config.stored_key.is_none()),
            initialized: config.is_some(),
            sealed: self.is_sealed(),
            threshold: config.as_ref().map_or(0, |config| config.threshold),
            shares: config.as_ref().map_or(0, |config| config.shares),
            progress: u8::try_from(unsealing.parts.len()).unwrap_or(u8::MAX),
            nonce: unsealing.nonce.clone(),
        })
    }

    /// Opens the stored ring. Its root key is what enough right shares give.
    pub(super) async fn open_ring(&self, root: &[u8]) -> Result<(Ring, u64), SealError> {
        let key = keys::keyring();
        let Some(wrapped) = self.inner.get(&key).await? else {
            return Err(StorageError::Corrupt(key.as_str().to_owned()).into());
        };
        let wrong = wrong_share;
        let root: &[u8; KEY_LEN] = root.try_into().map_err(|_| wrong())?;
        let ring = Ring::unwrap_with(root, wrapped.value).ok_or_else(wrong)?;
        Ok((ring, wrapped.version))
    }

    /// Stores a ring, with other changes in the same commit if there are any, then uses it. The caller holds `unsealing`, so no two
    /// changes of this server meet here.
    pub(super) async fn install(&self, ring: Ring, expect: Expect, also: Vec<Change>) -> Result<(), SealError> {
        let key = keys::keyring();
        let damaged = || SealError::Storage(StorageError::Corrupt(key.as_str().to_owned()));
        let wrapped = ring.wrap(&*self.entropy).ok_or_else(|| broken("the key ring could not be wrapped"))?;
        let mut batch = Batch::new().put(key.clone(), wrapped.clone(), expect);
        batch.0.extend(also);
        // What shows that it has happened: a ring is written by every server now and then, the configuration of the seal is not.
        let shown = written(&batch, &keys::seal()).unwrap_or((key.clone(), wrapped.clone()));
        match self.inner.commit(batch).await {
            Ok(()) => {}
            Err(error @ StorageError::Unavailable(_)) if !self.is_written(&shown).await? => return Err(error.into()),
            Err(StorageError::Unavailable(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // From here on it has happened, and nothing may say otherwise.
        let ring = match self.patiently(&key).await {
            Ok(None) => return Err(damaged()),
            Ok(Some(stored)) if stored.value == wrapped => ring.stored_as(stored.version, None),
            // Another server has stored a newer one already.
            Ok(Some(stored)) => match self.unwrapped(&ring, stored.value).await {
                Ok(newer) => newer.stored_as(stored.version, Some(&ring)),
                Err(_) => ring.stored_as(0, None),
            },
            // Whoever writes next finds that it is another version, and reads it.
            Err(_) => ring.stored_as(0, None),
        };
        if self.ring().is_ok_and(|old| old.newest_id() != ring.newest_id()) {
            self.sealed_values.store(0, Ordering::Relaxed);
        }
        self.set_ring(Some(Arc::new(ring)));
        Ok(())
    }

    /// Whether a commit of which the store said nothing has happened.
    pub(super) async fn is_written(&self, (key, value): &(Key, Vec<u8>)) -> Result<bool, StorageError> {
        Ok(self.patiently(key).await?.is_some_and(|stored| stored.value == *value))
    }

    /// A value of a store that may be away for a moment.
    async fn patiently(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        for _ in 0..LOOKS {
            match self.inner.get(key).await {
                Err(StorageError::Unavailable(_)) => tokio::time::sleep(LOOK_AGAIN).await,
                known => return known,
            }
        }
        self.inner.get(key).await
    }

    /// To a configuration from before digests were kept. They hold from the next start on.
    async fn add_digests(&self, config: &SealConfig, parts: &[Zeroizing<Vec<u8>>]) {
        let Some(all) = shares::all(parts, config.shares, config.threshold) else { return };
        let digests = all.iter().map(|share| shares::digest(&share.0)).collect();
        let Ok(value) = (SealConfig { digests, ..config.clone() }).bytes() else { return };
        if let Err(error) =
            self.inner.commit(Batch::new().put(keys::seal(), value, Expect::Version(config.version))).await
        {
            tracing::warn!(%error, "could not store the digests of the shares: the next unsealing tries again");
        }
    }

    /// Whether the rows under `sys/` are those that were written. `false`: they are not, and the operator goes on with them.
    async fn has_its_rows(&self, ring: &Ring) -> Result<bool, SealError> {
        match self.check_integrity(ring).await {
            Ok(()) => Ok(true),
            Err(SealError::Invalid(why)) if self.accepts_changed_rows => {
                tracing::warn!("unsealing all the same, as the server was started with -accept-changed-storage: {why}");
                Ok(false)
            }
            Err(error) => {
                if let SealError::Invalid(why) = &error {
                    tracing::error!("{why}");
                }
                Err(error)
            }
        }
    }

    /// Opens the barrier with enough shares, of which each was one when it was given.
    async fn open_by_shares(
        &self,
        config: &SealConfig,
        parts: &[Zeroizing<Vec<u8>>],
        migrate: bool,
    ) -> Result<SealStatus, SealError> {
        let given = shares::combine(parts, config.threshold)?;
        let root = self.root_of(config, &given).await?;
        let moved = if migrate { Some(self.moved(config, parts, &given, &root).await?) } else { None };
        let unsealing = self.unsealing.lock().await;
        if unsealing.is_restoring {
            return Err(restoring());
        }
        if self.is_sealed() {
            self.open_beside_others(&*root, moved).await?;
            if migrate {
                self.forget_config();
                tracing::warn!(seal = self.kind(), "the server has moved to another seal");
            } else if config.digests.is_empty() {
                self.add_digests(config, parts).await;
            }
        }
        self.status_with(&unsealing).await
    }

    async fn has_moved_since(&self, config: &SealConfig) -> bool {
        self.seal_config().await.is_ok_and(|now| now.is_none_or(|now| now.version != config.version))
    }

    /// Opens the barrier; with a move to another seal, which is stored in the same commit. The caller holds `unsealing`.
    pub(super) async fn open_with(&self, root: &[u8], moved: Option<Moved>) -> Result<(), SealError> {
        let (ring, version) = self.open_ring(root).await?;
        let adopts = ring.is_first_format() || !self.has_its_rows(&ring).await?;
        // A block of uses is reserved before the first: what the last run used of its own is not known. What is sealed from now on
        // is sealed in the present format, which needs a key of its own.
        let next = if ring.is_used_up(0) || ring.is_first_format() {
            ring.rotated(&*self.entropy, self.inner.now().await?, 0)
        } else {
            ring.with_room(0)
        };
        let mut next = next.ok_or_else(|| broken("no key could be made"))?;
        let mut also = Vec::new();
        if adopts {
            also.push(self.adopt_rows(&next).await?);
        }
        if let Some(Moved { config, new_root }) = moved {
            also.push(config);
            if let Some(root) = new_root {
                next = next.under(root);
            }
        }
        self.install(next, Expect::Version(version), also).await?;
        tracing::info!("the barrier is unsealed");
        Ok(())
    }
}

#[async_trait]
impl Seal for Barrier {
    async fn status(&self) -> Result<SealStatus, SealError> {
        let unsealing = self.unsealing.lock().await;
        self.status_with(&unsealing).await
    }

    async fn init_with(&self, shares: u8, threshold: u8, first: FirstValues<'_>) -> Result<Vec<KeyShare>, SealError> {
        if self.seal_config().await?.is_some() {
            return Err(SealError::AlreadyInitialized);
        }
        self.check_shares(shares, threshold)?;
        let root = ring::random(&*self.entropy);
        // Another server may be asked for this: nobody else waits for it meanwhile.
        let stored_key = self.wrapped_by_current(&root).await?;
        let changing = self.unsealing.lock().await;
        if changing.is_restoring {
            return Err(restoring());
        }
        if self.seal_config().await?.is_some() {
            return Err(SealError::AlreadyInitialized);
        }
        let no_ring = || broken("the key ring could not be made");
        let ring = Ring::generate(&*self.entropy, &root, self.inner.now().await?).ok_or_else(no_ring)?;
        let first = first(&|purpose| ring.derive(purpose))?;
        // One more for the digest over them.
        let count = sealings(&first).saturating_add(1);
        let ring = ring.with_room(count).ok_or_else(no_ring)?;
        if !ring.take(count) {
            return Err(no_ring());
        }
        let mut sealed = self.seal_batch(&ring, first)?;
        let digest = self.digest_after(&ring, &sealed.0).await?;
        sealed.0.push(digest);
        let wrapped = ring.wrap(&*self.entropy).ok_or_else(no_ring)?;
        // A recovery key opens nothing: it proves who may move the server to another seal, and may open a server that was sealed.
        let split = if stored_key.is_some() { ring::random(&*self.entropy) } else { root };
        let dealt = match shares {
            0 => Vec::new(),
            _ => shares::split(&*self.entropy, &split, shares, threshold),
        };
        let digests = dealt.iter().map(|share| shares::digest(&share.0)).collect();
        let config = SealConfig { shares, threshold, digests, stored_key, version: 0 }.bytes()?;
        let batch =
            sealed.put(keys::keyring(), wrapped.clone(), Expect::Absent).put(keys::seal(), config, Expect::Absent);
        match self.inner.commit(batch).await {
            Ok(()) => Ok(dealt),
            Err(StorageError::Conflict(_)) => Err(SealError::AlreadyInitialized),
            // It may have happened all the same, and then nobody could ever unseal without these shares.
            Err(error) => match self.inner.get(&keys::keyring()).await {
                Ok(Some(stored)) if stored.value == wrapped => Ok(dealt),
                _ => Err(error.into()),
            },
        }
    }

    async fn unseal_or_migrate(&self, share: &[u8], migrate: bool) -> Result<SealStatus, SealError> {
        let mut unsealing = self.unsealing.lock().await;
        if unsealing.is_restoring {
            return Err(restoring());
        }
        let Some(config) = self.seal_config().await? else {
            return Err(SealError::NotInitialized);
        };
        if !self.is_sealed() {
            return self.status_with(&unsealing).await;
        }
        self.check_move(&config, migrate)?;
        if share.len() < SHARE_LEN_MIN {
            return Err(invalid(&format!("key is shorter than minimum {SHARE_LEN_MIN} bytes")));
        }
        if share.len() > SHARE_LEN_MAX {
            return Err(invalid(&format!("key is longer than maximum {SHARE_LEN_MAX} bytes")));
        }
        if !config.may_be_share(share) {
            return Err(wrong_share());
        }
        // The same share again is no progress.
        if unsealing.parts.iter().any(|part| part.as_slice() == share) {
            return self.status_with(&unsealing).await;
        }
        if unsealing.parts.is_empty() {
            unsealing.nonce = random::uuid(&*self.entropy);
        }
        unsealing.parts.push(Zeroizing::new(share.to_vec()));
        if unsealing.parts.len() < usize::from(config.threshold) {
            return self.status_with(&unsealing).await;
        }
        // From here on the shares are spent, right or wrong.
        let parts = unsealing.take();
        // Another server may be asked for the key: whoever asks how this one is must not wait for that.
        drop(unsealing);
        match self.open_by_shares(&config, &parts, migrate).await {
            // The shares were right for what was stored when they were given.
            Err(SealError::Invalid(_) | SealError::Storage(StorageError::Conflict(_)))
                if self.has_moved_since(&config).await =>
            {
                Err(SealError::Misconfigured(OVERTAKEN.to_owned()))
            }
            opened => opened,
        }
    }

    async fn fetch_key(&self) -> Result<(), SealError> {
        self.fetch().await
    }

    async fn unseal_fetched(&self) -> Result<SealStatus, SealError> {
        let unsealing = self.unsealing.lock().await;
        if unsealing.is_restoring {
            return Err(restoring());
        }
        self.open_fetched().await?;
        self.status_with(&unsealing).await
    }

    fn forget_fetched(&self) {
        self.take_fetched();
    }

    async fn reset(&self) -> Result<SealStatus, SealError> {
        let mut unsealing = self.unsealing.lock().await;
        drop(unsealing.take());
        self.status_with(&unsealing).await
    }

    async fn seal(&self) {
        // Waits for a rotation under way, or that would open the barrier again.
        let mut unsealing = self.unsealing.lock().await;
        drop(unsealing.take());
        self.take_fetched();
        // The keys wipe themselves when the last call that is still using them ends.
        self.set_ring(None);
        tracing::info!("the barrier is sealed");
    }

    fn is_sealed(&self) -> bool {
        self.ring().is_err()
    }

    async fn rotate(&self) -> Result<(), SealError> {
        self.add_key().await
    }

    async fn rotation_schedule(&self) -> Result<RotationSchedule, SealError> {
        self.stored_schedule().await
    }

    async fn change_rotation_schedule(&self, change: ScheduleChange) -> Result<(), SealError> {
        self.change_schedule(change).await
    }

    async fn rotate_if_due(&self) -> Result<bool, SealError> {
        self.add_key_if_due().await
    }

    async fn key_status(&self) -> Result<KeyStatus, SealError> {
        let ring = self.ring().map_err(|_| SealError::Sealed)?;
        let (term, installed_at) = ring.term();
        Ok(KeyStatus { term, installed_at, encryptions: self.sealed_values.load(Ordering::Relaxed) })
    }

    fn derive(&self, purpose: &str) -> Result<SecretKey, SealError> {
        Ok(self.ring().map_err(|_| SealError::Sealed)?.derive(purpose))
    }

    async fn split(&self) -> Result<Split, SealError> {
        self.ring().map_err(|_| SealError::Sealed)?;
        Ok(self.stored_config().await?.split())
    }

    fn share_digest(&self, share: &KeyShare) -> String {
        shares::digest(&share.0)
    }

    fn deal(&self, shares: u8, threshold: u8) -> Result<Dealt, SealError> {
        self.deal_shares(shares, threshold)
    }

    async fn wrap_fresh_key(&self) -> Result<Option<WrappedRoot>, SealError> {
        self.wrap_fresh().await
    }

    async fn adopt(&self, new: NewKeys<'_>, proved: &Split, also: Batch, hands_over: bool) -> Result<(), SealError> {
        self.adopt_keys(new, proved, also, hands_over).await
    }

    async fn follow(&self) -> Result<(), SealError> {
        self.follow_keys().await
    }

    async fn end_handover(&self) -> Result<(), SealError> {
        self.end_old_handover().await
    }
}

pub(super) fn wrong_share() -> SealError {
    SealError::Invalid(
        "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: \
         cipher: message authentication failed"
            .to_owned(),
    )
}

fn invalid(why: &str) -> SealError {
    SealError::Invalid(format!("invalid key: {why}"))
}

fn restoring() -> SealError {
    broken("a snapshot is being restored")
}

pub(super) fn broken(why: &str) -> SealError {
    SealError::Storage(StorageError::Unavailable(why.to_owned()))
}
