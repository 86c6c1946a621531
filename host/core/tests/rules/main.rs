//! The rules of the core, driven through its public functions: a store in memory, an engine, a sandbox and audit devices that
//! tests script, and tokio's paused clock, so that hours pass in milliseconds.
//!
//! Start with [`support`]. [`saga`] stops the lease sagas at every step; [`histories`] does so at random; [`pipeline`] holds
//! the order of one request; the rest are tables of rules.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod attempts;
mod audit;
mod auth;
mod histories;
mod identity;
mod jobs;
mod lease_quotas;
mod leases;
mod mount_leases;
mod mount_storage;
mod mounts;
mod operator;
mod path_limits;
mod pipeline;
mod policies;
mod quorum;
mod quotas;
mod reconcile;
mod rekey;
mod routes;
mod saga;
mod sealing;
mod several_servers;
mod snapshots;
mod support;
mod threads;
mod time;
mod token_ends;
mod tokens;
mod two_servers;
mod wrapping;
