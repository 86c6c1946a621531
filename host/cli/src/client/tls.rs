//! TLS: which certificates are trusted, and the agent that speaks it.
//!
//! Trusted is what was named (`-ca-cert`, `-ca-path` and their variables), else the system's own bundle. `leasehold-https` makes the
//! agent judge the server's certificate by that.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold_https::KnownHost;
use leasehold_tls::{
    ClientIdentity, NameRule, Proof, SYSTEM_BUNDLES, ServerVerifier, Versions, client_config, identity,
};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use ureq::http::Uri;

use super::ClientError;
use super::address::Address;
use super::unix::UnixConnector;
use crate::environment::Environment;

/// Which files and names the connection uses.
#[derive(Default)]
pub(super) struct Files {
    pub(super) ca_cert: Option<String>,
    pub(super) ca_path: Option<String>,
    /// Certificate and key.
    pub(super) client: Option<(String, String)>,
    server_name: Option<String>,
    pub(super) skip_verify: bool,
    system_bundle: Option<String>,
}

impl Files {
    pub(super) fn gather(
        env: &Environment,
        (ca_cert, ca_path): (Option<String>, Option<String>),
        (client_cert, client_key): (Option<String>, Option<String>),
        server_name: Option<String>,
        skip_verify: Option<bool>,
    ) -> Result<Self, ClientError> {
        let or = |flag: Option<String>, name: &str| flag.or_else(|| env.setting(name).map(str::to_owned));
        let client = match (or(client_cert, "CLIENT_CERT"), or(client_key, "CLIENT_KEY")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(ClientError::Setup(
                    "failed to setup TLS config: both client cert and client key must be provided".to_owned(),
                ));
            }
        };
        Ok(Self {
            ca_cert: or(ca_cert, "CACERT"),
            ca_path: or(ca_path, "CAPATH"),
            client,
            server_name: or(server_name, "TLS_SERVER_NAME"),
            skip_verify: skip_verify.unwrap_or_else(|| env.switch("SKIP_VERIFY")),
            system_bundle: env.variables.get("SSL_CERT_FILE").cloned(),
        })
    }

    /// The URL to connect with. With a server name of its own the host in it is that name, and the resolver knows better.
    pub(super) fn uri_for(&self, url: &str) -> String {
        let Some((name, uri)) = self.renamed(url) else { return url.to_owned() };
        let port = uri.port_u16().unwrap_or(443);
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        format!("https://{name}:{port}{rest}")
    }

    pub(super) fn host_header(&self, url: &str) -> Option<String> {
        let (_, uri) = self.renamed(url)?;
        Some(uri.authority()?.to_string())
    }

    fn renamed(&self, url: &str) -> Option<(&str, Uri)> {
        let name = self.server_name.as_deref()?;
        let uri: Uri = url.parse().ok()?;
        (uri.scheme_str() == Some("https")).then_some((name, uri))
    }

    fn trusted(&self) -> Result<Vec<CertificateDer<'static>>, ClientError> {
        if let Some(file) = &self.ca_cert {
            return certificates(Path::new(file));
        }
        if let Some(folder) = &self.ca_path {
            let unreadable = |error| {
                ClientError::Setup(format!("failed to setup TLS config: could not read folder `{folder}`: {error}"))
            };
            let mut found = Vec::new();
            for entry in fs::read_dir(folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.is_file() {
                    found.extend(certificates(&path)?);
                }
            }
            return Ok(found);
        }
        let named = self.system_bundle.as_deref().into_iter();
        match named.chain(SYSTEM_BUNDLES).find(|file| Path::new(file).is_file()) {
            Some(file) => certificates(Path::new(file)),
            None => Ok(Vec::new()),
        }
    }

    fn client_identity(&self) -> Result<Option<ClientIdentity>, ClientError> {
        let Some((certificate, key)) = &self.client else { return Ok(None) };
        let read = |file: &str| {
            let wrong =
                |error| ClientError::Setup(format!("failed to setup TLS config: `{file}` could not be read: {error}"));
            fs::read(file).map_err(wrong)
        };
        let found = identity(&read(certificate)?, &read(key)?);
        let wrong = |why| ClientError::Setup(format!("failed to setup TLS config: `{certificate}` with `{key}` {why}"));
        found.map(Some).map_err(wrong)
    }

    fn config(&self) -> Result<ClientConfig, ClientError> {
        let verifier = if self.skip_verify {
            ServerVerifier::anyone()
        } else {
            ServerVerifier::new(Proof::Name, NameRule::Alternative, self.trusted()?)
        };
        let config = client_config(verifier, self.client_identity()?, Versions::Both);
        config.map_err(|error| ClientError::Setup(format!("failed to setup TLS config: {error}")))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let wrong = |why: String| ClientError::Setup(format!("failed to setup TLS config: `{}` {why}", file.display()));
    let pem = fs::read(file).map_err(|error| wrong(format!("could not be read: {error}")))?;
    leasehold_tls::certificates(&pem).map_err(|why| wrong(why.to_string()))
}

/// Builds the agent. Redirects and statuses are ours to judge.
pub(super) fn agent(address: &Address, files: &Files, timeout: Duration) -> Result<ureq::Agent, ClientError> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global((!timeout.is_zero()).then_some(timeout))
        .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")));
    if address.is_loopback() {
        config = config.proxy(None);
    }
    // Nothing is read for plain HTTP: files that are named and missing are no reason to fail there.
    let tls = if address.is_https() { Some(Arc::new(files.config()?)) } else { None };
    let resolver = KnownHost::new(real_host(address, files));
    Ok(match address.socket() {
        Some(socket) => ureq::Agent::with_parts(config.build(), UnixConnector(socket.to_owned()), resolver),
        None => leasehold_https::agent(config.build(), tls, resolver),
    })
}

fn real_host(address: &Address, files: &Files) -> Option<(String, u16)> {
    if address.socket().is_some() {
        // Nothing is resolved for a socket: `localhost` need not be known.
        return Some(("127.0.0.1".to_owned(), 80));
    }
    files.server_name.as_ref()?;
    let uri: Uri = address.shown().parse().ok()?;
    Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(443)))
}

/// What went wrong on the way, with a hint where the cause is nearly always the same.
pub(super) fn explain(error: &ureq::Error, address: &Address) -> String {
    let said = match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "context deadline exceeded (the server did not answer in time)".to_owned(),
        other => other.to_string(),
    };
    let speaks_plain = said.contains("InvalidContentType") || said.contains("corrupt message");
    if address.is_https() && speaks_plain {
        return format!(
            "{said}\n\nThe server seems to speak plain HTTP: try an address that begins with http://, for example\n\n    $ export LEASEHOLD_ADDR='{}'",
            address.shown().replacen("https", "http", 1)
        );
    }
    if !address.is_https() && said.contains("http parse fail") {
        return format!(
            "{said}\n\nThe server seems to speak TLS: try an address that begins with https://, for example\n\n    $ export LEASEHOLD_ADDR='{}'",
            address.shown().replacen("http", "https", 1)
        );
    }
    if said.contains("UnknownIssuer") {
        return format!(
            "{said}\n\nThe server's certificate comes from an authority that is not trusted here. Say which one to trust:\n\n    \
             $ export LEASEHOLD_CACERT=FILE    (or -ca-cert=FILE; for a self-signed certificate, the certificate itself)"
        );
    }
    if said.contains("refused") {
        return format!(
            "{said} (is the server running at {}? LEASEHOLD_ADDR or -address say where it is)",
            address.shown()
        );
    }
    said
}
