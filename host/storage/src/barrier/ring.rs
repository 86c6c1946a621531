//! The key ring: every key that ever sealed a value here, the newest of which seals new ones.
//!
//! A sealed value is `term (4 bytes, big endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`: AES-256-GCM with the storage key, or
//! the lease's domain and id, as associated data. The wrapped ring has the same form with term 0, under the root key.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::seal::SecretKey;
use leasehold_model::Timestamp;
use zeroize::{Zeroize, Zeroizing};

pub(super) const KEY_LEN: usize = 32;
const TERM_LEN: usize = 4;
const HEADER_LEN: usize = TERM_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;

/// The wrapped ring's own associated data: its storage key.
const WRAP_DOMAIN: &[u8] = b"sys/keyring";
const WRAP_TERM: u32 = 0;
const FORMAT: u8 = 1;

/// A key seals at most this many values: nine tenths of the 2³² after which random nonces may meet (NIST SP 800-38D). The
/// field's own number.
pub(super) const SEALS_MAX: u64 = 3_865_470_566;
/// Uses are counted on disk in blocks of this many, ahead of their use: a crash wastes some, and repeats none.
pub(super) const SEALS_BLOCK: u64 = 1 << 20;

pub(super) struct Ring {
    root: Zeroizing<[u8; KEY_LEN]>,
    /// Never changes, whatever is rotated: what is derived from it names things for ever.
    secret: Zeroizing<[u8; KEY_LEN]>,
    derive: hmac::Key,
    /// By term, beginning with 1; never empty.
    keys: Vec<TermKey>,
    /// Values the newest key has sealed, or may have before a crash.
    used: AtomicU64,
    /// As stored: `used` stays below it.
    reserved: u64,
}

struct TermKey {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    cipher: LessSafeKey,
    installed_at: Timestamp,
}

impl TermKey {
    fn new(bytes: Zeroizing<[u8; KEY_LEN]>, installed_at: Timestamp) -> Option<Self> {
        let cipher = cipher(&bytes)?;
        Some(Self { bytes, cipher, installed_at })
    }
}

impl Ring {
    /// A first ring under a root key.
    pub(super) fn generate(entropy: &dyn Entropy, root: &[u8; KEY_LEN], now: Timestamp) -> Option<Self> {
        let first = TermKey::new(random(entropy), now)?;
        Some(Self::with(Zeroizing::new(*root), random(entropy), vec![first], 0, 0))
    }

    fn with(
        root: Zeroizing<[u8; KEY_LEN]>,
        secret: Zeroizing<[u8; KEY_LEN]>,
        keys: Vec<TermKey>,
        used: u64,
        reserved: u64,
    ) -> Self {
        let derive = hmac::Key::new(hmac::HMAC_SHA256, &*secret);
        Self { root, secret, derive, keys, used: AtomicU64::new(used), reserved }
    }

    /// The same keys, with a further block of uses: `count` at least.
    pub(super) fn with_room(&self, count: u64) -> Option<Self> {
        let used = self.used.load(Ordering::Acquire).min(self.reserved);
        let reserved = self.reserved.saturating_add(count.max(SEALS_BLOCK)).min(SEALS_MAX);
        Some(Self::with(self.root.clone(), self.secret.clone(), self.copy_keys()?, used, reserved))
    }

    /// The same keys and a newer one, with a first block of uses.
    pub(super) fn rotated(&self, entropy: &dyn Entropy, now: Timestamp, count: u64) -> Option<Self> {
        let mut keys = self.copy_keys()?;
        keys.push(TermKey::new(random(entropy), now)?);
        Some(Self::with(self.root.clone(), self.secret.clone(), keys, 0, count.max(SEALS_BLOCK)))
    }

    fn copy_keys(&self) -> Option<Vec<TermKey>> {
        self.keys.iter().map(|key| TermKey::new(key.bytes.clone(), key.installed_at)).collect()
    }

    /// Takes `count` uses of the newest key; `false`: they are not reserved.
    pub(super) fn take(&self, count: u64) -> bool {
        let used = self.used.fetch_add(count, Ordering::AcqRel).saturating_add(count);
        used <= self.reserved
    }

    /// Whether a further block would still leave room for `count` values.
    pub(super) fn is_used_up(&self, count: u64) -> bool {
        self.reserved.saturating_add(count.max(1)) > SEALS_MAX
    }

    pub(super) fn newest(&self) -> (u32, Timestamp) {
        let at = self.keys.last().map_or(Timestamp::from_secs(0), |key| key.installed_at);
        (u32::try_from(self.keys.len()).unwrap_or(u32::MAX), at)
    }

    pub(super) fn derive(&self, purpose: &str) -> SecretKey {
        let mut context = hmac::Context::with_key(&self.derive);
        context.update(b"leasehold derive 1\0");
        context.update(purpose.as_bytes());
        let mut key = Zeroizing::new([0_u8; KEY_LEN]);
        for (to, from) in key.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        SecretKey(key)
    }

    pub(super) fn seal(&self, entropy: &dyn Entropy, domain: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let (term, _) = self.newest();
        seal_with(&self.keys.last()?.cipher, term, entropy, domain, plain)
    }

    /// `None`: damaged, of another ring, or of another domain. Decrypts in place.
    pub(super) fn open(&self, domain: &[u8], sealed: Vec<u8>) -> Option<Vec<u8>> {
        let term = u32::from_be_bytes(*sealed.first_chunk::<TERM_LEN>()?);
        let at = usize::try_from(term.checked_sub(1)?).ok()?;
        open_with(&self.keys.get(at)?.cipher, domain, sealed)
    }

    /// What is stored under `sys/keyring`.
    pub(super) fn wrap(&self, entropy: &dyn Entropy) -> Option<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(1 + KEY_LEN + 8 + 4 + self.keys.len() * (8 + KEY_LEN)));
        plain.push(FORMAT);
        plain.extend_from_slice(&*self.secret);
        plain.extend_from_slice(&self.reserved.to_be_bytes());
        plain.extend_from_slice(&u32::try_from(self.keys.len()).ok()?.to_be_bytes());
        for key in &self.keys {
            plain.extend_from_slice(&key.installed_at.as_nanos().to_be_bytes());
            plain.extend_from_slice(&*key.bytes);
        }
        seal_with(&cipher(&self.root)?, WRAP_TERM, entropy, WRAP_DOMAIN, &plain)
    }

    /// `None`: not the root key of this ring, or a damaged ring; the two cannot be told apart.
    pub(super) fn unwrap_with(root: &[u8; KEY_LEN], wrapped: Vec<u8>) -> Option<Self> {
        let plain = Zeroizing::new(open_with(&cipher(root)?, WRAP_DOMAIN, wrapped)?);
        let mut rest = plain.as_slice();
        let [FORMAT] = chunk(&mut rest)? else { return None };
        let secret = Zeroizing::new(chunk(&mut rest)?);
        let reserved = u64::from_be_bytes(chunk(&mut rest)?);
        let count = u32::from_be_bytes(chunk(&mut rest)?);
        let mut keys = Vec::new();
        for _ in 0..count {
            let installed_at = Timestamp::from_nanos(i64::from_be_bytes(chunk(&mut rest)?));
            keys.push(TermKey::new(Zeroizing::new(chunk(&mut rest)?), installed_at)?);
        }
        if keys.is_empty() || !rest.is_empty() {
            return None;
        }
        // Nobody knows how much of the last block was used before: all of it counts as used.
        Some(Self::with(Zeroizing::new(*root), secret, keys, reserved, reserved))
    }
}

pub(super) fn random(entropy: &dyn Entropy) -> Zeroizing<[u8; KEY_LEN]> {
    let mut key = Zeroizing::new([0_u8; KEY_LEN]);
    entropy.fill(&mut *key);
    key
}

fn cipher(key: &[u8; KEY_LEN]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn seal_with(cipher: &LessSafeKey, term: u32, entropy: &dyn Entropy, domain: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0_u8; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
    sealed.extend_from_slice(&term.to_be_bytes());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let body = sealed.get_mut(HEADER_LEN..)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let Ok(tag) = cipher.seal_in_place_separate_tag(nonce, Aad::from(domain), body) else {
        sealed.zeroize();
        return None;
    };
    sealed.extend_from_slice(tag.as_ref());
    Some(sealed)
}

fn open_with(cipher: &LessSafeKey, domain: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let nonce = *sealed.get(TERM_LEN..)?.first_chunk::<NONCE_LEN>()?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let body = sealed.get_mut(HEADER_LEN..)?;
    let plain = cipher.open_in_place(nonce, Aad::from(domain), body).ok()?.len();
    sealed.copy_within(HEADER_LEN..HEADER_LEN + plain, 0);
    sealed.truncate(plain);
    Some(sealed)
}
