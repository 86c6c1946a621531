//! How this connection's user comes to have the rights of a leased role, which it needs to end the role's sessions and to give away
//! what the role owns.
//!
//! Invariant: nothing here can make a revocation fail. What could not be had is told, and the revocation goes on without it.

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::pool::{ANSWER_MAX, Session, with_margin};
use super::role_identity::RoleIdentity;
use super::sql::{ident, rows};

/// From this version on a grant of membership says whether it is inherited.
const GRANT_WITH_OPTIONS: u32 = 160_000;

/// What our user may do as the role.
#[derive(Debug)]
pub(crate) enum Membership {
    /// Everything that the role may do.
    Inherited,
    /// Only after `SET ROLE`: our user does not inherit, and before PostgreSQL 16 no grant can change that.
    BySetRole,
    /// Nothing, for this reason.
    None(TargetError),
}

impl Membership {
    /// In words for whoever has to help; empty when there is nothing to say.
    pub(crate) fn complaint(&self, user: &str, role: &str) -> String {
        match self {
            Self::Inherited => String::new(),
            Self::BySetRole => {
                format!(
                    "user {user:?} does not inherit the rights of role {role:?}: ALTER ROLE {} INHERIT",
                    ident(user)
                )
            }
            Self::None(error) => format!(
                "user {user:?} could not become a member of role {role:?} ({error}): a superuser can run GRANT {} TO {}",
                ident(role),
                ident(user)
            ),
        }
    }
}

/// Makes our user a member of the role, unless it has the role's rights already, as a superuser has.
///
/// # Errors
/// Only what is over by itself in a moment, what means that the target is gone, and a name that means another role by now.
pub(crate) async fn join(session: &Session, subject: &RoleIdentity<'_>) -> Result<Membership, TargetError> {
    join_after(session, subject, &subject.hold(), Opposites::TakenAway).await
}

/// The same for a role whose row somebody else holds, so that it cannot be held by us.
pub(crate) async fn join_unheld(session: &Session, subject: &RoleIdentity<'_>) -> Result<Membership, TargetError> {
    join_after(session, subject, &subject.check(), Opposites::TakenAway).await
}

/// The same for a role that stays, and whose own memberships are not ours to change.
pub(crate) async fn join_heir(session: &Session, name: &str) -> Result<Membership, TargetError> {
    join_after(session, &RoleIdentity::named(name), "", Opposites::Kept).await
}

/// What becomes of memberships that make the role a member of our user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opposites {
    TakenAway,
    Kept,
}

async fn join_after(
    session: &Session,
    subject: &RoleIdentity<'_>,
    first: &str,
    opposites: Opposites,
) -> Result<Membership, TargetError> {
    let Some(found) = look(session, subject).await? else { return Ok(Membership::Inherited) };
    if found.is_inherited {
        return Ok(Membership::Inherited);
    }
    let options = if found.version >= GRANT_WITH_OPTIONS { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    let grant = format!("{first}GRANT {} TO CURRENT_USER{options}", ident(subject.name));
    let granted = match session.run(&grant, with_margin(STATEMENT_MAX)).await {
        Ok(_) => Ok(()),
        Err(error) if !error.is_refusal() || RoleIdentity::is_lost(&error) => return Err(error),
        Err(error) if opposites == Opposites::Kept => Err(error),
        // PostgreSQL allows no circle of memberships: the role may be a member of our user, directly or through others.
        Err(error) => match take_away_opposites(session, subject, first, found.version).await? {
            0 => Err(error),
            _ => match session.run(&grant, with_margin(STATEMENT_MAX)).await {
                Ok(_) => Ok(()),
                Err(error) if error.is_refusal() && !RoleIdentity::is_lost(&error) => Err(error),
                Err(error) => return Err(error),
            },
        },
    };
    match (granted, look(session, subject).await?) {
        (_, None) => Ok(Membership::Inherited),
        (_, Some(found)) if found.is_inherited => Ok(Membership::Inherited),
        (_, Some(found)) if found.is_member => Ok(Membership::BySetRole),
        (Err(error), _) => Ok(Membership::None(error)),
        (Ok(()), _) => Ok(Membership::BySetRole),
    }
}

struct Found {
    is_inherited: bool,
    is_member: bool,
    version: u32,
}

async fn look(session: &Session, subject: &RoleIdentity<'_>) -> Result<Option<Found>, TargetError> {
    let sql = format!(
        "SELECT pg_catalog.pg_has_role(r.oid, 'USAGE'), pg_catalog.pg_has_role(r.oid, 'MEMBER'), \
         pg_catalog.current_setting('server_version_num') FROM pg_catalog.pg_roles r WHERE {}",
        subject.is_row()
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    Ok(rows(&answer).next().map(|row| {
        let is = |at: usize| row.get(at).copied().flatten() == Some("t");
        let version = row.get(2).copied().flatten().and_then(|text| text.parse().ok()).unwrap_or(0);
        Found { is_inherited: is(0), is_member: is(1), version }
    }))
}

/// Takes the role out of the groups through which it is a member of our user. Says how many memberships went.
async fn take_away_opposites(
    session: &Session,
    subject: &RoleIdentity<'_>,
    first: &str,
    version: u32,
) -> Result<usize, TargetError> {
    let sql = format!(
        "SELECT DISTINCT g.rolname, b.rolname FROM pg_catalog.pg_auth_members m \
         JOIN pg_catalog.pg_roles r ON r.oid = m.member JOIN pg_catalog.pg_roles g ON g.oid = m.roleid \
         LEFT JOIN pg_catalog.pg_roles b ON b.oid = m.grantor \
         WHERE {} AND (g.rolname = CURRENT_USER OR (NOT g.rolsuper AND pg_catalog.pg_has_role(g.oid, \
         (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = CURRENT_USER), 'MEMBER')))",
        subject.is_row()
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    let mut gone = 0;
    for row in rows(&answer) {
        let [Some(group), grantor] = row.as_slice() else { continue };
        let by = match grantor {
            // Before PostgreSQL 16 whoever may take a membership away may take it whoever granted it.
            Some(grantor) if version >= GRANT_WITH_OPTIONS => format!(" GRANTED BY {} CASCADE", ident(grantor)),
            _ => String::new(),
        };
        let revoke = format!("{first}REVOKE {} FROM {}{by}", ident(group), ident(subject.name));
        match session.run(&revoke, with_margin(STATEMENT_MAX)).await {
            Ok(_) => gone += 1,
            Err(error) if error.is_refusal() && !RoleIdentity::is_lost(&error) => {
                tracing::debug!(role = subject.name, group, %error, "a membership of a leased role could not be taken away");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}
