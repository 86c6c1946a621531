//! Stores: where values and lease rows are kept, and the barrier that seals them.
//!
//! Must not know: HTTP, tokens, engines, or what a value means. Keys are readable, values are bytes.
//!
//! Start with [`conformance`] (what every store promises), then [`memory`] (the promise at its plainest), [`sqlite`]
//! (the promise kept over `kill -9`),
//! [`postgresql`] (the same in a database that a server reaches over the network), [`barrier`] (a store over a store, and the seal) and [`snapshot`]
//! (all of a store in a file) and [`transfer`] (from one store into another).
//!
//! Invariants: a batch is written whole or not at all; when `commit` has returned, a durable store has it on disk; one
//! lease row is never claimed by two holders at once; behind the barrier nothing but the wrapped keys is readable; a
//! sealed barrier answers nothing.

pub mod barrier;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod integers;
pub mod memory;
pub mod postgresql;
pub mod snapshot;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod text_range;
pub mod transfer;

pub use barrier::Barrier;
pub use memory::MemoryStorage;
pub use postgresql::{PostgresOpenError, PostgresSettings, PostgresStorage};
pub use sqlite::{OpenError, SqliteStorage};
