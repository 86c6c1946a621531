//! The three kinds of path patterns.

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
