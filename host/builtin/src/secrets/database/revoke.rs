//! Ends a PostgreSQL role: no login, no session, no rights, no role. Every step can be repeated.
//!
//! The order matters: sessions live on after `DROP ROLE`, and one that has done `SET ROLE` keeps the group's rights.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::connection::Leftovers;
use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::sql::ident;
use super::subject::Subject;
use super::target::{ANSWER_MAX, Session, Target, bare, rows, with_margin};
use super::{leftovers, locks, transaction};

/// A session that was told to end does so when it next looks; one that waits for a disk may take its time.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(8);
/// How often a role that holds itself fast is broken open; it may be quick to come back.
const SHUT_TRIES: u32 = 4;

/// Grants of others, on other databases of the server too, are not in our hands: what met one is done again.
const COLLISION_WAITS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// What is left of a role.
struct Standing {
    oid: u32,
    /// Also prepared transactions: both hold what the role holds.
    sessions: u32,
}

/// The role, its sessions and its rights are gone when this returns `Ok`; also when they were before.
/// `statements` empty: the default revocation.
pub(super) async fn revoke(
    target: &Target,
    subject: &Subject<'_>,
    statements: &[String],
    leftovers: &Leftovers,
) -> Result<(), TargetError> {
    for wait in COLLISION_WAITS {
        match go_through(target, subject, statements, leftovers).await {
            Err(error) if error.is_collision() => sleep(wait).await,
            done => return done,
        }
    }
    go_through(target, subject, statements, leftovers).await
}

async fn go_through(
    target: &Target,
    subject: &Subject<'_>,
    statements: &[String],
    leftovers: &Leftovers,
) -> Result<(), TargetError> {
    let name = subject.name;
    let session = target.session().await?;
    let Some(standing) = shut(target, &session, subject).await? else {
        session.finish();
        return Ok(());
    };
    let is_custom = !statements.is_empty();
    if !is_custom && standing.sessions == 0 {
        match drop_unless_used(&session, subject, standing.oid).await {
            Ok(()) => {
                session.finish();
                return Ok(());
            }
            // Something depends on the role, or somebody logged in at the last moment: the long way.
            Err(error) if error.is_code(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {}
            Err(error) if error.is_code(&SqlState::DIVISION_BY_ZERO) => {}
            Err(error) => return Err(error),
        }
    }
    // Without being a member of the role an admin that is no superuser may neither end its sessions nor give away what it owns.
    let join = format!("{}GRANT {} TO CURRENT_USER", subject.hold(), ident(name));
    session.run(&join, with_margin(STATEMENT_MAX)).await?;
    end_sessions(&session, name, standing.oid).await?;
    locks::roll_back_prepared(target, &session, subject).await?;
    // Both that follow may wait for their turn; work that needs none should not wait for our session.
    session.finish();
    if is_custom {
        transaction::run(target, name, statements).await?;
    }
    let session = target.session().await?;
    let Some(standing) = look(&session, subject).await? else {
        session.finish();
        return Ok(());
    };
    session.finish();
    let blockers = leftovers::give_away(target, subject, standing.oid, leftovers).await?;
    let session = target.session().await?;
    let drop_role = format!("{}DROP ROLE IF EXISTS {}", subject.hold(), ident(name));
    match session.run(&drop_role, with_margin(STATEMENT_MAX)).await {
        Ok(_) => {
            session.finish();
            Ok(())
        }
        Err(error) if error.is_code(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => Err(blocked(error, &blockers)),
        Err(error) => Err(error),
    }
}

/// Takes the login away and counts what is left: one round trip, unless the role holds itself fast.
async fn shut(target: &Target, session: &Session, subject: &Subject<'_>) -> Result<Option<Standing>, TargetError> {
    let mut tries = 0;
    loop {
        match try_shut(session, subject, tries > 0).await {
            Err(error) if locks::is_held(&error) && tries < SHUT_TRIES => {
                tries += 1;
                locks::break_open(target, session, subject).await?;
            }
            done => return done,
        }
    }
}

async fn try_shut(session: &Session, subject: &Subject<'_>, by_force: bool) -> Result<Option<Standing>, TargetError> {
    let end_all = if by_force { locks::end_all(subject) + "; " } else { String::new() };
    // Need not be on disk before the role is dropped: when the server crashes in between, its sessions are gone too.
    let shut = format!(
        "{end_all}SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = {}; {}ALTER ROLE {} NOLOGIN",
        locks::WAIT.as_millis(),
        subject.hold(),
        ident(subject.name)
    );
    let count = bare(&standing_query(subject));
    let limit = with_margin(STATEMENT_MAX);
    let mut answers = session.pipeline(&[&shut, &count], limit, limit).await?.into_iter();
    let (shut, count) = (answers.next(), answers.next());
    match (shut, count) {
        (Some(Ok(_)), Some(Ok(answer))) => read_standing(&answer),
        (Some(Err(error)), _) if error.is_code(&SqlState::UNDEFINED_OBJECT) => Ok(None),
        (Some(Err(error)), _) | (_, Some(Err(error))) => Err(error),
        _ => Err(TargetError::Down("the target gave fewer answers than it was asked".to_owned())),
    }
}

async fn look(session: &Session, subject: &Subject<'_>) -> Result<Option<Standing>, TargetError> {
    read_standing(&session.ask(&standing_query(subject), ANSWER_MAX).await?)
}

fn standing_query(subject: &Subject<'_>) -> String {
    format!(
        "SELECT r.oid, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = r.oid) \
         + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xact() p WHERE p.ownerid = r.oid) \
         FROM pg_catalog.pg_roles r WHERE {}",
        subject.is_row()
    )
}

fn read_standing(answer: &[tokio_postgres::SimpleQueryMessage]) -> Result<Option<Standing>, TargetError> {
    let Some(row) = rows(answer).next() else { return Ok(None) };
    let number = |at: usize| row.get(at).copied().flatten().and_then(|text| text.parse().ok());
    match (number(0), number(1)) {
        (Some(oid), Some(sessions)) => Ok(Some(Standing { oid, sessions })),
        _ => Err(TargetError::Refused("the target's catalogue is not readable".to_owned())),
    }
}

/// Drops the role if it has no session; looks once more in the same transaction, now that nobody can log in.
async fn drop_unless_used(session: &Session, subject: &Subject<'_>, oid: u32) -> Result<(), TargetError> {
    let sql = format!(
        "{}SELECT 1 / (CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = {oid}) \
         THEN 0 ELSE 1 END); DROP ROLE IF EXISTS {}",
        subject.hold(),
        ident(subject.name)
    );
    session.ask(&sql, with_margin(STATEMENT_MAX)).await.map(drop)
}

/// Ends the role's sessions and waits until the last one is gone.
async fn end_sessions(session: &Session, name: &str, oid: u32) -> Result<(), TargetError> {
    let terminate = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) \
         FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.usesysid = {oid}"
    );
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(5);
    loop {
        let answer = session.ask(&terminate, ANSWER_MAX).await?;
        let left = rows(&answer).next().and_then(|row| row.first().copied().flatten().map(str::to_owned));
        match left.as_deref() {
            Some("0") => return Ok(()),
            Some(count) if waited >= SESSIONS_END_WITHIN => {
                return Err(TargetError::Refused(format!("{count} sessions of role {name:?} do not end")));
            }
            _ => {}
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
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
