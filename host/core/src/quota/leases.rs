//! Lease count quotas: what is known of them, and how they are changed.
//!
//! [`engines`](super::engines) closes leases in the same way, to look whether there are any.
//!
//! A change is made in three steps: the leases that it concerns are closed (none begins, and the row of none goes), counted as far as they
//! must be ([`counting`](super::counting)), and opened again in the commit that stores the quotas and their counts. A server that is killed in between leaves them closed for a while, and the
//! quotas as they were.
//!
//! Invariant: every commit that begins or ends a lease names the version of the quotas by which it was counted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leasehold_model::lock::RwLock;
use leasehold_model::{MountAccessor, Ttl};

use super::QUOTAS_MAX;
use super::counting::{Concerned, Counting};
use super::limits::{is_alive, similar, too_many};
use super::places::{self, Place, Turns};
use super::scope::At;
use super::table::{Closed, LeaseCount, LeaseTable};
use crate::codec::{decode, encode};
use crate::commit::{TRIES, commit_surely, overtaken_too_often, was_overtaken};
use crate::keys;
use crate::metrics;
use crate::mount::{AuthMethods, MountTable};
use crate::random;
use crate::seams::error::RequestError;
use crate::seams::host::{Clock, Entropy};
use crate::seams::storage::{Batch, Expect, Key, LeaseFilter, Storage, StorageError};

/// For how long leases stay closed when whoever counts them says no more.
const CLOSED_FOR: Ttl = Ttl::from_secs(10);
/// Between two looks at whether another change has ended.
const POLL: Duration = Duration::from_millis(100);
/// For how long a change waits for another one.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What a server knows of the quotas, as the store had them in one version.
#[derive(Clone)]
pub(super) struct Known {
    pub table: Arc<LeaseTable>,
    pub unchanged: Expect,
    pub mounts: Arc<MountTable>,
    pub methods: Arc<AuthMethods>,
}

/// The lease count quotas of an unsealed server.
pub struct LeaseCounts {
    pub(super) storage: Arc<dyn Storage>,
    /// The same store, for what no request has asked for: it takes nothing off the check of what a request was decided by.
    apart: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    /// None: the server is sealed.
    known: RwLock<Option<Known>>,
    pub(super) turns: Turns,
    pub(super) writing: tokio::sync::Mutex<()>,
    reading: tokio::sync::Mutex<()>,
    pub(super) cluster: RwLock<String>,
}

impl fmt::Debug for LeaseCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseCounts")
    }
}

impl LeaseCounts {
    /// `storage`: below what counts. `apart`: below what holds commits against decisions, too.
    pub fn new(
        storage: Arc<dyn Storage>,
        apart: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Self> {
        Arc::new(Self {
            storage,
            apart,
            clock,
            entropy,
            known: RwLock::new(None),
            turns: Turns::default(),
            writing: tokio::sync::Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            cluster: RwLock::default(),
        })
    }

    /// The server is being unsealed.
    pub(super) async fn load(
        &self,
        mounts: &Arc<MountTable>,
        methods: &Arc<AuthMethods>,
        cluster: &str,
    ) -> Result<(), StorageError> {
        let (table, unchanged) = self.stored().await?;
        cluster.clone_into(&mut self.cluster.write());
        self.turns.keep_only(&table.quotas);
        let (mounts, methods) = (mounts.clone(), methods.clone());
        *self.known.write() = Some(Known { table: Arc::new(table), unchanged, mounts, methods });
        Ok(())
    }

    /// At the end of the server: what is known of mounts holds a store that counts by this, which would keep both for ever.
    pub(crate) fn forget(&self) {
        *self.known.write() = None;
    }

    pub(super) fn known(&self) -> Option<Known> {
        self.known.read().clone()
    }

    async fn stored(&self) -> Result<(LeaseTable, Expect), StorageError> {
        let key = keys::quota_lease_counts();
        Ok(match self.storage.get(&key).await? {
            Some(found) => (decode(key.as_str(), &found.value)?, Expect::Version(found.version)),
            None => (LeaseTable::default(), Expect::Absent),
        })
    }

    /// Reads the quotas again.
    pub(super) async fn follow(&self) -> Result<(), StorageError> {
        let _reading = self.reading.lock().await;
        let (table, unchanged) = self.stored().await?;
        self.turns.keep_only(&table.quotas);
        if let Some(known) = &mut *self.known.write() {
            known.table = Arc::new(table);
            known.unchanged = unchanged;
        }
        Ok(())
    }

    pub(super) async fn is_outdated(&self, known: &Known) -> Result<bool, StorageError> {
        Ok(self.stored().await?.1 != known.unchanged)
    }

    /// Opens leases that somebody has closed and left closed.
    pub(super) async fn open_if_abandoned(&self) -> Result<(), StorageError> {
        let (table, unchanged) = self.stored().await?;
        if table.closed.as_ref().is_none_or(|closed| closed.until > self.clock.now()) {
            return Ok(());
        }
        tracing::warn!("a change of lease count quotas was not finished: the quotas are as they were");
        let opened = LeaseTable { closed: None, ..table };
        let batch = Batch::new().put(keys::quota_lease_counts(), encode(&opened)?, unchanged);
        was_overtaken(self.apart.commit(batch).await)?;
        self.follow().await
    }

    /// Those whose mount is there, by name.
    #[must_use]
    pub fn all(&self) -> Vec<LeaseCount> {
        let Some(known) = self.known() else { return Vec::new() };
        let alive = |quota: &&LeaseCount| !quota.is_engines && is_alive(&quota.scope, &known.mounts);
        let mut all: Vec<LeaseCount> = known.table.quotas.iter().filter(alive).cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// How many leases a quota counts.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn count(&self, quota: &LeaseCount) -> Result<u64, StorageError> {
        places::sum(&*self.storage, quota).await
    }

    /// What operators watch.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn measure(&self) -> Result<(), StorageError> {
        let cluster = self.cluster.read().clone();
        for quota in self.all() {
            metrics::lease_quota(&cluster, &quota.name, self.count(&quota).await?, quota.max_leases);
        }
        Ok(())
    }

    /// Whether a quota refuses what begins here and has no row that would count: a batch token.
    ///
    /// # Errors
    /// [`StorageError::LeaseQuotaExceeded`], or as storage.
    pub(crate) async fn refuse_if_full(
        &self,
        path: &str,
        mount: &MountAccessor,
        role: &str,
    ) -> Result<(), StorageError> {
        let Some(known) = self.known() else { return Ok(()) };
        let entry = known.mounts.by_accessor(mount);
        let at = known.table.covering(&At::new(path, entry.as_deref(), role));
        let Some(quota) = at.and_then(|at| known.table.quotas.get(at)) else { return Ok(()) };
        if self.count(quota).await? < quota.max_leases {
            return Ok(());
        }
        Err(self.full(&known, quota, path.to_owned()).await)
    }

    /// Returns how many leases it counts, as far as that is known.
    ///
    /// # Errors
    /// Another one covers the same; too many; leases are being counted already; or as storage.
    pub(crate) async fn write(&self, quota: LeaseCount) -> Result<u64, RequestError> {
        let mounts = self.known().ok_or(RequestError::Sealed)?.mounts;
        self.change(Batch::new(), |quotas| {
            let mut others = quotas.iter().filter(|other| !other.is_engines && other.name != quota.name);
            if let Some(other) = others.find(|other| other.scope.is_same(&quota.scope, &mounts)) {
                return Err(similar(&other.name));
            }
            quotas.retain(|other| other.is_engines || other.name != quota.name);
            if quotas.iter().filter(|quota| !quota.is_engines).count() >= QUOTAS_MAX {
                return Err(too_many());
            }
            quotas.push(quota.clone());
            Ok(())
        })
        .await?;
        Ok(self.standing_below(|stored| !stored.is_engines && stored.name == quota.name).await)
    }

    /// # Errors
    /// As [`LeaseCounts::write`].
    pub(crate) async fn delete(&self, name: &str) -> Result<(), RequestError> {
        self.change(Batch::new(), |quotas| {
            quotas.retain(|quota| quota.is_engines || quota.name != name);
            Ok(())
        })
        .await
    }

    /// Takes the quotas of mounts that are gone away.
    pub(super) async fn prune(&self) -> Result<(), RequestError> {
        let Some(known) = self.known() else { return Ok(()) };
        if known.table.quotas.iter().all(|quota| is_alive(&quota.scope, &known.mounts)) {
            return Ok(());
        }
        self.change(Batch::new(), |_| Ok(())).await
    }

    /// Counts again what the quotas count, and corrects counts that are wrong. While leases begin or end it is not known what is wrong:
    /// then the next call finds out.
    ///
    /// # Errors
    /// As storage.
    pub(crate) async fn check(&self) -> Result<(), RequestError> {
        let Some(known) = self.known() else { return Ok(()) };
        if known.table.quotas.is_empty() || known.table.closed.is_some() {
            return Ok(());
        }
        let versions = |places: &[(Key, Place, u64)]| places.iter().map(|(_, _, version)| *version).collect::<Vec<_>>();
        let mut before = Vec::new();
        for quota in &known.table.quotas {
            before.push(places::all(&*self.storage, quota).await?);
        }
        let all = LeaseFilter::default();
        let counted = self.scan(all, &[&known.table], &known.mounts, None).await?.unwrap_or_default();
        for ((quota, places), counted) in known.table.quotas.iter().zip(before).zip(counted.into_iter().flatten()) {
            let used: u64 = places.iter().map(|(_, place, _)| place.used).sum();
            // Every lease that began or ended meanwhile has changed a place.
            if used == counted || versions(&places::all(&*self.storage, quota).await?) != versions(&places) {
                continue;
            }
            tracing::warn!(
                quota = quota.name,
                used,
                counted,
                "the count of quota {:?} is wrong: its leases are counted again",
                quota.name
            );
            self.change_counting(Batch::new(), Counting::All, |quotas| {
                if let Some(wrong) = quotas.iter_mut().find(|known| known.id == quota.id) {
                    wrong.id = random::base62(&*self.entropy, 12);
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Changes the quotas, and writes `with` in the same commit.
    pub(super) async fn change(
        &self,
        with: Batch,
        change: impl Fn(&mut Vec<LeaseCount>) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        self.change_counting(with, Counting::WhereItMust, change).await
    }

    async fn change_counting(
        &self,
        with: Batch,
        counting: Counting,
        change: impl Fn(&mut Vec<LeaseCount>) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let _writing = self.writing.lock().await;
        let mut waited = Duration::ZERO;
        for _ in 0..TRIES {
            let known = self.opened(&mut waited).await?;
            let before = &known.table.quotas;
            let mut after: Vec<LeaseCount> =
                before.iter().filter(|quota| is_alive(&quota.scope, &known.mounts)).cloned().collect();
            change(&mut after)?;
            if after == *before {
                return if with.0.is_empty() { Ok(()) } else { Ok(self.storage.commit(with).await?) };
            }
            let concerned = Concerned::by(before, &after, counting, &known.mounts);
            let Some(mut held) = self.close(&known, concerned.mount.clone()).await? else { continue };
            crate::fail::point("leases-closed");
            match self.count_and_open(&mut held, (after, &concerned), &with, &known.mounts).await {
                Ok(true) => {
                    self.follow().await?;
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    self.open_again(held).await;
                    return Err(error.into());
                }
            }
        }
        Err(overtaken_too_often(&keys::quota_lease_counts()).into())
    }

    /// The quotas, as soon as no other change is under way.
    pub(super) async fn opened(&self, waited: &mut Duration) -> Result<Known, RequestError> {
        loop {
            self.open_if_abandoned().await?;
            self.follow().await?;
            let known = self.known().ok_or(RequestError::Sealed)?;
            if known.table.closed.is_none() {
                return Ok(known);
            }
            if *waited >= WAIT_MAX {
                return Err(RequestError::Unavailable(
                    "leases are being counted for another change, try again".to_owned(),
                ));
            }
            tokio::time::sleep(POLL).await;
            *waited += POLL;
        }
    }

    /// Closes the leases of one mount, or of all. `None`: another server was faster.
    pub(super) async fn close(
        &self,
        known: &Known,
        mount: Option<MountAccessor>,
    ) -> Result<Option<Held>, StorageError> {
        let by = random::base62(&*self.entropy, 12);
        let closed = Closed { mount, until: self.clock.now() + CLOSED_FOR, by };
        let table = LeaseTable { closed: Some(closed), ..(*known.table).clone() };
        let mut held = Held { table, unchanged: known.unchanged, extended_at: Duration::ZERO };
        Ok(self.extend(&mut held).await?.then_some(held))
    }

    /// After a change that did not come about: leases need not wait until their time is over.
    pub(super) async fn open_again(&self, held: Held) {
        let key = keys::quota_lease_counts();
        let Ok(value) = encode(&LeaseTable { closed: None, ..held.table }) else { return };
        let batch = Batch::new().put(key.clone(), value.clone(), held.unchanged);
        if let Err(error) = commit_surely(&*self.storage, batch, &key, &value).await {
            tracing::warn!(%error, "leases that were closed to be counted are open again in {CLOSED_FOR}");
        }
    }

    /// Says that leases are closed, or still are. Whether that is so: another server may have been faster, or may have opened them.
    pub(super) async fn extend(&self, held: &mut Held) -> Result<bool, StorageError> {
        let key = keys::quota_lease_counts();
        if let Some(closed) = &mut held.table.closed {
            closed.until = self.clock.now() + CLOSED_FOR;
        }
        held.extended_at = self.clock.steady();
        let value = encode(&held.table)?;
        let batch = Batch::new().put(key.clone(), value.clone(), held.unchanged);
        if was_overtaken(commit_surely(&*self.storage, batch, &key, &value).await)? {
            return Ok(false);
        }
        let (table, unchanged) = self.stored().await?;
        held.unchanged = unchanged;
        Ok(table == held.table)
    }
}

/// Leases that this server has closed.
pub(super) struct Held {
    /// As it is stored.
    pub(super) table: LeaseTable,
    pub(super) unchanged: Expect,
    /// By the steady clock.
    pub(super) extended_at: Duration,
}
