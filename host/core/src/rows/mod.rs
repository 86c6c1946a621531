//! What is stored of a lease: its row, its legal moves, and why it ends. Expiring tokens are rows too, and so are jobs.
//!
//! Must not know: who works on rows, and how.

pub mod ending;
pub mod job;
pub mod lease;
pub mod state;
