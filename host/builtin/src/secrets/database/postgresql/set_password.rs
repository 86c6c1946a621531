//! Gives a PostgreSQL role that stands a new password: one transaction, which is over before its deadline or never happens.
//!
//! Must not know: why the password is changed, or where the new one is kept.
//!
//! Start with [`set`].
//!
//! Invariants: after the deadline, by the target's own clock, a change that has not happened does not happen any more, however long
//! this server was stopped in between. The statements that the template guest rendered hold a placeholder; the password, or its
//! verifier, is put in here.

use leasehold_core::seams::engine::EngineContext;
use leasehold_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::super::connection::PasswordAuthentication;
use super::failure::TargetError;
use super::issue::{begin, begin_on, closing, millis, or_too_late, prepared, too_late};
use super::pool::{ANSWER_MAX, ConnectionPool, MARGIN, WAIT_MAX};
use super::sql::{ident, literal, rows};
use super::statements::{ends_transaction, prepares_transaction, substitute, touches_shared};

/// A change of one password.
pub(crate) struct PasswordChange<'a> {
    pub(crate) username: &'a str,
    /// Rendered, split, with the placeholder where the password goes.
    pub(crate) statements: &'a [String],
    pub(crate) placeholder: &'a str,
    pub(crate) password: &'a SecretString,
    pub(crate) authentication: PasswordAuthentication,
    /// It has happened by then, or never does.
    pub(crate) deadline: Timestamp,
    /// When set, the role itself logs in, with one of these, and changes its own password.
    pub(crate) itself: Option<&'a [SecretString]>,
}

/// What is done where the operator wrote no statements.
pub(crate) fn default_statement(username: &str, placeholder: &str) -> String {
    format!("ALTER ROLE {} WITH PASSWORD '{placeholder}'", ident(username))
}

/// # Errors
/// Only after [`TargetError::Down`] it is not known whether the password was changed; after any other error it was not.
pub(crate) async fn set(
    target: &ConnectionPool,
    at: &EngineContext,
    change: &PasswordChange<'_>,
    secrets: &[SecretString],
) -> Result<(), TargetError> {
    for statement in change.statements {
        if prepares_transaction(statement) || ends_transaction(statement) {
            return Err(TargetError::Refused(
                "rotation statements must not begin, end or prepare a transaction: all of them are one transaction already".to_owned(),
            ));
        }
    }
    let issued = prepared(at, change.authentication, change.password.clone()).await?;
    let filled: Result<Vec<SecretString>, TargetError> = change
        .statements
        .iter()
        .map(|statement| {
            substitute(statement, change.placeholder, &issued.sent)
                .map_err(|error| TargetError::Refused(format!("failed to render rotation statements: {error}")))
        })
        .collect();
    let done = in_one_transaction(target, at, change, &filled?).await;
    done.map_err(|error| {
        let known: Vec<&SecretString> = secrets.iter().chain(issued.secrets()).collect();
        error.scrubbed(&known, &target.names())
    })
}

async fn in_one_transaction(
    target: &ConnectionPool,
    at: &EngineContext,
    change: &PasswordChange<'_>,
    statements: &[SecretString],
) -> Result<(), TargetError> {
    // Of the rendered text: a statement that holds the secret must not be copied about.
    let is_shared = change.statements.iter().any(|statement| touches_shared(statement, change.username));
    let _turn = if is_shared { Some(target.turn(target.database(), WAIT_MAX).await?) } else { None };
    let begun = match change.itself {
        None => begin(target, at, change.deadline).await,
        Some(passwords) => match target.session_as(change.username, passwords).await {
            Ok(session) => begin_on(session, target, at, change.deadline).await,
            Err(error) => Err(error),
        },
    };
    let begun = begun.map_err(TargetError::before_anything)?;
    let left = change.deadline.since(at.clock.now());
    if left.is_zero() {
        return Err(too_late());
    }
    let opening = if begun.is_open { None } else { Some(super::issue::opening(left)) };
    let closing = closing(begun.time.now().saturating_add(millis(left)));
    let mut texts: Vec<&str> = opening.as_deref().into_iter().collect();
    let first = texts.len();
    texts.extend(statements.iter().map(|statement| statement.expose_secret()));
    // Not one text with the commit: a target that sees us gone after its answer to the one does not begin the other.
    texts.push(&closing);
    let heard_within = if begun.is_open { left + MARGIN } else { left.min(ANSWER_MAX) };
    let answers = begun.session.pipeline(&texts, heard_within, left + MARGIN).await?;
    for (index, answer) in answers.into_iter().enumerate() {
        // What follows the first error only says that there was one: no COMMIT was reached, and the session is closed.
        answer.map_err(|error| {
            let error = as_unknown(error);
            match index.checked_sub(first).and_then(|index| Some((index, statements.get(index)?))) {
                Some((index, text)) => error.in_statement("rotation", index, statements.len(), text.expose_secret()),
                None => or_too_late(error),
            }
        })?;
    }
    target.finish_after(begun.session, change.statements).await;
    Ok(())
}

/// An answer that we cannot read says nothing about the commit that was sent behind it.
fn as_unknown(error: TargetError) -> TargetError {
    match error {
        TargetError::Refused(text) => TargetError::Down(text),
        other => other,
    }
}

/// What stands in a target of a role whose password is to be rotated.
pub(crate) enum Found {
    Absent,
    /// With its comment.
    Role(Option<String>),
}

pub(crate) async fn look(target: &ConnectionPool, username: &str) -> Result<Found, TargetError> {
    let session = target.session().await?;
    let sql = format!(
        "SELECT pg_catalog.shobj_description(r.oid, 'pg_authid') FROM pg_catalog.pg_roles r WHERE r.rolname = {}",
        literal(username)
    );
    let answer = session.ask(&sql, ANSWER_MAX).await?;
    session.finish();
    Ok(match rows(&answer).next() {
        None => Found::Absent,
        Some(row) => Found::Role(row.first().copied().flatten().map(str::to_owned)),
    })
}
