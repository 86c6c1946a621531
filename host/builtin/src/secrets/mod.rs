//! Secrets engines that ship with the server, one folder each.
//!
//! Must not know: HTTP, wasmtime, how leases are kept. An engine reads, plans, and acts on its target when the lease module says so.
//!
//! Start with [`kv`], which is the smallest, then [`database`].

pub mod database;
pub mod kv;
