//! The `sys/` tree: mounts, policies, leases, audit, modules, capabilities, the seal.
//!
//! Must not know: HTTP. It reads and changes the other unsealed through their own functions.
//!
//! Start with [`ROUTES`]; each file below serves one branch of the tree.

mod audit;
mod capabilities;
mod control_group;
pub(crate) mod help;
mod leases;
mod locked_users;
mod metrics;
mod modules;
mod mounts;
mod nodes;
mod openapi;
mod passwords;
mod policies;
mod quotas;
mod rekey;
mod remount;
mod root_token;
mod rotation;
mod seal;
mod snapshots;
mod tools;
mod ui;
pub(crate) mod wrapping;

use std::sync::Arc;

use leasehold_model::Operation;

use crate::api::call::{SealedCall, SystemHandler};
use crate::connection::ConnectionInfo;
use crate::core::Core;
use crate::fields::Fields;
use crate::request::{LogicalRequest, LogicalResponse};
use crate::routes::{self, Access, Route};
use crate::seams::error::RequestError;

const TABLES: &[&[Route<SystemHandler>]] = &[
    seal::ROUTES,
    nodes::ROUTES,
    mounts::ROUTES,
    remount::ROUTES,
    policies::ROUTES,
    passwords::ROUTES,
    capabilities::ROUTES,
    leases::ROUTES,
    audit::ROUTES,
    modules::ROUTES,
    ui::ROUTES,
    openapi::ROUTES,
    metrics::ROUTES,
    locked_users::ROUTES,
    snapshots::ROUTES,
    wrapping::ROUTES,
    control_group::ROUTES,
    tools::ROUTES,
    root_token::ROUTES,
    quotas::ROUTES,
    rekey::ROUTES,
    rotation::ROUTES,
];

/// All routes; literal ones before captures.
pub const ROUTES: &[Route<SystemHandler>] = &routes::joined::<_, { routes::count(TABLES) }>(TABLES);

/// What Vault protects and nothing serves here: without `sudo` a token is refused before it learns that there is nothing. A
/// `*` stands for any rest. What is served says in its own route who may call it.
///
/// This list is kept by hand, since nothing here declares paths of which this server knows only that Vault has them.
/// `tests/all/acl.rs` asks for each kind of them here and of a real OpenBao, and a path whose route comes leaves the list.
const PROTECTED: [&str; 9] = [
    "sys/raw",
    "sys/raw/*",
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

/// Whether a write to this path has a file as its body. It needs the rights that [`Core::may_upload`] asks about before it is read.
#[must_use]
pub fn takes_file(path: &str) -> bool {
    let Some(below) = path.strip_prefix("sys/") else { return false };
    let mut routes = ROUTES.iter().filter(|route| route.pattern == below);
    routes.any(|route| route.op(Operation::Update).is_some_and(|op| op.takes_file))
}

/// Answers the routes that are there while the server is sealed; `None`: the request goes the usual way.
pub(crate) async fn before_unseal(
    core: &Arc<Core>,
    request: &LogicalRequest,
) -> Option<Result<LogicalResponse, RequestError>> {
    let path = request.path.strip_prefix("sys/")?;
    if (path, request.operation) == ("seal", Operation::Update) && is_uninitialized(core).await {
        return Some(Ok(LogicalResponse::empty()));
    }
    let mut early = ROUTES.iter().filter(|route| route.access == Access::WhileSealed);
    let route = early.find(|route| route.pattern == path)?;
    if request.operation == Operation::Help {
        return None;
    }
    let Some(op) = route.op(request.operation) else { return Some(Err(RequestError::MethodNotAllowed)) };
    let SystemHandler::WhileSealed(handle) = op.handler else { return None };
    if request.body_withheld {
        return Some(Err(RequestError::BodyTooLarge));
    }
    let fields = match Fields::coerce(op.fields, &request.data) {
        Ok(fields) => fields,
        Err(error) => return Some(Err(RequestError::Invalid(error.to_string()))),
    };
    let from = request.client.as_ref().and_then(ConnectionInfo::address);
    Some(handle(&SealedCall { core, fields, from }).await)
}

async fn is_uninitialized(core: &Core) -> bool {
    core.seal_status().await.is_ok_and(|status| !status.initialized)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route says itself who may call it: a row that stayed here after its route came would never be asked.
    #[test]
    fn what_is_protected_by_hand_is_served_by_no_route() {
        for known in PROTECTED {
            let path = known.replace('*', "x");
            let is_served = match path.strip_prefix("sys/") {
                Some(below) => ROUTES.iter().any(|route| route.captures(below).is_some()),
                None => {
                    let below = path.strip_prefix("auth/token/").expect("a path of this server");
                    crate::api::token::ROUTES.iter().any(|route| route.captures(below).is_some())
                }
            };
            assert!(!is_served, "{known}");
        }
        assert!(is_protected("sys/raw/x") && is_protected("auth/token/accessors/x") && !is_protected("sys/rawx"));
    }
}
