//! What dashboards and alerts of Vault look for, under Vault's own names (contract.md §7). Ours begin with `leasehold_`.
//!
//! Must not know: how metrics are kept or shown.
//!
//! Start with [`Meter`]. Times are in milliseconds, as in Vault.

use leasehold_model::{Timestamp, Ttl};
use metrics::{Histogram, counter, gauge, histogram};

use crate::lease::LeaseKind;
use crate::mount::MountEntry;
use crate::rows::job::JobBody;

/// A handle that is made once: a look-up by name costs each request something.
pub(crate) struct Meter {
    requests: Histogram,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meter")
    }
}

impl Meter {
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { requests: histogram!("vault.core.handle_request") }
    }

    pub(crate) fn handled(&self, began: Timestamp, now: Timestamp) {
        took(&self.requests, began, now);
    }
}

/// The one node that is open is the active one.
pub(crate) fn open(cluster: &str, is_open: bool) {
    for name in ["vault.core.unsealed", "vault.core.active"] {
        gauge!(name, "cluster" => cluster.to_owned()).set(f64::from(u8::from(is_open)));
    }
}

/// Leases and tokens, counted when somebody asks. As in Vault, a token is a lease besides; here also one without an end.
pub(crate) fn leases(counts: &[(LeaseKind, u64)], irrevocable: usize) {
    let sum = |of: Option<LeaseKind>| -> u64 {
        counts.iter().filter(|(kind, _)| of.is_none_or(|of| of == *kind)).map(|(_, count)| count).sum()
    };
    gauge!("vault.expire.num_leases").set(float(sum(None)));
    gauge!("vault.expire.num_irrevocable_leases").set(float(irrevocable as u64));
    gauge!("vault.token.count").set(float(sum(Some(LeaseKind::Token))));
}

/// What is stored of a job. A moment that has not come yet is zero.
pub(crate) fn job(name: &str, mount: &str, body: &JobBody, failed_tries: u32) {
    let labels = [("job", name.to_owned()), ("mount", mount.to_owned())];
    let secs = |at: Option<Timestamp>| at.map_or(0.0, |at| at.since(Timestamp::from_secs(0)).as_secs_f64());
    gauge!("leasehold_job_last_success_timestamp_seconds", &labels).set(secs(body.succeeded_at));
    gauge!("leasehold_job_last_failure_timestamp_seconds", &labels).set(secs(body.failure.as_ref().map(|f| f.at)));
    gauge!("leasehold_job_duration_seconds", &labels).set(float(body.took_millis) / 1e3);
    gauge!("leasehold_job_failed_tries", &labels).set(f64::from(failed_tries));
}

pub(crate) fn lease_made(cluster: &str, mount: &MountEntry, ttl: Ttl) {
    counter!(
        "vault.secret.lease.creation",
        "cluster" => cluster.to_owned(),
        "creation_ttl" => bucket(ttl),
        "mount_point" => mount.path.to_string(),
        "namespace" => "root",
        "secret_engine" => mount.kind.clone(),
    )
    .increment(1);
}

pub(crate) fn token_made(cluster: &str, mount: &MountEntry, kind: &'static str, ttl: Ttl) {
    counter!(
        "vault.token.creation",
        "auth_method" => mount.kind.clone(),
        "cluster" => cluster.to_owned(),
        "creation_ttl" => bucket(ttl),
        "mount_point" => mount.path.to_string(),
        "namespace" => "root",
        "token_type" => kind,
    )
    .increment(1);
}

/// A lease that a quota has refused.
pub(crate) fn lease_refused(cluster: &str, name: &str) {
    counter!("vault.quota.lease_count.violation", "cluster" => cluster.to_owned(), "name" => name.to_owned())
        .increment(1);
}

/// How many leases a quota counts, and how many it allows.
pub(crate) fn lease_quota(cluster: &str, name: &str, count: u64, most: u64) {
    let labels = [("cluster", cluster.to_owned()), ("name", name.to_owned())];
    gauge!("vault.quota.lease_count.counter", &labels).set(float(count));
    gauge!("vault.quota.lease_count.max", &labels).set(float(most));
}

/// A request that a rate limit has refused.
pub(crate) fn rate_refused(cluster: &str, name: &str) {
    counter!("vault.quota.rate_limit.violation", "cluster" => cluster.to_owned(), "name" => name.to_owned())
        .increment(1);
}

fn took(what: &Histogram, began: Timestamp, now: Timestamp) {
    what.record(now.since(began).as_secs_f64() * 1e3);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn float(count: u64) -> f64 {
    count as f64
}

/// In how much a TTL fits, also one without an end, which is zero: so many labels, and no more.
fn bucket(ttl: Ttl) -> &'static str {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    const BUCKETS: [(u64, &str); 9] = [
        (60, "1m"),
        (600, "10m"),
        (1_200, "20m"),
        (HOUR, "1h"),
        (2 * HOUR, "2h"),
        (DAY, "1d"),
        (2 * DAY, "2d"),
        (7 * DAY, "7d"),
        (30 * DAY, "30d"),
    ];
    BUCKETS.iter().find(|(most, _)| ttl.as_secs() <= *most).map_or("+Inf", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_have_few_labels() {
        for (secs, label) in [(0, "1m"), (60, "1m"), (61, "10m"), (3_600, "1h"), (3_601, "2h"), (86_401, "2d")] {
            assert_eq!(bucket(Ttl::from_secs(secs)), label);
        }
        assert_eq!(bucket(Ttl::from_secs(2_764_800)), "+Inf");
    }
}
