//! How a request fails, whichever part of the server it fails in.

use super::sandbox::SandboxError;
use super::storage::StorageError;
use crate::quota::rate::RateCounts;

/// Every way a request can fail. Status and body are decided in `http/src/error.rs`, nowhere else.
/// Texts are Vault's own words and name no value that a client sent as a secret.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// 400 `E(text)`.
    #[error("{0}")]
    Invalid(String),
    /// 400 `M(text)`: Vault wraps what an engine's framework refuses.
    #[error("{0}")]
    InvalidMulti(String),
    /// Another one, and what to do about it as a further entry of `errors`. Clients that compare texts find Vault's as it is.
    #[error("{error}")]
    Helped { error: Box<RequestError>, help: String },
    /// 400 `E(said)`: a login whose proof is not good. The client learns `said`; the audit record has the reason besides.
    #[error("{said}")]
    LoginRefused { said: &'static str, reason: String },
    /// 403 `E(permission denied)`: a login that is refused whatever its proof is. Only the audit record has the reason.
    #[error("permission denied")]
    LoginDenied { reason: String },
    /// 500 `E(text)`, as in Vault: a login that does not say who logs in, or with what.
    #[error("{0}")]
    LoginIncomplete(&'static str),
    /// 403 `E(permission denied)`: no token, an unknown or an expired one.
    #[error("permission denied")]
    BadToken,
    /// 403 `M(permission denied)`: the ACL refuses.
    #[error("permission denied")]
    Denied,
    /// 403 `E(text)`.
    #[error("{0}")]
    Forbidden(String),
    /// 403 `M(permission denied)` with the messages of the policy module as further entries of `errors`.
    #[error("permission denied")]
    DeniedByModule { policy: String, messages: Vec<String> },
    /// 404 `{"errors":[]}`.
    #[error("not found")]
    NotFound,
    /// 404 `E(text)`.
    #[error("{0}")]
    NoRoute(String),
    /// 404 `M(text)`.
    #[error("{0}")]
    Missing(String),
    /// 404 `M(unsupported path)`.
    #[error("unsupported path")]
    UnsupportedPath,
    /// 404 `M(unsupported path: text)`: Vault serves it, and this server does not yet.
    #[error("unsupported path: {0}")]
    NotOffered(String),
    /// 405 `M(unsupported operation)`.
    #[error("unsupported operation")]
    UnsupportedOperation,
    /// 405 `{"errors":[]}`.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// 415 `E(text)`.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// 413 `E(http: request body too large)`.
    #[error("http: request body too large")]
    BodyTooLarge,
    /// 429 `E(text)`, to be tried again in a second.
    #[error("{0}")]
    TooMany(String),
    /// 429 `E(text)`, with `Retry-After`; with `X-RateLimit-*` where they are wanted.
    #[error("request path \"{path}\": rate limit quota exceeded")]
    RateLimited { path: String, retry_secs: u64, counts: Option<RateCounts> },
    /// 429 `M(text)`, and what to do as a further entry of `errors`; with `Retry-After`.
    #[error("request path \"{path}\": lease count quota exceeded")]
    LeaseCountExceeded { path: String, limit: String, max_leases: u64, retry_secs: Option<u64> },
    /// 500 `M(text)`: an engine's own failure, in words that a client may read.
    #[error("{0}")]
    Engine(String),
    /// 500 `E(text)`, as in Vault: the configured seal and what is stored do not go together, or the seal refuses.
    #[error("{0}")]
    SealRefused(String),
    /// 503 `E(Vault is sealed)`.
    #[error("Vault is sealed")]
    Sealed,
    /// 503 `E(text)`: a queue is full, a target is down; try again.
    #[error("{0}")]
    Unavailable(String),
    /// 500 `E(internal error, request id …)`: the log has the rest.
    #[error("policy module could not decide")]
    Sandbox(#[source] SandboxError),
    /// 503 with a hint to try again when the store is away, else 500.
    #[error("storage failure")]
    Storage(#[source] StorageError),
    /// 500.
    #[error("no audit device could write the record")]
    Audit,
    /// 500. The text goes to the log, not to the client.
    #[error("{0}")]
    Internal(String),
}

impl RequestError {
    #[must_use]
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// This one, with what to do about it.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self::Helped { error: Box::new(self), help: help.into() }
    }

    /// What an engine or its input got wrong becomes the client's to mend, in other words; everything else stays as it is.
    #[must_use]
    pub fn reworded(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Invalid(text) | Self::InvalidMulti(text) | Self::Engine(text) => Self::Invalid(words(text)),
            Self::Helped { error, help } => error.reworded(words).with_help(help),
            other => other,
        }
    }

    /// What is wrong, without what to do about it.
    #[must_use]
    pub fn bare(&self) -> &Self {
        match self {
            Self::Helped { error, .. } => error.bare(),
            error => error,
        }
    }
}

impl From<SandboxError> for RequestError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Busy => Self::Unavailable("policy workers are busy".to_owned()),
            too_long @ SandboxError::TooLong(_) => Self::Invalid(too_long.to_string()),
            SandboxError::Loading => Self::Unavailable(
                "a policy module that judges this request is still being loaded, try again".to_owned(),
            ),
            other => Self::Sandbox(other),
        }
    }
}

impl From<StorageError> for RequestError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Sealed => Self::Sealed,
            StorageError::LeaseQuotaExceeded { path, limit, max_leases, retry_secs } => {
                Self::LeaseCountExceeded { path, limit, max_leases, retry_secs }
            }
            StorageError::TooManyWaiting(_) => Self::Invalid(error.to_string()),
            other => Self::Storage(other),
        }
    }
}
