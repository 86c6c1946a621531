//! The end of versions and their return: `DELETE data/`, `delete/`, `undelete/` and `destroy/`.
//!
//! Must not know: what stands in a version.
//!
//! Start with [`change`].

use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::EngineRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::Expect;
use leasehold_model::Timestamp;

use super::key_of;
use super::record::{DROPPED_AT_ONCE, KeyRecord, VersionRecord, commit, data_at, load};
use crate::secrets::kv::{KvEngine, TRIES, contended};

/// The numbers that a request names. Those that there are no versions of are passed over, as in Vault.
fn numbers(request: &EngineRequest, none: &'static str) -> Result<Vec<u64>, RequestError> {
    let given = request.fields.list("versions").unwrap_or_default();
    if given.is_empty() {
        return Err(RequestError::invalid(none));
    }
    let mut numbers = Vec::new();
    for (at, text) in given.iter().enumerate() {
        let number: i64 = match text.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| {
                RequestError::Invalid(format!(
                    "Field validation failed: error converting input for field \"versions\": decoding failed due to the following \
                     error(s):\n\n'[{at}]' cannot parse value as 'int': strconv.ParseInt: invalid syntax"
                ))
            })?,
        };
        numbers.extend(u64::try_from(number).ok());
    }
    Ok(numbers)
}

/// Changes the versions that `wanted` chooses: `apply` says whether it changed one. With `destroys`, their data goes in the same commit.
async fn change(
    request: &EngineRequest,
    wanted: impl Fn(&KeyRecord) -> Vec<u64> + Send,
    apply: impl Fn(&mut VersionRecord, Timestamp) -> bool + Send,
    destroys: bool,
) -> Result<LogicalResponse, RequestError> {
    let (at, key) = (&request.context, key_of(request));
    for _ in 0..TRIES {
        let loaded = load(at, key).await?;
        let Some(mut record) = loaded.record else { return Ok(LogicalResponse::empty()) };
        let now = at.clock.now();
        let mut changed = Vec::new();
        for number in wanted(&record) {
            if changed.len() == DROPPED_AT_ONCE {
                break;
            }
            if record.versions.get_mut(&number).is_some_and(|version| apply(version, now)) {
                changed.push(number);
            }
        }
        let has_more = changed.len() == DROPPED_AT_ONCE;
        if changed.is_empty() {
            return Ok(LogicalResponse::empty());
        }
        let gone = if destroys { changed } else { Vec::new() };
        let gone = gone.into_iter().map(|number| data_at(key, number));
        let batch = gone.fold(MountBatch::new(), |batch, name| batch.delete(name, Expect::Anything));
        if commit(&at.storage, key, &record, loaded.unchanged, batch).await? && !has_more {
            return Ok(LogicalResponse::empty());
        }
    }
    Err(contended())
}

fn delete(version: &mut VersionRecord, now: Timestamp) -> bool {
    let deletes = version.is_readable(now);
    if deletes {
        version.deleted_at = Some(now);
    }
    deletes
}

fn undelete(version: &mut VersionRecord, _: Timestamp) -> bool {
    !version.is_destroyed && version.deleted_at.take().is_some()
}

fn destroy(version: &mut VersionRecord, _: Timestamp) -> bool {
    !std::mem::replace(&mut version.is_destroyed, true)
}

/// The handlers of `DELETE data/`, `delete/`, `undelete/` and `destroy/`.
impl KvEngine {
    pub(super) async fn delete_data(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        change(request, |record| vec![record.current], delete, false).await
    }

    pub(super) async fn delete_versions(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let numbers = numbers(request, "No version number provided")?;
        change(request, |_| numbers.clone(), delete, false).await
    }

    pub(super) async fn undelete_versions(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let numbers = numbers(request, "No version number provided")?;
        change(request, |_| numbers.clone(), undelete, false).await
    }

    pub(super) async fn destroy_versions(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let numbers = numbers(request, "no version number provided")?;
        change(request, |_| numbers.clone(), destroy, true).await
    }
}
