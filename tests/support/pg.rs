//! PostgreSQL: one server for the whole run, a database for each test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use leasehold_devpg::{DevPg, Login, Options};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::wait::until;

/// The guide's own login.
pub const ADMIN: &str = "root";
pub const ADMIN_PASSWORD: &str = "rootpassword";

/// The PostgreSQL that all tests share. Nobody stops it: tests that need that have [`own_postgresql`].
pub fn shared_postgresql() -> &'static DevPg {
    static SHARED: OnceLock<DevPg> = OnceLock::new();
    SHARED.get_or_init(own_postgresql)
}

/// A PostgreSQL for one test alone, every statement logged.
pub fn own_postgresql() -> DevPg {
    let options = Options {
        admin: Login::new(ADMIN, ADMIN_PASSWORD),
        max_connections: 200,
        log_statements: true,
        ..Options::default()
    };
    DevPg::start(options).unwrap_or_else(|error| panic!("a private PostgreSQL: {error}"))
}

/// One database of a PostgreSQL, filled as `myapp` is.
#[derive(Debug)]
pub struct Database<'a> {
    server: &'a DevPg,
    name: String,
}

impl Database<'static> {
    /// A fresh database in the shared PostgreSQL.
    pub fn fresh() -> Self {
        Self::fresh_in(shared_postgresql())
    }
}

impl<'a> Database<'a> {
    /// A fresh database in this PostgreSQL.
    pub fn fresh_in(server: &'a DevPg) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Two copies of one template at once would wait for each other in PostgreSQL anyway.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let name = format!("app{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = format!("CREATE DATABASE {name} TEMPLATE {} OWNER app_owner;", server.database());
        server.psql_in("postgres", &sql).expect("a database can be made");
        // Rights on a database are not copied with it.
        let sql = format!("GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {ADMIN} WITH GRANT OPTION;");
        server.psql_in("postgres", &sql).expect("the admin can be given its rights");
        Self { server, name }
    }

    /// The database that the server came with.
    pub fn first_of(server: &'a DevPg) -> Self {
        Self { server, name: server.database().to_owned() }
    }

    /// A database that the test made itself.
    pub fn named(server: &'a DevPg, name: &str) -> Self {
        Self { server, name: name.to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn server(&self) -> &'a DevPg {
        self.server
    }

    /// As the guide writes it: the password inside.
    pub fn plain_url(&self) -> String {
        format!("postgresql://{ADMIN}:{ADMIN_PASSWORD}@127.0.0.1:{}/{}", self.server.port(), self.name)
    }

    /// With `{{username}}` and `{{password}}`.
    pub fn templated_url(&self) -> String {
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/{}", self.server.port(), self.name)
    }

    /// The body that configures a connection to this database.
    pub fn config(&self) -> Value {
        json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": ["*"],
            "connection_url": self.templated_url(),
            "username": ADMIN,
            "password": ADMIN_PASSWORD,
        })
    }

    /// Runs SQL as superuser; rows as lines, columns separated by `|`.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        until(sql, || match self.server.psql_in(&self.name, sql) {
            // The server changes rights on the same object at this moment.
            Err(error) if error.to_string().contains("tuple concurrently updated") => None,
            done => Some(done.unwrap_or_else(|error| panic!("{sql}: {error}"))),
        })
    }

    /// Whether a PostgreSQL role has this name.
    #[track_caller]
    pub fn has_role(&self, name: &str) -> bool {
        self.sql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'")) == "1"
    }

    /// What `\du` shows of this role's expiry.
    #[track_caller]
    pub fn valid_until(&self, name: &str) -> String {
        self.sql(&format!("SELECT rolvaliduntil AT TIME ZONE 'UTC' FROM pg_roles WHERE rolname = '{name}'"))
    }

    /// The seconds that are left of this role's `VALID UNTIL`.
    #[track_caller]
    pub fn seconds_left(&self, name: &str) -> i64 {
        self.sql(&format!(
            "SELECT floor(extract(epoch FROM rolvaliduntil - now())) FROM pg_roles WHERE rolname = '{name}'"
        ))
        .parse()
        .unwrap_or_else(|_| panic!("role `{name}` has no end"))
    }

    /// Logs in over TCP.
    pub fn login(&self, user: &str, password: &str) -> Result<Session, String> {
        Session::open(self.server.port(), &self.name, user, password)
    }

    /// Whether this login works.
    pub fn lets_in(&self, user: &str, password: &str) -> bool {
        self.login(user, password).is_ok()
    }
}

/// One open session of a leased role.
pub struct Session {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    fn open(port: u16, database: &str, user: &str, password: &str) -> Result<Self, String> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).dbname(database).user(user).password(password);
        config.connect_timeout(std::time::Duration::from_secs(30));
        let (client, connection) = runtime.block_on(config.connect(NoTls)).map_err(|error| said(&error))?;
        runtime.spawn(async move {
            // A session that the server ends is what some tests wait for.
            let _ = connection.await;
        });
        Ok(Self { runtime, client })
    }

    /// Runs SQL; the first column of every row, or PostgreSQL's words.
    pub fn sql(&self, sql: &str) -> Result<Vec<String>, String> {
        let messages = self.runtime.block_on(self.client.simple_query(sql)).map_err(|error| said(&error))?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            })
            .collect())
    }

    /// Whether the session still answers.
    pub fn is_alive(&self) -> bool {
        self.sql("SELECT 1").is_ok()
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(database) => format!("{} (SQLSTATE {})", database.message(), database.code().code()),
        None => error.to_string(),
    }
}
