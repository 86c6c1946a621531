//! The server's state: what plugs in, what exists only while unsealed, and the moves between the two.

mod opening;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use leasehold_model::{Operation, TokenId, Ttl};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::audit::{Broker, DeviceEntry};
use crate::auto_unseal::AutoUnseal;
use crate::codec::{decode, encode};
use crate::identity::{CallerIdentity, Identities};
use crate::jobs::keyring::KeepKeyring;
use crate::jobs::{Job, Jobs};
use crate::keys;
use crate::lease::Leases;
use crate::lease::reconcile::Reconciliation;
use crate::lockout::Lockouts;
use crate::metrics::Meter;
use crate::mount::{AuthMethods, Engines, MountTable, SystemTtls};
use crate::nodes::{NodeName, Nodes, Watched};
use crate::policy::{Egps, Modules, Policies, decide};
use crate::quorum::Quorum;
use crate::quota::Quotas;
use crate::quota::counted::Counted;
use crate::quota::leases::LeaseCounts;
use crate::random;
use crate::request::Object;
use crate::seams::audit::AuditDevices;
use crate::seams::auth::AuthMethod;
use crate::seams::engine::SecretsEngine;
use crate::seams::error::RequestError;
use crate::seams::host::{Clock, Entropy, Metrics};
use crate::seams::sandbox::{AclEvaluator, AclRequest, ModuleHost, TemplateRenderer};
use crate::seams::seal::{KeyShare, Seal, SealError, SealStatus, SecretKey, WrapperError};
use crate::seams::snapshot::Snapshots;
use crate::seams::storage::{Batch, Expect, Storage, StorageError};
use crate::store_clock::StoreClock;
use crate::token::create::First;
use crate::token::store::TokenKeys;
use crate::token::{TokenRecord, Tokens};

/// What the operator configured.
#[derive(Clone, Debug)]
pub struct Settings {
    pub default_lease_ttl: Ttl,
    pub max_lease_ttl: Ttl,
    /// A Vault-level semantic version; our own stands in its build metadata. Clients gate features on it.
    pub version: String,
    /// Of the sources, `2026-11-23T08:00:00Z`; empty when the build did not know.
    pub commit_date: String,
    pub cluster_name: Option<String>,
    /// `inmem` or `sqlite`.
    pub storage_type: &'static str,
    /// Devices that the configuration file declares.
    pub audit: Vec<DeviceEntry>,
    /// What other servers over the same store, and people, know this one by.
    pub node: NodeName,
}

/// All that plugs in.
pub struct Seams {
    /// The barrier over the store.
    pub storage: Arc<dyn Storage>,
    /// The same barrier.
    pub seal: Arc<dyn Seal>,
    /// The same barrier.
    pub snapshots: Arc<dyn Snapshots>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub acl: Arc<dyn AclEvaluator>,
    pub templates: Arc<dyn TemplateRenderer>,
    pub modules: Arc<dyn ModuleHost>,
    pub engines: BTreeMap<&'static str, Arc<dyn SecretsEngine>>,
    pub auth_methods: BTreeMap<&'static str, Arc<dyn AuthMethod>>,
    /// For devices enabled over the API.
    pub audit_devices: Arc<dyn AuditDevices>,
    /// For devices that the configuration declares.
    pub declared_audit_devices: Arc<dyn AuditDevices>,
    pub metrics: Arc<dyn Metrics>,
}

impl std::fmt::Debug for Seams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seams")
    }
}

/// Names one installation for ever.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Installation {
    pub cluster_name: String,
    pub cluster_id: String,
}

/// What exists only while unsealed.
pub struct Unsealed {
    pub installation: Installation,
    pub tokens: Arc<Tokens>,
    pub policies: Policies,
    pub modules: Modules,
    pub egps: Egps,
    pub mounts: Arc<MountTable>,
    pub engines: Arc<Engines>,
    pub methods: Arc<AuthMethods>,
    pub lockouts: Lockouts,
    pub identities: Identities,
    pub leases: Arc<Leases>,
    pub jobs: Arc<Jobs>,
    pub audit: Broker,
    pub quotas: Quotas,
    pub quorum: Arc<Quorum>,
    /// Its keys may be replaced by other servers.
    pub seal: Arc<dyn Seal>,
    /// Digest of the ACL component: stands in every audit record it decided.
    pub acl_digest: String,
}

impl std::fmt::Debug for Unsealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsealed").field("installation", &self.installation).finish_non_exhaustive()
    }
}

/// What init hands out, once.
#[derive(Debug)]
pub struct Initialized {
    pub shares: Vec<KeyShare>,
    pub root_token: TokenId,
}

/// The server without its doors.
#[derive(Debug)]
pub struct Core {
    /// Its clock is [`Core::clock`].
    pub(crate) seams: Seams,
    /// Goes by the store's.
    clock: Arc<StoreClock>,
    /// The other servers over the store.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) settings: Settings,
    pub(crate) meter: Meter,
    /// Part of the storage, and of what is unsealed.
    lease_counts: Arc<LeaseCounts>,
    unsealed: RwLock<Option<Arc<Unsealed>>>,
    /// One opening or closing at a time; holds what runs while unsealed.
    transition: Mutex<Option<Running>>,
    /// Opens the server without people, where a seal is configured that can.
    pub(crate) auto_unseal: AutoUnseal,
    /// From where the shares came that have been given so far: no more addresses than shares.
    givers: std::sync::Mutex<BTreeSet<IpAddr>>,
}

#[derive(Debug)]
struct Running {
    /// Ends what runs while unsealed, also when it is dropped.
    stop: DropGuard,
    leases: JoinHandle<()>,
    modules: JoinHandle<()>,
}

impl Unsealed {
    /// Whom a token stands for.
    ///
    /// # Errors
    /// As [`Identities::of`].
    pub(crate) async fn whom(&self, record: &TokenRecord) -> Result<Option<Arc<CallerIdentity>>, RequestError> {
        self.identities.of(record.entity.as_deref(), &record.policies).await
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.lease_counts.forget();
    }
}

impl Core {
    #[must_use]
    pub fn new(mut seams: Seams, settings: Settings) -> Arc<Self> {
        let clock = Arc::new(StoreClock::new(seams.clock.clone()));
        seams.clock = clock.clone();
        let (name, version) = (settings.node.clone(), settings.version.clone());
        let nodes = Nodes::new(seams.storage.clone(), seams.clock.clone(), &*seams.entropy, name, version);
        let watched: Arc<dyn Storage> = Arc::new(Watched::new(seams.storage.clone(), nodes.clone()));
        let (apart, clock_of_counts) = (seams.storage, seams.clock.clone());
        let lease_counts = LeaseCounts::new(watched.clone(), apart, clock_of_counts, seams.entropy.clone());
        seams.storage = Arc::new(Counted::new(watched, lease_counts.clone()));
        Arc::new(Self {
            lease_counts,
            seams,
            clock,
            nodes,
            settings,
            meter: Meter::new(),
            unsealed: RwLock::new(None),
            transition: Mutex::new(None),
            auto_unseal: AutoUnseal::default(),
            givers: std::sync::Mutex::default(),
        })
    }

    /// What exists while unsealed.
    ///
    /// # Errors
    /// [`RequestError::Sealed`].
    pub fn unsealed(&self) -> Result<Arc<Unsealed>, RequestError> {
        self.unsealed.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone().ok_or(RequestError::Sealed)
    }

    /// Whether the server has not been sealed since `unsealed` was what is unsealed.
    pub(crate) fn is_still(&self, unsealed: &Arc<Unsealed>) -> bool {
        self.unsealed().is_ok_and(|now| Arc::ptr_eq(&now, unsealed))
    }

    /// # Errors
    /// As storage.
    pub async fn seal_status(&self) -> Result<SealStatus, SealError> {
        let mut status = self.seams.seal.status().await?;
        // Open for requests only when unsealing has ended: between the two, clients must wait.
        status.sealed |= self.unsealed().is_err();
        Ok(status)
    }

    /// Makes keys and the first root token, in one step of the store: when it fails, it can be done again. The server stays sealed.
    ///
    /// # Errors
    /// Vault's words for wrong numbers; already initialised.
    pub async fn init(&self, shares: u8, threshold: u8, first: First) -> Result<Initialized, RequestError> {
        let _transition = self.transition.lock().await;
        self.clock.refresh(&*self.seams.storage).await?;
        let token = first.token(&*self.seams.entropy);
        let values = |derive: &dyn Fn(&str) -> SecretKey| self.first_values(derive, &first, &token);
        let shares = self.seams.seal.init_with(shares, threshold, &values).await.map_err(seal_error)?;
        Ok(Initialized { shares, root_token: token })
    }

    /// What an installation begins with: its name, the mounts that are always there, and one token.
    fn first_values(
        &self,
        derive: &dyn Fn(&str) -> SecretKey,
        first: &First,
        token: &TokenId,
    ) -> Result<Batch, StorageError> {
        let Seams { storage, clock, entropy, .. } = &self.seams;
        let installation = Installation {
            cluster_name: self
                .settings
                .cluster_name
                .clone()
                .unwrap_or_else(|| format!("leasehold-cluster-{}", random::hex_digits(&**entropy, 8))),
            cluster_id: random::uuid(&**entropy),
        };
        let mut batch = Batch::new().put(keys::installation(), encode(&installation)?, Expect::Absent);
        let entries = MountTable::first(&**entropy)?;
        for entry in &entries {
            batch = batch.put(keys::mount(entry.table.as_str(), &entry.accessor), encode(entry)?, Expect::Absent);
        }
        let mount = entries.iter().find(|entry| entry.kind == "token").map(|entry| entry.accessor.clone());
        let mount = mount.ok_or_else(|| StorageError::Corrupt("auth/token/".to_owned()))?;
        let keys = TokenKeys { hash: derive("token"), batch: derive("batch-token") };
        let tokens = Tokens::new(storage.clone(), clock.clone(), entropy.clone(), &keys, mount);
        let record = first.record(tokens.new_accessor(), clock.now());
        let (_, inserted) = tokens.insertion(token, &record, None)?;
        batch.0.extend(inserted.0);
        Ok(batch)
    }

    fn tokens(&self, mounts: &MountTable) -> Result<Tokens, RequestError> {
        let derive = |purpose| self.seams.seal.derive(purpose).map_err(seal_error);
        let keys = TokenKeys { hash: derive("token")?, batch: derive("batch-token")? };
        let mount = mounts
            .by_path("auth/token/")
            .ok_or_else(|| RequestError::Internal("auth/token/ is not mounted".to_owned()))?;
        Ok(Tokens::new(
            self.seams.storage.clone(),
            self.seams.clock.clone(),
            self.seams.entropy.clone(),
            &keys,
            mount.accessor.clone(),
        ))
    }

    async fn load_unsealed(&self) -> Result<Unsealed, RequestError> {
        let Seams {
            storage,
            seal,
            clock,
            entropy,
            acl,
            templates,
            modules,
            engines,
            audit_devices,
            declared_audit_devices,
            ..
        } = &self.seams;
        self.clock.refresh(&**storage).await?;
        // Before anything is read: what changes from now on is followed.
        let followed = self.nodes.begin_loading().await?;
        let stored = storage.get(&keys::installation()).await?;
        let stored = stored.ok_or_else(|| RequestError::Internal("the installation has no id".to_owned()))?;
        let installation: Installation = decode("sys/installation", &stored.value)?;
        let mounts = Arc::new(MountTable::load(storage.clone(), &**entropy).await?);
        let tokens = Arc::new(self.tokens(&mounts)?);
        let engines = Arc::new(Engines {
            kinds: engines.clone(),
            mounts: mounts.clone(),
            storage: storage.clone(),
            leases: self.lease_counts.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            templates: templates.clone(),
            installation: installation.cluster_id.clone(),
            ttls: SystemTtls {
                default_lease_ttl: self.settings.default_lease_ttl,
                max_lease_ttl: self.settings.max_lease_ttl,
            },
        });
        let methods = Arc::new(AuthMethods::new(self.seams.auth_methods.clone(), engines.clone()));
        let leases = Arc::new(Leases::new(storage.clone(), tokens.clone(), engines.clone()));
        let nodes = self.nodes.clone();
        let quorum = Arc::new(Quorum::new(storage.clone(), seal.clone(), clock.clone(), entropy.clone(), nodes));
        let keyring = KeepKeyring::new(seal.clone(), quorum.clone());
        let own: Vec<Arc<dyn Job>> = vec![Arc::new(Reconciliation::new(leases.clone())), Arc::new(keyring)];
        let audit_key = seal.derive("audit").map_err(seal_error)?;
        let unsealed = Unsealed {
            policies: Policies::load(storage.clone(), acl.clone(), clock.clone()).await?,
            modules: Modules::load(storage.clone(), modules.clone()).await?,
            egps: Egps::load(storage.clone(), modules.clone()).await?,
            jobs: Arc::new(Jobs::new(engines.clone(), methods.clone(), own)),
            leases,
            audit: Broker::load(
                storage.clone(),
                audit_devices.clone(),
                audit_key,
                (&**declared_audit_devices, &self.settings.audit),
            )
            .await?,
            quotas: Quotas::load(storage, clock, &mounts, &methods, &self.lease_counts, &installation.cluster_name)
                .await?,
            quorum,
            seal: seal.clone(),
            acl_digest: acl.digest().0,
            installation,
            tokens,
            identities: Identities::load(storage.clone(), clock.clone(), entropy.clone(), mounts.clone()).await?,
            mounts,
            methods,
            lockouts: Lockouts::new(storage.clone(), &seal.derive("lockout").map_err(seal_error)?),
            engines,
        };
        self.nodes.loaded(followed);
        Ok(unsealed)
    }

    /// Whether the holder of this token may send a file to this path of `sys/`; asked before the file is read. Takes none of its uses.
    pub async fn may_upload(&self, token: &TokenId, path: &str, client: Option<IpAddr>) -> bool {
        let Ok(unsealed) = self.unsealed() else { return false };
        let Ok(mut caller) = unsealed.tokens.recognise(token, client).await else { return false };
        match unsealed.whom(&caller.record).await {
            Ok(identity) => caller.identity = identity,
            Err(_) => return false,
        }
        let data = Object::new();
        let ask = AclRequest {
            path,
            operation: Operation::Update,
            needs_sudo: true,
            wrap_ttl: None,
            data: &data,
            requester: None,
            approvals: &[],
        };
        let verdict = decide::decide(&*self.seams.acl, &unsealed.policies, &caller, &ask, None).await;
        verdict.is_ok_and(|verdict| verdict.allowed)
    }

    /// Whether this token lives. Takes none of its uses.
    pub async fn knows(&self, token: &TokenId, client: Option<IpAddr>) -> bool {
        match self.unsealed() {
            Ok(unsealed) => match unsealed.tokens.recognise(token, client).await {
                Ok(caller) => unsealed.whom(&caller.record).await.is_ok(),
                Err(_) => false,
            },
            Err(_) => false,
        }
    }

    /// After a log rotation.
    pub async fn reopen_audit(&self) {
        if let Ok(unsealed) = self.unsealed() {
            unsealed.audit.reopen();
        }
    }
}

pub(crate) fn seal_error(error: SealError) -> RequestError {
    match error {
        SealError::Storage(error) => error.into(),
        SealError::Sealed => RequestError::Sealed,
        SealError::Misconfigured(why) => RequestError::SealRefused(why),
        SealError::Wrapper { source: WrapperError::Away(_), .. } => RequestError::Unavailable(error.to_string()),
        SealError::Wrapper { .. } => RequestError::SealRefused(error.to_string()),
        other => RequestError::Invalid(other.to_string()),
    }
}
