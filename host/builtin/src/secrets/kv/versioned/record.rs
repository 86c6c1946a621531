//! What is stored of a key and of its versions.
//!
//! Must not know: what a request looks like.
//!
//! Start with [`KeyRecord`] and [`load`].

use std::collections::BTreeMap;

use leasehold_core::fields::Object;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::{MountBatch, MountStorage};
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::{Timestamp, Ttl, duration};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::MountConfig;
use super::upgrade;
use crate::secrets::kv::{TRIES, contended, decode, encode, unversioned};

/// Where the records of keys are kept.
pub(super) const RECORDS: &str = "meta/";
/// Where the data of versions is kept.
const DATA: &str = "data/";

/// How many versions are kept where neither the mount nor the key says anything.
const DEFAULT_VERSIONS: u64 = 10;
/// The most that may be asked for: the record of a key names each, and is written with every version.
pub(super) const VERSIONS_MAX: u32 = 10_000;

/// How many versions leave in one commit: PostgreSQL holds a lock for each name in it.
pub(super) const DROPPED_AT_ONCE: usize = 500;

pub(in crate::secrets::kv) fn record_at(key: &str) -> String {
    format!("{RECORDS}{key}")
}

/// The number stands last, so that no version of `a` can be one of `a/1`.
pub(super) fn data_at(key: &str, version: u64) -> String {
    format!("{DATA}{key}/{version}")
}

/// What is known of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Zero: there is none yet.
    pub(super) current: u64,
    /// What Vault shows as `oldest_version`: zero until the window of kept versions has moved.
    pub(super) oldest: u64,
    pub(super) versions: BTreeMap<u64, VersionRecord>,
    pub(super) max_versions: u32,
    pub(super) cas_required: bool,
    pub(super) delete_version_after: Ttl,
    pub(super) custom_metadata: BTreeMap<String, String>,
    pub(super) metadata_cas_required: bool,
    /// Counts the changes of the metadata.
    pub(super) metadata_version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionRecord {
    pub(super) created_at: Timestamp,
    /// It may lie ahead.
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) is_destroyed: bool,
}

impl VersionRecord {
    pub(super) fn is_readable(&self, now: Timestamp) -> bool {
        !self.is_destroyed && self.deleted_at.is_none_or(|at| at > now)
    }
}

impl KeyRecord {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            created_at: now,
            updated_at: now,
            current: 0,
            oldest: 0,
            versions: BTreeMap::new(),
            max_versions: 0,
            cas_required: false,
            delete_version_after: Ttl::ZERO,
            custom_metadata: BTreeMap::new(),
            metadata_cas_required: false,
            metadata_version: 0,
        }
    }

    /// Adds a version and drops those that are then too many. Gives back the numbers of the dropped ones that have data.
    pub(super) fn add_version(&mut self, now: Timestamp, config: &MountConfig) -> Vec<u64> {
        let deleted_at = config.lifetime_of_versions(self.delete_version_after).map(|after| now + after);
        self.current += 1;
        self.versions.insert(self.current, VersionRecord { created_at: now, deleted_at, is_destroyed: false });
        self.updated_at = now;
        let kept = match self.max_versions.max(config.max_versions) {
            0 => DEFAULT_VERSIONS,
            kept => u64::from(kept),
        };
        if self.current.saturating_sub(self.oldest) < kept {
            return Vec::new();
        }
        // A window that has become much smaller moves with several writes.
        let first = self.versions.keys().next().copied().unwrap_or(self.current);
        self.oldest = ((self.current - kept) + 1).min(first.saturating_add(DROPPED_AT_ONCE as u64));
        let staying = self.versions.split_off(&self.oldest);
        let dropped = std::mem::replace(&mut self.versions, staying);
        dropped.into_iter().filter(|(_, version)| !version.is_destroyed).map(|(number, _)| number).collect()
    }

    /// What clients see of one version.
    pub(super) fn version_shown(&self, number: u64, version: &VersionRecord) -> Object {
        let mut shown = Object::new();
        shown.insert("created_time".to_owned(), version.created_at.rfc3339().into());
        shown.insert("custom_metadata".to_owned(), self.custom_metadata_shown());
        shown.insert("deletion_time".to_owned(), time_shown(version.deleted_at));
        shown.insert("destroyed".to_owned(), version.is_destroyed.into());
        shown.insert("version".to_owned(), number.into());
        shown
    }

    fn custom_metadata_shown(&self) -> Value {
        if self.custom_metadata.is_empty() { Value::Null } else { json!(self.custom_metadata) }
    }

    /// What clients see of the key.
    pub(super) fn shown(&self) -> Value {
        let versions: Object = self
            .versions
            .iter()
            .map(|(number, version)| {
                let shown = json!({
                    "created_time": version.created_at.rfc3339(),
                    "deletion_time": time_shown(version.deleted_at),
                    "destroyed": version.is_destroyed,
                });
                (number.to_string(), shown)
            })
            .collect();
        json!({
            "cas_required": self.cas_required,
            "created_time": self.created_at.rfc3339(),
            "current_metadata_version": self.metadata_version,
            "current_version": self.current,
            "custom_metadata": self.custom_metadata_shown(),
            "delete_version_after": duration::go_text(self.delete_version_after),
            "max_versions": self.max_versions,
            "metadata_cas_required": self.metadata_cas_required,
            "oldest_version": self.oldest,
            "updated_time": self.updated_at.rfc3339(),
            "versions": versions,
        })
    }
}

fn time_shown(at: Option<Timestamp>) -> Value {
    at.map_or_else(String::new, Timestamp::rfc3339).into()
}

/// A key as it was read.
pub(super) struct Loaded {
    /// `None`: there is no such key.
    pub(super) record: Option<KeyRecord>,
    /// What a commit must expect for the key to be still so.
    pub(super) unchanged: Expect,
}

/// Reads the record of a key. A value that version 1 left behind is taken over first, and is version 1 of its key then.
pub(super) async fn load(at: &EngineContext, key: &str) -> Result<Loaded, RequestError> {
    let name = record_at(key);
    let mut is_certain = false;
    for _ in 0..TRIES {
        if let Some(stored) = at.storage.get(&name).await? {
            let record = Some(decode(key, &stored.value)?);
            return Ok(Loaded { record, unchanged: Expect::Version(stored.version) });
        }
        let Some(old) = at.storage.get(&unversioned::stored_at(key)).await? else {
            if is_certain {
                return Ok(Loaded { record: None, unchanged: Expect::Absent });
            }
            // The value may have been taken over between the two reads: then the record is there now.
            is_certain = true;
            continue;
        };
        // Whether this request took it over or another one: the record is there now.
        upgrade::take_over(at, key, &old).await?;
    }
    Err(contended())
}

/// Commits a batch together with the record of its key. `false`: another request was faster, and nothing was written.
pub(super) async fn commit(
    storage: &MountStorage,
    key: &str,
    record: &KeyRecord,
    unchanged: Expect,
    batch: MountBatch,
) -> Result<bool, RequestError> {
    written(storage.commit(batch.put(record_at(key), encode(record)?, unchanged)).await)
}

pub(super) fn written(committed: Result<(), StorageError>) -> Result<bool, RequestError> {
    match committed {
        Ok(()) => Ok(true),
        Err(StorageError::Conflict(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The data of a version that its record names.
pub(super) async fn data_of(at: &EngineContext, key: &str, version: u64) -> Result<Option<Object>, RequestError> {
    let Some(stored) = at.storage.get(&data_at(key, version)).await? else { return Ok(None) };
    decode(key, &stored.value).map(Some)
}

/// The answer about one version: 404 around what is known of it where its data cannot be read.
pub(super) fn version_answer(
    what: &str,
    data: Option<Value>,
    record: &KeyRecord,
    number: u64,
    version: &VersionRecord,
) -> LogicalResponse {
    let is_gone = data.is_none();
    let mut shown = Object::new();
    shown.insert(what.to_owned(), data.unwrap_or_default());
    shown.insert("metadata".to_owned(), record.version_shown(number, version).into());
    let answer = LogicalResponse::data(shown);
    if is_gone { answer.with_status(404) } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_versions_moves_as_in_vault() {
        let mut record = KeyRecord::new(Timestamp::from_secs(1));
        let mut config = MountConfig { max_versions: 3, ..MountConfig::default() };
        let mut seen = Vec::new();
        for n in 1..=5 {
            let dropped = record.add_version(Timestamp::from_secs(n), &config);
            seen.push((record.current, record.oldest, dropped));
        }
        assert_eq!(seen, [(1, 0, vec![]), (2, 0, vec![]), (3, 1, vec![]), (4, 2, vec![1]), (5, 3, vec![2])]);
        // A window that got smaller drops more than one, and a destroyed version has no data to delete.
        record.versions.get_mut(&4).unwrap().is_destroyed = true;
        config.max_versions = 1;
        assert_eq!(record.add_version(Timestamp::from_secs(6), &config), [3, 5]);
        assert_eq!((record.oldest, record.versions.len()), (6, 1));
        // The greater of the two numbers counts, and one that grew loses nothing.
        record.max_versions = 2;
        assert!(record.add_version(Timestamp::from_secs(7), &config).is_empty());
        assert_eq!(record.versions.keys().copied().collect::<Vec<_>>(), [6, 7]);
    }

    /// PostgreSQL would run out of locks.
    #[test]
    fn a_window_that_got_much_smaller_moves_with_several_writes() {
        let mut record = KeyRecord::new(Timestamp::from_secs(1));
        let wide = MountConfig { max_versions: 2_000, ..MountConfig::default() };
        for _ in 0..1_200 {
            assert!(record.add_version(Timestamp::from_secs(1), &wide).is_empty());
        }
        let narrow = MountConfig { max_versions: 1, ..MountConfig::default() };
        let dropped: Vec<usize> = (0..4).map(|_| record.add_version(Timestamp::from_secs(2), &narrow).len()).collect();
        assert_eq!(dropped, [500, 500, 202, 1]);
        assert_eq!(record.versions.keys().copied().collect::<Vec<_>>(), [1_204]);
    }

    #[test]
    fn a_key_cannot_be_taken_for_a_version_of_another() {
        assert_ne!(data_at("a", 1), data_at("a/1", 1));
        assert_ne!(data_at("a/1", 2), data_at("a", 12));
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (secs, text) in [(0, "0s"), (90, "1m30s"), (600, "10m0s"), (12_300, "3h25m0s"), (3_600, "1h0m0s")] {
            assert_eq!(duration::go_text(Ttl::from_secs(secs)), text);
        }
    }

    #[test]
    fn a_version_is_readable_until_its_end() {
        let version = VersionRecord {
            created_at: Timestamp::from_secs(1),
            deleted_at: Some(Timestamp::from_secs(9)),
            is_destroyed: false,
        };
        assert!(version.is_readable(Timestamp::from_secs(8)));
        assert!(!version.is_readable(Timestamp::from_secs(9)), "exactly now is over");
        assert!(
            !VersionRecord { deleted_at: None, is_destroyed: true, ..version }.is_readable(Timestamp::from_secs(2))
        );
    }
}
