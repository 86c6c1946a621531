//! The HTTP half: one request, one answer, as Vault's own client sends them.
//!
//! Must not know: commands, tables, what a mount or a lease is. Start with [`Client::send`].
//!
//! Invariants: the token is in the request's header and nowhere else: not in an error, not in `Debug`, not in the curl
//! line. An answer is never read into memory past [`ANSWER_MAX`]. One redirect is followed, and never from https to http.

mod address;
mod answer;
mod curl;
mod policy;
mod tls;
mod transfer;
mod unix;
mod waiting;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::duration::Span;
use crate::environment::Environment;

use address::Address;
pub(crate) use answer::{Answer, Auth, Refusal, Secret, sorted};

/// The longest answer that is read: twice what a server takes as a request.
pub(crate) const ANSWER_MAX: u64 = 64 << 20;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Back-off between tries, as Vault's client has it: doubling from one second, at most a second and a half.
const RETRY_WAITS: (Duration, Duration) = (Duration::from_millis(1000), Duration::from_millis(1500));
/// More tries than that would only hide a server that is down.
const RETRIES_MAX: u32 = 20;

/// What the flags said about the connection.
#[derive(Default)]
pub(crate) struct ClientOptions {
    pub(crate) address: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) ca_cert: Option<String>,
    pub(crate) ca_path: Option<String>,
    pub(crate) client_cert: Option<String>,
    pub(crate) client_key: Option<String>,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) tls_skip_verify: Option<bool>,
    pub(crate) wrap_ttl: Option<Span>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) dry_run: Option<DryRun>,
    pub(crate) disable_redirects: bool,
}

/// What is printed instead of sending a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DryRun {
    /// The command line for curl.
    CurlString,
    /// The ACL rule that allows it.
    Policy,
}

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The connection could not be prepared: a wrong address, an unreadable certificate.
    #[error("{0}")]
    Setup(String),
    /// The request did not get through.
    #[error("{verb} \"{url}\": {why}")]
    Transport { verb: String, url: String, why: String },
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer is not what was expected.
    #[error("{0}")]
    Unexpected(String),
    /// Not sent: this was asked for dry_run.
    #[error("the request was not sent")]
    NotSent(String),
}

/// What a read gives.
pub(crate) enum Reading {
    Secret(Box<Secret>),
    Text(String),
    Nothing,
}

/// One request, before address, token and headers are put to it.
pub(crate) struct ApiRequest {
    method: &'static str,
    path: String,
    query: Vec<(String, String)>,
    body: Body,
}

enum Body {
    None,
    Json(Value),
    Patch(Value),
    Module(Vec<u8>),
    /// A file, which is handed in when it is sent.
    File,
}

impl ApiRequest {
    fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: Body::None }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new("PUT", path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new("POST", path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path)
    }

    pub(crate) fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { body: Body::Patch(body), ..Self::new("PATCH", path) }
    }

    pub(crate) fn json(self, body: Value) -> Self {
        Self { body: Body::Json(body), ..self }
    }

    /// A policy module: the bytes themselves, as `application/wasm`.
    pub(crate) fn module(self, bytes: Vec<u8>) -> Self {
        Self { body: Body::Module(bytes), ..self }
    }

    /// The body is a file: see [`Client::upload`].
    pub(crate) fn file(self) -> Self {
        Self { body: Body::File, ..self }
    }

    pub(crate) fn query(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((key.into(), value.into()));
        self
    }

    fn content_type(&self) -> Option<&'static str> {
        match self.body {
            Body::None | Body::Json(_) => None,
            Body::File => Some("application/gzip"),
            Body::Patch(_) => Some("application/merge-patch+json"),
            Body::Module(_) => Some("application/wasm"),
        }
    }

    fn body_bytes(&self) -> Option<Vec<u8>> {
        match &self.body {
            Body::None | Body::File => None,
            Body::Json(value) | Body::Patch(value) => Some(value.to_string().into_bytes()),
            Body::Module(bytes) => Some(bytes.clone()),
        }
    }
}

/// A connection to one server, with a token or without.
pub(crate) struct Client {
    agent: ureq::Agent,
    address: Address,
    token: Option<SecretString>,
    namespace: Option<String>,
    wrap_ttl: Option<String>,
    headers: Vec<(String, String)>,
    tls: tls::Files,
    dry_run: Option<DryRun>,
    disable_redirects: bool,
    retries: u32,
    /// What the environment says; none: the default holds, but not for files.
    own_timeout: Option<Duration>,
    shows_waiting: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address.shown()).finish_non_exhaustive()
    }
}

/// What a variable says; it is an error when it says nothing of that kind.
fn read<T>(
    env: &Environment,
    name: &str,
    kind: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ClientError> {
    let Some((name, text)) = env.setting_with_name(name) else { return Ok(None) };
    let wrong = || {
        ClientError::Setup(format!("failed to read environment: could not parse \"{name}\": \"{text}\" is not {kind}"))
    };
    parse(text).map(Some).ok_or_else(wrong)
}

impl Client {
    /// Prepares the connection. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`]: a wrong address, an unreadable certificate, a header that is ours.
    pub(crate) fn prepare(env: &Environment, options: ClientOptions) -> Result<Self, ClientError> {
        let typed = options.address.or_else(|| env.setting("ADDR").map(str::to_owned));
        let address = Address::parse(typed.as_deref().unwrap_or(address::DEFAULT))?;
        let tls = tls::Files::gather(
            env,
            (options.ca_cert, options.ca_path),
            (options.client_cert, options.client_key),
            options.tls_server_name,
            options.tls_skip_verify,
        )?;
        for (name, value) in &options.headers {
            check_header(name, value)?;
        }
        let wrap_ttl = match options.wrap_ttl {
            Some(span) => Some(span),
            None => read(env, "WRAP_TTL", "a duration, such as 5m", Span::parse)?,
        };
        let timeout = read(env, "CLIENT_TIMEOUT", "a duration, such as 60s", |text| Span::parse(text)?.to_std())?;
        let retries = read(env, "MAX_RETRIES", "a number", |text| text.parse::<u32>().ok())?;
        let agent = tls::agent(&address, &tls, timeout.unwrap_or(TIMEOUT))?;
        Ok(Self {
            agent,
            address,
            token: None,
            namespace: options
                .namespace
                .or_else(|| env.setting("NAMESPACE").map(str::to_owned))
                .and_then(canonical_namespace),
            wrap_ttl: wrap_ttl.filter(|span| !span.is_zero()).map(Span::to_go),
            headers: options.headers,
            tls,
            dry_run: options.dry_run,
            disable_redirects: options.disable_redirects || env.switch("DISABLE_REDIRECTS"),
            retries: retries.unwrap_or(0).min(RETRIES_MAX),
            own_timeout: timeout.filter(|timeout| !timeout.is_zero()),
            shows_waiting: env.stderr_is_terminal,
        })
    }

    /// # Errors
    /// [`ClientError::Setup`] when the token cannot stand in a header.
    pub(crate) fn set_token(&mut self, token: Option<SecretString>) -> Result<(), ClientError> {
        let unfit =
            token.as_ref().is_some_and(|token| token.expose_secret().chars().any(|c| c.is_control() || !c.is_ascii()));
        if unfit {
            return Err(ClientError::Setup(
                "configured token contains non-printable characters and cannot be used".to_owned(),
            ));
        }
        self.token = token;
        Ok(())
    }

    pub(crate) fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// `sys/seal-status` and its like exist in the root namespace only.
    pub(crate) fn leave_namespace(&mut self) {
        self.namespace = None;
    }

    /// A later request must not be wrapped because the first one was.
    pub(crate) fn stop_wrapping(&mut self) {
        self.wrap_ttl = None;
    }

    /// For requests that only prepare the one that is meant: those are sent. Returns what it was.
    pub(crate) fn set_dry_run(&mut self, dry_run: Option<DryRun>) -> Option<DryRun> {
        std::mem::replace(&mut self.dry_run, dry_run)
    }

    /// Sends what only prepares the request that is meant: really, also in a dry run, and without having its answer wrapped.
    pub(crate) fn preparing<T>(&mut self, ask: impl FnOnce(&Self) -> T) -> T {
        let (dry_run, wrap_ttl) = (self.dry_run.take(), self.wrap_ttl.take());
        let answer = ask(self);
        (self.dry_run, self.wrap_ttl) = (dry_run, wrap_ttl);
        answer
    }

    pub(crate) fn address(&self) -> &str {
        self.address.shown()
    }

    /// Sends one request and reads its answer. A refusal (any status outside 200–399) is an error.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Setup`.
    pub(crate) fn send(&self, call: &ApiRequest) -> Result<Answer, ClientError> {
        let url = self.url_unless_dry(call)?;
        let headers = self.headers_of(call);
        let body = call.body_bytes();
        let _waiting = self.waiting(call);
        let (mut url, mut redirected) = (url, false);
        loop {
            let answer = self.send_with_retries(call.method, &url, &headers, body.as_deref())?;
            match answer.redirect() {
                Some(location) if !redirected && !self.disable_redirects => {
                    url = address::redirected(&url, location)?;
                    redirected = true;
                }
                _ => return answer.or_refusal(call.method, &url),
            }
        }
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// [`ClientError::NotSent`]: something else was asked for than that it is sent.
    fn url_unless_dry(&self, call: &ApiRequest) -> Result<String, ClientError> {
        let url = self.address.url(&call.path, &call.query);
        Err(ClientError::NotSent(match self.dry_run {
            None => return Ok(url),
            Some(DryRun::CurlString) => {
                curl::line(call, &url, &self.headers_of(call), &self.tls, self.address.socket())
            }
            Some(DryRun::Policy) => policy::rule(call),
        }))
    }

    fn waiting(&self, call: &ApiRequest) -> Option<waiting::Waiting> {
        self.shows_waiting.then(|| waiting::Waiting::start(call.method, &call.path))
    }

    /// The answer as an envelope; `None` when it has no body, and for a 404 that says nothing.
    pub(crate) fn logical(&self, call: &ApiRequest) -> Result<Option<Secret>, ClientError> {
        match self.send(call) {
            Ok(answer) => answer.secret(),
            Err(ClientError::Refused(refusal)) if refusal.status == 404 => refusal.secret_of_not_found(),
            Err(error) => Err(error),
        }
    }

    /// The same for what may be a text as well.
    pub(crate) fn logical_or_text(&self, call: &ApiRequest) -> Result<Reading, ClientError> {
        let secret = match self.send(call) {
            Ok(answer) => match answer.plain_text() {
                Some(text) => return Ok(Reading::Text(text.to_owned())),
                None => answer.secret()?,
            },
            Err(ClientError::Refused(refusal)) if refusal.status == 404 => refusal.secret_of_not_found()?,
            Err(error) => return Err(error),
        };
        Ok(secret.map_or(Reading::Nothing, |secret| Reading::Secret(Box::new(secret))))
    }

    /// The same for writes and deletes, whose 404 is an error and says so.
    pub(crate) fn logical_or_not_found(&self, call: &ApiRequest) -> Result<Option<Secret>, ClientError> {
        self.send(call)?.secret()
    }

    fn headers_of(&self, call: &ApiRequest) -> Vec<(String, SecretString)> {
        let mut headers = vec![("X-Vault-Request".to_owned(), SecretString::from("true"))];
        headers.extend(self.token.clone().map(|token| ("X-Vault-Token".to_owned(), token)));
        headers
            .extend(self.namespace.as_deref().map(|name| ("X-Vault-Namespace".to_owned(), SecretString::from(name))));
        headers.extend(self.wrap_ttl.as_deref().map(|ttl| ("X-Vault-Wrap-Ttl".to_owned(), SecretString::from(ttl))));
        headers.extend(call.content_type().map(|kind| ("Content-Type".to_owned(), SecretString::from(kind))));
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), SecretString::from(value.as_str()))));
        headers
    }

    fn send_with_retries(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, SecretString)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ClientError> {
        let mut wait = RETRY_WAITS.0;
        let mut left = self.retries;
        loop {
            let outcome = self.send_once(method, url, headers, body);
            let again = match &outcome {
                // A server that says 501 will say so again.
                Ok(answer) => answer.status == 412 || (answer.status >= 500 && answer.status != 501),
                Err(ClientError::Transport { .. }) => true,
                Err(_) => false,
            };
            if !again || left == 0 {
                return outcome;
            }
            left -= 1;
            std::thread::sleep(wait);
            wait = (wait * 2).min(RETRY_WAITS.1);
        }
    }

    fn send_once(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, SecretString)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ClientError> {
        let request = self.head(method, url, headers)?;
        let failed = |why: String| ClientError::Transport { verb: verb(method), url: url.to_owned(), why };
        let unfit = |_| failed("this is not a request that can be sent".to_owned());
        let sent = match body {
            Some(bytes) => self.agent.run(request.body(bytes).map_err(unfit)?),
            None => self.agent.run(request.body(()).map_err(unfit)?),
        };
        let response = sent.map_err(|error| failed(tls::explain(&error, &self.address)))?;
        Answer::read(response).map_err(|error| failed(error.to_string()))
    }

    fn head(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, SecretString)],
    ) -> Result<ureq::http::request::Builder, ClientError> {
        let mut request = ureq::http::Request::builder().method(method).uri(self.tls.uri_for(url));
        if let Some(host) = self.tls.host_header(url) {
            request = request.header("Host", host);
        }
        for (name, value) in headers {
            let mut value = ureq::http::HeaderValue::from_str(value.expose_secret())
                .map_err(|_| ClientError::Setup(format!("the value of header `{name}` cannot be sent")))?;
            value.set_sensitive(true);
            request = request.header(name.as_str(), value);
        }
        Ok(request)
    }
}

/// The method as Vault's errors spell it: `Get`.
fn verb(method: &str) -> String {
    let mut letters = method.chars();
    letters.next().into_iter().chain(letters.flat_map(char::to_lowercase)).collect()
}

fn check_header(name: &str, value: &str) -> Result<(), ClientError> {
    if name.to_ascii_lowercase().starts_with("x-vault-") {
        return Err(ClientError::Setup(format!(
            "failed to setup Headers[{name}]: Header starting by 'X-Vault-' are for internal usage only"
        )));
    }
    let fits =
        ureq::http::HeaderName::from_bytes(name.as_bytes()).is_ok() && ureq::http::HeaderValue::from_str(value).is_ok();
    if fits { Ok(()) } else { Err(ClientError::Setup(format!("`{name}` is not a header that can be sent"))) }
}

/// `team` becomes `team/`; the root namespace needs no header.
fn canonical_namespace(name: String) -> Option<String> {
    let bare = name.trim_matches('/');
    (!bare.is_empty() && bare != "root").then(|| format!("{bare}/"))
}

#[cfg(test)]
mod tests;
