//! The barrier: a store over a store that seals every value, and the place where "sealed" is decided.
//!
//! Must not know: what a value means, who asks, or which store lies below.
//!
//! Start with [`ring`] (the keys and the format of what they seal), then [`seal`] (init, unseal, seal),
//! [`stored_key`] (who opens the root key, and the moves between seals), [`adopt`] (new keys in place of the old ones), [`rotation`] (newer data keys), [`shares`] (how a key is split), [`domain`] (what a value is bound to), [`integrity`] (what shows that rows were changed
//! from outside) and [`snapshot`] (all of it in a file, and back). This file is the way of every read and write.
//!
//! Invariants: nothing but the wrapped keys and the seal's configuration is stored as it stands; a value opens only under
//! the key it was written to, and a lease's body only in its own row; a sealed barrier answers nothing and holds no key; no key seals
//! 2³² values; nothing is written under a key that the stored ring does not have.

mod adopt;
mod domain;
mod integrity;
mod ring;
mod rotation;
#[cfg(test)]
mod rotation_tests;
mod seal;
mod shares;
pub(crate) mod snapshot;
mod stored_key;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::nodes::{Attendance, NodeReport};
use leasehold_core::seams::seal::{KeyWrapper, SealError};
use leasehold_core::seams::storage::{
    Batch, Change, Changes, Expect, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_model::{LeaseId, Timestamp, Ttl};
use zeroize::Zeroize;

use ring::Ring;
use seal::{SealConfig, Unsealing};
use stored_key::{Fetched, Wrappers};

/// Implements [`Storage`], [`leasehold_core::seams::seal::Seal`] and [`leasehold_core::seams::snapshot::Snapshots`].
pub struct Barrier {
    inner: Arc<dyn WholeStore>,
    entropy: Arc<dyn Entropy>,
    /// `None`: sealed.
    open: RwLock<Option<Arc<Ring>>>,
    /// Serialises what changes the stored keys, and keeps the shares given so far.
    unsealing: tokio::sync::Mutex<Unsealing>,
    /// Who opens the root key, by the configuration.
    wrappers: Wrappers,
    /// The root key, as a wrapper gave it, until the barrier is opened with it.
    fetched: std::sync::Mutex<Option<Fetched>>,
    /// Known once read: only a snapshot that is restored, or a move to another seal, changes it.
    config: RwLock<Option<Arc<SealConfig>>>,
    /// Values sealed with the newest key since this start.
    sealed_values: AtomicU64,
    /// Writes under `sys/` take turns: each of them changes the one digest.
    digest_turn: tokio::sync::Mutex<()>,
    /// One snapshot is made or restored at a time.
    copying: tokio::sync::Semaphore,
    /// Snapshots that were made and are still being read.
    kept: Arc<tokio::sync::Semaphore>,
    /// Go on, with a warning, when rows under `sys/` are not those that were written.
    accepts_changed_rows: bool,
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

impl Barrier {
    #[must_use]
    pub fn new(inner: Arc<dyn WholeStore>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            inner,
            entropy,
            open: RwLock::default(),
            unsealing: tokio::sync::Mutex::default(),
            wrappers: Wrappers::default(),
            fetched: std::sync::Mutex::default(),
            config: RwLock::default(),
            sealed_values: AtomicU64::new(0),
            digest_turn: tokio::sync::Mutex::default(),
            copying: tokio::sync::Semaphore::new(1),
            kept: Arc::new(tokio::sync::Semaphore::new(snapshot::KEPT_MAX)),
            accepts_changed_rows: false,
        }
    }

    /// `current` opens the barrier instead of shares. `disabled` did so before, and is asked once more to move away from it.
    #[must_use]
    pub fn with_wrappers(self, current: Option<Arc<dyn KeyWrapper>>, disabled: Option<Arc<dyn KeyWrapper>>) -> Self {
        Self { wrappers: Wrappers { current, disabled }, ..self }
    }

    /// Unseals also when rows under `sys/` were changed from outside: from then on what is there counts. For the operator who has
    /// looked at what happened.
    #[must_use]
    pub fn accepting_changed_rows(self, accepts: bool) -> Self {
        Self { accepts_changed_rows: accepts, ..self }
    }

    fn ring(&self) -> Result<Arc<Ring>, StorageError> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StorageError::Sealed)
    }

    fn set_ring(&self, ring: Option<Arc<Ring>>) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    /// The ring, with room for `count` more values under its newest key.
    async fn ring_for(&self, count: u64) -> Result<Arc<Ring>, StorageError> {
        loop {
            let ring = self.ring()?;
            if ring.take(count) {
                self.sealed_values.fetch_add(count, Ordering::Relaxed);
                return Ok(ring);
            }
            self.make_room(&ring, count).await.map_err(|error| match error {
                SealError::Storage(error) => error,
                error => StorageError::Unavailable(error.to_string()),
            })?;
        }
    }

    /// The stored ring in place of `seen`, which is too old. Keys that are there stay: a ring only grows, unless the store has lost its
    /// newest state in a fail-over. Its root key may be another one.
    async fn reload_ring(&self, seen: &Ring) -> Result<Arc<Ring>, StorageError> {
        let (mut ring, mut before) = (self.stored_ring(seen).await?, None);
        loop {
            {
                let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
                match open.as_ref() {
                    None => return Err(StorageError::Sealed),
                    // Either a newer one was stored and opened while this one was read, which the next look finds, or the store has lost it.
                    Some(newer) if newer.version() > ring.version() && before != Some(ring.version()) => {}
                    Some(_) => {
                        *open = Some(Arc::clone(&ring));
                        return Ok(ring);
                    }
                }
            }
            before = Some(ring.version());
            ring = self.stored_ring(seen).await?;
        }
    }

    async fn stored_ring(&self, seen: &Ring) -> Result<Arc<Ring>, StorageError> {
        let key = keys::keyring();
        let damaged = || StorageError::Corrupt(key.as_str().to_owned());
        let stored = self.inner.get(&key).await?.ok_or_else(damaged)?;
        let ring = self.unwrapped(seen, stored.value).await?;
        Ok(Arc::new(ring.stored_as(stored.version, Some(seen))))
    }

    /// A ring that knows who sealed these values, if there is one at all.
    async fn ring_that_knows(&self, mut sealed: impl Iterator<Item = &[u8]>) -> Result<Arc<Ring>, StorageError> {
        let ring = self.ring()?;
        if sealed.all(|value| ring.knows(value)) { Ok(ring) } else { self.reload_ring(&ring).await }
    }

    /// A row that does not open comes without a body: whoever needs that will notice, and all others can go on.
    async fn open_rows(&self, mut rows: Vec<LeaseRow>) -> Result<Vec<LeaseRow>, StorageError> {
        let ring = self.ring_that_knows(rows.iter().map(|row| row.body.as_slice())).await?;
        for row in &mut rows {
            let sealed = std::mem::take(&mut row.body);
            row.body = ring.open_row(row, sealed).unwrap_or_default();
        }
        Ok(rows)
    }

    fn seal_row(&self, ring: &Ring, mut row: LeaseRow) -> Result<LeaseRow, StorageError> {
        let domain = domain::of_row(&row);
        row.body = self.seal_bytes(ring, &domain, row.body)?;
        Ok(row)
    }

    /// Every value of a batch, sealed under the newest key.
    fn seal_batch(&self, ring: &Ring, batch: Batch) -> Result<Batch, StorageError> {
        let mut sealed = Vec::with_capacity(batch.0.len());
        for change in batch.0 {
            sealed.push(match change {
                Change::Put { key, .. } | Change::Delete { key, .. }
                    if keys::is_outside_barrier(&key) || key == keys::integrity() =>
                {
                    // Whoever could write here could lock everybody out; the barrier itself writes below itself.
                    return Err(StorageError::Unavailable(format!("`{}` belongs to the barrier", key.as_str())));
                }
                Change::Put { key, value, expect } => {
                    let value = self.seal_bytes(ring, key.as_str().as_bytes(), value)?;
                    Change::Put { key, value, expect }
                }
                Change::Insert(row) => Change::Insert(self.seal_row(ring, row)?),
                // Sealed, an empty body would replace what did not open, and that may open again under a restored key ring.
                Change::Move { row, from, fence } if row.body.is_empty() => Change::Move { row, from, fence },
                Change::Move { row, from, fence } => Change::Move { row: self.seal_row(ring, row)?, from, fence },
                other @ (Change::Delete { .. }
                | Change::Check { .. }
                | Change::Empty { .. }
                | Change::NoLeases { .. }
                | Change::Remove { .. }) => other,
            });
        }
        Ok(Batch(sealed))
    }

    /// Wipes the plain bytes.
    fn seal_bytes(&self, ring: &Ring, domain: &[u8], mut plain: Vec<u8>) -> Result<Vec<u8>, StorageError> {
        let sealed = ring.seal(&*self.entropy, domain, &plain);
        plain.zeroize();
        sealed.ok_or_else(|| StorageError::Unavailable("could not seal a value".to_owned()))
    }
}

/// How often a commit is made again because the ring or the digest changed meanwhile.
const TRIES: u32 = 32;

/// How many values of a batch are sealed.
fn sealings(batch: &Batch) -> u64 {
    let written = |change: &&Change| matches!(change, Change::Put { .. } | Change::Insert(_) | Change::Move { .. });
    u64::try_from(batch.0.iter().filter(written).count()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Storage for Barrier {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.inner.now().await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.ring()?;
        self.inner.changes(since).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.ring()?;
        let Some(Versioned { value, version }) = self.inner.get(key).await? else { return Ok(None) };
        if keys::is_outside_barrier(key) {
            return Ok(Some(Versioned { value, version }));
        }
        let ring = self.ring_that_knows(std::iter::once(value.as_slice())).await?;
        match ring.open(key.as_str().as_bytes(), value) {
            Some(value) => Ok(Some(Versioned { value, version })),
            None => Err(StorageError::Corrupt(key.as_str().to_owned())),
        }
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.ring()?;
        self.inner.scan(prefix, after, limit).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.ring()?;
        self.inner.names(of, prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.ring()?;
        let found = self.inner.lease(id).await?;
        Ok(self.open_rows(found.into_iter().collect()).await?.pop())
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.ring()?;
        self.open_rows(self.inner.leases(filter, page).await?).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.ring()?;
        self.inner.count_leases().await
    }

    async fn recount_leases(&self) -> Result<u64, StorageError> {
        self.ring()?;
        self.inner.recount_leases().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let is_covered = |change: &Change| matches!(change, Change::Put { key, .. } | Change::Delete { key, .. } if integrity::covers(key));
        let turn = if batch.0.iter().any(is_covered) { Some(self.digest_turn.lock().await) } else { None };
        let mut ring = self.ring_for(sealings(&batch).saturating_add(u64::from(turn.is_some()))).await?;
        let sealed_by = ring.newest_id();
        let Batch(sealed) = self.seal_batch(&ring, batch)?;
        for _ in 0..TRIES {
            let mut changes = Vec::with_capacity(sealed.len() + 2);
            changes.push(Change::Check { key: keys::keyring(), expect: Expect::Version(ring.version()) });
            changes.extend(sealed.iter().cloned());
            if turn.is_some() {
                changes.push(self.digest_after(&ring, &sealed).await?);
            }
            match self.inner.commit(Batch(changes)).await {
                Err(StorageError::Conflict(key)) if key == keys::keyring().as_str() => {
                    ring = self.reload_ring(&ring).await?;
                    // A key that another store lost in a fail-over must not be what anything is sealed with.
                    if !ring.has_key(sealed_by) {
                        return Err(StorageError::Unavailable(
                            "the key that sealed a value is no longer in the key ring".to_owned(),
                        ));
                    }
                }
                Err(StorageError::Conflict(key)) if turn.is_some() && key == keys::integrity().as_str() => {}
                done => return done,
            }
        }
        Err(StorageError::Unavailable("the key ring changes all the time".to_owned()))
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.ring()?;
        self.open_rows(self.inner.claim_due(holder, limit, hold_for, skip).await?).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        self.ring()?;
        let claimed = self.inner.claim(holder, id, hold_for).await?;
        Ok(self.open_rows(claimed.into_iter().collect()).await?.pop())
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.ring()?;
        self.inner.next_due().await
    }

    async fn attend(&self, report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        self.inner.attend(report).await
    }

    async fn expel(&self, id: &str, beat: u64) -> Result<(), StorageError> {
        self.inner.expel(id, beat).await
    }

    async fn rejoin(&self, report: &NodeReport) -> Result<(), StorageError> {
        self.inner.rejoin(report).await
    }
}
