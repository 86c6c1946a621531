//! The sandbox from outside: through the seam, with the components that ship, with probes, and against native code.
//! Needs the components of `cargo xtask guests`.

mod acl;
mod builtins;
mod gate;
mod modules;
mod native;
mod probes;
mod support;
