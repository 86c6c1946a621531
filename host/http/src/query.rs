//! Query strings and form bodies: names and values, decoded once.

use std::borrow::Cow;

use leasehold_core::request::Object;
use percent_encoding::percent_decode;
use serde_json::Value;

/// A form that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    #[error("error parsing form data")]
    Malformed,
    #[error("error parsing form data: more than {0} parameters")]
    TooMany(usize),
}

/// Name and value.
type Parameter<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A query string's parameters, in order. Pairs that cannot be read are left out, as in Vault.
///
/// # Errors
/// Only [`FormError::TooMany`].
pub(crate) fn parameters(query: &str, count_max: usize) -> Result<Vec<Parameter<'_>>, FormError> {
    let mut found = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if found.len() == count_max {
            return Err(FormError::TooMany(count_max));
        }
        found.extend(split(pair.as_bytes()));
    }
    Ok(found)
}

/// A form's fields; unlike a query it must be well formed throughout. Several values of one name are one text with commas,
/// as in Vault: a field that takes a list splits it again.
pub(crate) fn form(body: &[u8], count_max: usize) -> Result<Object, FormError> {
    let mut fields = Object::new();
    for (count, pair) in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).enumerate() {
        if count == count_max {
            return Err(FormError::TooMany(count_max));
        }
        let (name, value) = split(pair).ok_or(FormError::Malformed)?;
        match fields.get_mut(name.as_ref()) {
            Some(Value::String(text)) => {
                text.push(',');
                text.push_str(&value);
            }
            _ => drop(fields.insert(name.into_owned(), value.into_owned().into())),
        }
    }
    Ok(fields)
}

/// A query's parameters as data: one value is a string, several of the same name are a list.
pub(crate) fn object<'a>(parameters: impl IntoIterator<Item = Parameter<'a>>) -> Object {
    let mut object = Object::new();
    for (name, value) in parameters {
        let value = Value::String(value.into_owned());
        match object.get_mut(name.as_ref()) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                object.insert(name.into_owned(), value);
            }
        }
    }
    object
}

/// As Go reads a bool.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn split(pair: &[u8]) -> Option<Parameter<'_>> {
    if pair.contains(&b';') {
        return None;
    }
    let at = pair.iter().position(|byte| *byte == b'=');
    let (name, value) = match at {
        Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
        None => (pair, b"".as_slice()),
    };
    Some((decode(name)?, decode(value)?))
}

fn decode(part: &[u8]) -> Option<Cow<'_, str>> {
    if !part.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return std::str::from_utf8(part).ok().map(Cow::Borrowed);
    }
    for (at, byte) in part.iter().enumerate() {
        let is_hex = |offset: usize| part.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
        if *byte == b'%' && (!is_hex(1) || !is_hex(2)) {
            return None;
        }
    }
    let spaced: Vec<u8> = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn any_form_is_read_or_refused(body in "([ab=&;+]|%[0-9a-f]{2}|%|é){0,20}", count_max in 0_usize..8) {
            crate::properties::any_form_is_read_or_refused(body.as_bytes(), count_max);
        }

        #[test]
        fn no_bytes_make_a_form_fail(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            crate::properties::any_form_is_read_or_refused(&body, 8);
        }
    }

    #[test]
    fn a_form_becomes_fields() {
        let read = |body: &str| form(body.as_bytes(), 10).map(Value::Object);
        assert_eq!(
            read("policy=path%20%22x%22+%7B%7D&b=%C3%A9&c"),
            Ok(json!({"policy": "path \"x\" {}", "b": "é", "c": ""}))
        );
        assert_eq!(read("a=1&a=2&b=x&a=3"), Ok(json!({"a": "1,2,3", "b": "x"})), "attack A12: it was a list");
        assert_eq!(read("a=&a="), Ok(json!({"a": ","})));
        assert_eq!(read("policy=path \"x\" {}"), Ok(json!({"policy": "path \"x\" {}"})));
        for body in ["a=%zz", "a=%", "cas=-1;a=b", "a=%ff"] {
            assert_eq!(read(body), Err(FormError::Malformed), "{body}");
        }
        assert_eq!(read(&"a&".repeat(11)), Err(FormError::TooMany(10)));
    }

    #[test]
    fn a_query_loses_only_what_cannot_be_read() {
        let read = parameters("list=true&a=%zz&b;c&d=+x", 10).unwrap();
        assert_eq!(read, [("list".into(), "true".into()), ("d".into(), " x".into())]);
    }
}
