//! Snapshots of all that is stored, under the paths that backup jobs for Vault call (contract.md §2.1).

use std::sync::Arc;

use crate::api::call::{Call, SystemHandler, handler};
use crate::core::Core;
use crate::request::{Attachment, LogicalResponse};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::snapshot::{Provenance, SnapshotError, SnapshotOrigin};
use crate::seams::storage::StorageError;

/// As in Vault: compressed, and a tar archive within.
const KIND: &str = "application/gzip";

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "storage/raft/snapshot",
        Access::SudoToWrite,
        "A snapshot of everything that is stored, for every kind of storage.",
        &[
            Op::read("Answers with a snapshot, as the file that it is.", handler!(save)).answers(Answer::File(KIND)),
            Op::update("Replaces everything by a snapshot of this installation; the server seals.", handler!(restore))
                .takes_file(),
        ],
    ),
    Route::new(
        "storage/raft/snapshot-force",
        Access::Sudo,
        "Restores a snapshot of another installation.",
        &[Op::update(
            "Replaces everything by a snapshot of any installation; the server seals.",
            handler!(restore_any),
        )
        .takes_file()],
    ),
];

async fn save(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (core, installation) = (call.core, &call.unsealed.installation);
    let origin = SnapshotOrigin {
        cluster_id: installation.cluster_id.clone(),
        cluster_name: installation.cluster_name.clone(),
        version: core.settings.version.clone(),
        storage_type: core.settings.storage_type.to_owned(),
        made_at: core.seams.clock.now(),
    };
    let spool = core.seams.snapshots.save(origin).await.map_err(snapshot_error)?;
    tracing::info!(bytes = spool.len(), by = call.asker(), "a snapshot was made");
    Ok(LogicalResponse { attachment: Some(Attachment { spool, kind: KIND }), ..LogicalResponse::default() })
}

async fn restore(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    restored(call, Provenance::OwnOnly).await
}

async fn restore_any(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    restored(call, Provenance::Any).await
}

async fn restored(call: &Call<'_>, from: Provenance) -> Result<LogicalResponse, RequestError> {
    let upload = call.request.upload.as_ref().filter(|upload| !upload.is_empty());
    let upload = upload.ok_or_else(|| RequestError::invalid("the request has no body: send the snapshot as it is"))?;
    let core: &Arc<Core> = call.core;
    core.refuse_beside_others("and unseal them with the snapshot's keys afterwards").await?;
    let checked = core.seams.snapshots.check(Arc::clone(upload), from).await.map_err(snapshot_error)?;
    core.restore(call.unsealed, checked, &call.asker()).await.map_err(|error| match error {
        SnapshotError::Storage(StorageError::Unavailable(_)) => RequestError::Unavailable(HALFWAY.to_owned()),
        other => snapshot_error(other),
    })?;
    Ok(LogicalResponse::empty())
}

/// The store replaces everything in one step. Whether it did is not known only when the answer to the end of that step was lost.
const HALFWAY: &str = "the storage failed while the snapshot was being restored: it holds what it held before, or, if only its last \
                       answer was lost, what is in the snapshot, and never a part of either; this server is sealed: unseal it when the \
                       storage is back, look, and restore again";

fn snapshot_error(error: SnapshotError) -> RequestError {
    match error {
        SnapshotError::Damaged(why) => RequestError::Invalid(format!("the snapshot is refused: {why}")),
        // Vault's words.
        SnapshotError::Foreign => RequestError::invalid(
            "could not verify hash file, possibly the snapshot is using a different set of unseal keys; use the snapshot-force API to \
             bypass this check",
        ),
        SnapshotError::Busy(why) => RequestError::Unavailable(why.to_owned()),
        SnapshotError::Disk(why) => RequestError::Engine(format!("the snapshot could not be made or read: {why}")),
        SnapshotError::Storage(error) => error.into(),
    }
}
