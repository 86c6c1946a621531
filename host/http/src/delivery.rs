//! Answers on their way to the socket. What an answer hands out (a lease, a new token) is taken back at once, not at its
//! expiry, unless all of the answer was written to the socket.
//!
//! Must not know: what is handed out, or what HTTP version frames it.
//!
//! Start with [`Payload`] (the body), then [`Chunk`] (its bytes, which know when the last of them was taken), then
//! [`Flushing`] (the socket, which knows when everything taken was written).
//!
//! Invariant: an [`UndeliveredGuard`] is disarmed in one place only, after the socket has reported a flush that came later
//! than the last byte of its answer. HTTP/1 and HTTP/2 both empty their write buffers before they flush the socket, so a
//! body that a protocol has taken into its queues but not written keeps its guard.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use leasehold_core::request::HandedOut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::file::FileBody;
use crate::pipeline::Pipeline;

/// Takes back what an answer hands out when it is dropped, unless it was disarmed.
pub(crate) struct UndeliveredGuard {
    pipeline: Arc<dyn Pipeline>,
    handed_out: Option<HandedOut>,
}

impl UndeliveredGuard {
    pub(crate) fn new(pipeline: Arc<dyn Pipeline>, handed_out: HandedOut) -> Self {
        Self { pipeline, handed_out: Some(handed_out) }
    }

    fn disarm(mut self) {
        self.handed_out = None;
    }
}

impl Drop for UndeliveredGuard {
    fn drop(&mut self) {
        if let Some(handed_out) = self.handed_out.take() {
            tracing::info!(
                ?handed_out,
                "the client was gone before its answer was written: what the answer hands out is taken back"
            );
            Arc::clone(&self.pipeline).undelivered(handed_out);
        }
    }
}

/// The answers of one connection whose last byte was taken by the protocol and not yet flushed to the socket.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<OutboxState>);

#[derive(Default)]
struct OutboxState {
    guards: Mutex<Vec<UndeliveredGuard>>,
    /// Most answers hand out nothing: a flush then takes no lock.
    has_guards: AtomicBool,
}

impl Outbox {
    fn put(&self, guard: UndeliveredGuard) {
        self.0.guards.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
        self.0.has_guards.store(true, Ordering::Release);
    }

    fn flushed(&self) {
        if self.0.has_guards.swap(false, Ordering::AcqRel) {
            let delivered = std::mem::take(&mut *self.0.guards.lock().unwrap_or_else(PoisonError::into_inner));
            delivered.into_iter().for_each(UndeliveredGuard::disarm);
        }
    }
}

/// A body.
pub(crate) enum Payload {
    /// All of it in one piece, or nothing.
    Whole(Option<Chunk>),
    /// What hands out nothing, and so needs no guard.
    File(FileBody),
}

impl Payload {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    /// The same bytes, with a guard that `outbox` disarms once they are written.
    pub(crate) fn guarded(mut self, guard: UndeliveredGuard, outbox: Outbox) -> Self {
        if let Self::Whole(Some(chunk)) = &mut self {
            chunk.guard = Some((guard, outbox));
        }
        self
    }
}

impl<B: Into<Bytes>> From<B> for Payload {
    fn from(bytes: B) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(Chunk { bytes, guard: None }))
    }
}

impl Body for Payload {
    type Data = Chunk;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Chunk>>>> {
        match self.get_mut() {
            Self::Whole(chunk) => Poll::Ready(chunk.take().map(|chunk| Ok(Frame::data(chunk)))),
            Self::File(file) => {
                let framed = |bytes| Frame::data(Chunk { bytes, guard: None });
                file.poll_block(context).map(|block| block.map(|block| block.map(framed)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(chunk) => chunk.is_none(),
            Self::File(file) => file.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(chunk) => chunk.as_ref().map_or(0, |chunk| chunk.bytes.len() as u64),
            Self::File(file) => file.left(),
        })
    }
}

/// The bytes of an answer. Whoever takes the last of them moves the guard to the connection's outbox; whoever drops them
/// earlier drops the guard, too.
pub(crate) struct Chunk {
    bytes: Bytes,
    guard: Option<(UndeliveredGuard, Outbox)>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if !self.bytes.has_remaining()
            && let Some((guard, outbox)) = self.guard.take()
        {
            outbox.put(guard);
        }
    }
}

/// A socket that tells its outbox of each flush that succeeded.
pub(crate) struct Flushing<S> {
    socket: S,
    outbox: Outbox,
}

impl<S> Flushing<S> {
    pub(crate) fn new(socket: S, outbox: Outbox) -> Self {
        Self { socket, outbox }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Flushing<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flushing<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.outbox.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
