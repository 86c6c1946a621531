//! `sys/remount`: a mount goes to another path. Its data stay; its leases end, since their names begin with the old path.
//!
//! Start with [`start`], which checks and answers, and [`carry_out`], which does the work.
//!
//! Invariants: while a mount moves, no request and no lease begins at it. After a failure it is where it was, and works. After a crash
//! it is where it was and tainted; moving it again ends that.

use std::sync::Arc;

use leasehold_model::MountPath;
use serde_json::json;

use crate::api::call::{Call, SystemHandler, handler, lease_error};
use crate::core::Unsealed;
use crate::fields::{Field, Kind};
use crate::lease::EndCause;
use crate::mount::{MountEntry, Move, MoveState, Table};
use crate::random;
use crate::request::{LogicalResponse, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "remount",
        Access::Sudo,
        "Moves a mount to another path.",
        &[Op::update("Begins to move a mount; its leases end, its data stay.", handler!(start))
            .takes(&[
                Field::visible("from", Kind::Text, "Where the mount is.").required(),
                Field::visible("to", Kind::Text, "Where it goes.").required(),
            ])
            .answers(Answer::Data(&[Field::visible("migration_id", Kind::Text, "Names the move.")]))],
    ),
    Route::new(
        "remount/status/:migration_id",
        Access::Token,
        "How far a move has come.",
        &[Op::read("Shows how far a move has come.", handler!(status)).answers(Answer::Data(&[
            Field::visible("migration_id", Kind::Text, "Names the move."),
            Field::visible("migration_info", Kind::Map, "Source, target and status of the move."),
        ]))],
    ),
];

const QUEUED: &str = "Mount move has been queued. Progress will be reported in Vault's server log, tagged with the returned migration_id";

async fn start(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let given = |name: &str| call.fields.text(name).unwrap_or_default().trim_matches('/');
    let (from, to) = (given("from"), given("to"));
    if from.is_empty() || to.is_empty() {
        return Err(RequestError::invalid("both 'from' and 'to' path must be specified as a string"));
    }
    let slashed = |path: &str| format!("{path}/");
    let entry = call
        .unsealed
        .mounts
        .by_path(&slashed(from))
        .ok_or_else(|| RequestError::Invalid(format!("no matching mount at \"{from}/\"")))?;
    if !super::mounts::is_movable(&entry) {
        return Err(RequestError::Invalid(format!("cannot remount \"{from}/\"")));
    }
    let path: MountPath = to.parse().map_err(|_| RequestError::Invalid(format!("invalid mount path: {to:?}")))?;
    let goes_to = if to.starts_with("auth/") { Table::Auth } else { Table::Mount };
    if goes_to != entry.table {
        let (kind, other) = match entry.table {
            Table::Auth => ("auth", "secret"),
            Table::Mount => ("secret", "auth"),
        };
        return Err(RequestError::Invalid(format!("cannot remount {kind} mount to {other} mount \"{to}/\"")));
    }
    if super::mounts::is_reserved(entry.table, &path) {
        return Err(RequestError::Invalid(format!("cannot remount to \"{to}/\"")));
    }
    if let Some(other) = call.unsealed.mounts.all().iter().find(|other| other.path.conflicts_with(&path)) {
        return Err(RequestError::Invalid(format!("path already in use at \"{}\"", other.path)));
    }
    let id = random::uuid(&*call.core.seams.entropy);
    let begun = Some((entry.accessor.clone(), call.core.seams.clock.now()));
    let begun =
        Move { id: id.clone(), from: entry.path.clone(), to: path.clone(), state: MoveState::InProgress, begun };
    call.unsealed.mounts.moves.note(begun.clone()).await?;
    // It goes on when nobody waits for it any more.
    let (unsealed, nodes) = (Arc::clone(call.unsealed), Arc::clone(&call.core.nodes));
    let cause = EndCause::MountMoved { mount: entry.path.to_string(), by: call.asker() };
    tokio::spawn(async move {
        let Move { id: migration, from, to, .. } = begun.clone();
        let moved = carry_out(&unsealed, &entry, path, &cause).await;
        let moved = moved.and(nodes.settle().await);
        let state = match moved {
            Ok(()) => {
                tracing::info!(migration, "moved the mount {from} to {to}");
                MoveState::Success
            }
            Err(error) => {
                tracing::error!(migration, %error, "could not move the mount {from} to {to}: {error}");
                MoveState::Failure
            }
        };
        if let Err(error) = unsealed.mounts.moves.note(Move { state, ..begun }).await {
            tracing::warn!(migration, %error, "could not store what became of a move of a mount");
        }
    });
    Ok(LogicalResponse::json(json!({ "migration_id": id })).shaped(Shape::Duplicated).warn(QUEUED))
}

/// Closes the mount, ends its leases, gives it the new path and opens it there. A mount whose leases do not end opens again where
/// it was.
async fn carry_out(
    unsealed: &Unsealed,
    entry: &MountEntry,
    to: MountPath,
    cause: &EndCause,
) -> Result<(), RequestError> {
    let close = |moved: &mut MountEntry| -> Result<(), RequestError> {
        moved.tainted = true;
        Ok(())
    };
    if !unsealed.mounts.update(&entry.accessor, close).await? {
        return Err(RequestError::Invalid(format!("no matching mount at \"{}\"", entry.path)));
    }
    crate::fail::point("move-closed");
    if entry.table == Table::Auth {
        // What logins at the old path have made ends with that path, as their leases do.
        unsealed.leases.end_tokens_of(&entry.accessor, cause).await.map_err(lease_error)?;
    }
    let ended = unsealed.leases.revoke_mount(&entry.accessor, cause).await;
    crate::fail::point("move-revoked");
    let outcome = match ended {
        Ok(()) => unsealed.mounts.relocate(&entry.accessor, &entry.path, to).await,
        Err(failure) => Err(RequestError::Invalid(failure.to_string())),
    };
    if outcome.is_err() {
        let open = |moved: &mut MountEntry| -> Result<(), RequestError> {
            moved.tainted = false;
            Ok(())
        };
        unsealed.mounts.update(&entry.accessor, open).await?;
    }
    outcome
}

async fn status(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let id = call.capture("migration_id");
    let status = call.unsealed.mounts.moves.find(id).await?.ok_or(RequestError::NotFound)?;
    let state = status.state_by(&call.unsealed.mounts.all(), call.core.seams.clock.now());
    Ok(LogicalResponse::json(json!({
        "migration_id": id,
        "migration_info": {
            "source_mount": status.from.as_str(),
            "target_mount": status.to.as_str(),
            "status": state.as_str(),
        },
    })))
}
