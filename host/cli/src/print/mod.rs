//! Results on standard output, in the four formats of Vault.
//!
//! Must not know: requests, commands. Start with [`secret`].
//!
//! Invariants: the same answer prints the same bytes as Vault's own client prints for it (what differs is listed in
//! `tests/recorded.rs`); warnings go to standard error, so that a pipe gets the result alone.

mod columns;
mod field;
mod plain;
mod seal_status;
mod verification;
mod wrap;
mod yaml;

use serde_json::Value;

use crate::client::{Secret, sorted};
use crate::duration::human_seconds;
use crate::environment::Environment;
use crate::failure::Failure;

pub(crate) use columns::{columns, table};
pub(crate) use field::{raw_field, secret_field};
pub(crate) use plain::plain;
pub(crate) use seal_status::{builtin_modules, seal_status, seal_status_field};
pub(crate) use verification::verification;
pub(crate) use wrap::{wrapped, wrapped_with_padding};

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
    Pretty,
    Raw,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "table" => Some(Self::Table),
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "pretty" => Some(Self::Pretty),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }
}

/// Prints an envelope.
pub(crate) fn secret(env: &mut Environment, format: Format, secret: &Secret) -> Result<(), Failure> {
    if format != Format::Table {
        return document(env, format, &secret.to_json());
    }
    warnings(env, secret);
    let rows = rows_of(secret);
    if rows.is_empty() {
        return Ok(());
    }
    Ok(env.say(&table(&["Key", "Value"], &rows))?)
}

/// Prints any value that has no table of its own.
pub(crate) fn document(env: &mut Environment, format: Format, value: &Value) -> Result<(), Failure> {
    let text = match format {
        Format::Json => json(value),
        Format::Yaml => yaml::document(value).trim().to_owned(),
        Format::Pretty => {
            return Err(Failure::Local(
                "Could not parse output: cannot use the pretty formatter for this type".to_owned(),
            ));
        }
        Format::Raw => return Err(Failure::Local("This command does not support the -format=raw option.".to_owned())),
        Format::Table => match value {
            Value::Object(object) => {
                let rows: Vec<_> = sorted_rows(object.iter()).collect();
                table(&["Key", "Value"], &rows)
            }
            other => plain(other),
        },
    };
    Ok(env.say(&text)?)
}

/// Prints a list, sorted as a table, as it came otherwise.
pub(crate) fn list(env: &mut Environment, format: Format, keys: &[Value], answer: &Secret) -> Result<(), Failure> {
    if format != Format::Table {
        return document(env, format, &Value::Array(keys.to_vec()));
    }
    warnings(env, answer);
    let mut rows: Vec<Vec<String>> = keys.iter().map(|key| vec![plain(key)]).collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort();
    Ok(env.say(&table(&["Keys"], &rows))?)
}

/// JSON as Go indents and escapes it.
pub(crate) fn json(value: &Value) -> String {
    // These characters stand in strings only, so replacing them in the finished text is safe.
    format!("{value:#}")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

pub(crate) fn yaml(value: &Value) -> String {
    yaml::document(value)
}

pub(crate) fn warnings(env: &mut Environment, secret: &Secret) {
    let Some(list) = secret.warnings.as_ref().filter(|list| !list.is_empty()) else { return };
    env.warn("WARNING! The following warnings were returned from Leasehold:\n");
    for warning in list {
        env.warn(&wrapped_with_padding(&format!("* {warning}"), 2));
        env.warn("");
    }
}

fn rows_of(secret: &Secret) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    if secret.lease_duration > 0 {
        let duration = human_seconds(secret.lease_duration);
        if secret.lease_id.is_empty() {
            row("refresh_interval", duration);
        } else {
            row("lease_id", secret.lease_id.clone());
            row("lease_duration", duration);
            row("lease_renewable", secret.renewable.to_string());
        }
    }
    if let Some(auth) = &secret.auth {
        row("token", auth.client_token.clone());
        row("token_accessor", auth.accessor.clone());
        // Without a duration it is a root token.
        row(
            "token_duration",
            if auth.lease_duration == 0 { "∞".to_owned() } else { human_seconds(auth.lease_duration) },
        );
        row("token_renewable", auth.renewable.to_string());
        row("token_policies", plain::quoted_list(auth.token_policies.as_deref()));
        row("identity_policies", plain::quoted_list(auth.identity_policies.as_deref()));
        row("policies", plain::quoted_list(auth.policies.as_deref()));
        let mut metadata: Vec<_> = auth.metadata.iter().flatten().collect();
        metadata.sort_by(|a, b| a.0.cmp(b.0));
        for (key, value) in metadata {
            row(&format!("token_meta_{key}"), plain(value));
        }
    }
    if let Some(wrap) = &secret.wrap_info {
        row("wrapping_token:", wrap.token.clone());
        row("wrapping_accessor:", wrap.accessor.clone());
        row("wrapping_token_ttl:", human_seconds(wrap.ttl));
        row("wrapping_token_creation_time:", go_time(&wrap.creation_time));
        row("wrapping_token_creation_path:", wrap.creation_path.clone());
        if !wrap.wrapped_accessor.is_empty() {
            row("wrapped_accessor:", wrap.wrapped_accessor.clone());
        }
    }
    rows.extend(sorted_rows(secret.data.iter().flatten()));
    rows
}

fn sorted_rows<'a>(pairs: impl Iterator<Item = (&'a String, &'a Value)>) -> impl Iterator<Item = Vec<String>> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    pairs.into_iter().map(|(key, value)| {
        let shown = match value.as_i64().filter(|_| looks_like_duration(key)) {
            Some(seconds) => human_seconds(seconds),
            None => plain(value),
        };
        vec![key.clone(), shown]
    })
}

/// Whether a key names a length of time in seconds.
fn looks_like_duration(key: &str) -> bool {
    let is = |word: &str| key == word || key.strip_suffix(word).is_some_and(|rest| rest.ends_with('_'));
    is("period") || is("ttl") || is("duration") || key == "lease_max" || key == "ttl_max"
}

/// `2026-11-23T09:12:39Z` as Go prints a time: `2026-11-23 09:12:39 +0000 UTC`.
fn go_time(text: &str) -> String {
    match text.strip_suffix('Z').and_then(|text| text.split_once('T')) {
        Some((day, time)) => format!("{day} {time} +0000 UTC"),
        None => text.to_owned(),
    }
}

/// An envelope's data with its keys in order, for formats that have no table.
pub(crate) fn in_order(value: Value) -> Value {
    sorted(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_durations_are_shown_as_durations() {
        for (key, is) in [
            ("ttl", true),
            ("max_ttl", true),
            ("rotation_period", true),
            ("lease_duration", true),
            ("ttl_max", true),
            ("subttl", false),
            ("creation_time", false),
        ] {
            assert_eq!(looks_like_duration(key), is, "{key}");
        }
    }
}
