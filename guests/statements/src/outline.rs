//! The gate before the template engine: what a handlebars template may be made of.
//!
//! The engine's grammar knows much more (partials, decorators, raw blocks, paths, `each`, `lookup`, `this`, …). All of
//! that could dump every value, recurse without bound, or surprise, so it is refused here, with a position, before
//! the engine's parser sees the text. One pass, no recursion; what passes is a subset that the engine parses alike.
//!
//! Offered: `{{variable}}`, `{{ident x}}`, `{{literal x}}`, `{{dollar x}}`, blocks of `if unless eq and or not` with
//! `{{else}}` and `{{else if …}}`, sub-expressions of `eq and or not ident literal dollar`, text and number literals,
//! comments, `~` for white space, and a backslash before `{{` that keeps the tag as text.

/// Text of one statement that the engine gets: its parser counts lines from the start at every tag.
pub const TEXT_MAX: usize = 64 << 10;
pub const TAGS_MAX: usize = 256;
/// Open blocks with their `{{else if …}}`s, and parentheses inside a tag: the engine recurses once for each, on a
/// guest's stack of 64 KiB.
pub const DEPTH_MAX: usize = 16;
const OPERANDS_MAX: usize = 16;
/// Each helper around a value may double its length.
const WRITERS_NESTED_MAX: usize = 2;

/// Helpers that write text.
const WRITERS: &[&str] = &["ident", "literal", "dollar"];
/// Helpers that ask a question; as block or as sub-expression.
const QUESTIONS: &[&str] = &["eq", "and", "or", "not"];
const BLOCKS: &[&str] = &["if", "unless", "eq", "and", "or", "not"];
/// Words that the engine reads as something else than a variable.
const RESERVED: &[&str] = &[
    "as", "else", "this", "true", "false", "null", "if", "unless", "eq", "and", "or", "not", "ident", "literal",
    "dollar",
];

/// What a template is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Some tag is more than a bare `{{word}}`.
    pub has_more_than_bare_tags: bool,
    /// Where the first backslash stands that is directly before `{{`.
    pub backslash: Option<usize>,
    pub unknown: Vec<Unknown>,
}

/// A variable that does not exist.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    pub name: String,
    pub offset: usize,
    /// It is the whole of its tag.
    pub alone: bool,
}

/// Why a template is not handed to the engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub offset: usize,
    pub why: String,
}

/// Reads `text`; `known` tells which variables exist.
///
/// # Errors
/// The first thing in `text` that is not offered.
pub fn outline(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Outline, Fault> {
    if text.len() > TEXT_MAX {
        return Err(fault(0, format!("a handlebars template has at most {TEXT_MAX} bytes")));
    }
    let mut reader = Reader { text, at: 0, known, found: Outline::default() };
    let mut open: Vec<Block<'_>> = Vec::new();
    let mut tags = 0_usize;
    while let Some(start) = reader.next_tag() {
        tags += 1;
        if tags > TAGS_MAX {
            return Err(fault(start, format!("a handlebars template has at most {TAGS_MAX} tags")));
        }
        reader.tag(start, &mut open)?;
    }
    match open.pop() {
        Some(block) => Err(fault(block.offset, format!("`{{{{#{}}}}}` is never closed", block.name))),
        None => Ok(reader.found),
    }
}

/// Whether the engine could take `word` for a variable.
#[must_use]
pub fn is_variable_name(word: &str) -> bool {
    let mut letters = word.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
        && !RESERVED.contains(&word)
}

struct Block<'t> {
    name: &'t str,
    offset: usize,
    has_else: bool,
    /// `{{else if …}}`s so far; each is a block inside of the one before.
    links: usize,
}

struct Reader<'t, 'k> {
    text: &'t str,
    at: usize,
    known: &'k dyn Fn(&str) -> bool,
    found: Outline,
}

fn fault(offset: usize, why: impl Into<String>) -> Fault {
    Fault { offset, why: why.into() }
}

impl<'t> Reader<'t, '_> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn eat(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn space(&mut self) -> bool {
        let rest = self.rest();
        let more = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at += rest.len() - more.len();
        rest.len() != more.len()
    }

    /// Goes to the next `{{` that opens a tag and returns where it stands.
    fn next_tag(&mut self) -> Option<usize> {
        loop {
            let from = self.at;
            let start = from + self.rest().find("{{")?;
            let text = self.text.as_bytes().get(from..start).unwrap_or(&[]);
            let backslashes = text.iter().rev().take_while(|&&byte| byte == b'\\').count();
            if backslashes > 0 {
                self.found.backslash.get_or_insert(start - backslashes);
            }
            self.at = start + 2;
            if backslashes != 1 {
                return Some(start);
            }
            // Escaped: the engine takes two or four braces as text.
            self.eat("{{");
        }
    }

    fn tag(&mut self, start: usize, open: &mut Vec<Block<'t>>) -> Result<(), Fault> {
        if self.rest().starts_with('{') {
            return Err(fault(start, "more than two braces in a row are not offered"));
        }
        if self.eat("!") {
            self.found.has_more_than_bare_tags = true;
            return self.comment(start);
        }
        let mut bare = !self.eat("~");
        bare &= !self.space();
        let sign_at = self.at;
        match self.rest().bytes().next() {
            Some(b'#') => {
                self.at += 1;
                self.found.has_more_than_bare_tags = true;
                self.open_block(start, open)?;
            }
            Some(b'/') => {
                self.at += 1;
                self.found.has_more_than_bare_tags = true;
                self.space();
                let name = self.word();
                match open.pop() {
                    Some(block) if block.name == name => {}
                    Some(block) => {
                        return Err(fault(start, format!("`{{{{/{name}}}}}` where `{{{{/{}}}}}` is due", block.name)));
                    }
                    None => return Err(fault(start, format!("`{{{{/{name}}}}}` closes nothing"))),
                }
            }
            Some(b'^') => {
                self.at += 1;
                self.otherwise(start, open, false)?;
            }
            Some(b'>') => return Err(fault(start, "partials are not offered")),
            Some(b'*') => return Err(fault(start, "decorators are not offered")),
            Some(b'&') => return Err(fault(start, "`{{&…}}` is not offered; nothing is escaped anyway")),
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return Err(fault(sign_at, "a variable or a helper is due here"));
                }
                if word == "else" {
                    self.otherwise(start, open, true)?;
                } else {
                    bare &= self.expression(sign_at, word)?;
                    self.found.has_more_than_bare_tags |= !bare;
                }
            }
        }
        let spaced = self.space();
        let tilde = self.eat("~");
        if !self.eat("}}") {
            return Err(fault(self.at.min(self.text.len()), "`}}` is due here"));
        }
        if (spaced || tilde) && bare {
            self.found.has_more_than_bare_tags = true;
        }
        Ok(())
    }

    fn comment(&mut self, start: usize) -> Result<(), Fault> {
        let rest = self.rest();
        let long = rest.strip_prefix("--").and_then(|inner| inner.find("--}}")).map(|end| 2 + end + 4);
        let end = long.or_else(|| rest.find("}}").map(|end| end + 2));
        self.at += end.ok_or_else(|| fault(start, "the comment is never closed"))?;
        Ok(())
    }

    fn open_block(&mut self, start: usize, open: &mut Vec<Block<'t>>) -> Result<(), Fault> {
        self.space();
        let name = self.word();
        if !BLOCKS.contains(&name) {
            return Err(fault(
                start,
                format!("the block `{{{{#{name}}}}}` is not offered; there are {}", BLOCKS.join(", ")),
            ));
        }
        if depth(open) >= DEPTH_MAX {
            return Err(fault(start, format!("blocks are nested deeper than {DEPTH_MAX}")));
        }
        open.push(Block { name, offset: start, has_else: false, links: 0 });
        self.operands(start, name)
    }

    fn otherwise(&mut self, start: usize, open: &mut [Block<'t>], may_chain: bool) -> Result<(), Fault> {
        self.found.has_more_than_bare_tags = true;
        let depth = depth(open);
        let Some(block) = open.last_mut() else {
            return Err(fault(start, "`{{else}}` outside of a block"));
        };
        if block.has_else {
            return Err(fault(start, "a second `{{else}}` in one block"));
        }
        self.space();
        if may_chain && !self.rest().starts_with(['}', '~']) {
            let name = self.word();
            if !BLOCKS.contains(&name) {
                return Err(fault(
                    start,
                    format!("`{{{{else {name}}}}}` is not offered; there are {}", BLOCKS.join(", ")),
                ));
            }
            if depth >= DEPTH_MAX {
                return Err(fault(
                    start,
                    format!("blocks are nested deeper than {DEPTH_MAX}, counting each `else if`"),
                ));
            }
            block.links += 1;
            return self.operands(start, name);
        }
        block.has_else = true;
        Ok(())
    }

    /// A tag that begins with `word`; says whether it is the word alone.
    fn expression(&mut self, offset: usize, word: &str) -> Result<bool, Fault> {
        let after_word = self.at;
        self.space();
        if self.rest().starts_with(['}', '~']) {
            self.at = after_word;
            // `{{ident}}` alone is a variable of that name, and there is none.
            self.variable(offset, word, true)?;
            return Ok(true);
        }
        if WRITERS.contains(&word) {
            self.at = after_word;
            self.operands(offset, word)?;
            return Ok(false);
        }
        Err(fault(offset, format!("`{word}` is not a helper; there are {}", WRITERS.join(", "))))
    }

    fn variable(&mut self, offset: usize, word: &str, alone: bool) -> Result<(), Fault> {
        // `{{this}}` would render as `[object]`, `{{@root.name}}` as the value: text to Vault, so text here.
        let path = word == "this" || word.contains(['@', '.', '/', '[']);
        if path && !alone {
            return Err(fault(offset, format!("`{word}` is not offered: a variable is a plain name")));
        }
        if path || !is_variable_name(word) || !(self.known)(word) {
            self.found.unknown.push(Unknown { name: word.to_owned(), offset, alone });
        }
        Ok(())
    }

    /// What follows a helper, sub-expressions included, up to the end of the tag. Without recursion: `stack` counts
    /// the operands of each open parenthesis.
    fn operands(&mut self, helper_at: usize, helper: &str) -> Result<(), Fault> {
        let mut stack: Vec<(&str, usize, usize)> = vec![(helper, helper_at, 0)];
        loop {
            let spaced = self.space();
            let offset = self.at;
            let next = self.rest().bytes().next();
            match next {
                None => return Err(fault(helper_at, "the tag is never closed")),
                Some(b'}' | b'~') if stack.len() == 1 => {
                    return arity(stack.pop());
                }
                Some(b')') if stack.len() > 1 => {
                    self.at += 1;
                    arity(stack.pop())?;
                    continue;
                }
                _ => {}
            }
            if !spaced {
                return Err(fault(offset, "a space is due here"));
            }
            match stack.last_mut() {
                Some((_, _, count)) if *count < OPERANDS_MAX => *count += 1,
                _ => return Err(fault(offset, format!("more than {OPERANDS_MAX} arguments"))),
            }
            match next {
                Some(b'(') => {
                    self.at += 1;
                    self.space();
                    let name = self.word();
                    if !QUESTIONS.contains(&name) && !WRITERS.contains(&name) {
                        return Err(fault(
                            offset,
                            format!(
                                "`({name} …)` is not offered; there are {}, {}",
                                QUESTIONS.join(", "),
                                WRITERS.join(", ")
                            ),
                        ));
                    }
                    let writers = stack.iter().filter(|(name, _, _)| WRITERS.contains(name)).count();
                    if WRITERS.contains(&name) && writers >= WRITERS_NESTED_MAX {
                        return Err(fault(offset, "a third helper around one value is not offered"));
                    }
                    if stack.len() >= DEPTH_MAX {
                        return Err(fault(offset, format!("parentheses are nested deeper than {DEPTH_MAX}")));
                    }
                    stack.push((name, offset, 0));
                }
                Some(quote @ (b'"' | b'\'')) => self.quoted(quote)?,
                Some(b'0'..=b'9' | b'-') => self.number()?,
                _ => {
                    let word = self.word();
                    if word.is_empty() {
                        return Err(fault(offset, "a variable, a text or a number is due here"));
                    }
                    if word != "true" && word != "false" {
                        self.variable(offset, word, false)?;
                    }
                }
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        let inner = self.rest();
        let length =
            inner.bytes().position(|byte| byte == quote).ok_or_else(|| fault(start, "the text is never closed"))?;
        // The engine hands the inside to a JSON parser.
        if inner.bytes().take(length).any(|byte| byte == b'\\' || byte.is_ascii_control()) {
            return Err(fault(start, "no backslash or control character in a text"));
        }
        self.at += length + 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let digits = self.rest().bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'-').count();
        let written = self.rest().get(..digits).unwrap_or("");
        self.at += digits;
        match written.parse::<i64>() {
            Ok(number) if number.to_string() == written => Ok(()),
            _ => Err(fault(start, format!("`{written}` is not a whole number"))),
        }
    }

    /// Reads what the engine could take for a name or a path.
    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'_' | b'-' | b'$' | b':' | b'.' | b'/' | b'@' | b'[' | b']')
                    || !byte.is_ascii()
            })
            .count();
        self.at += length;
        rest.get(..length).unwrap_or("")
    }
}

fn depth(open: &[Block<'_>]) -> usize {
    open.iter().map(|block| 1 + block.links).sum()
}

fn arity(helper: Option<(&str, usize, usize)>) -> Result<(), Fault> {
    let Some((name, offset, count)) = helper else { return Ok(()) };
    let (fits, wants) = match name {
        "eq" => (count == 2, "two arguments"),
        "and" | "or" => (count >= 2, "two arguments or more"),
        _ => (count == 1, "one argument"),
    };
    if fits { Ok(()) } else { Err(fault(offset, format!("`{name}` takes {wants}, here are {count}"))) }
}
