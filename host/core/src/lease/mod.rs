//! Leases: the only place that decides when a credential begins and ends.
//!
//! Must not know: HTTP, wasmtime, SQL, or what a credential is. It moves effects that it cannot read.
//!
//! Start with [`record`] (the row) and [`states`] (the legal moves), then `issue` (intent, effect, commit), `renew`, `revoke`, and
//! `claims` (who works on what is due).
//!
//! Invariants: a PostgreSQL role exists only if a lease row names it. A lease never returns from `Revoking`.

pub mod record;
pub mod states;

pub use record::{LeaseBody, LeaseRow};
pub use states::{LeaseKind, LeaseState};
