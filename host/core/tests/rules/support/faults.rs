//! A store that fails, or a process that dies, at the n-th write; and the invariants, watched at every write.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::nodes::{Attendance, NodeReport};
use leasehold_core::seams::storage::{
    Batch, Change, Changes, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use leasehold_storage::MemoryStorage;
use tokio::sync::{Notify, mpsc};

use super::engine::{Target, Trouble};

/// What happens at one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused.
    Fails,
    /// It is done, and the answer says that it was not.
    LiesFailure,
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
}

pub const FAULTS: [Fault; 4] = [Fault::Fails, Fault::LiesFailure, Fault::CrashBefore, Fault::CrashAfter];

/// Where a test stops a copy of the store, or a commit that writes a key that ends in `at`; if that is empty, one that holds only where
/// there is nothing.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    pub at: &'static str,
    pub reached: Arc<Notify>,
    pub go_on: Arc<Notify>,
}

/// One life of a server over a store that outlives it. It is the process's view of the store.
pub struct Process {
    pub store: Arc<MemoryStorage>,
    target: Arc<Target>,
    dead: AtomicBool,
    /// Writes left until the fault.
    fault: Mutex<Option<(usize, Fault)>>,
    trouble: Mutex<Option<(usize, Trouble)>>,
    /// Rows may go by force.
    pub force: AtomicBool,
    pub violations: Mutex<Vec<String>>,
    /// What was claimed because it is due comes so late.
    pub pause_after_claims: Mutex<Duration>,
    /// The next word with the store about the other servers takes so long.
    pub pause_next_report: Mutex<Duration>,
    /// A list of leases of one state comes so late.
    pub pause_after_lists: Mutex<Duration>,
    /// How often leases were listed; jobs are few.
    pub lists: Mutex<usize>,
    /// How many rows of leases that gave.
    pub listed: Mutex<usize>,
    /// Every look at a value and every commit lets others go first: what two servers do at once is then mixed step by step.
    pub yields: AtomicBool,
    /// The store hears nothing of this process, and this process nothing of the store.
    pub is_cut: AtomicBool,
    /// After an answer that lies, the process is cut off.
    pub leaves: AtomicBool,
    /// This process does not learn what others have changed; all else works.
    pub is_deaf: AtomicBool,
    /// No row is removed: as if another server had claimed it in this moment.
    pub keeps_rows: AtomicBool,
    /// That commit waits until it is told to go on, and then conflicts; once.
    pub conflict: Mutex<Option<Gate>>,
    /// The next copy of the whole store waits there.
    pub copy: Mutex<Option<Gate>>,
    /// Changes of the largest batch so far.
    largest: Mutex<usize>,
    /// The longest key that was looked up so far.
    longest_key: Mutex<usize>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl Process {
    pub fn new(store: Arc<MemoryStorage>, target: Arc<Target>) -> Arc<Self> {
        Arc::new(Self {
            store,
            target,
            dead: AtomicBool::new(false),
            fault: Mutex::default(),
            trouble: Mutex::default(),
            force: AtomicBool::new(false),
            violations: Mutex::default(),
            pause_after_claims: Mutex::default(),
            pause_next_report: Mutex::default(),
            pause_after_lists: Mutex::default(),
            lists: Mutex::default(),
            listed: Mutex::default(),
            yields: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            keeps_rows: AtomicBool::new(false),
            conflict: Mutex::default(),
            copy: Mutex::default(),
            largest: Mutex::default(),
            longest_key: Mutex::default(),
        })
    }

    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// The fault comes at the n-th write from now, counted from zero.
    pub fn fault_at(&self, write: usize, fault: Fault) {
        *self.fault.lock().unwrap() = Some((write, fault));
    }

    pub fn trouble_at(&self, step: usize, trouble: Trouble) {
        *self.trouble.lock().unwrap() = Some((step, trouble));
    }

    /// Whether fault and trouble are still to come: the history was too short for them.
    pub fn is_armed(&self) -> bool {
        self.fault.lock().unwrap().is_some() || self.trouble.lock().unwrap().is_some()
    }

    pub fn disarm(&self) {
        *self.fault.lock().unwrap() = None;
        *self.trouble.lock().unwrap() = None;
    }

    pub fn next_engine_step(&self) -> Option<Trouble> {
        count_down(&mut self.trouble.lock().unwrap())
    }

    fn complain(&self, text: String) {
        self.violations.lock().unwrap().push(text);
    }

    pub fn assert_no_violation(&self, context: &str) {
        let violations = self.violations.lock().unwrap();
        assert!(violations.is_empty(), "{context}: {violations:?}");
    }

    pub async fn demand_row(&self, id: &LeaseId, text: &str) {
        if !self.force.load(Ordering::SeqCst) && self.store.lease(id).await.unwrap().is_none() {
            self.complain(format!("{text}: {id}"));
        }
    }

    pub fn largest_batch(&self) -> usize {
        *self.largest.lock().unwrap()
    }

    pub fn longest_key(&self) -> usize {
        *self.longest_key.lock().unwrap()
    }

    fn note_key(&self, key: &Key) {
        let mut longest = self.longest_key.lock().unwrap();
        *longest = key.as_str().len().max(*longest);
    }

    async fn let_others_go_first(&self) {
        if self.yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }

    fn alive(&self) -> Result<(), StorageError> {
        match (self.is_dead(), self.is_cut.load(Ordering::SeqCst)) {
            (true, _) => Err(StorageError::Unavailable("the process is dead".to_owned())),
            (_, true) => Err(StorageError::Unavailable("the store is away".to_owned())),
            _ => Ok(()),
        }
    }

    /// The legal moves, checked against what is there now.
    async fn watch(&self, batch: &Batch) {
        for change in &batch.0 {
            match change {
                Change::Insert(row) => {
                    let right = if row.kind == LeaseKind::Secret { LeaseState::Issuing } else { LeaseState::Active };
                    if row.state != right {
                        self.complain(format!("{} begins as {:?}", row.id, row.state));
                    }
                }
                Change::Move { row, from, .. } if !from.may_become(row.state) => {
                    self.complain(format!("{} moves from {from:?} to {:?}", row.id, row.state));
                }
                Change::Move { row, fence, .. } if row.fence < *fence => {
                    self.complain(format!("the fence of {} falls from {fence} to {}", row.id, row.fence));
                }
                Change::Remove { id, fence } if !self.force.load(Ordering::SeqCst) => {
                    let found = self.store.lease(id).await.unwrap();
                    // A removal that the fence refuses harms nobody; a token goes at once if nothing hangs on it.
                    let may_go = |row: &LeaseRow| match row.kind {
                        LeaseKind::Secret => false,
                        LeaseKind::Token => batch
                            .0
                            .iter()
                            .any(|change| matches!(change, Change::NoLeases { token, .. } if *token == row.token)),
                        LeaseKind::Job => true,
                    };
                    if found.is_some_and(|row| row.fence == *fence && row.state == LeaseState::Active && !may_go(&row))
                    {
                        self.complain(format!("{id} goes without having been revoked"));
                    }
                    if self.target.has(id) && self.store.lease(id).await.unwrap().is_some_and(|r| r.fence == *fence) {
                        self.complain(format!("{id} is forgotten while its role is there"));
                    }
                }
                _ => {}
            }
        }
    }

    async fn write<T>(&self, act: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        self.alive()?;
        let unavailable = || StorageError::Unavailable("injected".to_owned());
        let fault = count_down(&mut self.fault.lock().unwrap());
        match fault {
            None => act.await,
            Some(Fault::Fails) => Err(unavailable()),
            Some(Fault::LiesFailure) => {
                let done = act.await;
                if self.leaves.load(Ordering::SeqCst) {
                    self.is_cut.store(true, Ordering::SeqCst);
                }
                done.and(Err(unavailable()))
            }
            Some(Fault::CrashBefore) => {
                self.die();
                Err(unavailable())
            }
            Some(Fault::CrashAfter) => {
                let done = act.await;
                self.die();
                done.and(Err(unavailable()))
            }
        }
    }
}

fn count_down<T: Copy>(at: &mut Option<(usize, T)>) -> Option<T> {
    match at {
        Some((0, fault)) => {
            let fault = *fault;
            *at = None;
            Some(fault)
        }
        Some((left, _)) => {
            *left -= 1;
            None
        }
        None => None,
    }
}

#[async_trait]
impl Storage for Process {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.alive()?;
        self.store.now().await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        self.alive()?;
        if self.is_deaf.load(Ordering::SeqCst) {
            return Err(StorageError::Unavailable("no answer".to_owned()));
        }
        self.store.changes(since).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.alive()?;
        self.note_key(key);
        self.let_others_go_first().await;
        self.store.get(key).await
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.alive()?;
        self.note_key(prefix);
        self.store.scan(prefix, after, limit).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.alive()?;
        self.store.names(of, prefix, after, limit).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.alive()?;
        self.store.lease(id).await
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.alive()?;
        let rows = self.store.leases(filter, page).await;
        if filter.kind != Some(LeaseKind::Job) {
            *self.lists.lock().unwrap() += 1;
            *self.listed.lock().unwrap() += rows.as_ref().map_or(0, Vec::len);
        }
        let pause = *self.pause_after_lists.lock().unwrap();
        if filter.state.is_some() && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        rows
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.alive()?;
        self.store.count_leases().await
    }

    async fn recount_leases(&self) -> Result<u64, StorageError> {
        self.alive()?;
        self.store.recount_leases().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let writes = |change: &Change, at| matches!(change, Change::Put { key, .. } if key.as_str().ends_with(at));
        let is_met = |gate: &mut Gate| match gate.at {
            "" => batch.expects_nothing(),
            at => batch.0.iter().any(|change| writes(change, at)),
        };
        let gate = self.conflict.lock().unwrap().take_if(is_met);
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.go_on.notified().await;
            let why = "the test".to_owned();
            return Err(if batch.expects_nothing() {
                StorageError::NotEmpty(why)
            } else {
                StorageError::Conflict(why)
            });
        }
        if self.keeps_rows.load(Ordering::SeqCst)
            && let Some(kept) = batch.0.iter().find_map(|change| match change {
                Change::Remove { id, .. } => Some(id.clone()),
                _ => None,
            })
        {
            return Err(StorageError::Fenced(kept));
        }
        self.let_others_go_first().await;
        {
            let mut largest = self.largest.lock().unwrap();
            *largest = batch.0.len().max(*largest);
        }
        self.watch(&batch).await;
        self.write(self.store.commit(batch)).await
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        self.alive()?;
        let rows = self.store.claim_due(holder, limit, hold_for, skip).await;
        let pause = *self.pause_after_claims.lock().unwrap();
        if !pause.is_zero() && rows.as_ref().is_ok_and(|rows| !rows.is_empty()) {
            tokio::time::sleep(pause).await;
        }
        rows
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        self.write(self.store.claim(holder, id, hold_for)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.alive()?;
        self.store.next_due().await
    }

    async fn attend(&self, report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        let pause = std::mem::take(&mut *self.pause_next_report.lock().unwrap());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.alive()?;
        self.store.attend(report).await
    }

    async fn expel(&self, id: &str, beat: u64) -> Result<(), StorageError> {
        self.alive()?;
        self.store.expel(id, beat).await
    }

    async fn rejoin(&self, report: &NodeReport) -> Result<(), StorageError> {
        self.alive()?;
        self.store.rejoin(report).await
    }
}

#[async_trait]
impl WholeStore for Process {
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
        self.alive()?;
        let gate = self.copy.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.go_on.notified().await;
        }
        self.store.export(into).await
    }

    async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
        self.write(self.store.replace(from)).await
    }
}
