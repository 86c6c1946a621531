//! What comes back: an answer, an envelope, a refusal.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ANSWER_MAX, ClientError};

/// Status, body and the two headers that matter.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    location: Option<String>,
    content_type: Option<String>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body holds credentials.
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Answer {
    pub(super) fn read(response: ureq::http::Response<ureq::Body>) -> std::io::Result<Self> {
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().take(ANSWER_MAX + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > ANSWER_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "the answer is longer than 64 MiB"));
        }
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self {
            status: parts.status.as_u16(),
            body: bytes,
            location: header("location"),
            content_type: header("content-type"),
        })
    }

    /// What the server itself calls text, such as metrics for Prometheus.
    pub(crate) fn plain_text(&self) -> Option<&str> {
        let is_text = self.content_type.as_deref().is_some_and(|kind| kind.starts_with("text/plain"));
        std::str::from_utf8(&self.body).ok().filter(|text| is_text && !text.is_empty())
    }

    pub(super) fn redirect(&self) -> Option<&str> {
        matches!(self.status, 301 | 302 | 307 | 308).then_some(self.location.as_deref()).flatten()
    }

    pub(super) fn or_refusal(self, method: &str, url: &str) -> Result<Self, ClientError> {
        if (200..400).contains(&self.status) {
            return Ok(self);
        }
        let decoded = serde_json::from_slice::<Errors>(&self.body).ok();
        Err(ClientError::Refused(Refusal {
            method: method.to_owned(),
            url: url.to_owned(),
            status: self.status,
            errors: decoded.and_then(|read| read.errors),
            body: self.body,
        }))
    }

    /// # Errors
    /// [`ClientError::Unexpected`] when the body is not JSON. It is not quoted: it may hold a credential.
    pub(crate) fn json(&self) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Unexpected(not_json(&error)))
    }

    /// The envelope, if there is a body at all. A few routes (`sys/health`) answer without one: all of it is data then.
    pub(crate) fn secret(&self) -> Result<Option<Secret>, ClientError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let object: Map<String, Value> =
            serde_json::from_slice(&self.body).map_err(|error| ClientError::Unexpected(not_json(&error)))?;
        if !object.keys().any(|key| ENVELOPE.contains(&key.as_str())) {
            return Ok(Some(Secret { data: Some(object), ..Secret::default() }));
        }
        serde_json::from_value(Value::Object(object))
            .map(Some)
            .map_err(|error| ClientError::Unexpected(not_json(&error)))
    }

    /// `data`, or the whole object where an old server sends it bare.
    pub(crate) fn data(&self) -> Result<Value, ClientError> {
        Ok(match self.json()? {
            Value::Object(mut object) => match object.remove("data") {
                Some(data @ Value::Object(_)) => data,
                _ => Value::Object(object),
            },
            other => other,
        })
    }
}

/// Keys by which an envelope is known.
const ENVELOPE: [&str; 8] =
    ["request_id", "lease_id", "lease_duration", "renewable", "data", "warnings", "auth", "wrap_info"];

fn not_json(error: &serde_json::Error) -> String {
    format!("the answer is not what an API of this kind sends (line {}, column {})", error.line(), error.column())
}

#[derive(Deserialize)]
struct Errors {
    errors: Option<Vec<String>>,
}

/// An answer outside 200–399, worded as Vault words it.
pub(crate) struct Refusal {
    method: String,
    url: String,
    pub(crate) status: u16,
    errors: Option<Vec<String>>,
    body: Vec<u8>,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Refusal {
    /// Whether one of the errors says that the server is sealed.
    pub(crate) fn says_sealed(&self) -> bool {
        self.errors.iter().flatten().any(|error| error.contains("Vault is sealed"))
    }

    /// A 404 may carry an envelope (a deleted version, a hint about the path); otherwise it only says "nothing there".
    pub(super) fn secret_of_not_found(self) -> Result<Option<Secret>, ClientError> {
        let secret: Option<Secret> = serde_json::from_slice(&self.body).ok();
        match secret {
            Some(secret) if secret.data.is_some() || secret.warnings.as_ref().is_some_and(|list| !list.is_empty()) => {
                Ok(Some(secret))
            }
            _ => Ok(None),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.errors.is_some() { "Errors" } else { "Raw Message" };
        write!(
            f,
            "Error making API request.\n\nURL: {} {}\nCode: {}. {kind}:\n\n",
            self.method, self.url, self.status
        )?;
        match &self.errors {
            Some(errors) => {
                f.write_str(&errors.iter().map(|error| format!("* {error}")).collect::<Vec<_>>().join("\n"))
            }
            // Bounded: this is somebody else's page, such as a proxy's.
            None => f.write_str(&String::from_utf8_lossy(&self.body).chars().take(2000).collect::<String>()),
        }
    }
}

/// The envelope of the API.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Secret {
    pub(crate) request_id: String,
    pub(crate) lease_id: String,
    pub(crate) lease_duration: i64,
    pub(crate) renewable: bool,
    pub(crate) data: Option<Map<String, Value>>,
    pub(crate) warnings: Option<Vec<String>>,
    pub(crate) auth: Option<Auth>,
    pub(crate) wrap_info: Option<WrapInfo>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("request_id", &self.request_id)
            .field("lease_id", &self.lease_id)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    pub(crate) client_token: String,
    pub(crate) accessor: String,
    pub(crate) policies: Option<Vec<String>>,
    pub(crate) token_policies: Option<Vec<String>>,
    pub(crate) identity_policies: Option<Vec<String>>,
    pub(crate) metadata: Option<Map<String, Value>>,
    pub(crate) orphan: bool,
    pub(crate) entity_id: String,
    pub(crate) lease_duration: i64,
    pub(crate) renewable: bool,
    pub(crate) mfa_requirement: Value,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WrapInfo {
    pub(crate) token: String,
    pub(crate) accessor: String,
    pub(crate) ttl: i64,
    pub(crate) creation_time: String,
    pub(crate) creation_path: String,
    pub(crate) wrapped_accessor: String,
}

impl fmt::Debug for WrapInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrapInfo").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

impl Secret {
    /// The envelope in the order in which Vault prints it.
    pub(crate) fn to_json(&self) -> Value {
        let mut shown = json!({
            "request_id": self.request_id,
            "lease_id": self.lease_id,
            "lease_duration": self.lease_duration,
            "renewable": self.renewable,
            "data": self.data.clone().map(|data| sorted(Value::Object(data))),
            "warnings": self.warnings,
        });
        if let Some(auth) = &self.auth {
            shown["auth"] = json!({
                "client_token": auth.client_token,
                "accessor": auth.accessor,
                "policies": auth.policies,
                "token_policies": auth.token_policies,
                "identity_policies": auth.identity_policies,
                "metadata": auth.metadata.clone().map(|metadata| sorted(Value::Object(metadata))),
                "orphan": auth.orphan,
                "entity_id": auth.entity_id,
                "lease_duration": auth.lease_duration,
                "renewable": auth.renewable,
                "mfa_requirement": auth.mfa_requirement,
            });
        }
        if let Some(wrap) = &self.wrap_info {
            shown["wrap_info"] = json!({
                "token": wrap.token,
                "accessor": wrap.accessor,
                "ttl": wrap.ttl,
                "creation_time": wrap.creation_time,
                "creation_path": wrap.creation_path,
                "wrapped_accessor": wrap.wrapped_accessor,
            });
        }
        shown
    }
}

/// The same value with every object's keys in order.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}
