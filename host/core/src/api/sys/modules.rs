//! Third parties' modules, and the policies that put them to work.

use base64::Engine as _;
use leasehold_model::name;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::policy::egp::{Egp, Enforcement};
use crate::policy::egp_paths;
use crate::policy::modules::ModuleRecord;
use crate::request::{LogicalResponse, Object};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const MODULE: &[Field] = &[Field::visible(
    "module",
    Kind::Text,
    "The component in base64; or send it as the body, with the type application/wasm.",
)];
const EGP: &[Field] = &[
    Field::visible("module", Kind::Text, "Name of a module in sys/modules.").required(),
    Field::visible(
        "config",
        Kind::Any,
        "An object for the module; readable by whoever reads the policy, so no place for secrets.",
    ),
    Field::visible(
        "paths",
        Kind::CommaList,
        "Canonical paths without a leading slash; a final `*` matches any rest, `+` any one segment.",
    )
    .required(),
    Field::visible("enforcement_level", Kind::Text, "Whether a denial is only recorded, or counts.")
        .one_of(&["advisory", "hard-mandatory"])
        .required(),
];

const RECORD: Answer = Answer::Data(&[
    Field::visible("name", Kind::Text, "Its name."),
    Field::visible("digest", Kind::Text, "Of its bytes."),
    Field::visible("size", Kind::Int, "In bytes."),
    Field::visible("world", Kind::Text, "The world that it implements."),
    Field::visible("uploaded_at", Kind::Time, "When it was written."),
    Field::visible("uploaded_by", Kind::Text, "The display name of the token that wrote it."),
]);

// Whoever can place code between a token and its answer needs more than an update.
pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "modules",
        Access::SudoToWrite,
        "The policy modules.",
        &[Op::list("Lists the policy modules.", handler!(list))],
    ),
    Route::new(
        "modules/:name",
        Access::SudoToWrite,
        "One policy module: a WebAssembly component of the world leasehold:policy/policy-module.",
        &[
            Op::read("Shows a policy module.", handler!(show)).answers(RECORD),
            Op::update("Writes a policy module.", handler!(push)).takes(MODULE).answers(RECORD),
            Op::delete("Deletes a policy module.", handler!(delete)),
        ],
    ),
    Route::new(
        "policies/egp",
        Access::SudoToWrite,
        "The endpoint-governing policies.",
        &[Op::list("Lists the endpoint-governing policies.", handler!(list_egps))],
    ),
    Route::new(
        "policies/egp/:name",
        Access::SudoToWrite,
        "Binds a module to paths.",
        &[
            Op::read("Shows which paths a module judges.", handler!(show_egp)).answers(Answer::Data(EGP)),
            Op::update("Has a module judge paths.", handler!(write_egp)).takes(EGP),
            Op::delete("Has a module judge paths no more.", handler!(delete_egp)),
        ],
    ),
];

async fn list(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    keys(call.unsealed.modules.names())
}

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let name = call.capture("name");
    let record = call.unsealed.modules.find(name).ok_or(RequestError::NotFound)?;
    let mut data = shown(&record);
    data.insert("used_by".into(), json!(call.unsealed.egps.users_of(name)));
    Ok(LogicalResponse::data(data))
}

async fn delete(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.modules.delete(call.capture("name"), &call.unsealed.egps).await?;
    Ok(LogicalResponse::empty())
}

async fn list_egps(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    keys(call.unsealed.egps.names())
}

async fn show_egp(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let egp = call.unsealed.egps.find(call.capture("name")).ok_or(RequestError::NotFound)?;
    let digest = call.unsealed.modules.find(&egp.module).map(|m| m.digest);
    Ok(LogicalResponse::json(json!({
        "name": egp.name,
        "module": egp.module,
        "module_digest": digest,
        "config": egp.config,
        "paths": egp.paths,
        "enforcement_level": egp.enforcement_level.as_str(),
        "modified": egp.modified.rfc3339(),
    })))
}

async fn delete_egp(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    call.unsealed.egps.delete(call.capture("name"), &call.unsealed.modules).await?;
    Ok(LogicalResponse::empty())
}

fn keys(keys: Vec<String>) -> Result<LogicalResponse, RequestError> {
    if keys.is_empty() { Err(RequestError::NotFound) } else { Ok(LogicalResponse::json(json!({ "keys": keys }))) }
}

fn shown(record: &ModuleRecord) -> Object {
    match json!({
        "name": record.name,
        "digest": record.digest,
        "size": record.size,
        "world": record.world,
        "functions": record.functions,
        "module_name": record.module_name,
        "module_version": record.module_version,
        "description": record.description,
        "uploaded_at": record.uploaded_at.rfc3339(),
        "uploaded_by": record.uploaded_by,
    }) {
        Value::Object(shown) => shown,
        _ => Object::new(),
    }
}

async fn push(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let bytes = match (&call.request.raw_body, call.fields.text("module")) {
        (Some(bytes), _) => bytes.clone(),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD
            .decode(text.trim())
            .map_err(|_| RequestError::invalid("`module` is not base64: send the component's bytes in base64, or as the body with the type application/wasm"))?,
        (None, None) => return Err(RequestError::invalid("no module: send the component as the body with the type application/wasm, or in base64 as `module`")),
    };
    let by = call.caller()?.record.display_name.clone();
    let record = call
        .unsealed
        .modules
        .push(call.capture("name"), bytes, &by, call.core.seams.clock.now(), &call.unsealed.egps)
        .await?;
    Ok(LogicalResponse::data(shown(&record)))
}

async fn write_egp(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let module = call
        .fields
        .text("module")
        .filter(|m| name::is_generic(m))
        .ok_or_else(|| RequestError::invalid("`module` must name a module in sys/modules"))?;
    let enforcement_level = match call.fields.text("enforcement_level") {
        Some("advisory") => Enforcement::Advisory,
        Some("hard-mandatory") => Enforcement::HardMandatory,
        Some("soft-mandatory") => {
            return Err(RequestError::invalid(
                "`soft-mandatory` is not supported: choose `advisory` or `hard-mandatory`",
            ));
        }
        _ => return Err(RequestError::invalid("`enforcement_level` must be `advisory` or `hard-mandatory`")),
    };
    let config = match call.fields.any("config") {
        None => Object::new(),
        Some(Value::Object(config)) => config.clone(),
        // The command line sends everything as text.
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(config)) => config,
            _ => return Err(RequestError::invalid("`config` must be a JSON object")),
        },
        Some(_) => return Err(RequestError::invalid("`config` must be a JSON object")),
    };
    let paths = call.fields.list("paths").unwrap_or_default();
    if paths.is_empty() {
        return Err(RequestError::invalid("`paths` must name at least one path; a final `*` matches any rest"));
    }
    let paths =
        paths.iter().map(|path| egp_paths::parse(path)).collect::<Result<_, _>>().map_err(RequestError::Invalid)?;
    let egp = Egp {
        name: call.capture("name").to_owned(),
        module: module.to_owned(),
        config,
        paths,
        enforcement_level,
        modified: call.core.seams.clock.now(),
    };
    call.unsealed.egps.write(egp, &call.unsealed.modules).await?;
    Ok(LogicalResponse::empty())
}
