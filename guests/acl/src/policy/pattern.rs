//! The three kinds of path patterns.

use std::borrow::Cow;

/// What a pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Glob<'a> {
    /// This path only.
    Exact(&'a str),
    /// Every path that begins so; the final `*` is off.
    Prefix(&'a str),
    /// Has a `+` at the start of a segment; a final `*` is still on. Compared segment by segment.
    Segments(&'a str),
    Forbidden,
}

pub(crate) const FORBIDDEN: &str = "invalid use of wildcards ('+*' is forbidden)";

/// Names of policies do not differ in case, and the host writes them in lower case before it asks: a rule that names one
/// in capitals would match nothing.
const LOWER_CASE: [&str; 2] = ["sys/policy/", "sys/policies/acl/"];

/// The pattern as it is compared, without its leading slash: in lower case below the folders of policies.
pub(crate) fn compared(pattern: &str) -> Cow<'_, str> {
    let pattern = without_slash(pattern);
    if LOWER_CASE.iter().any(|folder| pattern.starts_with(folder)) {
        Cow::Owned(pattern.to_lowercase())
    } else {
        Cow::Borrowed(pattern)
    }
}

/// Whether a pattern with `+` reaches into a folder of policies by names that have capitals: these match nothing there.
pub(crate) fn misses_by_case(pattern: &str) -> bool {
    let pattern = without_slash(pattern);
    let Glob::Segments(segments) = kind(pattern) else { return false };
    LOWER_CASE.iter().any(|folder| {
        let mut rest = segments.split('/');
        let reaches = folder
            .trim_end_matches('/')
            .split('/')
            .all(|name| rest.next().is_some_and(|mine| mine == "+" || mine == name));
        reaches && !segments.starts_with(folder) && rest.any(|mine| mine.chars().any(char::is_uppercase))
    })
}

/// Below these, most names do not differ in case (users, roles, certificates, entities, groups), and the policies are asked before
/// anybody folds them. Which mount folds which name is not known here, so that a rule grants what it says as it is written, and
/// refuses whatever the case.
const NAMES_FOLD: [&str; 2] = ["auth/", "identity/"];
/// Names of token roles do differ.
const NAMES_DIFFER: &str = "auth/token/";

/// Whether names in this path may be folded by whoever serves it.
pub(crate) fn names_fold(path: &str) -> bool {
    NAMES_FOLD.iter().any(|folder| path.starts_with(folder)) && !path.starts_with(NAMES_DIFFER)
}

/// Whether a compared pattern, without a prefix's final `*`, may match paths whose names fold.
pub(crate) fn reaches_folding(pattern: &str, is_prefix: bool) -> bool {
    names_fold(pattern)
        || pattern.starts_with('+')
        || is_prefix && NAMES_FOLD.iter().any(|folder| folder.starts_with(pattern))
}

/// In lower case, letter by letter: what matched before does so afterwards.
pub(crate) fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Paths start behind the first slash; only one is taken off, as in Vault.
pub(crate) fn without_slash(pattern: &str) -> &str {
    pattern.strip_prefix('/').unwrap_or(pattern)
}

/// Of a pattern without its leading slash.
pub(crate) fn kind(pattern: &str) -> Glob<'_> {
    if pattern.contains("+*") {
        Glob::Forbidden
    } else if pattern == "+" || pattern.starts_with("+/") || pattern.contains("/+") {
        Glob::Segments(pattern)
    } else {
        pattern.strip_suffix('*').map_or(Glob::Exact(pattern), Glob::Prefix)
    }
}
