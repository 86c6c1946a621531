//! Password policies: what an operator says about passwords that this server makes.
//!
//! Must not know: what a password is made for, or HTTP.
//!
//! Start with [`PasswordPolicies`]; [`policy`] reads one text and makes passwords of it, [`tree`] reads the notation.
//!
//! Invariants: policies are read from the store each time they are used, so that every server follows the last write; a
//! policy that is stored can make a password, in bounded time; no text ends in a panic.

mod policy;
mod tree;

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use policy::{PasswordPolicy, PolicyError};

use crate::codec::{decode, encode};
use crate::keys;
use crate::seams::error::RequestError;
use crate::seams::host::Entropy;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// Bytes of one policy's text.
pub const TEXT_MAX: usize = 32 * 1024;
/// Keys read at once.
const PAGE: u32 = 1_000;

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    policy: String,
}

/// The stored policies, and passwords made by them. Engines hold it, since they must not read `sys/` themselves.
#[derive(Clone)]
pub struct PasswordPolicies {
    storage: Arc<dyn Storage>,
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for PasswordPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordPolicies")
    }
}

impl PasswordPolicies {
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, entropy: Arc<dyn Entropy>) -> Self {
        Self { storage, entropy }
    }

    /// The text of a policy as it was written.
    ///
    /// # Errors
    /// As the store's.
    pub async fn text(&self, name: &str) -> Result<Option<String>, StorageError> {
        let key = keys::password_policy(name);
        let Some(stored) = self.storage.get(&key).await? else { return Ok(None) };
        decode::<Record>(key.as_str(), &stored.value).map(|record| Some(record.policy))
    }

    /// Returns what is legal and probably not meant.
    ///
    /// # Errors
    /// 400 with Vault's words for a text that is no policy; as the store's.
    pub async fn write(&self, name: &str, text: &str) -> Result<Vec<String>, RequestError> {
        let misspelt = policy::misspelt(text);
        PasswordPolicy::parse(text).map_err(|error| {
            let refused = RequestError::InvalidMulti(error.to_string());
            misspelt.iter().cloned().fold(refused, RequestError::with_help)
        })?;
        let record = encode(&Record { policy: text.to_owned() })?;
        self.storage.commit(Batch::new().put(keys::password_policy(name), record, Expect::Anything)).await?;
        Ok(misspelt)
    }

    /// # Errors
    /// As the store's.
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.storage.commit(Batch::new().delete(keys::password_policy(name))).await
    }

    /// The names of all policies, in order. Slashes in a name make no folders.
    ///
    /// # Errors
    /// As the store's.
    pub async fn names(&self) -> Result<Vec<String>, StorageError> {
        let prefix = keys::password_policy("");
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let page = self.storage.scan(&prefix, after.as_ref(), PAGE).await?;
            let Some(last) = page.last().cloned() else { return Ok(names) };
            names.extend(page.iter().filter_map(|key| key.as_str().strip_prefix(prefix.as_str())).map(str::to_owned));
            after = Some(last);
        }
    }

    /// A new password; `None` where there is no such policy.
    ///
    /// # Errors
    /// As the store's; the stored policy cannot be read.
    pub async fn generate(&self, name: &str) -> Result<Option<SecretString>, RequestError> {
        let Some(text) = self.text(name).await? else { return Ok(None) };
        let policy = PasswordPolicy::parse(&text).map_err(|error| {
            RequestError::Internal(format!("the stored password policy {name:?} is not readable: {error}"))
        })?;
        Ok(Some(policy.generate(&*self.entropy)))
    }
}
