//! HMACs in place of secrets: equal values give equal hashes, so that auditors can search for what they know.

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

    /// Every string leaf; short keys, numbers and booleans stay. `clear` names top-level keys that the mount exempts.
    #[must_use]
    pub fn object(&self, object: &Object, clear: &[String]) -> Shown {
        Copying { salt: Some(self), left: SHOWN_MAX }.object(object, clear)
    }
}

/// What a record shows of one body: about so many bytes of JSON, and what is beyond them is left out. A hash is longer than most
/// of what it stands for, so a body could otherwise be multiplied on the disk.
const SHOWN_MAX: usize = 256 << 10;
/// A longer key is hashed: it is no name of a field, and it may be anything.
const KEY_MAX: usize = 128;
/// Deeper than any body that is let in.
const DEPTH_MAX: usize = 128;
/// About what a hash takes in JSON, with its quotes and comma.
const HASH_LEN: usize = 80;

/// A body as a record shows it.
#[derive(Debug)]
pub struct Shown {
    pub value: Value,
    /// Something was left out.
    pub is_cut: bool,
}

/// Copies a body as it stands, for devices that show secrets.
#[must_use]
pub fn raw(object: &Object) -> Shown {
    Copying { salt: None, left: SHOWN_MAX }.object(object, &[])
}

struct Copying<'a> {
    /// `None`: nothing is hashed.
    salt: Option<&'a Salt>,
    left: usize,
}

impl Copying<'_> {
    fn object(mut self, object: &Object, clear: &[String]) -> Shown {
        let mut shown = Object::new();
        let mut is_cut = false;
        for (key, value) in object {
            let value = if clear.contains(key) {
                Copying { salt: None, left: self.left }.value(value, 0).inspect(|value| self.take(length(value)))
            } else {
                self.value(value, 0)
            };
            let Some(value) = value else {
                is_cut = true;
                break;
            };
            shown.insert(self.key(key), value);
        }
        Shown { value: Value::Object(shown), is_cut }
    }

    fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    fn key(&mut self, key: &str) -> String {
        let key = match self.salt {
            Some(salt) if key.len() > KEY_MAX => salt.text(key),
            _ => key.to_owned(),
        };
        self.take(key.len() + 4);
        key
    }

    /// `None`: there is no room left.
    fn value(&mut self, value: &Value, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX || self.left == 0 {
            return None;
        }
        match value {
            Value::String(text) => match self.salt {
                Some(salt) => {
                    self.take(HASH_LEN);
                    Some(Value::String(salt.text(text)))
                }
                None if text.len() > self.left => None,
                None => {
                    self.take(text.len() + 3);
                    Some(Value::String(text.clone()))
                }
            },
            Value::Array(items) => {
                self.take(3);
                items.iter().map(|item| self.value(item, depth + 1)).collect::<Option<Vec<Value>>>().map(Value::Array)
            }
            Value::Object(map) => {
                self.take(3);
                let mut copied = Object::new();
                for (key, item) in map {
                    let item = self.value(item, depth + 1)?;
                    copied.insert(self.key(key), item);
                }
                Some(Value::Object(copied))
            }
            other => {
                self.take(24);
                Some(other.clone())
            }
        }
    }
}

/// About how long a copied value is.
fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(length).sum::<usize>() + 3,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 4 + length(value)).sum::<usize>() + 3,
        _ => 24,
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
        let hashed = salt("file/").object(body.as_object().unwrap(), &["clear".to_owned()]).value.to_string();
        assert!(!hashed.contains("canary"), "{hashed}");
        assert!(hashed.contains("\"seen\"") && hashed.contains("\"n\":5"));
    }

    #[test]
    fn a_body_takes_a_bounded_part_of_a_record_whatever_is_in_it() {
        let long = "k".repeat(1 << 20);
        let many: Vec<Value> = (0..200_000).map(|_| json!("x")).collect();
        let keys: Object = (0..100_000).map(|n| (format!("{n}{}", "k".repeat(200)), json!(n))).collect();
        for (body, is_cut) in [
            (json!({ "a": long.clone() }), false),
            (json!({ long.clone(): "a", "b": { long.clone(): 1 } }), false),
            (json!({ "a": 1, "b": many.clone() }), true),
            (json!({ "a": { "b": many.clone() } }), true),
            (Value::Object(keys), true),
        ] {
            let body = body.as_object().unwrap();
            let shown = salt("file/").object(body, &[]);
            let text = shown.value.to_string();
            assert!(text.len() < SHOWN_MAX + 1_024, "{} bytes", text.len());
            assert_eq!(shown.is_cut, is_cut);
            assert!(!text.contains(&"k".repeat(KEY_MAX + 1)), "a long key is hashed");
        }
        for body in [json!({ "a": long }), json!({ "b": many })] {
            let shown = raw(body.as_object().unwrap());
            assert!(shown.is_cut && shown.value.to_string().len() < SHOWN_MAX + 1_024);
            let shown = salt("file/").object(body.as_object().unwrap(), &["a".to_owned(), "b".to_owned()]);
            assert!(shown.is_cut && shown.value.to_string().len() < SHOWN_MAX + 1_024);
        }
    }

    #[test]
    fn each_device_has_its_own_salt() {
        assert_eq!(salt("a/").text("x"), salt("a/").text("x"));
        assert_ne!(salt("a/").text("x"), salt("b/").text("x"));
    }

    #[test]
    fn a_copied_value_is_as_long_as_what_is_in_it() {
        assert_eq!(length(&json!("abc")), 6);
        assert_eq!(length(&json!(["abc", 1])), 6 + 24 + 3);
        assert_eq!(length(&json!({ "key": ["abc"] })), 3 + 4 + (6 + 3) + 3);
    }

    #[test]
    fn a_salt_shows_that_there_is_something_and_not_what() {
        assert_eq!(format!("{:?}", salt("file/")), "Salt([REDACTED])");
    }
}
