//! The configuration file: HCL as Vault's. Everything wrong with it is said at once, before anything is opened.
//!
//! Start with [`Config`], then `read` (from text), and `defaults` (every number).

pub(crate) mod defaults;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use leasehold_core::audit::DeviceEntry;
use leasehold_model::Ttl;

pub(crate) use read::read;

/// Where everything is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Sqlite(PathBuf),
}

impl Store {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "inmem",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) store: Store,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) default_lease_ttl: Ttl,
    pub(crate) max_lease_ttl: Ttl,
    pub(crate) api_addr: Option<String>,
    pub(crate) cluster_name: Option<String>,
    pub(crate) log_level: LogLevel,
    pub(crate) log_format: LogFormat,
    /// Where audit files that the API enables may lie.
    pub(crate) audit_directory: Option<PathBuf>,
    /// Where files must lie that database connections name.
    pub(crate) connection_files_dir: Option<PathBuf>,
    /// Devices that this file declares.
    pub(crate) audit: Vec<DeviceEntry>,
    /// What was accepted and has no effect.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// What `wished` says otherwise and only a start takes over, in the file's words. The level of the log and the files of
    /// certificates are not among it.
    pub(crate) fn needs_restart_for(&self, wished: &Self) -> Vec<&'static str> {
        // Every field is placed here, so that no new one is passed over in silence.
        let Self {
            store,
            listeners,
            default_lease_ttl,
            max_lease_ttl,
            api_addr,
            cluster_name,
            log_level: _,
            log_format,
            audit_directory,
            connection_files_dir,
            audit,
            warnings: _,
        } = wished;
        let doors = |all: &[Listener]| -> Vec<(String, bool)> {
            all.iter().map(|listener| (listener.address.clone(), listener.tls.is_some())).collect()
        };
        let changed = [
            ("storage", self.store != *store),
            ("listener", doors(&self.listeners) != doors(listeners)),
            ("default_lease_ttl", self.default_lease_ttl != *default_lease_ttl),
            ("max_lease_ttl", self.max_lease_ttl != *max_lease_ttl),
            ("api_addr", self.api_addr != *api_addr),
            ("cluster_name", self.cluster_name != *cluster_name),
            ("log_format", self.log_format != *log_format),
            ("audit_directory", self.audit_directory != *audit_directory),
            ("connection_files_dir", self.connection_files_dir != *connection_files_dir),
            ("audit", self.audit != *audit),
        ];
        changed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: String,
    /// Certificate chain and key; none: plain HTTP.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        if text == "err" {
            return Some(Self::Error);
        }
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error].into_iter().find(|level| level.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Standard,
    Json,
}

impl LogFormat {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "standard" => Some(Self::Standard),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A declared audit device.
pub(crate) fn device(kind: &str, name: &str, description: String, options: BTreeMap<String, String>) -> DeviceEntry {
    let path = format!("{}/", name.trim_end_matches('/'));
    DeviceEntry { path, kind: kind.to_owned(), description, options, local: false }
}
