//! The PROXY protocol, versions 1 and 2: what a load balancer says about its client before the first byte of TLS or HTTP.
//!
//! A connection without such a header is served under the socket's own address, as in Vault: a balancer's probes have none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Networks, Stream};

/// Whose header is believed, by `proxy_protocol_behavior`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyBehavior {
    /// Everybody's.
    UseAlways,
    /// That of authorized addresses; what others send of it is read and ignored.
    AllowAuthorized,
    /// That of authorized addresses; others' connections are closed.
    DenyUnauthorized,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    pub behavior: ProxyBehavior,
    pub authorized: Networks,
}

/// The longest line of version 1, by its definition.
const LINE_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEAD: usize = 16;
/// Balancers add type-length-value fields, of a few hundred bytes at most.
const BODY_MAX: usize = 2_048;

impl ProxyProtocol {
    /// Reads the header, if there is one, and says whose connection this is.
    ///
    /// # Errors
    /// The connection is to be closed: the address is not authorized, the header is malformed, or the stream broke.
    pub(crate) async fn client(&self, stream: &mut Stream) -> io::Result<Option<SocketAddr>> {
        let own = stream.peer();
        let trusted =
            self.behavior == ProxyBehavior::UseAlways || own.is_some_and(|own| self.authorized.contains(own.ip()));
        if !trusted && self.behavior == ProxyBehavior::DenyUnauthorized {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no authorized proxy"));
        }
        let said = read(stream).await?;
        Ok(if trusted { said.or(own) } else { own })
    }
}

/// The source in the header; none without a header, or in one that speaks for the balancer itself.
async fn read(stream: &mut Stream) -> io::Result<Option<SocketAddr>> {
    match begins(stream, b"PROXY ").await? {
        true => line(stream).await,
        false if begins(stream, SIGNATURE).await? => binary(stream).await,
        false => Ok(None),
    }
}

/// Reads no further than the first byte that differs.
async fn begins(stream: &mut Stream, with: &[u8]) -> io::Result<bool> {
    loop {
        let known = stream.ahead().len().min(with.len());
        if stream.ahead().get(..known) != with.get(..known) {
            return Ok(false);
        }
        if known == with.len() {
            return Ok(true);
        }
        more(stream, with.len()).await?;
    }
}

async fn more(stream: &mut Stream, total: usize) -> io::Result<()> {
    let before = stream.ahead().len();
    if stream.read_ahead(total).await? == before { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn line(stream: &mut Stream) -> io::Result<Option<SocketAddr>> {
    loop {
        if let Some(end) = stream.ahead().windows(2).position(|two| two == b"\r\n") {
            let line = stream.take_ahead(end + 2);
            let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
            return source(text.unwrap_or_default()).ok_or_else(|| malformed("not a PROXY line"));
        }
        if stream.ahead().len() >= LINE_MAX {
            return Err(malformed("a PROXY line without an end"));
        }
        more(stream, LINE_MAX).await?;
    }
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`. `Some(None)`: the balancer does not know.
fn source(line: &str) -> Option<Option<SocketAddr>> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", family, source, destination, port, to] => {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
            to.parse::<u16>().ok()?;
            let fits = match *family {
                "TCP4" => source.is_ipv4() && destination.is_ipv4(),
                "TCP6" => source.is_ipv6() && destination.is_ipv6(),
                _ => false,
            };
            fits.then_some(Some(SocketAddr::new(source, port.parse().ok()?)))
        }
        _ => None,
    }
}

async fn binary(stream: &mut Stream) -> io::Result<Option<SocketAddr>> {
    while stream.ahead().len() < HEAD {
        more(stream, HEAD).await?;
    }
    let length = match stream.ahead().get(HEAD - 2..HEAD) {
        Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err(malformed("a PROXY header without its length")),
    };
    if length > BODY_MAX {
        return Err(malformed("a PROXY header that is too long"));
    }
    while stream.ahead().len() < HEAD + length {
        more(stream, HEAD + length).await?;
    }
    let header = stream.take_ahead(HEAD + length);
    let (Some(command), Some(family), Some(body)) = (header.get(12), header.get(13), header.get(HEAD..)) else {
        return Err(malformed("a PROXY header that is too short"));
    };
    match command {
        // LOCAL: the balancer's own connection, such as a probe.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(malformed("a PROXY header of an unknown version or command")),
    }
    let port = |at: usize| match body.get(at..at + 2) {
        Some([high, low]) => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    let found = match family {
        0x11 => {
            let source = body.first_chunk::<4>().map(|bytes| IpAddr::V4(Ipv4Addr::from(*bytes)));
            source.zip(port(8)).filter(|_| body.len() >= 12)
        }
        0x21 => {
            let source = body.first_chunk::<16>().map(|bytes| IpAddr::V6(Ipv6Addr::from(*bytes)));
            source.zip(port(32)).filter(|_| body.len() >= 36)
        }
        // Unspecified, datagrams, Unix sockets: nothing that names a client of ours.
        _ => return Ok(None),
    };
    found.map(SocketAddr::from).map(Some).ok_or_else(|| malformed("a PROXY header without its addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// What `sent` makes of a connection from 127.0.0.1, and what is left to read.
    async fn read_as(rule: &ProxyProtocol, sent: &[u8]) -> Result<(String, Vec<u8>), io::ErrorKind> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        // In two parts, since a header may come in pieces.
        let (first, second) = sent.split_at(sent.len() / 2);
        let (first, second) = (first.to_vec(), second.to_vec());
        let sending = tokio::spawn(async move {
            let _ = client.write_all(&first).await;
            tokio::task::yield_now().await;
            let _ = client.write_all(&second).await;
            let _ = client.shutdown().await;
            client
        });
        let mut stream = Stream::tcp(accepted, peer);
        let found = rule.client(&mut stream).await.map_err(|error| error.kind())?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        drop(sending.await);
        let found = found.filter(|found| *found != peer);
        Ok((found.map_or_else(|| "own".to_owned(), |found| found.to_string()), rest))
    }

    fn rule(behavior: ProxyBehavior, authorized: &str) -> ProxyProtocol {
        ProxyProtocol { behavior, authorized: Networks::parse(Some(authorized)).unwrap() }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header.extend(b"GET /");
        header
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest() {
        let always = rule(ProxyBehavior::UseAlways, "10.0.0.1");
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x20, 0x08];
        let mut v6 = [0_u8; 36];
        v6[0] = 0x20;
        v6[1] = 0x01;
        v6[33] = 80;
        let mut with_fields = v4.to_vec();
        with_fields.extend([0x03, 0, 4, 1, 2, 3, 4]);
        for (sent, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 8200\r\nGET /".to_vec(), Ok("192.0.2.7:4711")),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 8200\r\nGET /".to_vec(), Ok("[2001:db8::7]:4711")),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), Ok("own")),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nGET /".to_vec(), Ok("own")),
            (binary(0x21, 0x11, &v4), Ok("192.0.2.7:4711")),
            (binary(0x21, 0x11, &with_fields), Ok("192.0.2.7:4711")),
            (binary(0x21, 0x21, &v6), Ok("[2001::]:80")),
            (binary(0x20, 0x00, &[]), Ok("own")),
            (binary(0x21, 0x31, &[0; 216]), Ok("own")),
            (b"GET /".to_vec(), Ok("own")),
            (b"PROXX".to_vec(), Ok("PROXX")),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 8200\r\n".to_vec(), Err(io::ErrorKind::InvalidData)),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), Err(io::ErrorKind::InvalidData)),
            (b"PROXY TCP4 192.0.2.7\r\n".to_vec(), Err(io::ErrorKind::InvalidData)),
            ([b"PROXY ".to_vec(), vec![b'x'; 200]].concat(), Err(io::ErrorKind::InvalidData)),
            (b"PROXY TCP4 192.0".to_vec(), Err(io::ErrorKind::UnexpectedEof)),
            (binary(0x21, 0x11, &v4[..6]), Err(io::ErrorKind::InvalidData)),
            (binary(0x31, 0x11, &v4), Err(io::ErrorKind::InvalidData)),
            (binary(0x21, 0x11, &[0; BODY_MAX + 1]), Err(io::ErrorKind::InvalidData)),
        ] {
            let found = read_as(&always, &sent).await;
            let shown = String::from_utf8_lossy(&sent).into_owned();
            match expected {
                Ok("PROXX") => assert_eq!(found, Ok(("own".to_owned(), b"PROXX".to_vec()))),
                Ok(address) => assert_eq!(found, Ok((address.to_owned(), b"GET /".to_vec())), "{shown}"),
                Err(kind) => assert_eq!(found, Err(kind), "{shown}"),
            }
        }
    }

    #[tokio::test]
    async fn only_authorized_balancers_are_believed() {
        let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 8200\r\nGET /";
        use ProxyBehavior::{AllowAuthorized, DenyUnauthorized};
        for (behavior, authorized, expected) in [
            (AllowAuthorized, "127.0.0.0/8", Ok("192.0.2.7:4711")),
            (AllowAuthorized, "10.0.0.1", Ok("own")),
            (DenyUnauthorized, "127.0.0.0/8", Ok("192.0.2.7:4711")),
            (DenyUnauthorized, "10.0.0.1", Err(io::ErrorKind::PermissionDenied)),
        ] {
            let found = read_as(&rule(behavior, authorized), header).await;
            let expected = expected.map(|address| (address.to_owned(), b"GET /".to_vec()));
            assert_eq!(found, expected, "{behavior:?} {authorized}");
        }
    }
}
