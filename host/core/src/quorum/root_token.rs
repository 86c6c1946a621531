//! A new root token, for those who hold enough shares.
//!
//! Whoever begins the attempt knows a one-time password, or is told one. The token leaves only XORed with it: whoever gives the last
//! share sees nothing that is of use without the password.

use leasehold_model::{Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Attempt, Counted, Given, Hidden, Quorum, QuorumError};
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, delete_surely, overtaken_too_often, was_overtaken};
use crate::keys;
use crate::random;
use crate::request::HandedOut;
use crate::seams::seal::KeyShare;
use crate::seams::storage::{Batch, Expect, Key};
use crate::token::Tokens;
use crate::token::create::First;

/// Characters of a one-time password: as many as a token has.
pub const OTP_LEN: usize = 26;

/// What is stored of an attempt.
#[derive(Debug, Serialize, Deserialize)]
struct RootAttempt {
    nonce: String,
    otp: Hidden,
    begun_at: Timestamp,
    given: Given,
}

impl Attempt for RootAttempt {
    fn begun_at(&self) -> Timestamp {
        self.begun_at
    }
}

/// How far an attempt is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootStatus {
    /// None: no attempt is in progress.
    pub nonce: Option<String>,
    pub progress: usize,
    pub required: u8,
}

/// What a share brought about.
#[derive(Debug)]
pub enum RootProgress {
    More(RootStatus),
    Made {
        status: RootStatus,
        /// The token XORed with the password, byte by byte.
        encoded: Zeroizing<Vec<u8>>,
        token: HandedOut,
    },
}

pub(super) fn key() -> Key {
    keys::attempt("root-token")
}

impl Quorum {
    /// # Errors
    /// As the store's.
    pub async fn root_status(&self) -> Result<RootStatus, QuorumError> {
        let stored = self.attempt::<RootAttempt>(&key()).await?;
        let required = self.seal.split().await?.threshold;
        Ok(match stored.record {
            Some(attempt) => RootStatus { nonce: Some(attempt.nonce), progress: attempt.given.progress(), required },
            None => RootStatus { nonce: None, progress: 0, required },
        })
    }

    /// Begins an attempt with this password of [`OTP_LEN`] bytes; without one it makes one, and gives it back.
    ///
    /// # Errors
    /// [`QuorumError::InProgress`]; there are no shares.
    pub async fn begin_root(&self, otp: Option<&str>) -> Result<Option<Zeroizing<String>>, QuorumError> {
        self.provable().await?;
        let made = otp.is_none().then(|| Zeroizing::new(random::base62(&*self.entropy, OTP_LEN)));
        let otp = made.as_ref().map(|made| made.as_str()).or(otp).unwrap_or_default();
        let attempt = RootAttempt {
            nonce: random::uuid(&*self.entropy),
            otp: Hidden::new(otp),
            begun_at: self.clock.now(),
            given: Given::default(),
        };
        let (key, value) = (key(), Zeroizing::new(encode(&attempt)?));
        for _ in 0..TRIES {
            let stored = self.attempt::<RootAttempt>(&key).await?;
            if stored.record.is_some() {
                return Err(QuorumError::InProgress);
            }
            let batch = Batch::new().put(key.clone(), value.to_vec(), stored.unchanged);
            if !was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
                tracing::info!(nonce = attempt.nonce, "root generation initialized");
                return Ok(made);
            }
        }
        Err(overtaken_too_often(&key).into())
    }

    /// Ends an attempt, if there is one.
    ///
    /// # Errors
    /// As the store's.
    pub async fn cancel_root(&self) -> Result<(), QuorumError> {
        let key = key();
        Ok(delete_surely(&*self.storage, Batch::new().delete(key.clone()), &key).await?)
    }

    /// Takes a share. With the last one that is needed, the token is stored in the commit that ends the attempt.
    ///
    /// # Errors
    /// See [`QuorumError`]. After a wrong share the progress is lost, and the attempt stays.
    pub async fn give_to_root(
        &self,
        tokens: &Tokens,
        share: &KeyShare,
        nonce: &str,
    ) -> Result<RootProgress, QuorumError> {
        Self::check_length(share)?;
        let (key, digest) = (key(), self.seal.share_digest(share));
        for _ in 0..TRIES {
            let stored = self.attempt::<RootAttempt>(&key).await?;
            let mut attempt = stored.record.ok_or(QuorumError::NotInProgress)?;
            if nonce != attempt.nonce {
                return Err(QuorumError::WrongNonce(attempt.nonce));
            }
            let split = self.provable().await?;
            let counted = attempt.given.count(digest.clone(), &split.digests, split.threshold);
            let status = RootStatus {
                nonce: Some(attempt.nonce.clone()),
                progress: attempt.given.progress(),
                required: split.threshold,
            };
            let (batch, put, done) = match counted {
                Counted::Repeated => return Err(QuorumError::Repeated),
                Counted::Wrong if !attempt.given.forget() => return Err(QuorumError::WrongShare(split)),
                Counted::Wrong | Counted::More => {
                    let value = Zeroizing::new(encode(&attempt)?);
                    let batch = Batch::new().put(key.clone(), value.to_vec(), stored.unchanged);
                    let done = match counted {
                        Counted::Wrong => Err(QuorumError::WrongShare(split)),
                        _ => Ok(RootProgress::More(status)),
                    };
                    (batch, (key.clone(), value), done)
                }
                Counted::Enough => {
                    let token = tokens.new_id();
                    let record = First::Root.record(tokens.new_accessor(), self.clock.now());
                    let encoded = xored(&token, attempt.otp.expose());
                    let (hash, inserted) = tokens.insertion(&token, &record, None)?;
                    let batch = inserted
                        .delete_expecting(key.clone(), stored.unchanged)
                        // Shares that are replaced at this moment prove nothing.
                        .check(keys::seal(), Expect::Version(split.version));
                    let token = HandedOut::token(token, &record.accessor);
                    (
                        batch,
                        (keys::token(&hash), Zeroizing::new(encode(&record)?)),
                        Ok(RootProgress::Made { status, encoded, token }),
                    )
                }
            };
            if was_overtaken(commit_surely(&*self.storage, batch, &put.0, &put.1).await)? {
                continue;
            }
            if let Ok(RootProgress::Made { token, .. }) = &done {
                crate::fail::point("root-token-made");
                tracing::warn!(nonce, ?token, "root generation finished: a quorum of shares has made a root token");
            }
            return done;
        }
        Err(overtaken_too_often(&key).into())
    }
}

/// Byte by byte; both have the same length, and what one has more is left out.
fn xored(token: &TokenId, otp: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(token.expose().bytes().zip(otp.bytes()).map(|(token, otp)| token ^ otp).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CountingEntropy;

    #[test]
    fn a_password_is_as_long_as_a_token() {
        assert_eq!(First::Root.token(&CountingEntropy::default()).expose().len(), OTP_LEN);
    }

    #[test]
    fn the_password_gives_the_token_back() {
        let token = TokenId::new("s.abcdefghijklmnopqrstuvwx");
        let otp = "0123456789ABCDEFGHIJKLMNOP";
        let encoded = xored(&token, otp);
        let decoded: Vec<u8> = encoded.iter().zip(otp.bytes()).map(|(encoded, otp)| encoded ^ otp).collect();
        assert_eq!(decoded, token.expose().as_bytes());
        assert_ne!(*encoded, token.expose().as_bytes());
    }
}
