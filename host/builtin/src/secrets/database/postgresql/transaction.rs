//! An operator's statements: all in one transaction, in their turn when they touch what others touch.

use std::time::Duration;

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::locks;
use super::pool::{ConnectionPool, MARGIN, WAIT_MAX, with_margin};
use super::statements::touches_shared;

/// A statement that the operator did not write: an error names no place of theirs.
pub(crate) const OURS: &str = "";
/// Statements that end a role: who keeps them waiting is found out.
pub(crate) const REVOCATION: &str = "revocation";

/// Runs `statements` about `role`; the first error is what counts, and rolls all back. It names its statement as one of `purpose`.
/// `statement_max`: how long one of them may take, where that is not as for any statement on this connection.
pub(crate) async fn run(
    target: &ConnectionPool,
    role: &str,
    purpose: &str,
    statements: &[String],
    statement_max: Option<Duration>,
) -> Result<(), TargetError> {
    let is_shared = statements.iter().any(|statement| touches_shared(statement, role));
    let _turn = if is_shared { Some(target.turn(target.database(), WAIT_MAX).await?) } else { None };
    let session = target.session().await?;
    let setting = statement_max.map(|max| format!("SET statement_timeout = {}", max.as_millis().max(1)));
    let mut texts: Vec<&str> = setting.as_deref().into_iter().collect();
    let first = match statements {
        // One statement is a transaction of its own.
        [_] => texts.len(),
        _ => {
            texts.push("BEGIN");
            texts.len()
        }
    };
    texts.extend(statements.iter().map(String::as_str));
    if statements.len() != 1 {
        texts.push("COMMIT");
    }
    let limit = statement_max.map_or(with_margin(STATEMENT_MAX), |max| max + MARGIN);
    let us = if purpose == REVOCATION { locks::process(&session).await? } else { None };
    let (answers, held_by) = locks::watched(target, us.as_deref(), session.pipeline(&texts, limit, limit)).await;
    // A session that met an error is dropped, and its transaction with it.
    for (index, answer) in answers?.into_iter().enumerate() {
        let answer = answer.map_err(|error| locks::blocked_by(error, held_by.as_deref()));
        answer.map_err(|error| {
            match index.checked_sub(first).and_then(|index| Some((index, statements.get(index)?))) {
                Some((index, text)) if purpose != OURS => error.in_statement(purpose, index, statements.len(), text),
                _ => error,
            }
        })?;
    }
    let changing: Vec<String> = setting.into_iter().chain(statements.iter().cloned()).collect();
    target.finish_after(session, &changing).await;
    Ok(())
}
