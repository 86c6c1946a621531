//! `sys/wrapping/`: answers that are kept under a token which is good for one use.
//!
//! Wrapping itself is what [`crate::api::wrap`] does with any answer.

use leasehold_model::{Operation, TokenId};
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::control_group::Waiting;
use crate::fields::{Field, Kind};
use crate::lease::EndCause;
use crate::request::{LogicalRequest, LogicalResponse};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;
use crate::token::TokenRecord;
use crate::wrapping::Opened;

const TOKEN: &[Field] = &[Field::hidden("token", Kind::Any, "The wrapping token; the calling one when none is given.")];

const SHOWN: Answer = Answer::Data(&[
    Field::visible("creation_path", Kind::Text, "The path of the request whose answer is wrapped."),
    Field::visible("creation_time", Kind::Time, "When it was wrapped."),
    Field::visible("creation_ttl", Kind::Int, "How long the token lives from then on, in seconds."),
]);

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "wrapping/wrap",
        Access::Token,
        "Wraps what is sent.",
        &[Op::update("Wraps what is sent; for as long as X-Vault-Wrap-TTL says.", handler!(wrap)).takes_document()],
    ),
    Route::new(
        "wrapping/unwrap",
        Access::Token,
        "Unwraps an answer.",
        &[Op::update("Answers what a wrapping token stands for, once.", handler!(unwrap)).takes(TOKEN)],
    ),
    Route::new(
        "wrapping/rewrap",
        Access::Token,
        "Moves a wrapped answer to a new token.",
        &[Op::update("Moves a wrapped answer to a new token, unseen.", handler!(rewrap)).takes(TOKEN)],
    ),
    Route::new(
        "wrapping/lookup",
        Access::Unauthenticated,
        "Where a wrapping token comes from.",
        &[
            Op::read("Shows where a wrapping token comes from.", handler!(lookup)).takes(TOKEN).answers(SHOWN),
            Op::update("Shows where a wrapping token comes from.", handler!(lookup)).takes(TOKEN).answers(SHOWN),
        ],
    ),
];

/// Where a wrapped answer is read.
pub(crate) const UNWRAP: &str = "sys/wrapping/unwrap";

const NOT_VALID: &str = "wrapping token is not valid or does not exist";

pub(crate) fn not_valid() -> RequestError {
    RequestError::invalid(NOT_VALID)
}

/// Why a request is refused whose token is not good: where that token was to be unwrapped, it is called so.
pub(crate) fn bad_token(request: &LogicalRequest) -> RequestError {
    let is_here = matches!(&*request.path, UNWRAP | "sys/wrapping/rewrap" | "sys/wrapping/lookup")
        && request.operation != Operation::Help;
    match (named(request), &request.token) {
        (Ok(None), Some(_)) if is_here => not_valid(),
        (Ok(None), None) if is_here => empty("token is empty"),
        _ => RequestError::BadToken,
    }
}

fn empty(why: &str) -> RequestError {
    RequestError::Forbidden(format!("error validating wrapping token: {why}"))
}

/// The token that a request is about, if it is another one than the calling one.
fn named(request: &LogicalRequest) -> Result<Option<TokenId>, RequestError> {
    match request.data.get("token") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(empty("empty token in request body")),
        // Named once more in the body: its one use has been taken.
        Some(Value::String(text)) if request.token.as_ref().is_some_and(|own| own.expose() == text) => Ok(None),
        Some(Value::String(text)) => Ok(Some(TokenId::new(text.clone()))),
        Some(_) => Err(empty("could not decode token in request body")),
    }
}

async fn wrap(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    if call.request.wrap_ttl.is_none() {
        return Err(RequestError::invalid("endpoint requires response wrapping to be used"));
    }
    Ok(LogicalResponse::data(call.fields.unknown().clone()))
}

/// The wrapping token that a request is about, when it stands for a request which waits for approval.
async fn waiting(call: &Call<'_>) -> Result<Option<(TokenId, Waiting)>, RequestError> {
    let tokens = &call.unsealed.tokens;
    let Some(token) = named(call.request)?.or_else(|| call.request.token.clone()) else { return Ok(None) };
    let found = tokens.find_shown(&token).await?.filter(|(_, record)| record.waits());
    let Some((hash, _)) = found else { return Ok(None) };
    Ok(tokens.waiting(&hash).await?.map(|waiting| (token, waiting)))
}

/// Takes the one use of the wrapping token that a request is about.
async fn opened(call: &Call<'_>) -> Result<Opened, RequestError> {
    let tokens = &call.unsealed.tokens;
    let token = match named(call.request)? {
        Some(token) => {
            // No use is taken of a token that is none of these.
            let found = tokens.find_shown(&token).await?;
            found.filter(|(_, record)| record.wraps.is_some()).ok_or_else(not_valid)?;
            match tokens.admit(&token, None).await {
                Ok(_) => token,
                Err(RequestError::BadToken) => return Err(not_valid()),
                Err(other) => return Err(other),
            }
        }
        // Its use was taken when it was admitted.
        None => {
            call.caller().ok().filter(|caller| caller.record.wraps.is_some()).ok_or_else(not_valid)?;
            call.request.token.clone().ok_or_else(not_valid)?
        }
    };
    crate::fail::point("unwrap-admitted");
    tokens.open_wrapped(&token).await?.ok_or_else(not_valid)
}

async fn unwrap(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    if let Some((token, waiting)) = waiting(call).await? {
        return call.core.release(call, &token, waiting).await;
    }
    let opened = opened(call).await?;
    let ended = call.unsealed.tokens.end_read(&opened.hash).await;
    if certain(call, &opened, ended).await? { Ok(opened.answer) } else { Err(not_valid()) }
}

async fn rewrap(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    if waiting(call).await?.is_some() {
        return Err(RequestError::invalid(
            "this token stands for a request that waits for approval: it cannot be moved",
        ));
    }
    let opened = opened(call).await?;
    let moved = call.unsealed.tokens.rewrap(&opened).await;
    let wrap_info = certain(call, &opened, moved).await?.ok_or_else(not_valid)?;
    Ok(LogicalResponse { wrap_info: Some(wrap_info), ..LogicalResponse::default() })
}

/// What a commit that takes a wrapping token away has come to. If that is not known, the token may be gone: then nothing else would end
/// what nobody gets.
async fn certain<T>(call: &Call<'_>, opened: &Opened, done: Result<T, StorageError>) -> Result<T, RequestError> {
    match done {
        Ok(done) => Ok(done),
        // Nothing was written, and the request is decided again.
        Err(StorageError::Overtaken) => Err(StorageError::Overtaken.into()),
        Err(error) => {
            if let Some(handed_out) = opened.answer.handed_out() {
                call.core.take_back(call.unsealed, &handed_out, &EndCause::Withheld).await?;
            }
            Err(error.into())
        }
    }
}

async fn lookup(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let token = match named(call.request)? {
        Some(token) => token,
        None => call.request.token.clone().ok_or_else(|| empty("token is empty"))?,
    };
    let is_whole = |record: &TokenRecord| record.wraps.is_some() && record.num_uses > 0;
    let found = call.unsealed.tokens.find_shown(&token).await?;
    let (_, record) = found.filter(|(_, record)| is_whole(record)).ok_or_else(not_valid)?;
    Ok(LogicalResponse::json(json!({
        "creation_path": record.path,
        "creation_time": record.created_at.rfc3339(),
        "creation_ttl": record.creation_ttl.as_secs(),
    })))
}
