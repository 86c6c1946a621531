//! Who gets what leased roles leave behind: a NOLOGIN role without rights, one for each role of ours. Code that was left behind runs
//! with its owner's rights: with one heir for all, what one application left could read what another left.

use aws_lc_rs::digest;
use leasehold_model::MountAccessor;
use tokio_postgres::error::SqlState;

use super::super::connection::Leftovers;
use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::membership::{self, Membership};
use super::pool::{ANSWER_MAX, Session, with_margin};
use super::sql::{ident, literal, rows};

/// The heir of all leases of a role.
pub(crate) fn of_role(mount: &MountAccessor, role: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let shown: String = role.chars().map(harmless).take(24).collect();
    // Of another role that looks the same, or on another mount, it is another.
    let hash = digest::digest(&digest::SHA256, format!("{mount}/{role}").as_bytes());
    let short = hash.as_ref().iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("leasehold_orphaned_{shown}_{short}")
}

/// The heir of a PostgreSQL role that was found without a lease: of which role of ours it was is not known.
pub(crate) fn of_orphan(lease: &str) -> String {
    format!("leasehold_orphaned_{lease}")
}

/// Makes sure that there is an heir, and says who it is; `None` when nobody inherits.
pub(crate) async fn ready(
    session: &Session,
    leftovers: &Leftovers,
    admin: &str,
    oid: u32,
) -> Result<Option<String>, TargetError> {
    match leftovers {
        Leftovers::Dropped => Ok(None),
        Leftovers::To(name) if name == admin => {
            Err(TargetError::Refused("reassign_owned_to must not name the connection's own user".to_owned()))
        }
        Leftovers::To(name) => match prepare(session, name).await? {
            // One that the operator named may have rights, but none with which others could be made.
            Heir { can_make_others: true, .. } => Err(has_rights(name)),
            _ => Ok(Some(name.clone())),
        },
        Leftovers::Ours(name) => match prepare(session, name).await {
            Ok(Heir { has_rights: false, .. }) => Ok(Some(name.clone())),
            // Somebody gave it rights, or it belongs to another admin: that must not keep what it would have inherited.
            Ok(_) => prepare_another(session, name, oid).await.map(Some),
            Err(error) if error.is_code(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                prepare_another(session, name, oid).await.map(Some)
            }
            Err(error) => Err(error),
        },
    }
}

async fn prepare_another(session: &Session, name: &str, oid: u32) -> Result<String, TargetError> {
    let another = format!("{name}_{oid}");
    tracing::warn!(
        role = name,
        "role {name:?} has rights of its own, or another owner: what is left behind goes to {another:?}"
    );
    match prepare(session, &another).await? {
        Heir { has_rights: false, .. } => Ok(another),
        _ => Err(has_rights(&another)),
    }
}

fn has_rights(name: &str) -> TargetError {
    TargetError::Refused(format!(
        "role {name:?} must not have rights of its own: what leased roles leave behind would run with them"
    ))
}

struct Heir {
    /// Anything at all: a login, a membership, a right on an object.
    has_rights: bool,
    can_make_others: bool,
    /// Whether we are its member: else nothing can be given to it.
    is_ours: bool,
}

/// Makes the role if it is not there, and us its member.
async fn prepare(session: &Session, name: &str) -> Result<Heir, TargetError> {
    let heir = match look(session, name).await? {
        Some(heir) => heir,
        None => {
            match session.run(&format!("CREATE ROLE {} NOLOGIN", ident(name)), with_margin(STATEMENT_MAX)).await {
                Ok(_) => {}
                // Somebody else was faster.
                Err(error)
                    if error.is_code(&SqlState::DUPLICATE_OBJECT) || error.is_code(&SqlState::UNIQUE_VIOLATION) => {}
                Err(error) => return Err(error),
            }
            let made = look(session, name).await?;
            made.ok_or_else(|| TargetError::Refused(format!("role {name:?} disappeared right after it was created")))?
        }
    };
    if !heir.is_ours
        && let Membership::None(error) = membership::join_heir(session, name).await?
    {
        return Err(error);
    }
    Ok(heir)
}

async fn look(session: &Session, name: &str) -> Result<Option<Heir>, TargetError> {
    let sql = format!(
        "SELECT (r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls \
         OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid) \
         OR EXISTS (SELECT FROM pg_catalog.pg_shdepend s WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
         AND s.refobjid = r.oid AND s.deptype = 'a')), \
         (r.rolsuper OR r.rolcreaterole), \
         pg_catalog.pg_has_role(r.oid, 'USAGE') FROM pg_catalog.pg_roles r WHERE r.rolname = {}",
        literal(name)
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    Ok(rows(&answer).next().map(|row| {
        let is = |at: usize| row.get(at).copied().flatten() == Some("t");
        Heir { has_rights: is(0), can_make_others: is(1), is_ours: is(2) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::database::credential::NAME_MAX;

    #[test]
    fn every_role_of_every_mount_has_an_heir_of_its_own() {
        let (one, other) = (MountAccessor::new("database_1"), MountAccessor::new("database_2"));
        assert!(of_role(&one, "readonly").starts_with("leasehold_orphaned_readonly_"));
        assert_ne!(of_role(&one, "readonly"), of_role(&other, "readonly"));
        assert_ne!(of_role(&one, "read.only"), of_role(&one, "read-only"));
        let long = of_role(&one, &"ü\"".repeat(99));
        // Another than the usual one has a number behind its name.
        assert!(long.len() + "_4294967295".len() <= NAME_MAX, "{long}");
        assert!(long.is_ascii(), "{long}");
    }
}
