//! Mounts: where engines and auth methods answer.
//!
//! Must not know: what an engine does with a request.
//!
//! Start with [`table`] (the mount table, its rules, the longest prefix).

pub mod engines;
pub mod methods;
pub mod moves;
pub mod table;
pub mod version;

pub use engines::{Engines, SystemTtls};
pub use methods::AuthMethods;
pub use moves::{Move, MoveState};
pub use table::{MountEntry, MountTable, MountTokenType, Table};
