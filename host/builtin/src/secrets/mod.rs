//! Secrets engines that ship with the server, one folder each.
//!
//! Must not know: HTTP, wasmtime, how leases are kept. An engine reads, plans, and acts on its target when the lease room says so.
//!
//! Start with [`database`].

pub mod database;
