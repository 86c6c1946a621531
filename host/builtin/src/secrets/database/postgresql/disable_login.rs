//! Takes a role's login away and sees to it that no session of it is left.
//!
//! A session shows whose it is only when it has started. One that passed the login's check before the login was taken away may
//! still be starting then, for as long as the settings take that the role gave itself: it is waited for.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::locks;
use super::membership::Membership;
use super::pool::{ANSWER_MAX, ConnectionPool, Session, bare, with_margin};
use super::role_identity::RoleIdentity;
use super::sql::{ident, rows};

/// A session that was told to end does so when it next looks; one that waits for a disk may take its time.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(8);
/// How often a role that is held fast is broken open; it may be quick to come back.
const SHUT_TRIES: u32 = 4;

/// What is left of a role that nobody can log in as any more.
pub(crate) struct Standing {
    pub(crate) oid: u32,
    pub(crate) can_login: bool,
    /// Also prepared transactions: both hold what the role holds.
    pub(crate) sessions: u32,
}

/// Takes the login away and counts what is left, `None` when there is no such role: one round trip, unless the role is held fast or
/// somebody is just logging in.
pub(crate) async fn shut(
    target: &ConnectionPool,
    session: &Session,
    subject: &RoleIdentity<'_>,
) -> Result<Option<Standing>, TargetError> {
    let mut tries = 0;
    let seen = loop {
        match try_shut(session, subject, tries > 0).await {
            Err(error) if locks::is_held(&error) && tries < SHUT_TRIES => {
                tries += 1;
                locks::break_open(target, session, subject).await?;
            }
            done => break done?,
        }
    };
    settle(session, subject, seen).await
}

/// What is left of a role, whether or not its login was taken away.
pub(crate) async fn look(session: &Session, subject: &RoleIdentity<'_>) -> Result<Option<Standing>, TargetError> {
    let seen = Seen::read(&session.ask(&standing_query(subject), ANSWER_MAX).await?)?;
    settle(session, subject, seen).await
}

struct Seen {
    standing: Standing,
    /// Processes of sessions that have not started yet, whose they may be.
    starting: Option<String>,
}

impl Seen {
    fn read(answer: &[SimpleQueryMessage]) -> Result<Option<Self>, TargetError> {
        let Some(row) = rows(answer).next() else { return Ok(None) };
        let number = |at: usize| row.get(at).copied().flatten().and_then(|text| text.parse().ok());
        let (Some(oid), Some(sessions)) = (number(0), number(1)) else {
            return Err(TargetError::Refused("the target's catalogue is not readable".to_owned()));
        };
        let starting = row.get(2).copied().flatten().map(str::to_owned);
        let can_login = row.get(3).copied().flatten() == Some("t");
        Ok(Some(Self { standing: Standing { oid, can_login, sessions }, starting }))
    }
}

async fn try_shut(session: &Session, subject: &RoleIdentity<'_>, by_force: bool) -> Result<Option<Seen>, TargetError> {
    let end_all = if by_force { locks::end_all(subject) + "; " } else { String::new() };
    // Need not be on disk before the role is dropped: when the server crashes in between, its sessions are gone too.
    let shut = format!(
        "{end_all}SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = {}; {}{}",
        locks::WAIT.as_millis(),
        subject.hold(),
        subject.no_login()
    );
    let count = bare(&standing_query(subject));
    // Nothing here may take long: a target that lets us wait is hanging.
    let mut answers = session.pipeline(&[&shut, &count], ANSWER_MAX, ANSWER_MAX).await?.into_iter();
    match (answers.next(), answers.next()) {
        (Some(Ok(_)), Some(Ok(answer))) => Seen::read(&answer),
        (Some(Err(error)), _) if error.is_code(&SqlState::UNDEFINED_OBJECT) => Ok(None),
        (Some(Err(error)), _) | (_, Some(Err(error))) => Err(error),
        _ => Err(TargetError::Down("the target gave fewer answers than it was asked".to_owned())),
    }
}

/// Waits for the sessions that were starting, and counts again when they show whose they are.
async fn settle(
    session: &Session,
    subject: &RoleIdentity<'_>,
    seen: Option<Seen>,
) -> Result<Option<Standing>, TargetError> {
    let Some(Seen { standing, starting }) = seen else { return Ok(None) };
    let Some(starting) = starting else { return Ok(Some(standing)) };
    let still = format!("SELECT {} AND l.pid IN ({starting})", starting_sessions());
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(2);
    loop {
        let answer = session.ask(&still, ANSWER_MAX).await?;
        let left = rows(&answer).next().and_then(|row| row.first().copied().flatten().map(str::to_owned));
        let Some(left) = left else { break };
        if waited >= SESSIONS_END_WITHIN {
            return Err(TargetError::Refused(format!(
                "sessions that do not come to their start may be role {:?}'s (processes {left})",
                subject.name
            )));
        }
        sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
    // Those who begin now have been refused already.
    let again = Seen::read(&session.ask(&standing_query(subject), ANSWER_MAX).await?)?;
    Ok(again.map(|seen| seen.standing))
}

fn standing_query(subject: &RoleIdentity<'_>) -> String {
    format!(
        "SELECT r.oid, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = r.oid) \
         + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xact() p WHERE p.ownerid = r.oid), \
         (SELECT {}), r.rolcanlogin FROM pg_catalog.pg_roles r WHERE {}",
        starting_sessions(),
        subject.is_row()
    )
}

/// What follows SELECT: the processes that have been let in and have not started. Such a one holds a lock on its database, and
/// has no row of its own yet that says whose it is.
fn starting_sessions() -> &'static str {
    "pg_catalog.string_agg(l.pid::pg_catalog.text, ',') FROM pg_catalog.pg_lock_status() l \
     WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass \
     AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid() \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(NULL) s WHERE s.pid = l.pid AND s.usesysid <> 0)"
}

/// Ends the role's sessions and waits until the last one is gone. Says in words which ones our user may not end.
///
/// # Errors
/// Also when sessions that were told to end do not.
pub(crate) async fn end_sessions(
    session: &Session,
    subject: &RoleIdentity<'_>,
    oid: u32,
    membership: &Membership,
) -> Result<Option<String>, TargetError> {
    let name = subject.name;
    let terminate = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) \
         FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = {oid}"
    );
    // Whoever does not inherit the role's rights has them as that role.
    let as_role = format!("{}SET LOCAL ROLE {}; {terminate}", subject.check(), ident(name));
    let by_set_role = matches!(membership, Membership::BySetRole);
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(5);
    loop {
        let answer = match session.ask(if by_set_role { &as_role } else { &terminate }, ANSWER_MAX).await {
            Err(error) if error.is_refusal() && !RoleIdentity::is_lost(&error) => {
                return Ok(Some(format!(
                    "its sessions could not be ended ({error}): a superuser can end them, or GRANT pg_signal_backend to this \
                     connection's user"
                )));
            }
            answer => answer?,
        };
        let left = rows(&answer).last().and_then(|row| row.first().copied().flatten().map(str::to_owned));
        match left.as_deref() {
            Some("0") => return Ok(None),
            Some(count) if waited >= SESSIONS_END_WITHIN => {
                let sessions = if count == "1" { "1 session".to_owned() } else { format!("{count} sessions") };
                return Err(TargetError::Refused(format!("role {name:?} still has {sessions}, told to end")));
            }
            _ => {}
        }
        sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// How many sessions of a role there are, which may itself be gone.
pub(crate) async fn sessions_left(session: &Session, oid: u32) -> Result<u32, TargetError> {
    let sql =
        format!("SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = {oid}");
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    let count = rows(&answer).next().and_then(|row| row.first().copied().flatten()?.parse().ok());
    count.ok_or_else(|| TargetError::Refused("the target's catalogue is not readable".to_owned()))
}

/// Drops the role if it has no session; looks once more in the same transaction, now that nobody can log in.
pub(crate) async fn drop_unless_used(
    session: &Session,
    subject: &RoleIdentity<'_>,
    oid: u32,
) -> Result<(), TargetError> {
    let sql = format!(
        "SET LOCAL synchronous_commit = on; {}SELECT 1 / (CASE WHEN EXISTS \
         (SELECT FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = {oid}) \
         THEN 0 ELSE 1 END); DROP ROLE IF EXISTS {}",
        subject.hold(),
        ident(subject.name)
    );
    session.ask(&sql, with_margin(STATEMENT_MAX)).await.map(drop)
}
