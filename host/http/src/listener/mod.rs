//! One listener: its socket, and the rules that its configuration block sets for what comes in through it.
//!
//! Must not know: configuration files, what a request means.
//!
//! Start with [`Listener`], then [`Rules`], then `proxy_protocol` (what stands before the first byte of TLS or HTTP),
//! `forwarded` (`X-Forwarded-For`), `headers` (`custom_response_headers`) and `stream` (a connection as bytes).
//!
//! Invariant: nothing that an untrusted address says about itself reaches a [`ConnectionInfo`].

mod forwarded;
mod headers;
mod places;
mod proxy_protocol;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::connection::ConnectionInfo;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

pub use forwarded::{ForwardedError, ForwardedFor};
pub use headers::{ResponseHeaders, StatusPattern};
pub(crate) use places::{Place, Places, holder};
pub use proxy_protocol::{ProxyBehavior, ProxyProtocol};
pub(crate) use stream::Stream;

/// What is shown to TLS clients. The sender replaces it; connections already open keep what they began with.
pub type Tls = watch::Receiver<Arc<ServerConfig>>;

/// Where connections come in.
#[derive(Debug)]
pub struct Listener {
    pub socket: Socket,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    pub rules: Arc<Rules>,
}

#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    /// The file is removed when the listener closes.
    Unix(UnixListener, SocketFile),
}

/// What one listener's block of the configuration asks for. The default asks for nothing.
#[derive(Debug, Default)]
pub struct Rules {
    pub proxy_protocol: Option<ProxyProtocol>,
    pub forwarded_for: Option<ForwardedFor>,
    pub response_headers: ResponseHeaders,
    /// `sys/metrics` answers without a token, also while the server is sealed.
    pub unauthenticated_metrics: bool,
    /// `sys/metrics` is not served here.
    pub disallows_metrics: bool,
    /// What is asked for no token here.
    pub lets_in: LetsIn,
}

/// Old routes that need no token where the configuration says so. They take a quorum of shares all the same; but anybody may end what
/// others have begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetsIn {
    /// `sys/generate-root/…`.
    pub generate_root: bool,
    /// `sys/rekey/…` and `sys/rekey-recovery-key/…`.
    pub rekey: bool,
}

impl LetsIn {
    /// What either of them lets in.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { generate_root: self.generate_root || other.generate_root, rekey: self.rekey || other.rekey }
    }

    /// Whether the path is one of these routes, and if so, whether it is let in.
    pub(crate) fn admits(self, path: &str) -> Option<bool> {
        match path {
            "sys/generate-root/attempt" | "sys/generate-root/update" => Some(self.generate_root),
            "sys/rekey/init"
            | "sys/rekey/update"
            | "sys/rekey/verify"
            | "sys/rekey-recovery-key/init"
            | "sys/rekey-recovery-key/update"
            | "sys/rekey-recovery-key/verify" => Some(self.rekey),
            _ => None,
        }
    }
}

impl Rules {
    /// Whether this address is a proxy of the operator's, which may hold many clients' connections.
    pub(crate) fn is_proxy(&self, address: std::net::IpAddr) -> bool {
        self.forwarded_for.as_ref().is_some_and(|rule| rule.authorized.contains(address))
    }
}

/// The file of a Unix socket; removed when it is dropped, if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// # Errors
    /// The file is not there.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let identity = Self::identity(&path)?;
        Ok(Self { path, identity })
    }

    fn identity(path: &std::path::Path) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have put its own socket there meanwhile.
        if Self::identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), tls: None, rules: Arc::default() }
    }
}

impl Socket {
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // An answer is written whole: waiting for more would only delay it.
                let _ = stream.set_nodelay(true);
                Ok(Stream::tcp(stream, peer))
            }
            Self::Unix(listener, _) => Ok(Stream::unix(listener.accept().await?.0)),
        }
    }

    /// As it is bound: the configuration may leave the port to the system.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn local_address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(_, file) => Ok(format!("unix://{}", file.path.display())),
        }
    }
}

/// A connection that has a place, as each of its requests sees it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) info: ConnectionInfo,
    pub(crate) rules: Arc<Rules>,
}

impl Peer {
    /// Who asks, once the request's own headers are known.
    pub(crate) fn of_request(&self, headers: &http::HeaderMap) -> Result<ConnectionInfo, ForwardedError> {
        let forwarded = match &self.rules.forwarded_for {
            Some(rule) => rule.client(self.info.peer.map(|peer| peer.ip()), headers)?,
            None => None,
        };
        // The connection is the proxy's, and so is its certificate: it must not stand for any of the proxy's clients.
        let certificate = self.info.certificate.clone().filter(|_| forwarded.is_none());
        Ok(ConnectionInfo { peer: self.info.peer, forwarded, certificate })
    }
}

/// For the log.
pub(crate) fn shown(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string())
}

/// Addresses and networks, as `10.0.0.0/8` or `::1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<ipnet::IpNet>);

impl Networks {
    /// # Errors
    /// The first text that is neither an address nor a network.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        texts
            .into_iter()
            .map(|text| {
                let text = text.trim();
                let network = text.parse::<ipnet::IpNet>().ok();
                let address = || text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from);
                network.or_else(address).ok_or_else(|| text.to_owned())
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn contains(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::connection::ClientCertificate;

    use super::*;

    #[test]
    fn addresses_and_networks_contain_what_they_say() {
        let networks = Networks::parse(["10.0.0.0/8", " 192.0.2.1", "2001:db8::/32", "::1"]).unwrap();
        for (address, contained) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8:1::5", true),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), contained, "{address}");
        }
        assert_eq!(Networks::parse(["10.0.0.0/8", "host.example"]), Err("host.example".to_owned()));
    }

    /// A proxy that shows a certificate of its own would otherwise log all its clients in with it.
    #[test]
    fn a_proxys_certificate_stands_for_none_of_its_clients() {
        let certificate = Some(Arc::new(ClientCertificate { chain: vec![b"x".to_vec()] }));
        let rule = ForwardedFor {
            authorized: Networks::parse(["10.0.0.1"]).unwrap(),
            hop_skips: 0,
            reject_not_present: false,
            reject_not_authorized: false,
        };
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-forwarded-for"),
            http::HeaderValue::from_static("192.0.2.7"),
        )]);
        for (peer, headers, is_forwarded) in [
            ("10.0.0.1:1", &headers, true),
            ("10.0.0.1:1", &http::HeaderMap::new(), false),
            ("10.0.0.2:1", &headers, false),
        ] {
            let info = ConnectionInfo { peer: peer.parse().ok(), forwarded: None, certificate: certificate.clone() };
            let peer = Peer { info, rules: Arc::new(Rules { forwarded_for: Some(rule.clone()), ..Rules::default() }) };
            let found = peer.of_request(headers).unwrap();
            assert_eq!((found.forwarded.is_some(), found.certificate.is_none()), (is_forwarded, is_forwarded));
            assert_eq!(found.peer, peer.info.peer);
        }
    }

    #[test]
    fn the_file_of_another_socket_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("leasehold-socket-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sock");
        std::fs::write(&path, "").unwrap();
        let file = SocketFile::at(path.clone()).unwrap();
        // Kept, so that the new file cannot get the same inode.
        std::fs::rename(&path, folder.join("old.sock")).unwrap();
        std::fs::write(&path, "").unwrap();
        drop(file);
        assert!(path.exists());
        drop(SocketFile::at(path.clone()).unwrap());
        assert!(!path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
