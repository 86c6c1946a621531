//! Init, seal, unseal, health, keys (contract.md §2.1, §2.8).

use base64::Engine as _;
use serde_json::{Value, json};

use crate::api::call::{Call, SealedCall, SystemHandler, handler, sealed_handler};
use crate::core::{Core, seal_error};
use crate::fields::{Field, Kind};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::seal::SealStatus;
use crate::token::create::First;

const INIT: &[Field] = &[
    Field::visible("secret_shares", Kind::Int, "Into how many shares the root key is split. Not with auto-unseal."),
    Field::visible("secret_threshold", Kind::Int, "How many of them unseal. Not with auto-unseal."),
    Field::visible("pgp_keys", Kind::CommaList, "Not supported: shares are handed out as they are."),
    Field::visible("root_token_pgp_key", Kind::Text, "Not supported."),
    Field::visible(
        "recovery_shares",
        Kind::Int,
        "With auto-unseal: into how many shares the recovery key is split. 0: there is none.",
    ),
    Field::visible("recovery_threshold", Kind::Int, "With auto-unseal: how many of them it takes."),
    Field::visible("recovery_pgp_keys", Kind::CommaList, "Not supported."),
    Field::visible("stored_shares", Kind::Int, "Accepted, and without effect."),
];
const UNSEAL: &[Field] = &[
    Field::hidden("key", Kind::Text, "A share, in hex or base64."),
    Field::visible("reset", Kind::Bool, "Forgets the shares given so far."),
    Field::visible("migrate", Kind::Bool, "The share is given to move to the seal that is configured."),
];

const STATUS: Answer = Answer::Plain(&[
    Field::visible("type", Kind::Text, "The configured seal: `shamir`, `static` or `transit`."),
    Field::visible("initialized", Kind::Bool, "Whether the server has keys."),
    Field::visible("sealed", Kind::Bool, "Whether it answers requests yet."),
    Field::visible("t", Kind::Int, "How many shares it takes to unseal, or recovery shares where a seal unseals."),
    Field::visible("n", Kind::Int, "How many shares there are."),
    Field::visible("progress", Kind::Int, "How many shares have been given so far."),
    Field::visible("migration", Kind::Bool, "Whether shares must be given to move to another seal."),
    Field::visible("recovery_seal", Kind::Bool, "Whether the server unseals itself."),
    Field::visible("version", Kind::Text, "The version of Vault that clients may take this server for."),
]);

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "init",
        Access::WhileSealed,
        "Whether the server is initialised, and its initialisation.",
        &[
            Op::read("Whether the server is initialised.", sealed_handler!(init_status))
                .answers(Answer::Plain(&[Field::visible("initialized", Kind::Bool, "Whether it is.")])),
            Op::update("Initialises the server, once.", sealed_handler!(init)).takes(INIT).answers(Answer::Plain(&[
                Field::hidden("keys", Kind::List, "The shares, in hex."),
                Field::hidden("keys_base64", Kind::List, "The shares, in base64."),
                Field::hidden("recovery_keys", Kind::List, "The recovery shares, in hex."),
                Field::hidden("recovery_keys_base64", Kind::List, "The recovery shares, in base64."),
                Field::hidden("root_token", Kind::Text, "The first token."),
            ])),
        ],
    ),
    Route::new(
        "seal-status",
        Access::WhileSealed,
        "Whether the server is sealed.",
        &[Op::read("Whether the server is sealed.", sealed_handler!(seal_status)).answers(STATUS)],
    ),
    Route::new(
        "unseal",
        Access::WhileSealed,
        "Takes a share of the root key.",
        &[Op::update("Takes a share of the root key.", sealed_handler!(unseal)).takes(UNSEAL).answers(STATUS)],
    ),
    Route::new(
        "health",
        Access::WhileSealed,
        "Health, for load balancers.",
        &[Op::read("Health, for load balancers.", sealed_handler!(health)).answers(Answer::Plain(&[
            Field::visible("initialized", Kind::Bool, "Whether the server has keys."),
            Field::visible("sealed", Kind::Bool, "Whether it answers requests yet."),
            Field::visible("standby", Kind::Bool, "Whether another node answers requests."),
            Field::visible("server_time_utc", Kind::Int, "Seconds since the epoch."),
            Field::visible("version", Kind::Text, "As in seal-status."),
        ]))],
    ),
    Route::new("seal", Access::Sudo, "Seals the server.", &[Op::update("Seals the server.", handler!(seal))]),
    Route::new(
        "step-down",
        Access::Token,
        "Gives the lead away.",
        &[Op::update("Does nothing: no server leads.", handler!(step_down))],
    ),
    Route::new(
        "key-status",
        Access::Token,
        "The encryption key in use.",
        &[Op::read("Shows the encryption key in use.", handler!(key_status)).answers(Answer::Data(&[
            Field::visible("term", Kind::Int, "Which key it is."),
            Field::visible("install_time", Kind::Time, "Since when it has been in use."),
            Field::visible("encryptions", Kind::Int, "How often it has been used."),
        ]))],
    ),
    Route::new(
        "rotate",
        Access::Sudo,
        "Adds a new encryption key.",
        &[Op::update("Adds a new encryption key.", handler!(rotate))],
    ),
    Route::new(
        "rotate/keyring",
        Access::Sudo,
        "Adds a new encryption key.",
        &[Op::update("Adds a new encryption key.", handler!(rotate))],
    ),
];

fn plain(value: Value) -> LogicalResponse {
    LogicalResponse::json(value).shaped(Shape::Plain)
}

async fn init_status(call: &SealedCall<'_>) -> Result<LogicalResponse, RequestError> {
    let status = call.core.seal_status().await.map_err(seal_error)?;
    Ok(plain(json!({ "initialized": status.initialized })))
}

async fn init(call: &SealedCall<'_>) -> Result<LogicalResponse, RequestError> {
    let (core, fields) = (call.core, &call.fields);
    let status = core.seal_status().await.map_err(seal_error)?;
    let asks = |names: &[&str]| -> Vec<String> {
        let is_asked = |name: &&&str| {
            fields.int(name).is_some_and(|number| number != 0)
                || fields.list(name).is_some_and(|keys| !keys.is_empty())
                || fields.text(name).is_some_and(|key| !key.is_empty())
        };
        names.iter().filter(is_asked).map(|name| (*name).to_owned()).collect()
    };
    // Never ignored: whoever asks for recovery keys would believe to have some, and init is done only once.
    let asked = asks(match status.recovery {
        true => &["secret_shares", "secret_threshold", "pgp_keys"],
        false => &["recovery_shares", "recovery_threshold", "recovery_pgp_keys"],
    });
    if !asked.is_empty() {
        let (asked, kind) = (asked.join(","), status.kind);
        return Err(RequestError::Invalid(format!("parameters {asked} not applicable to seal type {kind}")));
    }
    // Nor this: whoever asks for encrypted shares must not get plain ones.
    if !asks(&["pgp_keys", "recovery_pgp_keys", "root_token_pgp_key"]).is_empty() {
        return Err(RequestError::invalid(
            "encrypting shares with PGP keys is not supported: leave pgp_keys, recovery_pgp_keys and root_token_pgp_key out",
        ));
    }
    let what = if status.recovery { "recovery" } else { "seal" };
    let number = |name: &str, shown: &str| -> Result<u8, RequestError> {
        // Too few are for the seal to refuse, which knows what goes together.
        u8::try_from(fields.int(name).unwrap_or(0).max(0))
            .map_err(|_| RequestError::Invalid(format!("invalid {what} configuration: {shown} must be less than 256")))
    };
    let (shares, threshold) = match status.recovery {
        true => ("recovery_shares", "recovery_threshold"),
        false => ("secret_shares", "secret_threshold"),
    };
    let made = core.init(number(shares, "shares")?, number(threshold, "threshold")?, First::Root).await?;
    let hex: Vec<String> = made.shares.iter().map(|share| hex::encode(&*share.0)).collect();
    let base64: Vec<String> =
        made.shares.iter().map(|share| base64::engine::general_purpose::STANDARD.encode(&*share.0)).collect();
    let root_token = made.root_token.expose();
    if !status.recovery {
        return Ok(plain(json!({ "keys": hex, "keys_base64": base64, "root_token": root_token })));
    }
    core.unseal_now().await;
    let mut data = json!({ "keys": [], "keys_base64": [] });
    if !hex.is_empty() {
        data["recovery_keys"] = hex.into();
        data["recovery_keys_base64"] = base64.into();
    }
    data["root_token"] = root_token.into();
    Ok(plain(data))
}

async fn unseal(call: &SealedCall<'_>) -> Result<LogicalResponse, RequestError> {
    let (core, fields) = (call.core, &call.fields);
    let from = call.from;
    if !core.seal_status().await.map_err(seal_error)?.initialized {
        return Err(RequestError::invalid("Vault is not initialized"));
    }
    if fields.bool("reset").unwrap_or(false) {
        let status = core.reset_unseal(from).await?;
        return Ok(status_answer(core, &status));
    }
    let Some(key) = fields.text("key").filter(|key| !key.is_empty()) else {
        return Err(RequestError::invalid("'key' must be specified in request body as JSON, or 'reset' set to true"));
    };
    let share = zeroize::Zeroizing::new(
        hex::decode(key)
            .ok()
            .or_else(|| base64::engine::general_purpose::STANDARD.decode(key).ok())
            .ok_or_else(|| RequestError::invalid("'key' must be a valid hex or base64 string"))?,
    );
    if core.unsealed().is_err() && share.len() < 16 {
        return Err(RequestError::invalid("invalid key: key is shorter than minimum 16 bytes"));
    }
    let status = core.unseal_from(&share, fields.bool("migrate").unwrap_or(false), from).await?;
    Ok(status_answer(core, &status))
}

async fn seal_status(call: &SealedCall<'_>) -> Result<LogicalResponse, RequestError> {
    let status = call.core.seal_status().await.map_err(seal_error)?;
    Ok(status_answer(call.core, &status))
}

fn status_answer(core: &Core, status: &SealStatus) -> LogicalResponse {
    let settings = &core.settings;
    let mut data = Object::new();
    let mut put = |name: &str, value: Value| {
        data.insert(name.to_owned(), value);
    };
    put("type", status.kind.into());
    put("initialized", status.initialized.into());
    put("sealed", status.sealed.into());
    put("t", status.threshold.into());
    put("n", status.shares.into());
    put("progress", status.progress.into());
    put("nonce", status.nonce.clone().into());
    put("version", settings.version.clone().into());
    // Vault has one of the two; clients look for either.
    put("build_date", settings.commit_date.clone().into());
    put("commit_date", settings.commit_date.clone().into());
    put("migration", status.migration.into());
    if let Ok(unsealed) = core.unsealed() {
        put("cluster_name", unsealed.installation.cluster_name.clone().into());
        put("cluster_id", unsealed.installation.cluster_id.clone().into());
    }
    put("recovery_seal", status.recovery.into());
    if status.recovery {
        put("recovery_seal_type", "shamir".into());
    }
    put("storage_type", settings.storage_type.into());
    // Ours: what decides and what renders, by content.
    let digests = [("acl", core.seams.acl.digest()), ("statements", core.seams.templates.digest())];
    let modules: Object = digests.into_iter().map(|(name, digest)| (name.to_owned(), digest.0.into())).collect();
    put("builtin_modules", modules.into());
    LogicalResponse::data(data).shaped(Shape::Plain)
}

/// With the usual status; the door puts the one there that a load balancer asks for.
async fn health(call: &SealedCall<'_>) -> Result<LogicalResponse, RequestError> {
    let core = call.core;
    let status = core.seal_status().await.map_err(seal_error)?;
    let mut data = Object::new();
    let mode = if status.sealed { "unknown" } else { "disabled" };
    data.insert("initialized".into(), status.initialized.into());
    data.insert("sealed".into(), status.sealed.into());
    data.insert("standby".into(), status.sealed.into());
    data.insert("performance_standby".into(), false.into());
    data.insert("replication_performance_mode".into(), mode.into());
    data.insert("replication_dr_mode".into(), mode.into());
    data.insert("server_time_utc".into(), core.seams.clock.now().as_secs().into());
    data.insert("version".into(), core.settings.version.clone().into());
    if let Ok(unsealed) = core.unsealed() {
        data.insert("cluster_name".into(), unsealed.installation.cluster_name.clone().into());
        data.insert("cluster_id".into(), unsealed.installation.cluster_id.clone().into());
    }
    let code = match (status.initialized, status.sealed) {
        (false, _) => 501,
        (true, true) => 503,
        (true, false) => 200,
    };
    Ok(LogicalResponse::data(data).shaped(Shape::Plain).with_status(code))
}

async fn seal(_: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse { seals: true, ..LogicalResponse::empty() })
}

async fn step_down(_: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse::empty())
}

async fn key_status(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let status = call.core.seams.seal.key_status().await.map_err(seal_error)?;
    Ok(LogicalResponse::json(json!({
        "term": status.term,
        "install_time": status.installed_at.rfc3339(),
        "encryptions": status.encryptions,
    }))
    .shaped(Shape::Duplicated))
}

async fn rotate(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.core.nodes.write_keys(call.core.seams.seal.rotate()).await.map_err(seal_error)?;
    Ok(LogicalResponse::empty())
}
