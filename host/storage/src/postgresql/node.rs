//! This server among those that work on the store.
//!
//! Each has a row with a random term. Each writing transaction checks that the row with its term is there, behind a lock that keeps
//! the row from going while the transaction runs: so a server that another one has taken off the list writes nothing afterwards.
//!
//! After the store was away a server takes a new term: what was sent under the old one and is still on its way, in a socket or behind a
//! lock, is refused when it arrives. A term holds on one timeline only (see [`timeline`](super::timeline)).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use leasehold_core::seams::nodes::{Attendance, Node, NodeReport};
use leasehold_core::seams::storage::StorageError;
use leasehold_model::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::open::PostgresOpenError;
use super::rows::get as column;
use super::session::Failed;
use super::{Parameter, Shared, timeline};
use crate::integers::{integer, number};

/// How often the store is asked whether it is there.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// A store that does not answer a beat for so long is away: a request hears of it within a second.
const BEAT_MAX: Duration = Duration::from_millis(700);
/// The same while it is away. Longer than `beat` waits for a lock, which a restore may hold: that it says so is an answer.
const BEAT_WHILE_AWAY_MAX: Duration = Duration::from_secs(2);
/// How long an answer about the other servers may take.
const ATTEND_MAX: Duration = Duration::from_secs(1);
/// A report that says nothing new is stored when the last one is so old.
const REPORT_EVERY: Duration = Duration::from_millis(400);
/// Servers of which nothing was heard for so long leave the list with the next one that comes.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// A server that works alone keeps others out for so long after it was last heard of, by the store's clock, and others keep it out.
const STALE: Duration = Duration::from_secs(10);
/// How long joining may take.
const JOIN_MAX: Duration = Duration::from_secs(12);
const OPEN_POLL: Duration = Duration::from_millis(100);

/// PostgreSQL's answer to whoever is not on the list.
const NOT_LISTED: &str = "LH003";
/// Its answer to whoever would have to work alone, or beside one that must.
const NOT_ALONE: &str = "LH004";
/// Its answer to whoever joins after a fail-over while others have yet to replay what was lost.
const NOT_OPEN: &str = "LH005";

struct State {
    term: String,
    is_expelled: bool,
    /// It decides from memory: it may join again only when what it has decided so has ended, which it knows itself.
    decides: bool,
}

/// This server's place.
pub(super) struct Membership {
    id: String,
    name: String,
    /// Nobody else may work on the store meanwhile.
    alone: bool,
    state: Mutex<State>,
    /// Why the store is away, while it is.
    down: watch::Sender<Option<String>>,
    /// When PostgreSQL last said anything, if only that it refuses a beat.
    heard_at: Mutex<Instant>,
}

impl Membership {
    pub(super) fn new(name: String, alone: bool) -> Result<Self, Failed> {
        let state = State { term: String::new(), is_expelled: true, decides: false };
        let heard_at = Mutex::new(Instant::now());
        Ok(Self { id: random()?, name, alone, state: Mutex::new(state), down: watch::Sender::new(None), heard_at })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term to write under.
    ///
    /// # Errors
    /// The store is away, or this server was taken off the list.
    pub(super) fn current(&self) -> Result<String, StorageError> {
        if let Some(why) = &*self.down.borrow() {
            return Err(StorageError::Unavailable(why.clone()));
        }
        let state = self.state();
        if state.is_expelled { Err(StorageError::Expelled) } else { Ok(state.term.clone()) }
    }

    pub(super) fn term(&self) -> String {
        self.state().term.clone()
    }

    /// Whether reading makes sense.
    ///
    /// # Errors
    /// The store is away.
    pub(super) fn is_up(&self) -> Result<(), StorageError> {
        self.down.borrow().as_ref().map_or(Ok(()), |why| Err(StorageError::Unavailable(why.clone())))
    }

    pub(super) fn down(&self) -> watch::Receiver<Option<String>> {
        self.down.subscribe()
    }

    fn heard(&self) {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Comes to its end when PostgreSQL has said nothing for so long.
    pub(super) async fn silent_for(&self, long: Duration) {
        loop {
            let heard_at = *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner);
            if heard_at.elapsed() >= long {
                return;
            }
            tokio::time::sleep_until(heard_at + long).await;
        }
    }

    /// Whether PostgreSQL says that the server with this term is not on the list.
    pub(super) fn is_refused(&self, failed: &Failed, term: &str) -> bool {
        let is_refused = failed.code() == Some(NOT_LISTED);
        let mut state = self.state();
        // What was sent under an older term says nothing of the one that this server has now.
        state.is_expelled |= is_refused && state.term == term;
        is_refused
    }

    fn joined(&self, term: String) {
        self.heard();
        let mut state = self.state();
        state.term = term;
        state.is_expelled = false;
    }

    /// The term `mine` is `next` from now on, unless this server has joined anew meanwhile.
    fn renamed(&self, mine: &str, next: String) {
        let mut state = self.state();
        if state.term == mine {
            state.term = next;
        }
    }
}

fn random() -> Result<String, Failed> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Failed::Unreached("the system gives no random numbers".to_owned()))?;
    Ok(hex::encode(bytes))
}

/// At the start.
pub(super) async fn begin(shared: &Shared) -> Result<(), PostgresOpenError> {
    let mut waited = Duration::ZERO;
    loop {
        match join(shared).await {
            // One that was killed, as a try before this one may have been, counts for a while.
            Err(Failed::Sql { code, .. }) if code == NOT_ALONE && shared.member.alone && waited <= STALE => {
                tokio::time::sleep(BEAT_EVERY).await;
                waited += BEAT_EVERY;
            }
            Err(Failed::Sql { code, message, .. }) if code == NOT_ALONE => {
                return Err(PostgresOpenError::InUse(message));
            }
            Err(failed) => return Err(PostgresOpenError::Server(failed.to_string())),
            Ok(()) => return Ok(()),
        }
    }
}

async fn join(shared: &Shared) -> Result<(), Failed> {
    const TEXT: &str = "select {p}timeline\"() from {p}join\"($1, $2, $3, $4, $5, $6, $7)";
    timeline::replay_lost(shared).await?;
    let (member, next) = (&shared.member, random()?);
    let (stale, forget) = (nanos(STALE), nanos(FORGOTTEN_AFTER));
    let parameters: [Parameter<'_>; 7] = [
        (&next, Type::TEXT),
        (&member.id, Type::TEXT),
        (&member.name, Type::TEXT),
        (&member.alone, Type::BOOL),
        (&stale, Type::INT8),
        (&forget, Type::INT8),
        (&shared.names.lock, Type::INT8),
    ];
    let began = Instant::now();
    let found = loop {
        match shared.sessions.ask_aside(&shared.names.sql(TEXT), &parameters, JOIN_MAX).await {
            Err(failed) if failed.code() == Some(NOT_OPEN) && began.elapsed() < JOIN_MAX => {
                tokio::time::sleep(OPEN_POLL).await;
            }
            answer => break answer?,
        }
    };
    let row = found.first().ok_or_else(|| Failed::Unknown("PostgreSQL did not answer".to_owned()))?;
    let timeline = column(row, 0).map_err(|error: StorageError| Failed::Unknown(error.to_string()))?;
    if timeline != shared.journal.timeline() {
        return Err(Failed::Unknown("PostgreSQL fails over again".to_owned()));
    }
    shared.sessions.serve_from(shared.names.sql(timeline::WHICH), timeline);
    member.joined(next);
    Ok(())
}

/// As the seam's `rejoin`.
pub(super) async fn rejoin(shared: &Shared) -> Result<(), StorageError> {
    shared.member.is_up()?;
    Ok(join(shared).await?)
}

/// Notices when the store goes and comes, for as long as the storage is there.
pub(super) async fn keep(shared: Arc<Shared>) {
    let member = &shared.member;
    // Of one outage all tries name the same new term: PostgreSQL may carry one out after nobody waits for its answer any more, and a
    // term that this server did not know again would be nobody's.
    let mut after_outage: Option<String> = None;
    loop {
        tokio::time::sleep(BEAT_EVERY).await;
        let was_down = member.down.borrow().is_some();
        if was_down && after_outage.is_none() {
            after_outage = random().ok();
        }
        let (mine, decides) = {
            let state = member.state();
            (state.term.clone(), state.decides)
        };
        let next = match (was_down, &after_outage) {
            (true, Some(term)) => term.clone(),
            (true, None) => continue,
            (false, _) => mine.clone(),
        };
        let limit = if was_down { BEAT_WHILE_AWAY_MAX } else { BEAT_MAX };
        match beat(&shared, &mine, &next, limit).await {
            Ok(is_listed) => {
                member.heard();
                // PostgreSQL has it so, whether the row is on its timeline or not.
                member.renamed(&mine, next.clone());
                after_outage = None;
                if was_down {
                    tracing::info!("the storage answers again");
                    member.down.send_replace(None);
                }
                if !is_listed && member.state().term == next {
                    member.state().is_expelled = true;
                    if let Err(failed) = timeline::replay_lost(&shared).await {
                        tracing::warn!(error = %failed, "could not replay what was lost in a fail-over of PostgreSQL: trying again");
                    }
                    // A sealed server has decided nothing that could come late.
                    if !decides && let Err(failed) = join(&shared).await {
                        tracing::debug!(error = %failed, "could not join the servers of the storage again");
                    }
                }
            }
            Err(failed) => {
                if failed.code().is_some() {
                    member.heard();
                }
                if !was_down {
                    tracing::error!(error = %failed, "the storage is away: what needs it is answered 503 until it is back");
                }
                shared.sessions.forget_idle();
                member.down.send_replace(Some(failed.to_string()));
            }
        }
    }
}

/// Whether this server is on the list.
async fn beat(shared: &Shared, mine: &str, next: &str, limit: Duration) -> Result<bool, Failed> {
    const TEXT: &str = "select {p}beat\"($1, $2, $3)";
    let parameters: [Parameter<'_>; 3] = [(&mine, Type::TEXT), (&next, Type::TEXT), (&shared.names.lock, Type::INT8)];
    let found = shared.sessions.ask_aside(&shared.names.sql(TEXT), &parameters, limit).await?;
    let row = found.first().ok_or_else(|| Failed::Unknown("PostgreSQL did not answer a beat".to_owned()))?;
    column(row, 0).map_err(|error: StorageError| Failed::Unknown(error.to_string()))
}

/// As the seam's `attend`.
pub(super) async fn attend(shared: &Shared, report: &NodeReport) -> Result<Attendance, StorageError> {
    const TEXT: &str = "select * from {p}attend\"($1, $2, $3, $4, $5, $6, $7)";
    let NodeReport { id, name, address, version, applied } = report;
    shared.member.state().decides = applied.is_some();
    let term = shared.member.current()?;
    let (applied, every) = (applied.map(integer), nanos(REPORT_EVERY));
    let parameters: [Parameter<'_>; 7] = [
        (&term, Type::TEXT),
        (&id, Type::TEXT),
        (&name, Type::TEXT),
        (&address, Type::TEXT),
        (&version, Type::TEXT),
        (&applied, Type::INT8),
        (&every, Type::INT8),
    ];
    // Over a session of its own: requests that wait for theirs must not keep this server from following changes.
    let found = match shared.sessions.ask_aside(&shared.names.sql(TEXT), &parameters, ATTEND_MAX).await {
        Err(failed) if shared.member.is_refused(&failed, &term) => return Err(StorageError::Expelled),
        other => other?,
    };
    let first = found.first().ok_or_else(|| StorageError::Corrupt("the list of servers".to_owned()))?;
    Ok(Attendance {
        changed: number(column(first, 0)?),
        now: Timestamp::from_nanos(column(first, 1)?),
        nodes: found.iter().map(node).collect::<Result<_, _>>()?,
    })
}

fn node(row: &Row) -> Result<Node, StorageError> {
    let report = NodeReport {
        id: column(row, 2)?,
        name: column(row, 3)?,
        address: column(row, 4)?,
        version: column(row, 5)?,
        applied: column::<Option<i64>>(row, 6)?.map(number),
    };
    Ok(Node {
        report,
        beat: number(column(row, 7)?),
        heard_at: Timestamp::from_nanos(column(row, 8)?),
        joined_at: Timestamp::from_nanos(column(row, 9)?),
    })
}

/// As the seam's `expel`.
pub(super) async fn expel(shared: &Shared, id: &str, beat: u64) -> Result<(), StorageError> {
    shared.member.current()?;
    let beat = integer(beat);
    let parameters: [Parameter<'_>; 3] = [(&id, Type::TEXT), (&beat, Type::INT8), (&shared.names.lock, Type::INT8)];
    shared.repeated(&shared.names.sql("select {p}expel\"($1, $2, $3)"), &parameters).await?;
    Ok(())
}

/// At the end.
pub(super) async fn leave(shared: &Shared) {
    let term = shared.member.state().term.clone();
    let text = shared.names.sql("select {p}leave\"($1, $2)");
    let parameters: [Parameter<'_>; 2] = [(&term, Type::TEXT), (&shared.names.lock, Type::INT8)];
    if let Err(failed) = shared.sessions.ask_aside(&text, &parameters, ATTEND_MAX).await {
        tracing::debug!(error = %failed, "could not leave the list of servers: the others notice by themselves");
    }
}

fn nanos(length: Duration) -> i64 {
    i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)
}
