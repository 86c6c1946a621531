//! What somebody meant who wrote a name that does not exist.

/// Longer words are nobody's misspelling, and the distance costs the product of both lengths.
const WORD_MAX: usize = 32;

/// The known word that `word` most likely stands for.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    if word.len() > WORD_MAX {
        return None;
    }
    let close = known
        .iter()
        // The swap of two neighbours is one slip.
        .map(|candidate| (strsim::osa_distance(&word, candidate), *candidate))
        .min_by_key(|(away, _)| *away)
        .filter(|(away, candidate)| *away <= 2 && *away * 2 < candidate.len().max(word.len()))
        .map(|(_, candidate)| candidate);
    // `user` for `username`, `role_name` for `name`.
    close.or_else(|| {
        known
            .iter()
            .find(|candidate| (word.len() >= 4 && candidate.contains(word.as_str())) || word.contains(*candidate))
            .copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["name", "username", "password", "expiration"];

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        for (written, meant) in [
            ("nmae", "name"),
            ("NAME", "name"),
            ("nam", "name"),
            ("pasword", "password"),
            ("expire_ation", "expiration"),
            ("user", "username"),
            ("role_name", "name"),
        ] {
            assert_eq!(nearest(written, KNOWN), Some(meant), "{written}");
        }
    }

    #[test]
    fn another_word_is_not_taken_for_a_slip() {
        for written in ["schema", "x", "", "ttl", "database"] {
            assert_eq!(nearest(written, KNOWN), None, "{written}");
        }
        assert_eq!(nearest(&"name".repeat(99), KNOWN), None);
    }
}
