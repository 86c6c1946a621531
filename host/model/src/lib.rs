//! The words of Leasehold: one type per meaning, each with one way in.
//!
//! Must not know: storage, HTTP, wasm, PostgreSQL, or how late it is. No async, no I/O, no clock reading.
//!
//! Start with [`time`] (moments and lengths), then [`lease`], [`token`], [`mount`] and [`operation`]. [`lock`] is no word: it
//! stands here because every crate locks something, and all of them must read a panic the same way.
//!
//! Invariants: a parsed name is well formed; a secret has no `Display`, no `Serialize`, and a `Debug` that hides it.

pub mod cidr;
pub mod count;
pub mod duration;
pub mod glob;
pub mod lease;
pub mod lock;
pub mod mount;
pub mod name;
pub mod operation;
pub mod time;
pub mod token;

pub use cidr::Cidr;
pub use count::counted;
pub use lease::LeaseId;
pub use mount::{MountAccessor, MountPath};
pub use operation::{Capabilities, Operation};
pub use time::{Timestamp, Ttl};
pub use token::{Accessor, TokenHash, TokenId};
