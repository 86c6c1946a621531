//! Version 1 of the engine: a write replaces the whole value.
//!
//! Must not know: how version 2 takes over what is stored here; only that it has, when its record of the key is there.
//!
//! Start with [`ROUTES`]; each operation is one method of [`KvEngine`].

use leasehold_core::engine_handler;
use leasehold_core::fields::{self, Object};
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::engine::{EngineHandler, EngineRequest};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::{Expect, StorageError};

use super::versioned::record_at;
use super::{Cut, KvEngine, PAGE_FIELDS, decode, encode, names_below};

/// The rest of a path, whatever it is.
const KEY: &str = "key";

pub(super) const ROUTES: &[Route<EngineHandler>] = &[
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

/// Where the values of a mount are kept.
pub(super) const VALUES: &str = "value/";

/// Where the value of a key is kept.
pub(super) fn stored_at(key: &str) -> String {
    format!("{VALUES}{}", key.trim_end_matches('/'))
}

fn key_of(request: &EngineRequest) -> &str {
    request.captures.get(KEY).map_or("", String::as_str)
}

/// The folder that a request names, with a slash at its end; empty at the top.
fn folder_of(request: &EngineRequest) -> String {
    match key_of(request) {
        "" => String::new(),
        folder => format!("{}/", folder.trim_end_matches('/')),
    }
}

pub(super) async fn is_there(request: &EngineRequest) -> Result<bool, RequestError> {
    Ok(request.context.storage.get(&stored_at(key_of(request))).await?.is_some())
}

/// Changes a value, unless the mount has become one of version 2 meanwhile, and the value one of its keys: this server has not heard of
/// that yet, and what it would write nobody would read.
async fn change(
    request: &EngineRequest,
    change: impl FnOnce(MountBatch) -> MountBatch,
) -> Result<LogicalResponse, RequestError> {
    let unversioned = MountBatch::new().check(record_at(key_of(request)), Expect::Absent);
    match request.context.storage.commit(change(unversioned)).await {
        Ok(()) => Ok(LogicalResponse::empty()),
        Err(StorageError::Conflict(_)) => {
            Err(RequestError::Unavailable("the mount becomes one of version 2: try again".to_owned()))
        }
        Err(other) => Err(other.into()),
    }
}

/// The handlers of the routes.
impl KvEngine {
    async fn read(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&stored_at(key_of(request))).await?.ok_or(RequestError::NotFound)?;
        let data: Object = decode(&request.path, &stored.value)?;
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
        let (at, data) = (stored_at(key_of(request)), encode(data)?);
        change(request, |batch| batch.put(at, data, Expect::Anything)).await
    }

    async fn delete(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let at = stored_at(key_of(request));
        change(request, |batch| batch.delete(at, Expect::Anything)).await
    }

    /// The names directly in a folder; a folder in it counts once, with its slash, however much is in it.
    async fn list(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (folder, cut) = (format!("{VALUES}{}", folder_of(request)), Cut::of(request));
        let names = request.context.storage.names(&folder, cut.after, cut.most).await?;
        cut.answer(names)
    }

    /// All names below a folder.
    async fn scan(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let folder = format!("{VALUES}{}", folder_of(request));
        let cut = Cut::of(request);
        cut.answer(names_below(&request.context.storage, &folder, &cut).await?)
    }
}
