//! HMACs in place of secrets: equal values give equal hashes, so that an auditor can search for what he knows.

use aws_lc_rs::hmac;
use serde_json::Value;

use crate::request::Object;
use crate::seams::seal::SecretKey;

/// One device's own salt.
pub struct Salt(hmac::Key);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt([REDACTED])")
    }
}

impl Salt {
    /// Derived from the installation's audit key and the device's path.
    #[must_use]
    pub fn new(key: &SecretKey, device: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key.0.as_slice());
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, device.as_bytes()).as_ref()))
    }

    #[must_use]
    pub fn text(&self, text: &str) -> String {
        format!("hmac-sha256:{}", hex::encode(hmac::sign(&self.0, text.as_bytes())))
    }

    /// Every string leaf; keys, numbers and booleans stay. `clear` names top-level keys that the mount exempts.
    #[must_use]
    pub fn object(&self, object: &Object, clear: &[String]) -> Value {
        let hashed = object.iter().map(|(key, value)| {
            let value = if clear.contains(key) { value.clone() } else { self.value(value, 0) };
            (key.clone(), value)
        });
        Value::Object(hashed.collect())
    }

    fn value(&self, value: &Value, depth: usize) -> Value {
        // Deeper than any body that the door lets in.
        if depth > 128 {
            return Value::Null;
        }
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.value(item, depth + 1)).collect()),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), self.value(v, depth + 1))).collect())
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn salt(device: &str) -> Salt {
        Salt::new(&SecretKey(zeroize::Zeroizing::new([7; 32])), device)
    }

    #[test]
    fn no_string_of_a_body_stays_readable() {
        let body = json!({"password": "canary", "list": ["canary", {"deep": "canary"}], "n": 5, "clear": "seen"});
        let hashed = salt("file/").object(body.as_object().unwrap(), &["clear".to_owned()]).to_string();
        assert!(!hashed.contains("canary"), "{hashed}");
        assert!(hashed.contains("\"seen\"") && hashed.contains("\"n\":5"));
    }

    #[test]
    fn each_device_has_its_own_salt() {
        assert_eq!(salt("a/").text("x"), salt("a/").text("x"));
        assert_ne!(salt("a/").text("x"), salt("b/").text("x"));
    }
}
