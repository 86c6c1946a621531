//! Bodies: read up to a limit, then decoded by what they say they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use leasehold_core::request::Object;
use leasehold_core::seams::snapshot::Spool;

use crate::error::FrontendError;
use crate::json::JsonError;
use crate::limits::{Budget, Exhausted, RequestLimits, Share};
use crate::listener::Place;
use crate::{json, query};

/// What a write carries.
#[derive(Debug)]
pub(crate) enum Carried {
    /// `None`: nothing, or a literal `null`.
    Data(Option<Object>),
    /// An uploaded component.
    Raw(Bytes),
    /// A file, in a file.
    File(Arc<Spool>),
    /// A file that the client may not send, and that was not read: the core says why they may not.
    Unread,
    /// It is too large for a client that shows no living token, and was not read. The core refuses the request in the words
    /// that fit its path, and records the refusal.
    Withheld,
}

impl From<Exhausted> for FrontendError {
    fn from(_: Exhausted) -> Self {
        Self::Busy
    }
}

/// A body on its way in. What has arrived is kept when [`Reading::up_to`] is dropped halfway.
pub(crate) struct Reading<'a, B> {
    body: B,
    budget: &'a Budget,
    share: &'a mut Share,
    /// Most bodies come in one piece, and are never copied.
    first: Bytes,
    rest: Vec<u8>,
}

impl<'a, B: Body<Data = Bytes> + Unpin> Reading<'a, B> {
    pub(crate) fn new(body: B, budget: &'a Budget, share: &'a mut Share) -> Self {
        Self { body, budget, share, first: Bytes::new(), rest: Vec::new() }
    }

    /// Reads to the end. `None` as soon as it is clear that the body is larger than `max`: the rest can still be read
    /// with a higher one.
    pub(crate) async fn up_to(&mut self, max: usize) -> Result<Option<Bytes>, FrontendError> {
        loop {
            let so_far = self.first.len() + self.rest.len();
            if so_far > max || self.body.size_hint().lower() > max.saturating_sub(so_far) as u64 {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else { return Ok(Some(self.joined())) };
            let Ok(frame) = frame else { return Err(FrontendError::Body) };
            let Ok(chunk) = frame.into_data() else { continue };
            self.budget.cover(self.share, so_far + chunk.len())?;
            if self.first.is_empty() {
                self.first = chunk;
            } else {
                self.rest.extend_from_slice(&chunk);
            }
        }
    }

    /// What has not been read.
    pub(crate) fn into_rest(self) -> B {
        self.body
    }

    fn joined(&mut self) -> Bytes {
        if self.rest.is_empty() {
            return std::mem::take(&mut self.first);
        }
        let mut joined = Vec::with_capacity(self.first.len() + self.rest.len());
        joined.extend_from_slice(&std::mem::take(&mut self.first));
        joined.append(&mut self.rest);
        Bytes::from(joined)
    }
}

/// For how long a client that was refused is listened to.
const LINGER: Duration = Duration::from_secs(2);

/// Throws away what still comes of a body that was refused, for a while. A connection that is closed while bytes arrive is
/// reset, and the client would not see why it was refused. `held` is what the client's address holds meanwhile.
pub(crate) async fn linger<B: Body<Data = Bytes> + Unpin>(mut body: B, mut max: usize, held: Option<Place>) {
    let discarded = async {
        while let Some(Ok(frame)) = body.frame().await {
            max = max.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if max == 0 {
                return;
            }
        }
    };
    // Whether it ended or its time is over: then nobody listens any more.
    let _ = tokio::time::timeout(LINGER, discarded).await;
    drop(held);
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
    let decoded = json::decode(&body, limits, |memory| budget.cover(share, body.len() + memory));
    Ok(Carried::Data(decoded.map_err(|error| match error {
        JsonError::Busy => FrontendError::Busy,
        other => FrontendError::Json(other),
    })?))
}

/// Without parameters; empty when there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let whole = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use http::HeaderValue;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
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
            other => unreachable!("the decoder gives no {other:?}"),
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
    async fn reading_stops_as_soon_as_a_body_is_too_large_and_can_go_on() {
        let budget = Budget::new(1024);
        let mut share = Share::default();
        let mut exact = Reading::new(Full::<Bytes>::from("x".repeat(100)), &budget, &mut share);
        assert_eq!(exact.up_to(100).await.unwrap().map(|body| body.len()), Some(100));

        let mut share = Share::default();
        let mut announced = Reading::new(Full::<Bytes>::from("x".repeat(101)), &budget, &mut share);
        assert_eq!(announced.up_to(100).await.unwrap(), None);
        assert_eq!(announced.first.len(), 0, "nothing was read of what says that it is too large");
        assert_eq!(announced.up_to(101).await.unwrap().map(|body| body.len()), Some(101));

        let chunks = ["x".repeat(60), "y".repeat(60), "z".repeat(60)]
            .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
        let chunks = StreamBody::new(futures_util::stream::iter(chunks));
        let mut share = Share::default();
        let mut unannounced = Reading::new(chunks, &budget, &mut share);
        assert_eq!(unannounced.up_to(100).await.unwrap(), None);
        assert_eq!(unannounced.first.len() + unannounced.rest.len(), 120, "the third piece was not read");
        let whole = unannounced.up_to(1_000).await.unwrap().unwrap();
        assert_eq!(whole, ["x".repeat(60), "y".repeat(60), "z".repeat(60)].concat());
    }
}
