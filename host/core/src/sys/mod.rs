//! The `sys/` tree: mounts, policies, leases, audit, modules, capabilities, the seal.
//!
//! Must not know: HTTP. It reads and changes the other unsealed through their own functions.
//!
//! Start with [`ROUTES`]; each file below serves one branch of the tree.

mod audit;
mod capabilities;
pub(crate) mod help;
mod leases;
mod metrics;
mod modules;
mod mounts;
mod policies;
mod seal;
mod ui;

use crate::call::Call;
use crate::request::{LogicalResponse, RequestError};
use crate::routes::Route;

pub(crate) use seal::before_unseal;

/// All routes; literal ones before captures.
pub const ROUTES: &[Route] = &{
    let mut all = [seal::ROUTES[0]; LEN];
    let parts: [&[Route]; 9] = [
        seal::ROUTES,
        mounts::ROUTES,
        policies::ROUTES,
        capabilities::ROUTES,
        leases::ROUTES,
        audit::ROUTES,
        modules::ROUTES,
        ui::ROUTES,
        metrics::ROUTES,
    ];
    let mut at = 0;
    let mut part = 0;
    while part < parts.len() {
        let mut i = 0;
        while i < parts[part].len() {
            all[at] = parts[part][i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    all
};

const LEN: usize = seal::ROUTES.len()
    + mounts::ROUTES.len()
    + policies::ROUTES.len()
    + capabilities::ROUTES.len()
    + leases::ROUTES.len()
    + audit::ROUTES.len()
    + modules::ROUTES.len()
    + ui::ROUTES.len()
    + metrics::ROUTES.len();

/// What Vault protects and nothing serves here: without `sudo` a token is refused before it learns that there is nothing. A
/// `*` stands for any rest. What is served says in its own route who may call it.
const PROTECTED: [&str; 11] = [
    "sys/remount",
    "sys/raw",
    "sys/raw/*",
    "sys/rotate/root",
    "sys/config/cors",
    "sys/config/auditing/*",
    "sys/config/ui/headers/*",
    "sys/plugins/catalog/*",
    "sys/internal/inspect/*",
    "auth/token/accessors*",
    "auth/token/revoke-orphan/*",
];

/// Whether a path that no route matches needs `sudo` all the same.
pub(crate) fn is_protected(path: &str) -> bool {
    PROTECTED.iter().any(|known| match known.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => path == *known,
    })
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let first = call.pattern.split('/').next().unwrap_or_default();
    match first {
        "mounts" | "auth" => mounts::handle(call).await,
        "policy" | "policies" if call.pattern.starts_with("policies/egp") => modules::handle(call).await,
        "policy" | "policies" => policies::handle(call).await,
        "capabilities" | "capabilities-self" | "capabilities-accessor" => capabilities::handle(call).await,
        "leases" | "renew" | "revoke" | "revoke-prefix" | "revoke-force" => leases::handle(call).await,
        "audit" | "audit-hash" | "config" => audit::handle(call).await,
        "modules" => modules::handle(call).await,
        "internal" => ui::handle(call).await,
        "metrics" => metrics::handle(call).await,
        _ => seal::handle(call).await,
    }
}
