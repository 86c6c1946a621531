//! Connections: accepted up to a number, with TLS or without, timed, and drained at the end.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use leasehold_core::connection::{ClientCertificate, ConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::delivery::{Flushing, Outbox};
use crate::frontend::Frontend;
use crate::listener::{self, Listener, Peer, Place, Rules, Socket, Stream};

/// Accepts and answers until `stop` turns true (or its sender is gone), then finishes what is under way, for `drain` at
/// the longest.
pub async fn serve(listener: Listener, frontend: Arc<Frontend>, mut stop: watch::Receiver<bool>, drain: Duration) {
    let Listener { socket, tls, rules } = listener;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&socket, &frontend) => accepted,
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
        let (frontend, rules) = (Arc::clone(&frontend), Arc::clone(&rules));
        let connection = Connection { frontend, rules, stop: stop.clone() };
        let tls = tls.as_ref().map(|tls| Arc::clone(&tls.borrow()));
        connections.spawn(async move {
            connection.run(stream, tls).await;
            drop(slot);
        });
    }
    drop(socket);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, finished).await.is_err() {
        tracing::warn!("some connections did not finish in time and were closed");
    }
}

/// HTTP/2's own default. Bodies are read at once, so a larger one would only hold what nobody wants to read.
const STREAM_WINDOW: u32 = 64 << 10;
/// Two streams can be filled; hyper's default of 1 MiB would let 4,096 connections hold 4 GiB.
const CONNECTION_WINDOW: u32 = 128 << 10;

/// A free slot first: what cannot be served waits in the listen queue.
async fn accept(socket: &Socket, frontend: &Frontend) -> io::Result<(Stream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(&frontend.connections).acquire_owned().await.map_err(io::Error::other)?;
    Ok((socket.accept().await?, slot))
}

/// A connection that may ask.
struct Prepared {
    stream: Readable,
    info: ConnectionInfo,
    _place: Option<Place>,
}

enum Readable {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

pub(crate) struct Connection {
    pub(crate) frontend: Arc<Frontend>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: Stream, tls: Option<Arc<ServerConfig>>) {
        self.frontend.meter.connections.increment(1.0);
        let own = stream.peer();
        let limit = self.frontend.limits.handshake_time;
        match tokio::time::timeout(limit, self.prepare(stream, tls)).await {
            Ok(Ok(Some(Prepared { stream, info, _place }))) => {
                let peer = Peer { info, rules: Arc::clone(&self.rules) };
                match stream {
                    Readable::Plain(stream) => self.answer(stream, peer, false).await,
                    Readable::Tls(stream) => {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        self.answer(stream, peer, is_http2).await;
                    }
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(client = %listener::shown(own), %error, "a connection ended before its first request");
            }
            Err(_) => tracing::debug!(client = %listener::shown(own), "the TLS handshake took too long"),
        }
        self.frontend.meter.connections.decrement(1.0);
    }

    /// Everything that stands before HTTP: whose connection it is, its place, TLS. None: it was told why it is closed.
    async fn prepare(&self, mut stream: Stream, tls: Option<Arc<ServerConfig>>) -> io::Result<Option<Prepared>> {
        let peer = match &self.rules.proxy_protocol {
            Some(rule) => rule.client(&mut stream).await?,
            None => stream.peer(),
        };
        let place = match peer {
            // A proxy holds the connections of many clients.
            Some(peer) if !self.rules.is_proxy(peer.ip()) => match self.frontend.places.take(peer.ip()) {
                Some(place) => Some(place),
                None => {
                    self.frontend.meter.turned_away.increment(1);
                    return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections from this address"));
                }
            },
            _ => None,
        };
        let mut info = ConnectionInfo { peer, ..ConnectionInfo::default() };
        let stream = match tls {
            None => Readable::Plain(stream),
            Some(_) if stream.talks_plain_http().await? => {
                stream.refuse_plain_http().await?;
                return Ok(None);
            }
            Some(tls) => {
                let stream = TlsAcceptor::from(tls).accept(stream).await?;
                info.certificate = stream.get_ref().1.peer_certificates().map(|chain| {
                    Arc::new(ClientCertificate { chain: chain.iter().map(|one| one.as_ref().to_vec()).collect() })
                });
                Readable::Tls(Box::new(stream))
            }
        };
        Ok(Some(Prepared { stream, info, _place: place }))
    }

    /// Answers until the other end has nothing more to ask.
    pub(crate) async fn answer<S>(&self, stream: S, peer: Peer, is_http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let has_asked = Arc::new(AtomicBool::new(false));
        let (outbox, peer) = (Outbox::default(), Arc::new(peer));
        let (frontend, asked) = (Arc::clone(&self.frontend), Arc::clone(&has_asked));
        let (asking, answers) = (Arc::clone(&peer), outbox.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let (frontend, asking, answers) = (Arc::clone(&frontend), Arc::clone(&asking), answers.clone());
            async move { Ok::<_, Infallible>(frontend.answer(request, &asking, &answers).await) }
        });
        let stream = Flushing::new(stream, outbox);
        let builder = self.builder(is_http2);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // HTTP/2 has no deadline for its preface; this one holds for both.
        let mut first = pin!(tokio::time::sleep(self.frontend.limits.first_header_time));
        let mut stop = self.stop.clone();
        let (mut is_stopping, mut is_timed) = (false, true);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(client = %listener::shown(peer.info.peer), %error, "a connection ended early");
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
            // What a client may send before anybody reads it.
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(limits.header_time)
            .keep_alive_timeout(limits.handshake_time);
        if is_http2 { builder.http2_only() } else { builder.http1_only() }
    }
}
