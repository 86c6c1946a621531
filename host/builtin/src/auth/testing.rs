//! A mount without a server around it, for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use leasehold_core::connection::ClientCertificate;
use leasehold_core::fields::Fields;
use leasehold_core::seams::auth::{AuthContext, AuthRequest};
use leasehold_core::seams::engine::MountView;
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::testing::{CountingEntropy, ManualClock};
use leasehold_model::{MountAccessor, Operation, Ttl};
use leasehold_storage::MemoryStorage;

/// What a method of a mount with this path may use.
pub(super) fn mount(path: &str, clock: &Arc<ManualClock>) -> AuthContext {
    let accessor = MountAccessor::new("auth_test_1");
    AuthContext {
        storage: MountStorage::new(Arc::new(MemoryStorage::new(clock.clone())), accessor.clone()),
        clock: clock.clone(),
        entropy: Arc::new(CountingEntropy::default()),
        mount: MountView {
            path: path.parse().unwrap(),
            accessor,
            default_lease_ttl: Ttl::from_secs(60),
            max_lease_ttl: Ttl::from_secs(60),
            options: BTreeMap::new(),
            installation: "test".to_owned(),
        },
    }
}

/// A login without fields over such a connection.
pub(super) fn login(at: &AuthContext, client: Option<IpAddr>, chain: Option<Vec<Vec<u8>>>) -> AuthRequest {
    AuthRequest {
        context: at.clone(),
        operation: Operation::Update,
        pattern: "login",
        captures: BTreeMap::new(),
        fields: Fields::default(),
        client,
        certificate: chain.map(|chain| Arc::new(ClientCertificate { chain })),
    }
}
