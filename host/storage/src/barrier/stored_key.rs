//! Who opens the root key: shares, or a wrapper that the configuration names; and the moves from one to another.
//!
//! A root key that is not put together from shares is stored wrapped, beside the configuration of the seal, under `sys/seal`. A move
//! to another seal is one commit: whatever ends the server, the old seal opens the store or the new one does.
//!
//! Start with [`StoredKey`], then `fetch` (the way without people) and `moved` (the way with their shares).

use std::sync::{Arc, PoisonError};

use leasehold_core::keys;
use leasehold_core::seams::seal::{KeyWrapper, SealError, SecretKey, WrappedKey};
use leasehold_core::seams::storage::{Batch, Change, Expect, StorageError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ring::{self, KEY_LEN};
use super::seal::{SealConfig, broken, wrong_share};
use super::{Barrier, TRIES, shares};

/// What Vault calls the seal that shares open.
pub(super) const SHAMIR: &str = "shamir";

type RootKey = Zeroizing<[u8; KEY_LEN]>;

/// The wrapped root key. No secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredKey {
    /// Who unwraps it. [`SHAMIR`]: the key that the shares give.
    kind: String,
    key_id: String,
    /// In hex.
    wrapped: String,
}

impl StoredKey {
    pub(super) fn new(kind: &str, wrapped: &WrappedKey) -> Self {
        Self { kind: kind.to_owned(), key_id: wrapped.key_id.clone(), wrapped: hex::encode(&wrapped.bytes) }
    }

    /// Whether a wrapper unwraps it, and not what shares give.
    pub(super) fn is_of_wrapper(&self) -> bool {
        self.kind != SHAMIR
    }

    fn wrapped(&self) -> Result<WrappedKey, StorageError> {
        let damaged = |_| StorageError::Corrupt(keys::seal().as_str().to_owned());
        Ok(WrappedKey { key_id: self.key_id.clone(), bytes: hex::decode(&self.wrapped).map_err(damaged)? })
    }
}

impl SealConfig {
    /// Who opens what is stored.
    fn kind(&self) -> &str {
        self.stored_key.as_ref().map_or(SHAMIR, |key| &key.kind)
    }
}

/// What the configuration names.
#[derive(Default)]
pub(super) struct Wrappers {
    pub(super) current: Option<Arc<dyn KeyWrapper>>,
    /// Opened the barrier before.
    pub(super) disabled: Option<Arc<dyn KeyWrapper>>,
}

/// The root key on its way from a wrapper into the barrier.
pub(super) struct Fetched {
    root: RootKey,
    config: Arc<SealConfig>,
    /// Wrapped with a newer key than the one that is stored.
    renewed: Option<WrappedKey>,
}

/// A move to another seal, to be stored in the commit that opens the barrier.
#[derive(Clone)]
pub(super) struct Moved {
    pub(super) config: Change,
    /// Where the shares gave the root key itself, they must not do so any more.
    pub(super) new_root: Option<RootKey>,
}

impl Barrier {
    pub(super) fn kind(&self) -> &'static str {
        self.wrappers.current.as_ref().map_or(SHAMIR, |wrapper| wrapper.kind())
    }

    /// Whether what is stored has to be moved to the configured seal before it can be opened without a move.
    pub(super) fn is_moving(&self, config: &SealConfig) -> Result<bool, SealError> {
        let (stored, wanted) = (config.kind(), self.kind());
        if stored == wanted {
            return Ok(false);
        }
        let is_there = stored == SHAMIR || self.wrappers.disabled.as_ref().is_some_and(|old| old.kind() == stored);
        if is_there {
            return Ok(true);
        }
        // Vault's words, which it refuses to start with.
        let to = if wanted == SHAMIR { "Shamir".to_owned() } else { format!("\"{wanted}\"") };
        Err(SealError::Misconfigured(format!(
            "cannot seal migrate from \"{stored}\" to {to}, no disabled seal in configuration: put the block `seal \"{stored}\"` into the \
             configuration, with `disabled = \"true\"` to move away from it"
        )))
    }

    /// Whoever gives shares must know whether they move the server to another seal.
    pub(super) fn check_move(&self, config: &SealConfig, migrate: bool) -> Result<(), SealError> {
        let why = match (migrate, self.is_moving(config)?) {
            (true, false) => "can't perform a seal migration, no migration seal found",
            (false, true) => "migrate option not provided and seal migration is pending",
            _ if config.shares == 0 => {
                "there are no recovery keys: the server was initialized without any, and only its seal opens it"
            }
            _ => return Ok(()),
        };
        Err(SealError::Misconfigured(why.to_owned()))
    }

    pub(super) fn check_shares(&self, count: u8, threshold: u8) -> Result<(), SealError> {
        match self.wrappers.current {
            Some(_) if count == 0 && threshold == 0 => Ok(()),
            Some(_) => shares::check(count, threshold, "recovery"),
            None => shares::check(count, threshold, "seal"),
        }
    }

    /// `None`: shares open the root key.
    pub(super) async fn wrapped_by_current(&self, root: &RootKey) -> Result<Option<StoredKey>, SealError> {
        let wrapped = self.wrapped_by(&SecretKey(root.clone())).await?;
        Ok(wrapped.map(|(kind, wrapped)| StoredKey::new(kind, &wrapped)))
    }

    /// By which kind of wrapper, and what it made of the key.
    pub(super) async fn wrapped_by(&self, key: &SecretKey) -> Result<Option<(&'static str, WrappedKey)>, SealError> {
        let Some(wrapper) = &self.wrappers.current else { return Ok(None) };
        let wrapped = wrapper.wrap(key).await.map_err(|error| failed(wrapper, error))?;
        Ok(Some((wrapper.kind(), wrapped)))
    }

    /// The root key, from the key that enough shares gave.
    pub(super) async fn root_of(&self, config: &SealConfig, given: &[u8]) -> Result<RootKey, SealError> {
        let given: RootKey = given.try_into().map(Zeroizing::new).map_err(|_| wrong_share())?;
        let Some(stored) = &config.stored_key else { return Ok(given) };
        let wrapped = stored.wrapped()?;
        if stored.kind == SHAMIR {
            return ring::unwrap_root(&given, wrapped.bytes).ok_or_else(wrong_share);
        }
        // The digests of the shares have proved who gave them; the wrapper does the rest.
        let wrappers = [&self.wrappers.current, &self.wrappers.disabled];
        let wrapper = wrappers.into_iter().flatten().find(|wrapper| wrapper.kind() == stored.kind);
        let wrapper = wrapper.ok_or_else(|| broken("no seal of that kind is configured"))?;
        Ok(wrapper.unwrap(&wrapped).await.map_err(|error| failed(wrapper, error))?.0)
    }

    /// What is stored when the server has moved to the configured seal. The shares stay the same.
    pub(super) async fn moved(
        &self,
        config: &SealConfig,
        parts: &[Zeroizing<Vec<u8>>],
        given: &[u8],
        root: &RootKey,
    ) -> Result<Moved, SealError> {
        let mut new_root = None;
        let stored_key = if self.wrappers.current.is_some() {
            if config.stored_key.is_none() {
                // Checked before the root key goes: with wrong shares nothing is done.
                self.open_ring(&**root).await?;
                new_root = Some(ring::random(&*self.entropy));
            }
            self.wrapped_by_current(new_root.as_ref().unwrap_or(root)).await?
        } else {
            let key: RootKey = given.try_into().map(Zeroizing::new).map_err(|_| wrong_share())?;
            let bytes = ring::wrap_root(&*self.entropy, &key, root);
            let bytes = bytes.ok_or_else(|| broken("the root key could not be wrapped"))?;
            Some(StoredKey::new(SHAMIR, &WrappedKey { key_id: String::new(), bytes }))
        };
        let mut config = SealConfig { stored_key, ..config.clone() };
        if config.digests.is_empty() {
            let all = shares::all(parts, config.shares, config.threshold).ok_or_else(wrong_share)?;
            config.digests = all.iter().map(|share| shares::digest(&share.0)).collect();
        }
        let expect = Expect::Version(config.version);
        Ok(Moved { config: Change::Put { key: keys::seal(), value: config.bytes()?, expect }, new_root })
    }

    /// Asks the wrapper for the root key.
    pub(super) async fn fetch(&self) -> Result<(), SealError> {
        let config = self.seal_config().await?.ok_or(SealError::NotInitialized)?;
        if self.is_moving(&config)? {
            return Err(SealError::ByShares);
        }
        let (Some(wrapper), Some(stored)) = (&self.wrappers.current, &config.stored_key) else {
            return Err(SealError::ByShares);
        };
        let wrapped = stored.wrapped()?;
        let root = wrapper.unwrap(&wrapped).await.map_err(|error| failed(wrapper, error))?;
        let mut renewed = None;
        if wrapper.may_be_outdated(&wrapped) {
            match wrapper.wrap(&root).await {
                Ok(newer) if newer.key_id != wrapped.key_id => renewed = Some(newer),
                Ok(_) => {}
                Err(error) => tracing::warn!(
                    seal = wrapper.kind(), %error,
                    "the seal could not wrap the stored key anew; the next unsealing tries again"
                ),
            }
        }
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Fetched { root: root.0, config, renewed });
        Ok(())
    }

    /// Opens the barrier with what was fetched. The caller holds `unsealing`.
    pub(super) async fn open_fetched(&self) -> Result<(), SealError> {
        let fetched = self.take_fetched();
        if self.ring().is_ok() {
            return Ok(());
        }
        let fetched = fetched.ok_or_else(|| broken("the seal was not asked for the key"))?;
        self.open_beside_others(&*fetched.root, None).await?;
        if let Some(renewed) = &fetched.renewed {
            self.store_renewed(&fetched.config, renewed).await;
        }
        Ok(())
    }

    /// As [`Barrier::open_with`], also when other servers open themselves at the same moment. The caller holds `unsealing`.
    pub(super) async fn open_beside_others(&self, root: &[u8], moved: Option<Moved>) -> Result<(), SealError> {
        for _ in 0..TRIES {
            match self.open_with(root, moved.clone()).await {
                Err(SealError::Storage(StorageError::Conflict(key))) if key != keys::seal().as_str() => {}
                done => return done,
            }
        }
        Err(broken("the key ring changes all the time"))
    }

    async fn store_renewed(&self, config: &SealConfig, renewed: &WrappedKey) {
        let stored_key = Some(StoredKey::new(self.kind(), renewed));
        let config = SealConfig { stored_key, ..config.clone() };
        let Ok(value) = config.bytes() else { return };
        let batch = Batch::new().put(keys::seal(), value, Expect::Version(config.version));
        match self.inner.commit(batch).await {
            Ok(()) => {
                tracing::info!(seal = self.kind(), key = renewed.key_id, "the stored key is wrapped with a newer key")
            }
            Err(error) => tracing::warn!(
                seal = self.kind(), %error,
                "the key that was wrapped anew could not be stored; the next unsealing tries again"
            ),
        }
        self.forget_config();
    }

    pub(super) fn take_fetched(&self) -> Option<Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn failed(wrapper: &Arc<dyn KeyWrapper>, source: leasehold_core::seams::seal::WrapperError) -> SealError {
    SealError::Wrapper { kind: wrapper.kind(), source }
}
