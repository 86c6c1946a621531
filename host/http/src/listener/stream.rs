//! A connection as bytes, whatever socket it came through. What was read ahead is read first.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    peer: Option<SocketAddr>,
    /// Read from the socket already, and not taken yet.
    ahead: Vec<u8>,
}

impl Stream {
    pub(super) fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { socket: Socket::Tcp(stream), peer: Some(peer), ahead: Vec::new() }
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), peer: None, ahead: Vec::new() }
    }

    /// The socket's own other end; none for a Unix socket.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// What has been read ahead.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes the first `count` bytes of what has been read ahead.
    pub(super) fn take_ahead(&mut self, count: usize) -> Vec<u8> {
        self.ahead.drain(..count.min(self.ahead.len())).collect()
    }

    /// Reads at most until `total` bytes are ahead; how many are then. The same number again: the other side has ended.
    pub(super) async fn read_ahead(&mut self, total: usize) -> io::Result<usize> {
        let before = self.ahead.len();
        if before < total {
            self.ahead.resize(total, 0);
            let read = match self.ahead.get_mut(before..) {
                Some(free) => match &mut self.socket {
                    Socket::Tcp(stream) => stream.read(free).await,
                    Socket::Unix(stream) => stream.read(free).await,
                },
                None => Ok(0),
            };
            self.ahead.truncate(before + read.as_ref().copied().unwrap_or(0));
            read?;
        }
        Ok(self.ahead.len())
    }

    /// Whether the client talks plain HTTP: the first byte of a TLS handshake is 22, that of an HTTP method a capital letter.
    pub(crate) async fn talks_plain_http(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() {
            self.read_ahead(1).await?;
        }
        Ok(self.ahead.first().is_some_and(u8::is_ascii_uppercase))
    }

    /// Tells a client of plain HTTP that this is a TLS port, as Go's servers do, and ends the connection.
    pub(crate) async fn refuse_plain_http(mut self) -> io::Result<()> {
        const ANSWER: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        self.write_all(ANSWER).await?;
        self.shutdown().await?;
        // Closing with unread bytes resets the connection, and the client may lose the answer. So many are taken first.
        let mut rest = [0_u8; 4 << 10];
        for _ in 0..16 {
            if self.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = buffer.remaining().min(self.ahead.len());
            let taken = self.take_ahead(count);
            buffer.put_slice(&taken);
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
