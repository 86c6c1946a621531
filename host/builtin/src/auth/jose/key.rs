//! Public keys: in PEM form as an operator gives them, and as a JSON Web Key Set (RFC 7517).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// The most keys of one set. Providers show two to ten.
const KEYS_MAX: usize = 64;
/// RSA keys in bytes of their modulus: 2048 to 8192 bits.
const RSA_LEN: std::ops::RangeInclusive<usize> = 256..=1_024;
const EXPONENT_LEN_MAX: usize = 8;

/// What a token may be signed with: the asymmetric algorithms of RFC 7518 and RFC 8037, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::auth) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// What a key is, whatever a token says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Algorithm {
    pub(in crate::auth) const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    pub(in crate::auth) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(in crate::auth) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(in crate::auth) fn kind(self) -> KeyKind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => KeyKind::Rsa,
            Self::Es256 => KeyKind::P256,
            Self::Es384 => KeyKind::P384,
            Self::Es512 => KeyKind::P521,
            Self::EdDsa => KeyKind::Ed25519,
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &ECDSA_P521_SHA512_FIXED,
            Self::EdDsa => &ED25519,
            rsa => rsa.rsa().unwrap_or(&RSA_PKCS1_2048_8192_SHA256),
        }
    }
}

#[derive(Clone, Debug)]
enum Material {
    /// `SubjectPublicKeyInfo`, a point of a curve, or the 32 bytes of Ed25519.
    Encoded(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// One public key.
#[derive(Clone, Debug)]
pub(in crate::auth) struct Key {
    id: Option<String>,
    kind: KeyKind,
    /// Its owner says that it signs with this algorithm only.
    only: Option<Algorithm>,
    material: Material,
}

/// The keys that may have signed a token.
#[derive(Clone, Debug, Default)]
pub(in crate::auth) struct KeySet(Vec<Key>);

/// Why a key set cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum KeySetError {
    #[error("the answer is no JSON Web Key Set")]
    Malformed,
    #[error("the key set has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("the key set has no public key that could have signed a token")]
    Empty,
}

/// A member of a key set. Members of kinds that are not known here are passed over.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

fn bytes(text: Option<&str>) -> Option<Vec<u8>> {
    // Some providers pad, against the RFC.
    let bytes = URL_SAFE_NO_PAD.decode(text?.trim_end_matches('=')).ok()?;
    Some(bytes).filter(|bytes| bytes.len() <= *RSA_LEN.end() + 1)
}

/// A coordinate, as long as its curve wants it.
fn coordinate(text: Option<&str>, len: usize) -> Option<Vec<u8>> {
    bytes(text).filter(|bytes| bytes.len() == len)
}

fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

impl Key {
    /// A key in PEM form: a public key, or a certificate, whose key is taken and nothing else.
    pub(in crate::auth) fn from_pem(pem: &str) -> Option<Self> {
        let der = leasehold_tls::public_key(pem.as_bytes()).ok()?;
        let kinds = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa];
        let fits = |algorithm: &Algorithm| ParsedPublicKey::new(algorithm.verification(), &der).is_ok();
        let kind = kinds.into_iter().find(fits)?.kind();
        Some(Self { id: None, kind, only: None, material: Material::Encoded(der) })
    }

    fn from_jwk(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let signs = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs {
            return None;
        }
        let (kind, material) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (without_zeros(&bytes(jwk.n.as_deref())?), without_zeros(&bytes(jwk.e.as_deref())?));
                // An even exponent, or 1, would verify whatever anybody writes.
                let is_sound = RSA_LEN.contains(&n.len())
                    && (1..=EXPONENT_LEN_MAX).contains(&e.len())
                    && e.last().is_some_and(|last| last % 2 == 1)
                    && e != [1];
                (KeyKind::Rsa, is_sound.then_some(Material::Rsa { n, e })?)
            }
            ("EC", Some(curve)) => {
                let (kind, len) = match curve {
                    "P-256" => (KeyKind::P256, 32),
                    "P-384" => (KeyKind::P384, 48),
                    "P-521" => (KeyKind::P521, 66),
                    _ => return None,
                };
                let (x, y) = (coordinate(jwk.x.as_deref(), len)?, coordinate(jwk.y.as_deref(), len)?);
                // 4: both coordinates follow (SEC 1, 2.3.3).
                (kind, Material::Encoded([vec![4], x, y].concat()))
            }
            ("OKP", Some("Ed25519")) => (KeyKind::Ed25519, Material::Encoded(coordinate(jwk.x.as_deref(), 32)?)),
            _ => return None,
        };
        let only = match jwk.alg.as_deref() {
            None | Some("") => None,
            // A key for an algorithm that is not known here signs nothing that is taken here.
            Some(name) => Some(Algorithm::parse(name).filter(|algorithm| algorithm.kind() == kind)?),
        };
        let key = Self { id: jwk.kid, kind, only, material };
        key.is_on_its_curve().then_some(key)
    }

    fn is_on_its_curve(&self) -> bool {
        let Material::Encoded(point) = &self.material else { return true };
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.kind() == self.kind);
        algorithm.is_some_and(|algorithm| ParsedPublicKey::new(algorithm.verification(), point).is_ok())
    }

    fn may_sign(&self, algorithm: Algorithm) -> bool {
        algorithm.kind() == self.kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether this key has signed the message.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.may_sign(algorithm) {
            return false;
        }
        match (&self.material, algorithm.rsa()) {
            (Material::Rsa { n, e }, Some(parameters)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Material::Rsa { .. }, None) => false,
            (Material::Encoded(key), _) => {
                UnparsedPublicKey::new(algorithm.verification(), key).verify(message, signature).is_ok()
            }
        }
    }
}

impl KeySet {
    /// Keys without ids, as an operator gives them: each is tried whatever id a token names.
    pub(in crate::auth) fn of_static(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// It is none, is too large, or has no key that is of use here.
    pub(in crate::auth) fn from_jwks(text: &[u8]) -> Result<Self, KeySetError> {
        let Jwks { keys } = serde_json::from_slice(text).map_err(|_| KeySetError::Malformed)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = keys.into_iter().filter_map(Key::from_jwk).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }

    /// The keys that may have signed a token. A token without a key id may be of any; a key without one, as an operator gives it,
    /// may have signed any.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let is_meant = move |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        self.0.iter().filter(is_meant).filter(move |key| key.may_sign(algorithm))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::SignKey;
    use super::*;

    fn jwks(keys: &[Value]) -> Result<KeySet, KeySetError> {
        KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn keys_in_pem_form_and_as_jwk_verify_alike() {
        for algorithm in Algorithm::ALL {
            let signer = SignKey::for_algorithm(algorithm);
            let signature = signer.sign(b"message");
            let pem = Key::from_pem(&signer.public_pem()).unwrap();
            let jwk = Key::from_jwk(signer.jwk(Some("k"))).unwrap();
            for key in [&pem, &jwk] {
                assert_eq!(key.kind, algorithm.kind());
                assert!(key.verify(algorithm, b"message", &signature), "{algorithm:?}");
                assert!(!key.verify(algorithm, b"massage", &signature), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn keys_that_are_not_for_signing_or_not_sound_are_passed_over() {
        let good = SignKey::for_algorithm(Algorithm::Rs256).jwk(Some("good"));
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        let point = SignKey::for_algorithm(Algorithm::Es256).jwk(Some("ec"));
        let mut off_curve = point.clone();
        off_curve["y"] = point["x"].clone();
        let mut short = point.clone();
        short["x"] = json!("AAAA");
        for useless in [
            with("use", json!("enc")),
            with("key_ops", json!(["encrypt"])),
            with("alg", json!("RSA-OAEP")),
            with("alg", json!("HS256")),
            with("alg", json!("ES256")),
            with("e", json!("AQ")),
            with("e", json!("Ag")),
            with("e", json!("")),
            with("n", json!("AQAB")),
            with("n", json!("not base64!")),
            with("kid", json!(7)),
            json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
            json!({ "kty": "EC", "crv": "secp256k1", "x": point["x"], "y": point["y"] }),
            json!({ "kty": "OKP", "crv": "X25519", "x": point["x"] }),
            off_curve,
            short,
            json!({}),
            json!("key"),
        ] {
            assert_eq!(jwks(std::slice::from_ref(&useless)).unwrap_err(), KeySetError::Empty, "{useless}");
            assert_eq!(jwks(&[useless, good.clone()]).unwrap().0.len(), 1);
        }
        assert!(
            jwks(&[with("use", json!("sig")), with("key_ops", json!(["verify"])), with("alg", json!("PS256"))]).is_ok()
        );
    }

    #[test]
    fn a_key_for_one_algorithm_takes_no_other() {
        let signer = SignKey::for_algorithm(Algorithm::Rs256);
        let mut jwk = signer.jwk(None);
        jwk["alg"] = json!("PS256");
        let key = Key::from_jwk(jwk).unwrap();
        assert!(!key.verify(Algorithm::Rs256, b"message", &signer.sign(b"message")));
    }

    #[test]
    fn the_size_of_a_key_set_is_bounded() {
        let key = SignKey::for_algorithm(Algorithm::EdDsa).jwk(None);
        assert!(jwks(&vec![key.clone(); KEYS_MAX]).is_ok());
        assert_eq!(jwks(&vec![key; KEYS_MAX + 1]).unwrap_err(), KeySetError::TooMany);
        for text in ["", "{}", "[]", "{\"keys\":{}}", "<html>", "{\"keys\":[", "null"] {
            assert_eq!(KeySet::from_jwks(text.as_bytes()).unwrap_err(), KeySetError::Malformed, "{text}");
        }
    }

    #[test]
    fn what_is_no_public_key_is_none() {
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n";
        for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", private] {
            assert!(Key::from_pem(text).is_none(), "{text}");
        }
    }
}
