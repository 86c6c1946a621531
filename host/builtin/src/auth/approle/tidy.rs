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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use leasehold_core::seams::auth::AuthMethod;
    use leasehold_core::seams::engine::MountView;
    use leasehold_core::testing::{CountingEntropy, ManualClock};
    use leasehold_model::{MountAccessor, Ttl};
    use leasehold_storage::MemoryStorage;

    use super::*;
    use crate::auth::approle::AppRole;
    use crate::auth::encode;

    fn mount(clock: &Arc<ManualClock>) -> AuthContext {
        let accessor = MountAccessor::new("auth_approle_1");
        AuthContext {
            storage: MountStorage::new(Arc::new(MemoryStorage::new(clock.clone())), accessor.clone()),
            clock: clock.clone(),
            entropy: Arc::new(CountingEntropy::default()),
            mount: MountView {
                path: "auth/approle/".parse().unwrap(),
                accessor,
                default_lease_ttl: Ttl::from_secs(60),
                max_lease_ttl: Ttl::from_secs(60),
                options: BTreeMap::new(),
                installation: "test".to_owned(),
            },
        }
    }

    /// A secret id of the role with this uid, which has so many seconds to live; none: for ever.
    async fn add(at: &AuthContext, uid: &str, hash: &str, ttl: Option<u64>) {
        let now = at.clock.now();
        let entry = SecretId {
            accessor: format!("a-{hash}"),
            num_uses: 0,
            ttl: Ttl::from_secs(ttl.unwrap_or(0)),
            created_at: now,
            expires_at: ttl.map(|secs| now + Ttl::from_secs(secs)),
            updated_at: now,
            metadata: BTreeMap::new(),
            cidr_list: Vec::new(),
            token_bound_cidrs: Vec::new(),
        };
        let batch = MountBatch::new().put(secret_key(uid, hash), encode(&entry).unwrap(), Expect::Absent).put(
            accessor_key(uid, &entry.accessor),
            hash.as_bytes().to_vec(),
            Expect::Absent,
        );
        at.storage.commit(batch).await.unwrap();
    }

    async fn names(at: &AuthContext) -> Vec<String> {
        let mut names = at.storage.list("secret/", None, 100).await.unwrap();
        names.extend(at.storage.list("accessor/", None, 100).await.unwrap());
        names
    }

    #[tokio::test]
    async fn the_job_removes_what_is_good_for_nothing_and_nothing_else() {
        let clock = Arc::new(ManualClock::at(1_000));
        let at = mount(&clock);
        let role = MountBatch::new().put(uid_key("r"), Vec::new(), Expect::Absent);
        at.storage.commit(role).await.unwrap();
        add(&at, "r", "lives", None).await;
        add(&at, "r", "longer", Some(60)).await;
        add(&at, "r", "over", Some(30)).await;
        // Of a role that is gone.
        add(&at, "g", "lost", None).await;
        // An accessor whose secret id was used up.
        let left = MountBatch::new().put(accessor_key("r", "a-used"), b"used".to_vec(), Expect::Absent);
        at.storage.commit(left).await.unwrap();
        clock.advance(std::time::Duration::from_secs(30));

        let method = AppRole::new();
        let jobs = method.jobs();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        for _ in 0..2 {
            method.run_job(&at, jobs[0].name).await.unwrap();
            assert_eq!(names(&at).await, ["r/lives", "r/longer", "r/a-lives", "r/a-longer"]);
        }
    }
}
