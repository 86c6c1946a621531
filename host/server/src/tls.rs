//! TLS of a listener: files read, checked, read again at SIGHUP.

use std::path::Path;
use std::sync::Arc;

use leasehold_tls::AnyClient;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{TlsSettings, TlsVersion, suites};

/// Reads a certificate chain, its key and, if there is one, the authority of client certificates.
///
/// # Errors
/// In words that name the file.
pub(crate) fn load(settings: &TlsSettings) -> Result<Arc<ServerConfig>, String> {
    let TlsSettings { cert, key, client_ca, asks_client, requires_client, min, max, suites: _ } = settings;
    let chain = certificates(cert)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => named(key, &"no private key in it (PEM, not encrypted)"),
        other => named(key, &other),
    })?;
    let provider = Arc::new(provider(settings));
    let versions: &[_] = match (min, max) {
        (TlsVersion::Tls12, TlsVersion::Tls12) => &[&version::TLS12],
        (TlsVersion::Tls12, TlsVersion::Tls13) => &[&version::TLS13, &version::TLS12],
        (TlsVersion::Tls13, _) => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| format!("the TLS settings do not go together: {error}"))?;
    let builder = match client_ca {
        // As Vault: whoever has a certificate shows it, and the auth method `cert` says whether it is good for anything.
        None if *asks_client => builder.with_client_cert_verifier(Arc::new(AnyClient::new(provider))),
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(ca)? {
                roots.add(root).map_err(|error| named(ca, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if *requires_client { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| named(ca, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, secret)
        .map_err(|error| format!("{} and {} do not go together: {error}", cert.display(), key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn named(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| named(file, &error))?;
    if found.is_empty() { Err(named(file, &"no certificate in it")) } else { Ok(found) }
}

/// With the suites of TLS 1.2 that the configuration names, if it names any; those of TLS 1.3 always.
fn provider(settings: &TlsSettings) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !settings.suites.is_empty() {
        provider.cipher_suites.retain(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => true,
            // Go's names are those of the standard, and so are these.
            SupportedCipherSuite::Tls12(_) => suite
                .suite()
                .as_str()
                .is_some_and(|name| settings.suites.iter().any(|asked| suites::full(asked) == name)),
        });
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> TlsSettings {
        TlsSettings {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
            client_ca: None,
            asks_client: true,
            requires_client: false,
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            suites: Vec::new(),
        }
    }

    #[test]
    fn a_file_without_what_it_is_for_is_named_with_what_it_lacks() {
        let folder = std::env::temp_dir().join(format!("leasehold-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = settings(&folder);
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&settings.cert, certificate).unwrap();
        std::fs::write(&settings.key, certificate).unwrap();
        let no_key = load(&settings).unwrap_err();
        std::fs::write(&settings.cert, "").unwrap();
        let no_certificate = load(&settings).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(no_key.contains("key.pem: no private key in it"), "{no_key}");
        assert!(no_certificate.contains("cert.pem: no certificate in it"), "{no_certificate}");
    }

    #[test]
    fn every_suite_that_can_be_asked_for_is_served_and_no_other_then() {
        let folder = Path::new("/");
        let count = |asked: &[&str]| {
            let asked = asked.iter().map(|&name| name.to_owned()).collect();
            let suites = provider(&TlsSettings { suites: asked, ..settings(folder) }).cipher_suites;
            suites.iter().filter(|suite| matches!(suite, SupportedCipherSuite::Tls12(_))).count()
        };
        for name in suites::NAMES {
            assert_eq!(count(&[name]), 1, "{name}");
        }
        assert_eq!(count(&[]), suites::NAMES.len());
        assert_eq!(count(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]), 1, "Go's older name");
        assert_eq!(count(&["TLS_AES_128_GCM_SHA256"]), 0);
    }
}
