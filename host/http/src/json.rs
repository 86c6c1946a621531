//! JSON bodies: counted and checked by a scan that allocates nothing, then decoded by serde_json.
//!
//! The scan finds what Vault's decoder would find, in its words, and stops at the first limit; serde_json sees only
//! what is well formed and small enough. Invalid UTF-8 and half surrogate pairs are refused (Vault replaces them):
//! what a policy judges must be what was sent.

use std::mem::size_of;

use leasehold_core::request::Object;
use serde_json::Value;

use crate::limits::RequestLimits;

/// Why a body was refused. The texts are Vault's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("failed to decode JSON input: {0}")]
    Syntax(String),
    #[error("failed to decode JSON input: json: cannot unmarshal {0} into Go value of type map[string]interface {{}}")]
    NoObject(&'static str),
    #[error("refused JSON input due to high complexity: {0}")]
    Complex(&'static str),
}

/// A body that passed the scan.
#[derive(Debug)]
pub(crate) struct Scanned<'a> {
    /// The first value; further ones are ignored, as in Vault. Empty: there is none.
    first: &'a [u8],
    /// Estimated bytes of the decoded body.
    pub(crate) memory: usize,
}

/// Checks syntax and limits.
pub(crate) fn scan<'a>(body: &'a [u8], limits: &RequestLimits) -> Result<Scanned<'a>, JsonError> {
    let mut scan = Scan { body, at: 0, strings: 0, memory: 0, limits, open: Vec::new() };
    let first = scan.run()?;
    Ok(Scanned { first, memory: scan.memory })
}

impl Scanned<'_> {
    /// `None`: no body, or a literal `null`.
    pub(crate) fn decode(&self) -> Result<Option<Object>, JsonError> {
        if self.first.is_empty() {
            return Ok(None);
        }
        let value = serde_json::from_slice(self.first).map_err(|error| {
            // The scan has left only numbers to stumble over.
            JsonError::Syntax(match error.classify() {
                serde_json::error::Category::Syntax => {
                    "json: cannot unmarshal number into Go value of type float64".to_owned()
                }
                _ => "unexpected EOF".to_owned(),
            })
        })?;
        match value {
            Value::Object(object) => Ok(Some(object)),
            Value::Null => Ok(None),
            Value::Array(_) => Err(JsonError::NoObject("array")),
            Value::String(_) => Err(JsonError::NoObject("string")),
            Value::Number(_) => Err(JsonError::NoObject("number")),
            Value::Bool(_) => Err(JsonError::NoObject("bool")),
        }
    }
}

/// A value in a list or map that may have grown to twice its need.
const VALUE_COST: usize = 2 * size_of::<Value>();
/// The same and its place in an index.
const STRING_COST: usize = VALUE_COST + size_of::<String>();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

struct Scan<'a, 'l> {
    body: &'a [u8],
    at: usize,
    strings: usize,
    memory: usize,
    limits: &'l RequestLimits,
    open: Vec<Open>,
}

impl<'a> Scan<'a, '_> {
    fn run(&mut self) -> Result<&'a [u8], JsonError> {
        let mut first = None;
        loop {
            self.skip_blanks();
            let start = self.at;
            if self.peek().is_none() {
                return Ok(first.unwrap_or_default());
            }
            self.value()?;
            let found = self.body.get(start..self.at).unwrap_or_default();
            first.get_or_insert(found);
        }
    }

    /// One whole value, without recursion.
    fn value(&mut self) -> Result<(), JsonError> {
        self.open.clear();
        self.begin()?;
        while let Some(open) = self.open.last().copied() {
            self.skip_blanks();
            let next = self.peek().ok_or_else(eof)?;
            match (open, next) {
                (Open::Array, b']') | (Open::Object, b'}') => {
                    self.at += 1;
                    self.open.pop();
                    self.after()?;
                }
                (Open::Array, _) => self.begin()?,
                (Open::Object, b'"') => {
                    self.string()?;
                    self.skip_blanks();
                    match self.peek().ok_or_else(eof)? {
                        b':' => self.at += 1,
                        _ => return Err(self.unexpected("after object key")),
                    }
                    self.skip_blanks();
                    if matches!(self.peek(), Some(b'}' | b']')) {
                        return Err(JsonError::Syntax("missing value after object key".to_owned()));
                    }
                    self.begin()?;
                }
                (Open::Object, b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                    return Err(JsonError::Syntax("object member name must be a string".to_owned()));
                }
                (Open::Object, _) => return Err(self.unexpected("looking for beginning of value")),
            }
        }
        Ok(())
    }

    /// The start of a value, or all of it when it is no list and no object.
    fn begin(&mut self) -> Result<(), JsonError> {
        match self.peek().ok_or_else(eof)? {
            b'{' => return self.open(Open::Object),
            b'[' => return self.open(Open::Array),
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => {
                self.charge(VALUE_COST)?;
                self.number()?;
            }
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return Err(self.unexpected("looking for beginning of value")),
        }
        self.after()
    }

    fn open(&mut self, what: Open) -> Result<(), JsonError> {
        self.charge(VALUE_COST)?;
        if self.open.len() >= self.limits.json_depth_max {
            return Err(JsonError::Complex("exceeded maximum nesting depth"));
        }
        self.open.push(what);
        self.at += 1;
        Ok(())
    }

    /// What may follow a value: a comma and more, or the end of what it stands in.
    fn after(&mut self) -> Result<(), JsonError> {
        let Some(open) = self.open.last().copied() else { return Ok(()) };
        self.skip_blanks();
        match (open, self.peek().ok_or_else(eof)?) {
            (Open::Array, b']') | (Open::Object, b'}') => Ok(()),
            (_, b',') => {
                let comma = self.at;
                self.at += 1;
                self.skip_blanks();
                // A comma before the end is the comma's fault.
                if matches!(self.peek(), Some(b']' | b'}' | b',')) {
                    self.at = comma;
                    return Err(self.unexpected("looking for beginning of value"));
                }
                Ok(())
            }
            (Open::Array, _) => Err(self.unexpected("after array element")),
            (Open::Object, _) => Err(self.unexpected("after object key:value pair")),
        }
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.strings += 1;
        if self.strings > self.limits.json_strings_max {
            return Err(JsonError::Complex("exceeded maximum number of strings"));
        }
        let start = self.at + 1;
        self.at = start;
        let mut is_ascii = true;
        loop {
            let byte = self.peek().ok_or_else(eof)?;
            match byte {
                b'"' => break,
                b'\\' => self.escape()?,
                0..=0x1f => return Err(self.unexpected("in string")),
                _ => {
                    is_ascii &= byte.is_ascii();
                    self.at += 1;
                }
            }
        }
        let content = self.body.get(start..self.at).unwrap_or_default();
        if !is_ascii && std::str::from_utf8(content).is_err() {
            return Err(JsonError::Syntax("invalid UTF-8 in string".to_owned()));
        }
        self.at += 1;
        self.charge(STRING_COST + content.len())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        match self.peek().ok_or_else(eof)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let unit = self.unit(start)?;
                match unit {
                    0xdc00..=0xdfff => return Err(self.half_pair(start)),
                    0xd800..=0xdbff => {
                        let second = self.at;
                        if self.body.get(second..second + 2) != Some(b"\\u".as_slice()) {
                            return Err(self.half_pair(start));
                        }
                        self.at += 1;
                        if !(0xdc00..=0xdfff).contains(&self.unit(second)?) {
                            return Err(self.half_pair(start));
                        }
                    }
                    _ => {}
                }
            }
            _ => return Err(self.bad_escape(start, 2)),
        }
        Ok(())
    }

    /// The four digits after `\u`; stands on the `u`.
    fn unit(&mut self, start: usize) -> Result<u32, JsonError> {
        let mut unit = 0;
        for at in self.at + 1..self.at + 5 {
            let digit = *self.body.get(at).ok_or_else(eof)?;
            let digit = char::from(digit).to_digit(16).ok_or_else(|| self.bad_escape(start, 6))?;
            unit = unit * 16 + digit;
        }
        self.at += 5;
        Ok(unit)
    }

    fn bad_escape(&self, start: usize, len: usize) -> JsonError {
        let end = (start + len).min(self.body.len());
        let shown = String::from_utf8_lossy(self.body.get(start..end).unwrap_or_default()).into_owned();
        JsonError::Syntax(format!("invalid escape sequence `{shown}` in string"))
    }

    fn half_pair(&self, start: usize) -> JsonError {
        let shown = String::from_utf8_lossy(self.body.get(start..start + 6).unwrap_or_default()).into_owned();
        JsonError::Syntax(format!("invalid surrogate pair `{shown}` in string"))
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.digit()? {
            b'0' => {}
            _ => self.skip_digits(),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit()?;
            self.skip_digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit()?;
            self.skip_digits();
        }
        Ok(())
    }

    fn digit(&mut self) -> Result<u8, JsonError> {
        match self.peek().ok_or_else(eof)? {
            digit @ b'0'..=b'9' => {
                self.at += 1;
                Ok(digit)
            }
            _ => Err(self.unexpected("in numeric literal")),
        }
    }

    fn skip_digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), JsonError> {
        self.charge(VALUE_COST)?;
        for wanted in literal.bytes() {
            if self.peek().ok_or_else(eof)? != wanted {
                return Err(self.unexpected(&format!("in literal {literal} (expecting '{}')", char::from(wanted))));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), JsonError> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.limits.json_memory_max {
            return Err(JsonError::Complex("exceeded maximum estimated memory limits"));
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, place: &str) -> JsonError {
        let rest = self.body.get(self.at..).unwrap_or_default();
        JsonError::Syntax(format!("invalid character {} {place}", quoted(rest)))
    }
}

fn eof() -> JsonError {
    JsonError::Syntax("unexpected EOF".to_owned())
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &[u8]) -> Result<Option<Object>, String> {
        scan(body, &RequestLimits::default()).and_then(|scanned| scanned.decode()).map_err(|error| error.to_string())
    }

    /// Each row as OpenBao 2.7.2 answers it.
    #[test]
    fn what_is_no_json_is_refused_in_the_fields_words() {
        let begin = "looking for beginning of value";
        for (body, said) in [
            ("b", format!("invalid character 'b' {begin}")),
            ("{", "unexpected EOF".to_owned()),
            ("{\"a\"", "unexpected EOF".to_owned()),
            ("{\"a\":1", "unexpected EOF".to_owned()),
            ("{\"a\":1}x", format!("invalid character 'x' {begin}")),
            ("{\"a\":}", "missing value after object key".to_owned()),
            ("{\"a\":1,}", format!("invalid character ',' {begin}")),
            ("{\"a\":1,,}", format!("invalid character ',' {begin}")),
            ("{,}", format!("invalid character ',' {begin}")),
            ("[,1]", format!("invalid character ',' {begin}")),
            ("[1,]", format!("invalid character ',' {begin}")),
            ("[1 2]", "invalid character '2' after array element".to_owned()),
            ("{\"a\":[1}", "invalid character '}' after array element".to_owned()),
            ("{a:1}", format!("invalid character 'a' {begin}")),
            ("{'a':1}", format!("invalid character '\\'' {begin}")),
            ("{1:2}", "object member name must be a string".to_owned()),
            ("nul", "unexpected EOF".to_owned()),
            ("nulx", "invalid character 'x' in literal null (expecting 'l')".to_owned()),
            ("{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')".to_owned()),
            ("{\"a\":\"x", "unexpected EOF".to_owned()),
            ("{\"a\":\"\\q\"}", "invalid escape sequence `\\q` in string".to_owned()),
            ("{\"a\":\"\\u12g4\"}", "invalid escape sequence `\\u12g4` in string".to_owned()),
            ("{\"a\":\"\\u12", "unexpected EOF".to_owned()),
            ("{\"a\":\"\x01\"}", "invalid character '\\x01' in string".to_owned()),
            ("{\"a\":\"é\x02\"}", "invalid character '\\x02' in string".to_owned()),
            ("{\"a\":\"\n\"}", "invalid character '\\n' in string".to_owned()),
            ("{\"a\":01}", "invalid character '1' after object key:value pair".to_owned()),
            ("{\"a\":1x}", "invalid character 'x' after object key:value pair".to_owned()),
            ("{\"a\":-}", "invalid character '}' in numeric literal".to_owned()),
            ("{\"a\":1.}", "invalid character '}' in numeric literal".to_owned()),
            ("{\"a\":1e+}", "invalid character '}' in numeric literal".to_owned()),
            ("{\"a\":1.5.5}", "invalid character '.' after object key:value pair".to_owned()),
            ("{\"a\" 1}", "invalid character '1' after object key".to_owned()),
            ("{\"a\",}", "invalid character ',' after object key".to_owned()),
            ("{\"a\"}", "invalid character '}' after object key".to_owned()),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair".to_owned()),
            ("{\"a\":1]", "invalid character ']' after object key:value pair".to_owned()),
            ("{\"a\":1}}", format!("invalid character '}}' {begin}")),
            ("]", format!("invalid character ']' {begin}")),
            ("{\"a\":é}", format!("invalid character 'é' {begin}")),
            ("\u{feff}{}", format!("invalid character '\\ufeff' {begin}")),
            ("{\"a\":\t\x0b1}", format!("invalid character '\\v' {begin}")),
            ("\0", format!("invalid character '\\x00' {begin}")),
            // Ours: what Vault replaces with U+FFFD is refused.
            ("{\"a\":\"\\ud800\"}", "invalid surrogate pair `\\ud800` in string".to_owned()),
            ("{\"a\":\"\\uD83D\\u0041\"}", "invalid surrogate pair `\\uD83D` in string".to_owned()),
        ] {
            assert_eq!(read(body.as_bytes()), Err(format!("failed to decode JSON input: {said}")), "{body:?}");
        }
        assert!(read(b"\xe9").unwrap_err().contains("invalid character '\\xe9' looking"));
        assert!(read(b"{\"a\":\"\xff\"}").unwrap_err().contains("invalid UTF-8"));
    }

    #[test]
    fn only_objects_carry_data() {
        for (body, what) in [("[]", "array"), ("[1]", "array"), ("\"s\"", "string"), ("1", "number"), ("true", "bool")]
        {
            let said = format!(
                "failed to decode JSON input: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            );
            assert_eq!(read(body.as_bytes()), Err(said));
        }
        for body in ["", "null", " \n\t", "null null"] {
            assert_eq!(read(body.as_bytes()), Ok(None), "{body:?}");
        }
        // The last of equal keys counts, and the first of several values: nobody else sees the others.
        let object = read(b"{\"a\":1,\"a\":2} {\"a\":3}").unwrap().unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), "{\"a\":2}");
    }

    #[test]
    fn complexity_is_bounded_before_anything_is_built() {
        let list = |item: &str, count: usize| format!("{{\"a\":[{}]}}", vec![item; count].join(","));
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(list("\"s\"", 999).as_bytes()).is_ok());
        let refused = |what: &str| Err(format!("refused JSON input due to high complexity: {what}"));
        assert_eq!(read(list("\"s\"", 1_000).as_bytes()), refused("exceeded maximum number of strings"));
        assert_eq!(read(list("1", 1_000_000).as_bytes()), refused("exceeded maximum estimated memory limits"));
        assert!(read(nested(99).as_bytes()).is_ok());
        assert_eq!(read(nested(100).as_bytes()), refused("exceeded maximum nesting depth"));
        assert_eq!(read("[".repeat(10 << 20).as_bytes()), refused("exceeded maximum nesting depth"));
        assert!(read(b"{\"a\":1e999}").unwrap_err().contains("cannot unmarshal number"));
    }

    proptest! {
        /// The scan and serde_json agree on what JSON is (one value, no depth, no huge numbers).
        #[test]
        fn the_scan_takes_what_the_decoder_takes(body in "[\\[\\]{},:\"\\\\utrfalsn01e.+ -]{0,24}") {
            let decoded = serde_json::from_str::<Value>(&body);
            let scanned = scan(body.as_bytes(), &RequestLimits::default());
            if decoded.is_ok() {
                prop_assert!(scanned.is_ok(), "{body}: {scanned:?}");
            }
            if let Ok(scanned) = &scanned && !scanned.first.is_empty() {
                let again = serde_json::from_slice::<Value>(scanned.first);
                prop_assert!(again.is_ok() || body.contains('e'), "{body}");
            }
        }

        #[test]
        fn any_body_is_read_or_refused(body in "[\\[\\]{},:\"\\\\utrfalsn01e.+ -]{0,24}", after in "[\\[\\]{},:\"\\\\u0 -]{0,12}") {
            crate::properties::any_body_is_read_or_refused(body.as_bytes(), after.as_bytes());
        }

        #[test]
        fn no_bytes_make_reading_fail(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            crate::properties::any_body_is_read_or_refused(&body, &[]);
        }
    }
}
