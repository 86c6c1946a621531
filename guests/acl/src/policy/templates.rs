//! `{{identity.…}}` in path patterns.

use std::borrow::Cow;

/// `{{` and `}}` do not pair up.
#[derive(Debug)]
pub(crate) struct Unbalanced;

/// Why a pattern cannot be filled in.
#[derive(Debug)]
pub(crate) enum Unfilled {
    /// A value is missing, or is empty: it would leave nothing between two slashes, or let a prefix begin earlier. The rule does
    /// not count.
    Missing,
    /// A value holds a character that would change what the pattern matches.
    Forbidden(char),
}

/// Whether a pattern has templates at all.
///
/// # Errors
/// [`Unbalanced`]
pub(crate) fn has_any(pattern: &str) -> Result<bool, Unbalanced> {
    let mut any = false;
    let mut parts = pattern.split("{{");
    if parts.next().is_some_and(|before| before.contains("}}")) {
        return Err(Unbalanced);
    }
    for part in parts {
        any = true;
        if part.matches("}}").count() != 1 {
            return Err(Unbalanced);
        }
    }
    Ok(any)
}

/// Puts the values in.
///
/// # Errors
/// [`Unfilled`]; a missing value wins, because then the rule is not there at all.
pub(crate) fn fill<'v>(
    pattern: &str,
    value_of: impl Fn(&str) -> Option<&'v str>,
    allow_slashes: bool,
    allow_wildcards: bool,
) -> Result<String, Unfilled> {
    let mut out = String::with_capacity(pattern.len());
    let mut forbidden = None;
    let mut parts = pattern.split("{{");
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, after) = part.split_once("}}").ok_or(Unfilled::Missing)?;
        let value = value_of(name.trim()).filter(|value| !value.is_empty()).ok_or(Unfilled::Missing)?;
        if !allow_slashes && value.contains('/') {
            forbidden = forbidden.or(Some('/'));
        }
        if !allow_wildcards && let Some(wildcard) = value.chars().find(|c| matches!(c, '*' | '+')) {
            forbidden = forbidden.or(Some(wildcard));
        }
        out.push_str(value);
        out.push_str(after);
    }
    match forbidden {
        Some(character) => Err(Unfilled::Forbidden(character)),
        None => Ok(out),
    }
}

/// The names a pattern asks for.
pub(crate) fn names(pattern: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pattern.split("{{").skip(1).filter_map(|part| part.split_once("}}")).map(|(name, _)| name.trim().into())
}

/// Whether a name has one of the forms that can ever have a value.
pub(crate) fn is_known(name: &str) -> bool {
    let ends = |rest: &str, plain: &[&str], maps: &[&str]| {
        plain.contains(&rest)
            || maps.iter().any(|map| rest.strip_prefix(map).is_some_and(|key| key.len() > 1 && key.starts_with('.')))
    };
    if let Some(alias) = name.strip_prefix("identity.entity.aliases.") {
        return alias
            .split_once('.')
            .is_some_and(|(_, rest)| ends(rest, &["id", "name"], &["metadata", "custom_metadata"]));
    }
    if let Some(entity) = name.strip_prefix("identity.entity.") {
        return ends(entity, &["id", "name"], &["metadata"]);
    }
    // A group's name may hold dots, so only the end is looked at.
    let group =
        |rest: &str, plain: &str| rest.ends_with(plain) && rest.len() > plain.len() || rest.contains(".metadata.");
    name.strip_prefix("identity.groups.ids.").is_some_and(|rest| group(rest, ".name"))
        || name.strip_prefix("identity.groups.names.").is_some_and(|rest| group(rest, ".id"))
}
