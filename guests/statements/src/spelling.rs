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
        .map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), *candidate))
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

/// Optimal string alignment: insertion, deletion, replacement and the swap of two neighbours cost one each.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) && x != y;
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
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
