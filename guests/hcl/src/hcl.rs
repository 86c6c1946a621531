//! HashiCorp's first configuration language.

use std::borrow::Cow;

use super::scan::{Scanner, Token, TokenKind, heredoc_text, unquoted};
use super::text::Lines;
use super::{Comment, Item, Key, Kind, MAX_DEPTH, Node, SyntaxError};

/// # Errors
/// What HashiCorp's parser would say. A scanning error beats a parsing error: it is the cause.
pub(super) fn parse(text: &str) -> Result<(Vec<Item<'_>>, Vec<Comment<'_>>), SyntaxError> {
    let mut parser = Parser { text, scanner: Scanner::new(text), held: None };
    let parsed = parser.items(0);
    match parser.scanner.error {
        Some(error) => Err(error),
        None => parsed.map(|items| (items, parser.scanner.comments)),
    }
}

/// All tokens of a text but commas.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let mut scanner = Scanner::new(text);
    let mut found = Vec::new();
    loop {
        let token = scanner.token();
        match token.kind {
            TokenKind::Eof => return found,
            TokenKind::Comma => {}
            _ => found.push(token.text.trim_end().to_owned()),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    scanner: Scanner<'a>,
    held: Option<Token<'a>>,
}

impl<'a> Parser<'a> {
    /// Items up to the end of the text, or (inside an object) up to its closing brace, which stays unread.
    fn items(&mut self, depth: u32) -> Result<Vec<Item<'a>>, SyntaxError> {
        let mut items = Vec::new();
        loop {
            if depth > 0 && self.peek().kind == TokenKind::RBrace {
                return Ok(items);
            }
            let Some(item) = self.item(depth)? else { return Ok(items) };
            items.push(item);
            if self.peek().kind == TokenKind::Comma {
                self.take();
            }
        }
    }

    /// None at the end of the text.
    fn item(&mut self, depth: u32) -> Result<Option<Item<'a>>, SyntaxError> {
        let mut keys: Vec<Key<'a>> = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                TokenKind::Ident => keys.push(key(token, token.text.into())),
                TokenKind::String => {
                    let name = self.text_of(token)?;
                    keys.push(key(token, name));
                }
                TokenKind::Assign if keys.is_empty() => return Err(error(token, "no object keys found!")),
                TokenKind::Assign if keys.len() > 1 => {
                    return Err(error(token, "nested object expected: LBRACE got: ASSIGN"));
                }
                TokenKind::Assign => {
                    let value = self.value(depth)?;
                    return Ok(Some(Item { keys, assign: Some(token.at), value }));
                }
                TokenKind::LBrace if keys.is_empty() => {
                    return Err(error(token, "expected: IDENT | STRING got: LBRACE"));
                }
                TokenKind::LBrace => {
                    let value = self.object(token, depth)?;
                    return Ok(Some(Item { keys, assign: None, value }));
                }
                TokenKind::Eof if keys.is_empty() => return Ok(None),
                TokenKind::Eof | TokenKind::RBrace if !keys.is_empty() => {
                    let written: Vec<&str> = keys.iter().map(|key| self.written(key)).collect();
                    let message =
                        format!("key '{}' expected start of object ('{{') or assignment ('=')", written.join(" "));
                    return Err(error(token, &message));
                }
                TokenKind::Illegal => return Err(error(token, "illegal character")),
                other => {
                    let message = format!("expected: IDENT | STRING | ASSIGN | LBRACE got: {}", other.name());
                    return Err(error(token, &message));
                }
            }
        }
    }

    fn value(&mut self, depth: u32) -> Result<Node<'a>, SyntaxError> {
        let token = self.take();
        match token.kind {
            TokenKind::LBrace => self.object(token, depth),
            TokenKind::LBrack => self.list(token, depth),
            TokenKind::Eof if depth > 0 => Err(error(self.take(), "object expected closing RBRACE got: EOF")),
            TokenKind::Eof => Err(error(token, "expected a value got: EOF")),
            _ => match self.literal(token)? {
                Some(node) => Ok(node),
                None => {
                    let place = self.spoken(token.at);
                    Err(error(token, &format!("Unknown token: {place} {} {}", token.kind.name(), token.text)))
                }
            },
        }
    }

    fn object(&mut self, opening: Token<'a>, depth: u32) -> Result<Node<'a>, SyntaxError> {
        let depth = deeper(opening, depth)?;
        let items = self.items(depth)?;
        let closing = self.take();
        if closing.kind != TokenKind::RBrace {
            return Err(error(closing, &format!("object expected closing RBRACE got: {}", closing.kind.name())));
        }
        Ok(Node { at: opening.at, end: closing.end(), kind: Kind::Object(items) })
    }

    fn list(&mut self, opening: Token<'a>, depth: u32) -> Result<Node<'a>, SyntaxError> {
        let depth = deeper(opening, depth)?;
        let mut nodes = Vec::new();
        let mut needs_comma = false;
        loop {
            let token = self.take();
            match token.kind {
                TokenKind::RBrack => {
                    return Ok(Node { at: opening.at, end: token.end(), kind: Kind::List(nodes) });
                }
                TokenKind::Comma => {
                    needs_comma = false;
                    continue;
                }
                _ if needs_comma => {
                    let message = format!("error parsing list, expected comma or list end, got: {}", token.kind.name());
                    return Err(error(token, &message));
                }
                TokenKind::LBrace => {
                    nodes.push(self.object(token, depth).map_err(|inner| self.within(token, "object", inner))?)
                }
                TokenKind::LBrack => {
                    nodes.push(self.list(token, depth).map_err(|inner| self.within(token, "list", inner))?)
                }
                _ => match self.literal(token)? {
                    Some(node) => nodes.push(node),
                    None => {
                        let message = format!("unexpected token while parsing list: {}", token.kind.name());
                        return Err(error(token, &message));
                    }
                },
            }
            needs_comma = true;
        }
    }

    fn literal(&self, token: Token<'a>) -> Result<Option<Node<'a>>, SyntaxError> {
        let kind = match token.kind {
            TokenKind::Number => Kind::Integer(token.text),
            TokenKind::Float => Kind::Float(token.text),
            TokenKind::Bool => Kind::Bool(token.text == "true"),
            TokenKind::String => Kind::Text(self.text_of(token)?),
            TokenKind::Heredoc => Kind::Text(heredoc_text(token.text)),
            _ => return Ok(None),
        };
        Ok(Some(Node { at: token.at, end: token.end(), kind }))
    }

    /// After a scanning error the text does not matter any more, but the parser goes on: the last such error counts.
    fn text_of(&self, token: Token<'a>) -> Result<Cow<'a, str>, SyntaxError> {
        match unquoted(token.text) {
            Some(text) => Ok(text),
            None if self.scanner.error.is_some() => Ok(Cow::Borrowed("")),
            None => Err(error(token, "the escapes of this string name no text")),
        }
    }

    fn take(&mut self) -> Token<'a> {
        self.held.take().unwrap_or_else(|| self.scanner.token())
    }

    fn peek(&mut self) -> Token<'a> {
        let token = self.take();
        self.held = Some(token);
        token
    }

    fn within(&self, opening: Token<'a>, what: &str, inner: SyntaxError) -> SyntaxError {
        let place = self.spoken(inner.at);
        error(opening, &format!("error while trying to parse {what} within list: At {place}: {}", inner.message))
    }

    fn spoken(&self, at: u32) -> String {
        Lines::of(self.text).spoken(at)
    }

    fn written(&self, key: &Key<'a>) -> &'a str {
        self.text.get(key.at as usize..key.end as usize).unwrap_or_default()
    }
}

fn key<'a>(token: Token<'a>, name: Cow<'a, str>) -> Key<'a> {
    Key { name, at: token.at, end: token.end() }
}

fn deeper(opening: Token<'_>, depth: u32) -> Result<u32, SyntaxError> {
    if depth >= MAX_DEPTH {
        return Err(error(opening, &format!("nested more than {MAX_DEPTH} deep")));
    }
    Ok(depth + 1)
}

fn error(token: Token<'_>, message: &str) -> SyntaxError {
    SyntaxError { at: token.at, message: message.to_owned() }
}
