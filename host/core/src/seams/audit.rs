//! Where audit lines go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::request::RequestError;

/// A finished line: secrets in it are HMACs already, unless the operator wants them raw.
pub struct AuditLine<'a>(pub &'a str);

impl fmt::Debug for AuditLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditLine({} bytes)", self.0.len())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("audit device `{device}` could not write: {why}")]
pub struct AuditError {
    pub device: String,
    pub why: String,
}

/// Writes lines. When `write` has returned `Ok`, the operating system has the whole line.
#[async_trait]
pub trait AuditDevice: Send + Sync {
    async fn write(&self, line: &AuditLine<'_>) -> Result<(), AuditError>;
    /// Closes and opens again, after a rotation.
    async fn reopen(&self) -> Result<(), AuditError>;
}

/// Makes devices of a type from their options; refuses with a text for the client.
#[async_trait]
pub trait AuditDevices: Send + Sync {
    async fn open(&self, kind: &str, options: &BTreeMap<String, String>) -> Result<Arc<dyn AuditDevice>, RequestError>;
}
