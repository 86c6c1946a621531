//! Certificates made for a test, and a client that looks at which of them a server shows.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for 127.0.0.1 that signs itself, and its key: `NAME.crt` and `NAME.key` in `folder`. It calls itself an authority,
/// as openssl makes one unless it is told otherwise.
///
/// # Panics
/// When `openssl` is not there.
pub fn certificate(folder: &Path, name: &str) -> PathBuf {
    self_signed(folder, name, "basicConstraints=critical,CA:TRUE")
}

/// The same, of a server that is no authority: what clients take that know no exception for a leaf which they trust itself.
///
/// # Panics
/// When `openssl` is not there.
pub fn leaf_certificate(folder: &Path, name: &str) -> PathBuf {
    self_signed(folder, name, "basicConstraints=critical,CA:FALSE")
}

fn self_signed(folder: &Path, name: &str, constraints: &str) -> PathBuf {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", constraints])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("openssl, which makes a certificate for this test: {error}"));
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    folder.join(format!("{name}.crt"))
}

/// Two certificates, to tell one from the other.
#[derive(Debug)]
pub struct Pairs(TempDir);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    First,
    Second,
}

impl Pair {
    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

impl Pairs {
    pub fn make() -> Self {
        let folder = TempDir::new().expect("a directory");
        for pair in [Pair::First, Pair::Second] {
            self_signed(folder.path(), pair.name(), "basicConstraints=critical,CA:FALSE");
        }
        Self(folder)
    }

    /// Puts `NAME.crt` and `NAME.key` into `folder`.
    pub fn write(&self, pair: Pair, folder: &Path, name: &str) {
        for kind in ["crt", "key"] {
            let from = self.0.path().join(format!("{}.{kind}", pair.name()));
            fs::copy(from, folder.join(format!("{name}.{kind}"))).expect("a file can be copied");
        }
    }

    fn certificate(&self, pair: Pair) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.0.path().join(format!("{}.crt", pair.name()))).expect("a certificate")
    }

    /// Shakes hands with the server at `address` as somebody who trusts both and no other.
    #[track_caller]
    pub fn open(&self, address: &str) -> TlsSession {
        self.try_open(address).unwrap_or_else(|error| panic!("no handshake with {address}: {error}"))
    }

    /// # Errors
    /// As the handshake.
    pub fn try_open(&self, address: &str) -> io::Result<TlsSession> {
        let mut trusted = RootCertStore::empty();
        for pair in [Pair::First, Pair::Second] {
            trusted.add(self.certificate(pair)).expect("a certificate that can be trusted");
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
            connection.complete_io(&mut stream)?;
        }
        Ok(TlsSession(StreamOwned::new(connection, stream)))
    }

    /// Which certificate the server at `address` shows.
    #[track_caller]
    pub fn presented(&self, address: &str) -> Option<Pair> {
        self.open(address).presented(self)
    }
}

/// One TLS connection, after its handshake.
#[derive(Debug)]
pub struct TlsSession(StreamOwned<ClientConnection, TcpStream>);

impl TlsSession {
    /// Which certificate the server showed.
    pub fn presented(&self, pairs: &Pairs) -> Option<Pair> {
        let shown = self.0.conn.peer_certificates()?.first()?;
        [Pair::First, Pair::Second].into_iter().find(|pair| pairs.certificate(*pair) == *shown)
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
