//! How values convert, kind by kind, in the words of Vault where one does not.

use serde_json::json;

use super::*;

const SCHEMA: [Field; 7] = [
    Field::visible("s", Kind::Text, ""),
    Field::visible("i", Kind::Int, ""),
    Field::visible("b", Kind::Bool, ""),
    Field::visible("d", Kind::Duration, ""),
    Field::visible("c", Kind::CommaList, ""),
    Field::visible("l", Kind::List, ""),
    Field::visible("m", Kind::KvPairs, ""),
];

fn read(value: Value) -> Result<Fields, FieldError> {
    Fields::coerce(&SCHEMA, value.as_object().unwrap())
}

#[test]
fn values_convert_weakly_as_in_the_field() {
    let fields =
        read(json!({"s": 5, "i": "7", "b": "true", "d": "1h", "c": "a, b", "l": "a,b", "m": ["k=v"], "x": 1})).unwrap();
    assert_eq!((fields.text("s"), fields.int("i"), fields.bool("b")), (Some("5"), Some(7), Some(true)));
    assert_eq!(fields.ttl("d"), Some(Ttl::from_secs(3600)));
    assert_eq!(fields.list("c").unwrap(), ["a", "b"]);
    assert_eq!(fields.list("l").unwrap(), ["a,b"]);
    assert_eq!(fields.pairs("m").unwrap()["k"], "v");
    assert_eq!(fields.unknown().keys().collect::<Vec<_>>(), ["x"]);
}

#[test]
fn numbers_name_their_base_as_in_go() {
    let numbers = [
        ("010", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("0_7", 7),
        ("1_0", 10),
        ("-0x1", -1),
        ("+5", 5),
        ("0", 0),
    ];
    for (text, number) in numbers {
        assert_eq!(go_int(text), Some(number), "{text}");
    }
    for text in ["08", "_1", "1_", "1__0", " 5", "0x", "5x", "-", "+-5", "é", "99999999999999999999"] {
        assert_eq!(go_int(text), None, "{text}");
    }
}

#[test]
fn null_is_the_empty_value_of_a_kind_that_has_one() {
    let fields = read(json!({"s": null, "i": null, "b": null, "l": null, "m": null, "d": null})).unwrap();
    assert_eq!((fields.text("s"), fields.int("i"), fields.bool("b")), (Some(""), Some(0), Some(false)));
    assert_eq!((fields.list("l"), fields.pairs("m")), (Some(&[][..]), Some(&BTreeMap::new())));
    assert!(!fields.has("d") && fields.is_null("d") && fields.is_null("s"));
}

#[test]
fn a_refusal_names_the_field() {
    assert_eq!(
        read(json!({"d": "abc"})).unwrap_err().to_string(),
        "error converting input for field \"d\": time: invalid duration \"abc\""
    );
    assert_eq!(read(json!({"d": -5})).unwrap_err().why, "cannot provide negative value '-5'");
    for (field, value) in [
        ("d", json!(90.5)),
        ("d", json!(true)),
        ("i", json!("x")),
        ("b", json!("maybe")),
        ("s", json!({})),
        ("l", json!({})),
        ("m", json!(["x"])),
    ] {
        assert!(read(json!({ field: value })).is_err(), "{field}");
    }
}

#[test]
fn numbers_are_truths_only_where_they_are_one_or_nought() {
    for (value, read_as) in [
        (json!(1), Some(true)),
        (json!(0), Some(false)),
        (json!(2), None),
        (json!(-1), None),
        (json!(1.0), None),
        (json!(""), Some(false)),
        (json!("T"), Some(true)),
        (json!("yes"), None),
        (json!(true), Some(true)),
        (json!([true]), None),
    ] {
        assert_eq!(boolean(&value).ok(), read_as, "{value}");
    }
}

#[test]
fn an_empty_list_is_an_empty_map_and_no_other_list_is_one() {
    let map = Field::visible("config", Kind::Map, "");
    let read = |value: Value| Fields::coerce(&[map], json!({ "config": value }).as_object().unwrap());
    for empty in [json!([]), json!({}), json!("{}")] {
        assert_eq!(read(empty.clone()).unwrap().any("config"), Some(&json!({})), "{empty}");
    }
    for other in [json!([{}]), json!(["a"]), json!("[]"), json!("a"), json!(5), json!(false)] {
        let why = read(other.clone()).unwrap_err().to_string();
        assert!(why.contains("expected type 'map[string]interface {}'"), "{other}: {why}");
    }
}

/// What a body may hold is counted as it is read. A text in it counts as one, whatever it would become.
#[test]
fn a_long_text_is_no_map() {
    let map = Field::visible("config", Kind::Map, "");
    let read = |len: usize| {
        let text = format!("{{\"a\":[{}0]}}", "0,".repeat(len / 2));
        Fields::coerce(&[map], json!({ "config": text }).as_object().unwrap()).map(drop)
    };
    assert!(read(60 << 10).is_ok());
    let why = read(65 << 10).unwrap_err().to_string();
    assert!(why.contains("more than 65536 bytes"), "{why}");
}

#[test]
fn hidden_fields_are_secret_and_no_module_sees_them() {
    let hidden = Field::hidden("password", Kind::Text, "");
    assert!(hidden.secret && !hidden.visible);
    assert!(SCHEMA.iter().all(|field| field.visible && !field.secret));
}

#[test]
fn an_element_of_the_wrong_type_is_named_by_its_place() {
    let refused = list(&json!(["a", {}])).unwrap_err();
    assert!(refused.starts_with("decoding failed due to the following error(s):\n\n'[1]'"), "{refused}");
}
