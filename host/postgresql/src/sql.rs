//! Quoting: the only way a name or a text of ours gets into SQL; and what comes back.

use tokio_postgres::SimpleQueryMessage;

/// `name` as a quoted identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// `text` as a string literal, the same under any `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

/// The columns of the rows in an answer, as texts.
pub fn rows(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = Vec<Option<&str>>> {
    answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at)).collect()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(ident(r#"a"; DROP ROLE x; --"#), r#""a""; DROP ROLE x; --""#);
        assert_eq!(ident("a\0b"), "\"ab\"");
    }

    #[test]
    fn a_text_cannot_leave_its_quotes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\' OR 1"), r" E'\\'' OR 1'");
    }
}
