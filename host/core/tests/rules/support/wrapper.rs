//! A seal that keeps its keys in this process: it can be away, turn its key, and lose it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use leasehold_core::seams::seal::{KeyWrapper, SecretKey, WrappedKey, WrapperError};
use zeroize::Zeroizing;

pub struct ScriptedWrapper {
    kind: &'static str,
    /// The keys by their number; the last one wraps.
    keys: Mutex<Vec<u8>>,
    pub is_away: AtomicBool,
    pub asked: AtomicUsize,
}

impl ScriptedWrapper {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, keys: Mutex::new(vec![1]), is_away: AtomicBool::new(false), asked: AtomicUsize::new(0) }
    }

    pub fn rotate(&self) {
        let mut keys = self.keys.lock().unwrap();
        let next = keys.last().unwrap() + 1;
        keys.push(next);
    }

    /// Only the newest key is there from now on.
    pub fn lose_old_keys(&self) {
        let mut keys = self.keys.lock().unwrap();
        let newest = *keys.last().unwrap();
        *keys = vec![newest];
    }

    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn answer(&self) -> Result<(), WrapperError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) { Err(WrapperError::Away("no answer".to_owned())) } else { Ok(()) }
    }
}

fn masked(plain: &[u8], key: u8) -> Vec<u8> {
    plain.iter().map(|byte| byte ^ key.wrapping_mul(0x35)).collect()
}

#[async_trait]
impl KeyWrapper for ScriptedWrapper {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn wrap(&self, plain: &SecretKey) -> Result<WrappedKey, WrapperError> {
        self.answer()?;
        let key = *self.keys.lock().unwrap().last().unwrap();
        Ok(WrappedKey { key_id: format!("key {key}"), bytes: masked(&*plain.0, key) })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<SecretKey, WrapperError> {
        self.answer()?;
        let key = self.keys.lock().unwrap().iter().copied().find(|key| format!("key {key}") == wrapped.key_id);
        let key = key.ok_or_else(|| WrapperError::Refused(format!("`{}` is gone", wrapped.key_id)))?;
        let plain = masked(&wrapped.bytes, key).try_into().map_err(|_| WrapperError::Refused("short".to_owned()))?;
        Ok(SecretKey(Zeroizing::new(plain)))
    }

    fn may_be_outdated(&self, wrapped: &WrappedKey) -> bool {
        wrapped.key_id != format!("key {}", self.keys.lock().unwrap().last().unwrap())
    }
}
