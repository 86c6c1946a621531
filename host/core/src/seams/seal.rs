//! The barrier's lock, its keys, and what may keep the key that opens it.

use std::fmt;

use async_trait::async_trait;
use leasehold_model::{Timestamp, Ttl};

use super::storage::{Batch, StorageError};

/// Puts together what an installation begins with. It is given what derives the keys that exist only while unsealed.
pub type FirstValues<'a> = &'a (dyn Fn(&dyn Fn(&str) -> SecretKey) -> Result<Batch, StorageError> + Send + Sync);

/// Opens and shuts the barrier. The barrier implements [`Storage`](super::storage::Storage) and this.
#[async_trait]
pub trait Seal: Send + Sync {
    async fn status(&self) -> Result<SealStatus, SealError>;
    /// Makes keys and shares; leaves the barrier shut. Once only. Where a [`KeyWrapper`] opens the barrier, the shares are recovery
    /// shares, and there may be none.
    async fn init(&self, shares: u8, threshold: u8) -> Result<Vec<KeyShare>, SealError> {
        self.init_with(shares, threshold, &|_| Ok(Batch::new())).await
    }
    /// As [`Seal::init`]; the keys are stored together with what `first` puts, in one step: a failure leaves an empty store, which
    /// can be initialised again, and never keys whose shares nobody has.
    async fn init_with(&self, shares: u8, threshold: u8, first: FirstValues<'_>) -> Result<Vec<KeyShare>, SealError>;
    /// Takes one share; opens the barrier when there are enough of them. A share that is not of this key is refused and counts for
    /// nothing: whoever gives it does not spoil those of others. `migrate` says that the shares are given to move to the seal that is
    /// configured, which the last of them does.
    async fn unseal_or_migrate(&self, share: &[u8], migrate: bool) -> Result<SealStatus, SealError>;
    /// As [`Seal::unseal_or_migrate`], without a move.
    async fn unseal(&self, share: &[u8]) -> Result<SealStatus, SealError> {
        self.unseal_or_migrate(share, false).await
    }
    /// Asks the configured [`KeyWrapper`] for the key that opens the barrier and keeps it for [`Seal::unseal_fetched`]. This may take as
    /// long as another server needs to answer, and holds nobody up.
    ///
    /// # Errors
    /// [`SealError::NotInitialized`]; [`SealError::ByShares`] where shares are what opens the barrier; [`SealError::Wrapper`].
    async fn fetch_key(&self) -> Result<(), SealError>;
    /// Opens the barrier with the key that was fetched.
    async fn unseal_fetched(&self) -> Result<SealStatus, SealError>;
    /// Wipes a key that was fetched and is not needed.
    fn forget_fetched(&self);
    /// Forgets the shares given so far.
    async fn reset(&self) -> Result<SealStatus, SealError>;
    /// Shuts the barrier and wipes the keys from memory.
    async fn seal(&self);
    fn is_sealed(&self) -> bool;
    /// Adds a key to the key ring; later writes use it.
    async fn rotate(&self) -> Result<(), SealError>;
    /// When the newest key is replaced by itself, as stored at this moment.
    async fn rotation_schedule(&self) -> Result<RotationSchedule, SealError>;
    /// Changes what is stored at this moment: two servers that change different fields of it lose neither.
    async fn change_rotation_schedule(&self, change: ScheduleChange) -> Result<(), SealError>;
    /// Adds a key to the key ring if the newest is older than the schedule allows; whether it did.
    async fn rotate_if_due(&self) -> Result<bool, SealError>;
    /// Term and install time of the newest key, and how many values it has sealed since this start.
    async fn key_status(&self) -> Result<KeyStatus, SealError>;
    /// 32 bytes that never change and exist only while unsealed, derived for one purpose (`token`, `audit`, …).
    fn derive(&self, purpose: &str) -> Result<SecretKey, SealError>;
    /// The shares that people prove themselves by, as they are stored at this moment: another server may have replaced them.
    async fn split(&self) -> Result<Split, SealError>;
    /// Names a share without saying anything about it: what [`Split::digests`] has of it.
    fn share_digest(&self, share: &KeyShare) -> String;
    /// Shares of a fresh key. They open nothing and prove nothing until they are [adopted](Seal::adopt).
    fn deal(&self, shares: u8, threshold: u8) -> Result<Dealt, SealError>;
    /// A fresh root key that the configured [`KeyWrapper`] has wrapped; it is nobody's until it is [adopted](Seal::adopt). This may take as
    /// long as another server needs to answer. None where shares open the barrier.
    ///
    /// # Errors
    /// [`SealError::Wrapper`]
    async fn wrap_fresh_key(&self) -> Result<Option<WrappedRoot>, SealError>;
    /// Puts new keys in the place of the present ones, in one commit with `also`: either everything has happened, or nothing. `proved`
    /// are the shares that allowed it, which must still be the present ones. `hands_over`: other servers may work over this store, and
    /// must be able to follow.
    ///
    /// # Errors
    /// [`SealError::Invalid`] where the present shares are others by now; `Conflict` where `also` does not fit any more.
    async fn adopt(&self, new: NewKeys<'_>, proved: &Split, also: Batch, hands_over: bool) -> Result<(), SealError>;
    /// Follows another server that has replaced the keys.
    ///
    /// # Errors
    /// `Corrupt` where this server was cut off for too long.
    async fn follow(&self) -> Result<(), SealError>;
    /// Takes away what was left for other servers so that they could follow, once it has been there for a day.
    async fn end_handover(&self) -> Result<(), SealError>;
}

/// Wraps the key that opens the barrier with a key that is kept elsewhere: in a file, by another server. A KMS or an HSM would be one
/// more of these.
///
/// It is asked at init, at unsealing, at a migration and when the root key is replaced; otherwise never by a server that is unsealed.
#[async_trait]
pub trait KeyWrapper: Send + Sync {
    /// Its name in the configuration and in `sys/seal-status`.
    fn kind(&self) -> &'static str;
    /// # Errors
    /// [`WrapperError`]
    async fn wrap(&self, plain: &SecretKey) -> Result<WrappedKey, WrapperError>;
    /// # Errors
    /// [`WrapperError`]
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<SecretKey, WrapperError>;
    /// Whether it may wrap with a newer key by now than the one that wrapped this.
    fn may_be_outdated(&self, wrapped: &WrappedKey) -> bool;
    /// Keeps up what it needs, for as long as the server runs: the lifetime of a token, for example. May end at once.
    async fn keep(&self) {}
}

/// What a [`KeyWrapper`] made of a key. No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Names the key that wrapped it, for people and for a wrapper that has several.
    pub key_id: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum WrapperError {
    /// It does not answer now; it may later.
    #[error("{0}")]
    Away(String),
    /// It answers, and does not do this: it has another key, or it may not. Somebody has to change something.
    #[error("{0}")]
    Refused(String),
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

/// How the root key is split, or the recovery key where a [`KeyWrapper`] opens the barrier. No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// 0 where there are no recovery shares.
    pub shares: u8,
    pub threshold: u8,
    pub recovery: bool,
    /// Of each share. With these a wrong share is known when it is given.
    pub digests: Vec<String>,
    /// Of the stored value [`keys::seal`](crate::keys::seal), for commits that hold only as long as the shares do.
    pub version: u64,
}

impl Split {
    /// Bytes of the shortest and the longest share; Vault's numbers.
    pub const SHARE_LEN_MIN: usize = 16;
    pub const SHARE_LEN_MAX: usize = 33;
    /// Said where others are the present ones than those that allowed something.
    pub const REPLACED: &str = "the key shares were replaced meanwhile: begin anew, with the present ones";
}

/// Shares of a fresh key.
#[derive(Debug)]
pub struct Dealt {
    pub key: SecretKey,
    pub threshold: u8,
    /// Of each share.
    pub digests: Vec<String>,
    /// Empty where they have been handed out already.
    pub shares: Vec<KeyShare>,
}

/// A fresh root key.
#[derive(Debug)]
pub struct WrappedRoot {
    pub key: SecretKey,
    /// The kind of the [`KeyWrapper`] that has wrapped it.
    pub kind: &'static str,
    pub wrapped: WrappedKey,
}

/// Which keys are replaced.
#[derive(Debug)]
pub enum NewKeys<'a> {
    /// The root key becomes this one, and its shares open the barrier. Where shares do.
    Root(&'a Dealt),
    /// The root key becomes this one, which the configured [`KeyWrapper`] has wrapped. The recovery shares stay.
    Wrapped(&'a WrappedRoot),
    /// These become the recovery shares.
    Recovery(&'a Dealt),
}

#[derive(Clone, Debug, Default)]
pub struct SealStatus {
    /// Of the configured seal: `shamir`, or what its [`KeyWrapper`] is called.
    pub kind: &'static str,
    /// The shares are recovery shares: a [`KeyWrapper`] opens the barrier.
    pub recovery: bool,
    /// Another seal is configured than the one that what is stored was sealed with: shares must be given to move.
    pub migration: bool,
    /// That move replaces the root key, which other servers that are unsealed could not follow.
    pub replaces_root: bool,
    pub initialized: bool,
    pub sealed: bool,
    pub threshold: u8,
    pub shares: u8,
    pub progress: u8,
    /// Names the unsealing under way; empty when none is.
    pub nonce: String,
}

/// When the key that seals new values is replaced by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationSchedule {
    /// Without it only [`Self::OPERATIONS_MAX`] holds, as always.
    pub enabled: bool,
    /// Zero: a key is never too old.
    pub interval: Ttl,
    /// How many values a key seals, over all servers.
    pub max_operations: u64,
}

impl RotationSchedule {
    pub const INTERVAL_MIN: Ttl = Ttl::from_secs(86_400);
    pub const OPERATIONS_MIN: u64 = 1_000_000;
    /// Nine tenths of the 2³² after which random nonces may meet (NIST SP 800-38D). Vault has the same number.
    pub const OPERATIONS_MAX: u64 = 3_865_470_566;

    /// What a key seals at most.
    #[must_use]
    pub fn seals_max(&self) -> u64 {
        if self.enabled { self.max_operations.min(Self::OPERATIONS_MAX) } else { Self::OPERATIONS_MAX }
    }
}

/// What is to be changed of a [`RotationSchedule`]; the rest stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduleChange {
    pub enabled: Option<bool>,
    pub interval: Option<Ttl>,
    pub max_operations: Option<u64>,
}

impl ScheduleChange {
    #[must_use]
    pub fn of(&self, schedule: RotationSchedule) -> RotationSchedule {
        RotationSchedule {
            enabled: self.enabled.unwrap_or(schedule.enabled),
            interval: self.interval.unwrap_or(schedule.interval),
            max_operations: self.max_operations.unwrap_or(schedule.max_operations),
        }
    }
}

impl Default for RotationSchedule {
    fn default() -> Self {
        Self { enabled: true, interval: Ttl::ZERO, max_operations: Self::OPERATIONS_MAX }
    }
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
    /// What is configured and what is stored do not go together: the text says what to change.
    #[error("{0}")]
    Misconfigured(String),
    /// Nothing can be fetched: shares open the barrier.
    #[error("key shares open this seal")]
    ByShares,
    #[error("the seal `{kind}`: {source}")]
    Wrapper { kind: &'static str, source: WrapperError },
    #[error(transparent)]
    Storage(#[from] StorageError),
}
