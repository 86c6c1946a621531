//! What an instance is asked, and what it answers.

use leasehold_core::seams::sandbox::Verdict;
use leasehold_model::Capabilities;

use super::wit;

/// A longer list of paths is not even tried on the caller's thread …
const BRIEF_QUESTIONS: usize = 64;
/// … nor is a request with more keys, or with more bytes in them: to hand these in costs fuel, whatever the set.
const BRIEF_KEYS: usize = 256;
const BRIEF_BYTES: usize = 16 << 10;

pub(super) enum Question {
    Decide(wit::Request),
    Capabilities(Vec<String>),
    GrantsBelow(String),
}

impl Question {
    pub(super) fn count(&self) -> usize {
        if let Self::Capabilities(paths) = self { paths.len() } else { 1 }
    }

    /// Whether handing it in costs next to nothing.
    pub(super) fn is_brief(&self) -> bool {
        match self {
            Self::Decide(request) => {
                let keys = &request.parameters;
                keys.len() <= BRIEF_KEYS && keys.iter().map(|key| key.name.len()).sum::<usize>() <= BRIEF_BYTES
            }
            Self::Capabilities(paths) => {
                paths.len() <= BRIEF_QUESTIONS && paths.iter().map(String::len).sum::<usize>() <= BRIEF_BYTES
            }
            Self::GrantsBelow(prefix) => prefix.len() <= BRIEF_BYTES,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Verdict(Verdict),
    Capabilities(Vec<Capabilities>),
    GrantsBelow(bool),
}

impl Reply {
    /// For the log.
    pub(super) fn in_a_word(&self) -> &'static str {
        match self {
            Self::Verdict(verdict) if verdict.allowed => "allowed",
            Self::Verdict(_) => "denied",
            Self::Capabilities(_) => "capabilities",
            Self::GrantsBelow(true) => "grants below",
            Self::GrantsBelow(false) => "grants nothing below",
        }
    }
}
