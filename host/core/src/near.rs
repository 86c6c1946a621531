//! What somebody meant who wrote a word that is not known.

use crate::fields::{Field, Fields};
use crate::seams::error::RequestError;

/// Nobody misspells a longer one.
const WORD_MAX: usize = 64;

/// The known word that differs in at most two letters, if it is long enough for that to mean something.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let lowered = word.to_lowercase();
    let distances = known.into_iter().map(|candidate| (strsim::damerau_levenshtein(&lowered, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance * 2 <= candidate.len()).then_some(candidate)
}

/// Who misspells more fields at once is not helped by more words.
const FIELDS_MAX: usize = 8;

/// What may have been meant by the fields of a request that its route does not declare.
pub(crate) fn meant(declared: &[Field], fields: &Fields, unknown: &[String]) -> Option<String> {
    let not_given = || declared.iter().map(|field| field.name).filter(|name| !fields.has(name));
    let near = unknown.iter().take(FIELDS_MAX).filter_map(|name| nearest(name, not_given()).map(|near| (name, near)));
    let said: Vec<String> = near.map(|(name, near)| format!("`{name}` is not known: did you mean `{near}`?")).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

/// Whether a field that is misspelt may be why.
pub(crate) fn is_about_fields(error: &RequestError) -> bool {
    matches!(
        error.bare(),
        RequestError::Invalid(_)
            | RequestError::InvalidMulti(_)
            | RequestError::Engine(_)
            | RequestError::LoginIncomplete(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_far_one_is_not() {
        let known = ["rate", "interval", "max_leases", "ttl"];
        for (word, meant) in [
            ("ratee", Some("rate")),
            ("RATE", Some("rate")),
            ("max-lease", Some("max_leases")),
            ("intreval", Some("interval")),
            ("tl", Some("ttl")),
            ("t", None),
            ("", None),
            ("increment", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        let long = "x".repeat(WORD_MAX);
        assert_eq!(nearest(&long, [&*format!("{long}y")]), Some(&*format!("{long}y")));
        assert_eq!(nearest(&format!("{long}x"), [&*long]), None);
    }
}
