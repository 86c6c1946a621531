//! Lists of certificates that were taken back, as an operator writes them.
//!
//! Lists that were read are kept by the digest of their text, so that a new text is never taken for an old one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::auth::AuthRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::Expect;
use leasehold_tls::RevocationList;
use serde_json::json;

/// Each login that is about to succeed looks at them all.
const LISTS_MAX: usize = 16;
const LEN_MAX: usize = 512 << 10;
/// Lists that are kept in memory, of all mounts together.
const KEPT_MAX: usize = 32;

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

/// The texts of a mount's lists, by name.
pub(super) async fn texts(storage: &MountStorage) -> Result<Vec<(String, Vec<u8>)>, RequestError> {
    let mut texts = Vec::new();
    for name in storage.names("crl/", "", usize::MAX).await? {
        if let Some(stored) = storage.get(&key(&name)).await? {
            texts.push((name, stored.value));
        }
    }
    Ok(texts)
}

/// Lists that were read.
#[derive(Default)]
pub(super) struct Lists(Mutex<HashMap<Vec<u8>, Arc<RevocationList>>>);

impl Lists {
    /// Takes long for texts that it has not seen lately: not for the threads that serve requests.
    ///
    /// # Errors
    /// A stored list cannot be read: then nobody can say who was taken back.
    pub(super) fn read(&self, texts: &[(String, Vec<u8>)]) -> Result<Vec<Arc<RevocationList>>, RequestError> {
        texts.iter().map(|(name, text)| self.one(name, text)).collect()
    }

    fn one(&self, name: &str, text: &[u8]) -> Result<Arc<RevocationList>, RequestError> {
        let key = digest::digest(&digest::SHA256, text).as_ref().to_vec();
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(known));
        }
        let damaged = |_| RequestError::Internal(format!("the stored CRL {name:?} is not readable"));
        let read = Arc::new(RevocationList::read(text).map_err(damaged)?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&read));
        Ok(read)
    }
}
