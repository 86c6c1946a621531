//! Where technology plugs in: storage, clock, entropy, sandbox, engines, auth methods, audit devices. Nothing else lives here.

pub mod audit;
pub mod auth;
pub mod engine;
pub mod host;
pub mod sandbox;
pub mod seal;
pub mod storage;
