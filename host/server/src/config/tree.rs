//! Configuration text as a tree: HCL in the dialect that Vault's own parser reads (HCL 1), or JSON.
//!
//! Must not know: which settings there are.
//!
//! HCL 1 differs from HCL 2 in what real files contain: quoted keys (`"2xx" = { … }`), keys that begin with a digit,
//! several settings on one line. No kept library reads it, hence this parser. Time and memory are linear in the text.
//!
//! Start with [`parse`], then [`blocks`], which makes one thing of the ways in which a block can be written.

/// Objects and lists within one another. The deepest setting in use, a response header in JSON, stands at nine.
const DEPTH_MAX: usize = 16;

/// `key = value`, `key "label" { … }`, or `"key": value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) labels: Vec<String>,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    /// As it is written.
    Number(String),
    List(Vec<Value>),
    Object(Vec<Item>),
    Null,
}

/// The first place where a text is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// # Errors
/// The text is neither HCL nor JSON.
pub(crate) fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let mut parser = Parser { rest: text, line: 1, depth: 0 };
    parser.blank()?;
    let is_json = parser.rest.starts_with('{');
    if is_json {
        parser.skip(1);
    }
    let items = parser.items(is_json)?;
    parser.blank()?;
    match parser.rest.chars().next() {
        None => Ok(items),
        Some('}') if !is_json => Err(parser.error("a `}` closes nothing")),
        Some(other) => Err(parser.error(format!("{other:?} stands after the end"))),
    }
}

/// A block with its labels: `listener "tcp" { … }`, `"listener": {"tcp": {…}}`, `"listener": [{"tcp": {…}}]`.
#[derive(Clone, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) line: usize,
    pub(crate) labels: Vec<&'a str>,
    pub(crate) items: &'a [Item],
}

/// Every block that `item` writes, each with `count` labels.
///
/// # Errors
/// The line of what is no such block.
pub(crate) fn blocks(item: &Item, count: usize) -> Result<Vec<Block<'_>>, usize> {
    let mut found = Vec::new();
    let labels = item.labels.iter().map(String::as_str).collect();
    gather(labels, &item.value, item.line, count, &mut found)?;
    Ok(found)
}

fn gather<'a>(
    labels: Vec<&'a str>,
    value: &'a Value,
    line: usize,
    count: usize,
    found: &mut Vec<Block<'a>>,
) -> Result<(), usize> {
    match value {
        Value::List(values) => values.iter().try_for_each(|value| gather(labels.clone(), value, line, count, found)),
        Value::Object(items) if labels.len() == count => {
            found.push(Block { line, labels, items });
            Ok(())
        }
        Value::Object(items) if labels.len() < count && !items.is_empty() => items.iter().try_for_each(|inner| {
            let further = std::iter::once(inner.key.as_str()).chain(inner.labels.iter().map(String::as_str));
            let labels = labels.iter().copied().chain(further).collect();
            gather(labels, &inner.value, inner.line, count, found)
        }),
        _ => Err(line),
    }
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line, what: what.into() }
    }

    /// Takes `count` bytes, which must end at a character.
    fn skip(&mut self, count: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, ""));
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        taken
    }

    fn take_if(&mut self, mark: char) -> bool {
        let is_there = self.rest.starts_with(mark);
        if is_there {
            self.skip(mark.len_utf8());
        }
        is_there
    }

    /// White space and comments.
    fn blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']).len();
            self.skip(blank);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                match self.rest.find("*/") {
                    Some(end) => self.skip(end + 2),
                    None => return Err(self.error("a comment `/*` is never closed")),
                };
            } else if blank == 0 {
                return Ok(());
            }
        }
    }

    /// Up to the closing brace, which is taken, or to the end of the text.
    fn items(&mut self, is_enclosed: bool) -> Result<Vec<Item>, SyntaxError> {
        let opened = self.line;
        let mut items = Vec::new();
        loop {
            self.blank()?;
            match self.rest.chars().next() {
                None if is_enclosed => {
                    return Err(SyntaxError { line: opened, what: "a `{` is never closed".into() });
                }
                None => return Ok(items),
                Some('}') => {
                    if is_enclosed {
                        self.skip(1);
                    }
                    return Ok(items);
                }
                // As in Vault: a comma may stand between settings.
                Some(',') => {
                    self.skip(1);
                }
                Some(_) => items.push(self.item()?),
            }
        }
    }

    fn item(&mut self) -> Result<Item, SyntaxError> {
        let line = self.line;
        let key = self.word()?.ok_or_else(|| self.error("a setting's name is expected here"))?;
        let mut labels = Vec::new();
        loop {
            self.blank()?;
            if self.rest.starts_with('{') {
                let value = self.value()?;
                return Ok(Item { line, key, labels, value });
            }
            if labels.is_empty() && (self.take_if('=') || self.take_if(':')) {
                self.blank()?;
                let value = self.value()?;
                return Ok(Item { line, key, labels, value });
            }
            match self.word()? {
                Some(label) => labels.push(label),
                None => return Err(self.error(format!("`{key}` needs `= value` or `{{ … }}` after it"))),
            }
        }
    }

    /// A name or a text in quotes; none: something else stands here.
    fn word(&mut self) -> Result<Option<String>, SyntaxError> {
        if self.rest.starts_with('"') {
            return self.quoted().map(Some);
        }
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        Ok(if end == 0 { None } else { Some(self.skip(end).to_owned()) })
    }

    fn value(&mut self) -> Result<Value, SyntaxError> {
        match self.rest.chars().next() {
            Some('"') => self.quoted().map(Value::Text),
            Some('<') => self.heredoc().map(Value::Text),
            Some('{') => {
                self.enter()?;
                self.skip(1);
                let items = self.items(true)?;
                self.depth -= 1;
                Ok(Value::Object(items))
            }
            Some('[') => {
                self.enter()?;
                let opened = self.line;
                self.skip(1);
                let list = self.list(opened)?;
                self.depth -= 1;
                Ok(Value::List(list))
            }
            _ => self.bare(),
        }
    }

    fn enter(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} brackets within one another")));
        }
        Ok(())
    }

    fn list(&mut self, opened: usize) -> Result<Vec<Value>, SyntaxError> {
        let mut values = Vec::new();
        loop {
            self.blank()?;
            if self.rest.is_empty() {
                return Err(SyntaxError { line: opened, what: "a `[` is never closed".into() });
            }
            if self.take_if(']') {
                return Ok(values);
            }
            values.push(self.value()?);
            self.blank()?;
            if !self.take_if(',') && !self.rest.starts_with(']') && !self.rest.is_empty() {
                return Err(self.error("a comma is missing in a list"));
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn bare(&mut self) -> Result<Value, SyntaxError> {
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '+' | '.');
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default();
        let value = match word {
            "" => return Err(self.error("a value is expected here")),
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            number if number.parse::<f64>().is_ok_and(f64::is_finite) => Value::Number(number.to_owned()),
            other => return Err(self.error(format!("`{other}` must be in quotes"))),
        };
        self.skip(end);
        Ok(value)
    }

    fn quoted(&mut self) -> Result<String, SyntaxError> {
        let unclosed = self.error("a text in quotes is never closed");
        self.skip(1);
        let mut text = String::new();
        // Within `${ … }` quotes and line ends belong to the text.
        let mut braces = 0_usize;
        loop {
            let Some(letter) = self.rest.chars().next() else { return Err(unclosed) };
            if letter == '\n' && braces == 0 {
                return Err(unclosed);
            }
            self.skip(letter.len_utf8());
            match letter {
                '"' if braces == 0 => return Ok(text),
                '\\' if braces == 0 => text.push(self.escaped()?),
                '$' if braces == 0 && self.rest.starts_with('{') => {
                    self.skip(1);
                    text.push_str("${");
                    braces = 1;
                }
                other => {
                    match other {
                        '{' if braces > 0 => braces += 1,
                        '}' => braces = braces.saturating_sub(1),
                        _ => {}
                    }
                    text.push(other);
                }
            }
        }
    }

    /// What stands after a backslash.
    fn escaped(&mut self) -> Result<char, SyntaxError> {
        let wrong = self.error("an unknown escape stands after a backslash");
        let Some(letter) = self.rest.chars().next() else { return Err(wrong) };
        self.skip(letter.len_utf8());
        Ok(match letter {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            '"' | '\\' | '/' => letter,
            'u' => {
                let first = self.hexadecimal().ok_or_else(|| wrong.clone())?;
                let is_pair = (0xd800..0xdc00).contains(&first) && self.rest.starts_with("\\u");
                let code = if is_pair {
                    self.skip(2);
                    let second = self.hexadecimal().filter(|low| (0xdc00..0xe000).contains(low));
                    0x1_0000 + ((first - 0xd800) << 10) + (second.ok_or_else(|| wrong.clone())? - 0xdc00)
                } else {
                    first
                };
                char::from_u32(code).ok_or(wrong)?
            }
            _ => return Err(wrong),
        })
    }

    fn hexadecimal(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let code = u32::from_str_radix(digits, 16).ok()?;
        self.skip(4);
        Some(code)
    }

    /// `<<END`, lines, `END`; with `<<-END` the lines' common indentation goes.
    fn heredoc(&mut self) -> Result<String, SyntaxError> {
        let wrong = self.error("`<<END` must be followed by lines and a line `END`");
        let end_of_line = self.rest.find('\n').ok_or_else(|| wrong.clone())?;
        let opening = self.skip(end_of_line + 1).trim();
        let marker = opening.strip_prefix("<<").ok_or_else(|| wrong.clone())?;
        let (marker, is_indented) = marker.strip_prefix('-').map_or((marker, false), |marker| (marker, true));
        if marker.is_empty() {
            return Err(wrong);
        }
        let mut lines = Vec::new();
        loop {
            if self.rest.is_empty() {
                return Err(wrong);
            }
            let end = self.rest.find('\n').map_or(self.rest.len(), |end| end + 1);
            let line = self.rest.get(..end).unwrap_or_default();
            if line.trim() == marker {
                // The line's end is left: it is white space.
                self.skip(line.trim_end().len());
                break;
            }
            lines.push(self.skip(end));
        }
        let depth = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
        let common = lines.iter().filter(|line| !line.trim().is_empty()).map(depth).min().filter(|_| is_indented);
        Ok(lines.iter().map(|line| line.get(common.unwrap_or(0)..).unwrap_or("\n")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    fn one(source: &str) -> Value {
        parse(source).unwrap_or_else(|error| panic!("{error:?}: {source}")).remove(0).value
    }

    #[test]
    fn values_are_read_as_vault_reads_them() {
        for (source, expected) in [
            ("a = \"x\"", text("x")),
            ("a = \"\\\"q\\\" \\\\ \\u00e9\\ud83d\\ude00\\n\"", text("\"q\" \\ é😀\n")),
            ("a = \"${env \"X\"}/y\"", text("${env \"X\"}/y")),
            ("\"a\" = 1", Value::Number("1".into())),
            ("{\"a\": -1.5e3}", Value::Number("-1.5e3".into())),
            ("a = true # why", Value::Bool(true)),
            ("/* x\n */ a = null // y", Value::Null),
            ("a = [\"x\", 2,\n]", Value::List(vec![text("x"), Value::Number("2".into())])),
            ("a = <<END\n one\n  two\nEND\n", text(" one\n  two\n")),
            ("a = <<-END\n  one\n\n    two\n  END\nb = 1", text("one\n\n  two\n")),
            ("a {}", Value::Object(Vec::new())),
        ] {
            assert_eq!(one(source), expected, "{source}");
        }
    }

    #[test]
    fn several_settings_stand_on_one_line_and_lines_are_counted() {
        let items = parse("a = 1 b = 2, c = 3\n\n\"2xx\" = {\n  d = \"\"\n}\n").unwrap();
        let found: Vec<(&str, usize)> = items.iter().map(|item| (item.key.as_str(), item.line)).collect();
        assert_eq!(found, [("a", 1), ("b", 1), ("c", 1), ("2xx", 3)]);
        assert!(matches!(&items[3].value, Value::Object(inner) if inner[0].line == 4));
    }

    #[test]
    fn a_block_is_one_thing_in_all_its_forms() {
        for source in [
            "listener \"tcp\" {\n address = \"x\"\n}",
            "listener tcp { address = \"x\" }",
            "listener = { tcp = { address = \"x\" } }",
            "listener = [{ tcp = { address = \"x\" } }]",
            "{\"listener\": {\"tcp\": {\"address\": \"x\"}}}",
            "{\"listener\": [{\"tcp\": {\"address\": \"x\"}}]}",
            "{\"listener\": {\"tcp\": [{\"address\": \"x\"}]}}",
        ] {
            let items = parse(source).unwrap();
            let found = blocks(&items[0], 1).unwrap_or_else(|_| panic!("{source}"));
            assert_eq!(found.len(), 1, "{source}");
            assert_eq!(found[0].labels, ["tcp"], "{source}");
            assert_eq!(found[0].items[0].key, "address", "{source}");
        }
        for source in ["listener { address = \"x\" }", "listener {}", "listener \"a\" \"b\" {}", "listener = 1"] {
            assert!(blocks(&parse(source).unwrap()[0], 1).is_err(), "{source}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_said_with_its_line() {
        for (source, line, what) in [
            ("a = \n", 2, "a value is expected"),
            ("a {\n b = 1\n", 1, "`{` is never closed"),
            ("a = [\n1", 1, "`[` is never closed"),
            ("a = [1 2]", 1, "comma is missing"),
            ("\na = \"x\nb = 1", 2, "never closed"),
            ("a = soon", 1, "must be in quotes"),
            ("a = 1\n}\n", 2, "closes nothing"),
            ("{\"a\": 1}\n{", 2, "after the end"),
            ("= 1", 1, "name is expected"),
            ("a", 1, "needs `= value`"),
            ("a \"x\" = 1", 1, "needs `= value`"),
            ("/* x", 1, "never closed"),
            ("a = \"\\q\"", 1, "unknown escape"),
            ("a = <<END\nx", 1, "<<END"),
            ("a = NaN", 1, "must be in quotes"),
        ] {
            let error = parse(source).unwrap_err();
            assert!(error.line == line && error.what.contains(what), "{source}: {error:?}");
        }
        for opening in ["[", "{", "a {", "{\"a\": ", "${", "\"${", "<<", "/*", "\"\\u"] {
            for source in [format!("a = {}", opening.repeat(50_000)), opening.repeat(50_000)] {
                assert!(parse(&source).is_err(), "{opening}");
            }
        }
    }
}
