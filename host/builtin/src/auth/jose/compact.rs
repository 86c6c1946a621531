//! The compact form of a signed token (RFC 7515): `header.content.signature`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::claims::Claims;
use super::key::{Algorithm, KeySet};
use super::{Flaw, Key};

/// Longer tokens are refused before anything of them is decoded. Real ones take one to ten KiB.
pub(super) const TOKEN_MAX: usize = 32 << 10;

/// A token whose signature nobody has checked yet: only what is needed to check it can be read.
pub(in crate::auth) struct Compact<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// Header and content as they were signed.
    signed: &'a str,
    content: &'a str,
    signature: Vec<u8>,
}

/// What of the header counts. `jku`, `jwk`, `x5u` and `x5c` do not: a token must not bring or name its own key.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
    #[serde(default, deserialize_with = "is_there")]
    b64: bool,
}

fn is_there<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(input).map(|_| true)
}

fn decoded(part: &str) -> Result<Vec<u8>, Flaw> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Malformed)
}

impl<'a> Compact<'a> {
    /// Reads the header and no more.
    ///
    /// # Errors
    /// The token is not in this form, or asks for what is not done here.
    pub(in crate::auth) fn read(token: &'a str) -> Result<Self, Flaw> {
        if token.len() > TOKEN_MAX {
            return Err(Flaw::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, content) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        if content.contains('.') {
            return Err(Flaw::Malformed);
        }
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Flaw::Header)?;
        // No extension is understood here, and RFC 7515 (4.1.11) demands that the token is refused then. `b64` without `crit` has
        // no meaning that two implementations agree on.
        if header.crit || header.b64 {
            return Err(Flaw::Extension);
        }
        let algorithm = Algorithm::parse(&header.alg).ok_or(Flaw::Algorithm)?;
        Ok(Self { algorithm, key_id: header.kid, signed, content, signature: decoded(signature)? })
    }

    pub(in crate::auth) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The content, when one of the keys has signed it.
    ///
    /// # Errors
    /// None has, or what was signed is no JSON object.
    pub(in crate::auth) fn verify(&self, keys: &KeySet) -> Result<Claims, Flaw> {
        let mut candidates = keys.candidates(self.key_id.as_deref(), self.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(Flaw::UnknownKey);
        }
        let has_signed = |key: &Key| key.verify(self.algorithm, self.signed.as_bytes(), &self.signature);
        if !candidates.any(has_signed) {
            return Err(Flaw::Signature);
        }
        Claims::read(&decoded(self.content)?)
    }

    /// What the token says and nobody has verified: good for sparing somebody else the trouble of verifying it, and for nothing else.
    ///
    /// # Errors
    /// As [`Claims::read`].
    pub(in crate::auth) fn unverified_content(&self) -> Result<Claims, Flaw> {
        Claims::read(&decoded(self.content)?)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::super::testing::{SignKey, set};
    use super::*;

    fn token(header: &Value, claims: &Value, key: &SignKey) -> String {
        key.sign_with_header(header, claims.to_string().as_bytes())
    }

    fn verified(token: &str, keys: &KeySet) -> Result<Claims, Flaw> {
        Compact::read(token)?.verify(keys)
    }

    #[test]
    fn every_algorithm_verifies_what_its_own_key_has_signed_and_no_other_message() {
        let claims = json!({ "sub": "bob" });
        for algorithm in Algorithm::ALL {
            let key = SignKey::for_algorithm(algorithm);
            let keys = set(&[(None, &key)]);
            let good = token(&json!({ "alg": algorithm.name() }), &claims, &key);
            assert_eq!(verified(&good, &keys).unwrap().text("sub"), Some("bob"), "{algorithm:?}");
            let (head, signature) = good.rsplit_once('.').unwrap();
            let (head, _) = head.split_once('.').unwrap();
            let other = URL_SAFE_NO_PAD.encode(json!({ "sub": "root" }).to_string());
            assert_eq!(verified(&format!("{head}.{other}.{signature}"), &keys).unwrap_err(), Flaw::Signature);
            let stranger = set(&[(None, &SignKey::another(algorithm))]);
            assert_eq!(verified(&good, &stranger).unwrap_err(), Flaw::Signature, "{algorithm:?}");
        }
    }

    /// CVE-2015-9235 and its kin: the public key, which everybody knows, taken for the secret of an HMAC.
    #[test]
    fn algorithm_confusion_a_public_key_is_never_a_shared_secret() {
        for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
            let key = SignKey::for_algorithm(algorithm);
            let keys = set(&[(None, &key)]);
            for secret in [key.public_pem().into_bytes(), key.public_der()] {
                let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256"}"#);
                let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(br#"{"sub":"root"}"#));
                let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
                let mac = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&mac, signed.as_bytes()));
                assert_eq!(verified(&format!("{signed}.{mac}"), &keys).unwrap_err(), Flaw::Algorithm);
            }
        }
    }

    #[test]
    fn no_algorithm_in_any_spelling_proves_nothing() {
        let keys = set(&[(None, &SignKey::for_algorithm(Algorithm::Rs256))]);
        let content = URL_SAFE_NO_PAD.encode(br#"{"sub":"root"}"#);
        for alg in ["none", "None", "NONE", "nOnE", "", "HS512", "rs256", "RS256 ", "RSA-OAEP", "dir"] {
            let head = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            for signature in ["", "AA"] {
                assert_eq!(
                    verified(&format!("{head}.{content}.{signature}"), &keys).unwrap_err(),
                    Flaw::Algorithm,
                    "{alg}"
                );
            }
        }
        let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256"}"#);
        assert_eq!(verified(&format!("{head}.{content}."), &keys).unwrap_err(), Flaw::Signature, "an empty signature");
    }

    #[test]
    fn a_key_of_another_kind_or_curve_is_not_asked() {
        for signer in Algorithm::ALL {
            let key = SignKey::for_algorithm(signer);
            for claimed in Algorithm::ALL.into_iter().filter(|claimed| claimed.kind() != signer.kind()) {
                let text = token(&json!({ "alg": claimed.name() }), &json!({ "sub": "bob" }), &key);
                let found = verified(&text, &set(&[(None, &key)]));
                assert_eq!(found.unwrap_err(), Flaw::UnknownKey, "{signer:?} as {claimed:?}");
            }
        }
        // One kind of key, two paddings: the header's choice is what is verified.
        let key = SignKey::for_algorithm(Algorithm::Rs256);
        let text = token(&json!({ "alg": "RS256" }), &json!({}), &key);
        let as_pss = text.replacen(
            &URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256"}"#),
            &URL_SAFE_NO_PAD.encode(br#"{"alg":"PS256"}"#),
            1,
        );
        assert_eq!(verified(&as_pss, &set(&[(None, &key)])).unwrap_err(), Flaw::Signature);
    }

    #[test]
    fn a_key_id_is_a_name_and_nothing_else() {
        let (first, second) = (SignKey::for_algorithm(Algorithm::Es256), SignKey::another(Algorithm::Es256));
        let keys = set(&[(Some("one"), &first), (Some("two"), &second), (Some("two"), &first)]);
        let by = |kid: Value, key: &SignKey| {
            verified(&token(&json!({ "alg": "ES256", "kid": kid }), &json!({}), key), &keys)
        };
        assert!(by(json!("one"), &first).is_ok());
        assert_eq!(by(json!("one"), &second).unwrap_err(), Flaw::Signature, "another key under this id");
        assert!(by(json!("two"), &first).is_ok() && by(json!("two"), &second).is_ok(), "two keys under one id");
        assert!(by(Value::Null, &second).is_ok(), "without an id every key is tried");
        for hostile in
            ["../../../../dev/null", "/etc/passwd", "three", "", "one\0", "ONE", "' or 1=1 --", "http://127.0.0.1/k"]
        {
            assert_eq!(by(json!(hostile), &first).unwrap_err(), Flaw::UnknownKey, "{hostile:?}");
        }
        for odd in [json!(1), json!(["one"]), json!({ "kid": "one" }), json!(true)] {
            assert_eq!(by(odd.clone(), &first).unwrap_err(), Flaw::Header, "{odd}");
        }
    }

    #[test]
    fn a_header_that_demands_an_extension_is_refused() {
        let key = SignKey::for_algorithm(Algorithm::Es256);
        let keys = set(&[(None, &key)]);
        for header in [
            json!({ "alg": "ES256", "crit": ["exp"], "exp": 1 }),
            json!({ "alg": "ES256", "crit": [] }),
            json!({ "alg": "ES256", "crit": null }),
            json!({ "alg": "ES256", "b64": false }),
            json!({ "alg": "ES256", "b64": true, "crit": ["b64"] }),
        ] {
            assert_eq!(verified(&token(&header, &json!({}), &key), &keys).unwrap_err(), Flaw::Extension, "{header}");
        }
    }

    /// What a token says of its own key is not looked at: neither fetched nor used.
    #[test]
    fn a_token_cannot_bring_its_own_key() {
        let (ours, theirs) = (SignKey::for_algorithm(Algorithm::Es256), SignKey::another(Algorithm::Es256));
        let keys = set(&[(None, &ours)]);
        let brought = json!({
            "alg": "ES256", "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/x", "x5c": ["AAAA"], "jwk": theirs.jwk(None),
        });
        assert_eq!(verified(&token(&brought, &json!({}), &theirs), &keys).unwrap_err(), Flaw::Signature);
        assert!(verified(&token(&brought, &json!({}), &ours), &keys).is_ok());
    }

    #[test]
    fn what_is_no_compact_token_is_refused_without_a_panic() {
        let key = SignKey::for_algorithm(Algorithm::Es256);
        let keys = set(&[(None, &key)]);
        let good = token(&json!({ "alg": "ES256" }), &json!({}), &key);
        for (text, flaw) in [
            (String::new(), Flaw::Malformed),
            ("..".to_owned(), Flaw::Header),
            ("a.b".to_owned(), Flaw::Malformed),
            (format!("{good}.x"), Flaw::Malformed),
            (format!("{good}="), Flaw::Malformed),
            (format!(" {good}"), Flaw::Malformed),
            (format!("{good}\n"), Flaw::Malformed),
            ("a".repeat(TOKEN_MAX + 1), Flaw::TooLong),
        ] {
            assert_eq!(verified(&text, &keys).unwrap_err(), flaw, "{:?}", text.get(..20));
        }
        for header in
            [r#"{"alg":"ES256","alg":"ES256"}"#, r#"{"alg":"none","alg":"ES256"}"#, "{}", "[]", "7", r#"{"alg":7}"#]
        {
            let text = key.sign_raw(header.as_bytes(), b"{}");
            assert_eq!(verified(&text, &keys).unwrap_err(), Flaw::Header, "{header}");
        }
        for content in ["", "[]", "7", "\"a.b.c\"", "{", r#"{"sub":"a","sub":"b"}"#] {
            let text = key.sign_raw(br#"{"alg":"ES256"}"#, content.as_bytes());
            assert_eq!(verified(&text, &keys).unwrap_err(), Flaw::Content, "{content}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(4_000), "]".repeat(4_000));
        let text = key.sign_raw(br#"{"alg":"ES256"}"#, deep.as_bytes());
        assert_eq!(verified(&text, &keys).unwrap_err(), Flaw::Content);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[A-Za-z0-9_.=-]{0,300}", any in ".{0,100}") {
            let keys = KeySet::default();
            proptest::prop_assert!(verified(&text, &keys).is_err());
            proptest::prop_assert!(verified(&any, &keys).is_err());
        }
    }
}
