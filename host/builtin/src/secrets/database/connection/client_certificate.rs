//! The client certificate of a connection and its private key: how they are taken, and what of them may be read back.
//!
//! Must not know: when and to whom the certificate is shown; [`moves`](super::moves) says where to.
//!
//! Start with [`ConnectionRecord::merge_client_certificate`].
//!
//! Invariant: no private key stands in a field that is read back, whichever field it was sent in.

use leasehold_core::fields::Fields;
use leasehold_model::{Timestamp, Ttl};
use leasehold_tls::validity;
use secrecy::SecretString;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ConnectionRecord;

pub(super) const CERTIFICATE: &str = "tls_certificate";
/// By how much another clock may be ahead of ours.
const CLOCKS_APART: Ttl = Ttl::from_secs(300);
/// A chain of certificates and a key have a tenth of this. Whoever reads the connection has the text looked through.
const TEXT_MAX: usize = 64 << 10;
const BEGIN: &str = "-----BEGIN ";
const KEY_ENDS: &str = "PRIVATE KEY-----";

/// The key that a write brings, in whichever field.
pub(super) fn brought_key(fields: &Fields) -> Option<SecretString> {
    let named = fields.text("private_key").or_else(|| fields.text("tls_private_key"));
    named.map(SecretString::from).or_else(|| separated(fields.text(CERTIFICATE)?)?.1)
}

impl ConnectionRecord {
    /// Takes certificate and key out of a write. The key may stand in `tls_certificate`, too; that field is read back, so the key does not
    /// stay there.
    ///
    /// # Errors
    /// A private key stands in a field of which it would be read back, or a text is too long.
    pub(super) fn merge_client_certificate(&mut self, fields: &Fields) -> Result<(), String> {
        for name in [CERTIFICATE, "private_key", "tls_private_key"] {
            if fields.text(name).is_some_and(|text| text.len() > TEXT_MAX) {
                return Err(format!("{name} is longer than {TEXT_MAX} bytes"));
            }
        }
        if let Some(key) = brought_key(fields) {
            self.private_key = key;
        }
        if let Some(text) = fields.text(CERTIFICATE) {
            let shown = shown_certificate(text);
            self.details.insert(CERTIFICATE.to_owned(), json!(shown));
        }
        match self.details.iter().find(|(_, value)| holds_key(value)) {
            Some((name, _)) => {
                Err(format!("{name} holds a private key, and this field is read back: send the key in private_key"))
            }
            None => Ok(()),
        }
    }

    /// Whether the certificate that a write brings can be used now.
    ///
    /// # Errors
    /// It is too old or too young: no server would take it.
    pub(in super::super) fn check_validity(&self, fields: &Fields, now: Timestamp) -> Result<(), String> {
        let Some(text) = fields.text(CERTIFICATE).filter(|text| !text.is_empty()) else { return Ok(()) };
        // What cannot be read is refused where it is used.
        let Ok((from, until)) = validity(text.as_bytes()) else { return Ok(()) };
        let moment = |seconds: u64| Timestamp::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        let (from, until) = (moment(from), moment(until));
        if until < now {
            return Err(format!(
                "tls_certificate has expired at {}: send one that is valid, with its private_key",
                until.rfc3339()
            ));
        }
        // Clocks differ a little: the server decides whether it is valid yet.
        (from <= now + CLOCKS_APART)
            .then_some(())
            .ok_or_else(|| format!("tls_certificate is not valid before {}", from.rfc3339()))
    }
}

/// A `tls_certificate` as it is stored and read back.
pub(super) fn shown_certificate(text: &str) -> String {
    separated(text).map_or_else(|| text.to_owned(), |(certificates, _)| certificates)
}

/// The certificates of a PEM text that holds a key, and the key. `None`: it holds no key.
fn separated(pem: &str) -> Option<(String, Option<SecretString>)> {
    if !pem.contains(KEY_ENDS) {
        return None;
    }
    let (mut certificates, mut key) = (String::new(), None);
    for (at, _) in pem.match_indices(BEGIN) {
        let block = pem.get(at..).unwrap_or_default();
        let Some(label) = block.strip_prefix(BEGIN).and_then(|rest| rest.split_once("-----")).map(|(label, _)| label)
        else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let Some(len) = block.find(&end).map(|at| at + end.len()) else { continue };
        let block = block.get(..len).unwrap_or_default();
        if label == "CERTIFICATE" && !block.contains(KEY_ENDS) {
            certificates.push_str(block);
            certificates.push('\n');
        } else if label.ends_with("PRIVATE KEY") && key.is_none() {
            key = Some(SecretString::from(Zeroizing::new(format!("{block}\n")).as_str()));
        }
    }
    Some((certificates, key))
}

fn holds_key(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(KEY_ENDS),
        Value::Array(list) => list.iter().any(holds_key),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains(KEY_ENDS) || holds_key(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn a_key_is_taken_out_of_a_text_that_is_read_back_wherever_it_stands() {
        for text in [format!("{CERT}{KEY}"), format!("{KEY}{CERT}"), format!("a word {KEY}\nanother\n{CERT}")] {
            let (certificates, key) = separated(&text).unwrap();
            assert_eq!(certificates, CERT, "{text}");
            assert_eq!(key.unwrap().expose_secret(), KEY, "{text}");
        }
        assert!(separated(CERT).is_none());
        let unfinished = KEY.replace("-----END EC PRIVATE KEY-----", "");
        for text in [format!("{CERT}{unfinished}"), format!("-----BEGIN CERTIFICATE-----\n{KEY}{CERT}"), unfinished] {
            assert!(!shown_certificate(&text).contains("canary"), "{text}");
        }
    }
}
