//! What holds for every path, body and query: asked by the tests with texts that are likely to matter, by the fuzz targets with
//! any.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::json::{self, JsonError};
use crate::limits::RequestLimits;
use crate::path::{self, Read};
use crate::query;

/// A canonical path is canonical; whoever follows a redirect arrives, here and in one step; spelling it otherwise gives the same.
pub fn any_path_is_read_to_one_path(raw: &str) {
    match path::read(raw, usize::MAX) {
        Read::Canonical(path) => {
            has_no_detours(&path);
            let encoded = format!("/v1/{}", utf8_percent_encode(&path, NON_ALPHANUMERIC));
            assert_eq!(path::read(&encoded, usize::MAX), Read::Canonical(path), "{encoded}");
        }
        Read::Redirect(to) => {
            assert!(
                to.starts_with('/') && !to.starts_with("//") && to.bytes().all(|byte| byte.is_ascii_graphic()),
                "{to}"
            );
            match path::read(&to, usize::MAX) {
                Read::Canonical(path) => has_no_detours(&path),
                Read::Elsewhere => {}
                other => panic!("{raw:?} leads to {to}, and that to {other:?}"),
            }
        }
        Read::Elsewhere | Read::Unprintable | Read::Relative => {}
        Read::TooLong => panic!("there was no limit"),
    }
    assert_eq!(path::read(raw, raw.len().saturating_sub(1)) == Read::TooLong, !raw.is_empty());
}

fn has_no_detours(path: &str) {
    assert!(!format!("/{path}").contains("//"), "{path:?}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path:?}");
    assert!(!path.chars().any(char::is_control), "{path:?}");
}

/// What is taken is what another decoder takes, and comes out the same when it is written and read again. A refusal shows no more
/// of the body than a character or an escape.
pub fn any_body_is_read_or_refused(before: &[u8], after: &[u8]) {
    const CANARY: &str = "cAn4ry";
    let whole = [before, CANARY.as_bytes(), after].concat();
    for body in [before, whole.as_slice()] {
        let limits = RequestLimits::default();
        let read = json::decode(body, &limits, |_| Ok(()));
        let other = serde_json::from_slice::<Value>(body);
        match read {
            Err(error) => {
                let said = format!("{error} {error:?}");
                assert!(!said.contains(CANARY), "{said}");
                let taken = other.is_ok_and(|value| value.is_object() || value.is_null());
                assert!(!taken || matches!(error, JsonError::Complex(_)), "{error}");
            }
            Ok(None) => assert!(other.map_or(true, |value| value.is_null())),
            Ok(Some(object)) => {
                // Behind the first value further ones may stand.
                if let Ok(other) = other {
                    assert_eq!(Value::Object(object.clone()), other);
                }
                let written = serde_json::to_vec(&object).unwrap_or_default();
                let roomy = RequestLimits { json_memory_max: usize::MAX, ..limits };
                let again = json::decode(&written, &roomy, |_| Ok(()));
                let again = again.unwrap_or_else(|error| panic!("it does not read back: {error}")).unwrap_or_default();
                assert!(is_same(&Value::Object(again), &Value::Object(object)));
            }
        }
    }
}

/// Equal but for the last bits of a fraction, which decimal digits need not keep.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
            one == other || (one - other).abs() <= one.abs() * 1e-15
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| is_same(one, other)))
        }
        (one, other) => one == other,
    }
}

/// A form that is taken is taken as a query too, which lists what the form joins, and says the same when it is written and
/// read again.
pub fn any_form_is_read_or_refused(body: &[u8], count_max: usize) {
    let parameters = std::str::from_utf8(body).ok().and_then(|text| query::parameters(text, count_max).ok());
    assert!(parameters.as_ref().is_none_or(|found| found.len() <= count_max));
    let Ok(fields) = query::form(body, count_max) else { return };
    if let Some(parameters) = parameters {
        let joined = query::object(parameters).into_iter().map(|(name, value)| match value {
            Value::Array(values) => {
                (name, values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into())
            }
            one => (name, one),
        });
        assert_eq!(joined.collect::<serde_json::Map<_, _>>(), fields);
    }
    let mut pairs = Vec::new();
    for (name, value) in &fields {
        let text = value.as_str().unwrap_or_default();
        let [name, text] = [name, text].map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string());
        pairs.push(format!("{name}={text}"));
    }
    assert!(pairs.len() <= count_max);
    assert_eq!(query::form(pairs.join("&").as_bytes(), count_max).as_ref(), Ok(&fields));
}
