//! Pieces into items: keys, a value, and the comments around them.

use super::FormatError;
use super::scan::{Kind, Piece, scan};

/// Policies nest four levels; nobody writes more than this.
const DEPTH_MAX: usize = 32;

/// One comment, and whether an empty line follows it.
#[derive(Debug)]
pub(super) struct Comment {
    pub(super) text: String,
    pub(super) gap_after: bool,
}

/// The inside of an object, or a whole file.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) items: Vec<Item>,
    /// Comments behind the last item.
    pub(super) tail: Vec<Comment>,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) lead: Vec<Comment>,
    pub(super) keys: Vec<String>,
    pub(super) assigned: bool,
    pub(super) value: Value,
    /// A comment behind it, on its last line.
    pub(super) trail: Option<String>,
    pub(super) line: usize,
    pub(super) last_line: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    Literal(String),
    Heredoc(String),
    List { elements: Vec<Element>, tail: Vec<Comment>, on_one_line: bool },
    Object(Body),
}

#[derive(Debug)]
pub(super) struct Element {
    pub(super) lead: Vec<Comment>,
    pub(super) value: Value,
    pub(super) trail: Option<String>,
}

pub(super) fn parse(text: &str) -> Result<Body, FormatError> {
    let mut parser = Parser { pieces: scan(text)?, at: 0 };
    let body = parser.body(0)?;
    match parser.peek().kind {
        Kind::End => Ok(body),
        _ => Err(parser.error("unexpected token while parsing")),
    }
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
}

impl Parser {
    /// The scanner always ends with `End`, and `take` never steps over it.
    fn peek(&self) -> &Piece {
        &self.pieces[self.at.min(self.pieces.len() - 1)]
    }

    fn take(&mut self) -> Piece {
        let piece = self.peek().clone();
        if piece.kind != Kind::End {
            self.at += 1;
        }
        piece
    }

    fn error(&self, why: &str) -> FormatError {
        let piece = self.peek();
        FormatError { line: piece.line, column: piece.column, why: why.to_owned() }
    }

    fn comments(&mut self) -> Vec<Comment> {
        let mut found = Vec::new();
        while self.peek().kind == Kind::Comment {
            let piece = self.take();
            found.push(Comment { text: piece.text, gap_after: self.peek().line > piece.last_line + 1 });
        }
        found
    }

    /// A comment on this very line.
    fn trail(&mut self, line: usize) -> Option<String> {
        let piece = self.peek();
        (piece.kind == Kind::Comment && piece.line == line).then(|| self.take().text)
    }

    fn body(&mut self, depth: usize) -> Result<Body, FormatError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        let mut body = Body::default();
        loop {
            let lead = self.comments();
            if matches!(self.peek().kind, Kind::End | Kind::Mark('}')) {
                body.tail = lead;
                return Ok(body);
            }
            let mut item = self.item(lead, depth)?;
            if self.peek().kind == Kind::Mark(',') {
                self.take();
            }
            item.trail = self.trail(item.last_line);
            body.items.push(item);
        }
    }

    fn item(&mut self, lead: Vec<Comment>, depth: usize) -> Result<Item, FormatError> {
        let line = self.peek().line;
        let mut keys = Vec::new();
        while self.peek().kind == Kind::Word {
            keys.push(self.take().text);
        }
        let assigned = match self.peek().kind {
            _ if keys.is_empty() => return Err(self.error("expected a key")),
            Kind::Mark('=') if keys.len() > 1 => {
                return Err(self.error(&format!("key '{}' is followed by an assignment", keys.join(" "))));
            }
            Kind::Mark('=') => true,
            Kind::Mark('{') => false,
            _ => {
                return Err(self
                    .error(&format!("key '{}' expected start of object ('{{') or assignment ('=')", keys.join(" "))));
            }
        };
        if assigned {
            self.take();
        }
        let (value, last_line) = self.value(depth)?;
        Ok(Item { lead, keys, assigned, value, trail: None, line, last_line })
    }

    fn value(&mut self, depth: usize) -> Result<(Value, usize), FormatError> {
        match self.peek().kind {
            Kind::Word => {
                let piece = self.take();
                Ok((Value::Literal(piece.text), piece.last_line))
            }
            Kind::Heredoc => {
                let piece = self.take();
                Ok((Value::Heredoc(piece.text), piece.last_line))
            }
            Kind::Mark('{') => {
                self.take();
                let body = self.body(depth + 1)?;
                if self.peek().kind != Kind::Mark('}') {
                    return Err(self.error("object expected closing RBRACE got: EOF"));
                }
                Ok((Value::Object(body), self.take().last_line))
            }
            Kind::Mark('[') => self.list(depth + 1),
            _ => Err(self.error("expected a value")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<(Value, usize), FormatError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        let first_line = self.take().line;
        let mut elements: Vec<Element> = Vec::new();
        loop {
            let lead = self.comments();
            match self.peek().kind {
                Kind::Mark(']') => {
                    let last_line = self.take().last_line;
                    let on_one_line = first_line == last_line;
                    return Ok((Value::List { elements, tail: lead, on_one_line }, last_line));
                }
                Kind::End => return Err(self.error("list expected closing RBRACK got: EOF")),
                _ => {}
            }
            let (value, last_line) = self.value(depth)?;
            let before_comma = self.trail(last_line);
            match self.peek().kind {
                Kind::Mark(',') => {
                    self.take();
                }
                Kind::Mark(']') | Kind::Comment => {}
                _ => return Err(self.error("list elements need a comma between them")),
            }
            let trail = before_comma.or_else(|| self.trail(last_line));
            elements.push(Element { lead, value, trail });
        }
    }
}
