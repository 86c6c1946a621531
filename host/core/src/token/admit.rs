//! Who shows a token: whether it is good, and what it costs.
//!
//! Must not know: what the token may do.

use std::net::IpAddr;

use leasehold_model::{TokenHash, TokenId, Ttl};

use super::batch;
use super::record::TokenRecord;
use super::store::{lease_id, may_be_token};
use super::{Caller, Tokens};
use crate::codec::encode;
use crate::keys;
use crate::rows::lease::LeaseRow;
use crate::rows::state::LeaseState;
use crate::seams::error::RequestError;
use crate::seams::storage::{Batch, Expect, StorageError};

/// How long the request may take that takes a token's last use: longer than any effect. After that the token ends in any case.
const LAST_USE_TIME: Ttl = Ttl::from_secs(60);

impl Tokens {
    /// Accepts a shown token where no use is taken: on unauthenticated routes, and while it is asked whether a request that waited may go
    /// on.
    ///
    /// # Errors
    /// [`RequestError::BadToken`] for an unknown, expired or used-up one, and for one that is bound to other addresses.
    pub async fn recognise(&self, token: &TokenId, client: Option<IpAddr>) -> Result<Caller, RequestError> {
        let is_good = |record: &TokenRecord| record.num_uses >= 0 && record.may_be_used_from(client);
        let found = self.find_shown(token).await?.filter(|(_, record)| is_good(record));
        let (hash, record) = found.ok_or(RequestError::BadToken)?;
        Ok(Caller {
            hash,
            uses_before: record.num_uses,
            group: self.group(&record),
            record,
            last_use: false,
            identity: None,
        })
    }

    /// Under what the leases of a batch token are kept that a login made.
    fn group(&self, record: &TokenRecord) -> Option<TokenHash> {
        record.mount.as_ref().filter(|_| record.is_batch()).map(|mount| self.batch_tokens_of(mount))
    }

    /// Accepts a shown token and takes one of its uses, if they are counted.
    ///
    /// # Errors
    /// [`RequestError::BadToken`] for an unknown, expired or used-up one, and for one that is bound to other addresses: from
    /// those nobody takes a use of it either.
    pub async fn admit(&self, token: &TokenId, client: Option<IpAddr>) -> Result<Caller, RequestError> {
        if !may_be_token(token.expose()) {
            return Err(RequestError::BadToken);
        }
        if token.expose().starts_with(batch::PREFIX) {
            let found = self.find_shown(token).await?.filter(|(_, record)| record.may_be_used_from(client));
            let (hash, record) = found.ok_or(RequestError::BadToken)?;
            return Ok(Caller {
                hash,
                group: self.group(&record),
                record,
                uses_before: 0,
                last_use: false,
                identity: None,
            });
        }
        let hash = self.hash(token);
        loop {
            let Some((mut record, version)) = self.find(&hash).await? else { return Err(RequestError::BadToken) };
            if !record.may_be_used_from(client) {
                return Err(RequestError::BadToken);
            }
            // What waits is not used up by asking whether it may go on: whoever carries it out takes it away.
            if record.num_uses == 0 || record.waits() {
                return Ok(Caller { hash, record, uses_before: 0, last_use: false, group: None, identity: None });
            }
            if record.num_uses < 0 {
                return Err(RequestError::BadToken);
            }
            let uses_before = record.num_uses;
            let last_use = record.num_uses == 1;
            record.num_uses = if last_use { -1 } else { record.num_uses - 1 };
            let mut batch = Batch::new().put(keys::token(&hash), encode(&record)?, Expect::Version(version));
            let row = if last_use { self.storage().lease(&lease_id(&record.path, &hash)?).await? } else { None };
            if let Some(row) = row.filter(|row| row.state == LeaseState::Active) {
                // The request ends the token. Should it not get there, the token's row is due by then.
                let (fence, due) = (row.fence, self.now() + LAST_USE_TIME);
                let due = due.min(row.next_at);
                let used_up = LeaseRow { fence: fence + 1, ..row }.released(due);
                batch = batch.shift(used_up, LeaseState::Active, fence);
            }
            match self.storage().commit(batch).await {
                Ok(()) => return Ok(Caller { hash, record, uses_before, last_use, group: None, identity: None }),
                // Another request took a use at the same moment, or the token is being ended: look again.
                Err(StorageError::Conflict(_) | StorageError::Fenced(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
}
