//! Audit devices: each gets a finished line and can only write it or fail.
//!
//! Must not know: what is in a line. Secrets in it are HMACs already.
//!
//! Start with [`Devices`] (which device an option set makes), then [`file`], and `writer`, the thread that each device has.
//!
//! Invariant: `Ok` means that the operating system has the whole line, unless the operator wants it discarded. A write
//! that blocks holds up nothing but its own device.

mod devices;
mod discard;
pub mod file;
mod lines;
mod stdout;
mod writer;

pub use devices::Devices;
