//! `sys/locked-users`: names that failed logins have locked, and how an operator unlocks one.

use leasehold_model::MountAccessor;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::mount::Table;
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "locked-users",
        Access::Token,
        "The names that too many failed logins have locked.",
        &[Op::read("Lists the locked names.", handler!(list))
            .takes(&[Field::visible("mount_accessor", Kind::Text, "Shows this auth mount alone.")])
            .answers(Answer::Data(&[
                Field::visible("by_namespace", Kind::Any, "The locked names, by namespace and mount."),
                Field::visible("total", Kind::Int, "How many names are locked."),
            ]))],
    ),
    Route::new(
        "locked-users/:mount_accessor/unlock/*alias_identifier",
        Access::Token,
        "A locked name.",
        &[Op::update("Unlocks a name.", handler!(unlock))],
    ),
];

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let only = call.fields.text("mount_accessor").filter(|only| !only.is_empty());
    let now = call.core.seams.clock.now();
    let mut mounts: Vec<(String, Vec<String>)> = Vec::new();
    for entry in call.unsealed.mounts.all().iter().filter(|entry| entry.table == Table::Auth) {
        let accessor = &entry.accessor;
        if only.is_some_and(|only| accessor.as_str() != only) {
            continue;
        }
        let names = call.unsealed.lockouts.locked(accessor, &entry.lockout.unwrap_or_default(), now).await?;
        if !names.is_empty() {
            mounts.push((accessor.as_str().to_owned(), names));
        }
    }
    mounts.sort();
    let total: usize = mounts.iter().map(|(_, names)| names.len()).sum();
    mounts.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let mounts: Vec<Value> = mounts
        .into_iter()
        .map(|(mount, names)| json!({ "mount_accessor": mount, "counts": names.len(), "alias_identifiers": names }))
        .collect();
    Ok(LogicalResponse::json(json!({
        "by_namespace": [{ "namespace_id": "root", "namespace_path": "", "counts": total, "mount_accessors": mounts }],
        "total": total,
    })))
}

async fn unlock(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let mount = MountAccessor::new(call.capture("mount_accessor"));
    // Only of mounts that there are: nothing is remembered of others.
    if call.unsealed.mounts.by_accessor(&mount).is_some() {
        call.unsealed.lockouts.unlock(&mount, call.capture("alias_identifier")).await?;
    }
    Ok(LogicalResponse::empty())
}
