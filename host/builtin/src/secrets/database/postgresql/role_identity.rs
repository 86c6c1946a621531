//! Whom a revocation ends: the role of a lease, which its name says, or one that was found without a lease.
//!
//! Between finding such a role and dropping it somebody may drop it and make another of that name. So every transaction that
//! acts on it by name first makes sure, and holds it fast, that the name still means the role that was found.

use leasehold_core::seams::engine::OwnedRole;
use tokio_postgres::error::SqlState;

use super::failure::TargetError;
use super::ownership_comment::comment;
use super::pool::bare;
use super::sql::{ident, literal};

/// What [`RoleIdentity::hold`] fails with: the root of a negative number, which no other statement of ours draws.
const NO_ROOT: SqlState = SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION;

pub(crate) struct RoleIdentity<'a> {
    pub(crate) name: &'a str,
    found: Option<Known>,
}

/// As the target's catalogue had it.
struct Known {
    oid: u32,
    mark: String,
}

impl<'a> RoleIdentity<'a> {
    /// Whichever role has this name.
    pub(crate) fn named(name: &'a str) -> Self {
        Self { name, found: None }
    }

    /// This role and no other of its name, and only as long as it carries its mark: an operator who takes that off wants to
    /// keep it.
    pub(crate) fn found(role: &'a OwnedRole, installation: &str) -> Self {
        // No role has the OID 0: an id that is no OID names nobody.
        let oid = role.id.parse().unwrap_or(0);
        Self { name: &role.name, found: Some(Known { oid, mark: comment(installation, &role.lease) }) }
    }

    /// A condition on a row `r` of `pg_roles`.
    pub(crate) fn is_row(&self) -> String {
        let name = format!("r.rolname = {}", literal(self.name));
        match &self.found {
            Some(Known { oid, .. }) => format!("{name} AND r.oid = {oid}"),
            None => name,
        }
    }

    pub(crate) fn no_login(&self) -> String {
        format!("ALTER ROLE {} NOLOGIN", ident(self.name))
    }

    /// Nothing, or a statement that fails unless the name means who was found.
    pub(crate) fn check(&self) -> String {
        let Some(Known { mark, .. }) = &self.found else { return String::new() };
        let check = format!(
            "SELECT pg_catalog.sqrt(CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE {} \
             AND pg_catalog.shobj_description(r.oid, 'pg_authid') = {}) THEN 1 ELSE -1 END); ",
            self.is_row(),
            literal(mark)
        );
        bare(&check)
    }

    /// What a transaction that acts by name begins with: nothing, or [`RoleIdentity::check`], which from then on holds until the
    /// transaction ends: a role that has been altered cannot be dropped or renamed by others.
    pub(crate) fn hold(&self) -> String {
        if self.found.is_none() {
            return String::new();
        }
        let check = self.check();
        // Asked before too: another's role must not be touched, and we may not even have the right to.
        format!("{check}{}; {check}", self.no_login())
    }

    /// Whether an error says that [`RoleIdentity::hold`] found another, or none.
    pub(crate) fn is_lost(error: &TargetError) -> bool {
        error.is_code(&NO_ROOT)
    }
}
