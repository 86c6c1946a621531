//! Patterns in which `*` stands for any text and everything else for itself, as in Vault's bound names and claims.

/// Whether a pattern, which an operator wrote, covers a text, which somebody else chose. A `*` in the text is a letter like others.
#[must_use]
pub fn covers(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // Each part as early as possible leaves the most for those behind it.
    for part in middle.split('*') {
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_for_anything_but_itself() {
        for (pattern, text, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "A", false),
            ("*", "", true),
            ("*", "any/thing\n", true),
            ("**", "x", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*c", "abbc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("a*bc*bc", "abc", false),
            ("a*bc*bc", "abcbc", true),
            ("*b*", "abc", true),
            ("*b*", "ac", false),
            ("ü*ß", "üxß", true),
            // Nothing but the star is special.
            ("a?c", "abc", false),
            ("[ab]", "a", false),
            ("a.c", "abc", false),
            ("a\\*", "a*", false),
            ("a", "*", false),
            ("a*c", "*", false),
            ("repo:me/app:*", "repo:me/app2:x", false),
        ] {
            assert_eq!(covers(pattern, text), wanted, "{pattern:?} {text:?}");
        }
    }

    proptest::proptest! {
        /// The same as the plain definition, which tries every split.
        #[test]
        fn it_is_what_the_definition_says(pattern in "[ab*]{0,8}", text in "[ab*]{0,10}") {
            fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| by_definition(rest, &text[at..])),
                    Some((letter, rest)) => text.split_first().is_some_and(|(first, left)| first == letter && by_definition(rest, left)),
                }
            }
            proptest::prop_assert_eq!(covers(&pattern, &text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
