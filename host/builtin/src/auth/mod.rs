//! Auth methods that ship with the server, one folder each, and what they share.
//!
//! Must not know: HTTP, how tokens are made or stored. A method checks a proof and says what the token is like.
//!
//! Start with [`userpass`]; [`jose`] is what the methods share that take signed tokens.
//!
//! Invariants: no password and no secret id is stored, logged or read back; a refusal reads the same whether or not a name exists.

pub mod approle;
pub mod cert;
mod jose;
pub mod jwt;
pub mod kubernetes;
mod old_names;
mod records;
#[cfg(test)]
mod testing;
pub mod userpass;

use std::net::IpAddr;

use leasehold_core::fields::{Field, Kind};
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::auth::{AuthRequest, LoginToken};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Versioned;
use leasehold_core::seams::token_params::{TokenParams, sanitized};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// How often a change is tried when others change the same value at the same moment.
const TRIES: usize = 32;

/// What a list takes.
const PAGES: &[Field] = &[
    Field::visible("after", Kind::Text, "Lists the names after this one."),
    Field::visible("limit", Kind::Int, "The most names to list."),
];

const OUTSIDE: &str = "the request comes from an address outside token_bound_cidrs";

/// Whether somebody may log in from there: the address is in one of the blocks that tokens are bound to, if there are such.
fn may_come_from(client: Option<IpAddr>, token: &TokenParams) -> bool {
    let blocks = &token.bound_cidrs;
    blocks.is_empty() || client.is_some_and(|client| blocks.iter().any(|block| block.contains(client)))
}

/// # Errors
/// [`RequestError::LoginDenied`]: nobody may log in from there. For methods whose other refusals read so, too.
fn check_client(token: &TokenParams, client: Option<IpAddr>) -> Result<(), RequestError> {
    if may_come_from(client, token) {
        return Ok(());
    }
    Err(RequestError::LoginDenied { reason: OUTSIDE.to_owned() })
}

/// Whether a token may still be renewed with the policies that it was made with; `default` does not count.
///
/// # Errors
/// They are not those of its user or role any more: a renewal would keep them alive.
fn check_policies(now: &TokenParams, token: &LoginToken<'_>) -> Result<(), RequestError> {
    let counted = |policies: &[String]| {
        let mut policies = sanitized(policies);
        policies.retain(|name| name != "default");
        policies
    };
    if counted(&now.policies) == counted(token.policies) {
        return Ok(());
    }
    Err(RequestError::Engine("failed to renew entry: policies have changed, not renewing".to_owned()))
}

/// Every try met another change.
fn contended() -> RequestError {
    RequestError::Unavailable("too many requests change this at the same time, try again".to_owned())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, RequestError> {
    serde_json::to_vec(value).map_err(|_| RequestError::Internal("a value could not be written as JSON".to_owned()))
}

/// The error names the key, not the value.
fn decode<T: DeserializeOwned>(key: &str, stored: &Versioned) -> Result<T, RequestError> {
    serde_json::from_slice(&stored.value)
        .map_err(|_| RequestError::Internal(format!("the stored value {key:?} is not readable")))
}

async fn load<T: DeserializeOwned>(storage: &MountStorage, key: &str) -> Result<Option<(T, u64)>, RequestError> {
    let Some(stored) = storage.get(key).await? else { return Ok(None) };
    Ok(Some((decode(key, &stored)?, stored.version)))
}

/// A list's answer: the names below a folder, those of the page that the fields `after` and `limit` ask for.
async fn listed(request: &AuthRequest, folder: &str) -> Result<LogicalResponse, RequestError> {
    let after = request.fields.text("after").unwrap_or_default();
    let limit = request.fields.int("limit").and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let names = request.context.storage.names(folder, after, limit.unwrap_or(usize::MAX)).await?;
    if names.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": names }))) }
}
