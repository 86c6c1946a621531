//! Which of several hosts a session goes to.
//!
//! Must not know: TLS, logins, what is done on a session.
//!
//! Start with [`Dialer::dial`].
//!
//! Invariants: each host gets its own share of the time, whatever the others do with theirs. A host that did not do is tried after the
//! others for a while, and never left out. Where there is a choice, a session goes to a server that takes writes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::{Client, Error};

use super::{DialError, Dialer, Dialled};
use crate::dsn::{Dsn, TargetSession};
use crate::sql::rows;

/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 16;
/// For how long a host that did not do is tried last. After a fail-over the former primary is seldom back sooner, and whoever waits for it
/// loses its whole share of time with each new session.
const DOUBT: Duration = Duration::from_secs(30);
/// A login takes a few round trips, also where `connect_timeout` is shorter; as libpq.
const ATTEMPT_MIN: Duration = Duration::from_secs(2);
/// The same for the only host, which has nobody to leave time to.
const ONLY_MIN: Duration = Duration::from_secs(5);
/// How long all hosts together may take, unless one of them may take longer: a request has 90 s, and statements follow.
const ALL_MAX: Duration = Duration::from_secs(45);
/// For so many addresses of the only host there is time.
const ADDRESSES_IN_TIME: u32 = 3;

/// Where a host is.
pub(super) enum Place {
    Net(Vec<SocketAddr>),
    Local(String),
}

/// What is remembered from one session to the next.
#[derive(Default)]
pub(super) struct Memory {
    /// When a host or an address did not do.
    failed: StdMutex<HashMap<String, Instant>>,
    /// Counts the sessions of a connection that is to use its hosts in turn.
    turn: AtomicUsize,
}

impl Memory {
    fn is_in_doubt(&self, name: &str) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(name).is_some_and(|at| at.elapsed() < DOUBT)
    }

    fn note(&self, name: String, is_well: bool) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, at| at.elapsed() < DOUBT);
        if is_well {
            failed.remove(&name);
        } else {
            failed.insert(name, Instant::now());
        }
    }
}

/// How long one host may take until it lets us in.
pub(super) fn attempt_max(dsn: &Dsn) -> Duration {
    match u32::try_from(dsn.hosts.len()).unwrap_or(u32::MAX) {
        0 | 1 => dsn.connect_timeout.max(ONLY_MIN),
        // No host's share may be eaten up by those before it.
        hosts => dsn.connect_timeout.min(ALL_MAX / hosts).max(ATTEMPT_MIN),
    }
}

impl Dialer {
    /// How long a session may take to come about, whatever host it is at last.
    pub fn patience(&self) -> Duration {
        let (hosts, one) = (u32::try_from(self.dsn.hosts.len()).unwrap_or(u32::MAX), attempt_max(&self.dsn));
        let shares = if hosts > 1 { hosts } else { ADDRESSES_IN_TIME };
        // The net below the limits of the single hosts.
        one.saturating_mul(shares).min(ALL_MAX.max(one)) + Duration::from_secs(1)
    }

    /// Whether there is another host to go to when one will not do.
    pub fn has_several_hosts(&self) -> bool {
        self.dsn.hosts.len() > 1
    }

    /// A session in `database`, ready for statements.
    ///
    /// # Errors
    /// No host will do; of several, the error names each.
    pub async fn dial(&self, database: &str) -> Result<Dialled, DialError> {
        let mut met: Vec<(String, DialError)> = Vec::new();
        for at in self.order() {
            let Some(((host, port), address)) = self.dsn.hosts.get(at).zip(self.dsn.addresses.get(at)) else {
                continue;
            };
            let name = format!("{host}:{port}");
            let place = match address {
                Some(address) => Ok(Place::Net(vec![SocketAddr::new(*address, *port)])),
                None if host.starts_with('/') => Ok(Place::Local(format!("{host}/.s.PGSQL.{port}"))),
                None => self.look_up(host, *port).await,
            };
            let dialled = match place {
                Ok(place) => self.dial_host(host, &place, database).await,
                Err(why) => Err(why),
            };
            match dialled {
                Ok(dialled) => {
                    self.memory.note(name, true);
                    return Ok(dialled);
                }
                Err(why) if !why.is_about_host() => return Err(why),
                Err(why) => {
                    self.memory.note(name.clone(), false);
                    met.push((name, why));
                }
            }
        }
        Err(DialError::of_hosts(met))
    }

    /// The hosts as they stand or in turn, those in doubt last.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dsn.hosts.len()).collect();
        if self.dsn.is_balanced && !order.is_empty() {
            let first = self.memory.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(first);
        }
        let is_in_doubt = |at: &usize| {
            self.dsn.hosts.get(*at).is_some_and(|(host, port)| self.memory.is_in_doubt(&format!("{host}:{port}")))
        };
        // Stable: among equals the order stays.
        order.sort_by_key(is_in_doubt);
        order
    }

    /// A name server that is silent has its share of time, too.
    async fn look_up(&self, host: &str, port: u16) -> Result<Place, DialError> {
        match timeout(self.attempt_max, lookup_host((host, port))).await {
            Ok(Ok(found)) => Ok(Place::Net(found.take(ADDRESSES_MAX).collect())),
            Ok(Err(why)) => Err(DialError::Connect(why)),
            Err(_) => {
                let why = "the name server did not answer in time";
                Err(DialError::Connect(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }

    async fn dial_host(&self, host: &str, place: &Place, database: &str) -> Result<Dialled, DialError> {
        let has_choice = self.has_several_hosts() || matches!(place, Place::Net(addresses) if addresses.len() > 1);
        let one = async |address: Option<&SocketAddr>| {
            let attempt = async {
                let (client, task) = self.dial_place(host, place, address, database).await?;
                self.fits(&client, has_choice).await?;
                if self.has_state {
                    self.ready(&client).await?;
                }
                Ok((client, task))
            };
            match timeout(self.attempt_max, attempt).await {
                Ok(done) => done,
                Err(_) => {
                    let why = format!("timed out after {} s", self.attempt_max.as_secs_f32());
                    Err(DialError::Connect(io::Error::new(io::ErrorKind::TimedOut, why)))
                }
            }
        };
        let addresses = match place {
            Place::Local(_) => return one(None).await,
            Place::Net(addresses) => addresses,
        };
        let mut addresses: Vec<&SocketAddr> = addresses.iter().collect();
        addresses.sort_by_key(|address| self.memory.is_in_doubt(&address.to_string()));
        let has_others = addresses.len() > 1;
        let mut error = DialError::Connect(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        for address in addresses {
            match one(Some(address)).await {
                Ok(dialled) => return Ok(dialled),
                Err(why) if !why.is_about_host() => return Err(why),
                Err(why) => {
                    if has_others {
                        self.memory.note(address.to_string(), false);
                    }
                    error = why;
                }
            }
        }
        Err(error)
    }

    /// Whether this server is of the kind that `target_session_attrs` asks for. `any` where there is a choice asks for one that can make
    /// roles: only a primary can.
    async fn fits(&self, client: &Client, has_choice: bool) -> Result<(), DialError> {
        let (sql, refusal) = match self.dsn.target_session {
            TargetSession::Any if !has_choice => return Ok(()),
            TargetSession::ReadWrite => ("SHOW transaction_read_only", "database does not allow writes"),
            TargetSession::Any | TargetSession::Primary => (IS_STANDBY, "server is in hot standby mode"),
        };
        if says_on(client, sql).await? { Err(DialError::Refused(refusal.to_owned())) } else { Ok(()) }
    }

    /// Whether a session that was open for a while is still worth using: its server answers, and has become no standby.
    pub async fn still_fits(&self, client: &Client) -> bool {
        matches!(timeout(ATTEMPT_MIN, says_on(client, IS_STANDBY)).await, Ok(Ok(false)))
    }
}

const IS_STANDBY: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END";

async fn says_on(client: &Client, sql: &str) -> Result<bool, Error> {
    let answer = client.simple_query(sql).await?;
    Ok(rows(&answer).next().and_then(|row| row.first().copied().flatten()) == Some("on"))
}
