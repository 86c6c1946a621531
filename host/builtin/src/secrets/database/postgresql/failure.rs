//! What can go wrong with a target, in the wire's words, and never with a secret in it.

use std::error::Error as _;

use leasehold_core::seams::engine::EngineError;
use leasehold_postgresql::chain;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::error::{ErrorPosition, SqlState};

/// Why a target did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// The target does not answer, refuses connections or hangs.
    #[error("{0}")]
    Down(String),
    /// The same, and nothing was sent that could outlast it.
    #[error("{0}")]
    Unreached(String),
    /// All connections of the pool are in use.
    #[error("{0}")]
    Busy(String),
    /// The connection was configured anew and its pool closed, before anything was sent.
    #[error("the connection was configured anew meanwhile")]
    Reconfigured,
    /// PostgreSQL's own error.
    #[error("{0}")]
    Sql(Box<SqlError>),
    /// Ours; complete as it stands.
    #[error("{0}")]
    Refused(String),
}

/// What PostgreSQL said of one statement, and which one that was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SqlError {
    severity: String,
    message: String,
    code: String,
    detail: Option<String>,
    hint: Option<String>,
    /// Where in a function or a block, in PostgreSQL's words.
    context: Option<String>,
    /// Counts characters of the text that was sent, from 1.
    position: Option<usize>,
    /// Which of the operator's statements it was; `None` for a statement of ours.
    place: Option<String>,
    /// What we found out about it, and what would help.
    notes: Vec<String>,
}

impl std::fmt::Display for SqlError {
    /// Vault's text first, so that whoever compares it finds it; then what a person needs to mend it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.code)?;
        if let Some(place) = &self.place {
            write!(f, ": {place}")?;
        }
        let labelled = [("DETAIL", &self.detail), ("HINT", &self.hint), ("CONTEXT", &self.context)];
        for (label, text) in labelled.into_iter().filter_map(|(label, text)| Some((label, text.as_ref()?))) {
            write!(f, "; {label}: {}", text.replace('\n', "; "))?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

impl TargetError {
    pub(crate) fn is_code(&self, wanted: &SqlState) -> bool {
        matches!(self, Self::Sql(error) if error.code == wanted.code())
    }

    /// Whether the server takes no writes: it has become a standby, and another is the primary now.
    pub(crate) fn is_of_standby(&self) -> bool {
        self.is_code(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether PostgreSQL refused a statement for a reason that stays: the same statement would fail again. Not so: a lock that
    /// somebody else holds, a change at the same time, a resource that is used up, a time limit.
    pub(crate) fn is_refusal(&self) -> bool {
        const PASSING: [&str; 7] = ["08", "40", "53", "55", "57", "58", "XX"];
        match self {
            Self::Sql(error) => !PASSING.iter().any(|class| error.code.starts_with(class)),
            _ => false,
        }
    }

    /// Whether it was one of the operator's statements that failed.
    pub(crate) fn is_of_statement(&self) -> bool {
        matches!(self, Self::Sql(error) if error.place.is_some())
    }

    /// Says which statement it was: `index` counts from 0, `text` is what was sent.
    pub(crate) fn in_statement(self, purpose: &str, index: usize, count: usize, text: &str) -> Self {
        let Self::Sql(mut error) = self else { return self };
        let line = error.position.map(|position| {
            let lines = text.chars().take(position.saturating_sub(1)).filter(|letter| *letter == '\n').count();
            format!(", line {}", lines + 1)
        });
        error.place =
            Some(format!("{purpose} statement {} of {count}{}", index + 1, line.as_deref().unwrap_or_default()));
        Self::Sql(error)
    }

    /// Adds what we know about it; of an error of PostgreSQL's or of ours.
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        let note = note.into();
        match self {
            _ if note.is_empty() => self,
            Self::Sql(mut error) => {
                error.notes.push(note);
                Self::Sql(error)
            }
            Self::Refused(text) => Self::Refused(format!("{text}; {note}")),
            Self::Down(text) => Self::Down(format!("{text}; {note}")),
            other => other,
        }
    }

    /// Two changed one row of a catalogue at a time; "tuple concurrently updated" has no code of its own.
    pub(crate) fn is_collision(&self) -> bool {
        self.is_code(&SqlState::T_R_DEADLOCK_DETECTED) || self.is_code(&SqlState::INTERNAL_ERROR)
    }

    /// Takes out every part of a secret that a message of the server quotes. `names` are no secret, whatever letters they share with
    /// one: of users, databases, hosts and roles.
    pub(crate) fn scrubbed<N: AsRef<str>>(self, secrets: &[&SecretString], names: &[N]) -> Self {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let clean =
            |text: String| secrets.iter().fold(text, |text, secret| scrub(&text, secret.expose_secret(), &names));
        match self {
            Self::Down(text) => Self::Down(clean(text)),
            Self::Unreached(text) => Self::Unreached(clean(text)),
            Self::Busy(text) => Self::Busy(clean(text)),
            Self::Refused(text) => Self::Refused(clean(text)),
            Self::Reconfigured => Self::Reconfigured,
            Self::Sql(mut error) => {
                error.message = clean(error.message);
                for part in [&mut error.detail, &mut error.hint, &mut error.context, &mut error.place] {
                    *part = part.take().map(&clean);
                }
                error.notes = error.notes.into_iter().map(&clean).collect();
                Self::Sql(error)
            }
        }
    }

    /// Of a step with which nothing began.
    pub(crate) fn before_anything(self) -> Self {
        match self {
            Self::Down(text) => Self::Unreached(text),
            other => other,
        }
    }

    /// For the lease module, as it comes out of running statements.
    pub(crate) fn into_engine(self) -> EngineError {
        match self {
            Self::Down(text) => EngineError::Down(format!("unable to start transaction: {text}")),
            Self::Unreached(text) => EngineError::Unreached(format!("unable to start transaction: {text}")),
            Self::Busy(_) => EngineError::Busy(format!("unable to start transaction: {self}")),
            Self::Reconfigured => EngineError::Failed(format!("unable to start transaction: {self}")),
            Self::Sql(_) => EngineError::Failed(format!("failed to execute query: {self}")),
            Self::Refused(text) => EngineError::Failed(text),
        }
    }
}

impl From<tokio_postgres::Error> for TargetError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let text = || format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code());
                if is_down(db.code()) {
                    return Self::Down(text());
                }
                let position = match db.position() {
                    Some(ErrorPosition::Original(at)) => usize::try_from(*at).ok(),
                    _ => None,
                };
                Self::Sql(Box::new(SqlError {
                    severity: db.severity().to_owned(),
                    message: db.message().to_owned(),
                    code: db.code().code().to_owned(),
                    detail: db.detail().map(bounded),
                    hint: db.hint().map(bounded),
                    // The innermost line names the place; those above it only say who called.
                    context: db
                        .where_()
                        .and_then(|text| text.lines().find(|line| line.starts_with("PL/")))
                        .map(bounded),
                    position,
                    ..SqlError::default()
                }))
            }
            None if is_lost(&error) => Self::Down(chain(&error)),
            // An answer of a kind that nobody asked for, as to COPY: nothing is wrong with the server.
            None => Self::Refused(format!("failed to execute query: {}", chain(&error))),
        }
    }
}

/// A target may say as much as it likes; nobody reads more than this.
const TEXT_MAX: usize = 1_000;

fn bounded(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether an error tells of the connection.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// Codes that tell of the server, not of the statement: connection lost, shutting down, starting up, no connection left.
pub(crate) fn is_down(code: &SqlState) -> bool {
    code.code().starts_with("08")
        || [
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
            &SqlState::CANNOT_CONNECT_NOW,
            &SqlState::TOO_MANY_CONNECTIONS,
        ]
        .contains(&code)
}

/// Shorter parts of a secret may be chance; 8 of 24 characters still leave 95 bits.
const PART_MIN: usize = 8;

/// `text` with every run of 8 or more characters that also stands in `secret` taken out, whatever their case; but not a run that is
/// no more than a part of one of `names`.
fn scrub(text: &str, secret: &str, names: &[&str]) -> String {
    let least = PART_MIN.min(secret.len());
    if least == 0 || !secret.is_ascii() {
        return if secret.is_empty() { text.to_owned() } else { text.replace(secret, "[redacted]") };
    }
    let (lower, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (haystack, needle) = (lower.as_bytes(), secret.as_bytes());
    let mut hidden = vec![false; haystack.len()];
    // The servers' own word comes last and counts only beside another part: `password authentication failed` says nothing
    // of the password `rootpassword`.
    let (word, parts): (Vec<_>, Vec<_>) =
        needle.windows(least).partition(|part| *part == b"password" && needle.len() > least);
    for part in parts.into_iter().chain(word.iter().copied()) {
        for (at, window) in haystack.windows(least).enumerate() {
            let alone = word.contains(&part) && !hidden.iter().skip(at).take(least).any(|hidden| *hidden);
            if window == part && !alone {
                hidden.iter_mut().skip(at).take(least).for_each(|flag| *flag = true);
            }
        }
    }
    show_names(haystack, names, &mut hidden);
    let mut clean = String::with_capacity(text.len());
    let mut was_hidden = false;
    for (at, letter) in text.char_indices() {
        let is_hidden = hidden.get(at).copied().unwrap_or(false);
        if !is_hidden {
            clean.push(letter);
        } else if !was_hidden {
            clean.push_str("[redacted]");
        }
        was_hidden = is_hidden;
    }
    clean
}

/// Shows again what was hidden of a name and of nothing else. A hidden run that goes on beyond the name is a part of the secret.
fn show_names(text: &[u8], names: &[&str], hidden: &mut [bool]) {
    for name in names.iter().map(|name| name.to_ascii_lowercase()).filter(|name| !name.is_empty()) {
        for (at, window) in text.windows(name.len()).enumerate() {
            let end = at + name.len();
            let is_hidden = |at: Option<usize>| at.and_then(|at| hidden.get(at)).copied().unwrap_or(false);
            let goes_on =
                is_hidden(at.checked_sub(1)) && is_hidden(Some(at)) || is_hidden(Some(end - 1)) && is_hidden(Some(end));
            if window == name.as_bytes() && !goes_on {
                hidden.iter_mut().take(end).skip(at).for_each(|flag| *flag = false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D6: a password that begins like the user and the database took their names out of the message.
    #[test]
    fn a_name_is_shown_although_a_password_holds_it() {
        let names = ["postgres2", "postgres2_app", "db.postgres2.example"];
        for (said, shown) in [
            ("database \"postgres2_app\" does not exist", "database \"postgres2_app\" does not exist"),
            ("`user=postgres2 database=postgres2_app`: h", "`user=postgres2 database=postgres2_app`: h"),
            ("no host \"db.postgres2.example\"", "no host \"db.postgres2.example\""),
            ("near \"postgres2password\"", "near \"[redacted]\""),
            ("near \"postgres2pa\"", "near \"[redacted]\""),
            ("near \"xpostgres2password\" of postgres2", "near \"x[redacted]\" of postgres2"),
        ] {
            assert_eq!(scrub(said, "postgres2password", &names), shown);
        }
        // The password is the user's name: the name is what the message means.
        assert_eq!(scrub("user \"postgres2\"", "postgres2", &names), "user \"postgres2\"");
    }

    #[test]
    fn a_refusal_is_what_the_same_statement_would_meet_again() {
        let error = |code: &str| TargetError::Sql(Box::new(SqlError { code: code.to_owned(), ..SqlError::default() }));
        for code in ["42501", "42601", "22012", "2BP01", "0LP01", "P0001", "25001", "23505"] {
            assert!(error(code).is_refusal(), "{code}");
        }
        for code in ["55P03", "40P01", "XX000", "57014", "53200", "58030"] {
            assert!(!error(code).is_refusal(), "{code}");
        }
        assert!(!TargetError::Down("gone".to_owned()).is_refusal());
    }

    #[test]
    fn an_error_names_its_statement_its_line_and_all_that_postgresql_said() {
        let error = TargetError::Sql(Box::new(SqlError {
            severity: "ERROR".to_owned(),
            message: "no such thing".to_owned(),
            code: "42704".to_owned(),
            detail: Some("one\ntwo".to_owned()),
            hint: Some("try S3cretS3cret".to_owned()),
            position: Some(13),
            ..SqlError::default()
        }));
        let error = error.in_statement("creation", 2, 5, "SELECT é\n, 1\n").note("what would help");
        let said = error.scrubbed(&[&SecretString::from("S3cretS3cret")], &[] as &[&str]).into_engine().to_string();
        assert_eq!(
            said,
            "failed to execute query: ERROR: no such thing (SQLSTATE 42704): creation statement 3 of 5, line 2; \
             DETAIL: one; two; HINT: try [redacted]; what would help"
        );
    }

    #[test]
    fn no_part_of_a_secret_that_a_server_quotes_gets_through() {
        let secret = "Abcdefgh-IJKLMNOP-12345678";
        for (said, kept) in [
            ("syntax error at or near \"'Abcdefgh-IJKLMNOP-12345678'\"", "syntax error at or near \"'[redacted]'\""),
            ("role \"abcdefgh-ijklmnop\" does not exist", "role \"[redacted]\" does not exist"),
            ("near \"efgh-IJKL…\"", "near \"[redacted]…\""),
            ("ü Abcdefgh-IJKLMNOP-12345678 ü", "ü [redacted] ü"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(scrub(said, secret, &[]), kept);
        }
        assert_eq!(scrub("a short pw here", "pw", &[]), "a short [redacted] here");
        assert_eq!(scrub("x", "", &[]), "x");
        assert_eq!(scrub("password authentication failed", "rootpassword", &[]), "password authentication failed");
        assert_eq!(scrub("at \"rootpassword\": password", "rootpassword", &[]), "at \"[redacted]\": password");
        assert_eq!(scrub("at \"password1\"", "rootpassword1", &[]), "at \"[redacted]\"");
    }
}
