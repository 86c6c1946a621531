//! Words and marks of HCL, each with its place.

use super::FormatError;

/// What a piece of text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a number or a quoted text, as it stands.
    Word,
    /// `<<END` and everything down to its end.
    Heredoc,
    /// One of `{ } [ ] = ,`.
    Mark(char),
    Comment,
    End,
}

/// One piece.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) line: usize,
    pub(super) column: usize,
    /// The line of its last character.
    pub(super) last_line: usize,
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

pub(super) fn scan(text: &str) -> Result<Vec<Piece>, FormatError> {
    let mut scanner = Scanner { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1, column: 1 };
    let mut pieces = Vec::new();
    loop {
        let blanks = scanner.rest.len() - scanner.rest.trim_start().len();
        scanner.take(blanks);
        let (line, column) = (scanner.line, scanner.column);
        let Some(first) = scanner.rest.chars().next() else {
            pieces.push(Piece { kind: Kind::End, text: String::new(), line, column, last_line: line });
            return Ok(pieces);
        };
        let (kind, length) = scanner.next(first)?;
        let text = scanner.take(length);
        // A heredoc's end is its own line; the newline behind it belongs to nobody.
        pieces.push(Piece { kind, text: text.trim_end().to_owned(), line, column, last_line: scanner.line });
    }
}

impl<'a> Scanner<'a> {
    fn error(&self, why: &str) -> FormatError {
        FormatError { line: self.line, column: self.column, why: why.to_owned() }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn next(&self, first: char) -> Result<(Kind, usize), FormatError> {
        let rest = self.rest;
        let line_end = rest.find('\n').unwrap_or(rest.len());
        match first {
            '{' | '}' | '[' | ']' | '=' | ',' => Ok((Kind::Mark(first), 1)),
            '#' => Ok((Kind::Comment, line_end)),
            '/' if rest.starts_with("//") => Ok((Kind::Comment, line_end)),
            '/' if rest.starts_with("/*") => match rest.find("*/") {
                Some(end) if end >= 2 => Ok((Kind::Comment, end + 2)),
                _ => Err(self.error("the comment has no end")),
            },
            '"' => self.quoted().map(|length| (Kind::Word, length)),
            '<' if rest.starts_with("<<") => self.heredoc(),
            c if is_word(c) => Ok((Kind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len()))),
            other => Err(self.error(&format!("illegal character {other:?}"))),
        }
    }

    fn quoted(&self) -> Result<usize, FormatError> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Ok(at + 1),
                _ => {}
            }
        }
        Err(self.error("literal not terminated"))
    }

    fn heredoc(&self) -> Result<(Kind, usize), FormatError> {
        let (head, _) = self.rest.split_once('\n').ok_or_else(|| self.error("heredoc not terminated"))?;
        let name = head.trim_start_matches('<').trim_start_matches('-').trim();
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(self.error("heredoc without a name"));
        }
        let mut length = head.len() + 1;
        for line in self.rest.get(length..).unwrap_or_default().split_inclusive('\n') {
            length += line.trim_end_matches('\n').len();
            if line.trim() == name {
                return Ok((Kind::Heredoc, length));
            }
            length += line.len() - line.trim_end_matches('\n').len();
        }
        Err(self.error("heredoc not terminated"))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')
}
