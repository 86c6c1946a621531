//! `seal "static"`: a key of 32 bytes that stands in a file, in a variable or in the configuration itself.
//!
//! Keys are read again each time they are needed, so that none is in memory while the server only runs.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::seal::{KeyWrapper, SecretKey, WrappedKey, WrapperError};
use zeroize::Zeroizing;

use crate::Hidden;

const KEY_LEN: usize = 32;
/// The longest file or variable that is read: a key in hex, with more than enough space around it.
const SOURCE_MAX: u64 = 4096;
const DOMAIN: &str = "leasehold static seal 1\0";

/// A key and what it is called. The name stays the same for as long as the key does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    pub id: String,
    /// `file://…`, `env://…`, or the key itself in hex or base64.
    pub key: Hidden,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticSettings {
    pub current: NamedKey,
    /// Unwraps what it wrapped when it was the current one.
    pub previous: Option<NamedKey>,
}

/// See the [module](self).
pub struct StaticSeal {
    settings: StaticSettings,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for StaticSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticSeal").field("current", &self.settings.current.id).finish_non_exhaustive()
    }
}

impl StaticSeal {
    /// # Errors
    /// In words for the operator: a key that cannot be read, or is none.
    pub fn new(settings: StaticSettings, entropy: Arc<dyn Entropy>) -> Result<Self, String> {
        let StaticSettings { current, previous } = &settings;
        if previous.as_ref().is_some_and(|previous| previous.id == current.id) {
            return Err("`previous_key_id` and `current_key_id` must be different names".to_owned());
        }
        for (name, key) in
            std::iter::once(("current_key", current)).chain(previous.iter().map(|key| ("previous_key", key)))
        {
            read(&key.key).map_err(|why| format!("`{name}`: {why}"))?;
            if let Some(path) = key.key.expose().strip_prefix("file://").filter(|path| may_be_read_by_all(path)) {
                tracing::warn!(
                    seal = "static",
                    "everybody on this machine can read {path}: whoever has it opens a copy of the storage"
                );
            }
        }
        Ok(Self { settings, entropy })
    }

    /// The key of this name, ready for use.
    async fn cipher(&self, key: &NamedKey) -> Result<LessSafeKey, WrapperError> {
        let source = key.key.clone();
        let read = tokio::task::spawn_blocking(move || read(&source)).await;
        let key_bytes = read
            .map_err(|_| WrapperError::Away("reading the key ended early".to_owned()))?
            .map_err(|why| WrapperError::Away(format!("the key `{}` could not be read: {why}", key.id)))?;
        let unbound = UnboundKey::new(&AES_256_GCM, &*key_bytes);
        unbound.map(LessSafeKey::new).map_err(|_| WrapperError::Refused("the key has a wrong length".to_owned()))
    }
}

/// Bound to the key's name: a key that was changed under its name is told from damage by what the error says.
fn domain(id: &str) -> Vec<u8> {
    [DOMAIN, id].concat().into_bytes()
}

#[async_trait]
impl KeyWrapper for StaticSeal {
    fn kind(&self) -> &'static str {
        "static"
    }

    async fn wrap(&self, plain: &SecretKey) -> Result<WrappedKey, WrapperError> {
        let current = &self.settings.current;
        let cipher = self.cipher(current).await?;
        let mut nonce = [0_u8; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut sealed = Zeroizing::new(plain.0.to_vec());
        let failed = |_| WrapperError::Refused("the stored key could not be wrapped".to_owned());
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(domain(&current.id)),
                &mut sealed,
            )
            .map_err(failed)?;
        Ok(WrappedKey { key_id: current.id.clone(), bytes: [&nonce[..], &sealed, tag.as_ref()].concat() })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<SecretKey, WrapperError> {
        let StaticSettings { current, previous } = &self.settings;
        let id = &wrapped.key_id;
        let key = std::iter::once(current).chain(previous).find(|key| key.id == *id).ok_or_else(|| {
            WrapperError::Refused(format!(
                "unknown key id for data: `{id}`: what is stored was wrapped with the key of that name. Put it into the configuration, as \
                 `previous_key` with `previous_key_id = \"{id}\"` if it is not the current one any more"
            ))
        })?;
        let cipher = self.cipher(key).await?;
        let wrong = || {
            WrapperError::Refused(format!(
                "the key `{id}` is not the one that wrapped what is stored, though it has the same name: put the right key there"
            ))
        };
        let (nonce, sealed) = wrapped.bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let plain = cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(domain(id)), &mut sealed)
            .map_err(|_| wrong())?;
        let plain: [u8; KEY_LEN] = (&*plain).try_into().map_err(|_| wrong())?;
        Ok(SecretKey(Zeroizing::new(plain)))
    }

    fn may_be_outdated(&self, wrapped: &WrappedKey) -> bool {
        wrapped.key_id != self.settings.current.id
    }
}

/// The key, from where it is.
fn read(source: &Hidden) -> Result<Zeroizing<[u8; KEY_LEN]>, String> {
    let text = source.expose();
    if let Some(path) = text.strip_prefix("file://") {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SOURCE_MAX as usize));
        let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
        file.take(SOURCE_MAX).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
        return decoded(&bytes).map_err(|why| format!("{path}: {why}"));
    }
    if let Some(name) = text.strip_prefix("env://") {
        let value = std::env::var(name).map(Zeroizing::new);
        let value = value.map_err(|_| format!("the environment has no variable `{name}`"))?;
        return decoded(value.as_bytes()).map_err(|why| format!("the environment's `{name}`: {why}"));
    }
    decoded(text.as_bytes()).map_err(str::to_owned)
}

fn may_be_read_by_all(path: &str) -> bool {
    const OTHERS_READ: u32 = 0o004;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS_READ != 0)
}

/// 32 bytes as they are, or in hex or base64 with whitespace around them.
fn decoded(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, &'static str> {
    // OpenBao's words, and ours.
    const WRONG: &str =
        "unknown encoding for AES-256 key: must be either a raw, hex, or base64-encoded key of exactly 32 bytes";
    if let Ok(raw) = bytes.try_into() {
        return Ok(Zeroizing::new(raw));
    }
    let text = bytes.trim_ascii();
    let plain = hex::decode(text)
        .ok()
        .or_else(|| STANDARD.decode(text).ok())
        .or_else(|| STANDARD_NO_PAD.decode(text).ok())
        .map(Zeroizing::new);
    plain.and_then(|plain| plain.as_slice().try_into().ok()).map(Zeroizing::new).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use leasehold_core::testing::CountingEntropy;

    use super::*;

    fn named(id: &str, key: &str) -> NamedKey {
        NamedKey { id: id.to_owned(), key: Hidden::new(key.to_owned()) }
    }

    fn seal(current: NamedKey, previous: Option<NamedKey>) -> Result<StaticSeal, String> {
        StaticSeal::new(StaticSettings { current, previous }, Arc::new(CountingEntropy::default()))
    }

    #[test]
    fn a_key_is_read_in_every_form_that_openbao_reads() {
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for content in [
            key.to_vec(),
            hex::encode(key).into_bytes(),
            format!("{}\n", hex::encode(key)).into_bytes(),
            format!(" {} \n", STANDARD.encode(key)).into_bytes(),
            STANDARD_NO_PAD.encode(key).into_bytes(),
        ] {
            fs::write(&path, &content).unwrap();
            let found = read(&Hidden::new(format!("file://{}", path.display())));
            assert_eq!(*found.unwrap(), key, "{content:?}");
        }
        assert_eq!(*read(&Hidden::new(hex::encode(key))).unwrap(), key);
        for (source, why) in [
            ("aa".to_owned(), "unknown encoding"),
            (STANDARD.encode([1; 31]), "unknown encoding"),
            (hex::encode([1; 33]), "unknown encoding"),
            (String::new(), "unknown encoding"),
            ("env://LEASEHOLD_NO_SUCH_VARIABLE".to_owned(), "no variable `LEASEHOLD_NO_SUCH_VARIABLE`"),
            (format!("file://{}/none", folder.path().display()), "No such file"),
        ] {
            let said = read(&Hidden::new(source.clone())).unwrap_err();
            assert!(said.contains(why), "{source}: {said}");
        }
    }

    #[tokio::test]
    async fn the_previous_key_opens_and_the_current_one_wraps() {
        let (first, second) = (hex::encode([1; 32]), hex::encode([2; 32]));
        let plain = SecretKey(Zeroizing::new([9; 32]));
        let old = seal(named("a", &first), None).unwrap();
        let wrapped = old.wrap(&plain).await.unwrap();
        assert!(!old.may_be_outdated(&wrapped));

        let both = seal(named("b", &second), Some(named("a", &first))).unwrap();
        assert_eq!(*both.unwrap(&wrapped).await.unwrap().0, [9; 32]);
        assert!(both.may_be_outdated(&wrapped));
        let renewed = both.wrap(&plain).await.unwrap();
        assert_eq!(renewed.key_id, "b");

        let new = seal(named("b", &second), None).unwrap();
        assert_eq!(*new.unwrap(&renewed).await.unwrap().0, [9; 32]);
        let Err(WrapperError::Refused(why)) = new.unwrap(&wrapped).await else { panic!("opened without its key") };
        assert!(why.contains("`a`") && why.contains("previous_key_id"), "{why}");
    }

    #[tokio::test]
    async fn what_was_changed_does_not_open() {
        let key = hex::encode([1; 32]);
        let seal_a = seal(named("a", &key), None).unwrap();
        let wrapped = seal_a.wrap(&SecretKey(Zeroizing::new([9; 32]))).await.unwrap();
        for at in 0..wrapped.bytes.len() {
            let mut bytes = wrapped.bytes.clone();
            bytes[at] ^= 1;
            assert!(seal_a.unwrap(&WrappedKey { bytes, ..wrapped.clone() }).await.is_err(), "byte {at}");
            let cut = WrappedKey { bytes: wrapped.bytes[..at].to_vec(), ..wrapped.clone() };
            assert!(seal_a.unwrap(&cut).await.is_err(), "cut at {at}");
        }
        // Another name is another key, and another key under the same name is said to be one.
        let renamed = seal(named("b", &key), None).unwrap();
        let of_other = WrappedKey { key_id: "b".to_owned(), ..wrapped.clone() };
        assert!(renamed.unwrap(&of_other).await.is_err());
        let other = seal(named("a", &hex::encode([2; 32])), None).unwrap();
        assert!(other.unwrap(&wrapped).await.unwrap_err().to_string().contains("is not the one that wrapped"));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_without_showing_a_key() {
        let key = hex::encode([7; 32]);
        assert!(seal(named("a", &key), Some(named("a", &key))).unwrap_err().contains("different names"));
        let why = seal(named("a", &key), Some(named("b", "c0ffee"))).unwrap_err();
        assert!(why.starts_with("`previous_key`") && !why.contains("c0ffee"), "{why}");
        let settings = StaticSettings { current: named("a", &key), previous: None };
        assert!(!format!("{settings:?}").contains(&key));
    }
}
