//! Passwords: hashed with argon2id, checked against that or against a bcrypt hash that an operator brought along.
//!
//! Hashing takes tens of milliseconds and 19 MiB each, and anybody may ask for it. So it runs on threads of its own kind, a few at a
//! time, and those who wait are bounded too: a flood of logins is refused with 503, and everything else goes on.

use std::fmt;
use std::sync::Arc;

use argon2::{Config, ThreadMode, Variant, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::Entropy;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The parameters that OWASP's password storage cheat sheet names first: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_LEN: usize = 16;
const HASH_LEN: u32 = 32;

/// Logins that may wait for a place: at some 25 ms each, the last one waits less than a second.
const WAITING_MAX: usize = 32;
/// Memory for more hashes at once would be 150 MiB and more.
const PLACES_MAX: usize = 8;

/// The costs of bcrypt that are taken, as in OpenBao: weaker ones protect nothing, and stronger ones would block a place for seconds.
const BCRYPT_COST_MIN: u32 = 5;
const BCRYPT_COST_MAX: u32 = 12;

/// What is stored of a password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(super) enum PasswordHash {
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        /// Base64.
        salt: String,
        /// Base64.
        hash: String,
    },
    /// As an operator brought it along.
    Bcrypt { hash: String },
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash([REDACTED])")
    }
}

impl PasswordHash {
    /// Takes a bcrypt hash over.
    ///
    /// # Errors
    /// It is none, or its cost is out of bounds, in OpenBao's words.
    pub(super) fn from_bcrypt(text: &str) -> Result<Self, RequestError> {
        let invalid = || RequestError::invalid("password_hash is not a valid bcrypt hash");
        let is_plain = text.len() == 60 && text.is_ascii();
        let parts: bcrypt::HashParts = text.parse().ok().filter(|_| is_plain).ok_or_else(invalid)?;
        let cost = parts.get_cost();
        if cost < BCRYPT_COST_MIN {
            return Err(RequestError::Invalid(format!(
                "bcrypt cost of {cost} is too low, want {BCRYPT_COST_MIN} at minimum"
            )));
        }
        if cost > BCRYPT_COST_MAX {
            return Err(RequestError::Invalid(format!(
                "bcrypt cost of {cost} exceeds maximum cost of {BCRYPT_COST_MAX}"
            )));
        }
        // The salt and the hash must be readable: otherwise nobody could ever log in.
        match bcrypt::verify("", text) {
            Ok(_) => Ok(Self::Bcrypt { hash: text.to_owned() }),
            Err(_) => Err(invalid()),
        }
    }

    /// Stands for the hash of a user that does not exist: to check it takes as long as to check one that does.
    fn of_nobody() -> Self {
        Self::Argon2id {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: STANDARD_NO_PAD.encode([0; SALT_LEN]),
            hash: STANDARD_NO_PAD.encode([0; HASH_LEN as usize]),
        }
    }

    fn new(password: &SecretString, salt: &[u8]) -> Result<Self, RequestError> {
        let hash = argon2id(password, salt, (MEMORY_KIB, PASSES, LANES))?;
        Ok(Self::Argon2id {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: STANDARD_NO_PAD.encode(salt),
            hash: STANDARD_NO_PAD.encode(hash.as_slice()),
        })
    }

    fn fits(&self, password: &SecretString) -> Result<bool, RequestError> {
        let damaged = || RequestError::Internal("a stored password hash is not readable".to_owned());
        match self {
            Self::Argon2id { memory_kib, passes, lanes, salt, hash } => {
                let salt = STANDARD_NO_PAD.decode(salt).map_err(|_| damaged())?;
                let wanted = STANDARD_NO_PAD.decode(hash).map_err(|_| damaged())?;
                let found = argon2id(password, &salt, (*memory_kib, *passes, *lanes))?;
                Ok(verify_slices_are_equal(&found, &wanted).is_ok())
            }
            Self::Bcrypt { hash } => bcrypt::verify(password.expose_secret(), hash).map_err(|_| damaged()),
        }
    }
}

fn argon2id(
    password: &SecretString,
    salt: &[u8],
    (memory_kib, passes, lanes): (u32, u32, u32),
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let config = Config {
        ad: &[],
        hash_length: HASH_LEN,
        lanes,
        mem_cost: memory_kib,
        secret: &[],
        thread_mode: ThreadMode::Sequential,
        time_cost: passes,
        variant: Variant::Argon2id,
        version: Version::Version13,
    };
    argon2::hash_raw(password.expose_secret().as_bytes(), salt, &config)
        .map(Zeroizing::new)
        .map_err(|error| RequestError::Internal(format!("argon2id: {error}")))
}

/// Where hashing is done, for all mounts together.
#[derive(Debug)]
pub(super) struct Hashing {
    places: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Hashing {
    pub(super) fn new() -> Self {
        // Half of the processors, so that the other half serves everything else.
        let places = std::thread::available_parallelism().map_or(1, |count| count.get() / 2).clamp(1, PLACES_MAX);
        Self { places: Arc::new(Semaphore::new(places)), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// Hashes a new password. An operator asks for it: it waits for a place as long as it takes.
    pub(super) async fn hash(
        &self,
        password: SecretString,
        entropy: &dyn Entropy,
    ) -> Result<PasswordHash, RequestError> {
        let mut salt = [0; SALT_LEN];
        entropy.fill(&mut salt);
        self.run(move || PasswordHash::new(&password, &salt)).await
    }

    /// Whether a password fits. Without a user the answer is no, and takes as long.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`] when too many others wait already.
    pub(super) async fn check(&self, password: SecretString, hash: Option<PasswordHash>) -> Result<bool, RequestError> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(RequestError::Unavailable("too many logins at the same time, try again".to_owned()));
        };
        let is_user = hash.is_some();
        let hash = hash.unwrap_or_else(PasswordHash::of_nobody);
        Ok(self.run(move || hash.fits(&password)).await? && is_user)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RequestError> + Send + 'static,
    ) -> Result<T, RequestError> {
        let closed = || RequestError::Internal("hashing ended early".to_owned());
        let place = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let work = tokio::task::spawn_blocking(move || {
            // Kept until the work has ended, also when nobody waits for it any more.
            let _place = place;
            work()
        });
        work.await.map_err(|_| closed())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_password_fits_its_hash_and_no_other_does() {
        let hash = PasswordHash::new(&secret("correct horse"), &[7; SALT_LEN]).unwrap();
        assert!(hash.fits(&secret("correct horse")).unwrap());
        for other in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!hash.fits(&secret(other)).unwrap(), "{other:?}");
        }
        let stored = serde_json::to_string(&hash).unwrap();
        assert!(!stored.contains("correct"), "{stored}");
        let read: PasswordHash = serde_json::from_str(&stored).unwrap();
        assert!(read.fits(&secret("correct horse")).unwrap());
    }

    #[test]
    fn a_hash_never_shows_in_debug_output() {
        let hash = PasswordHash::from_bcrypt("$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e").unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash([REDACTED])");
    }

    #[test]
    fn a_bcrypt_hash_is_taken_within_its_bounds() {
        // From the test vectors of the algorithm's authors: the password is `U*U`.
        let hash = PasswordHash::from_bcrypt("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW").unwrap();
        assert!(hash.fits(&secret("U*U")).unwrap());
        assert!(!hash.fits(&secret("U*V")).unwrap());
        for (text, why) in [
            ("", "password_hash is not a valid bcrypt hash"),
            ("x", "password_hash is not a valid bcrypt hash"),
            (
                "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe!",
                "password_hash is not a valid bcrypt hash",
            ),
            (
                "$2a$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
                "bcrypt cost of 4 is too low, want 5 at minimum",
            ),
            (
                "$2a$13$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
                "bcrypt cost of 13 exceeds maximum cost of 12",
            ),
        ] {
            assert_eq!(PasswordHash::from_bcrypt(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        let hashing = Hashing::new();
        for password in ["", "anything"] {
            assert!(!hashing.check(secret(password), None).await.unwrap());
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded() {
        let hashing = Hashing { places: Arc::new(Semaphore::new(0)), waiting: Semaphore::new(1) };
        let first = hashing.check(secret("a"), None);
        let second = hashing.check(secret("b"), None);
        tokio::pin!(first);
        assert!(futures_util::FutureExt::now_or_never(first.as_mut()).is_none());
        assert!(matches!(second.await, Err(RequestError::Unavailable(_))));
        hashing.places.add_permits(1);
        assert!(!first.await.unwrap());
        assert!(!hashing.check(secret("c"), None).await.unwrap(), "the place is free again");
    }
}
