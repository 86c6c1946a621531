//! Moves the end of a PostgreSQL role.

use leasehold_core::seams::engine::{EngineContext, EngineError};
use leasehold_core::seams::error::RequestError;
use leasehold_model::Timestamp;

use super::super::effect::{Effect, valid_until};
use super::super::role::RoleRecord;
use super::sql::{ident, literal};

/// The statements of one renewal, with the role's as they are now.
pub(crate) async fn statements(
    at: &EngineContext,
    role: &RoleRecord,
    effect: &Effect,
    until: Timestamp,
) -> Result<Vec<String>, EngineError> {
    let expiration = valid_until(until);
    if role.renew.texts.is_empty() {
        return Ok(vec![format!("ALTER ROLE {} VALID UNTIL {}", ident(&effect.username), literal(&expiration))]);
    }
    let name = effect.username.as_str();
    let values = [("name", name), ("username", name), ("expiration", expiration.as_str())];
    role.renew.rendered(&*at.templates, &values, "renew").await.map_err(|error: RequestError| match error {
        RequestError::Sandbox(inner) => EngineError::Failed(format!("failed to render renew statements: {inner}")),
        other => EngineError::Failed(other.to_string()),
    })
}
