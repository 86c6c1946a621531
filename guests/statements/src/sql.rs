//! Just enough of SQL to point at habits that hurt. Nothing secret or safe depends on it: the host has the real lexer.
//!
//! Bodies in dollar quotes are read as SQL too, since `DO $$ … $$` is where grants hide.

/// One piece of a statement that is not white space or a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    /// A word as it stands, the inside of quotes, or of `{{…}}`.
    pub(crate) text: &'t str,
    pub(crate) offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    /// `"…"`
    Quoted,
    /// `'…'`
    Text,
    /// `{{…}}` outside of quotes
    Tag,
    Sign,
}

impl Token<'_> {
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// Whether this names the leased role: `"{{name}}"`, `{{ name }}`, `{{ident name}}` …
    pub(crate) fn is_leased_role(&self) -> bool {
        let inner = match self.kind {
            Kind::Tag => self.text,
            Kind::Quoted | Kind::Text => {
                match self.text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) {
                    Some(inner) => inner,
                    None => return false,
                }
            }
            Kind::Word | Kind::Sign => return false,
        };
        let inner = inner.trim_matches(['~', ' ']);
        let inner = inner.strip_prefix("ident ").unwrap_or(inner).trim();
        inner == "name" || inner == "username"
    }
}

/// The first tokens of `text`, `most` at the most, and whether these are all.
pub(crate) fn tokens(text: &str, most: usize) -> (Vec<Token<'_>>, bool) {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if found.len() >= most {
            return (found, false);
        }
        let rest = text.get(at..).unwrap_or("");
        let start = at;
        let mut token = |kind, from: usize, to: usize| {
            found.push(Token { kind, text: text.get(from..to).unwrap_or(""), offset: start });
        };
        match byte {
            _ if byte.is_ascii_whitespace() => at += 1,
            b'-' if rest.starts_with("--") => at += rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => at += rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'{' if rest.starts_with("{{") => {
                let end = rest.find("}}").map_or(text.len(), |end| start + end);
                token(Kind::Tag, start + 2, end);
                at = (end + 2).min(text.len());
            }
            b'"' | b'\'' => {
                let escapes = byte == b'\'' && bytes.get(..at).is_some_and(ends_in_e);
                let end = closing(bytes, at + 1, byte, escapes);
                token(if byte == b'"' { Kind::Quoted } else { Kind::Text }, start + 1, end);
                at = (end + 1).min(text.len());
            }
            _ if byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii() => {
                let word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || !byte.is_ascii();
                at += bytes.get(at..).unwrap_or(&[]).iter().take_while(word).count();
                token(Kind::Word, start, at);
            }
            _ => {
                at += 1;
                token(Kind::Sign, start, at);
            }
        }
    }
    (found, true)
}

/// Whether a quote after this opens an `E''` literal.
fn ends_in_e(before: &[u8]) -> bool {
    match before {
        [.., previous, b'e' | b'E'] => !previous.is_ascii_alphanumeric() && *previous != b'_',
        [b'e' | b'E'] => true,
        _ => false,
    }
}

/// Where the quote closes that was opened before `from`; the end of the text when it never does.
fn closing(bytes: &[u8], from: usize, quote: u8, escapes: bool) -> usize {
    let mut at = from;
    while let Some(&byte) = bytes.get(at) {
        if byte == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at;
            }
            at += 1;
        } else if escapes && byte == b'\\' {
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}
