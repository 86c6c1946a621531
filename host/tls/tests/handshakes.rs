//! Handshakes between this crate's verifier and a real rustls server, with certificates that openssl made.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leasehold_tls::{
    AnyClient, NameRule, PemError, Proof, ServerVerifier, Versions, certificates, client_config, end_point, identity,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection};

struct Made(tempfile::TempDir);

impl Made {
    fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(Path::new(self.0.path()).join(name)).unwrap()
    }
}

/// By kind of key: an authority `ca`, a leaf of version 1, and a self-signed authority without alternative names.
fn made(key: &str) -> Made {
    let made = Made(tempfile::tempdir().unwrap());
    let request = format!("req -nodes {key}");
    made.openssl(&format!("{request} -x509 -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"));
    made.openssl(&format!("{request} -x509 -days 2 -subj /CN=other -keyout other.key -out other.pem"));
    made.openssl(&format!("{request} -x509 -days 2 -subj /CN=localhost -keyout self.key -out self.pem"));
    made.openssl(&format!(
        "{request} -x509 -days 2 -subj /CN=x -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout named.key -out named.pem"
    ));
    made.openssl(&format!("{request} -subj /CN=localhost -keyout v1.key -out v1.csr"));
    made.openssl("x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out v1.pem");
    made
}

/// `None`: the client takes the server for what it says.
fn shake(
    made: &Made,
    server: &str,
    key: &str,
    verifier: ServerVerifier,
    host: &str,
    versions: Versions,
) -> Option<rustls::Error> {
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shown(made, server, key));
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let config = client_config(verifier, None, versions).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned()).unwrap()).unwrap();
    let (error, _) = converse(&mut client, &mut server);
    assert!(error.is_some() || !client.is_handshaking());
    error
}

/// What client and server have against each other, at most.
fn converse(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> (Option<rustls::Error>, Option<rustls::Error>) {
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut from_client = bytes.as_slice();
        while !from_client.is_empty() {
            server.read_tls(&mut from_client).unwrap();
            if let Err(error) = server.process_new_packets() {
                return (None, Some(error));
            }
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut from_server = bytes.as_slice();
        while !from_server.is_empty() {
            client.read_tls(&mut from_server).unwrap();
            if let Err(error) = client.process_new_packets() {
                return (Some(error), None);
            }
        }
    }
    (None, None)
}

fn shown(made: &Made, certificate: &str, key: &str) -> Arc<rustls::sign::SingleCertAndKey> {
    let key = PrivateKeyDer::from_pem_slice(&made.read(&format!("{key}.key"))).unwrap();
    let chain = certificates(&made.read(&format!("{certificate}.pem"))).unwrap();
    // Not checked against the certificate: a peer that shows another's certificate is what one case is about.
    let shown = rustls::sign::CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key).unwrap());
    Arc::new(rustls::sign::SingleCertAndKey::from(shown))
}

/// Who comes with whatever certificate is let in, if it holds the key: whom to trust is asked later.
#[test]
fn a_client_with_any_certificate_is_let_in_when_it_holds_the_key() {
    let provider = || Arc::new(aws_lc_rs::default_provider());
    for key in ["-newkey ec -pkeyopt ec_paramgen_curve:P-256", "-newkey rsa:2048"] {
        let made = made(key);
        for versions in [Versions::Tls12, Versions::Tls13] {
            for (certificate, key, is_in) in
                [("v1", "v1", true), ("self", "self", true), ("named", "named", true), ("v1", "other", false)]
            {
                let server = ServerConfig::builder_with_provider(provider())
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_client_cert_verifier(Arc::new(AnyClient::new(provider())))
                    .with_cert_resolver(shown(&made, "named", "named"));
                let mut config = client_config(ServerVerifier::anyone(), None, versions).unwrap();
                config.client_auth_cert_resolver = shown(&made, certificate, key);
                let mut server = ServerConnection::new(Arc::new(server)).unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
                let (_, error) = converse(&mut client, &mut server);
                assert_eq!(error.is_none(), is_in, "{certificate} with the key of {key}, {versions:?}: {error:?}");
                assert_eq!(is_in, server.peer_certificates().is_some() && !server.is_handshaking());
            }
        }
    }
}

#[test]
fn what_is_trusted_does_not_depend_on_the_version_of_tls_or_the_kind_of_key() {
    let keys = ["-newkey ec -pkeyopt ec_paramgen_curve:P-256", "-newkey rsa:2048", "-newkey ed25519"];
    for key in keys {
        let made = made(key);
        let roots = |name: &str| certificates(&made.read(&format!("{name}.pem"))).unwrap();
        for versions in [Versions::Tls12, Versions::Tls13, Versions::Both] {
            for (shown, trusted, proof, rule, host, wanted) in [
                ("v1", "ca", Proof::Name, NameRule::OrCommonName, "localhost", true),
                ("v1", "ca", Proof::Name, NameRule::Alternative, "localhost", false),
                ("v1", "other", Proof::Authority, NameRule::OrCommonName, "localhost", false),
                ("v1", "other", Proof::None, NameRule::OrCommonName, "localhost", true),
                ("self", "self", Proof::Name, NameRule::OrCommonName, "localhost", true),
                ("self", "self", Proof::Name, NameRule::Alternative, "localhost", false),
                ("self", "self", Proof::Authority, NameRule::Alternative, "elsewhere", true),
                ("self", "ca", Proof::Authority, NameRule::Alternative, "localhost", false),
                ("named", "named", Proof::Name, NameRule::Alternative, "localhost", true),
                ("named", "named", Proof::Name, NameRule::Alternative, "127.0.0.1", true),
                ("named", "named", Proof::Name, NameRule::Alternative, "127.0.0.2", false),
                ("named", "named", Proof::Name, NameRule::OrCommonName, "x", false),
            ] {
                let verifier = ServerVerifier::new(proof, rule, roots(trusted));
                let error = shake(&made, shown, shown, verifier, host, versions);
                assert_eq!(
                    error.is_none(),
                    wanted,
                    "{key} {versions:?} {shown} {trusted} {proof:?} {rule:?} {host}: {error:?}"
                );
            }
        }
    }
}

/// Even where nothing has to be proved: who shows a certificate must hold its key.
#[test]
fn a_peer_that_shows_the_certificate_of_another_is_refused() {
    let made = made("-newkey ec -pkeyopt ec_paramgen_curve:P-256");
    for versions in [Versions::Tls12, Versions::Tls13] {
        for shown in ["v1", "self", "named"] {
            let error = shake(&made, shown, "other", ServerVerifier::anyone(), "localhost", versions);
            assert!(matches!(error, Some(rustls::Error::InvalidCertificate(_))), "{versions:?} {shown}: {error:?}");
        }
    }
}

#[test]
fn a_login_is_bound_to_the_hash_that_the_certificates_signature_names() {
    for (key, len) in [
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-256", Some(32)),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha384", Some(48)),
        ("-newkey rsa:2048 -sha512", Some(64)),
        ("-newkey ed25519", None),
    ] {
        let made = made(key);
        let leaf = certificates(&made.read("self.pem")).unwrap().remove(0);
        assert_eq!(end_point(&leaf).map(|hash| hash.len()), len, "{key}");
    }
}

#[test]
fn a_damaged_pem_text_is_said_and_never_quoted() {
    let made = made("-newkey ec -pkeyopt ec_paramgen_curve:P-256");
    assert_eq!(certificates(b"nothing").unwrap_err(), PemError::NoCertificate);
    assert_eq!(certificates(&made.read("ca.key")).unwrap_err(), PemError::NoCertificate);
    let (chain, key) = (made.read("v1.pem"), made.read("v1.key"));
    assert!(identity(&chain, &key).is_ok(), "of version 1");
    assert_eq!(identity(&chain, &chain).unwrap_err(), PemError::NoKey);
    assert_eq!(identity(&made.read("self.pem"), &made.read("other.key")).unwrap_err(), PemError::OtherKey);
}
