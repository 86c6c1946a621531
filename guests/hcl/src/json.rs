//! JSON, with positions: the other notation of a policy, and the notation of parameter values.
//!
//! Our own because the tree must carry offsets, and because the component stays small without a library. Stricter than
//! HashiCorp's reader where that one loses text silently (a cut-off object, words behind the end), and without its habit
//! of taking a lone inner object for a label: `{"path":{"a":{"allowed_parameters":{"x":[]}}}}` means what it says.

use std::borrow::Cow;

use super::{Item, Key, Kind, MAX_DEPTH, Node, SyntaxError};

/// A text whose root is an object.
///
/// # Errors
/// What is wrong with the text, at its place.
pub(super) fn parse_object(text: &str) -> Result<Vec<Item<'_>>, SyntaxError> {
    let root = Reader { text, next: 0 }.document()?;
    match root.kind {
        Kind::Object(items) => Ok(items),
        _ => Err(SyntaxError { at: root.at, message: "expected an object".to_owned() }),
    }
}

/// A value of any kind. None when the text is no JSON.
#[must_use]
pub fn parse_value(text: &str) -> Option<Node<'_>> {
    Reader { text, next: 0 }.document().ok()
}

struct Reader<'a> {
    text: &'a str,
    next: usize,
}

impl<'a> Reader<'a> {
    fn document(mut self) -> Result<Node<'a>, SyntaxError> {
        let root = self.value(0)?;
        match self.peek() {
            None => Ok(root),
            Some(_) => Err(self.unexpected("the end")),
        }
    }

    fn value(&mut self, depth: u32) -> Result<Node<'a>, SyntaxError> {
        let first = self.peek();
        let at = self.next as u32;
        let kind = match first {
            Some(b'{') => Kind::Object(self.object(depth)?),
            Some(b'[') => Kind::List(self.list(depth)?),
            Some(b'"') => Kind::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ if self.word("true") => Kind::Bool(true),
            _ if self.word("false") => Kind::Bool(false),
            _ if self.word("null") => Kind::Null,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, end: self.next as u32, kind })
    }

    fn object(&mut self, depth: u32) -> Result<Vec<Item<'a>>, SyntaxError> {
        let depth = self.deeper(depth)?;
        let mut items = Vec::new();
        loop {
            if self.takes(b'}') {
                return Ok(items);
            }
            self.peek();
            let at = self.next as u32;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("STRING"));
            }
            let name = self.string()?;
            let key = Key { name, at, end: self.next as u32 };
            self.peek();
            let assign = self.next as u32;
            if !self.takes(b':') {
                return Err(self.unexpected("COLON"));
            }
            let value = self.value(depth)?;
            items.push(Item { keys: vec![key], assign: Some(assign), value });
            if !self.takes(b',') && self.peek() != Some(b'}') {
                return Err(self.unexpected("COMMA or RBRACE"));
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Vec<Node<'a>>, SyntaxError> {
        let depth = self.deeper(depth)?;
        let mut nodes = Vec::new();
        loop {
            if self.takes(b']') {
                return Ok(nodes);
            }
            nodes.push(self.value(depth)?);
            if !self.takes(b',') && self.peek() != Some(b']') {
                return Err(self.unexpected("COMMA or RBRACK"));
            }
        }
    }

    /// Takes the opening bracket.
    fn deeper(&mut self, depth: u32) -> Result<u32, SyntaxError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(format!("nested more than {MAX_DEPTH} deep")));
        }
        self.next += 1;
        Ok(depth + 1)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.next += 1;
        let start = self.next;
        let mut escaped: Option<String> = None;
        loop {
            let rest = self.text.get(self.next..).unwrap_or_default();
            let Some(length) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') else {
                self.next = self.text.len();
                return Err(self.error("literal not terminated".to_owned()));
            };
            let plain = rest.get(..length).unwrap_or_default();
            if let Some(text) = escaped.as_mut() {
                text.push_str(plain);
            }
            self.next += length;
            match rest.as_bytes().get(length) {
                Some(b'"') => {
                    let whole = self.text.get(start..self.next).unwrap_or_default();
                    self.next += 1;
                    return Ok(escaped.map_or(Cow::Borrowed(whole), Cow::Owned));
                }
                Some(b'\\') => {
                    let text =
                        escaped.get_or_insert_with(|| self.text.get(start..self.next).unwrap_or_default().to_owned());
                    self.next += 1;
                    match escape(self.text, &mut self.next) {
                        Some(c) => text.push(c),
                        None => return Err(self.error("illegal char escape".to_owned())),
                    }
                }
                _ => return Err(self.error("literal not terminated".to_owned())),
            }
        }
    }

    fn number(&mut self) -> Result<Kind<'a>, SyntaxError> {
        let rest = self.text.get(self.next..).unwrap_or_default();
        let length = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let written = rest.get(..length).unwrap_or_default();
        if written.parse::<f64>().is_err() {
            return Err(self.unexpected("a number"));
        }
        self.next += length;
        Ok(if written.contains(['.', 'e', 'E']) { Kind::Float(written) } else { Kind::Integer(written) })
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text.get(self.next..).is_some_and(|rest| rest.starts_with(word));
        if found {
            self.next += word.len();
        }
        found
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.next) {
            self.next += 1;
        }
        bytes.get(self.next).copied()
    }

    fn takes(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next += 1;
        }
        found
    }

    fn unexpected(&mut self, wanted: &str) -> SyntaxError {
        self.peek();
        let got = self.text.get(self.next..).and_then(|rest| rest.chars().next());
        match got {
            Some(c) => self.error(format!("expected: {wanted} got: {c:?}")),
            None => self.error(format!("expected: {wanted} got: EOF")),
        }
    }

    fn error(&self, message: String) -> SyntaxError {
        SyntaxError { at: self.next as u32, message }
    }
}

/// Reads behind the backslash.
fn escape(text: &str, next: &mut usize) -> Option<char> {
    let letter = *text.as_bytes().get(*next)?;
    *next += 1;
    Some(match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(text, next)?;
            if !(0xd800..0xdc00).contains(&first) {
                return char::from_u32(first);
            }
            // The first half of a pair: the second must follow.
            text.get(*next..)?.strip_prefix("\\u")?;
            *next += 2;
            let second = unit(text, next)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return char::from_u32(0x10000 + ((first - 0xd800) << 10) + second);
        }
        _ => return None,
    })
}

fn unit(text: &str, next: &mut usize) -> Option<u32> {
    let digits = text.get(*next..*next + 4)?;
    *next += 4;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}
