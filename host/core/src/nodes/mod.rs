//! Several servers over one store: what each may decide from its memory, and when a change counts on all of them.
//!
//! Must not know: which store it is, or what a request is about.
//!
//! Each server asks the store every [`POLL`] for the number of the last change under the cached prefix, and reads what has changed
//! ([`follow`]). It may decide from its memory for [`CACHE_LEASE`] from before it sent a question whose answer it has followed. So a
//! change counts everywhere once each other server has said that it follows it, or after [`CACHE_LEASE`]: the request that made the
//! change is answered then, and no sooner ([`Nodes::settle`]). A server that was silent meanwhile is taken off the list, and nothing
//! that it decided before is written any more.
//!
//! Start with [`Nodes::admit`] (may this request be decided here?), then [`Watched`] (the store as requests see it), then `settle`.
//!
//! Invariants: nothing is decided from memory without a cache lease, and no request writes by a decision that a change has overtaken;
//! no answer to a change leaves before it counts on every server; how long is reckoned by a clock that nobody can set.

mod admission;
mod follow;
pub(crate) mod index;
mod watched;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_model::Timestamp;
use tokio::sync::{Notify, RwLock};

use crate::random;
use crate::seams::error::RequestError;
use crate::seams::host::{Clock, Entropy};
use crate::seams::nodes::{Attendance, Node, NodeReport};
use crate::seams::storage::{Storage, StorageError};

pub(crate) use admission::Admission;
pub(crate) use watched::Watched;

/// How often the store is asked.
const POLL: Duration = Duration::from_millis(50);
/// For how long a server decides from what it remembers after it has last compared that with the store.
const CACHE_LEASE: Duration = Duration::from_secs(2);
/// For how long others wait for it: clocks of two machines do not run equally fast.
const CACHE_LEASE_OVER: Duration = Duration::from_millis(2_200);
/// A server whose report is that old has no cache lease left: it reports twice a second at least.
const SILENT: Duration = Duration::from_secs(3);
/// Between two looks at whether the others follow a change.
const SETTLE_POLL: Duration = Duration::from_millis(10);
/// How long a request waits for a cache lease that has lapsed.
const ADMIT_MAX: Duration = Duration::from_millis(500);

/// Who this server is, in the words of its configuration.
#[derive(Clone, Debug, Default)]
pub struct NodeName {
    /// For people.
    pub name: String,
    /// Where clients reach it.
    pub address: String,
}

/// What this server knows of itself and of the others.
pub struct Nodes {
    /// Below [`Watched`].
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    id: String,
    name: NodeName,
    version: String,
    /// The store serves one server at a time: it has no one to hear of.
    is_alone: AtomicBool,
    /// The number of the last change that memory reflects; meaningless while nothing is loaded.
    applied: AtomicU64,
    is_loaded: AtomicBool,
    /// The number of the last change that was seen to count on every server.
    settled: AtomicU64,
    /// Until when memory may decide, in nanoseconds of the steady clock.
    good_until: AtomicU64,
    renewed: Notify,
    /// Raised by every change of what is decided from.
    epoch: AtomicU64,
    /// Shared by each commit. Whoever has raised the epoch waits here until what passed the check before has ended.
    writing: RwLock<()>,
    /// Shared by each request. Taken alone by a server that was taken off the list, before it joins again.
    requests: Arc<RwLock<()>>,
    /// Held by the one request of those that were overtaken which is being decided again.
    turns: Arc<tokio::sync::Mutex<()>>,
    /// How many have stepped aside for a faster writer.
    asides: AtomicU32,
    /// Servers that answer requests, this one among them.
    at_work: AtomicUsize,
    heard: Mutex<HashMap<String, Heard>>,
    /// Since when this server has been on the list.
    joined_at: Mutex<Option<Timestamp>>,
    reporting: tokio::sync::Mutex<()>,
}

/// The last report of another server.
struct Heard {
    beat: u64,
    /// By this server's steady clock.
    at: Duration,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Nodes {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        name: NodeName,
        version: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            storage,
            clock,
            id: random::uuid(entropy),
            name,
            version,
            is_alone: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            is_loaded: AtomicBool::new(false),
            settled: AtomicU64::new(0),
            good_until: AtomicU64::new(0),
            renewed: Notify::new(),
            epoch: AtomicU64::new(0),
            writing: RwLock::default(),
            requests: Arc::default(),
            turns: Arc::default(),
            asides: AtomicU32::new(0),
            at_work: AtomicUsize::new(1),
            heard: Mutex::default(),
            joined_at: Mutex::default(),
            reporting: tokio::sync::Mutex::default(),
        })
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who this server is, in the words of its configuration.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Since when this server has been on the list; asks nobody.
    #[must_use]
    pub fn joined_at(&self) -> Option<Timestamp> {
        *self.joined_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other servers may work over the same store. Known while unsealed.
    #[must_use]
    pub fn may_be_several(&self) -> bool {
        !self.is_alone.load(Ordering::Acquire)
    }

    /// How many servers answer requests, this one among them, as the store said when it was last asked.
    pub(crate) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Acquire)
    }

    /// The number of the last change that an answer reflects; None for a store that serves one server.
    pub(crate) fn index(&self) -> Option<u64> {
        let (applied, settled) = (self.applied.load(Ordering::Acquire), self.settled.load(Ordering::Acquire));
        self.may_be_several().then(|| applied.max(settled))
    }

    /// Whether memory reflects the change of this number. What is not in memory is read from the store by each request.
    fn reflects(&self, number: u64) -> bool {
        self.is_alone.load(Ordering::Acquire) || self.applied.load(Ordering::Acquire) >= number
    }

    fn report(&self) -> NodeReport {
        NodeReport {
            id: self.id.clone(),
            name: self.name.name.clone(),
            address: self.name.address.clone(),
            version: self.version.clone(),
            applied: self.is_loaded.load(Ordering::Acquire).then(|| self.applied.load(Ordering::Acquire)),
        }
    }

    /// All servers, this one among them; of a store that serves one server, this one alone.
    ///
    /// # Errors
    /// As storage.
    pub async fn members(&self) -> Result<Vec<Node>, StorageError> {
        match self.attend().await? {
            Some(attendance) => Ok(attendance.nodes),
            None => {
                let now = self.clock.now();
                Ok(vec![Node { report: self.report(), beat: 0, heard_at: now, joined_at: now }])
            }
        }
    }

    /// Reports, and remembers when each of the others was heard of.
    async fn attend(&self) -> Result<Option<Attendance>, StorageError> {
        // One after the other: an older report must not come to stand over a newer one.
        let _reporting = self.reporting.lock().await;
        let answer = self.storage.attend(&self.report()).await?;
        if let Some(attendance) = &answer {
            let others = |node: &&Node| node.report.id != self.id && node.report.applied.is_some();
            self.at_work.store(1 + attendance.nodes.iter().filter(others).count(), Ordering::Release);
            let now = self.clock.steady();
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.retain(|id, _| attendance.nodes.iter().any(|node| node.report.id == *id));
            for node in &attendance.nodes {
                if node.report.id == self.id {
                    *self.joined_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.joined_at);
                }
                let last = heard.entry(node.report.id.clone()).or_insert(Heard { beat: node.beat, at: now });
                if last.beat != node.beat {
                    *last = Heard { beat: node.beat, at: now };
                }
            }
        }
        Ok(answer)
    }

    /// Whether nothing has been heard of a server for so long that it decides nothing from memory.
    pub(crate) fn is_silent(&self, node: &Node) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.steady();
        heard.get(&node.report.id).is_some_and(|last| now.saturating_sub(last.at) >= SILENT)
    }

    /// Before anything is written for unsealing. Whoever was taken off the list is put on it again: a sealed server decides nothing, and the
    /// store may not have heard that it was sealed.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn arrive(&self) -> Result<Option<Attendance>, StorageError> {
        self.unloaded();
        match self.attend().await {
            Err(StorageError::Expelled) => {
                self.storage.rejoin(&self.report()).await?;
                self.attend().await
            }
            other => other,
        }
    }

    /// From which number on changes must be followed by what is read after this.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn begin_loading(&self) -> Result<u64, StorageError> {
        let attendance = self.arrive().await?;
        self.is_alone.store(attendance.is_none(), Ordering::Release);
        Ok(attendance.map_or(0, |attendance| attendance.changed))
    }

    /// Memory reflects everything up to this number, and perhaps more.
    pub(crate) fn loaded(&self, number: u64) {
        self.applied.store(number, Ordering::Release);
        // A request that was decided before the server was sealed must not write now.
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.is_loaded.store(true, Ordering::Release);
    }

    /// Memory is given up, and with it the right to decide from it.
    pub(crate) fn unloaded(&self) {
        self.is_loaded.store(false, Ordering::Release);
        self.good_until.store(0, Ordering::Release);
    }

    /// Whether memory may decide at this moment.
    fn is_current(&self) -> bool {
        self.is_alone.load(Ordering::Acquire)
            || self.clock.steady() < Duration::from_nanos(self.good_until.load(Ordering::Acquire))
    }

    /// The question that was sent at `sent` has been followed.
    fn renew(&self, sent: Duration) {
        let until = sent.saturating_add(CACHE_LEASE);
        self.good_until.fetch_max(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
        self.renewed.notify_waiters();
    }

    /// Another number later: what is decided from has changed since.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What is decided from has changed in memory: returns when nothing that was decided before is on its way to the store.
    async fn overtake(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        drop(self.writing.write().await);
    }

    /// Returns when all that this server has written so far counts on every server.
    ///
    /// # Errors
    /// 503: that could not be found out.
    pub(crate) async fn settle(&self) -> Result<(), RequestError> {
        self.overtake().await;
        admission::ends_turn();
        if self.is_alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let begun = self.clock.steady();
        let mut wanted = None;
        loop {
            // Reckoned before the question: what is answered later is so much the more certain.
            let asked = self.clock.steady();
            match self.attend().await {
                Ok(None) => return Ok(()),
                Ok(Some(attendance)) => {
                    // Since when: a server that does not follow a change that came after `begun` may have a lease still.
                    let (wanted, since) = *wanted.get_or_insert_with(|| (attendance.changed, self.clock.steady()));
                    let is_over = asked.saturating_sub(since) >= CACHE_LEASE_OVER;
                    let is_behind = |node: &&Node| {
                        node.report.id != self.id && node.report.applied.is_some_and(|applied| applied < wanted)
                    };
                    let mut is_settled = true;
                    for node in attendance.nodes.iter().filter(is_behind) {
                        is_settled = false;
                        if (is_over || self.is_silent(node))
                            && let Err(error) = self.expel(node).await
                        {
                            tracing::debug!(%error, node.name = node.report.name, "could not take a server off the list");
                        }
                    }
                    if is_settled {
                        self.settled.fetch_max(wanted, Ordering::AcqRel);
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "could not ask whether the other servers follow a change");
                    if asked.saturating_sub(begun) >= CACHE_LEASE_OVER {
                        return Err(RequestError::Unavailable(
                            "the change is stored, but the storage does not say whether all servers follow it: look at it, or make it again"
                                .to_owned(),
                        ));
                    }
                }
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    /// The other servers that decide from their memory. Those that are silent are taken off the list first.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn others_at_work(&self) -> Result<Vec<Node>, StorageError> {
        let mut others = Vec::new();
        for node in self.attend().await?.map(|attendance| attendance.nodes).unwrap_or_default() {
            if node.report.id == self.id || node.report.applied.is_none() {
                continue;
            }
            match self.is_silent(&node) {
                true => self.expel(&node).await?,
                false => others.push(node),
            }
        }
        Ok(others)
    }

    async fn expel(&self, node: &Node) -> Result<(), StorageError> {
        let NodeReport { id, name, .. } = &node.report;
        self.storage.expel(id, node.beat).await?;
        tracing::warn!(
            node.id = id,
            node.name = name,
            "server `{name}` does not follow changes and is taken off the list; it joins again when it answers"
        );
        Ok(())
    }
}
