//! What can go wrong, in words that tell a contributor what to do.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why there is no private PostgreSQL, or why it did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No directory with both `initdb` and `postgres` was found.
    #[error("{0}")]
    NotInstalled(String),
    /// `LEASEHOLD_PG_BIN` names a directory without the programs.
    #[error("LEASEHOLD_PG_BIN is `{}`, which holds no `initdb` and `postgres`", .0.display())]
    WrongDirectory(PathBuf),
    /// The installed PostgreSQL is older than what Leasehold supports.
    #[error("PostgreSQL {found} in `{}` is too old: 13 or newer is needed", .bin.display())]
    TooOld {
        /// The version found.
        found: String,
        /// Where it was found.
        bin: PathBuf,
    },
    /// PostgreSQL refuses to run as root, and there is no one else to run it as.
    #[error("PostgreSQL does not run as root, and there is neither a user `postgres` nor a user `nobody` to run it as")]
    NoUnprivilegedUser,
    /// A file or a process could not be handled.
    #[error("could not {what}")]
    Io {
        /// What was tried, as an infinitive.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{program}` failed ({status}): {stderr}")]
    Program {
        /// The program's name, without arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The server did not come up.
    #[error("PostgreSQL did not start: {reason}\n{log}")]
    DidNotStart {
        /// What was seen from outside.
        reason: String,
        /// The end of the server's log.
        log: String,
    },
    /// An SQL statement was refused.
    #[error("psql failed: {0}")]
    Sql(String),
    /// The server has been stopped.
    #[error("the private PostgreSQL is not running")]
    NotRunning,
    /// The server runs already.
    #[error("the private PostgreSQL is running already")]
    Running,
}

impl Error {
    /// Wraps an I/O error with what was tried: `.map_err(Error::io("read the log"))`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
