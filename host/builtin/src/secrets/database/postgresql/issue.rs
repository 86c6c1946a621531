//! Makes the PostgreSQL role of a lease: one transaction, in one round trip, that is over before the deadline or never happens.

use std::time::Duration;

use leasehold_core::seams::engine::{EngineContext, LeaseIntent, SecretData, SecretValue};
use leasehold_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio_postgres::error::SqlState;

use super::super::connection::PasswordAuthentication;
use super::super::credential;
use super::super::effect::{Effect, valid_until};
use super::failure::TargetError;
use super::pool::{ANSWER_MAX, ConnectionPool, MARGIN, Session, TargetTime, WAIT_MAX};
use super::sql::{ident, literal};
use super::statements::{leaves_session_alone, prepares_transaction, sets_something, substitute, touches_shared};
use super::{ownership_comment, scram};

/// The password, and what goes into the statements in its place.
pub(super) struct Issued {
    password: SecretString,
    pub(super) sent: SecretString,
}

impl Issued {
    pub(super) fn secrets(&self) -> [&SecretString; 2] {
        [&self.password, &self.sent]
    }
}

/// The creation statements as they are sent.
pub(super) fn filled(effect: &Effect, expiration: &str, issued: &Issued) -> Result<Vec<SecretString>, TargetError> {
    let one = |statement: &String| {
        let statement = statement.replace(&effect.expiration_at, expiration);
        substitute(&statement, &effect.password_at, &issued.sent)
            .map_err(|error| TargetError::Refused(format!("failed to render creation statements: {error}")))
    };
    effect.creation.iter().map(one).collect()
}

/// # Errors
/// Unless it is [`TargetError::Unreached`], whether the role is there is not known then: the caller revokes.
pub(crate) async fn issue(
    target: &ConnectionPool,
    authentication: PasswordAuthentication,
    at: &EngineContext,
    intent: &LeaseIntent,
    effect: &Effect,
    secrets: &[SecretString],
) -> Result<SecretData, TargetError> {
    if effect.creation.iter().any(|statement| prepares_transaction(statement)) {
        let why = "creation statements must not PREPARE TRANSACTION: nobody would end it";
        return Err(TargetError::Refused(why.to_owned()));
    }
    let issued = credential(at, authentication, &effect.password_policy).await?;
    let statements = filled(effect, &valid_until(intent.expires_at), &issued)?;
    let comment = ownership_comment::comment(&at.mount.installation, intent.id.random());
    // Their settings, a role that they put on among them, are not ours; a session that they change is cleared afterwards.
    let alone = effect.creation.iter().all(|statement| leaves_session_alone(statement) && !sets_something(statement));
    let reset = if alone { "" } else { "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; " };
    let mark = format!("{reset}COMMENT ON ROLE {} IS {}", ident(&effect.username), literal(&comment));
    // Of the rendered text: a statement that holds the secret must not be copied about.
    let is_shared = effect.creation.iter().any(|statement| touches_shared(statement, &effect.username));
    let _turn = if is_shared { Some(target.turn(target.database(), WAIT_MAX).await?) } else { None };
    let done = in_one_transaction(target, at, intent, &statements, &mark).await;
    let session = done.map_err(|error| {
        let known: Vec<&SecretString> = secrets.iter().chain(issued.secrets()).collect();
        error.scrubbed(&known, &target.names())
    })?;
    target.finish_after(session, &effect.creation).await;
    Ok(SecretData(vec![
        ("password".to_owned(), SecretValue::Secret(issued.password)),
        ("username".to_owned(), SecretValue::Public(Value::String(effect.username.clone()))),
    ]))
}

pub(super) async fn credential(
    at: &EngineContext,
    authentication: PasswordAuthentication,
    policy: &str,
) -> Result<Issued, TargetError> {
    let password = credential::password_by(at, policy).await;
    prepared(at, authentication, password.map_err(|error| TargetError::Refused(error.to_string()))?).await
}

/// A password with what is sent to the target in its place.
pub(super) async fn prepared(
    at: &EngineContext,
    authentication: PasswordAuthentication,
    password: SecretString,
) -> Result<Issued, TargetError> {
    match authentication {
        PasswordAuthentication::Password => Ok(Issued { sent: password.clone(), password }),
        PasswordAuthentication::ScramSha256(iterations) => {
            let mut salt = [0_u8; 16];
            at.entropy.fill(&mut salt);
            // Half a millisecond of computing: too long for a thread that answers requests.
            let hashing = tokio::task::spawn_blocking(move || {
                let sent = scram::verifier(&password, &salt, iterations);
                Issued { password, sent }
            });
            hashing.await.map_err(|_| TargetError::Refused("could not compute a password verifier".to_owned()))
        }
    }
}

async fn in_one_transaction(
    target: &ConnectionPool,
    at: &EngineContext,
    intent: &LeaseIntent,
    statements: &[SecretString],
    mark: &str,
) -> Result<Session, TargetError> {
    // However far this came: an open transaction without a statement ends with its session.
    let begun = begin(target, at, intent.deadline).await.map_err(TargetError::before_anything)?;
    let left = intent.deadline.since(at.clock.now());
    if left.is_zero() {
        return Err(too_late());
    }
    // The target's own clock decides when a login is over: by that it would be so from the start.
    if begun.time.now() >= intent.expires_at.as_secs().saturating_mul(1_000) {
        return Err(TargetError::Refused(
            "the database's clock is ahead of this server's by more than the lease's TTL: nobody could log in"
                .to_owned(),
        ));
    }
    let opening = if begun.is_open { None } else { Some(opening(left)) };
    let closing = closing(begun.time.now().saturating_add(millis(left)));
    // Our user may not be allowed to comment on the role: the operator's statements must not be lost with that.
    let marking = format!("SAVEPOINT leasehold; {mark}");
    let mut texts: Vec<&str> = opening.as_deref().into_iter().collect();
    let first = texts.len();
    texts.extend(statements.iter().map(|statement| statement.expose_secret()));
    texts.push(&marking);
    // Not one text with the commit: a target that sees us gone after its answer to the one does not begin the other.
    texts.push(&closing);
    // A target that hangs is noticed by the opening; what comes after it may take its time.
    let heard_within = if begun.is_open { left + MARGIN } else { left.min(ANSWER_MAX) };
    let mut answers = begun.session.pipeline(&texts, heard_within, left + MARGIN).await?;
    let (closed, marked) = (answers.pop(), answers.pop());
    for (index, answer) in answers.into_iter().enumerate() {
        // What follows the first error only says that there was one. No COMMIT was reached; the session is closed.
        answer.map_err(|error| {
            match index.checked_sub(first).and_then(|index| Some((index, statements.get(index)?))) {
                Some((index, text)) => error.in_statement("creation", index, statements.len(), text.expose_secret()),
                None => error,
            }
        })?;
    }
    let unmarked = match (marked, closed) {
        (Some(marked), Some(Ok(answer))) => {
            target.told_time(&answer, 1);
            match marked {
                Ok(_) => None,
                // The operator's statements had ended the transaction, and with it the savepoint's.
                Err(_) => begun.session.run(mark, ANSWER_MAX).await.err(),
            }
        }
        (Some(Err(error)), Some(Err(_))) if error.is_refusal() => {
            let again = format!("ROLLBACK TO SAVEPOINT leasehold; {closing}");
            let answer = begun.session.run(&again, left + MARGIN).await.map_err(or_too_late)?;
            target.told_time(&answer, 1);
            Some(error)
        }
        (Some(Err(error)), _) => return Err(error),
        (_, Some(Err(error))) => return Err(or_too_late(error)),
        (None, _) | (_, None) => {
            return Err(TargetError::Down("the target gave fewer answers than it was asked".to_owned()));
        }
    };
    if let Some(error) = unmarked {
        tracing::debug!(lease.id = %intent.id, %error, "the role of lease {} carries no comment", intent.id);
    }
    Ok(begun.session)
}

/// The last statement divides by zero when its time is over.
pub(super) fn or_too_late(error: TargetError) -> TargetError {
    if error.is_code(&SqlState::DIVISION_BY_ZERO) { too_late() } else { error }
}

/// The target's clock, in milliseconds since 1970. Every operator is named in full: this stands in the transaction of the
/// operator's statements, whose search path must stay; see [`bare`](super::pool::bare).
const NOW: &str =
    "(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8";

/// A transaction that ends with its deadline, with `left` of it to go.
pub(super) fn opening(left: Duration) -> String {
    let limit = left.as_millis().max(1);
    format!("BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL synchronous_commit = on")
}

/// What ends the transaction: the target's own clock decides whether it still may happen, however long we were stopped in
/// between. `end` is in milliseconds since 1970.
pub(super) fn closing(end: i64) -> String {
    let (seconds, millis) = (end.div_euclid(1_000), end.rem_euclid(1_000));
    format!(
        "SELECT 1 OPERATOR(pg_catalog./) (CASE WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.<) \
         pg_catalog.to_timestamp({seconds}.{millis:03}) THEN 1 ELSE 0 END), {NOW}; COMMIT"
    )
}

pub(super) struct Begun {
    pub(super) session: Session,
    pub(super) time: TargetTime,
    /// Whether the transaction is open already; else its opening goes with the statements.
    pub(super) is_open: bool,
}

/// One round trip to a target that was not heard lately, none to one whose time is known.
pub(super) async fn begin(
    target: &ConnectionPool,
    at: &EngineContext,
    deadline: Timestamp,
) -> Result<Begun, TargetError> {
    let mut again = true;
    loop {
        let session = target.session().await?;
        if let Some(time) = target.time() {
            return Ok(Begun { session, time, is_open: false });
        }
        match begin_on(session, target, at, deadline).await {
            // A session of the pool that died unnoticed, as after a restart; nothing has happened on it yet.
            Err(TargetError::Down(_)) if again => again = false,
            done => return done,
        }
    }
}

/// Opens the transaction on this very session, and asks for the target's time.
pub(super) async fn begin_on(
    session: Session,
    target: &ConnectionPool,
    at: &EngineContext,
    deadline: Timestamp,
) -> Result<Begun, TargetError> {
    let left = deadline.since(at.clock.now());
    if left.is_zero() {
        return Err(too_late());
    }
    let answer = session.run(&format!("{}; SELECT {NOW}", opening(left)), left.min(ANSWER_MAX)).await?;
    target.told_time(&answer, 0);
    let time = target.time().ok_or_else(|| TargetError::Refused("the target does not tell its time".to_owned()))?;
    Ok(Begun { session, time, is_open: true })
}

pub(super) fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn too_late() -> TargetError {
    TargetError::Refused("the deadline of this request passed before the role was created".to_owned())
}
