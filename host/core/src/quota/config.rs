//! `sys/quotas/config`: what no rate limit counts, and what is said of those that refuse.

use std::borrow::Cow;
use std::sync::Arc;

use leasehold_model::lock::RwLock;
use serde::{Deserialize, Serialize};

use crate::codec::encode;
use crate::commit::{commit_surely, read};
use crate::keys;
use crate::names;
use crate::seams::error::RequestError;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};

/// What OpenBao exempts as long as nobody says otherwise: what operators need when a server is in trouble.
const EXEMPT: [&str; 7] = [
    "sys/generate-recovery-token/attempt",
    "sys/generate-recovery-token/update",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/seal-status",
    "sys/unseal",
];

/// Paths that can be exempted: every request is held against all of them.
const PATHS_MAX: usize = 1_000;
/// All of them together.
const PATHS_LEN_MAX: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// A path stands for all that begin with it, with or without a `*` at its end; with a `!` before it, it is an exception.
    pub exempt_paths: Vec<String>,
    /// The same; Vault tells them apart where there are namespaces.
    #[serde(default)]
    pub absolute_exempt_paths: Vec<String>,
    /// Requests that a rate limit refuses leave an audit record.
    pub audits_refusals: bool,
    /// Answers say how much is left.
    pub shows_headers: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            exempt_paths: EXEMPT.map(str::to_owned).to_vec(),
            absolute_exempt_paths: Vec::new(),
            audits_refusals: false,
            shows_headers: false,
        }
    }
}

impl Config {
    /// Whether no rate limit counts requests to this path. The longest entry that fits it decides.
    #[must_use]
    pub fn exempts(&self, path: &str) -> bool {
        // Or an exception would hold in one case of a name only.
        let folds = names::fold(path);
        let path = in_case(path, folds);
        let entries = self.exempt_paths.iter().chain(&self.absolute_exempt_paths).filter(|entry| !entry.is_empty());
        let fits = entries.filter_map(|entry| {
            let (bare, is_exception) = entry.strip_prefix('!').map_or((entry.as_str(), false), |bare| (bare, true));
            let beginning = in_case(bare.strip_suffix('*').unwrap_or(bare), folds);
            path.starts_with(&*beginning).then_some((beginning.len(), is_exception))
        });
        fits.max().is_some_and(|(_, is_exception)| !is_exception)
    }
}

fn in_case(text: &str, folds: bool) -> Cow<'_, str> {
    if folds { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) }
}

/// The configuration in memory. Writes go to the store first.
pub struct Settings {
    storage: Arc<dyn Storage>,
    config: RwLock<Arc<Config>>,
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settings")
    }
}

impl Settings {
    pub(super) async fn load(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let config = stored(&*storage).await?;
        Ok(Self { storage, config: RwLock::new(Arc::new(config)), writing: tokio::sync::Mutex::default() })
    }

    #[must_use]
    pub fn get(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// # Errors
    /// Too many paths, or as storage.
    pub(crate) async fn write(&self, config: Config) -> Result<(), RequestError> {
        let paths = || config.exempt_paths.iter().chain(&config.absolute_exempt_paths);
        if paths().count() > PATHS_MAX || paths().map(String::len).sum::<usize>() > PATHS_LEN_MAX {
            return Err(RequestError::Invalid(format!(
                "more than {PATHS_MAX} exempt paths, or {PATHS_LEN_MAX} bytes of them, cannot be stored"
            )));
        }
        let _writing = self.writing.lock().await;
        let (key, value) = (keys::quota_config(), encode(&config)?);
        let batch = Batch::new().put(key.clone(), value.clone(), Expect::Anything);
        if let Err(error) = commit_surely(&*self.storage, batch, &key, &value).await {
            self.read_again().await;
            return Err(error.into());
        }
        *self.config.write() = Arc::new(config);
        Ok(())
    }

    pub(super) async fn follow(&self) -> Result<(), StorageError> {
        let _writing = self.writing.lock().await;
        *self.config.write() = Arc::new(stored(&*self.storage).await?);
        Ok(())
    }

    /// After a write of which nobody knows whether it happened.
    async fn read_again(&self) {
        match stored(&*self.storage).await {
            Ok(config) => *self.config.write() = Arc::new(config),
            Err(error) => {
                tracing::warn!(%error, "the configuration of quotas could not be read again after a failed write")
            }
        }
    }
}

async fn stored(storage: &dyn Storage) -> Result<Config, StorageError> {
    Ok(read(storage, &keys::quota_config()).await?.record.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_entry_that_fits_says_whether_a_path_is_exempt() {
        let mut config = Config::default();
        assert!(config.exempts("sys/health") && config.exempts("sys/unseal") && config.exempts("sys/seal-status"));
        assert!(!config.exempts("sys/mounts") && !config.exempts("auth/token/lookup-self"));
        config.exempt_paths = ["kv/a", "!kv/a/b*", "kv/a/b/c/*", ""].map(str::to_owned).to_vec();
        for (path, wanted) in
            [("kv/a", true), ("kv/ab", true), ("kv/a/b", false), ("kv/a/bc", false), ("kv/a/b/c/d", true), ("x", false)]
        {
            assert_eq!(config.exempts(path), wanted, "{path}");
        }
        config.exempt_paths = ["auth/u", "!auth/u/login/Ada"].map(str::to_owned).to_vec();
        for (path, wanted) in [("auth/u/login/eve", true), ("auth/u/login/ADA", false), ("auth/u/login/ada", false)] {
            assert_eq!(config.exempts(path), wanted, "{path}");
        }
        config.exempt_paths.clear();
        assert!(!config.exempts("sys/health"), "an empty list exempts nothing");
        config.absolute_exempt_paths.push("*".to_owned());
        assert!(config.exempts("sys/health"));
    }
}
