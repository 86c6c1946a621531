//! `seal "transit"`: another server's transit engine wraps and unwraps the key.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_core::seams::seal::{KeyWrapper, SecretKey, WrappedKey, WrapperError};
use leasehold_https::KnownHost;
use leasehold_tls::{NameRule, Proof, ServerVerifier, Versions};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::Hidden;

/// How long one request may take, from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read; those of the transit engine take some hundred bytes.
const ANSWER_MAX: u64 = 256 << 10;
/// How much of an error of the other server is told.
const SAID_MAX: usize = 300;
/// Between two tries to renew the token.
const RENEW_RETRY: Duration = Duration::from_secs(30);
const RENEW_MIN: Duration = Duration::from_secs(1);
const RENEW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const KEY_LEN: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransitSettings {
    /// `https://host:port`.
    pub address: Option<String>,
    pub token: Option<Hidden>,
    pub key_name: Option<String>,
    pub mount_path: Option<String>,
    pub namespace: Option<String>,
    /// Somebody else renews the token.
    pub disable_renewal: bool,
    pub tls_ca_cert: Option<PathBuf>,
    pub tls_client_cert: Option<PathBuf>,
    pub tls_client_key: Option<PathBuf>,
    /// The name that the other server's certificate must have, when it is not that of the address.
    pub tls_server_name: Option<String>,
    pub tls_skip_verify: bool,
}

/// See the [module](self).
pub struct TransitSeal(Arc<Client>);

impl std::fmt::Debug for TransitSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransitSeal").field("address", &self.0.shown).finish_non_exhaustive()
    }
}

struct Client {
    agent: ureq::Agent,
    /// What requests go to: the certificate's name stands in it, where that is another one.
    base: String,
    /// As the configuration has it.
    shown: String,
    host: Option<String>,
    token: Hidden,
    namespace: Option<String>,
    mount: String,
    key: String,
    renews: bool,
}

impl TransitSeal {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// In words for the operator: what is missing, or a file that cannot be used.
    pub fn new(settings: &TransitSettings) -> Result<Self, String> {
        let needs = |name: &str, instead: &str| format!("{name} is required{instead}");
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let address =
            given(&settings.address).ok_or_else(|| needs("address", ", or the environment's `VAULT_ADDR`"))?;
        let key = given(&settings.key_name)
            .ok_or_else(|| needs("key_name", ", or the environment's `VAULT_TRANSIT_SEAL_KEY_NAME`"))?;
        let mount = given(&settings.mount_path)
            .ok_or_else(|| needs("mount_path", ", or the environment's `VAULT_TRANSIT_SEAL_MOUNT_PATH`"))?;
        let token = settings.token.clone().filter(|token| !token.expose().is_empty());
        let token = token.ok_or_else(|| needs("token", ", or the environment's `VAULT_TOKEN`"))?;
        if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("token has characters that no token has".to_owned());
        }
        let mount = mount.trim_matches('/').to_owned();
        for (name, text) in [("mount_path", &mount), ("key_name", &key)] {
            if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)) || text.contains("..")
            {
                return Err(format!(
                    "{name}: `{text}` is no path: letters, digits, `-`, `_`, `.` and `/` can be in it"
                ));
            }
        }
        let address = address.trim_end_matches('/').to_owned();
        let wrong = || format!("address: `{address}` is no address: write `https://host:port`");
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("address: there must be no user and no password in it".to_owned());
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The token goes to nobody but the server that is named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")));
        if ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str()) {
            config = config.proxy(None);
        }
        // Nothing is read for plain HTTP.
        let tls = if is_https { Some(Arc::new(tls(settings)?)) } else { None };
        let name = settings.tls_server_name.as_deref().filter(|name| !name.is_empty() && is_https);
        let (base, real, host_header) = match name {
            Some(name) => {
                let port = uri.port_u16().unwrap_or(443);
                let rest = uri.path().trim_end_matches('/');
                let authority = uri.authority().map(ToString::to_string);
                (format!("https://{name}:{port}{rest}"), Some((host, port)), authority)
            }
            None => (address.clone(), None, None),
        };
        Ok(Self(Arc::new(Client {
            agent: leasehold_https::agent(config.build(), tls, KnownHost::new(real)),
            base,
            shown: address,
            host: host_header,
            token,
            namespace: given(&settings.namespace),
            mount,
            key,
            renews: !settings.disable_renewal,
        })))
    }

    /// Sends one request, on a thread where it may block.
    async fn ask(&self, verb: Verb, path: String, body: Secret<String>) -> Result<Secret<Vec<u8>>, WrapperError> {
        let client = Arc::clone(&self.0);
        let asked = tokio::task::spawn_blocking(move || client.send(verb, &path, &body)).await;
        asked.map_err(|_| WrapperError::Away("the request ended early".to_owned()))?
    }

    /// An answer that holds no secret.
    async fn ask_openly(&self, verb: Verb, path: &str) -> Result<Value, WrapperError> {
        let answer = self.ask(verb, path.to_owned(), Zeroizing::new("{}".to_owned())).await?;
        serde_json::from_slice(&answer).map_err(|_| self.odd(path))
    }

    fn odd(&self, path: &str) -> WrapperError {
        WrapperError::Refused(format!("{}: {path} answered with something else than was asked for", self.0.shown))
    }

    /// How long the token still lives after it was renewed; `None`: it ends never, or nobody can renew it.
    async fn renew(&self) -> Result<Option<Duration>, WrapperError> {
        let found = self.ask_openly(Verb::Get, "auth/token/lookup-self").await?;
        let ttl = found["data"]["ttl"].as_u64().unwrap_or_default();
        if ttl == 0 {
            return Ok(None);
        }
        if found["data"]["renewable"] != true {
            tracing::warn!(
                seal = "transit",
                ttl,
                "the seal's token ends in {ttl} s and cannot be renewed: give the seal a periodic token before that, or the server will \
                 not unseal itself any more"
            );
            return Ok(None);
        }
        let renewed = self.ask_openly(Verb::Post, "auth/token/renew-self").await?;
        let ttl = renewed["auth"]["lease_duration"].as_u64().unwrap_or(ttl);
        Ok(Some(Duration::from_secs(ttl)))
    }
}

fn tls(settings: &TransitSettings) -> Result<rustls::ClientConfig, String> {
    let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let identity = match (&settings.tls_client_cert, &settings.tls_client_key) {
        (Some(cert), Some(key)) => {
            let found = leasehold_tls::identity(&read(cert)?, &read(key)?);
            Some(found.map_err(|why| format!("{} with {} {why}", cert.display(), key.display()))?)
        }
        (None, None) => None,
        _ => return Err("tls_client_cert and tls_client_key go together".to_owned()),
    };
    let verifier = if settings.tls_skip_verify {
        ServerVerifier::anyone()
    } else {
        let bundle = settings.tls_ca_cert.clone().or_else(|| leasehold_tls::system_bundle().map(PathBuf::from));
        let roots = match bundle {
            Some(path) => {
                leasehold_tls::certificates(&read(&path)?).map_err(|why| format!("{} {why}", path.display()))?
            }
            None => Vec::new(),
        };
        ServerVerifier::new(Proof::Name, NameRule::Alternative, roots)
    };
    leasehold_tls::client_config(verifier, identity, Versions::Both).map_err(|error| error.to_string())
}

/// Wiped when it is dropped.
type Secret<T> = Zeroizing<T>;

/// Borrowed from the answer, so that the key is in no other place that nobody wipes.
#[derive(Deserialize)]
struct Decrypted<'a> {
    #[serde(borrow)]
    data: Plain<'a>,
}

#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Post,
}

impl Client {
    fn send(&self, verb: Verb, path: &str, body: &str) -> Result<Secret<Vec<u8>>, WrapperError> {
        let url = format!("{}/v1/{path}", self.base);
        let away = |why: &str| WrapperError::Away(format!("{} does not answer: {why}", self.shown));
        let mut headers = vec![("X-Vault-Token", self.token.expose()), ("X-Vault-Request", "true")];
        headers.extend(self.namespace.as_deref().map(|namespace| ("X-Vault-Namespace", namespace)));
        headers.extend(self.host.as_deref().map(|host| ("Host", host)));
        let sent = match verb {
            Verb::Get => {
                let request =
                    headers.iter().fold(self.agent.get(&url), |request, (name, value)| request.header(*name, *value));
                request.call()
            }
            Verb::Post => {
                let request =
                    headers.iter().fold(self.agent.post(&url), |request, (name, value)| request.header(*name, *value));
                request.send(body.as_bytes())
            }
        };
        let mut answer = sent.map_err(|error| away(&explained(&error)))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().map(Zeroizing::new);
        let text = text.map_err(|error| away(&explained(&error)))?;
        if (200..300).contains(&status) {
            return Ok(text);
        }
        let said = said(&text);
        let what = format!("{}: {path}: {status}{said}", self.shown);
        Err(match status {
            // Too many requests, a standby without a leader, a sealed server, a proxy that finds none: all of them pass.
            429 | 472 | 473 | 500.. => WrapperError::Away(what),
            300..400 => WrapperError::Refused(format!(
                "{what}: redirects are not followed, put the other address into `address`"
            )),
            _ => WrapperError::Refused(what),
        })
    }
}

/// What the other server said is wrong, on one line and not too long.
fn said(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors: Vec<&str> = parsed["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if errors.is_empty() {
        return String::new();
    }
    let text = errors.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
    format!(": {}", text.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect::<String>())
}

fn explained(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => format!("not within {} s", TIMEOUT.as_secs()),
        other => other.to_string(),
    }
}

#[async_trait]
impl KeyWrapper for TransitSeal {
    fn kind(&self) -> &'static str {
        "transit"
    }

    async fn wrap(&self, plain: &SecretKey) -> Result<WrappedKey, WrapperError> {
        let Client { mount, key, .. } = &*self.0;
        let path = format!("{mount}/encrypt/{key}");
        let plain = Zeroizing::new(STANDARD.encode(*plain.0));
        let body = Zeroizing::new(format!(r#"{{"plaintext":"{}"}}"#, *plain));
        let answer = self.ask(Verb::Post, path.clone(), body).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|_| self.odd(&path))?;
        let text = answer["data"]["ciphertext"].as_str().ok_or_else(|| self.odd(&path))?;
        // `vault:v3:…`: the version of the key stands in it.
        let version = text.split(':').nth(1).filter(|version| version.starts_with('v'));
        let version = version.ok_or_else(|| self.odd(&path))?;
        Ok(WrappedKey { key_id: format!("{mount}/{key} {version}"), bytes: text.as_bytes().to_vec() })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<SecretKey, WrapperError> {
        let Client { mount, key, .. } = &*self.0;
        let path = format!("{mount}/decrypt/{key}");
        let ciphertext = std::str::from_utf8(&wrapped.bytes).map_err(|_| self.odd(&path))?;
        let body = Zeroizing::new(json!({ "ciphertext": ciphertext }).to_string());
        let answer = self.ask(Verb::Post, path.clone(), body).await.map_err(|error| match error {
            WrapperError::Refused(why) => WrapperError::Refused(format!(
                "{why} (what is stored was wrapped with `{}`: that key must be there, and the token must be allowed to use it)",
                wrapped.key_id
            )),
            away => away,
        })?;
        let decrypted: Decrypted<'_> = serde_json::from_slice(&answer).map_err(|_| self.odd(&path))?;
        let plain = Zeroizing::new(STANDARD.decode(&*decrypted.data.plaintext).map_err(|_| self.odd(&path))?);
        let plain: [u8; KEY_LEN] = plain.as_slice().try_into().map_err(|_| self.odd(&path))?;
        Ok(SecretKey(Zeroizing::new(plain)))
    }

    /// Only wrapping shows which version the key has by now.
    fn may_be_outdated(&self, _: &WrappedKey) -> bool {
        true
    }

    async fn keep(&self) {
        if !self.0.renews {
            return;
        }
        loop {
            let wait = match self.renew().await {
                Ok(Some(ttl)) => (ttl / 2).clamp(RENEW_MIN, RENEW_MAX),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(seal = "transit", %error, "the seal's token could not be renewed; the next try is in {} s", RENEW_RETRY.as_secs());
                    RENEW_RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TransitSettings {
        TransitSettings {
            address: Some("https://127.0.0.1:8200/".to_owned()),
            token: Some(Hidden::new("s.secret".to_owned())),
            key_name: Some("unseal".to_owned()),
            mount_path: Some("/transit/".to_owned()),
            ..TransitSettings::default()
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name_and_without_the_token() {
        type Change = fn(&mut TransitSettings);
        let cases: [(Change, &str); 11] = [
            (|s| s.address = None, "address is required"),
            (|s| s.token = None, "token is required"),
            (|s| s.key_name = Some(String::new()), "key_name is required"),
            (|s| s.mount_path = None, "mount_path is required"),
            (|s| s.address = Some("127.0.0.1:8200".to_owned()), "no address"),
            (|s| s.address = Some("ftp://x".to_owned()), "no address"),
            (|s| s.address = Some("https://me:pass@x".to_owned()), "no user and no password"),
            (|s| s.token = Some(Hidden::new("s.secret\r\nX: y".to_owned())), "token has characters"),
            (|s| s.key_name = Some("../sys/seal".to_owned()), "key_name: "),
            (|s| s.mount_path = Some("a?b".to_owned()), "mount_path: "),
            (|s| s.tls_client_cert = Some("/c.pem".into()), "go together"),
        ];
        for (change, why) in cases {
            let mut settings = settings();
            change(&mut settings);
            let said = TransitSeal::new(&settings).unwrap_err();
            assert!(said.contains(why) && !said.contains("s.secret"), "{said}");
        }
        let seal = TransitSeal::new(&settings()).unwrap();
        assert!(!format!("{seal:?} {:?}", settings()).contains("s.secret"));
    }

    #[test]
    fn what_another_server_says_is_bounded_and_stays_on_one_line() {
        let long = json!({ "errors": ["a\nb\u{1b}[31m", "x".repeat(10_000)] }).to_string();
        let told = said(long.as_bytes());
        assert!(told.starts_with(": a b[31m; xxx") && told.chars().count() <= SAID_MAX + 2, "{told}");
        for nothing in ["", "<html>", "{}", "{\"errors\":[]}", "{\"errors\":7}"] {
            assert_eq!(said(nothing.as_bytes()), "");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_away_and_not_a_refusal() {
        let settings = TransitSettings { address: Some("http://127.0.0.1:1".to_owned()), ..settings() };
        let seal = TransitSeal::new(&settings).unwrap();
        let failed = seal.wrap(&SecretKey(Zeroizing::new([1; KEY_LEN]))).await;
        assert!(matches!(failed, Err(WrapperError::Away(why)) if why.contains("127.0.0.1:1")));
    }
}
