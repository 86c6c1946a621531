//! YAML as Vault's client writes it: keys in order, lists not indented, quotes only where a reader would err.
//!
//! Lines are never folded, which Vault does at 80 columns; both read back as the same text.

use serde_json::Value;

/// One document, with a newline at its end.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => mapping(&mut text, value, 0, false),
        Value::Array(list) if !list.is_empty() => mapping(&mut text, value, 0, false),
        other => {
            text.push_str(&scalar(other, 0));
            text.push('\n');
        }
    }
    text
}

/// A mapping or a list. `inline` is true where its first line goes on behind a dash.
fn mapping(text: &mut String, value: &Value, depth: usize, inline: bool) {
    let indent = "  ".repeat(depth);
    let mut first = inline;
    let mut begin = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.push_str(&indent);
        }
    };
    match value {
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            for (key, value) in pairs {
                begin(text);
                text.push_str(&scalar(&Value::String(key.clone()), depth));
                text.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        text.push('\n');
                        mapping(text, value, depth + 1, false);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        text.push('\n');
                        mapping(text, value, depth, false);
                    }
                    other => {
                        text.push(' ');
                        text.push_str(&scalar(other, depth + 1));
                        text.push('\n');
                    }
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                begin(text);
                text.push_str("- ");
                match value {
                    Value::Object(inner) if !inner.is_empty() => mapping(text, value, depth + 1, true),
                    Value::Array(inner) if !inner.is_empty() => mapping(text, value, depth + 1, true),
                    other => {
                        text.push_str(&scalar(other, depth + 1));
                        text.push('\n');
                    }
                }
            }
        }
        _ => {}
    }
}

fn scalar(value: &Value, depth: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        Value::String(text) => string(text, depth),
        other => other.to_string(),
    }
}

fn string(text: &str, depth: usize) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    let special = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{85}' | '\u{a0}' | '\u{feff}' | '\u{2028}' | '\u{2029}')
            || c > '\u{ffff}'
    };
    if text.contains(special) {
        return double_quoted(text);
    }
    if text.contains('\n') {
        return block(text, depth);
    }
    if means_something_else(text) {
        return double_quoted(text);
    }
    if needs_single_quotes(text) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    text.to_owned()
}

/// A literal block, unless its first or last lines could not be told from indentation.
fn block(text: &str, depth: usize) -> String {
    let unclear = text.starts_with([' ', '\n']) || text.contains(" \n") || text.ends_with(' ');
    if unclear {
        return double_quoted(text);
    }
    let body = text.trim_end_matches('\n');
    let indicator = match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    };
    let indent = "  ".repeat(depth.max(1));
    let mut shown = indicator.to_owned();
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        shown.push('\n');
        if !line.is_empty() {
            shown.push_str(&indent);
            shown.push_str(line);
        }
    }
    shown
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\0' => quoted.push_str("\\0"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{1b}' => quoted.push_str("\\e"),
            '\u{85}' => quoted.push_str("\\N"),
            '\u{a0}' => quoted.push_str("\\_"),
            '\u{2028}' => quoted.push_str("\\L"),
            '\u{2029}' => quoted.push_str("\\P"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02X}", u32::from(c))),
            '\u{feff}' => quoted.push_str("\\uFEFF"),
            c if c > '\u{ffff}' => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a reader would take the bare text for a number, a switch, nothing or a date.
fn means_something_else(text: &str) -> bool {
    const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ".nan"];
    let lower = text.to_ascii_lowercase();
    let unsigned = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    if WORDS.contains(&lower.as_str()) || unsigned == ".inf" {
        return true;
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.contains(|c: char| c.is_ascii_digit())
    {
        return false;
    }
    let bare: String = unsigned.chars().filter(|&c| c != '_').collect();
    let is_in = |digits: &str, base: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
    let prefixed = [("0x", 16), ("0b", 2), ("0o", 8)]
        .iter()
        .any(|(prefix, base)| bare.strip_prefix(prefix).is_some_and(|rest| is_in(rest, *base)));
    let number = bare.parse::<f64>().is_ok();
    let sixties = bare.contains(':') && bare.split(':').all(|part| is_in(part, 10) || part.parse::<f64>().is_ok());
    prefixed || number || sixties || is_date(text)
}

/// `2026-11-23`, alone or with a time behind it.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let day: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let after = &rest[day.len()..];
    year.len() == 4
        && all_digits(year)
        && month.len() <= 2
        && all_digits(month)
        && (1..=2).contains(&day.len())
        && (after.is_empty() || after.starts_with(['T', 't', ' ']))
}

fn needs_single_quotes(text: &str) -> bool {
    let first_is_special =
        text.starts_with(['#', ',', '[', ']', '{', '}', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`']);
    let first_before_space =
        text.starts_with(['?', '-', ':']) && text[1..].chars().next().is_none_or(char::is_whitespace);
    first_is_special
        || first_before_space
        || text.starts_with("---")
        || text.starts_with("...")
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.contains(": ")
        || text.ends_with(':')
        || text.contains(" #")
}
