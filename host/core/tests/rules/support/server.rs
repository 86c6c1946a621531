//! The whole core behind its one function, with a barrier over a store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::audit::DeviceEntry;
use leasehold_core::core::Seams;
use leasehold_core::lease::LeaseRow;
use leasehold_core::nodes::NodeName;
use leasehold_core::request::{LogicalRequest, LogicalResponse};
use leasehold_core::seams::auth::AuthMethod;
use leasehold_core::seams::engine::SecretsEngine;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::{Clock, Entropy, Metrics};
use leasehold_core::seams::seal::KeyWrapper;
use leasehold_core::seams::storage::{Batch, LeaseFilter, Page, Storage};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::testing::CountingEntropy;
use leasehold_core::token::create::First;
use leasehold_core::{Core, Settings};
use leasehold_model::{LeaseId, Operation, TokenId, Ttl};
use leasehold_storage::{Barrier, MemoryStorage};
use serde_json::{Value, json};

use super::PausedClock;
use super::audit::Recorders;
use super::auth::ScriptedMethod;
use super::engine::{ScriptedEngine, Target};
use super::faults::Process;
use super::sandbox::ScriptedSandbox;
use super::wrapper::ScriptedWrapper;

pub const ROOT: &str = "root";

struct NoMetrics;

impl Metrics for NoMetrics {
    fn prometheus(&self) -> String {
        String::new()
    }

    fn json(&self) -> Value {
        Value::Null
    }
}

pub struct Server {
    pub core: Arc<Core>,
    pub process: Arc<Process>,
    pub target: Arc<Target>,
    pub engine: Arc<ScriptedEngine>,
    pub method: Arc<ScriptedMethod>,
    pub sandbox: Arc<ScriptedSandbox>,
    pub audit: Arc<Recorders>,
    pub share: Vec<u8>,
    /// The barrier alone, without what the core loads behind it.
    pub barrier: Arc<Barrier>,
    pub clock: Arc<dyn Clock>,
    entropy: Arc<CountingEntropy>,
    declared: Vec<DeviceEntry>,
    seals: Seals,
}

/// What opens the server instead of people, and what it moves away from.
#[derive(Clone, Default)]
pub struct Seals {
    pub current: Option<Arc<ScriptedWrapper>>,
    pub disabled: Option<Arc<ScriptedWrapper>>,
}

pub type Answer = Result<LogicalResponse, RequestError>;

impl Server {
    /// Unsealed, with the scripted engine at `db/`.
    pub async fn start() -> Self {
        let server = Self::sealed().await;
        server.unseal().await;
        server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
        server
    }

    /// Initialised, not unsealed.
    pub async fn sealed() -> Self {
        Self::sealed_with(Vec::new()).await
    }

    /// Unsealed, with these audit devices declared in its configuration.
    pub async fn declaring(audit: Vec<DeviceEntry>) -> Self {
        let server = Self::sealed_with(audit).await;
        server.unseal().await;
        server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
        server
    }

    async fn sealed_with(declared: Vec<DeviceEntry>) -> Self {
        let mut server = Self::empty(declared);
        let made = server.core.init(1, 1, First::Development(Some(TokenId::new(ROOT)))).await.unwrap();
        server.share = made.shares[0].0.to_vec();
        server
    }

    /// Over an empty store.
    pub fn empty(declared: Vec<DeviceEntry>) -> Self {
        let clock = Arc::new(PausedClock::new());
        let store = Arc::new(MemoryStorage::new(clock.clone()));
        Self::over(store, Arc::default(), clock, Arc::new(CountingEntropy::default()), declared, Seals::default())
    }

    /// Over an empty store, with these seals in its configuration.
    pub fn empty_with(seals: Seals) -> Self {
        let clock = Arc::new(PausedClock::new());
        let store = Arc::new(MemoryStorage::shared(clock.clone()));
        Self::over(store, Arc::default(), clock, Arc::new(CountingEntropy::default()), Vec::new(), seals)
    }

    /// A further process, with another configuration of its seals; sealed.
    pub fn again_with(&self, seals: Seals) -> Self {
        self.process.die();
        self.another(seals)
    }

    /// A second process over the same store while this one lives; sealed.
    pub fn another(&self, seals: Seals) -> Self {
        let (store, target) = (self.process.store.clone(), self.target.clone());
        let mut other =
            Self::over(store, target, self.clock.clone(), self.entropy.clone(), self.declared.clone(), seals);
        other.share.clone_from(&self.share);
        other
    }

    /// As [`Server::start`], over a store that several servers may share: see [`Server::beside`].
    pub async fn start_shared() -> Self {
        let clock = Arc::new(PausedClock::new());
        let store = Arc::new(MemoryStorage::shared(clock.clone()));
        let server = Self::sealed_over(store, clock).await;
        server.unseal().await;
        server.root("sys/mounts/db", json!({ "type": "scripted" })).await.unwrap();
        server
    }

    /// Initialised, over a store whose clock may be another one than the server's.
    pub async fn sealed_over(store: Arc<MemoryStorage>, clock: Arc<dyn Clock>) -> Self {
        let mut server = Self::over(
            store,
            Arc::default(),
            clock,
            Arc::new(CountingEntropy::default()),
            Vec::new(),
            Seals::default(),
        );
        let made = server.core.init(1, 1, First::Development(Some(TokenId::new(ROOT)))).await.unwrap();
        server.share = made.shares[0].0.to_vec();
        server
    }

    /// A further process, over what this one has stored; sealed.
    pub fn again(&self) -> Self {
        self.again_with(self.seals.clone())
    }

    /// A second process over the same store while this one lives; unsealed.
    pub async fn beside(&self) -> Self {
        let other = self.another(self.seals.clone());
        other.unseal().await;
        other
    }

    fn over(
        store: Arc<MemoryStorage>,
        target: Arc<Target>,
        clock: Arc<dyn Clock>,
        entropy: Arc<CountingEntropy>,
        declared: Vec<DeviceEntry>,
        seals: Seals,
    ) -> Self {
        let process = Process::new(store, target.clone());
        let engine = Arc::new(ScriptedEngine::new(target.clone(), process.clone()));
        let sandbox = Arc::<ScriptedSandbox>::default();
        let method = Arc::<ScriptedMethod>::default();
        let audit = Arc::<Recorders>::default();
        let barrier = Barrier::new(process.clone() as Arc<dyn WholeStore>, entropy.clone() as Arc<dyn Entropy>);
        let wrapper = |seal: &Option<Arc<ScriptedWrapper>>| seal.clone().map(|seal| seal as Arc<dyn KeyWrapper>);
        let barrier = Arc::new(barrier.with_wrappers(wrapper(&seals.current), wrapper(&seals.disabled)));
        let seams = Seams {
            storage: barrier.clone(),
            seal: barrier.clone(),
            snapshots: barrier.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            acl: sandbox.clone(),
            templates: sandbox.clone(),
            modules: sandbox.clone(),
            auth_methods: BTreeMap::from([("scripted", method.clone() as Arc<dyn AuthMethod>)]),
            engines: BTreeMap::from([("scripted", engine.clone() as Arc<dyn SecretsEngine>)]),
            audit_devices: audit.clone(),
            declared_audit_devices: audit.clone(),
            metrics: Arc::new(NoMetrics),
        };
        let settings = Settings {
            default_lease_ttl: Ttl::from_secs(2_764_800),
            max_lease_ttl: Ttl::from_secs(2_764_800),
            version: "1.19.0".to_owned(),
            commit_date: String::new(),
            cluster_name: None,
            storage_type: "inmem",
            audit: declared.clone(),
            node: NodeName::default(),
        };
        let core = Core::new(seams, settings);
        Self {
            core,
            process,
            target,
            engine,
            method,
            sandbox,
            audit,
            share: Vec::new(),
            barrier,
            clock,
            entropy,
            declared,
            seals,
        }
    }

    pub async fn unseal(&self) {
        assert!(!self.core.unseal(&self.share).await.unwrap().sealed);
    }

    pub async fn call(&self, token: Option<&str>, operation: Operation, path: &str, data: Value) -> Answer {
        self.core.handle(request(token, operation, path, data)).await
    }

    /// An update by root.
    pub async fn root(&self, path: &str, data: Value) -> Answer {
        self.call(Some(ROOT), Operation::Update, path, data).await
    }

    pub async fn read(&self, token: &str, path: &str) -> Answer {
        self.call(Some(token), Operation::Read, path, Value::Null).await
    }

    pub async fn read_with(&self, token: &str, path: &str, data: Value) -> Answer {
        self.call(Some(token), Operation::Read, path, data).await
    }

    pub async fn update(&self, token: &str, path: &str, data: Value) -> Answer {
        self.call(Some(token), Operation::Update, path, data).await
    }

    pub async fn policy(&self, name: &str, text: &str) {
        self.root(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await.unwrap();
    }

    /// A child of root with these fields.
    pub async fn token(&self, fields: Value) -> String {
        token_of(&self.root("auth/token/create", fields).await.unwrap())
    }

    /// A child of root that may do what `text` says, and nothing else.
    pub async fn token_with(&self, text: &str) -> String {
        let name = format!("p{}", text.len() * 7 + text.bytes().map(usize::from).sum::<usize>());
        self.policy(&name, text).await;
        self.token(json!({ "policies": [name], "no_default_policy": true })).await
    }

    pub async fn lookup(&self, token: &str) -> Result<serde_json::Map<String, Value>, RequestError> {
        self.root("auth/token/lookup", json!({ "token": token })).await.map(|answer| answer.data.unwrap())
    }

    pub async fn lives(&self, token: &str) -> bool {
        self.lookup(token).await.is_ok()
    }

    pub async fn audited(&self) {
        self.root("sys/audit/first", json!({ "type": "first" })).await.unwrap();
        self.audit.first.clear();
    }

    pub async fn rows(&self) -> Vec<LeaseRow> {
        self.process.store.leases(&LeaseFilter::default(), &Page { after: None, limit: 10_000 }).await.unwrap()
    }

    /// One bit of what is stored of a row flips.
    pub async fn damage(&self, id: &LeaseId) {
        let mut row = self.process.store.lease(id).await.unwrap().unwrap();
        row.body[20] ^= 1;
        let (state, fence) = (row.state, row.fence);
        self.process.store.commit(Batch::new().shift(row, state, fence)).await.unwrap();
    }

    /// A module that judges `paths`.
    pub async fn judge(&self, level: &str, paths: &str) {
        self.root("sys/modules/probe", json!({ "module": "AAEC" })).await.unwrap();
        let egp = json!({ "module": "probe", "paths": paths, "enforcement_level": level });
        self.root("sys/policies/egp/gate", egp).await.unwrap();
    }
}

/// As Prometheus does where no token is needed for it.
pub async fn scrape(server: &Server) {
    server.core.metrics(&request(None, Operation::Read, "sys/metrics", Value::Null)).await;
}

pub fn request(token: Option<&str>, operation: Operation, path: &str, data: Value) -> LogicalRequest {
    LogicalRequest {
        id: "11111111-2222-4333-8444-555555555555".to_owned(),
        operation,
        path: path.to_owned(),
        data: data.as_object().cloned().unwrap_or_default(),
        token: token.map(TokenId::new),
        client: None,
        wrap_ttl: None,
        headers: BTreeMap::new(),
        raw_body: None,
        upload: None,
        body_withheld: false,
        is_let_in: false,
    }
}

pub fn token_of(answer: &LogicalResponse) -> String {
    answer.auth.as_ref().unwrap().client_token.as_ref().unwrap().expose().to_owned()
}

pub fn lease_of(answer: &LogicalResponse) -> LeaseId {
    answer.lease.as_ref().unwrap().id.clone()
}

/// The words of a refusal, with its kind.
pub fn refusal(answer: Answer) -> String {
    let error = answer.map(|_| ()).unwrap_err();
    let kind = format!("{:?}", error.bare());
    let kind: String = kind.chars().take_while(char::is_ascii_alphanumeric).collect();
    format!("{kind}: {error}")
}
