//! Policy text in its usual shape: what `policy fmt` prints.
//!
//! Must not know: what a policy means. It reads the tree that [`crate::syntax`] reads for decisions, so that a text that is formatted
//! and a text that is judged are of one grammar; it keeps comments and the order of everything, and changes blanks and line
//! breaks only.
//!
//! Start with [`format_policy`]. [`layout`] lays the tree and the comments out, [`write`] prints that.
//!
//! Invariants: formatting twice is formatting once; no comment is lost; no text makes it panic.

mod layout;
mod write;

use crate::syntax::text::Lines;
use crate::syntax::{self, SyntaxError};

/// Where a text stops being a policy's, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// In the words that a server has for it.
    pub why: String,
}

impl std::fmt::Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "At {}:{}: {}", self.line, self.column, self.why)
    }
}

impl std::error::Error for FormatError {}

/// Formats a policy. JSON policies stay as they are.
///
/// # Errors
/// The first place that does not parse.
pub fn format_policy(text: &str) -> Result<String, FormatError> {
    let one_line_end = crate::policy::one_line_end(text);
    let refused = |error: SyntaxError| {
        let (line, column) = Lines::of(&one_line_end).characters(error.at);
        FormatError { line: line as usize, column, why: error.message }
    };
    if syntax::is_json(&one_line_end) {
        return syntax::parse(&one_line_end).map(|_| text.to_owned()).map_err(refused);
    }
    let (items, comments) = syntax::parse_with_comments(&one_line_end).map_err(refused)?;
    Ok(write::body(&layout::of(&one_line_end, &items, comments)))
}

/// All of a text's tokens but commas, and all of its comments. None: it does not parse.
#[cfg(any(test, fuzzing))]
fn meaning(text: &str) -> Option<(Vec<String>, Vec<String>)> {
    let (_, mut comments) = syntax::parse_with_comments(text).ok()?;
    comments.sort_by_key(|comment| comment.text);
    let comments = comments.into_iter().map(|comment| comment.text.trim_end().to_owned()).collect();
    Some((leasehold_hcl::tokens(text), comments))
}

/// Formatting changes blanks, line breaks and commas alone, and twice is once.
///
/// # Panics
/// When it does not.
#[cfg(any(test, fuzzing))]
pub fn any_policy_keeps_its_meaning(text: &str) {
    let Ok(once) = format_policy(text) else { return };
    assert_eq!(format_policy(&once).as_ref(), Ok(&once), "{text:?}");
    if !syntax::is_json(text) && !text.contains("\r\n") {
        assert_eq!(meaning(&once), meaning(text), "{text:?} became {once:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Vault's `policy fmt` prints it.
    const UNTIDY: &str = r#"# Top comment
path   "sys/mounts/*" {capabilities=["create","read",  "update"]}
path "database/*"      { capabilities = ["create","read","update","delete","list"] } # trailing
// slash comment
path "x" {
    capabilities = [
    "read", "list" ]
      min_wrapping_ttl="1s"
  required_parameters = ["a"]
  # inside
  allowed_parameters = {
    "foo" = []
    "barbaz" = ["x", 1, true]
    "*" = []
  }


  denied_parameters { a = ["b"] }
}



/* block
comment */
path "y" { policy = "read" }
path "z" {
}
path "w" {}
name = "n"
"#;

    const TIDY: &str = r#"# Top comment
path "sys/mounts/*" {
  capabilities = ["create", "read", "update"]
}

path "database/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
} # trailing

// slash comment
path "x" {
  capabilities = [
    "read",
    "list",
  ]

  min_wrapping_ttl    = "1s"
  required_parameters = ["a"]

  # inside
  allowed_parameters = {
    "foo"    = []
    "barbaz" = ["x", 1, true]
    "*"      = []
  }

  denied_parameters {
    a = ["b"]
  }
}

/* block
comment */
path "y" {
  policy = "read"
}

path "z" {}

path "w" {}

name = "n"
"#;

    #[test]
    fn a_policy_takes_the_shape_that_vault_gives_it() {
        assert_eq!(format_policy(UNTIDY).unwrap(), TIDY);
    }

    #[test]
    fn formatting_twice_is_formatting_once() {
        for text in [
            UNTIDY,
            "a = [ # first\n 1, # one\n # two\n 2\n]\n# end",
            "x = <<E\nhello\nE\ny=1",
            "a=1\n\n\nbb=2 # c\nccc=3 # d\n",
            "\n# only\n\n# two\n",
        ] {
            let once = format_policy(text).unwrap();
            assert_eq!(format_policy(&once).unwrap(), once, "{text}");
        }
    }

    /// The command line had a grammar of its own, and said other things at other places.
    #[test]
    fn an_error_is_the_servers_at_the_servers_place() {
        for text in [
            "path \"a\" {\n  capabilities \"read\"\n",
            "path \"a\" {\n",
            "path \"a {\n}",
            "a = ]",
            "}",
            "a = \"ä\" = 1",
            "a = /",
            "a b = 1",
            "a = [1 2]",
            "x = <<E\nhello",
            "{ \"path\": ",
            "{ \"path\": {} } x",
        ] {
            let error = format_policy(text).unwrap_err();
            let linted = crate::lint(&crate::Source { text: text.to_owned(), ..crate::Source::default() });
            assert_eq!(error.to_string(), linted[0].message, "{text}");
        }
        let error = format_policy("a = \"ä\" = 1").unwrap_err();
        assert_eq!((error.line, error.column), (1, 9), "columns count characters");
    }

    #[test]
    fn a_comment_is_kept_wherever_it_stands() {
        for (text, formatted) in [
            ("path /* label */ \"a\" {}", "/* label */\npath \"a\" {}\n"),
            ("a = # value\n1", "# value\na = 1\n"),
            ("a = 1 /* one */, b = 2 # two", "a = 1 /* one */\nb = 2 # two\n"),
            ("path \"a\" { # first\n}", "path \"a\" {\n  # first\n}\n"),
            ("a = [ 1 /* one */, 2 ]", "a = [\n  1, /* one */\n  2,\n]\n"),
            ("a = [] # none\r\n# end\r\n", "a = [] # none\n\n# end\n"),
        ] {
            assert_eq!(format_policy(text).unwrap(), formatted, "{text:?}");
            super::any_policy_keeps_its_meaning(text);
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow() {
        let text = format!("{}{}", "a {".repeat(100_000), "}".repeat(100_000));

        assert!(format_policy(&text).unwrap_err().why.contains("deep"));
        assert!(format_policy(&format!("a = {}", "[".repeat(100_000))).unwrap_err().why.contains("deep"));
    }

    proptest::proptest! {
        #[test]
        fn any_policy_keeps_its_meaning(text in "[a-c\"{}\\[\\]=,#/*<E\\n\\\\ 0-9.ä-]{0,80}") {
            super::any_policy_keeps_its_meaning(&text);
        }
    }
}
