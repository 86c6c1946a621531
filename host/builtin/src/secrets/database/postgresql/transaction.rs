//! An operator's statements: all in one transaction, in their turn when they touch what others touch.

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::pool::{ConnectionPool, WAIT_MAX, with_margin};
use super::statements::touches_shared;

/// Runs `statements` about `role`; the first error is what counts, and rolls all back.
pub(crate) async fn run(target: &ConnectionPool, role: &str, statements: &[String]) -> Result<(), TargetError> {
    let is_shared = statements.iter().any(|statement| touches_shared(statement, role));
    let _turn = if is_shared { Some(target.turn(target.database(), WAIT_MAX).await?) } else { None };
    let session = target.session().await?;
    // One statement is a transaction of its own.
    let texts: Vec<&str> = match statements {
        [one] => vec![one],
        many => std::iter::once("BEGIN").chain(many.iter().map(String::as_str)).chain(["COMMIT"]).collect(),
    };
    let limit = with_margin(STATEMENT_MAX);
    // A session that met an error is dropped, and its transaction with it.
    session.pipeline(&texts, limit, limit).await?.into_iter().try_for_each(|answer| answer.map(drop))?;
    target.finish_after(session, statements).await;
    Ok(())
}
