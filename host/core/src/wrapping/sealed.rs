//! An answer under a key that comes from its wrapping token and from nothing else.
//!
//! Of the token the store has an HMAC only. So whoever holds the store, a snapshot of it and the barrier's key cannot open this.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use leasehold_model::{TokenHash, TokenId};
use zeroize::Zeroizing;

/// Changes when what is sealed changes its meaning.
const PURPOSE: &[u8] = b"leasehold wrapped answer 1";

/// A key is used once, for the one answer of its token: the nonce says nothing.
const NONCE: [u8; 12] = [0; 12];

fn key(token: &TokenId) -> Option<LessSafeKey> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE).extract(token.expose().as_bytes());
    let expanded = extracted.expand(&[PURPOSE], &AES_256_GCM_SIV).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

/// `None`: longer than can be sealed.
pub(crate) fn seal(token: &TokenId, hash: &TokenHash, plain: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = Vec::with_capacity(plain.len() + 16);
    sealed.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(NONCE);
    key(token)?.seal_in_place_append_tag(nonce, Aad::from(hash.as_str().as_bytes()), &mut sealed).ok()?;
    Some(sealed)
}

/// `None`: it was not sealed for this token.
pub(crate) fn open(token: &TokenId, hash: &TokenHash, sealed: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
    let mut whole = Zeroizing::new(sealed);
    let nonce = Nonce::assume_unique_for_key(NONCE);
    let len = key(token)?.open_in_place(nonce, Aad::from(hash.as_str().as_bytes()), &mut whole).ok()?.len();
    whole.truncate(len);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_that_it_was_sealed_for_opens_an_answer() {
        let (token, hash) = (TokenId::new("s.one"), TokenHash::from_hex("aa"));
        let sealed = seal(&token, &hash, b"canary").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        assert_eq!(open(&token, &hash, sealed.clone()).unwrap().as_slice(), b"canary");
        assert!(open(&TokenId::new("s.two"), &hash, sealed.clone()).is_none());
        assert!(open(&token, &TokenHash::from_hex("ab"), sealed.clone()).is_none(), "it was moved to another token");
        let bent = sealed.iter().map(|byte| byte ^ 1).collect();
        assert!(open(&token, &hash, bent).is_none());
        assert_ne!(seal(&TokenId::new("s.two"), &hash, b"canary").unwrap(), sealed);
    }
}
