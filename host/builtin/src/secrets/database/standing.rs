//! Connections that leases stand on: without one, or on another server, its leases could not end any more.
//!
//! Must not know: what is changed. Start with [`commit`].

use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_leases::{NotCommitted, Standing};
use leasehold_core::seams::mount_storage::MountBatch;

use super::target_name;

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
