//! Who is at the other end of a request: what the listener found out before the request was read.
//!
//! Must not know: sockets, TLS, HTTP. The listener fills it in; audit, policy modules and address rules read it.
//!
//! Start with [`ConnectionInfo::address`]: the one address that every rule and record uses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Travels with each request. A Unix socket has neither address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The other end of the connection. Behind a trusted proxy that speaks the PROXY protocol: what it said.
    pub peer: Option<SocketAddr>,
    /// What a trusted proxy wrote in `X-Forwarded-For`. Never set from an untrusted one.
    pub forwarded: Option<IpAddr>,
    /// The client's certificate, if it showed one in the TLS handshake.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A certificate of which the TLS handshake proved that the client holds the key.
///
/// Who vouches for it is another question: an authority of the listener's `tls_client_ca_file`, where one is set, or nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain as the client sent it, leaf first, each in DER.
    pub chain: Vec<Vec<u8>>,
}

impl ConnectionInfo {
    /// A direct connection from this address.
    #[must_use]
    pub fn of_peer(peer: SocketAddr) -> Self {
        Self { peer: Some(peer), ..Self::default() }
    }

    /// Where the request comes from, as far as anybody trusted has said. An IPv4 address inside IPv6 is shown as IPv4.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.forwarded.or(self.peer.map(|peer| peer.ip())).map(|address| address.to_canonical())
    }

    /// The port of the connection's other end; behind a proxy that forwards, the proxy's own, as in Vault.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.peer.map(|peer| peer.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_wins_over_the_proxys_own() {
        let direct = ConnectionInfo::of_peer("[::ffff:10.0.0.1]:4711".parse().unwrap());
        assert_eq!(direct.address(), Some("10.0.0.1".parse().unwrap()), "one spelling for one address");
        let forwarded = ConnectionInfo { forwarded: Some("2001:db8::7".parse().unwrap()), ..direct };
        assert_eq!(forwarded.address(), Some("2001:db8::7".parse().unwrap()));
        assert_eq!(forwarded.port(), Some(4711));
        assert_eq!(ConnectionInfo::default().address(), None, "a Unix socket has none");
    }
}
