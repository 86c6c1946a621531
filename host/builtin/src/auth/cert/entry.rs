//! A stored certificate: which clients it stands for, and what their tokens are like.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::fields::Fields;
use leasehold_core::request::Object;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::token_params::TokenParams;
use leasehold_model::{Timestamp, glob};
use leasehold_tls::{ClientFacts, RevocationList, certificates, verify_client, vouches_for_none};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::old_names::{OldNames, Renamed};
use crate::auth::records::Record;

/// What Vault called these fields before all methods shared them.
const RENAMED: &[Renamed] = &[
    ("policies", "token_policies"),
    ("lease", "token_ttl"),
    ("ttl", "token_ttl"),
    ("max_ttl", "token_max_ttl"),
    ("period", "token_period"),
    ("bound_cidrs", "token_bound_cidrs"),
];

/// A login that names none of them tries all, and anybody can make a certificate to try with.
pub(super) const ENTRIES_MAX: usize = 256;
/// Certificates of one entry, and the length of their text.
const CERTIFICATES_MAX: usize = 32;
const PEM_MAX: usize = 128 << 10;
/// Extensions that become metadata, and the length of one.
const METADATA_MAX: usize = 64;
const METADATA_TEXT_MAX: usize = 4_096;
/// Tags of the text types of ASN.1 that an extension may hold.
const TEXTS: [u8; 5] = [0x0c, 0x12, 0x13, 0x16, 0x1a];

/// Fields that widen or narrow what a certificate is taken for, and that are not there.
const NOT_OFFERED: &[&str] = &["ocsp_enabled"];

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    pub certificate: String,
    allowed_names: Vec<String>,
    allowed_common_names: Vec<String>,
    allowed_dns_sans: Vec<String>,
    allowed_email_sans: Vec<String>,
    allowed_uri_sans: Vec<String>,
    allowed_organizational_units: Vec<String>,
    required_extensions: Vec<String>,
    allowed_metadata_extensions: Vec<String>,
    pub display_name: String,
    pub token: TokenParams,
    old_names: OldNames,
}

/// `OID:pattern`, or `hex:OID:pattern` for the extension's bytes in hex.
fn parts(required: &str) -> Option<(bool, &str, &str)> {
    let (is_hex, rest) = required.strip_prefix("hex:").map_or((false, required), |rest| (true, rest));
    let (id, pattern) = rest.split_once(':')?;
    is_id(id).then_some((is_hex, id, pattern))
}

/// Numbers with dots between them.
fn is_id(id: &str) -> bool {
    id.contains('.') && id.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// The text of an extension that holds one.
fn text(value: &[u8]) -> Option<&str> {
    let [tag, len, content @ ..] = value else { return None };
    // Longer ones have their length in further bytes.
    let content = match len {
        0..=0x7f => content.get(..).filter(|content| content.len() == usize::from(*len))?,
        0x81 => content.split_first().filter(|(len, rest)| rest.len() == usize::from(**len)).map(|(_, rest)| rest)?,
        0x82 => {
            let (len, rest) = content.split_first_chunk::<2>()?;
            Some(rest).filter(|rest| rest.len() == usize::from(u16::from_be_bytes(*len)))?
        }
        _ => return None,
    };
    if TEXTS.contains(tag) { std::str::from_utf8(content).ok() } else { None }
}

/// No rule is none to break.
fn are_met<'a>(rules: &[String], mut names: impl Iterator<Item = &'a String> + Clone) -> bool {
    rules.is_empty()
        || rules.iter().any(|rule| names.clone().any(|name| glob::covers(rule, name))) && names.next().is_some()
}

impl Record for Entry {
    const FOLDER: &'static str = "cert/";
    const MOST: Option<(usize, &'static str)> = Some((ENTRIES_MAX, "certificates"));

    fn update(&mut self, fields: &Fields, _: bool) -> Result<(), RequestError> {
        let invalid = |text: &str| Err(RequestError::invalid(text));
        if let Some(name) = NOT_OFFERED.iter().find(|name| fields.bool(name) == Some(true)) {
            return Err(RequestError::Invalid(format!(
                "'{name}' is not offered: use 'crls' to take certificates back"
            )));
        }
        self.token.update(fields)?;
        self.old_names.update(&mut self.token, fields, RENAMED)?;
        if let Some(pem) = fields.text("certificate") {
            pem.clone_into(&mut self.certificate);
        }
        if let Some(name) = fields.text("display_name") {
            name.clone_into(&mut self.display_name);
        }
        for (name, list) in [
            ("allowed_names", &mut self.allowed_names),
            ("allowed_common_names", &mut self.allowed_common_names),
            ("allowed_dns_sans", &mut self.allowed_dns_sans),
            ("allowed_email_sans", &mut self.allowed_email_sans),
            ("allowed_uri_sans", &mut self.allowed_uri_sans),
            ("allowed_organizational_units", &mut self.allowed_organizational_units),
            ("required_extensions", &mut self.required_extensions),
            ("allowed_metadata_extensions", &mut self.allowed_metadata_extensions),
        ] {
            if let Some(given) = fields.list(name) {
                *list = given.to_vec();
            }
        }
        let is_good = self.certificate.len() <= PEM_MAX
            && certificates(self.certificate.as_bytes()).is_ok_and(|all| {
                all.len() <= CERTIFICATES_MAX && all.iter().all(|one| leasehold_tls::client_facts(one).is_some())
            });
        if !is_good {
            return invalid("failed to parse certificate");
        }
        if let Some(wrong) = self.required_extensions.iter().find(|required| parts(required).is_none()) {
            let shown: String = wrong.chars().take(64).collect();
            return Err(RequestError::Invalid(format!(
                "required_extensions: {shown:?} is not `OID:PATTERN` or `hex:OID:PATTERN`, for example `1.2.3.4:*`"
            )));
        }
        if self.allowed_metadata_extensions.len() > METADATA_MAX {
            return Err(RequestError::Invalid(format!(
                "allowed_metadata_extensions has more than {METADATA_MAX} OIDs"
            )));
        }
        if let Some(wrong) = self.allowed_metadata_extensions.iter().find(|id| !is_id(id)) {
            let shown: String = wrong.chars().take(64).collect();
            return Err(RequestError::Invalid(format!(
                "allowed_metadata_extensions: {shown:?} is not an OID, for example `1.2.3.4`"
            )));
        }
        Ok(())
    }

    /// Authorities that are good for nothing: logins would fail without a word why.
    fn named(&mut self, name: &str) {
        if self.display_name.is_empty() {
            name.clone_into(&mut self.display_name);
        }
    }

    fn warnings(&self) -> Vec<String> {
        let stored = certificates(self.certificate.as_bytes()).unwrap_or_default();
        let warning = |(at, one): (usize, &CertificateDer<'static>)| {
            let is_authority = leasehold_tls::client_facts(one).is_some_and(|facts| facts.is_authority);
            let why = vouches_for_none(one).filter(|_| is_authority)?;
            Some(format!("certificate {} of the text is an authority, but vouches for no client: {why}", at + 1))
        };
        stored.iter().enumerate().filter_map(warning).collect()
    }

    fn shown(&self) -> Object {
        let list = |list: &Vec<String>| if list.is_empty() { Value::Null } else { json!(list) };
        let mut data = Object::from_iter([
            ("allowed_common_names".to_owned(), list(&self.allowed_common_names)),
            ("allowed_dns_sans".to_owned(), list(&self.allowed_dns_sans)),
            ("allowed_email_sans".to_owned(), list(&self.allowed_email_sans)),
            ("allowed_metadata_extensions".to_owned(), list(&self.allowed_metadata_extensions)),
            ("allowed_names".to_owned(), list(&self.allowed_names)),
            ("allowed_organizational_units".to_owned(), list(&self.allowed_organizational_units)),
            ("allowed_uri_sans".to_owned(), list(&self.allowed_uri_sans)),
            ("certificate".to_owned(), self.certificate.clone().into()),
            ("display_name".to_owned(), self.display_name.clone().into()),
            ("ocsp_enabled".to_owned(), false.into()),
            ("required_extensions".to_owned(), list(&self.required_extensions)),
        ]);
        self.token.show(&mut data);
        self.old_names.show(&mut data, RENAMED);
        data
    }

    fn token(&self) -> &TokenParams {
        &self.token
    }
}

impl Entry {
    /// Whether the names of a client are those that the entry is for, else what they lack.
    pub(super) fn check_names(&self, facts: &ClientFacts) -> Result<(), &'static str> {
        let common = || Some(&facts.common_name).filter(|name| !name.is_empty()).into_iter();
        let any = common().chain(&facts.dns_names).chain(&facts.emails);
        for (is_met, why) in [
            (are_met(&self.allowed_names, any), "none of its names is in allowed_names"),
            (are_met(&self.allowed_common_names, common()), "its common name is not in allowed_common_names"),
            (are_met(&self.allowed_dns_sans, facts.dns_names.iter()), "none of its names is in allowed_dns_sans"),
            (are_met(&self.allowed_email_sans, facts.emails.iter()), "none of its names is in allowed_email_sans"),
            (are_met(&self.allowed_uri_sans, facts.uris.iter()), "none of its names is in allowed_uri_sans"),
            (
                are_met(&self.allowed_organizational_units, facts.organizational_units.iter()),
                "none of its units is in allowed_organizational_units",
            ),
            (
                self.required_extensions.iter().all(|rule| has_extension(rule, facts)),
                "an extension is not as required_extensions wants it",
            ),
        ] {
            if !is_met {
                return Err(why);
            }
        }
        Ok(())
    }

    /// What the extensions that may be metadata say; one that holds no text says nothing. Else what is wrong with them.
    pub(super) fn metadata(&self, facts: &ClientFacts) -> Result<BTreeMap<String, String>, &'static str> {
        let mut metadata = BTreeMap::new();
        for (id, value) in facts.extensions.iter().filter(|(id, _)| self.allowed_metadata_extensions.contains(id)) {
            let text = text(value).unwrap_or_default();
            if text.len() > METADATA_TEXT_MAX {
                return Err("an extension of allowed_metadata_extensions is too long");
            }
            // A template of a policy takes dots for the end of a name.
            metadata.insert(id.replace('.', "-"), text.to_owned());
        }
        Ok(metadata)
    }
}

/// Whether one of the certificates of a text that no list has taken back vouches for a client with this chain.
pub(super) fn vouches(certificate: &str, chain: &[Vec<u8>], now: Timestamp, lists: &[Arc<RevocationList>]) -> bool {
    let now = u64::try_from(now.as_secs()).unwrap_or_default();
    certificates(certificate.as_bytes()).is_ok_and(|mut trusted| {
        trusted.retain(|one| !lists.iter().any(|list| list.has_revoked(one)));
        verify_client(chain, &trusted, now)
    })
}

fn has_extension(required: &str, facts: &ClientFacts) -> bool {
    let Some((is_hex, id, pattern)) = parts(required) else { return false };
    facts.extensions.iter().filter(|(found, _)| found == id).any(|(_, value)| {
        if is_hex {
            glob::covers(&pattern.to_lowercase(), &hex::encode(value))
        } else {
            text(value).is_some_and(|text| glob::covers(pattern, text))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ClientFacts {
        ClientFacts {
            common_name: "app.example".to_owned(),
            organizational_units: vec!["ops".to_owned(), "dev".to_owned()],
            dns_names: vec!["a.example".to_owned(), "*.b.example".to_owned()],
            emails: vec!["me@a.example".to_owned()],
            uris: vec!["spiffe://a/b".to_owned()],
            extensions: vec![("1.2.3".to_owned(), b"\x0c\x05hello".to_vec()), ("1.2.4".to_owned(), vec![4, 1, 0xab])],
            ..ClientFacts::default()
        }
    }

    fn entry(change: impl Fn(&mut Entry)) -> Entry {
        let mut entry = Entry::default();
        change(&mut entry);
        entry
    }

    #[test]
    fn each_rule_looks_at_its_own_names_and_all_rules_count() {
        type List = fn(&mut Entry) -> &mut Vec<String>;
        for (list, rules, wanted) in [
            ((|e| &mut e.allowed_names) as List, &["app.*"][..], true),
            (|e| &mut e.allowed_names, &["a.example"], true),
            (|e| &mut e.allowed_names, &["me@*"], true),
            (|e| &mut e.allowed_names, &["spiffe://*"], false),
            (|e| &mut e.allowed_names, &["ops"], false),
            (|e| &mut e.allowed_common_names, &["x", "app.example"], true),
            (|e| &mut e.allowed_common_names, &["a.example"], false),
            (|e| &mut e.allowed_common_names, &["APP.example"], false),
            (|e| &mut e.allowed_dns_sans, &["*.b.example"], true),
            (|e| &mut e.allowed_dns_sans, &["c.b.example"], false),
            (|e| &mut e.allowed_dns_sans, &["app.example"], false),
            (|e| &mut e.allowed_email_sans, &["*@a.example"], true),
            (|e| &mut e.allowed_email_sans, &["a.example"], false),
            (|e| &mut e.allowed_uri_sans, &["spiffe://a/*"], true),
            (|e| &mut e.allowed_uri_sans, &["spiffe://b/*"], false),
            (|e| &mut e.allowed_organizational_units, &["dev"], true),
            (|e| &mut e.allowed_organizational_units, &["de"], false),
            (|e| &mut e.required_extensions, &["1.2.3:hel*"], true),
            (|e| &mut e.required_extensions, &["1.2.3:hello", "hex:1.2.4:0401AB"], true),
            (|e| &mut e.required_extensions, &["1.2.3:hello", "1.2.4:*"], false),
            (|e| &mut e.required_extensions, &["1.2.5:*"], false),
            (|e| &mut e.required_extensions, &["hex:1.2.3:*68656c*"], true),
        ] {
            let entry = entry(|e| *list(e) = rules.iter().map(|&rule| rule.to_owned()).collect());
            assert_eq!(entry.check_names(&facts()).is_ok(), wanted, "{rules:?}");
        }
        assert!(Entry::default().check_names(&ClientFacts::default()).is_ok());
        // A certificate without names meets no rule, not even one for any name.
        for list in [(|e| &mut e.allowed_names) as List, |e| &mut e.allowed_dns_sans, |e| &mut e.allowed_common_names] {
            assert!(entry(|e| list(e).push("*".to_owned())).check_names(&ClientFacts::default()).is_err());
        }
    }

    #[test]
    fn texts_of_named_extensions_are_metadata() {
        let entry = entry(|e| e.allowed_metadata_extensions = ["1.2.3", "1.2.4", "1.2.9"].map(str::to_owned).to_vec());
        let metadata = |facts: &ClientFacts| {
            let found = entry.metadata(facts)?;
            Ok::<_, &str>(found.into_iter().map(|(id, text)| format!("{id}={text}")).collect::<Vec<_>>())
        };
        assert_eq!(metadata(&facts()).unwrap(), ["1-2-3=hello", "1-2-4="]);
        assert!(Entry::default().metadata(&facts()).unwrap().is_empty());
        let long = |length: u16| {
            let value = [&[0x0c, 0x82][..], &length.to_be_bytes(), &vec![b'x'; usize::from(length)]].concat();
            ClientFacts { extensions: vec![("1.2.3".to_owned(), value)], ..ClientFacts::default() }
        };
        assert_eq!(metadata(&long(4_096)).unwrap().len(), 1);
        assert!(metadata(&long(4_097)).unwrap_err().contains("too long"));
    }

    #[test]
    fn an_extension_is_named_by_numbers() {
        assert_eq!(parts("1.2.3:a:b"), Some((false, "1.2.3", "a:b")));
        assert_eq!(parts("hex:1.2.3:ab"), Some((true, "1.2.3", "ab")));
        for wrong in ["", "1.2.3", "1:x", "a.b:c", "1..2:x", "hex:1.2", ":x"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
        for (value, wanted) in [
            (&b"\x0c\x02ab"[..], Some("ab")),
            (b"\x16\x81\x02ab", Some("ab")),
            (b"\x0c\x82\x00\x02ab", Some("ab")),
            (b"\x0c\x03ab", None),
            (b"\x0c\x01ab", None),
            (b"\x04\x02ab", None),
            (b"\x0c", None),
            (b"", None),
        ] {
            assert_eq!(text(value), wanted, "{value:?}");
        }
    }
}
