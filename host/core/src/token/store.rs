//! All that touches stored tokens.

use aws_lc_rs::hmac;
use leasehold_model::{Accessor, LeaseId, MountAccessor, Timestamp, TokenHash, TokenId};
use std::sync::Arc;

use super::Caller;
use super::batch::{self, Sealer};
use super::record::TokenRecord;
use crate::keys;
use crate::lease::record::{LeaseBody, LeaseRow};
use crate::lease::states::{LeaseKind, LeaseState};
use crate::random;
use crate::request::RequestError;
use crate::seams::host::{Clock, Entropy};
use crate::seams::seal::SecretKey;
use crate::seams::storage::{Batch, Expect, Key, Storage, StorageError};

/// Longer ones are not ours: nobody may make us hash megabytes before authentication.
pub const TOKEN_LEN_MAX: usize = 1_024;

/// What this room needs of the seal.
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

    /// A new service token: `s.` and 24 base62 characters (142 bits).
    #[must_use]
    pub fn new_id(&self) -> TokenId {
        TokenId::new(format!("s.{}", random::base62(&*self.entropy, 24)))
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
        self.storage.commit(batch).await?;
        Ok(hash)
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
        // It dies with its parent.
        match &record.parent {
            Some(parent) if self.find(parent).await?.is_none() => Ok(None),
            _ => Ok(Some((hash, record))),
        }
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

    /// Accepts a shown token where no use is taken: on open routes.
    ///
    /// # Errors
    /// [`RequestError::BadToken`] for an unknown, expired or used-up one.
    pub async fn recognise(&self, token: &TokenId) -> Result<Caller, RequestError> {
        let found = self.find_shown(token).await?.filter(|(_, record)| record.num_uses >= 0);
        let (hash, record) = found.ok_or(RequestError::BadToken)?;
        Ok(Caller { hash, uses_before: record.num_uses, record, last_use: false })
    }

    /// Accepts a shown token and takes one of its uses, if they are counted.
    ///
    /// # Errors
    /// [`RequestError::BadToken`] for an unknown, expired or used-up one.
    pub async fn admit(&self, token: &TokenId) -> Result<Caller, RequestError> {
        if !may_be_token(token.expose()) {
            return Err(RequestError::BadToken);
        }
        if token.expose().starts_with(batch::PREFIX) {
            let (hash, record) = self.find_shown(token).await?.ok_or(RequestError::BadToken)?;
            return Ok(Caller { hash, record, uses_before: 0, last_use: false });
        }
        let hash = self.hash(token);
        loop {
            let Some((mut record, version)) = self.find(&hash).await? else { return Err(RequestError::BadToken) };
            if record.num_uses == 0 {
                return Ok(Caller { hash, record, uses_before: 0, last_use: false });
            }
            if record.num_uses < 0 {
                return Err(RequestError::BadToken);
            }
            let uses_before = record.num_uses;
            record.num_uses = if record.num_uses == 1 { -1 } else { record.num_uses - 1 };
            let batch = Batch::new().put(keys::token(&hash), encode(&record)?, Expect::Version(version));
            match self.storage.commit(batch).await {
                Ok(()) => {
                    let last_use = record.num_uses < 0;
                    return Ok(Caller { hash, record, uses_before, last_use });
                }
                // Another request took a use at the same moment: look again.
                Err(StorageError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
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
        // The fence rises: a ticker that claimed the row at its old end must not end the token.
        let moved = LeaseRow { fence: fence + 1, expires_at: end, body: body(record)?, ..row }.released(end);
        self.storage
            .commit(Batch::new().put(keys::token(hash), encode(record)?, Expect::Version(version)).shift(
                moved,
                LeaseState::Active,
                fence,
            ))
            .await
    }

    /// Ends one token at once: after this it cannot act. Its children and leases are the lease module's next work, which
    /// survives a crash because the row says `Revoking`.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub async fn revoke_one(&self, hash: &TokenHash, fate: Children) -> Result<(), StorageError> {
        loop {
            let Some(stored) = self.storage.get(&keys::token(hash)).await? else { return Ok(()) };
            let record: TokenRecord = decode(keys::token(hash).as_str(), &stored.value)?;
            let mut batch = Batch(vec![crate::seams::storage::Change::Delete {
                key: keys::token(hash),
                expect: Expect::Version(stored.version),
            }])
            .delete(keys::token_accessor(&record.accessor));
            if let Some(parent) = &record.parent {
                batch = batch.delete(keys::token_child(parent, hash));
            }
            let id = lease_id(&record.path, hash)?;
            if let Some(row) = self.storage.lease(&id).await? {
                let (from, fence) = (row.state, row.fence);
                let row = LeaseRow {
                    state: LeaseState::Revoking,
                    next_at: self.clock.now(),
                    fence: fence + 1,
                    holder: None,
                    held_until: None,
                    ..row
                };
                batch = batch.shift(row, from, fence);
            }
            if matches!(fate, Children::BecomeOrphans) {
                for child in self.children(hash).await? {
                    if let Some((orphan, version)) = self.find(&child).await? {
                        let orphan = TokenRecord { parent: None, ..orphan };
                        batch = batch.put(keys::token(&child), encode(&orphan)?, Expect::Version(version));
                    }
                    batch = batch.delete(keys::token_child(hash, &child));
                }
            }
            match self.storage.commit(batch).await {
                Err(StorageError::Conflict(_) | StorageError::Fenced(_)) => {}
                done => return done,
            }
        }
    }

    /// Direct children that exist.
    ///
    /// # Errors
    /// As [`Storage::scan`].
    pub async fn children(&self, hash: &TokenHash) -> Result<Vec<TokenHash>, StorageError> {
        let prefix = keys::token_children(hash);
        let mut found = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self.storage.scan(&prefix, after.as_ref(), 1_000).await?;
            let Some(last) = page.last().cloned() else { return Ok(found) };
            found.extend(page.iter().filter_map(|k| k.as_str().strip_prefix(prefix.as_str())).map(TokenHash::from_hex));
            after = Some(last);
        }
    }

    /// All accessors, in order.
    ///
    /// # Errors
    /// As [`Storage::scan`].
    pub async fn accessors(&self) -> Result<Vec<String>, StorageError> {
        let prefix = keys::token_accessor(&Accessor::new(""));
        let mut found = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self.storage.scan(&prefix, after.as_ref(), 1_000).await?;
            let Some(last) = page.last().cloned() else { return Ok(found) };
            found.extend(page.iter().filter_map(|k| k.as_str().strip_prefix(prefix.as_str())).map(str::to_owned));
            after = Some(last);
        }
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
            mount: self.mount.clone(),
            connection: String::new(),
            body: body(record)?,
        })
    }
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

fn body(record: &TokenRecord) -> Result<Vec<u8>, StorageError> {
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
    };
    encode(&body)
}

/// JSON for storage.
pub(crate) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StorageError> {
    serde_json::to_vec(value).map_err(|_| StorageError::Corrupt("a value that cannot be written".to_owned()))
}

/// JSON from storage; the error names the key, not the value.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(bytes).map_err(|_| StorageError::Corrupt(key.to_owned()))
}
