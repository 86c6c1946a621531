//! Connections that leases and static roles stand on: without one, or on another server, its leases could not end any more; without one,
//! no password of its static roles could be read or changed.
//!
//! Must not know: what is changed. Start with [`commit`] and [`StaticRoles`].

use std::fmt;

use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_leases::{NotCommitted, Standing};
use leasehold_core::seams::mount_storage::MountBatch;

use super::static_role::{self, StaticRole};
use super::target_name;

/// Static roles that are counted.
const COUNTED_MAX: usize = 1_000;
/// Static roles that are named.
const NAMED_MAX: usize = 3;

/// What is to be done although leases stand on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Yes,
    No,
}

/// Writes a batch after which the leases of a connection could not end. Gives back those that it was forced on.
///
/// # Errors
/// `refused` says in words for the client why not, from what stands there; or as storage. Nothing was written.
pub(super) async fn commit(
    at: &EngineContext,
    connection: &str,
    batch: MountBatch,
    force: Force,
    refused: impl Fn(&Standing) -> String + Send,
) -> Result<Option<Standing>, RequestError> {
    let (mount, target) = (&at.mount.accessor, target_name(at, connection));
    if force == Force::Yes {
        at.storage.commit(batch).await?;
        let standing = at.leases.standing(mount, &target).await?;
        return Ok((standing.leases > 0).then_some(standing));
    }
    match at.leases.commit_unless_standing(mount, &target, at.storage.batch(batch)).await {
        Ok(()) => Ok(None),
        Err(NotCommitted::Standing(standing)) => Err(RequestError::Invalid(refused(&standing))),
        Err(NotCommitted::Failed(error)) => Err(error),
    }
}

/// The static roles of a connection, if there are any.
pub(super) struct StaticRoles {
    count: usize,
    /// The first of them.
    names: Vec<String>,
}

impl StaticRoles {
    /// # Errors
    /// As storage.
    pub(super) async fn of(at: &EngineContext, connection: &str) -> Result<Option<Self>, RequestError> {
        let mut found = Self { count: 0, names: Vec::new() };
        for name in at.storage.names("static-role/", "", usize::MAX).await? {
            let Some(stored) = at.storage.get(&static_role::key(&name)).await? else { continue };
            // What is not readable has no password that anybody could be given.
            let Ok(role) = serde_json::from_slice::<StaticRole>(&stored.value) else { continue };
            if role.db_name != connection {
                continue;
            }
            found.count += 1;
            if found.names.len() < NAMED_MAX {
                found.names.push(name);
            }
            if found.count >= COUNTED_MAX {
                break;
            }
        }
        Ok((found.count > 0).then_some(found))
    }
}

/// `2 static roles ("app", "web")`.
impl fmt::Display for StaticRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.count >= COUNTED_MAX { " or more" } else { "" };
        let roles = if self.count == 1 { "static role" } else { "static roles" };
        let names: Vec<String> = self.names.iter().map(|name| format!("{name:?}")).collect();
        let others = if self.count > self.names.len() { ", …" } else { "" };
        write!(f, "{}{more} {roles} ({}{others})", self.count, names.join(", "))
    }
}
