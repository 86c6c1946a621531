//! ACL policies, on both routes (contract.md §2.3).

use base64::Engine as _;
use leasehold_model::Timestamp;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::policy::documents::{PolicyChange, PolicyDocument};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::sandbox::{Diagnostic, GroupKey, NamedGroup, PolicyReport};

const FIELDS: &[Field] = &[
    Field::visible("policy", Kind::Text, "HCL or JSON, as it is or in base64."),
    Field::visible("rules", Kind::Text, "Old name of policy, on `sys/policy`."),
    Field::visible("cas", Kind::Int, "-1: must not exist; n: must be at version n."),
    Field::visible("cas_required", Kind::Bool, "Later writes must give cas."),
    Field::visible("ttl", Kind::Duration, "How long the policy holds; then it is gone."),
    Field::visible("expiration", Kind::Time, "Until when the policy holds; instead of ttl."),
    Field::visible("allow_wildcards_in_identity_templates", Kind::Bool, "Identity values may hold `*` and `+`."),
    Field::visible("allow_slashes_in_identity_templates", Kind::Bool, "Identity values may hold `/`."),
];

const SHOWN: &[Field] = &[
    Field::visible("name", Kind::Text, "Its name."),
    Field::visible("policy", Kind::Text, "Its text."),
    Field::visible("version", Kind::Int, "How often it has been written."),
    Field::visible("modified", Kind::Time, "When it was written last."),
    Field::visible("cas_required", Kind::Bool, "Whether a write must give cas."),
    Field::visible("expiration", Kind::Time, "Until when it holds."),
];

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "policy",
        Access::Token,
        "The policies.",
        &[
            Op::read("Lists the policies.", handler!(list_old)).answers(Answer::Keys),
            Op::list("Lists the policies.", handler!(list_old)),
        ],
    ),
    Route::new("policies/acl", Access::Token, "The policies.", &[Op::list("Lists the policies.", handler!(list))]),
    Route::new(
        "policies/detailed/acl",
        Access::Token,
        "The policies with their texts.",
        &[Op::list("Lists the policies with their texts.", handler!(list_detailed))],
    ),
    Route::new(
        "policy/*name",
        Access::Token,
        "One policy.",
        &[
            Op::read("Shows a policy.", handler!(show_old)).answers(Answer::Data(&[
                Field::visible("name", Kind::Text, "Its name."),
                Field::visible("rules", Kind::Text, "Its text."),
            ])),
            Op::update("Writes a policy.", handler!(write_old)).takes(FIELDS),
            Op::delete("Deletes a policy.", handler!(delete)),
        ],
    ),
    Route::new(
        "policies/acl/*name",
        Access::Token,
        "One policy.",
        &[
            Op::read("Shows a policy.", handler!(show)).answers(Answer::Data(SHOWN)),
            Op::update("Writes a policy.", handler!(write)).takes(FIELDS),
            Op::patch("Changes what is given of a policy.", handler!(patch)).takes(FIELDS).answers(Answer::Data(&[])),
            Op::delete("Deletes a policy.", handler!(delete)),
        ],
    ),
];

/// Longer names cannot be made.
const NAME_LEN_MAX: usize = 512;

/// Lower-case and without a slash at its end already: see `canonical` in the pipeline.
fn name(call: &Call<'_>) -> String {
    call.capture("name").to_lowercase()
}

async fn list_old(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let keys = names(call);
    Ok(LogicalResponse::json(json!({ "keys": keys, "policies": keys })).shaped(Shape::Duplicated))
}

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse::json(json!({ "keys": names(call) })))
}

async fn list_detailed(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let keys = names(call);
    let info: Object = keys.iter().filter_map(|name| read(call, name).map(|d| (name.clone(), d.into()))).collect();
    Ok(LogicalResponse::json(json!({ "keys": keys, "key_info": info })))
}

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    read(call, &name(call)).map(LogicalResponse::data).ok_or(RequestError::NotFound)
}

async fn show_old(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = name(call);
    let mut shown = read(call, &name).ok_or(RequestError::NotFound)?;
    let text = shown.shift_remove("policy").unwrap_or_default();
    let mut data = Object::new();
    data.insert("name".into(), name.into());
    data.insert("rules".into(), text);
    data.extend(shown.into_iter().filter(|(key, _)| key != "name"));
    Ok(LogicalResponse::data(data).shaped(Shape::Duplicated))
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = name(call);
    match name.as_str() {
        "root" => return Err(RequestError::invalid("cannot delete \"root\" policy")),
        "default" => return Err(RequestError::invalid("cannot delete default policy")),
        "response-wrapping" => return Err(RequestError::invalid("cannot delete \"response-wrapping\" policy")),
        _ => {}
    }
    call.unsealed.policies.delete(&name).await?;
    Ok(LogicalResponse::empty())
}

/// In order, `root` last.
fn names(call: &Call<'_>) -> Vec<String> {
    let mut names = call.unsealed.policies.names();
    names.push("root".to_owned());
    names
}

fn read(call: &Call<'_>, name: &str) -> Option<Object> {
    if name == "root" {
        return Some(Object::from_iter([
            ("name".to_owned(), "root".into()),
            ("policy".to_owned(), "".into()),
            ("version".to_owned(), 0.into()),
            ("cas_required".to_owned(), false.into()),
            ("allow_wildcards_in_identity_templates".to_owned(), false.into()),
            ("allow_slashes_in_identity_templates".to_owned(), false.into()),
        ]));
    }
    let document = call.unsealed.policies.find(name)?;
    let Value::Object(mut shown) = json!({
        "name": document.name,
        "policy": document.text,
        "version": document.version,
        "modified": document.modified.rfc3339(),
        "cas_required": document.cas_required,
        "allow_wildcards_in_identity_templates": document.allow_wildcards_in_identity_templates,
        "allow_slashes_in_identity_templates": document.allow_slashes_in_identity_templates,
    }) else {
        return None;
    };
    if let Some(end) = document.expiration {
        shown.insert("expiration".to_owned(), end.rfc3339().into());
    }
    Some(shown)
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    write_by(call, false).await
}

async fn write_old(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    write_by(call, true).await
}

/// On the old route, the text may come as `rules`.
async fn write_by(call: &Call<'_>, old: bool) -> Result<LogicalResponse, RequestError> {
    let (name, fields) = (name(call), &call.fields);
    let mut warnings = Vec::new();
    let given = fields.text("policy").filter(|text| !text.is_empty());
    let text = match (given, fields.text("rules").filter(|_| old)) {
        (Some(text), _) => text,
        (None, Some(rules)) if !rules.is_empty() => {
            warnings.push("'rules' is deprecated, please use 'policy' instead".to_owned());
            rules
        }
        _ => return Err(RequestError::invalid(NO_TEXT)),
    };
    refuse_fixed(&name)?;
    if name.trim() != name {
        return Err(RequestError::invalid("policy name begins or ends with a blank: take the blank off"));
    }
    if name.chars().any(char::is_control) {
        return Err(RequestError::invalid("policy name holds control characters"));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(RequestError::Invalid(format!("policy name is longer than {NAME_LEN_MAX} bytes")));
    }
    let expiration = expiration(call)?;
    let document = PolicyDocument {
        name,
        text: unpacked(text).into(),
        version: 0,
        modified: call.core.seams.clock.now(),
        cas_required: fields.bool("cas_required").unwrap_or(false),
        allow_wildcards_in_identity_templates: fields.bool("allow_wildcards_in_identity_templates").unwrap_or(false),
        allow_slashes_in_identity_templates: fields.bool("allow_slashes_in_identity_templates").unwrap_or(false),
        expiration,
    };
    let found = call.unsealed.policies.write(document, fields.int("cas")).await?;
    warnings.extend(told(call, &found));
    Ok(LogicalResponse { warnings, ..LogicalResponse::empty() })
}

/// As a merge patch, but for null: it does not take an end away, it says nothing (as in OpenBao).
async fn patch(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = name(call);
    refuse_fixed(&name)?;
    if call.unsealed.policies.find(&name).is_none() {
        return Err(RequestError::invalid("policy not found"));
    }
    let fields = &call.fields;
    let text = match call.request.data.get("policy") {
        None => None,
        Some(_) => match fields.text("policy") {
            Some(text) if !text.is_empty() => Some(unpacked(text)),
            _ => return Err(RequestError::invalid(NO_TEXT)),
        },
    };
    let change = PolicyChange {
        text,
        cas_required: fields.bool("cas_required"),
        allow_wildcards_in_identity_templates: fields.bool("allow_wildcards_in_identity_templates"),
        allow_slashes_in_identity_templates: fields.bool("allow_slashes_in_identity_templates"),
        expiration: expiration(call)?,
    };
    let found = call.unsealed.policies.patch(&name, change, fields.int("cas")).await?;
    // Vault answers with an envelope around nothing.
    Ok(LogicalResponse { warnings: told(call, &found), ..LogicalResponse::empty().with_status(200) })
}

/// As many warnings as a person reads.
const WARNINGS_MAX: usize = 20;

/// What the guest found, as warnings: `At 3:6: path "a/*/b": …`, and the groups that are not there.
fn told(call: &Call<'_>, found: &PolicyReport) -> Vec<String> {
    let groups = found.groups.iter().filter_map(|group| missing(call, group));
    let mut warnings: Vec<String> = found.diagnostics.iter().map(Diagnostic::told).chain(groups).collect();
    let all = warnings.len();
    warnings.truncate(WARNINGS_MAX);
    if let Some(more) = all.checked_sub(WARNINGS_MAX).filter(|more| *more > 0) {
        let are = if more == 1 { "warning is" } else { "warnings are" };
        warnings.push(format!("{more} more {are} not shown; `policy lint` shows all that the text itself tells"));
    }
    warnings
}

/// What a group that does not exist means for whoever named it. It may come to exist: a policy may be written before its groups.
fn missing(call: &Call<'_>, group: &NamedGroup) -> Option<String> {
    let groups = &call.unsealed.identities.groups;
    let mut near = String::new();
    let which = match &group.key {
        GroupKey::Name(name) => {
            let found = groups.by_name(name);
            if found.as_ref().is_some_and(|found| found.name == *name) {
                return None;
            }
            // Names are one whatever their case; here they are compared letter by letter.
            near = found.map_or_else(String::new, |found| format!(", but {:?} does", found.name));
            format!("named {name:?}")
        }
        GroupKey::Id(id) if groups.find(id).is_some() => return None,
        GroupKey::Id(id) => format!("with the id {id:?}"),
    };
    let (who, until) = match group.approves {
        true => ("a control group asks members of", "nobody can approve as one of them"),
        false => ("a template asks for", "its rule counts for nobody"),
    };
    Some(format!("{who} the identity group {which}, which does not exist{near}: until it does, {until}"))
}

const NO_TEXT: &str = "'policy' parameter not supplied or empty";

fn refuse_fixed(name: &str) -> Result<(), RequestError> {
    // A blank does not make another name of it.
    match name.trim() {
        name @ ("root" | "response-wrapping") => Err(RequestError::Invalid(format!("cannot update \"{name}\" policy"))),
        _ => Ok(()),
    }
}

/// The end that `ttl` or `expiration` give: always in the future.
fn expiration(call: &Call<'_>) -> Result<Option<Timestamp>, RequestError> {
    let now = call.core.seams.clock.now();
    let end = match (call.fields.ttl("ttl"), call.fields.time("expiration")) {
        (Some(_), Some(_)) => {
            return Err(RequestError::invalid("cannot supply both 'expiration' and 'ttl' for policies"));
        }
        (Some(ttl), None) => now + ttl,
        (None, Some(at)) => at,
        (None, None) => return Ok(None),
    };
    if end <= now {
        return Err(RequestError::invalid("refusing to update policy as expiration time has already elapsed"));
    }
    Ok(Some(end))
}

/// The text, out of base64 if it is base64 of text.
pub(super) fn unpacked(text: &str) -> String {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim());
    decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned())
}
