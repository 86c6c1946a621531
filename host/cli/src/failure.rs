//! How a command ends badly, and with which exit status.
//!
//! The statuses are Vault's: 1 for what was wrong on this side (usage, a field that is not there), 2 for what the
//! server refused or could not be asked. No message quotes a token or a value that was sent.

use crate::client::ClientError;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Wrong usage or a local problem: exit status 1.
    #[error("{0}")]
    Local(String),
    /// The server refused, or there was nothing there: exit status 2.
    #[error("{0}")]
    Server(String),
    /// Everything that is to be said has been printed; only the status is left.
    #[error("exit status {0}")]
    Status(u8),
    /// The request was not sent; this was asked for instead (`-output-curl-string`, `-output-policy`).
    #[error("the request was not sent")]
    NotSent(String),
    /// Standard output is gone (a closed pipe): nobody is left to talk to.
    #[error("could not write the output")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// Puts what was being done in front of what the client says.
    pub(crate) fn while_doing(what: impl std::fmt::Display, error: ClientError) -> Self {
        match error {
            ClientError::NotSent(instead) => Self::NotSent(instead),
            error => Self::Server(format!("{what}: {error}")),
        }
    }

    /// The client's words alone.
    pub(crate) fn from_client(error: ClientError) -> Self {
        match error {
            ClientError::NotSent(instead) => Self::NotSent(instead),
            error => Self::Server(error.to_string()),
        }
    }

    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Local(_) | Self::Output(_) => 1,
            Self::Server(_) => 2,
            Self::Status(status) => *status,
            Self::NotSent(_) => 0,
        }
    }
}
