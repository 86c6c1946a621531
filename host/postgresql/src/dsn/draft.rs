//! Option by option: each works, or is taken with a warning because it means nothing here, or is refused with the reason.
//!
//! `host/docs/connection-strings.md` lists all of them; a test reads that page and tries each row.

use std::net::IpAddr;
use std::time::Duration;

use leasehold_tls::Versions;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::values::{seconds, set, some, time, wrong};
use super::{
    CONNECT_TIMEOUT, ChannelBinding, Dsn, DsnError, Keepalive, Logins, SYSTEM, SslMode, TargetSession, Timeouts,
    decoded, is_word, pairs,
};

/// What somebody may have meant who wrote another name.
const NAMES: [&str; 32] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcertmode",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "timezone",
    "search_path",
    "options",
    "role",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "client_encoding",
    "target_session_attrs",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
    "channel_binding",
    "require_auth",
];

/// Settings of the server that are set on each session as they stand: none of them changes what our own statements do.
const SETTINGS: [&str; 12] = [
    "idle_session_timeout",
    "transaction_timeout",
    "work_mem",
    "maintenance_work_mem",
    "temp_buffers",
    "jit",
    "lc_messages",
    "default_tablespace",
    "createrole_self_grant",
    "log_statement",
    "log_min_duration_statement",
    "password_encryption",
];

/// What has been read so far.
#[derive(Default)]
pub(super) struct Draft {
    hosts: Vec<String>,
    addresses: Vec<Option<IpAddr>>,
    ports: Vec<u16>,
    user: Option<String>,
    password: Option<SecretString>,
    database: Option<String>,
    ssl_mode: Option<SslMode>,
    root_certificate: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    hides_certificate: bool,
    hides_name: bool,
    only_tls13: bool,
    only_tls12: bool,
    channel_binding: ChannelBinding,
    logins: Logins,
    connect_timeout: Option<Duration>,
    application_name: Option<String>,
    fallback_name: Option<String>,
    time_zone: Option<String>,
    search_path: Option<String>,
    target_session: TargetSession,
    is_balanced: bool,
    keepalive: Keepalive,
    options: Option<String>,
    role: Option<String>,
    timeouts: Timeouts,
    settings: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

impl Draft {
    pub(super) fn read_url(&mut self, rest: &str) -> Result<(), DsnError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let (user, password) = login.split_once(':').map_or((login, None), |(user, pass)| (user, Some(pass)));
        if !user.is_empty() {
            self.user = Some(decoded(user, "user")?);
        }
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            self.password = Some(SecretString::from(decoded(password, "password")?));
        }
        if database.contains('@') {
            return Err(DsnError::Cut);
        }
        if !database.is_empty() {
            self.database = Some(decoded(database, "database")?);
        }
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            self.read_host(host)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match self.set(&decoded(name, "options")?, &Zeroizing::new(decoded(value, "options")?)) {
                Err(DsnError::Unknown { .. }) if query.contains('@') => return Err(DsnError::Cut),
                other => other?,
            }
        }
        Ok(())
    }

    fn read_host(&mut self, text: &str) -> Result<(), DsnError> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        self.hosts.push(decoded(host, "host")?);
        self.ports.push(match port.filter(|port| !port.is_empty()) {
            Some(port) => port.parse().map_err(|_| DsnError::Port)?,
            None => 5432,
        });
        Ok(())
    }

    pub(super) fn read_pairs(&mut self, text: &str) -> Result<(), DsnError> {
        for (name, value) in pairs(text)? {
            self.set(&name, &Zeroizing::new(value))?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), DsnError> {
        let lower = name.to_ascii_lowercase();
        let known = self.set_place(name, &lower, value)?
            || self.set_tls(name, &lower, value)?
            || self.set_session(name, &lower, value)?
            || self.set_without_meaning(name, &lower, value)?;
        if known {
            return Ok(());
        }
        if let Some(why) = refusal(&lower) {
            return Err(DsnError::Unsupported { name: name.to_owned(), why });
        }
        if !is_word(&lower) {
            return Err(DsnError::Cut);
        }
        let hint = nearest(&lower).map_or_else(
            || "; a setting of the server goes into options, as in options=-c%20name=value".to_owned(),
            |near| format!("; did you mean {near:?}?"),
        );
        Err(DsnError::Unknown { name: name.to_owned(), hint })
    }

    /// Where the server is, how it is reached and who logs in.
    fn set_place(&mut self, name: &str, lower: &str, value: &str) -> Result<bool, DsnError> {
        match lower {
            "host" => self.hosts = value.split(',').map(str::to_owned).collect(),
            "hostaddr" => {
                let address = |text: &str| match text {
                    "" => Ok(None),
                    text => text.parse().map(Some).map_err(|_| wrong(name, "IP addresses, separated by commas")),
                };
                self.addresses = value.split(',').map(address).collect::<Result<_, _>>()?;
            }
            "port" => {
                let ports: Result<Vec<u16>, _> = value.split(',').map(str::parse).collect();
                self.ports = ports.map_err(|_| DsnError::Port)?;
            }
            "user" => self.user = Some(value.to_owned()),
            "password" => self.password = Some(SecretString::from(value)),
            "dbname" | "database" => self.database = Some(value.to_owned()),
            "connect_timeout" => {
                self.connect_timeout = Some(seconds(name, value)?).filter(|time| !time.is_zero());
            }
            "keepalives" => self.keepalive.enabled = value != "0",
            "keepalives_idle" => self.keepalive.idle = set(seconds(name, value)?),
            "keepalives_interval" => self.keepalive.interval = set(seconds(name, value)?),
            "keepalives_count" => {
                self.keepalive.count =
                    Some(value.parse().map_err(|_| wrong(name, "a number"))?).filter(|count| *count > 0);
            }
            "tcp_user_timeout" => {
                let millis = value.parse().map_err(|_| wrong(name, "a number of milliseconds"))?;
                self.keepalive.user_timeout = set(Duration::from_millis(millis));
            }
            "require_auth" => {
                let expected =
                    "a list of none, password, md5, scram-sha-256, gss, sspi and oauth, all with ! before them or none";
                self.logins = Logins::parse(value).ok_or_else(|| wrong(name, expected))?;
            }
            "target_session_attrs" => {
                self.target_session = match value {
                    "any" => TargetSession::Any,
                    "read-write" => TargetSession::ReadWrite,
                    "primary" => TargetSession::Primary,
                    _ => return Err(wrong(name, "any, read-write or primary: roles are made on a primary only")),
                };
            }
            "load_balance_hosts" => {
                self.is_balanced = match value {
                    "disable" => false,
                    "random" => true,
                    _ => return Err(wrong(name, "disable or random")),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_tls(&mut self, name: &str, lower: &str, value: &str) -> Result<bool, DsnError> {
        match lower {
            "sslmode" => {
                self.ssl_mode = Some(match value {
                    "disable" => SslMode::Disable,
                    "allow" => SslMode::Allow,
                    "prefer" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    _ => return Err(wrong(name, "disable, allow, prefer, require, verify-ca or verify-full")),
                });
            }
            // As libpq reads it, for those who come from JDBC.
            "ssl" if value == "true" => self.ssl_mode = Some(SslMode::Require),
            "ssl" => return Err(wrong(name, "true; anything else is said with sslmode")),
            "sslrootcert" => self.root_certificate = some(value),
            "sslcert" => self.certificate = some(value),
            "sslkey" => self.key = some(value),
            "sslcertmode" => match value {
                "disable" => self.hides_certificate = true,
                "allow" => self.hides_certificate = false,
                _ => {
                    return Err(wrong(
                        name,
                        "disable or allow: whether the server asked for a certificate is not known",
                    ));
                }
            },
            "sslsni" => match value {
                "1" => self.hides_name = false,
                "0" => self.hides_name = true,
                _ => return Err(wrong(name, "0 or 1")),
            },
            "ssl_min_protocol_version" => match value {
                "" | "TLSv1.2" => self.only_tls13 = false,
                "TLSv1.3" => self.only_tls13 = true,
                "TLSv1" | "TLSv1.1" => self.warn(name, "nothing older than TLS 1.2 is spoken"),
                _ => return Err(wrong(name, "TLSv1.2 or TLSv1.3")),
            },
            "ssl_max_protocol_version" => match value {
                "" | "TLSv1.3" => self.only_tls12 = false,
                "TLSv1.2" => self.only_tls12 = true,
                _ => return Err(wrong(name, "TLSv1.2 or TLSv1.3: nothing older is spoken")),
            },
            "channel_binding" => {
                self.channel_binding = match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(wrong(name, "disable, prefer or require")),
                };
            }
            "sslnegotiation" => match value {
                "postgres" => {}
                _ => return Err(wrong(name, "postgres: TLS from the first byte is not supported")),
            },
            "sslcompression" => match value {
                "0" => {}
                _ => self.warn(name, "TLS is never compressed"),
            },
            "gssencmode" => match value {
                "disable" => {}
                "prefer" => self.warn(name, "GSSAPI is not spoken, and TLS is used as sslmode says"),
                _ => return Err(wrong(name, "disable: GSSAPI is not supported")),
            },
            "requiressl" => match value {
                "0" => self.warn(name, "it is sslmode that counts"),
                _ => return Err(wrong(name, "left out: write sslmode=require")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What holds on each session.
    fn set_session(&mut self, name: &str, lower: &str, value: &str) -> Result<bool, DsnError> {
        match lower {
            "application_name" => self.application_name = some(value),
            "fallback_application_name" => self.fallback_name = some(value),
            "timezone" => self.time_zone = some(value),
            "search_path" => self.search_path = some(value),
            "options" => self.options = some(value),
            "role" => self.role = some(value).filter(|role| !role.eq_ignore_ascii_case("none")),
            "statement_timeout" => self.timeouts.statement = time(name, value)?,
            "lock_timeout" => self.timeouts.lock = time(name, value)?,
            "idle_in_transaction_session_timeout" => self.timeouts.idle_in_transaction = time(name, value)?,
            "client_encoding" => match value.to_ascii_lowercase().as_str() {
                "utf8" | "utf-8" | "unicode" | "auto" => {}
                _ => return Err(wrong(name, "UTF8: everything here is UTF-8")),
            },
            "standard_conforming_strings" | "row_security" => match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "1" => {}
                _ => return Err(wrong(name, "on")),
            },
            "default_transaction_read_only" => match value.to_ascii_lowercase().as_str() {
                "off" | "false" | "0" => {}
                _ => return Err(wrong(name, "off: roles cannot be made in a read-only transaction")),
            },
            "default_transaction_isolation" => match value.to_ascii_lowercase().as_str() {
                "read committed" => {}
                _ => return Err(wrong(name, "read committed, which our statements are written for")),
            },
            "synchronous_commit" => match value.to_ascii_lowercase().as_str() {
                "on" | "remote_apply" | "true" | "1" => {
                    self.warn(name, "each commit that counts waits for the disk anyway");
                }
                _ => return Err(wrong(name, "on: a lease that was answered must outlive a crash of the server")),
            },
            other => match SETTINGS.into_iter().find(|known| *known == other) {
                Some(known) => {
                    self.settings.retain(|(set, _)| *set != known);
                    self.settings.push((known, value.to_owned()));
                }
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// What clients of other kinds set, and what changes nothing here.
    fn set_without_meaning(&mut self, name: &str, lower: &str, value: &str) -> Result<bool, DsnError> {
        let why = match lower {
            "statement_cache_capacity"
            | "description_cache_capacity"
            | "statement_cache_mode"
            | "default_query_exec_mode"
            | "binary_parameters"
            | "disable_prepared_binary_result"
            | "min_read_buffer_size" => "statements are neither prepared nor cached here",
            "pool_max_conns"
            | "pool_min_conns"
            | "pool_min_idle_conns"
            | "pool_max_conn_lifetime"
            | "pool_max_conn_lifetime_jitter"
            | "pool_max_conn_idle_time"
            | "pool_health_check_period" => {
                "the pool is set by max_open_connections, max_idle_connections and max_connection_lifetime"
            }
            "krbsrvname" | "krbspn" | "gsslib" | "gssdelegation" => "GSSAPI is not spoken",
            "min_protocol_version" | "max_protocol_version" => match (lower, value) {
                (_, "3.0" | "") | ("max_protocol_version", "latest" | "3.2") => "version 3.0 of the protocol is spoken",
                _ => return Err(wrong(name, "3.0: that version of the protocol is spoken")),
            },
            "datestyle" | "intervalstyle" | "extra_float_digits" | "bytea_output" | "client_min_messages" => {
                "no value of a kind that it changes is read here"
            }
            _ => return Ok(false),
        };
        self.warn(name, why);
        Ok(true)
    }

    fn warn(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("connection_url option {name:?} has no effect: {why}"));
    }

    pub(super) fn finish(mut self) -> Result<Dsn, DsnError> {
        if self.hosts.is_empty() {
            // The address stands for the name then.
            self.hosts =
                self.addresses.iter().map(|address| address.map_or_else(String::new, |ip| ip.to_string())).collect();
        }
        if self.hosts.is_empty() || self.hosts.iter().any(String::is_empty) {
            return Err(DsnError::Host);
        }
        if self.addresses.is_empty() {
            self.addresses = vec![None; self.hosts.len()];
        }
        if self.addresses.len() != self.hosts.len() {
            return Err(wrong("hostaddr", "as many addresses as there are hosts"));
        }
        let is_system = self.root_certificate.as_deref() == Some(SYSTEM);
        let ssl_mode = match self.ssl_mode {
            None if is_system => SslMode::VerifyFull,
            Some(SslMode::VerifyFull) => SslMode::VerifyFull,
            Some(_) if is_system => {
                return Err(wrong(
                    "sslmode",
                    "verify-full with sslrootcert=system: anybody can get a certificate of a public authority",
                ));
            }
            other => other.unwrap_or_default(),
        };
        let versions = match (self.only_tls12, self.only_tls13) {
            (false, false) => Versions::Both,
            (true, false) => Versions::Tls12,
            (false, true) => Versions::Tls13,
            (true, true) => return Err(wrong("ssl_max_protocol_version", "no older than ssl_min_protocol_version")),
        };
        if self.certificate.is_some() != self.key.is_some() {
            return Err(wrong("sslcert", "given together with sslkey"));
        }
        let user = self.user.filter(|user| !user.is_empty()).ok_or(DsnError::User)?;
        let port = |at: usize| self.ports.get(at).or(self.ports.last()).copied().unwrap_or(5432);
        let hosts = self.hosts.iter().enumerate().map(|(at, host)| (host.clone(), port(at))).collect();
        Ok(Dsn {
            hosts,
            addresses: self.addresses,
            database: self.database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone()),
            user,
            password: self.password,
            ssl_mode,
            root_certificate: self.root_certificate,
            certificate: self.certificate,
            key: self.key,
            hides_certificate: self.hides_certificate,
            sends_name: !self.hides_name,
            versions,
            channel_binding: self.channel_binding,
            logins: self.logins,
            connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            application_name: self.application_name.or(self.fallback_name).unwrap_or_else(|| "leasehold".to_owned()),
            time_zone: self.time_zone.unwrap_or_else(|| "UTC".to_owned()),
            search_path: self.search_path,
            target_session: self.target_session,
            is_balanced: self.is_balanced,
            keepalive: self.keepalive,
            options: self.options,
            role: self.role,
            timeouts: self.timeouts,
            settings: self.settings,
            warnings: self.warnings,
        })
    }
}

/// Why an option that is known elsewhere is refused: left out, it would weaken the connection or mean another one.
fn refusal(lower: &str) -> Option<&'static str> {
    Some(match lower {
        "passfile" | "scram_client_key" | "scram_server_key" => {
            "the password comes from the field password, or stands in the URL"
        }
        "service" | "servicefile" => "write out what the service file says",
        "sslpassword" => "give the key without a password, or send it in private_key",
        "sslinline" => "send the PEM text in tls_ca, tls_certificate and private_key",
        "sslcrl" | "sslcrldir" => "revocation lists are not read, and to leave them out would trust more than you want",
        "sslkeylogfile" => "the keys of a TLS session are never written to a file",
        "requirepeer" => "the owner of a socket is not checked",
        "replication" => "a replication session cannot make roles",
        "oauth_issuer" | "oauth_client_id" | "oauth_client_secret" | "oauth_scope" | "oauth_ca_file" => {
            "only a password, or a client's certificate, is used to log in"
        }
        "session_authorization" => "log in as that user instead",
        "session_replication_role" => "triggers and rules must stay in force",
        "local_preload_libraries" | "session_preload_libraries" => "no code is loaded into sessions of an admin",
        _ => return None,
    })
}

/// A known name that is at most a slip away: two edits, and no more than a third of the word.
fn nearest(name: &str) -> Option<&'static str> {
    NAMES
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(far, known)| *far <= 2 && far * 3 <= known.len().min(name.len()))
        .min()
        .map(|(_, near)| near)
}
