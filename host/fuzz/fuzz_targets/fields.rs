//! Any JSON value as each kind of field.
#![no_main]

use leasehold_core::fields::{Field, Fields, Kind};
use leasehold_core::request::Object;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SCHEMA: [Field; 9] = [
    Field::visible("text", Kind::Text, ""),
    Field::visible("int", Kind::Int, ""),
    Field::visible("bool", Kind::Bool, ""),
    Field::visible("duration", Kind::Duration, ""),
    Field::visible("comma_list", Kind::CommaList, ""),
    Field::visible("list", Kind::List, ""),
    Field::visible("pairs", Kind::KvPairs, ""),
    Field::visible("map", Kind::Map, ""),
    Field::visible("any", Kind::Any, ""),
];

fuzz_target!(|input: (bool, &str)| {
    let (is_json, text) = input;
    let value = if is_json { serde_json::from_str(text).unwrap_or(Value::Null) } else { Value::from(text) };
    for field in SCHEMA {
        let given: Object =
            [(field.name.to_owned(), value.clone()), ("unknown".to_owned(), value.clone())].into_iter().collect();
        match Fields::coerce(&SCHEMA, &given) {
            Ok(fields) => {
                assert_eq!(fields.has(field.name), !value.is_null());
                assert_eq!(fields.unknown().get("unknown"), Some(&value));
                if let Some(list) = fields.list(field.name) {
                    // A list reads as itself.
                    let again: Object = [(field.name.to_owned(), Value::from(list.to_vec()))].into_iter().collect();
                    assert_eq!(
                        Fields::coerce(&SCHEMA, &again).ok().as_ref().and_then(|fields| fields.list(field.name)),
                        Some(list)
                    );
                }
            }
            Err(error) => {
                assert_eq!(error.field, field.name);
                assert!(error.to_string().chars().count() < 1_000, "{error}");
            }
        }
    }
});
