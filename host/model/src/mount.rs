//! Where engines answer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name;

/// Where an engine answers, with the slash at its end: `database/`, `auth/token/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountPath(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid mount path")]
pub struct ParseMountPathError;

impl MountPath {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one of the two lies at or below the other, so that both cannot be mounted.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }
}

impl FromStr for MountPath {
    type Err = ParseMountPathError;

    /// Adds the slash at the end when it is missing; refuses empty segments, `.`, `..` and unprintable characters.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let fine = !bare.is_empty() && bare.len() <= 1_024 && bare.split('/').all(name::is_path_segment);
        if fine { Ok(Self(format!("{bare}/"))) } else { Err(ParseMountPathError) }
    }
}

impl TryFrom<String> for MountPath {
    type Error = ParseMountPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MountPath> for String {
    fn from(path: MountPath) -> Self {
        path.0
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a mount for ever, also when it moves: type, `_`, 8 hex digits. Storage keys use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountAccessor(String);

impl MountAccessor {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MountAccessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_inside_each_other_conflict() {
        let path = |text: &str| text.parse::<MountPath>().unwrap();
        assert!(path("a/b").conflicts_with(&path("a")) && path("a").conflicts_with(&path("a/b/c")));
        assert!(!path("ab").conflicts_with(&path("a")));
        assert_eq!(path("database").as_str(), "database/");
        for text in ["", "/", "a//b", "../a", "a/./b", "a\nb"] {
            assert!(text.parse::<MountPath>().is_err(), "{text:?}");
        }
    }
}
