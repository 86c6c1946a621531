//! Renewal: claim, effect in the target, commit. A crash in between leaves a lease that ends at its old expiry.

use leasehold_model::{Timestamp, Ttl};

use super::{CLAIM_TTL, EFFECT_TIME, LeaseBody, LeaseError, LeaseKind, LeaseRow, LeaseState, Leases, NO_ANSWER};
use crate::codec::encode;
use crate::request::LeaseAnswer;
use crate::seams::engine::{EngineContext, LeaseIntent, LeaseLimits, MountView, SecretsEngine};
use crate::seams::storage::{Batch, StorageError};
use crate::ttl::{self, End, RequestedTtl, TtlBounds, least};

/// A lease that may be extended now: made only by [`renewable_at`].
struct Renewable {
    row: LeaseRow,
    body: LeaseBody,
    now: Timestamp,
}

/// Gives the right to extend a lease, or says why there is none.
fn renewable_at(row: LeaseRow, body: LeaseBody, now: Timestamp) -> Result<Renewable, LeaseError> {
    let id = row.id.clone();
    match row.kind {
        LeaseKind::Secret => {}
        LeaseKind::Token => return Err(LeaseError::IsToken(id)),
        LeaseKind::Job => return Err(LeaseError::NotFound(id)),
    }
    match row.state {
        LeaseState::Active if row.expires_at <= now => Err(LeaseError::Expired(id)),
        LeaseState::Active if !body.renewable => Err(LeaseError::NotRenewable(id)),
        LeaseState::Active => Ok(Renewable { row, body, now }),
        LeaseState::Revoking => Err(LeaseError::Expired(id)),
        // Its client has not been told of it yet.
        LeaseState::Issuing => Err(LeaseError::NotFound(id)),
    }
}

impl Renewable {
    /// What no renewal passes: it was agreed at issue, or role and mount allow less since.
    fn bounds(&self, limits: LeaseLimits, mount: &MountView, ceiling: Option<Ttl>) -> TtlBounds {
        TtlBounds {
            created_at: self.body.issued_at,
            now: self.now,
            max: least(&[limits.max_ttl, mount.max_lease_ttl]).unwrap_or(mount.max_lease_ttl),
            explicit_max: Ttl::ZERO,
            agreed_end: self.body.max_expires_at,
            ceiling,
        }
    }
}

impl Leases {
    /// Extends a lease that was found a moment ago. Must run to its end once begun: the caller spawns it.
    ///
    /// # Errors
    /// Why it may not be renewed, or the engine's words; the lease then ends when it would have ended.
    pub async fn renew(
        &self,
        (row, body): (LeaseRow, LeaseBody),
        increment: Option<Ttl>,
        ceiling: Option<Ttl>,
    ) -> Result<(LeaseAnswer, Vec<String>), LeaseError> {
        let id = &row.id.clone();
        // Refused without a claim, so that a look costs nothing.
        renewable_at(row, body, self.now())?;
        let row = match self.storage.claim(&self.claimant(), id, CLAIM_TTL).await {
            Ok(Some(row)) => row,
            Ok(None) => return Err(LeaseError::NotFound(id.clone())),
            Err(StorageError::Fenced(_)) => return Err(LeaseError::Busy(id.clone())),
            Err(other) => return Err(other.into()),
        };
        let renewable = match row.read_body().and_then(|body| renewable_at(row.clone(), body, self.now())) {
            Ok(renewable) => renewable,
            Err(error) => {
                self.release(row).await;
                return Err(error);
            }
        };
        crate::fail::point("renew-claimed");

        let extended = self.extend(&renewable, increment, ceiling).await;
        let Renewable { row, mut body, now } = renewable;
        let End { at: until, ttl, warnings } = match extended {
            Ok(extended) => extended,
            Err(error) => {
                self.release(row).await;
                return Err(error);
            }
        };
        crate::fail::point("renew-after-effect");

        body.last_renewed_at = Some(now);
        let fence = row.fence;
        let (claimed, connection) = (row.clone(), row.connection.clone());
        let renewed = LeaseRow { expires_at: until, body: encode(&body)?, ..row }.released(until);
        match self.storage.commit(Batch::new().shift(renewed, LeaseState::Active, fence)).await {
            Ok(()) => {}
            Err(StorageError::Fenced(_)) => return Err(LeaseError::Overtaken(id.clone())),
            // Whether it was written is unknown. If not, nobody should have to wait for our hold to end.
            Err(other) => {
                self.release(claimed).await;
                return Err(other.into());
            }
        }
        self.target_is_up(&connection);
        self.falls_due(until);
        Ok((LeaseAnswer { id: id.clone(), renewable: body.renewable, ttl }, warnings))
    }

    /// Finds the new end and moves the target's to it.
    async fn extend(&self, lease: &Renewable, increment: Option<Ttl>, ceiling: Option<Ttl>) -> Result<End, LeaseError> {
        let Renewable { row, body, .. } = lease;
        let (engine, context) = self.engines.at(&row.mount).ok_or_else(|| LeaseError::NoEngine(row.id.clone()))?;
        let intent = row.intent(body, self.now() + EFFECT_TIME);
        let limits = engine.limits(&context, &intent).await.map_err(|error| LeaseError::Engine(error.to_string()))?;
        let wished = increment.and_then(Ttl::if_set).or(limits.default_ttl.if_set());
        let wish = RequestedTtl::Ttl(wished.unwrap_or(context.mount.default_lease_ttl));
        let end = ttl::end(wish, &lease.bounds(limits, &context.mount, ceiling));
        let end = end.ok_or_else(|| LeaseError::PastMaximum(row.id.clone()))?;
        self.extend_in_target(&*engine, &context, row, &intent, end.at).await?;
        Ok(end)
    }

    async fn extend_in_target(
        &self,
        engine: &dyn SecretsEngine,
        context: &EngineContext,
        row: &LeaseRow,
        intent: &LeaseIntent,
        until: Timestamp,
    ) -> Result<(), LeaseError> {
        self.refuse_if_down(&row.connection)?;
        let opening = self.opening(&row.connection);
        let limit = std::time::Duration::from_secs(EFFECT_TIME.as_secs());
        match tokio::time::timeout(limit, engine.renew(context, intent, until)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.note_target(&row.connection, opening, &error);
                Err(LeaseError::Engine(error.to_string()))
            }
            Err(_) => Err(LeaseError::Engine(NO_ANSWER.to_owned())),
        }
    }

    /// Gives a claimed row back as it was.
    pub(super) async fn release(&self, row: LeaseRow) {
        let (state, fence, next_at) = (row.state, row.fence, row.next_at);
        // Lost to another claimant: then it is not ours to give back.
        let _ = self.storage.commit(Batch::new().shift(row.released(next_at), state, fence)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_model::{MountAccessor, TokenHash};

    fn lease(expires: i64) -> (LeaseRow, LeaseBody) {
        let at = Timestamp::from_secs;
        let body = LeaseBody {
            issued_at: at(1_000),
            last_renewed_at: None,
            max_expires_at: at(expires + 40),
            ttl: Ttl::from_secs(60),
            renewable: true,
            effect: serde_json::Value::Null,
            receipt: serde_json::Value::Null,
            attempts: 0,
            last_error: None,
            wrapped: None,
            role: None,
            below: None,
            is_root: false,
            ending: None,
        };
        let row = LeaseRow {
            id: "a/b".parse().unwrap(),
            kind: LeaseKind::Secret,
            state: LeaseState::Active,
            next_at: at(expires),
            expires_at: at(expires),
            fence: 0,
            holder: None,
            held_until: None,
            token: TokenHash::from_hex("00"),
            mount: MountAccessor::new("m"),
            connection: String::new(),
            body: Vec::new(),
        };
        (row, body)
    }

    #[test]
    fn a_lease_in_its_last_instant_cannot_be_renewed() {
        let (row, body) = lease(1_060);
        assert!(matches!(renewable_at(row, body, Timestamp::from_secs(1_060)), Err(LeaseError::Expired(_))));
    }

    #[test]
    fn a_revoking_lease_cannot_be_renewed() {
        let (mut row, body) = lease(1_060);
        row.state = LeaseState::Revoking;
        assert!(matches!(renewable_at(row, body, Timestamp::from_secs(1_000)), Err(LeaseError::Expired(_))));
    }
}
