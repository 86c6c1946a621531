//! Where PostgreSQL's tokens begin and end, after `src/backend/parser/scan.l` with `standard_conforming_strings` on.
//!
//! Every byte of the text is in exactly one token. What PostgreSQL refuses to read at all (an open quote) is one token
//! up to the end, marked as not closed.

/// What a token is, as far as quoting cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Space,
    /// `-- …` or `/* … */`
    Comment,
    /// Identifier or keyword.
    Word,
    Number,
    /// One character of anything else, `;` and `$1`'s dollar sign included.
    Sign,
    /// `"…"`, `U&"…"`
    QuotedIdentifier,
    /// `'…'`: only the quote is special, doubled.
    Literal,
    /// `E'…'`: so is the backslash.
    EscapeLiteral,
    /// `U&'…'`: so is a character that a later `UESCAPE` may name.
    UnicodeLiteral,
    /// `$tag$…$tag$`: nothing is special.
    DollarQuoted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind,
    /// With quotes and prefix.
    pub(super) text: &'s str,
    /// Byte offset in the text that was read.
    pub(super) start: usize,
    pub(super) closed: bool,
}

impl<'s> Token<'s> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn is_significant(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// What stands between the quotes, as written; `None` for a token without quotes, or with an open one.
    pub(super) fn inside(&self) -> Option<&'s str> {
        if !self.closed {
            return None;
        }
        let (before, after) = match self.kind {
            Kind::Literal => (1, 1),
            Kind::EscapeLiteral => (2, 1),
            Kind::UnicodeLiteral => (3, 1),
            Kind::QuotedIdentifier => (if self.text.starts_with('"') { 1 } else { 3 }, 1),
            Kind::DollarQuoted => {
                let delimiter = self.delimiter()?.len();
                (delimiter, delimiter)
            }
            Kind::Space | Kind::Comment | Kind::Word | Kind::Number | Kind::Sign => return None,
        };
        self.text.get(before..self.text.len().checked_sub(after)?)
    }

    /// `$tag$` of a dollar-quoted literal.
    pub(super) fn delimiter(&self) -> Option<&'s str> {
        if self.kind == Kind::DollarQuoted { delimiter(self.text) } else { None }
    }
}

/// The tokens of `sql`, white space and comments included.
pub(super) fn tokens(sql: &str) -> Tokens<'_> {
    Tokens { sql, at: 0 }
}

#[derive(Clone, Debug)]
pub(super) struct Tokens<'s> {
    sql: &'s str,
    at: usize,
}

impl<'s> Iterator for Tokens<'s> {
    type Item = Token<'s>;

    fn next(&mut self) -> Option<Token<'s>> {
        let rest = self.sql.get(self.at..)?;
        let (kind, length, closed) = read(rest)?;
        // A token is never empty and ends where a character does; were it otherwise, the rest would be one token.
        let text = rest.get(..length).filter(|text| !text.is_empty()).unwrap_or(rest);
        let token = Token { kind, text, start: self.at, closed };
        self.at += text.len();
        Some(token)
    }
}

/// The kind and length of the token that `rest` begins with, and whether it is closed.
fn read(rest: &str) -> Option<(Kind, usize, bool)> {
    let bytes = rest.as_bytes();
    let first = *bytes.first()?;
    let second = bytes.get(1).copied();
    let token = match first {
        _ if is_space(first) => (Kind::Space, length_of(bytes, is_space), true),
        b'-' if second == Some(b'-') => (Kind::Comment, length_of(bytes, |byte| !is_newline(byte)), true),
        b'/' if second == Some(b'*') => block_comment(bytes),
        b'\'' => quoted(Kind::Literal, bytes, 1),
        b'"' => quoted(Kind::QuotedIdentifier, bytes, 1),
        b'e' | b'E' if second == Some(b'\'') => quoted(Kind::EscapeLiteral, bytes, 2),
        b'u' | b'U' if bytes.get(1..3) == Some(b"&'") => quoted(Kind::UnicodeLiteral, bytes, 3),
        b'u' | b'U' if bytes.get(1..3) == Some(b"&\"") => quoted(Kind::QuotedIdentifier, bytes, 3),
        _ if is_word_start(first) => (Kind::Word, length_of(bytes, |b| is_tag(b) || b == b'$'), true),
        // Only digits: `1E'…'` must show its escape literal, though newer servers refuse it.
        b'0'..=b'9' => (Kind::Number, length_of(bytes, |byte| byte.is_ascii_digit()), true),
        b'$' => match delimiter(rest) {
            Some(delimiter) => dollar_quoted(rest, delimiter),
            None => (Kind::Sign, 1, true),
        },
        _ => (Kind::Sign, 1, true),
    };
    Some(token)
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_tag(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

fn length_of(bytes: &[u8], part: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&byte| part(byte)).count()
}

fn block_comment(bytes: &[u8]) -> (Kind, usize, bool) {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return (Kind::Comment, at, true);
            }
        } else {
            at += 1;
        }
    }
    (Kind::Comment, bytes.len(), false)
}

/// A token whose quote opens just before `from`. A literal that closes, then has a line break and another quote, goes on
/// there by the rules of its first part: `E'a'⏎'b\''` is one literal.
fn quoted(kind: Kind, bytes: &[u8], from: usize) -> (Kind, usize, bool) {
    let quote = if kind == Kind::QuotedIdentifier { b'"' } else { b'\'' };
    let mut at = from;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'\\' && kind == Kind::EscapeLiteral {
            // Whatever is escaped is one ASCII character, or the first byte of one that holds no quote.
            at += 1;
        } else if byte == quote {
            if bytes.get(at) == Some(&quote) {
                at += 1;
            } else if matches!(kind, Kind::EscapeLiteral | Kind::UnicodeLiteral)
                && let Some(on) = continued(bytes, at)
            {
                at = on;
            } else {
                return (kind, at, true);
            }
        }
    }
    (kind, bytes.len(), false)
}

/// Just after the quote that continues the literal which closed just before `from`.
fn continued(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut broken = false;
    loop {
        let rest = bytes.get(at..)?;
        match *rest.first()? {
            byte if is_space(byte) => {
                broken |= is_newline(byte);
                at += 1;
            }
            b'-' if rest.starts_with(b"--") => at += length_of(rest, |byte| !is_newline(byte)),
            b'\'' if broken => return Some(at + 1),
            _ => return None,
        }
    }
}

/// `$$` or `$tag$` at the beginning of `rest`.
fn delimiter(rest: &str) -> Option<&str> {
    let tag = rest.strip_prefix('$')?;
    let length = length_of(tag.as_bytes(), is_tag);
    let starts_right = tag.bytes().next().is_some_and(|first| first == b'$' || is_word_start(first));
    let ends_right = tag.as_bytes().get(length) == Some(&b'$');
    if starts_right && ends_right { rest.get(..length + 2) } else { None }
}

fn dollar_quoted(rest: &str, delimiter: &str) -> (Kind, usize, bool) {
    let body = rest.get(delimiter.len()..).unwrap_or("");
    match body.find(delimiter) {
        Some(end) => (Kind::DollarQuoted, end + 2 * delimiter.len(), true),
        None => (Kind::DollarQuoted, rest.len(), false),
    }
}
