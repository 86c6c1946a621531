//! User lockout: how many logins in a row have failed for a name, and which names are locked because of that.
//!
//! Must not know: how a method checks a proof.
//!
//! Start with [`Lockouts`]. Each server counts failures in its memory ([`counts`]); a name that they lock is stored ([`stored`]), so that
//! every server refuses it, also after a restart. Failures cost the store nothing until then, whoever makes them. A name is counted whether
//! or not it exists, so that a lock tells nobody which names there are.
//!
//! Invariants: the place that failures and locks take is bounded, for each mount by itself. A proof that was found good while its name
//! became locked counts as refused.

mod counts;
mod stored;

use std::sync::Arc;

use leasehold_model::{MountAccessor, Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use crate::seams::seal::SecretKey;
use crate::seams::storage::{Storage, StorageError};
use counts::Counts;
use stored::StoredLocks;

/// The longest name that is counted: no method lets a longer one exist.
const NAME_LEN_MAX: usize = 4_096;

/// When a name becomes locked, and for how long. A mount's tuning may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutRules {
    /// So many failures in a row lock a name.
    pub threshold: u32,
    /// How long a name stays locked after its last failure.
    pub duration: Ttl,
    /// A failure is forgotten when so much time has passed without another.
    pub counter_reset: Ttl,
    pub is_disabled: bool,
}

impl Default for LockoutRules {
    /// Vault's defaults.
    fn default() -> Self {
        Self {
            threshold: 5,
            duration: Ttl::from_secs(15 * 60),
            counter_reset: Ttl::from_secs(15 * 60),
            is_disabled: false,
        }
    }
}

/// Failed logins under one name, in a row.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last_at: Timestamp,
}

impl LockoutRules {
    fn locks(&self, failures: Failures, now: Timestamp) -> bool {
        !self.is_disabled && failures.count >= self.threshold && now < failures.last_at + self.duration
    }

    /// Whether failures that lie so far back still count.
    fn remembers(&self, failures: Failures, now: Timestamp) -> bool {
        now < failures.last_at + self.counter_reset.max(self.duration)
    }
}

/// Failed logins and locked names of all mounts.
#[derive(Debug)]
pub struct Lockouts {
    counts: Counts,
    stored: StoredLocks,
}

impl Lockouts {
    /// `key` spreads names over the rows of the store.
    pub(crate) fn new(storage: Arc<dyn Storage>, key: &SecretKey) -> Self {
        Self { counts: Counts::default(), stored: StoredLocks::new(storage, key) }
    }

    /// Whether logins under a name are refused without a look at their proof.
    ///
    /// # Errors
    /// As storage.
    pub async fn is_locked(
        &self,
        mount: &MountAccessor,
        name: &str,
        rules: &LockoutRules,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        // Here while it is on its way to the store.
        Ok(!rules.is_disabled
            && (self.counts.is_locked(mount, name, rules, now)
                || self.stored.is_locked(mount, name, rules, now).await?))
    }

    /// Counts a failed login, and stores the lock that follows from it.
    ///
    /// # Errors
    /// As storage: then the name is locked on this server.
    pub async fn failed(
        &self,
        mount: &MountAccessor,
        name: &str,
        rules: &LockoutRules,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        if self.counts.failed(mount, name, rules, now) {
            self.stored.lock(mount, name, rules, now).await?;
            self.counts.forget(mount, name);
        }
        Ok(())
    }

    /// A login under this name succeeded.
    pub fn succeeded(&self, mount: &MountAccessor, name: &str) {
        self.counts.forget(mount, name);
    }

    /// An operator unlocks a name.
    ///
    /// # Errors
    /// As storage.
    pub async fn unlock(&self, mount: &MountAccessor, name: &str) -> Result<(), StorageError> {
        self.counts.forget(mount, name);
        self.stored.unlock(mount, name).await
    }

    /// The mount is gone, and what it has stored.
    pub fn forget_mount(&self, mount: &MountAccessor) {
        self.counts.forget_mount(mount);
    }

    /// The locked names of a mount, in order.
    ///
    /// # Errors
    /// As storage.
    pub async fn locked(
        &self,
        mount: &MountAccessor,
        rules: &LockoutRules,
        now: Timestamp,
    ) -> Result<Vec<String>, StorageError> {
        if rules.is_disabled { Ok(Vec::new()) } else { self.stored.locked(mount, rules, now).await }
    }
}
