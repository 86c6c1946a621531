//! Finds PostgreSQL roles without a lease, and leases without their role. Reports; drops nothing.

use std::collections::BTreeMap;

use super::failure::TargetError;
use super::sql::literal;
use super::target::{ANSWER_MAX, Target, rows};

/// A PostgreSQL role that carries our ownership comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRole {
    pub name: String,
    /// The random part of the lease that it belongs to.
    pub lease: String,
}

/// What both sides do not agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrphanReport {
    /// Roles in the target that no lease names.
    pub without_lease: Vec<OwnedRole>,
    /// Random parts of leases, with the role's name, whose role is not there.
    pub without_role: Vec<(String, String)>,
}

/// The comment on a role: whose it is, and of which lease.
pub(super) fn comment(installation: &str, lease: &str) -> String {
    format!("leasehold:{installation}:{lease}")
}

/// Compares the roles of one target with its leases (random part → role name).
///
/// Read the leases *before and after* the roles and pass those that are in both for `without_role`, or a lease that is being
/// issued shows as one without a role.
#[must_use]
pub fn compare(roles: &[OwnedRole], leases: &BTreeMap<String, String>) -> OrphanReport {
    let without_lease = roles.iter().filter(|role| leases.get(&role.lease) != Some(&role.name)).cloned().collect();
    let there: BTreeMap<&str, &str> = roles.iter().map(|role| (role.lease.as_str(), role.name.as_str())).collect();
    let without_role = leases
        .iter()
        .filter(|(lease, name)| there.get(lease.as_str()) != Some(&name.as_str()))
        .map(|(lease, name)| (lease.clone(), name.clone()))
        .collect();
    OrphanReport { without_lease, without_role }
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
    let answer = session.run(&sql, ANSWER_MAX * 4).await?;
    session.finish();
    let one = |row: Vec<Option<&str>>| match row.as_slice() {
        [Some(name), Some(comment)] => {
            comment.strip_prefix(&prefix).map(|lease| OwnedRole { name: (*name).to_owned(), lease: lease.to_owned() })
        }
        _ => None,
    };
    Ok(rows(&answer).filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_leases_are_compared_both_ways() {
        let role = |name: &str, lease: &str| OwnedRole { name: name.to_owned(), lease: lease.to_owned() };
        let leases = [("a", "v-a"), ("b", "v-b"), ("d", "v-d")];
        let leases = leases.iter().map(|(lease, name)| ((*lease).to_owned(), (*name).to_owned())).collect();
        let report = compare(&[role("v-a", "a"), role("v-c", "c"), role("v-x", "d")], &leases);
        assert_eq!(report.without_lease, [role("v-c", "c"), role("v-x", "d")]);
        assert_eq!(report.without_role, [("b".to_owned(), "v-b".to_owned()), ("d".to_owned(), "v-d".to_owned())]);
    }
}
