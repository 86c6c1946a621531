//! `config/:name`: where a target is and how to log in there.
//!
//! Invariants: a stored password goes nowhere else, and in no other way, than where it was given for (see [`moves`]).
//! A private key and a password are never read back.

mod client_certificate;
mod foreign;
mod moves;
mod rotated;
mod stored;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use leasehold_core::fields::{self, Fields};
use leasehold_core::mount::version::{self, VersionError};
use leasehold_core::request::{LogicalResponse, Object};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::Dialect;
use leasehold_model::{Ttl, glob};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use client_certificate::{CERTIFICATE, shown_certificate};

use super::postgresql::dsn::{self, Dsn, DsnError, SslMode};
use super::postgresql::failure::TargetError;
use super::postgresql::scram;
use super::postgresql::tls::Inline;
use super::rotation::Rotation;

pub(super) const PLUGIN: &str = "postgresql-database-plugin";
pub(super) const PASSWORD_IN_URL: &str = "Password found in connection_url, use a templated url to enable root rotation and prevent read access to \
     password information.";
/// More would only burn CPU.
const SCRAM_ITERATIONS_MAX: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
/// How long creation statements may take unless the role or the connection says otherwise: a little less than the 90 s that a request
/// has, so that its client hears what PostgreSQL says.
const CREATION_TIMEOUT: Ttl = Ttl::from_secs(85);
/// A lease that is being issued holds one of the target's sessions, and is undone only after this time.
const CREATION_TIMEOUT_MAX: Ttl = Ttl::from_secs(600);

/// The warning of a write, and logged when such a connection is opened.
pub(super) const OLD_FILES: &str = "connection_url names files as it could before connection_files_dir was asked for: they are still \
     read, but send their text in tls_ca, tls_certificate and private_key, or move them there";

/// Keys of `connection_details` with a meaning here; others are kept as they are.
const DETAILS: [&str; 15] = [
    "creation_timeout",
    "username",
    "max_open_connections",
    "max_idle_connections",
    "max_connection_lifetime",
    "username_template",
    "password_authentication",
    "scram_iterations",
    "disable_escaping",
    "tls_ca",
    "tls_certificate",
    "reassign_owned_to",
    "drop_owned",
    "drop_orphans",
    "connection_url",
];

/// Who gets what a leased role owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// Reassigned to this role, which we make and which has no rights.
    Ours(String),
    /// Reassigned to this role, which the operator chose.
    To(String),
    /// Dropped.
    Dropped,
}

/// What the server's log may see of an issued password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasswordAuthentication {
    Password,
    /// With so many rounds of hashing.
    ScramSha256(NonZeroU32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    pub(super) open: usize,
    pub(super) idle: usize,
    pub(super) lifetime: Option<Duration>,
}

/// A stored connection. The URL may hold a password too, so it is as secret as the password.
#[derive(Clone, Default)]
pub(super) struct ConnectionRecord {
    plugin_name: String,
    plugin_version: String,
    pub(super) allowed_roles: Vec<String>,
    root_rotation_statements: Vec<String>,
    /// In which they are rendered, as it was judged when they were written.
    root_rotation_dialect: Option<Dialect>,
    pub(super) password_policy: String,
    connection_url: SecretString,
    password: SecretString,
    /// Of the client certificate in `tls_certificate`.
    private_key: SecretString,
    /// Files that the URL names were checked to lie where the server's configuration lets them.
    files_confined: bool,
    /// The password was replaced by somebody without `sudo`, and the database has not taken it yet.
    is_password_unproved: bool,
    /// The same of the private key; that a server takes a certificate proves nothing about who sent the key.
    is_key_unproved: bool,
    /// What tells the server from every other, as it said when the connection was last verified.
    pub(super) server: Option<String>,
    /// Where the connection led when the server said so.
    server_place: Option<String>,
    /// How its own user's password changes, and what is known of the last change.
    pub(super) rotation: Rotation,
    /// All else, as given.
    details: BTreeMap<String, Value>,
}

impl std::fmt::Debug for ConnectionRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionRecord").field("allowed_roles", &self.allowed_roles).finish_non_exhaustive()
    }
}

/// Vault asks twice.
fn no_plugin(why: &str) -> String {
    creating(&format!("invalid database version: 2 errors occurred:\n\t* {why}\n\t* {why}\n\n"))
}

impl ConnectionRecord {
    /// Only what is given changes. Returns the warnings for the client. `has_sudo`: the writer may use more than `update` allows.
    ///
    /// # Errors
    /// Vault's texts for 400, complete; 403 for a move that takes `sudo`.
    pub(super) fn merge(&mut self, fields: &Fields, has_sudo: bool) -> Result<Vec<String>, RequestError> {
        let before = self.clone();
        let text = |name| fields.text(name).map(str::to_owned);
        if let Some(name) = text("plugin_name") {
            self.plugin_name = name;
        }
        if self.plugin_name.is_empty() {
            return Err(RequestError::invalid("empty plugin name"));
        }
        if self.plugin_name != PLUGIN {
            let why = format!("plugin not found in the catalog: {}", self.plugin_name);
            return Err(RequestError::Invalid(no_plugin(&why)));
        }
        if let Some(version) = text("plugin_version") {
            match version::check(PLUGIN, &version) {
                Err(why @ VersionError::Malformed(_)) if !version.is_empty() => {
                    return Err(RequestError::Invalid(why.to_string()));
                }
                Err(why @ VersionError::Unknown { .. }) => {
                    return Err(RequestError::Invalid(no_plugin(&why.to_string())));
                }
                _ => {}
            }
            self.plugin_version = version;
        }
        if let Some(roles) = fields.list("allowed_roles") {
            self.allowed_roles = roles.to_vec();
        }
        if let Some(statements) = fields.list("root_rotation_statements") {
            self.root_rotation_statements = statements.to_vec();
        }
        if let Some(policy) = text("password_policy") {
            self.password_policy = policy;
        }
        if let Some(url) = text("connection_url") {
            self.connection_url = SecretString::from(url);
        }
        if let Some(password) = text("password") {
            self.password = SecretString::from(password);
        }
        for name in DETAILS {
            let given = fields
                .text(name)
                .map(|text| json!(text))
                .or_else(|| fields.int(name).map(|int| json!(int)))
                .or_else(|| fields.bool(name).map(|flag| json!(flag)))
                .or_else(|| fields.any(name).cloned());
            if let Some(value) = given.filter(|_| name != "connection_url") {
                self.details.insert(name.to_owned(), value);
            }
        }
        for (name, value) in fields.unknown() {
            self.details.insert(name.clone(), value.clone());
        }
        let refused = |why: String| RequestError::Invalid(creating(&why));
        self.merge_client_certificate(fields).map_err(refused)?;
        let mut warnings = foreign::judge(fields).map_err(refused)?;
        let dsn = self.check().map_err(refused)?;
        self.check_move(&before, &dsn, fields, has_sudo)?;
        warnings.extend(self.keep_rotated(&before));
        self.merge_rotation(fields).map_err(refused)?;
        warnings.extend(dsn.warnings.clone());
        warnings.extend(self.check_tls(&dsn).map_err(refused)?);
        warnings.extend(self.confine_files(&before, &dsn));
        Ok(warnings)
    }

    /// What can be seen without the record as it was.
    fn check(&self) -> Result<Dsn, String> {
        if self.connection_url.expose_secret().is_empty() {
            return Err("connection_url cannot be empty".to_owned());
        }
        let secret = self.password.expose_secret();
        for tag in [dsn::USERNAME_TAG, dsn::PASSWORD_TAG] {
            if self.username().contains(tag) || secret.contains(tag) {
                return Err("username and/or password cannot contain the template variables".to_owned());
            }
        }
        self.password_authentication()?;
        self.limits()?;
        self.creation_timeout(Ttl::ZERO)?;
        self.leftovers(String::new())?;
        self.dsn().map_err(|error| error.to_string())
    }

    /// How the names of its roles are made; empty: as by [`credential::username`](super::credential::username).
    pub(super) fn username_template(&self) -> &str {
        self.detail_text("username_template").unwrap_or_default()
    }

    fn check_tls(&self, dsn: &Dsn) -> Result<Vec<String>, String> {
        let inline = self.inline_tls();
        if inline.certificate.is_some() != inline.key.is_some() {
            return Err("tls_certificate and private_key must be given together".to_owned());
        }
        if inline.certificate.is_some() && dsn.certificate.is_some() {
            return Err("sslcert in connection_url and tls_certificate exclude each other".to_owned());
        }
        let has_roots = inline.roots.is_some() || dsn.root_certificate.is_some();
        let mut warnings = Vec::new();
        match dsn.ssl_mode {
            SslMode::VerifyCa if !has_roots => {
                return Err("sslmode=verify-ca needs to know the authority: send its certificate in tls_ca. With verify-full the \
                            authorities that this system trusts will do"
                    .to_owned());
            }
            SslMode::Disable if inline.certificate.is_some() || dsn.certificate.is_some() => {
                warnings.push("the client certificate has no effect: sslmode=disable uses no TLS".to_owned());
            }
            SslMode::Disable | SslMode::Allow | SslMode::Prefer if has_roots => {
                warnings.push("no certificate of the server is checked: of the sslmodes only require, verify-ca and verify-full ask \
                               tls_ca or sslrootcert"
                    .to_owned());
            }
            _ => {}
        }
        Ok(warnings)
    }

    /// Files that were named before they had to lie in one directory are read on; any other must.
    fn confine_files(&mut self, before: &Self, dsn: &Dsn) -> Option<String> {
        let is_as_before = !before.connection_url.expose_secret().is_empty()
            && !before.files_confined
            && before.dsn().is_ok_and(|before| before.files() == dsn.files());
        self.files_confined = !is_as_before || dsn.files().is_empty();
        (!self.files_confined).then(|| OLD_FILES.to_owned())
    }

    pub(super) fn dsn(&self) -> Result<Dsn, DsnError> {
        let raw = self.details.get("disable_escaping").and_then(Value::as_bool).unwrap_or(false);
        Dsn::parse(self.connection_url.expose_secret(), self.username(), &self.password, raw)
    }

    /// PEM texts that were sent instead of files.
    pub(super) fn inline_tls(&self) -> Inline<'_> {
        let text = |name| self.detail_text(name).filter(|text| !text.is_empty());
        let key = Some(self.private_key.expose_secret()).filter(|key| !key.is_empty());
        Inline { roots: text("tls_ca"), certificate: text("tls_certificate"), key }
    }

    /// Whether the files that the connection names must lie where the server's configuration lets them: they must in all that is
    /// written since that was asked for.
    pub(super) fn has_confined_files(&self) -> bool {
        self.files_confined
    }

    /// What messages may name, although the password may hold the same letters.
    fn names(&self) -> Vec<String> {
        self.dsn().map(|dsn| dsn.names().into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Whether files are read that lie wherever somebody said before that was limited.
    pub(super) fn reads_old_files(&self) -> bool {
        !self.files_confined && self.dsn().is_ok_and(|dsn| !dsn.files().is_empty())
    }

    /// An error as it may be told: without this connection's secrets.
    pub(super) fn scrubbed(&self, error: TargetError) -> TargetError {
        error.scrubbed(&self.secrets().iter().collect::<Vec<_>>(), &self.names())
    }

    /// How long the creation statements of a role may take that says `wished`; zero: it says nothing.
    pub(super) fn creation_timeout(&self, wished: Ttl) -> Result<Duration, String> {
        let configured = match self.details.get("creation_timeout") {
            None | Some(Value::Null) => Ttl::ZERO,
            Some(value) => fields::length(value).map_err(|why| format!("invalid creation_timeout: {why}"))?,
        };
        check_creation_timeout(configured)?;
        let seconds = wished.if_set().or(configured.if_set()).map_or(CREATION_TIMEOUT.as_secs(), |ttl| ttl.as_secs());
        Ok(Duration::from_secs(seconds))
    }

    /// What this connection must never show, for taking it out of error texts.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        let inline = self.dsn().ok().and_then(|dsn| dsn.password);
        let known = [Some(self.password.clone()), inline].into_iter().flatten();
        known.chain(self.rotation.other_passwords()).collect()
    }

    pub(super) fn limits(&self) -> Result<PoolLimits, String> {
        let number = |name: &str| match self.details.get(name) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| format!("{name} must be a number")),
        };
        let open = match number("max_open_connections")? {
            0 => 4,
            // No limit in Vault; a server's own limit would be met by all its clients then.
            less if less < 0 => 64,
            more => usize::try_from(more).unwrap_or(64).min(1_000),
        };
        let idle = match number("max_idle_connections")? {
            0 => open,
            idle => usize::try_from(idle).unwrap_or(0).min(open),
        };
        let lifetime = match self.details.get("max_connection_lifetime") {
            None | Some(Value::Null) => None,
            Some(value) => fields::length(value)
                .map_err(|why| format!("invalid max_connection_lifetime: {why}"))?
                .if_set()
                .map(|ttl| Duration::from_secs(ttl.as_secs())),
        };
        Ok(PoolLimits { open, idle, lifetime })
    }

    pub(super) fn password_authentication(&self) -> Result<PasswordAuthentication, String> {
        match self.detail_text("password_authentication").unwrap_or("") {
            "" | "scram-sha-256" => Ok(PasswordAuthentication::ScramSha256(self.scram_iterations()?)),
            "password" => Ok(PasswordAuthentication::Password),
            other => Err(format!("'{other}' is not a valid password authentication type")),
        }
    }

    /// PostgreSQL hashes as often as the verifier says, at `CREATE ROLE` and at each login; for 142 random bits that buys nothing. But
    /// some clients refuse fewer rounds than the default.
    fn scram_iterations(&self) -> Result<NonZeroU32, String> {
        let given = match self.details.get("scram_iterations") {
            None | Some(Value::Null) => return Ok(scram::ITERATIONS),
            Some(value) => value.as_u64().and_then(|count| u32::try_from(count).ok()).and_then(NonZeroU32::new),
        };
        given
            .filter(|count| *count <= SCRAM_ITERATIONS_MAX)
            .ok_or_else(|| format!("scram_iterations must be between 1 and {SCRAM_ITERATIONS_MAX}"))
    }

    /// `heir`: who gets them unless the connection says otherwise.
    pub(super) fn leftovers(&self, heir: String) -> Result<Leftovers, String> {
        let dropped = self.details.get("drop_owned").and_then(Value::as_bool).unwrap_or(false);
        let named = self.detail_text("reassign_owned_to").filter(|name| !name.is_empty());
        match (dropped, named) {
            (true, Some(_)) => Err("drop_owned and reassign_owned_to exclude each other".to_owned()),
            (true, None) => Ok(Leftovers::Dropped),
            (false, Some(name)) if name.len() > super::credential::NAME_MAX || name.contains('\0') => {
                Err("reassign_owned_to is no name that a PostgreSQL role can have".to_owned())
            }
            (false, Some(name)) => Ok(Leftovers::To(name.to_owned())),
            (false, None) => Ok(Leftovers::Ours(heir)),
        }
    }

    /// Whether PostgreSQL roles of ours that no lease names are dropped, and not only reported.
    pub(super) fn drops_orphans(&self) -> bool {
        self.details.get("drop_orphans").and_then(Value::as_bool).unwrap_or(false)
    }

    /// `"*"`, names, and globs such as `app-*`.
    pub(super) fn allows(&self, role: &str) -> bool {
        self.allowed_roles.iter().any(|pattern| glob::covers(pattern, role))
    }

    /// The answer to a read: no password, not even the one inside the URL.
    pub(super) fn answer(&self) -> LogicalResponse {
        let (url, _) = dsn::masked(self.connection_url.expose_secret());
        let mut details: Object = self.details.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        details.insert("connection_url".to_owned(), Value::String(url));
        // An older version stored it as it was sent, with a key that stood in it.
        if let Some(Value::String(text)) = details.get_mut(CERTIFICATE) {
            *text = shown_certificate(text);
        }
        details.sort_keys();
        let mut data = json!({
            "allowed_roles": self.allowed_roles,
            "connection_details": details,
            "password_policy": self.password_policy,
            "plugin_name": self.plugin_name,
            "plugin_version": self.plugin_version,
            "root_credentials_rotate_statements": self.root_rotation_statements,
        });
        self.tell_rotation(&mut data);
        LogicalResponse::json(data)
    }

    pub(super) fn has_password_in_url(&self) -> bool {
        dsn::masked(self.connection_url.expose_secret()).1
    }

    fn username(&self) -> &str {
        self.detail_text("username").unwrap_or("")
    }

    fn detail_text(&self, name: &str) -> Option<&str> {
        self.details.get(name).and_then(Value::as_str)
    }
}

/// # Errors
/// In words for the client.
pub(super) fn check_creation_timeout(timeout: Ttl) -> Result<(), String> {
    if timeout <= CREATION_TIMEOUT_MAX {
        return Ok(());
    }
    Err(format!("creation_timeout must not be longer than {} s", CREATION_TIMEOUT_MAX.as_secs()))
}

pub(super) fn creating(why: &str) -> String {
    format!("error creating database object: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_never_shows_its_secrets_in_debug_output() {
        let record = ConnectionRecord {
            connection_url: SecretString::from("postgres://u:canary@h"),
            password: SecretString::from("canary"),
            ..ConnectionRecord::default()
        };
        assert!(!format!("{record:?}").contains("canary"));
        let back = ConnectionRecord::from_bytes(&record.to_bytes().unwrap()).unwrap();
        assert_eq!(back.password.expose_secret(), "canary");
    }
}
