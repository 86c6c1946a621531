//! That a peer holds the key of the certificate which it shows, whatever that certificate is.
//!
//! rustls-webpki reads no certificate of X.509 version 1, so that a peer with one could not even prove this.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};

use crate::verifier::{read, wrong};

pub(crate) fn tls12(
    provider: &CryptoProvider,
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = read(leaf)?;
    let known = provider.signature_verification_algorithms.mapping;
    let candidates = known.iter().find(|(scheme, _)| *scheme == signed.scheme).map(|(_, candidates)| *candidates);
    let candidates =
        candidates.ok_or(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))?;
    let is_good = candidates.iter().any(|algorithm| {
        algorithm.public_key_alg_id().as_ref() == certificate.key_algorithm
            && algorithm.verify_signature(certificate.key, message, signed.signature()).is_ok()
    });
    if is_good { Ok(HandshakeSignatureValid::assertion()) } else { Err(wrong(CertificateError::BadSignature)) }
}

pub(crate) fn tls13(
    provider: &CryptoProvider,
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = read(leaf)?;
    let key = SubjectPublicKeyInfoDer::from(certificate.key_info);
    verify_tls13_signature_with_raw_key(message, &key, signed, &provider.signature_verification_algorithms)
}
