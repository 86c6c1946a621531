//! Reads a `connection_url`, in URL or `key=value` form.
//!
//! Our own parser, because the client library's refuses options that are common, knows no `verify-full`, and its errors quote the
//! text. Every option here is either obeyed or refused by name: one that is silently dropped may be the one that mattered.

#[cfg(any(test, fuzzing))]
pub mod properties;

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::TargetSessionAttrs;
use zeroize::Zeroizing;

/// How much a connection insists on TLS (libpq's meanings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslMode {
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

/// A parsed connection URL.
pub(crate) struct Dsn {
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) user: String,
    pub(crate) password: Option<SecretString>,
    pub(crate) database: String,
    pub(crate) ssl_mode: SslMode,
    pub(crate) root_certificate: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) application_name: String,
    pub(crate) time_zone: String,
    pub(crate) search_path: Option<String>,
    pub(crate) target_session: TargetSessionAttrs,
    pub(crate) keepalives: bool,
    pub(crate) keepalives_idle: Option<Duration>,
    pub(crate) options: Option<String>,
}

impl std::fmt::Debug for Dsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dsn").field("hosts", &self.hosts).field("database", &self.database).finish_non_exhaustive()
    }
}

/// Why a connection URL is refused. Names options, never values that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DsnError {
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
    #[error("connection_url option {name:?} is not supported yet: {why}")]
    Unsupported { name: String, why: &'static str },
    #[error("connection_url option {name:?} must be {expected}")]
    Value { name: String, expected: &'static str },
}

const OPTIONS: [&str; 18] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslsni",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "timezone",
    "search_path",
    "options",
    "target_session_attrs",
    "keepalives",
    "keepalives_idle",
    "channel_binding",
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) const USERNAME_TAG: &str = "{{username}}";
pub(crate) const PASSWORD_TAG: &str = "{{password}}";

impl Dsn {
    /// Reads `url`, after `{{username}}` and `{{password}}` in it are replaced; escaped for where they stand unless `raw`.
    ///
    /// # Errors
    /// [`DsnError`], without a part of the password.
    pub(crate) fn parse(url: &str, username: &str, password: &SecretString, raw: bool) -> Result<Self, DsnError> {
        let scheme = scheme(url);
        let escape = |value: &str| match (raw, scheme.is_some()) {
            (true, _) => value.to_owned(),
            // Decoding gives back what would end a user name, or an option behind `?`, before its time.
            (false, true) => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
            (false, false) => in_quotes(value),
        };
        let url = Zeroizing::new(
            url.replace(USERNAME_TAG, &escape(username))
                .replace(PASSWORD_TAG, &Zeroizing::new(escape(password.expose_secret()))),
        );
        let mut draft = Draft::default();
        match scheme {
            Some(scheme) => draft.read_url(url.get(scheme.len()..).unwrap_or(""))?,
            None => draft.read_pairs(&url)?,
        }
        draft.finish()
    }

    /// As error texts name it, without a secret: ``user=root database=myapp``.
    pub(crate) fn label(&self) -> String {
        format!("`user={} database={}`: {}", self.user, self.database, self.address())
    }

    pub(crate) fn address(&self) -> String {
        let one = |(host, port): &(String, u16)| format!("{host}:{port}");
        self.hosts.iter().map(one).collect::<Vec<_>>().join(",")
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

fn is_url(url: &str) -> bool {
    Dsn::parse(url, "u", &SecretString::from("p"), true).is_ok()
}

/// `url` as it may be read back, and whether a password was hidden in it.
pub(crate) fn masked(url: &str) -> (String, bool) {
    const MASK: &str = "xxxxx";
    let hides = |password: &str| !password.is_empty() && password != PASSWORD_TAG;
    let (mut shown, mut found) = (url.to_owned(), false);
    if let Some(scheme) = scheme(url) {
        let rest = url.get(scheme.len()..).unwrap_or("");
        let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // A password with an unescaped `/` or `?` in it makes no URL: everything up to the last `@` is hidden then.
        let (login, place) = match (authority.rsplit_once('@'), rest.rsplit_once('@')) {
            (Some((login, host)), _) => (login, format!("{host}{after}")),
            (None, Some((login, place))) if !is_url(url) => (login, place.to_owned()),
            (None, _) => ("", rest.to_owned()),
        };
        if let Some((user, password)) = login.split_once(':')
            && hides(password)
        {
            (shown, found) = (format!("{scheme}{user}:{MASK}@{place}"), true);
        }
        let (head, query) = shown.split_once('?').map_or((shown.as_str(), None), |(head, query)| (head, Some(query)));
        if let Some(query) = query {
            let pairs: Vec<String> = query
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name, value))
                        if hides(value) && decoded(name, "options").is_ok_and(|name| is_password(&name)) =>
                    {
                        found = true;
                        format!("{name}={MASK}")
                    }
                    _ => pair.to_owned(),
                })
                .collect();
            shown = format!("{head}?{}", pairs.join("&"));
        }
        return (shown, found);
    }
    match pairs(url) {
        Ok(pairs) if pairs.iter().any(|(key, value)| is_password(key) && hides(value)) => {
            let one = |(key, value): &(String, String)| match is_password(key) {
                true => format!("{key}={MASK}"),
                false => format!("{key}={}", quoted(value)),
            };
            (pairs.iter().map(one).collect::<Vec<_>>().join(" "), true)
        }
        Ok(_) => (shown, found),
        // Not readable, so nobody knows where its password is.
        Err(_) if url.to_ascii_lowercase().contains("password") => (MASK.to_owned(), true),
        Err(_) => (shown, found),
    }
}

/// As [`pairs`] reads it back: bare where it can be.
fn quoted(value: &str) -> String {
    if value.is_empty() || value.contains(|letter: char| letter.is_whitespace() || matches!(letter, '\'' | '\\')) {
        return in_quotes(value);
    }
    value.to_owned()
}

fn in_quotes(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    hosts: Vec<String>,
    ports: Vec<u16>,
    user: Option<String>,
    password: Option<SecretString>,
    database: Option<String>,
    ssl_mode: SslMode,
    root_certificate: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    application_name: Option<String>,
    fallback_name: Option<String>,
    time_zone: Option<String>,
    search_path: Option<String>,
    target_session: Option<TargetSessionAttrs>,
    keepalives: Option<bool>,
    keepalives_idle: Option<Duration>,
    options: Option<String>,
}

impl Draft {
    fn read_url(&mut self, rest: &str) -> Result<(), DsnError> {
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

    fn read_pairs(&mut self, text: &str) -> Result<(), DsnError> {
        for (name, value) in pairs(text)? {
            self.set(&name, &Zeroizing::new(value))?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), DsnError> {
        let wrong = |expected| DsnError::Value { name: name.to_owned(), expected };
        let seconds = || value.parse().map(Duration::from_secs).map_err(|_| wrong("a number of seconds"));
        let unsupported = |why| Err(DsnError::Unsupported { name: name.to_owned(), why });
        let text = || Some(value.to_owned());
        match name.to_ascii_lowercase().as_str() {
            "host" => self.hosts = value.split(',').map(str::to_owned).collect(),
            "port" => {
                let ports: Result<Vec<u16>, _> = value.split(',').map(str::parse).collect();
                self.ports = ports.map_err(|_| DsnError::Port)?;
            }
            "user" => self.user = text(),
            "password" => self.password = Some(SecretString::from(value)),
            "dbname" | "database" => self.database = text(),
            "sslmode" => {
                self.ssl_mode = match value {
                    "disable" => SslMode::Disable,
                    "allow" => SslMode::Allow,
                    "prefer" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    _ => return Err(wrong("disable, allow, prefer, require, verify-ca or verify-full")),
                }
            }
            "sslrootcert" => self.root_certificate = Some(PathBuf::from(value)),
            "sslsni" if value == "1" => {}
            "sslsni" => return unsupported("the server name is always sent"),
            "sslcert" | "sslkey" | "sslpassword" | "sslcrl" | "sslcrldir" | "sslnegotiation" => {
                return unsupported("client certificates and revocation lists are to come");
            }
            "connect_timeout" => self.connect_timeout = Some(seconds()?).filter(|time| !time.is_zero()),
            "application_name" => self.application_name = text(),
            "fallback_application_name" => self.fallback_name = text(),
            "timezone" => self.time_zone = text(),
            "search_path" => self.search_path = text(),
            "options" => self.options = text(),
            "target_session_attrs" => {
                self.target_session = Some(match value {
                    "any" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    _ => return Err(wrong("any, read-write or primary: roles are made on a primary only")),
                });
            }
            "keepalives" => self.keepalives = Some(value != "0"),
            "keepalives_idle" => self.keepalives_idle = Some(seconds()?),
            "channel_binding" if value == "prefer" || value == "disable" => {}
            "channel_binding" => return unsupported("leave it out, or say disable"),
            other if !is_word(other) => return Err(DsnError::Cut),
            other => {
                let hint = nearest(other).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
                return Err(DsnError::Unknown { name: name.to_owned(), hint });
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Dsn, DsnError> {
        if self.hosts.is_empty() || self.hosts.iter().any(String::is_empty) {
            return Err(DsnError::Host);
        }
        let user = self.user.filter(|user| !user.is_empty()).ok_or(DsnError::User)?;
        let port = |at: usize| self.ports.get(at).or(self.ports.last()).copied().unwrap_or(5432);
        let hosts = self.hosts.iter().enumerate().map(|(at, host)| (host.clone(), port(at))).collect();
        Ok(Dsn {
            hosts,
            database: self.database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone()),
            user,
            password: self.password,
            ssl_mode: self.ssl_mode,
            root_certificate: self.root_certificate,
            connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            application_name: self.application_name.or(self.fallback_name).unwrap_or_else(|| "leasehold".to_owned()),
            time_zone: self.time_zone.unwrap_or_else(|| "UTC".to_owned()),
            search_path: self.search_path,
            target_session: self.target_session.unwrap_or(TargetSessionAttrs::Any),
            keepalives: self.keepalives.unwrap_or(true),
            keepalives_idle: self.keepalives_idle,
            options: self.options,
        })
    }
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

/// The option that a slip of the finger may have meant. Longer names are nobody's slip, and comparing costs the product of
/// both lengths.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 40 {
        return None;
    }
    OPTIONS
        .into_iter()
        .map(|known| (strsim::levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn read(url: &str) -> Result<Dsn, DsnError> {
        Dsn::parse(url, "ro@ot", &SecretString::from("p/w:@'%&=+"), false)
    }

    fn password(dsn: &Dsn) -> &str {
        dsn.password.as_ref().map_or("", |password| password.expose_secret())
    }

    #[test]
    fn the_guides_url_is_read_with_prefer() {
        let dsn = read("postgresql://root:rootpassword@localhost:5432/myapp").unwrap();
        assert_eq!((dsn.user.as_str(), password(&dsn), dsn.database.as_str()), ("root", "rootpassword", "myapp"));
        assert_eq!((dsn.hosts.as_slice(), dsn.ssl_mode), (&[("localhost".to_owned(), 5432)][..], SslMode::Prefer));
        assert_eq!(dsn.label(), "`user=root database=myapp`: localhost:5432");
    }

    #[test]
    fn templates_are_replaced_whole_whatever_they_hold() {
        for url in [
            "postgres://{{username}}:{{password}}@h/d?sslmode=disable",
            "user={{username}} password={{password}} host=h dbname=d sslmode=disable",
            "postgres://h/d?user={{username}}&password={{password}}&sslmode=disable",
        ] {
            let dsn = read(url).unwrap();
            assert_eq!((dsn.user.as_str(), password(&dsn)), ("ro@ot", "p/w:@'%&=+"), "{url}");
            assert_eq!((dsn.hosts.as_slice(), dsn.ssl_mode), (&[("h".to_owned(), 5432)][..], SslMode::Disable));
        }
        let raw =
            Dsn::parse("postgres://{{username}}:{{password}}@h/d", "u", &SecretString::from("a%40b"), true).unwrap();
        assert_eq!(password(&raw), "a@b");
    }

    #[test]
    fn several_hosts_sockets_and_addresses_are_read() {
        let dsn = read("postgres://u@a:1,b,[::1]:3/d?connect_timeout=7&application_name=x%20y&TimeZone=UTC").unwrap();
        let hosts = [("a", 1), ("b", 5432), ("::1", 3)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!((dsn.hosts.as_slice(), dsn.connect_timeout.as_secs()), (&hosts[..], 7));
        assert_eq!(dsn.application_name, "x y");
        assert_eq!(read("postgres://u@%2Frun%2Fpg/d").unwrap().hosts, [("/run/pg".to_owned(), 5432)]);
        assert_eq!(read("postgres://u@h").unwrap().database, "u");
    }

    #[test]
    fn an_option_is_obeyed_or_refused_by_name() {
        let said = |url: &str| read(url).map(drop).unwrap_err().to_string();
        assert_eq!(
            said("postgres://u@h/d?ssl_mode=require"),
            "connection_url option \"ssl_mode\" is not known; did you mean \"sslmode\"?"
        );
        assert_eq!(said("postgres://u@h/d?zzzzzzzzzzz=1"), "connection_url option \"zzzzzzzzzzz\" is not known");
        assert!(said("postgres://u@h/d?sslmode=maybe").contains("verify-full"));
        assert!(said("postgres://u@h/d?sslcert=x").contains("not supported yet"));
        assert!(said("postgres://u@h/d?channel_binding=require").contains("not supported yet"));
        assert_eq!(read("postgres://u@h:99999/d").unwrap_err(), DsnError::Port);
        assert_eq!(read("postgres:///d?user=u").unwrap_err(), DsnError::Host);
        assert_eq!(read("postgres://h/d").unwrap_err(), DsnError::User);
        assert_eq!(read("").unwrap_err(), DsnError::Host);
    }

    #[test]
    fn no_error_quotes_a_password() {
        for url in [
            "postgres://u:can%ary@h/d",
            "mysql://u:canary@h/d",
            "postgres://u:canary@h:x/d",
            "password='canary",
            "user=u canary",
            "password=canary host=h port=canary user=u",
            // Passwords with signs in them that end them.
            "postgres://u:12?canary7@h/d",
            "postgres://u:12/canary7@h/d?user=x",
            "postgres://u:x@y?canary@h/d",
            "postgres://u:x@y/canary@h/d",
            "postgres://h/d?user=u&password=x&can7ary",
            "password=x can7ary= user=u host=h",
            "password=x can7ary='",
        ] {
            let error = read(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("ary"), "{error}");
        }
        let shown = format!("{:?}", read("postgres://u:canary@h/d").unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_password_in_the_url_is_masked() {
        for (url, shown, hidden) in [
            ("postgresql://u:sec@h/d", "postgresql://u:xxxxx@h/d", true),
            ("postgresql://{{username}}:{{password}}@h/d", "postgresql://{{username}}:{{password}}@h/d", false),
            ("postgresql://u:s/e?c@h/d", "postgresql://u:xxxxx@h/d", true),
            (
                "postgresql://u@h/d?password=sec&sslmode=disable",
                "postgresql://u@h/d?password=xxxxx&sslmode=disable",
                true,
            ),
            ("host=h password='s e\\'c' user=u", "host=h password=xxxxx user=u", true),
            ("host=h user=u", "host=h user=u", false),
            ("postgresql://h/d?user=u&application_name=a:b@c", "postgresql://h/d?user=u&application_name=a:b@c", false),
            ("postgresql://u@h/d?PassWord=sec", "postgresql://u@h/d?PassWord=xxxxx", true),
            ("postgresql://u@h/d?pass%77ord=sec", "postgresql://u@h/d?pass%77ord=xxxxx", true),
            (
                "host=h PASSWORD=sec user=u application_name='a \\'b'",
                "host=h PASSWORD=xxxxx user=u application_name='a \\'b'",
                true,
            ),
            ("password='sec", "xxxxx", true),
            ("PASSWORD='sec", "xxxxx", true),
            ("postgresql://h/d", "postgresql://h/d", false),
        ] {
            assert_eq!(masked(url), (shown.to_owned(), hidden), "{url}");
        }
    }

    /// Text in which everything that cuts a URL is likely.
    fn odd() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "/",
            "?",
            "&",
            "@",
            ":",
            "%",
            "%40",
            "%2",
            "#",
            "=",
            "'",
            "\\",
            " ",
            "\0",
            ",",
            "[",
            "]",
            "12",
            "s3cret-word",
            "password",
            "PASSWORD=",
            "pass%77ord=",
            "password='",
            "user=u ",
            "host=h ",
            "dbname=d ",
            "é",
            "{{password}}",
        ];
        prop_oneof![6 => vec(select(PIECES), 0..10).prop_map(|pieces| pieces.concat()), 1 => any::<String>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_url_keeps_its_password(front in select(&["", "postgres://", "postgres://u:s3cret-word@h/d?", "host=h user=u "][..]), rest in odd()) {
            properties::any_url_keeps_its_password(&format!("{front}{rest}"));
        }

        #[test]
        fn no_error_shows_what_stands_in_a_password(before in odd(), after in odd()) {
            properties::no_error_shows_what_stands_in_a_password(&before, &after);
        }

        #[test]
        fn a_template_gives_back_what_is_put_in(username in odd(), password in odd()) {
            properties::a_template_gives_back_what_is_put_in(&username, &password);
        }
    }
}
