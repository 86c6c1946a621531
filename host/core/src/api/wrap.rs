//! What a client asks to have wrapped is answered by a token that stands for the answer.

use leasehold_model::Ttl;

use crate::core::{Core, Unsealed};
use crate::lease::EndCause;
use crate::request::LogicalResponse;
use crate::seams::error::RequestError;
use crate::token::MintError;
use crate::wrapping;

impl Core {
    /// Wraps an answer. What it hands out does not outlive a failure.
    pub(super) async fn wrap(
        &self,
        unsealed: &Unsealed,
        path: &str,
        answer: LogicalResponse,
        ttl: Ttl,
    ) -> Result<LogicalResponse, RequestError> {
        if !wrapping::can_be_wrapped(&answer) {
            return Ok(answer);
        }
        let error = if self.unsealed().is_err() {
            // The server seals, or another store is in its place: unwrapped the answer may not leave.
            RequestError::Sealed
        } else {
            match unsealed.tokens.wrap(&answer, path, ttl).await {
                Ok(wrap_info) => {
                    crate::fail::point("wrapped");
                    return Ok(LogicalResponse { wrap_info: Some(wrap_info), ..LogicalResponse::default() });
                }
                Err(MintError::Store(error)) => error.into(),
                Err(other) => RequestError::Internal(format!("a wrapping token could not be made: {other}")),
            }
        };
        if let Some(handed_out) = answer.handed_out()
            && let Err(error) = self.take_back(unsealed, &handed_out, &EndCause::Withheld).await
        {
            tracing::warn!(%error, "could not take back {handed_out:?}, which was not wrapped: it ends by its TTL");
        }
        Err(error)
    }
}
