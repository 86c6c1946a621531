//! What keeps a leased role from being shut or dropped: a lock on its row, by a transaction that changed its password and does not
//! end, in a session of its own, prepared, or in a session of another that ran a function of the role's.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::membership;
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
    membership::join_unheld(session, subject).await?;
    match session.run(&end_all(subject), ANSWER_MAX).await {
        Ok(_) => {}
        // Those who hold the row are found below, whoever they are.
        Err(error) if error.is_refusal() => {}
        Err(error) => return Err(error),
    }
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
    let Some(us) = process(session).await? else { return Ok(()) };
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
/// How often a wait that goes on is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(700);

/// The server's number for this session.
pub(crate) async fn process(session: &Session) -> Result<Option<String>, TargetError> {
    let answer = session.ask("SELECT pg_catalog.pg_backend_pid()", ANSWER_MAX).await?;
    Ok(rows(&answer).next().and_then(|row| row.first().copied().flatten().map(str::to_owned)))
}

/// A session that others wait for.
struct Blocker {
    process: String,
    role: String,
    application: String,
    /// What it is doing, where we may see that.
    state: Option<String>,
    /// A role with a mark of ours.
    is_leased: bool,
    /// Its login was taken away.
    is_shut: bool,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { process, role, application, .. } = self;
        write!(f, "process {process} of role {role:?} holds the lock (application {application:?}")?;
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        f.write_str(")")
    }
}

async fn blockers(session: &Session, us: &str) -> Result<Vec<Blocker>, TargetError> {
    let sql = format!(
        "SELECT b.pid, coalesce(r.rolname, '?'), coalesce(a.application_name, ''), a.state, \
         coalesce(pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), '{MARK}'), false), \
         coalesce(NOT r.rolcanlogin, false) \
         FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({us})) b (pid) \
         JOIN pg_catalog.pg_stat_get_activity(NULL) a ON a.pid = b.pid LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    let one = |row: Vec<Option<&str>>| {
        let text = |at: usize| row.get(at).copied().flatten().map(str::to_owned);
        Some(Blocker {
            process: text(0)?,
            role: text(1)?,
            application: text(2)?,
            state: text(3),
            is_leased: text(4)? == "t",
            is_shut: text(5)? == "t",
        })
    };
    Ok(rows(&answer).filter_map(one).collect())
}

/// Whether a session came to its end; `false`: our user may not end it.
async fn end(session: &Session, blocker: &Blocker) -> Result<bool, TargetError> {
    if blocker.is_leased {
        // Only a member of the role may end its sessions. Whether we could become one shows below.
        let join = membership::join(session, &RoleIdentity::named(&blocker.role)).await?;
        tracing::debug!(role = blocker.role, ?join, "a leased role holds a lock that another one's revocation needs");
    }
    let terminate = format!("SELECT pg_catalog.pg_terminate_backend({})", blocker.process);
    match session.run(&terminate, ANSWER_MAX).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_code(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn end_who_blocks(target: &ConnectionPool, us: &str) -> Result<(), TargetError> {
    let session = target.session_aside().await?;
    for blocker in blockers(&session, us).await? {
        if !end(&session, &blocker).await? {
            let Blocker { process, role, .. } = &blocker;
            return Err(TargetError::Refused(format!(
                "an open transaction of role {role:?} (process {process}) keeps the role from being changed, and this \
                 connection's user may not end it"
            )));
        }
    }
    session.finish();
    Ok(())
}

/// Waits for `work`, a statement on the session `us` that may have to wait for a lock. Whoever holds it is ended if it is a leased role
/// in revocation, which has no business any more; of all others the last one that was seen is returned in words.
pub(crate) async fn watched<T>(
    target: &ConnectionPool,
    us: Option<&str>,
    work: impl Future<Output = T>,
) -> (T, Option<String>) {
    let Some(us) = us else { return (work.await, None) };
    let seen = Mutex::new(None);
    let looking = async {
        sleep(BLOCKED_BY).await;
        // That nobody can be named or ended is no reason not to go on waiting.
        if let Err(error) = look_who_blocks(target, us, &seen).await {
            tracing::debug!(%error, "could not find out who holds a lock");
        }
        std::future::pending::<Infallible>().await
    };
    let done = tokio::select! {
        done = work => done,
        never = looking => match never {},
    };
    (done, seen.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn look_who_blocks(target: &ConnectionPool, us: &str, seen: &Mutex<Option<String>>) -> Result<(), TargetError> {
    let session = target.session_aside().await?;
    loop {
        for blocker in blockers(&session, us).await? {
            let in_revocation = blocker.is_leased && blocker.is_shut;
            let text = blocker.to_string();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
            if in_revocation && end(&session, &blocker).await? {
                tracing::warn!("{text}, and is being revoked: that session was ended");
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// As [`watched`], for one answer: a lock that was not to be had names who held it.
pub(crate) async fn naming_blocker<T>(
    target: &ConnectionPool,
    us: Option<&str>,
    work: impl Future<Output = Result<T, TargetError>>,
) -> Result<T, TargetError> {
    let (done, held_by) = watched(target, us, work).await;
    done.map_err(|error| blocked_by(error, held_by.as_deref()))
}

/// Adds who held the lock, if that is what the error is about.
pub(crate) fn blocked_by(error: TargetError, held_by: Option<&str>) -> TargetError {
    match held_by {
        Some(held_by) if error.is_code(&SqlState::LOCK_NOT_AVAILABLE) || error.is_code(&SqlState::QUERY_CANCELED) => {
            error.note(held_by)
        }
        _ => error,
    }
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
