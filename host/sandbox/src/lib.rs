//! Runs WebAssembly components behind the seams of [`leasehold_core::seams::sandbox`]; the only crate that names wasmtime.
//!
//! Must not know: tokens, leases, HTTP, storage, or what a policy decides about. Data in, data out.
//!
//! Start with [`Sandbox`] (the three seams) and `config` (what it is built from, and every limit). `engine` holds the settings that
//! all programs share; `store` is one guest's limits and why it stopped; `gate` and `compile` are a third party's way
//! in; `places` says who may run when; `acl`, `statements` and `modules` are the three kinds of guests, each bound to its folder of `wit/`.
//!
//! Invariants: guests import nothing. A trap, a limit or an answer out of bounds is an error, never an allow, and the next
//! call is served by another instance. Whatever a guest gets or gives is bounded. No credential enters a guest.

mod acl;
mod bindings;
mod compile;
mod config;
mod engine;
mod gate;
mod metrics;
mod modules;
mod places;
mod sandbox;
mod statements;
mod store;

pub use compile::{compile_worker, precompile};
pub use config::{Artifact, Budget, Builtins, Compiler, Config, GuestLimits, ModuleLimits};
pub use sandbox::{Sandbox, inspect_offline};
