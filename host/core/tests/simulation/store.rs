//! One server's view of the store: messages take time and get lost, and what is written is watched where it is written.
//!
//! The list of servers and the numbers of changes are kept here, by the contract of the seam, so that they can be broken by hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::nodes::{Attendance, Node, NodeReport};
use leasehold_core::seams::storage::{
    Batch, Change, Changes, Expect, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::{Piece, Record, WholeStore};
use leasehold_model::{LeaseId, Timestamp, Ttl};
use tokio::sync::mpsc;

use super::world::{Breakage, Condition, Machine, Member, Weather, World};

/// A report that says nothing new is stored when the last one is so old.
const REPORT_EVERY_MILLIS: u64 = 400;

pub struct View {
    pub machine: Arc<Machine>,
    /// As it has said last. A sealed server has decided nothing that could come late: its store puts it on the list again.
    decides: AtomicBool,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("View")
    }
}

fn lost() -> StorageError {
    StorageError::Unavailable("the message was lost".to_owned())
}

impl View {
    pub fn new(machine: Arc<Machine>) -> Self {
        Self { machine, decides: AtomicBool::new(false) }
    }

    fn world(&self) -> &Arc<World> {
        &self.machine.world
    }

    fn is_cut(&self) -> bool {
        self.machine.is_cut_from_store.load(Ordering::SeqCst)
    }

    /// One question to the store and its answer. `writes`: that it was done and that it was said to be done are two things.
    async fn ask<T: Send>(
        &self,
        writes: bool,
        act: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let world = self.world();
        // Between a decision and its write is where standing still does the most harm.
        if writes && world.weather == Weather::Storm && !world.is_healed() && world.chance.below(60) == 0 {
            self.machine.pause(world.chance.millis(3_000, 5_000));
        }
        self.machine.runs().await;
        if self.is_cut() {
            return Err(lost());
        }
        world.on_the_way().await;
        let is_dead = self.machine.condition() == Condition::Dead;
        let fails = world.weather == Weather::Storm && !world.is_healed() && world.chance.below(400) == 0;
        if is_dead || self.is_cut() || fails {
            if writes && world.chance.percent(50) {
                let _ = act.await;
            }
            if is_dead {
                std::future::pending::<()>().await;
            }
            return Err(lost());
        }
        let done = act.await;
        world.on_the_way().await;
        self.machine.runs().await;
        if self.is_cut() { Err(lost()) } else { done }
    }

    /// Of what others change, and of what they hear of this server.
    async fn ask_for_news<T: Send>(
        &self,
        writes: bool,
        act: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let hears = || !self.machine.is_cut_from_news.load(Ordering::SeqCst);
        self.machine.runs().await;
        if !hears() {
            return Err(lost());
        }
        let news = self.ask(writes, act).await;
        if hears() { news } else { Err(lost()) }
    }

    fn is_listed(&self) -> Result<(), StorageError> {
        let mut members = self.world().members.lock().unwrap();
        if !self.decides.load(Ordering::SeqCst) {
            members.expelled.remove(&self.machine.life);
        }
        if members.expelled.contains(&self.machine.life) { Err(StorageError::Expelled) } else { Ok(()) }
    }

    async fn write(&self, mut batch: Batch) -> Result<(), StorageError> {
        self.is_listed()?;
        let world = self.world();
        self.break_conditions(&mut batch).await;
        let mut before = Vec::new();
        for change in &batch.0 {
            if let Change::Move { row: LeaseRow { id, .. }, .. } | Change::Remove { id, .. } = change {
                before.extend(world.store.lease(id).await?);
            }
        }
        let changes = batch.0.clone();
        let mut drawn = None;
        if world.is_broken(Breakage::NumbersFromASequence) {
            drawn = Some(world.changes.lock().unwrap().draw());
            tokio::time::sleep(world.chance.millis(0, 50)).await;
        }
        world.store.commit(batch).await?;
        self.number(&changes, drawn);
        for change in &changes {
            self.watch(change, &before);
        }
        self.watch_tokens_that_went(&before).await
    }

    /// Tells the others of what they keep in memory.
    fn number(&self, changes: &[Change], drawn: Option<u64>) {
        let mut log = self.world().changes.lock().unwrap();
        let cached = changes.iter().filter_map(|change| match change {
            Change::Put { key, .. } | Change::Delete { key, .. } if keys::is_cached(key) => Some(key.clone()),
            _ => None,
        });
        let cached: Vec<Key> = cached.collect();
        if !cached.is_empty() {
            let number = drawn.unwrap_or_else(|| log.draw());
            log.visible.extend(cached.into_iter().map(|key| (number, key)));
        }
    }

    /// A token goes at once only with everything that hung on it.
    async fn watch_tokens_that_went(&self, before: &[LeaseRow]) -> Result<(), StorageError> {
        let world = self.world();
        for was in before.iter().filter(|row| row.kind == LeaseKind::Token && row.state == LeaseState::Active) {
            let filter = LeaseFilter { token: Some(was.token.clone()), ..LeaseFilter::default() };
            let rows = world.store.leases(&filter, &Page { after: None, limit: 2 }).await?;
            if let (false, Some(left)) = (rows.iter().any(|row| row.id == was.id), rows.first()) {
                world.complain(format!("token {} goes while {} hangs on it", was.id, left.id));
            }
        }
        Ok(())
    }

    async fn break_conditions(&self, batch: &mut Batch) {
        let world = self.world();
        for change in &mut batch.0 {
            match change {
                Change::Move { row: LeaseRow { id, .. }, from, fence } if world.is_broken(Breakage::FencesIgnored) => {
                    if let Ok(Some(now)) = world.store.lease(id).await {
                        (*from, *fence) = (now.state, now.fence);
                    }
                }
                Change::Remove { id, fence } if world.is_broken(Breakage::FencesIgnored) => {
                    if let Ok(Some(now)) = world.store.lease(id).await {
                        *fence = now.fence;
                    }
                }
                Change::Put { key, expect, .. }
                    if world.is_broken(Breakage::NumbersFromASequence) && *key == keys::integrity() =>
                {
                    *expect = Expect::Anything;
                }
                Change::Put { expect, .. } | Change::Delete { expect, .. } | Change::Check { expect, .. }
                    if world.is_broken(Breakage::VersionsIgnored) && matches!(expect, Expect::Version(_)) =>
                {
                    *expect = Expect::Present;
                }
                _ => {}
            }
        }
    }

    /// The legal moves, in what was written just now.
    fn watch(&self, change: &Change, before: &[LeaseRow]) {
        let (world, node) = (self.world(), self.machine.node);
        let was = |id: &LeaseId| before.iter().find(|row| row.id == *id);
        match change {
            Change::Insert(row) => {
                world.note(0x10, format_args!("node {node}: row {} begins", row.id));
                let right = if row.kind == LeaseKind::Secret { LeaseState::Issuing } else { LeaseState::Active };
                if row.state != right {
                    world.complain(format!("{} begins as {:?}", row.id, row.state));
                }
                if row.kind == LeaseKind::Secret
                    && let Some(why) = world.model().may_not_begin(row)
                {
                    world.complain(format!("node {node} begins lease {}: {why}", row.id));
                }
            }
            Change::Move { row, .. } => {
                let Some(was) = was(&row.id) else { return };
                world.note(
                    0x20 + u64::try_from(row.next_at.as_nanos()).unwrap_or_default(),
                    format_args!(
                        "node {node}: row {} goes from {:?} to {:?}, fence {}, due {}",
                        row.id,
                        was.state,
                        row.state,
                        row.fence,
                        row.next_at.rfc3339()
                    ),
                );
                if !was.state.may_become(row.state) && was.state != row.state {
                    world.complain(format!("{} moves from {:?} to {:?}", row.id, was.state, row.state));
                }
                if row.fence < was.fence {
                    world.complain(format!("the fence of {} falls from {} to {}", row.id, was.fence, row.fence));
                }
                if row.kind == LeaseKind::Job && row.holder.is_none() {
                    world.jobs.lock().unwrap().released(row.mount.as_str(), self.machine.life, row.next_at);
                }
            }
            Change::Remove { id, .. } => {
                world.note(0x30, format_args!("node {node}: row {id} is removed"));
                if was(id).is_some_and(|was| was.state == LeaseState::Active && was.kind == LeaseKind::Secret) {
                    world.complain(format!("{id} goes without having been revoked"));
                }
                if world.target.has(id) {
                    world.complain(format!("{id} is forgotten while its role is there"));
                }
            }
            Change::Put { key, .. } => {
                world.note(0x40 + hashed(key.as_str()), format_args!("node {node}: {} is written", key.as_str()));
            }
            Change::Delete { key, .. } => {
                world.note(0x50 + hashed(key.as_str()), format_args!("node {node}: {} is deleted", key.as_str()));
            }
            Change::Check { .. } | Change::Empty { .. } | Change::NoLeases { .. } => {}
        }
    }

    async fn report(&self, report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        self.is_listed()?;
        let (world, now) = (self.world(), self.world().now());
        let mut members = world.members.lock().unwrap();
        let member = members.listed.entry(report.id.clone()).or_insert_with(|| Member {
            node: Node { report: report.clone(), beat: 0, heard_at: now, joined_at: now },
            life: self.machine.life,
            stored_at: Timestamp::from_secs(0),
        });
        let is_news = member.node.report != *report;
        if is_news || now.since(member.stored_at).as_millis() >= u128::from(REPORT_EVERY_MILLIS) {
            member.node.report.clone_from(report);
            member.node.beat += 1;
            member.node.heard_at = now;
            member.stored_at = now;
        }
        let changed = world.changes.lock().unwrap().last();
        let nodes = members.listed.values().map(|member| member.node.clone()).collect();
        Ok(Some(Attendance { changed, now, nodes }))
    }
}

fn hashed(text: &str) -> u64 {
    text.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))) & 0xFFFF_FFFF
}

#[async_trait]
impl Storage for View {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        self.ask(false, self.world().store.now()).await
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        let look = async {
            let log = self.world().changes.lock().unwrap();
            let next = log.last();
            if self.world().chance.below(50) == 0 {
                return Ok(Changes::All { next });
            }
            let keys = log.visible.iter().filter(|(number, _)| *number > since).map(|(_, key)| key.clone());
            Ok(Changes::Keys { keys: keys.collect(), next })
        };
        self.ask_for_news(false, look).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        self.ask(false, self.world().store.get(key)).await
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        self.ask(false, self.world().store.scan(prefix, after, limit)).await
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        self.ask(false, self.world().store.names(of, prefix, after, limit)).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        self.ask(false, self.world().store.lease(id)).await
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        self.ask(false, self.world().store.leases(filter, page)).await
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        self.ask(false, self.world().store.count_leases()).await
    }

    async fn recount_leases(&self) -> Result<u64, StorageError> {
        self.ask(false, self.world().store.recount_leases()).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        self.ask(true, self.write(batch)).await
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        let claim = async {
            self.is_listed()?;
            let rows = self.world().store.claim_due(holder, limit, hold_for, skip).await?;
            for row in &rows {
                let node = self.machine.node;
                self.world()
                    .note(0x60, format_args!("node {node}: {} is due and claimed, fence {}", row.id, row.fence));
            }
            Ok(rows)
        };
        self.ask(true, claim).await
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        let claim = async {
            self.is_listed()?;
            let row = self.world().store.claim(holder, id, hold_for).await?;
            self.world().note(0x70, format_args!("node {}: {id} is claimed: {}", self.machine.node, row.is_some()));
            Ok(row)
        };
        self.ask(true, claim).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.ask(false, self.world().store.next_due()).await
    }

    async fn attend(&self, report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        self.decides.store(report.applied.is_some(), Ordering::SeqCst);
        self.ask_for_news(true, self.report(report)).await
    }

    async fn expel(&self, id: &str, beat: u64) -> Result<(), StorageError> {
        let expel = async {
            let mut members = self.world().members.lock().unwrap();
            if members.listed.get(id).is_some_and(|member| member.node.beat == beat)
                && let Some(member) = members.listed.remove(id)
            {
                members.expelled.insert(member.life);
                self.world().note(0x80, format_args!("life {} is taken off the list", member.life));
            }
            Ok(())
        };
        self.ask(true, expel).await
    }

    async fn rejoin(&self, _: &NodeReport) -> Result<(), StorageError> {
        let rejoin = async {
            self.world().members.lock().unwrap().expelled.remove(&self.machine.life);
            self.world().note(0x90, format_args!("life {} joins again", self.machine.life));
            Ok(())
        };
        self.ask(true, rejoin).await
    }
}

#[async_trait]
impl WholeStore for View {
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
        self.world().store.export(into).await
    }

    async fn replace(&self, from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
        self.world().store.replace(from).await
    }
}
