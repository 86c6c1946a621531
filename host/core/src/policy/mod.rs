//! Policies: the operator's texts, third parties' modules, and the verdicts that follow from both.
//!
//! Must not know: how a glob matches or a policy parses. The components behind [`seams::sandbox`](crate::seams::sandbox) know that.
//!
//! Start with [`documents`] (stored texts), then [`decide`] (the verdict on one request), then [`egp`] and [`modules`] (third parties).
//!
//! Invariants: default deny; deny wins; a guest that fails never counts as an allow.

pub mod decide;
pub mod documents;
pub mod egp;
pub(crate) mod egp_paths;
pub mod holder;
pub mod modules;

pub use documents::{Policies, PolicyDocument, check};
pub use egp::Egps;
pub use holder::Holder;
pub use modules::Modules;
