//! What holds for all keys of a mount.
//!
//! Must not know: keys and their versions.
//!
//! Start with [`MountConfig`].

use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::EngineRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::{MountBatch, MountStorage};
use leasehold_core::seams::storage::Expect;
use leasehold_model::{Ttl, duration};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::record::{VERSIONS_MAX, written};
use crate::secrets::kv::{KvEngine, TRIES, contended, decode, encode};

const STORED_AT: &str = "config";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct MountConfig {
    /// Zero: as a key says, or ten.
    pub(super) max_versions: u32,
    pub(super) cas_required: bool,
    pub(super) metadata_cas_required: bool,
    /// Zero: as a key says.
    pub(super) delete_version_after: Ttl,
    /// No version deletes itself, whatever a key says.
    pub(super) versions_stay: bool,
}

impl MountConfig {
    pub(super) async fn load(storage: &MountStorage) -> Result<(Self, Expect), RequestError> {
        Ok(match storage.get(STORED_AT).await? {
            Some(stored) => (decode(STORED_AT, &stored.value)?, Expect::Version(stored.version)),
            None => (Self::default(), Expect::Absent),
        })
    }

    /// After which time a new version of a key deletes itself; the key can only shorten what the mount says.
    pub(super) fn lifetime_of_versions(&self, of_key: Ttl) -> Option<Ttl> {
        if self.versions_stay {
            return None;
        }
        [self.delete_version_after, of_key].into_iter().filter_map(Ttl::if_set).min()
    }
}

/// A number of versions to keep.
pub(super) fn max_versions(given: i64) -> Result<u32, RequestError> {
    u32::try_from(given)
        .ok()
        .filter(|given| *given <= VERSIONS_MAX)
        .ok_or_else(|| RequestError::Invalid(format!("max_versions must be between 0 and {VERSIONS_MAX}")))
}

/// The handlers of `config`.
impl KvEngine {
    pub(super) async fn read_config(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (config, _) = MountConfig::load(&request.context.storage).await?;
        let after =
            if config.versions_stay { "-1s".to_owned() } else { duration::go_text(config.delete_version_after) };
        Ok(LogicalResponse::json(json!({
            "cas_required": config.cas_required,
            "delete_version_after": after,
            "max_versions": config.max_versions,
            "metadata_cas_required": config.metadata_cas_required,
        })))
    }

    pub(super) async fn write_config(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let fields = &request.fields;
        let most = fields.int("max_versions").map(max_versions).transpose()?;
        let after = fields.text("delete_version_after").map(self_deletion).transpose()?;
        for _ in 0..TRIES {
            let (mut config, unchanged) = MountConfig::load(&request.context.storage).await?;
            config.max_versions = most.unwrap_or(config.max_versions);
            config.cas_required = fields.bool("cas_required").unwrap_or(config.cas_required);
            config.metadata_cas_required = fields.bool("metadata_cas_required").unwrap_or(config.metadata_cas_required);
            if let Some(after) = after {
                config.versions_stay = after.is_none();
                config.delete_version_after = after.unwrap_or(Ttl::ZERO);
            }
            let batch = MountBatch::new().put(STORED_AT, encode(&config)?, unchanged);
            if written(request.context.storage.commit(batch).await)? {
                return Ok(LogicalResponse::empty());
            }
        }
        Err(contended())
    }
}

/// A length that zero leaves unset, so that one of less than a second is not the longest of all.
pub(super) fn lifetime(text: &str) -> Result<Ttl, String> {
    duration::parse_set(text).map_err(|why| format!("error converting input for field \"delete_version_after\": {why}"))
}

/// After which time versions delete themselves. `None`: never, which a negative length says.
fn self_deletion(text: &str) -> Result<Option<Ttl>, RequestError> {
    let (length, is_negative) = match text.strip_prefix('-') {
        Some(length) => (length, true),
        None => (text, false),
    };
    let length = lifetime(length).map_err(|why| RequestError::Invalid(format!("Field validation failed: {why}")))?;
    Ok(if is_negative && !length.is_zero() { None } else { Some(length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shortens_what_the_mount_says_and_cannot_lengthen_it() {
        let secs = Ttl::from_secs;
        for (of_mount, of_key, stay, lifetime) in [
            (0, 0, false, None),
            (90, 0, false, Some(90)),
            (0, 10, false, Some(10)),
            (90, 10, false, Some(10)),
            (90, 1_000, false, Some(90)),
            (0, 10, true, None),
        ] {
            let config =
                MountConfig { delete_version_after: secs(of_mount), versions_stay: stay, ..MountConfig::default() };
            assert_eq!(config.lifetime_of_versions(secs(of_key)), lifetime.map(secs), "{of_mount} {of_key} {stay}");
        }
    }

    #[test]
    fn less_than_a_second_is_a_second_and_a_minus_is_never() {
        for (text, wanted) in [
            ("0", Some(Some(0))),
            ("500ms", Some(Some(1))),
            ("90", Some(Some(90))),
            ("-1s", Some(None)),
            ("-500ms", Some(None)),
            ("-0", Some(Some(0))),
            ("--1s", None),
            ("soon", None),
        ] {
            assert_eq!(self_deletion(text).ok(), wanted.map(|wanted| wanted.map(Ttl::from_secs)), "{text}");
        }
    }

    #[test]
    fn numbers_of_versions_are_bounded() {
        assert_eq!(max_versions(10_000).unwrap(), 10_000);
        for given in [-1, 10_001, i64::MAX, 4_294_967_297] {
            assert!(max_versions(given).is_err(), "{given}");
        }
    }
}
