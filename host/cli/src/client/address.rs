//! Where the server is, and how a path becomes a URL.
//!
//! Paths are cleaned before they are sent, as Vault's client does it: doubled slashes go, `..` takes one step back,
//! and what a URL cannot carry is escaped. So what is sent is one canonical path.

use std::path::{Path, PathBuf};

use ureq::http::Uri;

use super::ClientError;

/// What is asked when nothing else is said.
pub(crate) const DEFAULT: &str = "https://127.0.0.1:8200";

#[derive(Debug)]
pub(crate) struct Address {
    text: String,
    prefix: String,
    scheme_and_authority: String,
    is_https: bool,
    socket: Option<PathBuf>,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Setup(format!("failed to parse address \"{text}\": {why}"));
        let trimmed = text.trim();
        if let Some(path) = trimmed.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(wrong("a Unix socket is named by its whole path, such as unix:///run/leasehold.sock"));
            }
            return Ok(Self {
                text: trimmed.to_owned(),
                prefix: String::new(),
                scheme_and_authority: "http://localhost".to_owned(),
                is_https: false,
                socket: Some(PathBuf::from(path)),
            });
        }
        let uri: Uri = trimmed.parse().map_err(|_| wrong("it is not a URL, such as http://127.0.0.1:8200"))?;
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            // Not quoted: it holds a password.
            return Err(ClientError::Setup(
                "failed to parse address: a user name or password does not belong there".to_owned(),
            ));
        }
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it must begin with https://, http:// or unix://")),
        };
        let scheme = if is_https { "https" } else { "http" };
        Ok(Self {
            text: trimmed.trim_end_matches('/').to_owned(),
            prefix: uri.path().to_owned(),
            scheme_and_authority: format!("{scheme}://{authority}"),
            is_https,
            socket: None,
        })
    }

    pub(crate) fn shown(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }

    /// The server's Unix socket, if it is reached through one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Whether the server is on this machine, where no proxy is of use.
    pub(crate) fn is_loopback(&self) -> bool {
        if self.socket.is_some() {
            return true;
        }
        let host = self.text.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// The URL of an API path, without its `v1/`.
    pub(crate) fn url(&self, path: &str, query: &[(String, String)]) -> String {
        let cleaned = clean(&format!("{}/v1/{path}", self.prefix));
        let mut url =
            format!("{}{}", self.scheme_and_authority, escape(&cleaned, |byte| b"-_.~/$&+,:;=@".contains(&byte)));
        let mut pairs: Vec<_> = query.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(&form(key));
            url.push('=');
            url.push_str(&form(value));
        }
        url
    }
}

/// Where a redirect leads. It may leave the host, as a standby's does, but not the encryption.
pub(crate) fn redirected(from: &str, location: &str) -> Result<String, ClientError> {
    let wrong = || ClientError::Unexpected("the server redirects to somewhere that is no URL".to_owned());
    let base: Uri = from.parse().map_err(|_| wrong())?;
    let target: Uri = location.parse().map_err(|_| wrong())?;
    let url = match (target.scheme_str(), target.authority(), base.scheme_str(), base.authority()) {
        (Some("http" | "https"), Some(_), ..) => location.to_owned(),
        (None, None, Some(scheme), Some(authority)) if location.starts_with('/') => {
            format!("{scheme}://{authority}{location}")
        }
        _ => return Err(wrong()),
    };
    if from.starts_with("https://") && !url.starts_with("https://") {
        return Err(ClientError::Unexpected("redirect would cause protocol downgrade".to_owned()));
    }
    Ok(url)
}

fn clean(path: &str) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}

fn escape(text: &str, stays: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || stays(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn form(text: &str) -> String {
    escape(text, |byte| b"-_.~ ".contains(&byte)).replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_an_address() {
        let address = Address::parse("unix:///run/leasehold.sock").unwrap();
        assert_eq!(address.socket(), Some(Path::new("/run/leasehold.sock")));
        assert_eq!(address.url("sys/health", &[]), "http://localhost/v1/sys/health");
        assert!(address.is_loopback() && !address.is_https());
        assert!(Address::parse("unix://run/leasehold.sock").is_err());
    }

    #[test]
    fn a_path_is_cleaned_and_escaped_before_it_is_sent() {
        let address = Address::parse("http://127.0.0.1:8200/").unwrap();
        for (typed, sent) in [
            ("a//b/", "/v1/a/b"),
            ("a/../b", "/v1/b"),
            ("a b?c#d%2F", "/v1/a%20b%3Fc%23d%252F"),
            ("ä", "/v1/%C3%A4"),
            ("a=b&c+d", "/v1/a=b&c+d"),
            ("a\r\nb", "/v1/a%0D%0Ab"),
        ] {
            assert_eq!(address.url(typed, &[]), format!("http://127.0.0.1:8200{sent}"), "{typed}");
        }
    }

    #[test]
    fn a_prefix_of_the_address_stays_in_front() {
        let address = Address::parse("https://vault.rocks/team").unwrap();
        let query = [("list".to_owned(), "true".to_owned()), ("after".to_owned(), "a b&c".to_owned())];

        assert_eq!(address.url("x", &query), "https://vault.rocks/team/v1/x?after=a+b%26c&list=true");
    }

    #[test]
    fn a_redirect_never_leaves_encryption() {
        assert!(redirected("https://a/v1/x", "http://a/v1/x").is_err());
        assert_eq!(redirected("https://a/v1/x", "/v1/y").unwrap(), "https://a/v1/y");
        assert!(redirected("https://a/v1/x", "ftp://a/").is_err());
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let said = Address::parse("https://u:hunter2@host").unwrap_err().to_string();

        assert!(!said.contains("hunter2"), "{said}");
    }
}
