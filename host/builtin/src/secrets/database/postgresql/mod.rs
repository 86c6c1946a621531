//! PostgreSQL: how a database is reached, and the SQL that makes, extends and ends a role there.
//!
//! Must not know: mounts, routes, how leases are kept. It gets a pool, a role's name and rendered statements.
//!
//! Start with `pool` (sessions, turns, the server's clock), then `issue`, `renew`, `revoke`; `statements` says how SQL
//! text is split and checked. How a connection string is read and followed is in the crate `leasehold-postgresql`.

pub(crate) mod disable_login;
pub(crate) mod dry_run;
pub(crate) mod failure;
pub(crate) mod grants;
pub(crate) mod issue;
pub(crate) mod locks;
pub(crate) mod logins;
pub(crate) mod members;
mod membership;
pub(crate) mod orphans;
pub(crate) mod owned_objects;
pub(crate) mod ownership_comment;
pub(crate) mod pool;
pub(crate) mod reassign_owner;
pub(crate) mod renew;
pub(crate) mod revoke;
pub(crate) mod role_identity;
pub(crate) mod scram;
pub(crate) mod set_password;
pub(crate) mod statements;
pub(crate) mod transaction;
pub(crate) mod verify_absent;

pub(crate) use leasehold_postgresql::{dial, dsn, files, sql, tls};
