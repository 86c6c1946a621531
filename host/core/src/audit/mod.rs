//! Audit: who asked for what, what was decided and why, before the answer leaves.
//!
//! Must not know: files or sockets; devices plug in behind [`AuditDevice`](crate::seams::audit::AuditDevice).
//!
//! Start with [`broker`] (at least one device has the line, or nothing leaves), then `lane` (a device that does not answer), then
//! [`line`] (the record) and [`hash`] (what becomes of secrets in it).
//!
//! Invariants: no string of a body reaches a device but as an HMAC; denials are recorded before they are answered; a record has a
//! greatest length; a device that does not answer holds up nobody for longer than one time-out.

pub mod broker;
mod form;
pub mod hash;
mod lane;
pub mod line;
mod unopened;

pub use broker::{Broker, DeviceEntry};
pub use form::Form;
pub use line::{Entry, Phase};
