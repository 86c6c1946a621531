//! `sys/control-group/`: who may approve looks at a request that waits, and approves of it.
//!
//! How a request comes to wait, and what becomes of it: [`crate::api::control_group`].

use leasehold_model::Accessor;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::control_group::{Approved, Waiting};
use crate::fields::{Field, Kind};
use crate::identity::Entity;
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::sandbox::{Factor, Verdict};

const ACCESSOR: &[Field] =
    &[Field::visible("accessor", Kind::Text, "The accessor of the wrapping token that stands for the request.")];

const APPROVED: Field = Field::visible("approved", Kind::Bool, "Whether the request has all approvals that it needs.");

const SHOWN: Answer = Answer::Data(&[
    APPROVED,
    Field::visible("request_operation", Kind::Text, "What it does."),
    Field::visible("request_path", Kind::Text, "Where."),
    Field::hidden("request_data", Kind::Map, "What it sends."),
    Field::visible("request_wrap_ttl", Kind::Duration, "For how long it wants its answer wrapped; 0: not at all."),
    Field::visible("request_entity", Kind::Map, "Whose token asked."),
    Field::visible("authorizations", Kind::Any, "Whose approval counts."),
]);

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "control-group/request",
        Access::Token,
        "Shows a request that waits for approval.",
        &[Op::update("Shows a request that waits, and who approves of it.", handler!(show))
            .takes(ACCESSOR)
            .answers(SHOWN)],
    ),
    Route::new(
        "control-group/authorize",
        Access::Token,
        "Approves of a request.",
        &[Op::update("Approves of a request that waits.", handler!(authorize))
            .takes(ACCESSOR)
            .answers(Answer::Data(&[APPROVED]))],
    ),
];

/// How often an approval is stored again because another one came in between.
const TRIES: u32 = 100;

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let Waiting { deferred, .. } = waiting(call).await?;
    let verdict = call.core.standing(call.unsealed, &deferred, &[]).await?;
    let entity = call.unsealed.identities.find_now(&deferred.entity).await?.map(|found| found.record);
    let given = verdict.iter().flat_map(factors).flat_map(|factor| &factor.given);
    let mut given: Vec<&String> = given.collect();
    given.sort();
    given.dedup();
    let name = |id: &String| deferred.approvals.iter().find(|one| one.entity == *id).map(|one| &one.display_name);
    let authorizations: Vec<Value> =
        given.into_iter().map(|id| json!({ "entity_id": id, "entity_name": name(id) })).collect();
    Ok(LogicalResponse::json(json!({
        "approved": verdict.as_ref().is_some_and(|verdict| verdict.allowed),
        "request_operation": deferred.operation,
        "request_path": deferred.path,
        "request_data": deferred.data,
        "request_wrap_ttl": deferred.wrap_ttl.map_or(0, |ttl| ttl.as_secs()),
        "request_entity": entity.as_ref().map(shown),
        "authorizations": authorizations,
    })))
}

async fn authorize(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let caller = call.caller()?;
    for _ in 0..TRIES {
        let waiting = waiting(call).await?;
        let Some(entity) = caller.entity_id() else {
            return Err(RequestError::InvalidMulti("empty entity ID".to_owned()));
        };
        let deferred = &waiting.deferred;
        let before = call.core.standing(call.unsealed, deferred, &[]).await?;
        let standing: Vec<String> = before.iter().flat_map(factors).flat_map(|factor| factor.given.clone()).collect();
        if standing.iter().any(|given| given == entity) {
            return Err(RequestError::InvalidMulti("approver has already authorized".to_owned()));
        }
        let approved = Approved {
            entity: entity.to_owned(),
            display_name: caller.record.display_name.clone(),
            policies: caller.record.policies.clone(),
            at: call.core.seams.clock.now(),
        };
        let after = call.core.standing(call.unsealed, deferred, std::slice::from_ref(&approved)).await?;
        let Some(after) = after else { return nothing_recorded(false, "the token that asked has ended") };
        match what_it_counts_for(&after, entity) {
            Counts::Missing => {}
            Counts::Nothing if entity == deferred.entity => {
                return Err(RequestError::InvalidMulti("token owner cannot be approver".to_owned()));
            }
            other => return nothing_recorded(after.allowed, other.why_not()),
        }
        if call.unsealed.tokens.approve(&waiting, &standing, approved).await? {
            crate::fail::point("approved");
            return Ok(LogicalResponse::json(json!({ "approved": after.allowed })));
        }
    }
    Err(RequestError::Unavailable("other approvals of this request came in between: try again".to_owned()))
}

/// What an approval does for a request.
#[derive(Clone, Copy)]
enum Counts {
    /// One that was missing.
    Missing,
    /// Only where there are enough, or none is asked for any more.
    Enough,
    Nothing,
    /// More than approvals are missing.
    InVain,
}

impl Counts {
    fn why_not(self) -> &'static str {
        match self {
            Self::Missing | Self::Enough => "all that this entity could approve of is approved",
            Self::Nothing => {
                "this entity is in no group that is asked to approve of the request, or has no right to approve"
            }
            Self::InVain => "the request would be refused for another reason than missing approvals",
        }
    }
}

fn what_it_counts_for(with: &Verdict, entity: &str) -> Counts {
    if with.control_group.is_none() {
        return if with.allowed { Counts::Enough } else { Counts::InVain };
    }
    let of_this = || factors(with).filter(|factor| factor.given.iter().any(|given| given == entity));
    let is_missing = |factor: &Factor| u32::try_from(factor.given.len()).is_ok_and(|given| given <= factor.approvals);
    match of_this().next() {
        None => Counts::Nothing,
        Some(_) if of_this().any(is_missing) => Counts::Missing,
        Some(_) => Counts::Enough,
    }
}

/// As in OpenBao, where this is no error.
fn nothing_recorded(is_approved: bool, why: &str) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse::json(json!({ "approved": is_approved })).warn(format!("No approval was recorded: {why}.")))
}

fn factors(verdict: &Verdict) -> impl Iterator<Item = &Factor> {
    verdict.control_group.iter().flat_map(|control| &control.factors)
}

/// The request that waits under the accessor that is asked about.
async fn waiting(call: &Call<'_>) -> Result<Waiting, RequestError> {
    let refused = |why: &str| RequestError::InvalidMulti(why.to_owned());
    let accessor = call.fields.text("accessor").unwrap_or_default();
    if accessor.is_empty() {
        return Err(refused("missing accessor"));
    }
    let tokens = &call.unsealed.tokens;
    let found = tokens.find_by_accessor(&Accessor::new(accessor)).await?;
    let (hash, record) = found.ok_or_else(|| refused("invalid accessor"))?;
    let waiting = if record.waits() { tokens.waiting(&hash).await? } else { None };
    waiting.ok_or_else(|| refused("invalid wrapping token"))
}

/// An entity as OpenBao shows it here, and `id` as Vault does.
fn shown(entity: &Entity) -> Value {
    let aliases: Vec<Value> = entity
        .aliases
        .iter()
        .map(|alias| json!({ "ID": alias.id, "name": alias.name, "mount_accessor": alias.mount }))
        .collect();
    json!({ "ID": entity.id, "id": entity.id, "name": entity.name, "metadata": entity.metadata, "aliases": aliases })
}
