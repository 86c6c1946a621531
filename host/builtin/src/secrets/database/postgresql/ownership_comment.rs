//! The mark on every PostgreSQL role that is made here: a comment with installation and lease. By it roles without a lease are found.

/// How every mark begins.
pub(crate) const MARK: &str = "leasehold:";

/// The comment on a role: whose it is, and of which lease.
pub(crate) fn comment(installation: &str, lease: &str) -> String {
    format!("{MARK}{installation}:{lease}")
}
