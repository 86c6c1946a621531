//! The store of development mode: everything in memory, gone with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leasehold_core::keys;
use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::nodes::{Attendance, Node, NodeReport};
use leasehold_core::seams::storage::{
    Batch, Change, Changes, Expect, Key, LeaseFilter, Listed, Page, Storage, StorageError, Versioned,
};
use leasehold_core::seams::store_copy::{GROUP_RECORDS, Piece, Record, WholeStore, cut_short};
use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash, Ttl};
use tokio::sync::mpsc;

use crate::text_range::{first_after, name_below};

/// Passes the conformance suite; makes no promise about `kill -9`.
pub struct MemoryStorage {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Of a store that several servers share, those that have reported.
    nodes: Option<Mutex<Nodes>>,
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").finish_non_exhaustive()
    }
}

impl MemoryStorage {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), nodes: None }
    }

    /// For several servers in one process: those of tests.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn shared(clock: Arc<dyn Clock>) -> Self {
        Self { nodes: Some(Mutex::default()), ..Self::new(clock) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change; should it ever, the store is still worth more than a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn now(&self) -> Result<Timestamp, StorageError> {
        Ok(self.clock.now())
    }

    async fn changes(&self, since: u64) -> Result<Changes, StorageError> {
        let state = self.state();
        let next = state.version;
        if since < state.horizon {
            return Ok(Changes::All { next });
        }
        let written = state
            .values
            .range::<str, _>((Bound::Included(keys::CACHED), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(keys::CACHED));
        let written = written.filter(|(_, value)| value.version > since).map(|(key, _)| key);
        let deleted = state.tombstones.iter().filter(|(_, number)| **number > since).map(|(key, _)| key);
        Ok(Changes::Keys { keys: written.chain(deleted).map(Key::new).collect(), next })
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StorageError> {
        Ok(self.state().values.get(key.as_str()).cloned())
    }

    async fn scan(&self, prefix: &Key, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, StorageError> {
        let state = self.state();
        let prefix = prefix.as_str();
        let from = match after.map(Key::as_str) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(state
            .values
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .take(size(limit))
            .map(Key::new)
            .collect())
    }

    async fn names(&self, of: Listed, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        let state = self.state();
        let first = |from: &str| {
            let range = (Bound::Included(from), Bound::Unbounded);
            let found = match of {
                Listed::Values => state.values.range::<str, _>(range).next().map(|(key, _)| key),
                Listed::Leases => {
                    let mut rows = state.leases.range::<str, _>(range);
                    rows.find(|(_, row)| row.kind != LeaseKind::Job).map(|(id, _)| id)
                }
            };
            found.filter(|text| text.starts_with(prefix))
        };
        let mut names: Vec<String> = Vec::new();
        while names.len() < size(limit) {
            let last = names.last().map_or(after, String::as_str);
            let Some(text) = first(&first_after(prefix, last)) else { break };
            names.push(name_below(prefix, text).to_owned());
        }
        Ok(names)
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<LeaseRow>, StorageError> {
        Ok(self.state().leases.get(id.as_str()).cloned())
    }

    async fn leases(&self, filter: &LeaseFilter, page: &Page) -> Result<Vec<LeaseRow>, StorageError> {
        let state = self.state();
        let after = page.after.as_ref().map(LeaseId::as_str);
        let wanted = |row: &&LeaseRow| matches(row, filter);
        // The narrowest index first: a token or a mount names few of many rows.
        let index = match (&filter.token, &filter.mount) {
            (Some(token), _) => Some(state.by_token.get(token)),
            (None, Some(mount)) => Some(state.by_mount.get(mount)),
            (None, None) => None,
        };
        if let Some(ids) = index {
            let ids = ids.into_iter().flatten().filter(|id| after.is_none_or(|after| id.as_str() > after));
            let rows = ids.filter_map(|id| state.leases.get(id.as_str()));
            return Ok(rows.filter(wanted).take(size(page.limit)).cloned().collect());
        }
        let prefix = filter.id_prefix.as_deref().unwrap_or_default();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = state.leases.range::<str, _>((from, Bound::Unbounded));
        let rows = rows.map(|(_, row)| row).take_while(|row| row.id.as_str().starts_with(prefix));
        Ok(rows.filter(wanted).take(size(page.limit)).cloned().collect())
    }

    async fn count_leases(&self) -> Result<Vec<(LeaseKind, LeaseState, u64)>, StorageError> {
        let state = self.state();
        Ok(state.counts.iter().map(|((kind, state), count)| (*kind, *state, *count)).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        self.state().commit(batch)
    }

    async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let due = state.due.iter().take_while(|(at, _)| *at <= now);
        let free: Vec<LeaseId> = due
            .filter_map(|(_, id)| state.leases.get(id.as_str()))
            .filter(|row| held_by(row, now).is_none() && !skip.contains(&row.connection))
            .take(size(limit))
            .map(|row| row.id.clone())
            .collect();
        let rows =
            free.iter().filter_map(|id| state.leases.get_mut(id.as_str()).map(|row| hold(row, holder, now, hold_for)));
        Ok(rows.collect())
    }

    async fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(row) = state.leases.get_mut(id.as_str()) else { return Ok(None) };
        if held_by(row, now).is_some_and(|other| other != holder) {
            return Err(StorageError::Fenced(id.clone()));
        }
        Ok(Some(hold(row, holder, now, hold_for)))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        Ok(self.state().due.first().map(|(at, _)| *at))
    }

    async fn attend(&self, report: &NodeReport) -> Result<Option<Attendance>, StorageError> {
        let Some(nodes) = &self.nodes else { return Ok(None) };
        let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        nodes.heard(report, now)?;
        Ok(Some(Attendance { changed: self.state().version, now, nodes: nodes.here.values().cloned().collect() }))
    }

    async fn expel(&self, id: &str, beat: u64) -> Result<(), StorageError> {
        let Some(nodes) = &self.nodes else { return Ok(()) };
        let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.here.get(id).is_some_and(|node| node.beat == beat) {
            nodes.here.remove(id);
            nodes.expelled.insert(id.to_owned());
        }
        Ok(())
    }

    async fn rejoin(&self, report: &NodeReport) -> Result<(), StorageError> {
        let Some(nodes) = &self.nodes else { return Ok(()) };
        nodes.lock().unwrap_or_else(PoisonError::into_inner).expelled.remove(&report.id);
        Ok(())
    }
}

/// The servers that share a store in memory.
#[derive(Default)]
struct Nodes {
    here: BTreeMap<String, Node>,
    expelled: BTreeSet<String>,
}

impl Nodes {
    fn heard(&mut self, report: &NodeReport, now: Timestamp) -> Result<(), StorageError> {
        if self.expelled.contains(&report.id) {
            return Err(StorageError::Expelled);
        }
        let new = Node { report: report.clone(), beat: 0, heard_at: now, joined_at: now };
        let node = self.here.entry(report.id.clone()).or_insert(new);
        node.report.clone_from(report);
        node.beat += 1;
        node.heard_at = now;
        Ok(())
    }
}

#[async_trait]
impl WholeStore for MemoryStorage {
    async fn export(&self, into: mpsc::Sender<Vec<Record>>) -> Result<u64, StorageError> {
        // All of it is in memory twice for a while: others go on writing while it is sent.
        let (mut records, number) = {
            let state = self.state();
            let values = state.values.iter();
            let values = values.map(|(key, stored)| Record::Value { key: Key::new(key), value: stored.value.clone() });
            let leases = state.leases.values().cloned().map(Record::Lease);
            (values.chain(leases).collect::<Vec<_>>().into_iter(), state.version)
        };
        loop {
            let group: Vec<Record> = records.by_ref().take(GROUP_RECORDS).collect();
            if group.is_empty() {
                return Ok(number);
            }
            into.send(group).await.map_err(|_| cut_short())?;
        }
    }

    async fn replace(&self, mut from: mpsc::Receiver<Piece>) -> Result<(), StorageError> {
        let (mut next, mut ended) = (State::default(), false);
        while let Some(piece) = from.recv().await {
            match piece {
                Piece::Records(records) => records.into_iter().for_each(|record| next.load(record)),
                Piece::End => {
                    ended = true;
                    break;
                }
            }
        }
        if !ended {
            return Err(cut_short());
        }
        let mut state = self.state();
        next.version = state.version + 1;
        next.horizon = next.version;
        let number = next.version;
        next.values.values_mut().for_each(|stored| stored.version = number);
        *state = next;
        Ok(())
    }
}

/// Whether a batch with this change takes a number.
pub(crate) fn is_numbered(change: &Change) -> bool {
    match change {
        Change::Put { .. } => true,
        Change::Delete { key, .. } => keys::is_cached(key),
        _ => false,
    }
}

#[derive(Default)]
struct State {
    values: BTreeMap<String, Versioned>,
    leases: BTreeMap<String, LeaseRow>,
    due: BTreeSet<(Timestamp, LeaseId)>,
    by_token: BTreeMap<TokenHash, BTreeSet<LeaseId>>,
    by_mount: BTreeMap<MountAccessor, BTreeSet<LeaseId>>,
    /// How many rows of each kind and state there are; none is zero.
    counts: BTreeMap<(LeaseKind, LeaseState), u64>,
    /// Of the last batch that put something, or that deleted a cached key. One counter for all keys: a key made anew gets a greater
    /// version than it had.
    version: u64,
    /// Cached keys that were deleted, with the number of that change.
    tombstones: BTreeMap<String, u64>,
    /// Deletions up to this number may have been forgotten.
    horizon: u64,
}

/// Deletions of cached keys that a store remembers: further ones push out the oldest, and with it the horizon up.
pub(crate) const TOMBSTONES_MAX: usize = 4_096;

/// How to take one change back.
enum Undo {
    Value(String, Option<Versioned>),
    Row(LeaseId, Option<LeaseRow>),
}

impl State {
    /// Takes a record of a copy; its version comes when all are there.
    fn load(&mut self, record: Record) {
        match record {
            Record::Value { key, value } => {
                drop(self.set_value(key.as_str().to_owned(), Some(Versioned { value, version: 0 })));
            }
            Record::Lease(row) => drop(self.set_row(&row.id.clone(), Some(row))),
        }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        let version = self.version + 1;
        let mut undo = Vec::with_capacity(batch.0.len());
        let mut numbered = false;
        let mut cached = Vec::new();
        for change in batch.in_order() {
            numbered |= is_numbered(&change);
            match &change {
                Change::Put { key, .. } if keys::is_cached(key) => cached.push((key.as_str().to_owned(), false)),
                Change::Delete { key, .. } if keys::is_cached(key) => cached.push((key.as_str().to_owned(), true)),
                _ => {}
            }
            if let Err(error) = self.apply(change, version, &mut undo) {
                for step in undo.into_iter().rev() {
                    match step {
                        Undo::Value(key, before) => drop(self.set_value(key, before)),
                        Undo::Row(id, before) => drop(self.set_row(&id, before)),
                    }
                }
                return Err(error);
            }
        }
        if numbered {
            self.version = version;
        }
        for (key, is_deleted) in cached {
            if is_deleted {
                self.tombstones.insert(key, version);
            } else {
                self.tombstones.remove(&key);
            }
        }
        while self.tombstones.len() > TOMBSTONES_MAX {
            let oldest = self.tombstones.iter().min_by_key(|(_, number)| **number);
            let Some((key, number)) = oldest.map(|(key, number)| (key.clone(), *number)) else { break };
            self.tombstones.remove(&key);
            self.horizon = self.horizon.max(number);
        }
        Ok(())
    }

    fn apply(&mut self, change: Change, version: u64, undo: &mut Vec<Undo>) -> Result<(), StorageError> {
        match change {
            Change::Put { key, value, expect } => {
                self.check(&key, expect)?;
                let before = self.set_value(key.as_str().to_owned(), Some(Versioned { value, version }));
                undo.push(Undo::Value(key.as_str().to_owned(), before));
            }
            Change::Delete { key, expect } => {
                self.check(&key, expect)?;
                let before = self.set_value(key.as_str().to_owned(), None);
                undo.push(Undo::Value(key.as_str().to_owned(), before));
            }
            Change::Check { key, expect } => self.check(&key, expect)?,
            Change::Empty { prefix } => {
                let mut from = self.values.range(prefix.as_str().to_owned()..);
                if from.next().is_some_and(|(key, _)| key.starts_with(prefix.as_str())) {
                    return Err(StorageError::NotEmpty(prefix.as_str().to_owned()));
                }
            }
            Change::NoLeases { token, but } => {
                if self.by_token.get(&token).is_some_and(|ids| ids.iter().any(|id| *id != but)) {
                    return Err(StorageError::NotEmpty(token.to_string()));
                }
            }
            Change::Insert(row) => {
                if self.leases.contains_key(row.id.as_str()) {
                    return Err(StorageError::Conflict(row.id.to_string()));
                }
                self.replace(&row.id.clone(), Some(row), undo);
            }
            Change::Move { mut row, from, fence } => {
                match self.leases.get(row.id.as_str()) {
                    Some(now) if now.state == from && now.fence == fence => {
                        if row.body.is_empty() {
                            row.body.clone_from(&now.body);
                        }
                    }
                    _ => return Err(StorageError::Fenced(row.id)),
                }
                self.replace(&row.id.clone(), Some(row), undo);
            }
            Change::Remove { id, fence } => {
                if self.leases.get(id.as_str()).is_none_or(|row| row.fence != fence) {
                    return Err(StorageError::Fenced(id));
                }
                self.replace(&id, None, undo);
            }
        }
        Ok(())
    }

    fn check(&self, key: &Key, expect: Expect) -> Result<(), StorageError> {
        let now = self.values.get(key.as_str()).map(|found| found.version);
        if holds(expect, now) { Ok(()) } else { Err(StorageError::Conflict(key.as_str().to_owned())) }
    }

    fn set_value(&mut self, key: String, value: Option<Versioned>) -> Option<Versioned> {
        match value {
            Some(value) => self.values.insert(key, value),
            None => self.values.remove(&key),
        }
    }

    fn replace(&mut self, id: &LeaseId, row: Option<LeaseRow>, undo: &mut Vec<Undo>) {
        let before = self.set_row(id, row);
        undo.push(Undo::Row(id.clone(), before));
    }

    /// Keeps the indexes and the counts in step with the rows.
    fn set_row(&mut self, id: &LeaseId, row: Option<LeaseRow>) -> Option<LeaseRow> {
        let before = match row {
            Some(row) => {
                let (at, token, mount) = (row.next_at, row.token.clone(), row.mount.clone());
                *self.counts.entry((row.kind, row.state)).or_default() += 1;
                let before = self.leases.insert(id.as_str().to_owned(), row);
                self.unindex(before.as_ref());
                self.due.insert((at, id.clone()));
                self.by_token.entry(token).or_default().insert(id.clone());
                self.by_mount.entry(mount).or_default().insert(id.clone());
                return before;
            }
            None => self.leases.remove(id.as_str()),
        };
        self.unindex(before.as_ref());
        before
    }

    fn unindex(&mut self, row: Option<&LeaseRow>) {
        let Some(row) = row else { return };
        self.due.remove(&(row.next_at, row.id.clone()));
        forget(&mut self.by_token, &row.token, &row.id);
        forget(&mut self.by_mount, &row.mount, &row.id);
        if let Some(count) = self.counts.get_mut(&(row.kind, row.state)) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&(row.kind, row.state));
            }
        }
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<LeaseId>>, at: &K, id: &LeaseId) {
    if let Some(ids) = index.get_mut(at) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(at);
        }
    }
}

/// Whether a key at version `now` (`None`: not there) is as a batch expects it.
pub(crate) fn holds(expect: Expect, now: Option<u64>) -> bool {
    match expect {
        Expect::Anything => true,
        Expect::Absent => now.is_none(),
        Expect::Present => now.is_some(),
        Expect::Version(version) => now == Some(version),
    }
}

pub(crate) fn matches(row: &LeaseRow, filter: &LeaseFilter) -> bool {
    filter.id_prefix.as_ref().is_none_or(|prefix| row.id.as_str().starts_with(prefix.as_str()))
        && filter.token.as_ref().is_none_or(|token| row.token == *token)
        && filter.mount.as_ref().is_none_or(|mount| row.mount == *mount)
        && filter.connection.as_ref().is_none_or(|connection| row.connection == *connection)
        && filter.state.is_none_or(|state| row.state == state)
        && filter.kind.map_or(row.kind != LeaseKind::Job, |kind| row.kind == kind)
}

fn held_by(row: &LeaseRow, now: Timestamp) -> Option<&str> {
    row.holder.as_deref().filter(|_| row.held_until.is_some_and(|until| until > now))
}

fn hold(row: &mut LeaseRow, holder: &str, now: Timestamp, hold_for: Ttl) -> LeaseRow {
    row.holder = Some(holder.to_owned());
    row.held_until = Some(now + hold_for);
    row.fence = row.fence.saturating_add(1);
    row.clone()
}

fn size(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
