//! From what an operator stored to the statements that are sent one by one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::lexer::{Kind, Token, is_space, tokens};

/// The statement texts in one element of a role's list.
///
/// An element may be base64 of a text, and it or that text a JSON array of texts, which are the statements as they
/// stand. Vault decodes whatever base64 can be read from, so that a word of four letters turns into three odd bytes; here it has
/// to come out as text with a space in it, or as a JSON array.
pub(crate) fn unpack(element: &str) -> Vec<String> {
    let text = decoded(element).unwrap_or_else(|| element.to_owned());
    members(&text).unwrap_or_else(|| vec![text])
}

fn members(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text.trim()).ok()
}

fn decoded(element: &str) -> Option<String> {
    let packed: String = element.trim().chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    let text = String::from_utf8(STANDARD.decode(packed).ok()?).ok()?;
    let odd = text.chars().any(|letter| letter.is_control() && !letter.is_whitespace());
    let said = text.trim().contains(char::is_whitespace) || members(&text).is_some();
    (!odd && said).then_some(text)
}

/// The statements in `sql`, without the `;` between them, trimmed; pieces without anything but comments are dropped.
///
/// A `;` in quotes, comments, parentheses (`CREATE RULE … DO (a; b)`) or a function body in `BEGIN ATOMIC … END` is part
/// of its statement.
pub(crate) fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut piece = Piece::default();
    for token in tokens(sql) {
        if token.is_sign(";") && piece.parentheses == 0 && piece.blocks == 0 {
            piece.cut(sql, token.start, &mut statements);
            piece = Piece { start: token.end(), ..Piece::default() };
        } else if token.is_significant() {
            piece.take(token);
        }
    }
    piece.cut(sql, sql.len(), &mut statements);
    statements
}

/// One statement while it is read.
#[derive(Debug, Default)]
struct Piece<'s> {
    start: usize,
    parentheses: usize,
    /// Open `BEGIN ATOMIC` and `CASE`.
    blocks: usize,
    creates: bool,
    last: Option<Token<'s>>,
}

impl<'s> Piece<'s> {
    fn take(&mut self, token: Token<'s>) {
        let after = |word: &str| self.last.is_some_and(|last| last.is_word(word));
        if self.last.is_none() {
            self.creates = token.is_word("create");
        }
        if token.is_sign("(") {
            self.parentheses += 1;
        } else if token.is_sign(")") {
            self.parentheses = self.parentheses.saturating_sub(1);
        } else if token.kind == Kind::Word && !after("as") && !self.last.is_some_and(|last| last.is_sign(".")) {
            // `AS end` and `t.end` are names.
            let opens = if self.blocks == 0 {
                self.creates && token.is_word("atomic") && after("begin")
            } else {
                token.is_word("case")
            };
            if opens {
                self.blocks += 1;
            } else if token.is_word("end") {
                self.blocks = self.blocks.saturating_sub(1);
            }
        }
        self.last = Some(token);
    }

    fn cut(&self, sql: &str, end: usize, statements: &mut Vec<String>) {
        // What PostgreSQL takes for blanks, and no more: a no-break space is a letter to it, and could change what is read next.
        let text =
            sql.get(self.start..end).unwrap_or("").trim_matches(|letter| u8::try_from(letter).is_ok_and(is_space));
        // A piece of nothing but other blanks is nothing in Vault.
        if self.last.is_some() && !text.trim().is_empty() {
            statements.push(text.to_owned());
        }
    }
}
