//! The one canonical path. The router, the policies and the audit record see what [`read`] returns, nothing else does
//! any decoding.
//!
//! Invariants: a canonical path is decoded exactly once; it never holds `//`, `.` or `..` as a segment, or a character
//! that does not print; reading a canonical path again gives the same path.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a path in a request line turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Below `/v1/`, without it.
    Canonical(String),
    /// Not clean: where the client should ask instead, encoded.
    Redirect(String),
    /// Outside `/v1/`.
    Elsewhere,
    /// A character that does not print, or bytes that are no text.
    Unprintable,
    /// Escaped dots: nobody sends these by accident.
    Relative,
    TooLong,
}

/// Reads the path of a request line.
pub(crate) fn read(raw: &str, len_max: usize) -> Read {
    if raw.len() > len_max {
        return Read::TooLong;
    }
    if let Some(path) = plain(raw) {
        return Read::Canonical(path.to_owned());
    }
    let Some(decoded) = decode(raw) else { return Read::Unprintable };
    if !decoded.chars().all(is_printable) {
        return Read::Unprintable;
    }
    if !raw.starts_with('/') {
        return Read::Elsewhere;
    }
    if is_clean(&decoded) {
        return match decoded.strip_prefix("/v1/") {
            Some(path) => Read::Canonical(path.to_owned()),
            None => Read::Elsewhere,
        };
    }
    let is_dots = |segment: &str| segment == "..";
    if decoded.split('/').filter(|s| is_dots(s)).count() != raw.split('/').filter(|s| is_dots(s)).count() {
        return Read::Relative;
    }
    Read::Redirect(encode(&clean(&decoded)))
}

/// The common case, without copying: nothing escaped, nothing to clean.
fn plain(raw: &str) -> Option<&str> {
    let path = raw.strip_prefix("/v1/")?;
    let mut before = b'/';
    for byte in path.bytes() {
        // A dot after a slash may be a whole segment; the slow way finds out.
        if !(b' '..=b'~').contains(&byte) || byte == b'%' || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return None;
        }
        before = byte;
    }
    Some(path)
}

/// Every escape must be one, and the bytes must be UTF-8.
fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let bytes = raw.as_bytes();
    for (at, _) in raw.match_indices('%') {
        let is_hex = |offset: usize| bytes.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
        if !is_hex(1) || !is_hex(2) {
            return None;
        }
    }
    percent_decode_str(raw).decode_utf8().ok()
}

/// Letters, marks, digits, punctuation, symbols and the blank, as Vault's check has it.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // `escape_debug` leaves exactly these alone; behind another character it leaves combining marks alone too.
    let text: String = ['a', c].into_iter().collect();
    text.escape_debug().count() == 2
}

fn is_clean(path: &str) -> bool {
    path.starts_with('/') && !path.contains("//") && path.split('/').all(|segment| segment != "." && segment != "..")
}

/// `a//b/./c/../d` is `a/b/d`; a slash at the end stays, as does what a `..` at the end leaves.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for segment in path.split('/') {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut cleaned = String::with_capacity(path.len() + 1);
    for segment in &kept {
        cleaned.push('/');
        cleaned.push_str(segment);
    }
    if is_folder || kept.is_empty() {
        cleaned.push('/');
    }
    cleaned
}

/// What may stand in a path as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

fn encode(path: &str) -> String {
    utf8_percent_encode(path, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;
    use proptest::prelude::*;

    const LONG: usize = 4_096;

    fn canonical(raw: &str) -> String {
        match read(raw, LONG) {
            Read::Canonical(path) => path,
            other => panic!("{raw}: {other:?}"),
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        for (raw, path) in [
            ("/v1/sys/health", "sys/health"),
            ("/v1/", ""),
            ("/v1/sys/policies/acl/", "sys/policies/acl/"),
            ("/v1/sys/policy/a%2Fb", "sys/policy/a/b"),
            ("/v1/s%79s/health", "sys/health"),
            ("/v1/a%252e%252e/b", "a%2e%2e/b"),
            ("/v1/a%20b", "a b"),
            ("/v1/a%c3%a9b", "aéb"),
            ("/v1/ae%CC%81b", "ae\u{301}b"),
            ("/v1/a/.hidden/..b/c..", "a/.hidden/..b/c.."),
            ("/v1/a\"<'\\b", "a\"<'\\b"),
        ] {
            assert_eq!(canonical(raw), path);
        }
    }

    #[test]
    fn unclean_paths_are_sent_to_the_clean_one() {
        for (raw, to) in [
            ("/v1//sys/health", "/v1/sys/health"),
            ("/v1/sys/../sys/health", "/v1/sys/health"),
            ("/v1/sys/./health", "/v1/sys/health"),
            ("/v1/sys/health/..", "/v1/sys/"),
            ("/v1/sys/health//", "/v1/sys/health/"),
            ("/v1/../../etc", "/etc"),
            ("/..", "/"),
            ("/v1/a%2f%2fb", "/v1/a/b"),
            ("/v1//%c3%a9%20x%3fy", "/v1/%C3%A9%20x%3Fy"),
            ("/v1//a%252eb", "/v1/a%252eb"),
        ] {
            assert_eq!(read(raw, LONG), Read::Redirect(to.to_owned()), "{raw}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for raw in
            ["/v1/a%0ab", "/v1/a%00b", "/v1/a%ffb", "/v1/a%c2%a0b", "/v1/%zz", "/v1/a%2", "/v1/a%7f", "/v1/%e2%80%8b"]
        {
            assert_eq!(read(raw, LONG), Read::Unprintable, "{raw}");
        }
        for raw in ["/v1/sys/%2e%2e/sys/health", "/v1/a/.%2e/b", "/v1/a%2f..%2fb"] {
            assert_eq!(read(raw, LONG), Read::Relative, "{raw}");
        }
        for raw in ["/", "/v1", "/v2/x", "/V1/sys/health", "/ui/", "*"] {
            assert_eq!(read(raw, LONG), Read::Elsewhere, "{raw}");
        }
        assert_eq!(read(&format!("/v1/{}", "a".repeat(LONG)), LONG), Read::TooLong);
    }

    proptest! {
        /// The two ways of reading, the quick and the thorough, must not differ; a client that follows a redirect arrives.
        #[test]
        fn any_path_is_read_to_one_path(raw in "(/v1)?/?([a-z.%/ é\u{1}]|%2[eEfF]|%25|\\.\\.|//){0,12}") {
            properties::any_path_is_read_to_one_path(&raw);
        }

        #[test]
        fn no_text_makes_reading_fail(raw in any::<String>()) {
            properties::any_path_is_read_to_one_path(&raw);
        }
    }
}
