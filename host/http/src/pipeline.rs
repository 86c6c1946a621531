//! What stands behind the frontend.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::Core;
use leasehold_core::request::{LogicalRequest, LogicalResponse, RequestError};
use leasehold_model::LeaseId;

/// Answers requests. The core does; tests of the door put something simpler here.
#[async_trait]
pub trait Pipeline: Send + Sync {
    /// Dropping the future must not cancel what has begun: work that has to finish runs in a task of its own.
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError>;

    /// What this process has counted, for a listener that shows it to everybody; also while the server is sealed.
    async fn metrics(self: Arc<Self>, request: LogicalRequest) -> LogicalResponse;

    /// The client was gone, or its time over, before it was given this lease. Returns at once.
    fn undelivered(self: Arc<Self>, lease: LeaseId);
}

#[async_trait]
impl Pipeline for Core {
    async fn handle(self: Arc<Self>, request: LogicalRequest) -> Result<LogicalResponse, RequestError> {
        Core::handle(&self, request).await
    }

    async fn metrics(self: Arc<Self>, request: LogicalRequest) -> LogicalResponse {
        Core::metrics(&self, &request).await
    }

    fn undelivered(self: Arc<Self>, lease: LeaseId) {
        // Without a runtime the process is at its end: the lease ends by its TTL.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { Core::undelivered(&self, &lease).await });
        }
    }
}
