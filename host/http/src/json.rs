//! JSON bodies: decoded by serde_json through a seed that counts, so that a body stops at the first limit and not after it
//! has been built.
//!
//! Errors are Vault's words, not serde_json's: [`in_gos_words`] translates. Invalid UTF-8 and half surrogate pairs are
//! refused (Vault replaces them): what a policy judges must be what was sent. Of equal keys the last counts, as in Vault.

use std::fmt;
use std::mem::size_of;

use leasehold_core::request::Object;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Number, Value};

use crate::limits::{Exhausted, RequestLimits};

/// Why a body was refused. The texts are Vault's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("failed to decode JSON input: {0}")]
    Syntax(String),
    #[error("failed to decode JSON input: json: cannot unmarshal {0} into Go value of type map[string]interface {{}}")]
    NoObject(&'static str),
    #[error("refused JSON input due to high complexity: {0}")]
    Complex(&'static str),
    /// Too many other large bodies are being decoded.
    #[error("the server is busy, try again")]
    Busy,
}

/// Decodes the first value of a body; further ones are checked and ignored, as in Vault. `None`: there is none, or a literal
/// `null`. `cover` is asked for the memory that the decoded body takes, before it takes it.
pub(crate) fn decode(
    body: &[u8],
    limits: &RequestLimits,
    cover: impl FnMut(usize) -> Result<(), Exhausted>,
) -> Result<Option<Object>, JsonError> {
    let mut counter = Counter { limits, cover, strings: 0, memory: 0, covered: 0, open: Vec::new(), refused: None };
    let mut input = Deserializer::from_slice(body);
    let mut first = None;
    while input.end().is_err() {
        counter.open.clear();
        let value = Counting(&mut counter).deserialize(&mut input);
        let value = value
            .map_err(|error| counter.refused.take().unwrap_or_else(|| in_gos_words(&error, body, &counter.open)))?;
        first.get_or_insert(value);
    }
    match first {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(Value::Array(_)) => Err(JsonError::NoObject("array")),
        Some(Value::String(_)) => Err(JsonError::NoObject("string")),
        Some(Value::Number(_)) => Err(JsonError::NoObject("number")),
        Some(Value::Bool(_)) => Err(JsonError::NoObject("bool")),
    }
}

/// A value in a list or map that may have grown to twice its need.
const VALUE_COST: usize = 2 * size_of::<Value>();
/// The same and its place in an index.
const STRING_COST: usize = VALUE_COST + size_of::<String>();
/// Memory is asked for in steps, not for each value.
const STEP: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

struct Counter<'a, C> {
    limits: &'a RequestLimits,
    cover: C,
    strings: usize,
    memory: usize,
    covered: usize,
    /// What the next value stands in, innermost last.
    open: Vec<Open>,
    /// Why the counter stopped the decoder, whose own error says only that it was stopped.
    refused: Option<JsonError>,
}

impl<C: FnMut(usize) -> Result<(), Exhausted>> Counter<'_, C> {
    fn charge<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.limits.json_memory_max {
            return Err(self.refuse(JsonError::Complex("exceeded maximum estimated memory limits")));
        }
        if self.memory > self.covered {
            self.covered = self.memory.saturating_add(STEP);
            if (self.cover)(self.memory).is_err() {
                return Err(self.refuse(JsonError::Busy));
            }
        }
        Ok(())
    }

    fn string<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.strings += 1;
        if self.strings > self.limits.json_strings_max {
            return Err(self.refuse(JsonError::Complex("exceeded maximum number of strings")));
        }
        self.charge(STRING_COST + text.len())
    }

    fn enter<E: serde::de::Error>(&mut self, what: Open) -> Result<(), E> {
        self.charge(VALUE_COST)?;
        if self.open.len() >= self.limits.json_depth_max {
            return Err(self.refuse(JsonError::Complex("exceeded maximum nesting depth")));
        }
        self.open.push(what);
        Ok(())
    }

    fn refuse<E: serde::de::Error>(&mut self, why: JsonError) -> E {
        self.refused = Some(why);
        E::custom("refused")
    }
}

/// Builds a [`Value`] while it counts.
struct Counting<'c, 'a, C>(&'c mut Counter<'a, C>);

impl<'de, C: FnMut(usize) -> Result<(), Exhausted>> DeserializeSeed<'de> for Counting<'_, '_, C> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de, C: FnMut(usize) -> Result<(), Exhausted>> Visitor<'de> for Counting<'_, '_, C> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.0.charge(VALUE_COST)?;
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.0.charge(VALUE_COST)?;
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.0.charge(VALUE_COST)?;
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.charge(VALUE_COST)?;
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.0.charge(VALUE_COST)?;
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.0.string(text)?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.0.enter(Open::Array)?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Counting(self.0))? {
            array.push(item);
        }
        self.0.open.pop();
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.0.enter(Open::Object)?;
        let mut object = Object::new();
        while let Some(key) = entries.next_key_seed(CountingKey(self.0))? {
            object.insert(key, entries.next_value_seed(Counting(self.0))?);
        }
        self.0.open.pop();
        Ok(Value::Object(object))
    }
}

struct CountingKey<'c, 'a, C>(&'c mut Counter<'a, C>);

impl<'de, C: FnMut(usize) -> Result<(), Exhausted>> DeserializeSeed<'de> for CountingKey<'_, '_, C> {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<String, D::Error> {
        input.deserialize_str(self)
    }
}

impl<C: FnMut(usize) -> Result<(), Exhausted>> Visitor<'_> for CountingKey<'_, '_, C> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        self.0.string(text)?;
        Ok(text.to_owned())
    }
}

/// What serde_json stumbled over, as Go's decoder says it. `open` is what the value stands in.
fn in_gos_words(error: &serde_json::Error, body: &[u8], open: &[Open]) -> JsonError {
    if error.is_eof() {
        return JsonError::Syntax("unexpected EOF".to_owned());
    }
    let at = offset(error, body);
    let unexpected = |at: usize, place: &str| {
        let rest = body.get(at..).unwrap_or_default();
        JsonError::Syntax(format!("invalid character {} {place}", quoted(rest)))
    };
    let syntax = |text: &str| JsonError::Syntax(text.to_owned());
    let begin = "looking for beginning of value";
    let byte = body.get(at).copied().unwrap_or_default();
    let before = |at: usize| body.get(..at).unwrap_or_default().iter().rposition(|byte| !byte.is_ascii_whitespace());
    let said = error.to_string();
    // serde_json has no other way to tell its errors apart. The tests hold each of these texts.
    let known = |beginning: &str| said.starts_with(beginning);
    if known("expected `:`") {
        unexpected(at, "after object key")
    } else if known("expected `,` or `]`") {
        unexpected(at, "after array element")
    } else if known("expected `,` or `}`") {
        unexpected(at, "after object key:value pair")
    } else if known("trailing comma") {
        // A comma before the end is the comma's fault.
        unexpected(before(at).unwrap_or(at), begin)
    } else if known("key must be a string") {
        match byte {
            b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => syntax("object member name must be a string"),
            _ => unexpected(at, begin),
        }
    } else if known("expected ident") {
        unexpected(at, &in_literal(body, at))
    } else if known("invalid number") {
        match (byte, open.last()) {
            // A zero at the front is a number by itself.
            (b'0'..=b'9', Some(Open::Array)) => unexpected(at, "after array element"),
            (b'0'..=b'9', Some(Open::Object)) => unexpected(at, "after object key:value pair"),
            (b'0'..=b'9', None) => unexpected(at, "after top-level value"),
            _ => unexpected(at, "in numeric literal"),
        }
    } else if known("number out of range") {
        syntax("json: cannot unmarshal number into Go value of type float64")
    } else if known("control character") {
        unexpected(at, "in string")
    } else if known("invalid unicode code point") {
        syntax("invalid UTF-8 in string")
    } else if known("invalid escape") {
        let is_unicode = body.get(at.wrapping_sub(5)..at.wrapping_sub(3)) == Some(b"\\u".as_slice());
        let start = at.saturating_sub(if is_unicode { 5 } else { 1 });
        JsonError::Syntax(format!("invalid escape sequence `{}` in string", shown(body, start, at + 1)))
    } else if known("lone leading surrogate") || known("unexpected end of hex escape") {
        let start = half_pair(body, at, known("lone"));
        JsonError::Syntax(format!("invalid surrogate pair `{}` in string", shown(body, start, start + 6)))
    } else if byte_is_end(byte) && before(at).is_some_and(|at| body.get(at) == Some(&b':')) {
        syntax("missing value after object key")
    } else {
        unexpected(at, begin)
    }
}

fn byte_is_end(byte: u8) -> bool {
    matches!(byte, b'}' | b']')
}

/// The byte that an error is about: serde_json counts lines from one, and columns as bytes up to and with this one.
fn offset(error: &serde_json::Error, body: &[u8]) -> usize {
    let line = body
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .nth(error.line().wrapping_sub(2))
        .unwrap_or_default();
    (line + error.column()).saturating_sub(1)
}

/// Which literal ends at `at`, and what should stand there.
fn in_literal(body: &[u8], at: usize) -> String {
    for literal in ["null", "true", "false"] {
        for (known, wanted) in literal.char_indices().skip(1) {
            let begun = at.checked_sub(known).and_then(|start| body.get(start..at));
            if begun == literal.as_bytes().get(..known) {
                return format!("in literal {literal} (expecting '{wanted}')");
            }
        }
    }
    "in literal".to_owned()
}

/// Where the surrogate begins that has no other half. A leading one is noticed at what follows it.
fn half_pair(body: &[u8], at: usize, is_escape: bool) -> usize {
    let leads = |start: usize| {
        let digits = body.get(start..start + 4).filter(|escape| escape.starts_with(b"\\u"));
        digits.is_some_and(|escape| {
            matches!(escape.get(2), Some(b'd' | b'D'))
                && matches!(escape.get(3), Some(b'8' | b'9' | b'a' | b'b' | b'A' | b'B'))
        })
    };
    let candidates = if is_escape { [11, 5] } else { [7, 6] };
    let starts = candidates.map(|back| at.saturating_sub(back));
    starts.into_iter().find(|start| leads(*start)).unwrap_or(at.saturating_sub(5))
}

/// An escape sequence. It is too short to show a secret.
fn shown(body: &[u8], start: usize, end: usize) -> String {
    String::from_utf8_lossy(body.get(start..end.min(body.len())).unwrap_or_default()).into_owned()
}

/// The first character of `rest` as Go quotes it. One character shows no secret.
fn quoted(rest: &[u8]) -> String {
    let window = rest.get(..rest.len().min(4)).unwrap_or_default();
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(window.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default(),
    };
    let Some(first) = valid.chars().next() else {
        return format!("'\\x{:02x}'", window.first().copied().unwrap_or_default());
    };
    match first {
        '\'' => "'\\''".to_owned(),
        '\\' => "'\\\\'".to_owned(),
        '\x07' => "'\\a'".to_owned(),
        '\x08' => "'\\b'".to_owned(),
        '\x0c' => "'\\f'".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\r' => "'\\r'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        '\x0b' => "'\\v'".to_owned(),
        c if c < ' ' || c == '\x7f' => format!("'\\x{:02x}'", u32::from(c)),
        '"' => "'\"'".to_owned(),
        c if c.escape_debug().count() == 1 => format!("'{c}'"),
        c if u32::from(c) > 0xffff => format!("'\\U{:08x}'", u32::from(c)),
        c => format!("'\\u{:04x}'", u32::from(c)),
    }
}

#[cfg(test)]
mod tests;
