//! Leases, on today's routes and on those of 2018 (contract.md §2.5).

use leasehold_model::{LeaseId, Operation, Ttl};
use serde_json::{Value, json};

use crate::api::call::{Call, Handled, SystemHandler, handler, lease_error};
use crate::api::pages;
use crate::api::token::TIDYING;
use crate::fields::{Field, Kind};
use crate::lease::revoke::{PrefixOrStore, Wait, shown_ttl};
use crate::lease::{EndCause, LeaseBody, LeaseError, LeaseRow, LeaseState};
use crate::request::{LogicalResponse, Object};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const LEASE_ID: Field = Field::visible("lease_id", Kind::Any, "The lease.");
const URL_ID: Field = Field::visible("url_lease_id", Kind::Text, "The lease, from the path.");
const INCREMENT: Field = Field::visible("increment", Kind::Duration, "The wished TTL from now.");
const SYNC: Field = Field::visible("sync", Kind::Bool, "Answer only when the credential is gone.").default("true");
const PREFIX: Field = Field::visible("prefix", Kind::Text, "Repeated by some clients; the path counts.");
const REVOKE: &[Field] = &[LEASE_ID, URL_ID, SYNC];
const RENEW: &[Field] = &[LEASE_ID, URL_ID, INCREMENT];

const SHOWN: &[Field] = &[
    Field::visible("id", Kind::Text, "The lease."),
    Field::visible("issue_time", Kind::Time, "When it was issued."),
    Field::visible("expire_time", Kind::Time, "When it ends; null: never."),
    Field::visible("last_renewal", Kind::Time, "When it was renewed; null: never."),
    Field::visible("renewable", Kind::Bool, "Whether it can be renewed."),
    Field::visible("ttl", Kind::Int, "Seconds that are left."),
    Field::visible("path", Kind::Text, "What was read to get it."),
    Field::visible("revoke_error", Kind::Text, "Why its revocation has failed so far."),
    Field::visible("revoke_cause", Kind::Text, "Why it ends."),
    Field::visible("revoke_time", Kind::Time, "Since when it should be gone."),
];

const TYPE: Field = Field::visible("type", Kind::Text, "Which leases.").one_of(&["irrevocable"]).required();
const NAMESPACES: Field = Field::visible("include_child_namespaces", Kind::Bool, "Accepted: there is one namespace.");

/// A path that renews, with the lease in it or in the body.
const fn renewing(pattern: &'static str) -> Route<SystemHandler> {
    const OPS: &[Op<SystemHandler>] =
        &[Op::update("Extends a lease.", handler!(renew)).takes(RENEW).answers(Answer::Lease)];
    Route::new(pattern, Access::Token, "Extends a lease.", OPS)
}

const fn revoking(pattern: &'static str) -> Route<SystemHandler> {
    const OPS: &[Op<SystemHandler>] = &[Op::update("Ends a lease.", handler!(revoke)).takes(REVOKE)];
    Route::new(pattern, Access::Token, "Ends a lease.", OPS)
}

const fn revoking_prefix(pattern: &'static str) -> Route<SystemHandler> {
    const OPS: &[Op<SystemHandler>] =
        &[Op::update("Ends all leases below a prefix.", handler!(revoke_prefix)).takes(&[SYNC, PREFIX])];
    Route::new(pattern, Access::Sudo, "Ends all leases below a prefix.", OPS)
}

const fn forcing(pattern: &'static str) -> Route<SystemHandler> {
    const SUMMARY: &str = "Forgets all leases below a prefix, whatever the engine says.";
    const OPS: &[Op<SystemHandler>] = &[Op::update(SUMMARY, handler!(revoke_force)).takes(&[PREFIX])];
    Route::new(pattern, Access::Sudo, SUMMARY, OPS)
}

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "leases/lookup",
        Access::Token,
        "Shows a lease.",
        &[Op::update("Shows a lease.", handler!(lookup)).takes(&[LEASE_ID]).answers(Answer::Data(SHOWN))],
    ),
    Route::new(
        "leases/lookup/",
        Access::Sudo,
        "Lists leases.",
        &[Op::list("Lists the first segments of all leases.", handler!(list)).takes(pages::PAGE)],
    ),
    Route::new(
        "leases/lookup/*prefix",
        Access::Sudo,
        "Lists leases below a prefix.",
        &[Op::list("Lists leases below a prefix.", handler!(list)).takes(pages::PAGE)],
    ),
    renewing("leases/renew"),
    renewing("leases/renew/*url_lease_id"),
    revoking("leases/revoke"),
    revoking("leases/revoke/*url_lease_id"),
    revoking_prefix("leases/revoke-prefix/*prefix"),
    forcing("leases/revoke-force/*prefix"),
    Route::new(
        "leases/tidy",
        Access::Token,
        "Nothing to tidy: leases are rows, not files.",
        &[Op::update("Does nothing: leases are rows, not files.", handler!(tidy))],
    ),
    Route::new(
        "leases/count",
        Access::Token,
        "Counts irrevocable leases.",
        &[Op::read("Counts irrevocable leases.", handler!(count_irrevocable))
            .takes(&[TYPE, NAMESPACES])
            .answers(Answer::Data(&[Field::visible("lease_count", Kind::Int, "How many there are.")]))],
    ),
    Route::new(
        "leases",
        Access::Sudo,
        "Lists irrevocable leases.",
        &[Op::read("Lists irrevocable leases.", handler!(list_irrevocable))
            .takes(&[
                TYPE,
                Field::visible("limit", Kind::Text, "How many to list at most; `none`: all.").default("none"),
                Field::visible("force", Kind::Bool, "Accepted."),
                NAMESPACES,
            ])
            .answers(Answer::Data(&[
                Field::visible("lease_count", Kind::Int, "How many there are."),
                Field::visible("leases", Kind::Any, "Each with what stands in its way."),
            ]))],
    ),
    // The routes of 2018.
    renewing("renew"),
    renewing("renew/*url_lease_id"),
    revoking("revoke"),
    revoking("revoke/*url_lease_id"),
    revoking_prefix("revoke-prefix/*prefix"),
    forcing("revoke-force/*prefix"),
];

async fn revoke_force(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let cause = EndCause::Forced { by: call.asker() };
    call.unsealed.leases.revoke_force(call.capture("prefix"), &cause).await?;
    Ok(LogicalResponse::empty())
}

async fn tidy(_: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse::empty().warn(TIDYING).with_status(202))
}

/// From the path, else from the body. An id that cannot exist is an unknown one.
fn id(call: &Call<'_>) -> Result<Option<LeaseId>, RequestError> {
    let text = match call.capture("url_lease_id") {
        "" => match call.fields.any("lease_id") {
            None => "",
            Some(Value::String(text)) => text,
            Some(_) => return Err(RequestError::invalid("invalid lease ID")),
        },
        in_path => in_path,
    };
    if text.is_empty() {
        return Err(RequestError::invalid("lease_id must be specified"));
    }
    Ok(text.parse().ok())
}

async fn lookup(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let unknown = || RequestError::invalid("invalid lease");
    let id = id(call)?.ok_or_else(unknown)?;
    let found = call.unsealed.leases.find(&id).await.map_err(lease_error)?;
    let (row, body) = found.filter(|(row, _)| row.state != LeaseState::Issuing).ok_or_else(unknown)?;
    let now = call.core.seams.clock.now();
    let ends = row.expires_at != leasehold_model::Timestamp::NEVER;
    let mut data = Object::new();
    data.insert("id".into(), id.as_str().into());
    data.insert("issue_time".into(), body.issued_at.rfc3339().into());
    // A lease that is being revoked has no time left, however early that came.
    let revoking = row.state == LeaseState::Revoking;
    let until = if revoking { row.expires_at.min(now) } else { row.expires_at };
    data.insert("expire_time".into(), if ends || revoking { until.rfc3339().into() } else { Value::Null });
    data.insert("last_renewal".into(), body.last_renewed_at.map_or(Value::Null, |at| at.rfc3339().into()));
    data.insert("renewable".into(), (body.renewable && row.state == LeaseState::Active && row.expires_at > now).into());
    let ttl = shown_ttl(&row, now);
    data.insert("ttl".into(), if revoking { ttl.min(0) } else { ttl }.into());
    data.insert("path".into(), id.path().into());
    if let Some(error) = body.last_error {
        data.insert("revoke_error".into(), error.into());
    }
    // Ours: why it ends, and since when it should be gone.
    if let Some(ending) = body.ending {
        data.insert("revoke_cause".into(), ending.cause.to_string().into());
        data.insert("revoke_time".into(), ending.since.rfc3339().into());
    }
    Ok(LogicalResponse::data(data))
}

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let prefix = call.capture("prefix");
    let prefix = if prefix.is_empty() || prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
    let wanted = pages::Wanted::of(call, pages::NAMES_MAX);
    let keys = call.unsealed.leases.names_below(&prefix, wanted.after, wanted.most).await?;
    if keys.is_empty() {
        return Err(RequestError::NotFound);
    }
    Ok(wanted.told(keys.len(), LogicalResponse::json(json!({ "keys": keys })), "names"))
}

async fn renew(call: &Call<'_>) -> Handled {
    let found = match renewable(call).await {
        Ok(found) => found,
        Err(error) => return Err(error).into(),
    };
    // Audit gets the judgements, whatever comes of the renewal.
    let judged = call.judge_lease(found.0.id.path(), Operation::Renew).await;
    let outcome = match judged.ceiling {
        Ok(ceiling) => renew_within(call, found, [ceiling, call.ceiling].into_iter().flatten().min()).await,
        Err(refusal) => Err(refusal),
    };
    Handled { outcome, judgements: judged.judgements }
}

/// The lease that a request names, if there is one.
async fn renewable(call: &Call<'_>) -> Result<(LeaseRow, LeaseBody), RequestError> {
    let unknown = || RequestError::invalid("lease not found");
    let id = id(call)?.ok_or_else(unknown)?;
    call.unsealed.leases.find(&id).await.map_err(lease_error)?.ok_or_else(unknown)
}

async fn renew_within(
    call: &Call<'_>,
    found: (LeaseRow, LeaseBody),
    ceiling: Option<Ttl>,
) -> Result<LogicalResponse, RequestError> {
    match call.unsealed.leases.renew(found, call.fields.ttl("increment"), ceiling).await {
        Ok((lease, warnings)) => Ok(LogicalResponse { lease: Some(lease), warnings, ..LogicalResponse::default() }),
        // In Vault it is the engine that finds the maximum passed.
        Err(error @ (LeaseError::Engine(_) | LeaseError::PastMaximum(_))) => {
            Err(RequestError::Invalid(format!("failed to renew entry: resp: (*logical.Response)(nil) err: {error}")))
        }
        Err(error) => Err(lease_error(error)),
    }
}

fn wait(call: &Call<'_>) -> Wait {
    // As in Vault, `null` is no wish to wait.
    let default = !call.request.data.contains_key("sync");
    if call.fields.bool("sync").unwrap_or(default) { Wait::UntilGone } else { Wait::UntilStored }
}

/// 202 for work that is stored, 204 for work that is done.
fn ended(wait: Wait) -> LogicalResponse {
    match wait {
        Wait::UntilGone => LogicalResponse::empty(),
        Wait::UntilStored => LogicalResponse::empty().with_status(202),
    }
}

async fn revoke(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let wait = wait(call);
    if let Some(id) = id(call)? {
        let cause = EndCause::Revoked { by: call.asker() };
        match call.unsealed.leases.revoke(&id, wait, &cause).await {
            Ok(()) => {}
            Err(LeaseError::Engine(why)) => {
                return Err(RequestError::Invalid(format!(
                    "failed to revoke entry: resp: (*logical.Response)(nil) err: {why}"
                )));
            }
            Err(error) => return Err(lease_error(error)),
        }
    }
    Ok(ended(wait))
}

async fn revoke_prefix(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let wait = wait(call);
    let cause = EndCause::Revoked { by: call.asker() };
    match call.unsealed.leases.revoke_prefix(call.capture("prefix"), wait, &cause).await {
        Ok(()) => Ok(ended(wait)),
        Err(PrefixOrStore::Store(error)) => Err(error.into()),
        Err(failure) => Err(RequestError::Invalid(failure.to_string())),
    }
}

async fn count_irrevocable(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    demand_irrevocable(call)?;
    let (_, count) = call.unsealed.leases.irrevocable(0).await?;
    Ok(LogicalResponse::json(json!({ "lease_count": count, "counts": {} })))
}

async fn list_irrevocable(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    demand_irrevocable(call)?;
    let most = limit(call.fields.text("limit").unwrap_or_default())?.min(pages::NAMES_MAX);
    let (found, count) = call.unsealed.leases.irrevocable(most).await?;
    let shown: Vec<Value> =
        found.into_iter().map(|(id, why)| json!({ "lease_id": id.as_str(), "error": why })).collect();
    Ok(LogicalResponse::json(json!({ "lease_count": count, "leases": shown })))
}

/// No others can be asked for.
fn demand_irrevocable(call: &Call<'_>) -> Result<(), RequestError> {
    if call.fields.text("type") == Some("irrevocable") { Ok(()) } else { Err(RequestError::NotFound) }
}

fn limit(text: &str) -> Result<usize, RequestError> {
    if text.is_empty() || text == "none" {
        return Ok(usize::MAX);
    }
    let number: i64 = text.parse().map_err(|_| {
        let text: String = text.chars().take(64).collect();
        RequestError::Engine(format!("invalid 'limit' provided: strconv.Atoi: parsing {text:?}: invalid syntax"))
    })?;
    usize::try_from(number)
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| RequestError::Engine("limit must be 'none' or a positive integer".to_owned()))
}
