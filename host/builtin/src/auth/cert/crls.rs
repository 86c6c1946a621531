//! Lists of certificates that were taken back, as an operator writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::auth::AuthRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Expect;
use leasehold_tls::RevocationList;
use serde_json::json;

/// Each login that is about to succeed reads them all.
const LISTS_MAX: usize = 16;
const LEN_MAX: usize = 512 << 10;

fn key(name: &str) -> String {
    format!("crl/{name}")
}

fn name_of(request: &AuthRequest) -> String {
    request.capture("name").to_lowercase()
}

fn unknown(name: &str) -> RequestError {
    RequestError::Invalid(format!("no such CRL {name}"))
}

pub(super) async fn write(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (storage, name) = (&request.context.storage, name_of(request));
    let given = |field: &str| request.fields.text(field).filter(|text| !text.is_empty());
    if given("url").is_some() {
        return Err(RequestError::invalid("'url' is not offered: write the list itself into 'crl'"));
    }
    let text = given("crl").ok_or_else(|| RequestError::invalid("one of 'crl' or 'url' must be provided"))?;
    if text.len() > LEN_MAX {
        return Err(RequestError::Invalid(format!("failed to parse CRL: it is longer than {} KiB", LEN_MAX >> 10)));
    }
    RevocationList::read(text.as_bytes())
        .map_err(|why| RequestError::Invalid(format!("failed to parse CRL: {why}")))?;
    let others = storage.names("crl/", "", LISTS_MAX + 1).await?;
    if others.iter().filter(|other| **other != name).count() >= LISTS_MAX {
        return Err(RequestError::Invalid(format!("there are {LISTS_MAX} CRLs at this mount, which is the most")));
    }
    storage.put(&key(&name), text.as_bytes().to_vec(), Expect::Anything).await?;
    Ok(LogicalResponse::empty())
}

pub(super) async fn read(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let name = name_of(request);
    let stored = request.context.storage.get(&key(&name)).await?.ok_or_else(|| unknown(&name))?;
    let text = String::from_utf8(stored.value).unwrap_or_else(|error| STANDARD.encode(error.into_bytes()));
    Ok(LogicalResponse::json(json!({ "crl": text })))
}

pub(super) async fn delete(request: &AuthRequest) -> Result<LogicalResponse, RequestError> {
    let (storage, name) = (&request.context.storage, name_of(request));
    if storage.get(&key(&name)).await?.is_none() {
        return Err(unknown(&name));
    }
    storage.delete(&key(&name)).await?;
    Ok(LogicalResponse::empty())
}

/// Whether a list of the mount names one of these certificates.
///
/// # Errors
/// A stored list cannot be read: then nobody can say.
pub(super) async fn have_revoked(storage: &MountStorage, chain: &[Vec<u8>]) -> Result<bool, RequestError> {
    for name in storage.names("crl/", "", usize::MAX).await? {
        let Some(stored) = storage.get(&key(&name)).await? else { continue };
        let damaged = |_| RequestError::Internal(format!("the stored CRL {name:?} is not readable"));
        let list = RevocationList::read(&stored.value).map_err(damaged)?;
        if chain.iter().any(|certificate| list.has_revoked(certificate)) {
            return Ok(true);
        }
    }
    Ok(false)
}
