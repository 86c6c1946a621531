//! What stands behind the frontend.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::Core;
use leasehold_core::quota::rate::RateCounts;
use leasehold_core::request::{HandedOut, LogicalRequest, LogicalResponse};
use leasehold_core::seams::error::RequestError;
use leasehold_model::TokenId;

/// Answers requests. The core does; tests of this crate put something simpler here.
#[async_trait]
pub trait Pipeline: Send + Sync {
    /// Dropping the future must not cancel what has begun: work that has to finish runs in a task of its own.
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError>;

    /// Counts a request by the rate limit that covers it, before anything else is done for it; what it answers goes into the headers of
    /// the answer.
    ///
    /// # Errors
    /// [`RequestError::RateLimited`].
    async fn limit_rate(&self, _: &LogicalRequest) -> Result<Option<RateCounts>, RequestError> {
        Ok(None)
    }

    /// What this process has counted, for a listener that shows it to everybody; also while the server is sealed.
    async fn metrics(self: Arc<Self>, request: LogicalRequest) -> LogicalResponse;

    /// Whether this token lives and may be used from this address: its holder may send large bodies. Takes none of its uses; nobody is known while sealed.
    async fn knows(&self, token: &TokenId, client: Option<IpAddr>) -> bool;

    /// Whether the holder of this token may send a file to this path; asked before the file is read. Takes none of its uses.
    async fn may_upload(&self, token: &TokenId, path: &str, client: Option<IpAddr>) -> bool;

    /// The client was gone, or its time over, before the answer that hands this out was written. Returns at once.
    fn undelivered(self: Arc<Self>, handed_out: HandedOut);
}

#[async_trait]
impl Pipeline for Core {
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        Core::handle(&self, request).await
    }

    async fn limit_rate(&self, request: &LogicalRequest) -> Result<Option<RateCounts>, RequestError> {
        Core::limit_rate(self, request).await
    }

    async fn metrics(self: Arc<Self>, request: LogicalRequest) -> LogicalResponse {
        Core::metrics(&self, &request).await
    }

    async fn knows(&self, token: &TokenId, client: Option<IpAddr>) -> bool {
        Core::knows(self, token, client).await
    }

    async fn may_upload(&self, token: &TokenId, path: &str, client: Option<IpAddr>) -> bool {
        Core::may_upload(self, token, path, client).await
    }

    fn undelivered(self: Arc<Self>, handed_out: HandedOut) {
        // Without a runtime the process is at its end: what was handed out ends by its TTL.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { Core::undelivered(&self, &handed_out).await });
        }
    }
}
