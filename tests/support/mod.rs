//! Plumbing of the black-box tests: a server as a child process, a client, PostgreSQL, and a real OpenBao beside them.
//!
//! Must not know: any crate of the server. What is asserted here is what a client, an operator or PostgreSQL can see.
//!
//! Start with [`Server`], then [`Client`] and [`Answer`]; [`Database`] is one database of the PostgreSQL that all tests
//! share.
//!
//! Invariants: a server that a test started is gone with the test. When it goes, no secret that it handed out is in
//! its log, and it has not panicked.

mod answer;
mod bao;
pub mod chaos;
mod client;
mod command;
mod leasing;
mod pg;
mod ports;
mod probes;
mod provider;
mod secrets;
mod server;
mod tls;
pub mod torture;
mod wait;

pub use answer::Answer;
pub use bao::Bao;
pub use client::Client;
pub use command::{Cli, Ran};
pub use leasing::{CREATE_IN_GROUP, Credential};
pub use pg::{ADMIN, ADMIN_PASSWORD, Database, Session, own_postgresql, shared_postgresql};
pub use ports::free_port;
pub use probes::{change_freeze, component_probe, policy_probe};
pub use provider::{Asked, Provider, Signer, now};
pub use secrets::Secrets;
pub use server::{Durable, Kind, Server, under_test};
pub use tls::{Pair, Pairs, certificate, leaf_certificate};
pub use wait::{eventually, until};
