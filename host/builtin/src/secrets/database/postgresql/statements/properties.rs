//! What holds for every statement text and every secret: asked by the tests with texts that are likely to matter, by the fuzz
//! targets with any.

use secrecy::{ExposeSecret, SecretString};

use super::lexer::{Kind, is_space, tokens};
use super::{split, substitute, touches_shared, unpack};

/// The placeholder in texts that a secret is put into.
pub const HOLE: &str = "Ph0lder";

/// Every byte is in one token, and splitting loses and changes nothing.
pub fn any_text_is_read_whole(sql: &str) {
    let joined: String = tokens(sql).map(|token| token.text).collect();
    assert_eq!(joined, sql);
    assert!(tokens(sql).all(|token| !token.text.is_empty()));

    let statements = split(sql);
    let kept: Vec<String> = statements.iter().flat_map(|statement| significant(statement)).collect();
    assert_eq!(kept, significant(sql));
    assert!(statements.iter().all(|statement| !statement.is_empty()));
    assert_eq!(split(&statements.join("\n;\n")), statements);

    let pieces = statements.iter().any(|piece| touches_shared(piece, "y"));
    assert_eq!(touches_shared(sql, "y"), pieces);
    assert!(unpack(sql).len() <= sql.len().max(1));
}

/// What PostgreSQL would look at. Blanks that are letters to it do not make a statement by themselves.
fn significant(sql: &str) -> Vec<String> {
    let words =
        tokens(sql).filter(|token| token.is_significant() && !token.is_sign(";") && !token.text.trim().is_empty());
    words
        .map(|token| token.text.trim_end_matches(|letter| u8::try_from(letter).is_ok_and(is_space)).to_owned())
        .collect()
}

/// What is put in leaves every token what it was, and a literal of its own says exactly the secret.
pub fn a_secret_never_leaves_its_place(sql: &str, secret: &str) {
    if touches_the_hole(secret) {
        return;
    }
    let Ok(written) = substitute(sql, HOLE, &SecretString::from(secret)) else { return };
    let written = written.expose_secret();
    let before: Vec<_> = tokens(sql).collect();
    let after: Vec<_> = tokens(written).collect();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.kind, before.closed), (after.kind, after.closed));
        if !before.text.contains(HOLE) {
            assert_eq!(before.text, after.text);
        } else if before.inside() == Some(HOLE) {
            let said = after.inside().unwrap_or_default();
            assert_eq!(meant(before.kind, said), secret);
        }
    }
    assert!(!written.contains(HOLE));
    assert_eq!(split(written).len(), split(sql).len());
}

/// Together with what stands beside it such a secret can make a placeholder; real placeholders are random.
fn touches_the_hole(secret: &str) -> bool {
    let meets = |at| secret.starts_with(&HOLE[at..]) || secret.ends_with(&HOLE[..at]);
    secret.contains(HOLE) || HOLE.contains(secret) || (1..HOLE.len()).any(meets)
}

/// What stands between the quotes, without what was doubled on its way in.
fn meant(kind: Kind, said: &str) -> String {
    let doubled: &[char] = match kind {
        Kind::Literal => &['\''],
        Kind::EscapeLiteral => &['\'', '\\'],
        _ => &[],
    };
    let mut letters = said.chars();
    let mut meant = String::new();
    while let Some(letter) = letters.next() {
        if doubled.contains(&letter) {
            assert_eq!(letters.next(), Some(letter), "{said}");
        }
        meant.push(letter);
    }
    meant
}
