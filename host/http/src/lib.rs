//! The one HTTP frontend: any method on any path becomes a `LogicalRequest`, its answer becomes an envelope.
//!
//! Must not know: leases, storage, policies, what a route means. It translates and it bounds.
//!
//! Start with [`frontend`] (one request from bytes to bytes), then `path` (the one canonical path), `extract` and `body`
//! (what is read), `envelope`, `error` and `delivery` (what is written), `file` (snapshots, which are too large for memory), [`listener`] (sockets and the rules of each) and
//! [`serve`] (connections, TLS, draining).
//!
//! Invariants: everything a client can make large has a bound that holds before anybody asks who the client is. The path
//! that the policy sees is the path that the router uses. Every status code of an error is decided in `error`. A lease
//! or a new token whose answer was not written to the socket is taken back.

mod body;
mod delivery;
mod envelope;
mod error;
mod extract;
mod file;
pub mod frontend;
mod go_json;
mod json;
pub mod limits;
pub mod listener;
mod metrics;
mod path;
mod pipeline;
mod plain;
/// For the tests and the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod properties;
mod query;
mod rate;
pub mod serve;
#[cfg(test)]
mod tests;

pub use frontend::Frontend;
pub use limits::RequestLimits;
pub use pipeline::Pipeline;
