//! What is stored with a lease: all that effect, renewal and revocation need. No credential, no verifier.

use leasehold_core::seams::engine::EngineError;
use leasehold_model::{Timestamp, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::postgresql::statements;

/// The engine's own part of a lease row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Effect {
    /// Name of the connection.
    pub(super) connection: String,
    /// Name of the database role, for its renew statements.
    pub(super) role: String,
    /// What tells the server from every other, where that is known: elsewhere a role that does not stand proves nothing.
    #[serde(default)]
    pub(super) server: Option<String>,
    /// The PostgreSQL role.
    pub(super) username: String,
    /// Rendered, split; with placeholders for what is not known or must not be stored.
    pub(super) creation: Vec<String>,
    /// Stands where the password goes.
    pub(super) password_at: String,
    /// Stands where the expiration goes.
    pub(super) expiration_at: String,
    /// The policy that the password follows; empty: none, as in leases from before there were any.
    #[serde(default)]
    pub(super) password_policy: String,
    /// How long the revocation may take, as the role said at issue; zero: as any.
    #[serde(default)]
    pub(super) revocation_timeout: Ttl,
    /// Rendered, split, as they were at issue; empty: the default revocation.
    pub(super) revocation: Vec<String>,
}

impl Effect {
    /// Whether the creation statements say in so many words that they create a PostgreSQL role. A function that they call may do so, too.
    pub(super) fn creates_role(&self) -> bool {
        self.creation.iter().any(|statement| statements::creates_role(statement))
    }

    pub(super) fn read(value: &Value) -> Result<Self, EngineError> {
        Self::deserialize(value)
            .map_err(|_| EngineError::Failed("the lease's stored effect is not readable".to_owned()))
    }
}

/// `VALID UNTIL` lies this long behind the lease's end, as in Vault: revocation comes first.
const GRACE: Ttl = Ttl::from_secs(5);

/// What PostgreSQL is told about a lease that ends then.
pub(super) fn valid_until(end: Timestamp) -> String {
    (end + GRACE).postgres()
}
