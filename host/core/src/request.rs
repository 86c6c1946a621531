//! The transport-free vocabulary: what is asked, what is answered, how it may go wrong.
//!
//! The HTTP front end turns HTTP into [`LogicalRequest`] and [`LogicalResponse`] into HTTP; nothing else sees a status code.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use leasehold_model::{Accessor, LeaseId, Operation, Timestamp, TokenId, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connection::ConnectionInfo;
pub use crate::fields::Object;
use crate::seams::snapshot::Spool;
use crate::wrapping::WrapInfo;

/// One request, as every module sees it.
pub struct LogicalRequest {
    /// A UUID; also in the answer, the log and the audit record.
    pub id: String,
    pub operation: Operation,
    /// The one canonical path, without `/v1/` and without a leading slash. `List` and `Scan` end in `/`.
    pub path: String,
    /// The body, or the query of a read, list or delete. May hold secrets.
    pub data: Object,
    pub token: Option<TokenId>,
    /// None: the server asks itself.
    pub client: Option<ConnectionInfo>,
    pub wrap_ttl: Option<Ttl>,
    /// Lower-case names; without the token. Only registered ones reach audit.
    pub headers: BTreeMap<String, Vec<String>>,
    /// An uploaded body that is not JSON (`application/wasm`); only routes that ask for it see it.
    pub raw_body: Option<Vec<u8>>,
    /// A body that is a file of any size; only on routes that take one, and for who may call them.
    pub upload: Option<Arc<Spool>>,
    /// The body was too large to be read for somebody who shows no living token. `data` is empty and says nothing: such a
    /// request is refused, never carried out.
    pub body_withheld: bool,
    /// The listener's configuration asks for no token on this path; see [`Access::TokenUnlessLetIn`](crate::routes::Access).
    pub is_let_in: bool,
}

/// The body and the token stay out of every log.
impl fmt::Debug for LogicalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, operation, path, .. } = self;
        f.debug_struct("LogicalRequest")
            .field("id", id)
            .field("operation", operation)
            .field("path", path)
            .finish_non_exhaustive()
    }
}

/// How an answer's body looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The envelope of eight keys.
    #[default]
    Envelope,
    /// The envelope, with every key of `data` once more beside it, for old clients.
    Duplicated,
    /// `data` alone, as `sys/health`.
    Plain,
}

/// One answer. `Debug` shows its outline only: `data` and `auth` are where secrets leave.
#[derive(Clone, Default)]
pub struct LogicalResponse {
    pub data: Option<Object>,
    pub warnings: Vec<String>,
    pub lease: Option<LeaseAnswer>,
    pub auth: Option<AuthAnswer>,
    /// The wrapping token that stands for what would have been answered; nothing else is said then.
    pub wrap_info: Option<WrapInfo>,
    /// `lease_duration` of an answer without a lease: when to read again (kv version 1).
    pub read_again_in: Option<Ttl>,
    pub shape: Shape,
    /// A status other than the one that follows from the contents: 202 for queued work, 404 with an envelope, 429, 501, 503;
    /// 200 for an envelope around nothing.
    pub status: Option<u16>,
    /// Body to send as it stands, with its content type (metrics text).
    pub raw: Option<(String, &'static str)>,
    /// A file to send as it stands.
    pub attachment: Option<Attachment>,
    /// `X-Vault-Index`: of the state that this answer reflects, for a client that wants nothing older from any server.
    pub index: Option<String>,
    /// The server seals once this answer is recorded, and answers when it has.
    pub seals: bool,
    /// A token that was made and is in `data` in a form that only its receiver can read.
    pub made_token: Option<HandedOut>,
}

/// A file that is sent as an answer, with its content type.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub spool: Arc<Spool>,
    pub kind: &'static str,
}

/// What an answer hands out that did not exist before. It must not outlive an answer that nobody got. `Debug` shows no token.
#[derive(Clone)]
pub struct HandedOut {
    pub lease: Option<LeaseId>,
    pub token: Option<TokenId>,
    /// Names the token.
    accessor: String,
}

impl HandedOut {
    /// A new token that stands in no `auth` block.
    #[must_use]
    pub fn token(token: TokenId, accessor: &Accessor) -> Self {
        Self { lease: None, token: Some(token), accessor: accessor.as_str().to_owned() }
    }

    /// Names the token.
    #[must_use]
    pub fn accessor(&self) -> &str {
        &self.accessor
    }
}

impl fmt::Debug for HandedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, token: _, accessor } = self;
        f.debug_struct("HandedOut").field("lease", lease).field("accessor", accessor).finish_non_exhaustive()
    }
}

impl LogicalResponse {
    /// Success without a body: 204.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn data(data: Object) -> Self {
        Self { data: Some(data), ..Self::default() }
    }

    /// For `json!({…})`; anything but an object becomes an empty one.
    #[must_use]
    pub fn json(value: Value) -> Self {
        match value {
            Value::Object(data) => Self::data(data),
            _ => Self::data(Object::new()),
        }
    }

    #[must_use]
    pub fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    #[must_use]
    pub fn warn(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }

    /// The lease that this answer hands out, if it does (a renewal's answer names a lease and hands out nothing).
    #[must_use]
    pub fn issued(&self) -> Option<&LeaseId> {
        self.data.as_ref().and(self.lease.as_ref()).map(|lease| &lease.id)
    }

    /// What this answer hands out, if it hands out anything.
    #[must_use]
    pub fn handed_out(&self) -> Option<HandedOut> {
        if let Some(wrap) = &self.wrap_info {
            let (token, accessor) = (Some(wrap.token.clone()), wrap.accessor.as_str().to_owned());
            return Some(HandedOut { lease: None, token, accessor });
        }
        if let Some(made) = &self.made_token {
            return Some(made.clone());
        }
        let lease = self.issued().cloned();
        let auth = self.auth.as_ref().filter(|auth| auth.is_new);
        let token = auth.and_then(|auth| auth.client_token.clone());
        let accessor = auth.map(|auth| auth.accessor.clone()).unwrap_or_default();
        (lease.is_some() || token.is_some()).then_some(HandedOut { lease, token, accessor })
    }

    #[must_use]
    pub fn has_body(&self) -> bool {
        self.data.is_some()
            || self.auth.is_some()
            || self.lease.is_some()
            || self.wrap_info.is_some()
            || !self.warnings.is_empty()
            || self.raw.is_some()
            || self.attachment.is_some()
            || self.status == Some(200)
    }
}

impl fmt::Debug for LogicalResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalResponse")
            .field("status", &self.status)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct LeaseAnswer {
    pub id: LeaseId,
    pub renewable: bool,
    pub ttl: Ttl,
}

/// The `auth` block: a token as it is handed out or renewed.
#[derive(Clone)]
pub struct AuthAnswer {
    /// For audit.
    pub display_name: String,
    /// For audit.
    pub issued_at: Timestamp,
    /// None where only an accessor was shown.
    pub client_token: Option<TokenId>,
    pub accessor: String,
    /// Its own.
    pub policies: Vec<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub ttl: Ttl,
    pub renewable: bool,
    pub token_type: &'static str,
    pub orphan: bool,
    pub num_uses: u32,
    /// Made by this request, not renewed.
    pub is_new: bool,
    /// Whom it stands for.
    pub identity: Option<AuthIdentity>,
}

/// Of a token that stands for an entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthIdentity {
    pub entity_id: String,
    /// What the entity and its groups give, sorted.
    pub policies: Vec<String>,
}

impl AuthAnswer {
    /// The token's own policies and those of whom it stands for, sorted.
    #[must_use]
    pub fn all_policies(&self) -> Cow<'_, [String]> {
        let Some(identity) = &self.identity else { return Cow::Borrowed(&self.policies) };
        let mut all = [self.policies.as_slice(), &identity.policies].concat();
        all.sort();
        all.dedup();
        Cow::Owned(all)
    }
}

impl fmt::Debug for AuthAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthAnswer").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_shows_its_names_and_no_token() {
        let handed_out = HandedOut {
            lease: Some("db/creds/app/x".parse().unwrap()),
            token: Some(TokenId::new("s.canary")),
            accessor: "Ab12".to_owned(),
        };
        let shown = format!("{handed_out:?}");
        assert!(shown.contains("db/creds/app/x") && shown.contains("Ab12") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn an_auth_block_shows_its_accessor_and_no_token() {
        let auth = AuthAnswer {
            display_name: "token".to_owned(),
            issued_at: Timestamp::from_secs(1_000),
            client_token: Some(TokenId::new("s.canary")),
            accessor: "Ab12".to_owned(),
            policies: Vec::new(),
            metadata: None,
            ttl: Ttl::ZERO,
            renewable: false,
            token_type: "service",
            orphan: false,
            num_uses: 0,
            is_new: true,
            identity: None,
        };
        let shown =
            format!("{auth:?} {:?}", LogicalResponse { auth: Some(auth.clone()), ..LogicalResponse::default() });
        assert!(shown.contains("Ab12") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn anything_to_say_makes_a_body() {
        let one_each = [
            LogicalResponse { data: Some(Object::new()), ..LogicalResponse::default() },
            LogicalResponse { warnings: vec![String::new()], ..LogicalResponse::default() },
            LogicalResponse { raw: Some((String::new(), "text/plain")), ..LogicalResponse::default() },
            LogicalResponse { status: Some(200), ..LogicalResponse::default() },
        ];
        for answer in one_each {
            assert!(answer.has_body(), "{answer:?}");
        }
        assert!(!LogicalResponse::default().has_body());
        assert!(!LogicalResponse { status: Some(202), ..LogicalResponse::default() }.has_body());
    }
}
