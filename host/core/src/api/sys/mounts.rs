//! Mounts and auth mounts (contract.md §2.2).

mod tuning;

use std::sync::Arc;

use leasehold_model::MountPath;
use serde_json::{Value, json};

use self::tuning::{TUNE, TUNING, apply_tuning, configure, options, tuning};
use crate::api::call::{Call, SystemHandler, handler, lease_error};
use crate::fields::{Field, Kind};
use crate::lease::EndCause;
use crate::lease::revoke::PrefixOrStore;
use crate::lockout::LockoutRules;
use crate::mount::{MountEntry, Table};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::storage::StorageError;

const ENABLE: &[Field] = &[
    Field::visible("type", Kind::Text, "The kind of engine or method: `database`, `kv`; `approle`, `userpass`.")
        .required(),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible(
        "config",
        Kind::Map,
        "default_lease_ttl, max_lease_ttl, force_no_cache, listing_visibility, token_type, audit_non_hmac_*_keys.",
    ),
    Field::visible("options", Kind::KvPairs, "The engine's own options."),
    Field::visible("local", Kind::Bool, "Accepted."),
    Field::visible("seal_wrap", Kind::Bool, "Accepted."),
    Field::visible("external_entropy_access", Kind::Bool, "Accepted."),
    Field::visible("plugin_name", Kind::Text, "Accepted."),
    Field::visible("plugin_version", Kind::Text, "Accepted."),
];

/// What is shown of a mount.
pub(super) const ENTRY: &[Field] = &[
    Field::visible("accessor", Kind::Text, "Names the mount for ever."),
    Field::visible("config", Kind::Map, "Its TTLs and what else was tuned."),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible("options", Kind::KvPairs, "The engine's own options."),
    Field::visible("type", Kind::Text, "The kind of engine."),
    Field::visible("uuid", Kind::Text, "A second name of the mount."),
];

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "mounts",
        Access::Token,
        "The mounted secrets engines.",
        &[Op::read("Lists the mounted secrets engines.", handler!(list_engines))],
    ),
    Route::new(
        "auth",
        Access::Token,
        "The auth methods.",
        &[Op::read("Lists the auth methods.", handler!(list_methods))],
    ),
    // Before the entries: `tune` is the last segment of any path.
    Route::new(
        "mounts/*path/tune",
        Access::Token,
        "The tuning of a mount.",
        &[
            Op::read("Shows a mount's tuning.", handler!(show_tuning)).answers(Answer::Data(TUNING)),
            Op::update("Tunes a mount.", handler!(tune)).takes(TUNE),
        ],
    ),
    Route::new(
        "mounts/*path",
        Access::Token,
        "One secrets engine.",
        &[
            Op::read("Shows a mount.", handler!(show_engine)).answers(Answer::Data(ENTRY)),
            Op::update("Mounts a secrets engine.", handler!(enable_engine)).takes(ENABLE),
            Op::delete("Unmounts a secrets engine; its leases end.", handler!(disable_engine)),
        ],
    ),
    Route::new(
        "auth/*path/tune",
        Access::Sudo,
        "The tuning of an auth method.",
        &[
            Op::read("Shows an auth method's tuning.", handler!(show_method_tuning)).answers(Answer::Data(TUNING)),
            Op::update("Tunes an auth method.", handler!(tune_method)).takes(TUNE),
        ],
    ),
    Route::new(
        "auth/*path",
        Access::Sudo,
        "One auth method.",
        &[
            Op::read("Shows an auth method.", handler!(show_method)).answers(Answer::Data(ENTRY)),
            Op::update("Enables an auth method.", handler!(enable_method)).takes(ENABLE),
            Op::delete("Disables an auth method; its tokens and their leases end.", handler!(disable_method)),
        ],
    ),
];

async fn list_engines(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(list(call, Table::Mount))
}

async fn list_methods(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(list(call, Table::Auth))
}

async fn show_engine(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    show(call, Table::Mount)
}

async fn show_method(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    show(call, Table::Auth)
}

async fn enable_engine(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    enable(call, Table::Mount).await
}

async fn enable_method(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    enable(call, Table::Auth).await
}

async fn disable_engine(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    disable(call, Table::Mount).await
}

async fn disable_method(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    disable(call, Table::Auth).await
}

async fn show_tuning(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    tuning(call, &full_path(call, Table::Mount))
}

async fn show_method_tuning(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    tuning(call, &full_path(call, Table::Auth))
}

/// Also of an auth method, by its full path: `sys/mounts/auth/token/tune`.
async fn tune(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    apply_tuning(call, &full_path(call, Table::Mount)).await
}

async fn tune_method(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    apply_tuning(call, &full_path(call, Table::Auth)).await
}

/// The path of a mount, as the table has it but for the slash at its end.
fn full_path(call: &Call<'_>, table: Table) -> String {
    match (table, call.capture("path")) {
        (Table::Auth, path) => format!("auth/{path}"),
        (Table::Mount, path) => path.to_owned(),
    }
}

fn show(call: &Call<'_>, table: Table) -> Result<LogicalResponse, RequestError> {
    let nothing = if table == Table::Auth { "No auth engine at" } else { "No secret engine mount at" };
    let entry = find(call, &full_path(call, table))
        .ok_or_else(|| RequestError::Invalid(format!("{nothing} {}/", call.capture("path").trim_end_matches('/'))))?;
    Ok(LogicalResponse::data(shown(&entry)).shaped(Shape::Duplicated))
}

fn find(call: &Call<'_>, path: &str) -> Option<Arc<MountEntry>> {
    call.unsealed.mounts.by_path(&format!("{}/", path.trim_end_matches('/')))
}

fn list(call: &Call<'_>, table: Table) -> LogicalResponse {
    let all = call.unsealed.mounts.all();
    let data: Object = all
        .iter()
        .filter(|entry| entry.table == table)
        .map(|entry| (entry.shown_path().to_owned(), shown(entry).into()))
        .collect();
    LogicalResponse::data(data).shaped(Shape::Duplicated)
}

/// One entry, with the keys that clients look for.
pub(super) fn shown(entry: &MountEntry) -> Object {
    let mut config = Object::new();
    config.insert("default_lease_ttl".into(), entry.default_lease_ttl.as_secs().into());
    config.insert("force_no_cache".into(), entry.force_no_cache.into());
    config.insert("max_lease_ttl".into(), entry.max_lease_ttl.as_secs().into());
    show_set(entry, &mut config);
    if let Some(rules) = &entry.lockout {
        config.insert("user_lockout_config".into(), lockout_shown(rules).into());
    }
    let mut shown = Object::new();
    let mut put = |name: &str, value: Value| {
        shown.insert(name.to_owned(), value);
    };
    put("accessor", entry.accessor.as_str().into());
    put("config", config.into());
    put("deprecation_status", "supported".into());
    put("description", entry.description.clone().into());
    put("external_entropy_access", false.into());
    put("local", entry.local.into());
    put("options", entry.options.clone().map_or(Value::Null, Value::Object));
    put("plugin_version", "".into());
    put("running_plugin_version", entry.running_version().into());
    put("running_sha256", "".into());
    put("seal_wrap", entry.seal_wrap.into());
    if entry.tainted {
        // In Vault nothing tells such a mount from one that works.
        put("tainted", true.into());
    }
    put("type", entry.kind.clone().into());
    put("uuid", entry.uuid.clone().into());
    shown
}

/// What is shown only where somebody set it, in the mount's entry and in its tuning.
fn show_set(entry: &MountEntry, config: &mut Object) {
    if !entry.listing_visibility.is_empty() {
        config.insert("listing_visibility".into(), entry.listing_visibility.clone().into());
    }
    for (name, keys) in [
        ("audit_non_hmac_request_keys", &entry.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &entry.audit_non_hmac_response_keys),
    ] {
        if !keys.is_empty() {
            config.insert(name.into(), json!(keys));
        }
    }
    if entry.table == Table::Auth {
        config.insert("token_type".into(), entry.token_type.as_str().into());
    }
}

/// The lockout of a mount, with the keys under which Vault shows it.
fn lockout_shown(rules: &LockoutRules) -> Object {
    Object::from_iter([
        ("user_lockout_counter_reset_duration".to_owned(), rules.counter_reset.as_secs().into()),
        ("user_lockout_disable".to_owned(), rules.is_disabled.into()),
        ("user_lockout_duration".to_owned(), rules.duration.as_secs().into()),
        ("user_lockout_threshold".to_owned(), rules.threshold.into()),
    ])
}

async fn enable(call: &Call<'_>, table: Table) -> Result<LogicalResponse, RequestError> {
    let full = full_path(call, table);
    let named = call.fields.text("type").unwrap_or_default();
    if named.is_empty() {
        return Err(RequestError::invalid("backend type must be specified as a string"));
    }
    // As in Vault: two names for one engine, which say its version.
    let (kind, version) = match named {
        "kv-v1" => ("kv", Some("1")),
        "kv-v2" => ("kv", Some("2")),
        other => (other, None),
    };
    let path: MountPath = full.parse().map_err(|_| RequestError::Invalid(format!("invalid mount path: {full:?}")))?;
    if is_reserved(table, &path) {
        return Err(RequestError::Invalid(format!("cannot mount \"{path}\"")));
    }
    if matches!(kind, "system" | "token" | "cubbyhole" | "identity" | "ns_system" | "ns_token") {
        return Err(RequestError::Invalid(format!("mount type of \"{kind}\" is not mountable")));
    }
    let engine = match table {
        Table::Auth => None,
        Table::Mount => call.unsealed.engines.of_kind(kind),
    };
    if engine.is_none() && (table == Table::Mount || call.unsealed.methods.of_kind(kind).is_none()) {
        let hint = match kind {
            "oidc" if table == Table::Auth => {
                " (the browser flow of OpenID Connect is not offered; logins with a token are: use the type \"jwt\")"
            }
            _ => "",
        };
        return Err(RequestError::Invalid(format!("plugin not found in the catalog: {kind}{hint}")));
    }
    let mut entry = MountEntry::new(table, path, kind, &*call.core.seams.entropy);
    call.fields.text("description").unwrap_or_default().clone_into(&mut entry.description);
    entry.local = call.fields.bool("local").unwrap_or(false);
    entry.seal_wrap = call.fields.bool("seal_wrap").unwrap_or(false);
    let mut given = options(&call.fields).unwrap_or_default();
    if let Some(version) = version {
        given.insert("version".to_owned(), version.into());
    }
    entry.options = Some(given);
    if let Some(engine) = engine {
        engine.check_options(&entry.engine_options()).map_err(RequestError::Invalid)?;
    }
    if let Some(Value::Object(config)) = call.fields.any("config") {
        configure(&mut entry, config, call)?;
    }
    call.unsealed.mounts.add(entry).await?;
    call.unsealed.jobs.look_for_new();
    Ok(LogicalResponse::empty())
}

/// Paths that belong to the server itself.
pub(super) fn is_reserved(table: Table, path: &MountPath) -> bool {
    let first = path.as_str().split('/').next().unwrap_or_default();
    table == Table::Mount && matches!(first, "sys" | "auth" | "cubbyhole" | "identity" | "audit")
}

/// Whether a mount may go to another path: those that are always there may not.
pub(super) fn is_movable(entry: &MountEntry) -> bool {
    !matches!(entry.kind.as_str(), "system" | "token" | "cubbyhole" | "identity")
}

/// Ends every lease, then forgets what the engine stored. A lease that cannot be ended leaves the mount tainted: nothing is
/// routed to it, and disabling it again goes on.
async fn disable(call: &Call<'_>, table: Table) -> Result<LogicalResponse, RequestError> {
    let full = full_path(call, table);
    if table == Table::Auth && full.trim_end_matches('/') == "auth/token" {
        return Err(RequestError::invalid("token credential backend cannot be disabled"));
    }
    let entry = find(call, &full);
    let is_fixed = match full.trim_end_matches('/') {
        "sys" | "cubbyhole" | "identity" => true,
        // An auth method goes by its own route.
        _ => entry.as_ref().is_some_and(|entry| entry.table == Table::Auth),
    };
    if table == Table::Mount && is_fixed {
        return Err(RequestError::Invalid(format!("cannot unmount \"{}/\"", full.trim_end_matches('/'))));
    }
    let Some(entry) = entry else { return Ok(LogicalResponse::empty()) };
    let taint = |entry: &mut MountEntry| -> Result<(), StorageError> {
        entry.tainted = true;
        Ok(())
    };
    if !call.unsealed.mounts.update(&entry.accessor, taint).await? {
        return Ok(LogicalResponse::empty());
    }
    let cause = EndCause::MountDisabled { mount: entry.path.to_string(), by: call.asker() };
    if entry.table == Table::Auth {
        call.unsealed.leases.end_tokens_of(&entry.accessor, &cause).await.map_err(lease_error)?;
    }
    match call.unsealed.leases.revoke_mount(&entry.accessor, &cause).await {
        Ok(()) => {}
        Err(PrefixOrStore::Store(error)) => return Err(error.into()),
        Err(failure) => return Err(RequestError::Invalid(half_way(&entry, &failure))),
    }
    call.unsealed.unmount(&entry).await;
    call.unsealed.mounts.remove(&entry).await?;
    if let Err(error) = call.unsealed.quotas.prune().await {
        tracing::debug!(%error, "the quotas of a mount that is gone are removed with the next change of quotas");
    }
    Ok(LogicalResponse::empty())
}

/// Vault's words, then what the state is and what leads out of it.
fn half_way(entry: &MountEntry, failure: &PrefixOrStore) -> String {
    let path = &entry.path;
    format!(
        "{failure}; \"{path}\" is tainted now: no request reaches it, and its leases are revoked as soon as that works. Disable \
         it again then; or give its leases up with sys/leases/revoke-force/{path}, which leaves behind what they made, and disable \
         it again"
    )
}
