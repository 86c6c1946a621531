//! The one place where a failure becomes a status and words. No `_` arm: a new failure must be placed.
//!
//! `E(x)` is `{"errors":["x"]}`; `M(x)` Vault's multi-error form; nothing is `{"errors":[]}`.

use http::{HeaderValue, Response, StatusCode, header};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::StorageError;
use leasehold_model::counted;
use serde::Serialize;

use crate::delivery::Payload;
use crate::envelope::{self, JSON};
use crate::json::JsonError;
use crate::listener::ForwardedError;
use crate::query::FormError;

/// What the front end itself refuses, before the core hears of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrontendError {
    #[error("the clean path is `{to}`")]
    Unclean { to: String, shows_page: bool },
    #[error("a path must be printable text")]
    Unprintable,
    #[error("relative paths not supported")]
    Relative,
    #[error("nothing is served outside /v1/")]
    Elsewhere,
    #[error("the path or query is too long")]
    UriTooLong,
    #[error("the request headers are too large")]
    HeadersTooLarge,
    /// `list`, `scan` and the codes of `sys/health`.
    #[error("a query parameter has no sensible value")]
    Query,
    #[error("method not allowed")]
    Method,
    /// An old route that needs a token here.
    #[error("unsupported operation")]
    NotLetIn,
    #[error("cannot handle internal-only request operation")]
    InternalOnly,
    #[error("namespace not found")]
    Namespace,
    #[error("operation unavailable in namespaces")]
    NotInNamespaces,
    #[error("error parsing X-Vault-Wrap-TTL header: {0}")]
    WrapTtl(String),
    #[error("mime: no media type")]
    NoMediaType,
    #[error("PATCH requires Content-Type of application/merge-patch+json, provided {0}")]
    MediaType(String),
    #[error("the token is longer than {0} bytes")]
    TokenTooLong(usize),
    #[error("http: request body too large")]
    BodyTooLarge,
    #[error("the request body could not be read")]
    Body,
    /// The log says why.
    #[error("the file could not be kept on the server's disk")]
    NoPlace,
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error(transparent)]
    Form(#[from] FormError),
    #[error(transparent)]
    Forwarded(#[from] ForwardedError),
    #[error("the server is busy, try again")]
    Busy,
    /// In the words of a rate limit quota.
    #[error("request path \"{0}\": rate limit quota exceeded")]
    TooOften(String),
    #[error("context deadline exceeded")]
    Time,
}

enum Said {
    Nothing,
    List(Vec<String>),
    /// A redirect's address and, for GET, the page that names it.
    Redirect(String, Option<String>),
}

impl Said {
    fn one(text: impl ToString) -> Self {
        Self::List(vec![text.to_string()])
    }

    fn and(mut self, further: &str) -> Self {
        if let Self::List(errors) = &mut self {
            errors.push(further.to_owned());
        }
        self
    }
}

pub(crate) fn of_frontend(error: &FrontendError) -> Response<Payload> {
    let (status, said) = match error {
        FrontendError::Unclean { to, shows_page } => {
            (StatusCode::TEMPORARY_REDIRECT, Said::Redirect(to.clone(), shows_page.then(|| page(to))))
        }
        FrontendError::Unprintable => (StatusCode::BAD_REQUEST, Said::Nothing),
        FrontendError::Elsewhere => (StatusCode::NOT_FOUND, Said::List(Vec::new())),
        FrontendError::UriTooLong => (StatusCode::URI_TOO_LONG, Said::List(Vec::new())),
        FrontendError::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Said::List(Vec::new())),
        FrontendError::Query => (StatusCode::BAD_REQUEST, Said::List(Vec::new())),
        FrontendError::Method => (StatusCode::METHOD_NOT_ALLOWED, Said::List(Vec::new())),
        FrontendError::NotLetIn => (StatusCode::METHOD_NOT_ALLOWED, Said::one(error)),
        FrontendError::Namespace => (StatusCode::NOT_FOUND, Said::one(error)),
        FrontendError::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Said::one(error)),
        FrontendError::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Said::one(error)),
        FrontendError::NoPlace => (StatusCode::INSUFFICIENT_STORAGE, Said::one(error)),
        FrontendError::TooOften(_) => (StatusCode::TOO_MANY_REQUESTS, Said::one(error)),
        FrontendError::Busy | FrontendError::Time => (StatusCode::SERVICE_UNAVAILABLE, Said::one(error)),
        FrontendError::Relative
        | FrontendError::InternalOnly
        | FrontendError::NotInNamespaces
        | FrontendError::WrapTtl(_)
        | FrontendError::NoMediaType
        | FrontendError::TokenTooLong(_)
        | FrontendError::Body
        | FrontendError::Forwarded(_)
        | FrontendError::Json(_)
        | FrontendError::Form(_) => (StatusCode::BAD_REQUEST, Said::one(error)),
    };
    let mut answer = response(status, said);
    if matches!(error, FrontendError::BodyTooLarge | FrontendError::Body | FrontendError::NoPlace | FrontendError::Time)
    {
        close_after(&mut answer);
    }
    if matches!(error, FrontendError::TooOften(_)) {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// What is left of a body that was not read cannot be told from the next request.
pub(crate) fn close_after(answer: &mut Response<Payload>) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

fn said_of(error: &RequestError, request_id: &str) -> (StatusCode, Said) {
    let internal = || Said::one(format!("internal error, request id {request_id}"));
    match error {
        RequestError::Invalid(text) => (StatusCode::BAD_REQUEST, Said::one(text)),
        RequestError::InvalidMulti(text) => (StatusCode::BAD_REQUEST, Said::one(multi(text))),
        RequestError::Helped { error, help } => {
            let (status, said) = said_of(error, request_id);
            (status, said.and(help))
        }
        RequestError::LoginRefused { said, reason: _ } => (StatusCode::BAD_REQUEST, Said::one(said)),
        RequestError::LoginIncomplete(text) => (StatusCode::INTERNAL_SERVER_ERROR, Said::one(text)),
        RequestError::BadToken | RequestError::LoginDenied { reason: _ } => (StatusCode::FORBIDDEN, Said::one(error)),
        RequestError::Denied => (StatusCode::FORBIDDEN, Said::one(multi(&error.to_string()))),
        RequestError::Forbidden(text) => (StatusCode::FORBIDDEN, Said::one(text)),
        RequestError::DeniedByModule { policy: _, messages } => {
            let denied = multi(&error.to_string());
            (StatusCode::FORBIDDEN, Said::List(std::iter::once(denied).chain(messages.iter().cloned()).collect()))
        }
        RequestError::NotFound => (StatusCode::NOT_FOUND, Said::List(Vec::new())),
        RequestError::NoRoute(text) => (StatusCode::NOT_FOUND, Said::one(text)),
        RequestError::Missing(text) => (StatusCode::NOT_FOUND, Said::one(multi(text))),
        RequestError::UnsupportedPath | RequestError::NotOffered(_) => {
            (StatusCode::NOT_FOUND, Said::one(multi(&error.to_string())))
        }
        RequestError::UnsupportedOperation => (StatusCode::METHOD_NOT_ALLOWED, Said::one(multi(&error.to_string()))),
        RequestError::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, Said::List(Vec::new())),
        RequestError::UnsupportedMediaType(text) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Said::one(text)),
        RequestError::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Said::one(error)),
        RequestError::TooMany(text) => (StatusCode::TOO_MANY_REQUESTS, Said::one(text)),
        RequestError::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, Said::one(error)),
        RequestError::LeaseCountExceeded { path: _, limit, max_leases, retry_secs } => {
            let when = retry_secs.map_or_else(String::new, |secs| format!("; the next one ends in {secs} s"));
            // After a limit was lowered there may be more.
            let hint = format!(
                "{limit} allows {}, and no fewer stand: revoke some, or wait until fewer do{when}",
                counted(*max_leases, "lease")
            );
            (StatusCode::TOO_MANY_REQUESTS, Said::List(vec![multi(&error.to_string()), hint]))
        }
        RequestError::Engine(text) => (StatusCode::INTERNAL_SERVER_ERROR, Said::one(multi(text))),
        RequestError::SealRefused(text) => (StatusCode::INTERNAL_SERVER_ERROR, Said::one(text)),
        RequestError::Sealed => (StatusCode::SERVICE_UNAVAILABLE, Said::one(error)),
        RequestError::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, Said::one(text)),
        // The details are the operator's, as with any other failure of the store.
        RequestError::Storage(StorageError::Unavailable(_) | StorageError::Expelled | StorageError::Overtaken) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Said::one(format!("the storage is unavailable, try again; request id {request_id}")),
        ),
        RequestError::Sandbox(_) | RequestError::Storage(_) | RequestError::Audit | RequestError::Internal(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, internal())
        }
    }
}

pub(crate) fn of_request(error: &RequestError, request_id: &str) -> Response<Payload> {
    let (status, said) = said_of(error, request_id);
    let mut answer = response(status, said);
    match error.bare() {
        RequestError::RateLimited { retry_secs, counts, path: _ } => {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_secs));
            if let Some(counts) = counts {
                envelope::put_counts(answer.headers_mut(), *counts);
            }
        }
        RequestError::LeaseCountExceeded { retry_secs: Some(secs), .. } => {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*secs));
        }
        _ if status == StatusCode::TOO_MANY_REQUESTS => {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    answer
}

fn response(status: StatusCode, said: Said) -> Response<Payload> {
    let errors = match said {
        Said::Nothing => return envelope::response(status, None, Payload::empty()),
        Said::List(errors) => errors,
        Said::Redirect(to, page) => {
            let kind = page.is_some().then_some(HeaderValue::from_static("text/html; charset=utf-8"));
            let mut answer = envelope::response(status, kind, page.map_or_else(Payload::empty, Payload::from));
            if let Ok(to) = HeaderValue::try_from(to) {
                answer.headers_mut().insert(header::LOCATION, to);
            }
            return answer;
        }
    };
    #[derive(Serialize)]
    struct Errors {
        errors: Vec<String>,
    }
    envelope::json(status, JSON, &Errors { errors })
}

fn multi(text: &str) -> String {
    format!("1 error occurred:\n\t* {text}\n\n")
}

fn page(to: &str) -> String {
    format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", to.replace('&', "&amp;"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use leasehold_core::seams::sandbox::SandboxError;

    async fn shown(response: Response<Payload>) -> (u16, String) {
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_failure_has_its_status_and_form() {
        let e = |text: &str| format!("{{\"errors\":[\"{text}\"]}}\n");
        let m = |text: &str| e(&format!("1 error occurred:\\n\\t* {text}\\n\\n"));
        let none = "{\"errors\":[]}\n".to_owned();
        let text = || "x \"<y".to_owned();
        let quoted = "x \\\"\\u003cy";
        for (error, status, body) in [
            (RequestError::Invalid(text()), 400, e(quoted)),
            (RequestError::InvalidMulti(text()), 400, m(quoted)),
            (
                RequestError::InvalidMulti(text()).with_help("write \"z\"").with_help("then go"),
                400,
                "{\"errors\":[\"1 error occurred:\\n\\t* x \\\"\\u003cy\\n\\n\",\"write \\\"z\\\"\",\"then go\"]}\n"
                    .to_owned(),
            ),
            (RequestError::LoginRefused { said: "no", reason: text() }, 400, e("no")),
            (RequestError::LoginIncomplete("missing password"), 500, e("missing password")),
            (RequestError::LoginDenied { reason: text() }, 403, e("permission denied")),
            (RequestError::BadToken, 403, e("permission denied")),
            (RequestError::Denied, 403, m("permission denied")),
            (RequestError::Forbidden(text()), 403, e(quoted)),
            (RequestError::NotFound, 404, none.clone()),
            (RequestError::NoRoute(text()), 404, e(quoted)),
            (RequestError::UnsupportedPath, 404, m("unsupported path")),
            (RequestError::Missing(text()), 404, m(quoted)),
            (RequestError::NotOffered(text()), 404, m(&format!("unsupported path: {quoted}"))),
            (RequestError::UnsupportedOperation, 405, m("unsupported operation")),
            (RequestError::MethodNotAllowed, 405, none),
            (RequestError::UnsupportedMediaType(text()), 415, e(quoted)),
            (RequestError::BodyTooLarge, 413, e("http: request body too large")),
            (RequestError::TooMany(text()), 429, e(quoted)),
            (
                RequestError::RateLimited { path: "a/b".to_owned(), retry_secs: 7, counts: None },
                429,
                e("request path \\\"a/b\\\": rate limit quota exceeded"),
            ),
            (RequestError::Engine(text()), 500, m(quoted)),
            (RequestError::SealRefused(text()), 500, e(quoted)),
            (RequestError::Sealed, 503, e("Vault is sealed")),
            (RequestError::Unavailable(text()), 503, e(quoted)),
            (RequestError::Sandbox(SandboxError::Fuel), 500, e("internal error, request id ID")),
            (RequestError::Storage(StorageError::Corrupt(text())), 500, e("internal error, request id ID")),
            (
                RequestError::Storage(StorageError::Unavailable(text())),
                503,
                e("the storage is unavailable, try again; request id ID"),
            ),
            (RequestError::Audit, 500, e("internal error, request id ID")),
            (RequestError::Internal(text()), 500, e("internal error, request id ID")),
        ] {
            assert_eq!(shown(of_request(&error, "ID")).await, (status, body), "{error:?}");
        }
        let module =
            RequestError::DeniedByModule { policy: "freeze".into(), messages: vec!["no changes today".into()] };
        let said =
            "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\",\"no changes today\"]}\n".to_owned();
        assert_eq!(shown(of_request(&module, "ID")).await, (403, said));
    }

    #[tokio::test]
    async fn a_redirect_names_the_clean_path() {
        let answer = of_frontend(&FrontendError::Unclean { to: "/v1/x&y".into(), shows_page: true });
        assert_eq!(answer.headers()["location"], "/v1/x&y");
        assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(shown(answer).await, (307, "<a href=\"/v1/x&amp;y\">Temporary Redirect</a>.\n\n".to_owned()));
        let bare = of_frontend(&FrontendError::Unprintable);
        assert!(bare.headers().get("content-type").is_none());
        assert_eq!(shown(bare).await, (400, String::new()));
    }
}
