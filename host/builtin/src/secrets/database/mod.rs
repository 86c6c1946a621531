//! The database engine: PostgreSQL roles on lease.
//!
//! Must not know: HTTP, how leases are kept, what a guest is. It plans, and acts when the lease module says so.
//!
//! Start with [`DatabaseEngine`], then `routes` and `requests` (what a request does), `plan` (what a lease will do) and `open` (how a
//! stored connection becomes a pool).
//! How a lease begins, is renewed and ends in PostgreSQL stands below `postgresql`.
//!
//! Invariants: no password is stored, logged or put into an error. What is stored with a lease is enough to end it, whatever happens to
//! its role. A revoked role has no session left. What a leased role owned never comes to an admin.

mod connection;
mod credential;
mod effect;
mod ending;
mod metrics;
mod open;
mod plan;
mod postgresql;
mod requests;
mod role;
mod rotation;
mod routes;
mod standing;
mod static_requests;
mod static_role;
mod templates;

/// What holds for any input of this engine's parsers, for the fuzz targets.
#[cfg(fuzzing)]
pub mod properties {
    pub use super::postgresql::statements::properties::*;
}

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::routes::Route;
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, KnownTarget, LeaseIntent, LeaseLimits,
    OrphanEnd, OwnedRole, SecretData, SecretsEngine,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::StorageError;
use leasehold_model::{LeaseId, MountAccessor, Timestamp};

use connection::ConnectionRecord;
use effect::Effect;
use ending::Ending;
use metrics::DatabaseOperation;
use postgresql::failure::TargetError;
use postgresql::files::ConnectionFiles;
use postgresql::pool::{ConnectionPool, Turns};
use postgresql::{issue, orphans, reassign_owner, renew, transaction};
use role::RoleRecord;
use rotation::static_roles::Looks;

/// All mounts of the engine. Keeps nothing but open pools and when it last asked for a password; everything else is read from storage.
pub struct DatabaseEngine {
    /// With the version of the stored connection they were made from.
    targets: Mutex<HashMap<TargetId, (u64, Arc<ConnectionPool>)>>,
    turns: Arc<Turns>,
    files: ConnectionFiles,
    looks: Looks,
}

impl std::fmt::Debug for DatabaseEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseEngine")
    }
}

impl Default for DatabaseEngine {
    fn default() -> Self {
        Self::new()
    }
}

/// Mount and connection.
type TargetId = (MountAccessor, String);

fn connection_key(name: &str) -> String {
    format!("connection/{name}")
}

/// Names a target as the lease module knows it: unique in the installation.
fn target_name(at: &EngineContext, connection: &str) -> String {
    format!("{}/{connection}", at.mount.accessor)
}

fn role_key(name: &str) -> String {
    format!("role/{name}")
}

/// How often something is done again because a write came between.
const AGAIN_MAX: u32 = 32;
/// How often something goes to another host of the connection.
const HOSTS_MAX: u32 = 1;
/// The same for a grant of somebody else on the target.
const COLLISIONS_MAX: u32 = 3;

impl DatabaseEngine {
    #[must_use]
    pub fn new() -> Self {
        Self::with_files(None)
    }

    /// Connections may name files beneath `directory`; without one they may name none.
    #[must_use]
    pub fn with_files(directory: Option<PathBuf>) -> Self {
        let files = ConnectionFiles::beneath(directory);
        Self { targets: Mutex::default(), turns: Arc::default(), files, looks: Looks::default() }
    }

    async fn new_user(&self, at: &EngineContext, intent: &LeaseIntent) -> Result<SecretData, EngineError> {
        let effect = Effect::read(&intent.effect)?;
        let (mut anew, mut collisions, mut hosts) = (AGAIN_MAX, COLLISIONS_MAX, HOSTS_MAX);
        loop {
            let opened = self.open(at, &effect.connection).await?;
            let authentication = opened.record.password_authentication().map_err(EngineError::Failed)?;
            let secrets = opened.record.secrets();
            match issue::issue(&opened.target, authentication, at, intent, &effect, &secrets).await {
                Err(TargetError::Reconfigured) if anew > 0 => anew -= 1,
                // It was rolled back: that is what the error says.
                Err(error) if error.is_collision() && collisions > 0 => collisions -= 1,
                // So was this one; but what broke on the way may have been done.
                Err(error) if error.is_of_standby() && opened.target.may_go_elsewhere(&error, &mut hosts) => {}
                done => return done.map_err(TargetError::into_engine),
            }
        }
    }

    async fn update_user(&self, at: &EngineContext, lease: &LeaseIntent, until: Timestamp) -> Result<(), EngineError> {
        let effect = Effect::read(&lease.effect)?;
        let role = role_to_renew(&at.storage, &effect).await?;
        let statements = renew::statements(at, &role, &effect, until).await?;
        let purpose = if role.renew.texts.is_empty() { transaction::OURS } else { "renew" };
        let (mut anew, mut hosts) = (AGAIN_MAX, HOSTS_MAX);
        loop {
            let opened = self.open(at, &effect.connection).await.map_err(open::for_lease)?;
            match transaction::run(&opened.target, &effect.username, purpose, &statements, None).await {
                Err(TargetError::Reconfigured) if anew > 0 => anew -= 1,
                Err(error) if opened.target.may_go_elsewhere(&error, &mut hosts) => {}
                renewed => return renewed.map_err(|error| opened.failed(error)),
            }
        }
    }

    async fn delete_user(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError> {
        let effect = Effect::read(&lease.effect)?;
        let statement_max = revocation_timeout(at, &effect).await;
        let (mut anew, mut hosts) = (AGAIN_MAX, HOSTS_MAX);
        loop {
            let opened = self.open(at, &effect.connection).await.map_err(open::for_lease)?;
            let heir = reassign_owner::of_role(&at.mount.accessor, &effect.role);
            let leftovers = opened.record.leftovers(heir).map_err(EngineError::Failed)?;
            let ending = Ending {
                at,
                effect: &effect,
                lease: lease.id.random(),
                target: &opened.target,
                leftovers,
                statement_max,
            };
            match ending.carry_out().await {
                // Each of its steps may be repeated.
                Err(TargetError::Reconfigured) if anew > 0 => anew -= 1,
                Err(error) if opened.target.may_go_elsewhere(&error, &mut hosts) => {}
                ended => return ended.map_err(|error| opened.failed(error)),
            }
        }
    }
}

async fn role(storage: &MountStorage, name: &str) -> Result<Option<RoleRecord>, RequestError> {
    match storage.get(&role_key(name)).await? {
        Some(stored) => read_role(name, &stored.value).map(Some),
        None => Ok(None),
    }
}

/// The role of a lease as it is now.
async fn role_to_renew(storage: &MountStorage, effect: &Effect) -> Result<RoleRecord, EngineError> {
    let found = role(storage, &effect.role).await.map_err(|error| EngineError::Failed(error.to_string()))?;
    found.ok_or_else(|| {
        EngineError::Failed(format!("error during renew: could not find role with name {:?}", effect.role))
    })
}

/// How long a revocation may take that says so: as the role says now, so that a limit which was too short can be raised; of a role that
/// is gone, as it said when the lease was issued.
async fn revocation_timeout(at: &EngineContext, effect: &Effect) -> Option<Duration> {
    let now = role(&at.storage, &effect.role).await.ok().flatten();
    let timeout = now.map_or(effect.revocation_timeout, |role| role.revocation_timeout);
    timeout.if_set().map(|timeout| Duration::from_secs(timeout.as_secs()))
}

fn read_role(name: &str, bytes: &[u8]) -> Result<RoleRecord, RequestError> {
    serde_json::from_slice(bytes)
        .map_err(|_| RequestError::Internal(format!("the stored role {name:?} is not readable")))
}

#[async_trait]
impl SecretsEngine for DatabaseEngine {
    fn routes(&self) -> &'static [Route<EngineHandler>] {
        routes::ROUTES
    }

    fn not_offered(&self, below: &str) -> Option<&'static str> {
        routes::not_offered(below)
    }

    async fn exists(&self, request: &EngineRequest) -> Result<bool, RequestError> {
        let below = request.path.strip_prefix(request.context.mount.path.as_str()).unwrap_or(&request.path);
        let name = request.captures.get("name").map_or("", String::as_str);
        let key = match below.split('/').next() {
            Some("roles") => role_key(name),
            Some("static-roles") => static_role::key(name),
            _ => connection_key(name),
        };
        Ok(request.context.storage.get(&key).await?.is_some())
    }

    async fn effect(&self, at: &EngineContext, intent: &LeaseIntent) -> Result<Effected, EngineError> {
        // The user name is chosen before: there is nothing to find out.
        DatabaseOperation::New.measured(self.new_user(at, intent)).await.map(Effected::from)
    }

    async fn limits(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<LeaseLimits, EngineError> {
        let role = role_to_renew(&at.storage, &Effect::read(&lease.effect)?).await?;
        Ok(LeaseLimits { default_ttl: role.default_ttl, max_ttl: role.max_ttl })
    }

    async fn renew(&self, at: &EngineContext, lease: &LeaseIntent, until: Timestamp) -> Result<(), EngineError> {
        DatabaseOperation::Update.measured(self.update_user(at, lease, until)).await
    }

    async fn revocation_timeout(&self, at: &EngineContext, lease: &LeaseIntent) -> Option<Duration> {
        revocation_timeout(at, &Effect::read(&lease.effect).ok()?).await
    }

    async fn revoke(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError> {
        DatabaseOperation::Delete.measured(self.delete_user(at, lease)).await
    }

    async fn targets(&self, at: &EngineContext) -> Result<Vec<KnownTarget>, EngineError> {
        let failed = |error: StorageError| EngineError::Failed(error.to_string());
        let mut targets = Vec::new();
        for name in at.storage.names("connection/", "", usize::MAX).await.map_err(failed)? {
            // Deleted in this moment, or not readable: whoever uses it will say so.
            let Some(stored) = at.storage.get(&connection_key(&name)).await.map_err(failed)? else { continue };
            let Ok(record) = ConnectionRecord::from_bytes(&stored.value) else { continue };
            let (connection, drops_orphans) = (target_name(at, &name), record.drops_orphans());
            targets.push(KnownTarget { connection, name, drops_orphans });
        }
        Ok(targets)
    }

    async fn owned_roles(&self, at: &EngineContext, target: &KnownTarget) -> Result<Vec<OwnedRole>, EngineError> {
        let opened = self.open(at, &target.name).await?;
        orphans::owned(&opened.target, &at.mount.installation).await.map_err(|error| opened.failed(error))
    }

    async fn stand_unmarked(
        &self,
        at: &EngineContext,
        target: &KnownTarget,
        leases: &[LeaseIntent],
    ) -> Result<Vec<LeaseId>, EngineError> {
        let opened = self.open(at, &target.name).await?;
        let effects: Vec<(&LeaseId, Effect)> =
            leases.iter().filter_map(|lease| Some((&lease.id, Effect::read(&lease.effect).ok()?))).collect();
        let names: Vec<&str> = effects.iter().map(|(_, effect)| effect.username.as_str()).collect();
        let standing = orphans::standing(&opened.target, &names).await.map_err(|error| opened.failed(error))?;
        // What creates no role, as far as can be seen, misses none.
        let is_well = |effect: &Effect| standing.contains(&effect.username) || !effect.creates_role();
        Ok(effects.into_iter().filter(|(_, effect)| is_well(effect)).map(|(id, _)| id.clone()).collect())
    }

    async fn drop_orphan(
        &self,
        at: &EngineContext,
        target: &KnownTarget,
        role: &OwnedRole,
    ) -> Result<OrphanEnd, EngineError> {
        let opened = self.open(at, &target.name).await?;
        if role.name == opened.target.user() {
            return Err(EngineError::Failed(
                "the connection's own user is not dropped, whatever its comment".to_owned(),
            ));
        }
        let leftovers = opened.record.leftovers(reassign_owner::of_orphan(&role.lease)).map_err(EngineError::Failed)?;
        let dropped = orphans::drop_found(&opened.target, &at.mount.installation, role, &leftovers).await;
        dropped.map_err(|error| opened.failed(error))
    }

    fn jobs(&self) -> &'static [MountJob] {
        &[rotation::queue::JOB]
    }

    async fn run_job(&self, at: &EngineContext, name: &str) -> Result<Option<Timestamp>, RequestError> {
        if name == rotation::queue::JOB.name {
            return self.rotate_due(at).await;
        }
        Err(RequestError::Internal(format!("this engine has no job {name:?}")))
    }

    async fn unmount(&self, at: &EngineContext) {
        self.retain_pools(|(accessor, _)| *accessor != at.mount.accessor);
    }
}
