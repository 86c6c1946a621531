//! Opens one session on a target, as `sslmode` says.
//!
//! The five modes are libpq's, with one difference: where `prefer` goes on in plain text although the server said that it speaks TLS,
//! that is told (a warning when the connection is written, a line in the log, a metric).

mod hosts;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding as Binding, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use hosts::{Memory, Place};

use crate::chain;
use crate::dsn::{ChannelBinding, Dsn, SslMode};
use crate::sql::{ident, literal, rows};
use crate::tls::{Tls, refused_certificate};
use crate::wire::{AsItIs, Line, LoginPolicy, LoginRefused, Negotiated, negotiate};

/// No statement of ours takes longer; one that hangs on a lock must not hold a connection for ever. Shorter than an effect may take,
/// so that the server itself says what took so long.
pub const STATEMENT_MAX: Duration = Duration::from_secs(25);
const LOCK_MAX: Duration = Duration::from_secs(10);
/// A node that stalls inside a transaction loses it.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(60);
/// Less than this and no role could be made or ended.
const STATEMENT_MIN: Duration = Duration::from_secs(1);

/// Counted each time that a session is in plain text because a TLS handshake failed.
const PLAIN_TEXT_SESSIONS: &str = "leasehold_database_plain_text_fallbacks_total";

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("error connecting to server: {0}")]
    Connect(io::Error),
    #[error("error performing TLS handshake: {0}")]
    Tls(io::Error),
    #[error("error performing TLS handshake: server does not support TLS")]
    NoTls,
    /// This server will not do, or asks for what we do not give.
    #[error("{0}")]
    Refused(String),
    #[error("{}", said(.0))]
    Postgres(Error),
    /// What each of several hosts met.
    #[error("{said}")]
    Hosts {
        said: String,
        /// Of a server that answered.
        answer: Option<Error>,
    },
}

impl DialError {
    pub fn as_db_error(&self) -> Option<&tokio_postgres::error::DbError> {
        match self {
            Self::Postgres(error) => error.as_db_error(),
            Self::Hosts { answer, .. } => answer.as_ref()?.as_db_error(),
            _ => None,
        }
    }

    /// Of all hosts that were tried.
    fn of_hosts(mut met: Vec<(String, Self)>) -> Self {
        if met.len() < 2 {
            let nothing = || Self::Connect(io::Error::new(io::ErrorKind::NotFound, "no host is named"));
            return met.pop().map_or_else(nothing, |(_, error)| error);
        }
        let said: Vec<String> = met.iter().map(|(host, error)| format!("{host}: {error}")).collect();
        let answer = met.into_iter().rev().find_map(|(_, error)| match error {
            Self::Postgres(error) if error.as_db_error().is_some() => Some(error),
            _ => None,
        });
        Self::Hosts { said: said.join("; "), answer }
    }

    /// What was met, and where. Of several hosts each stands beside what it met, and `address`, which lists them, says no more.
    pub fn at(&self, address: &str) -> String {
        match self {
            Self::Hosts { said, .. } => said.clone(),
            other => format!("{address}: {other}"),
        }
    }

    /// For whoever wanted a session as `dsn` says.
    pub fn connecting(&self, dsn: &Dsn) -> String {
        format!("failed to connect to {}: {}", dsn.login(), self.at(&dsn.address()))
    }

    /// Whether the server says that the password is not the user's.
    pub fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::INVALID_PASSWORD))
    }

    /// Whether the other kind of connection may do: `pg_hba.conf` has no line for this kind.
    fn is_about_kind(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
    }

    /// Whether the next host of the list may do. A server that knows us and lets us in no further is the answer.
    fn is_about_host(&self) -> bool {
        !matches!(self, Self::Postgres(error) if error.code().is_some_and(|code| code.code().starts_with("28")))
    }
}

fn said(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code()),
        None => chain(error),
    }
}

impl From<Error> for DialError {
    fn from(error: Error) -> Self {
        let mut cause = error.source();
        while let Some(next) = cause {
            let refused = next.downcast_ref::<io::Error>().and_then(|io| io.get_ref()?.downcast_ref::<LoginRefused>());
            if let Some(refused) = refused {
                return Self::Refused(refused.to_string());
            }
            // In TLS 1.3 a client has done its part of the handshake before the server looks at its certificate.
            if let Some(why) = next.downcast_ref::<io::Error>().and_then(refused_certificate) {
                return Self::Refused(format!("error performing TLS handshake: {why}"));
            }
            cause = next.source();
        }
        Self::Postgres(error)
    }
}

/// A session, and the task that carries its bytes.
pub type Dialled = (Client, JoinHandle<()>);

/// Knows how to reach one target.
#[derive(Clone)]
pub struct Dialer {
    pub dsn: Arc<Dsn>,
    tls: Option<Tls>,
    /// Whether sessions are put into a known state. A pooler in transaction mode would hand that state to somebody else.
    has_state: bool,
    /// Why the last session that should have been encrypted is not.
    fallback: Arc<StdMutex<Option<String>>>,
    /// Whether the server asked for a login before it let the last session in.
    was_asked: Arc<AtomicBool>,
    /// How long one host may take.
    attempt_max: Duration,
    /// Of hosts that did not do.
    memory: Arc<Memory>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("dsn", &self.dsn).finish_non_exhaustive()
    }
}

impl Dialer {
    /// `tls`: none where the connection never speaks it.
    pub fn new(dsn: Dsn, tls: Option<Tls>) -> Self {
        Self {
            attempt_max: hosts::attempt_max(&dsn),
            dsn: Arc::new(dsn),
            tls,
            has_state: true,
            fallback: Arc::default(),
            was_asked: Arc::default(),
            memory: Arc::default(),
        }
    }

    /// Sets nothing on its sessions, so that a pooler may share them: whoever uses one must bring along what they rely on.
    #[must_use]
    pub fn without_session_state(self) -> Self {
        Self { has_state: false, ..self }
    }

    /// The same way to the same target, with another password.
    #[must_use]
    pub fn with_password(&self, password: &SecretString) -> Self {
        let dsn = Dsn { password: Some(password.clone()), ..(*self.dsn).clone() };
        Self { dsn: Arc::new(dsn), ..self.clone() }
    }

    /// The same way to the same target, as another user: without the role and the settings that were meant for the first one. The client
    /// certificate is shown all the same: a server may ask for one from everybody (`clientcert=verify-ca`).
    #[must_use]
    pub fn as_user(&self, user: &str, password: &SecretString) -> Self {
        let dsn = Dsn {
            user: user.to_owned(),
            password: Some(password.clone()),
            role: None,
            certificate: None,
            key: None,
            options: None,
            settings: Vec::new(),
            ..(*self.dsn).clone()
        };
        Self { dsn: Arc::new(dsn), ..self.clone() }
    }

    /// The same, with a memory of its own for [`Dialer::was_asked`].
    #[must_use]
    pub fn alone(self) -> Self {
        Self { was_asked: Arc::default(), ..self }
    }

    /// Whether the server asked for a password, or a proof of it, when the last session began. One that lets in whoever comes, as
    /// `trust` does, says nothing about the password.
    pub fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::SeqCst)
    }

    /// Why sessions are in plain text although the server offers TLS, if they are.
    pub fn plain_text_because(&self) -> Option<String> {
        self.fallback.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn dial_place(
        &self,
        host: &str,
        place: &Place,
        address: Option<&SocketAddr>,
        database: &str,
    ) -> Result<Dialled, DialError> {
        let address = match (place, address) {
            // A socket of this machine needs no TLS, and PostgreSQL speaks none there.
            (Place::Local(path), _) => {
                let stream = self.in_time(UnixStream::connect(Path::new(path))).await?;
                return self.log_in(Line::local(stream, self.policy(true)), database, false).await;
            }
            (Place::Net(_), Some(address)) => *address,
            (Place::Net(_), None) => return Err(DialError::Connect(io::ErrorKind::NotFound.into())),
        };
        let Some(tls) = &self.tls else { return self.plain(address, database).await };
        match self.dsn.ssl_mode {
            SslMode::Disable => self.plain(address, database).await,
            SslMode::Allow => match self.plain(address, database).await {
                Err(error) if error.is_about_kind() => self.encrypted(address, host, tls, database, false).await,
                other => other,
            },
            SslMode::Prefer => match self.encrypted(address, host, tls, database, true).await {
                Err(error) if matches!(error, DialError::Tls(_)) || error.is_about_kind() => {
                    let session = self.plain(address, database).await?;
                    self.tell_plain_text(host, &error);
                    Ok(session)
                }
                other => other,
            },
            _ => self.encrypted(address, host, tls, database, false).await,
        }
    }

    /// Never silently: whoever stands between us and the server can make a handshake fail.
    fn tell_plain_text(&self, host: &str, error: &DialError) {
        metrics::counter!(PLAIN_TEXT_SESSIONS).increment(1);
        let why = error.to_string();
        let mut known = self.fallback.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != Some(&why) {
            tracing::warn!(
                host,
                why,
                "sessions on a database are in plain text: it offers TLS, which failed, and sslmode=prefer allows that; set \
                 sslmode=require"
            );
            *known = Some(why);
        }
    }

    async fn plain(&self, address: SocketAddr, database: &str) -> Result<Dialled, DialError> {
        let stream = self.connect(address).await?;
        self.log_in(Line::plain(stream, self.policy(false)), database, false).await
    }

    async fn encrypted(
        &self,
        address: SocketAddr,
        host: &str,
        tls: &Tls,
        database: &str,
        or_plain: bool,
    ) -> Result<Dialled, DialError> {
        let stream = self.connect(address).await?;
        let negotiated = negotiate(stream, tls, host).await.map_err(|error| match refused_certificate(&error) {
            Some(why) => DialError::Tls(io::Error::new(error.kind(), why)),
            None => DialError::Tls(error),
        });
        match negotiated? {
            Negotiated::Encrypted(stream) => {
                let line = Line::encrypted(stream, self.policy(tls.is_verified));
                self.log_in(line, database, true).await
            }
            Negotiated::Plain(stream) if or_plain => {
                self.log_in(Line::plain(stream, self.policy(false)), database, false).await
            }
            Negotiated::Plain(_) => Err(DialError::NoTls),
        }
    }

    fn policy(&self, clear_text: bool) -> LoginPolicy {
        self.was_asked.store(false, Ordering::SeqCst);
        LoginPolicy { logins: self.dsn.logins, clear_text, was_asked: Arc::clone(&self.was_asked) }
    }

    async fn log_in(&self, line: Line, database: &str, is_encrypted: bool) -> Result<Dialled, DialError> {
        let mut config = self.config(database);
        if is_encrypted {
            config.ssl_mode(tokio_postgres::config::SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            let (client, connection) = config.connect_raw(line, AsItIs).await?;
            return Ok((client, tokio::spawn(drive(connection))));
        }
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect_raw(line, NoTls).await?;
        Ok((client, tokio::spawn(drive(connection))))
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        let stream = self.in_time(TcpStream::connect(address)).await?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let (wanted, socket) = (&self.dsn.keepalive, SockRef::from(&stream));
        if wanted.enabled {
            let mut keepalive = TcpKeepalive::new().with_time(wanted.idle.unwrap_or(KEEPALIVE_IDLE));
            if let Some(interval) = wanted.interval {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(count) = wanted.count {
                keepalive = keepalive.with_retries(count);
            }
            socket.set_tcp_keepalive(&keepalive).map_err(DialError::Connect)?;
        }
        if wanted.user_timeout.is_some() {
            socket.set_tcp_user_timeout(wanted.user_timeout).map_err(DialError::Connect)?;
        }
        Ok(stream)
    }

    async fn in_time<T>(&self, connecting: impl Future<Output = io::Result<T>>) -> Result<T, DialError> {
        match timeout(self.dsn.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(DialError::Connect),
            Err(_) => Err(DialError::Connect(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"))),
        }
    }

    /// Puts a session into the state in which statements may run on it, whatever role and database would have it be.
    pub async fn ready(&self, client: &Client) -> Result<(), Error> {
        client.batch_execute(&self.settings()).await?;
        if self.dsn.search_path.is_none() {
            self.put_catalog_first(client).await?;
        }
        Ok(())
    }

    /// Whoever may change the database's settings can name a schema of theirs before `pg_catalog`, which is searched first only as
    /// long as nobody names it: their functions would then run with the admin's rights.
    async fn put_catalog_first(&self, client: &Client) -> Result<(), Error> {
        let answer = client.simple_query("SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))").await?;
        let path: Vec<&str> = rows(&answer).filter_map(|row| row.first().copied().flatten()).collect();
        if path.first().is_none_or(|first| *first == CATALOG) {
            return Ok(());
        }
        let others: Vec<String> = path.into_iter().filter(|schema| *schema != CATALOG).map(ident).collect();
        client.batch_execute(&set("search_path", &others.join(", "))).await
    }

    fn config(&self, database: &str) -> Config {
        let Dsn { user, password, application_name, .. } = &*self.dsn;
        let mut config = Config::new();
        config.user(user).dbname(database).application_name(application_name);
        config.channel_binding(match self.dsn.channel_binding {
            ChannelBinding::Disable => Binding::Disable,
            ChannelBinding::Prefer => Binding::Prefer,
            ChannelBinding::Require => Binding::Require,
        });
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        // The role goes here, so that `RESET ROLE` leads back to it.
        let role = self.dsn.role.as_deref().map(|role| format!("-c role={}", escaped(role)));
        let options = [self.dsn.options.clone(), role].into_iter().flatten().collect::<Vec<_>>().join(" ");
        if !options.is_empty() {
            config.options(options);
        }
        config
    }

    /// Sent as statements, not as start-up options: poolers in front of a server refuse those.
    fn settings(&self) -> String {
        let limits = &self.dsn.timeouts;
        let least = |asked: Option<Duration>, ours: Duration| asked.unwrap_or(ours).min(ours).as_millis();
        let mut sql = format!(
            "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; SET default_transaction_read_only = off; \
             SET default_transaction_isolation = 'read committed'; SET row_security = on; SET standard_conforming_strings = on; \
             SET TimeZone = {}; SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}",
            literal(&self.dsn.time_zone),
            least(limits.statement, STATEMENT_MAX).max(STATEMENT_MIN.as_millis()),
            least(limits.lock, LOCK_MAX),
            least(limits.idle_in_transaction, IDLE_IN_TRANSACTION_MAX)
        );
        for (name, value) in &self.dsn.settings {
            sql.push_str("; ");
            sql.push_str(&set(name, value));
        }
        if let Some(path) = &self.dsn.search_path {
            sql.push_str("; ");
            sql.push_str(&set("search_path", path));
        }
        sql
    }
}

const CATALOG: &str = "pg_catalog";
/// Linux' own default is the same.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// Sets a setting of the session. A list of names, which no quoting could keep together, is handed over as one text.
fn set(name: &str, value: &str) -> String {
    format!("SELECT pg_catalog.set_config({}, {}, false)", literal(name), literal(value))
}

/// As PostgreSQL splits start-up options: blanks and backslashes need a backslash.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for letter in value.chars() {
        if letter.is_whitespace() || letter == '\\' {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

/// Notices and errors of a session have nowhere to go but its requests; a broken one shows there.
async fn drive(connection: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = %chain(&error), "a session on a target ended");
    }
}
