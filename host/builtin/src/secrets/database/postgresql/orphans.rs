//! Roles that carry our mark: the lease module compares them with leases, and has those without one dropped.

use std::collections::BTreeSet;

use leasehold_core::seams::engine::{OrphanEnd, OwnedRole};

use super::super::connection::Leftovers;
use super::failure::TargetError;
use super::ownership_comment::comment;
use super::pool::{ANSWER_MAX, ConnectionPool};
use super::revoke::{self, Theirs};
use super::role_identity::RoleIdentity;
use super::sql::{literal, rows};

/// All roles of the target that carry a comment of this installation.
pub(crate) async fn owned(target: &ConnectionPool, installation: &str) -> Result<Vec<OwnedRole>, TargetError> {
    let prefix = comment(installation, "");
    let sql = format!(
        "SELECT r.rolname, r.oid, d.description FROM pg_catalog.pg_shdescription d \
         JOIN pg_catalog.pg_roles r ON r.oid = d.objoid \
         WHERE d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
         AND pg_catalog.starts_with(d.description, {}) ORDER BY r.rolname",
        literal(&prefix)
    );
    let session = target.session().await?;
    let answer = session.ask(&sql, ANSWER_MAX * 4).await?;
    session.finish();
    let one = |row: Vec<Option<&str>>| match row.as_slice() {
        [Some(name), Some(oid), Some(comment)] => {
            let lease = comment.strip_prefix(&prefix)?.to_owned();
            Some(OwnedRole { name: (*name).to_owned(), id: (*oid).to_owned(), lease })
        }
        _ => None,
    };
    Ok(rows(&answer).filter_map(one).collect())
}

/// Those of `names` that are roles of the target.
pub(crate) async fn standing(target: &ConnectionPool, names: &[&str]) -> Result<BTreeSet<String>, TargetError> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let list = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let session = target.session().await?;
    let sql = format!("SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.rolname IN ({list})");
    let answer = session.ask(&sql, ANSWER_MAX * 4).await?;
    session.finish();
    Ok(rows(&answer).filter_map(|row| row.first().copied().flatten().map(str::to_owned)).collect())
}

/// Ends a role without a lease as by the default revocation, or does nothing if its name means another by now.
pub(crate) async fn drop_found(
    target: &ConnectionPool,
    installation: &str,
    role: &OwnedRole,
    leftovers: &Leftovers,
) -> Result<OrphanEnd, TargetError> {
    match revoke::revoke(target, &RoleIdentity::found(role, installation), Theirs::NONE, leftovers).await {
        Ok(_) => Ok(OrphanEnd::Gone),
        Err(error) if RoleIdentity::is_lost(&error) => {
            let session = target.session().await?;
            let sql = format!("SELECT 1 FROM pg_catalog.pg_roles r WHERE r.rolname = {}", literal(&role.name));
            let answer = session.ask(&sql, ANSWER_MAX).await?;
            session.finish();
            Ok(if rows(&answer).next().is_some() { OrphanEnd::Kept } else { OrphanEnd::Gone })
        }
        Err(error) => Err(error),
    }
}
