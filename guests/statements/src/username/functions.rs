//! The functions of a template, Vault's and the few of Go's own that make texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::calendar;
use super::evaluate::Value;
use super::parse::Place;

/// More characters at random make no name.
const RANDOM_MAX: i64 = 63;
/// What a function makes may be longer than a name, and is cut later; it may not be long.
const RESULT_MAX: usize = 16_384;

/// The random part of a name.
pub(super) struct Random<'a> {
    bytes: std::slice::Iter<'a, u8>,
    pub drawn: Vec<String>,
}

impl<'a> Random<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), drawn: Vec::new() }
    }

    /// Letters and digits, each equally likely.
    fn base62(&mut self, count: usize) -> Option<String> {
        const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut text = String::with_capacity(count);
        while text.len() < count {
            // 248 = 4 × 62: larger bytes would favour the first characters.
            let byte = *self.bytes.find(|byte| **byte < 248)?;
            text.push(char::from(*ALPHABET.get(usize::from(byte % 62))?));
        }
        self.drawn.push(text.clone());
        Some(text)
    }

    fn uuid(&mut self) -> Option<String> {
        let mut bytes = [0_u8; 16];
        for byte in &mut bytes {
            *byte = *self.bytes.next()?;
        }
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = hex(&bytes);
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        let text = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
        self.drawn.push(text.clone());
        Some(text)
    }
}

#[derive(Debug)]
pub(super) enum Failed {
    /// What is wrong with the argument of this number.
    Argument(usize, String),
    Call(String),
}

/// How many arguments a function takes, at least and at most; none: there is no such function.
pub(super) fn arity(name: &str) -> Option<(usize, usize)> {
    Some(match name {
        "unix_time" | "unix_time_millis" | "uuid" => (0, 0),
        "random" | "uppercase" | "lowercase" | "sha256" | "base64" | "decode_base64" | "hex" | "decode_hex"
        | "timestamp" => (1, 1),
        "truncate" | "truncate_sha256" => (2, 2),
        "replace" => (3, 3),
        "printf" => (1, usize::MAX),
        "print" => (0, usize::MAX),
        _ => return None,
    })
}

pub(super) fn call(
    name: &str,
    arguments: &[(Value, Place)],
    now_millis: u64,
    random: &mut Random<'_>,
) -> Result<Value, Failed> {
    let text = |at: usize| match arguments.get(at) {
        Some((Value::Text(text), _)) => Ok(text.as_str()),
        Some((other, _)) => Err(Failed::Argument(at, format!("expected string; found {}", other.shown()))),
        None => Ok(""),
    };
    let int = |at: usize| match arguments.get(at) {
        Some((Value::Int(number), _)) => Ok(*number),
        Some((Value::Text(text), _)) => Err(Failed::Argument(at, format!("expected integer; found {text:?}"))),
        Some((other, _)) => Err(Failed::Argument(at, format!("expected integer; found {}", other.shown()))),
        None => Ok(0),
    };
    let spent = || Failed::Call("a name takes less randomness than that".to_owned());
    let made = match name {
        "random" => match int(0)? {
            count @ 1..=RANDOM_MAX => random.base62(usize::try_from(count).unwrap_or(0)).ok_or_else(spent)?,
            count => return Err(Failed::Call(format!("length must be from 1 to {RANDOM_MAX} but was {count}"))),
        },
        "uuid" => random.uuid().ok_or_else(spent)?,
        "truncate" => match int(0)? {
            most if most <= 0 => return Err(Failed::Call(format!("max length must be > 0 but was {most}"))),
            most => cut(text(1)?, most).to_owned(),
        },
        "truncate_sha256" => match int(0)? {
            most if most <= 8 => return Err(Failed::Call(format!("max length must be > 8 but was {most}"))),
            most => truncate_sha256(text(1)?, most),
        },
        "uppercase" => text(0)?.to_uppercase(),
        "lowercase" => text(0)?.to_lowercase(),
        "replace" => text(2)?.replace(text(0)?, text(1)?),
        "sha256" => hex(&Sha256::digest(text(0)?)),
        "base64" => STANDARD.encode(text(0)?),
        "hex" => hex(text(0)?.as_bytes()),
        "decode_base64" => decoded(STANDARD.decode(text(0)?).ok(), "base64")?,
        "decode_hex" => decoded(unhex(text(0)?), "hexadecimal")?,
        "unix_time" => (now_millis / 1_000).to_string(),
        "unix_time_millis" => now_millis.to_string(),
        "timestamp" => calendar::formatted(text(0)?, now_millis),
        "print" => printed(arguments),
        "printf" => formatted(text(0)?, arguments.get(1..).unwrap_or_default()),
        other => return Err(Failed::Call(format!("function {other:?} not defined"))),
    };
    if made.len() > RESULT_MAX {
        return Err(Failed::Call(format!("the result is longer than {RESULT_MAX} bytes")));
    }
    Ok(Value::Text(made))
}

/// So many bytes at most, whole characters.
fn cut(text: &str, most: i64) -> &str {
    let mut end = usize::try_from(most).unwrap_or(0).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// What is cut off stands as 8 digits of its hash at the end.
fn truncate_sha256(text: &str, most: i64) -> String {
    if text.len() <= usize::try_from(most).unwrap_or(usize::MAX) {
        return text.to_owned();
    }
    let kept = cut(text, most - 8);
    let hash = hex(&Sha256::digest(text.get(kept.len()..).unwrap_or_default()));
    format!("{kept}{}", hash.get(..8).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn decoded(bytes: Option<Vec<u8>>, what: &str) -> Result<String, Failed> {
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| Failed::Call(format!("the argument is not {what} of a text")))
}

/// Go puts a blank between two operands when neither is a text.
fn printed(arguments: &[(Value, Place)]) -> String {
    let is_text = |value: &Value| matches!(value, Value::Text(_));
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for (value, _) in arguments {
        if before.is_some_and(|before| !is_text(before) && !is_text(value)) {
            text.push(' ');
        }
        text.push_str(&value.shown());
        before = Some(value);
    }
    text
}

/// `%s`, `%v`, `%d`, `%q`, `%x` and `%%`. What does not fit shows as Go shows it.
fn formatted(format: &str, arguments: &[(Value, Place)]) -> String {
    let mut text = String::new();
    let mut arguments = arguments.iter().map(|(value, _)| value);
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let Some(verb) = letters.next() else {
            text.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let Some(value) = arguments.next() else {
            text.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        match (verb, value) {
            ('s' | 'v', Value::Text(_)) | ('d' | 'v', Value::Int(_)) | ('v', Value::Float(_)) => {
                text.push_str(&value.shown())
            }
            ('q', Value::Text(plain)) => text.push_str(&format!("{plain:?}")),
            ('x', Value::Text(plain)) => text.push_str(&hex(plain.as_bytes())),
            ('x', Value::Int(number)) => text.push_str(&format!("{number:x}")),
            (_, Value::Text(plain)) => text.push_str(&format!("%!{verb}(string={plain})")),
            (_, Value::Int(number)) => text.push_str(&format!("%!{verb}(int={number})")),
            (_, Value::Float(number)) => text.push_str(&format!("%!{verb}(float64={number})")),
        }
    }
    let more: Vec<String> = arguments
        .map(|value| match value {
            Value::Text(text) => format!("string={text}"),
            Value::Int(number) => format!("int={number}"),
            Value::Float(number) => format!("float64={number}"),
        })
        .collect();
    if !more.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", more.join(", ")));
    }
    text
}
