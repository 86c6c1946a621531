//! A mount of version 1 that became one of version 2: its values are taken over one by one.
//!
//! Must not know: who tuned the mount.
//!
//! Start with [`take_over`]. A request takes over the key that it names, and a job takes over the others. Nothing else is stored of how
//! far it has got: what still lies where version 1 put it is not taken over yet, so that a server that is killed leaves nothing half done,
//! and the next one goes on.
//!
//! Invariant: in one commit a value goes from where version 1 keeps it to the first version of its key; at no moment is it in neither or
//! in both.

use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError, Versioned};
use leasehold_model::Ttl;

use super::config::MountConfig;
use super::record::{KeyRecord, VersionRecord, commit, data_at, load};
use crate::secrets::kv::{PAGE, TRIES, contended, unversioned};

/// It is asked for when a mount is tuned; its own period is for a server that died before it could ask.
pub(in crate::secrets::kv) const JOB: MountJob = MountJob { name: "kv-upgrade", every: Ttl::from_secs(3_600) };

/// Makes a value of version 1 the first version of its key, unless somebody was faster.
pub(super) async fn take_over(at: &EngineContext, key: &str, old: &Versioned) -> Result<(), RequestError> {
    let now = at.clock.now();
    let mut record = KeyRecord::new(now);
    (record.current, record.oldest) = (1, 1);
    record.versions.insert(1, VersionRecord { created_at: now, deleted_at: None, is_destroyed: false });
    let batch = MountBatch::new()
        .put(data_at(key, 1), old.value.clone(), Expect::Anything)
        .delete(unversioned::stored_at(key), Expect::Version(old.version));
    commit(&at.storage, key, &record, Expect::Absent, batch).await.map(|_| ())
}

/// Takes over all values that there are still. One that cannot be read keeps no other from being taken over.
///
/// # Errors
/// The first of what went wrong, when all others are taken over.
pub(in crate::secrets::kv) async fn take_over_all(at: &EngineContext) -> Result<(), RequestError> {
    let (mut after, mut wrong) = (None::<String>, None);
    loop {
        let page = at.storage.list(unversioned::VALUES, after.as_deref(), PAGE).await?;
        let Some(last) = page.last().cloned() else { return wrong.map_or(Ok(()), Err) };
        let (config, _) = MountConfig::load(&at.storage).await?;
        for key in page {
            match take_over_late(at, &config, &key).await {
                Ok(()) => {}
                Err(damaged @ (RequestError::Internal(_) | RequestError::Storage(StorageError::Corrupt(_)))) => {
                    wrong.get_or_insert(damaged);
                }
                Err(error) => return Err(error),
            }
        }
        after = Some(last);
    }
}

/// Takes over one value, also one that came when its key had versions already: a server that did not know yet that the mount had changed
/// accepted it, so that it is the newest version.
async fn take_over_late(at: &EngineContext, config: &MountConfig, key: &str) -> Result<(), RequestError> {
    for _ in 0..TRIES {
        let loaded = load(at, key).await?;
        let Some(old) = at.storage.get(&unversioned::stored_at(key)).await? else { return Ok(()) };
        let Some(mut record) = loaded.record else { continue };
        let dropped = record.add_version(at.clock.now(), config);
        let batch = MountBatch::new()
            .put(data_at(key, record.current), old.value, Expect::Anything)
            .delete(unversioned::stored_at(key), Expect::Version(old.version));
        let batch = dropped.into_iter().fold(batch, |batch, old| batch.delete(data_at(key, old), Expect::Anything));
        if commit(&at.storage, key, &record, loaded.unchanged, batch).await? {
            return Ok(());
        }
    }
    Err(contended())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use leasehold_core::fields::Fields;
    use leasehold_core::passwords::PasswordPolicies;
    use leasehold_core::quota::leases::LeaseCounts;
    use leasehold_core::routes;
    use leasehold_core::seams::engine::{EngineRequest, MountView, SecretsEngine as _};
    use leasehold_core::seams::mount_storage::MountStorage;
    use leasehold_core::seams::sandbox::{
        Dialect, Digest, Purpose, RenderError, SandboxError, TemplateRenderer, TemplateReport, UsernameError,
        UsernameFacts,
    };
    use leasehold_core::testing::{CountingEntropy, ManualClock};
    use leasehold_model::{MountAccessor, Operation};
    use leasehold_storage::MemoryStorage;
    use serde_json::json;

    use super::super::record::{data_of, record_at};
    use super::*;
    use crate::secrets::kv::KvEngine;

    /// The engine has no templates.
    struct NoTemplates;

    #[async_trait]
    impl TemplateRenderer for NoTemplates {
        async fn check_template(&self, _: &[String], _: Purpose, _: Dialect) -> Result<TemplateReport, SandboxError> {
            Err(SandboxError::Busy)
        }

        async fn render(&self, _: &[String], _: Dialect, _: &[(&str, &str)]) -> Result<Vec<String>, RenderError> {
            Err(RenderError::Sandbox(SandboxError::Busy))
        }

        async fn check_username(&self, _: &str) -> Result<Vec<String>, UsernameError> {
            Err(SandboxError::Busy.into())
        }

        async fn username(&self, _: &str, _: &UsernameFacts<'_>) -> Result<String, UsernameError> {
            Err(SandboxError::Busy.into())
        }

        fn digest(&self) -> Digest {
            Digest(String::new())
        }
    }

    fn mount(version: &str) -> (EngineContext, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_795_000_000));
        let accessor = MountAccessor::new("kv_0a1b2c3d");
        let store = Arc::new(MemoryStorage::new(clock.clone()));
        let context = EngineContext {
            storage: MountStorage::new(store.clone(), accessor.clone()),
            leases: LeaseCounts::new(store.clone(), store.clone(), clock.clone(), Arc::new(CountingEntropy::default())),
            clock: clock.clone(),
            passwords: PasswordPolicies::new(store, Arc::new(CountingEntropy::default())),
            entropy: Arc::new(CountingEntropy::default()),
            templates: Arc::new(NoTemplates),
            mount: MountView {
                path: "kv/".parse().unwrap(),
                accessor,
                default_lease_ttl: Ttl::from_secs(1),
                max_lease_ttl: Ttl::from_secs(1),
                options: BTreeMap::from([("version".to_owned(), version.to_owned())]),
                installation: String::new(),
            },
        };
        (context, clock)
    }

    async fn put_old(at: &EngineContext, key: &str, value: u64) {
        let bytes = serde_json::to_vec(&json!({ "v": value })).unwrap();
        at.storage.put(&unversioned::stored_at(key), bytes, Expect::Anything).await.unwrap();
    }

    async fn old_ones(at: &EngineContext) -> usize {
        at.storage.names(unversioned::VALUES, "", usize::MAX).await.unwrap().len()
    }

    impl KvEngine {
        /// A write or a deletion as of version 1.
        async fn unversioned(&self, at: &EngineContext, operation: Operation, key: &str) -> Result<(), RequestError> {
            let found = routes::find(unversioned::ROUTES, key, operation).unwrap();
            let request = EngineRequest {
                context: at.clone(),
                operation,
                path: format!("kv/{key}"),
                captures: found.captures,
                fields: Fields::coerce(&[], json!({ "v": 9 }).as_object().unwrap()).unwrap(),
                display_name: String::new(),
                has_sudo: false,
            };
            (found.op.unwrap().handler)(self, &request).await.map(drop)
        }
    }

    async fn run(at: &EngineContext) {
        KvEngine.run_job(at, JOB.name).await.unwrap();
    }

    /// More than a page of them, some taken over before, as by a server that was killed on the way.
    #[tokio::test]
    async fn the_job_takes_over_what_nobody_asks_for() {
        let (at, clock) = mount("2");
        for n in 0..1_200 {
            put_old(&at, &format!("f/k{n:04}"), n).await;
        }
        let first = load(&at, "f/k0007").await.unwrap().record.unwrap();
        clock.advance(Duration::from_secs(5));

        run(&at).await;
        run(&at).await;

        assert_eq!(old_ones(&at).await, 0);
        for n in [0, 7, 999, 1_000, 1_199] {
            let key = format!("f/k{n:04}");
            let record = load(&at, &key).await.unwrap().record.unwrap();
            assert_eq!((record.current, record.oldest, record.versions.len()), (1, 1, 1), "{key}");
            assert_eq!(data_of(&at, &key, 1).await.unwrap().unwrap()["v"], n, "{key}");
        }
        let same = load(&at, "f/k0007").await.unwrap().record.unwrap();
        assert_eq!(same.created_at, first.created_at, "a key that was taken over is left alone");
    }

    /// A server that did not know yet that the mount had changed accepted a write: it is not lost.
    #[tokio::test]
    async fn a_late_value_becomes_the_newest_version() {
        let (at, _) = mount("2");
        put_old(&at, "a", 1).await;
        load(&at, "a").await.unwrap();
        put_old(&at, "a", 2).await;

        run(&at).await;

        let record = load(&at, "a").await.unwrap().record.unwrap();
        assert_eq!((record.current, old_ones(&at).await), (2, 0));
        assert_eq!(data_of(&at, "a", 1).await.unwrap().unwrap()["v"], 1);
        assert_eq!(data_of(&at, "a", 2).await.unwrap().unwrap()["v"], 2);
    }

    /// This server knows by now that the mount has versions, and another one does not yet.
    #[tokio::test]
    async fn nothing_is_written_beside_the_versions_of_a_key() {
        let (at, _) = mount("2");
        put_old(&at, "a", 1).await;
        load(&at, "a").await.unwrap();
        for operation in [Operation::Update, Operation::Delete] {
            let late = KvEngine.unversioned(&at, operation, "a").await.unwrap_err();
            assert!(matches!(late, RequestError::Unavailable(_)), "{late:?}");
        }
        assert_eq!((load(&at, "a").await.unwrap().record.unwrap().current, old_ones(&at).await), (1, 0));
        // What has no versions yet is written, and taken over with its next reader.
        KvEngine.unversioned(&at, Operation::Update, "b").await.unwrap();
        assert_eq!(old_ones(&at).await, 1);
        assert!(load(&at, "b").await.unwrap().record.is_some());
        assert_eq!(old_ones(&at).await, 0);
    }

    #[tokio::test]
    async fn a_damaged_key_keeps_no_other_from_being_taken_over() {
        let (at, _) = mount("2");
        for key in ["a", "b", "c"] {
            put_old(&at, key, 1).await;
        }
        at.storage.put(&record_at("b"), b"damaged".to_vec(), Expect::Anything).await.unwrap();

        let failed = KvEngine.run_job(&at, JOB.name).await.unwrap_err().to_string();

        assert!(failed.contains("\"b\"") && !failed.contains("damaged"), "{failed}");
        assert_eq!(at.storage.names(unversioned::VALUES, "", usize::MAX).await.unwrap(), ["b"]);
        assert!(load(&at, "c").await.unwrap().record.is_some());
    }

    #[tokio::test]
    async fn a_mount_of_version_1_is_left_as_it_is() {
        let (at, _) = mount("1");
        put_old(&at, "a", 1).await;

        run(&at).await;

        assert_eq!(old_ones(&at).await, 1);
    }
}
