//! What takes a quorum of those who hold shares: a new root token, and new shares.
//!
//! Must not know: how a key is split, how a request is asked and answered, or which server was asked.
//!
//! An attempt is a sealed row. Any server over the store goes on with what another one has begun, and a restart forgets nothing. The row
//! has the digests of the shares that were given, and never a share: the seal knows a digest of each share, so that a share
//! proves itself when it is given and is not needed any more.
//!
//! Start with [`Quorum`] and [`Given`], then [`root_token`] and [`rekey`].
//!
//! Invariants: no share is stored, or outlives the request that brings it; a share counts once; a wrong share ends the progress; what an
//! attempt brings about happens in the commit that removes its row.

pub mod rekey;
pub mod root_token;

use std::fmt;
use std::sync::Arc;

use leasehold_model::{Timestamp, Ttl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::commit::{self, Stored};
use crate::nodes::Nodes;
use crate::seams::host::{Clock, Entropy};
use crate::seams::seal::{KeyShare, Seal, SealError, Split};
use crate::seams::storage::{Key, Storage, StorageError};

/// An attempt that was begun that long ago is over. Shares are gathered within hours, and what nobody has ended must not wait for ever.
pub const ATTEMPT_MAX: Ttl = Ttl::from_secs(86_400);

/// Attempts, while the server is unsealed.
pub struct Quorum {
    storage: Arc<dyn Storage>,
    seal: Arc<dyn Seal>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    nodes: Arc<Nodes>,
}

impl fmt::Debug for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quorum")
    }
}

/// Why a step of an attempt was refused. How it is said depends on how it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    #[error("an attempt is in progress already")]
    InProgress,
    #[error("no attempt is in progress")]
    NotInProgress,
    /// The nonce of the attempt that is in progress.
    #[error("incorrect nonce: that of the attempt is `{0}`")]
    WrongNonce(String),
    /// A share has another length than any can have: what is wrong with it.
    #[error("{0}")]
    NoShare(String),
    #[error("the share has been given already")]
    Repeated,
    /// No share of the present ones. The progress is lost.
    #[error("a wrong share was given")]
    WrongShare(Split),
    /// The shares have been dealt, and are to be verified: with this nonce.
    #[error("verification must be performed; its nonce is `{0}`")]
    MustVerify(String),
    /// No shares wait for that, or there can be none.
    #[error("there is nothing to verify")]
    NothingToVerify,
    /// A share that is none of the new ones. The progress of the verification is lost.
    #[error("a wrong share was given to be verified")]
    NotVerified,
    /// Numbers of shares that make no sense, in Vault's words.
    #[error("{0}")]
    NoSplit(&'static str),
    /// What cannot be done with the present shares, and what to do instead.
    #[error("{0}")]
    Impossible(&'static str),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

const NO_SHARES: &str =
    "there are no recovery keys: the server was initialized without any, and `sys/rotate/recovery/init` makes some";
const NO_DIGESTS: &str =
    "the digests of the key shares are not stored yet: seal this server and unseal it again, which stores them";

impl Quorum {
    #[must_use]
    pub fn new(
        storage: Arc<dyn Storage>,
        seal: Arc<dyn Seal>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        nodes: Arc<Nodes>,
    ) -> Self {
        Self { storage, seal, clock, entropy, nodes }
    }

    /// The attempt that is in progress, if one is, and what its next writer must expect.
    async fn attempt<T: Attempt>(&self, key: &Key) -> Result<Stored<T>, StorageError> {
        let mut stored: Stored<T> = commit::read(&*self.storage, key).await?;
        let now = self.clock.now();
        stored.record = stored.record.filter(|attempt| now < attempt.begun_at() + ATTEMPT_MAX);
        Ok(stored)
    }

    /// The present shares, which somebody may prove themselves by.
    async fn provable(&self) -> Result<Split, QuorumError> {
        let split = self.seal.split().await?;
        match (split.threshold, split.digests.is_empty()) {
            (0, _) => Err(QuorumError::Impossible(NO_SHARES)),
            (_, true) => Err(QuorumError::Impossible(NO_DIGESTS)),
            _ => Ok(split),
        }
    }

    /// # Errors
    /// [`QuorumError::NoShare`], in Vault's words.
    fn check_length(share: &KeyShare) -> Result<(), QuorumError> {
        let (least, most) = (Split::SHARE_LEN_MIN, Split::SHARE_LEN_MAX);
        match share.0.len() {
            len if len < least => Err(QuorumError::NoShare(format!("key is shorter than minimum {least} bytes"))),
            len if len > most => Err(QuorumError::NoShare(format!("key is longer than maximum {most} bytes"))),
            _ => Ok(()),
        }
    }
}

/// What all rows of attempts have.
trait Attempt: DeserializeOwned {
    fn begun_at(&self) -> Timestamp;
}

/// Which shares have been given, by their digests.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Given(Vec<String>);

/// What a share did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It is none of these.
    Wrong,
    Repeated,
    /// It counts, and more are needed.
    More,
    Enough,
}

impl Given {
    /// Counts a share among those of `digests`. Those that were given before count only as long as they are among these.
    pub(crate) fn count(&mut self, share: String, digests: &[String], threshold: u8) -> Counted {
        self.0.retain(|given| digests.contains(given));
        if !digests.contains(&share) {
            return Counted::Wrong;
        }
        if self.0.contains(&share) {
            return Counted::Repeated;
        }
        self.0.push(share);
        if self.0.len() < usize::from(threshold) { Counted::More } else { Counted::Enough }
    }

    pub(crate) fn progress(&self) -> usize {
        self.0.len()
    }

    /// Whether there was anything to forget.
    pub(crate) fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }
}

/// A secret of an attempt, in its row. It is wiped when it is dropped, and no log shows it.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hidden(String);

impl Hidden {
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_once_and_only_while_it_is_one() {
        let digests = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut given = Given::default();
        let all = digests(&["a", "b", "c"]);
        assert_eq!(given.count("x".to_owned(), &all, 2), Counted::Wrong);
        assert_eq!(given.count("a".to_owned(), &all, 2), Counted::More);
        assert_eq!(given.count("a".to_owned(), &all, 2), Counted::Repeated);
        // The shares were replaced: what was given of the old ones says nothing any more.
        let others = digests(&["d", "e", "f"]);
        assert_eq!(given.count("d".to_owned(), &others, 2), Counted::More);
        assert_eq!(given.count("e".to_owned(), &others, 2), Counted::Enough);
        assert!(given.forget() && !given.forget() && given.progress() == 0);
    }

    #[test]
    fn a_secret_of_an_attempt_is_never_shown() {
        assert!(!format!("{:?}", Hidden::new("canary")).contains("canary"));
    }
}
