//! How a PostgreSQL server is reached: connection strings, TLS, sessions, quoting. The database engine and the store both use it.
//!
//! Must not know: leases, storage, mounts, HTTP. It is given a connection string and gives back a session.
//!
//! Start with [`dsn`] (reads a connection string), then [`tls`] (what a connection trusts and shows), [`dial`] (opens a session) and
//! `wire` (the bytes before the server lets us in). [`files`] reads the files that a connection names; [`sql`] quotes.
//!
//! Invariants: no error, log line or `Debug` holds a password. A password is sent in clear text only to a server that TLS has
//! verified, or over a socket of this machine. Every option of a connection string is obeyed or refused by name.

pub mod dial;
pub mod dsn;
mod error_chain;
pub mod files;
pub mod sql;
pub mod tls;
mod wire;

pub use error_chain::chain;
