//! The database engine against a real PostgreSQL, through the seam that the lease room uses.
//!
//! One binary, files by subject; `support` has the engine with its surroundings.

mod configuration;
mod hostile;
mod issuing;
mod outages;
mod renewal;
mod revocation;
mod support;
mod tls;
