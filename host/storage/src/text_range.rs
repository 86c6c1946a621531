//! Prefixes as ranges, so that an index can answer them and no character is special.

/// The least text that is greater than every text with this prefix; `None` when there is none.
///
/// UTF-8 sorts bytewise in the order of its code points, so counting up the last character is enough.
pub(crate) fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut head = prefix.to_owned();
    while let Some(last) = head.pop() {
        // A range of characters steps over the surrogates by itself.
        if let Some(next) = (last..=char::MAX).nth(1) {
            head.push(next);
            return Some(head);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_longer_text_begins_with_it() {
        for (prefix, end) in [
            ("a", Some("b")),
            ("a/", Some("a0")),
            ("", None),
            ("\u{10ffff}", None),
            ("a\u{10ffff}", Some("b")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("%", Some("&")),
            ("_", Some("`")),
        ] {
            assert_eq!(end_of_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
