//! A connection as it is stored.
//!
//! Must not know: what a field means.
//!
//! Start with [`ConnectionRecord::to_bytes`] and [`ConnectionRecord::from_bytes`].
//!
//! Invariant: a record that an older version stored can be read.

use std::collections::BTreeMap;

use leasehold_core::seams::sandbox::Dialect;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::rotation::Rotation;
use super::ConnectionRecord;

/// The record as it is sealed into storage: the only form in which the secrets are written.
#[derive(Serialize, Deserialize)]
struct Stored {
    plugin_name: String,
    plugin_version: String,
    allowed_roles: Vec<String>,
    root_rotation_statements: Vec<String>,
    #[serde(default)]
    root_rotation_dialect: Option<Dialect>,
    password_policy: String,
    connection_url: String,
    password: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    files_confined: bool,
    #[serde(default)]
    is_password_unproved: bool,
    #[serde(default)]
    is_key_unproved: bool,
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    server_place: Option<String>,
    #[serde(default)]
    rotation: Rotation,
    details: BTreeMap<String, Value>,
}

impl ConnectionRecord {
    pub(in super::super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Stored {
            plugin_name: self.plugin_name.clone(),
            plugin_version: self.plugin_version.clone(),
            allowed_roles: self.allowed_roles.clone(),
            root_rotation_statements: self.root_rotation_statements.clone(),
            root_rotation_dialect: self.root_rotation_dialect,
            password_policy: self.password_policy.clone(),
            connection_url: self.connection_url.expose_secret().to_owned(),
            password: self.password.expose_secret().to_owned(),
            private_key: self.private_key.expose_secret().to_owned(),
            files_confined: self.files_confined,
            is_password_unproved: self.is_password_unproved,
            is_key_unproved: self.is_key_unproved,
            server: self.server.clone(),
            server_place: self.server_place.clone(),
            rotation: self.rotation.clone(),
            details: self.details.clone(),
        })
    }

    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let stored: Stored = serde_json::from_slice(bytes)?;
        Ok(Self {
            plugin_name: stored.plugin_name,
            plugin_version: stored.plugin_version,
            allowed_roles: stored.allowed_roles,
            root_rotation_statements: stored.root_rotation_statements,
            root_rotation_dialect: stored.root_rotation_dialect,
            password_policy: stored.password_policy,
            connection_url: SecretString::from(stored.connection_url),
            password: SecretString::from(stored.password),
            private_key: SecretString::from(stored.private_key),
            files_confined: stored.files_confined,
            is_password_unproved: stored.is_password_unproved,
            is_key_unproved: stored.is_key_unproved,
            server: stored.server,
            server_place: stored.server_place,
            rotation: stored.rotation,
            details: stored.details,
        })
    }
}
