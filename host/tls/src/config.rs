//! From a verifier to a configuration of rustls.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::certificate::Certificate;
use crate::roots::{PemError, certificates};
use crate::verifier::ServerVerifier;

/// What a client shows of itself.
#[derive(Clone, Debug)]
pub struct ClientIdentity(Arc<CertifiedKey>);

impl ClientIdentity {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, PemError> {
        let key =
            aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|_| PemError::UnusableKey)?;
        // Compared here and not by rustls, which reads no certificate of version 1.
        let leaf = chain.first().and_then(|leaf| Certificate::read(leaf)).ok_or(PemError::DamagedCertificate)?;
        if key.public_key().is_some_and(|public| public.as_ref() != leaf.key_info) {
            return Err(PemError::OtherKey);
        }
        Ok(Self(Arc::new(CertifiedKey::new(chain, key))))
    }
}

/// Which versions of TLS may be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    #[default]
    Both,
    Tls12,
    Tls13,
}

impl Versions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&TLS13, &TLS12],
            Self::Tls12 => vec![&TLS12],
            Self::Tls13 => vec![&TLS13],
        }
    }
}

/// A configuration of rustls around `verifier`. The cryptography is aws-lc's and named here, so that no other crate's choice of a
/// process-wide default matters.
///
/// # Errors
/// The provider has no cipher suite for these versions.
pub fn client_config(
    verifier: ServerVerifier,
    identity: Option<ClientIdentity>,
    versions: Versions,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&versions.list())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match identity {
        Some(ClientIdentity(key)) => {
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    })
}

/// A client's certificate chain and key.
///
/// # Errors
/// One of them is missing or damaged, or they do not belong together.
pub fn identity(chain: &[u8], key: &[u8]) -> Result<ClientIdentity, PemError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| PemError::NoKey)?;
    ClientIdentity::new(chain, key)
}
