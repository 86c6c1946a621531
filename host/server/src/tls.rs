//! Certificates of a listener: read, checked, read again at SIGHUP.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Reads a certificate chain and its key.
///
/// # Errors
/// In words that name the file.
pub(crate) fn load(cert_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, String> {
    let named = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| named(cert_file, &error))?;
    if chain.is_empty() {
        return Err(named(cert_file, &"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => named(key_file, &"no private key in it (PEM, not encrypted)"),
        other => named(key_file, &other),
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} and {} do not go together: {error}", cert_file.display(), key_file.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_what_it_is_for_is_named_with_what_it_lacks() {
        let folder = std::env::temp_dir().join(format!("leasehold-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&cert, certificate).unwrap();
        std::fs::write(&key, certificate).unwrap();
        let no_key = load(&cert, &key).unwrap_err();
        std::fs::write(&cert, "").unwrap();
        let no_certificate = load(&cert, &key).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(no_key.contains("key.pem: no private key in it"), "{no_key}");
        assert!(no_certificate.contains("cert.pem: no certificate in it"), "{no_certificate}");
    }
}
