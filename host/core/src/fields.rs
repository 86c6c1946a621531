//! Fields of a request: what a route takes, and how Vault's weak typing turns what clients send into it.

use std::collections::BTreeMap;

use leasehold_model::{Timestamp, Ttl, duration};
use serde_json::{Map, Value};

/// A JSON object, in the order the client sent it.
pub type Object = Map<String, Value>;

/// How a field is read (contract.md §1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    /// Integer seconds in answers.
    Duration,
    /// RFC 3339, or seconds of the Unix epoch.
    Time,
    /// A string is split at commas, then trimmed.
    CommaList,
    /// A string makes one element.
    List,
    /// An object of strings, or a list of `k=v`.
    KvPairs,
    /// An object as it stands.
    Map,
    /// Whatever it is.
    Any,
}

#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// Policy modules see its value; of other fields only that they are there. Never true where a secret may stand.
    pub visible: bool,
    /// The value is or may hold a secret.
    pub secret: bool,
    /// The handler refuses a request without it.
    pub required: bool,
    /// What holds when it is not given; empty: the help says it, or nothing does.
    pub default: &'static str,
    /// The only values that are taken; empty: any.
    pub one_of: &'static [&'static str],
    pub help: &'static str,
}

impl Field {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, visible: true, secret: false, required: false, default: "", one_of: &[], help }
    }

    /// A field whose value policy modules may see.
    #[must_use]
    pub const fn visible(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self::new(name, kind, help)
    }

    /// A field whose value may be or hold a secret.
    #[must_use]
    pub const fn hidden(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { visible: false, secret: true, ..Self::new(name, kind, help) }
    }

    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    #[must_use]
    pub const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    #[must_use]
    pub const fn one_of(self, one_of: &'static [&'static str]) -> Self {
        Self { one_of, ..self }
    }
}

/// A value after coercion.
#[derive(Clone, Debug, PartialEq)]
enum Coerced {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Ttl(Ttl),
    Time(Timestamp),
    List(Vec<String>),
    Pairs(BTreeMap<String, String>),
    Any(Value),
}

/// Why a field was refused; Vault's own words, without `Field validation failed: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error converting input for field \"{field}\": {why}")]
pub struct FieldError {
    pub field: String,
    pub why: String,
}

/// The fields that were given, coerced. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Fields {
    values: BTreeMap<&'static str, Coerced>,
    nulls: Vec<&'static str>,
    unknown: Object,
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Fields {
    /// Reads `data` by `schema`. Captured names are not fields: they are skipped here.
    ///
    /// A `null` is the empty value of its kind, as in Vault; where there is none (a length or a point of time) it counts as not given.
    ///
    /// # Errors
    /// A value that does not convert to its kind.
    pub fn coerce(schema: &[Field], data: &Object) -> Result<Self, FieldError> {
        let mut fields = Self::default();
        for (name, value) in data {
            let Some(field) = schema.iter().find(|field| field.name == name) else {
                fields.unknown.insert(name.clone(), value.clone());
                continue;
            };
            if value.is_null() {
                fields.nulls.push(field.name);
                fields.values.extend(empty(field.kind).map(|empty| (field.name, empty)));
                continue;
            }
            let coerced = coerce(field, value).map_err(|why| FieldError { field: field.name.to_owned(), why })?;
            fields.values.insert(field.name, coerced);
        }
        Ok(fields)
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether the field was given as `null`, with which a merge patch removes a value.
    #[must_use]
    pub fn is_null(&self, name: &str) -> bool {
        self.nulls.contains(&name)
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Coerced::Text(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            Coerced::Int(int) => Some(*int),
            _ => None,
        }
    }

    #[must_use]
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.values.get(name)? {
            Coerced::Float(float) => Some(*float),
            _ => None,
        }
    }

    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.values.get(name)? {
            Coerced::Bool(bool) => Some(*bool),
            _ => None,
        }
    }

    #[must_use]
    pub fn ttl(&self, name: &str) -> Option<Ttl> {
        match self.values.get(name)? {
            Coerced::Ttl(ttl) => Some(*ttl),
            _ => None,
        }
    }

    #[must_use]
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        match self.values.get(name)? {
            Coerced::Time(at) => Some(*at),
            _ => None,
        }
    }

    #[must_use]
    pub fn list(&self, name: &str) -> Option<&[String]> {
        match self.values.get(name)? {
            Coerced::List(list) => Some(list),
            _ => None,
        }
    }

    #[must_use]
    pub fn pairs(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        match self.values.get(name)? {
            Coerced::Pairs(pairs) => Some(pairs),
            _ => None,
        }
    }

    #[must_use]
    pub fn any(&self, name: &str) -> Option<&Value> {
        match self.values.get(name)? {
            Coerced::Any(value) => Some(value),
            _ => None,
        }
    }

    /// What the route does not declare: dropped with a warning, or kept by an engine that says so.
    #[must_use]
    pub fn unknown(&self) -> &Object {
        &self.unknown
    }
}

/// What `null` stands for.
fn empty(kind: Kind) -> Option<Coerced> {
    match kind {
        Kind::Text => Some(Coerced::Text(String::new())),
        Kind::Int => Some(Coerced::Int(0)),
        Kind::Float => Some(Coerced::Float(0.0)),
        Kind::Bool => Some(Coerced::Bool(false)),
        Kind::CommaList | Kind::List => Some(Coerced::List(Vec::new())),
        Kind::KvPairs => Some(Coerced::Pairs(BTreeMap::new())),
        Kind::Map => Some(Coerced::Any(Value::Object(Object::new()))),
        Kind::Duration | Kind::Time | Kind::Any => None,
    }
}

fn coerce(field: &Field, value: &Value) -> Result<Coerced, String> {
    Ok(match field.kind {
        Kind::Text => Coerced::Text(scalar(value).ok_or_else(|| expected("string", value))?),
        Kind::Int => Coerced::Int(int(value)?),
        Kind::Float => Coerced::Float(float(value)?),
        Kind::Bool => Coerced::Bool(boolean(value)?),
        Kind::Duration => Coerced::Ttl(length(value)?),
        Kind::Time => Coerced::Time(moment(value)?),
        Kind::CommaList => Coerced::List(match value {
            Value::String(text) => {
                text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
            }
            other => list(other)?,
        }),
        Kind::List => Coerced::List(match value {
            Value::String(text) if text.is_empty() => Vec::new(),
            Value::String(text) => vec![text.trim().to_owned()],
            // As in Vault: elements lose the blanks around them, so that a file's last line end is not kept.
            other => list(other)?.iter().map(|text| text.trim().to_owned()).collect(),
        }),
        Kind::KvPairs => Coerced::Pairs(pairs(field.name, value)?),
        Kind::Map => match value {
            Value::Object(_) => Coerced::Any(value.clone()),
            // Some languages write an empty map as an empty list.
            Value::Array(items) if items.is_empty() => Coerced::Any(Value::Object(Object::new())),
            // What a body may hold was counted before; within a text it was not.
            Value::String(text) if text.len() > MAP_TEXT_MAX => {
                return Err(format!("a text of more than {MAP_TEXT_MAX} bytes is no map"));
            }
            Value::String(text) => Coerced::Any(
                serde_json::from_str::<Value>(text)
                    .ok()
                    .filter(Value::is_object)
                    .ok_or_else(|| expected(OBJECT, value))?,
            ),
            _ => return Err(expected(OBJECT, value)),
        },
        Kind::Any => Coerced::Any(value.clone()),
    })
}

/// The longest text that is read as a map.
const MAP_TEXT_MAX: usize = 64 << 10;

/// Go's name for what JSON calls an object.
const OBJECT: &str = "map[string]interface {}";

fn expected(what: &str, value: &Value) -> String {
    let got = match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "json.Number",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => OBJECT,
    };
    format!("'' expected type '{what}', got unconvertible type '{got}'")
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(if *bool { "1" } else { "0" }.to_owned()),
        _ => None,
    }
}

const NO_INT: &str = "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax";
const NO_BOOL: &str = "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax";

fn float(value: &Value) -> Result<f64, String> {
    let no_float = || "'' cannot parse value as 'float64': strconv.ParseFloat: invalid syntax".to_owned();
    match value {
        Value::Number(number) => number.as_f64().ok_or_else(no_float),
        Value::String(text) if text.is_empty() => Ok(0.0),
        Value::String(text) => text.parse().ok().filter(|float: &f64| float.is_finite()).ok_or_else(no_float),
        Value::Bool(bool) => Ok(f64::from(u8::from(*bool))),
        _ => Err(expected("float64", value)),
    }
}

fn int(value: &Value) -> Result<i64, String> {
    match value {
        // Vault's words; the value is not said back, since nobody knows what a client put there.
        Value::Number(number) => number.as_i64().ok_or_else(|| NO_INT.to_owned()),
        Value::String(text) if text.is_empty() => Ok(0),
        Value::String(text) => go_int(text).ok_or_else(|| NO_INT.to_owned()),
        Value::Bool(bool) => Ok(i64::from(*bool)),
        _ => Err(expected("int", value)),
    }
}

/// As Go reads a number that names its own base: `0x10`, `0b11`, `0o17`, `017`, and `1_000`.
fn go_int(text: &str) -> Option<i64> {
    let (is_negative, bare) = match text.strip_prefix('-') {
        Some(bare) => (true, bare),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match bare.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, bare.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, bare.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, bare.get(2..)?),
        [b'0', _, ..] => (8, bare.get(1..)?),
        _ => (10, bare),
    };
    // Between digits, where the base counts as one.
    let digits = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    if digits.split('_').any(|part| !part.starts_with(|c: char| c.is_digit(base))) {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    i64::try_from(if is_negative { -number } else { number }).ok()
}

fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(bool) => Ok(*bool),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(NO_BOOL.to_owned()),
        },
        Value::String(text) if text.is_empty() => Ok(false),
        Value::String(text) => parse_bool(text).ok_or_else(|| NO_BOOL.to_owned()),
        _ => Err(expected("bool", value)),
    }
}

/// What Go's `strconv.ParseBool` takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A duration of any accepted form; used for headers too.
///
/// # Errors
/// Vault's own words.
pub fn length(value: &Value) -> Result<Ttl, String> {
    match value {
        Value::Number(number) => duration::parse(&number.to_string()).map_err(|e| e.to_string()),
        Value::String(text) => duration::parse(text).map_err(|e| e.to_string()),
        _ => Err("could not parse duration from input".to_owned()),
    }
}

fn moment(value: &Value) -> Result<Timestamp, String> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(secs) => Ok(Timestamp::from_secs(secs)),
            None => Err(format!("strconv.ParseInt: parsing \"{number}\": invalid syntax")),
        },
        Value::String(text) => match text.parse() {
            Ok(secs) => Ok(Timestamp::from_secs(secs)),
            // Nothing but RFC 3339: what reads it here is more generous.
            Err(_) => Timestamp::parse_rfc3339(text)
                .filter(|_| text.as_bytes().get(10) == Some(&b'T') && !text.ends_with(']'))
                .ok_or_else(|| "could not parse string as date and time".to_owned()),
        },
        _ => Err("could not parse time from input type".to_owned()),
    }
}

fn list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(items) => {
            let read = |(at, item): (usize, &Value)| match item {
                Value::Null => Ok(String::new()),
                item => scalar(item).ok_or_else(|| undecodable(at, item)),
            };
            items.iter().enumerate().map(read).collect()
        }
        Value::Object(_) => Err(undecodable(0, value)),
        Value::Number(_) | Value::Bool(_) => Ok(scalar(value).into_iter().collect()),
        other => Err(expected("slice", other)),
    }
}

/// Vault's words for an element of the wrong type.
fn undecodable(at: usize, item: &Value) -> String {
    let why = expected("string", item);
    let why = why.strip_prefix("''").unwrap_or(&why);
    format!("decoding failed due to the following error(s):\n\n'[{at}]'{why}")
}

fn pairs(field: &str, value: &Value) -> Result<BTreeMap<String, String>, String> {
    let pair = |(at, text): (usize, &str)| match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(format!("invalid key pair at index {at} in field \"{field}\"")),
    };
    match value {
        Value::Object(map) => {
            // Vault tries it as a list of one then, and complains of that.
            let read = |(key, v): (&String, &Value)| match v {
                Value::Null => Some((key.clone(), String::new())),
                v => scalar(v).map(|v| (key.clone(), v)),
            };
            map.iter().map(read).collect::<Option<_>>().ok_or_else(|| undecodable(0, value))
        }
        Value::Array(_) | Value::Number(_) | Value::Bool(_) => {
            list(value)?.iter().map(String::as_str).enumerate().map(pair).collect()
        }
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => pairs(field, &object),
            _ => text.split(',').enumerate().map(pair).collect(),
        },
        Value::Null => Ok(BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests;
