//! The secrets that a server has handed out, to be looked for where none may be.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Shorter texts are found everywhere by chance.
const SHORTEST: usize = 8;
/// Keys of answers whose values are secret.
const KEYS: [&str; 10] = [
    "client_token",
    "password",
    "keys",
    "keys_base64",
    "root_token",
    "unseal_keys_b64",
    "id",
    "secret_id",
    "otp",
    "encoded_token",
];

/// A set that all clients of one server share.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Mutex<BTreeSet<String>>>);

impl Secrets {
    /// Remembers one secret.
    pub fn tell(&self, secret: &str) {
        if secret.len() >= SHORTEST {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(secret.to_owned());
        }
    }

    /// Remembers every secret of an answer.
    pub fn tell_answer(&self, answer: &Value) {
        match answer {
            Value::Object(object) => {
                for (key, value) in object {
                    let secret =
                        KEYS.contains(&key.as_str()) && !is_public_id(key, object) || is_wrapping_token(key, object);
                    match value {
                        Value::String(text) if secret => self.tell(text),
                        Value::Array(items) if secret && key.starts_with("keys") && is_init(object) => {
                            items.iter().filter_map(Value::as_str).for_each(|text| self.tell(text));
                        }
                        _ => self.tell_answer(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.tell_answer(item)),
            _ => {}
        }
    }

    /// Those of the secrets that occur in `text`.
    pub fn found_in(&self, text: &str) -> Vec<String> {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().filter(|secret| text.contains(secret.as_str())).cloned().collect()
    }

    /// How many are known.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// `id` is a token in a token's lookup, and the lease's public name in a lease's.
fn is_public_id(key: &str, object: &serde_json::Map<String, Value>) -> bool {
    key == "id" && !object.contains_key("accessor")
}

/// The `token` of `wrap_info`.
fn is_wrapping_token(key: &str, object: &serde_json::Map<String, Value>) -> bool {
    key == "token" && object.contains_key("creation_path")
}

/// `keys` are shares in the answers that hand them out, and names in a list.
fn is_init(object: &serde_json::Map<String, Value>) -> bool {
    object.contains_key("keys_base64")
}
