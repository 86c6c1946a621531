//! Jobs: work that recurs, as rows beside those of leases. Each is done once in its period over all servers of a store.
//!
//! Must not know: what a job does. It keeps the rows, and runs one when the ticker of [`crate::lease::claims`] has claimed it.
//!
//! Start with [`Job`] (what a job is), then [`run`] (one claimed row from beginning to end), then [`mounts`] (jobs that engines and
//! auth methods declare). [`keyring`] is one of the server's own. [`crate::rows::job`] says what is stored.
//!
//! Invariants: no job has a timer of its own. A job's row is moved only by whoever holds it, or when somebody asks for it to be done now. What
//! a run gives back is stored only while its claim holds. Jobs take none of the places that revocations work in.

pub(crate) mod keyring;
pub mod mounts;
pub mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_model::{LeaseId, MountAccessor, Timestamp, Ttl};
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::mount::{AuthMethods, Engines};
use crate::rows::job::{self, JobBody};
use crate::rows::lease::LeaseRow;
use crate::rows::state::{LeaseKind, LeaseState};
use crate::seams::error::RequestError;
use crate::seams::storage::{Batch, LeaseFilter, Page, StorageError};

/// Jobs that one server works on at once.
const SLOTS: usize = 4;
/// When a new job is due, and how long after unsealing a server waits before it takes any: what a restart left behind has been worked
/// through by then.
pub const FIRST_AFTER: Duration = Duration::from_secs(60);
/// When rows that could not be made are tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Rows read at once.
const PAGE: u32 = 1_000;
/// How often somebody who asks for a job looks again because its row was moved meanwhile.
const ASK_TRIES: u32 = 8;

/// Why a run of a job did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The server was sealed meanwhile: nobody failed.
    #[error("Vault is sealed")]
    Sealed,
    /// In words for the log; holds no secret.
    #[error("{0}")]
    Failed(String),
}

impl From<StorageError> for JobError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Sealed => Self::Sealed,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<RequestError> for JobError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Sealed => Self::Sealed,
            RequestError::Storage(source) => source.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Work that recurs. It is given up at any moment when the server is sealed or its claim is lost, and is begun again after a crash: it
/// must bear being repeated, also while another server is still at it.
#[async_trait]
pub trait Job: Send + Sync {
    /// Stands in the row's id, in the log and in metrics.
    fn name(&self) -> &'static str;
    /// From the end of a run that succeeded to the next.
    fn every(&self) -> Ttl;
    /// When the next run is due after one that has just succeeded.
    fn next_at(&self, now: Timestamp) -> Timestamp {
        now + self.every()
    }
    /// Does the work once. `state` is what the last run that succeeded gave back, on whichever server; null before the first. What this
    /// one gives back may have [`run::STATE_MAX`] bytes as JSON.
    async fn run(&self, state: Value) -> Result<Value, JobError>;
    /// Sets the gauges that follow from what the last run gave back. Asked at each scrape, so that all servers show the same.
    fn measure(&self, _state: &Value) {}
}

/// The jobs of one unsealed server.
pub struct Jobs {
    engines: Arc<Engines>,
    methods: Arc<AuthMethods>,
    /// The server's own.
    own: Vec<Arc<dyn Job>>,
    /// Names this process in claims.
    holder: String,
    runs: AtomicU64,
    slots: Arc<Semaphore>,
    begins_at: Instant,
    /// Somebody asked for a job: it does not wait for [`Jobs::begins_at`].
    was_asked: AtomicBool,
    /// Jobs that this server has left to others, and when it last did.
    left: Mutex<BTreeMap<LeaseId, Instant>>,
    /// A job became due earlier than the ticker thinks.
    wake: Notify,
    /// A row may be missing.
    is_missing: Notify,
    /// What gauges exist: those of jobs that vanish go to zero.
    shown: Mutex<BTreeSet<(String, String)>>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Made at unsealing: from then on the first minute counts.
    #[must_use]
    pub fn new(engines: Arc<Engines>, methods: Arc<AuthMethods>, own: Vec<Arc<dyn Job>>) -> Self {
        let holder = crate::random::base62(&*engines.entropy, 12);
        Self {
            engines,
            methods,
            own,
            holder,
            runs: AtomicU64::new(0),
            slots: Arc::new(Semaphore::new(SLOTS)),
            begins_at: Instant::now() + FIRST_AFTER,
            was_asked: AtomicBool::new(false),
            left: Mutex::default(),
            wake: Notify::new(),
            is_missing: Notify::new(),
            shown: Mutex::default(),
        }
    }

    /// Sees to it that every job has its row, until `stop` says so: at unsealing, and whenever [`Jobs::look_for_new`] was called.
    pub async fn keep_rows(&self, stop: CancellationToken) {
        loop {
            let made = tokio::select! {
                biased;
                made = self.make_rows() => made,
                () = stop.cancelled() => return,
            };
            let again = match made {
                Ok(()) => Duration::MAX,
                Err(StorageError::Sealed) => return,
                Err(error) => {
                    tracing::warn!(%error, "could not store the rows of jobs, next try in {} s", AGAIN_AFTER.as_secs());
                    AGAIN_AFTER
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.is_missing.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// A mount was made, which may have jobs.
    pub fn look_for_new(&self) {
        self.is_missing.notify_one();
    }

    async fn make_rows(&self) -> Result<(), StorageError> {
        let mut declared: Vec<(&'static str, Option<MountAccessor>)> =
            self.own.iter().map(|job| (job.name(), None)).collect();
        for entry in self.engines.mounts.all().iter().filter(|entry| !entry.tainted) {
            declared.extend(self.jobs_of(entry).iter().map(|job| (job.name, Some(entry.accessor.clone()))));
        }
        for (name, owner) in declared {
            if self.engines.storage.lease(&job::id(name, owner.as_ref())?).await?.is_none() {
                let row = job::new_row(name, owner.as_ref(), self.now() + FIRST_AFTER)?;
                match self.engines.storage.commit(Batch::new().insert(row)).await {
                    // Another server was faster.
                    Ok(()) | Err(StorageError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Has a job done as soon as possible, by whichever server. `false`: it is being done already.
    ///
    /// # Errors
    /// As storage.
    pub async fn ask_for(&self, name: &str, owner: Option<&MountAccessor>) -> Result<bool, StorageError> {
        let id = job::id(name, owner)?;
        for _ in 0..ASK_TRIES {
            let now = self.now();
            let moved = match self.engines.storage.lease(&id).await? {
                Some(row) if row.held_until.is_some_and(|until| until > now) => return Ok(false),
                Some(row) => {
                    let fence = row.fence;
                    let due = LeaseRow { fence: fence + 1, ..row }.released(now);
                    self.engines.storage.commit(Batch::new().shift(due, LeaseState::Active, fence)).await
                }
                None => self.engines.storage.commit(Batch::new().insert(job::new_row(name, owner, now)?)).await,
            };
            match moved {
                Ok(()) => {
                    self.was_asked.store(true, Ordering::Relaxed);
                    self.wake.notify_one();
                    return Ok(true);
                }
                // It moved by itself: look again.
                Err(StorageError::Fenced(_) | StorageError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Unavailable(format!("the row of job `{id}` is changed all the time by others")))
    }

    /// Whether this server may take a job now; otherwise its ticker passes over them.
    pub(crate) fn has_place(&self) -> bool {
        let waits = Instant::now() < self.begins_at && !self.was_asked.load(Ordering::Relaxed);
        let leaves_to_others = {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.values().any(|at| at.elapsed() < run::HEAD_START)
        };
        !waits && !leaves_to_others && self.slots.available_permits() > 0
    }

    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Returns when a job has become due earlier than before.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// All rows of jobs, also of those that only other servers know.
    ///
    /// # Errors
    /// As storage.
    pub async fn rows(&self) -> Result<Vec<LeaseRow>, StorageError> {
        let filter = LeaseFilter {
            kind: Some(LeaseKind::Job),
            // The rows stand side by side, so that nothing else is read to find them.
            id_prefix: Some(job::PREFIX.to_owned()),
            ..LeaseFilter::default()
        };
        let mut found: Vec<LeaseRow> = Vec::new();
        loop {
            let after: Option<LeaseId> = found.last().map(|row| row.id.clone());
            let page = self.engines.storage.leases(&filter, &Page { after, limit: PAGE }).await?;
            if page.is_empty() {
                return Ok(found);
            }
            found.extend(page);
        }
    }

    /// Sets the gauges of all jobs from their rows, so that every server shows the same.
    ///
    /// # Errors
    /// As storage.
    pub async fn measure(&self) -> Result<(), StorageError> {
        let mut shown = BTreeSet::new();
        for row in self.rows().await? {
            let (Some(body), Some(mount)) = (JobBody::of(&row), self.shown_owner(&row)) else { continue };
            let name = job::name(&row.id);
            // A try counts from its beginning, and this one has not failed yet.
            let is_running = row.held_until.is_some_and(|until| until > self.now());
            metrics::job(name, &mount, &body, body.attempts.saturating_sub(u32::from(is_running)));
            shown.insert((name.to_owned(), mount));
            if let Some(job) = self.own_job(&row) {
                job.measure(&body.state);
            }
        }
        let mut known = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, mount) in known.difference(&shown) {
            metrics::job(name, mount, &JobBody::default(), 0);
        }
        *known = shown;
        Ok(())
    }

    /// The path of the mount that a job belongs to; none for one that is not mounted here.
    fn shown_owner(&self, row: &LeaseRow) -> Option<String> {
        match row.mount.as_str() {
            "" => Some("sys/".to_owned()),
            _ => self.engines.mounts.by_accessor(&row.mount).map(|entry| entry.path.to_string()),
        }
    }

    fn own_job(&self, row: &LeaseRow) -> Option<&Arc<dyn Job>> {
        let name = job::name(&row.id);
        self.own.iter().find(|job| row.mount.as_str().is_empty() && job.name() == name)
    }

    fn now(&self) -> Timestamp {
        self.engines.clock.now()
    }
}
