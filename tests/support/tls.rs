//! A client that looks at the certificate, and two certificates to look at.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for 127.0.0.1 that signs itself, and its key: made for these tests, good until 2120, trusted by nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    First,
    Second,
}

impl Pair {
    /// Puts `NAME.crt` and `NAME.key` into `folder`.
    pub fn write(self, folder: &Path, name: &str) {
        let (certificate, key) = self.texts();
        fs::write(folder.join(format!("{name}.crt")), certificate).expect("a certificate can be written");
        fs::write(folder.join(format!("{name}.key")), key).expect("a key can be written");
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::First => (include_str!("certificates/first.crt"), include_str!("certificates/first.key")),
            Self::Second => (include_str!("certificates/second.crt"), include_str!("certificates/second.key")),
        }
    }

    fn certificate(self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.texts().0.as_bytes()).expect("a certificate")
    }
}

/// One TLS connection, after its handshake.
#[derive(Debug)]
pub struct TlsSession(StreamOwned<ClientConnection, TcpStream>);

impl TlsSession {
    /// Shakes hands as somebody who trusts both certificates of [`Pair`] and no other.
    #[track_caller]
    pub fn open(address: &str) -> Self {
        let mut trusted = RootCertStore::empty();
        for pair in [Pair::First, Pair::Second] {
            trusted.add(pair.certificate()).expect("a certificate that can be trusted");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
        let name = ServerName::try_from(host).expect("an address");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).unwrap_or_else(|error| panic!("no handshake with {address}: {error}"));
        }
        Self(StreamOwned::new(connection, stream))
    }

    /// Which certificate the server showed.
    pub fn presented(&self) -> Option<Pair> {
        let shown = self.0.conn.peer_certificates()?.first()?;
        [Pair::First, Pair::Second].into_iter().find(|pair| pair.certificate() == *shown)
    }

    /// The status of `GET /v1/PATH` on this connection, which ends with it.
    pub fn status_of(&mut self, path: &str) -> u16 {
        let request = format!("GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.0.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).expect("the server answers");
        let answer = String::from_utf8_lossy(&answer);
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"))
    }
}
