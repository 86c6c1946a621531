//! The two notations of a policy, read into one tree.
//!
//! Must not know: what a policy means. Keys and values are only text here.
//!
//! Start with [`parse`]; [`hcl`] and [`json`] build the tree, [`scan`] makes HCL's tokens, [`text`] turns offsets into
//! lines and columns.
//!
//! Invariants: any text ends in a tree or an error, never in a panic; nesting is at most [`MAX_DEPTH`] deep, so that
//! whoever walks the tree may recurse.

pub(crate) mod hcl;
pub(crate) mod json;
mod scan;
pub(crate) mod text;

use std::borrow::Cow;

/// Objects and lists inside each other. A policy needs five.
pub(crate) const MAX_DEPTH: u32 = 32;
/// Bytes of one policy's text. The server's request limit is far below.
pub(crate) const MAX_TEXT: usize = 1 << 20;

/// `key "label" { … }` or `key = value`.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) keys: Vec<Key<'a>>,
    /// Where the `=` (JSON: the `:`) stands; none for a block.
    pub(crate) assign: Option<u32>,
    pub(crate) value: Node<'a>,
}

#[derive(Debug, Clone)]
pub(crate) struct Key<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) at: u32,
    pub(crate) end: u32,
}

#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) at: u32,
    /// Behind it, its closing bracket included.
    pub(crate) end: u32,
    pub(crate) kind: Kind<'a>,
}

#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Text(Cow<'a, str>),
    /// As written: nothing here does arithmetic.
    Integer(&'a str),
    Float(&'a str),
    Bool(bool),
    Null,
    List(Vec<Node<'a>>),
    Object(Vec<Item<'a>>),
}

impl Kind<'_> {
    /// The name that Vault's own error texts use for it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::List(_) => "*ast.ListType",
            Self::Object(_) => "*ast.ObjectType",
            _ => "*ast.LiteralType",
        }
    }
}

/// `# …`, `// …` or `/* … */`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comment<'a> {
    pub(crate) at: u32,
    pub(crate) text: &'a str,
}

/// A text that is no tree.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: u32,
    pub(crate) message: String,
}

/// Reads HCL, or JSON when the first character that is not white space is `{`.
///
/// # Errors
/// The first error, as HashiCorp's parser would report it. The caller adds `At line:column: ` in front.
pub(crate) fn parse(text: &str) -> Result<Vec<Item<'_>>, SyntaxError> {
    if text.len() > MAX_TEXT {
        return Err(SyntaxError { at: 0, message: format!("the policy is longer than {MAX_TEXT} bytes") });
    }
    if is_json(text) { json::parse_policy(text) } else { hcl::parse(text).map(|(items, _)| items) }
}

/// Whether a text is in the JSON notation, right or wrong.
pub(crate) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Reads HCL, and keeps the comments.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_with_comments(text: &str) -> Result<(Vec<Item<'_>>, Vec<Comment<'_>>), SyntaxError> {
    if text.len() > MAX_TEXT {
        return Err(SyntaxError { at: 0, message: format!("the policy is longer than {MAX_TEXT} bytes") });
    }
    hcl::parse(text)
}
