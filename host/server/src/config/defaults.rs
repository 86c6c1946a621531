//! Every default, in one place.

use std::time::Duration;

use leasehold_model::Ttl;

/// 32 days, as in Vault.
pub(crate) const DEFAULT_LEASE_TTL: Ttl = Ttl::from_secs(768 * 3600);
pub(crate) const MAX_LEASE_TTL: Ttl = Ttl::from_secs(768 * 3600);
pub(crate) const LISTEN_ADDRESS: &str = "127.0.0.1:8200";
/// Requests that are under way at the end may take so long.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);
/// The API level that clients gate features on (Terraform's provider wants a semantic version of 1.10 or later).
pub(crate) const API_VERSION: &str = "1.19.0";
