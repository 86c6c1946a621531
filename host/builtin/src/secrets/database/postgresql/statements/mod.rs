//! Statement texts as PostgreSQL reads them: unpacked, split, a secret put in, sorted by what may run at once.
//!
//! Must not know: connections, leases, roles' configuration, the template guest. Pure functions over text.
//!
//! Start with [`lexer`]: everything else asks it where a literal, an identifier or a comment ends. Quoting decides
//! here whether a secret stays inside its literal, so there is one lexer and no second opinion.
//!
//! Invariants: a `;` inside quotes, comments, parentheses or a function body never splits. A secret that is put in never
//! changes which tokens a statement has. No text makes any of this panic or recurse without bound.

mod advice;
mod lexer;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod secret;
mod session;
mod shared;
mod split;

pub(crate) use advice::{advice, creates_role, ends_transaction, prepares_transaction};
pub(crate) use secret::{Placement, placements, substitute};
pub(crate) use session::{leaves_session_alone, sets_something};
pub(crate) use shared::touches_shared;
pub(crate) use split::{split, unpack};

#[cfg(test)]
mod tests;
