//! What a server must prove, and whether it did.
//!
//! rustls-webpki judges whatever it understands. Three things are judged here besides, because libpq, curl and Go accept them:
//! a server certificate that is itself among the trusted ones, byte for byte; a certificate of X.509 version 1; and a server
//! certificate that calls itself an authority. The last two are taken only when a trusted certificate signed them directly.

use std::sync::Arc;

use ::aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::certificate::Certificate;
use crate::names::{self, NameRule};
use crate::possession;

/// How far a server has to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It holds the key of the certificate that it shows, whatever that certificate is.
    None,
    /// A trusted authority made the certificate out, for any name.
    Authority,
    /// The same, for the name that was dialled.
    Name,
}

/// Judges the certificates of servers.
#[derive(Debug)]
pub struct ServerVerifier {
    proof: Proof,
    rule: NameRule,
    trusted: Vec<CertificateDer<'static>>,
    anchors: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// Encryption without knowing with whom.
    #[must_use]
    pub fn anyone() -> Self {
        Self::new(Proof::None, NameRule::Alternative, Vec::new())
    }

    /// Trusts `roots`. What is no certificate at all among them trusts nobody.
    #[must_use]
    pub fn new(proof: Proof, rule: NameRule, roots: Vec<CertificateDer<'static>>) -> Self {
        let mut anchors = RootCertStore::empty();
        anchors.add_parsable_certificates(roots.iter().cloned());
        Self { proof, rule, trusted: roots, anchors, provider: Arc::new(aws_lc_rs::default_provider()) }
    }

    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = read(leaf)?;
        if self.proof == Proof::None {
            return Ok(());
        }
        if self.trusted.iter().any(|trusted| trusted.as_ref() == leaf.as_ref()) {
            check_time(&certificate, now)?;
        } else if certificate.version < 3 || certificate.says_authority() {
            self.check_signed_directly(&certificate, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let parsed = ParsedCertificate::try_from(leaf)?;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.anchors, chain, now, algorithms)?;
        }
        if self.proof == Proof::Name && !names::is_for(&certificate, host, self.rule) {
            let presented = names::presented(&certificate, self.rule);
            return Err(wrong(CertificateError::NotValidForNameContext { expected: host.to_owned(), presented }));
        }
        Ok(())
    }

    /// For what rustls-webpki does not judge: one of the trusted certificates must be an authority and have signed it.
    fn check_signed_directly(&self, certificate: &Certificate<'_>, now: UnixTime) -> Result<(), Error> {
        check_time(certificate, now)?;
        if !certificate.may_serve() {
            return Err(wrong(CertificateError::InvalidPurpose));
        }
        let issuers = self.trusted.iter().filter_map(|trusted| Certificate::read(trusted));
        let mut error = CertificateError::UnknownIssuer;
        for issuer in issuers.filter(|issuer| issuer.subject == certificate.issuer && issuer.may_sign()) {
            if !self.has_signed(&issuer, certificate) {
                error = CertificateError::BadSignature;
            } else if check_time(&issuer, now).is_err() {
                error = CertificateError::Expired;
            } else {
                return Ok(());
            }
        }
        Err(wrong(error))
    }

    fn has_signed(&self, issuer: &Certificate<'_>, certificate: &Certificate<'_>) -> bool {
        self.provider.signature_verification_algorithms.all.iter().any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == certificate.signature_algorithm
                && algorithm.public_key_alg_id().as_ref() == issuer.key_algorithm
                && algorithm.verify_signature(issuer.key, certificate.signed, certificate.signature).is_ok()
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, chain, host, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        possession::tls12(&self.provider, message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        possession::tls13(&self.provider, message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The hash of a server's certificate that binds a login to the TLS session (`tls-server-end-point`, RFC 5929); `None` where the
/// certificate's signature does not say which hash.
#[must_use]
pub fn end_point(leaf: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let certificate = Certificate::read(leaf)?;
    // The last byte of the object identifier tells the hash, for RSA (1.2.840.113549.1.1.x) and for ECDSA (1.2.840.10045.4.3.x).
    let hash = match certificate.signature_algorithm {
        // MD5 and SHA-1 are replaced by SHA-256, says the RFC.
        [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11, ..] => &digest::SHA256,
        [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12, ..] => &digest::SHA384,
        [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13, ..] => &digest::SHA512,
        [0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1, ..] => &digest::SHA256,
        [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, ..] => &digest::SHA256,
        [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3, ..] => &digest::SHA384,
        [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4, ..] => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, leaf).as_ref().to_vec())
}

pub(crate) fn read<'a>(leaf: &'a CertificateDer<'_>) -> Result<Certificate<'a>, Error> {
    Certificate::read(leaf).ok_or(wrong(CertificateError::BadEncoding))
}

pub(crate) fn check_time(certificate: &Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    if certificate.is_too_young(now) {
        let not_before = UnixTime::since_unix_epoch(certificate.not_before());
        return Err(wrong(CertificateError::NotValidYetContext { time: now, not_before }));
    }
    if certificate.is_too_old(now) {
        let not_after = UnixTime::since_unix_epoch(certificate.not_after());
        return Err(wrong(CertificateError::ExpiredContext { time: now, not_after }));
    }
    Ok(())
}

pub(crate) fn wrong(why: CertificateError) -> Error {
    Error::InvalidCertificate(why)
}
