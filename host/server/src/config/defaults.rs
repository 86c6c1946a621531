//! Every default, in one place.

use std::time::Duration;

use leasehold_model::Ttl;

/// 32 days, as in Vault.
pub(crate) const DEFAULT_LEASE_TTL: Ttl = Ttl::from_secs(768 * 3600);
pub(crate) const MAX_LEASE_TTL: Ttl = Ttl::from_secs(768 * 3600);
pub(crate) const LISTEN_ADDRESS: &str = "127.0.0.1:8200";
/// How long requests that are under way at the end may take.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);
/// The API level that clients gate features on (Terraform's provider wants a semantic version of 1.10 or later).
pub(crate) const API_VERSION: &str = "1.19.0";
/// How long a request may take, as in Vault.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(90);
pub(crate) const REQUEST_TIME_MAX: Ttl = Ttl::from_secs(3600);
/// Open connections, where the limit of open files allows so many.
pub(crate) const CONNECTIONS: usize = 4_096;
/// A configuration that is longer than this is another file. In bytes.
pub(crate) const FILE_MAX: u64 = 1 << 20;
/// After that, how long revocations under way may take: no longer than a database that answers needs.
pub(crate) const SEAL_TIME: Duration = Duration::from_secs(5);
/// After that, when the process ends whatever it does. All three together stay below `TimeoutStopSec=40` of the unit.
pub(crate) const LAST_RESORT: Duration = Duration::from_secs(3);
/// How long reopening audit files may keep other signals waiting: a file server that is gone does not answer.
pub(crate) const REOPEN_TIME: Duration = Duration::from_secs(10);
