//! `policy fmt`: policy text in its usual shape, without a server.
//!
//! Reads HashiCorp's first HCL, which policies are written in, keeps comments and the order of everything, and changes
//! blanks and line breaks only. Must not know what a policy means. Start with [`format_policy`].
//!
//! Invariants: formatting twice is formatting once; nesting and length are bounded; no text makes it panic.

mod parse;
mod scan;
mod write;

/// Where a text stops being HCL, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("At {line}:{column}: {why}")]
pub struct FormatError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What was expected, or what is in the way.
    pub why: String,
}

/// Formats a policy. JSON policies stay as they are.
///
/// # Errors
/// The first place that does not parse.
pub fn format_policy(text: &str) -> Result<String, FormatError> {
    if text.trim_start().starts_with('{') {
        return match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(FormatError {
                line: error.line(),
                column: error.column().max(1),
                why: "this is not JSON, although it begins like it".to_owned(),
            }),
        };
    }
    Ok(write::body(&parse::parse(text)?))
}

/// Everything in a text but blanks, line breaks and commas. `None`: it does not parse.
#[cfg(any(test, fuzzing))]
pub(crate) fn meaning(text: &str) -> Option<Vec<String>> {
    let pieces = scan::scan(text).ok()?;
    Some(pieces.into_iter().filter(|piece| piece.kind != scan::Kind::Mark(',')).map(|piece| piece.text).collect())
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
    fn a_policy_takes_the_shape_the_field_gives_it() {
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

    #[test]
    fn an_error_says_where() {
        for (text, line, column) in [
            ("path \"a\" {\n  capabilities \"read\"\n", 3, 1),
            ("path \"a\" {\n", 2, 1),
            ("path \"a {\n}", 1, 6),
            ("a = ]", 1, 5),
            ("}", 1, 1),
            ("a = \"ä\" = 1", 1, 9),
            ("a = /", 1, 5),
            ("{ \"path\": ", 1, 10),
        ] {
            let error = format_policy(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
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
            crate::properties::any_policy_keeps_its_meaning(&text);
        }
    }
}
