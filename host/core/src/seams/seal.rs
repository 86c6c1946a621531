//! The barrier's lock, and its keys.

use std::fmt;

use async_trait::async_trait;
use leasehold_model::Timestamp;

use super::storage::{Batch, StorageError};

/// Puts together what an installation begins with. It is given what derives the keys that exist only while unsealed.
pub type FirstValues<'a> = &'a (dyn Fn(&dyn Fn(&str) -> SecretKey) -> Result<Batch, StorageError> + Send + Sync);

/// Opens and shuts the barrier. The barrier implements [`Storage`](super::storage::Storage) and this.
#[async_trait]
pub trait Seal: Send + Sync {
    async fn status(&self) -> Result<SealStatus, SealError>;
    /// Makes keys and shares; leaves the barrier shut. Once only.
    async fn init(&self, shares: u8, threshold: u8) -> Result<Vec<KeyShare>, SealError> {
        self.init_with(shares, threshold, &|_| Ok(Batch::new())).await
    }
    /// As [`Seal::init`]; the keys are stored together with what `first` puts, in one step: a failure leaves an empty store, which
    /// can be initialised again, and never keys whose shares nobody has.
    async fn init_with(&self, shares: u8, threshold: u8, first: FirstValues<'_>) -> Result<Vec<KeyShare>, SealError>;
    /// Takes one share; opens the barrier when there are enough of them. A share that is not of this key is refused and counts for
    /// nothing: whoever gives it does not spoil those of others.
    async fn unseal(&self, share: &[u8]) -> Result<SealStatus, SealError>;
    /// Forgets the shares given so far.
    async fn reset(&self) -> Result<SealStatus, SealError>;
    /// Shuts the barrier and wipes the keys from memory.
    async fn seal(&self);
    fn is_sealed(&self) -> bool;
    /// Adds a key to the key ring; later writes use it.
    async fn rotate(&self) -> Result<(), SealError>;
    /// Term and install time of the newest key, and how many values it has sealed since this start.
    async fn key_status(&self) -> Result<KeyStatus, SealError>;
    /// 32 bytes that never change and exist only while unsealed, derived for one purpose (`token`, `audit`, …).
    fn derive(&self, purpose: &str) -> Result<SecretKey, SealError>;
}

/// 32 secret bytes.
pub struct SecretKey(pub zeroize::Zeroizing<[u8; 32]>);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey([REDACTED])")
    }
}

/// One share of the root key.
pub struct KeyShare(pub zeroize::Zeroizing<Vec<u8>>);

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyShare([REDACTED])")
    }
}

#[derive(Clone, Debug, Default)]
pub struct SealStatus {
    pub initialized: bool,
    pub sealed: bool,
    pub threshold: u8,
    pub shares: u8,
    pub progress: u8,
    /// Names the unsealing under way; empty when none is.
    pub nonce: String,
}

#[derive(Clone, Debug)]
pub struct KeyStatus {
    pub term: u32,
    pub installed_at: Timestamp,
    pub encryptions: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("Vault is already initialized")]
    AlreadyInitialized,
    #[error("Vault is not initialized")]
    NotInitialized,
    #[error("Vault is sealed")]
    Sealed,
    /// The client's mistake, in Vault's words.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}
