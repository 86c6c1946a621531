//! A target database as it is used: a bounded pool, deadlines on every answer, one lock for statements that must take turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{self, Hook, HookError, Metrics, PoolError, TimeoutType};
use futures_util::future::join_all;
use secrecy::SecretString;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::super::connection::ConnectionRecord;
use super::dial::{DialError, Dialer, STATEMENT_MAX};
use super::dsn::SslMode;
use super::failure::{TargetError, is_down};
use super::files::{ConnectionFiles, Named};
use super::logins::{self, Login, Logins};
use super::members::Manager;
use super::sql::{ident, rows};
use super::statements::leaves_session_alone;
use super::tls::Tls;

/// How long a server may take to answer what costs it nothing; longer, and it counts as hanging.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long work waits for a connection of the pool, or for its turn.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);
/// The server's own time limits end a statement; this is the net below them.
pub(crate) const MARGIN: Duration = Duration::from_secs(2);
/// Sessions outside the pool, in other databases of the server.
const ELSEWHERE_MAX: usize = 2;
/// Logins that only try a password.
const TRIES_MAX: usize = 4;
/// A target's clock may be set meanwhile: so long, what it said is believed.
const TIME_AGE_MAX: Duration = Duration::from_secs(5);

/// One lock per target database, shared by all connections that lead to it.
#[derive(Default)]
pub(crate) struct Turns(StdMutex<HashMap<String, Arc<Mutex<()>>>>);

impl Turns {
    fn of(&self, address: &str, database: &str) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds any more are not worth keeping.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(format!("{address}/{database}")).or_default())
    }
}

/// What a target's clock said, and when that was heard.
#[derive(Clone, Copy)]
pub(crate) struct TargetTime {
    said: i64,
    heard: Instant,
}

impl TargetTime {
    /// In milliseconds since 1970, rather behind the target's clock than ahead of it: it was read before it was heard.
    pub(crate) fn now(self) -> i64 {
        self.said.saturating_add(i64::try_from(self.heard.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// What a configured connection leads to.
pub(crate) struct Server {
    pub(crate) identity: Option<String>,
    /// What the user there cannot do and will have to.
    pub(crate) warnings: Vec<String>,
}

type Pool = managed::Pool<Manager>;
type Object = managed::Object<Manager>;

/// A configured connection, open.
pub(crate) struct ConnectionPool {
    dialer: Dialer,
    logins: Arc<Logins>,
    /// How long one session may take to come about, whatever host it is at last.
    wait: Duration,
    pool: Pool,
    pool_size: usize,
    idle_max: usize,
    turns: Arc<Turns>,
    time: StdMutex<Option<TargetTime>>,
    /// Sessions in other databases of the server: few, and only during a revocation.
    elsewhere: Arc<Semaphore>,
    /// Logins that only try a password.
    tries: Semaphore,
}

impl ConnectionPool {
    /// Opens no session yet; reads certificates.
    ///
    /// # Errors
    /// What is wrong with the configuration, in words for the client.
    pub(crate) async fn new(
        record: &ConnectionRecord,
        turns: Arc<Turns>,
        files: &ConnectionFiles,
    ) -> Result<Self, String> {
        let dsn = record.dsn().map_err(|error| error.to_string())?;
        let named = if record.has_confined_files() { Named::ByRequest } else { Named::ByOldRecord };
        let tls = match dsn.ssl_mode {
            SslMode::Disable => None,
            _ => Some(Tls::load(&dsn, record.inline_tls(), files, named).await?),
        };
        let dialer = Dialer::new(dsn, tls);
        let wait = dialer.patience();
        let limits = record.limits()?;
        let logins = Arc::new(Logins::new(&dialer, &record.other_passwords()));
        let manager = Manager::new(dialer.clone(), Arc::clone(&logins));
        let lifetime = limits.lifetime;
        let too_old = Hook::sync_fn(move |_, metrics: &Metrics| match lifetime {
            Some(lifetime) if metrics.created.elapsed() > lifetime => Err(HookError::message("too old")),
            _ => Ok(()),
        });
        let pool = Pool::builder(manager)
            .max_size(limits.open)
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(wait))
            .recycle_timeout(Some(ANSWER_MAX))
            .pre_recycle(too_old)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            dialer,
            logins,
            wait,
            pool,
            pool_size: limits.open,
            idle_max: limits.idle,
            turns,
            time: StdMutex::new(None),
            elsewhere: Arc::new(Semaphore::new(ELSEWHERE_MAX)),
            tries: Semaphore::new(TRIES_MAX),
        })
    }

    /// Whether what met this error may do on another host; `left` counts down how often that is tried.
    pub(crate) fn may_go_elsewhere(&self, error: &TargetError, left: &mut u32) -> bool {
        let is_lost = matches!(error, TargetError::Down(_)) && self.dialer.has_several_hosts();
        let goes = (is_lost || error.is_of_standby()) && *left > 0;
        *left -= u32::from(goes);
        goes
    }

    pub(crate) fn database(&self) -> &str {
        &self.dialer.dsn.database
    }

    pub(crate) fn user(&self) -> &str {
        &self.dialer.dsn.user
    }

    /// What messages may name, although the password may hold the same letters.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.dialer.dsn.names()
    }

    /// The time of the target, if it told it lately.
    pub(crate) fn time(&self) -> Option<TargetTime> {
        let time = *self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.filter(|time| time.heard.elapsed() < TIME_AGE_MAX)
    }

    /// `answer` has the target's clock in that column of its row, in milliseconds since 1970.
    pub(crate) fn told_time(&self, answer: &[SimpleQueryMessage], column: usize) {
        let said = rows(answer).next().and_then(|row| row.get(column).copied().flatten()?.parse().ok());
        if let Some(said) = said {
            *self.time.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(TargetTime { said, heard: Instant::now() });
        }
    }

    /// Waits until no other statement that touches shared objects of `database` is under way.
    pub(crate) async fn turn(&self, database: &str, patience: Duration) -> Result<OwnedMutexGuard<()>, TargetError> {
        let turn = self.turns.of(&self.dialer.dsn.address(), database);
        timeout(patience, turn.lock_owned()).await.map_err(|_| {
            TargetError::Busy(format!(
                "statements on shared objects of database {database:?} wait for each other too long"
            ))
        })
    }

    /// A session of the pool.
    pub(crate) async fn session(&self) -> Result<Session, TargetError> {
        match self.pool.get().await {
            Ok(object) => {
                Ok(Session { held: Some(Held::Pooled(object, self.idle_max)), server: self.dialer.dsn.label() })
            }
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(TargetError::Busy(format!(
                "all {} connections to {} are in use (max_open_connections)",
                self.pool_size,
                self.dialer.dsn.label()
            ))),
            Err(PoolError::Timeout(_)) => Err(self.unreachable("timed out")),
            Err(PoolError::Backend(error)) => Err(self.failed_to_connect(&error)),
            Err(PoolError::Closed) => Err(TargetError::Reconfigured),
            Err(error) => Err(self.unreachable(&error.to_string())),
        }
    }

    /// A session of its own in another database of the server.
    async fn session_in(&self, database: &str) -> Result<Session, TargetError> {
        let permit = match timeout(WAIT_MAX, Arc::clone(&self.elsewhere).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(TargetError::Busy("sessions in other databases wait for each other too long".to_owned())),
        };
        match timeout(self.wait, self.logins.dial(database)).await {
            Ok(Ok((client, task))) => {
                Ok(Session { held: Some(Held::Own { client, task, _place: permit }), server: self.dialer.dsn.label() })
            }
            Ok(Err(error)) => Err(self.failed_to_connect_to(database, &error)),
            Err(_) => Err(self.unreachable("timed out")),
        }
    }

    /// One more session, also when the pool has no other.
    pub(crate) async fn session_aside(&self) -> Result<Session, TargetError> {
        self.session_in(self.database()).await
    }

    /// A session in whichever database of the server.
    pub(crate) async fn session_at(&self, database: &str) -> Result<Session, TargetError> {
        if database == self.database() { self.session().await } else { self.session_in(database).await }
    }

    /// What a login on the target meets, with another user or another password. It leaves nothing behind.
    pub(crate) async fn try_login(&self, user: &str, password: &SecretString) -> Result<Login, TargetError> {
        let Ok(Ok(_place)) = timeout(WAIT_MAX, self.tries.acquire()).await else {
            return Err(TargetError::Busy("logins that try a password wait for each other too long".to_owned()));
        };
        match timeout(self.wait, logins::try_one(&self.dialer, user, password)).await {
            Ok(met) => met.map_err(|error| self.failed_to_connect(&error)),
            Err(_) => Err(self.unreachable("timed out")),
        }
    }

    /// A session of another user, outside of the pool, with the first of these passwords that the target takes.
    pub(crate) async fn session_as(&self, user: &str, passwords: &[SecretString]) -> Result<Session, TargetError> {
        let permit = match timeout(WAIT_MAX, Arc::clone(&self.elsewhere).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(TargetError::Busy("sessions of other users wait for each other too long".to_owned())),
        };
        let (first, others) = match passwords.split_first() {
            Some((first, others)) => (self.dialer.as_user(user, first), others),
            None => return Err(TargetError::Refused(format!("no password of user {user:?} is known"))),
        };
        let label = first.dsn.label();
        match timeout(self.wait, Logins::new(&first, others).dial(self.database())).await {
            Ok(Ok((client, task))) => {
                Ok(Session { held: Some(Held::Own { client, task, _place: permit }), server: label })
            }
            // The target answers: it is not the place that is to blame, but this login.
            Ok(Err(error)) if error.as_db_error().is_some_and(|db| !is_down(db.code())) => {
                Err(TargetError::Refused(error.connecting(&first.dsn)))
            }
            Ok(Err(error)) => Err(TargetError::Down(error.connecting(&first.dsn))),
            Err(_) => Err(TargetError::Down(format!("failed to connect to {label}: timed out"))),
        }
    }

    /// Connects and asks for an answer.
    pub(crate) async fn ping(&self) -> Result<(), TargetError> {
        let session = self.session().await?;
        session.run("SELECT 1", ANSWER_MAX).await?;
        session.finish();
        Ok(())
    }

    /// Connects, and looks at what the server and our user are.
    pub(crate) async fn verify(&self) -> Result<Server, TargetError> {
        self.ping().await?;
        let session = self.session().await?;
        let sql = "SELECT r.rolsuper OR r.rolcreaterole, r.rolsuper OR r.rolinherit FROM pg_catalog.pg_roles r \
                   WHERE r.rolname = CURRENT_USER";
        let answer = session.ask(sql, ANSWER_MAX).await?;
        session.finish();
        let row = rows(&answer).next().unwrap_or_default();
        let lacks = |at: usize| row.get(at).copied().flatten() == Some("f");
        let user = self.user();
        let mut warnings = Vec::new();
        if lacks(0) {
            warnings.push(format!("user {user:?} may not create roles: ALTER ROLE {} CREATEROLE", ident(user)));
        }
        if lacks(1) {
            warnings.push(format!(
                "user {user:?} does not inherit the rights of the roles it makes and so cannot end their sessions: \
                 ALTER ROLE {} INHERIT",
                ident(user)
            ));
        }
        if let Some(why) = self.dialer.plain_text_because() {
            warnings.push(format!(
                "sessions are in plain text: the server offers TLS, which failed ({why}), and sslmode=prefer allows that: set \
                 sslmode=require"
            ));
        }
        Ok(Server { identity: self.identity().await?, warnings })
    }

    /// What tells this server from every other, as long as it lives; `None` where it does not say.
    pub(crate) async fn identity(&self) -> Result<Option<String>, TargetError> {
        let session = self.session().await?;
        match session.ask("SELECT c.system_identifier FROM pg_catalog.pg_control_system() c", ANSWER_MAX).await {
            Ok(answer) => {
                session.finish();
                Ok(rows(&answer).next().and_then(|row| row.first().copied().flatten().map(str::to_owned)))
            }
            Err(TargetError::Sql(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a session back on which an operator's `statements` ran: what they left in it must not reach the next lease's.
    pub(crate) async fn finish_after(&self, session: Session, statements: &[String]) {
        let is_clean = statements.iter().all(|statement| leaves_session_alone(statement));
        if is_clean || self.cleared(&session).await {
            session.finish();
        }
    }

    async fn cleared(&self, session: &Session) -> bool {
        let Ok(client) = session.client() else { return false };
        let clear = async {
            client.simple_query("DISCARD ALL").await?;
            self.dialer.ready(client).await
        };
        matches!(timeout(ANSWER_MAX, clear).await, Ok(Ok(())))
    }

    /// No new sessions; those at work end with their work.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    fn failed_to_connect(&self, error: &DialError) -> TargetError {
        TargetError::Down(error.connecting(&self.dialer.dsn))
    }

    /// A server that answers for one database that it does not let us in there is not down.
    fn failed_to_connect_to(&self, database: &str, error: &DialError) -> TargetError {
        match error.as_db_error() {
            // Also one that lets in too few: that is the database's own limit, set by whoever owns it.
            Some(db) if !is_down(db.code()) || *db.code() == SqlState::TOO_MANY_CONNECTIONS => {
                TargetError::Refused(format!(
                    "failed to connect to database {database:?}, where the role owns or may do something: {}: {} (SQLSTATE {})",
                    db.severity(),
                    db.message(),
                    db.code().code()
                ))
            }
            _ => self.failed_to_connect(error),
        }
    }

    fn unreachable(&self, why: &str) -> TargetError {
        TargetError::Down(format!("failed to connect to {}: {why}", self.dialer.dsn.label()))
    }
}

enum Held {
    /// With how many idle ones the pool may keep.
    Pooled(Object, usize),
    Own {
        client: Client,
        task: JoinHandle<()>,
        /// Among those outside the pool.
        _place: OwnedSemaphorePermit,
    },
}

/// One session. Unless [`Session::finish`] is called it is closed when dropped: nobody knows what state it is in.
pub(crate) struct Session {
    held: Option<Held>,
    server: String,
}

impl Session {
    fn client(&self) -> Result<&Client, TargetError> {
        match &self.held {
            Some(Held::Pooled(object, _)) => Ok(&object.client),
            Some(Held::Own { client, .. }) => Ok(client),
            None => Err(TargetError::Down("the session is over".to_owned())),
        }
    }

    /// Runs one text, which may hold several statements: together they are one transaction.
    pub(crate) async fn run(&self, sql: &str, within: Duration) -> Result<Vec<SimpleQueryMessage>, TargetError> {
        let client = self.client()?;
        match timeout(within, client.simple_query(sql)).await {
            Ok(answer) => answer.map_err(|error| self.met(error)),
            Err(_) => Err(self.hangs(within)),
        }
    }

    /// Asks a question of ours: see [`bare`].
    pub(crate) async fn ask(&self, sql: &str, within: Duration) -> Result<Vec<SimpleQueryMessage>, TargetError> {
        self.run(&bare(sql), within).await
    }

    /// Sends all texts at once, in order, and gathers the answers: one round trip for all. The first answer must come
    /// within `first`, all within `within`.
    ///
    /// # Errors
    /// Only when the answers do not come; what single texts met is in the list.
    pub(crate) async fn pipeline(
        &self,
        texts: &[&str],
        first: Duration,
        within: Duration,
    ) -> Result<Vec<Result<Vec<SimpleQueryMessage>, TargetError>>, TargetError> {
        let client = self.client()?;
        let lives = Notify::new();
        let queries = texts.iter().map(|sql| async {
            let answer = client.simple_query(sql).await;
            lives.notify_one();
            answer
        });
        let patience = async {
            let end = Instant::now() + within;
            if timeout(first, lives.notified()).await.is_err() {
                return first;
            }
            sleep_until(end.into()).await;
            within
        };
        tokio::select! {
            answers = join_all(queries) => Ok(answers.into_iter().map(|answer| answer.map_err(|error| self.met(error))).collect()),
            waited = patience => Err(self.hangs(waited)),
        }
    }

    /// Back to the pool, clean: no transaction is open.
    pub(crate) fn finish(mut self) {
        match self.held.take() {
            Some(Held::Pooled(object, idle_max)) => {
                let is_one_too_many = Object::pool(&object).is_some_and(|pool| {
                    let status = pool.status();
                    idle_max < status.max_size && status.available >= idle_max
                });
                if is_one_too_many {
                    drop(Object::take(object));
                }
            }
            // The session says good-bye by itself when its client is gone.
            Some(Held::Own { client, .. }) => drop(client),
            None => {}
        }
    }

    /// A server that takes no writes any more is left: the others that wait in the pool lead there, too.
    fn met(&self, error: tokio_postgres::Error) -> TargetError {
        let error = TargetError::from(error);
        if error.is_of_standby() {
            self.leave();
        }
        error
    }

    fn leave(&self) {
        if let Some(Held::Pooled(object, _)) = &self.held
            && let Some(pool) = Object::pool(object)
        {
            pool.retain(|_, _| false);
        }
    }

    /// The other sessions that wait in the pool lead to the same server: each would be waited for as long once more.
    fn hangs(&self, within: Duration) -> TargetError {
        self.leave();
        TargetError::Down(format!("{} did not answer within {} s", self.server, within.as_secs_f32()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        match self.held.take() {
            Some(Held::Pooled(object, _)) => drop(Object::take(object)),
            Some(Held::Own { task, .. }) => task.abort(),
            None => {}
        }
    }
}

/// A text of ours as it must be sent: whoever may create in a schema of the admin's search path can put an operator there that
/// fits better than PostgreSQL's own, and it would run with the admin's rights. Afterwards the path is what it was.
pub(crate) fn bare(sql: &str) -> String {
    format!("SET LOCAL search_path = pg_catalog; {sql}")
}

/// For a statement that the server itself ends after `limit`.
pub(crate) fn with_margin(limit: Duration) -> Duration {
    limit.min(STATEMENT_MAX) + MARGIN
}
