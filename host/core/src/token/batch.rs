//! Batch tokens: nothing is stored of them. The token is its own record, sealed; whoever holds the key can open it.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leasehold_model::{Accessor, Cidr, MountAccessor, Timestamp, TokenHash, TokenId, Ttl};
use serde::{Deserialize, Serialize};

use super::record::{TokenKind, TokenRecord};
use crate::seams::host::Entropy;
use crate::seams::seal::SecretKey;

/// How every batch token begins; no other token may.
pub const PREFIX: &str = "b.";

/// Longer ones are neither made nor opened: they must fit into a request's head.
pub const LEN_MAX: usize = 8_192;

/// Changes when what is sealed changes its meaning.
const PURPOSE: &[u8] = b"leasehold batch token 1";

/// Seals records into tokens and opens them again.
pub struct Sealer(Option<LessSafeKey>);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer([REDACTED])")
    }
}

/// What a batch token carries. Short names: every byte goes with every request.
#[derive(Serialize, Deserialize)]
struct Carried {
    #[serde(rename = "p")]
    policies: Vec<String>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    parent: Option<TokenHash>,
    #[serde(rename = "q")]
    path: String,
    #[serde(rename = "n")]
    display_name: String,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    meta: Option<BTreeMap<String, String>>,
    #[serde(rename = "c")]
    created_at: Timestamp,
    #[serde(rename = "t")]
    ttl: Ttl,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    mount: Option<MountAccessor>,
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    bound_cidrs: Vec<Cidr>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    entity: Option<String>,
}

impl Sealer {
    #[must_use]
    pub fn new(key: &SecretKey) -> Self {
        Self(UnboundKey::new(&AES_256_GCM_SIV, key.0.as_slice()).ok().map(LessSafeKey::new))
    }

    /// `b.`, then nonce and sealed record in base64url. `None`: it would be too long.
    #[must_use]
    pub fn seal(&self, entropy: &dyn Entropy, record: &TokenRecord) -> Option<TokenId> {
        let carried = Carried {
            policies: record.policies.clone(),
            parent: record.parent.clone(),
            path: record.path.clone(),
            display_name: record.display_name.clone(),
            meta: record.meta.clone(),
            created_at: record.created_at,
            ttl: record.creation_ttl,
            mount: record.mount.clone(),
            bound_cidrs: record.bound_cidrs.clone(),
            entity: record.entity.clone(),
        };
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = serde_json::to_vec(&carried).ok()?;
        let key = self.0.as_ref()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut sealed).ok()?;
        let whole = [nonce.as_slice(), &sealed].concat();
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(whole)))
            .filter(|token| token.len() <= LEN_MAX)
            .map(TokenId::new)
    }

    /// The record in a token that was sealed here, whether or not it is still good.
    #[must_use]
    pub fn open(&self, token: &TokenId) -> Option<TokenRecord> {
        let text = token.expose().strip_prefix(PREFIX).filter(|text| text.len() <= LEN_MAX)?;
        let mut whole = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = whole.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.as_ref()?.open_in_place(nonce, Aad::from(PURPOSE), sealed).ok()?;
        let carried: Carried = serde_json::from_slice(opened).ok()?;
        let Carried { policies, parent, path, display_name, meta, created_at, ttl, mount, bound_cidrs, entity } =
            carried;
        Some(TokenRecord {
            kind: TokenKind::Batch,
            accessor: Accessor::new(""),
            parent,
            policies,
            path,
            display_name,
            meta,
            num_uses: 0,
            creation_uses: 0,
            created_at,
            creation_ttl: ttl,
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            renewable: false,
            // Always: there is no other way to end it.
            expires_at: Some(created_at + ttl),
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: None,
            mount,
            bound_cidrs,
            role: None,
            wraps: None,
            entity,
            login: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(std::sync::atomic::AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        }
    }

    fn key(byte: u8) -> SecretKey {
        SecretKey(zeroize::Zeroizing::new([byte; 32]))
    }

    fn record(name: &str) -> TokenRecord {
        TokenRecord {
            kind: TokenKind::Batch,
            accessor: Accessor::new(""),
            parent: Some(TokenHash::from_hex("ab".repeat(32))),
            policies: vec!["app".to_owned(), "default".to_owned()],
            path: "auth/token/create".to_owned(),
            display_name: name.to_owned(),
            meta: Some(BTreeMap::from([("team".to_owned(), "a".to_owned())])),
            num_uses: 0,
            creation_uses: 0,
            created_at: Timestamp::from_secs(1_000),
            creation_ttl: Ttl::from_secs(60),
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            renewable: false,
            expires_at: Some(Timestamp::from_secs(1_060)),
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: None,
            mount: Some(MountAccessor::new("auth_userpass_01234567")),
            bound_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
            role: None,
            wraps: None,
            entity: None,
            login: None,
        }
    }

    #[test]
    fn what_was_sealed_comes_out_as_it_went_in() {
        let (sealer, entropy) = (Sealer::new(&key(1)), Counting(0.into()));
        let token = sealer.seal(&entropy, &record("token")).unwrap();
        assert!(token.expose().starts_with("b."), "{}", token.expose());
        assert_eq!(sealer.open(&token), Some(record("token")));
        assert_ne!(sealer.seal(&entropy, &record("token")).unwrap().expose(), token.expose(), "no two are alike");
        assert!(!token.expose().contains(&URL_SAFE_NO_PAD.encode("default")[..8]));
    }

    #[test]
    fn no_bit_may_change_and_no_other_key_opens_it() {
        let (sealer, entropy) = (Sealer::new(&key(1)), Counting(0.into()));
        let token = sealer.seal(&entropy, &record("token")).unwrap();
        assert_eq!(Sealer::new(&key(2)).open(&token), None);
        let bytes = URL_SAFE_NO_PAD.decode(&token.expose()[2..]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let token = TokenId::new(format!("b.{}", URL_SAFE_NO_PAD.encode(changed)));
            assert_eq!(sealer.open(&token), None, "byte {at}");
        }
        for text in ["", "b.", "b.AAAA", "b.!", "s.AAAA", &token.expose()[2..], &token.expose()[..40]] {
            assert_eq!(sealer.open(&TokenId::new(text)), None, "{text}");
        }
        assert_eq!(sealer.open(&TokenId::new(format!("b.{}", "A".repeat(1 << 20)))), None);
    }

    #[test]
    fn what_would_not_fit_into_a_head_is_not_made() {
        let (sealer, entropy) = (Sealer::new(&key(1)), Counting(0.into()));
        assert!(sealer.seal(&entropy, &record(&"x".repeat(4_000))).is_some());
        assert!(sealer.seal(&entropy, &record(&"x".repeat(8_000))).is_none());
    }
}
