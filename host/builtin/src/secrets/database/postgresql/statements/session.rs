//! Which statements leave the session that runs them as it was: the next lease's statements run on it too.

use super::lexer::{Token, tokens};
use super::split::split;

/// Whether nothing of `sql` can outlast its transaction in the session: a setting, a role that was put on, a lock, a table of its
/// own. Everything that is not recognised can.
pub(crate) fn leaves_session_alone(sql: &str) -> bool {
    split(sql).iter().all(|statement| {
        let words: Vec<Token<'_>> = tokens(statement).filter(Token::is_significant).take(2).collect();
        is_plain(&words)
    })
}

/// Whether a statement of `sql` is a `SET`, if only for its transaction.
pub(crate) fn sets_something(sql: &str) -> bool {
    split(sql)
        .iter()
        .any(|statement| tokens(statement).find(Token::is_significant).is_some_and(|word| word.is_word("set")))
}

fn is_plain(words: &[Token<'_>]) -> bool {
    let Some((verb, rest)) = words.split_first() else { return true };
    let goes_on = |with: &[&str]| rest.first().is_some_and(|next| with.iter().any(|word| next.is_word(word)));
    let is = |word: &str| verb.is_word(word);
    ["grant", "revoke", "comment"].into_iter().any(is)
        || is("create") && goes_on(&["role", "user", "group"])
        || is("alter") && goes_on(&["role", "user", "group", "default"])
        || is("drop") && goes_on(&["role", "user", "group", "owned"])
        || is("reassign") && goes_on(&["owned"])
        || is("set") && goes_on(&["local", "transaction"])
}

#[cfg(test)]
mod tests {
    use super::leaves_session_alone;

    #[test]
    fn what_makes_roles_and_rights_leaves_nothing_in_a_session() {
        for sql in [
            r#"CREATE ROLE "x" WITH LOGIN PASSWORD 'p' IN ROLE readonly; GRANT SELECT ON t TO "x""#,
            "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO x",
            "REASSIGN OWNED BY x TO y; DROP OWNED BY x; DROP ROLE IF EXISTS x",
            "SET LOCAL search_path = s; COMMENT ON ROLE x IS 'y'; REVOKE g FROM x",
            "ALTER ROLE x SET search_path = s",
            " -- nothing",
        ] {
            assert!(leaves_session_alone(sql), "{sql}");
        }
    }

    #[test]
    fn what_sets_asks_or_is_unknown_may_leave_something() {
        for sql in [
            "SET search_path = s",
            "SET SESSION AUTHORIZATION x",
            "SET ROLE x",
            "SELECT pg_advisory_lock(1)",
            "SELECT set_config('search_path', 's', false)",
            "DO $$ BEGIN SET search_path = s; END $$",
            "CREATE TEMP TABLE t (x int)",
            "LISTEN x",
            "PREPARE p AS SELECT 1",
            "GRANT SELECT ON t TO x; SET search_path = s",
        ] {
            assert!(!leaves_session_alone(sql), "{sql}");
        }
    }
}
