//! `sys/capabilities`, `-self` and `-accessor` (contract.md §2.4).

use leasehold_model::{Accessor, Operation, TokenId};
use serde_json::json;

use crate::call::Call;
use crate::fields::{Field, Kind};
use crate::policy::decide;
use crate::request::{LogicalResponse, Object, RequestError, Shape};
use crate::routes::{Access, Route};

const PATHS: Field = Field::visible("paths", Kind::CommaList, "Paths to ask about.");
const PATH: Field = Field::visible("path", Kind::CommaList, "Old name of paths.");
const TOKEN: Field = Field::hidden("token", Kind::Text, "The token.");
const WRITE: &[Operation] = &[Operation::Update];

pub const ROUTES: &[Route] = &[
    route("capabilities", &[TOKEN, PATHS, PATH], "What a token may do on paths."),
    route("capabilities-self", &[TOKEN, PATHS, PATH], "What the calling token may do on paths."),
    route(
        "capabilities-accessor",
        &[Field::visible("accessor", Kind::Text, "The token's accessor."), PATHS, PATH],
        "What a token may do on paths.",
    ),
];

const fn route(pattern: &'static str, fields: &'static [Field], help: &'static str) -> Route {
    Route { pattern, operations: WRITE, fields, access: Access::Token, existence_check: false, help }
}

/// More paths in one request are refused: each costs a call into the guest.
const PATHS_MAX: usize = 1_000;

pub(crate) async fn handle(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    if call.pattern == "capabilities-accessor" && call.fields.text("accessor").is_none_or(str::is_empty) {
        return Err(RequestError::invalid("missing accessor"));
    }
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
    let policies = match call.pattern {
        "capabilities-self" => call.caller()?.record.policies.clone(),
        "capabilities" => {
            let Some(token) = call.fields.text("token").filter(|token| !token.is_empty()) else {
                return Err(RequestError::Engine("no token found".to_owned()));
            };
            let found = call.unsealed.tokens.find_shown(&TokenId::new(token)).await?;
            found.ok_or_else(|| RequestError::InvalidMulti("invalid token".to_owned()))?.1.policies
        }
        _ => {
            let accessor = call.fields.text("accessor").filter(|accessor| accessor.len() <= 64);
            let found = match accessor {
                Some(accessor) => call.unsealed.tokens.find_by_accessor(&Accessor::new(accessor)).await?,
                None => None,
            };
            found.ok_or_else(|| RequestError::InvalidMulti("invalid accessor".to_owned()))?.1.policies
        }
    };
    let mut data = Object::new();
    let answers: Vec<Vec<&'static str>> = if policies == ["root"] {
        paths.iter().map(|_| vec!["root"]).collect()
    } else {
        let asked: Vec<&str> = paths.iter().map(|path| path.strip_prefix('/').unwrap_or(path)).collect();
        let found = decide::capabilities(&*call.core.seams.sandbox, &call.unsealed.policies, &policies, &asked).await?;
        found.into_iter().map(leasehold_model::Capabilities::names).collect()
    };
    if let [only] = answers.as_slice() {
        data.insert("capabilities".into(), json!(only));
    }
    for (path, answer) in paths.into_iter().zip(answers) {
        data.insert(path, json!(answer));
    }
    Ok(LogicalResponse::data(data).shaped(Shape::Duplicated))
}
