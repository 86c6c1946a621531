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
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_core::mount::MountStorage;
use leasehold_core::request::{LogicalResponse, RequestError};
use leasehold_core::routes::Route;
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, KnownTarget, LeaseIntent, LeaseLimits,
    OrphanEnd, Outcome, OwnedRole, SecretData, SecretsEngine,
};
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::{MountAccessor, Timestamp};
use serde_json::json;

use connection::{ConnectionRecord, Leftovers, creating};
use effect::Effect;
use metrics::DatabaseOperation;
use postgresql::failure::TargetError;
use postgresql::pool::{ConnectionPool, Turns};
use postgresql::revoke::End;
use postgresql::role_identity::RoleIdentity;
use postgresql::verify_absent::Origin;
use postgresql::{issue, orphans, ownership_comment, reassign_owner, renew, revoke, transaction, verify_absent};
use role::RoleRecord;

/// All mounts of the engine. Keeps nothing but open pools; everything else is read from storage.
pub struct DatabaseEngine {
    /// With the version of the stored connection they were made from.
    targets: Mutex<HashMap<TargetId, (u64, Arc<ConnectionPool>)>>,
    turns: Arc<Turns>,
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
        Self { targets: Mutex::default(), turns: Arc::default() }
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
        let target = Arc::new(ConnectionPool::new(&record, Arc::clone(&self.turns)).map_err(Unusable::Broken)?);
        self.keep(id, stored.version, &target);
        Ok(Opened { record, target })
    }

    fn cached(&self, id: &TargetId, version: u64) -> Option<Arc<ConnectionPool>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.get(id).filter(|(known, _)| *known == version).map(|(_, target)| Arc::clone(target))
    }

    fn keep(&self, id: TargetId, version: u64, target: &Arc<ConnectionPool>) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = targets.insert(id, (version, Arc::clone(target))) {
            old.close();
        }
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
        record.merge(&request.fields).map_err(RequestError::Invalid)?;
        let target = ConnectionPool::new(&record, Arc::clone(&self.turns))
            .map_err(|why| RequestError::Invalid(creating(&why)))?;
        let mut warnings = Vec::new();
        if request.fields.bool("verify_connection").unwrap_or(true) {
            let secrets = record.secrets();
            let server = target.verify().await.map_err(|error| {
                let error = error.scrubbed(&secrets.iter().collect::<Vec<_>>());
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
            let error = error.scrubbed(&opened.record.secrets().iter().collect::<Vec<_>>());
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
        let bytes = serde_json::to_vec(&role).map_err(|error| RequestError::Internal(error.to_string()))?;
        at.storage.put(&role_key(name), bytes, expect).await?;
        Ok(warnings.into_iter().fold(LogicalResponse::empty(), LogicalResponse::warn))
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
        transaction::run(&opened.target, &effect.username, &statements).await.map_err(|error| opened.failed(error))
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

/// The end of one lease.
struct Ending<'a> {
    at: &'a EngineContext,
    effect: &'a Effect,
    /// The random part of its name.
    lease: &'a str,
    target: &'a ConnectionPool,
    leftovers: Leftovers,
}

impl Ending<'_> {
    async fn carry_out(&self) -> Result<(), TargetError> {
        match self.revoke(&self.effect.revocation).await {
            // Statements that were wrong when the lease was issued may have been put right since.
            Err(error @ TargetError::Sql { .. }) if !self.effect.revocation.is_empty() => {
                match self.present_statements().await {
                    Some(present) if present != self.effect.revocation => self.revoke(&present).await,
                    _ => Err(error),
                }
            }
            done => done,
        }
    }

    async fn revoke(&self, statements: &[String]) -> Result<(), TargetError> {
        let subject = RoleIdentity::named(&self.effect.username);
        if revoke::revoke(self.target, &subject, statements, &self.leftovers).await? == End::Gone {
            return Ok(());
        }
        let origin = Origin {
            name: &self.effect.username,
            mark: ownership_comment::comment(&self.at.mount.installation, self.lease),
            server: self.effect.server.as_deref(),
        };
        let Some(renamed) = verify_absent::find(self.target, &origin).await? else { return Ok(()) };
        tracing::warn!(role = renamed.name, was = origin.name, "a leased role had been renamed");
        let subject = RoleIdentity::found(&renamed, &self.at.mount.installation);
        revoke::revoke(self.target, &subject, &[], &self.leftovers).await.map(drop)
    }

    /// The role's revocation statements as they are now; `None` when there is no such role any more, or they do not render.
    async fn present_statements(&self) -> Option<Vec<String>> {
        let role = role(&self.at.storage, &self.effect.role).await.ok()??;
        let name = self.effect.username.as_str();
        role.revocation.rendered(&*self.at.templates, &[("name", name), ("username", name)], "revocation").await.ok()
    }
}

impl Opened {
    /// In the wire's words, without a secret.
    fn failed(&self, error: TargetError) -> EngineError {
        error.scrubbed(&self.record.secrets().iter().collect::<Vec<_>>()).into_engine()
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
