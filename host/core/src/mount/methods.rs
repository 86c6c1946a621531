//! Finds the auth method behind a mount, and the corner of the world that it may see.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_model::MountAccessor;

use super::{Engines, MountEntry, SystemTtls, Table};
use crate::seams::auth::{AuthContext, AuthMethod};
use crate::seams::engine::MountView;
use crate::seams::mount_storage::MountStorage;

/// The kinds of auth methods that can be enabled. `token` is none of them: it is always there.
pub struct AuthMethods {
    kinds: BTreeMap<&'static str, Arc<dyn AuthMethod>>,
    /// What mounts of both tables share: storage, clock, TTLs.
    engines: Arc<Engines>,
}

impl std::fmt::Debug for AuthMethods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl AuthMethods {
    #[must_use]
    pub fn new(kinds: BTreeMap<&'static str, Arc<dyn AuthMethod>>, engines: Arc<Engines>) -> Self {
        Self { kinds, engines }
    }

    /// The method that serves a mount.
    #[must_use]
    pub fn of(&self, entry: &MountEntry) -> Option<&Arc<dyn AuthMethod>> {
        if entry.table == Table::Auth { self.of_kind(&entry.kind) } else { None }
    }

    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Option<&Arc<dyn AuthMethod>> {
        self.kinds.get(kind)
    }

    /// The method and the entry of the mount that made a token.
    #[must_use]
    pub fn at(&self, accessor: &MountAccessor) -> Option<(&Arc<dyn AuthMethod>, Arc<MountEntry>)> {
        let entry = self.engines.mounts.by_accessor(accessor)?;
        Some((self.of(&entry)?, entry))
    }

    /// Default and maximum TTL of the tokens that a mount makes.
    #[must_use]
    pub fn ttls(&self, entry: &MountEntry) -> SystemTtls {
        self.engines.ttls(entry)
    }

    #[must_use]
    pub fn context(&self, entry: &MountEntry) -> AuthContext {
        let ttls = self.engines.ttls(entry);
        AuthContext {
            storage: MountStorage::new(self.engines.storage.clone(), entry.accessor.clone()),
            clock: self.engines.clock.clone(),
            entropy: self.engines.entropy.clone(),
            mount: MountView {
                path: entry.path.clone(),
                accessor: entry.accessor.clone(),
                default_lease_ttl: ttls.default_lease_ttl,
                max_lease_ttl: ttls.max_lease_ttl,
                options: entry.engine_options(),
                installation: self.engines.installation.clone(),
            },
        }
    }
}
