//! The rules of Leasehold, and the seams behind which everything technical stands.
//!
//! Must not know: hyper, wasmtime, SQLite, tokio-postgres. It compiles and runs its tests without them.
//!
//! Start with [`request`] (what goes in and comes out), then [`seams`] (what the rest plugs into), then [`api`]
//! (how requests are answered), then the modules it calls: [`token`], [`policy`], [`mount`], [`jobs`], [`lease`], [`audit`].
//!
//! Invariants: default deny; no effect without a durable intent; no secret leaves before audit has it.

pub mod api;
pub mod audit;
mod auto_unseal;
pub mod backoff;
mod codec;
mod commit;
pub mod connection;
mod control_group;
pub mod core;
pub mod fail;
pub mod fields;
pub mod identity;
pub mod jobs;
pub mod keys;
pub mod lease;
pub mod lockout;
mod metrics;
pub mod mount;
mod names;
mod near;
pub mod nodes;
pub mod passwords;
pub mod policy;
pub mod quorum;
pub mod quota;
pub mod random;
pub mod request;
pub mod routes;
pub mod rows;
pub mod seams;
mod store_clock;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod token;
mod ttl;
pub mod wrapping;

pub use crate::core::{Core, Settings};
