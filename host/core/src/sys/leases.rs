//! Leases, on today's routes and on those of 2018 (contract.md §2.5).

use leasehold_model::{LeaseId, Operation};
use serde_json::{Value, json};

use crate::call::{Call, lease_error};
use crate::core::Unsealed;
use crate::fields::{Field, Kind};
use crate::lease::LeaseError;
use crate::lease::revoke::{PrefixOrStore, Wait, is_irrevocable, shown_ttl};
use crate::lease::{LeaseKind, LeaseState};
use crate::request::{LogicalResponse, Object, RequestError};
use crate::routes::{Access, Route};
use crate::seams::storage::{LeaseFilter, StorageError};
use crate::token::routes::TIDYING;

const LEASE_ID: Field = Field::visible("lease_id", Kind::Any, "The lease.");
const URL_ID: Field = Field::visible("url_lease_id", Kind::Text, "The lease, from the path.");
const INCREMENT: Field = Field::visible("increment", Kind::Duration, "The wished TTL from now.");
const SYNC: Field = Field::visible("sync", Kind::Bool, "Answer only when the credential is gone; true when not given.");
const PREFIX: Field = Field::visible("prefix", Kind::Text, "Repeated by some clients; the path counts.");
const WRITE: &[Operation] = &[Operation::Update];
const REVOKE: &[Field] = &[LEASE_ID, URL_ID, SYNC];
const RENEW: &[Field] = &[LEASE_ID, URL_ID, INCREMENT];

pub const ROUTES: &[Route] = &[
    route("leases/lookup", WRITE, &[LEASE_ID], Access::Token, "Shows a lease."),
    route("leases/lookup/", &[Operation::List], &[], Access::Sudo, "Lists leases."),
    route("leases/lookup/*prefix", &[Operation::List], &[], Access::Sudo, "Lists leases below a prefix."),
    route("leases/renew", WRITE, RENEW, Access::Token, "Extends a lease."),
    route("leases/renew/*url_lease_id", WRITE, RENEW, Access::Token, "Extends a lease."),
    route("leases/revoke", WRITE, REVOKE, Access::Token, "Ends a lease."),
    route("leases/revoke/*url_lease_id", WRITE, REVOKE, Access::Token, "Ends a lease."),
    route("leases/revoke-prefix/*prefix", WRITE, &[SYNC, PREFIX], Access::Sudo, "Ends all leases below a prefix."),
    route(
        "leases/revoke-force/*prefix",
        WRITE,
        &[PREFIX],
        Access::Sudo,
        "Forgets all leases below a prefix, whatever the engine says.",
    ),
    route("leases/tidy", WRITE, &[], Access::Token, "Nothing to tidy: leases are rows, not files."),
    route(
        "leases/count",
        &[Operation::Read],
        &[
            Field::visible("type", Kind::Text, "`irrevocable`."),
            Field::visible("include_child_namespaces", Kind::Bool, ""),
        ],
        Access::Token,
        "Counts irrevocable leases.",
    ),
    route(
        "leases",
        &[Operation::Read],
        &[
            Field::visible("type", Kind::Text, "`irrevocable`."),
            Field::visible("limit", Kind::Text, "How many to list at most; `none` or nothing: all."),
            Field::visible("force", Kind::Bool, "Accepted."),
            Field::visible("include_child_namespaces", Kind::Bool, "Accepted: there is one namespace."),
        ],
        Access::Sudo,
        "Lists irrevocable leases.",
    ),
    route("renew", WRITE, RENEW, Access::Token, "Old route of leases/renew."),
    route("renew/*url_lease_id", WRITE, RENEW, Access::Token, "Old route of leases/renew."),
    route("revoke", WRITE, REVOKE, Access::Token, "Old route of leases/revoke."),
    route("revoke/*url_lease_id", WRITE, REVOKE, Access::Token, "Old route of leases/revoke."),
    route("revoke-prefix/*prefix", WRITE, &[SYNC, PREFIX], Access::Sudo, "Old route of leases/revoke-prefix."),
    route("revoke-force/*prefix", WRITE, &[PREFIX], Access::Sudo, "Old route of leases/revoke-force."),
];

const fn route(
    pattern: &'static str,
    operations: &'static [Operation],
    fields: &'static [Field],
    access: Access,
    help: &'static str,
) -> Route {
    Route { pattern, operations, fields, access, existence_check: false, help }
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let pattern = call.pattern.strip_prefix("leases/").unwrap_or(call.pattern);
    match pattern {
        "lookup" => lookup(call).await,
        "lookup/" | "lookup/*prefix" => list(call, call.capture("prefix")).await,
        "renew" | "renew/*url_lease_id" => renew(call).await,
        "revoke" | "revoke/*url_lease_id" => revoke(call).await,
        "revoke-prefix/*prefix" => revoke_prefix(call).await,
        "revoke-force/*prefix" => {
            call.unsealed.leases.revoke_force(call.capture("prefix")).await?;
            Ok(LogicalResponse::empty())
        }
        "tidy" => Ok(LogicalResponse::empty().warn(TIDYING).with_status(202)),
        "count" | "leases" => irrevocable(call, pattern == "count").await,
        _ => Err(RequestError::UnsupportedPath),
    }
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
    Ok(LogicalResponse::data(data))
}

async fn list(call: &Call<'_>, prefix: &str) -> Result<LogicalResponse, RequestError> {
    let prefix = if prefix.is_empty() || prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
    let keys = call.unsealed.leases.names_below(&prefix, NAMES_MAX).await?;
    if keys.is_empty() {
        return Err(RequestError::NotFound);
    }
    let is_cut = keys.len() >= NAMES_MAX;
    let answer = LogicalResponse::json(json!({ "keys": keys }));
    Ok(if is_cut {
        answer.warn(format!("only the first {NAMES_MAX} are listed: list below a longer prefix"))
    } else {
        answer
    })
}

/// More names make no answer that anybody reads.
const NAMES_MAX: usize = 100_000;

async fn renew(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let unknown = || RequestError::invalid("lease not found");
    let id = id(call)?.ok_or_else(unknown)?;
    if call.unsealed.leases.find(&id).await.map_err(lease_error)?.is_none() {
        return Err(unknown());
    }
    let ceiling = call.judge_lease(id.path(), Operation::Renew).await?;
    let ceiling = [ceiling, call.ceiling].into_iter().flatten().min();
    match call.unsealed.leases.renew(&id, call.fields.ttl("increment"), ceiling).await {
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
        match call.unsealed.leases.revoke(&id, wait).await {
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
    match call.unsealed.leases.revoke_prefix(call.capture("prefix"), wait).await {
        Ok(()) => Ok(ended(wait)),
        Err(PrefixOrStore::Store(error)) => Err(error.into()),
        Err(failure) => Err(RequestError::Invalid(failure.to_string())),
    }
}

async fn irrevocable(call: &Call<'_>, count_only: bool) -> Result<LogicalResponse, RequestError> {
    if call.fields.text("type") != Some("irrevocable") {
        return Err(RequestError::NotFound);
    }
    let found = irrevocable_ones(call.unsealed).await?;
    if count_only {
        return Ok(LogicalResponse::json(json!({ "lease_count": found.len(), "counts": {} })));
    }
    let limit = limit(call.fields.text("limit").unwrap_or_default())?;
    let count = found.len();
    let shown: Vec<Value> = found.into_iter().take(limit).collect();
    Ok(LogicalResponse::json(json!({ "lease_count": count, "leases": shown })))
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

/// Each with what stands in its way.
pub(super) async fn irrevocable_ones(unsealed: &Unsealed) -> Result<Vec<Value>, StorageError> {
    let filter =
        LeaseFilter { state: Some(LeaseState::Revoking), kind: Some(LeaseKind::Secret), ..LeaseFilter::default() };
    let mut found = Vec::new();
    for row in unsealed.leases.rows(&filter).await? {
        let why = match row.read_body() {
            Ok(body) if is_irrevocable(row.state, body.attempts) => body.last_error.unwrap_or_default(),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        found.push(json!({ "lease_id": row.id.as_str(), "error": why }));
    }
    Ok(found)
}
