//! Newer data keys: asked for, due by the schedule, or because a key has sealed enough.
//!
//! The schedule is stored in the key ring, so that every server that knows the keys knows it. How many values a key seals is kept to by the
//! reservation of uses, on every server; how old it gets, by whichever server looks first.

use std::sync::Arc;

use leasehold_core::seams::seal::{RotationSchedule, ScheduleChange, SealError};
use leasehold_core::seams::storage::{Expect, StorageError};

use super::ring::Ring;
use super::seal::broken;
use super::{Barrier, TRIES};

/// What is to take the place of a ring; `None`: it stays.
type Next = Result<Option<Ring>, SealError>;

fn made(ring: Option<Ring>) -> Next {
    ring.map(Some).ok_or_else(|| broken("no key could be made"))
}

impl Barrier {
    /// Puts what `next` makes of the stored ring in its place, and says whether it did. Another server may have added a key that this one
    /// has not seen: that key must not get lost, so the ring is read again until the one that is replaced is the stored one. The
    /// caller holds `unsealing`.
    async fn replace_ring(&self, next: impl Fn(&Ring) -> Next) -> Result<bool, SealError> {
        let mut ring = self.ring()?;
        for _ in 0..TRIES {
            let Some(next) = next(&ring)? else { return Ok(false) };
            match self.install(next, Expect::Version(ring.version()), Vec::new()).await {
                Err(SealError::Storage(StorageError::Conflict(_))) => ring = self.reload_ring(&ring).await?,
                done => return done.map(|()| true),
            }
        }
        Err(broken("the key ring changes all the time"))
    }

    pub(super) async fn add_key(&self) -> Result<(), SealError> {
        let _changing = self.unsealing.lock().await;
        self.ring().map_err(|_| SealError::Sealed)?;
        let now = self.inner.now().await?;
        self.replace_ring(|ring| made(ring.rotated(&*self.entropy, now, 0))).await.map(drop)
    }

    /// Reserves more uses of the newest key, or makes a newer one, unless somebody else did since `seen`.
    pub(super) async fn make_room(&self, seen: &Arc<Ring>, count: u64) -> Result<(), SealError> {
        let _changing = self.unsealing.lock().await;
        let ring = self.ring()?;
        if !Arc::ptr_eq(&ring, seen) {
            return Ok(());
        }
        let now = self.inner.now().await?;
        let room = |ring: &Ring| {
            if ring.is_used_up(count) {
                tracing::info!("the barrier's key has sealed enough values: rotating");
                made(ring.rotated(&*self.entropy, now, count))
            } else {
                made(ring.with_room(count))
            }
        };
        self.replace_ring(room).await.map(drop)
    }

    /// Adds a key if the newest is too old.
    pub(super) async fn add_key_if_due(&self) -> Result<bool, SealError> {
        let _changing = self.unsealing.lock().await;
        let now = self.inner.now().await?;
        let is_due = |ring: &Ring| {
            let schedule = ring.schedule();
            let (_, installed_at) = ring.term();
            schedule.enabled && !schedule.interval.is_zero() && installed_at + schedule.interval <= now
        };
        let added = self
            .replace_ring(|ring| match is_due(ring) {
                true => made(ring.rotated(&*self.entropy, now, 0)),
                false => Ok(None),
            })
            .await?;
        if added {
            tracing::info!("the barrier's key has been in use for long enough: a newer one was added");
        }
        Ok(added)
    }

    pub(super) async fn stored_schedule(&self) -> Result<RotationSchedule, SealError> {
        // Another server may have changed it.
        self.follow_keys().await?;
        Ok(self.ring()?.schedule())
    }

    pub(super) async fn change_schedule(&self, change: ScheduleChange) -> Result<(), SealError> {
        let _changing = self.unsealing.lock().await;
        self.replace_ring(|ring| made(ring.scheduled(change.of(ring.schedule())))).await.map(drop)
    }
}
