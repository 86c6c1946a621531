//! All that touches stored tokens, but for who shows one: [`admit`](super::admit).

use aws_lc_rs::hmac;
use leasehold_model::{Accessor, LeaseId, MountAccessor, Timestamp, TokenHash, TokenId};
use std::sync::Arc;

use super::batch::{self, Sealer};
use super::record::TokenRecord;
use crate::codec::{decode, encode};
use crate::commit::names_below;
use crate::keys;
use crate::mount::Table;
use crate::random;
use crate::rows::ending::EndCause;
use crate::rows::lease::{LeaseBody, LeaseRow};
use crate::rows::state::{LeaseKind, LeaseState};
use crate::seams::host::{Clock, Entropy};
use crate::seams::seal::SecretKey;
use crate::seams::storage::{Batch, Expect, Key, Listed, Storage, StorageError, Versioned};
use crate::wrapping::Wraps;

/// Longer ones are not ours: nobody may make us hash megabytes before authentication.
pub const TOKEN_LEN_MAX: usize = 1_024;

/// How often a token is read again that changes before it is ended. Each of its counted uses changes it, and those who use it must not
/// be able to keep it.
const END_TRIES: u32 = 10_000;

/// Children that become orphans in one commit, or values of a cubbyhole that go in one.
const CHILDREN_AT_ONCE: u32 = 200;

/// A new service token: `s.` and 24 base62 characters (142 bits).
#[must_use]
pub(super) fn new_id(entropy: &dyn Entropy) -> TokenId {
    TokenId::new(format!("s.{}", random::base62(entropy, 24)))
}

/// What this module needs of the seal.
#[derive(Debug)]
pub struct TokenKeys {
    /// Stored tokens are found by their HMAC.
    pub hash: SecretKey,
    /// Seals batch tokens.
    pub batch: SecretKey,
}

/// Whether a shown text may be a token at all.
#[must_use]
pub fn may_be_token(text: &str) -> bool {
    let longest = if text.starts_with(batch::PREFIX) { batch::LEN_MAX } else { TOKEN_LEN_MAX };
    !text.is_empty() && text.len() <= longest
}

/// Stored tokens, by HMAC.
pub struct Tokens {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    key: hmac::Key,
    batch: Sealer,
    /// The accessor of the `auth/token/` mount.
    mount: MountAccessor,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    #[must_use]
    pub fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        keys: &TokenKeys,
        mount: MountAccessor,
    ) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, keys.hash.0.as_slice());
        Self { storage, clock, entropy, key, batch: Sealer::new(&keys.batch), mount }
    }

    #[must_use]
    pub fn hash(&self, token: &TokenId) -> TokenHash {
        TokenHash::from_hex(hex::encode(hmac::sign(&self.key, token.expose().as_bytes())))
    }

    #[must_use]
    pub fn new_id(&self) -> TokenId {
        new_id(&*self.entropy)
    }

    #[must_use]
    pub fn new_accessor(&self) -> Accessor {
        Accessor::new(random::base62(&*self.entropy, 24))
    }

    /// Stores `record` under `id`, with its indexes and its lease row, in one step.
    ///
    /// # Errors
    /// `Conflict` when the id is taken or the parent has gone in the meantime.
    pub async fn insert(&self, id: &TokenId, record: &TokenRecord) -> Result<TokenHash, StorageError> {
        let (hash, batch) = self.insertion(id, record, None)?;
        self.storage.commit(batch).await?;
        Ok(hash)
    }

    /// What [`Tokens::insert`] writes.
    ///
    /// # Errors
    /// None that happens: a record can be written.
    pub(crate) fn insertion(
        &self,
        id: &TokenId,
        record: &TokenRecord,
        wraps: Option<Wraps>,
    ) -> Result<(TokenHash, Batch), StorageError> {
        let hash = self.hash(id);
        let mut batch = Batch::new()
            .put(keys::token(&hash), encode(record)?, Expect::Absent)
            .put(keys::token_accessor(&record.accessor), hash.as_str().as_bytes().to_vec(), Expect::Absent)
            .insert(self.row(&hash, record)?);
        if let Some(parent) = &record.parent {
            batch = batch.check(keys::token(parent), Expect::Present).put(
                keys::token_child(parent, &hash),
                Vec::new(),
                Expect::Anything,
            );
        }
        if let Some(mount) = &record.mount {
            // The mount may be on its way out: a token that begins after its tokens were listed would outlive it.
            batch = batch
                .check(keys::mount(Table::Auth.as_str(), mount), Expect::Present)
                .check(keys::mount_taint(mount), Expect::Absent);
        }
        if let Some(entity) = &record.entity {
            batch =
                batch.check(keys::entity(entity), Expect::Present).check(keys::entity_disabled(entity), Expect::Absent);
        }
        if let Some(wraps) = wraps {
            batch = batch.put(keys::wrapped(&hash), wraps.sealed, Expect::Absent);
            if let Some(deferred) = wraps.deferred {
                batch = batch.put(keys::deferred(&hash), deferred, Expect::Absent);
            }
            if let Some(entity) = &wraps.wrapped.asker {
                batch = batch.put(keys::waits_of(entity, &hash), Vec::new(), Expect::Absent);
            }
        }
        Ok((hash, batch))
    }

    /// The accessor of the `auth/token/` mount.
    pub(crate) fn mount(&self) -> &MountAccessor {
        &self.mount
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// # Errors
    /// As [`Storage::get`].
    pub async fn find(&self, hash: &TokenHash) -> Result<Option<(TokenRecord, u64)>, StorageError> {
        let Some(stored) = self.storage.get(&keys::token(hash)).await? else { return Ok(None) };
        let record: TokenRecord = decode(keys::token(hash).as_str(), &stored.value)?;
        Ok((!record.is_expired(self.clock.now())).then_some((record, stored.version)))
    }

    /// A new batch token that carries `record`. `None`: it would be too long.
    #[must_use]
    pub fn sealed(&self, record: &TokenRecord) -> Option<TokenId> {
        self.batch.seal(&*self.entropy, record)
    }

    /// The token behind a shown text, if it lives; of either kind.
    ///
    /// # Errors
    /// As [`Storage::get`].
    pub async fn find_shown(&self, token: &TokenId) -> Result<Option<(TokenHash, TokenRecord)>, StorageError> {
        if !may_be_token(token.expose()) {
            return Ok(None);
        }
        let hash = self.hash(token);
        if !token.expose().starts_with(batch::PREFIX) {
            return Ok(self.find(&hash).await?.map(|(record, _)| (hash, record)));
        }
        let opened = self.batch.open(token).filter(|record| !record.is_expired(self.clock.now()));
        let Some(record) = opened else { return Ok(None) };
        // It dies with its parent, and with the mount whose login made it.
        if let Some(parent) = &record.parent
            && self.find(parent).await?.is_none()
        {
            return Ok(None);
        }
        if let Some(mount) = &record.mount
            && !self.serves(mount).await?
        {
            return Ok(None);
        }
        Ok(Some((hash, record)))
    }

    /// Whether an auth mount is there and is not being removed.
    async fn serves(&self, mount: &MountAccessor) -> Result<bool, StorageError> {
        let is_there = self.storage.get(&keys::mount(Table::Auth.as_str(), mount)).await?.is_some();
        Ok(is_there && self.storage.get(&keys::mount_taint(mount)).await?.is_none())
    }

    /// What stands for all batch tokens that logins at one mount have made: they are stored nowhere, and their leases are kept
    /// under this hash, so that disabling the mount finds them. No token has it, because no token's text begins with a zero byte.
    #[must_use]
    pub fn batch_tokens_of(&self, mount: &MountAccessor) -> TokenHash {
        self.hash(&TokenId::new(format!("\0mount {mount}")))
    }

    /// # Errors
    /// As [`Storage::get`].
    pub async fn find_by_accessor(
        &self,
        accessor: &Accessor,
    ) -> Result<Option<(TokenHash, TokenRecord)>, StorageError> {
        let Some(stored) = self.storage.get(&keys::token_accessor(accessor)).await? else { return Ok(None) };
        let hash = TokenHash::from_hex(String::from_utf8_lossy(&stored.value).into_owned());
        Ok(self.find(&hash).await?.map(|(record, _)| (hash, record)))
    }

    /// Moves the end of a token to `expires_at`, in its record and its row at once.
    ///
    /// # Errors
    /// `Conflict` or `Fenced` when it was changed or revoked in the meantime.
    pub async fn extend(&self, hash: &TokenHash, record: &TokenRecord, version: u64) -> Result<(), StorageError> {
        let Some(row) = self.storage.lease(&lease_id(&record.path, hash)?).await? else {
            return Err(StorageError::Conflict("token".to_owned()));
        };
        let fence = row.fence;
        let end = record.expires_at.unwrap_or(Timestamp::NEVER);
        let made = row.opened_body().map(|body| (body.role, body.below)).unwrap_or_default();
        // The fence rises: a ticker that claimed the row at its old end must not end the token.
        let moved = LeaseRow { fence: fence + 1, expires_at: end, body: body(record, made)?, ..row }.released(end);
        self.storage
            .commit(Batch::new().put(keys::token(hash), encode(record)?, Expect::Version(version)).shift(
                moved,
                LeaseState::Active,
                fence,
            ))
            .await
    }

    /// Whether the last use of a stored token was taken.
    ///
    /// # Errors
    /// As [`Storage::get`].
    pub(crate) async fn is_used_up(&self, hash: &TokenHash) -> Result<bool, StorageError> {
        Ok(self.find(hash).await?.is_some_and(|(record, _)| record.num_uses < 0))
    }

    /// Ends one token at once: after this it cannot act. What hangs on it is the lease module's next work, which survives a crash
    /// because the row says `Revoking`.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub async fn revoke_one(&self, hash: &TokenHash, fate: Children, cause: &EndCause) -> Result<Ended, StorageError> {
        let mut may_be_alone = true;
        for _ in 0..END_TRIES {
            let Some(stored) = self.storage.get(&keys::token(hash)).await? else { return Ok(Ended::Before) };
            let (record, batch) = removal(hash, &stored)?;
            let row = self.storage.lease(&lease_id(&record.path, hash)?).await?;
            let (batch, ended) = match row {
                Some(row) if may_be_alone && !record.hands_out() => (self.whole(batch, row), Ended::Whole),
                row => {
                    if fate == Children::BecomeOrphans {
                        self.cut_loose(hash).await?;
                    }
                    let (now, accessor) = (self.clock.now(), record.accessor.as_str().to_owned());
                    let batch = row.into_iter().fold(batch, |batch, row| {
                        let (from, fence) = (row.state, row.fence);
                        let revoking = LeaseRow { state: LeaseState::Revoking, fence: fence + 1, ..row };
                        batch.shift(revoking.released(now).ending(cause, now), from, fence)
                    });
                    (batch, Ended::Itself(accessor))
                }
            };
            match self.storage.commit(batch).await {
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
        let Some(stored) = self.storage.get(&keys::token(&row.token)).await? else { return Ok(false) };
        let (record, batch) = removal(&row.token, &stored)?;
        if record.hands_out() {
            return Ok(false);
        }
        match self.storage.commit(self.whole(batch, row.clone())).await {
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
        let Some(stored) = self.storage.get(&keys::token(hash)).await? else { return Ok(None) };
        let (record, batch) = removal(hash, &stored)?;
        let row = self.storage.lease(&lease_id(&record.path, hash)?).await?;
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
            let page = self.storage.scan(&prefix, None, CHILDREN_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let batch = page.into_iter().fold(Batch::new(), Batch::delete);
            self.storage.commit(batch).await?;
        }
    }

    /// Makes orphans of a token's children, some at a time. A crash in between leaves orphans that somebody asked for, and a token
    /// that can be revoked again.
    async fn cut_loose(&self, hash: &TokenHash) -> Result<(), StorageError> {
        let prefix = keys::token_children(hash);
        loop {
            let page = self.storage.scan(&prefix, None, CHILDREN_AT_ONCE).await?;
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
            match self.storage.commit(batch).await {
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
        let found = self.storage.scan(&prefix, after, 1).await?.into_iter().next();
        Ok(found.and_then(|key| {
            let child = TokenHash::from_hex(key.as_str().strip_prefix(prefix.as_str())?);
            Some((key, child))
        }))
    }

    /// Accessors after `after`, in order; so many at most.
    ///
    /// # Errors
    /// As [`Storage::names`].
    pub async fn accessors(&self, after: &str, most: usize) -> Result<Vec<String>, StorageError> {
        let prefix = keys::token_accessor(&Accessor::new(""));
        names_below(&*self.storage, Listed::Values, prefix.as_str(), after, most).await
    }

    fn row(&self, hash: &TokenHash, record: &TokenRecord) -> Result<LeaseRow, StorageError> {
        let end = record.expires_at.unwrap_or(Timestamp::NEVER);
        Ok(LeaseRow {
            id: lease_id(&record.path, hash)?,
            kind: LeaseKind::Token,
            state: LeaseState::Active,
            next_at: end,
            expires_at: end,
            fence: 0,
            holder: None,
            held_until: None,
            token: hash.clone(),
            mount: record.mount.as_ref().unwrap_or(&self.mount).clone(),
            connection: String::new(),
            body: body(record, (None, None))?,
        })
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

/// As OpenBao names the lease of a token: creation path, `/h`, hash.
pub fn lease_id(path: &str, hash: &TokenHash) -> Result<LeaseId, StorageError> {
    format!("{path}/h{hash}").parse().map_err(|_| StorageError::Corrupt("token path".to_owned()))
}

/// `role`, `below`: what the row says of the login that made the token.
fn body(record: &TokenRecord, (role, below): (Option<String>, Option<String>)) -> Result<Vec<u8>, StorageError> {
    let max = match record.longest().if_set() {
        Some(ttl) => record.created_at + ttl,
        None => Timestamp::NEVER,
    };
    let body = LeaseBody {
        issued_at: record.created_at,
        last_renewed_at: record.last_renewed_at,
        max_expires_at: max,
        ttl: record.creation_ttl,
        renewable: record.renewable,
        effect: serde_json::Value::Null,
        receipt: serde_json::Value::Null,
        attempts: 0,
        last_error: None,
        wrapped: record.wraps.clone(),
        role,
        below,
        is_root: record.is_root(),
        ending: None,
    };
    encode(&body)
}
