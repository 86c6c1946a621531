//! What an engine may ask of the leases of its mount before it changes what they need.
//!
//! Engines plan leases and never see their rows. But a connection that leases stand on must not go: they could not end any more.

use std::fmt;
use std::num::NonZeroU64;

use async_trait::async_trait;
use leasehold_model::MountAccessor;

use super::error::RequestError;
use super::storage::{Batch, StorageError};

/// The leases that stand on a target: from before they are made until their rows are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub leases: usize,
    /// There are more than have been counted.
    pub has_more: bool,
    /// Some of the paths that they were made at.
    pub paths: Vec<String>,
}

impl Standing {
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.leases == 1 && !self.has_more
    }

    /// `1 lease (of database/creds/app) stands`.
    #[must_use]
    pub fn with_verb(&self, one: &str, several: &str) -> String {
        format!("{self} {}", if self.is_one() { one } else { several })
    }

    #[must_use]
    pub fn pronoun(&self) -> &'static str {
        if self.is_one() { "it" } else { "them" }
    }
}

/// `3 leases (of database/creds/app)`.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.has_more { " or more" } else { "" };
        let leases = if self.is_one() { "lease" } else { "leases" };
        write!(f, "{}{more} {leases} (of {})", self.leases, self.paths.join(", "))
    }
}

/// How many leases of one path there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathLimit {
    /// Below the mount, without a slash at its end: `creds/app`.
    pub path: String,
    /// As the refusal of one lease too many names it: `role "app"`.
    pub of: String,
    pub max_leases: Option<NonZeroU64>,
}

/// For whoever sets a limit below what stands: nothing is wrong, and a lease that is refused later would surprise them.
#[must_use]
pub fn above_limit(standing: u64, max_leases: u64) -> Option<String> {
    (standing > max_leases).then(|| {
        format!(
            "{standing} leases stand, and max_leases is {max_leases}: they go on, and a further one begins only when fewer than \
             {max_leases} stand"
        )
    })
}

/// Why a batch was not written.
#[derive(Debug)]
pub enum NotCommitted {
    Standing(Standing),
    Failed(RequestError),
}

#[async_trait]
pub trait MountLeases: Send + Sync {
    /// What stands on a target at this moment. `connection`: as in [`LeasePlan::connection`](super::engine::LeasePlan::connection).
    ///
    /// # Errors
    /// As storage.
    async fn standing(&self, mount: &MountAccessor, connection: &str) -> Result<Standing, StorageError>;

    /// Writes a batch, and in the same step sets how many leases of one path there may be; `None`: as many as anybody wants.
    /// Returns how many there are, as far as that is known; zero without a limit.
    ///
    /// # Errors
    /// Too many paths have a limit; or as storage. Nothing was written.
    async fn commit_with_limit(
        &self,
        mount: &MountAccessor,
        limit: PathLimit,
        batch: Batch,
    ) -> Result<u64, RequestError>;

    /// Writes a batch if no lease stands on a target, and none begins before it is written.
    ///
    /// # Errors
    /// What stands there; or as storage. Nothing was written.
    async fn commit_unless_standing(
        &self,
        mount: &MountAccessor,
        connection: &str,
        batch: Batch,
    ) -> Result<(), NotCommitted>;
}
