//! The key/value engine: values under paths, without leases. Version 1 keeps the last value of a key, version 2 several.
//!
//! Must not know: HTTP, how leases are kept, where values are stored.
//!
//! Start with [`unversioned`], which is version 1 and small, then [`versioned`].
//!
//! Invariants: what was written is read back as it came, key by key. A value never stands in a log, in an error or before a policy
//! module; the paths of values are readable in the store. A write is one commit: no reader sees half of it, and no crash leaves it.

mod unversioned;
mod versioned;

use async_trait::async_trait;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, LeaseIntent, LeaseLimits, MountOptions,
    SecretsEngine,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_model::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// All mounts of the engine. Keeps nothing: every request reads the store.
#[derive(Debug, Default)]
pub struct KvEngine;

const PAGE_FIELDS: &[Field] = &[
    Field::visible("after", Kind::Text, "Begin after this name, which need not be there."),
    Field::visible("limit", Kind::Int, "How many names at most; 0 for all."),
];

/// Names per call to the store.
const PAGE: u32 = 1_000;

/// How often a change is made again because another request was faster. Of all that try at once one succeeds, so that so many may.
const TRIES: u32 = 256;

/// The mount keeps versions of its values.
fn is_versioned(options: &MountOptions) -> bool {
    options.get("version").is_some_and(|version| version == "2")
}

/// More names make no answer that anybody reads.
const NAMES_MAX: usize = 100_000;

/// How much of a list is wanted.
struct Cut<'a> {
    after: &'a str,
    most: usize,
    /// The client has said how many it wants, and knows that there may be more.
    is_page: bool,
}

impl<'a> Cut<'a> {
    fn of(request: &'a EngineRequest) -> Self {
        let limit = request.fields.int("limit").and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.filter(|limit| *limit > 0 && *limit <= NAMES_MAX);
        let after = request.fields.text("after").unwrap_or_default();
        Self { after, most: limit.unwrap_or(NAMES_MAX), is_page: limit.is_some() }
    }

    /// The answer to a list, which says where it may not be whole.
    fn answer(&self, names: Vec<String>) -> Result<LogicalResponse, RequestError> {
        if names.is_empty() {
            return Err(RequestError::NotFound);
        }
        let is_cut = !self.is_page && names.len() >= self.most;
        let answer = LogicalResponse::json(json!({ "keys": names }));
        Ok(if is_cut {
            answer.warn(format!("only {} names are listed: ask for pages with `after` and `limit`", self.most))
        } else {
            answer
        })
    }
}

/// All names below a folder, those in folders too.
async fn names_below(storage: &MountStorage, folder: &str, cut: &Cut<'_>) -> Result<Vec<String>, RequestError> {
    let mut names: Vec<String> = Vec::new();
    while names.len() < cut.most {
        let after = names.last().map_or(cut.after, String::as_str);
        let start = Some(after).filter(|after| !after.is_empty());
        let wanted = u32::try_from(cut.most - names.len()).map_or(PAGE, |wanted| wanted.min(PAGE));
        let page = storage.list(folder, start, wanted).await?;
        if page.is_empty() {
            break;
        }
        names.extend(page);
    }
    Ok(names)
}

/// Every try met another change.
fn contended() -> RequestError {
    RequestError::Unavailable("too many requests change this key at the same time, try again".to_owned())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, RequestError> {
    serde_json::to_vec(value).map_err(|_| RequestError::Internal("a value could not be written as JSON".to_owned()))
}

/// The error names where the value is stored, and nothing of the value.
fn decode<T: DeserializeOwned>(at: &str, stored: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(stored)
        .map_err(|_| RequestError::Internal(format!("the stored value of {at:?} is not readable")))
}

fn no_lease<T>() -> Result<T, EngineError> {
    Err(EngineError::Failed("the kv engine issues no leases".to_owned()))
}

#[async_trait]
impl SecretsEngine for KvEngine {
    fn routes(&self) -> &'static [Route<EngineHandler>] {
        unversioned::ROUTES
    }

    fn routes_with(&self, options: &MountOptions) -> &'static [Route<EngineHandler>] {
        if is_versioned(options) { versioned::ROUTES } else { unversioned::ROUTES }
    }

    /// Vault's values for the option `version`; none given means 1.
    fn check_options(&self, options: &MountOptions) -> Result<(), String> {
        match options.get("version").map_or("1", String::as_str) {
            "" | "1" | "2" => Ok(()),
            other => {
                let other: String = other.chars().take(16).collect();
                Err(format!("unknown version {other:?} of the kv engine: options.version must be \"1\" or \"2\""))
            }
        }
    }

    /// A mount of version 1 may become one of version 2, which takes over its values. There is no way back.
    fn check_tuned_options(&self, from: &MountOptions, to: &MountOptions) -> Result<(), String> {
        self.check_options(to)?;
        if is_versioned(from) && !is_versioned(to) {
            return Err("cannot downgrade mount from version 2".to_owned());
        }
        Ok(())
    }

    async fn exists(&self, request: &EngineRequest) -> Result<bool, RequestError> {
        if is_versioned(&request.context.mount.options) {
            return versioned::is_there(request).await;
        }
        unversioned::is_there(request).await
    }

    async fn effect(&self, _: &EngineContext, _: &LeaseIntent) -> Result<Effected, EngineError> {
        no_lease()
    }

    async fn limits(&self, _: &EngineContext, _: &LeaseIntent) -> Result<LeaseLimits, EngineError> {
        no_lease()
    }

    async fn renew(&self, _: &EngineContext, _: &LeaseIntent, _: Timestamp) -> Result<(), EngineError> {
        no_lease()
    }

    async fn revoke(&self, _: &EngineContext, _: &LeaseIntent) -> Result<(), EngineError> {
        no_lease()
    }

    fn jobs(&self) -> &'static [MountJob] {
        &[versioned::upgrade::JOB]
    }

    async fn run_job(&self, at: &EngineContext, name: &str) -> Result<Option<Timestamp>, RequestError> {
        if name != versioned::upgrade::JOB.name {
            return Err(RequestError::Internal(format!("this engine has no job {name:?}")));
        }
        if is_versioned(&at.mount.options) {
            versioned::upgrade::take_over_all(at).await?;
        }
        Ok(None)
    }

    async fn unmount(&self, _: &EngineContext) {}
}
