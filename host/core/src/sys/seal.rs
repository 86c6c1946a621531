//! Init, seal, unseal, health, leader, keys (contract.md §2.1, §2.8).

use std::sync::Arc;

use base64::Engine as _;
use leasehold_model::Operation;
use serde_json::{Value, json};

use crate::call::Call;
use crate::core::{Core, seal_error};
use crate::fields::{Field, Fields, Kind};
use crate::request::{LogicalRequest, LogicalResponse, Object, RequestError, Shape};
use crate::routes::{Access, Route};
use crate::seams::seal::SealStatus;
use crate::token::create::First;

const READ: &[Operation] = &[Operation::Read];
const WRITE: &[Operation] = &[Operation::Update];

const INIT: &[Field] = &[
    Field::visible("secret_shares", Kind::Int, "Into how many shares the root key is split."),
    Field::visible("secret_threshold", Kind::Int, "How many of them unseal."),
    Field::visible("pgp_keys", Kind::CommaList, "Not supported: shares are handed out as they are."),
    Field::visible("root_token_pgp_key", Kind::Text, "Not supported."),
    Field::visible("recovery_shares", Kind::Int, "Only with auto-unseal."),
    Field::visible("recovery_threshold", Kind::Int, "Only with auto-unseal."),
    Field::visible("recovery_pgp_keys", Kind::CommaList, "Only with auto-unseal."),
    Field::visible("stored_shares", Kind::Int, "Only with auto-unseal."),
];
const UNSEAL: &[Field] = &[
    Field::hidden("key", Kind::Text, "A share, in hex or base64."),
    Field::visible("reset", Kind::Bool, "Forgets the shares given so far."),
    Field::visible("migrate", Kind::Bool, "Only with auto-unseal."),
];

/// `init`, `seal-status`, `unseal`, `health` and `leader` are answered before this table is read; they stand here for help and
/// for the rule that they need no token.
pub const ROUTES: &[Route] = &[
    route(
        "init",
        &[Operation::Read, Operation::Update],
        INIT,
        Access::Unauthenticated,
        "Initialises the server, once.",
    ),
    route("seal-status", READ, &[], Access::Unauthenticated, "Whether the server is sealed."),
    route("unseal", WRITE, UNSEAL, Access::Unauthenticated, "Takes a share of the root key."),
    route("health", READ, &[], Access::Unauthenticated, "Health, for load balancers."),
    route("leader", READ, &[], Access::Unauthenticated, "Which node leads."),
    route("seal", WRITE, &[], Access::Sudo, "Seals the server."),
    route("step-down", WRITE, &[], Access::Token, "Nothing to do without high availability."),
    route("key-status", READ, &[], Access::Token, "The encryption key in use."),
    route("rotate", WRITE, &[], Access::Sudo, "Adds a new encryption key."),
    route("rotate/keyring", WRITE, &[], Access::Sudo, "Adds a new encryption key."),
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

/// Routes that answer while sealed. They need no token and leave no audit record.
pub(crate) async fn before_unseal(
    core: &Arc<Core>,
    request: &LogicalRequest,
) -> Option<Result<LogicalResponse, RequestError>> {
    let path = request.path.strip_prefix("sys/")?;
    Some(match (path, request.operation) {
        ("health", Operation::Read) => health(core).await,
        ("seal-status", Operation::Read) => seal_status(core).await,
        ("init", Operation::Read) => init_status(core).await,
        ("init", Operation::Update) => init(core, &request.data).await,
        ("unseal", Operation::Update) => unseal(core, &request.data).await,
        ("leader", Operation::Read) => core.unsealed().map(|_| plain(json!({ "ha_enabled": false }))),
        ("health" | "seal-status" | "init" | "unseal" | "leader", Operation::Help) => return None,
        ("health" | "seal-status" | "init" | "unseal" | "leader", _) => Err(RequestError::MethodNotAllowed),
        ("seal", Operation::Update) if is_uninitialized(core).await => Ok(LogicalResponse::empty()),
        _ => return None,
    })
}

async fn is_uninitialized(core: &Core) -> bool {
    core.seal_status().await.is_ok_and(|status| !status.initialized)
}

fn plain(value: Value) -> LogicalResponse {
    LogicalResponse::json(value).shaped(Shape::Plain)
}

async fn init_status(core: &Core) -> Result<LogicalResponse, RequestError> {
    let status = core.seal_status().await.map_err(seal_error)?;
    Ok(plain(json!({ "initialized": status.initialized })))
}

fn coerce(fields: &[Field], data: &Object) -> Result<Fields, RequestError> {
    Fields::coerce(fields, data).map_err(|error| RequestError::Invalid(error.to_string()))
}

async fn init(core: &Core, data: &Object) -> Result<LogicalResponse, RequestError> {
    let fields = coerce(INIT, data)?;
    let asks_pgp = fields.list("pgp_keys").is_some_and(|keys| !keys.is_empty())
        || fields.text("root_token_pgp_key").is_some_and(|key| !key.is_empty());
    if asks_pgp {
        // Never ignored: whoever asks for encrypted shares must not get plain ones.
        return Err(RequestError::invalid(
            "encrypting shares with PGP keys is not supported: leave pgp_keys and root_token_pgp_key out",
        ));
    }
    // Nor are these: whoever asks for recovery keys would believe to have some, and init is done only once.
    let asked: Vec<&str> = ["recovery_shares", "recovery_threshold"]
        .into_iter()
        .filter(|name| fields.int(name).is_some_and(|number| number != 0))
        .chain(fields.list("recovery_pgp_keys").filter(|keys| !keys.is_empty()).map(|_| "recovery_pgp_keys"))
        .collect();
    if !asked.is_empty() {
        let asked = asked.join(",");
        return Err(RequestError::Invalid(format!("parameters {asked} not applicable to seal type shamir")));
    }
    let number = |name: &str, shown: &str| -> Result<u8, RequestError> {
        // Too few are for the seal to refuse, which knows what goes together.
        u8::try_from(fields.int(name).unwrap_or(0).max(0))
            .map_err(|_| RequestError::Invalid(format!("invalid seal configuration: {shown} must be less than 256")))
    };
    let made =
        core.init(number("secret_shares", "shares")?, number("secret_threshold", "threshold")?, First::Root).await?;
    let hex: Vec<String> = made.shares.iter().map(|share| hex::encode(&*share.0)).collect();
    let base64: Vec<String> =
        made.shares.iter().map(|share| base64::engine::general_purpose::STANDARD.encode(&*share.0)).collect();
    Ok(plain(json!({ "keys": hex, "keys_base64": base64, "root_token": made.root_token.expose() })))
}

async fn unseal(core: &Arc<Core>, data: &Object) -> Result<LogicalResponse, RequestError> {
    let fields = coerce(UNSEAL, data)?;
    if !core.seal_status().await.map_err(seal_error)?.initialized {
        return Err(RequestError::invalid("Vault is not initialized"));
    }
    if fields.bool("reset").unwrap_or(false) {
        let status = core.reset_unseal().await?;
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
    let status = core.unseal(&share).await?;
    Ok(status_answer(core, &status))
}

async fn seal_status(core: &Core) -> Result<LogicalResponse, RequestError> {
    let status = core.seal_status().await.map_err(seal_error)?;
    Ok(status_answer(core, &status))
}

fn status_answer(core: &Core, status: &SealStatus) -> LogicalResponse {
    let settings = &core.settings;
    let mut data = Object::new();
    let mut put = |name: &str, value: Value| {
        data.insert(name.to_owned(), value);
    };
    put("type", "shamir".into());
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
    put("migration", false.into());
    if let Ok(unsealed) = core.unsealed() {
        put("cluster_name", unsealed.installation.cluster_name.clone().into());
        put("cluster_id", unsealed.installation.cluster_id.clone().into());
    }
    put("recovery_seal", false.into());
    put("storage_type", settings.storage_type.into());
    // Ours: what decides and what renders, by content.
    let modules: Object =
        core.seams.sandbox.builtins().into_iter().map(|(name, digest)| (name, digest.0.into())).collect();
    put("builtin_modules", modules.into());
    LogicalResponse::data(data).shaped(Shape::Plain)
}

/// With the usual status; the door puts the one there that a load balancer asks for.
async fn health(core: &Core) -> Result<LogicalResponse, RequestError> {
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

pub(crate) async fn handle(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let seal = &call.core.seams.seal;
    match call.pattern {
        "seal" => {
            // After the answer's audit record: sealing takes the devices away.
            let core = call.core.clone();
            tokio::spawn(async move { core.seal().await });
            Ok(LogicalResponse::empty())
        }
        "step-down" => Ok(LogicalResponse::empty()),
        "key-status" => {
            let status = seal.key_status().await.map_err(seal_error)?;
            Ok(LogicalResponse::json(json!({
                "term": status.term,
                "install_time": status.installed_at.rfc3339(),
                "encryptions": status.encryptions,
            }))
            .shaped(Shape::Duplicated))
        }
        "rotate" | "rotate/keyring" => {
            seal.rotate().await.map_err(seal_error)?;
            Ok(LogicalResponse::empty())
        }
        _ => Err(RequestError::UnsupportedPath),
    }
}
