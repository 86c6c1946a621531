//! Mounts and auth mounts (contract.md §2.2).

use std::sync::Arc;

use leasehold_model::{MountPath, Ttl, duration};
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler, lease_error};
use crate::fields::{Field, Kind};
use crate::lease::EndCause;
use crate::lease::revoke::PrefixOrStore;
use crate::lockout::LockoutRules;
use crate::mount::{MountEntry, MountTokenType, Table, version};
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

/// What can be changed of a mount that is there.
const TUNE: &[Field] = &[
    Field::visible("default_lease_ttl", Kind::Text, "Empty: as it is; `system` or 0: the system's."),
    Field::visible("max_lease_ttl", Kind::Text, "The same."),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible("force_no_cache", Kind::Bool, "Accepted."),
    Field::visible("listing_visibility", Kind::Text, "`unauth` shows the mount without a token.")
        .one_of(&["", "hidden", "unauth"]),
    Field::visible("audit_non_hmac_request_keys", Kind::CommaList, "Keys that audit shows in clear."),
    Field::visible("audit_non_hmac_response_keys", Kind::CommaList, "Keys that audit shows in clear."),
    Field::visible("options", Kind::KvPairs, "The engine's own options."),
    Field::visible("plugin_version", Kind::Text, "The one that is there."),
    Field::visible("token_type", Kind::Text, "Of an auth method: default-service, default-batch, service or batch."),
    Field::visible(
        "user_lockout_config",
        Kind::Map,
        "Of userpass and approle: lockout_threshold, lockout_duration, lockout_counter_reset_duration, lockout_disable.",
    ),
];

/// What Vault lets nobody change on the mounts that are always there.
const FIXED: &[&str] = &[
    "description",
    "default_lease_ttl",
    "max_lease_ttl",
    "listing_visibility",
    "options",
    "passthrough_request_headers",
    "allowed_response_headers",
    "token_type",
    "plugin_version",
    "user_lockout_config",
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

/// What is shown of a mount's tuning: TTLs in seconds.
const TUNING: &[Field] = &[
    Field::visible("default_lease_ttl", Kind::Int, "In seconds."),
    Field::visible("max_lease_ttl", Kind::Int, "In seconds."),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible("force_no_cache", Kind::Bool, "As it was written."),
    Field::visible("listing_visibility", Kind::Text, "Whether the mount is shown without a token."),
    Field::visible("options", Kind::KvPairs, "The engine's own options."),
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
        return Err(RequestError::Invalid(format!("plugin not found in the catalog: {kind}")));
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

/// As texts, whatever they were given as.
fn options(fields: &crate::fields::Fields) -> Option<Object> {
    let pairs = fields.pairs("options")?;
    Some(pairs.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect())
}

fn configure(entry: &mut MountEntry, config: &Object, call: &Call<'_>) -> Result<(), RequestError> {
    let ttl = |name: &str, shown: &str| -> Result<Ttl, RequestError> {
        match config.get(name) {
            None | Some(Value::Null) => Ok(Ttl::ZERO),
            Some(Value::String(text)) if text == "system" => Ok(Ttl::ZERO),
            Some(value @ (Value::String(_) | Value::Number(_))) => {
                let given = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                duration::parse_set(&given).map_err(|why| {
                    let given: String = given.chars().take(64).collect();
                    RequestError::Invalid(format!("unable to parse {shown} TTL of {given}: {why}"))
                })
            }
            Some(_) => Err(RequestError::invalid("unable to convert given mount config information")),
        }
    };
    entry.default_lease_ttl = ttl("default_lease_ttl", "default")?;
    entry.max_lease_ttl = ttl("max_lease_ttl", "max")?;
    let system_max = call.unsealed.engines.ttls.max_lease_ttl;
    let (default, max) = (entry.default_lease_ttl, entry.max_lease_ttl);
    if !max.is_zero() && default > max {
        return Err(RequestError::invalid("given default lease TTL greater than given max lease TTL"));
    }
    if max.is_zero() && default > system_max {
        return Err(RequestError::Invalid(format!(
            "given default lease TTL greater than system max lease TTL of {}",
            system_max.as_secs()
        )));
    }
    entry.force_no_cache = match config.get("force_no_cache") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(wished)) => *wished,
        Some(_) => return Err(RequestError::invalid("unable to convert given mount config information")),
    };
    entry.listing_visibility = match config.get("listing_visibility") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => visibility(text)?,
        Some(other) => visibility(&other.to_string())?,
    };
    entry.token_type = match config.get("token_type") {
        None | Some(Value::Null) => MountTokenType::default(),
        Some(Value::String(text)) => token_type(text)?,
        Some(_) => return Err(RequestError::invalid("unable to convert given mount config information")),
    };
    for (name, keys) in [
        ("audit_non_hmac_request_keys", &mut entry.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &mut entry.audit_non_hmac_response_keys),
    ] {
        *keys = match config.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(text)) => {
                text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
            }
            _ => Vec::new(),
        };
    }
    Ok(())
}

/// Who sees the mount: a word that means nothing would hide it, or show it, against the operator's wish.
fn visibility(text: &str) -> Result<String, RequestError> {
    match text {
        "" | "hidden" | "unauth" => Ok(text.to_owned()),
        _ => {
            let given: String = text.chars().take(64).collect();
            Err(RequestError::Invalid(format!("invalid listing_visibility {given}")))
        }
    }
}

fn token_type(text: &str) -> Result<MountTokenType, RequestError> {
    MountTokenType::parse(text).ok_or_else(|| RequestError::invalid("invalid value for 'token_type'"))
}

/// Takes over what `user_lockout_config` names; what was tuned before stays, and Vault's defaults fill the rest.
fn tune_lockout(entry: &mut MountEntry, config: &Object) -> Result<(), RequestError> {
    if !matches!(entry.kind.as_str(), "userpass" | "approle" | "ldap") {
        return Err(RequestError::Invalid(format!(
            "tuning of user lockout configuration for auth type {:?} not allowed",
            entry.kind
        )));
    }
    const FIELDS: &[Field] = &[
        Field::visible("lockout_threshold", Kind::Int, ""),
        Field::visible("lockout_duration", Kind::Duration, ""),
        Field::visible("lockout_counter_reset_duration", Kind::Duration, ""),
        Field::visible("lockout_disable", Kind::Bool, ""),
    ];
    let fields = crate::fields::Fields::coerce(FIELDS, config)
        .map_err(|error| RequestError::Invalid(format!("user_lockout_config: {error}")))?;
    let mut rules = entry.lockout.unwrap_or_default();
    if let Some(threshold) = fields.int("lockout_threshold") {
        rules.threshold = u32::try_from(threshold)
            .ok()
            .filter(|threshold| *threshold > 0)
            .ok_or_else(|| RequestError::invalid("user_lockout_config: lockout_threshold must be greater than 0"))?;
    }
    rules.duration = fields.ttl("lockout_duration").unwrap_or(rules.duration);
    rules.counter_reset = fields.ttl("lockout_counter_reset_duration").unwrap_or(rules.counter_reset);
    rules.is_disabled = fields.bool("lockout_disable").unwrap_or(rules.is_disabled);
    entry.lockout = Some(rules);
    Ok(())
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
    if entry.table == Table::Auth {
        if let Some(method) = call.unsealed.methods.of(&entry) {
            method.unmount(&call.unsealed.methods.context(&entry)).await;
        }
        call.unsealed.lockouts.forget_mount(&entry.accessor);
    } else if let Some(engine) = call.unsealed.engines.of_kind(&entry.kind) {
        engine.unmount(&call.unsealed.engines.context(&entry)).await;
    }
    call.unsealed.mounts.remove(&entry).await?;
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

fn tuning(call: &Call<'_>, full: &str) -> Result<LogicalResponse, RequestError> {
    let entry = find(call, full).ok_or_else(|| {
        RequestError::Invalid(format!("cannot fetch sysview for path \"{}/\"", full.trim_end_matches('/')))
    })?;
    let ttls = call.unsealed.engines.ttls(&entry);
    let mut data = Object::new();
    data.insert("default_lease_ttl".into(), ttls.default_lease_ttl.as_secs().into());
    data.insert("description".into(), entry.description.clone().into());
    data.insert("force_no_cache".into(), entry.force_no_cache.into());
    data.insert("max_lease_ttl".into(), ttls.max_lease_ttl.as_secs().into());
    if let Some(options) = entry.options.as_ref().filter(|options| !options.is_empty()) {
        data.insert("options".into(), options.clone().into());
    }
    show_set(&entry, &mut data);
    data.extend(entry.lockout.as_ref().map(lockout_shown).into_iter().flatten());
    Ok(LogicalResponse::data(data).shaped(Shape::Duplicated))
}

async fn apply_tuning(call: &Call<'_>, full: &str) -> Result<LogicalResponse, RequestError> {
    let entry = find(call, full);
    let shown_path = format!("{}/", full.trim_end_matches('/'));
    if matches!(full.split('/').next(), Some("sys" | "cubbyhole" | "identity"))
        && let Some(fixed) = FIXED.iter().find(|name| call.request.data.contains_key(**name))
    {
        return Err(RequestError::Invalid(format!("cannot tune parameter {fixed} of {shown_path}")));
    }
    let missing = || RequestError::Invalid(format!("tune of path \"{shown_path}\" failed: no mount entry found"));
    let entry = entry.ok_or_else(missing)?;
    let system_max = call.unsealed.engines.ttls.max_lease_ttl;
    let apply = |tuned: &mut MountEntry| -> Result<(), RequestError> {
        tuned_by(tuned, &call.fields, system_max)?;
        match call.unsealed.engines.of_kind(&tuned.kind) {
            Some(engine) => engine.check_options(&tuned.engine_options()).map_err(RequestError::Invalid),
            None => Ok(()),
        }
    };
    if !call.unsealed.mounts.update(&entry.accessor, apply).await? {
        return Err(missing());
    }
    Ok(LogicalResponse::empty())
}

fn tuned_by(tuned: &mut MountEntry, fields: &crate::fields::Fields, system_max: Ttl) -> Result<(), RequestError> {
    for (name, ttl) in
        [("default_lease_ttl", &mut tuned.default_lease_ttl), ("max_lease_ttl", &mut tuned.max_lease_ttl)]
    {
        match fields.text(name) {
            None | Some("") => {}
            Some("system") => *ttl = Ttl::ZERO,
            Some(text) => {
                *ttl = duration::parse_set(text).map_err(|error| RequestError::Invalid(error.to_string()))?;
            }
        }
    }
    let max = tuned.max_lease_ttl.if_set().unwrap_or(system_max);
    if tuned.default_lease_ttl > max {
        return Err(RequestError::Invalid(format!(
            "backend max lease TTL of {} would be less than backend default lease TTL of {}",
            max.as_secs(),
            tuned.default_lease_ttl.as_secs()
        )));
    }
    if let Some(text) = fields.text("description") {
        text.clone_into(&mut tuned.description);
    }
    if let Some(text) = fields.text("listing_visibility") {
        tuned.listing_visibility = visibility(text)?;
    }
    if let Some(keys) = fields.list("audit_non_hmac_request_keys") {
        tuned.audit_non_hmac_request_keys = keys.to_vec();
    }
    if let Some(keys) = fields.list("audit_non_hmac_response_keys") {
        tuned.audit_non_hmac_response_keys = keys.to_vec();
    }
    // As in Vault: what is named changes, and nothing takes it away.
    for (name, value) in options(fields).into_iter().flatten() {
        let options = tuned.options.get_or_insert_default();
        if value == "" { drop(options.shift_remove(&name)) } else { drop(options.insert(name, value)) }
    }
    if let Some(version) = fields.text("plugin_version") {
        version::check(&tuned.kind, version).map_err(|why| RequestError::Invalid(why.to_string()))?;
    }
    if let Some(text) = fields.text("token_type") {
        tuned.token_type = match tuned.table {
            Table::Mount => return Err(RequestError::invalid("'token_type' can only be modified on auth mounts")),
            Table::Auth if tuned.kind == "token" => {
                return Err(RequestError::invalid("'token_type' cannot be set for 'token' or 'ns_token' auth mounts"));
            }
            Table::Auth => token_type(text)?,
        };
    }
    if let Some(Value::Object(config)) = fields.any("user_lockout_config") {
        tune_lockout(tuned, config)?;
    }
    Ok(())
}
