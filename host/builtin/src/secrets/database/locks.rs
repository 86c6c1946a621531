//! What a leased role may hold so that it can be neither shut nor dropped: a lock on itself, by a transaction that changed its own
//! password and does not end, in a session of its own or prepared.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::sql::{ident, literal};
use super::subject::Subject;
use super::target::{ANSWER_MAX, Session, Target, bare, rows, with_margin};

/// Nobody else has business with the role's own row: who makes us wait so long does not mean to let go.
pub(super) const WAIT: Duration = Duration::from_secs(2);

/// Whether `ALTER ROLE` failed because somebody else is changing the role.
pub(super) fn is_held(error: &TargetError) -> bool {
    error.is_collision() || error.is_code(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Ends what holds the role, so that its own row can be changed. Afterwards the role may log in again and do the same: what
/// takes the login away begins with [`end_all`], and then waits in the queue ahead of whoever comes.
pub(super) async fn break_open(target: &Target, session: &Session, subject: &Subject<'_>) -> Result<(), TargetError> {
    // Whoever holds the role keeps it from being held by us, as `Subject::hold` would have it; to be its member does no harm.
    let join = format!("{}GRANT {} TO CURRENT_USER", subject.check(), ident(subject.name));
    session.run(&join, with_margin(STATEMENT_MAX)).await?;
    session.run(&end_all(subject), ANSWER_MAX).await?;
    roll_back_prepared(target, session, subject).await
}

/// Tells all sessions of the role to end; waits for none.
pub(super) fn end_all(subject: &Subject<'_>) -> String {
    bare(&format!(
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_get_activity(NULL) a \
         WHERE a.usesysid = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE {})",
        subject.is_row()
    ))
}

/// Ends the role's prepared transactions, each in its database. The admin is a member of the role by now.
pub(super) async fn roll_back_prepared(
    target: &Target,
    session: &Session,
    subject: &Subject<'_>,
) -> Result<(), TargetError> {
    let sql = format!(
        "SELECT p.gid, d.datname FROM pg_catalog.pg_prepared_xact() p JOIN pg_catalog.pg_database d ON d.oid = p.dbid \
         WHERE p.ownerid = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE {})",
        subject.is_row()
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    for row in rows(&answer) {
        let [Some(gid), Some(database)] = row.as_slice() else { continue };
        let there = match *database == target.database() {
            true => target.session().await?,
            false => target.session_in(database).await?,
        };
        // Only who prepared it, or a superuser, may.
        there.run(&format!("SET ROLE {}", ident(subject.name)), ANSWER_MAX).await?;
        match there.run(&format!("ROLLBACK PREPARED {}", literal(gid)), with_margin(STATEMENT_MAX)).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if error.is_code(&SqlState::UNDEFINED_OBJECT) => {}
            Err(error) => return Err(error),
        }
        there.run("RESET ROLE", ANSWER_MAX).await?;
        there.finish();
    }
    Ok(())
}
