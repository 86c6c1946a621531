//! `-field=NAME`: one value alone, without a newline when it goes into a pipe.

use serde_json::Value;

use super::{Format, json, plain, warnings, yaml};
use crate::client::{Secret, sorted};
use crate::environment::Environment;
use crate::failure::Failure;

/// Prints one field of an envelope.
pub(crate) fn secret_field(env: &mut Environment, format: Format, secret: &Secret, field: &str) -> Result<(), Failure> {
    let Some(value) = field_of(secret, field) else {
        return Err(Failure::Local(format!("Field \"{field}\" not present in secret")));
    };
    if format == Format::Table {
        warnings(env, secret);
    }
    raw_field(env, format, &value)
}

/// Prints a value bare.
pub(crate) fn raw_field(env: &mut Environment, format: Format, value: &Value) -> Result<(), Failure> {
    let text = match format {
        Format::Table | Format::Raw => plain(value),
        Format::Json => json(value),
        Format::Yaml => yaml(value),
        // The pretty format knows no single values.
        Format::Pretty => String::new(),
    };
    if env.prints_colour() {
        env.say(&text)?;
    } else {
        write!(env.stdout, "{text}")?;
    }
    Ok(())
}

fn field_of(secret: &Secret, field: &str) -> Option<Value> {
    let own = if let Some(auth) = &secret.auth {
        match field {
            "token" => Some(Value::from(auth.client_token.clone())),
            "token_accessor" => Some(Value::from(auth.accessor.clone())),
            "token_duration" => Some(Value::from(auth.lease_duration)),
            "token_renewable" => Some(Value::from(auth.renewable)),
            "token_policies" => Some(list(auth.token_policies.as_deref())),
            "identity_policies" => Some(list(auth.identity_policies.as_deref())),
            "policies" => Some(list(auth.policies.as_deref())),
            _ => None,
        }
    } else if let Some(wrap) = &secret.wrap_info {
        match field {
            "wrapping_token" => Some(Value::from(wrap.token.clone())),
            "wrapping_accessor" => Some(Value::from(wrap.accessor.clone())),
            "wrapping_token_ttl" => Some(Value::from(wrap.ttl)),
            "wrapping_token_creation_time" => Some(Value::from(wrap.creation_time.clone())),
            "wrapping_token_creation_path" => Some(Value::from(wrap.creation_path.clone())),
            "wrapped_accessor" => Some(Value::from(wrap.wrapped_accessor.clone())),
            _ => None,
        }
    } else {
        match field {
            "lease_duration" | "refresh_interval" => Some(Value::from(secret.lease_duration)),
            "lease_id" => Some(Value::from(secret.lease_id.clone())),
            "request_id" => Some(Value::from(secret.request_id.clone())),
            "renewable" => Some(Value::from(secret.renewable)),
            "data" => secret
                .data
                .as_ref()
                .map(|data| data.get("data").cloned().unwrap_or_else(|| Value::Object(data.clone()))),
            _ => None,
        }
    };
    let found = own.or_else(|| secret.data.as_ref()?.get(field).cloned());
    found.filter(|value| !value.is_null()).map(sorted)
}

fn list(list: Option<&[String]>) -> Value {
    list.unwrap_or_default().iter().cloned().map(Value::from).collect::<Vec<_>>().into()
}
