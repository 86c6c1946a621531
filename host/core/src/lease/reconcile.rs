//! Compares leases with the roles that stand in the targets, both ways: roles that no lease names, and leases whose role is gone.
//! Reports both; drops the first only where their connection says so. It is a job: once in ten minutes over all servers of a store.
//!
//! What makes a finding true is the order of reading. A row is there for as long as its role is: so a role that stands before
//! all leases are read and after, and is in none of them, has no lease. And a lease that is active before the roles are read and
//! after must have its role among them. What is being issued or revoked meanwhile is neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_model::{LeaseId, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EFFECT_TIME, LeaseState, Leases, PAGE};
use crate::jobs::{Job, JobError};
use crate::mount::Table;
use crate::seams::engine::{EngineContext, EngineError, KnownTarget, LeaseIntent, OrphanEnd, OwnedRole, SecretsEngine};
use crate::seams::storage::{LeaseFilter, Page, StorageError};

/// From one comparison to the next.
const EVERY: Ttl = Ttl::from_secs(600);
/// How long a target may take over one question, or over one drop.
const LIMIT: Duration = Duration::from_secs(EFFECT_TIME.as_secs());
/// Lines for one target and one kind of finding: more would bury the rest of the log. The gauges have the whole number.
const LINES_MAX: usize = 100;

/// Orphans of one connection that are remembered until the next comparison, the first by name. More than that are reported and counted
/// all the same; they are dropped when those before them are gone.
pub const REMEMBERED_MAX: usize = 1_000;
/// Orphans that are remembered of all connections together.
const REMEMBERED_AT_ALL: usize = 5_000;

/// What the last comparison found on each connection, whichever server made it: only what is found twice in a row is dropped. It is what
/// is stored of this job.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTime(BTreeMap<String, OnConnection>);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OnConnection {
    mount: String,
    name: String,
    /// No more than are remembered.
    orphans: BTreeSet<OwnedRole>,
    orphan_count: u64,
    missing_count: u64,
}

/// The comparison as a job.
pub struct Reconciliation {
    leases: Arc<Leases>,
    /// Mounts and connections whose gauges exist: those that vanish go to zero.
    shown: Mutex<BTreeSet<(String, String)>>,
}

impl std::fmt::Debug for Reconciliation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reconciliation")
    }
}

impl Reconciliation {
    pub const NAME: &'static str = "compare-roles";

    #[must_use]
    pub fn new(leases: Arc<Leases>) -> Self {
        Self { leases, shown: Mutex::default() }
    }
}

#[async_trait]
impl Job for Reconciliation {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn every(&self) -> Ttl {
        EVERY
    }

    async fn run(&self, state: Value) -> Result<Value, JobError> {
        let mut last = LastTime::read(state);
        self.leases.recount().await;
        self.leases.compare(&mut last).await?;
        serde_json::to_value(&last).map_err(|error| JobError::Failed(error.to_string()))
    }

    fn measure(&self, state: &Value) {
        let last = LastTime::read(state.clone());
        let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for found in last.0.into_values() {
            counts.insert((found.mount, found.name), (found.orphan_count, found.missing_count));
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for vanished in shown.iter().filter(|known| !counts.contains_key(*known)) {
            gauges(vanished, (0, 0));
        }
        for (of, counted) in &counts {
            gauges(of, *counted);
        }
        *shown = counts.into_keys().collect();
    }
}

/// What one comparison found and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Roles without a lease that still stand.
    pub orphans: Vec<OwnedRole>,
    /// Active leases without their role.
    pub missing: Vec<LeaseId>,
    /// Roles that had no lease and are gone now.
    pub dropped: Vec<OwnedRole>,
}

/// A target that answered, while it is being compared.
struct Comparison {
    engine: Arc<dyn SecretsEngine>,
    context: EngineContext,
    target: KnownTarget,
    /// By the random part of the lease they were made for; those of leases that are found are taken out.
    unclaimed: BTreeMap<String, Vec<OwnedRole>>,
    /// Active leases whose role did not stand when the roles were read.
    without_role: Vec<LeaseId>,
}

impl Leases {
    /// Compares all targets that can be reached with all leases.
    ///
    /// # Errors
    /// As storage.
    pub async fn compare(&self, last: &mut LastTime) -> Result<Findings, StorageError> {
        let mut known = BTreeSet::new();
        let mut comparisons = Vec::new();
        for entry in self.engines.mounts.all().iter().filter(|entry| entry.table == Table::Mount && !entry.tainted) {
            let Some((engine, context)) = self.engines.at(&entry.accessor) else { continue };
            let targets = match engine.targets(&context).await {
                Ok(targets) => targets,
                Err(error) => {
                    tracing::warn!(mount.path = %entry.path, %error, "could not list the targets behind `{}`", entry.path);
                    continue;
                }
            };
            for target in targets {
                known.insert(target.connection.clone());
                if self.is_left_alone(&target.connection) {
                    tracing::debug!(connection = target.connection, "a target that is down is not compared");
                    continue;
                }
                let Some(roles) = self.roles_of(&*engine, &context, &target).await else { continue };
                let mut unclaimed: BTreeMap<String, Vec<OwnedRole>> = BTreeMap::new();
                for role in roles {
                    unclaimed.entry(role.lease.clone()).or_default().push(role);
                }
                let (engine, context) = (engine.clone(), context.clone());
                comparisons.push(Comparison { engine, context, target, unclaimed, without_role: Vec::new() });
            }
        }
        if !comparisons.is_empty() {
            self.claim_roles(&mut comparisons).await?;
        }
        let mut findings = Findings::default();
        for comparison in comparisons {
            self.conclude(comparison, last, &mut findings).await?;
        }
        last.keep_only(&known);
        Ok(findings)
    }

    /// Takes the roles of all leases out. Of all, not of those of one connection: two connections may lead to one server.
    async fn claim_roles(&self, comparisons: &mut [Comparison]) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            // A row that cannot be read ends the comparison here: what it names would look like an orphan.
            let page = self.storage.leases(&LeaseFilter::default(), &Page { after, limit: PAGE }).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            for row in page {
                for one in &mut *comparisons {
                    let stands = one.unclaimed.remove(row.id.random()).is_some();
                    let is_ours = row.state == LeaseState::Active && row.connection == one.target.connection;
                    if is_ours && !stands {
                        one.without_role.push(row.id.clone());
                    }
                }
            }
        }
    }

    /// Looks again at what stands out, reports it, and drops what may be dropped.
    async fn conclude(
        &self,
        comparison: Comparison,
        last: &mut LastTime,
        findings: &mut Findings,
    ) -> Result<(), StorageError> {
        let Comparison { engine, context, target, unclaimed, without_role } = comparison;
        let (mut orphans, mut missing) = (BTreeSet::new(), Vec::new());
        if !unclaimed.is_empty() || !without_role.is_empty() {
            let Some(roles) = self.roles_of(&*engine, &context, &target).await else { return Ok(()) };
            let standing: BTreeSet<&str> = roles.iter().map(|role| role.lease.as_str()).collect();
            let mut unmarked = Vec::new();
            for id in without_role.into_iter().filter(|id| !standing.contains(id.random())) {
                let row = self.storage.lease(&id).await?.filter(|row| row.state == LeaseState::Active);
                // Of a damaged row nothing is known but its name.
                match row.map(|row| row.read_body().map(|body| row.intent(&body, row.expires_at))) {
                    Some(Ok(intent)) => unmarked.push(intent),
                    Some(Err(_)) => missing.push(id),
                    None => {}
                }
            }
            missing.extend(self.missing_of(&*engine, &context, &target, unmarked).await);
            let is_unclaimed = |role: &OwnedRole| unclaimed.get(&role.lease).is_some_and(|known| known.contains(role));
            orphans = roles.into_iter().filter(is_unclaimed).collect();
        }
        let (mount, connection) = (context.mount.path.as_str(), target.connection.as_str());
        for OwnedRole { name, .. } in orphans.iter().take(LINES_MAX) {
            tracing::warn!(mount.path = mount, connection, role = name, "role {name:?} on `{connection}` has no lease");
        }
        for id in missing.iter().take(LINES_MAX) {
            tracing::warn!(mount.path = mount, connection, lease.id = %id, "the role of lease {id} is not on `{connection}`");
        }
        if target.drops_orphans {
            let again = last.0.get(connection).map(|found| &found.orphans & &orphans).unwrap_or_default();
            for role in again {
                match drop_orphan(&*engine, &context, &target, &role).await {
                    Some(OrphanEnd::Gone) => {
                        orphans.remove(&role);
                        findings.dropped.push(role);
                    }
                    // Whatever stands there now is for the next comparison.
                    Some(OrphanEnd::Kept) => drop(orphans.remove(&role)),
                    None => {}
                }
            }
        }
        findings.orphans.extend(orphans.iter().cloned());
        let found = OnConnection {
            mount: mount.to_owned(),
            name: target.name,
            orphan_count: orphans.len() as u64,
            missing_count: missing.len() as u64,
            orphans: orphans.into_iter().take(REMEMBERED_MAX).collect(),
        };
        findings.missing.extend(missing);
        last.0.insert(target.connection, found);
        Ok(())
    }

    /// Those of `leases` whose role is not there, under no mark and under no name.
    async fn missing_of(
        &self,
        engine: &dyn SecretsEngine,
        context: &EngineContext,
        target: &KnownTarget,
        leases: Vec<LeaseIntent>,
    ) -> Vec<LeaseId> {
        let connection = target.connection.as_str();
        let mut missing: Vec<LeaseId> = Vec::new();
        for some in leases.chunks(PAGE as usize) {
            let found = match tokio::time::timeout(LIMIT, engine.stand_unmarked(context, target, some)).await {
                Ok(Ok(found)) => found.into_iter().collect::<BTreeSet<_>>(),
                Ok(Err(error)) => {
                    tracing::warn!(connection, %error, "could not look for the roles of leases on `{connection}`");
                    continue;
                }
                Err(_) => continue,
            };
            missing.extend(some.iter().map(|lease| &lease.id).filter(|id| !found.contains(id)).cloned());
        }
        missing
    }

    /// `None`: it could not be asked. That it is down is no news: whoever needs it will say so.
    async fn roles_of(
        &self,
        engine: &dyn SecretsEngine,
        context: &EngineContext,
        target: &KnownTarget,
    ) -> Option<Vec<OwnedRole>> {
        let connection = target.connection.as_str();
        match tokio::time::timeout(LIMIT, engine.owned_roles(context, target)).await {
            Ok(Ok(roles)) => {
                self.target_is_up(connection);
                Some(roles)
            }
            Ok(Err(EngineError::Failed(why) | EngineError::Busy(why))) => {
                tracing::warn!(connection, why, "could not list the roles on `{connection}`");
                None
            }
            Ok(Err(EngineError::Unreached(why) | EngineError::Down(why))) => {
                tracing::debug!(connection, why, "a target that is down is not compared");
                None
            }
            Err(_) => {
                tracing::debug!(connection, "a target that does not answer is not compared");
                None
            }
        }
    }
}

impl LastTime {
    /// What cannot be read was stored by another version: as if nothing had been compared yet.
    fn read(state: Value) -> Self {
        serde_json::from_value(state).unwrap_or_default()
    }

    /// A connection that is no longer there has nothing to report; and no more is kept than may be remembered, in the order of the
    /// connections.
    fn keep_only(&mut self, known: &BTreeSet<String>) {
        self.0.retain(|connection, _| known.contains(connection));
        let mut left = REMEMBERED_AT_ALL;
        for found in self.0.values_mut() {
            if found.orphans.len() > left {
                found.orphans = std::mem::take(&mut found.orphans).into_iter().take(left).collect();
            }
            left -= found.orphans.len();
        }
    }
}

/// `None`: it could not be dropped.
async fn drop_orphan(
    engine: &dyn SecretsEngine,
    context: &EngineContext,
    target: &KnownTarget,
    role: &OwnedRole,
) -> Option<OrphanEnd> {
    let (connection, name) = (target.connection.as_str(), role.name.as_str());
    let dropped = tokio::time::timeout(LIMIT, engine.drop_orphan(context, target, role)).await;
    let why = match dropped {
        Ok(Ok(OrphanEnd::Gone)) => {
            tracing::warn!(connection, role = name, "dropped role {name:?} on `{connection}`, which had no lease");
            return Some(OrphanEnd::Gone);
        }
        Ok(Ok(OrphanEnd::Kept)) => {
            tracing::warn!(
                connection,
                role = name,
                "role {name:?} on `{connection}` had no lease, but was made anew or lost its comment meanwhile: not dropped"
            );
            return Some(OrphanEnd::Kept);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => super::NO_ANSWER.to_owned(),
    };
    tracing::warn!(connection, role = name, why, "could not drop role {name:?} on `{connection}`, which has no lease");
    None
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn gauges((mount, connection): &(String, String), (orphans, missing): (u64, u64)) {
    let labels = [("mount", mount.clone()), ("connection", connection.clone())];
    metrics::gauge!("leasehold_orphan_roles", &labels).set(orphans as f64);
    metrics::gauge!("leasehold_missing_roles", &labels).set(missing as f64);
}
