//! Locks as they are stored: some rows for each mount, each with the locks of many names, so that a flood of names takes a bounded place.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use leasehold_model::{MountAccessor, Timestamp};
use serde::{Deserialize, Serialize};

use super::LockoutRules;
use crate::codec::{decode, encode};
use crate::keys;
use crate::seams::seal::SecretKey;
use crate::seams::storage::{Batch, Expect, Key, Storage, StorageError};

/// Locks in one of the 256 rows of a mount. Beyond that, those that end first are forgotten.
const LOCKS_MAX: usize = 40;
/// How often a row is read again that others write at the same time.
const TRIES_MAX: u32 = 20;

pub(super) struct StoredLocks {
    storage: Arc<dyn Storage>,
    /// Nobody can choose names that meet in one row.
    key: hmac::Key,
}

impl fmt::Debug for StoredLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredLocks")
    }
}

/// One locked name, which may be a password that somebody typed into the wrong field: it is never printed.
#[derive(Serialize, Deserialize)]
struct Lock {
    name: String,
    /// Its last failure.
    last_at: Timestamp,
}

impl Lock {
    fn holds(&self, rules: &LockoutRules, now: Timestamp) -> bool {
        now < self.last_at + rules.duration
    }
}

impl StoredLocks {
    pub fn new(storage: Arc<dyn Storage>, key: &SecretKey) -> Self {
        Self { storage, key: hmac::Key::new(hmac::HMAC_SHA256, key.0.as_slice()) }
    }

    fn row(&self, mount: &MountAccessor, name: &str) -> Key {
        let row = hmac::sign(&self.key, name.as_bytes()).as_ref().first().copied().unwrap_or_default();
        keys::mount_data(mount, &format!("lockout/{row:02x}"))
    }

    async fn read(&self, row: &Key) -> Result<(Vec<Lock>, Expect), StorageError> {
        match self.storage.get(row).await? {
            Some(found) => Ok((decode(row.as_str(), &found.value)?, Expect::Version(found.version))),
            None => Ok((Vec::new(), Expect::Absent)),
        }
    }

    pub async fn is_locked(
        &self,
        mount: &MountAccessor,
        name: &str,
        rules: &LockoutRules,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let (locks, _) = self.read(&self.row(mount, name)).await?;
        Ok(locks.iter().any(|lock| lock.name == name && lock.holds(rules, now)))
    }

    pub async fn lock(
        &self,
        mount: &MountAccessor,
        name: &str,
        rules: &LockoutRules,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.change(mount, name, |locks| {
            locks.retain(|lock| lock.name != name && lock.holds(rules, now));
            locks.sort_unstable_by_key(|lock| lock.last_at);
            locks.drain(..(locks.len() + 1).saturating_sub(LOCKS_MAX));
            locks.push(Lock { name: name.to_owned(), last_at: now });
        })
        .await
    }

    pub async fn unlock(&self, mount: &MountAccessor, name: &str) -> Result<(), StorageError> {
        self.change(mount, name, |locks| locks.retain(|lock| lock.name != name)).await
    }

    async fn change(
        &self,
        mount: &MountAccessor,
        name: &str,
        change: impl Fn(&mut Vec<Lock>),
    ) -> Result<(), StorageError> {
        let row = self.row(mount, name);
        let mut tries = TRIES_MAX;
        loop {
            let (mut locks, expect) = self.read(&row).await?;
            let before = locks.len();
            change(&mut locks);
            let batch = match locks.is_empty() {
                true if before == 0 => return Ok(()),
                true => Batch::new().delete_expecting(row.clone(), expect),
                // A mount that goes meanwhile takes everything with it.
                false => Batch::new()
                    .put(row.clone(), encode(&locks)?, expect)
                    .check(keys::mount("auth", mount), Expect::Present)
                    .check(keys::mount_taint(mount), Expect::Absent),
            };
            tries -= 1;
            match self.storage.commit(batch).await {
                Err(StorageError::Conflict(_)) if tries > 0 => {}
                other => return other,
            }
        }
    }

    pub async fn locked(
        &self,
        mount: &MountAccessor,
        rules: &LockoutRules,
        now: Timestamp,
    ) -> Result<Vec<String>, StorageError> {
        let mut names = Vec::new();
        for row in self.storage.scan(&keys::mount_data(mount, "lockout/"), None, 256).await? {
            let (locks, _) = self.read(&row).await?;
            names.extend(locks.into_iter().filter(|lock| lock.holds(rules, now)).map(|lock| lock.name));
        }
        names.sort_unstable();
        Ok(names)
    }
}
