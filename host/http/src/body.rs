//! Bodies: read up to a limit, then decoded by what they say they are.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use leasehold_core::request::Object;

use crate::error::FrontendError;
use crate::limits::{Budget, Exhausted, RequestLimits, Share};
use crate::{json, query};

/// What a write carries.
#[derive(Debug)]
pub(crate) enum Carried {
    /// `None`: nothing, or a literal `null`.
    Data(Option<Object>),
    /// An uploaded component.
    Raw(Bytes),
}

impl From<Exhausted> for FrontendError {
    fn from(_: Exhausted) -> Self {
        Self::Busy
    }
}

/// Reads all of a body, or refuses it as soon as it is too large.
pub(crate) async fn read(
    mut body: Body,
    limits: &RequestLimits,
    budget: &Budget,
    share: &mut Share,
) -> Result<Bytes, FrontendError> {
    if body.size_hint().lower() > limits.body_max as u64 {
        return Err(FrontendError::BodyTooLarge);
    }
    let mut whole = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(FrontendError::Body) };
        let Ok(chunk) = frame.into_data() else { continue };
        if whole.len() + rest.len() + chunk.len() > limits.body_max {
            return Err(FrontendError::BodyTooLarge);
        }
        budget.cover(share, whole.len() + rest.len() + chunk.len())?;
        if whole.is_empty() {
            // Most bodies come in one piece, and are never copied.
            whole = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() {
        return Ok(whole);
    }
    let mut joined = Vec::with_capacity(whole.len() + rest.len());
    joined.extend_from_slice(&whole);
    joined.append(&mut rest);
    Ok(Bytes::from(joined))
}

/// JSON whatever the content type says, but for forms and components.
pub(crate) fn decode(
    body: Bytes,
    headers: &HeaderMap,
    limits: &RequestLimits,
    budget: &Budget,
    share: &mut Share,
) -> Result<Carried, FrontendError> {
    let kind = media_type(headers);
    if kind.eq_ignore_ascii_case("application/wasm") {
        return Ok(Carried::Raw(body));
    }
    let first = body.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") && !matches!(first, None | Some(b'{' | b'[')) {
        return Ok(Carried::Data(Some(query::form(&body, limits.parameters_max)?)));
    }
    let scanned = json::scan(&body, limits)?;
    budget.cover(share, body.len() + scanned.memory)?;
    Ok(Carried::Data(scanned.decode()?))
}

/// Without parameters; empty when there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let whole = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::{Value, json};

    fn decoded(kind: &'static str, body: &'static str) -> Result<Option<Value>, String> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let limits = RequestLimits::default();
        let carried =
            decode(Bytes::from_static(body.as_bytes()), &headers, &limits, &Budget::new(1024), &mut Share::default());
        match carried.map_err(|error| error.to_string())? {
            Carried::Data(data) => Ok(data.map(Value::Object)),
            Carried::Raw(raw) => Ok(Some(json!({ "raw": raw.len() }))),
        }
    }

    /// contract.md §1.4.
    #[test]
    fn a_body_is_json_unless_it_is_clearly_something_else() {
        const FORM: &str = "application/x-www-form-urlencoded";
        for (kind, body, data) in [
            ("", "", None),
            ("", "null", None),
            ("application/json", "{\"a\":1}", Some(json!({"a": 1}))),
            ("text/weird", "{\"a\":1}", Some(json!({"a": 1}))),
            // What curl's --data says of every body.
            (FORM, " {\"a\":1}", Some(json!({"a": 1}))),
            (FORM, "", None),
            (FORM, "a=1&b=x%20y", Some(json!({"a": "1", "b": "x y"}))),
            ("application/x-www-form-urlencoded; charset=utf-8", "a=1", Some(json!({"a": "1"}))),
            ("application/wasm", "\0asm", Some(json!({"raw": 4}))),
        ] {
            assert_eq!(decoded(kind, body), Ok(data), "{kind} {body}");
        }
        assert_eq!(decoded(FORM, "a=%zz"), Err("error parsing form data".to_owned()));
        assert_eq!(
            decoded("", "a=1"),
            Err("failed to decode JSON input: invalid character 'a' looking for beginning of value".to_owned())
        );
    }

    #[tokio::test]
    async fn a_body_is_refused_as_soon_as_it_is_too_large() {
        let limits = RequestLimits { body_max: 100, ..RequestLimits::default() };
        let budget = Budget::new(1024);
        let read = async |body: Body| super::read(body, &limits, &budget, &mut Share::default()).await;
        assert_eq!(read(Body::from("x".repeat(100))).await.unwrap().len(), 100);
        assert!(matches!(read(Body::from("x".repeat(101))).await, Err(FrontendError::BodyTooLarge)));
    }
}
