//! A private, throw-away PostgreSQL from the programs that are installed: for development, the demo and every test.
//!
//! Must not know: Leasehold. It depends on nothing of ours and could serve any program that needs a real PostgreSQL.
//!
//! Start with [`DevPg::start`]; `home` holds the directory and the watchdog, `template` the cached `initdb`, `seed` what
//! the database looks like, `process` the server itself.
//!
//! Invariants: the server listens on 127.0.0.1 only, or on one address of a namespace, and every TCP login is SCRAM. Its files and processes vanish with
//! their owner, whichever way the owner ends. No password is ever on a command line or in the server's log because of us.

mod error;
mod home;
mod identity;
mod options;
mod process;
mod programs;
mod psql;
mod random;
mod seed;
mod server;
mod template;

pub use error::Error;
pub use options::{Login, Network, Options, TlsFiles};
pub use process::Stop;
pub use server::DevPg;

/// The directory of the installed PostgreSQL's programs, for whoever starts one in another way than [`DevPg`].
///
/// # Errors
/// [`Error::NotInstalled`] says what to install.
pub fn programs() -> Result<std::path::PathBuf, Error> {
    programs::Programs::find(None).map(|programs| programs.bin)
}

/// User and group that a PostgreSQL of this process runs as: never root.
///
/// # Errors
/// [`Error::NoUnprivilegedUser`] when there is none.
pub fn user() -> Result<(u32, u32), Error> {
    identity::Identity::find().map(|identity| (identity.uid, identity.gid))
}
