//! TLS to a target: what a connection trusts and shows, after `sslmode`.

use std::io;
use std::sync::Arc;

use leasehold_tls::{
    ClientIdentity, NameRule, Proof, ServerVerifier, certificates, client_config, identity, system_bundle,
};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use crate::dsn::{Dsn, SslMode};
use crate::files::{ConnectionFiles, Named, unusable};

/// PEM texts that a connection brings with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline<'a> {
    pub roots: Option<&'a str>,
    pub certificate: Option<&'a str>,
    pub key: Option<&'a str>,
}

/// Makes TLS sessions of one connection.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// Whether the server has to prove who it is.
    pub(crate) is_verified: bool,
}

impl Tls {
    /// Reads what the connection names.
    ///
    /// # Errors
    /// What is wrong with it, in words for the client.
    pub async fn load(dsn: &Dsn, inline: Inline<'_>, files: &ConnectionFiles, named: Named) -> Result<Self, String> {
        let roots = roots(dsn, inline, files, named).await?;
        let identity = own_identity(dsn, inline, files, named).await?;
        let proof = match dsn.ssl_mode {
            SslMode::VerifyFull => Proof::Name,
            SslMode::VerifyCa => Proof::Authority,
            // As libpq: whoever names an authority wants it asked.
            SslMode::Require if roots.is_some() => Proof::Authority,
            _ => Proof::None,
        };
        let roots = match (proof, roots) {
            (Proof::None, _) => Vec::new(),
            (_, Some(roots)) => roots,
            (_, None) => system_roots().await?,
        };
        let verifier = ServerVerifier::new(proof, NameRule::OrCommonName, roots);
        let mut config = client_config(verifier, identity, dsn.versions).map_err(|error| error.to_string())?;
        config.enable_sni = dsn.sends_name;
        Ok(Self { config: Arc::new(config), is_verified: proof != Proof::None })
    }
}

/// Those that the connection names itself. `None`: none.
async fn roots(
    dsn: &Dsn,
    inline: Inline<'_>,
    files: &ConnectionFiles,
    named: Named,
) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
    let mut found = Vec::new();
    if let Some(file) = dsn.root_certificate.as_deref().filter(|_| !dsn.trusts_system()) {
        let pem = files.read("sslrootcert", file, named).await?;
        found.extend(certificates(&pem).map_err(|why| no_pem("sslrootcert", file, named, &why))?);
    }
    if let Some(pem) = inline.roots {
        found.extend(certificates(pem.as_bytes()).map_err(|why| format!("tls_ca {why}"))?);
    }
    if dsn.trusts_system() {
        found.extend(system_roots().await?);
    }
    Ok(Some(found).filter(|found| !found.is_empty()))
}

async fn own_identity(
    dsn: &Dsn,
    inline: Inline<'_>,
    files: &ConnectionFiles,
    named: Named,
) -> Result<Option<ClientIdentity>, String> {
    if dsn.hides_certificate {
        return Ok(None);
    }
    if let (Some(certificate), Some(key)) = (inline.certificate, inline.key) {
        let found = identity(certificate.as_bytes(), key.as_bytes());
        return found.map(Some).map_err(|why| format!("tls_certificate with private_key {why}"));
    }
    let (Some(shown), Some(key)) = (&dsn.certificate, &dsn.key) else { return Ok(None) };
    let certificate = files.read("sslcert", shown, named).await?;
    let key = files.read("sslkey", key, named).await?;
    identity(&certificate, &key).map(Some).map_err(|why| no_pem("sslcert", shown, named, &why))
}

/// What a server says of our certificate, if the error is about that.
pub(crate) fn refused_certificate(error: &io::Error) -> Option<String> {
    use rustls::AlertDescription as Alert;
    let alert = match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => *alert,
        _ => return None,
    };
    let why = match alert {
        Alert::CertificateExpired => "it has expired",
        Alert::CertificateRevoked => "it is revoked",
        Alert::UnknownCA => "it does not know the authority that signed it (ssl_ca_file of the server)",
        Alert::CertificateRequired => "it asks for one and was shown none",
        Alert::BadCertificate => "it is damaged, or not valid yet",
        Alert::UnsupportedCertificate => "it is not made out for clients, or of a kind that the server does not take",
        Alert::CertificateUnknown | Alert::AccessDenied => "it does not say why",
        _ => return None,
    };
    Some(format!("the server refuses the client certificate (tls_certificate or sslcert): {why}"))
}

/// A file that was read and does not hold what it should. Only the operator is told what it holds instead.
fn no_pem(option: &str, file: &str, named: Named, why: &dyn std::fmt::Display) -> String {
    if named == Named::ByConfiguration { format!("{option}={file} {why}") } else { unusable(option) }
}

/// Whom the operating system trusts. One that rustls does not know among them is passed over.
async fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let bundle = system_bundle()?;
        certificates(&std::fs::read(bundle).ok()?).ok()
    });
    let found = read.await.ok().flatten();
    found.ok_or_else(|| {
        "this system has no bundle of trusted certificates in a known place: send the authority's in tls_ca".to_owned()
    })
}
