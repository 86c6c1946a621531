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

/// The least text from which a list of the names below `prefix` that come after `after` must begin.
///
/// Everything below a folder has the folder's name, which is less than `after` when `after` names the folder or something in it.
pub(crate) fn first_after(prefix: &str, after: &str) -> String {
    match after.split_once('/') {
        // The character after the slash: no text below the folder is greater.
        Some((folder, _)) => format!("{prefix}{folder}0"),
        // No text lies between this one and the one before it; `prefix` itself has no name below itself.
        None => format!("{prefix}{after}\0"),
    }
}

/// The name that a text shows below `prefix`: a folder's, with its slash, or its own.
pub(crate) fn name_below<'a>(prefix: &str, text: &'a str) -> &'a str {
    let rest = text.strip_prefix(prefix).unwrap_or(text);
    rest.find('/').map_or(rest, |slash| rest.get(..=slash).unwrap_or(rest))
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

    #[test]
    fn a_page_goes_on_behind_all_of_a_folder() {
        for (after, first) in [
            ("", "p/\0"),
            ("a", "p/a\0"),
            ("a/", "p/a0"),
            ("a/b", "p/a0"),
            ("a/b/c", "p/a0"),
            ("/", "p/0"),
            ("é", "p/é\0"),
        ] {
            assert_eq!(first_after("p/", after), first, "{after:?}");
        }
        for (text, name) in [("p/a", "a"), ("p/a/b/c", "a/"), ("p/a/", "a/"), ("p//a", "/"), ("p/é/x", "é/")] {
            assert_eq!(name_below("p/", text), name, "{text:?}");
        }
    }
}
