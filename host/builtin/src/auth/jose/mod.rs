//! Signed tokens (JWT, RFC 7519) and the keys that prove them, for every auth method that takes such tokens.
//!
//! Must not know: roles, mounts' configurations, how a token of this server is made.
//!
//! Start with [`Compact::read`], then [`Compact::verify`], which alone gives [`Claims`]; [`KeySet`] is what it needs, [`RemoteKeys`]
//! fetches one over HTTP, and [`Claims::check_times`] and its neighbours judge what was signed.
//!
//! Invariants: nothing that an unverified token says chooses a key's kind, an address or a file: the key decides which algorithms it
//! takes, the header only narrows that. No claim can be read before a signature was verified, save for a token that a cluster is asked
//! about next ([`Compact::unverified_content`]). Only asymmetric algorithms exist here,
//! so that a public key is never taken for a shared secret. No text of a token stands in an error.
//!
//! Why there is no JWT library: `host/docs/decisions/0018-signed-tokens.md`.

mod claims;
mod compact;
mod fetch;
mod key;
mod remote;
#[cfg(test)]
pub(super) mod testing;

pub(super) use claims::{Claims, Leeways};
pub(super) use compact::Compact;
pub(super) use fetch::{FetchError, Fetcher, Post, check_address, check_authorities};
pub(super) use key::{Algorithm, Key, KeySet};
pub(super) use remote::{RemoteKeys, Source};

/// Why a token proves nothing. For the audit record: it says what is wrong and quotes nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("the token is longer than {} bytes", compact::TOKEN_MAX)]
    TooLong,
    #[error("the token is no signed token of three parts in base64url")]
    Malformed,
    #[error("the token's header is no JSON object with one text `alg`, or names a member twice")]
    Header,
    #[error("the token's header demands an extension (`crit` or `b64`) that is not understood")]
    Extension,
    #[error("the token's algorithm is none of those that are taken")]
    Algorithm,
    #[error("no key has the token's key id")]
    UnknownKey,
    #[error("no key that could have signed the token verifies its signature")]
    Signature,
    #[error("the token's content is no JSON object, or is nested too deeply")]
    Content,
    #[error("the token has neither `iat` nor `nbf` nor `exp`")]
    NoTime,
    #[error("the claim `{0}` has the wrong type")]
    WrongType(&'static str),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet (`nbf`)")]
    TooEarly,
    #[error("the token was issued in the future (`iat`)")]
    FromTheFuture,
    #[error("the token's issuer is not the bound one")]
    Issuer,
    #[error("the token's subject is not the bound one")]
    Subject,
    #[error("the token is for none of the bound audiences")]
    Audience,
    #[error("the token is for an audience, and the role binds none")]
    UnboundAudience,
}
