//! Quotas: how many requests a client may send, and how many leases there may be.
//!
//! Must not know: HTTP, or what a lease stands for.
//!
//! Start with [`scope`] (what a quota covers, and which of several decides). Of rate limits, [`rate`] counts requests, `pool` shares them
//! among servers, [`limits`] keeps the definitions, and [`config`] says what is never counted. Of lease count quotas, [`table`] says which of them counts a lease, [`places`]
//! holds the counts, [`counted`] is the store that counts in each commit, [`leases`] changes the definitions, and `counting` counts what a change makes count otherwise; `engines` is
//! what engines may ask of the leases of their mounts. `waiting` bounds how many requests of one entity wait for approval.
//!
//! Invariants: a request is held against one rate limit at most, the one that fits it best. What is counted of clients takes a bounded
//! place, and requests within a server's share cost the store nothing. Rate limits are asked where a request comes in and nowhere else: revocation and expiry
//! are not requests. No lease begins beyond the maximum of the quota that counts it, on however many servers; its end is never refused.

pub mod config;
pub(crate) mod counted;
mod counting;
mod engines;
pub mod leases;
pub mod limits;
mod places;
mod pool;
pub mod rate;
pub mod scope;
pub mod table;
mod waiting;

use std::sync::Arc;

use crate::mount::{AuthMethods, MountTable};
use crate::seams::error::RequestError;
use crate::seams::host::Clock;
use crate::seams::storage::{Storage, StorageError};
use config::Settings;
use leases::LeaseCounts;
use limits::RateLimits;

/// Quotas of one kind that can be stored. Each request of a mount is held against all of them.
pub const QUOTAS_MAX: usize = 1_000;

/// A longer path below a mount cannot be written to a quota.
pub(crate) const PATH_LEN_MAX: usize = 4_096;

/// A longer name cannot be given to a quota, nor a longer role.
pub(crate) const NAME_LEN_MAX: usize = 512;

/// All quotas, and what they count.
#[derive(Debug)]
pub struct Quotas {
    pub settings: Settings,
    pub rates: RateLimits,
    pub leases: Arc<LeaseCounts>,
}

impl Quotas {
    /// # Errors
    /// As storage.
    pub(crate) async fn load(
        storage: &Arc<dyn Storage>,
        clock: &Arc<dyn Clock>,
        mounts: &Arc<MountTable>,
        methods: &Arc<AuthMethods>,
        leases: &Arc<LeaseCounts>,
        cluster: &str,
    ) -> Result<Self, StorageError> {
        leases.load(mounts, methods, cluster).await?;
        Ok(Self {
            leases: leases.clone(),
            settings: Settings::load(storage.clone()).await?,
            rates: RateLimits::load(storage.clone(), clock.clone(), mounts.clone()).await?,
        })
    }

    /// Makes what is in memory what is stored, by whichever server. `key`: what follows `sys/quota/`.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow(&self, key: &str) -> Result<(), StorageError> {
        match key {
            "config" => self.settings.follow().await,
            "rate-limit" => self.rates.follow().await,
            "lease-count" => self.leases.follow().await,
            _ => Ok(()),
        }
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn follow_all(&self) -> Result<(), StorageError> {
        self.settings.follow().await?;
        self.rates.follow().await?;
        self.leases.follow().await
    }

    /// Takes the quotas of mounts that are gone away.
    ///
    /// # Errors
    /// As storage: they count nothing either way, and go with the next change.
    pub(crate) async fn prune(&self) -> Result<(), RequestError> {
        self.rates.prune().await?;
        self.leases.prune().await
    }
}
