//! Whether a certificate was made out for the host that was dialled.

use std::net::IpAddr;

use rustls::pki_types::ServerName;

use crate::certificate::Certificate;

/// Which names of a certificate count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// The alternative names only (RFC 9525), as browsers and Go do.
    Alternative,
    /// As libpq: where no alternative name of the host's kind stands in the certificate, the subject's common name counts.
    OrCommonName,
}

/// Whether `certificate` is made out for `host`.
pub(crate) fn is_for(certificate: &Certificate<'_>, host: &ServerName<'_>, rule: NameRule) -> bool {
    let Some((names, addresses)) = certificate.alternative_names() else { return false };
    let (found, has_kind, text) = match host {
        ServerName::DnsName(name) => {
            let name = name.as_ref();
            (names.iter().any(|pattern| covers(pattern, name)), !names.is_empty(), name.to_owned())
        }
        ServerName::IpAddress(address) => {
            let address = IpAddr::from(*address);
            let text = address.to_string();
            // libpq also takes an address that stands there as if it were a name.
            let as_name = rule == NameRule::OrCommonName && names.contains(&text.as_bytes());
            let found = as_name || addresses.iter().any(|bytes| is_address(bytes, address));
            (found, !addresses.is_empty(), text)
        }
        _ => return false,
    };
    if found || has_kind || rule == NameRule::Alternative {
        return found;
    }
    certificate.common_name().is_some_and(|name| match host {
        ServerName::DnsName(_) => covers(name, &text),
        _ => name == text.as_bytes(),
    })
}

/// How many names an error lists; a certificate may hold thousands.
const SHOWN_MAX: usize = 10;
const SHOWN_LEN: usize = 100;

/// The names that `certificate` is made out for, fit to be shown: a peer chose them.
pub(crate) fn presented(certificate: &Certificate<'_>, rule: NameRule) -> Vec<String> {
    let (names, addresses) = certificate.alternative_names().unwrap_or_default();
    let addresses = addresses.into_iter().filter_map(|bytes| {
        let short = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        short.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
    });
    let common = certificate.common_name().filter(|_| rule == NameRule::OrCommonName);
    let shown = |bytes: &[u8]| -> String {
        bytes.iter().take(SHOWN_LEN).map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
    };
    names.into_iter().map(shown).chain(addresses).chain(common.map(shown)).take(SHOWN_MAX).collect()
}

fn is_address(bytes: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => bytes == address.octets(),
        IpAddr::V6(address) => bytes == address.octets(),
    }
}

/// `*.example.org` covers one label, no more; everything else must be the same but for the case of its letters.
fn covers(pattern: &[u8], host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
    if pattern.contains(&0) || pattern.is_empty() {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(domain) = pattern.strip_prefix(b"*") else { return false };
    // `*.` alone, or `*.org`, would stand for far too much.
    let is_domain = domain.first() == Some(&b'.') && domain.iter().skip(1).any(|byte| *byte == b'.');
    let Some((label, rest)) = host.len().checked_sub(domain.len()).and_then(|at| host.split_at_checked(at)) else {
        return false;
    };
    is_domain && !label.is_empty() && !label.contains(&b'.') && rest.eq_ignore_ascii_case(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_covers_one_label() {
        for (pattern, host, wanted) in [
            ("db.example.org", "DB.example.org", true),
            ("db.example.org", "db.example.org.", true),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.org", "example.org", false),
            ("*", "example", false),
            ("d*.example.org", "db.example.org", false),
            ("db.example.org\0.evil", "db.example.org", false),
            ("", "", false),
        ] {
            assert_eq!(covers(pattern.as_bytes(), host), wanted, "{pattern} {host}");
        }
    }
}
