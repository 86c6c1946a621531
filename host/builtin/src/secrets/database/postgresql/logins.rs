//! Logging in where more than one password may be the one that works: between the moments when a new password was stored and when it is
//! known that the target took it.
//!
//! Must not know: where passwords are stored, or which of them is meant to last.
//!
//! Invariants: the passwords are tried in their order, each on the same way to the same target, and another one only when the target said
//! that the one before is not the user's. Which one worked last is tried first.

use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::SecretString;

use super::dial::{DialError, Dialer, Dialled};

/// One login with the passwords that it may have.
pub(crate) struct Logins {
    dialers: Vec<Dialer>,
    /// The place of the one that worked last.
    works: AtomicUsize,
}

/// What a login met that was only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// The target asked for the password, and it is the user's.
    Right,
    /// The target let the user in without asking for a password: that says nothing about it.
    Unasked,
    /// The target says that it is not.
    Wrong,
    /// The target lets this user in no further, whatever the password is.
    NotLetIn,
}

impl Logins {
    /// `others`: what the password may be besides the one that `first` has.
    pub(crate) fn new(first: &Dialer, others: &[SecretString]) -> Self {
        let others = others.iter().map(|password| first.with_password(password));
        Self { dialers: std::iter::once(first.clone()).chain(others).collect(), works: AtomicUsize::new(0) }
    }

    pub(crate) fn database(&self) -> &str {
        self.dialers.first().map_or("", |dialer| dialer.dsn.database.as_str())
    }

    /// A session with whichever password works.
    pub(crate) async fn dial(&self, database: &str) -> Result<Dialled, DialError> {
        let preferred = self.works.load(Ordering::Relaxed);
        let order = std::iter::once(preferred).chain((0..self.dialers.len()).filter(|at| *at != preferred));
        let mut refused = None;
        for at in order {
            let Some(dialer) = self.dialers.get(at) else { continue };
            match dialer.dial(database).await {
                Ok(dialled) => {
                    self.works.store(at, Ordering::Relaxed);
                    return Ok(dialled);
                }
                Err(error) if error.is_wrong_password() => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let nothing = || DialError::Refused("there is no password to log in with".to_owned());
        Err(refused.unwrap_or_else(nothing))
    }
}

/// Whether `password` is the one of `user`.
///
/// # Errors
/// The target could not be asked.
pub(crate) async fn try_one(dialer: &Dialer, user: &str, password: &SecretString) -> Result<Login, DialError> {
    let dialer = if user == dialer.dsn.user { dialer.with_password(password) } else { dialer.as_user(user, password) };
    let database = dialer.dsn.database.clone();
    let dialer = dialer.without_session_state().alone();
    let let_in = |dialer: &Dialer| if dialer.was_asked() { Login::Right } else { Login::Unasked };
    match dialer.dial(&database).await {
        Ok((client, task)) => {
            drop(client);
            task.abort();
            Ok(let_in(&dialer))
        }
        Err(error) if error.is_wrong_password() => Ok(Login::Wrong),
        Err(error) => match error.as_db_error().map(|db| db.code().code()) {
            // The right to connect is looked at after the password.
            Some("42501") => Ok(let_in(&dialer)),
            Some(code) if code.starts_with("28") => Ok(Login::NotLetIn),
            _ => Err(error),
        },
    }
}
