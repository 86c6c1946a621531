//! What stands behind the frontend.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::Core;
use leasehold_core::request::{HandedOut, LogicalRequest, LogicalResponse, RequestError};

/// Answers requests. The core does; tests of the door put something simpler here.
#[async_trait]
pub trait Pipeline: Send + Sync {
    /// Dropping the future must not cancel what has begun: work that has to finish runs in a task of its own.
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError>;

    /// The client was gone, or its time over, before it was given this lease or token. Returns at once.
    fn undelivered(self: Arc<Self>, handed_out: HandedOut);
}

#[async_trait]
impl Pipeline for Core {
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        Core::handle(&self, request).await
    }

    fn undelivered(self: Arc<Self>, handed_out: HandedOut) {
        // Without a runtime the process is at its end: what was handed out ends by its TTL.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { Core::undelivered(&self, &handed_out).await });
        }
    }
}
