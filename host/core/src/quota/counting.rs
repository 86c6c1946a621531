//! Which leases a change of lease count quotas has counted, and the commit that stores what they are.
//!
//! Must not know: who changes what, or how leases are closed meanwhile ([`leases`](super::leases) does).
//!
//! Start with [`Concerned::by`]: as long as leases are counted none begins there, so no more of them are looked at than a change makes
//! count otherwise than before.

use std::time::Duration;

use leasehold_model::MountAccessor;

use super::leases::{Held, LeaseCounts};
use super::places::{self, spread};
use super::table::{LeaseCount, LeaseTable};
use crate::codec::encode;
use crate::commit::{TRIES, commit_surely, overtaken_too_often};
use crate::keys;
use crate::mount::MountTable;
use crate::names;
use crate::random;
use crate::seams::storage::{Batch, Expect, LeaseFilter, Page, StorageError};

/// How often it is said that leases are still closed.
const EXTEND_EVERY: Duration = Duration::from_secs(3);
/// Rows read at once.
const PAGE: u32 = 1_000;

/// Which leases are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// Those of which the counts do not tell how they count from now on.
    WhereItMust,
    /// The counts are not believed.
    All,
}

/// What a change has to do with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Concerned {
    /// The one mount whose leases are counted otherwise than before; none: leases of any.
    pub mount: Option<MountAccessor>,
    rows: Rows,
}

/// Which rows have to be looked at.
#[derive(Debug, PartialEq, Eq)]
enum Rows {
    /// None: the same quotas count the same leases, and what differs is how many there may be.
    Kept,
    /// None: what no quota counts any more needs no count.
    Uncounted,
    /// Those of one path and of paths that begin so.
    Below(String),
    All,
}

impl Concerned {
    pub(super) fn by(before: &[LeaseCount], after: &[LeaseCount], counting: Counting, mounts: &MountTable) -> Self {
        let changed: Vec<&LeaseCount> = before
            .iter()
            .filter(|quota| !after.contains(quota))
            .chain(after.iter().filter(|quota| !before.contains(quota)))
            .collect();
        let first = changed.first().map(|quota| &quota.scope);
        let mount = first.and_then(|first| first.mount.clone());
        let mount = mount.filter(|mount| changed.iter().all(|quota| quota.scope.mount.as_ref() == Some(mount)));
        let rows = match (&mount, first) {
            _ if counting == Counting::All => Rows::All,
            _ if before.len() == after.len() && after.iter().all(|quota| counterpart(before, quota).is_some()) => {
                Rows::Kept
            }
            (Some(closed), _)
                if !after.iter().any(|quota| quota.scope.mount.as_ref().is_none_or(|mount| mount == closed)) =>
            {
                Rows::Uncounted
            }
            (Some(closed), Some(first))
                if changed.iter().all(|quota| quota.scope == *first) && !first.suffix.is_empty() =>
            {
                let entry = mounts.by_accessor(closed);
                let below = entry.map(|entry| format!("{}{}", entry.path, first.suffix.trim_end_matches('*')));
                // In another case the same names sort elsewhere.
                below.filter(|below| !names::fold(below)).map_or(Rows::All, Rows::Below)
            }
            _ => Rows::All,
        };
        Self { mount, rows }
    }
}

/// The quota that counts the same leases.
fn counterpart(quotas: &[LeaseCount], quota: &LeaseCount) -> Option<usize> {
    quotas.iter().position(|known| known.is_engines == quota.is_engines && known.scope == quota.scope)
}

impl LeaseCounts {
    /// Counts the closed leases, and stores the quotas with what they count. Whether that was done: another server may have opened them.
    pub(super) async fn count_and_open(
        &self,
        held: &mut Held,
        (after, concerned): (Vec<LeaseCount>, &Concerned),
        with: &Batch,
        mounts: &MountTable,
    ) -> Result<bool, StorageError> {
        let key = keys::quota_lease_counts();
        let wanted = LeaseTable { quotas: after, ..LeaseTable::default() };
        let before = held.table.clone();
        let filter = LeaseFilter { mount: concerned.mount.clone(), ..LeaseFilter::default() };
        let counted = match &concerned.rows {
            Rows::Kept | Rows::Uncounted => Some([&before, &wanted].map(|table| vec![0; table.quotas.len()]).to_vec()),
            Rows::Below(path) => {
                let filter = LeaseFilter { id_prefix: Some(path.clone()), ..filter };
                self.scan(filter, &[&before, &wanted], mounts, Some(&mut *held)).await?
            }
            Rows::All => self.scan(filter, &[&before, &wanted], mounts, Some(&mut *held)).await?,
        };
        let Some([old, new]) = counted.as_deref() else { return Ok(false) };
        crate::fail::point("leases-counted");
        for _ in 0..TRIES {
            let mut opened = wanted.clone();
            let mut batch = with.clone();
            let mut taken_over = Vec::new();
            for (quota, new) in opened.quotas.iter_mut().zip(new) {
                let unchanged = before.quotas.iter().position(|known| known == quota);
                let known_as = match concerned.rows {
                    Rows::Kept => counterpart(&before.quotas, quota),
                    _ => unchanged,
                };
                let mut total = *new;
                if let Some((at, known)) = known_as.and_then(|at| Some((at, before.quotas.get(at)?))) {
                    taken_over.push(at);
                    // What was not looked at counts as before, and begins and ends meanwhile where it is not closed.
                    let old = old.get(at).copied().unwrap_or_default();
                    if unchanged.is_some() && old == *new {
                        continue;
                    }
                    let places = places::all(&*self.storage, known).await?;
                    let used: u64 = places.iter().map(|(_, place, _)| place.used).sum();
                    total = (used + new).saturating_sub(old);
                    for (key, _, version) in places {
                        batch = batch.delete_expecting(key, Expect::Version(version));
                    }
                }
                quota.id = random::base62(&*self.entropy, 12);
                let places = spread(total, quota.max_leases);
                quota.places = u32::try_from(places.len()).unwrap_or(1);
                for (at, place) in (0..).zip(places) {
                    batch = batch.put(keys::lease_count_place(&quota.id, at), encode(&place)?, Expect::Absent);
                }
            }
            for (_, gone) in before.quotas.iter().enumerate().filter(|(at, _)| !taken_over.contains(at)) {
                for at in 0..gone.places {
                    batch = batch.delete(keys::lease_count_place(&gone.id, at));
                }
            }
            let value = encode(&opened)?;
            let batch = batch.put(key.clone(), value.clone(), held.unchanged);
            match commit_surely(&*self.storage, batch, &key, &value).await {
                Ok(()) => return Ok(true),
                Err(StorageError::Conflict(conflict)) if conflict == key.as_str() => return Ok(false),
                // A lease has begun or ended at another mount meanwhile.
                Err(StorageError::Conflict(conflict)) if keys::is_lease_count(&conflict) => {}
                Err(other) => return Err(other),
            }
        }
        Err(overtaken_too_often(&key))
    }

    /// How many leases each quota of each table counts, of those of a filter. `held`: they are closed meanwhile, and stay so. `None`:
    /// another server has opened them.
    pub(super) async fn scan(
        &self,
        filter: LeaseFilter,
        tables: &[&LeaseTable],
        mounts: &MountTable,
        mut held: Option<&mut Held>,
    ) -> Result<Option<Vec<Vec<u64>>>, StorageError> {
        let mut counted: Vec<Vec<u64>> = tables.iter().map(|table| vec![0; table.quotas.len()]).collect();
        let mut after = None;
        loop {
            let page = self.storage.leases(&filter, &Page { after, limit: PAGE }).await?;
            let Some(last) = page.last() else { return Ok(Some(counted)) };
            after = Some(last.id.clone());
            for row in &page {
                for (table, counted) in tables.iter().zip(&mut counted) {
                    for at in table.counting(row, mounts) {
                        if let Some(count) = counted.get_mut(at) {
                            *count += 1;
                        }
                    }
                }
            }
            if let Some(held) = &mut held
                && self.clock.steady().saturating_sub(held.extended_at) >= EXTEND_EVERY
                && !self.extend(held).await?
            {
                return Ok(None);
            }
        }
    }
}
