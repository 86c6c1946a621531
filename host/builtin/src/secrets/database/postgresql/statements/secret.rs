//! Puts a secret where a placeholder stands, so that it means itself there and nothing else.
//!
//! Placeholders come out of the template guest, which never sees a secret. Two things keep a secret inside its literal: it is
//! escaped for the place, and the result is read again and must have the same tokens, ending where they were put.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::lexer::{Kind, Token, tokens};

/// Dollar-quoted bodies inside of each other that are looked into; deeper ones count as code that is not understood.
const BODIES_MAX: u8 = 4;

/// Where a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Among words and signs, or where its place cannot be told.
    Bare,
    /// In `"…"`.
    QuotedIdentifier,
    /// It is all of a `'…'`.
    Literal,
    /// It is all of an `E'…'`.
    EscapeLiteral,
    /// It is a part of a literal, which may be SQL again: `'CREATE ROLE … PASSWORD ''here'''`.
    PartOfLiteral,
    /// In a `U&'…'`, whose escape character is named later.
    UnicodeLiteral,
    /// It is all of a `$tag$…$tag$`.
    DollarQuoted,
    Comment,
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bare => "outside of quotes",
            Self::QuotedIdentifier => "in a quoted identifier",
            Self::Literal => "in a literal",
            Self::EscapeLiteral => "in an escape literal",
            Self::PartOfLiteral => "in a part of a literal",
            Self::UnicodeLiteral => "in a Unicode literal",
            Self::DollarQuoted => "in a dollar-quoted literal",
            Self::Comment => "in a comment",
        })
    }
}

/// One occurrence of a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) placement: Placement,
    /// Byte offset in the whole text.
    pub(crate) offset: usize,
    /// In how many dollar-quoted bodies it stands, such as that of a `DO`.
    pub(crate) bodies: u8,
}

/// Why a secret was not put in. Names places, never a part of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubstituteError {
    /// Ours are a letter, then letters and digits: another one could be cut by the lexer or by an escape.
    #[error("the placeholder is not a letter followed by letters and digits")]
    Placeholder,
    #[error("the secret stands {0}, where it may have letters and digits only; write it in single quotes")]
    Place(Placement),
    #[error(
        "the secret has characters that are not allowed in a part of a literal; write it in single quotes of its own"
    )]
    PartOfLiteral,
    #[error("the secret holds a NUL character, which PostgreSQL knows no literal for")]
    Nul,
    #[error("the secret would end the quotes it stands in")]
    Structure,
}

/// Every place in `sql` where `placeholder` stands, in order; empty for a placeholder that is not well formed.
pub(crate) fn placements(sql: &str, placeholder: &str) -> Vec<Placed> {
    let mut found = Vec::new();
    if is_placeholder(placeholder) {
        find(sql, placeholder, 0, 0, &mut found);
    }
    found
}

fn find(sql: &str, placeholder: &str, base: usize, bodies: u8, found: &mut Vec<Placed>) {
    for token in tokens(sql).filter(|token| token.text.contains(placeholder)) {
        match body_of(&token, placeholder, bodies) {
            Some((from, body)) => find(body, placeholder, base + token.start + from, bodies + 1, found),
            None => {
                let placement = placement(&token, placeholder);
                found.extend(token.text.match_indices(placeholder).map(|(at, _)| Placed {
                    placement,
                    offset: base + token.start + at,
                    bodies,
                }));
            }
        }
    }
}

/// The code in a dollar-quoted `token` and where it begins; `None` when the token is to be judged as a whole.
fn body_of<'s>(token: &Token<'s>, placeholder: &str, bodies: u8) -> Option<(usize, &'s str)> {
    let delimiter = token.delimiter()?;
    let body = token.inside().filter(|body| *body != placeholder)?;
    (bodies < BODIES_MAX && !delimiter.contains(placeholder)).then_some((delimiter.len(), body))
}

fn placement(token: &Token<'_>, placeholder: &str) -> Placement {
    let whole = token.inside() == Some(placeholder);
    match token.kind {
        Kind::Comment => Placement::Comment,
        Kind::QuotedIdentifier => Placement::QuotedIdentifier,
        Kind::UnicodeLiteral => Placement::UnicodeLiteral,
        Kind::Literal if whole => Placement::Literal,
        Kind::EscapeLiteral if whole => Placement::EscapeLiteral,
        Kind::DollarQuoted if whole => Placement::DollarQuoted,
        Kind::Literal | Kind::EscapeLiteral if token.closed => Placement::PartOfLiteral,
        _ => Placement::Bare,
    }
}

/// A random placeholder is found in a text only where it was put; this form also keeps it in one token.
fn is_placeholder(placeholder: &str) -> bool {
    placeholder.starts_with(|first: char| first.is_ascii_alphabetic()) && is_alphanumeric(placeholder)
}

fn is_alphanumeric(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `sql` with `secret` for every occurrence of `placeholder`, escaped for where it stands.
///
/// In a literal of its own a secret may hold anything but NUL. In a part of a literal it may hold what a SCRAM verifier does,
/// elsewhere only letters and digits. The session must have `standard_conforming_strings` on, as PostgreSQL has by default.
///
/// # Errors
/// [`SubstituteError`] when the secret could mean anything but itself at some place; nothing is put in then.
pub(crate) fn substitute(sql: &str, placeholder: &str, secret: &SecretString) -> Result<SecretString, SubstituteError> {
    if !is_placeholder(placeholder) {
        return Err(SubstituteError::Placeholder);
    }
    let secret = secret.expose_secret();
    if secret.contains('\0') {
        return Err(SubstituteError::Nul);
    }
    // Large enough for every character doubled, so that the buffer never moves and leaves a copy behind.
    let occurrences = sql.matches(placeholder).count();
    let mut out = Zeroizing::new(String::with_capacity(sql.len() + occurrences * secret.len() * 2));
    rewrite(sql, placeholder, secret, 0, &mut out)?;
    Ok(SecretString::from(out.as_str()))
}

fn rewrite(sql: &str, placeholder: &str, secret: &str, bodies: u8, out: &mut String) -> Result<(), SubstituteError> {
    let from = out.len();
    let mut ends = Vec::new();
    for token in tokens(sql) {
        if !token.text.contains(placeholder) {
            out.push_str(token.text);
        } else if let Some((_, body)) = body_of(&token, placeholder, bodies) {
            let delimiter = token.delimiter().unwrap_or("");
            out.push_str(delimiter);
            rewrite(body, placeholder, secret, bodies + 1, out)?;
            out.push_str(delimiter);
        } else {
            let placement = placement(&token, placeholder);
            allowed(secret, placement)?;
            let mut rest = token.text;
            while let Some((before, after)) = rest.split_once(placeholder) {
                out.push_str(before);
                push_escaped(secret, placement, out);
                rest = after;
            }
            out.push_str(rest);
        }
        ends.push((token.kind, token.closed, out.len() - from));
    }
    let written = out.get(from..).unwrap_or("");
    let read = tokens(written).map(|token| (token.kind, token.closed, token.end()));
    if read.eq(ends) { Ok(()) } else { Err(SubstituteError::Structure) }
}

fn allowed(secret: &str, placement: Placement) -> Result<(), SubstituteError> {
    match placement {
        Placement::Literal | Placement::EscapeLiteral | Placement::DollarQuoted => Ok(()),
        Placement::PartOfLiteral if is_harmless_in_nested_sql(secret) => Ok(()),
        Placement::PartOfLiteral => Err(SubstituteError::PartOfLiteral),
        _ if is_alphanumeric(secret) => Ok(()),
        _ => Err(SubstituteError::Place(placement)),
    }
}

/// Whether a secret can neither close a quote nor open one or a comment, however deep it stands. SCRAM verifiers pass:
/// `SCRAM-SHA-256$4096:salt$stored:server` has no `$tag$`, because of the colons.
fn is_harmless_in_nested_sql(secret: &str) -> bool {
    let plain = secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"$:/+=._-".contains(&byte));
    let quotes = secret.match_indices('$').any(|(at, _)| {
        let tag = secret.get(at + 1..).unwrap_or("");
        tag.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').starts_with('$')
    });
    // At its edges it could make a tag or a comment together with what stands beside it.
    let edges = secret.starts_with(['$', '-', '/']) || secret.ends_with(['$', '-', '/']);
    !secret.is_empty() && plain && !quotes && !edges && !secret.contains("--")
}

fn push_escaped(secret: &str, placement: Placement, out: &mut String) {
    for letter in secret.chars() {
        let doubled = match placement {
            Placement::Literal => letter == '\'',
            Placement::EscapeLiteral => letter == '\'' || letter == '\\',
            _ => false,
        };
        if doubled {
            out.push(letter);
        }
        out.push(letter);
    }
}
