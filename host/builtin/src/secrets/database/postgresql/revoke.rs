//! Ends a PostgreSQL role: no login, no session, no rights, no role. Every step can be repeated.
//!
//! The order matters: sessions live on after `DROP ROLE`, and one that has done `SET ROLE` keeps the group's rights.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::super::connection::Leftovers;
use super::dial::STATEMENT_MAX;
use super::disable_login::{Standing, drop_unless_used, end_sessions, look, shut};
use super::failure::TargetError;
use super::pool::{ConnectionPool, Session, with_margin};
use super::role_identity::RoleIdentity;
use super::sql::ident;
use super::{locks, owned_objects, transaction};

/// Grants of others, on other databases of the server too, are not in our hands: what met one is done again.
const COLLISION_WAITS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];
/// How often the short way is tried: somebody may log in just before the login is gone.
const SHORT_TRIES: u32 = 3;

/// How a revocation that met no error ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Gone,
    /// There is no role of that name.
    Absent,
}

/// The role, its sessions and its rights are gone when this returns [`End::Gone`].
/// `statements` empty: the default revocation.
pub(crate) async fn revoke(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    statements: &[String],
    leftovers: &Leftovers,
) -> Result<End, TargetError> {
    for wait in COLLISION_WAITS {
        match go_through(target, subject, statements, leftovers).await {
            Err(error) if error.is_collision() => sleep(wait).await,
            done => return done,
        }
    }
    go_through(target, subject, statements, leftovers).await
}

async fn go_through(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    statements: &[String],
    leftovers: &Leftovers,
) -> Result<End, TargetError> {
    let session = target.session().await?;
    let Some(standing) = shut(target, &session, subject).await? else {
        session.finish();
        return Ok(End::Absent);
    };
    let is_custom = !statements.is_empty();
    let long_way = if is_custom { Some(standing) } else { short_way(&session, subject, standing).await? };
    let Some(standing) = long_way else {
        session.finish();
        return Ok(End::Gone);
    };
    // Without being a member of the role an admin that is no superuser may neither end its sessions nor give away what it owns.
    let join = format!("{}GRANT {} TO CURRENT_USER", subject.hold(), ident(subject.name));
    session.run(&join, with_margin(STATEMENT_MAX)).await?;
    end_sessions(&session, subject.name, standing.oid).await?;
    locks::roll_back_prepared(target, &session, subject).await?;
    // Both that follow may wait for their turn; work that needs none should not wait for our session.
    session.finish();
    if is_custom {
        transaction::run(target, subject.name, statements).await?;
    }
    let session = target.session().await?;
    let Some(standing) = look(&session, subject).await? else {
        session.finish();
        return Ok(End::Gone);
    };
    session.finish();
    let blockers = owned_objects::give_away(target, subject, standing.oid, leftovers).await?;
    let session = target.session().await?;
    let drop_role =
        format!("SET LOCAL synchronous_commit = on; {}DROP ROLE IF EXISTS {}", subject.hold(), ident(subject.name));
    match session.run(&drop_role, with_margin(STATEMENT_MAX)).await {
        Ok(_) => {
            session.finish();
            Ok(End::Gone)
        }
        Err(error) if error.is_code(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => Err(blocked(error, &blockers)),
        Err(error) => Err(error),
    }
}

/// Drops a role that has no session and on which nothing depends; what is left of it if it is not that simple.
async fn short_way(
    session: &Session,
    subject: &RoleIdentity<'_>,
    mut standing: Standing,
) -> Result<Option<Standing>, TargetError> {
    for _ in 0..SHORT_TRIES {
        if standing.sessions > 0 {
            break;
        }
        match drop_unless_used(session, subject, standing.oid).await {
            Ok(()) => return Ok(None),
            Err(error) if error.is_code(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => break,
            // Somebody had logged in at the last moment.
            Err(error) if error.is_code(&SqlState::DIVISION_BY_ZERO) => match look(session, subject).await? {
                Some(again) => standing = again,
                None => return Ok(None),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(Some(standing))
}

/// PostgreSQL's own words, and who granted what: the admin cannot take away what others gave.
fn blocked(error: TargetError, blockers: &[String]) -> TargetError {
    let TargetError::Sql { severity, message, code, detail } = error else { return error };
    let mut why = detail.unwrap_or_default().replace('\n', "; ");
    if !blockers.is_empty() {
        why = format!("{why}; left over: {}", blockers.join(", "));
    }
    TargetError::Sql { severity, message: format!("{message}: {why}"), code, detail: None }
}
