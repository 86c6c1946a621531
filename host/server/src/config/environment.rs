//! Environment variables: every one of Vault's and OpenBao's, what becomes of it, and what the server takes from them.
//!
//! A variable is looked for as `LEASEHOLD_X`, then `VAULT_X`, then `BAO_X`. `host/docs/configuration.md` shows the table (a
//! test compares them).
//!
//! Start with [`VARIABLES`], then [`Overlay`].

use std::path::PathBuf;

use leasehold_seals::{Hidden, TransitSettings};

use super::settings::Answer::{self, NoMeaning, NotSupported, Works};
use super::{Config, ConnectionUrl, LogFormat, LogLevel, SealBlock, SealSettings, Store};

pub(crate) const PREFIXES: [&str; 3] = ["LEASEHOLD_", "VAULT_", "BAO_"];

/// Which program reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Server,
    Client,
}

/// One row; the name is without its prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) by: By,
    pub(crate) answer: Answer,
    pub(crate) text: &'static str,
}

const fn row(name: &'static str, by: By, answer: Answer, text: &'static str) -> Variable {
    Variable { name, by, answer, text }
}

use By::{Client, Server};

const ONE_NODE: &str = "servers over one storage meet in it, and in nothing else";
const AGENT: &str = "it belongs to the agent or proxy, which is another program";
const NO_PLUGINS: &str = "engines are built in";
const NO_SSH: &str = "there is no `ssh` command";
const INLINE: &str = "write it to a file, and name that";

pub(crate) const VARIABLES: &[Variable] = &[
    row("LOG_LEVEL", Server, Works, "as `log_level`; `-log-level` wins over it"),
    row("LOG_FORMAT", Server, Works, "as `log_format`; `-log-format` wins over it"),
    row("API_ADDR", Server, Works, "as `api_addr`, over which it wins"),
    row("REDIRECT_ADDR", Server, Works, "the old name of `API_ADDR`"),
    row("ADVERTISE_ADDR", Server, Works, "the oldest name of `API_ADDR`"),
    row("DEV_ROOT_TOKEN_ID", Server, Works, "as `-dev-root-token-id`"),
    row("DEV_LISTEN_ADDRESS", Server, Works, "as `-dev-listen-address`"),
    row(
        "SEAL_TYPE",
        Server,
        Works,
        "`transit`: as `seal \"transit\" {}` without that block; `static`, `shamir`: the file must say so, too",
    ),
    row("TRANSIT_SEAL_KEY_NAME", Server, Works, "as `key_name` of `seal \"transit\"`, over which it wins"),
    row("TRANSIT_SEAL_MOUNT_PATH", Server, Works, "as `mount_path` of `seal \"transit\"`, over which it wins"),
    row(
        "TRANSIT_SEAL_DISABLE_RENEWAL",
        Server,
        Works,
        "as `disable_renewal` of `seal \"transit\"`, over which it wins",
    ),
    row("CLUSTER_ADDR", Server, NoMeaning, ONE_NODE),
    row("RAFT_NODE_ID", Server, NoMeaning, ONE_NODE),
    row("RAFT_PATH", Server, NoMeaning, "the storage is what the configuration says"),
    row("RAFT_RETRY_JOIN_AS_NON_VOTER", Server, NoMeaning, ONE_NODE),
    row("RAFT_AUTOPILOT_DISABLE", Server, NoMeaning, ONE_NODE),
    row("RAFT_FREELIST_TYPE", Server, NoMeaning, ONE_NODE),
    row("RAFT_FREELIST_SYNC", Server, NoMeaning, ONE_NODE),
    row("RAFT_INITIAL_MMAP_SIZE", Server, NoMeaning, ONE_NODE),
    row("RAFT_DISABLE_MAP_POPULATE", Server, NoMeaning, ONE_NODE),
    row("CLUSTER_TLS_SESSION_LOG_LEVEL", Server, NoMeaning, ONE_NODE),
    row("REDUNDANCY_ZONE", Server, NoMeaning, ONE_NODE),
    row("GRPC_MAX_STREAMS", Server, NoMeaning, ONE_NODE),
    row("GRPC_LOGGING", Server, NoMeaning, ONE_NODE),
    row(
        "K8S_POD_NAME",
        Server,
        NoMeaning,
        "the server sets no labels on its pod: use a readiness probe on `sys/health`",
    ),
    row(
        "K8S_NAMESPACE",
        Server,
        NoMeaning,
        "the server sets no labels on its pod: use a readiness probe on `sys/health`",
    ),
    row("PG_CONNECTION_URL", Server, Works, "as `connection_url` of `storage \"postgresql\"`, over which it wins"),
    row("LICENSE", Server, NoMeaning, "no licence is needed"),
    row("LICENSE_PATH", Server, NoMeaning, "no licence is needed"),
    row("UI", Server, NoMeaning, "there is no web interface"),
    row(
        "LOCAL_CONFIG",
        Server,
        NoMeaning,
        "it is read by the entry point of Vault's image: write a file, and say `-config`",
    ),
    row("DISABLE_USER_LOCKOUT", Server, NoMeaning, "the lockout of userpass and approle stays on"),
    row("DISABLE_PUBLIC_ACME", Server, NoMeaning, "there is no ACME server"),
    row("DISABLE_LOCAL_AUTH_MOUNT_ENTITIES", Server, NoMeaning, "there are no entities"),
    row("DISABLE_KV_GAUGE", Server, NoMeaning, "there is no such gauge"),
    row(
        "ENABLE_FILE_PERMISSIONS_CHECK",
        Server,
        NoMeaning,
        "files that hold secrets are made readable by their owner only",
    ),
    row("ALLOW_PENDING_REMOVAL_MOUNTS", Server, NoMeaning, "no engine is pending removal"),
    row(
        "SKIP_LOGGING_LEASE_EXPIRATIONS",
        Server,
        NoMeaning,
        "the end of each lease is logged; raise `log_level` to hide it",
    ),
    row("ROLLBACK_WORKERS", Server, NoMeaning, "there are no rollback workers"),
    row("LEASE_REVOCATION_WORKERS", Server, NoMeaning, "each target has slots of its own for revocations"),
    row("POSTUNSEAL_FUNC_CONCURRENCY", Server, NoMeaning, "unsealing does not depend on it"),
    row("DEV_TEMP_DIR", Server, NoMeaning, "a development server is in memory"),
    row("STACKTRACE_WRITE_TO_FILE", Server, NoMeaning, "there are no stack traces to write"),
    row("STACKTRACE_FILE_PATH", Server, NoMeaning, "there are no stack traces to write"),
    row("PPROF_WRITE_TO_FILE", Server, NoMeaning, "there are no profiles to write"),
    row("PPROF_FILE_PATH", Server, NoMeaning, "there are no profiles to write"),
    row("INMEM_LOG_ALL_OPS", Server, NoMeaning, "operations of the storage are not logged"),
    row("PLUGIN_METADATA_MODE", Server, NoMeaning, NO_PLUGINS),
    row("PLUGIN_AUTOMTLS_ENABLED", Server, NoMeaning, NO_PLUGINS),
    row("PLUGIN_MULTIPLEXING_OPT_OUT", Server, NoMeaning, NO_PLUGINS),
    row("PLUGIN_MLOCK_ENABLED", Server, NoMeaning, NO_PLUGINS),
    row("PLUGIN_TMPDIR", Server, NoMeaning, NO_PLUGINS),
    row("MIGRATE_CONFIG_PATH", Server, NoMeaning, "say `-config` of `operator migrate`"),
    row("INTERACTIVE_DEMO_SERVER", Server, NoMeaning, "use `-dev`"),
    row(
        "ADDR",
        Client,
        Works,
        "where the server is, `https://…`, `http://…` or `unix:///path`; `-address` wins over it",
    ),
    row("TOKEN", Client, Works, "the token; the file of `TOKEN_PATH` otherwise"),
    row("TOKEN_PATH", Client, Works, "the token's file; `~/.vault-token`"),
    row("NAMESPACE", Client, Works, "sent along; there is the root namespace only"),
    row("CACERT", Client, Works, "authorities of the server's certificate, or the certificate itself, PEM"),
    row("CAPATH", Client, Works, "the same as a folder"),
    row("CLIENT_CERT", Client, Works, "the client's certificate, PEM"),
    row("CLIENT_KEY", Client, Works, "its key, PEM"),
    row("TLS_SERVER_NAME", Client, Works, "the name that the server's certificate must have"),
    row("SKIP_VERIFY", Client, Works, "the server's certificate is not looked at"),
    row("CLIENT_TIMEOUT", Client, Works, "how long a request may take; 60s"),
    row("MAX_RETRIES", Client, Works, "how often a request that the server could not answer is repeated; 2"),
    row("WRAP_TTL", Client, Works, "answers are [wrapped](wrapping.md) for so long"),
    row("DISABLE_REDIRECTS", Client, Works, "redirects are not followed"),
    row("FORMAT", Client, Works, "`table`, `json` or `yaml`"),
    row("CLI_NO_COLOR", Client, Works, "plain text, as `NO_COLOR`"),
    row("CACERT_BYTES", Client, NotSupported, INLINE),
    row("CLIENT_CERT_BYTES", Client, NotSupported, INLINE),
    row("CLIENT_KEY_BYTES", Client, NotSupported, INLINE),
    row("HTTP_PROXY", Client, NotSupported, "use `HTTPS_PROXY` or `ALL_PROXY` without a prefix"),
    row("PROXY_ADDR", Client, NotSupported, "use `HTTPS_PROXY` or `ALL_PROXY` without a prefix"),
    row("SRV_LOOKUP", Client, NotSupported, "name the host in `ADDR`"),
    row("AGENT_ADDR", Client, NotSupported, "name it in `ADDR`"),
    row("RATE_LIMIT", Client, NotSupported, "pace the caller"),
    row("MFA", Client, NotSupported, "there is no multi-factor login"),
    row("UNWRAP_TOKEN", Client, NotSupported, "say `unwrap TOKEN`"),
    row("DETAILED", Client, NotSupported, "say `-detailed`"),
    row("CONFIG_PATH", Client, Works, "the file that names a `token_helper`; `~/.vault`, then `~/.bao`"),
    row("BINARY", Client, NoMeaning, "it belongs to Vault's tests"),
    row("SSH_EXECUTABLE", Client, NoMeaning, NO_SSH),
    row("SSH_HOST_KEY_HOSTNAMES", Client, NoMeaning, NO_SSH),
    row("SSH_HOST_KEY_MOUNT_POINT", Client, NoMeaning, NO_SSH),
    row("SSH_STRICT_HOST_KEY_CHECKING", Client, NoMeaning, NO_SSH),
    row("SSH_USER_KNOWN_HOSTS_FILE", Client, NoMeaning, NO_SSH),
    row("AGENT_CONFIG_PATH", Client, NoMeaning, AGENT),
    row("AGENT_DISABLE_KEEP_ALIVES", Client, NoMeaning, AGENT),
    row("AGENT_DISABLE_IDLE_CONNECTIONS", Client, NoMeaning, AGENT),
    row("PROXY_CONFIG_PATH", Client, NoMeaning, AGENT),
    row("PROXY_DISABLE_KEEP_ALIVES", Client, NoMeaning, AGENT),
    row("PROXY_DISABLE_IDLE_CONNECTIONS", Client, NoMeaning, AGENT),
];

/// What a server takes from its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) log_format: Option<LogFormat>,
    api_addr: Option<String>,
    pg_connection_url: Option<ConnectionUrl>,
    seal_type: Option<String>,
    seal: TransitOverlay,
    pub(crate) warnings: Vec<String>,
}

/// What a server takes from its environment for `seal "transit"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TransitOverlay {
    key_name: Option<String>,
    mount_path: Option<String>,
    disable_renewal: Option<bool>,
    /// What holds where the block says nothing. These are variables of clients, and a server often has them for the commands that are
    /// run beside it: they must not win.
    otherwise: TransitSettings,
}

impl TransitOverlay {
    fn of(find: impl Fn(&str) -> Option<(String, String)>) -> Result<Self, String> {
        let text = |name: &str| find(name).map(|(_, text)| text);
        let path = |name: &str| text(name).map(PathBuf::from);
        let switch = |name: &str| -> Result<Option<bool>, String> {
            let Some((name, text)) = find(name) else { return Ok(None) };
            match text.to_lowercase().as_str() {
                "1" | "t" | "true" => Ok(Some(true)),
                "0" | "f" | "false" => Ok(Some(false)),
                _ => Err(format!("the environment's `{name}` must be true or false")),
            }
        };
        Ok(Self {
            key_name: text("TRANSIT_SEAL_KEY_NAME"),
            mount_path: text("TRANSIT_SEAL_MOUNT_PATH"),
            disable_renewal: switch("TRANSIT_SEAL_DISABLE_RENEWAL")?,
            otherwise: TransitSettings {
                address: text("ADDR"),
                token: text("TOKEN").map(Hidden::new),
                namespace: text("NAMESPACE"),
                tls_ca_cert: path("CACERT"),
                tls_client_cert: path("CLIENT_CERT"),
                tls_client_key: path("CLIENT_KEY"),
                tls_server_name: text("TLS_SERVER_NAME"),
                // Only ever weakens: what is no clear yes is a no.
                tls_skip_verify: switch("SKIP_VERIFY").ok().flatten().unwrap_or_default(),
                ..TransitSettings::default()
            },
        })
    }

    fn put_on(&self, seal: &mut TransitSettings) {
        let Self { key_name, mount_path, disable_renewal, otherwise } = self;
        let wins = |to: &mut Option<String>, from: &Option<String>| {
            if from.is_some() {
                to.clone_from(from);
            }
        };
        wins(&mut seal.key_name, key_name);
        wins(&mut seal.mount_path, mount_path);
        seal.disable_renewal = disable_renewal.unwrap_or(seal.disable_renewal);
        fn fill<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if to.is_none() {
                to.clone_from(from);
            }
        }
        // Certificates are those of the server that the environment names. The token is the seal's wherever that is: this variable is
        // where Vault and OpenBao take it from.
        let is_own = seal.address.is_none() || seal.address == otherwise.address;
        fill(&mut seal.token, &otherwise.token);
        fill(&mut seal.namespace, &otherwise.namespace);
        if is_own {
            fill(&mut seal.address, &otherwise.address);
            fill(&mut seal.tls_ca_cert, &otherwise.tls_ca_cert);
            if seal.tls_client_cert.is_none() && seal.tls_client_key.is_none() {
                seal.tls_client_cert.clone_from(&otherwise.tls_client_cert);
                seal.tls_client_key.clone_from(&otherwise.tls_client_key);
            }
            fill(&mut seal.tls_server_name, &otherwise.tls_server_name);
            seal.tls_skip_verify |= otherwise.tls_skip_verify;
        }
    }
}

impl Overlay {
    /// From the variables of this process.
    ///
    /// # Errors
    /// In words for the operator.
    pub(crate) fn of_this_process() -> Result<Self, String> {
        Self::of(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    fn of(variables: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let set: Vec<(String, String)> = variables.filter(|(_, value)| !value.is_empty()).collect();
        let find = |short: &str| {
            PREFIXES.iter().find_map(|prefix| {
                let name = format!("{prefix}{short}");
                set.iter().find(|(known, _)| *known == name).cloned()
            })
        };
        let log_level = find("LOG_LEVEL")
            .map(|(name, text)| {
                LogLevel::parse(&text)
                    .ok_or(format!("{name}: unknown log level `{text}`: {}", LogLevel::NAMES.join(", ")))
            })
            .transpose()?;
        let log_format = find("LOG_FORMAT")
            .map(|(name, text)| {
                LogFormat::parse(&text)
                    .ok_or(format!("{name}: unknown log format `{text}`: {}", LogFormat::NAMES.join(", ")))
            })
            .transpose()?;
        let api_addr =
            ["API_ADDR", "REDIRECT_ADDR", "ADVERTISE_ADDR"].into_iter().find_map(find).map(|(_, address)| address);
        let pg_connection_url = find("PG_CONNECTION_URL").map(|(_, url)| ConnectionUrl(url));
        let seal_type = find("SEAL_TYPE").map(|(_, kind)| kind);
        if let Some(kind) = &seal_type
            && !["transit", "static", "shamir"].contains(&kind.as_str())
        {
            return Err(format!(
                "the environment's `SEAL_TYPE` is `{kind}`, which is not supported: use `transit`, `static`, or none, and unseal with \
                 `leasehold operator unseal`"
            ));
        }
        let seal = TransitOverlay::of(find)?;
        let mut warnings = Vec::new();
        for (name, _) in &set {
            let Some(short) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else { continue };
            // What only clients read may stand in the environment of a server: an operator's shell has it.
            let Some(row) = VARIABLES.iter().find(|row| row.name == short && row.by == Server) else { continue };
            match row.answer {
                Works => {}
                NotSupported => return Err(format!("the environment's `{name}` is not supported: {}", row.text)),
                NoMeaning => warnings.push(format!("the environment's `{name}` has no effect: {}", row.text)),
            }
        }
        Ok(Self { log_level, log_format, api_addr, pg_connection_url, seal_type, seal, warnings })
    }

    /// What the environment says wins over the file.
    pub(crate) fn put_on(&self, config: &mut Config) {
        if let Some(level) = self.log_level {
            config.log_level = level;
        }
        if let Some(format) = self.log_format {
            config.log_format = format;
        }
        if let Some(address) = &self.api_addr {
            config.api_addr = Some(address.clone());
        }
        if let (Some(url), Store::Postgresql(store)) = (&self.pg_connection_url, &mut config.store) {
            store.connection_url = Some(url.clone());
        }
    }

    /// The seal, likewise.
    ///
    /// # Errors
    /// The file has another kind of seal than the environment.
    pub(crate) fn put_on_seal(&self, config: &mut Config) -> Result<(), String> {
        let has = |kind: &str| config.seals.iter().any(|seal| !seal.disabled && seal.settings.kind() == kind);
        let has_any = config.seals.iter().any(|seal| !seal.disabled);
        match self.seal_type.as_deref() {
            Some("transit") if !has_any => {
                config.seals.push(SealBlock { settings: SealSettings::Transit(Box::default()), disabled: false })
            }
            Some("shamir") if !has_any => {}
            Some(kind) if !has(kind) => {
                return Err(format!(
                    "the environment's `SEAL_TYPE` is `{kind}`, and the configuration has no such seal, or another one"
                ));
            }
            _ => {}
        }
        for seal in &mut config.seals {
            if let SealSettings::Transit(settings) = &mut seal.settings {
                self.seal.put_on(settings);
            }
        }
        Ok(())
    }

    /// The URL of a store that names none.
    pub(crate) fn fill_in(&self, store: &mut Store) {
        if let Store::Postgresql(store) = store
            && store.connection_url.is_none()
        {
            store.connection_url.clone_from(&self.pg_connection_url);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(variables: &[(&str, &str)]) -> Result<Overlay, String> {
        Overlay::of(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn the_servers_variables_win_in_their_order() {
        let found = overlay(&[
            ("BAO_LOG_LEVEL", "error"),
            ("VAULT_LOG_LEVEL", "DEBUG"),
            ("LEASEHOLD_LOG_LEVEL", ""),
            ("BAO_LOG_FORMAT", "json"),
            ("VAULT_REDIRECT_ADDR", "https://old"),
            ("BAO_API_ADDR", "https://new"),
            ("VAULT_TOKEN", "hvs.x"),
            ("VAULT_PORT_8200_TCP", "tcp://10.0.0.1:8200"),
        ])
        .unwrap();
        assert_eq!((found.log_level, found.log_format), (Some(LogLevel::Debug), Some(LogFormat::Json)));
        let mut config = Config::with_defaults();
        found.put_on(&mut config);
        assert_eq!(config.api_addr.as_deref(), Some("https://new"));
        assert!(found.warnings.is_empty(), "{found:?}");
    }

    #[test]
    fn what_helm_charts_set_is_answered() {
        let found = overlay(&[
            ("VAULT_K8S_POD_NAME", "vault-0"),
            ("VAULT_K8S_NAMESPACE", "vault"),
            ("VAULT_ADDR", "http://127.0.0.1:8200"),
            ("VAULT_API_ADDR", "http://10.0.0.7:8200"),
            ("VAULT_CLUSTER_ADDR", "https://vault-0.vault-internal:8201"),
            ("VAULT_RAFT_NODE_ID", "vault-0"),
            ("VAULT_LOG_LEVEL", "info"),
            ("SKIP_CHOWN", "true"),
        ])
        .unwrap();
        assert_eq!(found.warnings.len(), 4, "{found:?}");
        assert!(overlay(&[("BAO_SEAL_TYPE", "awskms")]).unwrap_err().contains("operator unseal"));
        assert!(overlay(&[("VAULT_SEAL_TYPE", "shamir")]).unwrap().put_on_seal(&mut Config::with_defaults()).is_ok());
        assert!(overlay(&[("VAULT_LOG_LEVEL", "loud")]).unwrap_err().contains("VAULT_LOG_LEVEL: unknown log level"));
    }

    #[test]
    fn the_seals_variables_win_and_those_of_clients_fill_in() {
        let found = overlay(&[
            ("VAULT_SEAL_TYPE", "transit"),
            ("BAO_TRANSIT_SEAL_KEY_NAME", "unseal"),
            ("VAULT_TRANSIT_SEAL_MOUNT_PATH", "transit/"),
            ("VAULT_TRANSIT_SEAL_DISABLE_RENEWAL", "true"),
            ("VAULT_ADDR", "http://127.0.0.1:8200"),
            ("VAULT_CACERT", "/own.pem"),
            ("VAULT_SKIP_VERIFY", "true"),
            ("VAULT_TOKEN", "s.x"),
        ])
        .unwrap();
        assert!(!format!("{found:?}").contains("s.x"));
        let put_on = |seals: Vec<SealBlock>| {
            let mut config = Config { seals, ..Config::with_defaults() };
            found.put_on_seal(&mut config).map(|()| config.seals)
        };
        let transit = |seals: &[SealBlock]| match &seals[0].settings {
            SealSettings::Transit(settings) => (**settings).clone(),
            other => panic!("{other:?}"),
        };
        let made = transit(&put_on(Vec::new()).unwrap());
        assert_eq!(made.key_name.as_deref(), Some("unseal"));
        assert_eq!(made.address.as_deref(), Some("http://127.0.0.1:8200"));
        assert!(made.disable_renewal && made.tls_skip_verify);

        // A server has its own address in its environment, for the commands that are run beside it: the seal is another server.
        let other = TransitSettings {
            address: Some("https://seal:8200".to_owned()),
            key_name: Some("k".to_owned()),
            ..TransitSettings::default()
        };
        let block = SealBlock { settings: SealSettings::Transit(Box::new(other)), disabled: false };
        let made = transit(&put_on(vec![block]).unwrap());
        assert_eq!(made.address.as_deref(), Some("https://seal:8200"));
        assert_eq!(made.key_name.as_deref(), Some("unseal"));
        assert_eq!(made.token, Some(Hidden::new("s.x".to_owned())));
        assert!(made.tls_ca_cert.is_none() && !made.tls_skip_verify);

        let key = leasehold_seals::NamedKey { id: "a".to_owned(), key: Hidden::new(String::new()) };
        let settings = SealSettings::Static(leasehold_seals::StaticSettings { current: key, previous: None });
        assert!(put_on(vec![SealBlock { settings, disabled: false }]).is_err());
    }

    #[test]
    fn each_variable_has_one_row() {
        for (at, row) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES.iter().skip(at + 1).all(|other| other.name != row.name), "{}", row.name);
            assert!(!row.text.is_empty() && !row.text.contains('|'), "{}", row.name);
        }
    }
}
