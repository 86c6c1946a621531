//! The text of a password policy as a tree of values.
//!
//! Must not know: what a policy means. [`leasehold_hcl`] reads the text; here numbers get their values, and labels become objects.

use leasehold_hcl::text::Lines;
use leasehold_hcl::{Item, Kind, MAX_DEPTH};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Value>),
    /// In the order of the text; a key may stand several times.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The name that Go's decoder has for its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Bool(_) => "bool",
            Self::List(_) => "[]interface {}",
            Self::Object(_) => "[]map[string]interface {}",
        }
    }
}

/// # Errors
/// Where the text is no HCL or JSON and why: `At 3:17: object expected closing RBRACE got: EOF`.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Value)>, String> {
    let items = leasehold_hcl::parse(text)
        .map_err(|error| format!("At {}: {}", Lines::of(text).spoken(error.at), error.message))?;
    object(items)
}

fn object(items: Vec<Item<'_>>) -> Result<Vec<(String, Value)>, String> {
    items.into_iter().map(item).collect()
}

/// `key "label" … { … }` means an object in an object.
fn item(item: Item<'_>) -> Result<(String, Value), String> {
    if item.keys.len() > MAX_DEPTH as usize {
        return Err(format!("nested more than {MAX_DEPTH} deep"));
    }
    let value = value(item.value.kind)?;
    let mut keys = item.keys.into_iter().map(|key| key.name.into_owned());
    let first = keys.next().unwrap_or_default();
    Ok((first, keys.rev().fold(value, |value, label| Value::Object(vec![(label, value)]))))
}

fn value(kind: Kind<'_>) -> Result<Value, String> {
    Ok(match kind {
        Kind::Text(text) => Value::Text(text.into_owned()),
        Kind::Null => Value::Text(String::new()),
        Kind::Bool(flag) => Value::Bool(flag),
        Kind::Integer(text) => integer(text)?,
        Kind::Float(text) => match text.parse::<f64>().ok().filter(|float| float.is_finite()) {
            Some(float) => Value::Float(float),
            None => return Err(format!("strconv.ParseFloat: parsing {text:?}: value out of range")),
        },
        Kind::List(nodes) => Value::List(nodes.into_iter().map(|node| value(node.kind)).collect::<Result<_, _>>()?),
        Kind::Object(items) => Value::Object(object(items)?),
    })
}

/// As Go reads a number that names its own base.
fn integer(text: &str) -> Result<Value, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match (hexadecimal, digits.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (digits, 10),
    };
    let number = i64::from_str_radix(&format!("{sign}{digits}"), radix);
    number.map(Value::Int).map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_and_labels_are_objects_in_objects() {
        let read = parse("a = 0x14, b \"l\" { c = \"\\u20ac\\\"\" /* d */ d = [1.5, true] }\ne = <<X\nf\nX\n").unwrap();
        let object = |key: &str, value| Value::Object(vec![(key.to_owned(), value)]);
        let inner = Value::Object(vec![
            ("c".to_owned(), Value::Text("€\"".to_owned())),
            ("d".to_owned(), Value::List(vec![Value::Float(1.5), Value::Bool(true)])),
        ]);
        let wanted = vec![
            ("a".to_owned(), Value::Int(20)),
            ("b".to_owned(), object("l", inner)),
            ("e".to_owned(), Value::Text("f\n".to_owned())),
        ];
        assert_eq!(read, wanted);
        assert_eq!(
            parse("{\"a\":{\"b\":[1]}}").unwrap(),
            vec![("a".to_owned(), object("b", Value::List(vec![Value::Int(1)])))]
        );
    }

    #[test]
    fn numbers_name_their_base() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("-7", Some(-7)),
            ("010", Some(8)),
            ("0X1f", Some(31)),
            ("08", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(integer(text).ok(), wanted.map(Value::Int), "{text}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        for text in ["a = ".to_owned() + &"[".repeat(20_000), "a {".repeat(20_000), "{\"a\":".repeat(20_000)] {
            assert!(parse(&text).unwrap_err().contains("nested more than"), "{:.40}", text);
        }
        // Each label is an object around the others, and these are taken apart by those who recurse.
        let labels = format!("a {}{{}}", "\"l\" ".repeat(5_000));
        let why = parse(&labels).unwrap_err();
        assert!(why.contains("nested more than"), "{why}");
    }

    proptest! {
        /// Whatever the text is, it ends in a tree or an error.
        #[test]
        fn no_text_panics(text in ".{0,60}", pieces in proptest::collection::vec(
            prop_oneof![Just("a"), Just(" = "), Just("{"), Just("}"), Just("["), Just("]"), Just("\""), Just("\\"),
                Just("\n"), Just("<<E\n"), Just("1e9"), Just("-"), Just("0x"), Just("/*"), Just("*/"), Just("ü")], 0..40)) {
            drop(parse(&text));
            drop(parse(&pieces.concat()));
        }
    }
}
