//! What an answer hands out must not outlive an answer that nobody got: leases and new tokens alike.

use std::sync::Arc;

use crate::api::call::lease_error;
use crate::core::{Core, Unsealed};
use crate::lease::EndCause;
use crate::lease::revoke::Wait;
use crate::request::{HandedOut, LogicalResponse};
use crate::seams::error::RequestError;
use crate::token::end::Children;

/// An answer on its way to whoever asked. Dropped before it gets there, it takes back what it hands out.
pub(crate) struct Undelivered {
    core: Arc<Core>,
    answer: Option<Result<LogicalResponse, RequestError>>,
}

impl Undelivered {
    pub(crate) fn new(core: Arc<Core>, answer: Result<LogicalResponse, RequestError>) -> Self {
        Self { core, answer: Some(answer) }
    }

    /// The answer, which is its receiver's business from now on.
    pub(crate) fn deliver(mut self) -> Option<Result<LogicalResponse, RequestError>> {
        self.answer.take()
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        let Some(Ok(answer)) = self.answer.take() else { return };
        let Some(handed_out) = answer.handed_out() else { return };
        let core = self.core.clone();
        // Without a runtime the process is at its end: what it hands out ends by its TTL.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { core.undelivered(&handed_out).await });
        }
    }
}

impl Core {
    /// Ends what an answer hands out that nobody will get.
    pub(crate) async fn take_back(
        &self,
        unsealed: &Unsealed,
        handed_out: &HandedOut,
        cause: &EndCause,
    ) -> Result<(), RequestError> {
        if let Some(lease) = &handed_out.lease
            && let Err(error) = unsealed.leases.revoke(lease, Wait::UntilStored, cause).await
        {
            tracing::warn!(lease.id = %lease, %error, "could not revoke lease {lease}, which nobody got: it ends at its expiry");
        }
        if let Some(token) = &handed_out.token {
            let hash = unsealed.tokens.hash(token);
            unsealed.leases.end_token(&hash, Children::AreRevoked, cause).await.map_err(lease_error)?;
        }
        Ok(())
    }

    /// The client was gone before it had what an answer hands out: its lease and its new token end now.
    pub async fn undelivered(&self, handed_out: &HandedOut) {
        let Ok(unsealed) = self.unsealed() else { return };
        if let Err(error) = self.take_back(&unsealed, handed_out, &EndCause::Undelivered).await {
            tracing::warn!(%error, "could not take back {handed_out:?}, which its client never got: it ends by its TTL");
        }
    }
}
