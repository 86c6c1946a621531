//! The store as leases see it: whatever begins or ends one counts it in the same commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_model::{LeaseId, MountAccessor, Timestamp, Ttl};

use super::leases::{Known, LeaseCounts};
use super::places::Found;
use super::scope::below;
use super::table::path_of;
use super::waiting;
use crate::codec::{decode, encode};
use crate::keys;
use crate::rows::lease::LeaseRow;
use crate::rows::state::{LeaseKind, LeaseState};
use crate::seams::storage::{Batch, Change, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned};
use crate::token::TokenRecord;

/// How often a commit is made again because another server was faster.
const TRIES: u32 = 200;
/// For how long a commit waits while leases are counted for a changed quota.
const CLOSED_WAIT_MAX: Duration = Duration::from_secs(15);
/// Between two looks at whether they have been counted.
const CLOSED_POLL: Duration = Duration::from_millis(50);

pub(crate) struct Counted {
    storage: Arc<dyn Storage>,
    counts: Arc<LeaseCounts>,
}

impl Counted {
    pub(crate) fn new(storage: Arc<dyn Storage>, counts: Arc<LeaseCounts>) -> Self {
        Self { storage, counts }
    }

    async fn commit_leases(&self, batch: Batch) -> Result<(), StorageError> {
        if !concerns_leases(&batch) {
            return self.storage.commit(batch).await;
        }
        let batch = match self.counts.known() {
            Some(known) => with_logins(&known, batch)?,
            None => batch,
        };
        self.count(batch).await
    }

    async fn count(&self, batch: Batch) -> Result<(), StorageError> {
        let mut waited = Duration::ZERO;
        let mut tries = TRIES;
        loop {
            let Some(known) = self.counts.known() else { return self.storage.commit(batch).await };
            let mut asked = batch.clone().check(keys::quota_lease_counts(), known.unchanged);
            let mut turns = Vec::new();
            if !known.table.quotas.is_empty() || known.table.closed.is_some() {
                let changed = self.changed(&known, &batch).await?;
                if known
                    .table
                    .closed
                    .as_ref()
                    .is_some_and(|closed| changed.mounts.iter().any(|mount| closed.covers(mount)))
                {
                    // A token ends whatever is counted: it goes the way on which its row goes last.
                    if batch.expects_nothing() {
                        return Err(StorageError::NotEmpty("leases that are being counted".to_owned()));
                    }
                    if waited >= CLOSED_WAIT_MAX {
                        return Err(StorageError::Unavailable(
                            "leases are being counted for a change that depends on them".to_owned(),
                        ));
                    }
                    tokio::time::sleep(CLOSED_POLL).await;
                    waited += CLOSED_POLL;
                    self.counts.follow().await?;
                    self.counts.open_if_abandoned().await?;
                    continue;
                }
                for (at, by) in changed.by.into_iter().filter(|(_, by)| *by != 0) {
                    let Some(quota) = known.table.quotas.get(at) else { continue };
                    match self.counts.turns.find(&*self.storage, quota, by).await? {
                        Found::Place(taken) => {
                            asked = asked.put(taken.key.clone(), taken.value.clone(), taken.unchanged);
                            turns.push(taken);
                        }
                        // Another server may have changed the quotas, and counts in other places by now.
                        Found::None if self.counts.is_outdated(&known).await? => {}
                        Found::None if by > 0 => {
                            return Err(self.counts.full(&known, quota, changed.path.unwrap_or_default()).await);
                        }
                        Found::None => {
                            tracing::warn!(
                                quota = quota.name,
                                "a lease ends that quota {:?} has not counted",
                                quota.name
                            );
                        }
                    }
                }
            }
            let done = self.storage.commit(asked).await;
            match done {
                Err(StorageError::Conflict(key)) if tries > 0 && key == keys::quota_lease_counts().as_str() => {
                    self.counts.follow().await?;
                }
                Err(StorageError::Conflict(key))
                    if tries > 0 && turns.iter().any(|taken| taken.key.as_str() == key) => {}
                Err(StorageError::Conflict(key)) if keys::is_lease_count(&key) => {
                    if batch.expects_nothing() {
                        return Err(StorageError::NotEmpty("counts that change all the time".to_owned()));
                    }
                    return Err(StorageError::Unavailable("the counts of leases change all the time".to_owned()));
                }
                other => return other,
            }
            tries -= 1;
        }
    }

    /// What a batch changes in the counts.
    async fn changed(&self, known: &Known, batch: &Batch) -> Result<Changed, StorageError> {
        let mut changed = Changed::default();
        for change in &batch.0 {
            let (row, by) = match change {
                Change::Insert(row) if row.kind != LeaseKind::Job => (row.clone(), 1),
                Change::Remove { id, .. } => match self.storage.lease(id).await? {
                    Some(row) if row.kind != LeaseKind::Job => (row, -1),
                    // It is gone: the commit will say so.
                    _ => continue,
                },
                _ => continue,
            };
            // Operators get out of whatever has happened with a root token: it waits for no count either.
            if known.table.closed.is_some() && !row.opened_body().is_some_and(|body| body.is_root) {
                changed.mounts.push(row.mount.clone());
            }
            for at in known.table.counting(&row, &known.mounts) {
                *changed.by.entry(at).or_insert(0) += by;
                changed.path.get_or_insert_with(|| path_of(&row).to_owned());
            }
        }
        Ok(changed)
    }
}

/// What a batch changes in the counts of leases.
#[derive(Default)]
struct Changed {
    mounts: Vec<MountAccessor>,
    /// By the quota's place in the table.
    by: BTreeMap<usize, i64>,
    /// Of the first lease that is counted.
    path: Option<String>,
}

/// Whether a batch begins or ends what may be a lease.
fn concerns_leases(batch: &Batch) -> bool {
    batch.0.iter().any(|change| match change {
        Change::Insert(row) => row.kind != LeaseKind::Job,
        Change::Remove { .. } => true,
        _ => false,
    })
}

/// Writes into the row of a token that a login has made where and with which role that was: its quota must still be known when it ends.
fn with_logins(known: &Known, mut batch: Batch) -> Result<Batch, StorageError> {
    let records: BTreeMap<Key, TokenRecord> = batch
        .0
        .iter()
        .filter_map(|change| match change {
            Change::Put { key, value, .. } if keys::is_token(key) => {
                decode::<TokenRecord>(key.as_str(), value).ok().map(|record| (key.clone(), record))
            }
            _ => None,
        })
        .collect();
    for change in &mut batch.0 {
        let Change::Insert(row) = change else { continue };
        let Some(record) = records.get(&keys::token(&row.token)) else { continue };
        let (Some(login), Some(mount)) = (&record.login, &record.mount) else { continue };
        let Some((method, _)) = known.methods.at(mount) else { continue };
        let (Some(entry), Some(mut body)) = (known.mounts.by_accessor(mount), row.opened_body()) else { continue };
        body.role = method.role_of(login).map(str::to_owned);
        body.below = Some(below(path_of(row), entry.path.as_str()).to_owned());
        row.body = encode(&body)?;
    }
    Ok(batch)
}

#[async_trait]
impl Storage for Counted {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.storage.now().await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.storage.changes(since).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.storage.get(key).await
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.storage.scan(prefix, after, limit).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.storage.names(of, prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.storage.lease(id).await
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.storage.leases(filter, page).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.storage.count_leases().await
    }

    async fn recount_leases(&self) -> Result<u64, StorageError> {
        if let Err(error) = self.counts.check().await {
            tracing::warn!(%error, "the leases of quotas could not be counted again");
        }
        self.storage.recount_leases().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let waiting = waiting::changed(&batch);
        if waiting.is_empty() {
            return self.commit_leases(batch).await;
        }
        for _ in 0..TRIES {
            let (batch, places) = waiting::counted(&*self.storage, batch.clone(), &waiting).await?;
            match self.commit_leases(batch).await {
                Err(StorageError::Conflict(key)) if places.iter().any(|place| place.as_str() == key) => {}
                done => return done,
            }
        }
        Err(StorageError::Unavailable("the count of requests that wait changes all the time".to_owned()))
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.storage.claim_due(holder, limit, hold_for, skip).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        self.storage.claim(holder, id, hold_for).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.storage.next_due().await
    }
}
