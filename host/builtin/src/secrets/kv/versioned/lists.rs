//! Lists of keys: `metadata/` and `detailed-metadata/`.
//!
//! Must not know: what stands in a version.
//!
//! Start with [`names`].

use leasehold_core::fields::Object;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::EngineRequest;
use leasehold_core::seams::error::RequestError;
use serde_json::{Value, json};

use super::key_of;
use super::record::{RECORDS, load};
use crate::secrets::kv::{Cut, KvEngine, names_below, unversioned};

/// How many keys one list shows with their metadata, and how many versions of theirs.
const DETAILED_MAX: usize = 10_000;

/// The names below the folder that a request names: those of keys, and those of values that version 1 left behind and that are not taken
/// over yet.
async fn names(request: &EngineRequest, is_deep: bool, cut: &Cut<'_>) -> Result<Vec<String>, RequestError> {
    let folder = match key_of(request) {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let storage = &request.context.storage;
    let mut names = Vec::new();
    // In the order in which they are taken over: one that is, between the two reads, is seen twice and not missed.
    for prefix in [unversioned::VALUES, RECORDS] {
        let folder = format!("{prefix}{folder}");
        names.extend(if is_deep {
            names_below(storage, &folder, cut).await?
        } else {
            storage.names(&folder, cut.after, cut.most).await?
        });
    }
    names.sort_unstable();
    names.dedup();
    names.truncate(cut.most);
    Ok(names)
}

async fn detailed(request: &EngineRequest, is_deep: bool) -> Result<LogicalResponse, RequestError> {
    let cut = Cut::of(request);
    // One more than is shown tells whether there are more.
    let bounded = Cut { most: cut.most.min(DETAILED_MAX + 1), ..cut };
    let names = names(request, is_deep, &bounded).await?;
    let too_many = |what: &str| {
        RequestError::Invalid(format!(
            "there are more than {DETAILED_MAX} {what}: ask for pages, with `limit` and `after`"
        ))
    };
    if names.len() > DETAILED_MAX {
        return Err(too_many("keys"));
    }
    let folder = key_of(request);
    let (mut info, mut versions) = (Object::new(), 0);
    for name in names.iter().filter(|name| !name.ends_with('/')) {
        let key = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        // A key that was deleted since stays without details.
        if let Some(record) = load(&request.context, &key).await?.record {
            versions += record.versions.len();
            // One key is shown whatever it has.
            if versions > DETAILED_MAX && !info.is_empty() {
                return Err(too_many("versions of these keys"));
            }
            info.insert(name.clone(), record.shown());
        }
    }
    if names.is_empty() {
        return Err(RequestError::NotFound);
    }
    Ok(LogicalResponse::json(json!({ "key_info": Value::Object(info), "keys": names })))
}

/// The handlers of lists.
impl KvEngine {
    pub(super) async fn list_metadata(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let cut = Cut::of(request);
        cut.answer(names(request, false, &cut).await?)
    }

    pub(super) async fn scan_metadata(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let cut = Cut::of(request);
        cut.answer(names(request, true, &cut).await?)
    }

    pub(super) async fn list_detailed(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        detailed(request, false).await
    }

    pub(super) async fn scan_detailed(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        detailed(request, true).await
    }
}
