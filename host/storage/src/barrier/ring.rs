//! The key ring: every key that ever sealed a value here, the newest of which seals new ones.
//!
//! A sealed value is `key id (4 bytes, big endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`: AES-256-GCM with the storage key, or
//! the lease's domain (see [`super::domain`]), as associated data. The wrapped ring has the same form with id 0, under the root key.
//!
//! Key ids are random: two servers that each add a key, one of them to a copy of the ring that a fail-over then lost, never give
//! two keys one id. Rings of the first format numbered their keys from 1; they are read, and unsealing gives them a newer key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use leasehold_core::lease::LeaseRow;
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::seal::{RotationSchedule, SecretKey};
use leasehold_model::{Timestamp, Ttl};
use zeroize::{Zeroize, Zeroizing};

use super::domain;

pub(super) const KEY_LEN: usize = 32;
const ID_LEN: usize = 4;
const HEADER_LEN: usize = ID_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;

/// The wrapped ring's own associated data: its storage key.
const WRAP_DOMAIN: &[u8] = b"sys/keyring";
const WRAP_ID: u32 = 0;
/// A root key that the key of shares wraps: where it is stored.
const STORED_KEY_DOMAIN: &[u8] = b"sys/seal";
/// Keys by their place, lease rows sealed without their columns.
const FIRST_FORMAT: u8 = 1;
const FORMAT: u8 = 2;
/// With a schedule. A ring that has the default one is written in the format before, which older versions read.
const SCHEDULED_FORMAT: u8 = 3;

/// A key never seals more values than this.
pub(super) const SEALS_MAX: u64 = RotationSchedule::OPERATIONS_MAX;
/// Into at least how many blocks the uses of a key are divided: each server that writes reserves one of its own.
const BLOCKS_MIN: u64 = 64;
/// Uses are counted on disk in blocks of this many, ahead of their use: a crash wastes some, and repeats none.
pub(super) const SEALS_BLOCK: u64 = 1 << 20;

pub(super) struct Ring {
    root: Zeroizing<[u8; KEY_LEN]>,
    /// Never changes, whatever is rotated: what is derived from it names things for ever.
    secret: Zeroizing<[u8; KEY_LEN]>,
    derive: hmac::Key,
    /// Oldest first; never empty.
    keys: Vec<RingKey>,
    /// What this server may seal with the newest key. Shared with the ring that takes this one's place and has the same newest key.
    uses: Arc<Uses>,
    /// Uses of the newest key that all servers together have reserved, as stored.
    reserved: u64,
    /// When a newer key is added by itself.
    schedule: RotationSchedule,
    /// Of the stored ring: every commit checks that it still is this one.
    version: u64,
}

struct RingKey {
    id: u32,
    bytes: Zeroizing<[u8; KEY_LEN]>,
    cipher: LessSafeKey,
    installed_at: Timestamp,
    /// It has sealed lease rows without their columns.
    is_first_format: bool,
}

impl RingKey {
    fn new(id: u32, bytes: Zeroizing<[u8; KEY_LEN]>, installed_at: Timestamp, is_first_format: bool) -> Option<Self> {
        let cipher = cipher(&bytes)?;
        Some(Self { id, bytes, cipher, installed_at, is_first_format })
    }

    fn copy(&self) -> Option<Self> {
        Self::new(self.id, self.bytes.clone(), self.installed_at, self.is_first_format)
    }
}

/// How many values this server may seal with a key, and has.
struct Uses {
    taken: AtomicU64,
    granted: u64,
}

impl Uses {
    fn granted(granted: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), granted })
    }
}

impl Ring {
    /// A first ring under a root key.
    pub(super) fn generate(entropy: &dyn Entropy, root: &[u8; KEY_LEN], now: Timestamp) -> Option<Self> {
        let first = RingKey::new(fresh_id(entropy, &[]), random(entropy), now, false)?;
        Some(Self::with(Zeroizing::new(*root), random(entropy), vec![first], 0))
    }

    fn with(
        root: Zeroizing<[u8; KEY_LEN]>,
        secret: Zeroizing<[u8; KEY_LEN]>,
        keys: Vec<RingKey>,
        reserved: u64,
    ) -> Self {
        let derive = hmac::Key::new(hmac::HMAC_SHA256, &*secret);
        let schedule = RotationSchedule::default();
        Self { root, secret, derive, keys, uses: Uses::granted(0), reserved, schedule, version: 0 }
    }

    /// The same keys, with a further block of uses for this server: `count` at least. What is left of its last block is given up:
    /// it may be in use at this moment.
    pub(super) fn with_room(&self, count: u64) -> Option<Self> {
        let reserved = self.reserved.saturating_add(count.max(self.block())).min(SEALS_MAX);
        let ring = Self::with(self.root.clone(), self.secret.clone(), self.copy_keys()?, reserved);
        let granted = reserved.saturating_sub(self.reserved);
        Some(Self { uses: Uses::granted(granted), schedule: self.schedule, ..ring })
    }

    /// The same keys and a newer one, with a first block of uses.
    pub(super) fn rotated(&self, entropy: &dyn Entropy, now: Timestamp, count: u64) -> Option<Self> {
        let mut keys = self.copy_keys()?;
        keys.push(RingKey::new(fresh_id(entropy, &keys), random(entropy), now, false)?);
        let reserved = count.max(self.block());
        let ring = Self::with(self.root.clone(), self.secret.clone(), keys, reserved);
        Some(Self { uses: Uses::granted(reserved), schedule: self.schedule, ..ring })
    }

    /// The same keys, of which the newest is replaced by another schedule.
    pub(super) fn scheduled(&self, schedule: RotationSchedule) -> Option<Self> {
        let ring = Self::with(self.root.clone(), self.secret.clone(), self.copy_keys()?, self.reserved);
        Some(Self { schedule, ..ring })
    }

    pub(super) fn schedule(&self) -> RotationSchedule {
        self.schedule
    }

    /// How many uses are reserved at once.
    fn block(&self) -> u64 {
        SEALS_BLOCK.min(self.schedule.seals_max() / BLOCKS_MIN)
    }

    fn copy_keys(&self) -> Option<Vec<RingKey>> {
        self.keys.iter().map(RingKey::copy).collect()
    }

    /// This ring as it is stored under `version`. When it has the same newest key as `before`, it goes on with the uses that were
    /// granted to that one.
    pub(super) fn stored_as(self, version: u64, before: Option<&Self>) -> Self {
        let uses = match before {
            Some(before) if before.newest_id() == self.newest_id() => Arc::clone(&before.uses),
            _ => self.uses,
        };
        Self { version, uses, ..self }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The same ring, to be stored under another root key.
    pub(super) fn under(self, root: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self { root, ..self }
    }

    /// The root key, to read the ring again with.
    pub(super) fn root(&self) -> &[u8; KEY_LEN] {
        &self.root
    }

    /// Whether some of its keys are of the first format and no newer one is there yet.
    pub(super) fn is_first_format(&self) -> bool {
        self.keys.last().is_some_and(|key| key.is_first_format)
    }

    pub(super) fn has_key(&self, id: u32) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Takes `count` uses of the newest key; `false`: they are not reserved.
    pub(super) fn take(&self, count: u64) -> bool {
        let taken = self.uses.taken.fetch_add(count, Ordering::AcqRel).saturating_add(count);
        taken <= self.uses.granted
    }

    /// Whether a further block would leave no room for `count` values.
    pub(super) fn is_used_up(&self, count: u64) -> bool {
        self.reserved.saturating_add(count.max(1)) > self.schedule.seals_max()
    }

    pub(super) fn newest_id(&self) -> u32 {
        self.keys.last().map_or(WRAP_ID, |key| key.id)
    }

    /// The number of keys there have been, which Vault calls the term, and when the newest was installed.
    pub(super) fn term(&self) -> (u32, Timestamp) {
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
        let key = self.keys.last()?;
        seal_with(&key.cipher, key.id, entropy, domain, plain)
    }

    /// A value, wrapped once with each of the newest `last` keys.
    pub(super) fn wrap_with_last_keys(
        &self,
        entropy: &dyn Entropy,
        domain: &[u8],
        plain: &[u8],
        last: usize,
    ) -> Vec<Vec<u8>> {
        let newest = self.keys.iter().rev().take(last);
        newest.filter_map(|key| seal_with(&key.cipher, key.id, entropy, domain, plain)).collect()
    }

    /// Whether a key of this ring has sealed this value. Another server may have added a key since this ring was read.
    pub(super) fn knows(&self, sealed: &[u8]) -> bool {
        sealed.first_chunk::<ID_LEN>().is_some_and(|id| self.has_key(u32::from_be_bytes(*id)))
    }

    /// `None`: damaged, of another ring, or of another domain. Decrypts in place.
    pub(super) fn open(&self, domain: &[u8], sealed: Vec<u8>) -> Option<Vec<u8>> {
        open_with(&self.key_of(&sealed)?.cipher, domain, sealed)
    }

    /// The body of a lease row, likewise.
    pub(super) fn open_row(&self, row: &LeaseRow, sealed: Vec<u8>) -> Option<Vec<u8>> {
        let key = self.key_of(&sealed)?;
        let domain = if key.is_first_format { domain::first_of_row(&row.id) } else { domain::of_row(row) };
        open_with(&key.cipher, &domain, sealed)
    }

    fn key_of(&self, sealed: &[u8]) -> Option<&RingKey> {
        let id = u32::from_be_bytes(*sealed.first_chunk::<ID_LEN>()?);
        self.keys.iter().rev().find(|key| key.id == id)
    }

    /// What is stored under `sys/keyring`.
    pub(super) fn wrap(&self, entropy: &dyn Entropy) -> Option<Vec<u8>> {
        let mut plain =
            Zeroizing::new(Vec::with_capacity(1 + 17 + KEY_LEN + 8 + 4 + self.keys.len() * (4 + 8 + 1 + KEY_LEN)));
        let is_scheduled = self.schedule != RotationSchedule::default();
        plain.push(if is_scheduled { SCHEDULED_FORMAT } else { FORMAT });
        if is_scheduled {
            plain.push(u8::from(self.schedule.enabled));
            plain.extend_from_slice(&self.schedule.interval.as_secs().to_be_bytes());
            plain.extend_from_slice(&self.schedule.max_operations.to_be_bytes());
        }
        plain.extend_from_slice(&*self.secret);
        plain.extend_from_slice(&self.reserved.to_be_bytes());
        plain.extend_from_slice(&u32::try_from(self.keys.len()).ok()?.to_be_bytes());
        for key in &self.keys {
            plain.extend_from_slice(&key.id.to_be_bytes());
            plain.push(u8::from(key.is_first_format));
            plain.extend_from_slice(&key.installed_at.as_nanos().to_be_bytes());
            plain.extend_from_slice(&*key.bytes);
        }
        seal_with(&cipher(&self.root)?, WRAP_ID, entropy, WRAP_DOMAIN, &plain)
    }

    /// `None`: not the root key of this ring, or a damaged ring; the two cannot be told apart.
    pub(super) fn unwrap_with(root: &[u8; KEY_LEN], wrapped: Vec<u8>) -> Option<Self> {
        let plain = Zeroizing::new(open_with(&cipher(root)?, WRAP_DOMAIN, wrapped)?);
        let mut rest = plain.as_slice();
        let [format] = chunk(&mut rest)?;
        let mut schedule = RotationSchedule::default();
        match format {
            FIRST_FORMAT | FORMAT => {}
            SCHEDULED_FORMAT => {
                schedule.enabled = chunk::<1>(&mut rest)? != [0];
                schedule.interval = Ttl::from_secs(u64::from_be_bytes(chunk(&mut rest)?));
                schedule.max_operations = u64::from_be_bytes(chunk(&mut rest)?);
            }
            _ => return None,
        }
        let secret = Zeroizing::new(chunk(&mut rest)?);
        let reserved = u64::from_be_bytes(chunk(&mut rest)?);
        let count = u32::from_be_bytes(chunk(&mut rest)?);
        let mut keys = Vec::new();
        for place in 1..=count {
            let (id, is_first_format) = if format == FIRST_FORMAT {
                (place, true)
            } else {
                (u32::from_be_bytes(chunk(&mut rest)?), chunk::<1>(&mut rest)? != [0])
            };
            let installed_at = Timestamp::from_nanos(i64::from_be_bytes(chunk(&mut rest)?));
            keys.push(RingKey::new(id, Zeroizing::new(chunk(&mut rest)?), installed_at, is_first_format)?);
        }
        if keys.is_empty() || !rest.is_empty() {
            return None;
        }
        // Nothing is granted: nobody knows how much of the last block was used before, so all of it counts as used.
        Some(Self { schedule, ..Self::with(Zeroizing::new(*root), secret, keys, reserved) })
    }
}

/// A root key, wrapped with the key that shares give.
pub(super) fn wrap_root(entropy: &dyn Entropy, key: &[u8; KEY_LEN], root: &[u8; KEY_LEN]) -> Option<Vec<u8>> {
    seal_with(&cipher(key)?, WRAP_ID, entropy, STORED_KEY_DOMAIN, root)
}

/// `None`: damaged, or wrapped with another key.
pub(super) fn unwrap_root(key: &[u8; KEY_LEN], wrapped: Vec<u8>) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let plain = Zeroizing::new(open_with(&cipher(key)?, STORED_KEY_DOMAIN, wrapped)?);
    plain.as_slice().try_into().ok().map(Zeroizing::new)
}

/// Not that of the wrapped ring, nor of a key that is there already.
fn fresh_id(entropy: &dyn Entropy, keys: &[RingKey]) -> u32 {
    loop {
        let mut id = [0_u8; ID_LEN];
        entropy.fill(&mut id);
        let id = u32::from_be_bytes(id);
        if id != WRAP_ID && keys.iter().all(|key| key.id != id) {
            return id;
        }
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

fn seal_with(cipher: &LessSafeKey, id: u32, entropy: &dyn Entropy, domain: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0_u8; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
    sealed.extend_from_slice(&id.to_be_bytes());
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
    let nonce = *sealed.get(ID_LEN..)?.first_chunk::<NONCE_LEN>()?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let body = sealed.get_mut(HEADER_LEN..)?;
    let plain = cipher.open_in_place(nonce, Aad::from(domain), body).ok()?.len();
    sealed.copy_within(HEADER_LEN..HEADER_LEN + plain, 0);
    sealed.truncate(plain);
    Some(sealed)
}
