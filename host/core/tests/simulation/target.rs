//! The database with its roles, and each server's engine that works on it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold_core::engine_handler;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::{Access, Op, Route};
use leasehold_core::seams::engine::{
    Effected, EngineContext, EngineError, EngineHandler, EngineRequest, KnownTarget, LeaseIntent, LeaseLimits,
    LeasePlan, OrphanEnd, Outcome, OwnedRole, SecretData, SecretValue, SecretsEngine,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::storage::Storage;
use leasehold_model::{LeaseId, Timestamp, Ttl};
use serde_json::json;

use super::jobs;
use super::world::{Machine, Weather, World};

/// How long leases last.
pub const TTL_SECS: u64 = 4;
pub const MAX_TTL_SECS: u64 = 10;

#[derive(Default)]
pub struct Target {
    roles: Mutex<BTreeSet<LeaseId>>,
    pub is_down: AtomicBool,
}

impl Target {
    pub fn has(&self, id: &LeaseId) -> bool {
        self.roles.lock().unwrap().contains(id)
    }

    pub fn roles(&self) -> BTreeSet<LeaseId> {
        self.roles.lock().unwrap().clone()
    }
}

/// What is done in the database.
#[derive(Clone, Copy, Debug)]
enum Step {
    Make,
    Extend,
    Drop,
}

/// As the database does it, whoever still listens.
async fn carry_out(world: &World, node: usize, step: Step, intent: &LeaseIntent) -> Result<(), EngineError> {
    let id = &intent.id;
    world.note(0xA0, format_args!("node {node}: {step:?} of {id} in the database"));
    match step {
        // A role is made before its deadline or never.
        Step::Make if world.now() > intent.deadline => {
            return Err(EngineError::Failed("ERROR: too late (SQLSTATE 57014)".to_owned()));
        }
        Step::Make => {
            if !matches!(world.store.lease(id).await, Ok(Some(_))) {
                world.complain(format!("the role of {id} is made while there is no row"));
            }
            if world.model().has_ended(id) {
                world.complain(format!("the role of {id} is made after its revocation was answered"));
            }
            world.target.roles.lock().unwrap().insert(id.clone());
        }
        Step::Extend if !world.target.has(id) => {
            return Err(EngineError::Failed("ERROR: role does not exist (SQLSTATE 42704)".to_owned()));
        }
        Step::Extend => {}
        Step::Drop => {
            let was_there = world.target.roles.lock().unwrap().remove(id);
            let now = world.millis();
            if was_there && let Some(why) = world.model().must_live(id, now) {
                world.complain(format!("the role of {id} is dropped: {why}"));
            }
        }
    }
    Ok(())
}

/// The engine of one life of a server.
pub struct Engine(pub Arc<Machine>);

impl Engine {
    async fn step(&self, step: Step, intent: &LeaseIntent) -> Result<(), EngineError> {
        let Self(machine) = self;
        let (world, node) = (&machine.world, machine.node);
        machine.runs().await;
        let is_away =
            || machine.is_cut_from_target.load(Ordering::SeqCst) || world.target.is_down.load(Ordering::SeqCst);
        if is_away() {
            return Err(EngineError::Unreached("connection refused".to_owned()));
        }
        world.on_the_way().await;
        let is_dead = machine.is_dead();
        let draw = if world.weather == Weather::Storm && !world.is_healed() { world.chance.below(60) } else { 60 };
        let gone = || EngineError::Down("connection reset by peer".to_owned());
        if is_dead || is_away() || draw < 2 {
            if world.chance.percent(50) {
                let _ = carry_out(world, node, step, intent).await;
            }
            if is_dead {
                std::future::pending::<()>().await;
            }
            return Err(gone());
        }
        match draw {
            2 => return Err(EngineError::Failed("ERROR: no (SQLSTATE 42601)".to_owned())),
            3 => return Err(EngineError::Busy("all connections are in use".to_owned())),
            // The connection is lost, and the database does it a little later.
            4 => {
                let (world, intent, later) = (world.clone(), intent.clone(), world.chance.millis(100, 3_000));
                tokio::spawn(async move {
                    tokio::time::sleep(later).await;
                    let _ = carry_out(&world, node, step, &intent).await;
                });
                return Err(gone());
            }
            // No answer, ever.
            5 => {
                if world.chance.percent(50) {
                    let _ = carry_out(world, node, step, intent).await;
                }
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let done = carry_out(world, node, step, intent).await;
        world.on_the_way().await;
        machine.runs().await;
        if is_away() { Err(gone()) } else { done }
    }

    async fn handle(&self, request: &EngineRequest) -> Result<Outcome, RequestError> {
        let Self(machine) = self;
        // What it is about is read from the store first.
        machine.world.on_the_way().await;
        machine.runs().await;
        if request.path.contains("/static/") {
            return Ok(Outcome::Answer(LogicalResponse::json(json!({ "value": "known" }))));
        }
        Ok(Outcome::Lease(LeasePlan {
            effect_time: None,
            default_ttl: Ttl::from_secs(TTL_SECS),
            max_ttl: Ttl::from_secs(MAX_TTL_SECS),
            renewable: true,
            connection: "pg".to_owned(),
            effect: json!({}),
            made_of: Vec::new(),
            warnings: Vec::new(),
        }))
    }
}

const HANDLER: EngineHandler = engine_handler!(Engine, handle);
const ROUTES: &[Route<EngineHandler>] = &[
    Route::new("creds/:name", Access::Token, "A thing.", &[Op::read("A credential.", HANDLER)]),
    Route::new("static/:name", Access::Token, "A thing.", &[Op::read("A thing.", HANDLER)]),
];

#[async_trait]
impl SecretsEngine for Engine {
    fn routes(&self) -> &'static [Route<EngineHandler>] {
        ROUTES
    }

    async fn exists(&self, _: &EngineRequest) -> Result<bool, RequestError> {
        Ok(true)
    }

    async fn effect(&self, _: &EngineContext, intent: &LeaseIntent) -> Result<Effected, EngineError> {
        self.step(Step::Make, intent).await?;
        let secret = SecretData(vec![("password".to_owned(), SecretValue::Secret("canary".into()))]);
        Ok(Effected { secret, receipt: json!({ "made": intent.id.random() }) })
    }

    async fn limits(&self, _: &EngineContext, _: &LeaseIntent) -> Result<LeaseLimits, EngineError> {
        Ok(LeaseLimits { default_ttl: Ttl::from_secs(TTL_SECS), max_ttl: Ttl::from_secs(MAX_TTL_SECS) })
    }

    async fn renew(&self, _: &EngineContext, lease: &LeaseIntent, _: Timestamp) -> Result<(), EngineError> {
        self.step(Step::Extend, lease).await
    }

    async fn revoke(&self, _: &EngineContext, lease: &LeaseIntent) -> Result<(), EngineError> {
        self.step(Step::Drop, lease).await
    }

    async fn targets(&self, _: &EngineContext) -> Result<Vec<KnownTarget>, EngineError> {
        Ok(Vec::new())
    }

    async fn owned_roles(&self, _: &EngineContext, _: &KnownTarget) -> Result<Vec<OwnedRole>, EngineError> {
        Ok(Vec::new())
    }

    async fn drop_orphan(&self, _: &EngineContext, _: &KnownTarget, _: &OwnedRole) -> Result<OrphanEnd, EngineError> {
        Ok(OrphanEnd::Kept)
    }

    fn jobs(&self) -> &'static [MountJob] {
        const JOBS: &[MountJob] = &[MountJob { name: "sweep", every: jobs::EVERY }];
        JOBS
    }

    async fn run_job(&self, at: &EngineContext, _: &str) -> Result<Option<Timestamp>, RequestError> {
        jobs::run(&self.0, at.mount.accessor.as_str()).await.map(|()| None)
    }

    async fn unmount(&self, _: &EngineContext) {}
}
