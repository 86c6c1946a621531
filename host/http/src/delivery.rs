//! A leased credential or a new token that nobody takes is given back at once, not at its expiry.
//!
//! "Taken" is what this end can see: the connection asked for the bytes. A client that vanishes while the bytes travel
//! leaves them to their TTL.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use leasehold_core::request::HandedOut;

use crate::pipeline::Pipeline;

/// Gives back what an answer hands out when dropped, unless the answer was taken.
pub(crate) struct UndeliveredGuard {
    pipeline: Arc<dyn Pipeline>,
    handed_out: Option<HandedOut>,
}

impl UndeliveredGuard {
    pub(crate) fn new(pipeline: Arc<dyn Pipeline>, handed_out: HandedOut) -> Self {
        Self { pipeline, handed_out: Some(handed_out) }
    }
}

impl Drop for UndeliveredGuard {
    fn drop(&mut self) {
        if let Some(handed_out) = self.handed_out.take() {
            tracing::info!(?handed_out, "the client was gone before it was given its answer");
            Arc::clone(&self.pipeline).undelivered(handed_out);
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
            self.promise.handed_out = None;
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
