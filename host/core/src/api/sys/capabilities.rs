//! `sys/capabilities`, `-self` and `-accessor` (contract.md §2.4).

use std::borrow::Cow;

use leasehold_model::{Accessor, Capabilities, Operation, TokenHash, TokenId};
use serde_json::json;

use crate::api::backend::Backend;
use crate::api::call::{Call, SystemHandler, handler};
use crate::core::Unsealed;
use crate::fields::{Field, Kind};
use crate::names;
use crate::policy::Holder;
use crate::policy::decide::{self, AskedPath};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::token::TokenRecord;

const PATHS: Field = Field::visible("paths", Kind::CommaList, "Paths to ask about.");
const PATH: Field = Field::visible("path", Kind::CommaList, "Old name of paths.");
const TOKEN: Field = Field::hidden("token", Kind::Text, "The token.");
const ACCESSOR: Field = Field::visible("accessor", Kind::Text, "The token's accessor.");
/// The other keys are the paths that were asked about.
const FOUND: Answer =
    Answer::Data(&[Field::visible("capabilities", Kind::List, "Those on the path, when there was one only.")]);
const SUMMARY: &str = "What a token may do on paths.";
const OF_CALLER: &str = "What the calling token may do on paths.";

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "capabilities",
        Access::Token,
        SUMMARY,
        &[Op::update(SUMMARY, handler!(of_token)).takes(&[TOKEN.required(), PATHS, PATH]).answers(FOUND)],
    ),
    Route::new(
        "capabilities-self",
        Access::Token,
        OF_CALLER,
        // The commands of Vault's clients send their own token along.
        &[Op::update(OF_CALLER, handler!(of_caller)).takes(&[TOKEN, PATHS, PATH]).answers(FOUND)],
    ),
    Route::new(
        "capabilities-accessor",
        Access::Token,
        SUMMARY,
        &[Op::update(SUMMARY, handler!(of_accessor)).takes(&[ACCESSOR.required(), PATHS, PATH]).answers(FOUND)],
    ),
];

/// More paths in one request are refused: each costs a call into the guest.
const PATHS_MAX: usize = 1_000;

async fn of_caller(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let paths = paths(call)?;
    answer(call, Holder::of(call.caller()?), paths).await
}

async fn of_token(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let paths = paths(call)?;
    let Some(token) = call.fields.text("token").filter(|token| !token.is_empty()) else {
        return Err(RequestError::Engine("no token found".to_owned()));
    };
    let found = call.unsealed.tokens.find_shown(&TokenId::new(token)).await?;
    of_record(call, found, "invalid token", paths).await
}

async fn of_accessor(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let accessor = call.fields.text("accessor").unwrap_or_default();
    if accessor.is_empty() {
        return Err(RequestError::invalid("missing accessor"));
    }
    let paths = paths(call)?;
    let found = match accessor.len() {
        ..=64 => call.unsealed.tokens.find_by_accessor(&Accessor::new(accessor)).await?,
        _ => None,
    };
    of_record(call, found, "invalid accessor", paths).await
}

async fn of_record(
    call: &Call<'_>,
    found: Option<(TokenHash, TokenRecord)>,
    unknown: &str,
    paths: Vec<String>,
) -> Result<LogicalResponse, RequestError> {
    let refuse = || RequestError::InvalidMulti(unknown.to_owned());
    let (_, record) = found.ok_or_else(refuse)?;
    // Nobody is let in with a token whose entity is disabled or gone.
    let identity = call.unsealed.whom(&record).await.map_err(|error| match error {
        RequestError::BadToken => refuse(),
        other => other,
    })?;
    let policies = identity.as_ref().map_or(&record.policies, |identity| &identity.policies);
    answer(call, Holder { policies, identity: identity.as_deref() }, paths).await
}

fn paths(call: &Call<'_>) -> Result<Vec<String>, RequestError> {
    let given = |name: &str| call.fields.list(name).filter(|paths| !paths.is_empty());
    let paths: Vec<String> = match given("paths").or_else(|| given("path")) {
        Some(paths) => paths.to_vec(),
        None => return Err(RequestError::invalid("paths must be supplied")),
    };
    if paths.iter().any(String::is_empty) {
        return Err(RequestError::InvalidMulti("missing path".to_owned()));
    }
    if paths.len() > PATHS_MAX {
        return Err(RequestError::Invalid(format!("at most {PATHS_MAX} paths in one request")));
    }
    Ok(paths)
}

/// The operations that `path`, which ends in a slash, shares with the path without it. A write to such a path is refused whatever
/// the policies say.
fn served_without_slash(unsealed: &Unsealed, path: &str) -> Capabilities {
    let bare = path.trim_end_matches('/');
    let routed = unsealed.mounts.route(bare).filter(|_| bare.len() < path.len());
    let Some((backend, rest)) = routed.and_then(|(entry, rest)| Some((Backend::of(&entry, unsealed)?, rest))) else {
        return Capabilities::NONE;
    };
    [(Operation::Read, Capabilities::READ), (Operation::Delete, Capabilities::DELETE)]
        .into_iter()
        .filter(|(operation, _)| backend.serves_with_slash(rest, *operation))
        .fold(Capabilities::NONE, |all, (_, capability)| all.union(capability))
}

async fn answer(call: &Call<'_>, holder: Holder<'_>, paths: Vec<String>) -> Result<LogicalResponse, RequestError> {
    let mut data = Object::new();
    let answers: Vec<Vec<&'static str>> = if holder.is_root() {
        paths.iter().map(|_| vec!["root"]).collect()
    } else {
        // As a request for the path would be judged.
        let asked: Vec<Cow<'_, str>> = paths
            .iter()
            .map(|path| path.strip_prefix('/').unwrap_or(path))
            .map(|path| path.get(..path.trim_end_matches('/').len() + 1).unwrap_or(path))
            .map(|path| names::in_lower_case(path).map_or(Cow::Borrowed(path), Cow::Owned))
            .collect();
        let asked: Vec<AskedPath<'_>> = asked
            .iter()
            .map(|path| AskedPath { path, served_without_slash: served_without_slash(call.unsealed, path) })
            .collect();
        let found = decide::capabilities(&*call.core.seams.acl, &call.unsealed.policies, holder, &asked).await?;
        found.into_iter().map(Capabilities::names).collect()
    };
    if let [only] = answers.as_slice() {
        data.insert("capabilities".into(), json!(only));
    }
    for (path, answer) in paths.into_iter().zip(answers) {
        data.insert(path, json!(answer));
    }
    Ok(LogicalResponse::data(data).shaped(Shape::Duplicated))
}
