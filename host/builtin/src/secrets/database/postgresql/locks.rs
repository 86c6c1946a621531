//! What keeps a leased role from being shut or dropped: a lock on its row, by a transaction that changed its password and does not
//! end, in a session of its own, prepared, or in a session of another that ran a function of the role's.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::ownership_comment::MARK;
use super::pool::{ANSWER_MAX, ConnectionPool, Session, bare, with_margin};
use super::role_identity::RoleIdentity;
use super::sql::{ident, literal, rows};

/// Nobody else has business with the role's own row: who makes us wait so long does not mean to let go.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

/// Whether `ALTER ROLE` failed because somebody else is changing the role.
pub(crate) fn is_held(error: &TargetError) -> bool {
    error.is_collision() || error.is_code(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Ends what holds the role, so that its own row can be changed. Afterwards the role may log in again and do the same: what
/// takes the login away begins with [`end_all`], and then waits in the queue ahead of whoever comes.
pub(crate) async fn break_open(
    target: &ConnectionPool,
    session: &Session,
    subject: &RoleIdentity<'_>,
) -> Result<(), TargetError> {
    // Whoever holds the role keeps it from being held by us, as `RoleIdentity::hold` would have it; to be its member does no harm.
    let join = format!("{}GRANT {} TO CURRENT_USER", subject.check(), ident(subject.name));
    session.run(&join, with_margin(STATEMENT_MAX)).await?;
    session.run(&end_all(subject), ANSWER_MAX).await?;
    roll_back_prepared(target, session, subject).await?;
    end_blockers(target, session, subject).await
}

/// Ends the sessions of others that hold the role's row, as by a function that the role left for them to call: nobody has business
/// with it. They are found while we wait for them.
async fn end_blockers(
    target: &ConnectionPool,
    session: &Session,
    subject: &RoleIdentity<'_>,
) -> Result<(), TargetError> {
    let answer = session.ask("SELECT pg_catalog.pg_backend_pid()", ANSWER_MAX).await?;
    let Some(Some(us)) = rows(&answer).next().and_then(|row| row.first().map(|pid| pid.map(str::to_owned))) else {
        return Ok(());
    };
    // Whether or not the login goes now, the next try takes it away for good.
    let shut = format!("SET LOCAL lock_timeout = {}; {}{}", WAIT.as_millis(), subject.check(), subject.no_login());
    let waiting = session.run(&shut, ANSWER_MAX);
    let ending = async {
        sleep(BLOCKED_BY).await;
        end_who_blocks(target, &us).await
    };
    let (waited, ended) = tokio::join!(waiting, ending);
    match (waited, ended) {
        (Ok(_), _) => Ok(()),
        (Err(error), Ok(())) if is_held(&error) => Ok(()),
        (Err(error), ended) => {
            ended?;
            Err(error)
        }
    }
}

/// Until we are seen to wait.
const BLOCKED_BY: Duration = Duration::from_millis(200);

async fn end_who_blocks(target: &ConnectionPool, us: &str) -> Result<(), TargetError> {
    let session = target.session_aside().await?;
    let sql = format!(
        "SELECT a.pid, r.rolname, pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), '{MARK}') \
         FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({us})) b (pid) \
         JOIN pg_catalog.pg_stat_get_activity(NULL) a ON a.pid = b.pid JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    for row in rows(&answer) {
        let [Some(pid), Some(role), is_leased] = row.as_slice() else { continue };
        if *is_leased == Some("t") {
            // Only a member of it may end its sessions.
            session.run(&format!("GRANT {} TO CURRENT_USER", ident(role)), with_margin(STATEMENT_MAX)).await?;
        }
        match session.run(&format!("SELECT pg_catalog.pg_terminate_backend({pid})"), ANSWER_MAX).await {
            Ok(_) => {}
            Err(error) if error.is_code(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                return Err(TargetError::Refused(format!(
                    "an open transaction of role {role:?} (process {pid}) keeps the role from being changed, and this \
                     connection's user may not end it"
                )));
            }
            Err(error) => return Err(error),
        }
    }
    session.finish();
    Ok(())
}

/// Tells all sessions of the role to end; waits for none.
pub(crate) fn end_all(subject: &RoleIdentity<'_>) -> String {
    bare(&format!(
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_get_activity(NULL) a \
         WHERE a.usesysid = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE {})",
        subject.is_row()
    ))
}

/// Ends the role's prepared transactions, each in its database. The admin is a member of the role by now.
pub(crate) async fn roll_back_prepared(
    target: &ConnectionPool,
    session: &Session,
    subject: &RoleIdentity<'_>,
) -> Result<(), TargetError> {
    let sql = format!(
        "SELECT p.gid, d.datname FROM pg_catalog.pg_prepared_xact() p JOIN pg_catalog.pg_database d ON d.oid = p.dbid \
         WHERE p.ownerid = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE {})",
        subject.is_row()
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    for row in rows(&answer) {
        let [Some(gid), Some(database)] = row.as_slice() else { continue };
        if *database == target.database() {
            // Not one more of the pool, which may have no other.
            roll_back(session, subject, gid).await?;
        } else {
            let there = target.session_at(database).await?;
            roll_back(&there, subject, gid).await?;
            there.finish();
        }
    }
    Ok(())
}

/// Only who prepared it, or a superuser, may.
async fn roll_back(session: &Session, subject: &RoleIdentity<'_>, gid: &str) -> Result<(), TargetError> {
    session.run(&format!("SET ROLE {}", ident(subject.name)), ANSWER_MAX).await?;
    match session.run(&format!("ROLLBACK PREPARED {}", literal(gid)), with_margin(STATEMENT_MAX)).await {
        Ok(_) => {}
        // Somebody else was faster.
        Err(error) if error.is_code(&SqlState::UNDEFINED_OBJECT) => {}
        Err(error) => return Err(error),
    }
    session.run("RESET ROLE", ANSWER_MAX).await.map(drop)
}
