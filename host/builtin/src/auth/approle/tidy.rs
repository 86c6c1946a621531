//! Removing what is left of secret ids that have expired and of roles that are gone.
//!
//! Nothing depends on it: whatever it would remove is refused already. It only keeps the storage small.

use leasehold_core::seams::auth::AuthContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::{Expect, StorageError};

use super::secret_id::{SecretId, accessor_key, secret_key};
use super::uid_key;
use crate::auth::load;

/// How many names one step reads.
const PAGE: u32 = 500;

/// Goes through all secret ids and accessors of a mount; how many it removed.
pub(super) async fn tidy(at: &AuthContext) -> Result<u64, RequestError> {
    let mut removed = 0;
    let mut after: Option<String> = None;
    loop {
        let page = at.storage.list("secret/", after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for name in &page {
            removed += u64::from(tidy_secret(at, name).await?);
        }
    }
    after = None;
    loop {
        let page = at.storage.list("accessor/", after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(removed) };
        after = Some(last.clone());
        for name in &page {
            removed += u64::from(tidy_accessor(&at.storage, name).await?);
        }
    }
}

async fn commit(storage: &MountStorage, batch: MountBatch) -> Result<bool, RequestError> {
    match storage.commit(batch).await {
        Ok(()) => Ok(true),
        // It has changed meanwhile: the next tidying looks again.
        Err(StorageError::Conflict(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

async fn tidy_secret(at: &AuthContext, name: &str) -> Result<bool, RequestError> {
    let Some((uid, hash)) = name.split_once('/') else { return Ok(false) };
    let key = secret_key(uid, hash);
    let Some((entry, version)) = load::<SecretId>(&at.storage, &key).await? else { return Ok(false) };
    // A role stands in storage before its secret ids do.
    let has_role = at.storage.get(&uid_key(uid)).await?.is_some();
    if has_role && !entry.is_expired(at.clock.now()) {
        return Ok(false);
    }
    let batch = MountBatch::new()
        .delete(key, Expect::Version(version))
        .delete(accessor_key(uid, &entry.accessor), Expect::Anything);
    commit(&at.storage, batch).await
}

async fn tidy_accessor(storage: &MountStorage, name: &str) -> Result<bool, RequestError> {
    let Some((uid, accessor)) = name.split_once('/') else { return Ok(false) };
    let key = accessor_key(uid, accessor);
    let Some(stored) = storage.get(&key).await? else { return Ok(false) };
    let secret = secret_key(uid, &String::from_utf8_lossy(&stored.value));
    if storage.get(&secret).await?.is_some() {
        return Ok(false);
    }
    let batch = MountBatch::new().check(secret, Expect::Absent).delete(key, Expect::Version(stored.version));
    commit(storage, batch).await
}
