//! Opening: the connection string, whose tables they are, the schema.
//!
//! Invariant: tables that are not ours are left as they were.

use std::time::Duration;

use leasehold_postgresql::dsn::{Dsn, SslMode};
use leasehold_postgresql::files::{ConnectionFiles, Named};
use leasehold_postgresql::sql::{ident, rows};
use leasehold_postgresql::tls::{Inline, Tls};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Names;
use super::commit::lock_of;
use super::session::Sessions;

/// How the store is reached, and how its tables are called.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    pub connection_url: SecretString,
    /// What the names of all tables begin with; a schema and a dot may stand before it.
    pub table: String,
    /// Sessions at a time.
    pub max_parallel: usize,
    pub max_idle_connections: usize,
    /// Tables that are missing are an error.
    pub skip_create_table: bool,
    /// How often the first connection is tried again.
    pub max_connect_retries: u32,
    /// What people know this server by.
    pub server_name: String,
    /// Nobody else may work on the tables meanwhile.
    pub alone: bool,
}

impl PostgresSettings {
    pub const TABLE: &str = "leasehold";
    pub const PARALLEL: usize = 16;

    #[must_use]
    pub fn new(connection_url: SecretString, server_name: String) -> Self {
        Self {
            connection_url,
            table: Self::TABLE.to_owned(),
            max_parallel: Self::PARALLEL,
            max_idle_connections: Self::PARALLEL,
            skip_create_table: false,
            max_connect_retries: 1,
            server_name,
            alone: false,
        }
    }

    /// Whether the settings can be understood; nothing is opened.
    ///
    /// # Errors
    /// [`PostgresOpenError::Settings`].
    pub fn check(&self) -> Result<(), PostgresOpenError> {
        self.dsn()?;
        self.names().map(drop)
    }

    fn dsn(&self) -> Result<Dsn, PostgresOpenError> {
        let url = self.connection_url.expose_secret();
        Dsn::parse(url, "", &SecretString::from(""), false)
            .map_err(|error| PostgresOpenError::Settings(error.to_string()))
    }

    /// The schema, if one is named, and the beginning of the tables' names.
    fn names(&self) -> Result<(Option<&str>, &str), PostgresOpenError> {
        let (schema, prefix) = match self.table.split_once('.') {
            Some((schema, prefix)) => (Some(schema), prefix),
            None => (None, self.table.as_str()),
        };
        let is_fine = |name: &str| {
            !name.is_empty()
                && name.len() <= PREFIX_MAX
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if is_fine(prefix) && schema.is_none_or(is_fine) {
            return Ok((schema, prefix));
        }
        Err(PostgresOpenError::Settings(format!(
            "`table` must be letters, digits and `_`, at most {PREFIX_MAX}, with a schema and a dot before it or not"
        )))
    }
}

/// Why the store was not opened. The text goes to the operator and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    #[error("storage \"postgresql\": {0}")]
    Settings(String),
    #[error("storage \"postgresql\" could not be reached: {0}")]
    Server(String),
    #[error(
        "storage \"postgresql\" is in use by another server ({0}): stop that one first; one that was killed counts for 10 s more"
    )]
    InUse(String),
    #[error(
        "storage \"postgresql\": {0} is not a table of Leasehold: name another `table`, which is the beginning of the names of all tables"
    )]
    Foreign(String),
    #[error(
        "storage \"postgresql\": its tables are to be changed to a newer schema, and others have used them for {waited} s without a pause: \
         start the server again when no export or long transaction is under way"
    )]
    Busy { waited: u64 },
    #[error("storage \"postgresql\" was written by a newer Leasehold (schema {found}, this one knows {known})")]
    Newer { found: usize, known: usize },
    #[error(
        "storage \"postgresql\": the tables that begin with {0} do not exist, and `skip_create_table` keeps the server from making them"
    )]
    Missing(String),
}

/// Forward only; a file's place in this list is the schema version it leads to.
pub(super) const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/0001_first.sql"),
    include_str!("migrations/0002_several_servers.sql"),
    include_str!("migrations/0003_claims_of_the_dead.sql"),
    include_str!("migrations/0004_counts.sql"),
    include_str!("migrations/0005_empty.sql"),
    include_str!("migrations/0006_timelines.sql"),
];
/// The oldest schema that a binary must know to write to this one.
const OLDEST_WRITER: usize = 2;
const MARK: &str = "leasehold";
/// How long a step of the migration may take.
const STEP_MAX: Duration = Duration::from_secs(60);
/// How long a migration waits for a table. Whoever writes waits behind it, so it gives up soon and tries again.
const LOCK_MAX: &str = "SET LOCAL lock_timeout = '1s'";
/// How often it tries, and how long it lets others work in between.
const MIGRATION_TRIES: u32 = 30;
const MIGRATION_PAUSE: Duration = Duration::from_secs(2);
/// A longer name would be cut by PostgreSQL: 63 bytes, less the longest of our endings.
const PREFIX_MAX: usize = 40;

/// Connects and brings the tables to the newest schema.
pub(super) async fn prepare(settings: &PostgresSettings) -> Result<(Sessions, Names), PostgresOpenError> {
    prepare_with(settings, &MIGRATIONS).await
}

pub(super) async fn prepare_with(
    settings: &PostgresSettings,
    migrations: &[&str],
) -> Result<(Sessions, Names), PostgresOpenError> {
    let wrong = PostgresOpenError::Settings;
    let dsn = settings.dsn()?;
    for warning in &dsn.warnings {
        tracing::warn!("storage: {warning}");
    }
    for option in without_effect(&dsn) {
        tracing::warn!(
            "storage: `{option}` in connection_url has no effect: a pooler may hand the session to somebody else"
        );
    }
    let tls = match dsn.ssl_mode {
        SslMode::Disable => None,
        _ => Some(
            Tls::load(&dsn, Inline::default(), &ConnectionFiles::beneath(None), Named::ByConfiguration)
                .await
                .map_err(wrong)?,
        ),
    };
    let sessions = Sessions::new(dsn, tls, settings.max_parallel.max(1), settings.max_idle_connections.max(1));
    let mut tries = 0;
    let (client, task) = loop {
        match sessions.alone().await {
            Ok(dialled) => break dialled,
            Err(error) if tries < settings.max_connect_retries => {
                tries += 1;
                tracing::warn!(%error, "the storage could not be reached: trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(PostgresOpenError::Server(error.to_string())),
        }
    };
    let names = migrate_when_idle(&client, settings, migrations).await;
    drop(client);
    // The session says good-bye by itself when its client is gone.
    drop(task);
    Ok((sessions, names?))
}

/// Options that are set on a session by statements, which the store does not send.
fn without_effect(dsn: &Dsn) -> Vec<&'static str> {
    let timeouts = &dsn.timeouts;
    let known = [
        ("search_path", dsn.search_path.is_some()),
        ("statement_timeout", timeouts.statement.is_some()),
        ("lock_timeout", timeouts.lock.is_some()),
        ("idle_in_transaction_session_timeout", timeouts.idle_in_transaction.is_some()),
    ];
    let set = known.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name);
    set.chain(dsn.settings.iter().map(|(name, _)| *name)).collect()
}

/// Tables that others use are changed when there is a moment for it.
async fn migrate_when_idle(
    client: &Client,
    settings: &PostgresSettings,
    migrations: &[&str],
) -> Result<Names, PostgresOpenError> {
    let began = Instant::now();
    for tries in 1.. {
        match migrate(client, settings, migrations).await {
            Err(PostgresOpenError::Busy { .. }) if tries < MIGRATION_TRIES => {
                tracing::warn!(
                    "the storage's tables are in use, and are changed to a newer schema when they are not: trying again"
                );
                run(client, "ROLLBACK").await?;
                tokio::time::sleep(MIGRATION_PAUSE).await;
            }
            Err(PostgresOpenError::Busy { .. }) => break,
            other => return other,
        }
    }
    Err(PostgresOpenError::Busy { waited: began.elapsed().as_secs() })
}

async fn migrate(
    client: &Client,
    settings: &PostgresSettings,
    migrations: &[&str],
) -> Result<Names, PostgresOpenError> {
    let (schema, prefix) = settings.names()?;
    run(client, "BEGIN").await?;
    let schema = match schema {
        Some(schema) => schema.to_owned(),
        None => one(client, "SELECT pg_catalog.current_schema()").await?.ok_or_else(|| {
            PostgresOpenError::Settings("no schema is in the user's search_path: name it in `table`".to_owned())
        })?,
    };
    // The functions are made with this name in their text.
    if schema.contains(['$', '{']) {
        return Err(PostgresOpenError::Settings(format!(
            "the schema {schema:?} has `$` or `{{` in its name: name another"
        )));
    }
    let isolation = one(client, "SHOW transaction_isolation").await?.unwrap_or_default();
    if isolation != "read committed" {
        return Err(PostgresOpenError::Settings(format!(
            "transactions of this user are {isolation} and must be read committed: ALTER ROLE … RESET default_transaction_isolation"
        )));
    }
    let quoted = format!("{}.\"{prefix}_", ident(&schema));
    let names = Names { lock: lock_of(&quoted, "server", ""), prefix: quoted.clone() };
    // Two servers that start at once make the tables one after the other.
    run(client, &format!("SELECT pg_catalog.pg_advisory_xact_lock({})", lock_of(&quoted, "schema", ""))).await?;
    let exists = async |name: &str| -> Result<bool, PostgresOpenError> {
        let question = format!("SELECT pg_catalog.to_regclass({})", leasehold_postgresql::sql::literal(name));
        Ok(one(client, &question).await?.is_some())
    };
    let bare = format!("{}.\"{prefix}\"", ident(&schema));
    if exists(&bare).await? {
        return Err(PostgresOpenError::Foreign(format!("{bare}, which Vault or another program uses,")));
    }
    let marker = format!("{quoted}schema\"");
    let found = if exists(&marker).await? {
        let question = format!("SELECT version, oldest_writer FROM {marker} WHERE mark = '{MARK}'");
        let answer = client.simple_query(&question).await.map_err(|_| PostgresOpenError::Foreign(marker.clone()))?;
        let row = rows(&answer).next().ok_or_else(|| PostgresOpenError::Foreign(marker.clone()))?;
        let number = |at: usize| row.get(at).copied().flatten().and_then(|text| text.parse::<usize>().ok());
        let (Some(found), Some(oldest)) = (number(0), number(1)) else {
            return Err(PostgresOpenError::Foreign(marker));
        };
        if oldest > migrations.len() {
            return Err(PostgresOpenError::Newer { found, known: migrations.len() });
        }
        found
    } else {
        0
    };
    if found == 0 {
        if settings.skip_create_table {
            return Err(PostgresOpenError::Missing(format!("{quoted}\"")));
        }
        let table = format!("{quoted}kv\"");
        if exists(&table).await? {
            return Err(PostgresOpenError::Foreign(table));
        }
        run(
            client,
            &format!(
                "CREATE TABLE {marker} (mark text NOT NULL PRIMARY KEY, version integer NOT NULL, oldest_writer integer NOT NULL); \
                 INSERT INTO {marker} VALUES ('{MARK}', 0, 0)"
            ),
        )
        .await?;
    }
    run(client, LOCK_MAX).await?;
    for step in migrations.iter().skip(found) {
        let inner = quoted.replace('\'', "''");
        let text = step.replace("{p}", &quoted).replace("{i}", &format!("\"{prefix}_")).replace("{n}", &inner);
        run(client, &text).await?;
    }
    if found < migrations.len() {
        let version = migrations.len();
        run(client, &format!("UPDATE {marker} SET version = {version}, oldest_writer = {OLDEST_WRITER}")).await?;
        tracing::info!(storage.schema = version, "the tables {quoted}…\" are at schema {version}");
    }
    run(client, "COMMIT").await?;
    Ok(names)
}

async fn run(client: &Client, sql: &str) -> Result<Vec<SimpleQueryMessage>, PostgresOpenError> {
    match timeout(STEP_MAX, client.simple_query(sql)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error))
            if [Some(&SqlState::LOCK_NOT_AVAILABLE), Some(&SqlState::T_R_DEADLOCK_DETECTED)]
                .contains(&error.code()) =>
        {
            Err(PostgresOpenError::Busy { waited: 0 })
        }
        Ok(Err(error)) => Err(PostgresOpenError::Server(leasehold_postgresql::chain(&error))),
        Err(_) => Err(PostgresOpenError::Server(format!("no answer within {} s", STEP_MAX.as_secs()))),
    }
}

async fn one(client: &Client, sql: &str) -> Result<Option<String>, PostgresOpenError> {
    let answer = run(client, sql).await?;
    Ok(rows(&answer).next().and_then(|row| row.first().copied().flatten().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_set_something_on_a_session_are_named() {
        let url = "postgres://u:p@h/d?statement_timeout=5s&search_path=x&sslmode=disable";
        let dsn = Dsn::parse(url, "", &SecretString::from(""), false).unwrap();
        assert_eq!(without_effect(&dsn), ["search_path", "statement_timeout"]);
        let plain = Dsn::parse("postgres://u:p@h/d?sslmode=disable", "", &SecretString::from(""), false).unwrap();
        assert_eq!(without_effect(&plain), Vec::<&str>::new());
    }
}
