//! The database engine against a real PostgreSQL, through the seam that the lease module uses.
//!
//! One binary, files by subject; `support` has the engine with its surroundings.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod attacks;
mod certificates;
mod client_certificates;
mod configuration;
mod connection_pages;
mod dry_run;
mod faults;
mod hostile;
mod hosts;
mod issuing;
mod limits;
mod memberships;
mod orphans;
mod outages;
mod password_policies;
mod renewal;
mod revocation;
mod rotation;
mod standing;
mod static_roles;
mod stored_password;
mod support;
mod tls;
