//! The mark on every PostgreSQL role that is made here: a comment with installation and lease. By it the lease room finds roles
//! without a lease.

use leasehold_core::seams::OwnedRole;

use super::failure::TargetError;
use super::sql::literal;
use super::target::{ANSWER_MAX, Target, rows};

/// The comment on a role: whose it is, and of which lease.
pub(super) fn comment(installation: &str, lease: &str) -> String {
    format!("leasehold:{installation}:{lease}")
}

/// All roles of the target that carry a comment of this installation.
pub(super) async fn owned(target: &Target, installation: &str) -> Result<Vec<OwnedRole>, TargetError> {
    let prefix = comment(installation, "");
    let sql = format!(
        "SELECT r.rolname, d.description FROM pg_catalog.pg_shdescription d \
         JOIN pg_catalog.pg_roles r ON r.oid = d.objoid \
         WHERE d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
         AND pg_catalog.starts_with(d.description, {}) ORDER BY r.rolname",
        literal(&prefix)
    );
    let session = target.session().await?;
    let answer = session.ask(&sql, ANSWER_MAX * 4).await?;
    session.finish();
    let one = |row: Vec<Option<&str>>| match row.as_slice() {
        [Some(name), Some(comment)] => {
            comment.strip_prefix(&prefix).map(|lease| OwnedRole { name: (*name).to_owned(), lease: lease.to_owned() })
        }
        _ => None,
    };
    Ok(rows(&answer).filter_map(one).collect())
}

/// Whether this role still stands, with this mark. An operator who takes the comment off it wants to keep it.
pub(super) async fn is_marked(target: &Target, installation: &str, role: &OwnedRole) -> Result<bool, TargetError> {
    let sql = format!(
        "SELECT 1 FROM pg_catalog.pg_roles r WHERE r.rolname = {} \
         AND pg_catalog.shobj_description(r.oid, 'pg_authid') = {}",
        literal(&role.name),
        literal(&comment(installation, &role.lease))
    );
    let session = target.session().await?;
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    session.finish();
    Ok(rows(&answer).next().is_some())
}
