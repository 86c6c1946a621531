//! What in creation statements will not go as their author thinks.

use super::lexer::{Kind, Token, tokens};
use super::shared::names;

/// In words what is odd about one rendered statement that makes `leased_role`; `None`: nothing is.
pub(crate) fn advice(statement: &str, leased_role: &str) -> Option<&'static str> {
    let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).take(3).collect();
    let is = |at: usize, word: &str| words.get(at).is_some_and(|token| token.is_word(word));
    let is_any = |at: usize, of: &[&str]| of.iter().any(|word| is(at, word));
    if let Some(slip) = slip(statement, leased_role, 0) {
        Some(slip)
    } else if is_prepare_transaction(&words) {
        Some("PREPARE TRANSACTION leaves a transaction that nobody ends: credentials of this role are refused")
    } else if is_any(0, &["begin", "commit", "rollback", "end", "abort", "start"]) {
        Some(
            "the statements run in one transaction already: what is committed early is not undone when a later one fails",
        )
    } else if is(0, "copy") {
        Some("COPY to or from the client is not possible here")
    } else if is(0, "create") && is_any(1, &["role", "user", "group"]) {
        // One in single quotes is among the template component's own warnings.
        let is_leased = words.get(2).is_some_and(|name| names(name, leased_role) || name.inside() == Some(leased_role));
        (!is_leased).then_some(
            "another role than {{name}} is created: it ends with the lease only if revocation_statements drop it",
        )
    } else {
        calls_without_schema(statement).then_some(
            "functions are called without their schema: whoever may create in a schema of the search path can put one there that \
             fits better, and it runs with the connection's rights; write pg_catalog.format(…), or set search_path in the URL's options",
        )
    }
}

/// Letters that word processors and chats put in the place of quotes, dashes and blanks.
const PASTED: [char; 15] =
    ['“', '”', '„', '‟', '‘', '’', '‚', '‛', '«', '»', '–', '—', '\u{a0}', '\u{200b}', '\u{feff}'];

/// What slipped while a statement was written or handed over; dollar-quoted bodies are read as code.
fn slip(statement: &str, leased_role: &str, depth: u8) -> Option<&'static str> {
    let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).collect();
    let is_block = words.first().is_some_and(|word| word.is_word("do"));
    // What else stands in dollar quotes is text.
    let has_code = is_block || words.first().is_some_and(|word| word.is_word("create"));
    match words.get(1) {
        Some(sign) if is_block && sign.is_sign("$") => {
            return Some(
                "a single `$` follows DO: something on the way made `$$` out of two into one (a Makefile, a Compose file); write `$$$$` there",
            );
        }
        Some(number) if is_block && number.kind == Kind::Number => {
            return Some(
                "a number follows DO: a shell put its process number in the place of `$$`; write the statement in single quotes there",
            );
        }
        _ => {}
    }
    words.iter().find_map(|word| match word.kind {
        Kind::Word if word.text.contains(PASTED) => Some(
            "a letter stands outside of quotes that was pasted in the place of a quote, a dash or a blank, such as “ or ’: \
             write \" around names and ' around texts",
        ),
        // The name that is used here has a capital, so that it is another one without quotes; real ones have dashes.
        Kind::Word if word.text.eq_ignore_ascii_case(leased_role) && word.text.to_ascii_lowercase() != leased_role => {
            Some("`{{name}}` stands without double quotes: write \"{{name}}\"")
        }
        Kind::DollarQuoted if has_code && depth < QUOTES_MAX => slip(word.inside()?, leased_role, depth + 1),
        _ => None,
    })
}

/// What blocks of code are usually made with.
const USUAL: [&str; 8] =
    ["format", "quote_ident", "quote_literal", "quote_nullable", "concat", "replace", "lower", "current_database"];

/// Whether code of the statement calls one of the usual functions by its bare name.
fn calls_without_schema(statement: &str) -> bool {
    let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).collect();
    let body = words.iter().filter(|token| token.delimiter().is_some()).find_map(Token::inside);
    body.is_some_and(calls_without_schema)
        || words.windows(3).any(|three| match three {
            [before, name, open] => {
                open.is_sign("(") && !before.is_sign(".") && USUAL.iter().any(|usual| name.is_word(usual))
            }
            _ => false,
        })
}

/// Whether `CREATE ROLE` or one of its other spellings stands in a statement, in its blocks of code or in their literals.
pub(crate) fn creates_role(statement: &str) -> bool {
    creates_role_within(statement, 0)
}

/// Quotes inside of each other that are looked into.
const QUOTES_MAX: u8 = 4;

fn creates_role_within(text: &str, depth: u8) -> bool {
    let words: Vec<Token<'_>> = tokens(text).filter(Token::is_significant).collect();
    let says_so = words.windows(2).any(|two| match two {
        [first, second] => first.is_word("create") && ["role", "user", "group"].iter().any(|kind| second.is_word(kind)),
        _ => false,
    });
    let inside = |word: &Token<'_>| {
        word.kind != Kind::QuotedIdentifier
            && word.inside().is_some_and(|inside| creates_role_within(inside, depth + 1))
    };
    says_so || depth < QUOTES_MAX && words.iter().any(inside)
}

/// Whether a statement belongs to the control of transactions: after it nobody knows which transaction is open.
pub(crate) fn ends_transaction(statement: &str) -> bool {
    const VERBS: [&str; 8] = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).take(2).collect();
    is_prepare_transaction(&words) || words.first().is_some_and(|word| VERBS.iter().any(|verb| word.is_word(verb)))
}

/// Whether a statement would leave a transaction, with the role in it, that outlasts everybody's session.
pub(crate) fn prepares_transaction(statement: &str) -> bool {
    let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).take(2).collect();
    is_prepare_transaction(&words)
}

fn is_prepare_transaction(words: &[Token<'_>]) -> bool {
    matches!(words, [first, second, ..] if first.is_word("prepare") && second.is_word("transaction"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_statements_are_nothing_to_warn_of() {
        for sql in [
            r#"CREATE ROLE "v-x" LOGIN"#,
            "create user v_x",
            "GRANT SELECT ON t TO v_x",
            "DO $$ BEGIN EXECUTE pg_catalog.format('CREATE ROLE %I', 'v-x'); END $$",
            "PREPARE transactions AS SELECT 1",
            "",
        ] {
            let name = if sql.contains("v-x") { "v-x" } else { "v_x" };
            assert_eq!(advice(sql, name), None, "{sql}");
        }
    }

    #[test]
    fn statements_that_control_transactions_are_known() {
        for sql in ["COMMIT", "/* x */ end", "rollback to a", "PREPARE TRANSACTION 'x'", "START TRANSACTION"] {
            assert!(ends_transaction(sql), "{sql}");
        }
        for sql in ["CREATE ROLE x", "PREPARE x AS SELECT 1", "DO $$ BEGIN COMMIT; END $$", "\"commit\"", ""] {
            assert!(!ends_transaction(sql), "{sql}");
        }
    }

    #[test]
    fn a_role_that_is_created_is_seen_wherever_it_stands() {
        for sql in [
            "create /* a */ user x",
            "DO $$ BEGIN CREATE ROLE x; END $$",
            "DO $$ BEGIN EXECUTE format('CREATE ROLE %I', 'x'); END $$",
            "DO 'BEGIN CREATE GROUP x; END'",
        ] {
            assert!(creates_role(sql), "{sql}");
        }
        for sql in
            ["SELECT vault.create_user('x')", "INSERT INTO users VALUES ('x')", "CREATE USER_x", "-- CREATE ROLE"]
        {
            assert!(!creates_role(sql), "{sql}");
        }
    }

    #[test]
    fn a_warning_names_the_actual_slip() {
        for (sql, part) in [
            ("CREATE ROLE Lname LOGIN", "without double quotes: write \"{{name}}\""),
            ("GRANT SELECT ON t TO Lname", "without double quotes"),
            ("DO $$ BEGIN CREATE ROLE Lname; END $$", "without double quotes"),
            ("CREATE ROLE “Lname” LOGIN", "pasted"),
            ("CREATE ROLE \"Lname\" PASSWORD ‘x’", "pasted"),
            ("CREATE ROLE\u{a0}\"Lname\"", "pasted"),
            ("DO $ BEGIN CREATE ROLE \"Lname\"; END $", "single `$`"),
            ("DO 4711 BEGIN NULL; END 4711", "process number"),
        ] {
            assert!(advice(sql, "Lname").is_some_and(|said| said.contains(part)), "{sql}: {:?}", advice(sql, "Lname"));
        }
        for sql in [
            "CREATE ROLE \"Lname\" PASSWORD 'it’s “so”'",
            "CREATE ROLE 'Lname'",
            "COMMENT ON ROLE \"Lname\" IS $t$“x”$t$",
            "GRANT g TO \"Lname\" -- ‘’",
        ] {
            assert_eq!(advice(sql, "Lname"), None, "{sql}");
        }
    }

    #[test]
    fn what_outlives_the_request_or_the_lease_is_told() {
        for (sql, part) in [
            (r#"CREATE ROLE "v-x-2" LOGIN"#, "another role"),
            ("prepare /* */ transaction 'x'", "PREPARE TRANSACTION"),
            ("COMMIT", "one transaction"),
            ("COPY t TO STDOUT", "COPY"),
            ("DO $$ BEGIN EXECUTE format('CREATE ROLE %I', 'v-x'); END $$", "without their schema"),
            ("SELECT concat (a, b)", "without their schema"),
        ] {
            assert!(advice(sql, "v-x").is_some_and(|said| said.contains(part)), "{sql}");
        }
        assert!(prepares_transaction("PREPARE TRANSACTION 'x'") && !prepares_transaction("PREPARE x AS SELECT 1"));
    }
}
