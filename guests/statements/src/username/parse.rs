//! The text of a template: literal text, and actions in `{{…}}` that are pipelines.
//!
//! Of Go's templates these are taken: fields, texts, numbers, functions, `|`, parentheses, comments and the `-` that trims blanks.
//! Conditions, loops and variables are refused by name.

use super::functions;

/// What an error shows of the text.
const SOURCE_MAX: usize = 80;
/// Parentheses inside each other.
const DEPTH_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Template {
    pub pieces: Vec<Piece>,
}

#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Action(Pipeline),
}

/// Each command gets the result of the one before it as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    pub operands: Vec<Operand>,
    pub place: Place,
}

/// Where something stands, as Go's errors name it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub line: usize,
    /// Bytes before it in its line.
    pub column: usize,
    pub source: String,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub value: Term,
    pub place: Place,
}

#[derive(Debug)]
pub(super) enum Term {
    Function(String),
    /// `.DisplayName`; with more than one name something is asked of a text.
    Field(Vec<String>),
    Text(String),
    Int(i64),
    /// Of which nothing takes one; as it was written.
    Float(String),
    Nested(Pipeline),
}

type Failure = (usize, String);

/// # Errors
/// The line, and Go's words.
pub(super) fn template(text: &str) -> Result<Template, Failure> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trims = false;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(open) = rest.find("{{") else {
            push_text(&mut pieces, if trims { rest.trim_start() } else { rest });
            return Ok(Template { pieces });
        };
        let inside = at + open + 2;
        let opens_trimmed = text.get(inside..).is_some_and(|after| after.starts_with("- "));
        let mut before = rest.get(..open).unwrap_or_default();
        if trims {
            before = before.trim_start();
        }
        if opens_trimmed {
            before = before.trim_end();
        }
        push_text(&mut pieces, before);
        let start = if opens_trimmed { inside + 1 } else { inside };
        let mut reader = Reader { text, at: start, depth: 0 };
        if text.get(start..).is_some_and(|after| after.trim_start().starts_with("/*")) {
            reader.comment()?;
        } else {
            pieces.push(Piece::Action(reader.pipeline(false)?));
        }
        trims = reader.close()?;
        at = reader.at;
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn line(&self) -> usize {
        self.text.get(..self.at).unwrap_or_default().matches('\n').count() + 1
    }

    fn fail<T>(&self, why: impl Into<String>) -> Result<T, Failure> {
        Err((self.line(), why.into()))
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn place(&self, from: usize) -> Place {
        let before = self.text.get(..from).unwrap_or_default();
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let source = self.text.get(from..self.at).unwrap_or_default().trim();
        let shown: String = source.chars().take(SOURCE_MAX).collect();
        let source = if shown.len() < source.len() { format!("{shown}...") } else { shown };
        Place { line: before.matches('\n').count() + 1, column: from - begin, source }
    }

    fn comment(&mut self) -> Result<(), Failure> {
        match self.rest().find("*/") {
            Some(end) => self.at += end + 2,
            None => return self.fail("unclosed comment"),
        }
        Ok(())
    }

    /// `}}` or ` -}}`, which trims what follows.
    fn close(&mut self) -> Result<bool, Failure> {
        self.skip_blanks();
        let trims = self.rest().starts_with("-}}");
        if !trims && !self.rest().starts_with("}}") {
            return self.fail("unclosed action");
        }
        self.at += if trims { 3 } else { 2 };
        Ok(trims)
    }

    fn pipeline(&mut self, is_nested: bool) -> Result<Pipeline, Failure> {
        let mut commands = vec![self.command(is_nested)?];
        loop {
            self.skip_blanks();
            if !self.rest().starts_with('|') {
                return Ok(Pipeline { commands });
            }
            self.at += 1;
            let command = self.command(is_nested)?;
            if !matches!(command.operands.first().map(|first| &first.value), Some(Term::Function(_))) {
                return self.fail("non executable command in pipeline stage 2");
            }
            commands.push(command);
        }
    }

    fn command(&mut self, is_nested: bool) -> Result<Command, Failure> {
        self.skip_blanks();
        let from = self.at;
        let mut operands = Vec::new();
        loop {
            self.skip_blanks();
            let rest = self.rest();
            match rest.chars().next() {
                None => return self.fail(if is_nested { "unclosed left paren" } else { "unclosed action" }),
                Some('}') if is_nested => return self.fail("unclosed left paren"),
                Some('|' | '}') => break,
                Some('-') if rest.starts_with("-}}") => break,
                Some(')') if is_nested => break,
                Some(_) => operands.push(self.operand()?),
            }
        }
        if operands.is_empty() {
            return self.fail("missing value for command");
        }
        Ok(Command { place: self.place(from), operands })
    }

    fn operand(&mut self) -> Result<Operand, Failure> {
        let from = self.at;
        let rest = self.rest();
        let value = match rest.chars().next().unwrap_or_default() {
            '(' => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return self.fail("parentheses are nested too deep");
                }
                self.at += 1;
                let nested = self.pipeline(true)?;
                self.skip_blanks();
                if !self.rest().starts_with(')') {
                    return self.fail("unclosed left paren");
                }
                self.at += 1;
                self.depth -= 1;
                Term::Nested(nested)
            }
            '"' => Term::Text(self.quoted()?),
            '`' => {
                let Some(end) = rest.get(1..).and_then(|after| after.find('`')) else {
                    return self.fail("unterminated raw quoted string");
                };
                let text = rest.get(1..=end).unwrap_or_default().to_owned();
                self.at += end + 2;
                Term::Text(text)
            }
            '.' => self.field()?,
            '$' => return self.fail("variables are not offered in a username_template"),
            '0'..='9' | '-' | '+' => self.number()?,
            first if first.is_ascii_alphabetic() || first == '_' => self.function()?,
            other => return self.fail(format!("unexpected {other:?} in command")),
        };
        Ok(Operand { value, place: self.place(from) })
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default().to_owned();
        self.at += end;
        word
    }

    fn field(&mut self) -> Result<Term, Failure> {
        let mut names = Vec::new();
        while self.rest().starts_with('.') {
            self.at += 1;
            let name = self.word();
            if name.is_empty() {
                return self.fail("a field is written .DisplayName or .RoleName");
            }
            names.push(name);
        }
        Ok(Term::Field(names))
    }

    fn number(&mut self) -> Result<Term, Failure> {
        let rest = self.rest();
        let end = rest
            .char_indices()
            .find(|(at, letter)| !(letter.is_ascii_alphanumeric() || *letter == '.' || *at == 0))
            .map_or(rest.len(), |(at, _)| at);
        let number = rest.get(..end).unwrap_or_default().to_owned();
        self.at += end;
        match number.parse::<i64>() {
            Ok(number) => Ok(Term::Int(number)),
            Err(_) if number.parse::<f64>().is_ok() => Ok(Term::Float(number)),
            Err(_) => self.fail(format!("bad number syntax: {number:?}")),
        }
    }

    fn function(&mut self) -> Result<Term, Failure> {
        let name = self.word();
        match name.as_str() {
            "if" | "else" | "end" | "range" | "with" | "define" | "template" | "block" | "break" | "continue" => {
                self.fail(format!("{name:?} is not offered in a username_template"))
            }
            _ if functions::arity(&name).is_some() => Ok(Term::Function(name)),
            _ => self.fail(format!("function {name:?} not defined")),
        }
    }

    /// Between double quotes, with Go's simple escapes.
    fn quoted(&mut self) -> Result<String, Failure> {
        let mut text = String::new();
        let mut letters = self.rest().char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match letters.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(plain @ ('\\' | '"')) => text.push(plain),
                    _ => return self.fail("invalid syntax in a quoted string"),
                },
                plain => text.push(plain),
            }
        }
        self.fail("unterminated quoted string")
    }
}
