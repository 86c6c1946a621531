//! Which server may write: one at a time.
//!
//! The claim is a row with a random term. Each writing transaction checks the term, behind a lock that keeps the row from changing
//! while the transaction runs; so a server that was paused and taken over writes nothing afterwards. The holder renews the row every
//! second; another server takes over when it has been silent for [`STALE`] by the store's clock.
//!
//! After the store was away the holder takes its claim up again under a new term: what was sent under the old one and is still on its
//! way, in a socket or behind a lock, is refused when it arrives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use leasehold_core::seams::storage::StorageError;
use tokio::sync::watch;
use tokio_postgres::types::Type;

use super::open::PostgresOpenError;
use super::session::Failed;
use super::{Parameter, Shared, rows};
use crate::integers::number;

/// How often the claim is renewed.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// A store that does not answer a beat for so long is away.
const BEAT_MAX: Duration = Duration::from_secs(1);
/// After so long without a beat, by the store's clock, another server may take over.
const STALE: Duration = Duration::from_secs(10);
/// After so long without a beat, by this server's clock, it answers nothing: less than [`STALE`], so that a process that was paused
/// does not answer from what it remembers. (That clock stands still while the whole machine sleeps: then the next beat finds out.)
const SURE: Duration = Duration::from_secs(8);
/// How long a start waits for a claim to become stale.
const TAKE_MAX: Duration = Duration::from_secs(12);

const LOST: &str = "another server has taken over this storage: restart this one if it should take over again";

struct State {
    term: String,
    /// When the last beat that succeeded was sent.
    beat: Instant,
    lost: bool,
}

/// This server's claim.
#[derive(Clone)]
pub(super) struct Claim {
    name: String,
    state: Arc<Mutex<State>>,
    /// Why the store is away, while it is.
    down: Arc<watch::Sender<Option<String>>>,
}

impl Claim {
    pub(super) fn new(name: String) -> Self {
        let state = State { term: String::new(), beat: Instant::now(), lost: false };
        Self { name, state: Arc::new(Mutex::new(state)), down: Arc::new(watch::Sender::new(None)) }
    }

    /// The term to write under.
    ///
    /// # Errors
    /// The store is away, or another server has it.
    pub(super) fn current(&self) -> Result<String, StorageError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lost {
            return Err(StorageError::Unavailable(LOST.to_owned()));
        }
        if let Some(why) = &*self.down.borrow() {
            return Err(StorageError::Unavailable(why.clone()));
        }
        if state.beat.elapsed() > SURE {
            return Err(StorageError::Unavailable("PostgreSQL has not been heard of for too long".to_owned()));
        }
        Ok(state.term.clone())
    }

    pub(super) fn down(&self) -> watch::Receiver<Option<String>> {
        self.down.subscribe()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lost
    }

    /// Another server has the claim.
    pub(super) fn lose(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.lost {
            tracing::error!("{LOST}");
        }
        state.lost = true;
    }

    fn term(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).term.clone()
    }

    fn holds(&self, term: String, sent: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.term, state.beat) = (term, sent);
    }
}

/// Who has the claim, by the store.
struct Holder {
    term: String,
    name: String,
    silent: Duration,
}

/// Asks for the claim under the term `next`; with no term so far, for one that nobody holds any more.
async fn ask(shared: &Shared, next: &str, limit: Duration) -> Result<Holder, Failed> {
    const TEXT: &str = "select o_term, o_name, o_silent from {p}hold\"($1, $2, $3, $4, $5)";
    let mine = shared.claim.term();
    let stale = i64::try_from(STALE.as_nanos()).unwrap_or(i64::MAX);
    let parameters: [Parameter<'_>; 5] = [
        (&mine, Type::TEXT),
        (&next, Type::TEXT),
        (&shared.claim.name, Type::TEXT),
        (&shared.names.lock, Type::INT8),
        (&stale, Type::INT8),
    ];
    let found = shared.sessions.ask_aside(&shared.names.sql(TEXT), &parameters, limit).await?;
    let odd = |error: StorageError| Failed::Unknown(error.to_string());
    let row = found.first().ok_or_else(|| Failed::Unknown("PostgreSQL did not say who has the claim".to_owned()))?;
    let silent = number(rows::get(row, 2).map_err(odd)?);
    Ok(Holder {
        term: rows::get(row, 0).map_err(odd)?,
        name: rows::get(row, 1).map_err(odd)?,
        silent: Duration::from_nanos(silent),
    })
}

fn new_term() -> Result<String, Failed> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Failed::Unreached("the system gives no random numbers".to_owned()))?;
    Ok(hex::encode(bytes))
}

/// Takes the claim at the start; waits for one that nobody renews.
pub(super) async fn take(shared: &Shared) -> Result<(), PostgresOpenError> {
    let failed = |failed: Failed| PostgresOpenError::Server(failed.to_string());
    let next = new_term().map_err(failed)?;
    let begun = Instant::now();
    let mut before: Option<Duration> = None;
    loop {
        let sent = Instant::now();
        let holder = ask(shared, &next, TAKE_MAX).await.map_err(failed)?;
        if holder.term == next {
            shared.claim.holds(next, sent);
            return Ok(());
        }
        // Heard of meanwhile: that server lives.
        let lives = before.is_some_and(|before| holder.silent < before);
        if lives || begun.elapsed() > TAKE_MAX {
            return Err(PostgresOpenError::InUse(holder.name));
        }
        if before.is_none() {
            tracing::warn!(
                holder = holder.name,
                "the storage is claimed by another server: waiting for that claim to end"
            );
        }
        before = Some(holder.silent);
        tokio::time::sleep(BEAT_EVERY * 2).await;
    }
}

/// Renews the claim for as long as the storage is there.
pub(super) async fn keep(shared: Arc<Shared>) {
    let claim = &shared.claim;
    // Of one outage all tries name the same new term: PostgreSQL may carry one out after nobody waits for its answer any more, and a
    // term that this server did not know again would look like somebody else's.
    let mut after_outage: Option<String> = None;
    while !claim.is_lost() {
        tokio::time::sleep(BEAT_EVERY).await;
        let was_down = claim.down.borrow().is_some();
        if was_down && after_outage.is_none() {
            after_outage = new_term().ok();
        }
        let next = match (was_down, &after_outage) {
            (true, Some(term)) => term.clone(),
            (true, None) => continue,
            (false, _) => claim.term(),
        };
        let sent = Instant::now();
        match ask(&shared, &next, BEAT_MAX).await {
            Ok(holder) if holder.term == next => {
                claim.holds(next, sent);
                after_outage = None;
                if was_down {
                    tracing::info!("the storage answers again");
                    claim.down.send_replace(None);
                }
            }
            Ok(_) => claim.lose(),
            Err(failed) => {
                if !was_down {
                    tracing::error!(error = %failed, "the storage is away: what needs it is answered 503 until it is back");
                }
                shared.sessions.forget_idle();
                claim.down.send_replace(Some(failed.to_string()));
            }
        }
    }
}

pub(super) async fn release(shared: &Shared) {
    let term = shared.claim.term();
    let text = shared.names.sql("select {p}release\"($1)");
    let released = shared.sessions.ask_aside(&text, &[(&term, Type::TEXT)], BEAT_MAX).await;
    if let Err(failed) = released {
        tracing::warn!(error = %failed, "the claim to the storage could not be given back: the next server waits for its end");
    }
}
