//! Where technology plugs in: storage, clock, entropy, sandbox, engines, auth methods, audit devices; with what those that plug
//! in are given ([`mount_storage`], [`token_params`]) and how they fail ([`error`]). Nothing else lives here.

pub mod audit;
pub mod auth;
pub mod engine;
pub mod error;
pub mod host;
pub mod job;
pub mod mount_leases;
pub mod mount_storage;
pub mod nodes;
pub mod sandbox;
pub mod seal;
pub mod snapshot;
pub mod storage;
pub mod store_copy;
pub mod token_params;
