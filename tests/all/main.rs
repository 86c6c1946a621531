//! Black-box tests: what a client, an operator and PostgreSQL see. One file for each chapter of the API's reference.
//!
//! Must not know: the server's crates. Plumbing is in `support`, facts are here.
//!
//! Start with `guide`, the way of the whole product; then the chapters.

// A test may fail by `unwrap`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// Plumbing for chapters to come stands beside what today's use.
#[allow(dead_code, unused_imports)]
#[path = "../support/mod.rs"]
mod support;

mod acl;
mod agent;
mod approle;
mod audit;
mod auth;
mod canaries;
mod cert;
mod chaos;
mod clients;
mod contention;
mod control_groups;
mod cookbook;
mod crash;
mod cve;
mod database;
mod devices;
mod documents;
mod failover;
mod guide;
mod hostile;
mod identity;
mod jwt;
mod kubernetes;
mod kv;
mod kv2;
mod leases;
mod listeners;
mod metrics;
mod migrate;
mod modules;
mod mounts;
mod nodes;
mod noise;
mod openapi;
mod operation;
mod outage;
mod password_policies;
mod policies;
mod postgresql_storage;
mod quorum;
mod quotas;
mod rekey;
mod role_limits;
mod rotation;
mod routing;
mod said;
mod seal;
mod sealing;
mod snapshot;
mod token_roles;
mod tokens;
mod tools;
mod torture;
mod userpass;
mod wording;
mod wrapping;
