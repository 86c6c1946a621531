//! Habits that hurt: what the statements would do wrong without any error.

use crate::sql::{Kind, Token, tokens};
use crate::{Diagnostic, Purpose, Severity, outline, spelling};

/// Behind so many tokens, of all statements together, nothing is looked at: no role's statements are like that, and bulk data
/// is none of our business.
const TOKENS_MAX: usize = 20_000;

/// SQL habits of all statements of one purpose.
pub(crate) fn habits(statements: &[String], purpose: Purpose) -> Vec<Diagnostic> {
    let (mut lexed, mut left, mut complete) = (Vec::with_capacity(statements.len()), TOKENS_MAX, true);
    for text in statements {
        let (tokens, all) = tokens(text, left);
        left -= tokens.len();
        complete &= all;
        lexed.push(tokens);
    }
    let mut found = Vec::new();
    for (index, (text, tokens)) in statements.iter().zip(&lexed).enumerate() {
        single_quoted_names(index, text, tokens, &mut found);
        if purpose == Purpose::Creation {
            direct_grants(index, text, tokens, &mut found);
        }
    }
    if purpose == Purpose::Creation && !statements.is_empty() && complete {
        creation(statements, &lexed, &mut found);
    }
    found
}

fn creation(statements: &[String], lexed: &[Vec<Token<'_>>], found: &mut Vec<Diagnostic>) {
    let words = |wanted: &dyn Fn(&Token<'_>, &Token<'_>) -> bool| {
        lexed.iter().enumerate().find_map(|(index, tokens)| {
            let pair = tokens.iter().zip(tokens.iter().skip(1)).find(|(first, second)| wanted(first, second))?;
            Some((index, pair.0.offset))
        })
    };
    let created =
        words(&|first, second| first.is("create") && ["role", "user", "group"].iter().any(|kind| second.is(kind)));
    let Some((index, offset)) = created else {
        let text = statements.first().map_or("", String::as_str);
        found.push(
            Diagnostic::at(
                Severity::Hint,
                "no-create-role",
                "the creation statements hold no CREATE ROLE".to_owned(),
                0,
                text,
                0,
            )
            .help(
                "fine when a function of yours creates the role; otherwise every lease names a role that is not there",
            ),
        );
        return;
    };
    if words(&|first, second| first.is("valid") && second.is("until")).is_none() {
        let text = statements.get(index).map_or("", String::as_str);
        found.push(
            Diagnostic::at(
                Severity::Warning,
                "no-valid-until",
                "CREATE ROLE without VALID UNTIL: PostgreSQL itself would never end this password".to_owned(),
                index,
                text,
                offset,
            )
            .help("add VALID UNTIL '{{expiration}}'; it holds even when nobody is there to revoke the lease"),
        );
    }
}

/// `GRANT SELECT ON t TO "{{name}}"`. A grant of membership has no ON.
fn direct_grants(index: usize, text: &str, tokens: &[Token<'_>], found: &mut Vec<Diagnostic>) {
    for (at, grant) in tokens.iter().enumerate().filter(|(_, token)| token.is("grant")) {
        if found.len() >= crate::DIAGNOSTICS_MAX {
            return;
        }
        let rest = tokens.iter().skip(at + 1).take_while(|token| !token.is_sign(";") && !token.is("grant"));
        let mut on = false;
        let mut to = false;
        for token in rest {
            on |= token.is("on");
            to |= on && token.is("to");
            if to && token.is_leased_role() {
                found.push(
                    Diagnostic::at(
                        Severity::Warning,
                        "direct-grant",
                        "a right is granted to the leased role itself".to_owned(),
                        index,
                        text,
                        grant.offset,
                    )
                    .help(
                        "grant it once to a group and write CREATE ROLE … IN ROLE that_group: a table takes some 2,400 \
                         grantees and then refuses every further one, and grants on one object cannot run at once",
                    ),
                );
                break;
            }
        }
    }
}

/// `CREATE ROLE '{{name}}'`: a syntax error in PostgreSQL, and a common one.
fn single_quoted_names(index: usize, text: &str, tokens: &[Token<'_>], found: &mut Vec<Diagnostic>) {
    let mut about_rights = false;
    let mut previous: Option<&Token<'_>> = None;
    for token in tokens {
        if found.len() >= crate::DIAGNOSTICS_MAX {
            return;
        }
        if token.is_sign(";") {
            about_rights = false;
        }
        about_rights |= token.is("grant") || token.is("revoke") || token.is("owned");
        let named = previous.is_some_and(|before| {
            ["role", "user", "group", "exists"].iter().any(|word| before.is(word))
                || (about_rights && ["to", "from", "by"].iter().any(|word| before.is(word)))
        });
        if named && token.kind == Kind::Text && token.is_leased_role() {
            found.push(
                Diagnostic::at(
                    Severity::Warning,
                    "single-quoted-name",
                    "single quotes make a text, not a name: PostgreSQL refuses this".to_owned(),
                    index,
                    text,
                    token.offset,
                )
                .help("write \"{{name}}\", in double quotes"),
            );
        }
        previous = Some(token);
    }
}

/// What looks like a placeholder and stays as text in the plain dialect.
pub(crate) fn left_in_place(statements: &[String], purpose: Purpose) -> Vec<Diagnostic> {
    let known = purpose.variables();
    let mut found = Vec::new();
    for (index, text) in statements.iter().enumerate() {
        let bytes = text.as_bytes();
        // Of `{{{name}}` the tag begins at the second brace, of `{{a {{name}}` at the last two.
        let mut open: Option<usize> = None;
        let mut at = 0;
        while let Some(pair) = bytes.get(at..at + 2) {
            match (pair, open) {
                (b"{{", _) => open = Some(at),
                (b"}}", Some(start)) => {
                    open = None;
                    let inner = text.get(start + 2..at).unwrap_or("");
                    if !known.contains(&inner) {
                        found.extend(placeholder(index, text, start, inner, purpose));
                    }
                    if found.len() >= crate::DIAGNOSTICS_MAX {
                        return found;
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
    found
}

fn placeholder(index: usize, text: &str, at: usize, inner: &str, purpose: Purpose) -> Option<Diagnostic> {
    let known = purpose.variables();
    let say = |code, message| Diagnostic::at(Severity::Warning, code, message, index, text, at);
    let shown: String = inner.chars().take(40).collect();
    if inner.trim_start().starts_with(['#', '/', '^', '>', '!', '*']) || inner.trim() == "else" {
        let message = format!("`{{{{{shown}}}}}` is handlebars and stays as it is: this is rendered as plain");
        return Some(say("handlebars-in-plain", message));
    }
    let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '~' || c == '&');
    if !outline::is_variable_name(word) && !word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.@".contains(&b)) {
        // JSON with nested braces, or whatever else: none of our business.
        return None;
    }
    let every: Vec<String> = known.iter().map(|name| format!("`{{{{{name}}}}}`")).collect();
    if known.iter().any(|name| word.eq_ignore_ascii_case(name)) {
        let meant = word.to_ascii_lowercase();
        let message = format!("`{{{{{shown}}}}}` stays as it is: only `{{{{{meant}}}}}` is replaced, to the letter");
        return Some(say("near-miss", message).help(format!("write `{{{{{meant}}}}}`")));
    }
    let message = format!("unknown variable `{shown}` stays as it is");
    if Purpose::Creation.variables().contains(&word) {
        let help = format!("`{word}` does not exist at {}; there are {}", purpose.word(), every.join(", "));
        return Some(say("unknown-variable", message).help(help));
    }
    let code = if word == inner { "unknown-variable" } else { "near-miss" };
    Some(match spelling::nearest(word, known) {
        Some(meant) => say(code, message).help(format!("did you mean `{{{{{meant}}}}}`?")),
        None => say("unknown-variable", message).help(format!("at {} there are {}", purpose.word(), every.join(", "))),
    })
}
