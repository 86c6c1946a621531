//! `cubbyhole/`: values that one token alone writes and reads, and that end with it.
//!
//! Invariant: a value is written only while its token is there, in the same commit; so none outlives it.

use crate::api::call::{Call, SystemHandler, handler};
use crate::api::pages;
use crate::codec::{decode, encode};
use crate::commit::names_below;
use crate::core::Unsealed;
use crate::fields::Object;
use crate::keys;
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Captures, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::{Batch, Expect, Listed, StorageError};
use crate::token::Caller;

const PATH: &str = "path";

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "",
        Access::Token,
        "The names at the top of the token's cubbyhole.",
        &[Op::list("List the names at the top.", handler!(list)).takes(pages::PAGE)],
    ),
    Route::new(
        "*path",
        Access::Token,
        "A value of the calling token, or the names in a folder.",
        &[
            Op::read("Read a value.", handler!(read)).answers(Answer::Data(&[])),
            Op::update("Write a value; it replaces the one that is there.", handler!(write)).takes_document(),
            Op::delete("Delete a value.", handler!(delete)),
            Op::list("List the names in a folder.", handler!(list)).takes(pages::PAGE),
        ],
    )
    .with_existence_check(),
];

fn key(caller: &Caller, captures: &Captures) -> keys::Key {
    let path = captures.get(PATH).map_or("", |path| path.trim_end_matches('/'));
    keys::cubbyhole(&caller.hash, path)
}

/// Whose cubbyhole it is: nobody notices the end of a batch token.
fn owner<'a>(call: &'a Call<'_>) -> Result<&'a Caller, RequestError> {
    let caller = call.caller()?;
    if caller.record.is_batch() {
        return Err(RequestError::invalid("cubbyhole operations are only supported by 'service' type tokens"));
    }
    Ok(caller)
}

/// Whether a write would replace something.
pub(super) async fn exists(unsealed: &Unsealed, caller: &Caller, captures: &Captures) -> Result<bool, StorageError> {
    Ok(unsealed.tokens.storage().get(&key(caller, captures)).await?.is_some())
}

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let key = key(owner(call)?, &call.captures);
    let stored = call.unsealed.tokens.storage().get(&key).await?.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::data(decode::<Object>(key.as_str(), &stored.value)?))
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let owner = owner(call)?;
    let data = call.fields.unknown();
    if data.is_empty() {
        // As in Vault: here its framework does not see it first.
        return Err(RequestError::Engine("missing data fields".to_owned()));
    }
    let batch = Batch::new().check(keys::token(&owner.hash), Expect::Present).put(
        key(owner, &call.captures),
        encode(data)?,
        Expect::Anything,
    );
    match call.unsealed.tokens.storage().commit(batch).await {
        Ok(()) => Ok(LogicalResponse::empty()),
        // It ended while this request was under way.
        Err(StorageError::Conflict(_)) => Err(RequestError::BadToken),
        Err(other) => Err(other.into()),
    }
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let batch = Batch::new().delete(key(owner(call)?, &call.captures));
    call.unsealed.tokens.storage().commit(batch).await?;
    Ok(LogicalResponse::empty())
}

/// The names directly in a folder; a folder in it counts once, with its slash.
async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let owner = owner(call)?;
    let folder = match call.captures.get(PATH).map_or("", |path| path.trim_end_matches('/')) {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let prefix = keys::cubbyhole(&owner.hash, &folder);
    let (storage, wanted) = (call.unsealed.tokens.storage(), pages::Wanted::of(call, pages::NAMES_MAX));
    let names = names_below(storage, Listed::Values, prefix.as_str(), wanted.after, wanted.most).await?;
    if names.is_empty() {
        return Err(RequestError::NotFound);
    }
    Ok(wanted.told(names.len(), LogicalResponse::json(serde_json::json!({ "keys": names })), "names"))
}
