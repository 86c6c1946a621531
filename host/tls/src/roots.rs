//! Certificates and keys in PEM form, and the bundle that the system trusts.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use crate::certificate::Certificate;

/// Where distributions keep their bundle of trusted authorities.
pub const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is wrong with a PEM text. Quotes nothing of it: it may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("holds no certificate in PEM form")]
    NoCertificate,
    #[error("holds a damaged certificate")]
    DamagedCertificate,
    #[error("holds neither a public key nor a certificate in PEM form")]
    NoPublicKey,
    #[error("holds no private key in PEM form that is not encrypted")]
    NoKey,
    #[error("holds a private key of a kind that is not supported")]
    UnusableKey,
    #[error("holds a key that does not belong to the certificate")]
    OtherKey,
}

/// All certificates of a PEM text; text between them is passed over.
///
/// # Errors
/// There is none, or one is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(PemError::NoCertificate),
        Ok(found) => Ok(found),
        Err(_) => Err(PemError::DamagedCertificate),
    }
}

/// The first public key of a PEM text, as its whole `SubjectPublicKeyInfo`: one that stands there itself, or that of a certificate.
///
/// # Errors
/// There is none.
pub fn public_key(pem: &[u8]) -> Result<Vec<u8>, PemError> {
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(pem) {
        return Ok(key.to_vec());
    }
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| PemError::NoPublicKey)?;
    let certificate = Certificate::read(&certificate).ok_or(PemError::DamagedCertificate)?;
    Ok(certificate.key_info.to_vec())
}

/// From when until when the first certificate of a PEM text is valid, in seconds since 1970.
///
/// # Errors
/// There is none, or it is damaged.
pub fn validity(pem: &[u8]) -> Result<(u64, u64), PemError> {
    let first = certificates(pem)?;
    let leaf = first.first().and_then(|leaf| Certificate::read(leaf)).ok_or(PemError::DamagedCertificate)?;
    Ok((leaf.not_before().as_secs(), leaf.not_after().as_secs()))
}

/// The first bundle that is there.
#[must_use]
pub fn system_bundle() -> Option<&'static Path> {
    SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.is_file())
}
