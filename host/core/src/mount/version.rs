//! The version of an engine that a client names. There is one: what ships with the server.

use super::table::BUILTIN_VERSION;

/// Why an engine of a version cannot be had, in Vault's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error("version {0:?} is not a valid semantic version: malformed version: {0}")]
    Malformed(String),
    #[error("plugin not found in the catalog: {kind}, version={version}")]
    Unknown { kind: String, version: String },
}

/// Whether an engine of this version can be had.
///
/// # Errors
/// See [`VersionError`].
pub fn check(kind: &str, named: &str) -> Result<(), VersionError> {
    match spell_out(named) {
        Some(version) if version == BUILTIN_VERSION => Ok(()),
        Some(version) => Err(VersionError::Unknown { kind: kind.to_owned(), version }),
        None => Err(VersionError::Malformed(named.chars().take(64).collect())),
    }
}

/// `v1` as `v1.0.0`; `None` for what is no version.
fn spell_out(named: &str) -> Option<String> {
    let text = named.strip_prefix('v').unwrap_or(named);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, rest) = text.split_at_checked(end)?;
    let mut numbers: Vec<&str> = numbers.split('.').collect();
    let is_said = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '~' | '+' | '.');
    if numbers.iter().any(|number| number.is_empty()) || !rest.chars().all(is_said) || named.len() > 64 {
        return None;
    }
    numbers.resize(numbers.len().max(3), "0");
    let dash = if rest.starts_with(|c: char| c.is_ascii_alphabetic()) { "-" } else { "" };
    Some(format!("v{}{dash}{rest}", numbers.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_spelled_out_as_in_the_field() {
        for (named, spelled) in
            [("v1", "v1.0.0"), ("1.2.3.4", "v1.2.3.4"), ("1x", "v1.0.0-x"), ("v1.2-3", "v1.2.0-3"), ("2.7.2", "v2.7.2")]
        {
            assert_eq!(spell_out(named).as_deref(), Some(spelled), "{named}");
        }
        for named in ["", "bad", "v", "1..2", ".", "1 "] {
            assert_eq!(spell_out(named), None, "{named}");
        }
        assert_eq!(check("database", BUILTIN_VERSION), Ok(()));
    }
}
