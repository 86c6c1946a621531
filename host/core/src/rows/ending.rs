//! Why a token or a lease ends: every end has a cause, in the log and, until it is over, in the row.

use std::fmt;

use leasehold_model::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a token or a lease ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum EndCause {
    /// Its time was over.
    Expired,
    /// A token whose last use was taken.
    UsedUp,
    /// Somebody asked for it: the accessor of their token.
    Revoked {
        by: String,
    },
    /// Somebody had it forgotten, whatever its engine said.
    Forced {
        by: String,
    },
    /// The token that it was issued to ended: its accessor.
    TokenEnded {
        token: String,
    },
    /// The token that made this one ended: its accessor.
    ParentEnded {
        parent: String,
    },
    /// It was wrapped, and its wrapping token ended before anybody had read it: that token's accessor.
    Unread {
        wrapping: String,
    },
    MountDisabled {
        mount: String,
        by: String,
    },
    /// Its mount was moved to another path.
    MountMoved {
        mount: String,
        by: String,
    },
    /// Its client was gone before it had it.
    Undelivered,
    /// The answer that would have handed it out could not be recorded, or was refused.
    Withheld,
    /// Its issue failed half way, or the process ended in the middle of it.
    NotIssued,
    /// An older server began to end it and did not say why, or a newer one for a reason that this one does not know.
    #[serde(other)]
    Unknown,
}

impl EndCause {
    /// One word, for filters.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UsedUp => "used-up",
            Self::Revoked { .. } => "revoked",
            Self::Forced { .. } => "forced",
            Self::TokenEnded { .. } => "token-ended",
            Self::ParentEnded { .. } => "parent-ended",
            Self::Unread { .. } => "unread",
            Self::MountDisabled { .. } => "mount-disabled",
            Self::MountMoved { .. } => "mount-moved",
            Self::Undelivered => "undelivered",
            Self::Withheld => "withheld",
            Self::NotIssued => "not-issued",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // After a crash it is known that the token ended, but no longer which one it was.
        let named = |f: &mut fmt::Formatter<'_>, what: &str, accessor: &str| match accessor {
            "" => write!(f, "{what} ended"),
            accessor => write!(f, "{what}, accessor {accessor}, ended"),
        };
        match self {
            Self::Expired => f.write_str("it expired"),
            Self::UsedUp => f.write_str("its last use was taken"),
            Self::Revoked { by } => write!(f, "it was revoked by {by}"),
            Self::Forced { by } => write!(f, "it was given up by force, by {by}"),
            Self::TokenEnded { token } => named(f, "its token", token),
            Self::ParentEnded { parent } => named(f, "its parent token", parent),
            Self::Unread { wrapping } => named(f, "it was not unwrapped before its wrapping token", wrapping),
            Self::MountDisabled { mount, by } => write!(f, "`{mount}` was disabled by {by}"),
            Self::MountMoved { mount, by } => write!(f, "`{mount}` was moved by {by}"),
            Self::Undelivered => f.write_str("its client was gone before it had it"),
            Self::Withheld => f.write_str("the answer with it did not leave"),
            Self::NotIssued => f.write_str("its issue did not succeed"),
            Self::Unknown => f.write_str("an older server ended it and stored no cause"),
        }
    }
}

/// Since when a lease should be gone, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    #[serde(flatten)]
    pub cause: EndCause,
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_stored_and_read_again() {
        let text = || "Ab12".to_owned();
        for cause in [
            EndCause::Expired,
            EndCause::UsedUp,
            EndCause::Revoked { by: text() },
            EndCause::Forced { by: text() },
            EndCause::TokenEnded { token: text() },
            EndCause::ParentEnded { parent: String::new() },
            EndCause::Unread { wrapping: text() },
            EndCause::MountDisabled { mount: "db/".to_owned(), by: text() },
            EndCause::MountMoved { mount: "db/".to_owned(), by: text() },
            EndCause::Undelivered,
            EndCause::Withheld,
            EndCause::NotIssued,
            EndCause::Unknown,
        ] {
            let ending = Ending { since: Timestamp::from_secs(5), cause };
            let stored = serde_json::to_string(&ending).unwrap();
            assert!(stored.contains(&format!("\"cause\":\"{}\"", ending.cause.as_str())), "{stored}");
            assert_eq!(serde_json::from_str::<Ending>(&stored).unwrap(), ending);
            assert!(!ending.cause.to_string().is_empty());
        }
    }
}
