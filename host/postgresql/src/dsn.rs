//! Reads a `connection_url`, in URL or `key=value` form.
//!
//! Our own parser, because the client library's refuses options that are common, knows no `verify-full`, and its errors quote the
//! text. Every option here is either obeyed or refused by name: one that is silently dropped may be the one that mattered.

#[cfg(any(test, fuzzing))]
pub mod properties;

mod draft;
mod logins;
mod mask;
mod values;

use std::net::IpAddr;
use std::time::Duration;

use leasehold_tls::Versions;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use draft::Draft;
pub use logins::{LoginMethod, Logins};
pub use mask::masked;

/// How much a connection insists on TLS (libpq's meanings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// Plain first, TLS when the server refuses that.
    Allow,
    /// TLS first, plain when that does not work.
    #[default]
    Prefer,
    /// TLS, whoever answers; with a root certificate as `VerifyCa`.
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whether a login is bound to the TLS session in which it happens (SCRAM-SHA-256-PLUS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

/// Which server of a list will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetSession {
    #[default]
    Any,
    ReadWrite,
    Primary,
}

/// A parsed connection URL.
#[derive(Clone)]
pub struct Dsn {
    pub hosts: Vec<(String, u16)>,
    /// Where a host is really dialled, if that was said (`hostaddr`); the name stays the one that a certificate must have.
    pub addresses: Vec<Option<IpAddr>>,
    pub user: String,
    pub password: Option<SecretString>,
    pub database: String,
    pub ssl_mode: SslMode,
    /// A file, or `system`.
    pub root_certificate: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    /// `sslcertmode=disable`: a client's certificate is not shown.
    pub hides_certificate: bool,
    pub sends_name: bool,
    pub versions: Versions,
    pub channel_binding: ChannelBinding,
    pub logins: Logins,
    pub connect_timeout: Duration,
    pub application_name: String,
    pub time_zone: String,
    pub search_path: Option<String>,
    pub target_session: TargetSession,
    /// Sessions begin with each host in turn.
    pub is_balanced: bool,
    pub keepalive: Keepalive,
    pub options: Option<String>,
    pub role: Option<String>,
    /// Shorter than ours, or none.
    pub timeouts: Timeouts,
    /// Further settings of the server, by name.
    pub settings: Vec<(&'static str, String)>,
    /// Options that were taken and do nothing here, and why.
    pub warnings: Vec<String>,
}

/// How a dead peer is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub enabled: bool,
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
    pub user_timeout: Option<Duration>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { enabled: true, idle: None, interval: None, count: None, user_timeout: None }
    }
}

/// Time limits that the URL asks of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub statement: Option<Duration>,
    pub lock: Option<Duration>,
    pub idle_in_transaction: Option<Duration>,
}

impl std::fmt::Debug for Dsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dsn").field("hosts", &self.hosts).field("database", &self.database).finish_non_exhaustive()
    }
}

/// Where, how and as whose the password of a connection travels: what a write must not change for a password that it does not bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Travel {
    user: String,
    database: String,
    hosts: Vec<(String, u16)>,
    addresses: Vec<Option<IpAddr>>,
    ssl_mode: SslMode,
    root_certificate: Option<String>,
    versions: Versions,
    sends_name: bool,
    channel_binding: ChannelBinding,
    logins: Logins,
}

/// Why a connection URL is refused. Names options, never values that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    #[error("connection_url is neither a postgresql:// URL nor a list of key=value")]
    Form,
    #[error("connection_url has a broken percent escape in its {0}")]
    Escape(&'static str),
    #[error("connection_url has an invalid port")]
    Port,
    #[error("connection_url names no host")]
    Host,
    #[error("connection_url names no user")]
    User,
    #[error("connection_url has an unfinished value for {0}")]
    Unfinished(String),
    /// May be the rest of a password in which `/`, `?`, `&` or a blank was not escaped.
    #[error(
        "connection_url is cut in an odd place: write /, ?, &, @ and % of a user name, password or database as %2F, %3F, %26, %40 \
         and %25, and put quotes around a value that holds blanks"
    )]
    Cut,
    #[error("connection_url option {name:?} is not known{hint}")]
    Unknown { name: String, hint: String },
    #[error("connection_url option {name:?} is not supported: {why}")]
    Unsupported { name: String, why: &'static str },
    #[error(
        "connection_url holds {{{{password}}}} in another place than the password's: write postgresql://{{{{username}}}}:{{{{password}}}}@host/database"
    )]
    Misplaced,
    #[error("connection_url option {name:?} must be {expected}")]
    Value { name: String, expected: &'static str },
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub const USERNAME_TAG: &str = "{{username}}";
pub const PASSWORD_TAG: &str = "{{password}}";

impl Dsn {
    /// Reads `url`, after `{{username}}` and `{{password}}` in it are replaced; escaped for where they stand unless `raw`.
    ///
    /// # Errors
    /// [`DsnError`], without a part of the password.
    pub fn parse(url: &str, username: &str, password: &SecretString, raw: bool) -> Result<Self, DsnError> {
        let (original, scheme) = (url, scheme(url));
        let escape = |value: &str| match (raw, scheme.is_some()) {
            (true, _) => value.to_owned(),
            // Decoding gives back what would end a user name, or an option behind `?`, before its time.
            (false, true) => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
            (false, false) => in_quotes(value),
        };
        let url = Zeroizing::new(
            original
                .replace(USERNAME_TAG, &escape(username))
                .replace(PASSWORD_TAG, &Zeroizing::new(escape(password.expose_secret()))),
        );
        let dsn = Self::read(&url, scheme)?;
        if has_stray_password(original, username, raw) { Err(DsnError::Misplaced) } else { Ok(dsn) }
    }

    fn read(url: &str, scheme: Option<&str>) -> Result<Self, DsnError> {
        let mut draft = Draft::default();
        match scheme {
            Some(scheme) => draft.read_url(url.get(scheme.len()..).unwrap_or(""))?,
            None => draft.read_pairs(url)?,
        }
        draft.finish()
    }

    pub fn travel(&self) -> Travel {
        Travel {
            user: self.user.clone(),
            database: self.database.clone(),
            hosts: self.hosts.clone(),
            addresses: self.addresses.clone(),
            ssl_mode: self.ssl_mode,
            root_certificate: self.root_certificate.clone(),
            versions: self.versions,
            sends_name: self.sends_name,
            channel_binding: self.channel_binding,
            logins: self.logins,
        }
    }

    /// Where and how any password travels, whosever it is. Stored, so that the text must stay the same over versions.
    pub fn place(&self) -> String {
        let hosts = (&self.hosts, &self.addresses);
        let tls = (self.ssl_mode, &self.root_certificate, self.versions, self.sends_name);
        format!("{:?}", (hosts, tls, self.channel_binding, self.logins))
    }

    /// All but the password and what is only told, for comparing.
    fn without_password(&self) -> String {
        let Self { options, settings, timeouts, keepalive, role, .. } = self;
        let named =
            (&self.application_name, &self.time_zone, &self.search_path, self.target_session, self.connect_timeout);
        let tls = (&self.certificate, &self.key, self.hides_certificate);
        format!("{:?}", (self.travel(), tls, options, settings, timeouts, keepalive, role, named))
    }

    /// The files that the URL names, by option.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let root = self.root_certificate.as_deref().filter(|file| *file != SYSTEM);
        [("sslrootcert", root), ("sslcert", self.certificate.as_deref()), ("sslkey", self.key.as_deref())]
            .into_iter()
            .filter_map(|(option, file)| file.map(|file| (option, file)))
            .collect()
    }

    pub fn trusts_system(&self) -> bool {
        self.root_certificate.as_deref() == Some(SYSTEM)
    }

    /// What a message of the server may name, although a password may hold the same letters.
    pub fn names(&self) -> Vec<&str> {
        let hosts = self.hosts.iter().map(|(host, _)| host.as_str());
        let fixed = [Some(self.user.as_str()), Some(self.database.as_str()), self.role.as_deref()];
        fixed.into_iter().flatten().chain(hosts).filter(|name| !name.is_empty()).collect()
    }

    /// As error texts name it, without a secret: ``user=root database=myapp`: localhost:5432`.
    pub fn label(&self) -> String {
        format!("{}: {}", self.login(), self.address())
    }

    pub fn login(&self) -> String {
        format!("`user={} database={}`", self.user, self.database)
    }

    pub fn address(&self) -> String {
        let one = |(host, port): &(String, u16)| format!("{host}:{port}");
        self.hosts.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

/// `sslrootcert=system`: whom the operating system trusts.
const SYSTEM: &str = "system";

/// Whether the template's password would stand anywhere but as the password. Seen by filling in another one: nothing else may change.
fn has_stray_password(url: &str, username: &str, raw: bool) -> bool {
    if !url.contains(PASSWORD_TAG) {
        return false;
    }
    let filled = |password: &str| {
        let name = match (raw, scheme(url)) {
            (true, _) => username.to_owned(),
            (false, Some(_)) => utf8_percent_encode(username, NON_ALPHANUMERIC).to_string(),
            (false, None) => in_quotes(username),
        };
        let url = url.replace(USERNAME_TAG, &name).replace(PASSWORD_TAG, password);
        Dsn::read(&url, scheme(&url)).map(|dsn| dsn.without_password())
    };
    match (filled("1"), filled("2")) {
        (Ok(one), Ok(other)) => one != other,
        // The real password made a URL of it and these do not.
        _ => true,
    }
}

/// Whether a name that nobody knows may be said back: one that no password is likely to be cut into.
fn is_word(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

/// Whether this is the option, however it is written: [`Draft::set`] obeys it in any case.
fn is_password(name: &str) -> bool {
    name.eq_ignore_ascii_case("password")
}

fn scheme(url: &str) -> Option<&'static str> {
    ["postgresql://", "postgres://"].into_iter().find(|scheme| url.starts_with(scheme))
}

fn in_quotes(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn decoded(text: &str, what: &'static str) -> Result<String, DsnError> {
    let broken = text.match_indices('%').any(|(at, _)| {
        !text.get(at + 1..at + 3).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    });
    if broken {
        return Err(DsnError::Escape(what));
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| DsnError::Escape(what))?;
    if text.contains('\0') { Err(DsnError::Escape(what)) } else { Ok(text.into_owned()) }
}

/// libpq's `key=value key='va\'lue'`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, DsnError> {
    let mut pairs = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.peek().is_none() {
            return Ok(pairs);
        }
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace() && *letter != '=') {
            name.push(letter);
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        // The word may be half a secret: it is not named.
        if name.is_empty() || letters.next() != Some('=') {
            return Err(DsnError::Form);
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let quoted = letters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match letters.next() {
                Some('\'') if quoted => break,
                Some('\\') => value.extend(letters.next()),
                Some(letter) if letter.is_whitespace() && !quoted => break,
                Some(letter) => value.push(letter),
                None if quoted && is_word(&name) => return Err(DsnError::Unfinished(name)),
                None if quoted => return Err(DsnError::Cut),
                None => break,
            }
        }
        if name.contains('\0') || value.contains('\0') {
            return Err(DsnError::Form);
        }
        pairs.push((name, value));
    }
}

#[cfg(test)]
mod tests;
