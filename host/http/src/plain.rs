//! The few routes that Vault answers outside its framework: other methods are refused before anything else, and
//! `sys/health` lets the caller choose status codes.

use http::Method;
use leasehold_core::request::Object;
use serde_json::Value;

pub(crate) const HEALTH: &str = "sys/health";
pub(crate) const METRICS: &str = "sys/metrics";

/// Whether this method may be used on this path; of other routes the core knows.
pub(crate) fn allows(path: &str, method: &Method) -> bool {
    let is = |allowed: &[Method]| allowed.contains(method);
    match path {
        HEALTH => is(&[Method::GET, Method::HEAD]),
        "sys/seal-status" | "sys/leader" => is(&[Method::GET]),
        "sys/init" => is(&[Method::GET, Method::PUT, Method::POST]),
        "sys/unseal" => is(&[Method::PUT, Method::POST]),
        _ => *method != Method::HEAD,
    }
}

/// Whether the path is one of those, so that OPTIONS is just another method.
pub(crate) fn is_plain(path: &str) -> bool {
    matches!(path, HEALTH | "sys/seal-status" | "sys/leader" | "sys/init" | "sys/unseal")
}

/// Whether a write to this path carries its proof in the body, so that anybody may try one after the other. Mounts may have
/// any path below `auth/`; a write that only looks like a login is counted as well, which costs nobody anything.
pub(crate) fn carries_proof(path: &str) -> bool {
    if let Some(below) = path.strip_prefix("auth/") {
        return below.split('/').skip(1).any(|segment| segment == "login");
    }
    let Some(below) = path.strip_prefix("sys/") else { return false };
    matches!(below, "init" | "unseal" | "wrapping/unwrap" | "wrapping/rewrap" | "wrapping/lookup")
        || [
            "rekey/",
            "rekey-recovery-key/",
            "rotate/root/",
            "rotate/recovery/",
            "generate-root/",
            "generate-root-token/",
        ]
        .iter()
        .any(|prefix| below.starts_with(prefix))
}

/// Whether a route is only there for the root namespace.
pub(crate) fn is_root_only(path: &str) -> bool {
    const ROOT_ONLY: [&str; 11] = [
        "init",
        "seal",
        "unseal",
        "health",
        "rekey",
        "generate-root",
        "metrics",
        "step-down",
        "raw",
        "pprof",
        "in-flight-req",
    ];
    let Some(below) = path.strip_prefix("sys/") else { return false };
    let first = below.split('/').next().unwrap_or_default();
    ROOT_ONLY.contains(&first) || first == "storage"
}

/// The codes that a prober wishes for; unknown parameters are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HealthCodes {
    active: Option<u16>,
    standby: Option<u16>,
    sealed: Option<u16>,
    uninitialized: Option<u16>,
}

impl HealthCodes {
    /// `None`: a code that is no final status.
    pub(crate) fn read(parameters: &Object) -> Option<Self> {
        let code = |name: &str| match parameters.get(name).map(first) {
            None => Some(None),
            Some(text) => text.parse().ok().filter(|code| (200..=999).contains(code)).map(Some),
        };
        let mut codes = Self {
            active: code("activecode")?,
            standby: code("standbycode")?,
            sealed: code("sealedcode")?,
            uninitialized: code("uninitcode")?,
        };
        if codes.standby.is_none() && (parameters.contains_key("standbyok") || parameters.contains_key("perfstandbyok"))
        {
            codes.standby = codes.active.or(Some(200));
        }
        Some(codes)
    }

    /// The wished code in place of the usual one.
    pub(crate) fn apply(&self, status: u16) -> u16 {
        let wished = match status {
            200 => self.active,
            429 => self.standby,
            501 => self.uninitialized,
            503 => self.sealed,
            _ => None,
        };
        wished.unwrap_or(status)
    }
}

fn first(value: &Value) -> &str {
    match value {
        Value::String(text) => text,
        Value::Array(texts) => texts.first().map(first).unwrap_or_default(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn codes(parameters: Value) -> Option<HealthCodes> {
        HealthCodes::read(parameters.as_object().unwrap())
    }

    #[test]
    fn probers_choose_their_codes() {
        let wished =
            codes(json!({"activecode": "299", "sealedcode": "250", "standbyok": "", "haunhealhty": "x"})).unwrap();
        assert_eq!([200, 429, 501, 503, 500].map(|status| wished.apply(status)), [299, 299, 501, 250, 500]);
        assert_eq!(codes(json!({})).unwrap(), HealthCodes::default());
        for bad in ["x", "", "99", "1000", "-1", "199"] {
            assert_eq!(codes(json!({"standbycode": bad})), None, "{bad}");
        }
    }

    #[test]
    fn what_anybody_may_try_again_and_again_is_counted() {
        for path in [
            "auth/userpass/login/alice",
            "auth/team/approle/login",
            "sys/unseal",
            "sys/init",
            "sys/wrapping/unwrap",
            "sys/rekey/update",
            "sys/rekey/verify",
            "sys/generate-root/update",
            "sys/generate-root-token/update",
            "sys/rotate/root/update",
        ] {
            assert!(carries_proof(path), "{path}");
        }
        for path in ["auth/login", "auth/token/create", "sys/seal", "database/creds/login", "sys/wrapping/wrap"] {
            assert!(!carries_proof(path), "{path}");
        }
    }

    #[test]
    fn head_is_for_health_only() {
        assert!(allows("sys/health", &Method::HEAD));
        for path in ["sys/leader", "sys/seal-status", "sys/init", "secret/x"] {
            assert!(!allows(path, &Method::HEAD), "{path}");
        }
        assert!(!allows("sys/health", &Method::POST));
        assert!(allows("sys/mounts", &Method::DELETE));
    }
}
