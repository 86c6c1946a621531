//! Names and secrets made from [`Entropy`].

use crate::seams::host::Entropy;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `len` characters of `[0-9A-Za-z]`, each equally likely: 5.95 bits a character.
#[must_use]
pub fn base62(entropy: &dyn Entropy, len: usize) -> String {
    let mut text = String::with_capacity(len);
    let mut bytes = [0_u8; 64];
    while text.len() < len {
        entropy.fill(&mut bytes);
        // 248 = 4 × 62: larger bytes would favour the first characters.
        for byte in bytes.iter().filter(|byte| **byte < 248) {
            if text.len() < len
                && let Some(c) = BASE62.get(usize::from(byte % 62))
            {
                text.push(char::from(*c));
            }
        }
    }
    text
}

/// A random (version 4) UUID.
#[must_use]
pub fn uuid(entropy: &dyn Entropy) -> String {
    let mut bytes = [0_u8; 16];
    entropy.fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `count` random hex digits.
#[must_use]
pub fn hex_digits(entropy: &dyn Entropy, count: usize) -> String {
    let mut bytes = vec![0_u8; count.div_ceil(2)];
    entropy.fill(&mut bytes);
    let mut text = hex::encode(bytes);
    text.truncate(count);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte again and again.
    struct Constant(u8);

    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn a_uuid_says_its_version_and_variant_whatever_the_bytes_are() {
        assert_eq!(uuid(&Constant(0x00)), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(&Constant(0xff)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn there_are_as_many_digits_as_asked_for() {
        for count in [0, 1, 2, 7, 8] {
            assert_eq!(hex_digits(&Constant(0xab), count), "abababab"[..count]);
        }
    }
}
