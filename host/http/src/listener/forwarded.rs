//! `X-Forwarded-For`, believed only from proxies that the configuration names.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::Networks;

/// The settings `x_forwarded_for_…` of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedFor {
    pub authorized: Networks,
    /// How many entries at the end of the header are proxies of the operator.
    pub hop_skips: usize,
    pub reject_not_present: bool,
    pub reject_not_authorized: bool,
}

/// The texts are Vault's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ForwardedError {
    #[error("missing x-forwarded-for header and configured to reject when not present")]
    Missing,
    #[error("client address not authorized for x-forwarded-for and configured to reject connection")]
    NotAuthorized,
    #[error(
        "malformed x-forwarded-for configuration or request, hops to skip ({skips}) would skip before earliest chain link (chain length {length})"
    )]
    TooShort { skips: usize, length: usize },
    #[error("malformed x-forwarded-for request, the entry that names the client is not an address")]
    NoAddress,
}

const NAME: &str = "x-forwarded-for";

impl ForwardedFor {
    /// The client's address; none where the header is not to be believed and the configuration does not refuse that.
    pub(super) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<Option<IpAddr>, ForwardedError> {
        if !headers.contains_key(NAME) {
            return if self.reject_not_present { Err(ForwardedError::Missing) } else { Ok(None) };
        }
        if !peer.is_some_and(|peer| self.authorized.contains(peer)) {
            return if self.reject_not_authorized { Err(ForwardedError::NotAuthorized) } else { Ok(None) };
        }
        // Several headers are one list, in their order.
        let entries: Vec<&str> = headers
            .get_all(NAME)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .map(str::trim)
            .collect();
        let client = entries
            .len()
            .checked_sub(self.hop_skips.saturating_add(1))
            .and_then(|at| entries.get(at))
            .ok_or(ForwardedError::TooShort { skips: self.hop_skips, length: entries.len() })?;
        address(client).map(Some).ok_or(ForwardedError::NoAddress)
    }
}

/// Some proxies write the port as well.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn rule(hop_skips: usize, reject: bool) -> ForwardedFor {
        ForwardedFor {
            authorized: Networks::parse(["10.0.0.0/8"]).unwrap(),
            hop_skips,
            reject_not_present: reject,
            reject_not_authorized: reject,
        }
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_header_counts_only_from_a_trusted_proxy() {
        let said = |rule: &ForwardedFor, peer: &str, values: &[&str]| {
            rule.client(Some(peer.parse().unwrap()), &headers(values)).map(|found| found.map(|ip| ip.to_string()))
        };
        let found = |text: &str| Ok(Some(text.to_owned()));
        let (strict, lax) = (rule(0, true), rule(0, false));
        for (rule, peer, values, expected) in [
            (&strict, "10.0.0.1", &["192.0.2.7"][..], found("192.0.2.7")),
            (&strict, "10.0.0.1", &["spoofed, 192.0.2.7"], found("192.0.2.7")),
            (&strict, "10.0.0.1", &["198.51.100.1", "192.0.2.7"], found("192.0.2.7")),
            (&strict, "::ffff:10.0.0.1", &["[2001:db8::1]:443"], found("2001:db8::1")),
            (&strict, "10.0.0.1", &["[2001:db8::1]"], found("2001:db8::1")),
            (&strict, "10.0.0.1", &["192.0.2.7:5000"], found("192.0.2.7")),
            (&strict, "10.0.0.1", &["nobody"], Err(ForwardedError::NoAddress)),
            (&strict, "10.0.0.1", &[""], Err(ForwardedError::NoAddress)),
            (&strict, "10.0.0.1", &[], Err(ForwardedError::Missing)),
            (&strict, "192.0.2.1", &["10.0.0.1"], Err(ForwardedError::NotAuthorized)),
            (&lax, "192.0.2.1", &["10.0.0.1"], Ok(None)),
            (&lax, "10.0.0.1", &[], Ok(None)),
            (&rule(1, true), "10.0.0.1", &["192.0.2.7, 10.0.0.2"], found("192.0.2.7")),
            (&rule(1, true), "10.0.0.1", &["192.0.2.7"], Err(ForwardedError::TooShort { skips: 1, length: 1 })),
            (&rule(usize::MAX, false), "10.0.0.1", &["1.1.1.1"], {
                Err(ForwardedError::TooShort { skips: usize::MAX, length: 1 })
            }),
        ] {
            assert_eq!(said(rule, peer, values), expected, "{peer} {values:?}");
        }
        assert_eq!(strict.client(None, &headers(&["1.1.1.1"])), Err(ForwardedError::NotAuthorized), "a Unix socket");
    }
}
