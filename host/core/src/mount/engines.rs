//! Finds the engine behind a mount, and the corner of the world it may see.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_model::{MountAccessor, Ttl};

use super::{MountEntry, MountTable, Table};
use crate::passwords::PasswordPolicies;
use crate::seams::engine::{EngineContext, MountView, SecretsEngine};
use crate::seams::host::{Clock, Entropy};
use crate::seams::mount_leases::MountLeases;
use crate::seams::mount_storage::MountStorage;
use crate::seams::sandbox::TemplateRenderer;
use crate::seams::storage::Storage;

/// TTLs where neither role nor mount says anything.
#[derive(Clone, Copy, Debug)]
pub struct SystemTtls {
    pub default_lease_ttl: Ttl,
    pub max_lease_ttl: Ttl,
}

pub struct Engines {
    pub kinds: BTreeMap<&'static str, Arc<dyn SecretsEngine>>,
    pub mounts: Arc<MountTable>,
    pub storage: Arc<dyn Storage>,
    pub leases: Arc<dyn MountLeases>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub templates: Arc<dyn TemplateRenderer>,
    pub installation: String,
    pub ttls: SystemTtls,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl Engines {
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Option<&Arc<dyn SecretsEngine>> {
        self.kinds.get(kind)
    }

    #[must_use]
    pub fn at(&self, accessor: &MountAccessor) -> Option<(Arc<dyn SecretsEngine>, EngineContext)> {
        let entry = self.mounts.by_accessor(accessor)?;
        let engine = self.of_kind(&entry.kind)?.clone();
        Some((engine, self.context(&entry)))
    }

    /// Default and maximum TTL that hold at a mount. The system's default may be more than a mount's maximum: then whoever is
    /// cut to that is told.
    #[must_use]
    pub fn ttls(&self, entry: &MountEntry) -> SystemTtls {
        SystemTtls {
            default_lease_ttl: entry.default_lease_ttl.if_set().unwrap_or(self.ttls.default_lease_ttl),
            max_lease_ttl: entry.max_lease_ttl.if_set().unwrap_or(self.ttls.max_lease_ttl),
        }
    }

    #[must_use]
    pub fn passwords(&self) -> PasswordPolicies {
        PasswordPolicies::new(self.storage.clone(), self.entropy.clone())
    }

    #[must_use]
    pub fn context(&self, entry: &MountEntry) -> EngineContext {
        let ttls = self.ttls(entry);
        debug_assert_eq!(entry.table, Table::Mount);
        EngineContext {
            storage: MountStorage::new(self.storage.clone(), entry.accessor.clone()),
            leases: self.leases.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            templates: self.templates.clone(),
            passwords: self.passwords(),
            mount: MountView {
                path: entry.path.clone(),
                accessor: entry.accessor.clone(),
                default_lease_ttl: ttls.default_lease_ttl,
                max_lease_ttl: ttls.max_lease_ttl,
                options: entry.engine_options(),
                installation: self.installation.clone(),
            },
        }
    }
}
