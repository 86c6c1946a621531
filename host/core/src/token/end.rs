//! The end of a token, and what goes with it in the same commit.
//!
//! Must not know: how descendants and leases end one after the other ([`lease::tokens`](crate::lease) does).
//!
//! Start with [`Tokens::revoke_one`].
//!
//! Invariant: a token's row goes only when nothing hangs on the token. Whoever makes something hang on it names it in the same commit.

use leasehold_model::TokenHash;

use super::Tokens;
use super::record::TokenRecord;
use super::store::lease_id;
use crate::codec::{decode, encode};
use crate::keys;
use crate::rows::ending::EndCause;
use crate::rows::lease::LeaseRow;
use crate::rows::state::LeaseState;
use crate::seams::storage::{Batch, Expect, Key, StorageError, Versioned};

/// How often a token is read again that changes before it is ended. Each of its counted uses changes it, and those who use it must not
/// be able to keep it.
const END_TRIES: u32 = 10_000;

/// Children that become orphans in one commit, or values of a cubbyhole that go in one.
const CHILDREN_AT_ONCE: u32 = 200;

/// What the end of a token has left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing hung on it: it is gone, row and all.
    Whole,
    /// What hangs on the token with this accessor.
    Itself(String),
    /// It had ended before; perhaps something hangs on it still.
    Before,
}

/// What becomes of a buried token's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    AreRevoked,
    BecomeOrphans,
}

impl Tokens {
    /// Ends one token at once: after this it cannot act. What hangs on it is the lease module's next work, which survives a crash
    /// because the row says `Revoking`.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub async fn revoke_one(&self, hash: &TokenHash, fate: Children, cause: &EndCause) -> Result<Ended, StorageError> {
        let mut may_be_alone = true;
        for _ in 0..END_TRIES {
            let Some(stored) = self.storage().get(&keys::token(hash)).await? else { return Ok(Ended::Before) };
            let (record, batch) = removal(hash, &stored)?;
            let row = self.storage().lease(&lease_id(&record.path, hash)?).await?;
            let (batch, ended) = match row {
                Some(row) if may_be_alone && !record.hands_out() => (self.whole(batch, row), Ended::Whole),
                row => {
                    if fate == Children::BecomeOrphans {
                        self.cut_loose(hash).await?;
                    }
                    let (now, accessor) = (self.now(), record.accessor.as_str().to_owned());
                    let batch = row.into_iter().fold(batch, |batch, row| {
                        let (from, fence) = (row.state, row.fence);
                        let revoking = LeaseRow { state: LeaseState::Revoking, fence: fence + 1, ..row };
                        batch.shift(revoking.released(now).ending(cause, now), from, fence)
                    });
                    (batch, Ended::Itself(accessor))
                }
            };
            match self.storage().commit(batch).await {
                // Something hangs on it, or somebody is at work on it.
                Err(StorageError::NotEmpty(_) | StorageError::Conflict(_) | StorageError::Fenced(_)) => {
                    may_be_alone = false;
                }
                Err(other) => return Err(other),
                Ok(()) => {
                    tell(&record, cause);
                    return Ok(ended);
                }
            }
        }
        Err(StorageError::Unavailable("a token that is to end changes all the time".to_owned()))
    }

    /// Ends a token whose row was claimed, if nothing hangs on it and nobody has changed it since.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub(crate) async fn end_whole(&self, row: &LeaseRow, cause: &EndCause) -> Result<bool, StorageError> {
        let Some(stored) = self.storage().get(&keys::token(&row.token)).await? else { return Ok(false) };
        let (record, batch) = removal(&row.token, &stored)?;
        if record.hands_out() {
            return Ok(false);
        }
        match self.storage().commit(self.whole(batch, row.clone())).await {
            Ok(()) => {
                tell(&record, cause);
                Ok(true)
            }
            Err(StorageError::NotEmpty(_) | StorageError::Conflict(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Takes the row of a token away with it, if it has no child, no lease and nothing in its cubbyhole. Whoever adds one of these
    /// checks that the token is there.
    fn whole(&self, removal: Batch, row: LeaseRow) -> Batch {
        let (children, cubbyhole) = (keys::token_children(&row.token), keys::cubbyhole(&row.token, ""));
        let batch = removal.remove(row.id.clone(), row.fence).check_empty(children).check_empty(cubbyhole);
        batch.check_no_leases(row.token, row.id)
    }

    /// What takes a wrapping token away, row and all. `None`: it is gone, or is being ended.
    ///
    /// # Errors
    /// As [`Storage::get`].
    pub(crate) async fn removal_of_read(&self, hash: &TokenHash) -> Result<Option<Batch>, StorageError> {
        let Some(stored) = self.storage().get(&keys::token(hash)).await? else { return Ok(None) };
        let (record, batch) = removal(hash, &stored)?;
        let row = self.storage().lease(&lease_id(&record.path, hash)?).await?;
        let row = row.filter(|row| row.state == LeaseState::Active);
        Ok(row.map(|row| batch.remove(row.id, row.fence)))
    }

    /// Removes all that a token which has ended had in its cubbyhole.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn empty_cubbyhole(&self, hash: &TokenHash) -> Result<(), StorageError> {
        let prefix = keys::cubbyhole(hash, "");
        loop {
            let page = self.storage().scan(&prefix, None, CHILDREN_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let batch = page.into_iter().fold(Batch::new(), Batch::delete);
            self.storage().commit(batch).await?;
        }
    }

    /// Makes orphans of a token's children, some at a time. A crash in between leaves orphans that somebody asked for, and a token
    /// that can be revoked again.
    async fn cut_loose(&self, hash: &TokenHash) -> Result<(), StorageError> {
        let prefix = keys::token_children(hash);
        loop {
            let page = self.storage().scan(&prefix, None, CHILDREN_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for key in page {
                let child = key.as_str().strip_prefix(prefix.as_str()).map(TokenHash::from_hex).unwrap_or(hash.clone());
                if let Some((orphan, version)) = self.find(&child).await? {
                    let orphan = TokenRecord { parent: None, ..orphan };
                    batch = batch.put(keys::token(&child), encode(&orphan)?, Expect::Version(version));
                }
                batch = batch.delete(key);
            }
            match self.storage().commit(batch).await {
                // One of them was used or ended in between: look again.
                Ok(()) | Err(StorageError::Conflict(_)) => {}
                Err(other) => return Err(other),
            }
        }
    }

    /// The direct child that comes after this key, if there is one.
    ///
    /// # Errors
    /// As [`Storage::scan`].
    pub(crate) async fn next_child(
        &self,
        hash: &TokenHash,
        after: Option<&Key>,
    ) -> Result<Option<(Key, TokenHash)>, StorageError> {
        let prefix = keys::token_children(hash);
        let found = self.storage().scan(&prefix, after, 1).await?.into_iter().next();
        Ok(found.and_then(|key| {
            let child = TokenHash::from_hex(key.as_str().strip_prefix(prefix.as_str())?);
            Some((key, child))
        }))
    }
}

/// A stored token, and what takes it away but for its row.
fn removal(hash: &TokenHash, stored: &Versioned) -> Result<(TokenRecord, Batch), StorageError> {
    let record: TokenRecord = decode(keys::token(hash).as_str(), &stored.value)?;
    let mut batch = Batch::new()
        .delete_expecting(keys::token(hash), Expect::Version(stored.version))
        .delete(keys::token_accessor(&record.accessor));
    if let Some(parent) = &record.parent {
        batch = batch.delete(keys::token_child(parent, hash));
    }
    if let Some(wraps) = &record.wraps {
        batch = batch.delete(keys::wrapped(hash));
        if wraps.deferred {
            batch = batch.delete(keys::deferred(hash));
        }
        if let Some(entity) = &wraps.asker {
            batch = batch.delete_expecting(keys::waits_of(entity, hash), Expect::Present);
        }
    }
    Ok((record, batch))
}

fn tell(record: &TokenRecord, cause: &EndCause) {
    let accessor = record.accessor.as_str();
    tracing::info!(token.accessor = accessor, cause = cause.as_str(), "token {accessor} ended: {cause}");
}
