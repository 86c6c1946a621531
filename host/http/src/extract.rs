//! From a request's head to what is asked: operation, path, parameters, token. Reads no body.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderMap, Method};
use leasehold_core::request::Object;
use leasehold_model::duration::{self, DurationError};
use leasehold_model::{Operation, TokenId, Ttl};

use crate::error::FrontendError;
use crate::limits::RequestLimits;
use crate::{body, path, plain, query};

/// A request's head, understood.
pub(crate) struct Head {
    pub(crate) operation: Operation,
    pub(crate) path: String,
    /// The query's parameters; a write ignores them.
    pub(crate) parameters: Object,
    pub(crate) token: Option<TokenId>,
    /// None: the answer is not to be wrapped.
    pub(crate) wrap_ttl: Option<Ttl>,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// Whether the body belongs to what is asked.
    pub(crate) has_body: bool,
    /// `X-Vault-Namespace` as it was sent, to be echoed.
    pub(crate) namespace: Option<http::HeaderValue>,
}

pub(crate) fn head(parts: &Parts, limits: &RequestLimits) -> Result<Head, FrontendError> {
    let shows_page = parts.method == Method::GET;
    let query = parts.uri.query().unwrap_or_default();
    if query.len() > limits.query_max {
        return Err(FrontendError::UriTooLong);
    }
    // The connection's own bound is coarse: it is that of its read buffer.
    let headers_len: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers_len > limits.headers_max {
        return Err(FrontendError::HeadersTooLarge);
    }
    let path = match path::read(parts.uri.path(), limits.path_max) {
        path::Read::Canonical(path) => path,
        path::Read::Redirect(to) if query.is_empty() => return Err(FrontendError::Unclean { to, shows_page }),
        path::Read::Redirect(to) => return Err(FrontendError::Unclean { to: format!("{to}?{query}"), shows_page }),
        path::Read::Elsewhere => return Err(FrontendError::Elsewhere),
        path::Read::Unprintable => return Err(FrontendError::Unprintable),
        path::Read::Relative => return Err(FrontendError::Relative),
        path::Read::TooLong => return Err(FrontendError::UriTooLong),
    };
    let namespace = namespace(&parts.headers, &path)?;
    let asked = Asked::read(&parts.method, path, query, limits)?;
    if asked.operation == Operation::Patch {
        merge_patch(&parts.headers)?;
    }
    let wrap_ttl = wrap_ttl(&parts.headers, &asked)?;
    Ok(Head {
        operation: asked.operation,
        has_body: matches!(asked.operation, Operation::Update | Operation::Patch),
        path: asked.path,
        parameters: asked.parameters,
        token: token(&parts.headers, limits)?,
        wrap_ttl,
        headers: others(&parts.headers),
        namespace,
    })
}

/// What method, path and query ask for together.
struct Asked {
    operation: Operation,
    path: String,
    parameters: Object,
}

impl Asked {
    fn read(method: &Method, mut path: String, query: &str, limits: &RequestLimits) -> Result<Self, FrontendError> {
        let mut parameters = query::parameters(query, limits.parameters_max)?;
        let first =
            |name: &str| parameters.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value.as_ref());
        if method.as_str() == "HELP" || !first("help").is_empty() {
            return Ok(Self { operation: Operation::Help, path, parameters: Object::new() });
        }
        if *method == Method::OPTIONS && !plain::is_plain(&path) {
            return Err(FrontendError::InternalOnly);
        }
        if !plain::allows(&path, method) {
            return Err(FrontendError::Method);
        }
        let operation = match method.as_str() {
            "GET" => match (flag(first("list"))?, flag(first("scan"))?) {
                (true, true) => return Err(FrontendError::Query),
                (true, false) => {
                    parameters.retain(|(name, _)| name != "list");
                    Operation::List
                }
                (false, true) => {
                    parameters.retain(|(name, _)| name != "scan");
                    Operation::Scan
                }
                (false, false) => Operation::Read,
            },
            "HEAD" => Operation::Read,
            "LIST" => Operation::List,
            "SCAN" => Operation::Scan,
            "POST" | "PUT" => Operation::Update,
            "PATCH" => Operation::Patch,
            "DELETE" => Operation::Delete,
            _ => return Err(FrontendError::Method),
        };
        if matches!(operation, Operation::List | Operation::Scan) && !path.ends_with('/') {
            path.push('/');
        }
        Ok(Self { operation, path, parameters: query::object(parameters) })
    }
}

fn flag(text: &str) -> Result<bool, FrontendError> {
    if text.is_empty() { Ok(false) } else { query::boolean(text).ok_or(FrontendError::Query) }
}

fn merge_patch(headers: &HeaderMap) -> Result<(), FrontendError> {
    match body::media_type(headers) {
        "" => Err(FrontendError::NoMediaType),
        kind if kind.eq_ignore_ascii_case("application/merge-patch+json") => Ok(()),
        kind => Err(FrontendError::MediaType(kind.chars().take(100).collect())),
    }
}

/// There is one namespace, the root.
fn namespace(headers: &HeaderMap, path: &str) -> Result<Option<http::HeaderValue>, FrontendError> {
    let Some(given) = headers.get("x-vault-namespace") else { return Ok(None) };
    let name = given.to_str().unwrap_or("?").trim_matches('/');
    if name.is_empty() {
        return Ok(None);
    }
    if name == "root" {
        return Ok(Some(given.clone()));
    }
    Err(if plain::is_root_only(path) { FrontendError::NotInNamespaces } else { FrontendError::Namespace })
}

/// The first of several, as in Vault. The prefix is case-sensitive.
fn token(headers: &HeaderMap, limits: &RequestLimits) -> Result<Option<TokenId>, FrontendError> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let token = match text("x-vault-token") {
        Some(token) if !token.is_empty() => Some(token.into_owned()),
        _ => text("authorization").and_then(|whole| whole.strip_prefix("Bearer ").map(|token| token.trim().to_owned())),
    };
    match token {
        Some(token) if token.len() > limits.token_max => Err(FrontendError::TokenTooLong(limits.token_max)),
        Some(token) if token.is_empty() => Ok(None),
        token => Ok(token.map(TokenId::new)),
    }
}

/// For how long the answer is to be wrapped. Probes and help are answered as they are: some clients send the header with everything.
fn wrap_ttl(headers: &HeaderMap, asked: &Asked) -> Result<Option<Ttl>, FrontendError> {
    let Some(given) = headers.get("x-vault-wrap-ttl") else { return Ok(None) };
    if plain::is_plain(&asked.path) || asked.operation == Operation::Help {
        return Ok(None);
    }
    match duration::parse_set(&String::from_utf8_lossy(given.as_bytes())) {
        Ok(ttl) => Ok(ttl.if_set()),
        Err(DurationError::Negative(_)) => {
            Err(FrontendError::WrapTtl("requested wrap ttl cannot be negative".to_owned()))
        }
        Err(why) => Err(FrontendError::WrapTtl(why.to_string())),
    }
}

/// What carries a secret stays here.
fn others(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if name == "x-vault-token" || name == AUTHORIZATION || name == PROXY_AUTHORIZATION || name == COOKIE {
            continue;
        }
        kept.entry(name.as_str().to_owned()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use serde_json::{Value, json};

    fn read(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Head, FrontendError> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        head(&parts, &RequestLimits::default())
    }

    fn refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let error = read(method, uri, headers).map(|head| head.path).unwrap_err();
        (crate::error::of_frontend(&error).status().as_u16(), error.to_string())
    }

    #[test]
    fn methods_become_operations() {
        for (method, uri, operation, path) in [
            ("GET", "/v1/a/b", Operation::Read, "a/b"),
            ("GET", "/v1/a?list=false", Operation::Read, "a"),
            ("GET", "/v1/a?list=True", Operation::List, "a/"),
            ("GET", "/v1/a/?list=1", Operation::List, "a/"),
            ("GET", "/v1/a?scan=t", Operation::Scan, "a/"),
            ("LIST", "/v1/a", Operation::List, "a/"),
            ("SCAN", "/v1/a", Operation::Scan, "a/"),
            ("POST", "/v1/a", Operation::Update, "a"),
            ("PUT", "/v1/a", Operation::Update, "a"),
            ("DELETE", "/v1/a", Operation::Delete, "a"),
            ("HEAD", "/v1/sys/health", Operation::Read, "sys/health"),
            ("GET", "/v1/a?help=1", Operation::Help, "a"),
            ("POST", "/v1/a?help=0", Operation::Help, "a"),
            ("HELP", "/v1/a", Operation::Help, "a"),
        ] {
            let head = read(method, uri, &[]).unwrap_or_else(|error| panic!("{method} {uri}: {error}"));
            assert_eq!((head.operation, head.path.as_str()), (operation, path), "{method} {uri}");
        }
        let head =
            read("PATCH", "/v1/a", &[("content-type", "application/merge-patch+json; x=y")]).map(|h| h.operation);
        assert!(matches!(head, Ok(Operation::Patch)));
    }

    #[test]
    fn parameters_are_data_without_what_chose_the_operation() {
        let head =
            read("GET", "/v1/a?list=true&after=x&limit=3&after=y", &[]).map(|head| Value::Object(head.parameters));
        assert_eq!(head.ok(), Some(json!({"after": ["x", "y"], "limit": "3"})));
    }

    #[test]
    fn an_answer_is_wrapped_for_as_long_as_the_header_says_where_there_is_one() {
        let wrapped = |method, path, ttl| {
            let head = read(method, path, &[("x-vault-wrap-ttl", ttl)]).ok().unwrap();
            head.wrap_ttl.map(Ttl::as_secs)
        };
        for (ttl, seconds) in [("1m0s", Some(60)), ("60", Some(60)), ("0", None), ("", None)] {
            assert_eq!(wrapped("GET", "/v1/a", ttl), seconds, "{ttl}");
        }
        assert!(wrapped("GET", "/v1/a", "500ms").is_some(), "asked for, however short");
        for (method, path) in [("GET", "/v1/a?help=1"), ("GET", "/v1/sys/health")] {
            assert_eq!(wrapped(method, path, "60"), None, "nothing to wrap: {method} {path}");
        }
    }

    #[test]
    fn odd_requests_are_refused_before_authentication() {
        let wrap = |ttl| refused("GET", "/v1/a", &[("x-vault-wrap-ttl", ttl)]);
        assert_eq!(refused("GET", "/v1/a?list=x", &[]).0, 400);
        assert_eq!(refused("GET", "/v1/a?list=1&scan=1", &[]).0, 400);
        assert_eq!(refused("HEAD", "/v1/a", &[]).0, 405);
        assert_eq!(refused("TRACE", "/v1/a", &[]).0, 405);
        assert_eq!(refused("POST", "/v1/sys/health", &[]).0, 405);
        assert_eq!(refused("OPTIONS", "/v1/sys/health", &[]).0, 405);
        assert_eq!(refused("OPTIONS", "/v1/a", &[]), (400, "cannot handle internal-only request operation".into()));
        assert_eq!(refused("PATCH", "/v1/a", &[]), (400, "mime: no media type".into()));
        let kind = [("content-type", "application/json")];
        let said = "PATCH requires Content-Type of application/merge-patch+json, provided application/json";
        assert_eq!(refused("PATCH", "/v1/a", &kind), (415, said.into()));
        assert_eq!(refused("GET", "/v1/a", &[("x-vault-namespace", "team")]), (404, "namespace not found".into()));
        let said = (400, "operation unavailable in namespaces".into());
        assert_eq!(refused("GET", "/v1/sys/health", &[("x-vault-namespace", "team")]), said);
        assert_eq!(refused("GET", "/v1//a?b=c", &[]), (307, "the clean path is `/v1/a?b=c`".into()));
        assert_eq!(refused("GET", &format!("/v1/{}", "a".repeat(5_000)), &[]).0, 414);
        assert_eq!(wrap("abc"), (400, "error parsing X-Vault-Wrap-TTL header: time: invalid duration \"abc\"".into()));
        assert_eq!(
            wrap("-5"),
            (400, "error parsing X-Vault-Wrap-TTL header: requested wrap ttl cannot be negative".into())
        );
        assert!(read("GET", "/v1/a", &[("x-vault-namespace", "root/")]).is_ok());
    }

    #[test]
    fn a_token_comes_from_either_header_and_reaches_no_other_place() {
        let shown = |headers: &[(&str, &str)]| {
            let head = read("GET", "/v1/a", headers).ok();
            head.map(|head| (head.token.map(|token| token.expose().to_owned()), head.headers.len()))
        };
        assert_eq!(shown(&[]), Some((None, 0)));
        assert_eq!(shown(&[("x-vault-token", "s.a"), ("authorization", "Bearer s.b")]), Some((Some("s.a".into()), 0)));
        assert_eq!(shown(&[("x-vault-token", ""), ("authorization", "Bearer  s.b ")]), Some((Some("s.b".into()), 0)));
        assert_eq!(shown(&[("authorization", "bearer s.b")]), Some((None, 0)));
        assert_eq!(shown(&[("authorization", "Basic x"), ("x-foo", "1"), ("x-foo", "2")]), Some((None, 1)));
        assert_eq!(refused("GET", "/v1/a", &[("x-vault-token", "x".repeat(9_000).as_str())]).0, 400);
    }
}
