//! Mounts: where engines answer, and the corner of storage that each may see.
//!
//! Must not know: what an engine does with a request.
//!
//! Start with `table` (the mount table and its rules), then `route` (longest prefix), then [`storage`].
//!
//! Invariant: an engine reads and writes below `mount/<accessor>/` and nowhere else.

pub mod storage;

pub use storage::MountStorage;
