//! Requests to the servers that an operator names in a mount's configuration: a provider of keys, a Kubernetes cluster.
//!
//! Bounded in time, in size and in how many are under way, and off the threads that serve requests. Redirects are not followed: only
//! the address that stands in the configuration, or in a document that came from there, is ever asked.
//!
//! Each address of a mount has its own share of the places, and only one of them after it has left a request unanswered, until it
//! answers again: a slow server delays nobody but those who need it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_https::KnownHost;
use leasehold_model::MountAccessor;
use leasehold_tls::{NameRule, Proof, ServerVerifier, Versions};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use ureq::http::Uri;
use zeroize::Zeroizing;

/// One request, from the look-up of the name to the last byte; and before that the wait for a place.
const TIMEOUT: Duration = Duration::from_secs(8);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The longest answer that is read.
const ANSWER_MAX: u64 = 512 << 10;
/// Longer addresses are refused.
const ADDRESS_MAX: usize = 2_048;
/// Requests under way at once, and such that wait for one of these places: of one address of a mount, and of all.
const SHARE: usize = 8;
const SHARE_WAITING_MAX: usize = 56;
const PLACES: usize = 32;
const WAITING_MAX: usize = 224;
/// Shares that are remembered. Beyond that all begin anew.
const SHARES_MAX: usize = 1_024;
/// Sets of trusted certificates that are kept parsed.
const TRUST_MAX: usize = 64;

/// Why there is no answer. Quotes nothing that the other side sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum FetchError {
    #[error("too many requests to other servers are under way")]
    Busy,
    #[error("the given certificate authorities cannot be used: {0}")]
    Trust(String),
    #[error("{address} does not answer: {why}")]
    Away { address: String, why: String },
    #[error("{address} answered {status}{}", if (300..400).contains(status) { ": redirects are not followed, configure the address that it leads to" } else { "" })]
    Status { address: String, status: u16 },
}

/// What to send.
pub(in crate::auth) struct Post {
    pub bearer: Zeroizing<String>,
    /// Holds the token that is reviewed: wiped when it was sent.
    pub body: Zeroizing<Vec<u8>>,
}

/// Holds the bearer token of a cluster.
impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Post([REDACTED])")
    }
}

/// Sends requests, for all mounts together.
pub(in crate::auth) struct Fetcher {
    places: Arc<Semaphore>,
    waiting: Semaphore,
    shares: Mutex<BTreeMap<(MountAccessor, String), Arc<Share>>>,
    trust: Arc<Trust>,
}

/// What one address of a mount may take up.
struct Share {
    places: Arc<Semaphore>,
    waiting: Semaphore,
    /// Its last request that ended has not been answered in time.
    is_silent: AtomicBool,
    /// The one request that a silent server is asked at a time.
    trial: Semaphore,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(SHARE)),
            waiting: Semaphore::new(SHARE + SHARE_WAITING_MAX),
            is_silent: AtomicBool::new(false),
            trial: Semaphore::new(1),
        }
    }
}

/// Who vouches for servers, by the PEM text that says so.
#[derive(Default)]
struct Trust(Mutex<BTreeMap<String, Arc<ClientConfig>>>);

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}

impl Default for Fetcher {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            waiting: Semaphore::new(PLACES + WAITING_MAX),
            shares: Mutex::default(),
            trust: Arc::default(),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an operator may name this address: `https`, or `http` to this machine itself. Over plain HTTP to anywhere else, whoever sits
/// on the way could put in keys of their own.
///
/// # Errors
/// In words for the operator.
pub(in crate::auth) fn check_address(address: &str) -> Result<(), String> {
    if address.len() > ADDRESS_MAX {
        return Err(format!("the address is longer than {ADDRESS_MAX} bytes"));
    }
    let wrong = || "the address must be written as `https://host:port/path`".to_owned();
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("there must be no user and no password in the address".to_owned());
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback(host) => Ok(()),
        Some("http") => Err(
            "plain http is taken to localhost only: whoever sits on the way could put in keys of their own; use https"
                .to_owned(),
        ),
        _ => Err(wrong()),
    }
}

/// Without the query, in which some put keys.
fn shown(address: &str) -> String {
    address.split(['?', '#']).next().unwrap_or_default().to_owned()
}

impl Fetcher {
    /// What an address answers to a GET; 200 only. `ca_pem`: who may vouch for the server, empty for whom the system trusts.
    pub(in crate::auth) async fn get(
        &self,
        mount: &MountAccessor,
        address: &str,
        ca_pem: &str,
    ) -> Result<Vec<u8>, FetchError> {
        match self.send(mount, address, ca_pem, None).await? {
            (200, body) => Ok(body),
            (status, _) => Err(FetchError::Status { address: shown(address), status }),
        }
    }

    /// Status and body of the answer to a POST of a JSON document.
    pub(in crate::auth) async fn post(
        &self,
        mount: &MountAccessor,
        address: &str,
        ca_pem: &str,
        post: Post,
    ) -> Result<(u16, Vec<u8>), FetchError> {
        self.send(mount, address, ca_pem, Some(post)).await
    }

    /// Forgets how a mount's servers have answered.
    pub(in crate::auth) fn forget(&self, mount: &MountAccessor) {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).retain(|(accessor, _), _| accessor != mount);
    }

    fn share(&self, mount: &MountAccessor, address: &str) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (mount.clone(), address.to_owned());
        if !shares.contains_key(&key) && shares.len() >= SHARES_MAX {
            shares.clear();
        }
        Arc::clone(shares.entry(key).or_default())
    }

    async fn send(
        &self,
        mount: &MountAccessor,
        address: &str,
        ca_pem: &str,
        post: Option<Post>,
    ) -> Result<(u16, Vec<u8>), FetchError> {
        let away = |why: String| FetchError::Away { address: shown(address), why };
        check_address(address).map_err(away)?;
        let share = self.share(mount, address);
        let _trial = if share.is_silent.load(Ordering::SeqCst) {
            let silent = |_| away("it has left the last request unanswered, and is tried once at a time".to_owned());
            Some(share.trial.try_acquire().map_err(silent)?)
        } else {
            None
        };
        let _here = share.waiting.try_acquire().map_err(|_| FetchError::Busy)?;
        let _anywhere = self.waiting.try_acquire().map_err(|_| FetchError::Busy)?;
        let places = tokio::time::timeout(WAIT_MAX, async {
            let own = Arc::clone(&share.places).acquire_owned().await.map_err(|_| FetchError::Busy)?;
            Ok::<_, FetchError>((own, Arc::clone(&self.places).acquire_owned().await.map_err(|_| FetchError::Busy)?))
        });
        let places = places.await.map_err(|_| FetchError::Busy)??;
        let (url, ca_pem, trust) = (address.to_owned(), ca_pem.to_owned(), Arc::clone(&self.trust));
        let asked = Arc::clone(&share);
        let sent = tokio::task::spawn_blocking(move || {
            // The places are given back when the thread is, also when nobody waits for the answer any more.
            let _places = places;
            let tls = if url.starts_with("https:") { Some(trust.of(&ca_pem)?) } else { None };
            let answered = ask(&url, tls, post);
            asked.is_silent.store(matches!(answered, Err(ureq::Error::Timeout(_))), Ordering::SeqCst);
            answered.map_err(|error| FetchError::Away { address: shown(&url), why: explained(&error) })
        });
        sent.await.map_err(|_| away("the request ended early".to_owned()))?
    }
}

impl Trust {
    fn of(&self, ca_pem: &str) -> Result<Arc<ClientConfig>, FetchError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(ca_pem).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(client(ca_pem).map_err(FetchError::Trust)?);
        // The system's bundle is read again each time: it changes without a word.
        if !ca_pem.is_empty() {
            let mut trust = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if trust.len() >= TRUST_MAX {
                trust.clear();
            }
            trust.insert(ca_pem.to_owned(), Arc::clone(&made));
        }
        Ok(made)
    }
}

/// Whether certificates of authorities are such.
///
/// # Errors
/// In words for the operator.
pub(in crate::auth) fn check_authorities(ca_pem: &str) -> Result<(), String> {
    if ca_pem.trim().is_empty() { Ok(()) } else { client(ca_pem).map(|_| ()) }
}

fn client(ca_pem: &str) -> Result<ClientConfig, String> {
    let roots = if ca_pem.trim().is_empty() {
        match leasehold_tls::system_bundle() {
            Some(path) => {
                let bundle = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                leasehold_tls::certificates(&bundle).map_err(|why| format!("{} {why}", path.display()))?
            }
            None => Vec::new(),
        }
    } else {
        leasehold_tls::certificates(ca_pem.as_bytes()).map_err(|why| format!("the text {why}"))?
    };
    let verifier = ServerVerifier::new(Proof::Name, NameRule::Alternative, roots);
    leasehold_tls::client_config(verifier, None, Versions::Both).map_err(|error| error.to_string())
}

/// Blocks until the answer is there.
fn ask(url: &str, tls: Option<Arc<ClientConfig>>, post: Option<Post>) -> Result<(u16, Vec<u8>), ureq::Error> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(32 << 10)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")));
    // What is on this machine is not looked for behind a proxy.
    if url.parse::<Uri>().is_ok_and(|url| url.host().is_some_and(is_loopback)) {
        config = config.proxy(None);
    }
    let agent = leasehold_https::agent(config.build(), tls, KnownHost::new(None));
    let sent = match post {
        None => agent.get(url).header("Accept", "application/json").call(),
        Some(Post { bearer, body }) => agent
            .post(url)
            .header("Accept", "application/json")
            .header("Content-Type", "application/json")
            .header("Authorization", format!("Bearer {}", *bearer))
            .send(body.as_slice()),
    };
    let mut answer = sent?;
    let status = answer.status().as_u16();
    Ok((status, answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec()?))
}

fn explained(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => format!("not within {} s", TIMEOUT.as_secs()),
        ureq::Error::BodyExceedsLimit(_) => format!("the answer is longer than {} KiB", ANSWER_MAX >> 10),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_machine_itself_may_be_named() {
        for good in [
            "https://a.example/x",
            "https://10.0.0.1:8443",
            "http://127.0.0.1:1/",
            "http://localhost",
            "http://[::1]:80/x",
        ] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "x",
            "http://a.example/",
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "https://me:secret@a.example/",
            "http://127.0.0.1@a.example/",
            "file:///etc/passwd",
            "ftp://a.example",
            "gopher://127.0.0.1/",
            "//a.example",
            "https://",
        ] {
            let said = check_address(bad).unwrap_err();
            assert!(!said.contains("secret"), "{bad}: {said}");
        }
        assert!(check_address(&format!("https://a/{}", "x".repeat(ADDRESS_MAX))).is_err());
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(shown("https://a/keys?code=secret#x"), "https://a/keys");
    }

    #[test]
    fn what_is_sent_is_not_shown() {
        let post = Post { bearer: "secret".to_owned().into(), body: b"secret".to_vec().into() };
        assert!(!format!("{post:?}").contains("secret"));
    }
}
