//! An engine whose target is a set of names, and whose steps fail as a test says.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold_core::engine_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::{Access, Op, Route};
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, KnownTarget, LeaseIntent, LeaseLimits,
    LeasePlan, OrphanEnd, Outcome, OwnedRole, SecretData, SecretValue, SecretsEngine,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::mount_leases::{NotCommitted, PathLimit};
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::Expect;
use leasehold_model::{LeaseId, Operation, Timestamp, Ttl};
use serde_json::json;

use super::faults::Process;

/// What happens at one step of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Refused; nothing happened.
    Fails,
    /// It happened, and the answer says that it did not.
    LiesFailure,
    /// Others are at work on the target: nothing was sent.
    Busy,
    /// The target cannot be reached: nothing was sent.
    Unreached,
    /// The target is gone before it did anything.
    Down,
    /// The target did it, and the answer got lost.
    DownAfter,
    /// The connection is lost, and the target does it a little later.
    DownLate,
    /// No answer, ever; nothing happened.
    Hangs,
    /// No answer, ever; it happened.
    HangsAfter,
    /// The process dies before the step.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
}

pub const TROUBLES: [Trouble; 11] = [
    Trouble::Fails,
    Trouble::LiesFailure,
    Trouble::Busy,
    Trouble::Unreached,
    Trouble::Down,
    Trouble::DownAfter,
    Trouble::DownLate,
    Trouble::Hangs,
    Trouble::HangsAfter,
    Trouble::CrashBefore,
    Trouble::CrashAfter,
];

/// How long a revocation takes that is then refused.
const STUCK_FOR: std::time::Duration = std::time::Duration::from_secs(20);

/// The database, as all processes see it.
#[derive(Debug, Default)]
pub struct Target {
    /// Leases whose credential works.
    pub roles: Mutex<BTreeSet<LeaseId>>,
    /// All steps, in order: `effect`, `renew`, `revoke`, `list`, `drop`.
    pub log: Mutex<Vec<String>>,
    /// What renewals and revocations were told of what effects gave back.
    pub receipts: Mutex<Vec<serde_json::Value>>,
    /// Leases whose revocation takes long and is then refused.
    pub stuck: Mutex<BTreeSet<LeaseId>>,
    pub is_down: Mutex<bool>,
    /// Every step of this kind is refused.
    pub refuses: Mutex<Option<&'static str>>,
    /// How often somebody has dropped all roles and made others of the same names and marks.
    pub remade: Mutex<u32>,
    /// That happens once more before the next drop.
    pub remakes_before_drop: Mutex<bool>,
}

impl Target {
    pub fn has(&self, id: &LeaseId) -> bool {
        self.roles.lock().unwrap().contains(id)
    }

    pub fn roles(&self) -> BTreeSet<LeaseId> {
        self.roles.lock().unwrap().clone()
    }

    fn listed(&self, id: &LeaseId) -> OwnedRole {
        OwnedRole { id: self.remade.lock().unwrap().to_string(), ..role(id) }
    }

    pub fn count(&self, step: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.starts_with(step)).count()
    }
}

/// The engine of one process.
pub struct ScriptedEngine {
    pub target: Arc<Target>,
    pub process: Arc<Process>,
    /// Of roles; zero: the mount's.
    pub ttls: Mutex<(Ttl, Ttl)>,
    pub renewable: Mutex<bool>,
    /// Effects take this long.
    pub takes: Mutex<std::time::Duration>,
    /// How long one try of a revocation may take, where that is set.
    pub revocation_timeout: Mutex<Option<std::time::Duration>>,
    /// A list of roles comes so long after it was made.
    pub lists_take: Mutex<std::time::Duration>,
    /// Ways to the one target.
    pub connections: Mutex<Vec<&'static str>>,
    pub drops_orphans: Mutex<bool>,
    /// Its mounts want something done now and then.
    pub has_chore: Mutex<bool>,
    /// When the chore wants to be done again.
    pub chore_again_at: Mutex<Option<Timestamp>>,
}

impl ScriptedEngine {
    pub fn new(target: Arc<Target>, process: Arc<Process>) -> Self {
        Self {
            target,
            process,
            ttls: Mutex::new((Ttl::from_secs(3600), Ttl::from_secs(86_400))),
            renewable: Mutex::new(true),
            takes: Mutex::default(),
            revocation_timeout: Mutex::default(),
            lists_take: Mutex::default(),
            connections: Mutex::new(vec!["pg"]),
            drops_orphans: Mutex::default(),
            has_chore: Mutex::default(),
            chore_again_at: Mutex::default(),
        }
    }

    async fn step(
        &self,
        name: &'static str,
        id: &LeaseId,
        act: impl FnOnce() + Send + 'static,
    ) -> Result<(), EngineError> {
        let gone = || EngineError::Down("connection reset by peer".to_owned());
        if self.process.is_dead() {
            return Err(gone());
        }
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        self.target.log.lock().unwrap().push(format!("{name} {id}"));
        if *self.target.is_down.lock().unwrap() {
            return Err(gone());
        }
        if *self.target.refuses.lock().unwrap() == Some("away") {
            return Err(EngineError::Unreached("connection refused".to_owned()));
        }
        if *self.target.refuses.lock().unwrap() == Some(name) {
            return Err(EngineError::Failed("ERROR: refused (SQLSTATE 42501)".to_owned()));
        }
        match self.process.next_engine_step() {
            None => act(),
            Some(Trouble::Fails) => return Err(EngineError::Failed("ERROR: no (SQLSTATE 42601)".to_owned())),
            Some(Trouble::LiesFailure) => {
                act();
                return Err(EngineError::Failed("ERROR: no (SQLSTATE XX000)".to_owned()));
            }
            Some(Trouble::Busy) => return Err(EngineError::Busy("all connections are in use".to_owned())),
            Some(Trouble::Unreached) => {
                return Err(EngineError::Unreached("connection refused".to_owned()));
            }
            Some(Trouble::Down) => return Err(gone()),
            Some(Trouble::DownAfter) => {
                act();
                return Err(gone());
            }
            Some(Trouble::DownLate) => {
                tokio::spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
                    act();
                });
                return Err(gone());
            }
            Some(Trouble::Hangs) => std::future::pending::<()>().await,
            Some(Trouble::HangsAfter) => {
                act();
                std::future::pending::<()>().await;
            }
            Some(Trouble::CrashBefore) => {
                self.process.die();
                return Err(gone());
            }
            Some(Trouble::CrashAfter) => {
                act();
                self.process.die();
                return Err(gone());
            }
        }
        Ok(())
    }
}

const HANDLER: EngineHandler = engine_handler!(ScriptedEngine, handle);
const ROUTES: &[Route<EngineHandler>] = &[
    route("creds/:name", &[Op::read("A credential.", HANDLER)]),
    route("static", &[Op::read("A thing.", HANDLER)]),
    route("boom", &[Op::read("A thing.", HANDLER)]),
    route("hasten", &[Op::update("A thing.", HANDLER)]),
    route("reset", &[Op::update("A thing.", HANDLER)]),
    route(
        "things/:name",
        &[
            Op::read("A thing.", HANDLER),
            Op::update("A thing.", HANDLER)
                .takes(&[Field::visible("color", Kind::Text, ""), Field::hidden("password", Kind::Text, "")]),
            Op::delete("A thing.", HANDLER),
        ],
    )
    .with_existence_check(),
    route("things/", &[Op::list("Things.", HANDLER)]),
    route("documents/:name", &[Op::update("A document.", HANDLER).takes_document()]),
];

const fn route(pattern: &'static str, operations: &'static [Op<EngineHandler>]) -> Route<EngineHandler> {
    Route::new(pattern, Access::Token, "A thing.", operations)
}

/// What every credential's password is: nothing but its answer may hold it.
pub const PASSWORD: &str = "canary-password-9f8e7d6c";

impl ScriptedEngine {
    async fn handle(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let storage = &request.context.storage;
        if let Some(name) = request.captures.get("name").filter(|_| request.path.contains("/things/")) {
            let key = format!("thing/{name}");
            return Ok(Outcome::Answer(match request.operation {
                Operation::Read => match storage.get(&key).await? {
                    Some(_) => LogicalResponse::json(json!({ "name": name })),
                    None => return Err(RequestError::NotFound),
                },
                // What `creds/on-pg` are made of.
                Operation::Delete if name == "pg" => {
                    let batch = storage.batch(MountBatch::new().delete(key, Expect::Present));
                    let mount = &request.context.mount.accessor;
                    match request.context.leases.commit_unless_standing(mount, "pg", batch).await {
                        Ok(()) => LogicalResponse::empty(),
                        Err(NotCommitted::Standing(standing)) => {
                            return Err(RequestError::Invalid(standing.to_string()));
                        }
                        Err(NotCommitted::Failed(error)) => return Err(error),
                    }
                }
                Operation::Delete => {
                    storage.delete(&key).await?;
                    LogicalResponse::empty()
                }
                // `things/limit-3` lets `creds/app` have three leases, and `things/limit-0` any number.
                _ if name.starts_with("limit-") => {
                    let most = name.trim_start_matches("limit-").parse().unwrap();
                    let (path, of) = ("creds/app".to_owned(), "thing \"app\"".to_owned());
                    let limit = PathLimit { path, of, max_leases: NonZeroU64::new(most) };
                    let batch = storage.batch(MountBatch::new().put(key, b"{}".to_vec(), Expect::Absent));
                    let mount = &request.context.mount.accessor;
                    request.context.leases.commit_with_limit(mount, limit, batch).await?;
                    LogicalResponse::empty()
                }
                _ => {
                    storage.put(&key, b"{}".to_vec(), Expect::Anything).await?;
                    LogicalResponse::empty()
                }
            }));
        }
        if request.path.contains("/documents/") {
            return Ok(Outcome::Answer(LogicalResponse::data(request.fields.unknown().clone())));
        }
        if request.path.ends_with("/static") {
            return Ok(Outcome::Answer(LogicalResponse::json(json!({ "value": PASSWORD }))));
        }
        if request.path.ends_with("/things/") {
            let keys: Vec<String> = storage.list("thing/", None, 100).await?;
            return Ok(Outcome::Answer(LogicalResponse::json(json!({ "keys": keys }))));
        }
        if request.path.ends_with("/reset") {
            return Ok(Outcome::Reopened { connection: "pg".to_owned(), answer: LogicalResponse::empty() });
        }
        if request.path.ends_with("/hasten") {
            let outcome = Box::new(Outcome::Answer(LogicalResponse::empty()));
            return Ok(Outcome::Job { name: super::auth::CHORE.name, outcome });
        }
        if request.path.ends_with("/boom") {
            return Err(RequestError::Engine("boom".to_owned()));
        }
        let mut made_of = Vec::new();
        if request.path.ends_with("/on-pg") {
            let key = "thing/pg".to_owned();
            let stored = storage.get(&key).await?.ok_or(RequestError::NotFound)?;
            made_of.push((key, Expect::Version(stored.version)));
        }
        let (default_ttl, max_ttl) = *self.ttls.lock().unwrap();
        Ok(Outcome::Lease(LeasePlan {
            effect_time: None,
            default_ttl,
            max_ttl,
            renewable: *self.renewable.lock().unwrap(),
            connection: "pg".to_owned(),
            effect: json!({ "username": "v-token" }),
            made_of,
            warnings: Vec::new(),
        }))
    }
}

#[async_trait]
impl SecretsEngine for ScriptedEngine {
    fn routes(&self) -> &'static [Route<EngineHandler>] {
        ROUTES
    }

    async fn exists(&self, request: &EngineRequest) -> Result<bool, RequestError> {
        let name = request.captures.get("name").cloned().unwrap_or_default();
        Ok(request.context.storage.get(&format!("thing/{name}")).await?.is_some())
    }

    async fn effect(&self, _: &EngineContext, intent: &LeaseIntent) -> Result<Effected, EngineError> {
        self.process.demand_row(&intent.id, "a role is about to be made before its row").await;
        let (target, id) = (self.target.clone(), intent.id.clone());
        let done =
            self.step("effect", &intent.id, move || drop(target.roles.lock().map(|mut roles| roles.insert(id)))).await;
        if self.target.has(&intent.id) {
            self.process.demand_row(&intent.id, "a role was made after its row had gone").await;
        }
        done?;
        let secret = SecretData(vec![
            ("username".to_owned(), SecretValue::Public("v-token".into())),
            ("password".to_owned(), SecretValue::Secret(PASSWORD.into())),
        ]);
        // As a cloud does, it says only now what it calls what it made.
        Ok(Effected { secret, receipt: json!({ "made": intent.id.random() }) })
    }

    async fn limits(&self, _: &EngineContext, _: &LeaseIntent) -> Result<LeaseLimits, EngineError> {
        let (default_ttl, max_ttl) = *self.ttls.lock().unwrap();
        Ok(LeaseLimits { default_ttl, max_ttl })
    }

    async fn renew(&self, _: &EngineContext, lease: &LeaseIntent, _: Timestamp) -> Result<(), EngineError> {
        self.target.receipts.lock().unwrap().push(lease.receipt.clone());
        if !self.target.has(&lease.id) {
            return Err(EngineError::Failed("ERROR: role does not exist (SQLSTATE 42704)".to_owned()));
        }
        self.step("renew", &lease.id, || {}).await
    }

    async fn revocation_timeout(&self, _: &EngineContext, _: &LeaseIntent) -> Option<std::time::Duration> {
        *self.revocation_timeout.lock().unwrap()
    }

    async fn revoke(&self, _: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError> {
        self.target.receipts.lock().unwrap().push(lease.receipt.clone());
        let is_stuck = self.target.stuck.lock().unwrap().contains(&lease.id);
        if is_stuck {
            tokio::time::sleep(STUCK_FOR).await;
            return Err(EngineError::Failed("ERROR: lock timeout (SQLSTATE 55P03)".to_owned()));
        }
        let (target, id) = (self.target.clone(), lease.id.clone());
        self.step("revoke", &lease.id, move || drop(target.roles.lock().map(|mut roles| roles.remove(&id)))).await
    }

    async fn targets(&self, _: &EngineContext) -> Result<Vec<KnownTarget>, EngineError> {
        let drops_orphans = *self.drops_orphans.lock().unwrap();
        let one = |name: &&str| KnownTarget { connection: (*name).to_owned(), name: (*name).to_owned(), drops_orphans };
        Ok(self.connections.lock().unwrap().iter().map(one).collect())
    }

    async fn owned_roles(&self, _: &EngineContext, target: &KnownTarget) -> Result<Vec<OwnedRole>, EngineError> {
        self.target.log.lock().unwrap().push(format!("list {}", target.name));
        if *self.target.refuses.lock().unwrap() == Some("list") {
            return Err(EngineError::Unreached("connection refused".to_owned()));
        }
        let roles = self.target.roles().into_iter().map(|id| self.target.listed(&id)).collect();
        let lists_take = *self.lists_take.lock().unwrap();
        tokio::time::sleep(lists_take).await;
        Ok(roles)
    }

    async fn drop_orphan(
        &self,
        _: &EngineContext,
        _: &KnownTarget,
        orphan: &OwnedRole,
    ) -> Result<OrphanEnd, EngineError> {
        self.target.log.lock().unwrap().push(format!("drop {}", orphan.name));
        if *self.target.refuses.lock().unwrap() == Some("drop") {
            return Err(EngineError::Failed("ERROR: refused (SQLSTATE 42501)".to_owned()));
        }
        if std::mem::take(&mut *self.target.remakes_before_drop.lock().unwrap()) {
            *self.target.remade.lock().unwrap() += 1;
        }
        if self.target.roles().iter().any(|id| role(id).name == orphan.name && self.target.listed(id) != *orphan) {
            return Ok(OrphanEnd::Kept);
        }
        self.target.roles.lock().unwrap().retain(|id| self.target.listed(id) != *orphan);
        Ok(OrphanEnd::Gone)
    }

    fn jobs(&self) -> &'static [MountJob] {
        if *self.has_chore.lock().unwrap() { &[super::auth::CHORE] } else { &[] }
    }

    async fn run_job(&self, at: &EngineContext, name: &str) -> Result<Option<Timestamp>, RequestError> {
        self.target.log.lock().unwrap().push(format!("{name} {}", at.mount.path));
        Ok(*self.chore_again_at.lock().unwrap())
    }

    async fn unmount(&self, _: &EngineContext) {}
}

/// The role of a lease, as the target lists it while nobody has made it anew.
pub fn role(id: &LeaseId) -> OwnedRole {
    OwnedRole { name: format!("v-{}", id.random()), id: "0".to_owned(), lease: id.random().to_owned() }
}
