//! Values: `data/` and `subkeys/`.
//!
//! Must not know: what else is kept of a key; [`super::record`] does.
//!
//! Start with the handlers at the end; [`add`] is what both kinds of writes come to.

use leasehold_core::fields::Object;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::{EngineContext, EngineRequest};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::Expect;
use serde_json::Value;

use super::config::MountConfig;
use super::record::{KeyRecord, VersionRecord, commit, data_at, data_of, load, version_answer};
use super::{key_of, nothing_there};
use crate::secrets::kv::{KvEngine, TRIES, contended, encode};

/// The longest value that patches may add up to: what a request may bring at once.
const VALUE_MAX: usize = 32 << 20;
/// Names and items of a patched value.
const PARTS_MAX: usize = 250_000;

/// What a write brings. In Vault a `null` becomes a value that is null, and a patch with it takes everything away; a client that
/// sends it has lost its data on the way, so that it is refused here.
fn given(request: &EngineRequest) -> Result<&Object, RequestError> {
    let given = request.fields.any("data").filter(|_| !request.fields.is_null("data"));
    given.and_then(Value::as_object).ok_or_else(|| RequestError::invalid("no data provided"))
}

/// Whether a write may replace the last version: `options.cas` names it, where that is given or demanded.
fn check_cas(request: &EngineRequest, config: &MountConfig, record: &KeyRecord) -> Result<(), RequestError> {
    let options = request.fields.any("options").and_then(Value::as_object);
    let Some(given) = options.and_then(|options| options.get("cas")) else {
        if config.cas_required || record.cas_required {
            return Err(RequestError::invalid("check-and-set parameter required for this call"));
        }
        return Ok(());
    };
    let wanted = match given {
        Value::Null => Some(0),
        Value::Bool(given) => Some(i64::from(*given)),
        Value::Number(given) => given.as_i64(),
        Value::String(given) if given.is_empty() => Some(0),
        Value::String(given) => given.parse().ok(),
        Value::Array(_) | Value::Object(_) => None,
    };
    let wanted = wanted.ok_or_else(|| RequestError::invalid("error parsing check-and-set parameter"))?;
    if u64::try_from(wanted).ok() != Some(record.current) {
        return Err(RequestError::invalid("check-and-set parameter did not match the current version"));
    }
    Ok(())
}

/// Adds a version with this data. `None`: another request was faster, and nothing was written.
async fn add(
    at: &EngineContext,
    key: &str,
    mut record: KeyRecord,
    unchanged: Expect,
    config: &MountConfig,
    data: Vec<u8>,
) -> Result<Option<LogicalResponse>, RequestError> {
    let dropped = record.add_version(at.clock.now(), config);
    let number = record.current;
    let batch = MountBatch::new().put(data_at(key, number), data, Expect::Anything);
    let batch = dropped.into_iter().fold(batch, |batch, old| batch.delete(data_at(key, old), Expect::Anything));
    if !commit(&at.storage, key, &record, unchanged, batch).await? {
        return Ok(None);
    }
    let version = record.versions.get(&number);
    Ok(version.map(|version| LogicalResponse::data(record.version_shown(number, version))))
}

/// The version that a read asks for; `None` where there is none of that number.
fn chosen<'a>(request: &EngineRequest, record: &'a KeyRecord) -> Option<(u64, &'a VersionRecord)> {
    let asked = request.fields.int("version").and_then(|version| u64::try_from(version).ok()).filter(|n| *n > 0);
    let number = asked.unwrap_or(record.current);
    record.versions.get(&number).map(|version| (number, version))
}

/// What a request reads of a version, under the name `what`.
async fn read_version(
    request: &EngineRequest,
    what: &str,
    shown: impl Fn(Object) -> Value + Send,
) -> Result<LogicalResponse, RequestError> {
    let (at, key) = (&request.context, key_of(request));
    // Another request may drop the version between the two reads: then the record says so.
    for _ in 0..TRIES {
        let record = load(at, key).await?.record.ok_or(RequestError::NotFound)?;
        let (number, version) = chosen(request, &record).ok_or(RequestError::NotFound)?;
        if !version.is_readable(at.clock.now()) {
            return Ok(version_answer(what, None, &record, number, version));
        }
        if let Some(data) = data_of(at, key, number).await? {
            return Ok(version_answer(what, Some(shown(data)), &record, number, version));
        }
    }
    Err(RequestError::Internal(format!("a version of {key:?} has no data")))
}

/// A JSON merge patch (RFC 7396): objects are merged name by name, `null` takes a name away, everything else replaces.
fn merge(target: &mut Object, patch: &Object) {
    // At once: each name that is taken out alone would move all behind it.
    if patch.values().any(Value::is_null) {
        target.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
    }
    for (name, change) in patch {
        match change {
            Value::Null => {}
            Value::Object(change) => {
                let below = target.entry(name.clone()).or_insert(Value::Null);
                if !below.is_object() {
                    *below = Value::Object(Object::new());
                }
                if let Value::Object(below) = below {
                    merge(below, change);
                }
            }
            other => drop(target.insert(name.clone(), other.clone())),
        }
    }
}

/// How many names and items a value has. Each takes memory whenever the value is read, however few bytes it is stored in.
fn parts(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(parts).fold(1, usize::saturating_add),
        Value::Object(below) => below.values().map(parts).fold(1, usize::saturating_add),
        _ => 1,
    }
}

/// The names of a value; what they hold is `null`. An object in which there is nothing to see, or that lies too deep, counts as held.
fn names_only(value: Object, depth: i64, most: i64) -> Object {
    let one = |(name, value)| {
        let below = match value {
            Value::Object(below) if !below.is_empty() && (most == 0 || depth < most) => {
                Value::Object(names_only(below, depth + 1, most))
            }
            _ => Value::Null,
        };
        (name, below)
    };
    value.into_iter().map(one).collect()
}

/// The handlers of `data/` and `subkeys/`.
impl KvEngine {
    pub(super) async fn read_data(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        read_version(request, "data", Value::Object).await
    }

    pub(super) async fn read_subkeys(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let most = request.fields.int("depth").unwrap_or(0);
        read_version(request, "subkeys", |data| Value::Object(names_only(data, 1, most))).await
    }

    pub(super) async fn write_data(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (at, key) = (&request.context, key_of(request));
        let data = encode(given(request)?)?;
        let (config, _) = MountConfig::load(&at.storage).await?;
        for _ in 0..TRIES {
            let loaded = load(at, key).await?;
            let record = loaded.record.unwrap_or_else(|| KeyRecord::new(at.clock.now()));
            check_cas(request, &config, &record)?;
            if let Some(answer) = add(at, key, record, loaded.unchanged, &config, data.clone()).await? {
                return Ok(answer);
            }
        }
        Err(contended())
    }

    pub(super) async fn patch_data(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (at, key) = (&request.context, key_of(request));
        let patch = given(request)?;
        let (config, _) = MountConfig::load(&at.storage).await?;
        for _ in 0..TRIES {
            let loaded = load(at, key).await?;
            let Some(record) = loaded.record else { return Ok(nothing_there()) };
            check_cas(request, &config, &record)?;
            let current = record.current;
            let Some(version) = record.versions.get(&current) else { return Ok(nothing_there()) };
            if !version.is_readable(at.clock.now()) {
                return Ok(LogicalResponse::data(record.version_shown(current, version)).with_status(404));
            }
            // Dropped by another request since the record was read: the next try sees its record.
            let Some(mut data) = data_of(at, key, current).await? else { continue };
            merge(&mut data, patch);
            if data.values().map(parts).fold(0, usize::saturating_add) > PARTS_MAX {
                return Err(RequestError::Invalid(format!(
                    "the patched value would have more than {PARTS_MAX} names and items"
                )));
            }
            let data = encode(&data)?;
            if data.len() > VALUE_MAX {
                return Err(RequestError::Invalid(format!(
                    "the patched value would be larger than {} MiB",
                    VALUE_MAX >> 20
                )));
            }
            if let Some(answer) = add(at, key, record, loaded.unchanged, &config, data).await? {
                return Ok(answer);
            }
        }
        Err(contended())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn names_and_items_of_a_value_are_counted() {
        for (value, wanted) in [(json!(1), 1), (json!([]), 1), (json!([1, [2, 3]]), 5), (json!({"a": {"b": null}}), 3)]
        {
            assert_eq!(parts(&value), wanted, "{value}");
        }
    }

    /// The examples of RFC 7396, appendix A, whose documents are objects.
    #[test]
    fn patches_merge_as_in_rfc_7396() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut data = object(target.clone());
            merge(&mut data, &object(patch.clone()));
            assert_eq!(Value::Object(data), merged, "{target} {patch}");
        }
    }

    #[test]
    fn names_are_shown_and_nothing_that_they_hold() {
        let value = json!({"a": 1, "b": {"c": {"d": "canary"}, "e": []}, "f": {}, "g": [{"canary": 1}]});
        for (most, shown) in [
            (0, json!({"a": null, "b": {"c": {"d": null}, "e": null}, "f": null, "g": null})),
            (1, json!({"a": null, "b": null, "f": null, "g": null})),
            (2, json!({"a": null, "b": {"c": null, "e": null}, "f": null, "g": null})),
            (-1, json!({"a": null, "b": null, "f": null, "g": null})),
        ] {
            assert_eq!(Value::Object(names_only(object(value.clone()), 1, most)), shown, "{most}");
        }
    }
}
