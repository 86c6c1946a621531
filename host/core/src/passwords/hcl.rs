//! The notation of password policies: HCL 1, or JSON where the text begins with `{`, read into a tree of values.
//!
//! Must not know: what a policy means.
//!
//! Our own, and not the ACL's: that grammar lives in a guest, which tells what a policy decides and hands out no tree. This one
//! is read when an operator writes a policy and when a password is made, so a small reader without a library will do.
//!
//! Invariants: any text ends in a tree or an error; nesting is at most [`DEPTH_MAX`] deep.

use serde_json::Value as Json;

/// Objects and lists inside each other. A policy needs three.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Value>),
    /// In the order of the text; a key may stand several times.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The name that Go's decoder has for its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Bool(_) => "bool",
            Self::List(_) => "[]interface {}",
            Self::Object(_) => "[]map[string]interface {}",
        }
    }
}

/// # Errors
/// Where the text is no HCL and why: `At 3:17: object expected closing RBRACE got: EOF`.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Value)>, String> {
    if text.trim_start().starts_with('{') {
        let json: Json = serde_json::from_str(text)
            .map_err(|error| format!("At {}:{}: the JSON is not readable", error.line(), error.column()))?;
        return match from_json(json) {
            Some(Value::Object(items)) => Ok(items),
            _ => Err("the JSON is no object of texts, numbers, lists and objects".to_owned()),
        };
    }
    let mut parser = Parser { scanner: Scanner { rest: text, line: 1, column: 1 }, held: None };
    parser.items(0)
}

/// `None` for a number that no field takes.
fn from_json(json: Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Text(String::new()),
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(from_json).collect::<Option<_>>()?),
        Json::Object(items) => {
            Value::Object(items.into_iter().map(|(key, item)| Some((key, from_json(item)?))).collect::<Option<_>>()?)
        }
    })
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Ident(String),
    Text(String),
    Number(String),
    Assign,
    Comma,
    LBrace,
    RBrace,
    LBrack,
    RBrack,
    Eof,
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::Ident(_) => "IDENT",
            Self::Text(_) => "STRING",
            Self::Number(_) => "NUMBER",
            Self::Assign => "ASSIGN",
            Self::Comma => "COMMA",
            Self::LBrace => "LBRACE",
            Self::RBrace => "RBRACE",
            Self::LBrack => "LBRACK",
            Self::RBrack => "RBRACK",
            Self::Eof => "EOF",
        }
    }

    fn written(&self) -> &str {
        match self {
            Self::Ident(text) | Self::Number(text) => text,
            // A text could be long, or be what somebody took for a secret.
            Self::Text(_) | Self::Eof => "",
            Self::Assign => "=",
            Self::Comma => ",",
            Self::LBrace => "{",
            Self::RBrace => "}",
            Self::LBrack => "[",
            Self::RBrack => "]",
        }
    }
}

/// Line and column, counted in characters from 1.
type Place = (usize, usize);

fn at((line, column): Place, why: &str) -> String {
    format!("At {line}:{column}: {why}")
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    held: Option<(Token, Place)>,
}

impl Parser<'_> {
    fn take(&mut self) -> Result<(Token, Place), String> {
        match self.held.take() {
            Some(token) => Ok(token),
            None => self.scanner.token(),
        }
    }

    /// Items up to the end of the text, or (inside an object) behind its closing brace.
    fn items(&mut self, depth: usize) -> Result<Vec<(String, Value)>, String> {
        let mut items = Vec::new();
        loop {
            let (token, place) = self.take()?;
            match token {
                Token::Eof if depth == 0 => return Ok(items),
                // HCL's scanner counts its second look behind the end as a column.
                Token::Eof => return Err(at((place.0, place.1 + 1), "object expected closing RBRACE got: EOF")),
                Token::RBrace if depth > 0 => return Ok(items),
                first => items.push(self.item(first, place, depth)?),
            }
            match self.take()? {
                (Token::Comma, _) => {}
                other => self.held = Some(other),
            }
        }
    }

    /// `key = value`, or `key "label" … { … }`, which means an object in an object.
    fn item(&mut self, first: Token, place: Place, depth: usize) -> Result<(String, Value), String> {
        let (mut token, mut place) = (first, place);
        let mut keys = Vec::new();
        let value = loop {
            match token {
                Token::Ident(name) | Token::Text(name) => keys.push(name),
                Token::Assign if keys.is_empty() => return Err(at(place, "no object keys found!")),
                Token::Assign if keys.len() > 1 => {
                    return Err(at(place, "nested object expected: LBRACE got: ASSIGN"));
                }
                Token::Assign => break self.value(depth)?,
                Token::LBrace if !keys.is_empty() => break Value::Object(self.items(deeper(depth, place)?)?),
                Token::LBrace => return Err(at(place, "expected: IDENT | STRING got: LBRACE")),
                Token::Eof | Token::RBrace if !keys.is_empty() => {
                    let written = keys.join(" ");
                    let why = format!("key '{written}' expected start of object ('{{') or assignment ('=')");
                    return Err(at(place, &why));
                }
                other => {
                    let why = format!("expected: IDENT | STRING | ASSIGN | LBRACE got: {}", other.name());
                    return Err(at(place, &why));
                }
            }
            if keys.len() > DEPTH_MAX {
                return Err(at(place, "nested too deep"));
            }
            (token, place) = self.take()?;
        };
        let mut keys = keys.into_iter();
        let first = keys.next().unwrap_or_default();
        let value = keys.rev().fold(value, |value, label| Value::Object(vec![(label, value)]));
        Ok((first, value))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        let (token, place) = self.take()?;
        match token {
            Token::LBrace => Ok(Value::Object(self.items(deeper(depth, place)?)?)),
            Token::LBrack => self.list(deeper(depth, place)?),
            Token::Eof if depth > 0 => Err(at(place, "object expected closing RBRACE got: EOF")),
            Token::Eof => Err(at(place, "expected a value got: EOF")),
            other => literal(other, place),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        let mut needs_comma = false;
        loop {
            let (token, place) = self.take()?;
            match token {
                Token::RBrack => return Ok(Value::List(values)),
                Token::Comma => {
                    needs_comma = false;
                    continue;
                }
                other if needs_comma => {
                    let why = format!("error parsing list, expected comma or list end, got: {}", other.name());
                    return Err(at(place, &why));
                }
                Token::LBrace => values.push(Value::Object(self.items(deeper(depth, place)?)?)),
                Token::LBrack => values.push(self.list(deeper(depth, place)?)?),
                Token::Eof => return Err(at(place, "unexpected token while parsing list: EOF")),
                other => values.push(literal(other, place)?),
            }
            needs_comma = true;
        }
    }
}

fn deeper(depth: usize, place: Place) -> Result<usize, String> {
    if depth >= DEPTH_MAX { Err(at(place, "nested too deep")) } else { Ok(depth + 1) }
}

fn literal(token: Token, place: Place) -> Result<Value, String> {
    match token {
        Token::Text(text) => Ok(Value::Text(text)),
        Token::Number(text) => number(&text),
        Token::Ident(text) if text == "true" || text == "false" => Ok(Value::Bool(text == "true")),
        other => {
            let (line, column) = place;
            Err(at(place, &format!("Unknown token: {line}:{column} {} {}", other.name(), other.written())))
        }
    }
}

fn number(text: &str) -> Result<Value, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let radix = |digits: &str, radix| {
        i64::from_str_radix(&format!("{sign}{digits}"), radix)
            .map(Value::Int)
            .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: value out of range"))
    };
    if digits.is_empty() {
        return Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    }
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return radix(hex, 16);
    }
    if digits.contains(['.', 'e', 'E']) {
        let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
        return float.map(Value::Float).ok_or_else(|| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"));
    }
    match digits.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => radix(octal, 8),
        _ => radix(digits, 10),
    }
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        if c == '\n' {
            (self.line, self.column) = (self.line + 1, 1);
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn place(&self) -> Place {
        (self.line, self.column)
    }

    fn taken_while(&mut self, mut fits: impl FnMut(char) -> bool) -> &'a str {
        let start = self.rest;
        while self.peek().is_some_and(&mut fits) {
            self.next();
        }
        start.get(..start.len() - self.rest.len()).unwrap_or_default()
    }

    /// White space and comments.
    fn skip(&mut self) -> Result<(), String> {
        loop {
            self.taken_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{feff}'));
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.taken_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                let Some(end) = self.rest.find("*/") else { return Err(at(self.place(), "comment not terminated")) };
                let target = self.rest.len() - end - 2;
                while self.rest.len() > target {
                    self.next();
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<(Token, Place), String> {
        self.skip()?;
        let place = self.place();
        let Some(c) = self.peek() else { return Ok((Token::Eof, place)) };
        let token = match c {
            '"' => Token::Text(self.text()?),
            '<' => Token::Text(self.heredoc()?),
            c if c.is_alphabetic() || c == '_' => {
                Token::Ident(self.taken_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')).to_owned())
            }
            '-' | '0'..='9' => {
                let mut before = ' ';
                let text = self.taken_while(|c| {
                    let is_sign = matches!(c, '-' | '+') && (before == ' ' || matches!(before, 'e' | 'E'));
                    before = c;
                    is_sign || c.is_ascii_alphanumeric() || c == '.'
                });
                Token::Number(text.to_owned())
            }
            _ => {
                self.next();
                match c {
                    '=' => Token::Assign,
                    ',' => Token::Comma,
                    '{' => Token::LBrace,
                    '}' => Token::RBrace,
                    '[' => Token::LBrack,
                    ']' => Token::RBrack,
                    _ => return Err(at(place, "illegal character")),
                }
            }
        };
        Ok((token, place))
    }

    fn text(&mut self) -> Result<String, String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => {
                    let place = self.place();
                    text.push(self.escape().ok_or_else(|| at(place, "illegal char escape"))?);
                }
                Some('\n') | None => return Err(at(self.place(), "literal not terminated")),
                Some(c) => text.push(c),
            }
        }
    }

    /// Reads behind the backslash.
    fn escape(&mut self) -> Option<char> {
        let digits = |scanner: &mut Self, first: &str, count: usize, radix| {
            let mut text = first.to_owned();
            for _ in 0..count {
                text.push(scanner.next().filter(|c| c.is_digit(radix))?);
            }
            char::from_u32(u32::from_str_radix(&text, radix).ok()?)
        };
        Some(match self.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' => '\\',
            '"' => '"',
            'x' => return digits(self, "", 2, 16),
            'u' => return digits(self, "", 4, 16),
            'U' => return digits(self, "", 8, 16),
            first @ '0'..='7' => return digits(self, &first.to_string(), 2, 8),
            _ => return None,
        })
    }

    /// `<<NAME` or `<<-NAME`, then lines, then `NAME` on a line of its own.
    fn heredoc(&mut self) -> Result<String, String> {
        let place = self.place();
        if !self.rest.starts_with("<<") {
            return Err(at(place, "heredoc expected second '<', didn't see it"));
        }
        self.taken_while(|c| c == '<');
        self.taken_while(|c| c == '-');
        let name = self.taken_while(|c| c.is_alphanumeric() || c == '_');
        if name.is_empty() || self.next() != Some('\n') {
            return Err(at(place, "invalid characters in heredoc anchor"));
        }
        let mut text = String::new();
        loop {
            let line = self.taken_while(|c| c != '\n');
            if line.trim() == name {
                return Ok(text);
            }
            text.push_str(line);
            text.push('\n');
            if self.next().is_none() {
                return Err(at(place, "heredoc not terminated"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_and_labels_are_objects_in_objects() {
        let read = parse("a = 1 # c\nb \"l\" 'x' {}").unwrap_err();
        assert_eq!(read, "At 2:7: illegal character");
        let read = parse("a = 0x14, b \"l\" { c = \"\\u20ac\\\"\" /* d */ d = [1.5, true] }\ne = <<X\nf\nX\n").unwrap();
        let object = |key: &str, value| Value::Object(vec![(key.to_owned(), value)]);
        let inner = Value::Object(vec![
            ("c".to_owned(), Value::Text("€\"".to_owned())),
            ("d".to_owned(), Value::List(vec![Value::Float(1.5), Value::Bool(true)])),
        ]);
        let wanted = vec![
            ("a".to_owned(), Value::Int(20)),
            ("b".to_owned(), object("l", inner)),
            ("e".to_owned(), Value::Text("f\n".to_owned())),
        ];
        assert_eq!(read, wanted);
        assert_eq!(
            parse("{\"a\":{\"b\":[1]}}").unwrap(),
            vec![("a".to_owned(), object("b", Value::List(vec![Value::Int(1)])))]
        );
    }

    #[test]
    fn nesting_has_an_end() {
        for text in ["a = ".to_owned() + &"[".repeat(20_000), "a {".repeat(20_000), "\"a\" ".repeat(20_000)] {
            assert!(parse(&text).unwrap_err().contains("nested too deep"));
        }
        assert!(parse(&"{\"a\":".repeat(20_000)).is_err());
    }

    proptest! {
        /// Whatever the text is, it ends in a tree or an error.
        #[test]
        fn no_text_panics(text in ".{0,60}", pieces in proptest::collection::vec(
            prop_oneof![Just("a"), Just(" = "), Just("{"), Just("}"), Just("["), Just("]"), Just("\""), Just("\\"),
                Just("\n"), Just("<<E\n"), Just("1e9"), Just("-"), Just("0x"), Just("/*"), Just("*/"), Just("ü")], 0..40)) {
            drop(parse(&text));
            drop(parse(&pieces.concat()));
        }
    }
}
