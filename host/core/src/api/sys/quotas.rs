//! `sys/quotas`: rate limits, and what none of them counts; lease count quotas. Texts are OpenBao's.

use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::quota::config::Config;
use crate::quota::rate::RateLimit;
use crate::quota::scope::Scope;
use crate::quota::table::LeaseCount;
use crate::quota::{NAME_LEN_MAX, Quotas};
use crate::random;
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::mount_leases::above_limit;
use leasehold_model::Ttl;

const PATH: Field = Field::visible(
    "path",
    Kind::Text,
    "A mount, or a path below one, which may end in `*` for any rest. Empty: everything that no other quota covers.",
);
const ROLE: Field = Field::visible(
    "role",
    Kind::Text,
    "Logins with this role only. The path must be an auth method whose logins name a role.",
);
const INHERITABLE: Field =
    Field::visible("inheritable", Kind::Bool, "Shown as given; it means something where there are namespaces.");
const TYPE: Field = Field::visible("type", Kind::Text, "Accepted; the path says it.");

const RATE_LIMIT: &[Field] = &[
    TYPE,
    PATH,
    ROLE,
    Field::visible("rate", Kind::Float, "How many requests a client may send in an interval; more than zero.")
        .required(),
    Field::visible("interval", Kind::Duration, "How long an interval is.").default("1s"),
    Field::visible(
        "block_interval",
        Kind::Duration,
        "For how long a client is refused that has reached the limit; zero: until its interval is over.",
    ),
    INHERITABLE,
];

const RATE_LIMIT_SHOWN: &[Field] = &[
    Field::visible("block_interval", Kind::Int, "In seconds."),
    Field::visible("inheritable", Kind::Bool, "As it was given; true for what covers everything."),
    Field::visible("interval", Kind::Int, "In seconds."),
    Field::visible("name", Kind::Text, "Its name."),
    Field::visible("path", Kind::Text, "What it covers."),
    Field::visible("rate", Kind::Float, "Requests in an interval."),
    Field::visible("role", Kind::Text, "Of which logins."),
    Field::visible("type", Kind::Text, "`rate-limit`."),
];

const LEASE_COUNT: &[Field] = &[
    TYPE,
    PATH,
    ROLE,
    Field::visible("max_leases", Kind::Int, "How many leases there may be; more than zero.").required(),
    INHERITABLE,
];

const LEASE_COUNT_SHOWN: &[Field] = &[
    Field::visible("counter", Kind::Int, "How many leases there are."),
    Field::visible("inheritable", Kind::Bool, "As it was given; true for what covers everything."),
    Field::visible("max_leases", Kind::Int, "How many there may be."),
    Field::visible("name", Kind::Text, "Its name."),
    Field::visible("path", Kind::Text, "What it covers."),
    Field::visible("role", Kind::Text, "Of which logins."),
    Field::visible("type", Kind::Text, "`lease-count`."),
];

const CONFIG: &[Field] = &[
    Field::visible("rate_limit_exempt_paths", Kind::List, "Paths that no rate limit counts; none if it is not given."),
    Field::visible(
        "absolute_rate_limit_exempt_paths",
        Kind::List,
        "The same; Vault tells them apart where there are namespaces.",
    ),
    Field::visible(
        "enable_rate_limit_audit_logging",
        Kind::Bool,
        "Requests that a rate limit refuses leave an audit record.",
    ),
    Field::visible("enable_rate_limit_response_headers", Kind::Bool, "Answers say how much of a rate limit is left."),
];

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "quotas/config",
        Access::Token,
        "What rate limits do not count, and what is said of refusals.",
        &[
            Op::read("Shows the configuration of rate limits.", handler!(show_config)).answers(Answer::Data(CONFIG)),
            Op::update("Replaces the configuration of rate limits.", handler!(configure)).takes(CONFIG),
        ],
    ),
    Route::new(
        "quotas/rate-limit",
        Access::Token,
        "The rate limits.",
        &[Op::list("Lists the rate limits.", handler!(list_rates))],
    ),
    Route::new(
        "quotas/rate-limit/:name",
        Access::Token,
        "A rate limit for each client address.",
        &[
            Op::read("Shows a rate limit.", handler!(show_rate)).answers(Answer::Data(RATE_LIMIT_SHOWN)),
            Op::update("Writes a rate limit.", handler!(write_rate)).takes(RATE_LIMIT),
            Op::delete("Deletes a rate limit.", handler!(delete_rate)),
        ],
    ),
    Route::new(
        "quotas/lease-count",
        Access::Token,
        "The lease count quotas.",
        &[Op::list("Lists the lease count quotas.", handler!(list_counts))],
    ),
    Route::new(
        "quotas/lease-count/:name",
        Access::Token,
        "A bound on how many leases there are.",
        &[
            Op::read("Shows a lease count quota, and how many leases there are.", handler!(show_count))
                .answers(Answer::Data(LEASE_COUNT_SHOWN)),
            Op::update("Writes a lease count quota; leases that are there count.", handler!(write_count))
                .takes(LEASE_COUNT),
            Op::delete("Deletes a lease count quota.", handler!(delete_count)),
        ],
    ),
];

fn quotas<'a>(call: &'a Call<'_>) -> &'a Quotas {
    &call.unsealed.quotas
}

async fn show_config(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let config = quotas(call).settings.get();
    let mut shown = json!({
        "enable_rate_limit_audit_logging": config.audits_refusals,
        "enable_rate_limit_response_headers": config.shows_headers,
        "rate_limit_exempt_paths": config.exempt_paths,
    });
    if !config.absolute_exempt_paths.is_empty()
        && let Value::Object(shown) = &mut shown
    {
        shown.insert("absolute_rate_limit_exempt_paths".to_owned(), json!(config.absolute_exempt_paths));
    }
    Ok(LogicalResponse::json(shown))
}

/// As in Vault, what is not given is off, and exempts nothing.
async fn configure(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let paths = |name: &str| call.fields.list(name).map(<[String]>::to_vec).unwrap_or_default();
    let is_on = |name: &str| call.fields.bool(name).unwrap_or(false);
    let config = Config {
        exempt_paths: paths("rate_limit_exempt_paths"),
        absolute_exempt_paths: paths("absolute_rate_limit_exempt_paths"),
        audits_refusals: is_on("enable_rate_limit_audit_logging"),
        shows_headers: is_on("enable_rate_limit_response_headers"),
    };
    quotas(call).settings.write(config).await?;
    Ok(LogicalResponse::empty())
}

async fn list_rates(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    named(quotas(call).rates.all().into_iter().map(|limit| limit.name).collect())
}

fn named(names: Vec<String>) -> Result<LogicalResponse, RequestError> {
    if names.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": names }))) }
}

async fn show_rate(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let limit = quotas(call).rates.find(call.capture("name")).ok_or(RequestError::NotFound)?;
    let path = limit.scope.shown(&call.unsealed.mounts).ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::json(json!({
        "block_interval": limit.block_interval.as_secs(),
        "inheritable": limit.inheritable,
        "interval": limit.interval.as_secs(),
        "name": limit.name,
        "path": path,
        "rate": number(limit.rate),
        "role": limit.scope.role,
        "type": "rate-limit",
    })))
}

/// As Go writes it: a whole number without a point.
#[expect(clippy::cast_possible_truncation, reason = "it is small enough")]
fn number(float: f64) -> Value {
    if float.fract() == 0.0 && float.abs() < 1e15 { json!(float as i64) } else { json!(float) }
}

async fn write_rate(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = checked_name(call)?;
    let rate = call.fields.float("rate").filter(|rate| *rate > 0.0 && rate.is_finite());
    let rate = rate.ok_or_else(|| RequestError::invalid("'rate' is invalid"))?;
    let ttl = |name: &str| call.fields.ttl(name).unwrap_or(Ttl::ZERO);
    let scope = scope(call)?;
    let inheritable = call.fields.bool("inheritable").unwrap_or(scope.mount.is_none());
    let limit = RateLimit {
        id: random::base62(&*call.core.seams.entropy, 12),
        name,
        scope,
        rate,
        interval: ttl("interval").if_set().unwrap_or(Ttl::from_secs(1)),
        block_interval: ttl("block_interval"),
        inheritable,
    };
    quotas(call).rates.write(limit).await?;
    Ok(LogicalResponse::empty())
}

async fn delete_rate(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    quotas(call).rates.delete(call.capture("name")).await?;
    Ok(LogicalResponse::empty())
}

fn checked_name(call: &Call<'_>) -> Result<String, RequestError> {
    let name = call.capture("name");
    if name.len() > NAME_LEN_MAX {
        return Err(RequestError::Invalid(format!("the name is longer than {NAME_LEN_MAX} bytes")));
    }
    Ok(name.to_owned())
}

/// What a quota is to cover.
fn scope(call: &Call<'_>) -> Result<Scope, RequestError> {
    let text = |name: &str| call.fields.text(name).unwrap_or_default();
    let methods = &call.unsealed.methods;
    Scope::parse(text("path"), text("role"), &call.unsealed.mounts, |entry| {
        methods.of(entry).is_some_and(|method| method.has_roles())
    })
}

async fn list_counts(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    named(quotas(call).leases.all().into_iter().map(|quota| quota.name).collect())
}

async fn show_count(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("name");
    let found = quotas(call).leases.all().into_iter().find(|quota| quota.name == name);
    let quota = found.ok_or(RequestError::NotFound)?;
    let path = quota.scope.shown(&call.unsealed.mounts).ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::json(json!({
        "counter": quotas(call).leases.count(&quota).await?,
        "inheritable": quota.inheritable,
        "max_leases": quota.max_leases,
        "name": quota.name,
        "path": path,
        "role": quota.scope.role,
        "type": "lease-count",
    })))
}

async fn write_count(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = checked_name(call)?;
    let most = call.fields.int("max_leases").and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0);
    let max_leases = most.ok_or_else(|| RequestError::invalid("'max_leases' is invalid"))?;
    let scope = scope(call)?;
    let inheritable = call.fields.bool("inheritable").unwrap_or(scope.mount.is_none());
    let id = random::base62(&*call.core.seams.entropy, 12);
    let quota = LeaseCount { id, name, scope, max_leases, inheritable, places: 0, is_engines: false };
    let standing = quotas(call).leases.write(quota).await?;
    Ok(above_limit(standing, max_leases).into_iter().fold(LogicalResponse::empty(), LogicalResponse::warn))
}

async fn delete_count(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    quotas(call).leases.delete(call.capture("name")).await?;
    Ok(LogicalResponse::empty())
}
