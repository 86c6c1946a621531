//! New shares in place of the present ones, for those who hold enough of these: of the root key, or recovery shares.
//!
//! Where verification is asked for, the new shares are handed out before they count; the present ones go on counting until enough of the
//! new ones have been shown to be there.

use leasehold_model::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Attempt, Counted, Given, Hidden, NO_DIGESTS, Quorum, QuorumError};
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, delete_surely, overtaken_too_often, was_overtaken};
use crate::keys;
use crate::random;
use crate::seams::seal::{Dealt, KeyShare, NewKeys, SealError, SecretKey, Split};
use crate::seams::storage::{Batch, Expect, Key, StorageError};

/// What gets new shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The root key. Where a seal opens the server, it has no shares: only the key is replaced.
    Root,
    Recovery,
}

impl Target {
    fn key(self) -> Key {
        keys::attempt(match self {
            Self::Root => "rotate-root",
            Self::Recovery => "rotate-recovery",
        })
    }
}

/// How the new shares are to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub shares: i64,
    pub threshold: i64,
    /// They count when they have been shown to be there.
    pub verify: bool,
}

/// What is stored of an attempt.
#[derive(Debug, Serialize, Deserialize)]
struct Rekey {
    nonce: String,
    begun_at: Timestamp,
    shares: u8,
    threshold: u8,
    verify: bool,
    given: Given,
    dealt: Option<Waiting>,
}

/// Shares that are handed out and do not count yet.
#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    /// Of the verification.
    nonce: String,
    /// The key that they give, in hex.
    key: Hidden,
    digests: Vec<String>,
    given: Given,
    /// The digests of the shares that allowed it. They do so only for as long as they are the present ones.
    #[serde(default)]
    allowed_by: Option<Vec<String>>,
}

impl Attempt for Rekey {
    fn begun_at(&self) -> Timestamp {
        self.begun_at
    }
}

/// How far an attempt is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyStatus {
    /// None: no attempt is in progress.
    pub attempt: Option<RekeyAttempt>,
    /// How many of the present shares it takes.
    pub required: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyAttempt {
    pub nonce: String,
    pub shares: u8,
    pub threshold: u8,
    pub progress: usize,
    pub verify: bool,
    pub verification: Option<Verification>,
}

/// How far the verification of handed out shares is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    pub nonce: String,
    pub progress: usize,
}

impl Rekey {
    fn shown(&self) -> RekeyAttempt {
        RekeyAttempt {
            nonce: self.nonce.clone(),
            shares: self.shares,
            threshold: self.threshold,
            // When they have done their work, as many are needed again.
            progress: if self.dealt.is_some() { 0 } else { self.given.progress() },
            verify: self.verify,
            verification: self
                .dealt
                .as_ref()
                .map(|dealt| Verification { nonce: dealt.nonce.clone(), progress: dealt.given.progress() }),
        }
    }
}

/// The new shares, at the one moment at which they are known.
#[derive(Debug)]
pub struct NewShares {
    pub nonce: String,
    /// None where a seal opens the server.
    pub shares: Vec<KeyShare>,
    /// They do not count before they are verified, with this nonce.
    pub verification_nonce: Option<String>,
    /// The store did not say whether they count: then these or the old ones do.
    pub is_uncertain: bool,
}

/// What a share brought about.
#[derive(Debug)]
pub enum RekeyProgress {
    More,
    Done(NewShares),
}

/// What a share of the new ones brought about.
#[derive(Debug, PartialEq, Eq)]
pub enum VerifyProgress {
    More,
    /// They count from now on. The nonce of the verification.
    Done(String),
}

const NOBODYS_SHARE: &str =
    "there are no recovery keys yet, so that nobody's share is asked for: this takes a token with sudo on the path";
pub(crate) const NO_RECOVERY: &str = "recovery keys not supported";

impl Quorum {
    /// # Errors
    /// As the store's; [`QuorumError::Impossible`] where there can be no recovery shares.
    pub async fn rekey_status(&self, target: Target) -> Result<RekeyStatus, QuorumError> {
        let split = self.split_for(target).await?;
        let attempt = self.attempt::<Rekey>(&target.key()).await?.record;
        Ok(RekeyStatus { attempt: attempt.map(|attempt| attempt.shown()), required: split.threshold })
    }

    async fn split_for(&self, target: Target) -> Result<Split, QuorumError> {
        let split = self.seal.split().await?;
        match target {
            Target::Recovery if !split.recovery => Err(QuorumError::Impossible(NO_RECOVERY)),
            _ => Ok(split),
        }
    }

    /// Begins an attempt. Where there are no recovery shares yet, nobody can give one, and the new ones are dealt at once: to whoever has
    /// `sudo`, and to nobody else, for such shares open the way to a root token.
    ///
    /// # Errors
    /// See [`QuorumError`].
    pub async fn begin_rekey(
        &self,
        target: Target,
        wish: Wish,
        has_sudo: bool,
    ) -> Result<Option<NewShares>, QuorumError> {
        let key = target.key();
        for _ in 0..TRIES {
            let stored = self.attempt::<Rekey>(&key).await?;
            if stored.record.is_some() {
                return Err(QuorumError::InProgress);
            }
            let split = self.split_for(target).await?;
            let is_key_alone = target == Target::Root && split.recovery;
            if is_key_alone && wish.verify {
                return Err(QuorumError::NothingToVerify);
            }
            let (shares, threshold) = if is_key_alone { (1, 1) } else { checked(wish.shares, wish.threshold)? };
            let has_none = split.shares == 0;
            if has_none && target == Target::Root {
                return Err(QuorumError::Impossible(super::NO_SHARES));
            }
            if has_none && !has_sudo {
                return Err(QuorumError::Impossible(NOBODYS_SHARE));
            }
            if !has_none && split.digests.is_empty() {
                return Err(QuorumError::Impossible(NO_DIGESTS));
            }
            let mut attempt = Rekey {
                nonce: random::uuid(&*self.entropy),
                begun_at: self.clock.now(),
                shares,
                threshold,
                verify: wish.verify,
                given: Given::default(),
                dealt: None,
            };
            if has_none {
                match self.deal(target, &mut attempt, &split, (&key, stored.unchanged)).await {
                    Err(QuorumError::Storage(StorageError::Conflict(_))) => continue,
                    done => return done.map(Some),
                }
            }
            let value = encode(&attempt)?;
            let batch = Batch::new().put(key.clone(), value.clone(), stored.unchanged);
            if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                tracing::info!(nonce = attempt.nonce, shares, threshold, verify = wish.verify, "rotation initialized");
                return Ok(None);
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// Ends an attempt, if there is one. Shares that were handed out and not verified come to nothing.
    ///
    /// # Errors
    /// As the store's.
    pub async fn cancel_rekey(&self, target: Target) -> Result<(), QuorumError> {
        let key = target.key();
        Ok(delete_surely(&*self.storage, Batch::new().delete(key.clone()), &key).await?)
    }

    /// Takes one of the present shares. With the last one that is needed, the new ones are dealt.
    ///
    /// # Errors
    /// See [`QuorumError`]. After a wrong share the progress is lost, and the attempt stays.
    pub async fn give_to_rekey(
        &self,
        target: Target,
        share: &KeyShare,
        nonce: &str,
    ) -> Result<RekeyProgress, QuorumError> {
        Self::check_length(share)?;
        let (key, digest) = (target.key(), self.seal.share_digest(share));
        for _ in 0..TRIES {
            let stored = self.attempt::<Rekey>(&key).await?;
            let mut attempt = stored.record.ok_or(QuorumError::NotInProgress)?;
            if let Some(dealt) = &attempt.dealt {
                return Err(QuorumError::MustVerify(dealt.nonce.clone()));
            }
            if nonce != attempt.nonce {
                return Err(QuorumError::WrongNonce(attempt.nonce));
            }
            let split = self.provable().await?;
            let counted = attempt.given.count(digest.clone(), &split.digests, split.threshold);
            match counted {
                Counted::Repeated => return Err(QuorumError::Repeated),
                Counted::Wrong if !attempt.given.forget() => return Err(QuorumError::WrongShare(split)),
                Counted::Wrong | Counted::More => {
                    let value = encode(&attempt)?;
                    let batch = Batch::new().put(key.clone(), value.clone(), stored.unchanged);
                    if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                        return match counted {
                            Counted::Wrong => Err(QuorumError::WrongShare(split)),
                            _ => Ok(RekeyProgress::More),
                        };
                    }
                }
                Counted::Enough => match self.deal(target, &mut attempt, &split, (&key, stored.unchanged)).await {
                    Err(QuorumError::Storage(StorageError::Conflict(_))) => {}
                    done => return done.map(RekeyProgress::Done),
                },
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// Deals new shares; they count at once, unless they are to be verified.
    async fn deal(
        &self,
        target: Target,
        attempt: &mut Rekey,
        split: &Split,
        (key, unchanged): (&Key, Expect),
    ) -> Result<NewShares, QuorumError> {
        let nonce = attempt.nonce.clone();
        let end = match unchanged {
            Expect::Absent => Batch::new().check(key.clone(), unchanged),
            _ => Batch::new().delete_expecting(key.clone(), unchanged),
        };
        if target == Target::Root && split.recovery {
            self.adopt_fresh(split, end).await?;
            return Ok(NewShares { nonce, shares: Vec::new(), verification_nonce: None, is_uncertain: false });
        }
        let dealt = self.seal.deal(attempt.shares, attempt.threshold)?;
        if !attempt.verify {
            // Shares that may count are handed out, whatever the store says: nobody else knows them.
            let is_uncertain = match self.adopt(new_keys(target, &dealt), split, end).await {
                Ok(()) => false,
                Err(QuorumError::Storage(StorageError::Unavailable(why))) => {
                    tracing::error!(why, "it is not known whether the new key shares count");
                    true
                }
                Err(error) => return Err(error),
            };
            return Ok(NewShares { nonce, shares: dealt.shares, verification_nonce: None, is_uncertain });
        }
        let verification_nonce = random::uuid(&*self.entropy);
        attempt.dealt = Some(Waiting {
            nonce: verification_nonce.clone(),
            key: Hidden::new(hex::encode(*dealt.key.0)),
            digests: dealt.digests.clone(),
            given: Given::default(),
            allowed_by: Some(split.digests.clone()),
        });
        let value = Zeroizing::new(encode(&*attempt)?);
        // Shares that are replaced at this moment prove nothing.
        let batch = Batch::new()
            .put(key.clone(), value.to_vec(), unchanged)
            .check(keys::seal(), Expect::Version(split.version));
        commit_surely(&*self.storage, batch, key, &value).await?;
        crate::fail::point("rekey-dealt");
        Ok(NewShares { nonce, shares: dealt.shares, verification_nonce: Some(verification_nonce), is_uncertain: false })
    }

    /// A fresh root key, where a seal opens the server.
    async fn adopt_fresh(&self, proved: &Split, end: Batch) -> Result<(), QuorumError> {
        // Another server may be asked for this: nobody else waits for it meanwhile.
        let Some(fresh) = self.seal.wrap_fresh_key().await? else { return Err(replaced()) };
        self.adopt(NewKeys::Wrapped(&fresh), proved, end).await
    }

    async fn adopt(&self, new: NewKeys<'_>, proved: &Split, end: Batch) -> Result<(), QuorumError> {
        let adopted = self.seal.adopt(new, proved, end, self.nodes.may_be_several());
        match self.nodes.write_keys(adopted).await {
            Ok(()) => {
                crate::fail::point("rekey-adopted");
                // It has happened: whatever goes wrong here must not keep the new shares from those who asked for them. A server that
                // does not follow in time follows later.
                if let Err(error) = self.nodes.settle().await {
                    tracing::warn!(%error, "it is not known whether the other servers follow to the new keys");
                }
                Ok(())
            }
            Err(SealError::Storage(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes one of the new shares. With the last one that is needed, the new ones count, and the present ones do not any more.
    ///
    /// # Errors
    /// See [`QuorumError`]. A wrong share ends the progress, and the verification gets another nonce.
    pub async fn verify_rekey(
        &self,
        target: Target,
        share: &KeyShare,
        nonce: &str,
    ) -> Result<VerifyProgress, QuorumError> {
        Self::check_length(share)?;
        let (key, digest) = (target.key(), self.seal.share_digest(share));
        for _ in 0..TRIES {
            let stored = self.attempt::<Rekey>(&key).await?;
            let mut attempt = stored.record.ok_or(QuorumError::NotInProgress)?;
            let threshold = attempt.threshold;
            let dealt = attempt.dealt.as_mut().ok_or(QuorumError::NothingToVerify)?;
            if nonce != dealt.nonce {
                return Err(QuorumError::WrongNonce(dealt.nonce.clone()));
            }
            let digests = dealt.digests.clone();
            let counted = dealt.given.count(digest.clone(), &digests, threshold);
            match counted {
                Counted::Repeated => return Err(QuorumError::Repeated),
                Counted::Wrong | Counted::More => {
                    if counted == Counted::Wrong {
                        dealt.given.forget();
                        dealt.nonce = random::uuid(&*self.entropy);
                    }
                    if !self.stored(&key, &attempt, stored.unchanged).await? {
                        continue;
                    }
                    return match counted {
                        Counted::Wrong => Err(QuorumError::NotVerified),
                        _ => Ok(VerifyProgress::More),
                    };
                }
                Counted::Enough => {
                    let split = self.split_for(target).await?;
                    let end = Batch::new().delete_expecting(key.clone(), stored.unchanged);
                    if dealt.allowed_by.as_ref() != Some(&split.digests) {
                        // Whoever holds the present shares has allowed nothing, and nobody can verify this any more.
                        if was_overtaken(delete_surely(&*self.storage, end, &key).await)? {
                            continue;
                        }
                        return Err(replaced());
                    }
                    let done = dealt.nonce.clone();
                    let dealt = dealt.dealt(threshold)?;
                    match self.adopt(new_keys(target, &dealt), &split, end).await {
                        Err(QuorumError::Storage(StorageError::Conflict(_))) => {}
                        adopted => return adopted.map(|()| VerifyProgress::Done(done)),
                    }
                }
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// Begins the verification anew, under another nonce. The attempt stays.
    ///
    /// # Errors
    /// [`QuorumError::NotInProgress`].
    pub async fn restart_verification(&self, target: Target) -> Result<(), QuorumError> {
        let key = target.key();
        for _ in 0..TRIES {
            let stored = self.attempt::<Rekey>(&key).await?;
            let mut attempt = stored.record.ok_or(QuorumError::NotInProgress)?;
            let Some(dealt) = &mut attempt.dealt else { return Ok(()) };
            dealt.given.forget();
            dealt.nonce = random::uuid(&*self.entropy);
            if self.stored(&key, &attempt, stored.unchanged).await? {
                return Ok(());
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    async fn stored(&self, key: &Key, attempt: &Rekey, unchanged: Expect) -> Result<bool, QuorumError> {
        let value = Zeroizing::new(encode(attempt)?);
        let batch = Batch::new().put(key.clone(), value.to_vec(), unchanged);
        Ok(!was_overtaken(commit_surely(&*self.storage, batch, key, &value).await)?)
    }

    /// A new root key at once, where a seal opens the server: nobody has shares of it.
    ///
    /// # Errors
    /// [`QuorumError::Impossible`] where shares open the server.
    pub async fn replace_root_key(&self) -> Result<(), QuorumError> {
        let split = self.seal.split().await?;
        if !split.recovery {
            return Err(QuorumError::Impossible(
                "the root key is what the key shares give: replace both with `sys/rotate/root/init`",
            ));
        }
        self.adopt_fresh(&split, Batch::new()).await
    }

    /// Removes attempts that are over.
    ///
    /// # Errors
    /// As the store's.
    pub async fn forget_old_attempts(&self) -> Result<(), StorageError> {
        for key in [Target::Root.key(), Target::Recovery.key(), super::root_token::key()] {
            let stored = self.attempt::<serde_json::Value>(&key).await?;
            if stored.record.is_none() && stored.unchanged != Expect::Absent {
                let batch = Batch::new().delete_expecting(key, stored.unchanged);
                was_overtaken(self.storage.commit(batch).await)?;
            }
        }
        Ok(())
    }
}

/// Any attempt.
impl Attempt for serde_json::Value {
    fn begun_at(&self) -> Timestamp {
        self.get("begun_at").and_then(|at| Timestamp::deserialize(at).ok()).unwrap_or(Timestamp::from_secs(0))
    }
}

impl Waiting {
    /// The split, without the shares: nobody has those but their holders.
    fn dealt(&self, threshold: u8) -> Result<Dealt, StorageError> {
        let bytes = hex::decode(self.key.expose()).map(Zeroizing::new);
        let key = bytes.ok().and_then(|bytes| bytes.as_slice().try_into().ok());
        let key = key.ok_or_else(|| StorageError::Corrupt("attempt/rotate".to_owned()))?;
        Ok(Dealt { key: SecretKey(Zeroizing::new(key)), threshold, digests: self.digests.clone(), shares: Vec::new() })
    }
}

fn replaced() -> QuorumError {
    QuorumError::Seal(SealError::Invalid(Split::REPLACED.to_owned()))
}

fn new_keys(target: Target, dealt: &Dealt) -> NewKeys<'_> {
    match target {
        Target::Root => NewKeys::Root(dealt),
        Target::Recovery => NewKeys::Recovery(dealt),
    }
}

/// In Vault's words, and in its order.
fn checked(shares: i64, threshold: i64) -> Result<(u8, u8), QuorumError> {
    let why = if shares < 1 {
        "shares must be at least one"
    } else if threshold < 1 {
        "threshold must be at least one"
    } else if shares > 1 && threshold == 1 {
        "threshold must be greater than one for multiple shares"
    } else if shares > 255 {
        "shares must be less than 256"
    } else if threshold > 255 {
        "threshold must be less than 256"
    } else if threshold > shares {
        "threshold cannot be larger than shares"
    } else {
        let numbers = u8::try_from(shares).ok().zip(u8::try_from(threshold).ok());
        return numbers.ok_or(QuorumError::NoSplit("shares must be less than 256"));
    };
    Err(QuorumError::NoSplit(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused_in_vaults_words() {
        for (shares, threshold, why) in [
            (0, 0, "shares must be at least one"),
            (-1, 2, "shares must be at least one"),
            (3, 0, "threshold must be at least one"),
            (3, 1, "threshold must be greater than one for multiple shares"),
            (256, 2, "shares must be less than 256"),
            (3, 256, "threshold must be less than 256"),
            (3, 5, "threshold cannot be larger than shares"),
        ] {
            assert_eq!(checked(shares, threshold).unwrap_err().to_string(), why, "{threshold} of {shares}");
        }
        assert_eq!(checked(255, 255).unwrap(), (255, 255));
        assert_eq!(checked(1, 1).unwrap(), (1, 1));
    }
}
