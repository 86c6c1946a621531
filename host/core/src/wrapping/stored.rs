//! What of an answer is kept while it is wrapped: all that its reader gets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use leasehold_model::{Accessor, LeaseId, Timestamp, TokenId, Ttl};
use serde::{Deserialize, Serialize};

use crate::request::{AuthAnswer, AuthIdentity, HandedOut, LeaseAnswer, LogicalResponse, Object, Shape};

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    data: Option<Cow<'a, Object>>,
    warnings: Cow<'a, [String]>,
    lease: Option<Lease<'a>>,
    auth: Option<Auth<'a>>,
    read_again_in: Option<Ttl>,
    shape: StoredShape,
    status: Option<u16>,
    /// Id and accessor.
    #[serde(default)]
    made_token: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Serialize, Deserialize)]
struct Lease<'a> {
    id: Cow<'a, LeaseId>,
    renewable: bool,
    ttl: Ttl,
}

#[derive(Serialize, Deserialize)]
struct Auth<'a> {
    display_name: Cow<'a, str>,
    issued_at: Timestamp,
    client_token: Option<Cow<'a, str>>,
    accessor: Cow<'a, str>,
    policies: Cow<'a, [String]>,
    metadata: Cow<'a, Option<BTreeMap<String, String>>>,
    ttl: Ttl,
    renewable: bool,
    token_type: Cow<'a, str>,
    orphan: bool,
    num_uses: u32,
    is_new: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Cow<'a, AuthIdentity>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum StoredShape {
    Envelope,
    Duplicated,
    Plain,
}

/// `None`: it cannot be written.
pub(super) fn write(answer: &LogicalResponse) -> Option<Vec<u8>> {
    // Named one by one: what an answer gets besides must be decided upon here.
    let LogicalResponse {
        data,
        warnings,
        lease,
        auth,
        wrap_info: None,
        read_again_in,
        shape,
        status,
        raw: None,
        attachment: None,
        index: _,
        seals: false,
        made_token,
    } = answer
    else {
        return None;
    };
    let stored = Stored {
        data: data.as_ref().map(Cow::Borrowed),
        warnings: Cow::Borrowed(warnings),
        lease: lease.as_ref().map(|lease| Lease {
            id: Cow::Borrowed(&lease.id),
            renewable: lease.renewable,
            ttl: lease.ttl,
        }),
        auth: auth.as_ref().map(|auth| Auth {
            display_name: Cow::Borrowed(&auth.display_name),
            issued_at: auth.issued_at,
            client_token: auth.client_token.as_ref().map(|token| Cow::Borrowed(token.expose())),
            accessor: Cow::Borrowed(&auth.accessor),
            policies: Cow::Borrowed(&auth.policies),
            metadata: Cow::Borrowed(&auth.metadata),
            ttl: auth.ttl,
            renewable: auth.renewable,
            token_type: Cow::Borrowed(auth.token_type),
            orphan: auth.orphan,
            num_uses: auth.num_uses,
            is_new: auth.is_new,
            identity: auth.identity.as_ref().map(Cow::Borrowed),
        }),
        read_again_in: *read_again_in,
        shape: match shape {
            Shape::Envelope => StoredShape::Envelope,
            Shape::Duplicated => StoredShape::Duplicated,
            Shape::Plain => StoredShape::Plain,
        },
        status: *status,
        made_token: made_token
            .as_ref()
            .and_then(|made| Some((Cow::Borrowed(made.token.as_ref()?.expose()), Cow::Borrowed(made.accessor())))),
    };
    serde_json::to_vec(&stored).ok()
}

/// `None`: it was not written here.
pub(super) fn read(bytes: &[u8]) -> Option<LogicalResponse> {
    let stored: Stored<'_> = serde_json::from_slice(bytes).ok()?;
    Some(LogicalResponse {
        data: stored.data.map(Cow::into_owned),
        warnings: stored.warnings.into_owned(),
        lease: stored.lease.map(|lease| LeaseAnswer {
            id: lease.id.into_owned(),
            renewable: lease.renewable,
            ttl: lease.ttl,
        }),
        auth: stored.auth.map(|auth| AuthAnswer {
            display_name: auth.display_name.into_owned(),
            issued_at: auth.issued_at,
            client_token: auth.client_token.map(|token| TokenId::new(token.into_owned())),
            accessor: auth.accessor.into_owned(),
            policies: auth.policies.into_owned(),
            metadata: auth.metadata.into_owned(),
            ttl: auth.ttl,
            renewable: auth.renewable,
            token_type: if auth.token_type == "batch" { "batch" } else { "service" },
            orphan: auth.orphan,
            num_uses: auth.num_uses,
            is_new: auth.is_new,
            identity: auth.identity.map(Cow::into_owned),
        }),
        made_token: stored.made_token.map(|(id, accessor)| {
            HandedOut::token(TokenId::new(id.into_owned()), &Accessor::new(accessor.into_owned()))
        }),
        read_again_in: stored.read_again_in,
        shape: match stored.shape {
            StoredShape::Envelope => Shape::Envelope,
            StoredShape::Duplicated => Shape::Duplicated,
            StoredShape::Plain => Shape::Plain,
        },
        status: stored.status,
        ..LogicalResponse::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let mut answer =
            LogicalResponse::json(json!({ "a": { "b": [1, 1.5, null] } })).warn("look out").with_status(200);
        answer.lease =
            Some(LeaseAnswer { id: "db/creds/r/x".parse().unwrap(), renewable: true, ttl: Ttl::from_secs(60) });
        answer.read_again_in = Some(Ttl::from_secs(5));
        answer.auth = Some(AuthAnswer {
            display_name: "n".to_owned(),
            issued_at: Timestamp::from_secs(1_000),
            client_token: Some(TokenId::new("s.canary")),
            accessor: "acc".to_owned(),
            policies: vec!["p".to_owned()],
            metadata: Some([("k".to_owned(), "v".to_owned())].into()),
            ttl: Ttl::from_secs(60),
            renewable: true,
            token_type: "service",
            orphan: true,
            num_uses: 3,
            is_new: true,
            identity: None,
        });
        let written = write(&answer).unwrap();
        let read = read(&written).unwrap();
        assert_eq!(write(&read).unwrap(), written);
        let handed_out = read.handed_out().unwrap();
        assert_eq!(handed_out.lease.unwrap().as_str(), "db/creds/r/x");
        assert_eq!(handed_out.token.unwrap().expose(), "s.canary");
        assert!(write(&LogicalResponse { raw: Some((String::new(), "text/plain")), ..answer }).is_none());
    }
}
