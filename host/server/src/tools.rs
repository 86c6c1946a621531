//! What `module inspect`, `module check`, `policy fmt` and `policy lint` do without a server: the same guests and limits, on the user's machine.

use std::sync::Arc;

use leasehold_cli::{FindingSeverity, ModuleRefused, ModuleTools, PolicyFinding};
use leasehold_core::policy;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{
    Diagnostic, ModuleHost as _, ModuleIdentity, ModuleRequest, PolicyReport, PolicySource, Severity,
};
use leasehold_model::{Operation, Timestamp};
use leasehold_sandbox::{Config, Sandbox, inspect_offline};
use serde_json::{Value, json};

use crate::clock::SystemClock;
use crate::guests;

#[derive(Debug)]
pub(crate) struct Offline;

fn refused(why: &dyn std::fmt::Display) -> ModuleRefused {
    ModuleRefused(why.to_string())
}

impl ModuleTools for Offline {
    fn inspect(&self, module: &[u8]) -> Result<Value, ModuleRefused> {
        let facts = inspect_offline(module).map_err(|error| refused(&error))?;
        serde_json::to_value(facts).map_err(|error| refused(&error))
    }

    fn check(&self, module: &[u8], config: &[u8], request: &Value) -> Result<Value, ModuleRefused> {
        let ask = ask(request)?;
        offline(async |sandbox| {
            let digest = sandbox.load(module).await.map_err(|error| refused(&error))?;
            sandbox.configure(&digest, config).await.map_err(|error| refused(&error))?;
            let verdict =
                sandbox.evaluate("", &digest, config, &ask).await.map_err(|unjudged| refused(&unjudged.why))?;
            Ok(json!({
                "decision": verdict.decision,
                "messages": verdict.messages,
                "max_ttl": verdict.max_ttl,
                "annotations": verdict.annotations,
                "fuel": verdict.fuel,
                "digest": digest.0,
            }))
        })
    }

    fn check_policy(&self, text: &str) -> Result<Vec<PolicyFinding>, ModuleRefused> {
        let (name, text) = ("policy".to_owned(), text.into());
        let source = PolicySource { name, text, allow_slashes: false, allow_wildcards: false };
        offline(async |sandbox| {
            let told = |report: PolicyReport| report.diagnostics.into_iter().filter_map(finding).collect();
            policy::check(&sandbox, source).await.map(told).map_err(|error| match error {
                RequestError::Invalid(why) => ModuleRefused(why),
                RequestError::Helped { error, help } => {
                    ModuleRefused(format!("{}\n{help}", error.to_string().trim_end()))
                }
                other => refused(&other),
            })
        })
    }
}

/// None for an error, which would have been the answer.
fn finding(found: Diagnostic) -> Option<PolicyFinding> {
    let severity = match found.severity {
        Severity::Error => return None,
        Severity::Warning => FindingSeverity::Warning,
        Severity::Hint => FindingSeverity::Hint,
    };
    let Diagnostic { code, line, column, message, help, .. } = found;
    Some(PolicyFinding { severity, code, line, column, message, help })
}

/// A sandbox, and a runtime to wait for it.
fn offline<T>(work: impl AsyncFnOnce(Sandbox) -> Result<T, ModuleRefused>) -> Result<T, ModuleRefused> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| refused(&error))?;
    let sandbox =
        Sandbox::new(Config::new(guests::builtins()), Arc::new(SystemClock)).map_err(|error| refused(&error))?;
    runtime.block_on(work(sandbox))
}

const REQUEST_KEYS: [&str; 7] = ["path", "operation", "now", "identity", "parameters", "mount_type", "client_address"];
const IDENTITY_KEYS: [&str; 2] = ["display_name", "token_policies"];

/// A misspelt key would leave its default in place, and the answer would be about another request.
fn only(object: &Value, known: &[&str], what: &str) -> Result<(), ModuleRefused> {
    let unknown =
        object.as_object().into_iter().flat_map(|object| object.keys()).find(|key| !known.contains(&key.as_str()));
    unknown.map_or(Ok(()), |key| Err(ModuleRefused(format!("{what} has no `{key}`: it may have {}", known.join(", ")))))
}

/// The sample request; what is left out is what a first try needs least.
fn ask(request: &Value) -> Result<ModuleRequest, ModuleRefused> {
    only(request, &REQUEST_KEYS, "the request")?;
    only(request.get("identity").unwrap_or(&Value::Null), &IDENTITY_KEYS, "its `identity`")?;
    let text = |name: &str| request.get(name).and_then(Value::as_str).map(str::to_owned);
    let operation = match text("operation").as_deref().unwrap_or("read") {
        "create" => Operation::Create,
        "read" => Operation::Read,
        "update" => Operation::Update,
        "patch" => Operation::Patch,
        "delete" => Operation::Delete,
        "list" => Operation::List,
        "scan" => Operation::Scan,
        "renew" => Operation::Renew,
        "revoke" => Operation::Revoke,
        other => return Err(ModuleRefused(format!("unknown operation `{other}`"))),
    };
    let now = match request.get("now") {
        Some(Value::Number(number)) => number.as_i64().map(Timestamp::from_secs),
        Some(Value::String(text)) => Timestamp::parse_rfc3339(text),
        _ => Some(leasehold_core::seams::host::Clock::now(&SystemClock)),
    };
    let now = now.ok_or_else(|| ModuleRefused("`now` must be Unix seconds or RFC 3339".to_owned()))?;
    let path = text("path").unwrap_or_else(|| "database/creds/readonly".to_owned());
    let identity = request.get("identity").cloned().unwrap_or_default();
    let of_identity = |name: &str| identity.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let parameters = request.get("parameters").and_then(Value::as_object);
    Ok(ModuleRequest {
        id: "check".to_owned(),
        mount_path: path.split_once('/').map_or_else(String::new, |(mount, _)| format!("{mount}/")),
        mount_type: text("mount_type").unwrap_or_else(|| "database".to_owned()),
        path,
        operation,
        parameters: parameters
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), Some(value.to_string())))
            .collect(),
        identity: ModuleIdentity {
            display_name: of_identity("display_name"),
            token_policies: identity
                .get("token_policies")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|policy| policy.as_str().map(str::to_owned))
                .collect(),
            auth_path: "auth/token/create".to_owned(),
            ..ModuleIdentity::default()
        },
        now,
        client_address: text("client_address"),
        attributes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_checked_as_the_server_checks_it() {
        for (text, told) in [
            ("path \"a\" {\n  capabilities = [\"bogus\"]\n}\n", "invalid capability \"bogus\""),
            ("path \"+*\" {\n  capabilities = [\"read\"]\n}\n", "invalid use of wildcards"),
            ("path \"a\" {\n  nosuch = 1\n}\n", "invalid key \"nosuch\""),
        ] {
            let why = Offline.check_policy(text).unwrap_err().0;
            assert!(why.starts_with("failed to parse policy: ") && why.contains(told), "{why}");
        }
        let why = Offline.check_policy("path \"a\" {\n  capabilites = [\"read\"]\n}\n").unwrap_err().0;
        assert!(
            why.ends_with("invalid key \"capabilites\" on line 2\nline 2: did you mean \"capabilities\"?"),
            "{why}"
        );
        assert_eq!(Offline.check_policy("path \"a\" {\n  capabilities = [\"read\"]\n}\n").unwrap(), []);
        let twice = Offline.check_policy("path \"a\" {\n  policy = \"read\"\n  policy = \"deny\"\n}\n").unwrap_err().0;
        assert!(
            twice.starts_with("failed to parse policy: The argument \"policy\" at 3:3 was already set."),
            "{twice}"
        );
    }

    #[test]
    fn what_a_policy_does_not_do_is_found_at_its_place() {
        for (text, code, line, column) in [
            ("path \"a/*/x\" {\n  capabilities = [\"read\"]\n}\n", "literal-star", 1, 6),
            ("# one\npath \"/v1/x\" {\n  capabilities = [\"read\"]\n}\n", "unreachable-rule", 2, 6),
            ("path \"a+b/x\" {\n  capabilities = [\"read\"]\n}\n", "literal-plus", 1, 6),
            ("path \"a/{{identity.nope}}\" {\n  capabilities = [\"read\"]\n}\n", "unknown-template", 1, 6),
            ("path \"sys/policies/+/Prod\" {\n  capabilities = [\"deny\"]\n}\n", "upper-case-name", 1, 6),
            (
                "path \"a/*\" {\n  capabilities = [\"read\"]\n}\npath \"a/+/b/*\" {\n  capabilities = [\"deny\"]\n}\n",
                "unreachable-rule",
                4,
                6,
            ),
        ] {
            let found = Offline.check_policy(text).unwrap();
            let [only] = found.as_slice() else { panic!("{text}: {found:?}") };
            assert_eq!((only.code.as_str(), only.line, only.column), (code, line, column), "{text}");
            assert_eq!(only.severity, FindingSeverity::Warning, "{text}");
        }
    }

    #[test]
    fn a_misspelt_key_of_a_sample_request_is_refused() {
        assert!(ask(&json!({ "path": "a/b", "identity": { "display_name": "token" } })).is_ok());
        for (request, said) in [
            (json!({ "pth": "a/b" }), "the request has no `pth`"),
            (json!({ "identity": { "name": "x" } }), "its `identity` has no `name`"),
        ] {
            let refused = ask(&request).unwrap_err();
            assert!(refused.0.contains(said), "{}", refused.0);
        }
    }
}
