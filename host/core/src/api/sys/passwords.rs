//! `sys/policies/password`: what passwords that this server makes are like.

use secrecy::ExposeSecret;
use serde_json::json;

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const POLICY: &[Field] = &[Field::visible("policy", Kind::Text, "HCL or JSON, as it is or in base64.").required()];

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "policies/password",
        Access::Token,
        "The password policies.",
        &[Op::list("Lists the password policies.", handler!(list))],
    ),
    Route::new(
        "policies/password/*name/generate",
        Access::Token,
        "A password by a policy.",
        &[Op::read("Makes a password by a policy; nothing is stored.", handler!(generate))
            .answers(Answer::Data(&[Field::hidden("password", Kind::Text, "A new password.")]))],
    ),
    Route::new(
        "policies/password/*name",
        Access::Token,
        "One password policy.",
        &[
            Op::read("Shows a password policy.", handler!(show)).answers(Answer::Data(&[Field::visible(
                "policy",
                Kind::Text,
                "Its text.",
            )])),
            Op::update("Writes a password policy.", handler!(write)).takes(POLICY),
            Op::delete("Deletes a password policy.", handler!(delete)),
        ],
    ),
];

/// Longer names cannot be made.
const NAME_LEN_MAX: usize = 512;

fn no_such_policy() -> RequestError {
    RequestError::Missing("policy does not exist".to_owned())
}

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let names = call.unsealed.engines.passwords().names().await?;
    if names.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": names }))) }
}

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let text = call.unsealed.engines.passwords().text(call.capture("name")).await?.ok_or_else(no_such_policy)?;
    Ok(LogicalResponse::json(json!({ "policy": text })))
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("name");
    if name.len() > NAME_LEN_MAX {
        return Err(RequestError::InvalidMulti(format!("the name is longer than {NAME_LEN_MAX} bytes")));
    }
    let text = call.fields.text("policy").filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| RequestError::InvalidMulti("missing policy".to_owned()))?;
    let warnings = call.unsealed.engines.passwords().write(name, &super::policies::unpacked(text)).await?;
    Ok(warnings.into_iter().fold(LogicalResponse::empty(), LogicalResponse::warn))
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.engines.passwords().delete(call.capture("name")).await?;
    Ok(LogicalResponse::empty())
}

async fn generate(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let password = call.unsealed.engines.passwords().generate(call.capture("name")).await?;
    let password = password.ok_or_else(no_such_policy)?;
    Ok(LogicalResponse::json(json!({ "password": password.expose_secret() })))
}
