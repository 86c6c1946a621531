//! The lease node alone: no ticker but where a test starts one, so that the n-th write is always the same write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold_core::jobs::Jobs;
use leasehold_core::keys;
use leasehold_core::lease::issue::{IssueRequest, Issued};
use leasehold_core::lease::{LeaseError, LeaseKind, LeaseRow, LeaseState, Leases};
use leasehold_core::mount::{AuthMethods, Engines, MountEntry, MountTable, SystemTtls, Table};
use leasehold_core::quota::leases::LeaseCounts;
use leasehold_core::request::LeaseAnswer;
use leasehold_core::seams::engine::LeasePlan;
use leasehold_core::seams::host::{Clock, Entropy};
use leasehold_core::seams::seal::SecretKey;
use leasehold_core::seams::storage::{LeaseFilter, Page, Storage};
use leasehold_core::testing::CountingEntropy;
use leasehold_core::token::store::TokenKeys;
use leasehold_core::token::{Leaseholder, TokenKind, TokenRecord, Tokens};
use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash, TokenId, Ttl};
use leasehold_storage::MemoryStorage;
use tokio_util::sync::CancellationToken;

use super::engine::{ScriptedEngine, Target};
use super::faults::Process;
use super::sandbox::ScriptedSandbox;
use super::{PausedClock, pass};

/// What outlives a process.
pub struct World {
    pub store: Arc<MemoryStorage>,
    pub target: Arc<Target>,
    pub clock: Arc<PausedClock>,
    pub entropy: Arc<CountingEntropy>,
}

/// One process over a world.
pub struct Node {
    pub process: Arc<Process>,
    pub engine: Arc<ScriptedEngine>,
    pub leases: Arc<Leases>,
    /// None has a row.
    pub jobs: Arc<Jobs>,
    pub tokens: Arc<Tokens>,
    pub mounts: Arc<MountTable>,
    pub clock: Arc<PausedClock>,
}

pub const TTL: Ttl = Ttl::from_secs(86_400);
const MAX_TTL: Ttl = Ttl::from_secs(7 * 86_400);

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(PausedClock::new());
        Self {
            store: Arc::new(MemoryStorage::new(clock.clone())),
            target: Arc::default(),
            clock,
            entropy: Arc::default(),
        }
    }

    /// A process begins.
    pub async fn start(&self) -> Node {
        let process = Process::new(self.store.clone(), self.target.clone());
        let engine = Arc::new(ScriptedEngine::new(self.target.clone(), process.clone()));
        *engine.ttls.lock().unwrap() = (TTL, MAX_TTL);
        let storage: Arc<dyn Storage> = process.clone();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let entropy: Arc<dyn Entropy> = self.entropy.clone();
        let mounts = Arc::new(MountTable::load(storage.clone(), &*entropy).await.unwrap());
        if self.store.get(&keys::installation()).await.unwrap().is_none() {
            let installed = leasehold_core::seams::storage::Batch::new().put(
                keys::installation(),
                Vec::new(),
                leasehold_core::seams::storage::Expect::Absent,
            );
            self.store.commit(installed).await.unwrap();
            mounts.add(MountEntry::new(Table::Mount, "db/".parse().unwrap(), "scripted", &*entropy)).await.unwrap();
        }
        let key = |byte| SecretKey(zeroize::Zeroizing::new([byte; 32]));
        let keys = TokenKeys { hash: key(7), batch: key(8) };
        let tokens = Arc::new(Tokens::new(
            storage.clone(),
            clock.clone(),
            entropy.clone(),
            &keys,
            MountAccessor::new("auth_token_1"),
        ));
        let engines = Arc::new(Engines {
            kinds: BTreeMap::from([(
                "scripted",
                engine.clone() as Arc<dyn leasehold_core::seams::engine::SecretsEngine>,
            )]),
            mounts: mounts.clone(),
            leases: LeaseCounts::new(storage.clone(), storage.clone(), clock.clone(), entropy.clone()),
            storage: storage.clone(),
            clock,
            entropy,
            templates: Arc::new(ScriptedSandbox::default()),
            installation: "test".to_owned(),
            ttls: SystemTtls { default_lease_ttl: TTL, max_lease_ttl: Ttl::from_secs(2_764_800) },
        });
        let leases = Arc::new(Leases::new(storage, tokens.clone(), engines.clone()));
        let methods = Arc::new(AuthMethods::new(BTreeMap::new(), engines.clone()));
        let jobs = Arc::new(Jobs::new(engines, methods, Vec::new()));
        Node { process, engine, leases, jobs, tokens, mounts, clock: self.clock.clone() }
    }

    /// All rows, tokens' and secrets'.
    pub async fn rows(&self) -> Vec<LeaseRow> {
        self.store.leases(&LeaseFilter::default(), &Page { after: None, limit: 100_000 }).await.unwrap()
    }

    pub async fn secrets(&self) -> Vec<LeaseRow> {
        self.rows().await.into_iter().filter(|row| row.kind == LeaseKind::Secret).collect()
    }

    pub async fn token_lives(&self, token: &TokenHash) -> bool {
        self.store.get(&keys::token(token)).await.unwrap().is_some()
    }

    /// A new process works through what the last one left behind, for so long. What had failed may have backed off meanwhile.
    pub async fn recover(&self, secs: u64) -> Node {
        let node = self.start().await;
        node.tick(secs).await;
        node
    }

    /// No role without a row, and no active row without its role.
    pub async fn assert_roles_are_rows(&self, context: &str) {
        let rows = self.secrets().await;
        let named: BTreeSet<LeaseId> = rows.iter().map(|row| row.id.clone()).collect();
        let active: BTreeSet<LeaseId> =
            rows.iter().filter(|row| row.state == LeaseState::Active).map(|row| row.id.clone()).collect();
        let roles = self.target.roles();
        assert!(roles.is_subset(&named), "{context}: roles without a row: {:?}", roles.difference(&named));
        assert!(active.is_subset(&roles), "{context}: rows without a role: {:?}", active.difference(&roles));
    }

    /// Everything that was under way has ended, one way or the other.
    pub async fn assert_settled(&self, context: &str) {
        self.assert_roles_are_rows(context).await;
        for row in self.rows().await {
            assert_eq!(row.state, LeaseState::Active, "{context}: {} is unsettled", row.id);
        }
    }
}

impl Node {
    /// Lets the ticker work for so long.
    pub async fn tick(&self, secs: u64) {
        let stop = CancellationToken::new();
        let ticker = tokio::spawn(self.leases.clone().run(self.jobs.clone(), stop.clone()));
        pass(secs).await;
        stop.cancel();
        ticker.await.unwrap();
    }

    pub async fn renew(&self, id: &LeaseId, increment: Option<Ttl>) -> Result<(LeaseAnswer, Vec<String>), LeaseError> {
        let found = self.leases.find(id).await?.ok_or_else(|| LeaseError::NotFound(id.clone()))?;
        self.leases.renew(found, increment, None).await
    }

    pub async fn token(&self, name: &str, parent: Option<&TokenHash>, ttl: Ttl) -> TokenHash {
        self.try_token(name, parent, ttl).await.unwrap()
    }

    pub async fn try_token(
        &self,
        name: &str,
        parent: Option<&TokenHash>,
        ttl: Ttl,
    ) -> Result<TokenHash, leasehold_core::seams::storage::StorageError> {
        let now = self.clock.now();
        let record = TokenRecord {
            kind: TokenKind::Service,
            accessor: self.tokens.new_accessor(),
            parent: parent.cloned(),
            policies: vec!["default".to_owned()],
            path: "auth/token/create".to_owned(),
            display_name: "token".to_owned(),
            meta: None,
            num_uses: 0,
            creation_uses: 0,
            created_at: now,
            creation_ttl: ttl,
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            renewable: true,
            expires_at: Some(now + ttl),
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: None,
            mount: None,
            bound_cidrs: Vec::new(),
            role: None,
            wraps: None,
            entity: None,
            login: None,
        };
        self.tokens.insert(&TokenId::new(name), &record).await
    }

    pub async fn issue(&self, token: &TokenHash) -> Result<LeaseId, LeaseError> {
        self.issue_for(token, TTL, MAX_TTL, None).await.map(|issued| issued.lease.id)
    }

    pub async fn issue_for(
        &self,
        token: &TokenHash,
        default_ttl: Ttl,
        max_ttl: Ttl,
        ceiling: Option<Ttl>,
    ) -> Result<Issued, LeaseError> {
        let mount = self.mounts.by_path("db/").ok_or(LeaseError::TokenGone)?;
        let (holder, plan) = (Leaseholder::Service(token), plan(default_ttl, max_ttl));
        self.leases
            .issue(IssueRequest { path: "db/creds/app", holder, entity: None, mount: &mount, plan, ceiling })
            .await
    }

    pub async fn issue_as(&self, holder: Leaseholder<'_>, mount: &MountEntry) -> Result<Issued, LeaseError> {
        let plan = plan(TTL, MAX_TTL);
        self.leases.issue(IssueRequest { path: "db/creds/app", holder, entity: None, mount, plan, ceiling: None }).await
    }

    /// The one row that is being issued.
    pub async fn issuing(&self) -> LeaseId {
        let filter = LeaseFilter { state: Some(LeaseState::Issuing), ..LeaseFilter::default() };
        let rows = self.process.store.leases(&filter, &Page { after: None, limit: 10 }).await.unwrap();
        assert_eq!(rows.len(), 1);
        rows[0].id.clone()
    }

    pub async fn row(&self, id: &LeaseId) -> Option<LeaseRow> {
        self.process.store.lease(id).await.unwrap()
    }

    pub fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn at(&self, secs: u64) -> Timestamp {
        self.clock.now() + Ttl::from_secs(secs)
    }

    pub fn assert_no_violation(&self, context: &str) {
        self.process.assert_no_violation(context);
    }
}

pub fn plan(default_ttl: Ttl, max_ttl: Ttl) -> LeasePlan {
    LeasePlan {
        effect_time: None,
        default_ttl,
        max_ttl,
        renewable: true,
        connection: "pg".to_owned(),
        effect: serde_json::json!({}),
        made_of: Vec::new(),
        warnings: Vec::new(),
    }
}
