//! `sys/locked-users`: names that failed logins have locked, and how an operator unlocks one.

use leasehold_model::MountAccessor;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
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
    let rules = |accessor: &MountAccessor| {
        call.unsealed.mounts.by_accessor(accessor).and_then(|entry| entry.lockout).unwrap_or_default()
    };
    let mut locked = call.unsealed.lockouts.locked(rules, call.core.seams.clock.now());
    if let Some(only) = call.fields.text("mount_accessor").filter(|only| !only.is_empty()) {
        locked.retain(|mount, _| mount == only);
    }
    let total: usize = locked.values().map(Vec::len).sum();
    let mut mounts: Vec<(String, Vec<String>)> = locked.into_iter().collect();
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
        call.unsealed.lockouts.forget(&mount, call.capture("alias_identifier"));
    }
    Ok(LogicalResponse::empty())
}
