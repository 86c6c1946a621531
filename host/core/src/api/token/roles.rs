//! `auth/token/roles/`: see [`crate::token::role`].

use leasehold_model::Ttl;
use serde_json::json;

use crate::api::call::{Call, SystemHandler, handler};
use crate::api::pages;
use crate::commit::names_below;
use crate::core::Unsealed;
use crate::fields::{Field, Fields, Kind};
use crate::keys;
use crate::mount::MountTokenType;
use crate::request::{LogicalResponse, Object};
use crate::routes::{Access, Answer, Captures, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::{Listed, StorageError};
use crate::seams::token_params::sanitized;
use crate::token::role::TokenRole;

const FIELDS: &[Field] = &[
    Field::visible(
        "allowed_policies",
        Kind::CommaList,
        "The policies that its tokens may have; those of a request that names none.",
    ),
    Field::visible("disallowed_policies", Kind::CommaList, "Policies that no token of it has."),
    Field::visible("allowed_policies_glob", Kind::CommaList, "The same with `*` for any text."),
    Field::visible("disallowed_policies_glob", Kind::CommaList, "The same with `*` for any text."),
    Field::visible("orphan", Kind::Bool, "Its tokens have no parent."),
    Field::visible("renewable", Kind::Bool, "Whether its tokens may be renewed.").default("true"),
    Field::visible("path_suffix", Kind::Text, "Behind the path of its tokens, so that they can be revoked by it."),
    Field::visible(
        "allowed_entity_aliases",
        Kind::CommaList,
        "Aliases at `auth/token/` whose entities its tokens may stand for; `*` for any text.",
    ),
    Field::visible("token_bound_cidrs", Kind::CommaList, "Addresses that may use its tokens."),
    Field::visible("token_explicit_max_ttl", Kind::Duration, "No renewal passes this."),
    Field::visible("token_period", Kind::Duration, "Every renewal resets the TTL to this."),
    Field::visible("token_no_default_policy", Kind::Bool, "Leaves the policy `default` out."),
    Field::visible("token_num_uses", Kind::Int, "How many requests a token may make; 0 is without limit."),
    Field::visible("token_type", Kind::Text, "`default-service`, `default-batch`, `service` or `batch`."),
    Field::visible("explicit_max_ttl", Kind::Duration, "Old name of token_explicit_max_ttl."),
    Field::visible("period", Kind::Duration, "Old name of token_period."),
];

const SHOWN: Answer = Answer::Data(FIELDS);

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "roles/",
        Access::Token,
        "The names of the token roles.",
        &[Op::list("Lists the token roles.", handler!(list)).takes(pages::PAGE)],
    ),
    Route::new(
        "roles/:role_name",
        Access::Token,
        "A token role: what tokens made with it are like.",
        &[
            Op::read("Shows a token role.", handler!(read)).answers(SHOWN),
            Op::update("Makes or changes a token role.", handler!(write)).takes(FIELDS),
            Op::delete("Removes a token role; its tokens are not renewed any more.", handler!(delete)),
        ],
    )
    .with_existence_check(),
];

const NAME: &str = "role_name";

pub(in crate::api) async fn exists(unsealed: &Unsealed, captures: &Captures) -> Result<bool, StorageError> {
    let name = captures.get(NAME).map(String::as_str).unwrap_or_default();
    Ok(unsealed.tokens.role(name).await?.is_some())
}

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let wanted = pages::Wanted::of(call, pages::NAMES_MAX);
    let (storage, prefix) = (call.unsealed.tokens.storage(), keys::token_role(""));
    let names = names_below(storage, Listed::Values, prefix.as_str(), wanted.after, wanted.most).await?;
    if names.is_empty() {
        return Err(RequestError::NotFound);
    }
    Ok(wanted.told(names.len(), LogicalResponse::json(json!({ "keys": names })), "token roles"))
}

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture(NAME);
    let role = call.unsealed.tokens.role(name).await?.ok_or(RequestError::NotFound)?;
    Ok(LogicalResponse::data(shown(name, &role.role)))
}

fn shown(name: &str, role: &TokenRole) -> Object {
    let mut data = Object::new();
    for (name, value) in [
        ("allowed_entity_aliases", json!(role.allowed_entity_aliases)),
        ("allowed_policies", json!(role.allowed_policies)),
        ("allowed_policies_glob", json!(role.allowed_policies_glob)),
        ("disallowed_policies", json!(role.disallowed_policies)),
        ("disallowed_policies_glob", json!(role.disallowed_policies_glob)),
        ("explicit_max_ttl", role.old_explicit_max_ttl.as_secs().into()),
        ("name", name.into()),
        ("orphan", role.orphan.into()),
        ("path_suffix", role.path_suffix.clone().into()),
        ("period", role.old_period.as_secs().into()),
        ("renewable", role.renewable.into()),
        ("token_explicit_max_ttl", role.token.explicit_max_ttl.as_secs().into()),
        ("token_no_default_policy", role.token.no_default_policy.into()),
        ("token_period", role.token.period.as_secs().into()),
        ("token_type", role.kind.as_str().into()),
    ] {
        data.insert(name.to_owned(), value);
    }
    if !role.token.bound_cidrs.is_empty() {
        data.insert("token_bound_cidrs".to_owned(), json!(role.token.bound_cidrs));
    }
    if role.token.num_uses != 0 {
        data.insert("token_num_uses".to_owned(), role.token.num_uses.into());
    }
    data
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let fields = &call.fields;
    call.unsealed.tokens.update_role(call.capture(NAME), |role| update(role, fields)).await?;
    let mut answer = LogicalResponse::empty();
    for name in ["period", "explicit_max_ttl"] {
        if fields.ttl(name).is_some() && fields.ttl(&format!("token_{name}")).is_some() {
            answer = answer.warn(format!(
                "Both 'token_{name}' and deprecated '{name}' value supplied, ignoring the deprecated value"
            ));
        }
    }
    Ok(answer)
}

/// Takes over what the fields name and leaves the rest as it is.
fn update(role: &mut TokenRole, fields: &Fields) -> Result<(), RequestError> {
    for (name, names) in [
        ("allowed_policies", &mut role.allowed_policies),
        ("disallowed_policies", &mut role.disallowed_policies),
        ("allowed_policies_glob", &mut role.allowed_policies_glob),
        ("disallowed_policies_glob", &mut role.disallowed_policies_glob),
    ] {
        if let Some(given) = fields.list(name) {
            *names = sanitized(given);
        }
    }
    role.orphan = fields.bool("orphan").unwrap_or(role.orphan);
    role.renewable = fields.bool("renewable").unwrap_or(role.renewable);
    if let Some(suffix) = fields.text("path_suffix") {
        suffix.clone_into(&mut role.path_suffix);
    }
    if let Some(aliases) = fields.list("allowed_entity_aliases") {
        role.allowed_entity_aliases = Some(sanitized(aliases));
    }
    let params = role.token.update_with_kind(fields, None);
    params.map_err(|error| RequestError::Invalid(format!("error parsing role fields: {error}")))?;
    renamed(fields, "explicit_max_ttl", &mut role.token.explicit_max_ttl, &mut role.old_explicit_max_ttl);
    renamed(fields, "period", &mut role.token.period, &mut role.old_period);
    if let Some(kind) = fields.text("token_type") {
        role.kind = MountTokenType::parse(kind).ok_or_else(|| {
            let shown: String = kind.chars().take(64).collect();
            RequestError::Invalid(format!("invalid 'token_type' value {shown:?}"))
        })?;
    }
    role.check()
}

/// A length that has two names. The old one counts where the new one is not given.
fn renamed(fields: &Fields, name: &str, ttl: &mut Ttl, old: &mut Ttl) {
    match (fields.ttl(&format!("token_{name}")), fields.ttl(name)) {
        (Some(given), _) => (*ttl, *old) = (given, Ttl::ZERO),
        (None, Some(given)) => (*ttl, *old) = (given, given),
        (None, None) => {}
    }
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.tokens.remove_role(call.capture(NAME)).await?;
    Ok(LogicalResponse::empty())
}
