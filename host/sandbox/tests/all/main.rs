//! The sandbox from outside: through the seam, with the components that ship, with probes, and against native code.
//! Needs the components of `cargo xtask guests`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod acl;
mod builtins;
mod change_freeze;
mod gate;
mod modules;
mod native;
mod probes;
mod support;
