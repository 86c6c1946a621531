//! What can be set of a mount when it is enabled and changed afterwards.
//!
//! Must not know: how a mount comes and goes. That is the business of [`super`].
//!
//! Start with [`configure`] (the `config` of a new mount) and [`apply_tuning`] (a write to `tune`).

use leasehold_model::{Ttl, duration};
use serde_json::Value;

use super::{find, lockout_shown, show_set};
use crate::api::call::Call;
use crate::fields::{Field, Fields, Kind};
use crate::mount::{MountEntry, MountTokenType, Table, version};
use crate::request::{LogicalResponse, Object, Shape};
use crate::seams::error::RequestError;

/// What can be changed of a mount that is there.
pub(super) const TUNE: &[Field] = &[
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

/// What is shown of a mount's tuning: TTLs in seconds.
pub(super) const TUNING: &[Field] = &[
    Field::visible("default_lease_ttl", Kind::Int, "In seconds."),
    Field::visible("max_lease_ttl", Kind::Int, "In seconds."),
    Field::visible("description", Kind::Text, "For people."),
    Field::visible("force_no_cache", Kind::Bool, "As it was written."),
    Field::visible("listing_visibility", Kind::Text, "Whether the mount is shown without a token."),
    Field::visible("options", Kind::KvPairs, "The engine's own options."),
];

pub(super) fn tuning(call: &Call<'_>, full: &str) -> Result<LogicalResponse, RequestError> {
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

pub(super) async fn apply_tuning(call: &Call<'_>, full: &str) -> Result<LogicalResponse, RequestError> {
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
        let before = tuned.engine_options();
        tuned_by(tuned, &call.fields, system_max)?;
        match call.unsealed.engines.of_kind(&tuned.kind) {
            Some(engine) if call.fields.has("options") => {
                engine.check_tuned_options(&before, &tuned.engine_options()).map_err(RequestError::Invalid)
            }
            _ => Ok(()),
        }
    };
    if !call.unsealed.mounts.update(&entry.accessor, apply).await? {
        return Err(missing());
    }
    if call.fields.has("options")
        && let Some(engine) = call.unsealed.engines.of_kind(&entry.kind)
    {
        // What other options mean for what is stored is brought about by the engine's jobs, which come by themselves later at the latest.
        for job in engine.jobs() {
            if let Err(error) = call.unsealed.jobs.ask_for(job.name, Some(&entry.accessor)).await {
                tracing::warn!(%error, "could not have job {:?} of {} done at once", job.name, entry.path);
            }
        }
    }
    Ok(LogicalResponse::empty())
}

fn tuned_by(tuned: &mut MountEntry, fields: &Fields, system_max: Ttl) -> Result<(), RequestError> {
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

/// As texts, whatever they were given as.
pub(super) fn options(fields: &Fields) -> Option<Object> {
    let pairs = fields.pairs("options")?;
    Some(pairs.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect())
}

pub(super) fn configure(entry: &mut MountEntry, config: &Object, call: &Call<'_>) -> Result<(), RequestError> {
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
    let fields = Fields::coerce(FIELDS, config)
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
