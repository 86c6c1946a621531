//! Secrets engines: they plan, and act when the lease module says so.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_model::{LeaseId, MountAccessor, MountPath, Operation, Timestamp, Ttl};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host::{Clock, Entropy};
use super::job::MountJob;
use super::mount_leases::MountLeases;
use super::sandbox::TemplateRenderer;
use super::storage::Expect;
use crate::fields::Fields;
use crate::passwords::PasswordPolicies;
use crate::request::LogicalResponse;
use crate::routes::{Answering, Route};
use crate::seams::error::RequestError;

/// What an engine may use: its own corner of storage, and the seams. No globals.
#[derive(Clone)]
pub struct EngineContext {
    pub storage: crate::seams::mount_storage::MountStorage,
    pub leases: Arc<dyn MountLeases>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub templates: Arc<dyn TemplateRenderer>,
    /// Passwords by the operator's policies.
    pub passwords: PasswordPolicies,
    pub mount: MountView,
}

impl fmt::Debug for EngineContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineContext").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// The mount an engine answers at, with the TTLs that hold there.
#[derive(Clone, Debug)]
pub struct MountView {
    pub path: MountPath,
    pub accessor: MountAccessor,
    pub default_lease_ttl: Ttl,
    pub max_lease_ttl: Ttl,
    /// What whoever mounted the engine set for it.
    pub options: MountOptions,
    /// Names this installation in ownership comments on PostgreSQL roles.
    pub installation: String,
}

/// The `options` of a mount: an engine's own.
pub type MountOptions = BTreeMap<String, String>;

pub struct EngineRequest {
    pub context: EngineContext,
    pub operation: Operation,
    /// Full canonical path, mount included.
    pub path: String,
    /// What the route's pattern captured, by name.
    pub captures: BTreeMap<&'static str, String>,
    /// Coerced by the route's field declarations.
    pub fields: Fields,
    /// Of the calling token.
    pub display_name: String,
    /// The rule that allows the request also grants `sudo` on its path, or the caller is root. An engine may ask for it where a write
    /// does more than `update` should allow.
    pub has_sudo: bool,
}

impl fmt::Debug for EngineRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineRequest")
            .field("operation", &self.operation)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What an engine makes of a request: an answer, or a plan for a lease that the lease module will carry out.
#[derive(Debug)]
pub enum Outcome {
    Answer(LogicalResponse),
    /// An answer, after which the target is reached in another way or on new sessions: what it did before says nothing any more.
    Reopened {
        /// As in [`LeasePlan::connection`].
        connection: String,
        answer: LogicalResponse,
    },
    /// An answer, after which one of [`SecretsEngine::jobs`] has something to look at: it is done as soon as possible, by whichever server.
    Job {
        name: &'static str,
        outcome: Box<Outcome>,
    },
    Lease(LeasePlan),
}

/// Reads only; nothing has happened yet.
#[derive(Debug)]
pub struct LeasePlan {
    /// Of the role; zero: the mount's default.
    pub default_ttl: Ttl,
    /// Of the role; zero: the mount's maximum.
    pub max_ttl: Ttl,
    pub renewable: bool,
    /// Names the target for per-connection limits and back-off: unique in the installation.
    pub connection: String,
    /// How long `effect` may take; `None`: as long as a renewal or a revocation.
    pub effect_time: Option<Duration>,
    /// Opaque to core, stored sealed with the lease: all that `effect`, `renew` and `revoke` will need. No credential.
    pub effect: Value,
    /// Names in the mount's corner of storage that must be so when the lease begins: what the plan was made of. Otherwise it is made anew.
    pub made_of: Vec<(String, Expect)>,
    pub warnings: Vec<String>,
}

/// How long leases of a role may live, as the role is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Zero: the mount's default.
    pub default_ttl: Ttl,
    /// Zero: the mount's maximum.
    pub max_ttl: Ttl,
}

/// A target as an engine lists it, for comparing what stands there with leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTarget {
    /// As in [`LeasePlan::connection`].
    pub connection: String,
    /// As its mount calls it.
    pub name: String,
    /// Roles that no lease names are to go.
    pub drops_orphans: bool,
}

/// What a lease made in a target, with the mark of this installation on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnedRole {
    pub name: String,
    /// What the target tells it by, in the engine's own form: another role that comes by the same name has another id. Core only
    /// compares it.
    pub id: String,
    /// The random part of the lease that it was made for.
    pub lease: String,
}

/// What came of dropping a role that no lease names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanEnd {
    /// It stands no more, whoever dropped it.
    Gone,
    /// Its name means another role by now, or its mark is off: nothing was dropped.
    Kept,
}

/// A lease as engines see it.
#[derive(Clone, Debug)]
pub struct LeaseIntent {
    pub id: LeaseId,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// `effect` must be over, or never happen, by this moment.
    pub deadline: Timestamp,
    pub effect: Value,
    /// What the effect gave back, from the moment when the lease became active; null where it gave nothing.
    pub receipt: Value,
}

/// What an effect made.
#[derive(Debug)]
pub struct Effected {
    pub secret: SecretData,
    /// What only the target knew before, and `renew` and `revoke` need: the id of a cloud's access key. No credential. It is stored
    /// in the commit that makes the lease active. After a crash before that commit it is null, and `revoke` has to find what was
    /// made by the lease's id.
    pub receipt: Value,
}

impl From<SecretData> for Effected {
    /// Where all that is needed later was known beforehand.
    fn from(secret: SecretData) -> Self {
        Self { secret, receipt: Value::Null }
    }
}

/// What the client gets: public values and the one secret.
pub struct SecretData(pub Vec<(String, SecretValue)>);

pub enum SecretValue {
    Public(Value),
    Secret(SecretString),
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue([REDACTED])")
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretData([REDACTED])")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Goes to the client as it stands: 500 `M(text)` (issue), 400 inside `failed to renew entry: …` (renew, revoke).
    #[error("{0}")]
    Failed(String),
    /// Others are at work on the target, and nothing was begun. The same may go well in a moment.
    #[error("{0}")]
    Busy(String),
    /// The target could not be reached at all, so that nothing of this work can have happened or can happen still. Its
    /// other work should wait too.
    #[error("{0}")]
    Unreached(String),
    /// The target stopped answering on the way: whether it did what it was asked is unknown. Its other work should wait too.
    #[error("{0}")]
    Down(String),
}

/// How an operation of a secrets engine is served. [`engine_handler!`](crate::engine_handler) makes one of an engine's method.
pub type EngineHandler =
    for<'a> fn(&'a (dyn SecretsEngine + 'static), &'a EngineRequest) -> Answering<'a, Result<Outcome, RequestError>>;

/// Makes a method `async fn(&self, &EngineRequest) -> Result<impl Into<Outcome>, RequestError>` of an engine the handler of an
/// operation: `engine_handler!(DatabaseEngine, read_role)`.
#[macro_export]
macro_rules! engine_handler {
    ($engine:ty, $method:ident) => {{
        const HANDLER: $crate::seams::engine::EngineHandler = |engine, request| {
            Box::pin(async move {
                let engine = $crate::seams::engine::own::<$engine>(engine)?;
                <$engine>::$method(engine, request).await.map(::core::convert::Into::into)
            })
        };
        HANDLER
    }};
}

/// The engine that a handler was written for. A table of routes names handlers of its own engine only, so that there is no other.
///
/// # Errors
/// Another engine's table names this handler.
pub fn own<'a, E: SecretsEngine>(engine: &'a (dyn SecretsEngine + 'static)) -> Result<&'a E, RequestError> {
    let engine: &dyn Any = engine;
    let misplaced = || RequestError::Internal("a route names the handler of another engine".to_owned());
    engine.downcast_ref::<E>().ok_or_else(misplaced)
}

impl From<LogicalResponse> for Outcome {
    fn from(answer: LogicalResponse) -> Self {
        Self::Answer(answer)
    }
}

/// One kind of secrets engine; one value serves all its mounts. Handlers of its routes read; only the lease module calls
/// `effect`, `limits`, `renew` and `revoke`, and `revoke` must be idempotent.
#[async_trait]
pub trait SecretsEngine: Any + Send + Sync {
    /// The routes below the mount.
    fn routes(&self) -> &'static [Route<EngineHandler>];
    /// The routes below a mount with these options, where they tell which routes there are; `options.version` of kv does.
    fn routes_with(&self, _: &MountOptions) -> &'static [Route<EngineHandler>] {
        self.routes()
    }
    /// What a path below the mount would be that Vault serves and this engine does not yet; `None` for one that nobody serves.
    fn not_offered(&self, _below: &str) -> Option<&'static str> {
        None
    }
    /// Whether the engine can be mounted with these options, in words for whoever mounts or tunes it.
    fn check_options(&self, _: &MountOptions) -> Result<(), String> {
        Ok(())
    }
    /// Whether the options of a mount may change so, in words for whoever tunes it.
    fn check_tuned_options(&self, _from: &MountOptions, to: &MountOptions) -> Result<(), String> {
        self.check_options(to)
    }
    /// Whether what a write names is there: tells create from update. Asked only on routes with an existence check.
    async fn exists(&self, request: &EngineRequest) -> Result<bool, RequestError>;
    /// Makes what the client gets. It carries the lease's id in the target, so that `revoke` finds it whatever is known of it.
    async fn effect(&self, at: &EngineContext, intent: &LeaseIntent) -> Result<Effected, EngineError>;
    /// What holds for a lease at this moment, and not when it was issued: a renewal asks, so that a limit that was lowered
    /// reaches leases that live. Reads only.
    async fn limits(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<LeaseLimits, EngineError>;
    /// Moves the end in the target to `until`. The lease row moves only after this succeeds.
    async fn renew(&self, at: &EngineContext, lease: &LeaseIntent, until: Timestamp) -> Result<(), EngineError>;
    /// How long one try of [`SecretsEngine::revoke`] may take, where the engine's configuration says so; what has taken longer is tried
    /// again. It may be more than the lease's claim lasts: that is extended meanwhile.
    async fn revocation_timeout(&self, _: &EngineContext, _: &LeaseIntent) -> Option<Duration> {
        None
    }
    /// The role, its sessions and its rights are gone when this returns `Ok`. It is dropped at [`LeaseIntent::deadline`].
    async fn revoke(&self, at: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError>;
    /// The targets behind a mount whose roles can be listed.
    async fn targets(&self, _: &EngineContext) -> Result<Vec<KnownTarget>, EngineError> {
        Ok(Vec::new())
    }
    /// All roles in a target that carry the mark of this installation, whichever mount or connection made them.
    async fn owned_roles(&self, _: &EngineContext, _: &KnownTarget) -> Result<Vec<OwnedRole>, EngineError> {
        Ok(Vec::new())
    }
    /// Those of `leases` that are as they should be although [`SecretsEngine::owned_roles`] does not name them: what they made carries no
    /// mark, or nothing of them can be seen in the target.
    async fn stand_unmarked(
        &self,
        _: &EngineContext,
        _: &KnownTarget,
        _: &[LeaseIntent],
    ) -> Result<Vec<LeaseId>, EngineError> {
        Ok(Vec::new())
    }
    /// Ends a role that no lease names, as [`SecretsEngine::revoke`] does by default: this very one, by its id, and only
    /// as long as it carries its mark.
    async fn drop_orphan(&self, _: &EngineContext, _: &KnownTarget, _: &OwnedRole) -> Result<OrphanEnd, EngineError> {
        Ok(OrphanEnd::Kept)
    }
    /// What is to be done for each mount again and again.
    fn jobs(&self) -> &'static [MountJob] {
        &[]
    }
    /// Does one of [`SecretsEngine::jobs`] for a mount. What it gives back says when there is something to do again; `None`: after the
    /// job's own period.
    ///
    /// # Errors
    /// In words for the log, without a secret; it is tried again.
    async fn run_job(&self, _: &EngineContext, name: &str) -> Result<Option<Timestamp>, RequestError> {
        Err(RequestError::Internal(format!("this engine has no job {name:?}")))
    }
    /// The mount is gone, its leases too: close what is open, forget what is cached.
    async fn unmount(&self, at: &EngineContext);
}
