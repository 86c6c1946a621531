//! What is known of a key: `metadata/`.
//!
//! Must not know: what stands in a version.
//!
//! Start with the handlers at the end.

use std::collections::BTreeMap;

use leasehold_core::fields::Object;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::engine::EngineRequest;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::mount_storage::MountBatch;
use leasehold_core::seams::storage::Expect;
use leasehold_model::Ttl;
use serde_json::Value;

use super::config::{MountConfig, lifetime, max_versions};
use super::record::{DROPPED_AT_ONCE, KeyRecord, commit, data_at, load, record_at, written};
use super::{key_of, nothing_there, unversioned};
use crate::secrets::kv::{KvEngine, TRIES, contended};

/// Vault's bounds of `custom_metadata`: names, bytes of a name, bytes of a text.
const CUSTOM_MAX: usize = 64;
const CUSTOM_NAME_MAX: usize = 128;
const CUSTOM_TEXT_MAX: usize = 512;

/// What may be changed of a key's metadata.
const CHANGEABLE: &[&str] =
    &["cas_required", "max_versions", "delete_version_after", "custom_metadata", "metadata_cas_required"];

/// Custom metadata as it is given. `None`: a patch takes the name away.
type Custom = BTreeMap<String, Option<String>>;

/// Reads `custom_metadata`. Only a patch takes a `null`; elsewhere it is an empty text, as in Vault, and refused as one.
fn custom(given: &Object, is_patch: bool) -> Result<Custom, RequestError> {
    let mut read = Custom::new();
    for (name, value) in given {
        let text = match value {
            Value::Null if is_patch => None,
            Value::Null => Some(String::new()),
            Value::Bool(value) => Some(if *value { "1" } else { "0" }.to_owned()),
            Value::Number(value) => Some(value.to_string()),
            Value::String(value) => Some(value.clone()),
            Value::Array(_) => return Err(no_text("[]interface {}")),
            Value::Object(_) => return Err(no_text("map[string]interface {}")),
        };
        read.insert(name.clone(), text);
    }
    Ok(read)
}

fn no_text(got: &str) -> RequestError {
    RequestError::Invalid(format!("{FAILED}: '' expected type 'string', got unconvertible type '{got}'"))
}

const FAILED: &str = "custom_metadata validation failed";

/// All that is wrong with custom metadata, in Vault's form.
fn check_custom(custom: &Custom) -> Result<(), RequestError> {
    let mut wrong = Vec::new();
    if custom.len() > CUSTOM_MAX {
        wrong.push(format!("{FAILED}: payload must contain at most {CUSTOM_MAX} keys, provided {}", custom.len()));
        return Err(many(&wrong));
    }
    for (name, text) in custom.iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        if name.is_empty() || name.len() > CUSTOM_NAME_MAX {
            wrong.push(format!(
                "{FAILED}: length of key \"{}\" is {} but must be 0 < len(key) <= {CUSTOM_NAME_MAX}",
                name.escape_debug(),
                name.len()
            ));
        }
        if text.is_empty() || text.len() > CUSTOM_TEXT_MAX {
            wrong.push(format!(
                "{FAILED}: length of value for key \"{}\" is {} but must be 0 < len(value) <= {CUSTOM_TEXT_MAX}",
                name.escape_debug(),
                text.len()
            ));
        }
        if !is_printable(name) {
            wrong.push(format!("{FAILED}: key \"{}\" contains unprintable characters", name.escape_debug()));
        }
        if !is_printable(text) {
            wrong.push(format!("{FAILED}: value for key \"{}\" contains unprintable characters", name.escape_debug()));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(many(&wrong)) }
}

/// Several errors as one text, as Vault puts them.
fn many(wrong: &[String]) -> RequestError {
    let head =
        if wrong.len() == 1 { "1 error occurred:".to_owned() } else { format!("{} errors occurred:", wrong.len()) };
    let list: String = wrong.iter().map(|wrong| format!("\n\t* {wrong}")).collect();
    RequestError::Invalid(format!("{head}{list}\n\n"))
}

fn is_printable(text: &str) -> bool {
    // What is printed as it is, but for the three characters that are only quoted. A letter before it keeps a combining mark from
    // being escaped for standing alone.
    text.chars().all(|c| {
        let pair: String = ['a', c].into_iter().collect();
        matches!(c, '\\' | '"' | '\'') || pair.escape_debug().eq(pair.chars())
    })
}

/// What a request changes of a key's metadata, each thing that it names.
struct Change {
    is_patch: bool,
    max_versions: Option<u32>,
    cas_required: Option<bool>,
    metadata_cas_required: Option<bool>,
    delete_version_after: Option<Ttl>,
    custom_metadata: Option<Custom>,
}

impl Change {
    /// In a patch, a `null` takes back what was set.
    fn of(request: &EngineRequest, is_patch: bool) -> Result<Self, RequestError> {
        let fields = &request.fields;
        let is_taken_back = |name: &str| is_patch && fields.is_null(name);
        let custom_metadata = match fields.any("custom_metadata").and_then(Value::as_object) {
            Some(given) => {
                let given = custom(given, is_patch)?;
                check_custom(&given)?;
                Some(given)
            }
            None => None,
        };
        Ok(Self {
            is_patch,
            max_versions: match fields.int("max_versions") {
                Some(given) => Some(max_versions(given)?),
                None => is_taken_back("max_versions").then_some(0),
            },
            cas_required: fields.bool("cas_required").or_else(|| is_taken_back("cas_required").then_some(false)),
            metadata_cas_required: fields
                .bool("metadata_cas_required")
                .or_else(|| is_taken_back("metadata_cas_required").then_some(false)),
            delete_version_after: match fields.text("delete_version_after") {
                Some(text) => Some(lifetime(text).map_err(RequestError::Invalid)?),
                None => is_taken_back("delete_version_after").then_some(Ttl::ZERO),
            },
            custom_metadata,
        })
    }

    fn apply(&self, request: &EngineRequest, record: &mut KeyRecord) -> Result<(), RequestError> {
        record.max_versions = self.max_versions.unwrap_or(record.max_versions);
        record.cas_required = self.cas_required.unwrap_or(record.cas_required);
        record.metadata_cas_required = self.metadata_cas_required.unwrap_or(record.metadata_cas_required);
        record.delete_version_after = self.delete_version_after.unwrap_or(record.delete_version_after);
        let takes_all =
            if self.is_patch { request.fields.is_null("custom_metadata") } else { self.custom_metadata.is_some() };
        if takes_all {
            record.custom_metadata.clear();
        }
        for (name, text) in self.custom_metadata.iter().flatten() {
            match text {
                Some(text) => drop(record.custom_metadata.insert(name.clone(), text.clone())),
                None => drop(record.custom_metadata.remove(name)),
            }
        }
        if record.custom_metadata.len() > CUSTOM_MAX {
            return Err(many(&[format!(
                "{FAILED}: payload must contain at most {CUSTOM_MAX} keys, provided {}",
                record.custom_metadata.len()
            )]));
        }
        Ok(())
    }
}

/// Whether the metadata may be changed: `metadata_cas` names its state, where that is given or demanded.
fn check_cas(request: &EngineRequest, config: &MountConfig, record: &KeyRecord) -> Result<(), RequestError> {
    match request.fields.int("metadata_cas") {
        Some(wanted) if u64::try_from(wanted).ok() == Some(record.metadata_version) => Ok(()),
        Some(_) => Err(RequestError::invalid("metadata check-and-set parameter does not match the current version")),
        None if config.metadata_cas_required || record.metadata_cas_required => {
            Err(RequestError::invalid("metadata check-and-set parameter required for this call"))
        }
        None => Ok(()),
    }
}

/// Changes a key's metadata. A patch changes only a key that is there.
async fn change(request: &EngineRequest, is_patch: bool) -> Result<LogicalResponse, RequestError> {
    let (at, key) = (&request.context, key_of(request));
    let change = Change::of(request, is_patch)?;
    let is_empty = !CHANGEABLE.iter().any(|name| request.fields.has(name) || is_patch && request.fields.is_null(name));
    if is_empty && !is_patch {
        return Ok(LogicalResponse::empty());
    }
    let (config, _) = MountConfig::load(&at.storage).await?;
    for _ in 0..TRIES {
        let loaded = load(at, key).await?;
        let mut record = match loaded.record {
            Some(record) => record,
            None if is_patch => return Ok(nothing_there()),
            None => KeyRecord::new(at.clock.now()),
        };
        if is_empty {
            return Ok(LogicalResponse::empty());
        }
        check_cas(request, &config, &record)?;
        change.apply(request, &mut record)?;
        record.metadata_version += 1;
        record.updated_at = at.clock.now();
        if commit(&at.storage, key, &record, loaded.unchanged, MountBatch::new()).await? {
            let is_overruled = config.cas_required && request.fields.bool("cas_required") == Some(false);
            let answer = LogicalResponse::empty();
            return Ok(if is_overruled {
                answer.warn(
                    "\"cas_required\" set to false, but is mandated by backend config. This value will be ignored.",
                )
            } else {
                answer
            });
        }
    }
    Err(contended())
}

/// The handlers of `metadata/`.
impl KvEngine {
    pub(super) async fn read_metadata(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let loaded = load(&request.context, key_of(request)).await?;
        Ok(LogicalResponse::json(loaded.record.ok_or(RequestError::NotFound)?.shown()))
    }

    pub(super) async fn write_metadata(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        change(request, false).await
    }

    pub(super) async fn patch_metadata(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        change(request, true).await
    }

    pub(super) async fn delete_metadata(&self, request: &EngineRequest) -> Result<LogicalResponse, RequestError> {
        let (at, key) = (&request.context, key_of(request));
        for _ in 0..TRIES {
            let loaded = load(at, key).await?;
            let Some(mut record) = loaded.record else { return Ok(LogicalResponse::empty()) };
            let first: Vec<u64> = record.versions.keys().copied().take(DROPPED_AT_ONCE).collect();
            let gone = first.iter().map(|number| data_at(key, *number));
            let batch = gone.fold(MountBatch::new(), |batch, name| batch.delete(name, Expect::Anything));
            record.versions.retain(|number, _| !first.contains(number));
            if !record.versions.is_empty() {
                // The others go with the next ones, and the record with the last.
                commit(&at.storage, key, &record, loaded.unchanged, batch).await?;
                continue;
            }
            // Also what a server has stored here that had not heard yet that the mount has versions.
            let batch = batch.delete(unversioned::stored_at(key), Expect::Anything);
            if written(at.storage.commit(batch.delete(record_at(key), loaded.unchanged)).await)? {
                return Ok(LogicalResponse::empty());
            }
        }
        Err(contended())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_printed_is_told_from_what_can() {
        for text in ["plain", "a b", "caf\u{e9}", "quo\"te's \\", "e\u{301}", "\u{1F511}"] {
            assert!(is_printable(text), "{text:?}");
        }
        for text in ["\u{1}", "a\nb", "a\tb", "\u{200b}", "\u{7f}", "a\u{a0}b"] {
            assert!(!is_printable(text), "{text:?}");
        }
    }
}
