//! The key/value engine, version 1: values under paths, without leases.
//!
//! Must not know: HTTP, how leases are kept, where values are stored.
//!
//! Start with [`ROUTES`]; each operation is one method of [`KvEngine`].
//!
//! Invariants: a write replaces the whole value. What was written is read back as it came, key by key. A value never stands in a
//! log, in an error or before a policy module; the paths of values are readable in the store, as in Vault.

use async_trait::async_trait;
use leasehold_core::engine_handler;
use leasehold_core::fields::{self, Field, Kind, Object};
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, LeaseIntent, LeaseLimits, MountOptions,
    SecretsEngine,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::Expect;
use leasehold_model::Timestamp;
use serde_json::json;

/// All mounts of the engine. Keeps nothing: every request reads the store.
#[derive(Debug, Default)]
pub struct KvEngine;

const PAGE_FIELDS: &[Field] = &[
    Field::visible("after", Kind::Text, "Begin after this name, which need not be there."),
    Field::visible("limit", Kind::Int, "How many names at most; 0 for all."),
];

/// The rest of a path, whatever it is.
const KEY: &str = "key";

const ROUTES: &[Route<EngineHandler>] = &[
    Route::new(
        "",
        Access::Token,
        "The names at the top of the mount.",
        &[
            Op::list("List the names at the top of the mount.", engine_handler!(KvEngine, list)).takes(PAGE_FIELDS),
            Op::scan("List all names, those in folders too.", engine_handler!(KvEngine, scan)).takes(PAGE_FIELDS),
        ],
    ),
    Route::new(
        "*key",
        Access::Token,
        "A value, or the names below a folder.",
        &[
            Op::read("Read a value.", engine_handler!(KvEngine, read)).answers(Answer::Data(&[])),
            Op::update("Write a value; it replaces the one that is there.", engine_handler!(KvEngine, write))
                .takes_document(),
            Op::delete("Delete a value.", engine_handler!(KvEngine, delete)),
            Op::list("List the names in a folder.", engine_handler!(KvEngine, list)).takes(PAGE_FIELDS),
            Op::scan("List all names below a folder.", engine_handler!(KvEngine, scan)).takes(PAGE_FIELDS),
        ],
    )
    .with_existence_check(),
];

/// Names per call to the store.
const PAGE: u32 = 1_000;

/// Where the values of a mount are kept.
const VALUES: &str = "value/";

fn stored_at(key: &str) -> String {
    format!("{VALUES}{}", key.trim_end_matches('/'))
}

/// The folder that a request names, with a slash at its end; empty at the top.
fn folder_of(request: &EngineRequest) -> String {
    match request.captures.get(KEY).map_or("", String::as_str) {
        "" => String::new(),
        folder => format!("{}/", folder.trim_end_matches('/')),
    }
}

fn key_of(request: &EngineRequest) -> &str {
    request.captures.get(KEY).map_or("", String::as_str)
}

/// How much of a list is wanted.
struct Cut<'a> {
    after: &'a str,
    most: usize,
}

impl<'a> Cut<'a> {
    fn of(request: &'a EngineRequest) -> Self {
        let limit = request.fields.int("limit").and_then(|limit| usize::try_from(limit).ok());
        Self {
            after: request.fields.text("after").unwrap_or_default(),
            most: limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX),
        }
    }
}

fn keys(names: Vec<String>) -> Result<LogicalResponse, RequestError> {
    if names.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": names }))) }
}

/// The handlers of the routes.
impl KvEngine {
    async fn read(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&stored_at(key_of(request))).await?.ok_or(RequestError::NotFound)?;
        let data: Object = serde_json::from_slice(&stored.value)
            .map_err(|_| RequestError::Internal(format!("the stored value of {:?} is not readable", request.path)))?;
        // What the writer calls its TTL is a hint to readers, when to read again; nothing ends here.
        let hint = data.get("ttl").or_else(|| data.get("lease")).and_then(|hint| fields::length(hint).ok());
        let ttl = hint.unwrap_or(at.mount.default_lease_ttl);
        Ok(LogicalResponse { read_again_in: Some(ttl), ..LogicalResponse::data(data) })
    }

    async fn write(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let data = request.fields.unknown();
        if data.is_empty() {
            return Err(RequestError::invalid("missing data fields"));
        }
        let bytes = serde_json::to_vec(data).map_err(|error| RequestError::Internal(error.to_string()))?;
        request.context.storage.put(&stored_at(key_of(request)), bytes, Expect::Anything).await?;
        Ok(LogicalResponse::empty())
    }

    async fn delete(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        request.context.storage.delete(&stored_at(key_of(request))).await?;
        Ok(LogicalResponse::empty())
    }

    /// The names directly in a folder; a folder in it counts once, with its slash, however much is in it.
    async fn list(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (folder, cut) = (format!("{VALUES}{}", folder_of(request)), Cut::of(request));
        keys(request.context.storage.names(&folder, cut.after, cut.most).await?)
    }

    /// All names below a folder.
    async fn scan(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (folder, cut) = (format!("{VALUES}{}", folder_of(request)), Cut::of(request));
        let mut names: Vec<String> = Vec::new();
        while names.len() < cut.most {
            let after = names.last().map_or(cut.after, String::as_str);
            let start = Some(after).filter(|after| !after.is_empty());
            let wanted = u32::try_from(cut.most - names.len()).map_or(PAGE, |wanted| wanted.min(PAGE));
            let page = request.context.storage.list(&folder, start, wanted).await?;
            if page.is_empty() {
                break;
            }
            names.extend(page);
        }
        keys(names)
    }
}

/// Vault's values for the option `version`; none given means 1.
fn check_version(options: &MountOptions) -> Result<(), String> {
    match options.get("version").map_or("1", String::as_str) {
        "" | "1" => Ok(()),
        "2" => Err("version 2 of the kv engine, which keeps old versions of a value, is not supported: mount it with options.version \
             \"1\", or leave the option out"
            .to_owned()),
        other => {
            let other: String = other.chars().take(16).collect();
            Err(format!("unknown version {other:?} of the kv engine: options.version must be \"1\""))
        }
    }
}

fn no_lease<T>() -> Result<T, EngineError> {
    Err(EngineError::Failed("the kv engine issues no leases".to_owned()))
}

#[async_trait]
impl SecretsEngine for KvEngine {
    fn routes(&self) -> &'static [Route<EngineHandler>] {
        ROUTES
    }

    fn check_options(&self, options: &MountOptions) -> Result<(), String> {
        check_version(options)
    }

    async fn exists(&self, request: &EngineRequest) -> Result<bool, RequestError> {
        Ok(request.context.storage.get(&stored_at(key_of(request))).await?.is_some())
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

    async fn unmount(&self, _: &EngineContext) {}
}
