//! The mark on every PostgreSQL role that is made here: a comment with installation and lease. By it roles without a lease are found.
//!
//! Where our user may not comment on a role, as when a function of the operator's makes it, there is no mark: then the role's name, which
//! stands in the lease, has to do.

use super::failure::TargetError;
use super::pool::{ANSWER_MAX, ConnectionPool};
use super::sql::{ident, literal, rows};

/// How every mark begins.
pub(crate) const MARK: &str = "leasehold:";
/// How the comment on a role begins that outlived its lease because its revocation statements keep it.
const KEPT: &str = "leasehold-kept:";

/// The comment on a role: whose it is, and of which lease.
pub(crate) fn comment(installation: &str, lease: &str) -> String {
    format!("{MARK}{installation}:{lease}")
}

/// Takes the mark off a role that stays although its lease has ended, so that it does not count as one that was forgotten. A comment
/// that the operator wrote stays.
pub(crate) async fn keep(target: &ConnectionPool, role: &str, installation: &str, lease: &str) {
    if let Err(error) = try_keep(target, role, installation, lease).await {
        tracing::warn!(
            role,
            %error,
            "role {role:?} stays as its revocation statements leave it, but its comment could not be changed: it will be \
             reported as a role without a lease"
        );
    }
}

async fn try_keep(target: &ConnectionPool, role: &str, installation: &str, lease: &str) -> Result<(), TargetError> {
    let session = target.session().await?;
    let marked = format!(
        "SELECT 1 FROM pg_catalog.pg_roles r WHERE r.rolname = {} AND pg_catalog.shobj_description(r.oid, 'pg_authid') = {}",
        literal(role),
        literal(&comment(installation, lease))
    );
    let is_marked = rows(&session.ask(&marked, ANSWER_MAX).await?).next().is_some();
    if is_marked {
        let kept = format!("COMMENT ON ROLE {} IS {}", ident(role), literal(&format!("{KEPT}{installation}:{lease}")));
        session.run(&kept, ANSWER_MAX).await?;
    }
    session.finish();
    Ok(())
}
