//! Opens one session on a target, as `sslmode` wishes.

use std::path::Path;
use std::time::Duration;

use deadpool_postgres::Connect;
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::dsn::{Dsn, SslMode};
use super::sql::{ident, literal, rows};
use super::tls::Tls;

/// No statement of ours takes longer; one that hangs on a lock must not hold a connection for ever. Shorter than an effect may take,
/// so that the server itself says what took so long.
pub(crate) const STATEMENT_MAX: Duration = Duration::from_secs(25);
const LOCK_MAX: Duration = Duration::from_secs(10);
/// A node that stalls inside a transaction loses it.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(60);

/// Knows how to reach one target.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) dsn: std::sync::Arc<Dsn>,
    tls: Option<Tls>,
}

impl Dialer {
    /// # Errors
    /// What is wrong with the certificates.
    pub(crate) fn new(dsn: Dsn, inline_roots: Option<&str>) -> Result<Self, String> {
        let tls = match dsn.ssl_mode {
            SslMode::Disable => None,
            mode => Some(Tls::new(mode, dsn.root_certificate.as_deref(), inline_roots)?),
        };
        Ok(Self { dsn: std::sync::Arc::new(dsn), tls })
    }

    /// A session in `database`, ready for statements.
    pub(crate) async fn dial(&self, database: &str) -> Result<(Client, JoinHandle<()>), Error> {
        use tokio_postgres::config::SslMode as Wire;
        let (client, task) = match (self.dsn.ssl_mode, &self.tls) {
            (SslMode::Disable, _) | (_, None) => self.plain(database).await?,
            (SslMode::Allow, Some(tls)) => match self.plain(database).await {
                Err(error) if is_refused_as_it_is(&error) => self.encrypted(database, tls, Wire::Require).await?,
                other => other?,
            },
            (SslMode::Prefer, Some(tls)) => match self.encrypted(database, tls, Wire::Prefer).await {
                Err(error) if is_refused_as_it_is(&error) => self.plain(database).await?,
                other => other?,
            },
            (_, Some(tls)) => self.encrypted(database, tls, Wire::Require).await?,
        };
        self.ready(&client).await?;
        Ok((client, task))
    }

    /// Puts a session into the state in which statements may run on it, whatever role and database would have it be.
    pub(crate) async fn ready(&self, client: &Client) -> Result<(), Error> {
        client.batch_execute(&self.settings()).await?;
        if self.dsn.search_path.is_none() {
            self.put_catalog_first(client).await?;
        }
        Ok(())
    }

    /// Whoever may change the database's settings can name a schema of his before `pg_catalog`, which is searched first only as long
    /// as nobody names it: his functions would then run with the admin's rights.
    async fn put_catalog_first(&self, client: &Client) -> Result<(), Error> {
        let answer = client.simple_query("SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))").await?;
        let path: Vec<&str> = rows(&answer).filter_map(|row| row.first().copied().flatten()).collect();
        if path.first().is_none_or(|first| *first == CATALOG) {
            return Ok(());
        }
        let others: Vec<String> = path.into_iter().filter(|schema| *schema != CATALOG).map(ident).collect();
        client.batch_execute(&set_path(&others.join(", "))).await
    }

    async fn plain(&self, database: &str) -> Result<(Client, JoinHandle<()>), Error> {
        let config = self.config(database, tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect(NoTls).await?;
        Ok((client, tokio::spawn(drive(connection))))
    }

    async fn encrypted(
        &self,
        database: &str,
        tls: &Tls,
        mode: tokio_postgres::config::SslMode,
    ) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, connection) = self.config(database, mode).connect(tls.clone()).await?;
        Ok((client, tokio::spawn(drive(connection))))
    }

    fn config(&self, database: &str, mode: tokio_postgres::config::SslMode) -> Config {
        let Dsn { hosts, user, password, connect_timeout, application_name, .. } = &*self.dsn;
        let mut config = Config::new();
        config
            .user(user)
            .dbname(database)
            .ssl_mode(mode)
            .connect_timeout(*connect_timeout)
            .application_name(application_name)
            .target_session_attrs(self.dsn.target_session)
            .keepalives(self.dsn.keepalives);
        for (host, port) in hosts {
            if host.starts_with('/') {
                config.host_path(Path::new(host));
            } else {
                config.host(host);
            }
            config.port(*port);
        }
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        if let Some(idle) = self.dsn.keepalives_idle {
            config.keepalives_idle(idle);
        }
        if let Some(options) = &self.dsn.options {
            config.options(options);
        }
        config
    }

    /// Sent as statements, not as start-up options: poolers in front of a server refuse those.
    fn settings(&self) -> String {
        let mut sql = format!(
            "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; SET default_transaction_read_only = off; \
             SET default_transaction_isolation = 'read committed'; SET row_security = on; SET standard_conforming_strings = on; \
             SET TimeZone = {}; SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}",
            literal(&self.dsn.time_zone),
            STATEMENT_MAX.as_millis(),
            LOCK_MAX.as_millis(),
            IDLE_IN_TRANSACTION_MAX.as_millis()
        );
        if let Some(path) = &self.dsn.search_path {
            sql.push_str("; ");
            sql.push_str(&set_path(path));
        }
        sql
    }
}

const CATALOG: &str = "pg_catalog";

/// A list of names, which no quoting could keep together: handed over as one text.
fn set_path(names: &str) -> String {
    format!("SELECT pg_catalog.set_config('search_path', {}, false)", literal(names))
}

/// Whether the other kind of connection may do: the handshake failed, or `pg_hba.conf` has no line for this kind.
fn is_refused_as_it_is(error: &Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => error.to_string().contains("TLS"),
    }
}

/// Notices and errors of a session have nowhere to go but its requests; a broken one shows there.
async fn drive(connection: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = %super::failure::chain(&error), "a session on a target ended");
    }
}

impl Connect for Dialer {
    fn connect(
        &self,
        _: &Config,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(async move { self.dial(&self.dsn.database).await })
    }
}
