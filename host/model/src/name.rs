//! Shapes of names in paths.

/// Vault's generic name: `\w(([\w-.]+)?\w)?`. What is not one is an unsupported path, not a bad value.
#[must_use]
pub fn is_generic(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word) && text.ends_with(word) && text.chars().all(|c| word(c) || c == '-' || c == '.')
}

/// One segment of a canonical path: not empty, no `.` or `..`, printable, no slash.
#[must_use]
pub fn is_path_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.chars().any(|c| c.is_control() || c == '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_names_are_those_of_the_field() {
        for text in ["a", "readonly", "a-b.c_d", "A1"] {
            assert!(is_generic(text), "{text}");
        }
        for text in ["", "-a", "a-", "a/b", "a b", "ä", ".a"] {
            assert!(!is_generic(text), "{text}");
        }
    }
}
