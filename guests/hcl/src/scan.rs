//! HCL's tokens.
//!
//! Follows HashiCorp's first scanner in what it takes and in where it sees an error: that position is part of the text
//! a client gets. So the *last* scanning error before the parser stops is the one reported, and each look beyond the end
//! of the text counts as a column.

use std::borrow::Cow;

use super::{Comment, SyntaxError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Eof,
    Ident,
    Number,
    Float,
    Bool,
    String,
    Heredoc,
    LBrack,
    RBrack,
    LBrace,
    RBrace,
    Comma,
    Period,
    Assign,
    Add,
    Sub,
    Illegal,
    Comment,
}

impl TokenKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Eof => "EOF",
            Self::Ident => "IDENT",
            Self::Number => "NUMBER",
            Self::Float => "FLOAT",
            Self::Bool => "BOOL",
            Self::String => "STRING",
            Self::Heredoc => "HEREDOC",
            Self::LBrack => "LBRACK",
            Self::RBrack => "RBRACK",
            Self::LBrace => "LBRACE",
            Self::RBrace => "RBRACE",
            Self::Comma => "COMMA",
            Self::Period => "PERIOD",
            Self::Assign => "ASSIGN",
            Self::Add => "ADD",
            Self::Sub => "SUB",
            Self::Illegal => "ILLEGAL",
            Self::Comment => "COMMENT",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) at: u32,
    /// As written, quotes and anchors included.
    pub(super) text: &'a str,
}

impl Token<'_> {
    pub(super) fn end(&self) -> u32 {
        self.at + self.text.len() as u32
    }
}

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    /// Offset of the next character.
    next: usize,
    /// Reads beyond the end so far.
    beyond: usize,
    pub(super) error: Option<SyntaxError>,
    /// Those that were passed over.
    pub(super) comments: Vec<Comment<'a>>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, next: 0, beyond: 0, error: None, comments: Vec::new() }
    }

    /// The next token that is no comment.
    pub(super) fn token(&mut self) -> Token<'a> {
        loop {
            let token = self.any_token();
            if token.kind != TokenKind::Comment {
                return token;
            }
            self.comments.push(Comment { at: token.at, text: token.text });
        }
    }

    fn any_token(&mut self) -> Token<'a> {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        let start = self.next;
        let Some(first) = self.advance() else {
            return Token { kind: TokenKind::Eof, at: self.last_read(start), text: "" };
        };
        let kind = match first {
            c if is_letter(c) => self.identifier(start),
            c if c.is_ascii_digit() => self.number(c),
            '"' => self.string(),
            '#' | '/' => self.comment(first),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => self.fraction(),
            '.' => TokenKind::Period,
            '<' => self.heredoc(),
            '[' => TokenKind::LBrack,
            ']' => TokenKind::RBrack,
            '{' => TokenKind::LBrace,
            '}' => TokenKind::RBrace,
            ',' => TokenKind::Comma,
            '=' => TokenKind::Assign,
            '+' => TokenKind::Add,
            '-' => match self.peek() {
                Some(digit) if digit.is_ascii_digit() => {
                    self.advance();
                    self.number(digit)
                }
                _ => TokenKind::Sub,
            },
            _ => {
                self.fail(start, "illegal char");
                TokenKind::Illegal
            }
        };
        Token { kind, at: start as u32, text: self.text.get(start..self.next).unwrap_or_default() }
    }

    fn identifier(&mut self, start: usize) -> TokenKind {
        self.take_while(|c| is_letter(c) || is_digit(c) || c == '-' || c == '.');
        match self.text.get(start..self.next) {
            Some("true" | "false") => TokenKind::Bool,
            _ => TokenKind::Ident,
        }
    }

    fn number(&mut self, first: char) -> TokenKind {
        if first == '0' && matches!(self.peek(), Some('x' | 'X')) {
            self.advance();
            if self.take_while(|c| c.is_ascii_hexdigit()) == 0 {
                self.fail(self.next, "illegal hexadecimal number");
            }
            return TokenKind::Number;
        }
        self.take_while(|c| c.is_ascii_digit());
        match self.peek() {
            Some('.') => {
                self.advance();
                self.fraction()
            }
            Some('e' | 'E') => self.exponent(),
            _ => TokenKind::Number,
        }
    }

    fn fraction(&mut self) -> TokenKind {
        self.take_while(|c| c.is_ascii_digit());
        self.exponent()
    }

    fn exponent(&mut self) -> TokenKind {
        if matches!(self.peek(), Some('e' | 'E')) {
            self.advance();
            if matches!(self.peek(), Some('-' | '+')) {
                self.advance();
            }
            self.take_while(|c| c.is_ascii_digit());
        }
        TokenKind::Float
    }

    /// Inside `${…}` quotes and line ends are part of the string, so that an interpolation can hold strings.
    fn string(&mut self) -> TokenKind {
        let mut braces = 0_u32;
        loop {
            if braces == 0 {
                self.skip(|byte| !matches!(byte, b'"' | b'\\' | b'\n' | b'$' | 0));
            }
            let at = self.next;
            match self.advance() {
                None => {
                    self.fail_at_end("literal not terminated");
                    break;
                }
                Some('\n') if braces == 0 => {
                    self.fail(at, "literal not terminated");
                    break;
                }
                Some('"') if braces == 0 => break,
                Some('$') if braces == 0 && self.peek() == Some('{') => {
                    self.advance();
                    braces = 1;
                }
                Some('{') if braces > 0 => braces += 1,
                Some('}') if braces > 0 => braces -= 1,
                Some('\\') => self.escape(),
                Some(_) => {}
            }
        }
        TokenKind::String
    }

    fn escape(&mut self) {
        let at = self.next;
        let (radix, digits) = match self.advance() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"') => return,
            // The first octal digit has been read.
            Some('0'..='7') => (8, 2),
            Some('x') => (16, 2),
            Some('u') => (16, 4),
            Some('U') => (16, 8),
            _ => return self.fail(at, "illegal char escape"),
        };
        for _ in 0..digits {
            match self.peek() {
                Some(digit) if digit.is_digit(radix) => {
                    self.advance();
                }
                _ => return self.fail(self.next, "illegal char escape"),
            }
        }
    }

    fn comment(&mut self, first: char) -> TokenKind {
        let start = self.next - 1;
        match (first, self.peek()) {
            ('/', Some('*')) => {
                self.advance();
                let Some(length) = self.text.get(self.next..).and_then(|rest| rest.find("*/")) else {
                    self.next = self.text.len();
                    self.advance();
                    self.fail_at_end("comment not terminated");
                    return TokenKind::Comment;
                };
                self.next += length + 2;
            }
            ('/', next) if next != Some('/') => self.fail(start, "expected '/' for comment"),
            _ => {
                self.take_while(|c| c != '\n');
            }
        }
        TokenKind::Comment
    }

    fn heredoc(&mut self) -> TokenKind {
        let at = self.next;
        if self.advance() != Some('<') {
            self.fail(at, "heredoc expected second '<', didn't see it");
            return TokenKind::Heredoc;
        }
        if self.peek() == Some('-') {
            self.advance();
        }
        let start = self.next;
        self.take_while(|c| is_letter(c) || is_digit(c));
        let anchor = self.text.get(start..self.next).unwrap_or_default();
        let at = self.next;
        if self.peek().is_none() {
            self.fail_at_end("heredoc not terminated");
            return TokenKind::Heredoc;
        }
        match self.advance() {
            Some('\n') if anchor.is_empty() => {
                self.fail(at, "zero-length heredoc anchor");
                return TokenKind::Heredoc;
            }
            Some('\n') => {}
            _ => {
                self.fail(at, "invalid characters in heredoc anchor");
                return TokenKind::Heredoc;
            }
        }
        // The line that ends it must itself have an end.
        while let Some(length) = self.text.get(self.next..).and_then(|rest| rest.find('\n')) {
            let line = self.text.get(self.next..self.next + length).unwrap_or_default();
            self.next += length + 1;
            if line.trim_start() == anchor {
                return TokenKind::Heredoc;
            }
        }
        self.next = self.text.len();
        self.advance();
        self.fail_at_end("heredoc not terminated");
        TokenKind::Heredoc
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> usize {
        let rest = self.text.get(self.next..).unwrap_or_default();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.next += length;
        if length == rest.len() {
            self.beyond += 1;
        }
        length
    }

    /// Passes over bytes; what stops it must be ASCII.
    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        let rest = self.text.as_bytes().get(self.next..).unwrap_or_default();
        self.next += rest.iter().position(|byte| !unwanted(*byte)).unwrap_or(rest.len());
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.next..).and_then(|rest| rest.chars().next())
    }

    fn advance(&mut self) -> Option<char> {
        let Some(next) = self.peek() else {
            self.beyond += 1;
            return None;
        };
        if next == '\0' {
            self.fail(self.next, "unexpected null character (0x00)");
            self.next = self.text.len();
            return None;
        }
        self.next += next.len_utf8();
        Some(next)
    }

    fn last_read(&self, start: usize) -> u32 {
        (start + self.beyond.saturating_sub(1)) as u32
    }

    fn fail_at_end(&mut self, message: &str) {
        self.error = Some(SyntaxError { at: self.last_read(self.text.len()), message: message.to_owned() });
    }

    fn fail(&mut self, at: usize, message: &str) {
        self.error = Some(SyntaxError { at: at as u32, message: message.to_owned() });
    }
}

/// What a quoted string stands for. `${…}` keeps its inside as written.
///
/// None when an escape names no character.
pub(super) fn unquoted(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut characters = inner.chars();
    let mut braces = 0_u32;
    while let Some(c) = characters.next() {
        if braces > 0 || (c == '$' && characters.as_str().starts_with('{')) {
            match c {
                '{' if braces > 0 => braces += 1,
                '}' => braces = braces.saturating_sub(1),
                '$' if braces == 0 => {
                    out.extend_from_slice(b"${");
                    characters.next();
                    braces = 1;
                    continue;
                }
                _ => {}
            }
            push(&mut out, c);
            continue;
        }
        if c != '\\' {
            push(&mut out, c);
            continue;
        }
        match characters.next()? {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            // An octal or hexadecimal escape is a byte; the whole must be UTF-8 in the end.
            digit @ '0'..='7' => {
                let high = digit.to_digit(8)?;
                out.push(u8::try_from(high * 64 + number(&mut characters, 8, 2)?).ok()?);
            }
            'x' => out.push(u8::try_from(number(&mut characters, 16, 2)?).ok()?),
            'u' => push(&mut out, char::from_u32(number(&mut characters, 16, 4)?)?),
            'U' => push(&mut out, char::from_u32(number(&mut characters, 16, 8)?)?),
            other => push(&mut out, other),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The lines of a here-document; `<<-` takes away the indentation of its last line if every line has it.
pub(super) fn heredoc_text(raw: &str) -> Cow<'_, str> {
    let Some((opening, rest)) = raw.split_once('\n') else { return Cow::Borrowed("") };
    let rest = rest.strip_suffix('\n').unwrap_or(rest);
    let anchor = opening.trim_start_matches('<').trim_start_matches('-');
    let body = rest.strip_suffix(anchor).unwrap_or(rest);
    if !opening.starts_with("<<-") {
        return Cow::Borrowed(body);
    }
    let indent = body.rsplit('\n').next().unwrap_or_default();
    if indent.is_empty() || !body.split('\n').all(|line| line.starts_with(indent)) {
        return Cow::Borrowed(body.trim_end_matches([' ', '\t']));
    }
    let stripped: Vec<&str> = body.split('\n').map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
    Cow::Owned(stripped.join("\n"))
}

fn number(characters: &mut std::str::Chars<'_>, radix: u32, digits: u32) -> Option<u32> {
    let mut value = 0_u32;
    for _ in 0..digits {
        value = value.checked_mul(radix)?.checked_add(characters.next()?.to_digit(radix)?)?;
    }
    Some(value)
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || (!c.is_ascii() && c.is_alphabetic())
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}
