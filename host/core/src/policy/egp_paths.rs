//! The paths that a binding names: which texts can match a request at all, and which requests they match.
//!
//! Must not know: modules. As in ACL policies `*` at the end matches any rest and `+` any one segment; more than an ACL policy's,
//! a pattern that could never match is refused: what it was to guard would pass unjudged.

use crate::names::{self, in_lower_case};

/// No request's path is longer.
const LEN_MAX: usize = 4096;

/// The pattern in the form in which it is compared.
///
/// # Errors
/// What to change.
pub(crate) fn parse(pattern: &str) -> Result<String, String> {
    let bare = pattern.strip_suffix('*').unwrap_or(pattern);
    let refuse = |why: &str| Err(format!("path {:?} {why}", pattern.chars().take(100).collect::<String>()));
    if pattern.is_empty() {
        return refuse("is empty and would match nothing: write `*` for every path");
    }
    if pattern.len() > LEN_MAX {
        return refuse(&format!("is longer than any request's path, which has at most {LEN_MAX} bytes"));
    }
    if pattern.starts_with('/')
        || bare.contains('*')
        || bare.contains("//")
        || bare.split('/').any(|segment| segment == ".." || segment == ".")
        || bare.chars().any(char::is_control)
    {
        return refuse(
            "is not canonical: no leading slash, no `//`, `.` or `..`, `*` only at the end, `+` for one whole segment",
        );
    }
    if pattern.trim() != pattern {
        return refuse("begins or ends with a blank and would match nothing: take the blank off");
    }
    if pattern.contains('%') {
        return refuse(
            "holds a `%` and would match nothing: paths are compared decoded, so write the character itself",
        );
    }
    if pattern.contains("+*") {
        return refuse("holds `+*`: write `+` for one segment, `*` for any rest");
    }
    if let Some(bare) = pattern.strip_suffix('/') {
        return refuse(&format!(
            "ends in a slash and would match nothing but lists: write `{bare}`, which covers them too, or `{pattern}*` for what \
             is below"
        ));
    }
    Ok(in_lower_case(pattern).unwrap_or_else(|| pattern.to_owned()))
}

/// Whether a pattern covers a request's path. A list's trailing slash does not step out of a rule.
pub(crate) fn covers(pattern: &str, path: &str) -> bool {
    // Also where a `+` stands for a part of the prefix, and of patterns that were stored as they came.
    let lower = in_lower_case(path).map(|_| pattern.to_lowercase());
    let pattern = lower.as_deref().unwrap_or(pattern);
    // Which names fold is only known to whoever serves the path: a pattern covers every case.
    if names::fold(path) && is_covered(&pattern.to_lowercase(), &path.to_lowercase()) {
        return true;
    }
    is_covered(pattern, path)
}

fn is_covered(pattern: &str, path: &str) -> bool {
    matches(pattern, path) || path.strip_suffix('/').is_some_and(|bare| matches(pattern, bare))
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern, path);
    loop {
        let (wanted, rest_wanted) = split(pattern);
        if rest_wanted.is_none()
            && let Some(prefix) = wanted.strip_suffix('*')
        {
            return path.starts_with(prefix);
        }
        let (segment, rest) = split(path);
        if wanted != "+" && wanted != segment {
            return false;
        }
        match (rest_wanted, rest) {
            (None, None) => return true,
            (Some(rest_wanted), Some(rest)) => (pattern, path) = (rest_wanted, rest),
            _ => return false,
        }
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_they_would_in_an_acl_policy() {
        for (pattern, path, covered) in [
            ("database/creds/r", "database/creds/r", true),
            ("database/creds/r", "database/creds/r/", true),
            ("database/creds/r", "database/creds/rr", false),
            ("database/creds/*", "database/creds/a/b", true),
            ("database/creds/r*", "database/creds/rr", true),
            ("database/creds/*", "database/creds", false),
            ("*", "anything/at/all", true),
            ("database/+/readonly", "database/creds/readonly", true),
            ("database/+/readonly", "database/creds/other", false),
            ("database/+/readonly", "database/readonly", false),
            ("database/+/readonly", "database/a/b/readonly", false),
            ("database/+", "database/roles/", true),
            ("+/creds/+", "pg/creds/r", true),
            ("+/creds/r*", "pg/creds/rr/x", true),
            ("+/creds/*", "pg/creds/", true),
            ("+/creds/*", "pg/roles/r", false),
            ("a/+b", "a/+b", true),
            ("a/+b", "a/xb", false),
            ("sys/policies/acl/Prod", "sys/policies/acl/prod", true),
            ("sys/policies/+/Prod", "sys/policies/acl/prod", true),
            ("sys/policies/egp/Prod", "sys/policies/egp/prod", false),
            ("auth/u/users/Ada", "auth/u/users/aDA", true),
            ("auth/+/users/ada", "auth/u/users/ADA/", true),
            ("identity/entity/name/*", "identity/entity/NAME/x", true),
            ("auth/token/roles/Prod", "auth/token/roles/prod", false),
            ("secret/data/A", "secret/data/a", false),
        ] {
            assert_eq!(covers(pattern, path), covered, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_is_refused() {
        for (pattern, advice) in [
            ("", "write `*`"),
            (" a", "take the blank off"),
            ("a ", "take the blank off"),
            ("a%2fb", "write the character itself"),
            ("a/", "write `a`, which covers them too, or `a/*`"),
            ("a/+*", "write `+` for one segment"),
            ("/a", "no leading slash"),
            ("a*b", "`*` only at the end"),
            ("a/../b", "is not canonical"),
        ] {
            let why = parse(pattern).unwrap_err();
            assert!(why.contains(advice), "{pattern}: {why}");
        }
        assert!(parse(&"a".repeat(LEN_MAX + 1)).unwrap_err().contains("longer than any request's path"));
        assert_eq!(parse("sys/policies/acl/Prod*").unwrap(), "sys/policies/acl/prod*");
        assert_eq!(parse("database/+/R").unwrap(), "database/+/R");
    }
}
