//! Every setting of Vault's and OpenBao's configuration files, and ours: what becomes of it here.
//!
//! The one table: the reader of the file asks it, `host/docs/configuration.md` shows it (a test compares them), and so
//! nothing is swallowed in silence. A setting that restricts is never merely ignored.
//!
//! Start with [`Answer`], then [`SETTINGS`], then [`find`].

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It does what its text says.
    Works,
    /// It is taken with a warning that says why nothing changes.
    NoMeaning,
    /// The server does not start with it; the text says what to do instead.
    NotSupported,
}

impl Answer {
    #[cfg(test)]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::NoMeaning => "no meaning here",
            Self::NotSupported => "not supported",
        }
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The block it stands in; empty at the top. A kind of block is `storage "raft"`.
    pub(crate) block: &'static str,
    pub(crate) name: &'static str,
    pub(crate) answer: Answer,
    pub(crate) text: &'static str,
}

/// The row of a setting; `None`: nobody knows it.
pub(crate) fn find(block: &str, name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.block == block && setting.name == name)
}

/// The names in a block that work here.
pub(crate) fn working(block: &str) -> impl Iterator<Item = &'static str> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.block == block && setting.answer == Answer::Works)
        .map(|setting| setting.name)
}

/// All names in a block.
pub(crate) fn names(block: &str) -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter(move |setting| setting.block == block).map(|setting| setting.name)
}

use Answer::{NoMeaning, NotSupported, Works};

const fn row(block: &'static str, name: &'static str, answer: Answer, text: &'static str) -> Setting {
    Setting { block, name, answer, text }
}

const OTHER_STORAGE: &str = "use `storage \"sqlite\" { path = \"/var/lib/leasehold/leasehold.db\" }`; data of another storage cannot be taken over";
const OTHER_SEAL: &str = "use `seal \"static\"` or `seal \"transit\"` (see [sealing](sealing.md)), or none, and unseal with `leasehold operator unseal`";
const DISABLED_SEAL: &str = "`true`: the server moves away from this seal, with `leasehold operator unseal -migrate`";
const ONE_SEAL: &str = "one seal is in use at a time";
const ONE_NODE: &str = "servers over one storage meet in it, and in nothing else";
const NO_PLUGINS: &str = "engines are built in, and policy modules are uploaded: no plugin is read from a directory";
const PULLED: &str = "metrics are pulled from `sys/metrics`; let an exporter scrape it";
const KEPT_ANYWAY: &str = "metrics are always kept, and never carry the host name";
const NO_ACME: &str = "let an ACME client write `tls_cert_file` and `tls_key_file`, and send SIGHUP after each renewal";
const BOUNDED: &str = "the bounds are fixed: 10 s for a first head, 60 s between requests, 90 s for a request (`default_max_request_duration`)";
const ENTERPRISE: &str = "it belongs to a licensed feature that does not exist here";
const NO_LOG_FILE: &str = "the log goes to standard error: let the service manager keep and rotate it";
const TO_THE_AGENT: &str = "it belongs to the agent or proxy, which is another program";
const NOT_REDACTED: &str = "leave it out: the unauthenticated status answers show what they always show";
const JSON_BOUNDS: &str =
    "leave it out: the bounds of JSON bodies are fixed (1,000 texts, 100 levels, 32 MiB, 33 MB decoded)";
const NO_LOCKOUT: &str = "leave it out: the lockout of userpass and approle has Vault's defaults (5 failures, 15 min)";

pub(crate) const SETTINGS: &[Setting] = &[
    row("", "storage", Works, "where everything is kept: `sqlite`, `postgresql` or `inmem`"),
    row("", "backend", Works, "the old name of `storage`"),
    row("", "listener", Works, "where the API is served: `tcp` or `unix`; any number of them"),
    row("", "audit", Works, "declares an audit device: `audit \"file\" \"name\" { options = { … } }`"),
    row("", "default_lease_ttl", Works, "lifetime of a lease or token that asks for none; 768h"),
    row("", "max_lease_ttl", Works, "longest lifetime of a lease or token; 768h"),
    row("", "api_addr", Works, "where clients reach the server; the environment's `VAULT_API_ADDR` wins"),
    row("", "redirect_addr", Works, "the old name of `api_addr`"),
    row("", "cluster_name", Works, "the name in `sys/seal-status` and on metrics"),
    row(
        "",
        "log_level",
        Works,
        "`trace`, `debug`, `info`, `warn` or `error`; flag, then environment, then this; SIGHUP reads it again",
    ),
    row("", "log_format", Works, "`standard` or `json`; flag, then environment, then this"),
    row("", "pid_file", Works, "the process id is written there at start and removed at the end"),
    row("", "default_max_request_duration", Works, "how long a request may take; 90s, at most 1h"),
    row("", "audit_directory", Works, "Leasehold's own: where audit files that the API enables may lie"),
    row("", "connection_files_dir", Works, "Leasehold's own: where files that database connections name may lie"),
    row(
        "",
        "connections_max",
        Works,
        "Leasehold's own: open connections over all listeners; 4096, or what the limit of open files allows",
    ),
    row(
        "",
        "connections_per_address_max",
        Works,
        "Leasehold's own: open connections of one address, or one /64 of IPv6; a quarter of `connections_max`",
    ),
    row("", "telemetry", Works, "the block is read; see its settings"),
    row(
        "",
        "seal",
        Works,
        "what opens the server instead of people: `static` or `transit` (see [sealing](sealing.md))",
    ),
    row("", "service_registration", Works, "the block is read; see its kinds"),
    row("", "ui", NoMeaning, "there is no web interface"),
    row("", "enable_ui", NoMeaning, "there is no web interface"),
    row("", "disable_mlock", NoMeaning, "memory is never locked: switch swap off, or encrypt it"),
    row("", "disable_cache", NoMeaning, "tokens and leases are read from the storage on each request anyway"),
    row("", "cache_size", NoMeaning, "there is no cache to size"),
    row("", "cluster_addr", NoMeaning, ONE_NODE),
    row("", "cluster_cipher_suites", NoMeaning, ONE_NODE),
    row("", "disable_clustering", NoMeaning, ONE_NODE),
    row("", "disable_standby_reads", NoMeaning, ONE_NODE),
    row("", "disable_performance_standby", NoMeaning, ONE_NODE),
    row("", "ha_storage", NotSupported, "remove `ha_storage`: servers meet in their `storage`"),
    row("", "ha_backend", NotSupported, "remove `ha_backend`: servers meet in their `storage`"),
    row("", "hsm", NotSupported, OTHER_SEAL),
    row("", "kms", NotSupported, OTHER_SEAL),
    row("", "kms_library", NotSupported, OTHER_SEAL),
    row("", "entropy", NotSupported, "remove `entropy`: randomness comes from the operating system"),
    row("", "enable_multiseal", NotSupported, OTHER_SEAL),
    row("", "initialize", NotSupported, "initialise with `leasehold operator init`, then configure through the API"),
    row(
        "",
        "plugin",
        NotSupported,
        "remove `plugin`: engines are built in, and policy modules are uploaded with `leasehold module`",
    ),
    row("", "plugin_directory", NoMeaning, NO_PLUGINS),
    row("", "plugin_tmpdir", NoMeaning, NO_PLUGINS),
    row("", "plugin_file_uid", NoMeaning, NO_PLUGINS),
    row("", "plugin_file_permissions", NoMeaning, NO_PLUGINS),
    row("", "plugin_auto_download", NoMeaning, NO_PLUGINS),
    row("", "plugin_auto_register", NoMeaning, NO_PLUGINS),
    row("", "plugin_download_behavior", NoMeaning, NO_PLUGINS),
    row("", "plugin_download_max_size", NoMeaning, NO_PLUGINS),
    row("", "raw_storage_endpoint", NoMeaning, "`sys/raw` does not exist"),
    row("", "introspection_endpoint", NoMeaning, "`sys/internal/inspect` does not exist"),
    row("", "enable_response_header_hostname", NoMeaning, "no answer names the host"),
    row("", "enable_response_header_raft_node_id", NoMeaning, ONE_NODE),
    row(
        "",
        "unsafe_allow_api_audit_creation",
        NoMeaning,
        "the API may enable audit devices beneath `audit_directory`, which allows it",
    ),
    row("", "allow_audit_log_prefixing", NoMeaning, "a `prefix` is a matter of the audit device's own options"),
    row("", "unsafe_relative_paths", NoMeaning, "relative paths are refused always"),
    row("", "unsafe_cross_namespace_identity", NoMeaning, "there is one namespace"),
    row("", "allow_unauthenticated_workflows", NoMeaning, "there are no workflows"),
    row(
        "",
        "enable_unauthenticated_access",
        Works,
        "`generate-root`, `rekey` or both, in a list: their old endpoints need no token, on any listener; see [sealing](sealing.md#without-a-token)",
    ),
    row("", "administrative_namespace_path", NotSupported, "remove it: there is one namespace"),
    row("", "disable_printable_check", NoMeaning, "paths must be printable"),
    row("", "disable_sealwrap", NoMeaning, ENTERPRISE),
    row("", "disable_indexing", NoMeaning, ENTERPRISE),
    row("", "disable_sentinel_trace", NoMeaning, ENTERPRISE),
    row("", "sentinel", NotSupported, "write a policy module instead (host/docs/policy-authors.md)"),
    row("", "license_path", NoMeaning, "no licence is needed"),
    row("", "license_entitlement", NoMeaning, "no licence is needed"),
    row("", "reporting", NoMeaning, "nothing is reported to anybody"),
    row("", "observations", NoMeaning, "what happens is in the audit devices, the log and the metrics"),
    row("", "experiments", NoMeaning, "there are none"),
    row("", "replication", NotSupported, "remove it: there is one cluster"),
    row("", "request_limiter", NoMeaning, "requests under way are bounded always"),
    row("", "adaptive_overload_protection", NoMeaning, "requests under way are bounded always"),
    row("", "user_lockout", NotSupported, NO_LOCKOUT),
    row("", "log_file", NoMeaning, NO_LOG_FILE),
    row("", "log_rotate_duration", NoMeaning, NO_LOG_FILE),
    row("", "log_rotate_bytes", NoMeaning, NO_LOG_FILE),
    row("", "log_rotate_max_files", NoMeaning, NO_LOG_FILE),
    row("", "log_requests_level", NoMeaning, "requests are in the audit devices"),
    row("", "enable_post_unseal_trace", NoMeaning, "there is no trace to write"),
    row("", "post_unseal_trace_directory", NoMeaning, "there is no trace to write"),
    row("", "detect_deadlocks", NoMeaning, "there are no locks of that kind"),
    row("", "imprecise_lease_role_tracking", NoMeaning, "quotas by role always count exactly"),
    row(
        "",
        "remove_irrevocable_lease_after",
        NotSupported,
        "leave it out: a lease is removed by `leasehold lease revoke -force` only, since its role may still exist",
    ),
    // storage
    row("storage", "sqlite", Works, "one file; `path` names it"),
    row("storage", "inmem", Works, "memory; everything is gone with the process"),
    row("storage", "inmem_ha", NotSupported, "use `storage \"inmem\" {}`"),
    row("storage", "inmem_transactional", NotSupported, "use `storage \"inmem\" {}`"),
    row("storage", "raft", NotSupported, OTHER_STORAGE),
    row("storage", "file", NotSupported, OTHER_STORAGE),
    row(
        "storage",
        "postgresql",
        Works,
        "tables in a PostgreSQL database; `connection_url` names it (see [storage](storage.md))",
    ),
    row("storage", "consul", NotSupported, OTHER_STORAGE),
    row("storage", "etcd", NotSupported, OTHER_STORAGE),
    row("storage", "zookeeper", NotSupported, OTHER_STORAGE),
    row("storage", "mysql", NotSupported, OTHER_STORAGE),
    row("storage", "mssql", NotSupported, OTHER_STORAGE),
    row("storage", "cockroachdb", NotSupported, OTHER_STORAGE),
    row("storage", "couchdb", NotSupported, OTHER_STORAGE),
    row("storage", "cassandra", NotSupported, OTHER_STORAGE),
    row("storage", "foundationdb", NotSupported, OTHER_STORAGE),
    row("storage", "aerospike", NotSupported, OTHER_STORAGE),
    row("storage", "dynamodb", NotSupported, OTHER_STORAGE),
    row("storage", "s3", NotSupported, OTHER_STORAGE),
    row("storage", "gcs", NotSupported, OTHER_STORAGE),
    row("storage", "spanner", NotSupported, OTHER_STORAGE),
    row("storage", "azure", NotSupported, OTHER_STORAGE),
    row("storage", "oci", NotSupported, OTHER_STORAGE),
    row("storage", "alicloudoss", NotSupported, OTHER_STORAGE),
    row("storage", "manta", NotSupported, OTHER_STORAGE),
    row("storage", "swift", NotSupported, OTHER_STORAGE),
    row("storage \"sqlite\"", "path", Works, "the file; its directory must exist"),
    row(
        "storage \"postgresql\"",
        "connection_url",
        Works,
        "the database, as the [connection strings](connection-strings.md) of database connections; the environment's `VAULT_PG_CONNECTION_URL` wins",
    ),
    row(
        "storage \"postgresql\"",
        "table",
        Works,
        "what the names of all tables begin with, with a schema and a dot before it or not; `leasehold`",
    ),
    row(
        "storage \"postgresql\"",
        "max_parallel",
        Works,
        "connections at a time for requests, and one more that watches whether the store is there; 16",
    ),
    row("storage \"postgresql\"", "max_idle_connections", Works, "connections that are kept open; as `max_parallel`"),
    row("storage \"postgresql\"", "skip_create_table", Works, "`true`: missing tables are an error"),
    row("storage \"postgresql\"", "max_connect_retries", Works, "how often the first connection is tried again; 1"),
    row(
        "storage \"postgresql\"",
        "ha_enabled",
        NoMeaning,
        "several servers may share these tables, whatever this says",
    ),
    row("storage \"postgresql\"", "ha_table", NoMeaning, "several servers may share these tables, whatever this says"),
    row("storage \"postgresql\"", "upsert_function", NoMeaning, "the server makes the functions that it needs"),
    // seal, service_registration
    row("seal", "shamir", NoMeaning, "key shares are what unseals the server anyway"),
    row("seal", "alicloudkms", NotSupported, OTHER_SEAL),
    row("seal", "awskms", NotSupported, OTHER_SEAL),
    row("seal", "azurekeyvault", NotSupported, OTHER_SEAL),
    row("seal", "gcpckms", NotSupported, OTHER_SEAL),
    row("seal", "kmip", NotSupported, OTHER_SEAL),
    row("seal", "ocikms", NotSupported, OTHER_SEAL),
    row("seal", "ovhcloud", NotSupported, OTHER_SEAL),
    row("seal", "pkcs11", NotSupported, OTHER_SEAL),
    row("seal", "static", Works, "a key in a file, in a variable or in the configuration"),
    row("seal", "tcloudpublic", NotSupported, OTHER_SEAL),
    row("seal", "transit", Works, "the transit engine of another Vault or OpenBao"),
    row("seal \"static\"", "current_key_id", Works, "names the key; it changes whenever the key does"),
    row(
        "seal \"static\"",
        "current_key",
        Works,
        "the key, 32 bytes: `file://…`, `env://…`, or the key itself in hex or base64; a file holds it as it is, in hex or in base64",
    ),
    row("seal \"static\"", "previous_key_id", Works, "names the key before"),
    row(
        "seal \"static\"",
        "previous_key",
        Works,
        "opens what the key before has wrapped; the next unsealing wraps it with the current one",
    ),
    row("seal \"static\"", "disabled", Works, DISABLED_SEAL),
    row("seal \"static\"", "name", NoMeaning, ONE_SEAL),
    row("seal \"static\"", "priority", NoMeaning, ONE_SEAL),
    row(
        "seal \"transit\"",
        "address",
        Works,
        "the other server, `https://…`; the environment's `VAULT_ADDR` otherwise",
    ),
    row(
        "seal \"transit\"",
        "token",
        Works,
        "its token; the environment's `VAULT_TOKEN` otherwise, which is the better place",
    ),
    row("seal \"transit\"", "key_name", Works, "the transit key; the environment's `VAULT_TRANSIT_SEAL_KEY_NAME` wins"),
    row(
        "seal \"transit\"",
        "mount_path",
        Works,
        "where the transit engine is; the environment's `VAULT_TRANSIT_SEAL_MOUNT_PATH` wins",
    ),
    row("seal \"transit\"", "namespace", Works, "its namespace; the environment's `VAULT_NAMESPACE` otherwise"),
    row(
        "seal \"transit\"",
        "disable_renewal",
        Works,
        "`true`: the server does not renew the token; the environment's `VAULT_TRANSIT_SEAL_DISABLE_RENEWAL` wins",
    ),
    row(
        "seal \"transit\"",
        "tls_ca_cert",
        Works,
        "authorities of the other server's certificate, PEM; the environment's `VAULT_CACERT` otherwise, then the system's",
    ),
    row(
        "seal \"transit\"",
        "tls_client_cert",
        Works,
        "the client certificate, PEM; the environment's `VAULT_CLIENT_CERT` otherwise",
    ),
    row("seal \"transit\"", "tls_client_key", Works, "its key, PEM; the environment's `VAULT_CLIENT_KEY` otherwise"),
    row(
        "seal \"transit\"",
        "tls_server_name",
        Works,
        "the name that the other server's certificate must have; the environment's `VAULT_TLS_SERVER_NAME` otherwise",
    ),
    row(
        "seal \"transit\"",
        "tls_skip_verify",
        Works,
        "the other server's certificate is not looked at; the environment's `VAULT_SKIP_VERIFY` otherwise",
    ),
    row("seal \"transit\"", "disabled", Works, DISABLED_SEAL),
    row("seal \"transit\"", "name", NoMeaning, ONE_SEAL),
    row("seal \"transit\"", "priority", NoMeaning, ONE_SEAL),
    row("seal \"transit\"", "key_id_prefix", NoMeaning, ONE_SEAL),
    row(
        "service_registration",
        "consul",
        NoMeaning,
        "the server registers nowhere: let a health check ask `sys/health`",
    ),
    row(
        "service_registration",
        "kubernetes",
        NoMeaning,
        "the server sets no labels on its pod: use a readiness probe on `sys/health`",
    ),
    // listener
    row(
        "listener \"tcp\"",
        "address",
        Works,
        "host and port; 127.0.0.1:8200. A port alone means every address. `unix:///run/x.sock` is a Unix socket",
    ),
    row("listener \"tcp\"", "tls_disable", Works, "plain HTTP"),
    row("listener \"tcp\"", "tls_cert_file", Works, "certificate chain, PEM; SIGHUP reads it again"),
    row("listener \"tcp\"", "tls_key_file", Works, "its key, PEM, not encrypted; SIGHUP reads it again"),
    row("listener \"tcp\"", "tls_min_version", Works, "`tls12` or `tls13`; tls12"),
    row("listener \"tcp\"", "tls_max_version", Works, "`tls12` or `tls13`; tls13"),
    row(
        "listener \"tcp\"",
        "tls_cipher_suites",
        Works,
        "suites of TLS 1.2, by Go's names; those of TLS 1.3 are fixed. Suites without forward secrecy or with CBC do not exist here",
    ),
    row(
        "listener \"tcp\"",
        "tls_client_ca_file",
        Works,
        "authorities of client certificates, PEM; SIGHUP reads it again",
    ),
    row(
        "listener \"tcp\"",
        "tls_require_and_verify_client_cert",
        Works,
        "no connection without a certificate of `tls_client_ca_file`",
    ),
    row(
        "listener \"tcp\"",
        "tls_disable_client_certs",
        Works,
        "client certificates are not asked for; they are by default, for logins with the auth method `cert`",
    ),
    row("listener \"tcp\"", "tls_prefer_server_cipher_suites", NoMeaning, "the server's order of suites always holds"),
    row(
        "listener \"tcp\"",
        "tls_key_exchange_preferences",
        NotSupported,
        "leave it out: X25519MLKEM768, X25519, P-256 and P-384 are offered",
    ),
    row(
        "listener \"tcp\"",
        "tls_auto_reload",
        NotSupported,
        "leave it out, and send SIGHUP when a certificate has changed",
    ),
    row(
        "listener \"tcp\"",
        "tls_auto_reload_interval",
        NotSupported,
        "leave it out, and send SIGHUP when a certificate has changed",
    ),
    row("listener \"tcp\"", "tls_acme_ca_directory", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_test_ca_directory", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_cache_path", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_ca_root", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_eab_key_id", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_eab_mac_key", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_key_type", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_email", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_domains", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_disable_http_challenge", NotSupported, NO_ACME),
    row("listener \"tcp\"", "tls_acme_disable_alpn_challenge", NotSupported, NO_ACME),
    row("listener \"tcp\"", "cluster_address", NoMeaning, ONE_NODE),
    row(
        "listener \"tcp\"",
        "proxy_protocol_behavior",
        Works,
        "`use_always`, `allow_authorized` or `deny_unauthorized`: the PROXY protocol, versions 1 and 2",
    ),
    row(
        "listener \"tcp\"",
        "proxy_protocol_authorized_addrs",
        Works,
        "addresses and networks whose PROXY header is believed",
    ),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_authorized_addrs",
        Works,
        "addresses and networks whose `X-Forwarded-For` is believed",
    ),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_hop_skips",
        Works,
        "how many entries at the end of the header are proxies; 0",
    ),
    row("listener \"tcp\"", "x_forwarded_for_reject_not_present", Works, "400 without the header; true"),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_reject_not_authorized",
        Works,
        "400 when the header comes from another address; true",
    ),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_client_cert_header",
        NotSupported,
        "leave it out: only the certificate of the connection itself counts, and no forwarded request has one",
    ),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_client_cert_decoders",
        NotSupported,
        "leave it out: only the certificate of the connection itself counts, and no forwarded request has one",
    ),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_client_cert_keep_not_forwarded",
        NotSupported,
        "leave it out: only the certificate of the connection itself counts, and no forwarded request has one",
    ),
    row(
        "listener \"tcp\"",
        "x_forwarded_for_client_cert_keep_unauthorized",
        NotSupported,
        "leave it out: only the certificate of the connection itself counts, and no forwarded request has one",
    ),
    row("listener \"unix\"", "address", Works, "the file, `/run/leasehold.sock` or `unix:///run/leasehold.sock`"),
    row("listener \"unix\"", "socket_mode", Works, "its permissions, octal, such as \"0660\""),
    row("listener \"unix\"", "socket_user", Works, "its owner, by name or number"),
    row("listener \"unix\"", "socket_group", Works, "its group, by name or number"),
    row("listener \"unix\"", "tls_disable", NoMeaning, "a Unix socket is plain HTTP anyway"),
    // Kinds of listener, and what stands in every kind.
    row("listener", "tcp", Works, "a TCP port"),
    row("listener", "unix", Works, "a Unix socket, always plain HTTP"),
    row("listener", "telemetry", Works, "a block; see its settings"),
    row(
        "listener",
        "custom_response_headers",
        Works,
        "a block of `default`, `2xx` or `404`, each a map from a header to its value or list of values",
    ),
    row("listener", "http_idle_timeout", NoMeaning, BOUNDED),
    row("listener", "http_read_header_timeout", NoMeaning, BOUNDED),
    row("listener", "http_read_timeout", NoMeaning, BOUNDED),
    row("listener", "http_write_timeout", NoMeaning, BOUNDED),
    row(
        "listener",
        "max_request_size",
        NotSupported,
        "leave it out: a body ends at 32 MiB, and at 64 KiB without a known token",
    ),
    row(
        "listener",
        "max_request_duration",
        NotSupported,
        "use `default_max_request_duration`, which holds for every listener",
    ),
    row("listener", "max_request_json_memory", NotSupported, JSON_BOUNDS),
    row("listener", "max_request_json_strings", NotSupported, JSON_BOUNDS),
    row("listener", "max_json_depth", NotSupported, JSON_BOUNDS),
    row("listener", "max_json_string_value_length", NotSupported, JSON_BOUNDS),
    row("listener", "max_json_object_entry_count", NotSupported, JSON_BOUNDS),
    row("listener", "max_json_array_element_count", NotSupported, JSON_BOUNDS),
    row("listener", "require_request_header", NotSupported, "leave it out: `X-Vault-Request` is not demanded"),
    row("listener", "purpose", NoMeaning, ONE_NODE),
    row("listener", "role", NoMeaning, TO_THE_AGENT),
    row("listener", "agent_api", NoMeaning, TO_THE_AGENT),
    row("listener", "proxy_api", NoMeaning, TO_THE_AGENT),
    row("listener", "enable_quit", NoMeaning, TO_THE_AGENT),
    row("listener", "profiling", NoMeaning, "`sys/pprof` does not exist"),
    row("listener", "inflight_requests_logging", NoMeaning, "`sys/in-flight-req` does not exist"),
    row(
        "listener",
        "disable_unauthed_rekey_endpoints",
        Works,
        "`false`: `sys/rekey/…` needs no token on this listener; true",
    ),
    row(
        "listener",
        "disable_unauthed_generate_root_endpoints",
        Works,
        "`false`: `sys/generate-root/…` needs no token on this listener; true",
    ),
    row("listener", "disable_replication_status_endpoints", NoMeaning, "the endpoints do not exist"),
    row("listener", "disable_request_limiter", NoMeaning, "requests under way are bounded always"),
    row("listener", "chroot_namespace", NotSupported, "leave it out: there is one namespace"),
    row("listener", "redact_addresses", NotSupported, NOT_REDACTED),
    row("listener", "redact_cluster_name", NotSupported, NOT_REDACTED),
    row("listener", "redact_version", NotSupported, NOT_REDACTED),
    row("listener", "cors_enabled", NotSupported, "leave it out: browsers of other origins are not served"),
    row("listener", "cors_allowed_origins", NotSupported, "leave it out: browsers of other origins are not served"),
    row("listener", "cors_allowed_headers", NotSupported, "leave it out: browsers of other origins are not served"),
    row("listener", "cors_allow_credentials", NotSupported, "leave it out: browsers of other origins are not served"),
    row(
        "listener telemetry",
        "unauthenticated_metrics_access",
        Works,
        "`sys/metrics` answers without a token, also while the server is sealed, and leaves no audit record",
    ),
    row("listener telemetry", "disallow_metrics", Works, "`sys/metrics` is not served on this listener"),
    row(
        "listener telemetry",
        "metrics_only",
        NotSupported,
        "leave it out: let a firewall or proxy pass only `/v1/sys/metrics`",
    ),
    row("listener telemetry", "metrics_path", NotSupported, "scrape `/v1/sys/metrics`"),
    row("listener telemetry", "usage_gauge_period", NoMeaning, KEPT_ANYWAY),
    // telemetry
    row("telemetry", "prometheus_retention_time", NoMeaning, KEPT_ANYWAY),
    row("telemetry", "disable_hostname", NoMeaning, KEPT_ANYWAY),
    row("telemetry", "enable_hostname_label", NoMeaning, "let the scraper add the instance"),
    row(
        "telemetry",
        "metrics_prefix",
        NoMeaning,
        "names begin with `vault` and `leasehold`; let the scraper rename them",
    ),
    row("telemetry", "usage_gauge_period", NoMeaning, "gauges are current at each scrape"),
    row("telemetry", "maximum_gauge_cardinality", NoMeaning, "labels are few"),
    row("telemetry", "lease_metrics_epsilon", NoMeaning, "leases are not counted by time of expiry"),
    row("telemetry", "num_lease_metrics_buckets", NoMeaning, "leases are not counted by time of expiry"),
    row("telemetry", "add_lease_metrics_namespace_labels", NoMeaning, "there is one namespace"),
    row("telemetry", "add_mount_point_rollback_metrics", NoMeaning, "there are no rollback metrics"),
    row("telemetry", "rollback_metrics_include_mount_point", NoMeaning, "there are no rollback metrics"),
    row("telemetry", "filter_default", NoMeaning, "let the scraper filter"),
    row("telemetry", "prefix_filter", NoMeaning, "let the scraper filter"),
    row("telemetry", "statsite_address", NoMeaning, PULLED),
    row("telemetry", "statsd_address", NoMeaning, PULLED),
    row("telemetry", "dogstatsd_addr", NoMeaning, PULLED),
    row("telemetry", "dogstatsd_tags", NoMeaning, PULLED),
    row("telemetry", "circonus_api_token", NoMeaning, PULLED),
    row("telemetry", "circonus_api_app", NoMeaning, PULLED),
    row("telemetry", "circonus_api_url", NoMeaning, PULLED),
    row("telemetry", "circonus_submission_interval", NoMeaning, PULLED),
    row("telemetry", "circonus_submission_url", NoMeaning, PULLED),
    row("telemetry", "circonus_check_id", NoMeaning, PULLED),
    row("telemetry", "circonus_check_force_metric_activation", NoMeaning, PULLED),
    row("telemetry", "circonus_check_instance_id", NoMeaning, PULLED),
    row("telemetry", "circonus_check_search_tag", NoMeaning, PULLED),
    row("telemetry", "circonus_check_display_name", NoMeaning, PULLED),
    row("telemetry", "circonus_check_tags", NoMeaning, PULLED),
    row("telemetry", "circonus_broker_id", NoMeaning, PULLED),
    row("telemetry", "circonus_broker_select_tag", NoMeaning, PULLED),
    row("telemetry", "stackdriver_project_id", NoMeaning, PULLED),
    row("telemetry", "stackdriver_location", NoMeaning, PULLED),
    row("telemetry", "stackdriver_namespace", NoMeaning, PULLED),
    row("telemetry", "stackdriver_debug_logs", NoMeaning, PULLED),
    // audit
    row("audit", "file", Works, "a file, or standard output"),
    row(
        "audit",
        "syslog",
        NotSupported,
        "use `audit \"file\"` with `file_path = \"stdout\"`, and let the service manager forward it",
    ),
    row("audit", "socket", NotSupported, "use `audit \"file\"`, and let a log shipper read the file"),
    row("audit", "http", NotSupported, "use `audit \"file\"`, and let a log shipper read the file"),
    row("audit \"file\"", "options", Works, "a map, or a block, of the device's options"),
    row("audit \"file\"", "description", Works, "shown by `leasehold audit list -detailed`"),
    row("audit \"file\"", "local", NoMeaning, ONE_NODE),
    row(
        "audit \"file\"",
        "type",
        Works,
        "the device's kind, where the block is written as JSON with `type` and `path`",
    ),
    row(
        "audit \"file\"",
        "path",
        Works,
        "the device's name, where the block is written as JSON with `type` and `path`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_one_row() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            let again =
                SETTINGS.iter().skip(at + 1).any(|other| (other.block, other.name) == (setting.block, setting.name));
            assert!(!again, "{} {}", setting.block, setting.name);
            assert!(
                !setting.text.is_empty() && !setting.text.contains('|'),
                "{}: it would break the table",
                setting.name
            );
        }
    }
}
