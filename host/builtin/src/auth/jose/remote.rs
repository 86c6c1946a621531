//! Key sets that a provider publishes: fetched, kept for a while, fetched again when a token names a key that is not known.
//!
//! Each server fetches for itself and keeps keys in memory only; they are public. At most one fetch of a source is under way, in a task
//! of its own, so that a client that hangs up ends it for nobody else.
//!
//! A login uses keys up to [`FRESH`] old as they are. Older ones are fetched anew first, so that a key that its provider has withdrawn
//! is refused after that time; when the provider does not answer within [`PATIENCE`], the old keys go on being used until they are
//! [`STALE_MAX`] old. After a fetch that failed no login waits for the next one that has old keys.
//!
//! Anybody may name an unknown key. Such a token has its source fetched again at most every [`AGAIN`], and because of one address at
//! most every [`AGAIN_FROM_ADDRESS`], so that whoever does that cannot use up the turns of those with a new key.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use leasehold_core::seams::host::Clock;
use leasehold_model::MountAccessor;
use serde::Deserialize;

use super::fetch::{FetchError, Fetcher, check_address};
use super::key::KeySet;

const FRESH: Duration = Duration::from_secs(5 * 60);
const STALE_MAX: Duration = Duration::from_secs(6 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(10);
const AGAIN_FROM_ADDRESS: Duration = Duration::from_secs(60);
/// Addresses that are remembered for one source. Beyond that only [`AGAIN`] holds.
const ADDRESSES_MAX: usize = 1_024;
/// Sources that are remembered; an operator who names more has them fetched more often.
const SOURCES_MAX: usize = 1_024;

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::auth) enum Source {
    /// A key set.
    Jwks { url: String, ca_pem: String },
    /// An OpenID provider, whose configuration names its key set.
    Discovery { issuer: String, ca_pem: String },
}

impl Source {
    fn address(&self) -> &str {
        match self {
            Self::Jwks { url, .. } => url.split('?').next().unwrap_or_default(),
            Self::Discovery { issuer, .. } => issuer,
        }
    }
}

/// What of a provider's configuration counts (OpenID Connect Discovery 1.0, 3).
#[derive(Deserialize)]
struct Provider {
    issuer: String,
    jwks_uri: String,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// When they came, and when they were asked for last, by the steady clock.
    fetched_at: Option<Duration>,
    tried_at: Option<Duration>,
    failure: String,
    asked_by: HashMap<Option<IpAddr>, Duration>,
    running: Option<Shared<BoxFuture<'static, ()>>>,
}

struct Entry {
    mount: MountAccessor,
    source: Source,
    state: Mutex<State>,
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key sets of all mounts of a method.
pub(in crate::auth) struct RemoteKeys {
    fetcher: Arc<Fetcher>,
    entries: Mutex<BTreeMap<(MountAccessor, Source), Arc<Entry>>>,
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteKeys")
    }
}

impl RemoteKeys {
    pub(in crate::auth) fn new(fetcher: Arc<Fetcher>) -> Self {
        Self { fetcher, entries: Mutex::default() }
    }

    /// The keys of a source.
    ///
    /// # Errors
    /// Why there are none: the provider cannot be reached, or shows no keys.
    pub(in crate::auth) async fn keys(
        &self,
        mount: &MountAccessor,
        source: &Source,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<KeySet>, String> {
        let entry = self.entry(mount, source);
        let (known, running) = {
            let mut state = entry.state();
            let now = clock.steady();
            let age = state.fetched_at.map(|at| now.saturating_sub(at));
            let known = state.keys.clone().filter(|_| age.is_some_and(|age| age < STALE_MAX));
            if let Some(known) = &known
                && age.is_some_and(|age| age < FRESH)
            {
                return Ok(Arc::clone(known));
            }
            let was_just_tried = state.tried_at.is_some_and(|at| now.saturating_sub(at) < AGAIN);
            if was_just_tried && !state.is_running() {
                return known.ok_or_else(|| state.failure.clone());
            }
            (known, self.run(&entry, &mut state, clock))
        };
        match known {
            Some(known) if !entry.state().failure.is_empty() => Ok(known),
            // Whatever comes after that is there for the next login.
            Some(known) => {
                let _ = tokio::time::timeout(PATIENCE, running).await;
                Ok(entry.state().keys.clone().unwrap_or(known))
            }
            None => {
                running.await;
                let state = entry.state();
                state.keys.clone().ok_or_else(|| match state.failure.as_str() {
                    "" => FetchError::Busy.to_string(),
                    failure => failure.to_owned(),
                })
            }
        }
    }

    /// Other keys than `seen`, because a token names one that is not among these. `None`: there are no others now.
    pub(in crate::auth) async fn newer(
        &self,
        mount: &MountAccessor,
        source: &Source,
        clock: &Arc<dyn Clock>,
        client: Option<IpAddr>,
        seen: &Arc<KeySet>,
    ) -> Option<Arc<KeySet>> {
        let entry = self.entry(mount, source);
        let others = |state: &State| state.keys.clone().filter(|keys| !Arc::ptr_eq(keys, seen));
        let running = {
            let mut state = entry.state();
            if let Some(others) = others(&state) {
                return Some(others);
            }
            if !state.is_running() && !state.may_ask_again(client, clock.steady()) {
                return None;
            }
            self.run(&entry, &mut state, clock)
        };
        running.await;
        others(&entry.state())
    }

    /// Fetches a source without keeping what comes: whether a configuration can work.
    pub(in crate::auth) async fn probe(&self, mount: &MountAccessor, source: &Source) -> Result<(), String> {
        fetched(&self.fetcher, mount, source).await.map(|_| ()).map_err(|why| why.to_string())
    }

    /// Forgets what a mount's sources gave.
    pub(in crate::auth) fn forget(&self, mount: &MountAccessor) {
        self.entries().retain(|(accessor, _), _| accessor != mount);
        self.fetcher.forget(mount);
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<(MountAccessor, Source), Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, mount: &MountAccessor, source: &Source) -> Arc<Entry> {
        let mut entries = self.entries();
        let key = (mount.clone(), source.clone());
        if !entries.contains_key(&key) && entries.len() >= SOURCES_MAX {
            entries.clear();
        }
        let made = || Arc::new(Entry { mount: mount.clone(), source: source.clone(), state: Mutex::default() });
        Arc::clone(entries.entry(key).or_insert_with(made))
    }

    /// The fetch that is under way, or one that begins now.
    fn run(&self, entry: &Arc<Entry>, state: &mut State, clock: &Arc<dyn Clock>) -> Shared<BoxFuture<'static, ()>> {
        // One that is over and still there has panicked: it cannot stand in the way of the next one.
        if let Some(running) = state.running.as_ref().filter(|running| running.peek().is_none()) {
            return running.clone();
        }
        state.tried_at = Some(clock.steady());
        let (fetcher, entry, clock) = (Arc::clone(&self.fetcher), Arc::clone(entry), Arc::clone(clock));
        let task = tokio::spawn(async move {
            let found = fetched(&fetcher, &entry.mount, &entry.source).await;
            entry.state().take(found, clock.steady(), entry.source.address());
        });
        let running = task.map(|_| ()).boxed().shared();
        state.running = Some(running.clone());
        running
    }
}

impl State {
    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.peek().is_none())
    }

    fn may_ask_again(&mut self, client: Option<IpAddr>, now: Duration) -> bool {
        if self.tried_at.is_some_and(|at| now.saturating_sub(at) < AGAIN) {
            return false;
        }
        self.asked_by.retain(|_, at| now.saturating_sub(*at) < AGAIN_FROM_ADDRESS);
        if self.asked_by.contains_key(&client) {
            return false;
        }
        if self.asked_by.len() < ADDRESSES_MAX {
            self.asked_by.insert(client, now);
        }
        true
    }

    fn take(&mut self, found: Result<KeySet, Unfetched>, now: Duration, address: &str) {
        self.running = None;
        // A provider that took long is left alone as long as one that answered at once.
        self.tried_at = Some(now);
        match found {
            Ok(keys) => {
                self.keys = Some(Arc::new(keys));
                self.fetched_at = Some(now);
                self.failure.clear();
            }
            // This server had no place for the request: that says nothing of the provider.
            Err(Unfetched::Fetch(FetchError::Busy)) => self.tried_at = None,
            Err(why) => {
                tracing::warn!(address, "the keys of {address} could not be fetched: {why}");
                self.failure = why.to_string();
                // Too old to be used again.
                if self.fetched_at.is_none_or(|at| now.saturating_sub(at) >= STALE_MAX) {
                    self.keys = None;
                }
            }
        }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum Unfetched {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The answer is none that counts.
    #[error("{0}")]
    Answer(String),
}

async fn fetched(fetcher: &Fetcher, mount: &MountAccessor, source: &Source) -> Result<KeySet, Unfetched> {
    let wrong = |why: String| Unfetched::Answer(why);
    let (url, ca_pem) = match source {
        Source::Jwks { url, ca_pem } => (url.clone(), ca_pem),
        Source::Discovery { issuer, ca_pem } => {
            let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let text = fetcher.get(mount, &address, ca_pem).await?;
            let provider: Provider = serde_json::from_slice(&text)
                .map_err(|_| wrong(format!("{address} is no configuration of an OpenID provider")))?;
            // Otherwise one provider's document could stand for another's (OpenID Connect Discovery 1.0, 4.3).
            if provider.issuer != *issuer {
                return Err(wrong(format!("{address} is the configuration of another issuer")));
            }
            // A key set may lie on another host, as Google's does. It was named over TLS; so must it be fetched, unless all of it is
            // on this machine.
            check_address(&provider.jwks_uri)
                .map_err(|why| wrong(format!("the jwks_uri of {address} cannot be used: {why}")))?;
            if issuer.starts_with("https:") && !provider.jwks_uri.starts_with("https:") {
                return Err(wrong(format!("the jwks_uri of {address} leads away from https")));
            }
            (provider.jwks_uri, ca_pem)
        }
    };
    let text = fetcher.get(mount, &url, ca_pem).await?;
    KeySet::from_jwks(&text).map_err(|error| wrong(format!("{}: {error}", url.split('?').next().unwrap_or_default())))
}

#[cfg(test)]
mod tests;
