//! A new root token for those who hold enough shares (contract.md §2.8): OpenBao's routes, and the older ones of Vault.
//!
//! The older routes need a token as well, as in Vault 2, unless the listener lets such requests in without one.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::json;
use zeroize::Zeroizing;

use crate::api::call::{Call, SystemHandler, handler};
use crate::core::seal_error;
use crate::fields::{Field, Kind};
use crate::quorum::QuorumError;
use crate::quorum::root_token::{OTP_LEN, RootProgress, RootStatus};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::seal::{KeyShare, Split};

const ATTEMPT: &[Field] = &[
    Field::hidden("otp", Kind::Text, "One-time password of 26 characters; without one, the server makes one."),
    Field::visible("pgp_key", Kind::Text, "Not supported."),
];
const UPDATE: &[Field] = &[
    Field::hidden("key", Kind::Text, "An unseal or recovery key share, in hex or base64."),
    Field::visible("nonce", Kind::Text, "The nonce of the attempt."),
];
const STATUS: &[Field] = &[
    Field::visible("started", Kind::Bool, "Whether an attempt is in progress."),
    Field::visible("nonce", Kind::Text, "Names the attempt."),
    Field::visible("progress", Kind::Int, "How many shares have been given."),
    Field::visible("required", Kind::Int, "How many it takes."),
    Field::visible("complete", Kind::Bool, "Whether a token has been made."),
    Field::hidden(
        "otp",
        Kind::Text,
        "The one-time password that the server has made; only in the answer that begins an attempt.",
    ),
    Field::visible("otp_length", Kind::Int, "How long a one-time password is."),
    Field::hidden("encoded_token", Kind::Text, "The token, XORed with the one-time password, in base64."),
    Field::visible("pgp_fingerprint", Kind::Text, "Always empty."),
];
const ABOUT: &str = "The attempt to make a root token with a quorum of key shares.";

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "generate-root-token/attempt",
        Access::Token,
        ABOUT,
        &[
            Op::read("Shows how far the attempt is.", handler!(read)).answers(Answer::Data(STATUS)),
            Op::update("Begins an attempt.", handler!(begin)).takes(ATTEMPT).answers(Answer::Data(STATUS)),
            Op::delete("Ends the attempt.", handler!(cancel)),
        ],
    ),
    Route::new(
        "generate-root-token/update",
        Access::Token,
        "Takes a share for a root token.",
        &[Op::update("Takes a share; the last one that is needed makes the token.", handler!(update))
            .takes(UPDATE)
            .answers(Answer::Data(STATUS))],
    ),
    Route::new(
        "generate-root/attempt",
        Access::TokenUnlessLetIn,
        ABOUT,
        &[
            Op::read("Shows how far the attempt is.", handler!(read_plain)).answers(Answer::Plain(STATUS)),
            Op::update("Begins an attempt.", handler!(begin_plain)).takes(ATTEMPT).answers(Answer::Plain(STATUS)),
            Op::delete("Ends the attempt.", handler!(cancel)),
        ],
    ),
    Route::new(
        "generate-root/update",
        Access::TokenUnlessLetIn,
        "Takes a share for a root token.",
        &[Op::update("Takes a share; the last one that is needed makes the token.", handler!(update_plain))
            .takes(UPDATE)
            .answers(Answer::Plain(STATUS))],
    ),
    Route::new(
        "decode-token",
        Access::Unauthenticated,
        "Decodes a root token with its one-time password.",
        &[Op::update("Decodes a root token with its one-time password.", handler!(decode))
            .takes(&[
                Field::hidden("encoded_token", Kind::Text, "The encoded token."),
                Field::hidden("otp", Kind::Text, "The one-time password."),
            ])
            .answers(Answer::Data(&[Field::hidden("token", Kind::Text, "The token.")]))],
    ),
];

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(enveloped(&call.unsealed.quorum.root_status().await.map_err(refused)?, ""))
}

async fn read_plain(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(plain(&call.unsealed.quorum.root_status().await.map_err(refused)?, "", ""))
}

async fn begin(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (status, otp) = begun(call).await?;
    Ok(enveloped(&status, &otp))
}

async fn begin_plain(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (status, otp) = begun(call).await?;
    Ok(plain(&status, &otp, ""))
}

async fn begun(call: &Call<'_>) -> Result<(RootStatus, Zeroizing<String>), RequestError> {
    let given = |name: &str| call.fields.text(name).filter(|text| !text.is_empty());
    // Never ignored: whoever asks for an encrypted token must not get one that a password opens.
    if given("pgp_key").is_some() {
        return Err(RequestError::invalid(
            "encrypting the root token with a PGP key is not supported: leave pgp_key out, and give an otp or take the one that is made",
        ));
    }
    let otp = given("otp");
    if otp.is_some_and(|otp| otp.len() != OTP_LEN) {
        return Err(RequestError::invalid("OTP string has incorrect length"));
    }
    let quorum = &call.unsealed.quorum;
    let made = quorum.begin_root(otp).await.map_err(refused)?;
    Ok((quorum.root_status().await.map_err(refused)?, made.unwrap_or_default()))
}

async fn cancel(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.quorum.cancel_root().await.map_err(refused)?;
    Ok(LogicalResponse::empty())
}

async fn update(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let given = |name: &str| call.fields.text(name).filter(|text| !text.is_empty());
    let Some(nonce) = given("nonce") else { return Err(RequestError::invalid("nonce is required")) };
    let Some(key) = given("key") else { return Err(RequestError::invalid("key is required")) };
    // The framework of OpenBao wraps what goes wrong from here on.
    let wrapped = |error| match refused(error) {
        RequestError::Invalid(text) => RequestError::Engine(text),
        other => other,
    };
    let share = decoded(key.trim()).ok_or_else(|| RequestError::Engine(NO_KEY.to_owned()))?;
    let progress = call.unsealed.quorum.give_to_root(&call.unsealed.tokens, &share, nonce).await.map_err(wrapped)?;
    let (status, encoded, made_token) = parts(progress);
    let data = json!({
        "started": true,
        "nonce": status.nonce,
        "progress": status.progress,
        "required": status.required,
        "complete": made_token.is_some(),
        "encoded_token": encoded,
        "pgp_fingerprint": "",
    });
    Ok(LogicalResponse { made_token, ..LogicalResponse::json(data) })
}

async fn update_plain(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let share = share_of(call)?;
    let nonce = call.fields.text("nonce").unwrap_or_default();
    let progress = call.unsealed.quorum.give_to_root(&call.unsealed.tokens, &share, nonce).await.map_err(refused)?;
    let (status, encoded, made_token) = parts(progress);
    let mut answer = plain(&status, "", &encoded);
    if let Some(data) = &mut answer.data {
        // As in Vault, which says it only where an attempt begins.
        data.insert("otp_length".to_owned(), 0.into());
    }
    Ok(LogicalResponse { made_token, ..answer })
}

fn parts(progress: RootProgress) -> (RootStatus, String, Option<crate::request::HandedOut>) {
    match progress {
        RootProgress::More(status) => (status, String::new(), None),
        RootProgress::Made { status, encoded, token } => (status, STANDARD_NO_PAD.encode(&*encoded), Some(token)),
    }
}

fn enveloped(status: &RootStatus, otp: &str) -> LogicalResponse {
    let mut data = Object::new();
    data.insert("started".into(), status.nonce.is_some().into());
    data.insert("complete".into(), false.into());
    data.insert("progress".into(), status.progress.into());
    data.insert("required".into(), status.required.into());
    data.insert("otp".into(), otp.into());
    data.insert("otp_length".into(), OTP_LEN.into());
    if let Some(nonce) = &status.nonce {
        data.insert("nonce".into(), nonce.clone().into());
        data.insert("pgp_fingerprint".into(), "".into());
    }
    LogicalResponse::data(data)
}

fn plain(status: &RootStatus, otp: &str, encoded: &str) -> LogicalResponse {
    LogicalResponse::json(json!({
        "nonce": status.nonce.as_deref().unwrap_or_default(),
        "started": status.nonce.is_some(),
        "progress": status.progress,
        "required": status.required,
        "complete": !encoded.is_empty(),
        "encoded_token": encoded,
        "encoded_root_token": encoded,
        "pgp_fingerprint": "",
        "otp": otp,
        "otp_length": OTP_LEN,
    }))
    .shaped(Shape::Plain)
}

const NO_KEY: &str = "'key' must be a valid hex or base64 string";

fn decoded(key: &str) -> Option<KeyShare> {
    let bytes = hex::decode(key).ok().or_else(|| STANDARD.decode(key).ok())?;
    Some(KeyShare(bytes.into()))
}

/// The share of a request to one of the routes that are as old as Vault's. What is hex and too short or too long for a share is read
/// as base64, since it may be that as well.
///
/// # Errors
/// 400 in Vault's words.
pub(super) fn share_of(call: &Call<'_>) -> Result<KeyShare, RequestError> {
    let Some(key) = call.fields.text("key").filter(|key| !key.is_empty()) else {
        return Err(RequestError::invalid("'key' must be specified in request body as JSON"));
    };
    decoded_share(key)
}

/// As [`share_of`], of a text.
pub(super) fn decoded_share(key: &str) -> Result<KeyShare, RequestError> {
    let fits = |bytes: &Vec<u8>| (Split::SHARE_LEN_MIN..=Split::SHARE_LEN_MAX).contains(&bytes.len());
    let bytes = hex::decode(key).ok().filter(fits).or_else(|| STANDARD.decode(key).ok());
    bytes.map(|bytes| KeyShare(bytes.into())).ok_or_else(|| RequestError::invalid(NO_KEY))
}

async fn decode(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let given = |name: &str| call.fields.text(name).unwrap_or_default();
    let (encoded, otp) = (given("encoded_token"), given("otp"));
    if encoded.is_empty() || otp.is_empty() {
        return Err(RequestError::invalid("provided 'encoded_token' or 'otp' is empty"));
    }
    let bytes = STANDARD_NO_PAD.decode(encoded).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| RequestError::invalid("error decoding base64'd token: illegal base64 data"))?;
    if bytes.len() != otp.len() {
        return Err(RequestError::Invalid(format!(
            "error xoring token: length of byte slices is not equivalent: {} != {}",
            bytes.len(),
            otp.len()
        )));
    }
    let token: Vec<u8> = bytes.iter().zip(otp.bytes()).map(|(encoded, otp)| encoded ^ otp).collect();
    Ok(LogicalResponse::json(json!({ "token": String::from_utf8_lossy(&token) })))
}

/// As Vault says it.
fn refused(error: QuorumError) -> RequestError {
    let text = match error {
        QuorumError::InProgress => "root generation already in progress for this namespace".to_owned(),
        QuorumError::NotInProgress => "no root generation in progress".to_owned(),
        QuorumError::WrongNonce(nonce) => {
            format!("incorrect nonce supplied; nonce for this root generation operation is \"{nonce}\"")
        }
        QuorumError::NoShare(why) => format!("invalid key: {why}"),
        QuorumError::Repeated => "given key has already been provided during this generation operation".to_owned(),
        QuorumError::WrongShare(split) if split.recovery => {
            "root generation aborted: unable to authenticate: recovery key verification failed".to_owned()
        }
        QuorumError::WrongShare(_) => {
            "root generation aborted: unable to authenticate: unable to retrieve stored keys: invalid key: \
             failed to decrypt keys from storage: cipher: message authentication failed"
                .to_owned()
        }
        QuorumError::Impossible(why) | QuorumError::NoSplit(why) => why.to_owned(),
        // Only new shares are verified.
        other @ (QuorumError::MustVerify(_) | QuorumError::NothingToVerify | QuorumError::NotVerified) => {
            return RequestError::Internal(other.to_string());
        }
        QuorumError::Seal(error) => return seal_error(error),
        QuorumError::Storage(error) => return error.into(),
    };
    RequestError::Invalid(text)
}
