//! What clients ask before they ask: visible mounts, the preflight (contract.md §2.7).

use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::mount::{MountEntry, Table};
use crate::policy::decide;
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "internal/ui/mounts",
        Access::Unauthenticated,
        "The mounts that the caller can reach.",
        &[Op::read("Lists the mounts that the caller can reach.", handler!(mounts)).answers(Answer::Data(&[
            Field::visible("auth", Kind::Map, "Auth methods, by path."),
            Field::visible("secret", Kind::Map, "Secrets engines, by path."),
        ]))],
    ),
    Route::new(
        "internal/ui/mounts/*path",
        Access::Unauthenticated,
        "The mount that serves a path.",
        &[Op::read("Shows the mount that serves a path.", handler!(preflight))
            .answers(Answer::Data(super::mounts::ENTRY))],
    ),
];

/// Without a token, what the operator made visible; with one, also what it can reach. A token that is no good is refused.
async fn mounts(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (mut auth, mut secret) = (Object::new(), Object::new());
    for entry in call.unsealed.mounts.all().iter() {
        let shown = match call.caller {
            Some(caller) if is_public(entry) || reaches(call, caller, entry).await? => super::mounts::shown(entry),
            None if is_public(entry) => Object::from_iter([
                ("description".to_owned(), entry.description.clone().into()),
                ("options".to_owned(), entry.options.clone().map_or(Value::Null, Value::Object)),
                ("type".to_owned(), entry.kind.clone().into()),
            ]),
            _ => continue,
        };
        let table = if entry.table == Table::Auth { &mut auth } else { &mut secret };
        table.insert(entry.shown_path().to_owned(), shown.into());
    }
    Ok(LogicalResponse::json(json!({ "auth": auth, "secret": secret })))
}

/// Shown to everybody, by the operator's wish.
fn is_public(entry: &MountEntry) -> bool {
    entry.listing_visibility == "unauth"
}

pub(super) async fn reaches(
    call: &Call<'_>,
    caller: &crate::token::Caller,
    entry: &MountEntry,
) -> Result<bool, RequestError> {
    decide::grants_below(&*call.core.seams.acl, &call.unsealed.policies, caller, entry.path.as_str()).await
}

/// Unknown and unreachable mounts answer alike, so that nobody can probe for them.
async fn preflight(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let caller = call.caller()?;
    let path = call.capture("path");
    let refused = || {
        RequestError::Forbidden(format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{}/\"",
            path.trim_end_matches('/')
        ))
    };
    let (entry, _) = call.unsealed.mounts.route(path).ok_or_else(refused)?;
    if !reaches(call, caller, &entry).await? {
        return Err(refused());
    }
    let mut data = super::mounts::shown(&entry);
    data.insert("path".into(), entry.shown_path().into());
    Ok(LogicalResponse::data(data).shaped(Shape::Envelope))
}
