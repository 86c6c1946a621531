//! Fields of `config/:name` that Vault, OpenBao or other plugins know and this engine does not follow.
//!
//! None is swallowed: what would change security or meaning is refused with the reason, everything else is kept, read back and told.
//! `host/docs/connection-fields.md` lists them; a test reads that page and tries each row.

use leasehold_core::fields::Fields;
use serde_json::Value;

/// When a value of a field asks for something.
#[derive(Clone, Copy)]
enum Asks {
    /// Unless it is empty, zero or false.
    Something,
    /// Whatever it is.
    Always,
}

/// Refused, with the reason.
const REFUSED: [(&str, Asks, &str); 14] = [
    ("rotation_policy", Asks::Something, "write rotation_period or rotation_schedule"),
    ("self_managed", Asks::Something, "an admin logs in for all roles: give username and password"),
    ("auth_type", Asks::Something, "the admin logs in with a password or a client certificate only"),
    ("service_account_json", Asks::Something, "the admin logs in with a password or a client certificate only"),
    ("use_private_ip", Asks::Something, "it is for auth_type=gcp_iam; name the address in connection_url"),
    ("use_psc", Asks::Something, "it is for auth_type=gcp_iam; name the address in connection_url"),
    ("insecure", Asks::Something, "how far the server is verified is said by sslmode in connection_url"),
    ("insecure_tls", Asks::Something, "how far the server is verified is said by sslmode in connection_url"),
    ("skip_verification", Asks::Something, "write verify_connection=false, or sslmode in connection_url"),
    ("tls_skip_verify", Asks::Something, "how far the server is verified is said by sslmode in connection_url"),
    (
        "tls_server_name",
        Asks::Something,
        "write host=NAME&hostaddr=ADDRESS in connection_url: the name is what the certificate must have",
    ),
    ("tls_certificate_key", Asks::Something, "write the PEM texts into tls_certificate and private_key"),
    ("pem_bundle", Asks::Always, "write the PEM texts into tls_ca, tls_certificate and private_key"),
    ("pem_json", Asks::Always, "write the PEM texts into tls_ca, tls_certificate and private_key"),
];

/// Taken, and why that does nothing.
const IDLE: [(&str, &str); 7] = [
    ("tls", "whether TLS is used is said by sslmode in connection_url"),
    ("tls_min_version", "write ssl_min_protocol_version in connection_url"),
    ("connect_timeout", "write connect_timeout in connection_url"),
    ("host", "write the host in connection_url"),
    ("hosts", "write the hosts in connection_url"),
    ("port", "write the port in connection_url"),
    ("database", "write the database in connection_url"),
];

/// What is to be told of the fields that are not this engine's.
///
/// # Errors
/// One of them asks for something that would have to be done.
pub(super) fn judge(fields: &Fields) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for (name, value) in fields.unknown() {
        if let Some((_, asks, why)) = REFUSED.into_iter().find(|(known, ..)| known == name) {
            if matches!(asks, Asks::Always) || asks_something(value) {
                return Err(format!("{name} is not supported: {why}"));
            }
            continue;
        }
        match IDLE.into_iter().find(|(known, _)| known == name) {
            Some((_, why)) => warnings.push(format!("{name} is kept and has no effect: {why}")),
            None => warnings.push(format!("{name:?} is no field of this plugin: it is kept and has no effect")),
        }
    }
    warnings.sort();
    Ok(warnings)
}

fn asks_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => {
            !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "0s" | "false" | "password")
        }
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
