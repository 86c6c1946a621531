//! The barrier: a store over a store that seals every value, and the place where "sealed" is decided.
//!
//! Must not know: what a value means, who asks, or which store lies below.
//!
//! Start with [`ring`] (the keys and the format of what they seal), then [`seal`] (init, unseal, seal, rotate) and
//! [`shares`] (how the root key is split). This file is the way of every read and write.
//!
//! Invariants: nothing but the wrapped keys and the seal's configuration is stored as it stands; a value opens only under
//! the key it was written to; a sealed barrier answers nothing and holds no key; no key seals 2³² values.

mod ring;
mod seal;
mod shares;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::{Clock, Entropy};
use leasehold_core::seams::seal::SealError;
use leasehold_core::seams::storage::{Batch, Change, Key, LeaseFilter, Page, Storage, StorageError, Versioned};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use zeroize::Zeroize;

use ring::Ring;
use seal::{SealConfig, Unsealing};

/// Implements both [`Storage`] and [`leasehold_core::seams::seal::Seal`].
pub struct Barrier {
    inner: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// `None`: sealed.
    open: RwLock<Option<Arc<Ring>>>,
    /// Serialises what changes the stored keys, and keeps the shares given so far.
    unsealing: tokio::sync::Mutex<Unsealing>,
    /// Known once read: it never changes.
    config: OnceLock<SealConfig>,
    /// Values sealed with the newest key since this start.
    sealed_values: AtomicU64,
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

impl Barrier {
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            inner,
            clock,
            entropy,
            open: RwLock::default(),
            unsealing: tokio::sync::Mutex::default(),
            config: OnceLock::new(),
            sealed_values: AtomicU64::new(0),
        }
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

    /// A row that does not open comes without a body: whoever needs that will notice, and all others can go on.
    fn open_row(ring: &Ring, mut row: LeaseRow) -> LeaseRow {
        row.body = ring.open(&lease_domain(&row.id), row.body).unwrap_or_default();
        row
    }

    fn seal_row(&self, ring: &Ring, mut row: LeaseRow) -> Result<LeaseRow, StorageError> {
        row.body = self.seal_bytes(ring, &lease_domain(&row.id), row.body)?;
        Ok(row)
    }

    /// Every value of a batch, sealed under the newest key.
    fn seal_batch(&self, ring: &Ring, batch: Batch) -> Result<Batch, StorageError> {
        let mut sealed = Vec::with_capacity(batch.0.len());
        for change in batch.0 {
            sealed.push(match change {
                Change::Put { key, .. } | Change::Delete { key, .. } if keys::is_outside_barrier(&key) => {
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
                other @ (Change::Delete { .. } | Change::Check { .. } | Change::Remove { .. }) => other,
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

/// How many values of a batch are sealed.
fn sealings(batch: &Batch) -> u64 {
    let written = |change: &&Change| matches!(change, Change::Put { .. } | Change::Insert(_) | Change::Move { .. });
    u64::try_from(batch.0.iter().filter(written).count()).unwrap_or(u64::MAX)
}

/// A byte that no key can begin with: a lease's body never opens as the value of a key, nor the other way round.
fn lease_domain(id: &LeaseId) -> Vec<u8> {
    [b"\xfflease:", id.as_str().as_bytes()].concat()
}

#[async_trait]
impl Storage for Barrier {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        let ring = self.ring()?;
        let Some(Versioned { value, version }) = self.inner.get(key).await? else { return Ok(None) };
        if keys::is_outside_barrier(key) {
            return Ok(Some(Versioned { value, version }));
        }
        match ring.open(key.as_str().as_bytes(), value) {
            Some(value) => Ok(Some(Versioned { value, version })),
            None => Err(StorageError::Corrupt(key.as_str().to_owned())),
        }
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.ring()?;
        self.inner.scan(prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        let ring = self.ring()?;
        Ok(self.inner.lease(id).await?.map(|row| Self::open_row(&ring, row)))
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        let ring = self.ring()?;
        Ok(self.inner.leases(filter, page).await?.into_iter().map(|row| Self::open_row(&ring, row)).collect())
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.ring()?;
        self.inner.count_leases().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let ring = self.ring_for(sealings(&batch)).await?;
        let sealed = self.seal_batch(&ring, batch)?;
        self.inner.commit(sealed).await
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        let ring = self.ring()?;
        let rows = self.inner.claim_due(holder, limit, hold_for, skip).await?;
        Ok(rows.into_iter().map(|row| Self::open_row(&ring, row)).collect())
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        let ring = self.ring()?;
        Ok(self.inner.claim(holder, id, hold_for).await?.map(|row| Self::open_row(&ring, row)))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.ring()?;
        self.inner.next_due().await
    }
}
