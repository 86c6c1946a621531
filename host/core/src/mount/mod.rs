//! Mounts: where engines answer, and the corner of storage that each may see.
//!
//! Must not know: what an engine does with a request.
//!
//! Start with [`table`] (the mount table, its rules, the longest prefix), then [`storage`].
//!
//! Invariant: an engine reads and writes below `mount/<accessor>/` and nowhere else.

pub mod engines;
pub mod methods;
pub mod moves;
pub mod storage;
pub mod table;
pub mod version;

pub use engines::{Engines, SystemTtls};
pub use methods::AuthMethods;
pub use moves::MoveStatus;
pub use storage::{MountBatch, MountStorage};
pub use table::{MountEntry, MountTable, MountTokenType, Table};
