//! A private, throw-away PostgreSQL from the programs that are installed: for development, the demo and every test.
//!
//! Must not know: Leasehold. It depends on nothing of ours and could serve any program that needs a real PostgreSQL.
//!
//! Start with [`DevPg::start`]; `home` holds the directory and the watchdog, `template` the cached `initdb`, `seed` what
//! the database looks like, `process` the server itself.
//!
//! Invariants: the server listens on 127.0.0.1 only and every TCP login is SCRAM. Its files and processes vanish with
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
pub use options::{Login, Options, TlsFiles};
pub use process::Stop;
pub use server::DevPg;
