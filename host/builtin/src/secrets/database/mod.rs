//! The database engine: PostgreSQL roles on lease.
//!
//! Must not know: HTTP, how leases are kept, what a guest is. It plans, and acts when the lease module says so.
//!
//! Start with [`DatabaseEngine`], then `plan` (what a lease will do), `issue`, `renew`, `revoke` (what it does), `target` (how a database
//! is reached) and `statements` (SQL text).
//!
//! Invariants: no password is stored, logged or put into an error. What is stored with a lease is enough to end it, whatever happens to
//! its role. A revoked role has no session left. What a leased role owned never comes to an admin.

mod connection;
mod credential;
mod effect;
mod ending;
mod metrics;
mod plan;
mod postgresql;
mod role;
mod routes;
mod templates;

/// What holds for any input of this room's parsers, for the fuzz targets.
#[cfg(fuzzing)]
pub mod properties {
    pub use super::postgresql::dsn::properties::*;
    pub use super::postgresql::statements::properties::*;
}

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::Route;
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, KnownTarget, LeaseIntent, LeaseLimits,
    OrphanEnd, Outcome, OwnedRole, SecretData, SecretsEngine,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::{LeaseId, MountAccessor, Timestamp};
use serde_json::json;

use connection::{ConnectionRecord, creating};
use effect::Effect;
use ending::Ending;
use metrics::DatabaseOperation;
use postgresql::dry_run::Report;
use postgresql::failure::TargetError;
use postgresql::files::ConnectionFiles;
use postgresql::pool::{ConnectionPool, Turns};
use postgresql::{dry_run, issue, orphans, reassign_owner, renew, transaction};
use role::RoleRecord;

/// All mounts of the engine. Keeps nothing but open pools; everything else is read from storage.
pub struct DatabaseEngine {
    /// With the version of the stored connection they were made from.
    targets: Mutex<HashMap<TargetId, (u64, Arc<ConnectionPool>)>>,
    turns: Arc<Turns>,
    files: ConnectionFiles,
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

/// A connection as it is stored, opened.
struct Opened {
    record: ConnectionRecord,
    target: Arc<ConnectionPool>,
}

/// Why a connection cannot be used.
enum Unusable {
    Missing(String),
    Broken(String),
    Storage(StorageError),
}

impl From<Unusable> for RequestError {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Missing(name) => Self::Engine(missing(&name)),
            Unusable::Broken(why) => Self::Engine(why),
            Unusable::Storage(error) => error.into(),
        }
    }
}

impl From<Unusable> for EngineError {
    fn from(why: Unusable) -> Self {
        Self::Failed(match why {
            Unusable::Missing(name) => missing(&name),
            Unusable::Broken(why) => why,
            Unusable::Storage(error) => error.to_string(),
        })
    }
}

fn missing(name: &str) -> String {
    format!("failed to find entry for connection with name: {name:?}")
}

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

const MOVED: &str = "this connection leads to another server than before: leases whose roles stand on the former one end only when it \
     leads there again";
/// Keys per call to the store.
const PAGE: u32 = 1_000;
/// How often something is done again because a write came between.
const AGAIN_MAX: u32 = 32;
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
        Self { targets: Mutex::default(), turns: Arc::default(), files }
    }

    async fn pool(&self, record: &ConnectionRecord) -> Result<Arc<ConnectionPool>, String> {
        ConnectionPool::new(record, Arc::clone(&self.turns), &self.files).await.map(Arc::new)
    }

    /// Opened anew when what is stored has changed, on whichever node that was.
    async fn open(&self, at: &EngineContext, name: &str) -> Result<Opened, Unusable> {
        let stored = at.storage.get(&connection_key(name)).await.map_err(Unusable::Storage)?;
        let stored = stored.ok_or_else(|| Unusable::Missing(name.to_owned()))?;
        let record = ConnectionRecord::from_bytes(&stored.value)
            .map_err(|_| Unusable::Broken(format!("the stored connection {name:?} is not readable")))?;
        let id = (at.mount.accessor.clone(), name.to_owned());
        if let Some(target) = self.cached(&id, stored.version) {
            return Ok(Opened { record, target });
        }
        if record.reads_old_files() {
            tracing::warn!(connection = name, "{}", connection::OLD_FILES);
        }
        let target = self.pool(&record).await.map_err(Unusable::Broken)?;
        Ok(Opened { record, target: self.keep(id, stored.version, target) })
    }

    fn cached(&self, id: &TargetId, version: u64) -> Option<Arc<ConnectionPool>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.get(id).filter(|(known, _)| *known == version).map(|(_, target)| Arc::clone(target))
    }

    /// The pool to use: somebody else may have opened the same meanwhile.
    fn keep(&self, id: TargetId, version: u64, target: Arc<ConnectionPool>) -> Arc<ConnectionPool> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        match targets.get(&id) {
            Some((known, kept)) if *known == version => return Arc::clone(kept),
            Some((_, old)) => old.close(),
            None => {}
        }
        targets.insert(id, (version, Arc::clone(&target)));
        target
    }

    fn retain_pools(&self, keep: impl Fn(&TargetId) -> bool) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|id, (_, target)| {
            let kept = keep(id);
            if !kept {
                target.close();
            }
            kept
        });
    }

    /// A write that met another one is done again, on what that left.
    async fn write(&self, request: &EngineRequest, room: &str, name: &str) -> Result<LogicalResponse, RequestError> {
        let mut left = AGAIN_MAX;
        loop {
            let done = match room {
                "config" => self.configure(request, name).await,
                "reset" => self.reset(&request.context, name).await,
                _ => self.merge_role(request, name).await,
            };
            match done {
                Err(RequestError::Storage(StorageError::Conflict(_))) if left > 0 => left -= 1,
                done => return done,
            }
        }
    }

    async fn configure(&self, request: &EngineRequest, name: &str) -> Result<LogicalResponse, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&connection_key(name)).await?;
        let expect = stored.as_ref().map_or(Expect::Absent, |old| Expect::Version(old.version));
        let mut record = match &stored {
            Some(old) => ConnectionRecord::from_bytes(&old.value)
                .map_err(|_| RequestError::Internal(format!("the stored connection {name:?} is not readable")))?,
            None => ConnectionRecord::default(),
        };
        let mut warnings = record.merge(&request.fields).map_err(RequestError::Invalid)?;
        let target = self.pool(&record).await.map_err(|why| RequestError::Invalid(creating(&why)))?;
        if request.fields.bool("verify_connection").unwrap_or(true) {
            let server = target.verify().await.map_err(|error| {
                let error = record.scrubbed(error);
                RequestError::Invalid(creating(&format!("error verifying connection: {error}")))
            })?;
            warnings.extend(server.warnings);
            if record.server.is_some() && server.identity.is_some() && server.identity != record.server {
                warnings.push(MOVED.to_owned());
            }
            record.server = server.identity;
        }
        let bytes = record.to_bytes().map_err(|error| RequestError::Internal(error.to_string()))?;
        at.storage.put(&connection_key(name), bytes, expect).await?;
        // The next use opens the stored one: its version is known only then.
        target.close();
        self.retain_pools(|id| *id != (at.mount.accessor.clone(), name.to_owned()));
        if record.has_password_in_url() {
            warnings.insert(0, connection::PASSWORD_IN_URL.to_owned());
        }
        Ok(warnings.into_iter().fold(LogicalResponse::empty(), LogicalResponse::warn))
    }

    async fn reset(&self, at: &EngineContext, name: &str) -> Result<LogicalResponse, RequestError> {
        self.retain_pools(|id| *id != (at.mount.accessor.clone(), name.to_owned()));
        let opened = self.open(at, name).await?;
        opened.target.ping().await.map_err(|error| {
            let error = opened.record.scrubbed(error);
            RequestError::Engine(format!("error verifying connection: {error}"))
        })?;
        Ok(LogicalResponse::empty())
    }

    async fn merge_role(&self, request: &EngineRequest, name: &str) -> Result<LogicalResponse, RequestError> {
        let at = &request.context;
        let stored = at.storage.get(&role_key(name)).await?;
        let expect = stored.as_ref().map_or(Expect::Absent, |old| Expect::Version(old.version));
        let mut role = match &stored {
            Some(old) => read_role(name, &old.value)?,
            None => RoleRecord::default(),
        };
        let mut warnings = role.merge(&request.fields, &*at.templates).await?;
        if at.storage.get(&connection_key(&role.db_name)).await?.is_none() {
            warnings.push(format!(
                "no connection named {:?} is configured yet: credentials cannot be read before it is",
                role.db_name
            ));
        }
        let mut answer = LogicalResponse::empty();
        if request.fields.bool("verify").unwrap_or(false) {
            let report = self.try_out(request, name, &role).await?;
            if let Some(why) = report.failure() {
                return Err(RequestError::Invalid(format!("error verifying role: {why}")));
            }
            answer = LogicalResponse::json(json!({ "verification": report.to_json() }));
            warnings.extend(report.warnings);
        }
        let bytes = serde_json::to_vec(&role).map_err(|error| RequestError::Internal(error.to_string()))?;
        at.storage.put(&role_key(name), bytes, expect).await?;
        Ok(warnings.into_iter().fold(answer, LogicalResponse::warn))
    }

    /// Runs the statements of a role that is about to be stored on its database, and rolls everything back.
    async fn try_out(&self, request: &EngineRequest, name: &str, role: &RoleRecord) -> Result<Report, RequestError> {
        let at = &request.context;
        let refused = |why: String| RequestError::Invalid(format!("error verifying role: {why}"));
        let opened = self.open(at, &role.db_name).await.map_err(|why| match why {
            Unusable::Missing(name) => refused(missing(&name)),
            Unusable::Broken(why) => refused(why),
            Unusable::Storage(error) => error.into(),
        })?;
        let plan = plan::plan(request, name, role, &opened.record).await.map_err(|error| match error {
            RequestError::Engine(why) | RequestError::Invalid(why) => refused(why),
            other => other,
        })?;
        let effect = Effect::read(&plan.effect).map_err(|error| RequestError::Internal(error.to_string()))?;
        let expires_at = at.clock.now() + plan.default_ttl.if_set().unwrap_or(at.mount.default_lease_ttl);
        let renew = match role.renew.texts.is_empty() {
            true => Vec::new(),
            false => {
                renew::statements(at, role, &effect, expires_at).await.map_err(|error| refused(error.to_string()))?
            }
        };
        let authentication = opened.record.password_authentication().map_err(refused)?;
        let secrets = opened.record.secrets();
        let tried = dry_run::run(&opened.target, authentication, at, &effect, &renew, expires_at, &secrets).await;
        tried.map_err(|error| refused(opened.failed(error).to_string()))
    }

    async fn plan(&self, request: &EngineRequest, name: &str) -> Result<Outcome, RequestError> {
        let at = &request.context;
        let role = role(&at.storage, name).await?;
        let role = role.ok_or_else(|| RequestError::invalid(format!("unknown role: {name}")))?;
        let opened = self.open(at, &role.db_name).await?;
        Ok(Outcome::Lease(plan::plan(request, name, &role, &opened.record).await?))
    }

    async fn new_user(&self, at: &EngineContext, intent: &LeaseIntent) -> Result<SecretData, EngineError> {
        let effect = Effect::read(&intent.effect)?;
        let (mut anew, mut collisions) = (AGAIN_MAX, COLLISIONS_MAX);
        loop {
            let opened = self.open(at, &effect.connection).await?;
            let authentication = opened.record.password_authentication().map_err(EngineError::Failed)?;
            let secrets = opened.record.secrets();
            match issue::issue(&opened.target, authentication, at, intent, &effect, &secrets).await {
                Err(TargetError::Reconfigured) if anew > 0 => anew -= 1,
                // It was rolled back: that is what the error says.
                Err(error) if error.is_collision() && collisions > 0 => collisions -= 1,
                done => return done.map_err(TargetError::into_engine),
            }
        }
    }

    async fn update_user(&self, at: &EngineContext, lease: &LeaseIntent, until: Timestamp) -> Result<(), EngineError> {
        let effect = Effect::read(&lease.effect)?;
        let role = role_to_renew(&at.storage, &effect).await?;
        let opened = self.open(at, &effect.connection).await?;
        let statements = renew::statements(at, &role, &effect, until).await?;
        let purpose = if role.renew.texts.is_empty() { transaction::OURS } else { "renew" };
        let renewed = transaction::run(&opened.target, &effect.username, purpose, &statements).await;
        renewed.map_err(|error| opened.failed(error))
    }

    async fn delete_user(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError> {
        let effect = Effect::read(&lease.effect)?;
        let opened = self.open(at, &effect.connection).await?;
        let heir = reassign_owner::of_role(&at.mount.accessor, &effect.role);
        let leftovers = opened.record.leftovers(heir).map_err(EngineError::Failed)?;
        let ending = Ending { at, effect: &effect, lease: lease.id.random(), target: &opened.target, leftovers };
        ending.carry_out().await.map_err(|error| opened.failed(error))
    }
}

impl Opened {
    /// In the wire's words, without a secret.
    fn failed(&self, error: TargetError) -> EngineError {
        self.record.scrubbed(error).into_engine()
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

fn read_role(name: &str, bytes: &[u8]) -> Result<RoleRecord, RequestError> {
    serde_json::from_slice(bytes)
        .map_err(|_| RequestError::Internal(format!("the stored role {name:?} is not readable")))
}

/// At most `most` names below a folder, those after `after`.
async fn names(storage: &MountStorage, folder: &str, after: &str, most: usize) -> Result<Vec<String>, StorageError> {
    let mut names: Vec<String> = Vec::new();
    while names.len() < most {
        let last = names.last().map_or(after, String::as_str);
        let wanted = u32::try_from(most - names.len()).map_or(PAGE, |wanted| wanted.min(PAGE));
        let page = storage.list(folder, Some(last).filter(|last| !last.is_empty()), wanted).await?;
        let is_last = page.len() < wanted as usize;
        names.extend(page);
        if is_last {
            break;
        }
    }
    Ok(names)
}

/// The names below a folder; where a route has pages, those of the one that is asked for.
async fn list(request: &EngineRequest, folder: &str) -> Result<LogicalResponse, RequestError> {
    let after = request.fields.text("after").unwrap_or_default();
    let limit = request.fields.int("limit").and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let names = names(&request.context.storage, folder, after, limit.unwrap_or(usize::MAX)).await?;
    if names.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": names }))) }
}

/// The name in a request's path.
fn name_of(request: &EngineRequest) -> &str {
    request.captures.get("name").map_or("", String::as_str)
}

/// The handlers of the routes.
impl DatabaseEngine {
    async fn list_connections(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        list(request, "connection/").await
    }

    async fn read_connection(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let name = name_of(request);
        let stored = request.context.storage.get(&connection_key(name)).await?.ok_or(RequestError::NotFound)?;
        let record = ConnectionRecord::from_bytes(&stored.value)
            .map_err(|_| RequestError::Internal(format!("the stored connection {name:?} is not readable")))?;
        Ok(record.answer())
    }

    async fn write_connection(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let answer = self.write(request, "config", name_of(request)).await?;
        Ok(Outcome::Reopened { connection: target_name(&request.context, name_of(request)), answer })
    }

    async fn reset_connection(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let answer = self.write(request, "reset", name_of(request)).await?;
        Ok(Outcome::Reopened { connection: target_name(&request.context, name_of(request)), answer })
    }

    async fn delete_connection(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let name = name_of(request);
        request.context.storage.delete(&connection_key(name)).await?;
        self.retain_pools(|id| *id != (request.context.mount.accessor.clone(), name.to_owned()));
        Ok(LogicalResponse::empty())
    }

    async fn list_roles(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        list(request, "role/").await
    }

    async fn show_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let role = role(&request.context.storage, name_of(request)).await?.ok_or(RequestError::NotFound)?;
        Ok(role.answer())
    }

    async fn write_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        self.write(request, "roles", name_of(request)).await
    }

    async fn delete_role(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        request.context.storage.delete(&role_key(name_of(request))).await?;
        Ok(LogicalResponse::empty())
    }

    async fn read_credentials(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        self.plan(request, name_of(request)).await
    }
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
        let key = if below.starts_with("roles/") { role_key(name) } else { connection_key(name) };
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

    async fn revoke(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError> {
        DatabaseOperation::Delete.measured(self.delete_user(at, lease)).await
    }

    async fn targets(&self, at: &EngineContext) -> Result<Vec<KnownTarget>, EngineError> {
        let failed = |error: StorageError| EngineError::Failed(error.to_string());
        let mut targets = Vec::new();
        for name in names(&at.storage, "connection/", "", usize::MAX).await.map_err(failed)? {
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

    async fn unmount(&self, at: &EngineContext) {
        self.retain_pools(|(accessor, _)| *accessor != at.mount.accessor);
    }
}
