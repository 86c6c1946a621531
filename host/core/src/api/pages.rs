//! The part of a list that a policy lets a client see at once.

use crate::request::LogicalResponse;

/// Keeps a policy's `pagination_limit` also where a list has no pages. Then it has to begin after the last key seen, or
/// what lies behind the first page could not be reached.
pub(super) fn cut_out(answer: &mut LogicalResponse, after: &str, limit: usize) {
    let Some(data) = &mut answer.data else { return };
    let Some(serde_json::Value::Array(keys)) = data.get_mut("keys") else { return };
    match keys.iter().position(|key| key == after) {
        Some(last) => drop(keys.drain(..=last)),
        None => keys.retain(|key| key.as_str().is_none_or(|key| key > after)),
    }
    keys.truncate(limit);
    let kept = keys.clone();
    for other in ["policies", "key_info"] {
        match data.get_mut(other) {
            Some(serde_json::Value::Array(keys)) => keys.clone_from(&kept),
            Some(serde_json::Value::Object(info)) => {
                info.retain(|name, _| kept.iter().any(|key| key.as_str() == Some(name)));
            }
            _ => {}
        }
    }
}
