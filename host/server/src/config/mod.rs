//! The configuration: HCL or JSON as Vault's, one file or several. Everything wrong with it is said at once, before
//! anything is opened.
//!
//! Start with [`Config`], then `settings` (the table of everything that may be said), `read` (from text), `files` (which
//! files), `environment` (variables) and `defaults` (every number).

pub(crate) mod defaults;
pub(crate) mod environment;
pub(crate) mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod read;
pub(crate) mod settings;
pub(crate) mod suites;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use leasehold_core::audit::DeviceEntry;
use leasehold_http::listener::{ForwardedFor, LetsIn, ProxyProtocol, ResponseHeaders};
use leasehold_model::Ttl;
use leasehold_seals::{StaticSettings, TransitSettings};

pub(crate) use read::{Migration, Refused, Remark, Source, read, read_development, read_migration};

/// Where everything is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Sqlite(PathBuf),
    Postgresql(PostgresqlStore),
}

/// Holds a password, and so is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ConnectionUrl(pub(crate) String);

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionUrl(…)")
    }
}

/// `storage "postgresql"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresqlStore {
    /// May come from the environment instead.
    pub(crate) connection_url: Option<ConnectionUrl>,
    pub(crate) table: Option<String>,
    pub(crate) max_parallel: Option<usize>,
    pub(crate) max_idle_connections: Option<usize>,
    pub(crate) skip_create_table: bool,
    pub(crate) max_connect_retries: Option<usize>,
}

impl Store {
    /// Where it is, for people; without a password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Memory => "inmem".to_owned(),
            Self::Sqlite(path) => format!("sqlite {}", path.display()),
            Self::Postgresql(store) => {
                format!("postgresql, tables that begin with `{}`", store.table.as_deref().unwrap_or("leasehold"))
            }
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "inmem",
            Self::Sqlite(_) => "sqlite",
            Self::Postgresql(_) => "postgresql",
        }
    }
}

/// `seal "static"` or `seal "transit"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealBlock {
    pub(crate) settings: SealSettings,
    /// The server moves away from it.
    pub(crate) disabled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SealSettings {
    Static(StaticSettings),
    Transit(Box<TransitSettings>),
}

impl SealSettings {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::Transit(_) => "transit",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) store: Store,
    /// What opens the server instead of people: one at most, and one at most that is disabled.
    pub(crate) seals: Vec<SealBlock>,
    pub(crate) listeners: Vec<Listener>,
    /// What no listener asks for a token.
    pub(crate) lets_in: LetsIn,
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
    pub(crate) pid_file: Option<PathBuf>,
    /// How long a request may take.
    pub(crate) request_time: Duration,
    /// Open connections over all listeners; none: what the limit of open files allows.
    pub(crate) connections_max: Option<usize>,
    pub(crate) connections_per_address_max: Option<usize>,
    /// What was accepted and has no effect.
    pub(crate) warnings: Vec<Remark>,
}

impl Config {
    /// A server in memory that listens nowhere.
    pub(crate) fn with_defaults() -> Self {
        Self {
            store: Store::Memory,
            seals: Vec::new(),
            listeners: Vec::new(),
            lets_in: LetsIn::default(),
            default_lease_ttl: defaults::DEFAULT_LEASE_TTL,
            max_lease_ttl: defaults::MAX_LEASE_TTL,
            api_addr: None,
            cluster_name: None,
            log_level: LogLevel::Info,
            log_format: LogFormat::Standard,
            audit_directory: None,
            connection_files_dir: None,
            audit: Vec::new(),
            pid_file: None,
            request_time: defaults::REQUEST_TIME,
            connections_max: None,
            connections_per_address_max: None,
            warnings: Vec::new(),
        }
    }

    /// What `wished` says otherwise and only a start takes over, in the file's words. The level of the log and everything
    /// about TLS but whether there is any are not among it.
    pub(crate) fn needs_restart_for(&self, wished: &Self) -> Vec<&'static str> {
        // Every field is placed here, so that no new one is passed over in silence.
        let Self {
            store,
            seals,
            listeners,
            lets_in,
            default_lease_ttl,
            max_lease_ttl,
            api_addr,
            cluster_name,
            log_level: _,
            log_format,
            audit_directory,
            connection_files_dir,
            audit,
            pid_file,
            request_time,
            connections_max,
            connections_per_address_max,
            warnings: _,
        } = wished;
        let without_tls = |all: &[Listener]| -> Vec<(Listener, bool)> {
            all.iter().map(|listener| (Listener { tls: None, ..listener.clone() }, listener.tls.is_some())).collect()
        };
        let changed = [
            ("storage", self.store != *store),
            ("seal", self.seals != *seals),
            ("listener", without_tls(&self.listeners) != without_tls(listeners)),
            ("enable_unauthenticated_access", self.lets_in != *lets_in),
            ("default_lease_ttl", self.default_lease_ttl != *default_lease_ttl),
            ("max_lease_ttl", self.max_lease_ttl != *max_lease_ttl),
            ("api_addr", self.api_addr != *api_addr),
            ("cluster_name", self.cluster_name != *cluster_name),
            ("log_format", self.log_format != *log_format),
            ("audit_directory", self.audit_directory != *audit_directory),
            ("connection_files_dir", self.connection_files_dir != *connection_files_dir),
            ("audit", self.audit != *audit),
            ("pid_file", self.pid_file != *pid_file),
            ("default_max_request_duration", self.request_time != *request_time),
            ("connections_max", self.connections_max != *connections_max),
            ("connections_per_address_max", self.connections_per_address_max != *connections_per_address_max),
        ];
        changed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: Address,
    /// None: plain HTTP.
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) forwarded_for: Option<ForwardedFor>,
    pub(crate) response_headers: ResponseHeaders,
    pub(crate) unauthenticated_metrics: bool,
    pub(crate) disallows_metrics: bool,
    /// What this listener asks for no token.
    pub(crate) lets_in: LetsIn,
}

impl Listener {
    /// Without TLS and without rules of its own.
    pub(crate) fn plain(address: Address) -> Self {
        Self {
            address,
            tls: None,
            proxy_protocol: None,
            forwarded_for: None,
            response_headers: ResponseHeaders::default(),
            unauthenticated_metrics: false,
            disallows_metrics: false,
            lets_in: LetsIn::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`.
    Tcp(String),
    Unix {
        path: PathBuf,
        mode: Option<u32>,
        user: Option<String>,
        group: Option<String>,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix { path, .. } => write!(f, "unix://{}", path.display()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// Certificate chain and key.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Whose certificates clients may show; none: they are not asked for any.
    pub(crate) client_ca: Option<PathBuf>,
    /// Clients are asked for a certificate, which the auth method `cert` judges.
    pub(crate) asks_client: bool,
    pub(crate) requires_client: bool,
    pub(crate) min: TlsVersion,
    pub(crate) max: TlsVersion,
    /// Of TLS 1.2, by Go's names; empty: all.
    pub(crate) suites: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TlsVersion {
    Tls12,
    Tls13,
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
    pub(crate) const NAMES: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

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
        // As Vault spells them, too.
        match text.as_str() {
            "err" => return Some(Self::Error),
            "notice" => return Some(Self::Info),
            "warning" => return Some(Self::Warn),
            _ => {}
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
    pub(crate) const NAMES: [&str; 2] = ["standard", "json"];

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
