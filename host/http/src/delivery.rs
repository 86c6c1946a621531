//! A leased credential that nobody takes is given back at once, not at its expiry.
//!
//! "Taken" is what this end can see: the connection asked for the bytes. A client that vanishes while the bytes travel
//! leaves its lease to the TTL.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use leasehold_model::LeaseId;

use crate::pipeline::Pipeline;

/// Gives the lease back when dropped, unless it was kept.
pub(crate) struct UndeliveredGuard {
    pipeline: Arc<dyn Pipeline>,
    lease: Option<LeaseId>,
}

impl UndeliveredGuard {
    pub(crate) fn new(pipeline: Arc<dyn Pipeline>, lease: LeaseId) -> Self {
        Self { pipeline, lease: Some(lease) }
    }
}

impl Drop for UndeliveredGuard {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            tracing::info!(lease.id = %lease, "the client was gone before it was given its lease");
            Arc::clone(&self.pipeline).undelivered(lease);
        }
    }
}

/// `body`, keeping the promise when it is taken.
pub(crate) fn after(body: Body, promise: UndeliveredGuard) -> Body {
    Body::new(Leased { body, promise })
}

struct Leased {
    body: Body,
    promise: UndeliveredGuard,
}

impl HttpBody for Leased {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.promise.lease = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
