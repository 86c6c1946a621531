//! `custom_response_headers`: headers that a listener adds to its answers, by status.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Which answers a set of headers goes on. Later ones are more specific and win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusPattern {
    Default,
    /// `2` for `2xx`.
    Class(u16),
    Exactly(u16),
}

impl StatusPattern {
    /// `default`, `2xx` or `404`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "default" {
            return Some(Self::Default);
        }
        if let Some(class) = text.strip_suffix("xx") {
            return class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::Class);
        }
        text.parse().ok().filter(|status| text.len() == 3 && (100..600).contains(status)).map(Self::Exactly)
    }

    fn covers(self, status: StatusCode) -> bool {
        match self {
            Self::Default => true,
            Self::Class(class) => status.as_u16() / 100 == class,
            Self::Exactly(exactly) => status.as_u16() == exactly,
        }
    }
}

/// All of them, the most general first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHeaders(Vec<(StatusPattern, HeaderMap)>);

impl ResponseHeaders {
    /// Adds one header for these answers.
    ///
    /// # Errors
    /// In words: the name or value cannot be sent, or the name belongs to the API.
    pub fn add(&mut self, pattern: StatusPattern, name: &str, value: &str) -> Result<(), String> {
        let parsed =
            HeaderName::try_from(name).map_err(|_| format!("{name:?} cannot be the name of a response header"))?;
        // Clients rely on what these say.
        let reserved = ["content-type", "content-length", "transfer-encoding", "connection", "location"];
        if parsed.as_str().starts_with("x-vault-") || reserved.contains(&parsed.as_str()) {
            return Err(format!("the response header `{name}` is the server's own"));
        }
        let value = HeaderValue::try_from(value)
            .map_err(|_| format!("the value of the response header `{name}` has characters that cannot be sent"))?;
        let at = match self.0.binary_search_by_key(&pattern, |(known, _)| *known) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (pattern, HeaderMap::new()));
                at
            }
        };
        if let Some((_, headers)) = self.0.get_mut(at) {
            headers.insert(parsed, value);
        }
        Ok(())
    }

    /// Puts them on an answer; the more specific wins over the more general and over the server's own.
    pub(crate) fn put_on(&self, status: StatusCode, headers: &mut HeaderMap) {
        for (pattern, set) in &self.0 {
            if pattern.covers(status) {
                for (name, value) in set {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_header_wins() {
        let mut set = ResponseHeaders::default();
        for (pattern, name, value) in [
            ("404", "X-One", "exactly"),
            ("default", "X-One", "any"),
            ("4xx", "X-One", "class"),
            ("default", "Strict-Transport-Security", "max-age=1"),
        ] {
            set.add(StatusPattern::parse(pattern).unwrap(), name, value).unwrap();
        }
        for (status, expected) in [(404, "exactly"), (403, "class"), (200, "any"), (503, "any")] {
            let mut headers = HeaderMap::new();
            headers.insert("strict-transport-security", HeaderValue::from_static("max-age=2"));
            set.put_on(StatusCode::from_u16(status).unwrap(), &mut headers);
            assert_eq!(headers["x-one"], expected, "{status}");
            assert_eq!(headers["strict-transport-security"], "max-age=1");
        }
    }

    #[test]
    fn what_cannot_be_sent_or_is_the_servers_own_is_refused() {
        let mut set = ResponseHeaders::default();
        for (name, value) in
            [("X-Vault-Token", "x"), ("Content-Length", "1"), ("a b", "x"), ("X-Line", "a\r\nSet-Cookie: x")]
        {
            assert!(set.add(StatusPattern::Default, name, value).is_err(), "{name}");
        }
        for text in ["", "6xx", "0xx", "99", "600", "2xxx", "Default", "+200"] {
            assert_eq!(StatusPattern::parse(text), None, "{text}");
        }
    }
}
