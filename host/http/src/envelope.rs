//! Answers as bytes: the envelope of eight keys, its old doubled form, and plain data.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use leasehold_core::quota::rate::RateCounts;
use leasehold_core::request::{AuthAnswer, LogicalResponse, Object, Shape};
use leasehold_core::wrapping::WrapInfo;
use leasehold_model::Operation;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::delivery::Payload;
use crate::file::FileBody;
use crate::go_json;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");
const HSTS_NAME: HeaderName = header::STRICT_TRANSPORT_SECURITY;

/// A response with the headers that stand on everything.
pub(crate) fn response(status: StatusCode, kind: Option<HeaderValue>, body: Payload) -> Response<Payload> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(HSTS_NAME, HSTS);
    response
}

/// What a client is told about its rate limit.
pub(crate) fn put_counts(headers: &mut HeaderMap, counts: RateCounts) {
    for (name, value) in [
        ("x-ratelimit-limit", counts.limit),
        ("x-ratelimit-remaining", counts.remaining),
        ("x-ratelimit-reset", counts.reset_secs),
    ] {
        headers.insert(name, HeaderValue::from(value));
    }
}

/// `value` as a whole body.
pub(crate) fn json(status: StatusCode, kind: HeaderValue, value: &impl Serialize) -> Response<Payload> {
    match bytes(value) {
        Ok(bytes) => response(status, Some(kind), Payload::from(bytes)),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            response(
                StatusCode::INTERNAL_SERVER_ERROR,
                Some(JSON),
                Payload::from("{\"errors\":[\"internal error\"]}\n"),
            )
        }
    }
}

/// Most answers are smaller.
const ANSWER_LEN: usize = 512;

pub(crate) fn bytes(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(ANSWER_LEN);
    go_json::write(value, &mut bytes)?;
    Ok(bytes)
}

/// Status and bytes of a success, as Vault renders results.
pub(crate) fn of_answer(request_id: &str, operation: Operation, answer: &LogicalResponse) -> Response<Payload> {
    let wished = answer.status.and_then(|status| StatusCode::from_u16(status).ok());
    if let Some((text, kind)) = &answer.raw {
        let status = wished.unwrap_or(StatusCode::OK);
        return response(status, Some(HeaderValue::from_static(kind)), Payload::from(text.clone()));
    }
    if let Some(file) = &answer.attachment {
        let body = Payload::File(FileBody::new(Arc::clone(&file.spool)));
        let mut sent = response(StatusCode::OK, Some(HeaderValue::from_static(file.kind)), body);
        sent.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        return sent;
    }
    match found(operation, answer) {
        Content::Something => {}
        Content::Nothing if wished == Some(StatusCode::OK) => {}
        Content::Warnings => {
            return json(wished.unwrap_or(StatusCode::NOT_FOUND), JSON, &Envelope { request_id, answer });
        }
        Content::Nothing if reads(operation) && wished.is_none() => {
            return response(StatusCode::NOT_FOUND, Some(JSON), Payload::from("{\"errors\":[]}\n"));
        }
        Content::Nothing => return response(wished.unwrap_or(StatusCode::NO_CONTENT), Some(JSON), Payload::empty()),
    }
    let status = wished.unwrap_or(StatusCode::OK);
    match (answer.shape, &answer.data) {
        (Shape::Plain, Some(data)) => json(status, JSON, data),
        (Shape::Plain | Shape::Envelope | Shape::Duplicated, _) => json(status, JSON, &Envelope { request_id, answer }),
    }
}

enum Content {
    Something,
    /// Nothing that was asked for, but something to say.
    Warnings,
    Nothing,
}

fn reads(operation: Operation) -> bool {
    matches!(operation, Operation::Read | Operation::List | Operation::Scan | Operation::Help)
}

fn found(operation: Operation, answer: &LogicalResponse) -> Content {
    if answer.auth.is_some() || answer.lease.is_some() || answer.wrap_info.is_some() {
        return Content::Something;
    }
    let is_there = match (operation, &answer.data) {
        (_, None) => false,
        // A list without keys is nothing, unless it says something else.
        (Operation::List | Operation::Scan, Some(data)) => match data.get("keys") {
            Some(Value::Array(keys)) => !keys.is_empty(),
            Some(Value::Null) | None => !data.is_empty(),
            Some(_) => true,
        },
        (_, Some(_)) => true,
    };
    match (is_there, answer.warnings.is_empty()) {
        (true, _) => Content::Something,
        (false, true) => Content::Nothing,
        (false, false) if reads(operation) => Content::Warnings,
        (false, false) => Content::Something,
    }
}

/// The eight keys, in Vault's order.
struct Envelope<'a> {
    request_id: &'a str,
    answer: &'a LogicalResponse,
}

const KEYS: [&str; 8] =
    ["request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"];

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { request_id, answer } = self;
        let lease = answer.lease.as_ref();
        let mut map = serializer.serialize_map(None)?;
        // As in Vault, nothing connects what is wrapped with the request that asked for it.
        map.serialize_entry("request_id", if answer.wrap_info.is_some() { "" } else { request_id })?;
        map.serialize_entry("lease_id", lease.map_or("", |lease| lease.id.as_str()))?;
        map.serialize_entry("renewable", &lease.is_some_and(|lease| lease.renewable))?;
        map.serialize_entry(
            "lease_duration",
            &lease.map(|lease| lease.ttl).or(answer.read_again_in).map_or(0, |ttl| ttl.as_secs()),
        )?;
        map.serialize_entry("data", &answer.data)?;
        map.serialize_entry("wrap_info", &answer.wrap_info.as_ref().map(wrap_info))?;
        map.serialize_entry("warnings", &(!answer.warnings.is_empty()).then_some(&answer.warnings))?;
        map.serialize_entry("auth", &answer.auth.as_ref().map(auth))?;
        if answer.shape == Shape::Duplicated {
            let doubled = answer.data.iter().flat_map(Object::iter).filter(|(key, _)| !KEYS.contains(&key.as_str()));
            for (key, value) in doubled {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Wrap<'a> {
    token: &'a str,
    accessor: &'a str,
    ttl: u64,
    creation_time: String,
    creation_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped_accessor: Option<&'a str>,
}

fn wrap_info(wrap: &WrapInfo) -> Wrap<'_> {
    Wrap {
        // Here a wrapping token leaves us.
        token: wrap.token.expose(),
        accessor: wrap.accessor.as_str(),
        ttl: wrap.ttl.as_secs(),
        creation_time: wrap.created_at.rfc3339(),
        creation_path: &wrap.creation_path,
        wrapped_accessor: wrap.wrapped_accessor.as_deref(),
    }
}

#[derive(Serialize)]
struct Auth<'a> {
    client_token: &'a str,
    accessor: &'a str,
    policies: Cow<'a, [String]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    token_policies: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    identity_policies: &'a [String],
    metadata: &'a Option<BTreeMap<String, String>>,
    lease_duration: u64,
    renewable: bool,
    entity_id: &'a str,
    token_type: &'static str,
    orphan: bool,
    mfa_requirement: Option<()>,
    num_uses: u32,
}

fn auth(auth: &AuthAnswer) -> Auth<'_> {
    Auth {
        // Here a token leaves us.
        client_token: auth.client_token.as_ref().map_or("", |token| token.expose()),
        accessor: &auth.accessor,
        policies: auth.all_policies(),
        token_policies: &auth.policies,
        identity_policies: auth.identity.as_ref().map_or(&[], |identity| &identity.policies),
        metadata: &auth.metadata,
        lease_duration: auth.ttl.as_secs(),
        renewable: auth.renewable,
        entity_id: auth.identity.as_ref().map_or("", |identity| &identity.entity_id),
        token_type: auth.token_type,
        orphan: auth.orphan,
        mfa_requirement: None,
        num_uses: auth.num_uses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use leasehold_core::request::LeaseAnswer;
    use leasehold_model::{Timestamp, TokenId, Ttl};
    use serde_json::json;

    async fn shown(operation: Operation, answer: LogicalResponse) -> (u16, String) {
        let response = of_answer("ID", operation, &answer);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000; includeSubDomains");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_envelope_has_eight_keys_in_order() {
        let mut answer = LogicalResponse::json(json!({"password": "a<b"})).warn("look out");
        let id = "database/creds/readonly/x".parse().unwrap();
        answer.lease = Some(LeaseAnswer { id, renewable: true, ttl: Ttl::from_secs(3600) });
        let body = "{\"request_id\":\"ID\",\"lease_id\":\"database/creds/readonly/x\",\"renewable\":true,\"lease_duration\":3600,\
            \"data\":{\"password\":\"a\\u003cb\"},\"wrap_info\":null,\"warnings\":[\"look out\"],\"auth\":null}\n";
        assert_eq!(shown(Operation::Read, answer).await, (200, body.to_owned()));
    }

    #[tokio::test]
    async fn a_token_answer_has_the_fields_block() {
        let auth = AuthAnswer {
            display_name: String::new(),
            issued_at: Timestamp::NEVER,
            client_token: Some(TokenId::new("s.t")),
            accessor: "acc".into(),
            policies: vec!["apps".into(), "default".into()],
            metadata: None,
            ttl: Ttl::from_secs(2_764_800),
            renewable: true,
            token_type: "service",
            orphan: false,
            num_uses: 0,
            is_new: true,
            identity: None,
        };
        let (status, body) =
            shown(Operation::Update, LogicalResponse { auth: Some(auth), ..LogicalResponse::default() }).await;
        let wanted = "{\"request_id\":\"ID\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":0,\"data\":null,\"wrap_info\":null,\
            \"warnings\":null,\"auth\":{\"client_token\":\"s.t\",\"accessor\":\"acc\",\"policies\":[\"apps\",\"default\"],\
            \"token_policies\":[\"apps\",\"default\"],\"metadata\":null,\"lease_duration\":2764800,\"renewable\":true,\"entity_id\":\"\",\
            \"token_type\":\"service\",\"orphan\":false,\"mfa_requirement\":null,\"num_uses\":0}}\n";
        assert_eq!((status, body.as_str()), (200, wanted));
    }

    #[tokio::test]
    async fn old_clients_find_data_beside_the_envelope() {
        let answer = LogicalResponse::json(json!({"keys": ["a"], "auth": 1})).shaped(Shape::Duplicated);
        let (_, body) = shown(Operation::Read, answer).await;
        assert!(body.ends_with("\"data\":{\"keys\":[\"a\"],\"auth\":1},\"wrap_info\":null,\"warnings\":null,\"auth\":null,\"keys\":[\"a\"]}\n"), "{body}");
    }

    #[tokio::test]
    async fn nothing_is_rendered_by_what_was_asked() {
        let none = (404, "{\"errors\":[]}\n".to_owned());
        let empty_list = || LogicalResponse::json(json!({"keys": []}));
        assert_eq!(shown(Operation::Read, LogicalResponse::empty()).await, none);
        assert_eq!(shown(Operation::List, LogicalResponse::empty()).await, none);
        assert_eq!(shown(Operation::List, empty_list()).await, none);
        assert_eq!(shown(Operation::Update, LogicalResponse::empty()).await, (204, String::new()));
        assert_eq!(shown(Operation::Delete, LogicalResponse::empty()).await, (204, String::new()));
        assert_eq!(shown(Operation::Update, LogicalResponse::empty().with_status(202)).await, (202, String::new()));
        assert!(shown(Operation::Patch, LogicalResponse::empty().with_status(200)).await.1.contains("\"data\":null"));
        assert_eq!(shown(Operation::Read, LogicalResponse::empty().warn("elsewhere")).await.0, 404);
        assert_eq!(shown(Operation::Update, LogicalResponse::empty().warn("w")).await.0, 200);
        assert_eq!(shown(Operation::Read, LogicalResponse::json(json!({}))).await.0, 200);
        let health = LogicalResponse::json(json!({"sealed": true})).shaped(Shape::Plain).with_status(503);
        assert_eq!(shown(Operation::Read, health).await, (503, "{\"sealed\":true}\n".to_owned()));
    }
}
