//! Which adapter stands behind which seam.

use std::path::PathBuf;
use std::sync::Arc;

use leasehold_builtin::audit::Devices;
use leasehold_core::Core;
use leasehold_core::audit::DeviceEntry;
use leasehold_core::core::{Seams, Settings};
use leasehold_core::seams::audit::AuditDevices as _;
use leasehold_core::seams::host::{Clock, Entropy, Metrics};
use leasehold_core::seams::seal::KeyWrapper;
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_sandbox::{Compiler, Config as SandboxConfig, Sandbox};
use leasehold_seals::{StaticSeal, TransitSeal};
use leasehold_storage::{Barrier, MemoryStorage, PostgresSettings, PostgresStorage, SqliteStorage, transfer};
use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::causes::with_causes;
use crate::clock::SystemClock;
use crate::config::{PostgresqlStore, SealBlock, SealSettings, Store};
use crate::entropy::SystemEntropy;
use crate::{COMPILE_WORKER, guests};

/// A server without doors, and the store if it is one that other servers may share: it says when this one leaves.
pub(crate) struct Wired {
    pub(crate) core: Arc<Core>,
    pub(crate) postgresql: Option<Arc<PostgresStorage>>,
}

/// A server without doors.
///
/// # Errors
/// In words for the operator.
pub(crate) async fn core(
    store: &Store,
    seals: Seals,
    settings: Settings,
    audit_directory: Option<PathBuf>,
    connection_files_dir: Option<PathBuf>,
    accepts_changed_storage: bool,
    metrics: Arc<dyn Metrics>,
) -> Result<Wired, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let Opened { store: inner, postgresql } = open(store, false).await?;
    if let Some(source) = transfer::unfinished(&*inner).await.map_err(|error| with_causes(&error))? {
        if let Some(postgresql) = postgresql {
            postgresql.leave().await;
        }
        return Err(format!(
            "the storage ({}) is not whole: it was to be filled from {source}, and that did not come to its end. Run `leasehold operator \
             migrate` again; with `-reset` it empties the storage instead",
            store.shown()
        ));
    }
    let barrier = Barrier::new(inner, entropy.clone());
    let barrier = barrier.accepting_changed_rows(accepts_changed_storage);
    let barrier = Arc::new(barrier.with_wrappers(seals.current, seals.disabled));
    let mut sandbox = SandboxConfig::new(guests::builtins());
    sandbox.compiler = Compiler::this_program(&[COMPILE_WORKER]);
    let sandbox = Arc::new(Sandbox::new(sandbox, clock.clone()).map_err(|error| with_causes(&error))?);
    let seams = Seams {
        storage: barrier.clone(),
        seal: barrier.clone(),
        snapshots: barrier,
        clock,
        entropy,
        acl: sandbox.clone(),
        templates: sandbox.clone(),
        modules: sandbox,
        engines: leasehold_builtin::registry::secrets_engines(connection_files_dir),
        auth_methods: leasehold_builtin::registry::auth_methods(),
        audit_devices: Arc::new(Devices::of_api(audit_directory)),
        declared_audit_devices: Arc::new(Devices::of_configuration()),
        metrics,
    };
    Ok(Wired { core: Core::new(seams, settings), postgresql })
}

/// What opens the server instead of people.
#[derive(Default)]
pub(crate) struct Seals {
    current: Option<Arc<dyn KeyWrapper>>,
    /// What the server moves away from.
    disabled: Option<Arc<dyn KeyWrapper>>,
}

impl Seals {
    /// Keeps up what the seal needs, until it is dropped.
    pub(crate) fn keep(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(seal) = self.current.clone() {
            tasks.spawn(async move { seal.keep().await });
        }
        tasks
    }
}

/// What the configuration says of seals, ready for use.
///
/// # Errors
/// In words for the operator: a key that cannot be read, a setting that is missing.
pub(crate) fn seals(blocks: &[SealBlock]) -> Result<Seals, String> {
    let mut seals = Seals::default();
    let mut problems = Vec::new();
    for SealBlock { settings, disabled } in blocks {
        let made: Result<Arc<dyn KeyWrapper>, String> = match settings {
            SealSettings::Static(settings) => {
                StaticSeal::new(settings.clone(), Arc::new(SystemEntropy)).map(|seal| Arc::new(seal) as _)
            }
            SealSettings::Transit(settings) => TransitSeal::new(settings).map(|seal| Arc::new(seal) as _),
        };
        match made {
            Ok(seal) => *(if *disabled { &mut seals.disabled } else { &mut seals.current }) = Some(seal),
            Err(why) => problems.push(format!("seal \"{}\": {why}", settings.kind())),
        }
    }
    if problems.is_empty() { Ok(seals) } else { Err(problems.join("\n")) }
}

/// A store, and once more as the one whose claim can be lost and is to be given back.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn WholeStore>,
    pub(crate) postgresql: Option<Arc<PostgresStorage>>,
}

/// Opens a store; keeps others out of it, if it is one that several servers may share and `alone` says so.
///
/// # Errors
/// In words for the operator.
pub(crate) async fn open(store: &Store, alone: bool) -> Result<Opened, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut postgresql = None;
    let store: Arc<dyn WholeStore> = match store {
        Store::Memory => Arc::new(MemoryStorage::new(clock)),
        Store::Sqlite(path) => Arc::new(SqliteStorage::open(path, clock).map_err(|error| with_causes(&error))?),
        Store::Postgresql(store) => {
            let settings = PostgresSettings { alone, ..postgresql_settings(store)? };
            let opened = PostgresStorage::open(settings).await.map_err(|error| with_causes(&error))?;
            Arc::clone(postgresql.insert(Arc::new(opened))) as Arc<dyn WholeStore>
        }
    };
    Ok(Opened { store, postgresql })
}

/// What is wrong with a store, as far as that can be seen without opening it.
pub(crate) fn unusable_store(store: &Store) -> Option<String> {
    let Store::Postgresql(store) = store else { return None };
    postgresql_settings(store).and_then(|settings| settings.check().map_err(|error| with_causes(&error))).err()
}

fn postgresql_settings(store: &PostgresqlStore) -> Result<PostgresSettings, String> {
    let url = store.connection_url.clone().ok_or(
        "`storage \"postgresql\"` needs `connection_url`, or the environment's `VAULT_PG_CONNECTION_URL`".to_owned(),
    )?;
    let settings = PostgresSettings::new(SecretString::from(url.0), format!("process {}", std::process::id()));
    let max_parallel = store.max_parallel.unwrap_or(settings.max_parallel);
    Ok(PostgresSettings {
        table: store.table.clone().unwrap_or_else(|| PostgresSettings::TABLE.to_owned()),
        max_parallel,
        max_idle_connections: store.max_idle_connections.unwrap_or(max_parallel),
        skip_create_table: store.skip_create_table,
        max_connect_retries: store
            .max_connect_retries
            .map_or(settings.max_connect_retries, |count| u32::try_from(count).unwrap_or(u32::MAX)),
        ..settings
    })
}

/// What keeps the devices that the configuration declares from being written, in words for the operator.
pub(crate) async fn unusable_audit_devices(declared: &[DeviceEntry]) -> Vec<String> {
    let devices = Devices::of_configuration();
    let mut problems = Vec::new();
    let mut taken = Vec::new();
    for DeviceEntry { kind, path, options, .. } in declared {
        match devices.open(kind, options, &taken).await {
            Ok(device) => taken.extend(device.destination()),
            Err(error) => problems.push(format!("audit \"{kind}\" ({path}): {}", with_causes(&error))),
        }
    }
    problems
}

/// The HTTP front end's randomness.
pub(crate) fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy)
}
