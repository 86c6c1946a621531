//! Audit devices: each gets a finished line and can only write it or fail.
//!
//! Must not know: what is in a line. Secrets in it are HMACs already.
//!
//! Start with [`Devices`] (which device an option set makes), then [`file`].
//!
//! Invariant: `Ok` means that the operating system has the whole line, unless the operator wants it discarded.

mod devices;
mod discard;
pub mod file;
mod stdout;

pub use devices::Devices;
