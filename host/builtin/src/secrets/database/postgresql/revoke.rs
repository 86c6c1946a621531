//! Ends a PostgreSQL role: no login, no session, no rights, no role. Every step can be repeated, and each step that only prepares
//! the next one may fail: the revocation then goes on by another way, and says so only if that one fails, too.
//!
//! The order matters: sessions live on after `DROP ROLE`, and one that has done `SET ROLE` keeps the group's rights.

use std::time::Duration;

use leasehold_model::counted;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::super::connection::Leftovers;
use super::disable_login::{Standing, drop_unless_used, end_sessions, look, sessions_left, shut};
use super::failure::TargetError;
use super::membership::{self, Membership};
use super::pool::{ANSWER_MAX, ConnectionPool, Session};
use super::role_identity::RoleIdentity;
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
    /// The operator's statements left a role that nobody can log in as, without a session: that is what they mean.
    Kept,
    /// There is no role of that name.
    Absent,
}

/// The operator's statements; none: the default revocation.
#[derive(Clone, Copy)]
pub(crate) struct Theirs<'a> {
    pub(crate) texts: &'a [String],
    /// How long one of them may take; `None`: as any statement.
    pub(crate) statement_max: Option<Duration>,
}

impl Theirs<'_> {
    pub(crate) const NONE: Theirs<'static> = Theirs { texts: &[], statement_max: None };
}

/// The role, its sessions and its rights are gone when this returns [`End::Gone`]. What theirs leave able to log in, the default one ends.
pub(crate) async fn revoke(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    statements: Theirs<'_>,
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

/// What of our preparation could not be done. It keeps no statement of the operator's from running, and is told when the role cannot
/// be ended without it.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn add(&mut self, complaint: impl Into<String>) {
        self.0.push(complaint.into());
    }

    fn told_with(self, error: TargetError) -> TargetError {
        self.0.into_iter().fold(error, |error, complaint| error.note(complaint))
    }
}

/// Whether a step of ours that failed so may be left out: it will not go better in a moment, and the name still means the same role.
fn can_do_without(error: &TargetError) -> bool {
    error.is_refusal() && !RoleIdentity::is_lost(error)
}

async fn go_through(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    statements: Theirs<'_>,
    leftovers: &Leftovers,
) -> Result<End, TargetError> {
    let mut complaints = Complaints::default();
    let session = target.session().await?;
    let standing = match shut(target, &session, subject).await {
        Err(error) if can_do_without(&error) => {
            complaints.add(format!("its login could not be taken away by user {:?}: {error}", target.user()));
            look(&session, subject).await?
        }
        done => done?,
    };
    let Some(standing) = standing else {
        session.finish();
        return Ok(End::Absent);
    };
    let is_custom = !statements.texts.is_empty();
    let long_way =
        if is_custom || standing.can_login { Some(standing) } else { short_way(&session, subject, standing).await? };
    let Some(standing) = long_way else {
        session.finish();
        return Ok(End::Gone);
    };
    // Without being a member of the role an admin that is no superuser may neither end its sessions nor give away what it owns.
    let membership = membership::join(&session, subject).await?;
    end_what_runs(target, &session, subject, &standing, &membership, &mut complaints).await?;
    // Both that follow may wait for their turn; work that needs none should not wait for our session.
    session.finish();
    if is_custom && let Some(end) = theirs(target, subject, &standing, statements).await? {
        return Ok(end);
    }
    let session = target.session().await?;
    let Some(standing) = look(&session, subject).await? else {
        session.finish();
        return Ok(End::Gone);
    };
    session.finish();
    let blockers = owned_objects::give_away(target, subject, standing.oid, leftovers, &membership).await?;
    let session = target.session().await?;
    let dropped = match short_way(&session, subject, standing).await {
        Ok(None) => Ok(()),
        Ok(Some(left)) if left.sessions > 0 => {
            let verb = if left.sessions == 1 { "runs" } else { "run" };
            let text = format!("{} of role {:?} {verb} on", counted(left.sessions, "session"), subject.name);
            Err(TargetError::Refused(text))
        }
        // Once more, for PostgreSQL's own words.
        Ok(Some(left)) => drop_unless_used(&session, subject, left.oid).await,
        Err(error) => Err(error),
    };
    match dropped {
        Ok(()) => {
            session.finish();
            Ok(End::Gone)
        }
        Err(error) if error.is_refusal() || matches!(error, TargetError::Refused(_)) => {
            if !blockers.is_empty() {
                complaints.add(format!("left over: {}", blockers.join(", ")));
            }
            complaints.add(membership.complaint(target.user(), subject.name));
            Err(complaints.told_with(error))
        }
        Err(error) => Err(error),
    }
}

/// Sessions and prepared transactions, as far as our user may end them.
async fn end_what_runs(
    target: &ConnectionPool,
    session: &Session,
    subject: &RoleIdentity<'_>,
    standing: &Standing,
    membership: &Membership,
    complaints: &mut Complaints,
) -> Result<(), TargetError> {
    if let Some(complaint) = end_sessions(session, subject, standing.oid, membership).await? {
        complaints.add(complaint);
    }
    match locks::roll_back_prepared(target, session, subject).await {
        Err(error) if can_do_without(&error) => {
            complaints.add(format!("its prepared transactions could not be rolled back: {error}"));
            // It may have failed as that role.
            session.run("RESET ROLE", ANSWER_MAX).await.map(drop)
        }
        done => done,
    }
}

/// Runs the operator's statements. `None`: the role is still able to do something, and ours have to follow.
async fn theirs(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    before: &Standing,
    statements: Theirs<'_>,
) -> Result<Option<End>, TargetError> {
    transaction::run(target, subject.name, transaction::REVOCATION, statements.texts, statements.statement_max).await?;
    let session = target.session().await?;
    let end = match look(&session, subject).await? {
        None => match sessions_left(&session, before.oid).await? {
            0 => Some(End::Gone),
            count => {
                return Err(TargetError::Refused(format!(
                    "the revocation statements dropped role {:?} and left {} of it, which this connection's user may not end: a \
                     superuser can, or GRANT pg_signal_backend to that user",
                    subject.name,
                    counted(count, "session")
                )));
            }
        },
        Some(left) if !left.can_login && left.sessions == 0 => Some(End::Kept),
        Some(_) => None,
    };
    session.finish();
    Ok(end)
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
            // Without the right to drop it, whatever else can be done is done first.
            Err(error) if error.is_code(&SqlState::INSUFFICIENT_PRIVILEGE) => break,
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
