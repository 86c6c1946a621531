//! Certificates of clients: what they say, and whether an authority that somebody trusts has vouched for them.
//!
//! A listener asks for one with [`AnyClient`], which proves that the client holds its key and nothing more. Who is trusted is decided
//! later, per request, by whoever uses the certificate: [`verify_client`], and [`RevocationList`] besides.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::Certificate;
use crate::possession;
use crate::verifier::check_time;

/// What of a chain is kept for as long as its connection lasts, whoever sent it.
const CHAIN_LEN_MAX: usize = 8;
const CHAIN_BYTES_MAX: usize = 16 << 10;

/// Asks each client for a certificate, and takes any of which the client holds the key. Clients without one are let in, too.
#[derive(Debug)]
pub struct AnyClient(Arc<CryptoProvider>);

impl AnyClient {
    #[must_use]
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = leaf.len() + chain.iter().map(|one| one.len()).sum::<usize>();
        if chain.len() >= CHAIN_LEN_MAX || bytes > CHAIN_BYTES_MAX {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        possession::tls12(&self.0, message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        possession::tls13(&self.0, message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client's certificate says. Names that are no UTF-8 text are left out: no rule can name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// As the certificate has it, with a zero before a high bit.
    pub serial: Vec<u8>,
    pub common_name: String,
    pub organizational_units: Vec<String>,
    pub dns_names: Vec<String>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    pub subject_key_id: Vec<u8>,
    pub authority_key_id: Vec<u8>,
    /// By object identifier in dots, each as it stands in the certificate.
    pub extensions: Vec<(String, Vec<u8>)>,
    pub is_authority: bool,
}

/// Reads what a certificate says. `None`: it is damaged.
#[must_use]
pub fn client_facts(der: &[u8]) -> Option<ClientFacts> {
    Certificate::read(der)?.facts()
}

/// Why a trusted certificate can vouch for no client but itself, whatever the time; `None`: it is an authority that can.
#[must_use]
pub fn vouches_for_none(der: &[u8]) -> Option<&'static str> {
    Certificate::read(der).map_or(Some("it is damaged"), |certificate| certificate.vouches_for_none())
}

/// Whether the client's certificate is one of the trusted ones itself, or was made out for clients, over its chain, by an authority
/// among them, and all of them are valid now. Seconds since 1970.
#[must_use]
pub fn verify_client(chain: &[Vec<u8>], trusted: &[CertificateDer<'static>], now: u64) -> bool {
    let Some((leaf, rest)) = chain.split_first() else { return false };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    let Some(certificate) = Certificate::read(leaf) else { return false };
    if trusted.iter().any(|trusted| trusted.as_ref() == leaf.as_slice()) {
        return check_time(&certificate, now).is_ok();
    }
    // Of a trust anchor, rustls-webpki keeps the name, the key and the constraints on names: all else is judged here.
    let mut anchors = Vec::new();
    let mut limits = Vec::new();
    for trusted in trusted {
        let Some(authority) = Certificate::read(trusted) else { continue };
        if authority.vouches_for_none().is_some() || check_time(&authority, now).is_err() {
            continue;
        }
        let Ok(anchor) = webpki::anchor_from_trusted_cert(trusted) else { continue };
        limits.push(authority.path_limit());
        anchors.push(anchor);
    }
    let is_short_enough = |path: &VerifiedPath<'_>| {
        let len = path.intermediate_certificates().count();
        let mut same = anchors.iter().zip(&limits).filter(|(anchor, _)| *anchor == path.anchor());
        let is_allowed = same.any(|(_, limit)| limit.is_none_or(|limit| len <= limit));
        if is_allowed { Ok(()) } else { Err(webpki::Error::PathLenConstraintViolated) }
    };
    let leaf = CertificateDer::from(leaf.as_slice());
    let rest: Vec<CertificateDer<'_>> = rest.iter().map(|one| CertificateDer::from(one.as_slice())).collect();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    EndEntityCert::try_from(&leaf).is_ok_and(|leaf| {
        let usage = KeyUsage::client_auth();
        leaf.verify_for_usage(algorithms, &anchors, &rest, now, usage, None, Some(&is_short_enough)).is_ok()
    })
}

/// A list of certificates that their authority has taken back, as an operator brought it: its signature is not looked at.
#[derive(Debug)]
pub struct RevocationList {
    list: CertRevocationList<'static>,
}

impl RevocationList {
    /// Reads a list in PEM form or as DER.
    ///
    /// # Errors
    /// It is none of version 2 (RFC 5280), or there are several, of which only one would count.
    pub fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        if CertificateRevocationListDer::pem_slice_iter(bytes).nth(1).is_some() {
            return Err("it holds more than one list: write each under a name of its own");
        }
        let der =
            CertificateRevocationListDer::from_pem_slice(bytes).map_or_else(|_| bytes.to_vec(), |list| list.to_vec());
        let list = BorrowedCertRevocationList::from_der(&der).and_then(|list| list.to_owned());
        let list = list.map_err(|_| "it is no complete certificate revocation list of version 2 in PEM form")?;
        Ok(Self { list: list.into() })
    }

    /// Whether the list's authority has taken this certificate back. A certificate that cannot be read counts as taken back.
    #[must_use]
    pub fn has_revoked(&self, der: &[u8]) -> bool {
        let Some(certificate) = Certificate::read(der) else { return true };
        certificate.issuer_content() == Some(self.list.issuer())
            && !matches!(self.list.find_serial(certificate.serial), Ok(None))
    }
}

#[cfg(test)]
mod tests;
