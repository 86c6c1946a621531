//! How requests are answered.
//!
//! Must not know: HTTP.
//!
//! Start with [`pipeline`] (the one function that every request takes), then [`call`] (what a handler of the server's own routes
//! is given), [`login`] (what a login becomes), [`sys`] and [`token`] (the routes of `sys/` and `auth/token/`); [`undelivered`] takes
//! back what a client never got.

pub(crate) mod call;
pub(crate) mod login;
pub mod pipeline;
pub mod sys;
pub mod token;
pub(crate) mod undelivered;
