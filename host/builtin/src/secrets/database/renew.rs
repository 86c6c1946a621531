//! Moves the end of a PostgreSQL role.

use leasehold_core::request::RequestError;
use leasehold_core::seams::{EngineContext, EngineError};
use leasehold_model::Timestamp;

use super::dial::STATEMENT_MAX;
use super::effect::Effect;
use super::failure::TargetError;
use super::issue::GRACE;
use super::plan::prepare;
use super::role::RoleRecord;
use super::sql::{ident, literal};
use super::statements::touches_shared;
use super::target::{Session, Target, with_margin};

/// The statements of one renewal, with the role's as they are now.
pub(super) async fn statements(
    at: &EngineContext,
    role: &RoleRecord,
    effect: &Effect,
    until: Timestamp,
) -> Result<Vec<String>, EngineError> {
    let expiration = (until + GRACE).postgres();
    if role.renew.texts.is_empty() {
        return Ok(vec![format!("ALTER ROLE {} VALID UNTIL {}", ident(&effect.username), literal(&expiration))]);
    }
    let name = effect.username.as_str();
    let values = [("name", name), ("username", name), ("expiration", expiration.as_str())];
    prepare(&*at.sandbox, &role.renew, &values, "renew").await.map_err(|error: RequestError| match error {
        RequestError::Sandbox(inner) => EngineError::Failed(format!("failed to render renew statements: {inner}")),
        other => EngineError::Failed(other.to_string()),
    })
}

/// All in one transaction.
pub(super) async fn renew(target: &Target, effect: &Effect, statements: &[String]) -> Result<(), TargetError> {
    let is_shared = statements.iter().any(|statement| touches_shared(statement, &effect.username));
    let _turn = if is_shared { Some(target.turn(target.database()).await?) } else { None };
    let session = target.session().await?;
    transaction(&session, statements).await?;
    session.finish();
    Ok(())
}

/// Runs `statements` in one transaction; the first error is what counts.
///
/// # Errors
/// The session is in an unknown state then and must be dropped.
pub(super) async fn transaction(session: &Session, statements: &[String]) -> Result<(), TargetError> {
    // One statement is a transaction of its own.
    let texts: Vec<&str> = match statements {
        [one] => vec![one],
        many => std::iter::once("BEGIN").chain(many.iter().map(String::as_str)).chain(["COMMIT"]).collect(),
    };
    let limit = with_margin(STATEMENT_MAX);
    session.pipeline(&texts, limit, limit).await?.into_iter().try_for_each(|answer| answer.map(drop))
}
