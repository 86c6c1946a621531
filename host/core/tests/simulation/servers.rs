//! Three servers over one store: the real core, and what it runs on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold_core::core::Seams;
use leasehold_core::nodes::NodeName;
use leasehold_core::request::LogicalRequest;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices, Destination};
use leasehold_core::seams::engine::SecretsEngine;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::{Clock, Entropy, Metrics};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::token::create::First;
use leasehold_core::{Core, Settings};
use leasehold_model::{Operation, TokenId, Ttl};
use leasehold_storage::Barrier;
use serde_json::{Value, json};

use super::sandbox::ScriptedSandbox;
use super::store::View;
use super::target::Engine;
use super::world::{Condition, Machine, World};

pub const ROOT: &str = "root";
pub const NODES: usize = 3;
/// Others may write meanwhile, so that what is read does not add up; not for long.
const UNSEAL_TRIES: usize = 20;

/// Nothing is recorded.
struct NoAudit;

#[async_trait]
impl AuditDevices for NoAudit {
    async fn open(
        &self,
        _: &str,
        _: &BTreeMap<String, String>,
        _: &[Destination],
    ) -> Result<Arc<dyn AuditDevice>, RequestError> {
        Err(RequestError::invalid("there are no audit devices here"))
    }
}

struct NoMetrics;

impl Metrics for NoMetrics {
    fn prometheus(&self) -> String {
        String::new()
    }

    fn json(&self) -> Value {
        Value::Null
    }
}

/// One life of a server.
pub struct Server {
    pub machine: Arc<Machine>,
    pub core: Arc<Core>,
}

impl Server {
    pub fn start(world: &Arc<World>, node: usize) -> Arc<Self> {
        let machine = Machine::new(world, node);
        let view = Arc::new(View::new(machine.clone()));
        let engine = Arc::new(Engine(machine.clone())) as Arc<dyn SecretsEngine>;
        let (clock, entropy) = (machine.clone() as Arc<dyn Clock>, world.entropy.clone() as Arc<dyn Entropy>);
        let barrier = Arc::new(Barrier::new(view as Arc<dyn WholeStore>, entropy.clone()));
        let sandbox = Arc::<ScriptedSandbox>::default();
        let audit = Arc::new(NoAudit);
        let seams = Seams {
            storage: barrier.clone(),
            seal: barrier.clone(),
            snapshots: barrier,
            clock,
            entropy,
            acl: sandbox.clone(),
            templates: sandbox.clone(),
            modules: sandbox,
            auth_methods: BTreeMap::new(),
            engines: BTreeMap::from([("scripted", engine)]),
            audit_devices: audit.clone(),
            declared_audit_devices: audit,
            metrics: Arc::new(NoMetrics),
        };
        let settings = Settings {
            default_lease_ttl: Ttl::from_secs(3_600),
            max_lease_ttl: Ttl::from_secs(86_400),
            version: "1.19.0".to_owned(),
            commit_date: String::new(),
            cluster_name: Some("simulation".to_owned()),
            storage_type: "inmem",
            audit: Vec::new(),
            node: NodeName::default(),
        };
        Arc::new(Self { machine, core: Core::new(seams, settings) })
    }

    /// What a client gets; `None`: the connection broke because the server was killed.
    pub async fn ask(&self, token: &str, operation: Operation, path: &str, data: Value) -> Option<Answer> {
        let request = LogicalRequest {
            id: "11111111-2222-4333-8444-555555555555".to_owned(),
            operation,
            path: path.to_owned(),
            data: data.as_object().cloned().unwrap_or_default(),
            token: Some(TokenId::new(token)),
            client: None,
            wrap_ttl: None,
            headers: BTreeMap::new(),
            raw_body: None,
            upload: None,
            body_withheld: false,
            is_let_in: false,
        };
        let answered = async {
            self.machine.runs().await;
            let answer = self.core.handle(request).await;
            self.machine.runs().await;
            answer
        };
        tokio::select! {
            biased;
            () = self.machine.dies() => None,
            answer = answered => Some(answer),
        }
    }

    /// Again and again, until it is unsealed or killed. While nothing is in the way, that must come to pass.
    pub async fn unseal(&self, share: &[u8]) {
        let (world, node) = (&self.machine.world, self.machine.node);
        let unsealed = async {
            let mut tries_in_peace = 0;
            loop {
                match self.core.unseal(share).await {
                    Ok(status) if !status.sealed => return,
                    Ok(_) => {}
                    Err(error) => world.note(0xBF, format_args!("node {node} cannot be unsealed: {error:?}")),
                }
                tries_in_peace = if world.is_healed() { tries_in_peace + 1 } else { 0 };
                if tries_in_peace > UNSEAL_TRIES {
                    return world.complain(format!("node {node} cannot be unsealed"));
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            biased;
            () = self.machine.dies() => {}
            () = unsealed => {}
        }
    }
}

pub type Answer = Result<leasehold_core::request::LogicalResponse, RequestError>;

/// All three, whoever lives at the moment.
pub struct Servers {
    pub world: Arc<World>,
    pub share: Vec<u8>,
    living: Mutex<Vec<Arc<Server>>>,
}

impl Servers {
    /// Unsealed, with an engine at `db/`, and a policy for each grant that grants nothing yet.
    pub async fn start(world: &Arc<World>, grants: usize) -> Arc<Self> {
        let first = Server::start(world, 0);
        let made = first.core.init(1, 1, First::Development(Some(TokenId::new(ROOT)))).await.unwrap();
        let share = made.shares[0].0.to_vec();
        let mut living = vec![first];
        living.extend((1..NODES).map(|node| Server::start(world, node)));
        for server in &living {
            server.unseal(&share).await;
        }
        let root = async |path: String, data| {
            living[0].ask(ROOT, Operation::Update, &path, data).await.unwrap().unwrap();
        };
        root("sys/mounts/db".to_owned(), json!({ "type": "scripted" })).await;
        for grant in 0..grants {
            root(format!("sys/policies/acl/p{grant}"), json!({ "policy": policy(grant, false) })).await;
        }
        Arc::new(Self { world: world.clone(), share, living: Mutex::new(living) })
    }

    pub fn at(&self, node: usize) -> Arc<Server> {
        self.living.lock().unwrap()[node].clone()
    }

    pub fn all(&self) -> Vec<Arc<Server>> {
        self.living.lock().unwrap().clone()
    }

    pub fn kill(&self, node: usize) {
        self.at(node).machine.set(Condition::Dead);
    }

    /// A new life in the place of one that was killed.
    pub async fn restart(&self, node: usize) {
        let server = Server::start(&self.world, node);
        self.living.lock().unwrap()[node] = server.clone();
        server.unseal(&self.share).await;
        self.world.note(0xB0, format_args!("node {node} lives as life {}", server.machine.life));
    }
}

/// What the policy of a grant says.
pub fn policy(grant: usize, is_granted: bool) -> String {
    let rights = if is_granted { "read" } else { "list" };
    format!("db/creds/p{grant}: {rights}\ndb/static/p{grant}: {rights}\nauth/token/create: update")
}
