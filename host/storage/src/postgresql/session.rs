//! Sessions on the store: at most so many, each call with a deadline, none kept after a failure.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::seams::storage::StorageError;
use leasehold_postgresql::chain;
use leasehold_postgresql::dial::Dialer;
use leasehold_postgresql::dsn::Dsn;
use leasehold_postgresql::tls::Tls;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::Parameter;

/// How long opening a session may take, for each host.
const DIAL_MAX: Duration = Duration::from_secs(1);
/// How long one statement may take. A store that does not answer at all is noticed sooner, by a beat.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Time to read what has arrived.
const LATE_MAX: Duration = Duration::from_millis(20);
/// How long a call waits for one of the sessions.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Sessions kept beside the pool.
const ASIDE_MAX: usize = 2;

/// Why a statement gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Nothing was sent.
    #[error("{0}")]
    Unreached(String),
    /// The statement was sent, and whether it was carried out is not known.
    #[error("{0}")]
    Unknown(String),
    /// PostgreSQL refused it; nothing was written.
    #[error("{message} (SQLSTATE {code})")]
    Sql { code: String, message: String, detail: Option<String> },
}

impl Failed {
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Sql { code, .. } => Some(code),
            _ => None,
        }
    }

    pub(super) fn was_rolled_back_for_another(&self) -> bool {
        [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED]
            .iter()
            .any(|code| self.code() == Some(code.code()))
    }
}

impl From<Failed> for StorageError {
    fn from(failed: Failed) -> Self {
        Self::Unavailable(failed.to_string())
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::Sql {
                code: db.code().code().to_owned(),
                message: db.message().to_owned(),
                detail: db.detail().map(str::to_owned),
            },
            None => Self::Unknown(format!("the connection to PostgreSQL failed: {}", chain(&error))),
        }
    }
}

struct Session {
    client: Client,
    task: JoinHandle<()>,
    /// Of the server that it leads to, where that was asked.
    timeline: Option<i64>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sessions of one storage.
pub(super) struct Sessions {
    dialer: Dialer,
    places: Semaphore,
    max: usize,
    idle_max: usize,
    /// What asks a server for its timeline, and the one that requests are served from: a session may lead to a server that another one has
    /// taken over from, or to the one that has.
    expected: Mutex<Option<(String, i64)>>,
    /// The one that was used last is used first.
    idle: Mutex<Vec<Session>>,
    /// Of the beat, and of what follows other servers: they must not wait for requests, nor for a place among the server's connections.
    aside: Mutex<Vec<Session>>,
}

impl Sessions {
    pub(super) fn new(mut dsn: Dsn, tls: Option<Tls>, max: usize, idle_max: usize) -> Self {
        // A host that does not answer must leave time for the next one.
        dsn.connect_timeout = dsn.connect_timeout.min(DIAL_MAX);
        let dialer = Dialer::new(dsn, tls).without_session_state();
        Self {
            dialer,
            places: Semaphore::new(max),
            max,
            idle_max,
            expected: Mutex::default(),
            idle: Mutex::default(),
            aside: Mutex::default(),
        }
    }

    /// A session outside the pool, for several statements in one transaction.
    pub(super) async fn alone(&self) -> Result<(Client, JoinHandle<()>), Failed> {
        let dsn = &self.dialer.dsn;
        // One more for what comes after the connection: TLS and the login.
        let limit = DIAL_MAX * u32::try_from(dsn.hosts.len() + 1).unwrap_or(u32::MAX);
        match timeout(limit, self.dialer.dial(&dsn.database)).await {
            Ok(Ok(dialled)) => Ok(dialled),
            Ok(Err(error)) => Err(Failed::Unreached(error.at(&dsn.address()))),
            Err(_) => {
                Err(Failed::Unreached(format!("{}: no connection within {} s", dsn.address(), limit.as_secs_f32())))
            }
        }
    }

    /// One statement in a transaction of its own and one round trip. Fails at once when `down` says that the store is away.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        mut down: watch::Receiver<Option<String>>,
    ) -> Result<Vec<Row>, Failed> {
        tokio::select! {
            biased;
            why = away(&mut down) => Err(Failed::Unknown(why)),
            answer = self.ask(sql, parameters, ANSWER_MAX) => answer,
        }
    }

    /// One statement; the answer must come within `limit`.
    pub(super) async fn ask(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, Failed> {
        let Ok(Ok(_place)) = timeout(WAIT_MAX, self.places.acquire()).await else {
            return Err(Failed::Unreached(format!(
                "all {} connections to PostgreSQL are in use (max_parallel)",
                self.max
            )));
        };
        let session = match self.take() {
            Some(session) => session,
            None => self.dial_expected().await?,
        };
        let (session, answer) = asked(session, sql, parameters, limit).await;
        match session {
            Some(session) => self.give_back(session),
            None => self.forget_idle(),
        }
        answer
    }

    /// As [`Sessions::ask`], over a session that no request uses.
    pub(super) async fn ask_aside(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, Failed> {
        let kept = {
            let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
            aside.retain(|session| !session.client.is_closed());
            aside.pop()
        };
        let session = match kept {
            Some(session) => session,
            None => self.dial().await?,
        };
        let (session, answer) = asked(session, sql, parameters, limit).await;
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        // One for the beat, one for what keeps up with other servers.
        if aside.len() < ASIDE_MAX {
            aside.extend(session);
        }
        answer
    }

    async fn dial(&self) -> Result<Session, Failed> {
        self.alone().await.map(|(client, task)| Session { client, task, timeline: None })
    }

    /// A session on the timeline that requests are served from.
    async fn dial_expected(&self) -> Result<Session, Failed> {
        let mut session = self.dial().await?;
        session.timeline = self.checked(&session.client).await?;
        Ok(session)
    }

    /// The timeline of the server that a session leads to, if it is the expected one.
    pub(super) async fn checked(&self, client: &Client) -> Result<Option<i64>, Failed> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((question, timeline)) = expected else { return Ok(None) };
        let rows = match timeout(ANSWER_MAX, client.query_typed(&question, &[])).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Failed::Unreached("PostgreSQL does not answer".to_owned())),
        };
        let found: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
        match found == Some(timeline) {
            true => Ok(found),
            false => Err(Failed::Unreached("PostgreSQL has failed over: this server follows".to_owned())),
        }
    }

    /// From now on requests are served from this timeline alone; `question` asks a server for its own.
    pub(super) fn serve_from(&self, question: String, timeline: i64) {
        let before = self.expected.lock().unwrap_or_else(PoisonError::into_inner).replace((question, timeline));
        if before.is_none_or(|(_, before)| before != timeline) {
            self.forget_idle();
        }
    }

    fn take(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.client.is_closed());
        idle.pop()
    }

    fn give_back(&self, session: Session) {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, number)| *number);
        if session.timeline != expected {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            idle.push(session);
        }
    }

    /// The others lead to the same server, and would fail one request each.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Comes to its end when the store is away; says why it is.
async fn away(down: &mut watch::Receiver<Option<String>>) -> String {
    let why = down.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
    match why {
        Ok(why) => why,
        // Nobody watches the store any more; the deadlines remain.
        Err(_) => std::future::pending().await,
    }
}

/// One statement over a session, which is given back if it can be used again: nobody knows what one is doing that does not answer.
async fn asked(
    session: Session,
    sql: &str,
    parameters: &[Parameter<'_>],
    limit: Duration,
) -> (Option<Session>, Result<Vec<Row>, Failed>) {
    let in_time = {
        let mut answer = pin!(session.client.query_typed(sql, parameters));
        match timeout(limit, &mut answer).await {
            // It may have been this process that stood still: an answer that has arrived meanwhile counts.
            Err(_) => timeout(LATE_MAX, answer).await,
            in_time => in_time,
        }
    };
    match in_time {
        Ok(Ok(rows)) => (Some(session), Ok(rows)),
        Ok(Err(error)) => {
            let failed = Failed::from(error);
            // Of 57P and 08 the server is going, or the session is.
            let lives = failed.code().is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08"));
            (lives.then_some(session), Err(failed))
        }
        Err(_) => (None, Err(Failed::Unknown(format!("PostgreSQL did not answer within {} s", limit.as_secs_f32())))),
    }
}
