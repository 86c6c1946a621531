//! Names of leases.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names one lease: the request path, a slash, and 24 random base62 characters.
///
/// Not a secret: it may be logged, and `sys/leases/lookup` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseId(String);

/// Why a text is no lease id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid lease id")]
pub struct ParseLeaseIdError;

/// Longer ids cannot exist: a request path has at most 4,096 bytes.
const LEN_MAX: usize = 4_200;

impl LeaseId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the request that made this lease.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(path, _)| path)
    }

    /// The random part.
    #[must_use]
    pub fn random(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, random)| random)
    }
}

impl FromStr for LeaseId {
    type Err = ParseLeaseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LEN_MAX || text.chars().any(char::is_control) {
            return Err(ParseLeaseIdError);
        }
        match text.rsplit_once('/') {
            Some((path, random)) if !path.is_empty() && !random.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(ParseLeaseIdError),
        }
    }
}

impl TryFrom<String> for LeaseId {
    type Error = ParseLeaseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LeaseId> for String {
    fn from(id: LeaseId) -> Self {
        id.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_id_is_a_path_and_a_random_part() {
        let id: LeaseId = "database/creds/readonly/BzeFfE0A".parse().unwrap();
        assert_eq!((id.path(), id.random()), ("database/creds/readonly", "BzeFfE0A"));
        for text in ["", "x", "/x", "x/", "a/\u{0}b"] {
            assert!(text.parse::<LeaseId>().is_err(), "{text:?}");
        }
    }
}
