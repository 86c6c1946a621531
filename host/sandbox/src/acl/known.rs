//! Policy sets as they were handed in, by the hash of their texts and identity values; and how many of them are kept.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use leasehold_core::seams::sandbox::{IdentityValues, PolicySetId, PolicySource};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::config::GuestLimits;

/// A set as it was handed in, and which values it cares for.
pub(super) struct KnownSet {
    pub(super) sources: Vec<PolicySource>,
    pub(super) identity: IdentityValues,
    /// Of the set as first compiled; rules that expire can only make it smaller.
    pub(super) watched: Vec<String>,
    /// What its templates ask for.
    pub(super) template_names: Vec<String>,
    /// One question alone took more than [`BRIEF`](super::BRIEF).
    pub(super) is_slow: AtomicBool,
    /// Its texts are so long that compiling them takes a good part of a second.
    pub(super) is_wide: bool,
    /// Its share of the places.
    pub(super) share: Arc<Semaphore>,
}

impl KnownSet {
    pub(super) fn new(sources: &[PolicySource], identity: &IdentityValues, limits: &GuestLimits) -> Self {
        let (sources, identity) = (sources.to_vec(), identity.clone());
        let share = Arc::new(Semaphore::new((limits.compiles_at_once as usize / 2).max(1)));
        let is_wide = is_wide(&sources, limits);
        let (watched, template_names) = (Vec::new(), Vec::new());
        Self { sources, identity, watched, template_names, is_slow: AtomicBool::new(false), is_wide, share }
    }
}

/// What a known set costs: the bytes of its texts, and never so few that more sets than may be would fit.
#[derive(Clone)]
pub(super) struct ByLength {
    least: u64,
}

impl Weighter<PolicySetId, Arc<KnownSet>> for ByLength {
    fn weight(&self, _: &PolicySetId, known: &Arc<KnownSet>) -> u64 {
        let texts = known.sources.iter().map(|source| source.name.len() + source.text.len());
        (texts.sum::<usize>() as u64).max(self.least)
    }
}

pub(super) fn known(limits: &GuestLimits) -> Cache<PolicySetId, Arc<KnownSet>, ByLength> {
    let (sets, bytes) = (limits.known_sets.max(2), limits.known_bytes.max(2) as u64);
    let least = (bytes / sets as u64).max(1);
    // Fewer items than make a second shard: so the longest set that a token may have fits beside others.
    Cache::with_weighter(sets.min(32), bytes, ByLength { least })
}

pub(super) fn is_wide(sources: &[PolicySource], limits: &GuestLimits) -> bool {
    sources.iter().map(|source| source.text.len()).fold(0, usize::saturating_add) > limits.wide_set
}

/// Each part with its length in front, so that no two sets have one text.
pub(super) fn content_id(sources: &[PolicySource], identity: &IdentityValues) -> PolicySetId {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&(sources.len() as u64).to_le_bytes());
    for source in sources {
        part(source.name.as_bytes());
        part(source.text.as_bytes());
        part(&[u8::from(source.allow_slashes), u8::from(source.allow_wildcards)]);
    }
    for (name, value) in identity {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    PolicySetId(hex::encode(hash.finalize()).into())
}
