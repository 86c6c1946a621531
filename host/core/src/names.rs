//! In which paths names do not differ in their case: every rule that a path is held against must cover all cases of them.
//!
//! Must not know: the rules. Policies, bindings of modules and quotas ask here.
//!
//! Start with [`fold`]. The guest `acl` has the same table for the rules of policies.

/// Names of policies do not differ in case: below these every path is lower-case.
const LOWER_CASE: [&str; 2] = ["sys/policy/", "sys/policies/acl/"];

/// Below these most names do not differ in case, and which of them do is only known to whoever serves the path.
const FOLD: [&str; 2] = ["auth/", "identity/"];
const DIFFER: &str = "auth/token/";

/// The path as the router and the policies see it, if its names do not differ in case.
pub(crate) fn in_lower_case(path: &str) -> Option<String> {
    LOWER_CASE.iter().any(|prefix| path.starts_with(prefix)).then(|| path.to_lowercase())
}

/// Whether whoever serves this path may fold names in it.
pub(crate) fn fold(path: &str) -> bool {
    FOLD.iter().any(|prefix| path.starts_with(prefix)) && !path.starts_with(DIFFER)
}
