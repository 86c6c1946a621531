//! SCRAM-SHA-256 verifiers (RFC 5803), computed here so that the server never sees, and never logs, a plain password.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What PostgreSQL and every client library accept; some refuse less.
pub(crate) const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// The text that PostgreSQL stores instead of the password. About half a millisecond of computing.
///
/// Clients prepare what they send by SASLprep, and so does PostgreSQL what it stores; a password that SASLprep does not take
/// stands as it is on both sides.
pub(crate) fn verifier(password: &SecretString, salt: &[u8; 16], iterations: NonZeroU32) -> SecretString {
    let mut salted = Zeroizing::new([0_u8; 32]);
    let password = password.expose_secret();
    let prepared = Zeroizing::new(stringprep::saslprep(password).unwrap_or(password.into()).into_owned());
    let password = prepared.as_bytes();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, salted.as_mut_slice());
    let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    SecretString::from(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of RFC 7677 §3: user `user`, password `pencil`.
    #[test]
    fn a_verifier_is_the_one_of_rfc_7677() {
        let salt: [u8; 16] = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let text = verifier(&SecretString::from("pencil"), &salt, ITERATIONS);
        assert_eq!(
            text.expose_secret(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
