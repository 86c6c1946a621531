//! A small web server for tests of logins: an identity provider, or the API server of a Kubernetes cluster. And the keys that such
//! servers sign with.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::free_port;

/// Seconds since 1970, by the clock that the server under test reads too.
pub fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a provider stamps its tokens with the time of day")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A key pair of P-256.
#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    /// A token, signed with ES256.
    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "alg": "ES256", "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.token_with_header(&header, claims)
    }

    pub fn token_with_header(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn public_pem(&self) -> String {
        let der = self.0.public_key().as_der().expect("a public key");
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y })
    }
}

/// A request that the provider was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

type Answering = dyn Fn(&Asked) -> (u16, String) + Send + Sync;

#[derive(Default)]
struct Inner {
    said: BTreeMap<String, (u16, String)>,
    asked: Vec<Asked>,
    is_down: bool,
    delay: Duration,
    answers: Option<Arc<Answering>>,
}

/// Listens until the test process ends.
#[derive(Clone)]
pub struct Provider {
    scheme: &'static str,
    address: String,
    inner: Arc<Mutex<Inner>>,
}

impl Provider {
    /// Speaks plain HTTP.
    pub fn http() -> Self {
        Self::start(None)
    }

    /// Speaks TLS with `NAME.crt` and `NAME.key` of a folder.
    pub fn https(folder: &Path, name: &str) -> Self {
        let chain = CertificateDer::pem_file_iter(folder.join(format!("{name}.crt")));
        let chain = chain.and_then(Iterator::collect::<Result<Vec<_>, _>>).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        Self::start(Some(Arc::new(config)))
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let listener = TcpListener::bind(&address).expect("a free port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let provider = Self { scheme, address, inner: Arc::default() };
        let serving = provider.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (provider, tls) = (serving.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => provider.serve(stream),
                    Some(config) => {
                        let connection = ServerConnection::new(config).expect("a connection");
                        provider.serve(StreamOwned::new(connection, stream));
                    }
                });
            }
        });
        provider
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What a path answers from now on.
    pub fn says(&self, path: &str, status: u16, body: &Value) {
        self.inner().said.insert(path.to_owned(), (status, body.to_string()));
    }

    /// Publishes public keys at `/keys`.
    pub fn shows(&self, keys: &[(&str, &Signer)]) {
        let keys: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
        self.says("/keys", 200, &json!({ "keys": keys }));
    }

    /// Answers every path that was not told what to say.
    pub fn answers(&self, with: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) {
        self.inner().answers = Some(Arc::new(with));
    }

    /// Takes connections and closes them without a word.
    pub fn is_down(&self, is_down: bool) {
        self.inner().is_down = is_down;
    }

    pub fn delays(&self, delay: Duration) {
        self.inner().delay = delay;
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.inner().asked.clone()
    }

    fn serve(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        if self.inner().is_down {
            return;
        }
        let Some(asked) = read(&mut stream) else { return };
        let (said, answers, delay) = {
            let mut inner = self.inner();
            inner.asked.push(asked.clone());
            (inner.said.get(&asked.path).cloned(), inner.answers.clone(), inner.delay)
        };
        thread::sleep(delay);
        let (status, body) = said.or_else(|| answers.map(|with| with(&asked))).unwrap_or((404, String::new()));
        let stream = stream.get_mut();
        let length = body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let _ = stream.flush();
    }
}

fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
