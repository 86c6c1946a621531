//! Connections: accepted up to a number, with TLS or without, timed, and drained at the end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::frontend::{Frontend, Peer};

/// What is shown to TLS clients. The sender replaces it; connections already open keep what they began with.
pub type Tls = watch::Receiver<Arc<ServerConfig>>;

/// Accepts and answers until `stop` turns true (or its sender is gone), then finishes what is under way, for `drain` at
/// the longest.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    frontend: Arc<Frontend>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let slots = Arc::new(Semaphore::new(frontend.limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others must end before a new one can begin.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = Connection { frontend: Arc::clone(&frontend), stop: stop.clone(), _slot: slot };
        connections.spawn(connection.run(stream, tls.as_ref().map(|tls| Arc::clone(&tls.borrow()))));
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, finished).await.is_err() {
        tracing::warn!("some connections did not finish in time and were closed");
    }
}

/// A free slot first: what cannot be served waits in the listen queue.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

struct Connection {
    frontend: Arc<Frontend>,
    stop: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        let Ok(peer) = stream.peer_addr() else { return };
        // An answer is written whole: waiting for more would only delay it.
        let _ = stream.set_nodelay(true);
        self.frontend.meter.connections.increment(1.0);
        match tls {
            None => self.answer(stream, Peer(peer), false).await,
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls).accept(stream);
                match tokio::time::timeout(self.frontend.limits.handshake_time, handshake).await {
                    Ok(Ok(stream)) => {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        self.answer(stream, Peer(peer), is_http2).await;
                    }
                    Ok(Err(error)) => tracing::debug!(client = %peer, %error, "no TLS handshake"),
                    Err(_) => tracing::debug!(client = %peer, "the TLS handshake took too long"),
                }
            }
        }
        self.frontend.meter.connections.decrement(1.0);
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: Peer, is_http2: bool) {
        let router = TowerToHyperService::new(self.frontend.router());
        let has_asked = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&has_asked);
        let service = service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let builder = self.builder(is_http2);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // HTTP/2 has no deadline for its preface; this one holds for both.
        let mut first = pin!(tokio::time::sleep(self.frontend.limits.header_time));
        let mut stop = self.stop.clone();
        let (mut is_stopping, mut is_timed) = (false, true);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(client = %peer.0, %error, "a connection ended early");
                    }
                    return;
                }
                _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = first.as_mut(), if is_timed => {
                    if !has_asked.load(Ordering::Relaxed) {
                        return;
                    }
                    is_timed = false;
                }
            }
        }
    }

    /// The protocol is settled before the first byte (clear text is HTTP/1), so nobody can stall its detection.
    fn builder(&self, is_http2: bool) -> Builder<TokioExecutor> {
        let limits = &self.frontend.limits;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_buf_size(limits.headers_max);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.headers_max).unwrap_or(u32::MAX))
            .keep_alive_interval(limits.header_time)
            .keep_alive_timeout(limits.handshake_time);
        if is_http2 { builder.http2_only() } else { builder.http1_only() }
    }
}
