//! What opens the barrier instead of people: a key in a file or a variable, or another server's transit engine.
//!
//! Must not know: the barrier, the store, configuration files. It gets settings, and wraps and unwraps one small key.
//!
//! Start with [`StaticSeal`] and [`TransitSeal`], which implement [`leasehold_core::seams::seal::KeyWrapper`].
//!
//! Invariants: no key and no token is in an error, a log line or a `Debug`. Every answer of another server is bounded, in time and size.

mod hidden;
mod static_key;
mod transit;

pub use hidden::Hidden;
pub use static_key::{NamedKey, StaticSeal, StaticSettings};
pub use transit::{TransitSeal, TransitSettings};
