//! Stored tokens, but for who shows one ([`admit`](super::admit)) and how one ends ([`end`](super::end)).

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
use crate::rows::lease::{LeaseBody, LeaseRow};
use crate::rows::state::{LeaseKind, LeaseState};
use crate::seams::host::{Clock, Entropy};
use crate::seams::seal::SecretKey;
use crate::seams::storage::{Batch, Expect, Listed, Storage, StorageError};
use crate::wrapping::Wraps;

/// Longer ones are not ours: nobody may make us hash megabytes before authentication.
pub const TOKEN_LEN_MAX: usize = 1_024;

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
