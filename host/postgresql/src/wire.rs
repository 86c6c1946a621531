//! The bytes between us and a target, up to the moment when it lets us in.
//!
//! The client library negotiates TLS and answers whatever kind of login a server asks for. Both are too trusting here: whoever may
//! write a connection could point it at a listener that asks for the password in clear. So TLS is negotiated in this module, and
//! [`Line`] reads along until the server lets us in.

use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Encrypted;

use crate::dsn::{LoginMethod, Logins};
use crate::tls::Tls;

/// `SSLRequest` of the protocol: length 8, code 80877103.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What came of asking for TLS.
pub(crate) enum Negotiated {
    Encrypted(Box<Encrypted<TcpStream>>),
    /// The server says that it has none; the connection goes on as it is.
    Plain(TcpStream),
}

/// Asks the server for TLS and shakes hands.
///
/// # Errors
/// The connection broke, the answer is none, or the handshake failed.
pub(crate) async fn negotiate(mut stream: TcpStream, tls: &Tls, host: &str) -> Result<Negotiated, io::Error> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name that a certificate can have"))?;
    stream.write_all(&TLS_REQUEST).await?;
    // Not a byte more is read: what a peer put behind the answer must come through TLS or not at all.
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match answer {
        [b'S'] => {
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            Ok(Negotiated::Encrypted(Box::new(connector.connect(name, stream).await?)))
        }
        [b'N'] => Ok(Negotiated::Plain(stream)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the server's answer to the request for TLS is neither yes nor no",
        )),
    }
}

/// Why a login was broken off before the password went out.
#[derive(Debug)]
pub(crate) struct LoginRefused(String);

impl fmt::Display for LoginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoginRefused {}

/// What a server may ask for on this line.
#[derive(Clone, Debug)]
pub(crate) struct LoginPolicy {
    pub(crate) logins: Logins,
    /// Over verified TLS, or a socket of this machine.
    pub(crate) clear_text: bool,
    /// Becomes true when the server asks for a password or for a proof of it.
    pub(crate) was_asked: Arc<AtomicBool>,
}

/// Follows the server's messages until it lets us in.
struct LoginWatch {
    policy: LoginPolicy,
    /// The beginning of the message that is being read: kind, length and, of a request for a login, its number.
    head: Vec<u8>,
    /// Bytes of the message that are still to come and say nothing.
    rest: usize,
    has_asked: bool,
}

/// The message's head without and with the number of a login request.
const HEAD: usize = 5;
const LOGIN_HEAD: usize = 9;

impl LoginWatch {
    fn new(policy: LoginPolicy) -> Self {
        Self { policy, head: Vec::with_capacity(LOGIN_HEAD), rest: 0, has_asked: false }
    }

    /// Whether the server has let us in.
    fn read(&mut self, mut bytes: &[u8]) -> Result<bool, LoginRefused> {
        while let Some((byte, after)) = bytes.split_first() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            self.head.push(*byte);
            bytes = after;
            let is_login = self.head.first() == Some(&b'R');
            if self.head.len() < if is_login { LOGIN_HEAD } else { HEAD } {
                continue;
            }
            let number =
                |at: usize| self.head.iter().skip(at).take(4).fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
            let (len, code) = (number(1) as usize, number(HEAD));
            self.rest = (len + 1).saturating_sub(self.head.len());
            self.head.clear();
            if is_login && self.asks(code)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn asks(&mut self, code: u32) -> Result<bool, LoginRefused> {
        let method = match code {
            0 if self.has_asked => return Ok(true),
            0 => LoginMethod::None,
            3 => LoginMethod::Password,
            5 => LoginMethod::Md5,
            10 => LoginMethod::Scram,
            // The later steps of SCRAM.
            11 | 12 => return Ok(false),
            _ => LoginMethod::Other,
        };
        self.has_asked = true;
        let is_about_password = matches!(method, LoginMethod::Password | LoginMethod::Md5 | LoginMethod::Scram);
        self.policy.was_asked.store(is_about_password, Ordering::SeqCst);
        if !self.policy.logins.allow(method) {
            return Err(LoginRefused(format!(
                "the server asks for a login of another kind ({}) than require_auth allows",
                match method {
                    LoginMethod::None => "none",
                    LoginMethod::Password => "password",
                    LoginMethod::Md5 => "md5",
                    LoginMethod::Scram => "scram-sha-256",
                    LoginMethod::Other => "neither a password nor SCRAM",
                }
            )));
        }
        if method == LoginMethod::Password && !self.policy.clear_text {
            return Err(LoginRefused(
                "the server asks for the password in clear text, which is sent only to a server that TLS has verified: set \
                 sslmode=verify-full and tls_ca, or have the server ask for scram-sha-256"
                    .to_owned(),
            ));
        }
        Ok(code == 0)
    }
}

enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Encrypted<TcpStream>>),
}

/// One connection to a target.
pub(crate) struct Line {
    transport: Transport,
    watch: Option<LoginWatch>,
    binding: Option<Vec<u8>>,
}

impl Line {
    pub(crate) fn plain(stream: TcpStream, policy: LoginPolicy) -> Self {
        Self::new(Transport::Tcp(stream), policy, None)
    }

    pub(crate) fn local(stream: UnixStream, policy: LoginPolicy) -> Self {
        Self::new(Transport::Unix(stream), policy, None)
    }

    pub(crate) fn encrypted(stream: Box<Encrypted<TcpStream>>, policy: LoginPolicy) -> Self {
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let binding = shown.and_then(leasehold_tls::end_point);
        Self::new(Transport::Tls(stream), policy, binding)
    }

    fn new(transport: Transport, policy: LoginPolicy, binding: Option<Vec<u8>>) -> Self {
        Self { transport, watch: Some(LoginWatch::new(policy)), binding }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let (Poll::Ready(Ok(())), Some(watch)) = (&done, &mut self.watch) {
            match watch.read(buf.filled().get(before..).unwrap_or_default()) {
                Ok(false) => {}
                Ok(true) => self.watch = None,
                Err(refused) => {
                    // The client library must not see the request, or it would answer it.
                    buf.set_filled(before);
                    return Poll::Ready(Err(io::Error::other(refused)));
                }
            }
        }
        done
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Line {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// Hands a line to the client library as it is. The library asks what it was given for a channel binding only if it believes that
/// it has just made TLS out of it.
pub(crate) struct AsItIs;

impl TlsConnect<Line> for AsItIs {
    type Stream = Line;
    type Error = io::Error;
    type Future = Ready<Result<Line, io::Error>>;

    fn connect(self, line: Line) -> Self::Future {
        ready(Ok(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn login(code: u32, rest: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes(), rest].concat())
    }

    /// However the bytes are cut: the request for the password never reaches the library whole.
    #[test]
    fn a_request_for_the_password_in_clear_is_seen_wherever_the_bytes_are_cut() {
        let strict = LoginPolicy { logins: Logins::default(), clear_text: false, was_asked: Arc::default() };
        let bytes = [message(b'N', b"a notice\0"), login(3, b"")].concat();
        for cut in 0..=bytes.len() {
            let mut watch = LoginWatch::new(strict.clone());
            let (first, second) = bytes.split_at(cut);
            let seen = watch.read(first).and_then(|_| watch.read(second));
            assert!(seen.unwrap_err().0.contains("clear text"), "{cut}");
        }
        let mut open = LoginWatch::new(LoginPolicy { clear_text: true, ..strict });
        assert!(!open.read(&bytes).unwrap());
        assert!(open.read(&login(0, b"")).unwrap());
    }

    /// Under `trust` any password is let in: that proves none.
    #[test]
    fn it_is_seen_whether_a_server_asks_for_a_password_before_it_lets_in() {
        for (steps, is_asked) in [
            (vec![login(0, b"")], false),
            (vec![login(5, b"salt"), login(0, b"")], true),
            (vec![login(10, b"SCRAM-SHA-256\0\0"), login(11, b"r=R"), login(12, b"v=x"), login(0, b"")], true),
        ] {
            let policy = LoginPolicy { logins: Logins::default(), clear_text: false, was_asked: Arc::default() };
            let was_asked = Arc::clone(&policy.was_asked);
            assert!(LoginWatch::new(policy).read(&steps.concat()).unwrap());
            assert_eq!(was_asked.load(Ordering::SeqCst), is_asked);
        }
    }

    #[test]
    fn scram_is_followed_to_its_end_and_nothing_after_it_is_looked_at() {
        let mut watch =
            LoginWatch::new(LoginPolicy { logins: Logins::default(), clear_text: false, was_asked: Arc::default() });
        let steps = [login(10, b"SCRAM-SHA-256\0\0"), login(11, b"r=R"), login(12, b"v=x")].concat();
        assert!(!watch.read(&steps).unwrap());
        assert!(watch.read(&[login(0, b""), message(b'Z', b"I")].concat()).unwrap());
    }
}
