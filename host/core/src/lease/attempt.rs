//! One try of a revocation: over in the time that it may take, under a claim that is kept for so long.
//!
//! Start with [`Leases::revoke_in_time`]; what comes of a try is stored in [`revoke`](super::revoke).

use std::time::Duration;

use super::{CLAIM_TTL, EFFECT_TIME, LeaseBody, LeaseError, LeaseRow, LeaseState, Leases, NO_ANSWER};
use crate::seams::engine::{EngineContext, EngineError, SecretsEngine};
use crate::seams::storage::{Batch, StorageError};

/// How often a claim is extended. Three extensions may fail before it is lost.
const EXTEND_EVERY: Duration = Duration::from_secs(15);

impl Leases {
    /// One try of the engine, over in the time that it may take. The outer error: another worker has the row by now.
    pub(super) async fn revoke_in_time(
        &self,
        engine: &dyn SecretsEngine,
        context: &EngineContext,
        row: &LeaseRow,
        body: &LeaseBody,
    ) -> Result<Result<(), EngineError>, LeaseError> {
        let set = engine.revocation_timeout(context, &row.intent(body, self.now() + EFFECT_TIME)).await;
        let limit = set.unwrap_or(Duration::from_secs(EFFECT_TIME.as_secs()));
        let intent = row.intent(body, self.now() + limit);
        let tried = tokio::select! {
            biased;
            tried = tokio::time::timeout(limit, engine.revoke(context, &intent)) => tried,
            () = self.keep_claim(row) => return Err(StorageError::Fenced(row.id.clone()).into()),
        };
        Ok(tried.unwrap_or_else(|_| {
            // A target that hangs is noticed sooner: this one has more to do than it has time for.
            Err(EngineError::Failed(match set {
                Some(limit) => format!(
                    "the revocation was not through after {} s, its revocation_timeout; what is done stays done, and it is tried again",
                    limit.as_secs()
                ),
                None => NO_ANSWER.to_owned(),
            }))
        }))
    }

    /// Extends the claim of a row in `Revoking` for as long as somebody works on it; returns when it is lost. A claim that no effect
    /// outlasts is not touched.
    async fn keep_claim(&self, row: &LeaseRow) {
        tokio::time::sleep(Duration::from_secs(EFFECT_TIME.as_secs())).await;
        let mut until = row.held_until;
        loop {
            let held_until = Some(self.now() + CLAIM_TTL);
            let extended = LeaseRow { held_until, ..row.clone() };
            // The fence stays: whether or not an extension was stored whose answer is lost, the next one fits.
            let extension = self.storage.commit(Batch::new().shift(extended, LeaseState::Revoking, row.fence));
            match tokio::time::timeout(EXTEND_EVERY, extension).await {
                Ok(Ok(())) => until = held_until,
                Ok(Err(StorageError::Unavailable(_))) | Err(_) if until.is_some_and(|until| until > self.now()) => {}
                _ => return,
            }
            tokio::time::sleep(EXTEND_EVERY).await;
        }
    }
}
