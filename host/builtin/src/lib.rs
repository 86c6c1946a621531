//! What ships with the server: secrets engines, auth methods and audit devices.
//!
//! Must not know: hyper, wasmtime, SQLite. Everything here stands behind a seam of `leasehold-core`.
//!
//! Start with [`registry`] (what there is), then [`secrets::database`], [`auth`] and [`audit`].
//!
//! Invariants: nothing here stores or logs a credential. An effect on a target happens only when the lease module asks for it.

pub mod audit;
pub mod auth;
pub mod registry;
pub mod secrets;
