//! The pages of lists: what a client asks for, and the part that a policy lets it see at once.

use crate::api::call::Call;
use crate::fields::{Field, Kind};
use crate::request::LogicalResponse;

/// More names make no answer that anybody reads.
pub(super) const NAMES_MAX: usize = 100_000;

/// What a list with pages takes.
pub(super) const PAGE: &[Field] = &[
    Field::visible("after", Kind::Text, "Begin after this name, which need not be there."),
    Field::visible("limit", Kind::Int, "How many names at most; 0 for all."),
];

/// A page that a request asks for.
pub(super) struct Wanted<'a> {
    pub after: &'a str,
    /// How many names to read.
    pub most: usize,
    /// The client has said how many it wants, and knows that there may be more.
    pub is_page: bool,
}

impl<'a> Wanted<'a> {
    /// `most`: how many names an answer may have.
    pub fn of(call: &'a Call<'_>, most: usize) -> Self {
        let limit = call.fields.int("limit").and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.filter(|limit| *limit > 0 && *limit <= most);
        let after = call.fields.text("after").unwrap_or_default();
        Self { after, most: limit.unwrap_or(most), is_page: limit.is_some() }
    }

    /// Says below a list that it may not be whole.
    pub fn told(&self, names: usize, answer: LogicalResponse, listed: &str) -> LogicalResponse {
        if self.is_page || names < self.most {
            return answer;
        }
        answer.warn(format!("only {} {listed} are listed: ask for pages with `after` and `limit`", self.most))
    }
}

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
