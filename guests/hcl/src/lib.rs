//! The two notations of a policy, read into one tree: HashiCorp's first configuration language, and JSON.
//!
//! Plain Rust without a clock, a file or a secret. The ACL component is built with it, and the host reads password policies with it.
//!
//! Must not know: what a policy means. Keys and values are only text here.
//!
//! Start with [`parse`]; `hcl` and [`json`] build the tree, `scan` makes HCL's tokens, [`text`] turns offsets into lines and columns.
//!
//! Invariants: any text ends in a tree or an error, never in a panic; nesting is at most [`MAX_DEPTH`] deep, so that
//! whoever walks the tree may recurse.

mod hcl;
pub mod json;
mod scan;
pub mod text;

use std::borrow::Cow;

/// Objects and lists inside each other. A policy needs five.
pub const MAX_DEPTH: u32 = 32;
/// Bytes of one policy's text. The server's request limit is far below.
pub const MAX_TEXT: usize = 1 << 20;

/// `key "label" { … }` or `key = value`.
#[derive(Debug)]
pub struct Item<'a> {
    pub keys: Vec<Key<'a>>,
    /// Where the `=` (JSON: the `:`) stands; none for a block.
    pub assign: Option<u32>,
    pub value: Node<'a>,
}

#[derive(Debug, Clone)]
pub struct Key<'a> {
    pub name: Cow<'a, str>,
    pub at: u32,
    pub end: u32,
}

#[derive(Debug)]
pub struct Node<'a> {
    pub at: u32,
    /// Behind it, its closing bracket included.
    pub end: u32,
    pub kind: Kind<'a>,
}

#[derive(Debug)]
pub enum Kind<'a> {
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
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::List(_) => "*ast.ListType",
            Self::Object(_) => "*ast.ObjectType",
            _ => "*ast.LiteralType",
        }
    }
}

/// `# …`, `// …` or `/* … */`.
#[derive(Debug, Clone, Copy)]
pub struct Comment<'a> {
    pub at: u32,
    pub text: &'a str,
}

/// A text that is no tree.
#[derive(Debug)]
pub struct SyntaxError {
    pub at: u32,
    pub message: String,
}

/// Reads HCL, or JSON when the first character that is not white space is `{`.
///
/// # Errors
/// The first error, as HashiCorp's parser would report it. The caller adds `At line:column: ` in front.
pub fn parse(text: &str) -> Result<Vec<Item<'_>>, SyntaxError> {
    if is_json(text) {
        check_length(text)?;
        return json::parse_object(text);
    }
    parse_with_comments(text).map(|(items, _)| items)
}

/// Whether a text is in the JSON notation, right or wrong.
#[must_use]
pub fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Reads HCL, and keeps the comments.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_comments(text: &str) -> Result<(Vec<Item<'_>>, Vec<Comment<'_>>), SyntaxError> {
    check_length(text)?;
    hcl::parse(text)
}

/// All tokens of a text in HCL but commas, as they are written.
#[must_use]
pub fn tokens(text: &str) -> Vec<String> {
    hcl::tokens(text)
}

fn check_length(text: &str) -> Result<(), SyntaxError> {
    if text.len() > MAX_TEXT {
        return Err(SyntaxError { at: 0, message: format!("the policy is longer than {MAX_TEXT} bytes") });
    }
    Ok(())
}
