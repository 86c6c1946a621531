//! How values are written for the store: as JSON.

use crate::seams::storage::StorageError;

/// JSON for storage.
pub(crate) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StorageError> {
    serde_json::to_vec(value).map_err(|_| StorageError::Corrupt("a value that cannot be written".to_owned()))
}

/// JSON from storage; the error names the key, not the value.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(bytes).map_err(|_| StorageError::Corrupt(key.to_owned()))
}
