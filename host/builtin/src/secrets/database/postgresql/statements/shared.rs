//! Which statements may run at the same time as those of other leases of the same database.
//!
//! PostgreSQL keeps the rights on an object in the one row of that object and does not wait for a row of its
//! catalogue that somebody else is changing: the second of two grants fails with `tuple concurrently updated` (XX000). So
//! statements that change a row which other leases change too take turns, and the others do not.
//!
//! Seen on PostgreSQL 15.20, 8 sessions, a statement per transaction, each with a leased role of its own (failed of all):
//!
//! | statement | failed |
//! |---|---|
//! | `CREATE ROLE`, with `IN ROLE g`, `IN GROUP g`, `ROLE g`, `ADMIN g` | 0 of 6000 |
//! | `GRANT g TO leased`, `REVOKE g FROM leased` | 0 of 3600 |
//! | `ALTER ROLE leased VALID UNTIL`, `SET`, `IN DATABASE … SET`, `RENAME TO` | 0 of 4800 |
//! | `DROP ROLE leased`, `COMMENT ON ROLE leased` | 0 of 3600 |
//! | `GRANT … ON TABLE`, `ON SCHEMA`, `ON DATABASE` | 79, 169, 87 of 480 |
//! | `REVOKE ALL ON TABLE` of a right that was never there | 49 of 480 |
//! | `ALTER DEFAULT PRIVILEGES` | 122 of 480 |
//! | `DROP OWNED BY leased`, with a right on a shared table; without any | 174; 0 of 480 |
//! | `ALTER ROLE g VALID UNTIL`, `ALTER ROLE ALL SET`, one role for all | 205, 200 of 1200 |
//! | `ALTER GROUP g ADD USER leased`, though `GRANT g` does the same | 225 of 1200 |
//! | `CREATE OR REPLACE FUNCTION` of one function | 249 of 480 |
//! | `ALTER DATABASE … SET` | 31 of 480 |

use super::lexer::{Kind, Token, tokens};
use super::split::split;

/// Whether some statement of `sql` can collide with one of another lease. `leased_role` is the PostgreSQL role of this lease,
/// unquoted. Everything that is not recognised can.
pub(crate) fn touches_shared(sql: &str, leased_role: &str) -> bool {
    split(sql).iter().any(|statement| {
        let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).collect();
        !is_alone(&words, leased_role)
    })
}

/// Whether a statement changes nothing but rows of the leased role.
fn is_alone(words: &[Token<'_>], leased_role: &str) -> bool {
    let Some((verb, rest)) = words.split_first() else { return true };
    let starts = |word: &str| rest.first().is_some_and(|first| first.is_word(word));
    let of_mapping = rest.get(1).is_some_and(|second| second.is_word("mapping"));
    let of_role = !of_mapping && ["role", "user", "group"].iter().any(|word| starts(word));
    let named = |from: usize| rest.get(from).is_some_and(|name| names(name, leased_role));
    if verb.is_word("create") {
        of_role
    } else if verb.is_word("alter") {
        // `ALTER GROUP g ADD USER x` changes the row of `g`.
        of_role && !starts("group") && named(1)
    } else if verb.is_word("drop") {
        let exists = rest.get(1).is_some_and(|word| word.is_word("if"));
        let name = if exists { 3 } else { 1 };
        of_role && named(name) && rest.len() == name + 1
    } else if verb.is_word("comment") {
        starts("on") && rest.get(1).is_some_and(|word| word.is_word("role")) && named(2)
    } else if verb.is_word("grant") {
        is_membership(rest, "to", leased_role)
    } else if verb.is_word("revoke") {
        is_membership(rest, "from", leased_role)
    } else {
        verb.is_word("set") || verb.is_word("reset")
    }
}

/// `… TO leased` or `… FROM leased`, of a membership: rights have an `ON`, which cannot be a role's name unquoted.
fn is_membership(rest: &[Token<'_>], direction: &str, leased_role: &str) -> bool {
    let mut words = rest.iter().skip_while(|word| !word.is_word(direction)).skip(1);
    let to_leased = words.next().is_some_and(|name| names(name, leased_role));
    let nobody_else = words.next().is_none_or(|next| !next.is_sign(","));
    to_leased && nobody_else && !rest.iter().any(|word| word.is_word("on"))
}

pub(super) fn names(token: &Token<'_>, role: &str) -> bool {
    match token.kind {
        Kind::Word => token.text.to_ascii_lowercase() == role,
        Kind::QuotedIdentifier if token.text.starts_with('"') => {
            token.inside().is_some_and(|inside| inside.replace("\"\"", "\"") == role)
        }
        _ => false,
    }
}
