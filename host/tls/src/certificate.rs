//! The parts of an X.509 certificate that the verifier needs and rustls does not tell.
//!
//! rustls-webpki refuses certificates of version 1 as a whole, and authorities as servers. libpq takes both, so their key, names and
//! times are read here. The reader takes definite lengths only, and never more than the slice that it was given.

use std::time::Duration;

use rustls::pki_types::UnixTime;

use crate::client::ClientFacts;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]` around the version.
const VERSION: u8 = 0xa0;
/// `[3]` around the extensions.
const EXTENSIONS: u8 = 0xa3;
const EMAIL: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 0x04, 0x0b];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// `serverAuth`, 1.3.6.1.5.5.7.3.1.
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// `clientAuth`, 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// The bit `keyCertSign` of the first byte of a key usage.
const CERT_SIGN: u8 = 0b0000_0100;

/// One element: its tag, what it holds, and itself as a whole.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Reads DER elements one after the other.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Tags of more than one byte stand nowhere in a certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0_usize, |len, byte| (len << 8) | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(len)?;
        let whole = self.0.get(..self.0.len().checked_sub(after.len())?)?;
        self.0 = after;
        Some(Element { tag, content, whole })
    }

    fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }

    /// The next element if it has this tag; else nothing is read.
    fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.0.first() == Some(&tag) { self.next() } else { None }
    }
}

/// What was read of one certificate.
pub(crate) struct Certificate<'a> {
    /// 1, 2 or 3.
    pub(crate) version: u8,
    /// Everything that the issuer signed.
    pub(crate) signed: &'a [u8],
    /// The content of its `AlgorithmIdentifier`.
    pub(crate) signature_algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) serial: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    not_before: u64,
    not_after: u64,
    /// The whole `SubjectPublicKeyInfo`.
    pub(crate) key_info: &'a [u8],
    /// The content of the key's `AlgorithmIdentifier`.
    pub(crate) key_algorithm: &'a [u8],
    pub(crate) key: &'a [u8],
    extensions: &'a [u8],
}

/// One extension.
struct Extension<'a> {
    id: &'a [u8],
    is_critical: bool,
    value: &'a [u8],
}

/// DNS names, and addresses as their bytes.
pub(crate) type AlternativeNames<'a> = (Vec<&'a [u8]>, Vec<&'a [u8]>);

impl<'a> Certificate<'a> {
    /// `None`: this is not a certificate.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outside = Reader(der);
        let whole = outside.expect(SEQUENCE)?;
        if !outside.0.is_empty() {
            return None;
        }
        let mut parts = Reader(whole.content);
        let signed = parts.expect(SEQUENCE)?;
        let algorithm = parts.expect(SEQUENCE)?;
        let signature = bits(parts.expect(BIT_STRING)?.content)?;

        let mut body = Reader(signed.content);
        let version = match body.optional(VERSION) {
            None => 1,
            Some(version) => match Reader(version.content).expect(INTEGER)?.content {
                [0] => 1,
                [1] => 2,
                [2] => 3,
                _ => return None,
            },
        };
        let serial = body.expect(INTEGER)?.content;
        // Both places must name one algorithm (RFC 5280, 4.1.1.2).
        if body.expect(SEQUENCE)?.content != algorithm.content {
            return None;
        }
        let issuer = body.expect(SEQUENCE)?.whole;
        let mut validity = Reader(body.expect(SEQUENCE)?.content);
        let (not_before, not_after) = (time(&validity.next()?)?, time(&validity.next()?)?);
        let subject = body.expect(SEQUENCE)?.whole;
        let key_info = body.expect(SEQUENCE)?;
        let mut key = Reader(key_info.content);
        let key_algorithm = key.expect(SEQUENCE)?.content;
        let key = bits(key.expect(BIT_STRING)?.content)?;
        // The issuer's and the subject's unique identifiers, of version 2, mean nothing today.
        body.optional(0x81);
        body.optional(0x82);
        let extensions = match body.optional(EXTENSIONS) {
            Some(extensions) if version == 3 => Reader(extensions.content).expect(SEQUENCE)?.content,
            Some(_) => return None,
            None => &[],
        };
        Some(Self {
            version,
            signed: signed.whole,
            signature_algorithm: algorithm.content,
            signature,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            key_info: key_info.whole,
            key_algorithm,
            key,
            extensions,
        })
    }

    pub(crate) fn not_before(&self) -> Duration {
        Duration::from_secs(self.not_before)
    }

    pub(crate) fn not_after(&self) -> Duration {
        Duration::from_secs(self.not_after)
    }

    pub(crate) fn is_too_young(&self, now: UnixTime) -> bool {
        now.as_secs() < self.not_before
    }

    pub(crate) fn is_too_old(&self, now: UnixTime) -> bool {
        now.as_secs() > self.not_after
    }

    /// `None`: the extensions are damaged.
    fn extensions(&self) -> Option<Vec<Extension<'a>>> {
        let mut list = Reader(self.extensions);
        let mut found = Vec::new();
        while !list.0.is_empty() {
            let mut one = Reader(list.expect(SEQUENCE)?.content);
            let id = one.expect(OID)?.content;
            let is_critical = one.optional(BOOLEAN).is_some_and(|flag| flag.content == [0xff]);
            found.push(Extension { id, is_critical, value: one.expect(OCTET_STRING)?.content });
        }
        Some(found)
    }

    /// The value of an extension; the outer `None`: the extensions are damaged.
    fn extension(&self, id: &[u8]) -> Option<Option<&'a [u8]>> {
        Some(self.extensions()?.into_iter().find(|one| one.id == id).map(|one| one.value))
    }

    /// Whether the certificate calls itself an authority.
    pub(crate) fn says_authority(&self) -> bool {
        let Some(Some(value)) = self.extension(BASIC_CONSTRAINTS) else { return false };
        let Some(list) = Reader(value).expect(SEQUENCE) else { return false };
        Reader(list.content).optional(BOOLEAN).is_some_and(|flag| flag.content == [0xff])
    }

    /// Whether a trusted certificate may have signed others: an authority that limits itself in no way that is not understood here,
    /// or, as for OpenSSL, a self-signed certificate of version 1.
    pub(crate) fn may_sign(&self) -> bool {
        if self.version < 3 {
            return self.issuer == self.subject;
        }
        let Some(all) = self.extensions() else { return false };
        signs(&all) && self.says_authority() && all.iter().all(|one| !one.is_critical || known(one, &SIGNERS))
    }

    /// Why a trusted certificate can vouch for no client but itself, at any time; `None`: it is an authority that can.
    ///
    /// A certificate of version 1 is none, also when it is self-signed: nothing in it says whether it may sign others. The constraints
    /// on names are for whoever follows the path.
    pub(crate) fn vouches_for_none(&self) -> Option<&'static str> {
        let Some(all) = self.extensions() else { return Some("its extensions are damaged") };
        let purposes = all.iter().find(|one| one.id == EXTENDED_KEY_USAGE);
        if self.version != 3 || !self.says_authority() {
            Some("it is no authority (`CA:TRUE`)")
        } else if !signs(&all) {
            Some("its key usage does not include `keyCertSign`")
        } else if purposes.is_some_and(|purposes| !names_purpose(purposes, CLIENT_AUTH)) {
            Some("its extended key usage does not include `clientAuth`")
        } else if all.iter().any(|one| one.is_critical && !known(one, &VOUCHERS)) {
            Some("it has a critical extension that is not understood")
        } else {
            None
        }
    }

    /// How many other authorities may stand between this one and a client. `None`: any number.
    pub(crate) fn path_limit(&self) -> Option<usize> {
        let mut list = Reader(Reader(self.extension(BASIC_CONSTRAINTS)??).expect(SEQUENCE)?.content);
        list.optional(BOOLEAN);
        if list.0.is_empty() {
            return None;
        }
        // What is no number allows nothing; neither do those that no chain is as long as.
        Some(match list.expect(INTEGER).map(|number| number.content) {
            Some([small @ 0..=0x7f]) => usize::from(*small),
            _ => 0,
        })
    }

    /// Whether the extensions let the certificate stand for a server: none is critical and unknown, and the purposes, if any are
    /// listed, include servers.
    pub(crate) fn may_serve(&self) -> bool {
        let known = [BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_ALT_NAME, EXTENDED_KEY_USAGE];
        let Some(all) = self.extensions() else { return false };
        if all.iter().any(|one| one.is_critical && !known.contains(&one.id)) {
            return false;
        }
        all.iter().find(|one| one.id == EXTENDED_KEY_USAGE).is_none_or(|purposes| names_purpose(purposes, SERVER_AUTH))
    }

    /// The alternative names: DNS names and IP addresses. `None`: they are damaged.
    pub(crate) fn alternative_names(&self) -> Option<AlternativeNames<'a>> {
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        if let Some(value) = self.extension(SUBJECT_ALT_NAME)? {
            let mut list = Reader(Reader(value).expect(SEQUENCE)?.content);
            while !list.0.is_empty() {
                let one = list.next()?;
                match one.tag {
                    DNS_NAME => names.push(one.content),
                    IP_ADDRESS => addresses.push(one.content),
                    _ => {}
                }
            }
        }
        Some((names, addresses))
    }

    /// The issuer without the head of its sequence, as a revocation list names it.
    pub(crate) fn issuer_content(&self) -> Option<&'a [u8]> {
        Reader(self.issuer).expect(SEQUENCE).map(|issuer| issuer.content)
    }

    /// What a client's certificate says. `None`: it is damaged.
    pub(crate) fn facts(&self) -> Option<ClientFacts> {
        let mut facts =
            ClientFacts { serial: self.serial.to_vec(), is_authority: self.says_authority(), ..ClientFacts::default() };
        let mut parts = Reader(Reader(self.subject).expect(SEQUENCE)?.content);
        while !parts.0.is_empty() {
            let mut attributes = Reader(parts.expect(SET)?.content);
            while !attributes.0.is_empty() {
                let mut attribute = Reader(attributes.expect(SEQUENCE)?.content);
                let (id, value) = (attribute.expect(OID)?.content, attribute.next()?);
                let is_text = [0x0c, 0x13, 0x14, 0x16].contains(&value.tag);
                let Some(text) = name(value.content).filter(|_| is_text) else { continue };
                match id {
                    // As in Go, the last one counts.
                    COMMON_NAME => facts.common_name = text,
                    ORGANIZATIONAL_UNIT => facts.organizational_units.push(text),
                    _ => {}
                }
            }
        }
        for extension in self.extensions()? {
            let content = |tag| Reader(extension.value).expect(tag).map(|one| one.content);
            match extension.id {
                SUBJECT_ALT_NAME => {
                    let mut names = Reader(content(SEQUENCE)?);
                    while !names.0.is_empty() {
                        let one = names.next()?;
                        let Some(text) = name(one.content) else { continue };
                        match one.tag {
                            EMAIL => facts.emails.push(text),
                            DNS_NAME => facts.dns_names.push(text),
                            URI => facts.uris.push(text),
                            _ => {}
                        }
                    }
                }
                SUBJECT_KEY_ID => facts.subject_key_id = content(OCTET_STRING)?.to_vec(),
                AUTHORITY_KEY_ID => {
                    let id = Reader(content(SEQUENCE)?).optional(0x80).map(|id| id.content.to_vec());
                    facts.authority_key_id = id.unwrap_or_default();
                }
                _ => {}
            }
            // No rule can name one whose numbers are larger than any that somebody uses.
            if let Some(id) = dotted(extension.id) {
                facts.extensions.push((id, extension.value.to_vec()));
            }
        }
        Some(facts)
    }

    /// The first common name of the subject.
    pub(crate) fn common_name(&self) -> Option<&'a [u8]> {
        let mut parts = Reader(Reader(self.subject).expect(SEQUENCE)?.content);
        while let Some(part) = parts.expect(SET) {
            let mut attributes = Reader(part.content);
            while let Some(attribute) = attributes.expect(SEQUENCE) {
                let mut attribute = Reader(attribute.content);
                if attribute.expect(OID)?.content == COMMON_NAME {
                    // UTF8String, PrintableString, TeletexString, IA5String.
                    return attribute
                        .next()
                        .filter(|text| [0x0c, 0x13, 0x14, 0x16].contains(&text.tag))
                        .map(|text| text.content);
                }
            }
        }
        None
    }
}

/// Critical extensions of an authority that are understood: of one that has signed a server's certificate, and of one for clients.
const SIGNERS: [&[u8]; 2] = [BASIC_CONSTRAINTS, KEY_USAGE];
const VOUCHERS: [&[u8]; 4] = [BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, NAME_CONSTRAINTS];

fn known(extension: &Extension<'_>, ids: &[&[u8]]) -> bool {
    ids.contains(&extension.id)
}

/// Whether the key usage, if there is one, lets the key sign certificates.
fn signs(extensions: &[Extension<'_>]) -> bool {
    extensions.iter().find(|one| one.id == KEY_USAGE).is_none_or(|usage| {
        Reader(usage.value)
            .expect(BIT_STRING)
            .is_some_and(|bits| bits.content.get(1).is_some_and(|first| first & CERT_SIGN != 0))
    })
}

/// Whether an extended key usage lists this purpose, or any.
fn names_purpose(purposes: &Extension<'_>, wanted: &[u8]) -> bool {
    let Some(list) = Reader(purposes.value).expect(SEQUENCE) else { return false };
    let mut list = Reader(list.content);
    while let Some(purpose) = list.expect(OID) {
        if [wanted, ANY_USAGE].contains(&purpose.content) {
            return true;
        }
    }
    false
}

/// A name that a rule may be about. One with a control character in it is none: what shows it may end there.
fn name(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control)).map(str::to_owned)
}

/// An object identifier in numbers with dots between them.
fn dotted(id: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in id {
        number = number.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let (first, rest) = numbers.split_first()?;
    let (root, second) = if *first < 80 { (first / 40, first % 40) } else { (2, first - 80) };
    let numbers = [root, second].into_iter().chain(rest.iter().copied());
    Some(numbers.map(|number| number.to_string()).collect::<Vec<_>>().join("."))
}

/// A bit string of whole bytes.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

/// Seconds since 1970; earlier moments count as 1970.
fn time(element: &Element<'_>) -> Option<u64> {
    let text = std::str::from_utf8(element.content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match element.tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 of the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_both_kinds_are_read() {
        let read = |tag, text: &str| time(&Element { tag, content: text.as_bytes(), whole: &[] });
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Some(0), "1950");
        assert_eq!(read(UTC_TIME, "261128235959Z"), Some(1_795_910_399));
        assert_eq!(read(GENERALIZED_TIME, "20261128235959Z"), Some(1_795_910_399));
        assert_eq!(read(GENERALIZED_TIME, "20000229000000Z"), Some(951_782_400));
        assert_eq!(read(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for (tag, text) in [
            (UTC_TIME, "261328235959Z"),
            (UTC_TIME, "261128235959"),
            (UTC_TIME, "26112823595Z"),
            (UTC_TIME, "2611282359+1Z"),
            (GENERALIZED_TIME, "261128235959Z"),
            (OID, "261128235959Z"),
        ] {
            assert_eq!(read(tag, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::read(&bytes).and_then(|certificate| certificate.facts());
            let _ = dotted(&bytes);
        }
    }
}
