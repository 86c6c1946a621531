//! `-output-policy`: the rule that lets a token send this request.
//!
//! Which paths want `sudo` besides is Vault's list of root-protected paths, with those of policy modules.

use super::ApiRequest;

/// A `*` stands for any rest. Case and slashes are as in a request.
const PROTECTED: [&str; 21] = [
    "auth/token/accessors",
    "sys/audit",
    "sys/audit/*",
    "sys/auth/*",
    "sys/config/*",
    "sys/internal/inspect/*",
    "sys/leases",
    "sys/leases/lookup",
    "sys/leases/lookup/*",
    "sys/leases/revoke-force/*",
    "sys/leases/revoke-prefix/*",
    "sys/plugins/catalog/*",
    "sys/raw",
    "sys/raw/*",
    "sys/remount",
    "sys/revoke-force/*",
    "sys/revoke-prefix/*",
    "sys/rotate",
    "sys/rotate/keyring",
    "sys/seal",
    "sys/step-down",
];

/// `sudo` to write, and not to read.
const PROTECTED_WRITES: [&str; 2] = ["sys/modules/*", "sys/policies/egp/*"];

pub(super) fn rule(call: &ApiRequest) -> String {
    let path = call.path.trim_matches('/');
    let of_method: &[&str] = match call.method {
        "GET" if call.query.iter().any(|(name, _)| name == "list") => &["list"],
        "GET" => &["read"],
        "LIST" => &["list"],
        "DELETE" => &["delete"],
        "PATCH" => &["patch"],
        "SCAN" => &["scan"],
        _ => &["create", "update"],
    };
    let writes = !matches!(of_method, ["read" | "list" | "scan"]);
    let is_in = |known: &[&str]| {
        known.iter().any(|known| match known.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == *known,
        })
    };
    let mut capabilities = of_method.to_vec();
    // Lists of leases are protected; a look-up of one is not.
    let one_lease = path == "sys/leases/lookup" && writes;
    if (is_in(&PROTECTED) && !one_lease) || (writes && is_in(&PROTECTED_WRITES)) {
        capabilities.push("sudo");
    }
    let quoted: Vec<String> = capabilities.iter().map(|name| format!("{name:?}")).collect();
    format!("path {path:?} {{\n  capabilities = [{}]\n}}", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_names_what_the_request_needs_and_no_more() {
        for (call, capabilities) in [
            (ApiRequest::get("database/creds/x"), "[\"read\"]"),
            (ApiRequest::put("database/roles/x"), "[\"create\", \"update\"]"),
            (ApiRequest::put("sys/audit/file"), "[\"create\", \"update\", \"sudo\"]"),
            (ApiRequest::put("sys/leases/lookup"), "[\"create\", \"update\"]"),
            (ApiRequest::get("sys/modules/x"), "[\"read\"]"),
            (ApiRequest::put("sys/modules/x"), "[\"create\", \"update\", \"sudo\"]"),
        ] {
            assert_eq!(rule(&call), format!("path \"{}\" {{\n  capabilities = {capabilities}\n}}", call.path));
        }
    }
}
