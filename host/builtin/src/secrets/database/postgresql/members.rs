//! The sessions of a pool: how they are made, and which of them are worth using again.
//!
//! Must not know: what is done on a session.
//!
//! Start with [`Manager`].
//!
//! Invariant: where a connection has several hosts, no session is used again that leads to a server which is silent or takes no writes.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::dial::{DialError, Dialer};
use super::logins::Logins;

/// A session that was used so lately still leads to a server that answers.
const FRESH: Duration = Duration::from_secs(1);

/// A session of the pool; dropped, it is closed.
pub(crate) struct Member {
    pub(super) client: Client,
    task: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the sessions of a pool.
pub(crate) struct Manager {
    dialer: Dialer,
    logins: Arc<Logins>,
    /// When a session showed that its server will not do any more; those that are older lead there, too.
    left_at: StdMutex<Option<Instant>>,
}

impl Manager {
    pub(super) fn new(dialer: Dialer, logins: Arc<Logins>) -> Self {
        Self { dialer, logins, left_at: StdMutex::new(None) }
    }

    fn is_left(&self, created: Instant) -> bool {
        self.left_at.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| created < at)
    }
}

impl managed::Manager for Manager {
    type Type = Member;
    type Error = DialError;

    async fn create(&self) -> Result<Member, DialError> {
        let (client, task) = self.logins.dial(self.logins.database()).await?;
        Ok(Member { client, task })
    }

    async fn recycle(&self, member: &mut Member, metrics: &Metrics) -> RecycleResult<DialError> {
        if member.client.is_closed() {
            return Err(RecycleError::message("the session is closed"));
        }
        // Where there is no other host to go to, the statement itself finds out.
        if !self.dialer.has_several_hosts() || metrics.last_used() < FRESH {
            return Ok(());
        }
        if !self.is_left(metrics.created) && self.dialer.still_fits(&member.client).await {
            return Ok(());
        }
        *self.left_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Err(RecycleError::message("the server does not answer, or has become a standby"))
    }
}
